"""What one training run with canaries shows about epsilon (Steinke, Nasr and Jagielski 2023, arXiv:2305.08846).

Fair coins decide which of m canary units are trained on. Whoever sees what the run released guesses `taken` of them as
in, `left` as out, and says nothing about the others. Under (epsilon, delta)-DP for one unit, right guesses are rare
beyond a binomial law: so many right ones refute every epsilon below the bound, at a stated confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fl_alliance.errors import BadConfig

HALVINGS = 40
"""Of the interval that holds the bound; the lower end is returned."""


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """What was guessed, and how much of it was right."""

    canaries: int
    """m: each was in or out by a fair coin of its own."""
    made: int
    """r: guesses, abstentions left out. A number that was fixed before the run."""
    right: int
    """v"""

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.made <= self.canaries:
            raise ValueError(f"{self} needs 0 <= right <= made <= canaries")

    @property
    def perfect(self) -> Guesses:
        """The same guesses, all of them right."""
        return Guesses(canaries=self.canaries, made=self.made, right=self.made)


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Return a bound on the probability that an (epsilon, delta)-DP run allows so many right guesses (Theorem 5.2).

    P[B >= v] + 2 m delta max_i P[v > B >= v - i] / i, where B is binomial: r trials, each right with probability
    e^epsilon / (1 + e^epsilon), as for randomised response. `epsilon` >= 0, 0 <= `delta` < 1.
    """
    accuracy = 1 / (1 + math.exp(-epsilon))
    tail = math.fsum(_binomial(k, guesses.made, accuracy) for k in range(guesses.right, guesses.made + 1))
    below, steepest = 0.0, 0.0
    for i in range(1, guesses.right + 1):
        below += _binomial(guesses.right - i, guesses.made, accuracy)
        steepest = max(steepest, below / i)
    return min(1.0, tail + 2 * guesses.canaries * delta * steepest)


def lower_bound(guesses: Guesses, delta: float, confidence: float) -> float:
    """Return the largest epsilon that `guesses` refute at `confidence`; 0 if they refute none.

    If a run is (epsilon, delta)-DP, this exceeds epsilon with probability at most 1 - `confidence`. A larger bound may
    hold: that nobody guessed better is no proof that nobody can.

    Raises:
        BadConfig: `delta` is not in [0, 1), or `confidence` not inside (0, 1).
    """
    if not 0 <= delta < 1:
        raise BadConfig(f"delta {delta} must be at least 0 and below 1")
    if not 0 < confidence < 1:
        raise BadConfig(f"confidence {confidence} must be above 0 and below 1")
    low, high = 0.0, 1.0
    while high < math.inf and p_value(guesses, high, delta) < 1 - confidence:
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(guesses, middle, delta) < 1 - confidence else (low, middle)
    return low


def guess(scores: Sequence[float], inside: Sequence[bool], *, taken: int, left: int) -> Guesses:
    """Guess the `taken` highest of `scores` as in and the `left` lowest as out; compare with the coins `inside`.

    `taken` and `left` must have been chosen without a look at scores or coins.

    Raises:
        BadConfig: there are fewer canaries than guesses, or a number of guesses is negative.
    """
    if min(taken, left) < 0 or not 1 <= taken + left <= len(scores):
        raise BadConfig(f"guesses {taken} in and {left} out: need 1 to {len(scores)} together, one for each canary")
    order = sorted(range(len(scores)), key=lambda place: scores[place])
    right = sum(inside[place] for place in order[len(order) - taken :])
    right += sum(not inside[place] for place in order[:left])
    return Guesses(canaries=len(scores), made=taken + left, right=right)


def default_guesses(canaries: int, *, sampling_rate: float, steps: int) -> tuple[int, int]:
    """Return how many to guess as in and as out, from public settings alone.

    Half of the canaries that are expected to be in and sampled at least once; as many out, if hardly a canary that
    is in is never sampled (else a perfect attacker would take it for one that is out).
    """
    missed = (1 - sampling_rate) ** steps
    taken = max(1, int(canaries * (1 - missed) / 4))
    return taken, taken if missed < 0.01 else 0


def _binomial(k: int, trials: int, chance: float) -> float:
    """Return P[B = k] for `trials` trials, through logarithms: no overflow for any number of trials."""
    if chance == 1:
        return float(k == trials)
    ways = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
    return math.exp(ways + k * math.log(chance) + (trials - k) * math.log1p(-chance))
