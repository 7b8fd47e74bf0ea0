"""The coordinator's machine: honest runs, crashes, and what it must refuse."""

from __future__ import annotations

import pytest

from fl_alliance.errors import OutOfOrder
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.ids import digest_of
from fl_alliance.rounds import coordinator as c
from tests.rounds.play import NAMES, Play, sealed


def play_until(awaits: type[m.Answer], *, round_number: int = 1) -> Play:
    play = Play()
    while not (
        isinstance(play.state, c.Gathering)
        and play.state.awaits is awaits
        and play.state.progress.round in (0, round_number)
    ):
        assert play.honest_step()
    return play


def test_an_honest_job_finishes_with_a_chain_of_records():
    play = Play()
    assert isinstance(play.run(), c.Finished)
    records = [event for event in play.journal if isinstance(event, c.RecordSigned)]
    assert len(records) == play.plan.rounds
    assert play.state.progress.previous_record == digest_of(records[-1].envelope)
    assert all(
        type(house.state).__name__ == "Over" and house.state.reason == "complete" for house in play.houses.values()
    )


def test_replay_of_the_journal_gives_the_same_state_after_every_event():
    play = Play()
    while play.honest_step():
        assert play.replayed() == play.state


def test_a_crash_between_any_two_journal_entries_changes_nothing_about_the_end():
    quiet = Play()
    quiet.run()
    ends = set()
    for crash_after in range(len(quiet.journal)):
        play, answered = Play(), {}
        while len(play.journal) < crash_after:
            assert honest_step_with_cache(play, answered)
        play.crash()
        while honest_step_with_cache(play, answered):
            pass
        assert isinstance(play.state, c.Finished), crash_after
        ends.add(play.state.progress.previous_record)
    assert ends == {quiet.state.progress.previous_record}


def honest_step_with_cache(play: Play, answered: dict) -> bool:
    """As `honest_step`, with institutions that answer a resend from their stored reply."""
    if play.todo or not play.wire:
        return play.honest_step()
    ask = play.wire.pop(0)
    key = (ask.member, encode(ask.request))
    if key not in answered:
        answered[key] = play.houses[ask.member].take(play.asked(ask.request))
    play.event(c.Answered(ask.member, c.Signed(answered[key], sealed(ask.member, answered[key]))))
    return True


def test_an_answer_twice_is_refused_and_changes_nothing():
    play = play_until(m.RoundKeys)
    play.honest_step()
    before, last = play.state, play.journal[-1]
    with pytest.raises(OutOfOrder, match="already answered"):
        c.step(play.state, last)
    assert play.state == before


def test_an_answer_of_an_earlier_phase_is_refused():
    play = play_until(m.SealedShares)
    old = next(e for e in play.journal if isinstance(e, c.Answered) and isinstance(e.signed.answer, m.RoundKeys))
    with pytest.raises(OutOfOrder, match="while sealed-shares is awaited"):
        c.step(play.state, old)


def test_an_answer_of_an_earlier_round_is_refused():
    play = play_until(m.RoundKeys, round_number=2)
    while not (isinstance(play.state, c.Gathering) and play.state.progress.round == 2):
        play.honest_step()
    old = next(e for e in play.journal if isinstance(e, c.Answered) and isinstance(e.signed.answer, m.RoundKeys))
    with pytest.raises(OutOfOrder, match="not of this one"):
        c.step(play.state, old)


def test_a_stranger_is_refused():
    play = play_until(m.RoundKeys)
    digest = digest_of(b"")
    answer = m.RoundKeys(
        alliance="zoo", job="job-1", round=1, plan_digest=digest, checkpoint=digest, mask_key="", channel_key=""
    )
    with pytest.raises(OutOfOrder, match="was not asked"):
        c.step(play.state, c.Answered("dogs", c.Signed(answer, b"")))


def test_too_few_uploads_before_the_deadline_abort_with_the_names_of_the_missing():
    play = play_until(m.SealedUpdate)
    play.honest_step()
    play.event(c.DeadlinePassed("sealed-update", 1))
    assert isinstance(play.state, c.Aborted)
    assert "bees, cats" in play.state.reason
    assert {ask.member for ask in c.outstanding(play.state)} == set(NAMES)


def test_the_deadline_of_an_earlier_phase_is_refused():
    play = play_until(m.SealedUpdate)
    with pytest.raises(OutOfOrder):
        c.step(play.state, c.DeadlinePassed("sealed-shares", 1))


def test_a_refusal_where_every_member_is_needed_aborts_with_its_reason():
    play = play_until(m.SealedUpdate)
    digest = digest_of(encode(play.wire[0].request))
    refusal = m.Refusal(
        alliance="zoo", job="job-1", round=1, request_digest=digest, error="BudgetExceeded", reason="cap 8, would be 9"
    )
    play.event(c.Answered("ants", c.Signed(refusal, b"")))
    assert isinstance(play.state, c.Aborted)
    assert "ants refused: BudgetExceeded: cap 8" in play.state.reason


def test_another_roster_where_every_member_is_needed_aborts():
    play = play_until(m.SealedShares)
    answer = play.houses["ants"].take(play.asked(play.wire.pop(0).request))
    other = answer.model_copy(update={"roster_digest": digest_of(b"another roster")})
    play.event(c.Answered("ants", c.Signed(other, sealed("ants", other))))
    play.run()
    assert isinstance(play.state, c.Aborted)
    assert "ants signed another roster" in play.state.reason


def test_fewer_equal_votes_than_the_quorum_abort():
    play = play_until(m.AdapterVote)
    answer = play.houses["ants"].take(play.asked(play.wire.pop(0).request))
    other = answer.model_copy(update={"adapter_digest": digest_of(b"another adapter")})
    play.event(c.Answered("ants", c.Signed(other, sealed("ants", other))))
    play.run()
    assert isinstance(play.state, c.Aborted)
    assert "2 members agree" in play.state.reason


def test_after_the_end_nothing_is_taken():
    play = Play()
    play.run()
    with pytest.raises(OutOfOrder, match="the job is over"):
        c.step(play.state, play.journal[-1])
