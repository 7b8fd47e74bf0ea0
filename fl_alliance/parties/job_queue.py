"""The coordinator's queue of jobs: orders in the journal, which say what was proposed, taken out and brought to an end.

An order is an entry of the journal under a name that no job can have, so it is durable, and in one order for every
process: the admin's commands write while the service runs. The queue is the fold of its orders.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from fl_alliance.errors import MalformedMessage, OutOfOrder
from fl_alliance.store.journal import Journal

ORDERS: Final = "*orders"
"""The orders' name in the journal; a job's name has no asterisk."""


@dataclass(frozen=True)
class Queued:
    """A job in the queue, and what was ordered of it since."""

    job: str
    cancelled: str | None = None
    """Why the admin took it out or ends it; the first reason counts."""
    outcome: str | None = None
    """`finished` or `aborted`, once it is over."""
    reason: str = ""
    """Why it was aborted."""

    @property
    def over(self) -> bool:
        """Whether nothing is to be done any more."""
        return self.outcome is not None


class JobQueue:
    """Jobs in the order of their proposal. Everything raises `StoreFailed` where the journal can't be used."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def jobs(self) -> tuple[Queued, ...]:
        """Return every job that was ever proposed, oldest first."""
        return queue_of(self._journal.events(ORDERS))

    def job(self, name: str) -> Queued | None:
        """Return one job; None: it was never proposed."""
        return next((queued for queued in self.jobs() if queued.job == name), None)

    def next(self) -> Queued | None:
        """Return the oldest job that is not over."""
        return next((queued for queued in self.jobs() if not queued.over), None)

    def begun(self, name: str) -> bool:
        """Return whether anything ever happened in a job."""
        return bool(self._journal.events(name))

    def proposed(self, name: str) -> None:
        """Put a job at the end of the queue; one that was proposed before keeps its place."""
        if self.job(name) is None:
            self._order("proposed", name)

    def cancel(self, name: str, reason: str) -> None:
        """Order that a job ends; whoever runs it, now or later, does it.

        Raises:
            OutOfOrder: there is no such job, or it is over.
        """
        queued = self.job(name)
        if queued is None:
            raise OutOfOrder(f"job {name} was never proposed")
        if queued.over:
            raise OutOfOrder(f"job {name} is over: {queued.outcome} {queued.reason}".rstrip())
        self._order("cancelled", name, reason)

    def cancelled(self, name: str) -> str | None:
        """Return why the job was cancelled; None: it was not."""
        queued = self.job(name)
        return None if queued is None else queued.cancelled

    def ended(self, name: str, outcome: str, reason: str = "") -> None:
        """Note that a job is over; what was noted first stays."""
        queued = self.job(name)
        if queued is None or not queued.over:
            self._order("ended", name, outcome, reason)

    def _order(self, kind: str, *words: str) -> None:
        self._journal.append(ORDERS, kind, json.dumps(words).encode())


def queue_of(orders: Iterable[tuple[str, bytes]]) -> tuple[Queued, ...]:
    """Return the queue that `orders`, oldest first, make.

    Raises:
        MalformedMessage: an order is of a kind that is not known here.
    """
    jobs: dict[str, Queued] = {}
    for kind, body in orders:
        name, *words = json.loads(body)
        job = jobs.get(name, Queued(name))
        match kind:
            case "proposed":
                jobs[name] = job
            case "cancelled":
                jobs[name] = replace(job, cancelled=job.cancelled or words[0])
            case "ended":
                jobs[name] = job if job.over else replace(job, outcome=words[0], reason=words[1])
            case _:
                raise MalformedMessage(f"the journal holds an order of kind {kind!r}, which is not known here")
    return tuple(jobs.values())
