"""The coordinator as a service: jobs queue, one at a time, and a stop, a crash or an order changes no other job."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

import pytest

from fl_alliance.errors import LinkFailed, OutOfOrder, StoreFailed
from fl_alliance.parties import wiring
from fl_alliance.parties.coordinator import Coordinator
from fl_alliance.parties.job_queue import JobQueue
from fl_alliance.parties.service import CoordinatorService
from fl_alliance.protocol.ids import BlobRef
from fl_alliance.protocol.ports import Reply
from fl_alliance.rounds import coordinator as machine
from fl_alliance.store.blobs import FolderBlobs
from fl_alliance.store.journal import Journal
from tests.parties.conftest import SITES, Alliance

Build = Callable[..., Alliance]


class Served:
    """An alliance whose coordinator is a service that stops when `until` is true, asked at each look."""

    def __init__(self, alliance: Alliance, journal: Journal) -> None:
        self.alliance, self.journal, self.queue = alliance, journal, JobQueue(journal)
        self.said: list[str] = []
        self.until: Callable[[], bool] = self.idle

    def idle(self) -> bool:
        return self.queue.next() is None

    def is_set(self) -> bool:
        return self.until()

    def wait(self, _: float) -> bool:
        return self.until()

    def propose(self, *names: str) -> None:
        for name in names:
            wiring.propose(self.alliance.home("coordinator"), self.alliance.plan.model_copy(update={"job": name}))

    def service(self) -> CoordinatorService:
        home, link = self.alliance.home("coordinator"), self.alliance.hub.coordinator_link()
        return wiring.service(home, link, self.alliance.blobs, self.journal, stop=self, tell=self.said.append)

    def run(self) -> None:
        self.service().run()

    def outcomes(self) -> dict[str, str | None]:
        return {job.job: job.outcome for job in self.queue.jobs()}


@pytest.fixture
def served(build: Build) -> Iterator[Served]:
    alliance = build(rounds=1)
    with wiring.open_journal(alliance.home("coordinator")) as journal:
        yield Served(alliance, journal)


def test_jobs_run_one_after_the_other_in_the_order_of_their_proposal(served: Served) -> None:
    served.propose("b-second", "a-third")
    served.run()
    assert list(served.outcomes().items()) == [("job-1", "finished"), ("b-second", "finished"), ("a-third", "finished")]
    for job in served.outcomes():
        folders = [served.alliance.home(name) / "jobs" / job / "adapter" for name in SITES]
        assert all(folder.is_dir() for folder in folders)
    kinds = [line.split()[1] for line in served.said if line.startswith("job ") and "begins" in line]
    assert kinds == ["job-1", "b-second", "a-third"]


def test_a_service_that_is_stopped_in_a_job_goes_on_with_it(served: Served) -> None:
    served.propose("job-2")
    events = len(served.journal.events("job-1"))
    served.until = lambda: len(served.journal.events("job-1")) > events + 5
    served.run()
    assert served.outcomes() == {"job-1": None, "job-2": None}
    kept = served.journal.events("job-1")
    served.until = served.idle
    served.run()
    assert served.outcomes() == {"job-1": "finished", "job-2": "finished"}
    assert served.journal.events("job-1")[: len(kept)] == kept


def test_a_job_that_is_cancelled_while_it_runs_ends_there_and_the_next_one_runs(served: Served) -> None:
    served.propose("job-2")
    heard: list[str] = []

    def tell(line: str) -> None:
        heard.append(line)
        if "round-keys from hospital" in line and not served.queue.cancelled("job-1"):
            wiring.cancel_job(served.alliance.home("coordinator"), "job-1", "the ethics board asks us to wait")

    service = served.service()
    new = service._new

    def begin(job: str) -> Coordinator:
        shell = new(job)
        shell._tell = tell
        return shell

    service._new = begin
    service.run()
    first, second = served.queue.jobs()
    assert (first.outcome, first.reason) == ("aborted", "the ethics board asks us to wait")
    assert second.outcome == "finished"
    assert not (served.alliance.home("clinic") / "jobs" / "job-1" / "adapter").exists()


def test_a_queued_job_that_is_cancelled_is_never_proposed_to_anybody(served: Served) -> None:
    served.propose("job-2")
    wiring.cancel_job(served.alliance.home("coordinator"), "job-1", "not this year")
    served.run()
    assert served.outcomes() == {"job-1": "aborted", "job-2": "finished"}
    assert served.journal.events("job-1") == []
    assert not (served.alliance.home("clinic") / "jobs" / "job-1").exists()


def test_cancelling_what_is_not_there_or_over_is_refused(served: Served) -> None:
    home = served.alliance.home("coordinator")
    with pytest.raises(OutOfOrder, match="job job-9 was never proposed"):
        wiring.cancel_job(home, "job-9", "why")
    wiring.cancel_job(home, "job-1", "why")
    served.run()
    with pytest.raises(OutOfOrder, match="job job-1 is over: aborted why"):
        wiring.cancel_job(home, "job-1", "again")


class Stub:
    """A coordinator of a job whose end is set."""

    def __init__(self, end: Callable[[], machine.State]) -> None:
        self.run = end


class Silent:
    """A link over which nothing comes."""

    def replies(self, timeout: float) -> list[Reply]:
        return []


@pytest.mark.parametrize(
    "error", [StoreFailed("journal"), LinkFailed("Flower"), OSError(28, "No space left on device")]
)
def test_a_full_disk_pauses_the_service_longer_each_time_and_ends_no_job(served: Served, error: Exception) -> None:
    waits: list[float] = []

    class Clock(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            if len(waits) == 8:
                self.set()
            return self.is_set()

    def fails() -> machine.State:
        raise error

    service = CoordinatorService(
        queue=served.queue,
        link=Silent(),
        coordinator=lambda _: Stub(fails),
        stop=Clock(),  # type: ignore[arg-type,return-value]
    )
    service.run()
    assert waits == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    assert served.outcomes() == {"job-1": None}


def test_a_job_whose_plan_was_put_in_anothers_place_is_noted_and_the_next_one_runs(served: Served) -> None:
    served.journal.append("job-1", "job", b"another plan was begun under this name")
    served.propose("job-2")
    served.run()
    first, second = served.queue.jobs()
    assert first.outcome == "aborted"
    assert first.reason.startswith("can't be run: OutOfOrder: job job-1 was begun with another plan")
    assert second.outcome == "finished"


def test_an_admin_sees_where_each_job_is(served: Served) -> None:
    served.propose("job-2", "job-3")
    home, queue = served.alliance.home("coordinator"), served.queue

    def round_1_waits_for_the_school() -> bool:
        if any("key-accepted from school" in line for line in served.said):
            served.alliance.hub.offline.add("school")
        return any("round-keys from clinic" in line for line in served.said)

    served.until = round_1_waits_for_the_school
    served.run()
    running, second, third = wiring.job_statuses(home)
    assert (running.state, running.round, running.rounds) == ("running", 1, 1)
    assert (running.phase, running.waits_for) == ("round-keys", ("school",))
    assert (second.job, second.state, third.state) == ("job-2", "queued", "queued")
    queue.cancel("job-3", "no")
    assert wiring.job_statuses(home)[2].reason == "cancelled: no"
    served.until = served.idle
    served.alliance.hub.offline.clear()
    served.run()
    ended = [(job.job, job.state, job.reason) for job in wiring.job_statuses(home)]
    assert ended == [("job-1", "finished", ""), ("job-2", "finished", ""), ("job-3", "aborted", "no")]


def test_a_sum_that_does_not_fit_on_the_disk_is_added_again_and_the_round_is_the_same(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, full = FolderBlobs.put, [True]

    def fails_once(blobs: FolderBlobs, ref: BlobRef, chunks: Iterable[bytes]) -> None:
        kinds = [kind for kind, _ in served.journal.events("job-1")]
        if full and kinds.count("answered") == 7 + 3 * len(SITES):  # every upload is here, and the sum is to be stored
            full.pop()
            raise StoreFailed("No space left on device")
        put(blobs, ref, chunks)

    monkeypatch.setattr(FolderBlobs, "put", fails_once)
    served.run()
    assert full == []
    assert served.outcomes() == {"job-1": "finished"}


def test_a_job_whose_end_was_not_noted_before_a_crash_is_not_run_again(served: Served) -> None:
    state = served.alliance.coordinator().run()
    assert isinstance(state, machine.Finished)
    asked = len(served.alliance.received)
    served.run()
    assert served.outcomes() == {"job-1": "finished"}
    assert len(served.alliance.received) == asked
