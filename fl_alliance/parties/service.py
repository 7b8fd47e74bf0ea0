"""The coordinator as a service: the link stays open, and queued jobs run one after the other.

The queue is in the journal (`parties.job_queue`), each job's events too. So a service that starts again goes on with
the job that a crash or a stop interrupted, and then takes the next. What a job's own shell can't mend (a full disk, a
link that fails) is tried again after a pause; a job that can never run is noted as aborted, and the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from fl_alliance.errors import AllianceError, LinkFailed, StoreFailed, StoreTaken
from fl_alliance.parties.coordinator import Coordinator
from fl_alliance.parties.job_queue import JobQueue, Queued
from fl_alliance.protocol.ports import CoordinatorLink
from fl_alliance.rounds import coordinator as machine

log = structlog.get_logger()

_MAY_MEND_ITSELF = (StoreFailed, LinkFailed, OSError)


class Stop(Protocol):
    """Says when to leave (`threading.Event`)."""

    def is_set(self) -> bool:
        """Return whether to leave."""

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; return whether to leave."""


class CoordinatorService:
    """Runs what is queued until it is told to stop. One process, one job at a time."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        link: CoordinatorLink,
        coordinator: Callable[[str], Coordinator],
        stop: Stop,
        tell: Callable[[str], None] = lambda _: None,
        look_seconds: float = 0.5,
        pause_seconds: tuple[float, float] = (5.0, 300.0),
    ) -> None:
        """`coordinator` makes the shell of a job; `pause_seconds`: after the first failure, and at most."""
        self._queue, self._link, self._new, self._stop, self._tell = queue, link, coordinator, stop, tell
        self._look, self._pauses = look_seconds, pause_seconds
        self._pause = pause_seconds[0]
        self.current: Coordinator | None = None
        """The job under way."""

    def run(self) -> None:
        """Serve until `stop` is set. Returns between two events of a job, which goes on at the next start.

        Raises:
            StoreTaken: another process serves the journal's database, or did meanwhile.
        """
        self._tell("waiting for jobs")
        while not self._stop.is_set():
            try:
                self._turn()
                self._pause = self._pauses[0]
            except StoreTaken:
                raise
            except _MAY_MEND_ITSELF as error:
                log.error("service_pauses", error=error, seconds=self._pause)  # noqa: TRY400
                self._stop.wait(self._pause)
                self._pause = min(2 * self._pause, self._pauses[1])
        self._tell("stopped: a job under way goes on at the next start")

    def _turn(self) -> None:
        queued = self._queue.next()
        if queued is not None:
            self._run(queued)
            return
        for reply in self._link.replies(timeout=0.0):  # whoever comes now still hears how its last job ended
            log.info("late_reply", member=reply.member)
        self._stop.wait(self._look)

    def _run(self, queued: Queued) -> None:
        """Run one job to its end, or until the stop; a job that can't be begun or replayed is noted as aborted."""
        if queued.cancelled is not None and not self._queue.begun(queued.job):
            self._end(queued.job, "aborted", queued.cancelled)
            return
        try:
            self.current = self._new(queued.job)
        except _MAY_MEND_ITSELF:
            raise
        except AllianceError as error:
            self._end(queued.job, "aborted", f"can't be run: {type(error).__name__}: {error}")
            return
        try:
            self._tell(f"job {queued.job} begins or goes on")
            note_the_end(self._queue, queued.job, self.current.run(), tell=self._tell)
        finally:
            self.current = None

    def _end(self, job: str, outcome: str, reason: str) -> None:
        self._queue.ended(job, outcome, reason)
        self._tell(f"job {job} {outcome}: {reason}")


def note_the_end(
    queue: JobQueue, job: str, state: machine.State, *, tell: Callable[[str], None] = lambda _: None
) -> None:
    """Note in the queue how a job ended; of one that goes on later nothing is noted."""
    match state:
        case machine.Finished():
            queue.ended(job, "finished")
            tell(f"job {job} finished")
        case machine.Aborted(reason=reason):
            queue.ended(job, "aborted", reason)
            tell(f"job {job} aborted: {reason}")
