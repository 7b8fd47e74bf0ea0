"""How long the coordinator waits, and how often it asks: for a member that is away, and after it was away itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_alliance.parties import wiring
from fl_alliance.protocol.ports import Reply
from fl_alliance.rounds import coordinator as machine
from tests.parties.conftest import SITES, Alliance, build_in

Build = Callable[..., Alliance]
HOUR, DAY = 3600.0, 86_400.0


class Clock:
    """Each look is so many seconds later."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step
        self.at: dict[float, Callable[[], None]] = {}
        """What happens when it is so late."""

    def __call__(self) -> float:
        self.now += self.step
        for late in [late for late in self.at if self.now >= late]:
            self.at.pop(late)()
        return self.now


class Silent:
    """A link to members that never answer; it notes when each was asked."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.asked = clock, dict[str, list[float]]()

    def ask(self, member: str, request: bytes) -> None:
        self.asked.setdefault(member, []).append(self.clock.now)

    def replies(self, timeout: float) -> list[Reply]:
        return []

    def waits(self, member: str) -> list[float]:
        times = self.asked[member]
        return [b - a for a, b in itertools.pairwise(times)]


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Alliance:
    """An alliance in which nothing is ever done."""
    return build_in(tmp_path_factory.mktemp("patience"), rounds=1, phase_seconds=2 * 3600)


def asked(alliance: Alliance, job: str, between: Callable[[float, float], float]) -> Silent:
    """Run a job with nobody there, up to its deadline."""
    wiring.propose(alliance.home("coordinator"), alliance.plan.model_copy(update={"job": job}))
    link = Silent(clock := Clock(5.0))
    coordinator = wiring.coordinator(alliance.home("coordinator"), job, link, alliance.blobs, clock=clock)  # type: ignore[arg-type]
    coordinator._between = between
    assert isinstance(coordinator.run(), machine.Aborted)
    return link


def test_who_owes_an_answer_is_asked_half_as_often_each_time_and_at_last_four_times_an_hour(still: Alliance) -> None:
    waits = asked(still, "job-2", lambda _, longest: longest).waits("clinic")[:-1]  # the last one is the abort
    right = [90, 180, 360, 720, *[900] * 6]
    assert all(least <= wait <= least + 30 for wait, least in zip(waits, right, strict=True)), waits


def test_members_are_not_asked_again_in_step(still: Alliance) -> None:
    """The source of chance decides between three quarters of the wait and all of it."""
    draws = iter([0.0, 0.5, 1.0] * 100)
    link = asked(still, "job-3", lambda low, high: low + next(draws) * (high - low))
    first = [link.waits(name)[0] for name in SITES]
    assert all(least <= wait <= least + 15 for wait, least in zip(first, (67.5, 78.75, 90), strict=True)), first
    assert len(set(first)) == len(SITES)


def test_the_wait_is_drawn_from_the_system_unless_a_test_says_otherwise(still: Alliance) -> None:
    link = Silent(clock := Clock(0.0))
    coordinator = wiring.coordinator(still.home("coordinator"), "job-1", link, still.blobs, clock=clock)  # type: ignore[arg-type]
    for ask in machine.outstanding(coordinator.state):
        assert isinstance(ask, machine.Ask)
        for _ in range(50):
            coordinator._ask(ask)
            due, wait = coordinator._due[ask.member]
            assert 0.75 * wait <= due <= wait
    assert len({due for due, _ in coordinator._due.values()}) == len(SITES)


def test_a_member_that_is_away_when_a_job_begins_gets_its_proposal_when_it_comes(build: Build) -> None:
    alliance = build(rounds=1, phase_seconds=4 * 3600)
    clock = Clock(60.0)
    alliance.hub.offline.add("school")
    clock.at[3 * HOUR] = lambda: alliance.hub.offline.discard("school")
    accepted: list[float] = []

    def tell(line: str) -> None:
        if "key" in line:
            accepted.append(clock.now)

    coordinator = alliance.coordinator(ask_again=90.0, clock=clock)
    coordinator._tell = tell
    assert isinstance(coordinator.run(), machine.Finished)
    assert min(accepted) > 3 * HOUR, "nothing runs without it"


def test_a_coordinator_that_is_down_for_a_day_costs_no_member_its_time(build: Build) -> None:
    """The school has a minute for its update. The coordinator dies after 50 s, and comes back a day later."""
    alliance = build(rounds=1, phase_seconds=60)
    clock, stopped = Clock(1.0), list[bool]()

    def school_leaves(line: str) -> None:
        if "sealed-shares from school" in line:
            alliance.hub.offline.add("school")
            clock.at[clock.now + 50] = lambda: stopped.append(True)

    first = alliance.coordinator(ask_again=1000.0, clock=clock)
    first._tell, first._stopping = school_leaves, lambda: bool(stopped)
    state = first.run()
    assert isinstance(state, machine.Gathering)
    assert stopped

    clock.now += DAY
    clock.at[clock.now + 40] = lambda: alliance.hub.offline.discard("school")
    state = alliance.coordinator(ask_again=1000.0, clock=clock).run()
    assert isinstance(state, machine.Finished)
    assert state.progress.left == {}


def test_a_member_that_takes_longer_than_the_phase_after_the_restart_is_out(build: Build, tmp_path: Path) -> None:
    alliance = build(rounds=1, phase_seconds=60)
    clock = Clock(1.0)
    alliance.hub.offline.add("school")
    first = alliance.coordinator(ask_again=1000.0, clock=clock)
    first._stopping = lambda: clock.now > 50
    first.run()
    clock.now += DAY
    state = alliance.coordinator(ask_again=1000.0, clock=clock).run()
    assert isinstance(state, machine.Aborted)
    assert state.reason == "no acceptance from school in round 0 before the deadline"
