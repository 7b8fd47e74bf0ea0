"""The coordinator dies between any two journal entries and is started again: it finishes the same round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.protocol.documents import RoundRecord
from fl_alliance.rounds import coordinator as machine
from fl_alliance.store.journal import SqlJournal
from tests.killed import Killed
from tests.parties.conftest import SITES, Alliance, set_database

Build = Callable[..., Alliance]


class Guillotine:
    """Kills at each journal entry once: before it is written, or after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, before: bool) -> None:
        self.deaths: list[str] = []
        self._seen: set[bytes] = set()
        self._append = SqlJournal.append
        self._before = before
        monkeypatch.setattr(SqlJournal, "append", lambda *args: self._falls(*args))

    def _falls(self, journal: Any, job: str, kind: str, body: bytes) -> None:
        place = f"{kind} {len(journal.events(job))}"
        first = self._first_time(place.encode() if kind == "shown" else kind.encode() + body, kind)
        if self._before and first:
            self.deaths.append(place)
            raise Killed
        self._append(journal, job, kind, body)
        if first:
            self.deaths.append(place)
            raise Killed

    def _first_time(self, name: bytes, kind: str) -> bool:
        """What has a time, a record or a head of the log, is signed anew when its entry was lost: the same entry."""
        name = kind.encode() if kind == "record-signed" else name
        if name in self._seen:
            return False
        self._seen.add(name)
        return True


def run_through(alliance: Alliance) -> machine.State:
    """Start the coordinator as often as it dies. Its folder and the institutions are all that stays."""
    for _ in range(200):
        try:
            return alliance.coordinator().run()
        except Killed:
            continue
    raise AssertionError("the job never ends")


@pytest.mark.parametrize(
    ("before", "database"),
    [(False, "sqlite"), (True, "postgresql")],
    ids=["after-the-entry-sqlite", "before-the-entry-postgresql"],
)
def test_a_coordinator_killed_at_every_journal_entry_finishes_the_same_round(
    build: Build, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, before: bool, database: str
):
    alliance = build(rounds=1)
    if database == "postgresql":
        set_database(alliance.home("coordinator"), "coordinator.toml", request.getfixturevalue("database_url"))
    guillotine = Guillotine(monkeypatch, before=before)
    state = run_through(alliance)
    assert isinstance(state, machine.Finished)
    assert len(guillotine.deaths) == 2 + (len(SITES) * 2 + 1) + (len(SITES) * 8 + 2)
    records = {(alliance.job(name) / "evidence/rounds/0001/record.dsse.json").read_bytes() for name in SITES}
    assert len(records) == 1
    assert peek_document(records.pop(), RoundRecord).votes == SITES
    for name in SITES:
        found = verify_evidence(alliance.job(name) / "evidence", root=None, say=lambda _: None)
        assert found.charges == 1, "a round that is asked for again is not charged again"
