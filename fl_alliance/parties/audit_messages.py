"""Step 8 of the audit: the institutions' own signed messages against the coordinator's record of a round."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fl_alliance.errors import AllianceError, EvidenceRefused, NotAuthentic
from fl_alliance.parties.audit_rules import check_accepted
from fl_alliance.parties.mail import Address, read_answer
from fl_alliance.privacy.ledger import Ledger
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import RoundRecord
from fl_alliance.protocol.draw import checks_needed, drawn_verifiers
from fl_alliance.protocol.ids import BlobRef, digest_of
from fl_alliance.protocol.plan import TrainingPlan

A = TypeVar("A", bound=m.Bound)
Said = Mapping[tuple[str, str], m.Bound]
"""Messages of a round by kind and sender."""


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

    The roster must have signed round keys; the contributors of the sum, shares and uploads; more than two thirds, the
    same list of survivors; at least a threshold of these, shares for it; the drawn verifiers, the sum; every voter, its
    vote. Each of these lists lies within the one before it.

    Raises:
        EvidenceRefused: names the message that is missing, not authentic, of another round, or says something else.
    """
    said = _open_all(plan, record.round, evidence)
    dealers = _check_roster(record, said, evidence)
    _check_uploads(record, said, dealers, evidence)
    survivors = _check_survivors(record, plan, said, evidence)
    _check_nested(record, plan, said, evidence)
    _check_sum(record, plan, said, survivors, evidence)
    for name in record.votes:  # each is among those who revealed: `_check_nested`
        vote = _of(said, m.AdapterVote, name, evidence)
        agreed = {"sum_digest": record.sum_digest, "adapter_digest": record.adapter_digest, "score": record.score}
        _require(vote, agreed, name, evidence)
    return len(said)


def check_key_messages(plan: TrainingPlan, plan_digest: str, evidence: Evidence, ledger: Ledger | None) -> int:
    """Return how many messages from before the first round were checked.

    Every member of the plan accepted it; the key maker, who sorts first, made the alliance key for these acceptances;
    where there is a `ledger`, its owner's acceptance names a head that it had then.

    Raises:
        EvidenceRefused: names the message that is missing, not authentic, or says something else.
    """
    said = _open_all(plan, 0, evidence)
    for name in plan.names:
        acceptance = _of(said, m.Acceptance, name, evidence)
        _require(acceptance, {"plan_digest": plan_digest}, name, evidence)
        if ledger is not None and name == ledger.institution:
            try:
                check_accepted(acceptance.ledger_head, plan, ledger)
            except NotAuthentic as error:
                raise evidence.refuse(f"acceptance.{name}.json", str(error)) from None
    asked = m.KeyRequest(
        alliance=plan.alliance, job=plan.job, round=0, acceptances=_relayed("acceptance", plan.names, evidence)
    )
    maker = plan.names[0]
    made = _of(said, m.WrappedKeys, maker, evidence)
    _require(made, {"acceptances_digest": digest_of(encode(asked))}, maker, evidence)
    return len(said)


def _check_roster(record: RoundRecord, said: Said, evidence: Evidence) -> str:
    """The roster's digest is recomputed from the signed round keys; every dealer must name it.

    Returns: the digest of the list of dealers, recomputed from their signed shares.
    """
    for name in record.members:
        _require(_of(said, m.RoundKeys, name, evidence), {"plan_digest": record.plan_digest}, name, evidence)
    bound = _bound(record)
    roster = m.KeyRoster(**bound, round_keys=_relayed("round-keys", record.members, evidence))
    if (digest := digest_of(encode(roster))) != record.roster_digest:
        raise EvidenceRefused(
            f"step 8, {evidence.where}: the round keys make roster {digest}, the record says {record.roster_digest}"
        )
    dealers = sorted(_senders(said, "sealed-shares"))
    for name in sorted({*dealers, *(upload.member for upload in record.uploads)}):
        _require(_of(said, m.SealedShares, name, evidence), {"roster_digest": digest}, name, evidence)
    delivery = m.ShareDelivery(**bound, sealed_shares=_relayed("sealed-shares", dealers, evidence))
    return digest_of(encode(delivery))


