"""Evidence of several institutions and jobs, without any training: one coordinator, one log, a ledger for each house.

What `tests/evidence/folder.py` does for one folder, for an alliance over time. Everybody's folders of a job hold the
same messages and records, as they do after a real one.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_alliance.evidence.bundle import write_manifest
from fl_alliance.evidence.keys import AllianceRoot
from fl_alliance.evidence.log import head_entry, members_entry, plan_entry, record_entry
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties.log_book import LogBook
from fl_alliance.parties.mail import Address, read_answer, write_answer
from fl_alliance.parties.transparency import CoordinatorLog
from fl_alliance.privacy.ledger import Ledger, next_entry
from fl_alliance.privacy.report import build_report
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import LedgerHead, RoundRecord, Upload
from fl_alliance.protocol.ids import BlobRef, digest_of
from fl_alliance.protocol.log import LogEntry
from fl_alliance.protocol.plan import Member, TrainingPlan
from fl_alliance.store.blobs import FolderBlobs
from fl_alliance.store.ledger_file import LedgerFile
from tests.evidence.alliance import bill_for, key_of, members_of, plan_of, policy_of

NAMES = ("berlin", "lagos", "lima", "oslo")
ROUND_SECONDS = 3600


class Paper:
    """An alliance. `job` writes one job's evidence of everybody; ledgers and log go on from job to job."""

    def __init__(
        self, home: Path, *, unit: str = "patient", policies: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        self.home, self.unit, self.now = home, unit, 0
        changes = policies or {}
        self.policies = {
            name: policy_of(institution=name, allowed_units=(unit,), **changes.get(name, {})) for name in NAMES
        }
        blobs = FolderBlobs(home / "blobs")
        self.log = CoordinatorLog(
            home / "office", alliance="clinics", identity=key_of("office"), blobs=blobs, clock=lambda: self.now
        )
        self.books = {name: LogBook(home / name, name=name, alliance="clinics", blobs=blobs) for name in NAMES}
        self.ledgers = {
            name: LedgerFile(
                home / name / "ledger.jsonl", public_key=key_of(name).public, institution=name, dataset="cases"
            )
            for name in NAMES
        }
        self.members = sign_document(key_of("root"), members_of(NAMES))

    def job(
        self, job: str, *, at: int, leaves: Mapping[str, int] | None = None, vain: Sequence[int] = (), **changes: Any
    ) -> dict[str, Path]:
        """Return the folder of each member after a job that began `at`.

        `leaves` has the round in which a member vanishes after it charged: it is out of the job and has no folder. In
        the rounds `vain` everybody charges twice: the first try failed.
        """
        privacy = {"unit": self.unit} | changes.pop("privacy", {})
        members = tuple(Member(name=name, declared_units=1000) for name in NAMES)
        plan = plan_of(job=job, members=members, threshold=3, quorum=3, privacy=privacy, **changes)
        return _Job(self, plan, at, leaves or {}, vain).build()


class _Job:
    def __init__(
        self, paper: Paper, plan: TrainingPlan, at: int, leaves: Mapping[str, int], vain: Sequence[int]
    ) -> None:
        self.paper, self.plan, self.at, self.leaves, self.vain = paper, plan, at, leaves, vain
        self.names = tuple(name for name in NAMES if name not in leaves)
        """Who stays to the end."""
        self.plan_bytes = sign_document(key_of("office"), plan)
        self.folders = {name: paper.home / f"{name}-{plan.job}" for name in self.names}
        self.bound = {"alliance": plan.alliance, "job": plan.job}
        self.shown = b""

    def build(self) -> dict[str, Path]:
        self.write("root.pub.json", encode(AllianceRoot(key=key_of("root").public_text)))
        self.write("members.dsse.json", self.paper.members)
        self.write("plan.dsse.json", self.plan_bytes)
        self.write("software.cdx.json", bill_for(self.plan))
        for name in self.names:
            self.write("policy.dsse.json", sign_document(key_of(name), self.paper.policies[name]), name)
        self.say(NAMES, 0, "keys/messages", m.KeyAccepted, key_fingerprint=digest_of(b"he"))
        self.paper.now = self.at
        self.show(0, plan_entry(self.plan.job, self.plan_bytes), members_entry(self.paper.members))
        previous = None
        for number in range(1, self.plan.rounds + 1):
            self.paper.now = self.at + number * ROUND_SECONDS
            record = self.round(number, previous)
            self.show(number, record_entry(self.plan.job, number, record))
            previous = digest_of(record)
        for name in self.names:
            self.report(name)
        return self.folders

    def write(self, file: str, data: bytes, *names: str) -> None:
        for name in names or self.names:
            path = self.folders[name] / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def show(self, number: int, *entries: LogEntry) -> None:
        self.paper.log.add(*entries)
        self.shown = self.paper.log.checkpoint()
        for name in self.names:
            book = self.paper.books[name]
            book.visit(self.shown, key_of("office").public, entries)
            for file, data in book.evidence(number, self.shown, entries[0]).items():
                self.write(f"log/{file}", data, name)

    def charge(self, name: str, number: int) -> str:
        def build(ledger: Ledger) -> bytes:
            entry = next_entry(
                ledger, self.plan, plan_digest=digest_of(self.plan_bytes), round_number=number,
                dataset_digest=digest_of(f"records of {name}".encode()), now=self.paper.now,
            )  # fmt: skip
            return sign_document(key_of(name), entry)

        return digest_of(self.paper.ledgers[name].charge(build))

    def say(self, who: Sequence[str], number: int, where: str, kind: type[Any], **fields: Any) -> dict[str, bytes]:
        envelopes = {}
        for name in who:
            mine = {field: value[name] if isinstance(value, dict) else value for field, value in fields.items()}
            answer = kind(**self.bound, round=number, **mine)
            envelopes[name] = write_answer(Address(me=name, coordinator="office", keys={}), key_of(name), answer)
            self.write(f"{where}/{answer.kind}.{name}.json", envelopes[name])
        return envelopes

    def round(self, number: int, previous: str | None) -> bytes:
        where, bound = f"rounds/{number:04d}/messages", self.bound | {"round": number}
        roll = tuple(name for name in NAMES if number <= self.leaves.get(name, number))
        present = tuple(name for name in roll if name in self.names or number < self.leaves[name])
        plan_digest = digest_of(self.plan_bytes)
        keys = self.say(roll, number, where, m.RoundKeys, plan_digest=plan_digest, checkpoint=digest_of(self.shown),
                        mask_key="AAAA", channel_key="AAAA")  # fmt: skip
        roster = digest_of(encode(m.KeyRoster(**bound, round_keys=_in_order(keys))))
        shares = tuple(m.ToMember(member=name, sealed="AAAA") for name in roll)
        dealt = self.say(roll, number, where, m.SealedShares, roster_digest=roster, shares=shares)
        dealers = digest_of(encode(m.ShareDelivery(**bound, sealed_shares=_in_order(dealt))))
        if number in self.vain:
            for name in roll:
                self.charge(name, number)
        heads = {name: self.charge(name, number) for name in roll}
        uploads = {name: BlobRef(digest=digest_of(f"{name} {number}".encode()), length=9) for name in present}
        sealed = self.say(present, number, where, m.SealedUpdate, roster_digest=roster, dealers_digest=dealers,
                          upload=uploads, ledger_head=heads)  # fmt: skip
        for name, data in sealed.items():
            _, answer = read_answer(Address("office", "office", {name: key_of(name).public}), data)
            assert isinstance(answer, m.SealedUpdate)
            self.paper.log.add(head_entry(name, answer, data))
        total, adapter = digest_of(f"sum {number}".encode()), self.adapter(number)
        survivors = m.SurvivorList(**bound, sealed_updates=_in_order(sealed), sum=BlobRef(digest=total, length=11))
        seen = digest_of(encode(survivors))
        self.say(present, number, where, m.SurvivorsConfirmed, survivors_digest=seen)
        self.say(present, number, where, m.RevealedShares, survivors_digest=seen, sealed="AAAA")
        self.say(present, number, where, m.SumChecked, survivors_digest=seen, sum_digest=total)
        self.say(present, number, where, m.AdapterVote, sum_digest=total, adapter_digest=adapter)
        record = RoundRecord(
            **bound, plan_digest=plan_digest, roster_digest=roster, members=roll,
            uploads=tuple(Upload(member=n, digest=uploads[n].digest, length=9) for n in present),
            sum_digest=total, sum_length=11, adapter_digest=adapter,
            ledger_heads=tuple(LedgerHead(member=n, head=heads[n]) for n in present),
            votes=present, previous_record=previous, time=self.paper.now + 60,
        )  # fmt: skip
        data = sign_document(key_of("office"), record)
        self.write(f"rounds/{number:04d}/record.dsse.json", data)
        return data

    def adapter(self, number: int) -> str:
        return digest_of(f"adapter {self.plan.job} {number}".encode())

    def report(self, name: str) -> None:
        policy = (self.folders[name] / "policy.dsse.json").read_bytes()
        report = build_report(
            self.paper.ledgers[name].read(), self.plan, plan_digest=digest_of(self.plan_bytes),
            policy_digest=digest_of(policy), adapter_digest=self.adapter(self.plan.rounds), time=self.paper.now + 120,
        )  # fmt: skip
        self.write("report.dsse.json", sign_document(key_of(name), report), name)
        self.write("report.html", b"<p>What a report says to people: tests/privacy/test_reporting.py</p>", name)
        shutil.copy(self.paper.home / name / "ledger.jsonl", self.folders[name])
        write_manifest(self.folders[name], key_of(name), institution=name)


def _in_order(envelopes: dict[str, bytes]) -> tuple[str, ...]:
    return tuple(base64.b64encode(envelopes[name]).decode() for name in sorted(envelopes))
