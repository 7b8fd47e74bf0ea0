"""Write a whole, honest evidence folder without any training, as an institution leaves it after its last round."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fl_alliance.evidence.bundle import write_manifest
from fl_alliance.evidence.keys import AllianceRoot
from fl_alliance.evidence.log import head_entry, members_entry, plan_entry, record_entry
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties.log_book import LogBook
from fl_alliance.parties.mail import Address, read_answer, write_answer
from fl_alliance.parties.transparency import CoordinatorLog
from fl_alliance.privacy.ledger import next_entry
from fl_alliance.privacy.report import build_report
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import AllianceMembers, LedgerHead, RoundRecord, Upload
from fl_alliance.protocol.ids import BlobRef, digest_of
from fl_alliance.protocol.log import LogEntry
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.store.blobs import FolderBlobs
from fl_alliance.store.ledger_file import LedgerFile
from tests.evidence.alliance import bill_for, key_of, members_of, plan_of, policy_of

ME = "lagos"
NOW = 1_800_000_000


def in_order(envelopes: dict[str, bytes]) -> tuple[str, ...]:
    return tuple(base64.b64encode(envelopes[name]).decode() for name in sorted(envelopes))


class Folder:
    """Builds one folder; a test may change attributes before and so plant a lie that is well signed."""

    def __init__(self, path: Path, **changes: Any) -> None:
        self.path = path
        self.plan: TrainingPlan = plan_of(**changes)
        self.plan_bytes = sign_document(key_of("office"), self.plan)
        self.policy_bytes = sign_document(key_of(ME), policy_of())
        self.record_changes: dict[str, Any] = {}
        self.message_changes: dict[str, dict[str, Any]] = {}
        self.report_changes: dict[str, Any] = {}
        self.entry_changes: dict[str, Any] = {}
        self.names: tuple[str, ...] = self.plan.names
        self.start, self.pace = NOW, 1
        """When the job began, and seconds between its rounds."""
        self.adapters: dict[int, str] = {}
        """Digest of a round's adapter, where it is a real one."""
        path.mkdir(parents=True)
        aside = path.parent / f"{path.name}-log"
        blobs = FolderBlobs(aside / "blobs")
        self.log = CoordinatorLog(
            aside / "office", alliance="clinics", identity=key_of("office"), blobs=blobs, clock=lambda: NOW
        )
        self.book = LogBook(aside / ME, name=ME, alliance="clinics", blobs=blobs)
        self.shown = b""
        self.ledger = LedgerFile(path / "ledger.jsonl", public_key=key_of(ME).public, institution=ME, dataset="cases")

    def write(self, name: str, data: bytes) -> bytes:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(data)
        return data

    def build(self) -> Path:
        self.write("root.pub.json", encode(AllianceRoot(key=key_of("root").public_text)))
        self.write("members.dsse.json", sign_document(key_of("root"), self.everyone()))
        self.write("plan.dsse.json", self.plan_bytes)
        self.write("policy.dsse.json", self.policy_bytes)
        self.show(
            0, plan_entry(self.plan.job, self.plan_bytes), members_entry((self.path / "members.dsse.json").read_bytes())
        )
        self.keys()
        previous = None
        for number in range(1, self.plan.rounds + 1):
            record = self.round(number, previous)
            self.show(number, record_entry(self.plan.job, number, record))
            previous = digest_of(record)
        self.write("software.cdx.json", bill_for(self.plan))
        self.report()
        write_manifest(self.path, key_of(ME), institution=ME)
        return self.path

    def everyone(self) -> AllianceMembers:
        return members_of()

    def show(self, number: int, *entries: LogEntry) -> None:
        """Log `entries`, and do as an institution does when it is shown the log's checkpoint."""
        self.log.add(*entries)
        self.log._clock = lambda: self.time(number)
        self.shown = self.log.checkpoint()
        self.book.visit(self.shown, key_of("office").public, entries)
        for name, data in self.book.evidence(number, self.shown, entries[0]).items():
            self.write(f"log/{name}", data)

    def keys(self) -> None:
        """What is relayed before the first round."""
        accepted = self.say(
            0, "keys/messages", m.Acceptance, plan_digest=digest_of(self.plan_bytes), wrap_key="AAAA",
            ledger_head=self.heads_before(),
        )  # fmt: skip
        self.log_heads(accepted)
        asked = m.KeyRequest(alliance="clinics", job=self.plan.job, round=0, acceptances=in_order(accepted))
        self.say(
            0, "keys/messages", m.WrappedKeys, names=self.names[:1], acceptances_digest=digest_of(encode(asked)),
            key_fingerprint=digest_of(b"he"), sealed_key="AAAA",
            wrapped=tuple(m.ToMember(member=name, sealed="AAAA") for name in self.names),
        )  # fmt: skip

    def heads_before(self) -> dict[str, str]:
        """Each member's ledger head before the job's first charge; of the others none is real."""
        known = self.ledger.read()
        mine = next((entry.previous for entry in known.entries if entry.job == self.plan.job), known.head)
        return {name: digest_of(name.encode()) for name in self.names} | {ME: mine}

    def log_heads(self, envelopes: dict[str, bytes]) -> None:
        for name, data in envelopes.items():
            _, answer = read_answer(Address("office", "office", {name: key_of(name).public}), data)
            assert isinstance(answer, m.Acceptance | m.SealedUpdate)
            self.log.add(head_entry(name, answer, data))

    def charge(self, number: int) -> str:
        def build(ledger: Any) -> bytes:
            entry = next_entry(
                ledger, self.plan, plan_digest=digest_of(self.plan_bytes), round_number=number,
                dataset_digest=digest_of(b"records"), now=self.time(number),
            )  # fmt: skip
            return sign_document(key_of(ME), entry.model_copy(update=self.entry_changes))

        return digest_of(self.ledger.charge(build))

    def time(self, number: int) -> int:
        """When a round was charged, and ended."""
        return self.start + number * self.pace

    def heads(self, number: int) -> dict[str, str]:
        """Each member's ledger head in a round; of the others none is real."""
        return {name: digest_of(f"{name} {number}".encode()) for name in self.names} | {ME: self.charge(number)}

    def say(
        self, number: int, where: str, kind: type[Any], *, names: Sequence[str] | None = None, **fields: Any
    ) -> dict[str, bytes]:
        """Write everybody's message, or that of `names`; a field that is a dict holds a value for each member."""
        envelopes = {}
        for name in names or self.names:
            mine = {field: value[name] if isinstance(value, dict) else value for field, value in fields.items()}
            mine |= self.message_changes.get(f"{kind.__name__}.{name}.{number}", {})
            answer = kind(alliance="clinics", job=self.plan.job, round=number, **mine)
            address = Address(me=name, coordinator="office", keys={})
            envelopes[name] = write_answer(address, key_of(name), answer)
            self.write(f"{where}/{answer.kind}.{name}.json", envelopes[name])
        return envelopes

    def round(self, number: int, previous: str | None) -> bytes:
        where, plan_digest = f"rounds/{number:04d}/messages", digest_of(self.plan_bytes)
        bound = {"alliance": "clinics", "job": self.plan.job, "round": number}
        keys = self.say(number, where, m.RoundKeys, plan_digest=plan_digest, checkpoint=digest_of(self.shown),
                        mask_key="AAAA", channel_key="AAAA")  # fmt: skip
        roster = digest_of(encode(m.KeyRoster(**bound, round_keys=in_order(keys))))
        shares = tuple(m.ToMember(member=name, sealed="AAAA") for name in self.names)
        dealt = self.say(number, where, m.SealedShares, roster_digest=roster, shares=shares)
        dealers = digest_of(encode(m.ShareDelivery(**bound, sealed_shares=in_order(dealt))))
        heads = self.heads(number)
        uploads = {name: BlobRef(digest=digest_of(f"upload {name} {number}".encode()), length=9) for name in self.names}
        sealed = self.say(
            number, where, m.SealedUpdate, roster_digest=roster, dealers_digest=dealers, upload=uploads,
            ledger_head=heads,
        )  # fmt: skip
        self.log_heads(sealed)
        total, adapter = digest_of(f"sum {number}".encode()), self.adapter(number)
        survivors = m.SurvivorList(**bound, sealed_updates=in_order(sealed), sum=BlobRef(digest=total, length=11))
        list_digest = digest_of(encode(survivors))
        self.say(number, where, m.SurvivorsConfirmed, survivors_digest=list_digest)
        self.say(number, where, m.RevealedShares, survivors_digest=list_digest, sealed="AAAA")
        self.say(number, where, m.SumChecked, survivors_digest=list_digest, sum_digest=total)
        self.say(number, where, m.AdapterVote, sum_digest=total, adapter_digest=adapter)
        fields: dict[str, Any] = {
            **bound,
            "plan_digest": plan_digest,
            "roster_digest": roster,
            "members": self.names,
            "uploads": tuple(Upload(member=n, digest=uploads[n].digest, length=9) for n in self.names),
            "sum_digest": total,
            "sum_length": 11,
            "adapter_digest": adapter,
            "ledger_heads": tuple(LedgerHead(member=n, head=heads[n]) for n in self.names),
            "votes": self.names,
            "previous_record": previous,
            "time": self.time(number),
        }
        record = RoundRecord(**fields).model_copy(update=self.record_changes if number == self.plan.rounds else {})
        return self.write(f"rounds/{number:04d}/record.dsse.json", sign_document(key_of("office"), record))

    def adapter(self, number: int) -> str:
        return self.adapters.get(number, digest_of(f"adapter {number}".encode()))

    def report(self) -> None:
        ledger = self.ledger.read()
        report = build_report(
            ledger, self.plan, plan_digest=digest_of(self.plan_bytes), policy_digest=digest_of(self.policy_bytes),
            adapter_digest=self.adapter(self.plan.rounds), time=max(NOW + 100, self.time(self.plan.rounds)),
        ).model_copy(update=self.report_changes)  # fmt: skip
        self.write("report.dsse.json", sign_document(key_of(ME), report))
        self.write("report.html", b"<p>What a report says to people: tests/privacy/test_reporting.py</p>")
