"""The institution's machine: the release gate under a hostile coordinator."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_alliance.errors import OutOfOrder
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.ids import digest_of
from fl_alliance.rounds import coordinator as c
from fl_alliance.rounds import institution as i
from tests.rounds.play import Play, results


def play_until_asked(kind: str, member: str = "ants", *, round_number: int = 1) -> tuple[Play, i.Asked]:
    """Play honestly until the next thing on the wire is this request to `member`."""
    play = Play()
    while True:
        ask = play.wire[0] if play.wire and not play.todo else None
        if ask and (ask.request.kind, ask.member) == (kind, member) and ask.request.round in (0, round_number):
            event = play.asked(ask.request)
            assert isinstance(event, i.Asked)
            return play, event
        assert play.honest_step()


def refusal_of(play: Play, event: i.Event) -> m.Refusal:
    answer = play.houses["ants"].take(event)
    assert isinstance(answer, m.Refusal)
    assert isinstance(play.houses["ants"].state, i.Over)
    return answer


def did(play: Play, kind: type[Any], member: str = "ants") -> int:
    return sum(isinstance(effect, kind) for effect in play.houses[member].did)


def replaced(event: i.Asked, member: str, **changes: Any) -> i.Asked:
    relayed = {**event.relayed, member: event.relayed[member].model_copy(update=changes)}
    return i.Asked(event.request, relayed, event.record, event.record_digest)


def test_training_comes_after_the_charge_and_once_a_round():
    play = Play()
    play.run()
    for house in play.houses.values():
        work = [type(effect) for effect in house.did if isinstance(effect, i.Charge | i.Train | i.Seal)]
        assert work == [i.Charge, i.Train, i.Seal] * play.plan.rounds


def test_a_plan_that_does_not_name_me_is_refused():
    play = Play()
    event = play.asked(play.wire[0].request)
    assert isinstance(event, i.Proposed)
    state, effects = i.step(i.Idle("zebras"), event)
    assert isinstance(state, i.Over)
    assert isinstance(effects[-1], i.Reply)
    assert isinstance(effects[-1].answer, m.Refusal)


def test_a_failed_charge_stops_before_any_record_is_read():
    play, event = play_until_asked("share-delivery")
    state, (shares,) = i.step(play.houses["ants"].state, event)
    assert isinstance(shares, i.OpenShares)
    state, (charge,) = i.step(state, i.Done(None))
    assert isinstance(charge, i.Charge)
    state, effects = i.step(state, i.Failed("BudgetExceeded", "epsilon_per_job is 8"))
    assert isinstance(state, i.Over)
    assert not any(isinstance(effect, i.Train) for effect in effects)


def wraps(*members: str, length: int = 80) -> dict[str, Any]:
    text = base64.b64encode(bytes(length)).decode()
    return {"wrapped": tuple(m.ToMember(member=name, sealed=text) for name in members)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (wraps("ants", "bees"), "not wrapped to each member of the plan, in order"),
        (wraps("bees", "cats"), "not wrapped to each member of the plan, in order"),
        (wraps("ants", "bees", "bees"), "not wrapped to each member of the plan, in order"),
        (wraps("ants", "ants", "bees", "cats"), "not wrapped to each member of the plan, in order"),
        (wraps("ants", "bees", "cats", "dogs"), "not wrapped to each member of the plan, in order"),
        (wraps("cats", "bees", "ants"), "not wrapped to each member of the plan, in order"),
        (wraps("ants", "bees", "cats", length=79), "a wrapped key has 80 bytes, that of ants 79"),
        (wraps("ants", "bees", "cats", length=81), "a wrapped key has 80 bytes, that of ants 81"),
        (wraps("ants", "bees", "cats", length=32_914), "a wrapped key has 80 bytes, that of ants 32914"),
        ({"wrapped": (*wraps("ants")["wrapped"], *wraps("bees", "cats", length=0)["wrapped"])}, "that of bees 0"),
        ({"sealed_key": base64.b64encode(bytes(33_001)).decode()}, "the sealed key has 33001 bytes, at most 33000"),
    ],
)
def test_keys_that_no_honest_key_maker_wraps_are_refused_unopened(changes: dict[str, Any], reason: str):
    """The shell has checked the signature: these are the key maker's own words."""
    play, event = play_until_asked("key-delivery")
    refusal = refusal_of(play, replaced(event, "ants", **changes))
    assert (refusal.error, reason in refusal.reason) == ("NotAuthentic", True), refusal.reason
    assert did(play, i.TakeAllianceKey) == 0


def test_a_sealed_key_of_the_greatest_length_is_opened():
    play, event = play_until_asked("key-delivery")
    longest = base64.b64encode(bytes(33_000)).decode()
    assert isinstance(play.houses["ants"].take(replaced(event, "ants", sealed_key=longest)), m.KeyAccepted)
    assert did(play, i.TakeAllianceKey) == 1


def test_a_roster_that_others_did_not_sign_is_refused_before_the_charge():
    play, event = play_until_asked("share-delivery")
    refusal = refusal_of(play, replaced(event, "bees", roster_digest=digest_of(b"another roster")))
    assert "another roster" in refusal.reason
    assert did(play, i.Charge) == did(play, i.Train) == 0


def test_a_roster_below_the_plans_fewest_is_refused():
    play, event = play_until_asked("key-roster")
    relayed = {name: keys for name, keys in event.relayed.items() if name != "cats"}
    refusal_of(play, i.Asked(event.request, relayed))
    assert did(play, i.DealShares) == 0


