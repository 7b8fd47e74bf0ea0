"""What a simulation shows: how the job ended, who left, whether all have the right sum, and what each phase took."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl_alliance.errors import JobAborted, SumRefused
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.parties.setup import COORDINATOR
from fl_alliance.parties.simulate.alliance import Simulation
from fl_alliance.parties.simulate.meter import Phase, Tally
from fl_alliance.parties.simulate.settings import SimulationSettings
from fl_alliance.parties.simulate.stand_in import Vector, read_adapter
from fl_alliance.protocol.documents import RoundRecord
from fl_alliance.rounds import coordinator as machine


@dataclass(frozen=True)
class Compared:
    """The survivors' adapters beside the plain mean of the updates that the records name."""

    survivors: tuple[str, ...]
    others: tuple[str, ...]
    """Survivors whose adapter is not the one of the last record."""
    off: float
    """Largest distance from the plain mean, in levels of the fixed point."""
    allowed: float
    """One level a round: the mean of roundings that are each below a level."""

    @property
    def right(self) -> bool:
        """Whether all have one adapter, and it is the mean to within the quantisation."""
        return not self.others and self.off <= self.allowed


@dataclass(frozen=True)
class Row:
    """One kind of phase, over all rounds. Bytes and CPU seconds of a member are the mean over those who took part."""

    phase: str
    asked: int
    heard: int
    member_up: float
    member_down: float
    coordinator_in: int
    coordinator_out: int
    member_seconds: float
    slowest_seconds: float
    """Of the slowest member."""
    coordinator_seconds: float
    wall_seconds: float
    """Of the coordinator and all members, one after another on this machine."""


@dataclass(frozen=True)
class Outcome:
    """What a simulation leaves."""

    settings: SimulationSettings
    threshold: int
    quorum: int
    rounds: int
    """Rounds that were recorded."""
    reason: str | None
    """Why the job was aborted; None: it is finished."""
    left: Mapping[str, str]
    """Who left, and why."""
    compared: Compared | None
    """None: there is no adapter to compare, for the job was aborted."""
    rows: tuple[Row, ...]
    waited_seconds: float
    """Of the simulated clock: what a real alliance would have waited for members and messages that never came."""
    peak_bytes: int
    """Most memory that this process ever had."""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        compared = None if self.compared is None else {**asdict(self.compared), "right": self.compared.right}
        return {
            "what": "load and fault test of the protocol; no claim about privacy",
            **asdict(self),
            "settings": self.settings.model_dump(),
            "compared": compared,
        }


def outcome_of(simulation: Simulation, state: machine.State) -> Outcome:
    """Compare what the survivors have with the plain mean, and sum up what was measured.

    Raises:
        EvidenceRefused: the auditor refuses the evidence of a survivor.
    """
    records = _records(simulation)
    finished = isinstance(state, machine.Finished)
    if finished:
        first = state.progress.present[0]
        verify_evidence(_job(simulation, first) / "evidence", root=None, say=lambda _: None)
    return Outcome(
        settings=simulation.settings,
        threshold=simulation.plan.threshold,
        quorum=simulation.plan.quorum,
        rounds=len(records),
        reason=state.reason if isinstance(state, machine.Aborted) else None,
        left=dict(state.progress.left),
        compared=_compare(simulation, records, state.progress.present) if finished else None,
        rows=_rows(simulation.meter.tallies),
        waited_seconds=simulation.clock.seconds,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    )


def require_right(outcome: Outcome) -> None:
    """Return if the job is finished and every survivor has the right adapter.

    Raises:
        JobAborted: with the reason of the abort.
        SumRefused: somebody has another adapter, or all have a wrong one.
    """
    if outcome.compared is None:
        raise JobAborted(outcome.reason or "the job did not finish")
    if outcome.compared.others:
        raise SumRefused(f"not the adapter of the last record: {', '.join(outcome.compared.others)}")
    if not outcome.compared.right:
        raise SumRefused(
            f"the adapter is {outcome.compared.off:.3g} levels from the plain mean, "
            f"with {outcome.rounds} rounds at most {outcome.compared.allowed:g}"
        )


def _job(simulation: Simulation, name: str) -> Path:
    return simulation.folder / name / "jobs" / simulation.plan.job


def _records(simulation: Simulation) -> list[RoundRecord]:
    files = sorted(_job(simulation, COORDINATOR).glob("record-*.dsse.json"))
    return [peek_document(file.read_bytes(), RoundRecord) for file in files]


def _compare(simulation: Simulation, records: list[RoundRecord], survivors: tuple[str, ...]) -> Compared:
    sum_plan, right = simulation.plan.sum, np.zeros(simulation.settings.parameters)
    for record in records:
        right += _plain_mean(simulation, record)
    others, off = [], 0.0
    for name in survivors:
        vector, digest = read_adapter(_job(simulation, name) / "adapter")
        off = max(off, float(np.max(np.abs(vector - right))))
        if digest != records[-1].adapter_digest:
            others.append(name)
    level = 2 * float(sum_plan.coordinate_clip) / ((1 << sum_plan.bits) - 1)
    return Compared(survivors, tuple(others), off / level, float(len(records)))


def _plain_mean(simulation: Simulation, record: RoundRecord) -> Vector:
    """Return the mean of the updates whose uploads a record names, from the vectors themselves."""
    total = np.zeros(simulation.settings.parameters)
    for upload in record.uploads:
        total += simulation.draws.again(upload.member, record.round)
    return total / len(record.uploads)


def _rows(tallies: Mapping[Phase, Tally]) -> tuple[Row, ...]:
    """Return a row for each kind of phase, in the order in which they came first."""
    kinds: dict[str, list[Tally]] = {}
    for (_, kind), tally in tallies.items():
        if tally.asked or tally.heard:
            kinds.setdefault(kind, []).append(tally)
    return tuple(_row(kind, found) for kind, found in kinds.items())


def _row(kind: str, tallies: list[Tally]) -> Row:
    down = sum((tally.down for tally in tallies), Counter[str]())
    up = sum((tally.up for tally in tallies), Counter[str]())
    seconds = [sum(tally.worked.get(name, 0.0) for tally in tallies) for name in down]
    members = max(len(down), 1)
    return Row(
        phase=kind,
        asked=sum(tally.asked for tally in tallies),
        heard=sum(tally.heard for tally in tallies),
        member_up=up.total() / members,
        member_down=down.total() / members,
        coordinator_in=up.total(),
        coordinator_out=down.total(),
        member_seconds=sum(seconds) / members,
        slowest_seconds=max(seconds, default=0.0),
        coordinator_seconds=sum(tally.coordinator for tally in tallies),
        wall_seconds=sum(tally.wall for tally in tallies),
    )
