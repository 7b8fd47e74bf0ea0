"""Epsilon of events, by two accountants of dp-accounting: privacy loss distributions, and Renyi divergences.

PLD (Koskela et al. 2020; Doroshenko et al. 2022) is tight and is what caps are compared with; RDP (Mironov 2017) is an
independent, looser check. Both take the neighbouring relation add-or-remove one unit.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any, Protocol

import dp_accounting
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant as _RdpAccountant
from dp_accounting.rdp import compute_epsilon

from fl_alliance.errors import BadPlan
from fl_alliance.privacy.events import GaussianEvent, merged

PLACES = Decimal("0.000001")
"""Epsilon is rounded up to this."""

MOST = 1e12
"""A larger epsilon is none."""

TIGHT_UP_TO = Decimal(100)
"""Above this epsilon nothing is protected, and PLD takes minutes and gigabytes (92 GB seen): RDP answers instead."""

# dp-accounting says for each fractional Renyi order that its series did not converge; it then leaves the order out,
# and the minimum over the others is as good a bound as before.
logging.getLogger("absl").addFilter(lambda record: "_compute_log_a_frac" not in record.getMessage())

_ADD_OR_REMOVE = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE


class Accountant(Protocol):
    """Epsilon of a composition of events."""

    def epsilon(self, events: Iterable[GaussianEvent], delta: Decimal) -> Decimal:
        """Return an upper bound of epsilon at `delta`, rounded up to 6 places; 0 for no events.

        Raises:
            BadPlan: `delta` is not inside (0, 1), or the accountant finds no finite epsilon.
        """


class PldAccountant:
    """Tight: numerical composition of privacy loss distributions. Takes 0.02 to 47 s for events it has not seen.

    Where RDP finds more than `TIGHT_UP_TO`, its bound is returned: a hostile plan can't exhaust the memory.
    """

    def epsilon(self, events: Iterable[GaussianEvent], delta: Decimal) -> Decimal:
        """See `Accountant`."""
        return _pld(merged(events), delta)


class RdpAccountant:
    """Looser and fast: Renyi divergences at fixed orders."""

    def epsilon(self, events: Iterable[GaussianEvent], delta: Decimal) -> Decimal:
        """See `Accountant`."""
        return _rdp(merged(events), delta)


def deltas_of(events: Iterable[GaussianEvent], epsilons: Sequence[float], delta: Decimal) -> tuple[float, ...] | None:
    """Return for each of `epsilons` a delta with which everything that `events` released is (epsilon, delta)-DP.

    By PLD; None where RDP finds more than `TIGHT_UP_TO` at `delta`, and PLD is not asked. All 0 for no events.
    """
    together = merged(events)
    if not together:
        return (0.0,) * len(epsilons)
    if _rdp(together, delta) > TIGHT_UP_TO:
        return None
    return tuple(min(1.0, max(0.0, float(value))) for value in _composed(together).get_delta(list(epsilons)))


@functools.lru_cache(maxsize=4096)
def _pld(events: tuple[GaussianEvent, ...], delta: Decimal) -> Decimal:
    if (loose := _rdp(events, delta)) > TIGHT_UP_TO:
        return loose
    return _bound(lambda: float(_composed(events).get_epsilon(float(delta))), events, delta)


@functools.lru_cache(maxsize=4096)
def _rdp(events: tuple[GaussianEvent, ...], delta: Decimal) -> Decimal:
    def epsilon() -> float:
        divergences = sum(event.steps * _renyi(event.noise_multiplier, event.sampling_rate) for event in events)
        return float(compute_epsilon(_RdpAccountant().orders, divergences, float(delta))[0])

    return _bound(epsilon, events, delta)


@functools.lru_cache(maxsize=256)
def _renyi(noise_multiplier: Decimal, sampling_rate: Decimal) -> Any:
    """Return the divergences of one step at the default orders; steps add up, and a ledger asks for many sums."""
    accountant = _RdpAccountant(neighboring_relation=_ADD_OR_REMOVE)
    accountant.compose(
        _described(GaussianEvent(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=1))
    )
    return accountant.rdp


def _composed(events: tuple[GaussianEvent, ...]) -> PLDAccountant:
    accountant = PLDAccountant(neighboring_relation=_ADD_OR_REMOVE)
    for event in events:
        accountant.compose(_described(event), event.steps)
    return accountant


def _bound(find: Callable[[], float], events: tuple[GaussianEvent, ...], delta: Decimal) -> Decimal:
    if not 0 < delta < 1:
        raise BadPlan(f"delta {delta} must be above 0 and below 1")
    if not events:
        return Decimal(0)
    epsilon = find()
    if not (math.isfinite(epsilon) and epsilon < MOST):
        raise BadPlan(f"no finite epsilon at delta {delta} for {events}")
    # At trivial budgets an accountant may return a negative number: 0 is still a valid bound.
    return max(Decimal(0), Decimal(epsilon)).quantize(PLACES, rounding=ROUND_CEILING)


def _described(event: GaussianEvent) -> Any:
    gaussian = dp_accounting.GaussianDpEvent(float(event.noise_multiplier))
    return dp_accounting.PoissonSampledDpEvent(float(event.sampling_rate), gaussian)