def test_two_survivor_lists_reveal_no_share():
    play, event = play_until_asked("confirmations")
    refusal_of(play, replaced(event, "cats", survivors_digest=digest_of(b"another list")))
    assert did(play, i.RevealShares) == 0


def test_another_upload_in_my_name_is_refused():
    play, event = play_until_asked("survivor-list")
    other = event.relayed["bees"].upload
    refusal = refusal_of(play, replaced(event, "ants", upload=other))
    assert "another upload as mine" in refusal.reason


def test_a_crafted_sum_is_never_opened():
    play, event = play_until_asked("reveal-delivery")
    house = play.houses["ants"]
    state, _ = i.step(house.state, event)
    state, effects = i.step(state, i.Done(house_sum := m.BlobRef(digest=digest_of(b"crafted"), length=7)))
    assert house_sum.length == 7
    assert isinstance(state, i.Over)
    assert "SumRefused" in state.reason
    assert not any(isinstance(effect, i.OpenSum) for effect in effects)


def test_a_sum_that_not_everybody_checked_is_never_opened():
    play, event = play_until_asked("sum-checks")
    refusal_of(play, replaced(event, "bees", sum_digest=digest_of(b"another sum")))
    assert did(play, i.OpenSum) == 0


def test_a_record_that_says_something_else_is_refused():
    play, event = play_until_asked("release")
    assert event.record is not None
    record = event.record.model_copy(update={"sum_digest": digest_of(b"another sum")})
    refusal = refusal_of(play, i.Asked(event.request, event.relayed, record, event.record_digest))
    assert "differs in sum" in refusal.reason
    assert did(play, i.Keep) == 0


def test_a_record_that_gives_an_upload_another_length_is_refused():
    """An auditor compares it with the signed upload: the evidence would be worth nothing, after the charge."""
    play, event = play_until_asked("release")
    assert event.record is not None
    first, *others = event.record.uploads
    changed = (first.model_copy(update={"length": first.length + 1}), *others)
    record = event.record.model_copy(update={"uploads": changed})
    refusal = refusal_of(play, i.Asked(event.request, event.relayed, record, event.record_digest))
    assert "differs in uploads" in refusal.reason
    assert did(play, i.Keep) == 0


def test_a_release_without_a_quorum_for_my_adapter_is_refused():
    play, event = play_until_asked("release")
    refusal_of(play, replaced(event, "bees", adapter_digest=digest_of(b"another adapter")))
    assert did(play, i.Keep) == 0


def test_a_request_of_another_round_changes_nothing():
    play, event = play_until_asked("key-roster", round_number=2)
    old = event.request.model_copy(update={"round": 1})
    before = play.houses["ants"].state
    with pytest.raises(OutOfOrder, match="round 2 is awaited"):
        i.step(before, i.Asked(old, event.relayed))


def test_a_rerun_of_a_round_changes_nothing():
    play, _ = play_until_asked("key-roster", round_number=2)
    opening = m.RoundOpening(alliance="zoo", job="job-1", round=1, previous_record=None)
    with pytest.raises(OutOfOrder):
        i.step(play.houses["ants"].state, i.Asked(opening, {}))


def test_abort_forgets():
    play, _ = play_until_asked("survivor-list")
    abort = m.Abort(alliance="zoo", job="job-1", round=1, reason="the admin said so")
    assert isinstance(play.houses["ants"].take(i.Asked(abort, {})), m.Stopped)
    assert did(play, i.Forget) == 1


REQUEST_KINDS = (
    "key-request",
    "key-delivery",
    "round-opening",
    "key-roster",
    "share-delivery",
    "survivor-list",
    "confirmations",
    "reveal-delivery",
    "sum-checks",
    "release",
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(st.just("honest"), st.tuples(st.sampled_from(("ants", "bees")), st.integers(0, 400))), max_size=120
    )
)
def test_no_history_of_replays_opens_the_gate(history: list[Any]):
    """Mix honest steps with replays of any earlier request to any house, and hold the gate's promises throughout."""
    play = Play()
    seen: list[c.Ask] = []
    for move in history:
        if move == "honest":
            if play.wire and not play.todo:
                seen.append(play.wire[0])
            with contextlib.suppress(OutOfOrder):  # a house that took a stolen request early is out of step: fine
                play.honest_step()
        elif seen:
            replay(play, move[0], seen[move[1] % len(seen)])
        for house in play.houses.values():
            keep_promises(house.did)


def replay(play: Play, member: str, ask: c.Ask) -> None:
    house = play.houses[member]
    before, done = house.state, list(house.did)
    try:
        event = play.asked(ask.request)
        answer = house.take(event)
    except OutOfOrder:
        assert house.state == before
        assert house.did == done
        return
    assert isinstance(answer, m.Answer)


def keep_promises(did_so_far: list[i.Effect]) -> None:
    """Written from the specification: charge before training, one upload a round, one opening after one check."""
    charged: set[int] = set()
    uploads: list[int] = []
    checked: set[str] = set()
    for effect in did_so_far:
        match effect:
            case i.Charge():
                assert effect.round not in charged
                charged.add(effect.round)
            case i.Train() | i.Seal():
                assert effect.round in charged
            case i.Reply(answer=m.SealedUpdate() as update):
                uploads.append(update.round)
            case i.Reply(answer=m.SumChecked() as check):
                checked.add(check.sum_digest)
            case i.OpenSum():
                assert effect.round in uploads
                assert checked
    assert len(uploads) == len(set(uploads))


def test_every_request_kind_is_reached_by_an_honest_run():
    for kind in REQUEST_KINDS:
        play_until_asked(kind)
    assert results("ants", i.Train(1)) is None
