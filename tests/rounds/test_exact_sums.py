"""Whole rounds with real keys, masks, shares and ciphers: the exact sum of the survivors, or an abort with a reason.

The long form of the first test is `python -m tests.rounds.exact`, with as many rounds as you like.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_alliance.protocol.limits import MIN_MEMBERS
from fl_alliance.rounds import coordinator as c
from tests.rounds.exact import PHASES, Vanishing, play_and_check
from tests.rounds.real import RealPlay, names_of, on_levels, real_plan


@st.composite
def vanishings(draw: st.DrawFn) -> tuple[int, int, int, tuple[Vanishing, ...], int]:
    members = draw(st.integers(MIN_MEMBERS, 8))
    bits = draw(st.sampled_from((8, 12, 16, 18, 20)))
    threshold = draw(st.integers(members // 2 + 1, members))
    names = draw(st.lists(st.sampled_from(names_of(members)), unique=True, max_size=members))
    gone = tuple(Vanishing(name, draw(st.sampled_from(PHASES))) for name in names)
    return members, bits, threshold, gone, draw(st.integers(0, 2**32))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(vanishings())
def test_any_dropout_in_any_phase_gives_the_exact_sum_or_a_named_abort(
    case: tuple[int, int, int, tuple[Vanishing, ...], int],
) -> None:
    members, bits, threshold, gone, seed = case
    play_and_check(members, bits, threshold, gone, seed)


@pytest.mark.parametrize("phase", PHASES)
def test_one_of_four_vanishes_in_each_phase_and_the_others_finish(phase: str) -> None:
    outcome = play_and_check(4, 16, 3, (Vanishing("site-01", phase),), 1)
    assert isinstance(outcome, c.Finished)
    assert set(outcome.progress.left) == {"site-01"}


def test_the_upload_of_one_that_vanished_after_it_is_in_the_sum() -> None:
    outcome = play_and_check(4, 16, 3, (Vanishing("site-02", "survivors-confirmed"),), 2)
    assert "site-02" in outcome.progress.phases["sealed-update"]


def test_an_upload_that_cannot_be_added_is_left_out_and_the_others_finish() -> None:
    plan = real_plan(4, 16, threshold=3, rounds=1)
    digits = np.arange(4 * 7).reshape(4, 7)
    play = RealPlay(plan, on_levels(digits, 16))
    while not isinstance(play.state, c.Adding):
        assert play.honest_step()
    upload = play.state.progress.done(c.m.SealedUpdate)["site-03"].upload
    data = play.blobs.data[upload.digest]
    play.blobs.data[upload.digest] = data[:-1] + bytes([data[-1] ^ 1])
    assert isinstance(play.run(), c.Finished)
    assert "site-03" in play.state.progress.left["site-03"]
    assert "NotAuthentic" in play.state.progress.left["site-03"]


def test_the_check_has_power(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pairwise masks of those who vanished taken off, no sum opens: the test above would see it."""
    from fl_alliance.parties import desk

    monkeypatch.setattr(desk.masks, "remove_pairwise_masks", lambda total, **_: total)
    plan = real_plan(4, 16, threshold=3, rounds=1)
    play = RealPlay(plan, on_levels(np.ones((4, 5), np.int64), 16))
    while play.honest_step():
        if isinstance(play.state, c.Gathering) and c.kind_of(play.state.awaits) == "sealed-update":
            play.vanish("site-00")
    assert isinstance(play.state, c.Aborted)
    assert "OutOfRange" in play.state.reason
