"""What a target epsilon buys: for each sampling rate and number of steps, the least noise that keeps below it.

Nothing here reads a record. The cohort is a declared constant: the smallest one of an alliance decides, since every
member adds the same noise and the smallest has the fewest units to hide it behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from fl_alliance.errors import BadPlan
from fl_alliance.privacy.accountant import Accountant, PldAccountant, RdpAccountant
from fl_alliance.privacy.events import GaussianEvent

STEP = Decimal("0.01")
"""Noise multipliers are searched on this grid, and rounded up to it."""

LEAST, MOST = Decimal("0.3"), Decimal(500)
"""Noise multipliers that are searched. Below 0.3 a Gaussian hides next to nothing."""

NEAR = Decimal("0.85")
"""PLD needs seldom less than this part of RDP's noise; small noise multipliers are the ones for which PLD is slow."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """One way to spend a budget."""

    sampling_rate: Decimal
    """q: probability that a unit is in a step's sample."""
    steps: int
    """Over the whole job."""
    noise_multiplier: Decimal
    """sigma: the least on the grid."""
    epsilon_pld: Decimal
    epsilon_rdp: Decimal
    units: int
    """Declared units of the smallest cohort."""

    @property
    def batch(self) -> Decimal:
        """Units that a step samples on average: what a step costs in computing."""
        return self.sampling_rate * self.units

    @property
    def noise(self) -> Decimal:
        """Standard deviation of the noise in a step's mean gradient at one member, in clip norms: sigma / (q units)."""
        return self.noise_multiplier / self.batch

    @property
    def noise_of_job(self) -> Decimal:
        """`noise` over the root of the steps: what is left of it in the mean of all steps, in clip norms."""
        return self.noise / Decimal(self.steps).sqrt()


def least_noise(
    target: Decimal, *, delta: Decimal, sampling_rate: Decimal, steps: int, accountant: Accountant | None = None
) -> Decimal:
    """Return the least noise multiplier on the grid with which `steps` steps stay at or below epsilon `target`.

    RDP finds a first bound fast; `accountant` (PLD by default, which caps are compared with) goes down from there.

    Raises:
        BadPlan: `target` or `delta` is not positive, q is not in (0, 1], or even sigma 500 is too little.
    """
    _require_possible(target, delta, sampling_rate, steps)
    tight = accountant or PldAccountant()

    def holds_with(judge: Accountant) -> Callable[[Decimal], bool]:
        return lambda sigma: judge.epsilon([_event(sigma, sampling_rate, steps)], delta) <= target

    loose = _least(holds_with(RdpAccountant()), LEAST, MOST)
    if loose is None:
        raise BadPlan(
            f"epsilon {target}: sampling_rate {sampling_rate} with {steps} steps needs more noise than {MOST}"
        )
    near = max(LEAST, _on_grid(loose * NEAR))
    found = _least(holds_with(tight), near, loose) or loose
    return found if found > near else _least(holds_with(tight), LEAST, near) or near


def suggest(
    target: Decimal,
    *,
    delta: Decimal,
    units: int,
    rates: Iterable[Decimal],
    steps: Iterable[int],
) -> tuple[Suggestion, ...]:
    """Return a suggestion for each pair of rate and steps, by rate and then steps.

    Raises:
        BadPlan: as `least_noise`; `units` below 1; or delta above 1 / (10 units), which no plan may have.
    """
    if units < 1:
        raise BadPlan(f"units {units} must be at least 1")
    if delta * 10 * units > 1:
        raise BadPlan(f"delta {delta} is above 1 / (10 * {units} declared units)")
    found = []
    pairs = [(rate, count) for rate in sorted(set(rates)) for count in sorted(set(steps))]
    for rate, count in pairs:
        sigma = least_noise(target, delta=delta, sampling_rate=rate, steps=count)
        event = [_event(sigma, rate, count)]
        found.append(
            Suggestion(
                sampling_rate=rate,
                steps=count,
                noise_multiplier=sigma,
                epsilon_pld=PldAccountant().epsilon(event, delta),
                epsilon_rdp=RdpAccountant().epsilon(event, delta),
                units=units,
            )
        )
    return tuple(found)


def best(suggestions: Sequence[Suggestion]) -> Suggestion:
    """Return the one with the least noise in the mean of all steps: a first guess, for no record was looked at."""
    return min(suggestions, key=lambda one: (one.noise_of_job, one.steps))


def curve(suggestion: Suggestion, *, delta: Decimal, points: int = 24) -> tuple[tuple[Decimal, Decimal, Decimal], ...]:
    """Return (sigma, epsilon by PLD, epsilon by RDP) around a suggestion, from half to three times its sigma."""
    low, high = suggestion.noise_multiplier / 2, suggestion.noise_multiplier * 3
    ratio = (high / low) ** (Decimal(1) / (points - 1))
    sigmas = [_on_grid(low * ratio**place) for place in range(points)]
    pld, rdp = PldAccountant(), RdpAccountant()
    return tuple(
        (sigma, pld.epsilon(event, delta), rdp.epsilon(event, delta))
        for sigma in sorted(set(sigmas))
        for event in [[_event(sigma, suggestion.sampling_rate, suggestion.steps)]]
    )


def _least(holds: Callable[[Decimal], bool], low: Decimal, high: Decimal) -> Decimal | None:
    """Return the least sigma on the grid in [low, high] that holds, or None; epsilon falls as sigma grows."""
    first, last = int(low / STEP), int(high / STEP)
    if not holds(last * STEP):
        return None
    while first < last:
        middle = (first + last) // 2
        first, last = (first, middle) if holds(middle * STEP) else (middle + 1, last)
    return last * STEP


def _event(sigma: Decimal, rate: Decimal, steps: int) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=sigma, sampling_rate=rate, steps=steps)


def _on_grid(value: Decimal) -> Decimal:
    return (value / STEP).to_integral_value(ROUND_CEILING) * STEP


def _require_possible(target: Decimal, delta: Decimal, rate: Decimal, steps: int) -> None:
    if target <= 0:
        raise BadPlan(f"epsilon {target} must be above 0")
    if not 0 < delta < 1:
        raise BadPlan(f"delta {delta} must be above 0 and below 1")
    if not 0 < rate <= 1:
        raise BadPlan(f"sampling_rate {rate} must be above 0 and at most 1")
    if steps < 1:
        raise BadPlan(f"steps {steps} must be at least 1")
