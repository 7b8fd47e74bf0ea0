"""Deep states by name: who may be missing, who is out and who finishes, mostly in the last round of a job."""

from __future__ import annotations

import pytest

from fl_alliance.errors import OutOfOrder
from fl_alliance.protocol import messages as m
from fl_alliance.rounds import coordinator as c
from fl_alliance.rounds import institution as i
from tests.rounds.book import ADD, ALARMS, RECORD, ROUND
from tests.rounds.hostile import refusal_of, world_of
from tests.rounds.scenes import FOUR, ask_for, lie, the_others_finish, to_the_end, world_at

ASKED = tuple(kind for kind in ROUND if kind not in (ADD, RECORD))


LIES = [
    ("round-keys", "plan_digest", "bees made keys for another plan"),
    ("sealed-shares", "roster_digest", "bees signed another roster"),
    ("sealed-shares", "shares", "bees signed another roster"),
    ("sealed-update", "roster_digest", "bees masked for another list of dealers"),
    ("sealed-update", "dealers_digest", "bees masked for another list of dealers"),
    ("survivors-confirmed", "survivors_digest", "bees confirmed another list"),
    ("revealed-shares", "survivors_digest", "bees revealed shares for another list"),
    ("sum-checked", "survivors_digest", "bees did not check the sum of this list"),
    ("adapter-vote", "sum_digest", "bees voted for what another sum gives"),
    ("adapter-vote", "adapter_digest", "bees voted for another adapter"),
    ("released", "record_digest", "bees kept another record"),
]


@pytest.mark.parametrize(("kind", "field", "reason"), LIES)
def test_who_signs_something_else_than_the_others_is_out_and_they_finish(kind: str, field: str, reason: str):
    world = world_at(kind, **FOUR)
    lie(world, "bees", field)
    the_others_finish(world, "bees", reason)


@pytest.mark.parametrize(("kind", "field", "reason"), [case for case in LIES if case[0] in ROUND[:3]])
def test_where_every_upload_is_needed_one_lie_ends_the_job_with_a_reason(kind: str, field: str, reason: str):
    world = world_at(kind)
    lie(world, "bees", field)
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason.startswith(reason)
    assert state.reason.endswith("; 2 members are left, need 3")


def test_a_check_of_another_sum_ends_the_job_for_all():
    world = world_at("sum-checked", **FOUR)
    lie(world, "bees", "sum_digest")
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason == "bees added the uploads to another sum"
    assert not any(("OpenSum", 2) in site.gate.done for site in world.sites.values())


def test_an_accepted_key_that_is_another_one_ends_the_job_before_anything_is_charged():
    world = world_at("key-accepted", 0, **FOUR)
    lie(world, "bees", "key_fingerprint")
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason == "bees accepted another alliance key"


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("kind", ASKED)
def test_one_of_four_misses_a_deadline_in_any_phase_and_the_others_finish(kind: str, number: int):
    world = world_at(kind, number, **FOUR)
    world.vanish("dogs")
    the_others_finish(world, "dogs", f"no {kind} from dogs in round {number} before the deadline")


@pytest.mark.parametrize("kind", ["acceptance", "key-accepted"])
def test_before_the_first_round_nobody_may_be_missing(kind: str):
    world = world_at(kind, 0, **FOUR)
    world.vanish("dogs")
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason == f"no {kind} from dogs in round 0 before the deadline"


def test_later_rounds_go_on_without_one_that_left_and_ask_it_nothing():
    world = world_at("released", 1, **FOUR)
    world.vanish("dogs")
    the_others_finish(world, "dogs", "no released from dogs in round 1")
    later = [ask for ask in world.log if ask.request.round == 2]
    assert {ask.member for ask in later} == {"ants", "bees", "cats"}
    assert world.state.progress.phases["sealed-update"].keys() == {"ants", "bees", "cats"}


@pytest.mark.parametrize("kind", ASKED)
def test_a_refusal_of_ones_own_affairs_leaves_one_out(kind: str):
    world = world_at(kind, **FOUR)
    no = refusal_of(ask_for(world, "cats").request, "BudgetExceeded", "epsilon_per_job is 8")
    assert world.event(world.sign("cats", no))
    the_others_finish(world, "cats", "cats refused: BudgetExceeded: epsilon_per_job is 8")


@pytest.mark.parametrize("error", ALARMS)
@pytest.mark.parametrize("kind", ["round-keys", "survivors-confirmed", "adapter-vote", "released"])
def test_a_refusal_that_is_an_alarm_ends_the_job_for_all(kind: str, error: str):
    world = world_at(kind, **FOUR)
    no = refusal_of(ask_for(world, "cats").request, error, "not what was signed")
    assert world.event(world.sign("cats", no))
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason == f"cats refused: {error}: not what was signed"
    assert world.told == set(world.plan.names)


