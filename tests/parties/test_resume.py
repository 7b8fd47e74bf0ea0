"""An institution is killed wherever it writes, and started again from its folder: it goes on with the same round."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from fl_alliance.evidence.adapter import adapter_digest
from fl_alliance.parties import wiring
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.parties.model_auditor import verify_model
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import SumPlan, TrainingPlan
from fl_alliance.rounds import coordinator as machine
from fl_alliance.secagg import fixedpoint
from fl_alliance.store.journal import SqlJournal
from tests.killed import Killed
from tests.parties.conftest import SITES, Alliance
from tests.rounds.real import FixedTrainer

Build = Callable[..., Alliance]
CLIP = 0.5
SIZE = 300


class Guillotine:
    """Kills at each write of an institution's journal once: before it is there, or just after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, before: bool) -> None:
        self.deaths: list[str] = []
        self.seen: set[tuple[str, int]] = set()
        self._advance, self._before = SqlJournal.advance, before
        monkeypatch.setattr(SqlJournal, "advance", lambda *args, **named: self._falls(*args, **named))

    def _falls(self, journal: Any, job: str, kind: str, body: bytes, **named: Any) -> None:
        place = (str(journal._database._engine.url.database), len(journal.events(job)))
        first, said = place not in self.seen, f"{place[1]} {kind}"
        self.seen.add(place)
        if first and self._before:
            self.deaths.append(said)
            raise Killed(Path(place[0]).parent.name)
        self._advance(journal, job, kind, body, **named)
        if first:
            self.deaths.append(said)
            raise Killed(Path(place[0]).parent.name)


class Steps(FixedTrainer):
    """An update that follows from member and round, and an adapter that is a file."""

    def __init__(self, name: str) -> None:
        super().__init__(np.zeros(SIZE))
        self.name = name

    def train_round(self) -> Any:
        """Values on the levels of the fixed point: rounded at random they stay where they are."""
        seed = int.from_bytes(hashlib.sha256(f"{self.name} {self.vector.sum():.9f}".encode()).digest()[:4], "big")
        digits = np.random.default_rng(seed).integers(0, 2**16, SIZE)
        return CLIP * (2 * digits / (2**16 - 1) - 1)

    def save(self, folder: Path) -> str:
        folder.mkdir(parents=True)  # as the product's: never over another
        (folder / "adapter_config.json").write_text("{}\n")
        (folder / "adapter_model.safetensors").write_bytes(weights(self.vector))
        return adapter_digest(folder)


def weights(vector: Any) -> bytes:
    return safetensors.numpy.save({"vector": vector})


def with_steps(build: Build, rounds: int) -> Alliance:
    """Return an alliance of stand-ins for the training; all else is real."""
    made = build(rounds=rounds, sum=SumPlan(coordinate_clip=str(CLIP)), quorum=3)
    for name in SITES:
        settings = made.home(name) / "institution.toml"
        settings.write_text("cipher_processes = 0\n" + settings.read_text())  # a worker for each life takes seconds
        attach(made, name)
    return made


@pytest.fixture
def alliance(build: Build) -> Alliance:
    return with_steps(build, 1)


def attach(alliance: Alliance, name: str) -> None:
    """Start the institution's process: nothing of an earlier one is left but its folder."""
    link = alliance.hub.institution_link(name)
    handler = wiring.institution_with(
        alliance.home(name), link, trainer=lambda _: Steps(name), records_digest=lambda: digest_of(name.encode()),
        releases=True,
    )  # fmt: skip
    alliance.hub.attach(name, handler)


def run_through(alliance: Alliance, most: int = 300) -> machine.State:
    """Start everybody again as often as somebody dies."""
    for _ in range(most):
        try:
            return alliance.coordinator().run()
        except Killed as killed:
            alliance.hub._outbox.clear()
            attach(alliance, str(killed))
    raise AssertionError("the job never ends")


def outcome(alliance: Alliance) -> set[bytes]:
    """Return the adapter of all institutions; checks ledgers, evidence and what was released on the way."""
    for name in SITES:
        verify_model(alliance.job(name) / "adapter", evidence=alliance.job(name) / "evidence", say=lambda _: None)
        found = verify_evidence(alliance.job(name) / "evidence", root=None, say=lambda _: None)
        assert found.charges == alliance.plan.rounds, "a round that goes on is not charged again"
    return {(alliance.job(name) / "adapter" / "adapter_model.safetensors").read_bytes() for name in SITES}


@pytest.mark.parametrize(("before", "rounds"), [(True, 2), (False, 1)], ids=["before-the-write", "after-the-write"])
def test_institutions_killed_at_every_write_end_with_the_adapter_of_an_undisturbed_run(
    build: Build, monkeypatch: pytest.MonkeyPatch, before: bool, rounds: int
):
    alliance = with_steps(build, rounds)
    guillotine = Guillotine(monkeypatch, before=before)
    state = run_through(alliance)
    assert isinstance(state, machine.Finished)
    requests, answered_at_once, work_before_an_upload = 2 + 8 * rounds, rounds, 3 * rounds
    writes = 2 * requests - answered_at_once + work_before_an_upload
    assert len(guillotine.deaths) >= len(SITES) * (writes - 1)
    assert outcome(alliance) == {expected_adapter(alliance.plan)}
    assert not any(SqlJournal(alliance.home(name) / "journal.db").memory("job-1") for name in SITES)


def test_an_adapter_is_on_the_disk_before_the_journal_says_so(alliance: Alliance, monkeypatch: pytest.MonkeyPatch):
    """A power cut takes what is not synced: the adapter that was voted for would be missing, or be the old one."""
    log: list[str] = []
    fsync, advance = os.fsync, SqlJournal.advance

    def noting(handle: int) -> None:
        log.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    def telling(journal: Any, job: str, kind: str, body: bytes, **named: Any) -> None:
        advance(journal, job, kind, body, **named)
        log.append(f"{Path(str(journal._database._engine.url.database)).parent.name} {len(journal.events(job))}")

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(SqlJournal, "advance", telling)
    left = alliance.job("clinic") / ".adapter-7"  # by a process that was killed while it replaced an adapter
    left.mkdir(parents=True)
    assert isinstance(alliance.coordinator().run(), machine.Finished)
    assert not left.exists()
    folder = alliance.job("clinic")
    told = [place for place, line in enumerate(log) if line.startswith("clinic ")]
    opened, kept = told[-3], told[-1]  # between them the request to keep it
    voted = log[told[-4] : opened]
    assert {str(folder / "candidate/adapter_model.safetensors"), str(folder / "candidate"), str(folder)} <= {*voted}
    assert str(folder) in log[told[-2] : kept], "its new name too"


def expected_adapter(plan: TrainingPlan) -> bytes:
    """Return what the plain means give, computed without any of the parties."""
    houses = {name: Steps(name) for name in SITES}
    for _ in range(plan.rounds):
        digits = [
            fixedpoint.quantise(houses[name].train_round(), clip=CLIP, bits=plan.sum.bits).astype(np.uint64)
            for name in SITES
        ]
        total = fixedpoint.dequantise_sum(sum(digits), clip=CLIP, bits=plan.sum.bits, members=len(SITES))  # type: ignore[arg-type]
        for member in houses.values():
            member.apply(total / len(SITES))
    return weights(houses[SITES[0]].vector)