def _bound(record: RoundRecord) -> dict[str, Any]:
    return {"alliance": record.alliance, "job": record.job, "round": record.round}


def _relayed(kind: str, names: Sequence[str], evidence: Evidence) -> tuple[str, ...]:
    return tuple(base64.b64encode(evidence.files[f"{kind}.{name}.json"]).decode() for name in names)


def _check_uploads(record: RoundRecord, said: Said, dealers: str, evidence: Evidence) -> None:
    heads = {head.member: head.head for head in record.ledger_heads}
    for upload in record.uploads:
        update = _of(said, m.SealedUpdate, upload.member, evidence)
        sealed = {"roster_digest": record.roster_digest, "dealers_digest": dealers,
                  "ledger_head": heads[upload.member],
                  "upload": BlobRef(digest=upload.digest, length=upload.length)}  # fmt: skip
        _require(update, sealed, upload.member, evidence)


def _check_survivors(record: RoundRecord, plan: TrainingPlan, said: Said, evidence: Evidence) -> str:
    """Everybody who confirmed or revealed anything did so for one list; return its digest, recomputed."""
    uploads = {upload.member for upload in record.uploads}
    bound = _bound(record)
    confirmed = _senders(said, "survivors-confirmed") & uploads
    if len(confirmed) < plan.confirmations:
        raise evidence.refuse("survivors-confirmed.*.json", f"{len(confirmed)} members, need {plan.confirmations}")
    total = BlobRef(digest=record.sum_digest, length=record.sum_length)
    updates = _relayed("sealed-update", sorted(uploads), evidence)
    survivors = digest_of(encode(m.SurvivorList(**bound, sealed_updates=updates, sum=total)))
    for kind, name in sorted(said):
        if kind in ("survivors-confirmed", "revealed-shares", "sum-checked"):
            _require(said[kind, name], {"survivors_digest": survivors}, name, evidence)
    return survivors


def _check_nested(record: RoundRecord, plan: TrainingPlan, said: Said, evidence: Evidence) -> None:
    """Nobody is in a list that was not in the one before, and a threshold revealed: fewer can't have opened the sum."""
    named = {"members": set(record.members), "uploads": {upload.member for upload in record.uploads}}
    for kind, list_name in (("round-keys", "members"), ("sealed-shares", "members"), ("sealed-update", "uploads")):
        for name in sorted(_senders(said, kind) - named[list_name]):
            raise evidence.refuse(f"{kind}.{name}.json", f"{name} is not among the record's {list_name}")
    for kind, before in (
        ("survivors-confirmed", "sealed-update"),
        ("revealed-shares", "survivors-confirmed"),
        ("sum-checked", "revealed-shares"),
        ("adapter-vote", "revealed-shares"),
    ):
        for name in sorted(_senders(said, kind) - _senders(said, before)):
            raise evidence.refuse(f"{kind}.{name}.json", f"{name} is not among the senders of {before}")
    if (count := len(_senders(said, "revealed-shares"))) < plan.threshold:
        raise evidence.refuse("revealed-shares.*.json", f"{count} members, need {plan.threshold}")


def _senders(said: Said, kind: str) -> set[str]:
    return {name for found, name in said if found == kind}


def _check_sum(record: RoundRecord, plan: TrainingPlan, said: Said, survivors: str, evidence: Evidence) -> None:
    """Those who were drawn, as many as the plan asks for, added the uploads to the record's sum; nobody to another."""
    drawn = drawn_verifiers(survivors, _senders(said, "survivors-confirmed"), plan.sum.verifiers)
    checked = _senders(said, "sum-checked")
    for name in sorted(checked):
        answer = _of(said, m.SumChecked, name, evidence)
        if answer.sum_digest is not None or name in drawn:
            _require(answer, {"sum_digest": record.sum_digest}, name, evidence)
    needed = checks_needed(drawn, verifiers=plan.sum.verifiers, threshold=plan.threshold)
    if len(checked & set(drawn)) < needed:
        missing = next(name for name in drawn if name not in checked)
        raise evidence.refuse(
            f"sum-checked.{missing}.json", f"is missing, {needed} of {', '.join(drawn)} must be there"
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


def _of(said: Said, kind: type[A], sender: str, evidence: Evidence) -> A:
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