@pytest.mark.parametrize(
    ("kind", "left"),
    [("round-keys", 3), ("sealed-update", 3), ("survivors-confirmed", 4), ("revealed-shares", 3), ("adapter-vote", 3)],
)
def test_one_member_fewer_than_a_phase_needs_ends_the_job(kind: str, left: int):
    """Five members, threshold 3: three for a sum, four (two thirds and more) to confirm its list, three to open it."""
    shape = {"members": 5, "threshold": 3, "quorum": 3}
    enough, few = world_at(kind, **shape), world_at(kind, **shape)
    for world, stay in ((enough, left), (few, left - 1)):
        for name in world.plan.names[stay:]:
            world.vanish(name)
        while world.book.phase == (kind, 2):
            assert world.honest_step()
    assert not isinstance(enough.state, c.Aborted)
    assert isinstance(few.state, c.Aborted)
    assert few.state.reason.endswith(f"{left - 1} members are left, need {left}")


def test_after_the_vote_one_member_is_enough_for_the_last_round():
    world = world_at("released", **FOUR)
    for name in ("bees", "cats", "dogs"):
        world.vanish(name)
    assert isinstance(to_the_end(world), c.Finished)
    assert set(world.state.progress.left) == {"bees", "cats", "dogs"}


def test_after_the_vote_too_few_members_end_the_job_before_another_round():
    world = world_at("released", 1, **FOUR)
    for name in ("cats", "dogs"):
        world.vanish(name)
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason == "2 members are left for round 2, need 3"


def test_an_upload_that_cannot_be_added_is_left_out_of_sum_list_and_record():
    world = world_at(ADD, **FOUR)
    world.todo.clear()
    assert world.event(c.UploadRefused("ants", "its bytes are not what was signed"))
    the_others_finish(world, "ants", "the upload of ants was refused: its bytes are not what was signed")
    assert "ants" not in world.state.progress.phases["sealed-update"]
    assert "ants" in world.state.progress.phases["sealed-shares"]


def test_two_uploads_of_four_that_cannot_be_added_end_the_job():
    world = world_at(ADD, **FOUR)
    for name in ("ants", "bees"):
        world.todo.clear()
        assert world.event(c.UploadRefused(name, "bad"))
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason == "the upload of bees was refused: bad; 2 members are left, need 3"


def test_an_upload_that_was_refused_is_not_refused_again():
    world = world_at(ADD, members=5, threshold=3, quorum=3)
    world.todo.clear()
    assert world.event(c.UploadRefused("ants", "bad"))
    assert not world.event(c.UploadRefused("ants", "bad"))


def test_who_left_is_told_again_after_a_crash_in_any_later_phase():
    world = world_at("sealed-shares", 1, **FOUR)
    world.vanish("dogs")
    seen = set()
    while world.honest_step():
        if world.book.left and world.book.phase not in seen:
            seen.add(world.book.phase)
            world.crash()  # compares what is outstanding with what is owed
            assert [ask.member for ask in world.wire if isinstance(ask.request, m.Abort)] == ["dogs"]
    assert len(seen) == 2 * len(ROUND) - 1
    assert isinstance(world.state, c.Finished)


def test_three_lists_of_which_each_is_within_the_one_before_it():
    """One vanishes in each of three phases of the round: the record names roster and uploads, votes are fewer."""
    world = world_at("sealed-shares", members=5, threshold=3, quorum=3, minimum=3)
    for kind, name in (("sealed-shares", "eels"), ("revealed-shares", "dogs")):
        while world.book.phase[0] != kind:
            assert world.honest_step()
        world.vanish(name)
    assert isinstance(to_the_end(world), c.Finished)
    gate = world.sites["ants"].gate
    assert [len(gate.lists[kind]) for kind in ("key-roster", "share-delivery", "survivor-list", "reveal-delivery")] == [
        5, 4, 4, 3,
    ]  # fmt: skip


def test_an_abort_of_another_job_ends_nothing():
    site = world_at("sealed-update").sites["ants"]
    before = site.state
    abort = m.Abort(alliance="zoo", job="job-0", round=1, reason="the job of last year")
    with pytest.raises(OutOfOrder, match="abort of job job-0, while job job-1 is under way"):
        site.take(i.Asked(abort, {}))
    assert site.state == before


def test_a_job_that_is_cancelled_without_a_reason_says_so():
    world = world_of()
    world.event(c.Cancelled(""))
    assert world.state.reason == "no reason was given"
