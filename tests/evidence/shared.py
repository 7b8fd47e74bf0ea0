"""Evidence folders of several institutions and jobs of one alliance: one log, and a ledger for each data set."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_alliance.evidence.bundle import write_manifest
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties.log_book import LogBook
from fl_alliance.parties.transparency import CoordinatorLog
from fl_alliance.privacy.ledger import next_entry
from fl_alliance.privacy.report import build_report
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import Member
from fl_alliance.store.blobs import FolderBlobs
from fl_alliance.store.ledger_file import LedgerFile
from tests.evidence.alliance import NAMES, key_of, policy_of
from tests.evidence.folder import ME, NOW, Folder

MONTH = 30 * 86_400


class Alliance:
    """The coordinator's log, and everybody's ledger, over all jobs."""

    def __init__(self, home: Path, policies: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.home, self.now = home, NOW
        self._policies = policies or {}
        self.blobs = FolderBlobs(home / "blobs")
        self.log = CoordinatorLog(
            home / "office", alliance="clinics", identity=key_of("office"), blobs=self.blobs, clock=lambda: self.now
        )
        self.book = LogBook(home / ME, name=ME, alliance="clinics", blobs=self.blobs)
        self.ledgers: dict[str, LedgerFile] = {}

    def ledger(self, name: str) -> LedgerFile:
        if name not in self.ledgers:
            self.ledgers[name] = LedgerFile(
                self.home / f"{name}.jsonl", public_key=key_of(name).public, institution=name, dataset="cases"
            )
        return self.ledgers[name]

    def policy(self, name: str) -> bytes:
        return sign_document(key_of(name), policy_of(institution=name, **self._policies.get(name, {})))

    def run(self, job: str, *, names: Sequence[str] = NAMES, **plan: Any) -> list[Path]:
        """Return the folder of each member after the job; the next one begins a month later."""
        members = tuple(Member(name=name, declared_units=1000) for name in sorted(names))
        done = Job(self, self.home / "evidence" / job / ME, job=job, members=members, **plan)
        folders = done.everybody()
        self.now = done.time(done.plan.rounds) + MONTH
        return folders


class Job(Folder):
    """One job: the folder of `ME`, and then those of the others."""

    def __init__(self, alliance: Alliance, path: Path, **plan: Any) -> None:
        super().__init__(path, **plan)
        shutil.rmtree(path.parent / f"{path.name}-log", ignore_errors=True)
        self.alliance, self.log, self.book = alliance, alliance.log, alliance.book
        self.ledger = alliance.ledger(ME)
        self.policy_bytes = alliance.policy(ME)
        self.start, self.pace = alliance.now, 86_400

    def heads(self, number: int) -> dict[str, str]:
        return {name: self.charge_of(name, number) for name in self.names}

    def heads_before(self) -> dict[str, str]:
        return {name: self.alliance.ledger(name).read().head for name in self.names}

    def charge_of(self, name: str, number: int) -> str:
        def build(ledger: Any) -> bytes:
            entry = next_entry(
                ledger, self.plan, plan_digest=digest_of(self.plan_bytes), round_number=number,
                dataset_digest=digest_of(f"records of {name}".encode()), now=self.time(number),
            )  # fmt: skip
            return sign_document(key_of(name), entry)

        return digest_of(self.alliance.ledger(name).charge(build))

    def report(self) -> None:
        self.finish(self.path, ME)

    def everybody(self) -> list[Path]:
        mine = self.build()
        folders = [mine]
        for name in sorted(set(self.names) - {ME}):
            folder = Path(shutil.copytree(mine, mine.with_name(name)))
            (folder / "policy.dsse.json").write_bytes(self.alliance.policy(name))
            self.finish(folder, name)
            write_manifest(folder, key_of(name), institution=name)
            folders.append(folder)
        return sorted(folders)

    def finish(self, folder: Path, name: str) -> None:
        ledger, policy = self.alliance.ledger(name), (folder / "policy.dsse.json").read_bytes()
        report = build_report(
            ledger.read(), self.plan, plan_digest=digest_of(self.plan_bytes), policy_digest=digest_of(policy),
            adapter_digest=self.adapter(self.plan.rounds), time=self.time(self.plan.rounds) + 60,
        )  # fmt: skip
        (folder / "ledger.jsonl").write_bytes(b"".join(line + b"\n" for line in ledger.lines()))
        (folder / "report.dsse.json").write_bytes(sign_document(key_of(name), report))
        (folder / "report.html").write_bytes(b"<p>What a report says to people: tests/privacy/test_reporting.py</p>")
