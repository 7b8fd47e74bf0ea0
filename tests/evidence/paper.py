"""An alliance on paper: every party's signed documents of whole jobs, in memory and the same each time.

All parties are honest, but for what is told in `lies` and `signers`: whoever may sign a thing may sign another one
instead. Nothing is drawn and no clock is read, so the same calls give the same bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from fl_alliance.evidence.keys import AllianceRoot
from fl_alliance.evidence.log import (
    head_entry,
    leaf_of,
    members_entry,
    plan_entry,
    receipt_of,
    record_entry,
    root_digest,
)
from fl_alliance.evidence.merkle import Tree
from fl_alliance.evidence.sign import sign_message
from fl_alliance.parties.mail import Address, write_answer
from fl_alliance.privacy.ledger import Ledger, next_entry
from fl_alliance.privacy.report import build_report
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import (
    STATEMENT,
    AllianceMembers,
    InstitutionPolicy,
    LedgerEntry,
    LedgerHead,
    LogCheckpoint,
    RoundRecord,
    Statement,
    Upload,
    model_digest,
    predicate_type,
    subjects_of,
)
from fl_alliance.protocol.envelope import STATEMENT_TYPE
from fl_alliance.protocol.ids import BlobRef, blob_ref, digest_of
from fl_alliance.protocol.log import LogEntry, LogPiece
from fl_alliance.protocol.plan import TrainingPlan
from tests.evidence.alliance import key_of, members_of, policy_of

NOW = 1_800_000_000
PAGE = b"<p>What a report says to people: tests/privacy/test_reporting.py</p>"

Files = dict[str, bytes]
Lie = Mapping[str, Any] | Callable[[Any], Any]


NEUTRAL: Final = "nobody"


class Neutral:
    """A key whose point is the neutral one: S = 0 and R = A verify for every message (S B = R + h A), if it is let."""

    public = b"\1" + bytes(31)
    public_text = base64.b64encode(public).decode()
    keyid = digest_of(public)

    def sign(self, _: bytes) -> bytes:
        """Return the one signature."""
        return self.public + bytes(32)


def signed(key: Any, document: Any) -> bytes:
    """The envelope of a document as its fields are, valid or not, with the subjects that follow from them."""
    statement = Statement.model_construct(
        statement_type=STATEMENT, subject=subjects_of(document), predicate_type=predicate_type(document),
        predicate=document,
    )  # fmt: skip
    return sign_message(key, STATEMENT_TYPE, encode(statement))


def text(label: str) -> str:
    """32 bytes in base64, a public key or something sealed, that follow from `label`."""
    return base64.b64encode(bytes.fromhex(digest_of(label.encode()).removeprefix("sha256:"))).decode()


def bill_of(plan: TrainingPlan) -> bytes:
    """A bill of materials with nothing but what must be in it: CycloneDX 1.6."""
    files = [{"type": "file", "name": file.name, "hashes": [
        {"alg": "SHA-256", "content": file.digest.removeprefix("sha256:")}
    ]} for file in plan.model]  # fmt: skip
    model = {"type": "machine-learning-model", "name": "base-model", "version": model_digest(plan.model)}
    us = {"type": "application", "name": "fl-alliance", "version": "1"}
    bill = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": us},
            "components": [model | {"components": files}]}  # fmt: skip
    return json.dumps(bill, indent=1).encode()


def in_order(envelopes: Mapping[str, bytes]) -> tuple[str, ...]:
    return tuple(base64.b64encode(envelopes[name]).decode() for name in sorted(envelopes))


@dataclass(frozen=True, kw_only=True)
class Who:
    """Who did what in a round; None: everybody of the list before."""

    roster: Sequence[str] | None = None
    dealers: Sequence[str] | None = None
    survivors: Sequence[str] | None = None
    confirmed: Sequence[str] | None = None
    revealed: Sequence[str] | None = None
    checked: Sequence[str] | None = None
    votes: Sequence[str] | None = None
    """None: who revealed."""
    score: str | None = None
    twice: Sequence[str] = ()
    """Who charged the round two times."""


EVERYBODY = Who()


class Paper:
    """One alliance: its list of members, its coordinator's log, its institutions' ledgers, and the evidence of jobs."""

    def __init__(
        self,
        *,
        alliance: str = "clinics",
        members: AllianceMembers | None = None,
        policies: Mapping[str, InstitutionPolicy] | None = None,
        lies: Mapping[str, Lie] | None = None,
        signers: Mapping[str, str] | None = None,
        untold: Sequence[str] = (),
    ) -> None:
        """`lies` and `signers` by the name of a document, such as `record.job-1.2` or `sealed-update.lima.job-1.2`;
        `untold` are names of documents that never come into the log."""
        self.alliance, self.policies = alliance, dict(policies or {})
        self.lies, self.signers, self.untold = dict(lies or {}), dict(signers or {}), untold
        self.clock, self.reports = NOW, True
        self.log: list[LogEntry] = []
        self.tree = Tree()
        self.pieces: list[tuple[int, BlobRef]] = []
        self.ledgers: dict[str, list[bytes]] = {}
        self.evidence: dict[tuple[str, str], Files] = {}
        """By institution and job; without a manifest."""
        self.pinned: bytes | None = None
        self.admit(members or members_of())

    # ---- what parties sign

    def tick(self) -> int:
        """A minute later."""
        self.clock += 60
        return self.clock

    def told(self, name: str, document: Any) -> Any:
        lie = self.lies.get(name, {})
        return lie(document) if callable(lie) else document.model_copy(update=dict(lie))

    def key(self, name: str, signer: str) -> Any:
        """Who signs the document `name` in place of `signer`."""
        who = self.signers.get(name, self.signers.get(signer, signer))
        return Neutral() if who == NEUTRAL else key_of(who)

    def sign(self, name: str, signer: str, document: Any) -> bytes:
        return signed(self.key(name, signer), self.told(name, document))

    def say(self, kind: type[BaseModel], who: Sequence[str], plan: TrainingPlan, number: int, **fields: Any) -> Files:
        """Everybody's signed message by sender; a field that is a dict holds a value for each."""
        said = {}
        for sender in who:
            mine = {name: value[sender] if isinstance(value, dict) else value for name, value in fields.items()}
            message: Any = kind(alliance=plan.alliance, job=plan.job, round=number, **mine)
            name = f"{message.kind}.{sender}.{plan.job}.{number}"
            address = Address(me=sender, coordinator="office", keys={})
            said[sender] = write_answer(address, self.key(name, sender), self.told(name, message))
        return said

    def admit(self, members: AllianceMembers) -> None:
        """The root signs a new list."""
        self.members = self.sign(f"members.{members.serial}", "root", members)

    # ---- the coordinator's log

    def enter(self, name: str, entry: LogEntry) -> None:
        if entry not in self.log and name not in self.untold:
            self.log.append(entry)
            self.tree.append(leaf_of(entry))

    def checkpoint(self, name: str) -> bytes:
        """Publish what is new; the coordinator signs the whole."""
        end, before = self.pieces[-1] if self.pieces else (0, None)
        if end < len(self.log):
            piece = encode(LogPiece(first=end, previous=before, entries=tuple(self.log[end:])))
            self.pieces.append((len(self.log), blob_ref(piece)))
        size = self.tree.size
        root, newest = root_digest(self.tree.root(size)), self.pieces[-1][1]
        document = LogCheckpoint(alliance=self.alliance, size=size, root=root, newest=newest, time=self.tick())
        return self.sign(f"checkpoint.{name}", "office", document)

    def shown(self, job: str, number: int, entry: LogEntry) -> tuple[bytes, Files]:
        """What every institution keeps when it is shown the log."""
        shown = self.checkpoint(f"{job}.{number}")
        size = self.tree.size
        receipt = receipt_of(self.tree, self.log.index(entry) if entry in self.log else 0, entry, shown=shown,
                             earlier=self.pinned or shown)  # fmt: skip
        self.pinned = shown
        return shown, {
            f"log/checkpoint-{number:04d}.dsse.json": shown,
            f"log/receipt-{number:04d}.json": encode(self.told(f"receipt.{job}.{number}", receipt)),
            "log/leaves": b"".join(self.tree.leaves(size)),
        }

    # ---- an institution's ledger

    def policy(self, name: str) -> InstitutionPolicy:
        return self.policies.get(name, policy_of(institution=name))

    def ledger(self, name: str) -> Ledger:
        """As the file is, whatever an honest ledger would be."""
        lines = self.ledgers.setdefault(name, [])
        entries = [self._entries[digest_of(line)] for line in lines]
        policy = self.policy(name)
        return Ledger(policy.institution, policy.dataset, tuple(entries), tuple(digest_of(line) for line in lines))

    _entries: dict[str, LedgerEntry] = {}  # noqa: RUF012  of all alliances: an institution has one ledger for all

    def charge(self, name: str, plan: TrainingPlan, plan_bytes: bytes, number: int) -> str:
        """Charge a round; return the head."""
        entry = next_entry(
            self.ledger(name), plan, plan_digest=digest_of(plan_bytes), round_number=number,
            dataset_digest=digest_of(f"records of {name}".encode()), now=self.clock,
        )  # fmt: skip
        where = f"entry.{name}.{plan.job}.{number}"
        line = self.sign(where, name, entry)
        self._entries[digest_of(line)] = self.told(where, entry)
        self.ledgers[name].append(line)
        return digest_of(line)

    # ---- a job

    def job(self, plan: TrainingPlan, *rounds: Who, approvals: Mapping[str, Files] | None = None) -> Paper:
        """Everybody's evidence of a whole job; `rounds` says who was there, by default everybody in each round."""
        plan_bytes = self.sign(f"plan.{plan.job}", "office", plan)
        digest = digest_of(plan_bytes)
        self.enter("members", members_entry(self.members))
        self.enter(f"plan.{plan.job}", entry := plan_entry(plan.job, plan_bytes))
        shown, files = self.shown(plan.job, 0, entry)
        files |= {
            "root.pub.json": encode(AllianceRoot(key=key_of("root").public_text)),
            "members.dsse.json": self.members,
            "plan.dsse.json": plan_bytes,
            **self._keys(plan, digest),
        }
        previous = None
        for number, who in enumerate(rounds or (EVERYBODY,) * plan.rounds, start=1):
            shown, new = self._round(plan, plan_bytes, number, who, previous, shown)
            files |= new
            previous = digest_of(new[f"rounds/{number:04d}/record.dsse.json"])
        for name in plan.names:
            if f"sealed-update.{name}.json" in {file.rsplit("/", 1)[-1] for file in new}:
                mine = {f"approvals/{n}.dsse.json": data for n, data in (approvals or {}).get(name, {}).items()}
                self.evidence[name, plan.job] = files | mine | self._report(name, plan, digest, number)
        return self

    def _keys(self, plan: TrainingPlan, digest: str) -> Files:
        """What is relayed before the first round."""
        names = plan.names
        heads = {name: self.ledger(name).head for name in names}
        wraps = {name: text(f"wrap key of {name}") for name in names}
        said = self.say(m.Acceptance, names, plan, 0, plan_digest=digest, wrap_key=wraps, ledger_head=heads)
        for name, data in said.items():
            acceptance: Any = m.Acceptance(
                alliance=plan.alliance, job=plan.job, round=0, plan_digest=digest, wrap_key="", ledger_head=heads[name]
            )
            self.enter(f"acceptance.{name}.{plan.job}.0", head_entry(name, acceptance, data))
        asked = m.KeyRequest(alliance=plan.alliance, job=plan.job, round=0, acceptances=in_order(said))
        wrapped = tuple(m.ToMember(member=name, sealed=text(f"content key for {name}")) for name in names)
        made = self.say(m.WrappedKeys, names[:1], plan, 0, acceptances_digest=digest_of(encode(asked)),
                        key_fingerprint=digest_of(b"alliance key"), sealed_key=text("alliance key"),
                        wrapped=wrapped)  # fmt: skip
        files = {f"keys/messages/acceptance.{name}.json": data for name, data in said.items()}
        return files | {f"keys/messages/wrapped-keys.{name}.json": data for name, data in made.items()}

    def _round(
        self, plan: TrainingPlan, plan_bytes: bytes, number: int, who: Who, previous: str | None, shown: bytes
    ) -> tuple[bytes, Files]:  # fmt: skip
        """One round; returns the checkpoint that came with its record, and its files."""
        job, digest, where = plan.job, digest_of(plan_bytes), f"rounds/{number:04d}"
        bound: dict[str, Any] = {"alliance": plan.alliance, "job": job, "round": number}
        roster = who.roster or plan.names
        dealers = who.dealers or roster
        survivors = who.survivors or dealers
        confirmed = who.confirmed or survivors
        revealed = who.revealed or confirmed
        checked, votes = who.checked or revealed, who.votes or revealed
        files: Files = {}

        def say(kind: Any, names: Sequence[str], **fields: Any) -> Files:
            said = self.say(kind, names, plan, number, **fields)
            name = kind.model_fields["kind"].default
            files.update({f"{where}/messages/{name}.{sender}.json": data for sender, data in said.items()})
            return said

        def mine(what: str) -> dict[str, str]:
            return {name: text(f"{what} {name} {number}") for name in roster}

        keys = say(m.RoundKeys, roster, plan_digest=digest, checkpoint=digest_of(shown), mask_key=mine("mask"),
                   channel_key=mine("channel"))  # fmt: skip
        roster_digest = digest_of(encode(m.KeyRoster(**bound, round_keys=in_order(keys))))
        shares = tuple(m.ToMember(member=name, sealed=text(f"shares for {name}")) for name in sorted(roster))
        dealt = say(m.SealedShares, dealers, roster_digest=roster_digest, shares=shares)
        dealers_digest = digest_of(encode(m.ShareDelivery(**bound, sealed_shares=in_order(dealt))))
        self.tick()
        for name in who.twice:
            self.charge(name, plan, plan_bytes, number)
        heads = {name: self.charge(name, plan, plan_bytes, number) for name in dealers}
        uploads = {name: BlobRef(digest=digest_of(f"upload {name} {job} {number}".encode()), length=9)
                   for name in survivors}  # fmt: skip
        sealed = say(m.SealedUpdate, survivors, roster_digest=roster_digest, dealers_digest=dealers_digest,
                     upload=uploads, ledger_head=heads)  # fmt: skip
        for name, data in sealed.items():
            update: Any = m.SealedUpdate(**bound, roster_digest=roster_digest, dealers_digest=dealers_digest,
                                         upload=uploads[name], ledger_head=heads[name])  # fmt: skip
            self.enter(f"sealed-update.{name}.{job}.{number}", head_entry(name, update, data))
        total, adapter = digest_of(f"sum {job} {number}".encode()), digest_of(f"adapter {job} {number}".encode())
        listed = m.SurvivorList(**bound, sealed_updates=in_order(sealed), sum=BlobRef(digest=total, length=11))
        list_digest = digest_of(encode(listed))
        say(m.SurvivorsConfirmed, confirmed, survivors_digest=list_digest)
        say(m.RevealedShares, revealed, survivors_digest=list_digest, sealed=mine("revealed"))
        say(m.SumChecked, checked, survivors_digest=list_digest, sum_digest=total)
        say(m.AdapterVote, votes, sum_digest=total, adapter_digest=adapter, score=who.score)
        record = RoundRecord.model_construct(
            **bound,
            plan_digest=digest,
            roster_digest=roster_digest,
            members=tuple(sorted(roster)),
            uploads=tuple(Upload(member=n, digest=uploads[n].digest, length=9) for n in sorted(survivors)),
            sum_digest=total,
            sum_length=11,
            adapter_digest=adapter,
            score=who.score,
            ledger_heads=tuple(LedgerHead(member=n, head=heads[n]) for n in sorted(survivors)),
            votes=tuple(sorted(votes)),
            previous_record=previous,
            time=self.tick(),
        )
        name = f"record.{job}.{number}"
        data = files[f"{where}/record.dsse.json"] = self.sign(name, "office", record)
        self.enter(name, entry := record_entry(job, number, data))
        shown, new = self.shown(job, number, entry)
        return shown, files | new

    def _report(self, name: str, plan: TrainingPlan, digest: str, rounds: int) -> Files:
        policy = self.sign(f"policy.{name}", name, self.policy(name))
        files = {
            "policy.dsse.json": policy,
            "ledger.jsonl": b"".join(line + b"\n" for line in self.ledgers[name]),
            "report.html": PAGE,
            "software.cdx.json": bill_of(plan),
        }
        if not self.reports:
            return files
        report = build_report(
            self.ledger(name), plan, plan_digest=digest, policy_digest=digest_of(policy),
            adapter_digest=digest_of(f"adapter {plan.job} {rounds}".encode()), time=self.tick(),
        )  # fmt: skip
        return files | {"report.dsse.json": self.sign(f"report.{name}.{plan.job}", name, report)}

    # ---- besides jobs

    def standing(self, name: str) -> Files:
        """What an institution's bundle holds besides its jobs, without refused plans; of the coordinator less."""
        root = encode(AllianceRoot(key=key_of("root").public_text))
        files = {"root.pub.json": root, "members.dsse.json": self.members}
        if name == "office":
            return files
        policy = self.sign(f"policy.{name}", name, self.policy(name))
        return files | {"policy.dsse.json": policy, "ledger.jsonl": b"".join(
            line + b"\n" for line in self.ledgers.get(name, [])
        )}  # fmt: skip

    def relayed(self, job: str) -> Files:
        """The coordinator's own evidence of a job: what it signed, what it relayed, and its log."""
        files = next(files for (_, found), files in self.evidence.items() if found == job)
        own = ("root", "members", "plan", "keys/", "rounds/", "log/")
        return {name: data for name, data in files.items() if name.startswith(own)}
