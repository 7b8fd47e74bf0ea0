"""The statistics of a one-run audit: the paper's own numbers, and a bound that is seldom above the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fl_alliance.errors import BadConfig
from fl_alliance.privacy.empirical import Guesses, default_guesses, guess, lower_bound, p_value


def guesses_of(canaries: int, made: int, right: int) -> Guesses:
    return Guesses(canaries=canaries, made=made, right=right)


@st.composite
def some_guesses(draw: st.DrawFn) -> Guesses:
    canaries = draw(st.integers(1, 400))
    made = draw(st.integers(1, canaries))
    return guesses_of(canaries, made, draw(st.integers(0, made)))


@pytest.mark.parametrize(
    ("canaries", "made", "right", "delta", "printed"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],
    ids=["appendix D", "section 7, figure 11"],
)
def test_the_papers_own_numbers(canaries: int, made: int, right: int, delta: float, printed: float) -> None:
    """arXiv:2305.08846v1, pages 46 and 28; the second is cut off after three places, not rounded."""
    assert lower_bound(guesses_of(canaries, made, right), delta, 0.95) == pytest.approx(printed, abs=1e-3)


@pytest.mark.parametrize("made", [60, 100, 600])
def test_with_every_guess_right_and_no_delta_the_bound_is_known(made: int) -> None:
    """accuracy^made = 0.05, solved for epsilon."""
    accuracy = 0.05 ** (1 / made)
    known = math.log(accuracy / (1 - accuracy))
    assert lower_bound(guesses_of(1000, made, made), 0.0, 0.95) == pytest.approx(known, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(some_guesses(), st.floats(0, 6))
def test_without_delta_the_p_value_is_the_binomial_tail(guesses: Guesses, epsilon: float) -> None:
    tail = stats.binom.sf(guesses.right - 1, guesses.made, 1 / (1 + math.exp(-epsilon)))
    assert p_value(guesses, epsilon, 0.0) == pytest.approx(tail, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(some_guesses(), st.floats(0, 0.01), st.floats(0.6, 0.99))
def test_one_more_right_guess_never_lowers_the_bound(guesses: Guesses, delta: float, confidence: float) -> None:
    if guesses.right == guesses.made:
        return
    more = guesses_of(guesses.canaries, guesses.made, guesses.right + 1)
    assert lower_bound(more, delta, confidence) >= lower_bound(guesses, delta, confidence)
    assert lower_bound(guesses, delta, confidence) <= lower_bound(guesses.perfect, delta, confidence)


@settings(max_examples=50, deadline=None)
@given(some_guesses(), st.floats(0, 0.01))
def test_a_larger_delta_or_more_confidence_never_raises_the_bound(guesses: Guesses, delta: float) -> None:
    bound = lower_bound(guesses, delta, 0.95)
    assert lower_bound(guesses, 2 * delta, 0.95) <= bound
    assert lower_bound(guesses, delta, 0.99) <= bound


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomised_response_is_bounded_above_its_epsilon_no_oftener_than_stated(epsilon: float) -> None:
    """The tight mechanism: each coin is told truly with probability e^epsilon / (1 + e^epsilon).

    Power: at 1.3 times the epsilon it is found oftener than a bound that is right may be.
    """
    draws = np.random.default_rng(7)
    for truth, often in ((epsilon, False), (1.3 * epsilon + 0.3, True)):
        right = draws.binomial(200, 1 / (1 + math.exp(-truth)), size=400)
        bounds = {count: lower_bound(guesses_of(200, 200, count), 0.0, 0.9) for count in set(right.tolist())}
        above = sum(bounds[count] > epsilon for count in right.tolist())
        allowed = stats.binom.ppf(0.9999, 400, 0.1)
        assert (above > allowed) == often


def test_the_highest_scores_are_guessed_in_and_the_lowest_out() -> None:
    scores = [5.0, -1.0, 3.0, 0.0, 9.0, -7.0]
    inside = [True, False, False, True, True, True]
    assert guess(scores, inside, taken=2, left=0) == guesses_of(6, 2, 2)
    assert guess(scores, inside, taken=3, left=2) == guesses_of(6, 5, 3)
    assert guess(scores, inside, taken=0, left=6) == guesses_of(6, 6, 2)


@pytest.mark.parametrize(("taken", "left"), [(0, 0), (-1, 3), (2, 2)])
def test_guesses_that_do_not_fit_the_canaries_are_refused(taken: int, left: int) -> None:
    with pytest.raises(BadConfig, match=f"guesses {taken} in and {left} out"):
        guess([1.0, 2.0, 3.0], [True, False, True], taken=taken, left=left)


@pytest.mark.parametrize(("delta", "confidence"), [(-0.1, 0.95), (1.0, 0.95), (0.0, 0.0), (0.0, 1.0)])
def test_a_delta_or_confidence_out_of_range_is_refused(delta: float, confidence: float) -> None:
    with pytest.raises(BadConfig, match=r"delta|confidence"):
        lower_bound(guesses_of(10, 5, 5), delta, confidence)


def test_out_is_guessed_only_where_hardly_a_canary_is_never_sampled() -> None:
    assert default_guesses(1000, sampling_rate=1.0, steps=1) == (250, 250)
    assert default_guesses(1000, sampling_rate=0.1, steps=12) == (179, 0)
    assert default_guesses(1, sampling_rate=0.001, steps=1) == (1, 0)
