"""How well anybody can tell whether one unit was in: the trade-off of both errors, and mu of Gaussian DP.

A test that says "it was in" is wrong in two ways. Type I, alpha: it says so though the unit was not. Type II, beta: it
does not, though it was. From delta as a function of epsilon follows the least beta for each alpha (Dong, Roth and Su
2022, proposition 2.12). Everything here errs to the side that promises less.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from statistics import NormalDist

from fl_alliance.privacy.accountant import PldAccountant, deltas_of
from fl_alliance.privacy.events import GaussianEvent, merged

POINTS = 400
"""Epsilons at which the profile is taken."""
PLACES = Decimal("0.0001")
MU_STEP = Decimal("0.001")


@dataclass(frozen=True)
class TradeOff:
    """What the accountant's distribution (PLD) says beyond one (epsilon, delta)."""

    epsilons: tuple[float, ...]
    """From 0 to the epsilon at `delta`, rising."""
    deltas: tuple[float, ...]
    """For each of them: the release is (epsilon, delta)-DP with both."""
    delta: Decimal

    def beta(self, alpha: float) -> Decimal:
        """Return the least type II error of any test with type I error `alpha`, rounded down to 4 places."""
        best = 0.0
        for epsilon, delta in zip(self.epsilons, self.deltas, strict=True):
            best = max(best, 1 - delta - math.exp(epsilon) * alpha, math.exp(-epsilon) * (1 - delta - alpha))
        return Decimal(best).quantize(PLACES, rounding=ROUND_FLOOR)

    @functools.cached_property
    def mu(self) -> Decimal:
        """The smallest mu, rounded up to 3 places, with beta(alpha) >= G_mu(alpha) - delta for each alpha.

        G_mu is the trade-off of two normal distributions, mu standard deviations apart (Gomez et al. 2025 report it).
        It is enough that delta(epsilon) <= delta_mu(epsilon) + delta for each epsilon. Between two points of the
        profile delta(epsilon) is at most the left one's, and delta_mu at least the right one's.
        """
        low, high = -1, 1  # in thousandths; delta_mu grows with mu
        while not self._covered(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._covered(middle) else (middle, high)
        return high * MU_STEP

    def _covered(self, thousandths: int) -> bool:
        mu, rights = float(thousandths * MU_STEP), (*self.epsilons[1:], self.epsilons[-1])
        pairs = zip(rights, self.deltas, strict=True)
        return all(gaussian_delta(mu, right) + float(self.delta) >= left for right, left in pairs)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return delta(epsilon) of mu-GDP (Dong, Roth and Su 2022, corollary 2.13)."""
    if mu <= 0:
        return 0.0
    return _normal(-epsilon / mu + mu / 2) - math.exp(epsilon) * _normal(-epsilon / mu - mu / 2)


def gaussian_beta(mu: float, alpha: float) -> float:
    """Return G_mu(alpha): the type II error of the best test between N(0, 1) and N(mu, 1), 0 < `alpha` < 1."""
    normal = NormalDist()
    return normal.cdf(normal.inv_cdf(1 - alpha) - mu)


def trade_off_of(events: Iterable[GaussianEvent], delta: Decimal) -> TradeOff | None:
    """Return the trade-off of everything that `events` released; None where PLD is not computed (`TIGHT_UP_TO`)."""
    return _trade_off(merged(events), delta)


@functools.lru_cache(maxsize=64)
def _trade_off(events: tuple[GaussianEvent, ...], delta: Decimal) -> TradeOff | None:
    most = float(PldAccountant().epsilon(events, delta))
    epsilons = tuple(most * place / (POINTS - 1) for place in range(POINTS)) if most else (0.0,)
    deltas = deltas_of(events, epsilons, delta)
    return None if deltas is None else TradeOff(epsilons, deltas, delta)


def _normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2
