"""Step 8 of the audit: the institutions' own signed messages against the coordinator's record of a round."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from fl_alliance.errors import AllianceError, EvidenceRefused
from fl_alliance.parties.mail import Address, read_answer
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import RoundRecord
from fl_alliance.protocol.ids import BlobRef, digest_of
from fl_alliance.protocol.plan import TrainingPlan

A = TypeVar("A", bound=m.Bound)


@dataclass(frozen=True)
class Evidence:
    """The message files of one folder."""

    where: str
    """The folder's relative name."""
    address: Address
    """The parties' keys."""
    files: Mapping[str, bytes]

    def refuse(self, name: str, why: str) -> EvidenceRefused:
        """Return the error that names file and step."""
        return EvidenceRefused(f"step 8, {self.where}/{name}: {why}")


def check_messages(record: RoundRecord, plan: TrainingPlan, evidence: Evidence) -> int:
    """Return how many messages of the round of `record` were checked.

    Every member must have signed round keys, shares, upload, confirmation and check of the sum; every voter its vote.

    Raises:
        EvidenceRefused: names the message that is missing, not authentic, of another round, or says something else.
    """
    said = _open_all(plan, record.round, evidence)
    _check_roster(record, said, evidence)
    heads = {head.member: head.head for head in record.ledger_heads}
    for upload in record.uploads:
        update = _of(said, m.SealedUpdate, upload.member, evidence)
        sealed = {"roster_digest": record.roster_digest, "ledger_head": heads[upload.member],
                  "upload": BlobRef(digest=upload.digest, length=upload.length)}  # fmt: skip
        _require(update, sealed, upload.member, evidence)
    survivors = _of(said, m.SurvivorsConfirmed, record.members[0], evidence).survivors_digest
    for name in record.members:
        confirmed = _of(said, m.SurvivorsConfirmed, name, evidence)
        _require(confirmed, {"survivors_digest": survivors}, name, evidence)
        checked = _of(said, m.SumChecked, name, evidence)
        _require(checked, {"survivors_digest": survivors, "sum_digest": record.sum_digest}, name, evidence)
        if revealed := said.get(("revealed-shares", name)):
            _require(revealed, {"survivors_digest": survivors}, name, evidence)
    for name in record.votes:
        vote = _of(said, m.AdapterVote, name, evidence)
        agreed = {"sum_digest": record.sum_digest, "adapter_digest": record.adapter_digest}
        _require(vote, agreed, name, evidence)
    return len(said)


def check_key_messages(plan: TrainingPlan, evidence: Evidence) -> int:
    """Return how many messages from before the first round were checked: signatures and labels (EvidenceRefused)."""
    return len(_open_all(plan, 0, evidence))


def _check_roster(record: RoundRecord, said: Mapping[tuple[str, str], m.Bound], evidence: Evidence) -> None:
    """The roster's digest is recomputed from the signed round keys; everybody's shares must name it."""
    for name in record.members:
        keys = _of(said, m.RoundKeys, name, evidence)
        _require(keys, {"plan_digest": record.plan_digest}, name, evidence)
        shares = _of(said, m.SealedShares, name, evidence)
        _require(shares, {"roster_digest": record.roster_digest}, name, evidence)
    envelopes = [base64.b64encode(evidence.files[f"round-keys.{name}.json"]).decode() for name in record.members]
    roster = m.KeyRoster(alliance=record.alliance, job=record.job, round=record.round, round_keys=tuple(envelopes))
    if (digest := digest_of(encode(roster))) != record.roster_digest:
        raise EvidenceRefused(
            f"step 8, {evidence.where}: the round keys make roster {digest}, the record says {record.roster_digest}"
        )


def _open_all(plan: TrainingPlan, round_number: int, evidence: Evidence) -> dict[tuple[str, str], m.Bound]:
    """Return every message of the folder by kind and sender, authentic and of this job and round."""
    said: dict[tuple[str, str], m.Bound] = {}
    for name, data in evidence.files.items():
        try:
            sender, answer = read_answer(evidence.address, data)
        except AllianceError as error:
            raise evidence.refuse(name, str(error)) from None
        if name != f"{answer.kind}.{sender}.json":
            raise evidence.refuse(name, f"holds a {answer.kind} of {sender}")
        if sender not in plan.names:
            raise evidence.refuse(name, f"{sender} is not a member of the job")
        bound = {"alliance": plan.alliance, "job": plan.job, "round": round_number}
        _require(answer, bound, sender, evidence)
        said[answer.kind, sender] = answer
    return said


def _of(said: Mapping[tuple[str, str], m.Bound], kind: type[A], sender: str, evidence: Evidence) -> A:
    name = str(kind.model_fields["kind"].default)
    message = said.get((name, sender))
    if not isinstance(message, kind):
        raise evidence.refuse(f"{name}.{sender}.json", "is missing")
    return message


def _require(message: m.Bound, expected: Mapping[str, object], sender: str, evidence: Evidence) -> None:
    for field, right in expected.items():
        if (seen := getattr(message, field)) != right:
            kind = type(message).model_fields["kind"].default
            raise evidence.refuse(f"{kind}.{sender}.json", f"{field} is {seen}, must be {right}")
