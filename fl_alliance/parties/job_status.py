"""What an admin sees of each job: queued, running with round and phase, finished, aborted with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table

from fl_alliance.parties.job_queue import Queued
from fl_alliance.rounds import coordinator as machine


@dataclass(frozen=True)
class JobStatus:
    """One job, as its journal says; nothing in it is private."""

    job: str
    state: Literal["queued", "running", "finished", "aborted"]
    round: int = 0
    """The present one; 0 before the first."""
    rounds: int = 0
    phase: str = ""
    """The kind of answer that is awaited, or what the coordinator does itself."""
    waits_for: tuple[str, ...] = ()
    """Members that owe the answer."""
    left: tuple[str, ...] = ()
    """Members that are out of the job."""
    reason: str = ""
    """Why it was aborted, or will be at once."""


def status_of(queued: Queued, state: machine.State | None) -> JobStatus:
    """Return the status of a job whose journal makes `state`; None: nothing has happened, or the queue says the end."""
    if queued.outcome == "finished" or isinstance(state, machine.Finished):
        return JobStatus(queued.job, "finished")
    if queued.outcome == "aborted":
        return JobStatus(queued.job, "aborted", reason=queued.reason)
    if isinstance(state, machine.Aborted):
        return JobStatus(queued.job, "aborted", reason=state.reason)
    ordered = "" if queued.cancelled is None else f"cancelled: {queued.cancelled}"
    if state is None:
        return JobStatus(queued.job, "queued", reason=ordered)
    return JobStatus(
        queued.job,
        "running",
        round=state.progress.round,
        rounds=state.progress.job.plan.rounds,
        phase=machine.kind_of(state.awaits) if isinstance(state, machine.Gathering) else type(state).__name__.lower(),
        waits_for=machine.waited_for(state),
        left=tuple(sorted(state.progress.left)),
        reason=ordered,
    )


def table_of(jobs: Sequence[JobStatus]) -> Table:
    """Return the jobs as a table, in the order of the queue."""
    table = Table("job", "state", "round", "phase", "waits for", "out", "reason")
    for job in jobs:
        where = f"{job.round}/{job.rounds}" if job.rounds else ""
        table.add_row(job.job, job.state, where, job.phase, ", ".join(job.waits_for), ", ".join(job.left), job.reason)
    return table
