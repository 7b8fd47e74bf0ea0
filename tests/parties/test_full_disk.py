"""A disk that is full at any write of a party: a named error, nothing half-written, and the job goes on."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_alliance.errors import StoreFailed
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.parties.files import write_atomically
from fl_alliance.protocol.documents import RoundRecord
from fl_alliance.rounds import coordinator as machine
from fl_alliance.store.journal import SqlJournal
from fl_alliance.store.ledger_file import LedgerFile
from tests.parties.conftest import SITES, Alliance

Build = Callable[..., Alliance]


class FullDisk:
    """Each file below `folder` is refused the first time that it would get its name; the next time there is room.

    Everything that is written whole or not at all gets its name by a rename; journal and ledger are the exceptions.
    What a member uploads is let through: over the network the coordinator answers 507, and the member tries again.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.refused: list[str] = []
        self.member_at_work = False
        self._folder = folder
        for owner, name in ((Path, "replace"), (Path, "rename")):
            self._patch(monkeypatch, owner, name, lambda _, target, *__: Path(target))
        for name in ("append", "advance"):
            self._patch(monkeypatch, SqlJournal, name, lambda journal, *_: journal_file(journal))
        self._patch(monkeypatch, LedgerFile, "charge", lambda ledger, _: ledger._path)

    def _patch(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, target: Callable[..., Path]) -> None:
        original = getattr(owner, name)

        def refusing(*given: Any, **named: Any) -> Any:
            kind = f"{given[2]} {len(given[0].events(given[1]))}" if name == "advance" else ""
            kind = given[2] if name == "append" else kind
            self._refuse_once(target(*given), kind or ("charge" if owner is LedgerFile else ""))
            return original(*given, **named)

        monkeypatch.setattr(owner, name, refusing)

    def _refuse_once(self, path: Path, kind: str) -> None:
        if self.member_at_work or not path.is_relative_to(self._folder):
            return
        name = f"{path.relative_to(self._folder)} {kind}".strip()
        if name not in self.refused:
            self.refused.append(name)
            if kind:
                raise StoreFailed(f"{name}: database or disk is full")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def journal_file(journal: SqlJournal) -> Path:
    return Path(str(journal._database._engine.url.database))


def test_a_coordinator_whose_disk_is_full_at_any_write_says_so_and_finishes_the_same_job(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    alliance = build(rounds=1)
    home = alliance.folder / "coordinator"
    full, said = FullDisk(monkeypatch, home), list[str]()
    for name, handler in alliance.handlers.items():
        alliance.handlers[name] = let_through(full, handler)
    state: machine.State | None = None
    while state is None:
        assert len(said) < 50, "the job never ends"
        try:
            state = alliance.coordinator(ask_again=0.2).run()
        except StoreFailed as error:
            said.append(str(error))
            assert [path for path in home.rglob("*") if path.name.startswith((".new-", ".part-"))] == []
    assert isinstance(state, machine.Finished)
    record = (alliance.job("clinic") / "evidence/rounds/0001/record.dsse.json").read_bytes()
    total = f"blobs/{peek_document(record, RoundRecord).sum_digest.removeprefix('sha256:')}"
    assert {*full.refused} >= {"jobs/job-1/record-0001.dsse.json", total, *(f"heads/{name}.json" for name in SITES)}
    assert {f"journal.db {kind}" for kind in ("job", "answered", "sum-added", "record-signed")} <= {*full.refused}
    assert any("No space left on device" in line for line in said)
    for name in SITES:
        assert verify_evidence(alliance.job(name) / "evidence", root=None, say=lambda _: None).charges == 1


def test_a_member_whose_disk_is_full_at_any_write_gives_no_answer_and_finishes_when_there_is_room(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    alliance = build(rounds=1)
    home = alliance.home("clinic")
    full = FullDisk(monkeypatch, home)
    fast = alliance.coordinator(ask_again=0.05, clock=lambda: 60 * time.monotonic())  # each wait doubles
    assert isinstance(fast.run(), machine.Finished)
    evidence = "jobs/job-1/evidence"
    assert {*full.refused} >= {
        "ledger.jsonl charge",
        "members.dsse.json",
        "jobs/job-1/candidate",
        "jobs/job-1/adapter",
        *(f"{evidence}/{name}" for name in ("plan.dsse.json", "report.dsse.json", "manifest.dsse.json")),
        *(f"{evidence}/rounds/0001/messages/sealed-update.{name}.json" for name in SITES),
        *(f"journal.db {'request' if number == 0 else 'done'} {number}" for number in range(2)),
    }
    assert [path for path in home.rglob("*") if path.name.startswith((".new-", ".half-"))] == []
    assert verify_evidence(home / "jobs/job-1/evidence", root=None, say=lambda _: None).charges == 1
    assert len({(alliance.job(n) / "adapter/adapter_model.safetensors").read_bytes() for n in SITES}) == 1


def let_through(full: FullDisk, handler: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def handle(request: bytes) -> bytes:
        full.member_at_work = True
        try:
            return handler(request)
        finally:
            full.member_at_work = False

    return handle


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "members.dsse.json"
    write_atomically(path, b"old")
    for name in ("fsync", "fdopen"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
            with pytest.raises(StoreFailed, match=r"members\.dsse\.json can't be written in .*: No space left"):
                write_atomically(path, b"new")
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]
