"""What was done to a data set, in the accountant's terms. A closed union with one member so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from fl_alliance.protocol.documents import SampledGaussian
from fl_alliance.protocol.ids import decimal_text
from fl_alliance.protocol.plan import TrainingPlan


@dataclass(frozen=True, kw_only=True, order=True)
class GaussianEvent:
    """`steps` times: a Poisson sample of units, each clipped to norm C, summed, with noise N(0, (sigma C)^2)."""

    noise_multiplier: Decimal
    """sigma: standard deviation of the noise over the clip norm."""
    sampling_rate: Decimal
    """q: probability that a unit is in a sample."""
    steps: int

    def __post_init__(self) -> None:
        if not (self.noise_multiplier > 0 and 0 < self.sampling_rate <= 1 and self.steps >= 1):
            raise ValueError(f"{self} needs sigma > 0, 0 < q <= 1 and at least one step")

    def times(self, count: int) -> GaussianEvent:
        """Return this event `count` times in a row."""
        return GaussianEvent(
            noise_multiplier=self.noise_multiplier, sampling_rate=self.sampling_rate, steps=self.steps * count
        )


def event_of(plan: TrainingPlan) -> GaussianEvent:
    """Return what one round of `plan` does to a member's data set."""
    return GaussianEvent(
        noise_multiplier=Decimal(plan.privacy.noise_multiplier),
        sampling_rate=Decimal(plan.privacy.sampling_rate),
        steps=plan.privacy.steps_per_round,
    )


def evaluation_event_of(plan: TrainingPlan) -> GaussianEvent | None:
    """Return what one round's evaluation does to a member's held-out units: each is scored once."""
    if plan.evaluation is None:
        return None
    return GaussianEvent(noise_multiplier=Decimal(plan.evaluation.noise_multiplier), sampling_rate=Decimal(1), steps=1)


def to_wire(event: GaussianEvent) -> SampledGaussian:
    """Return `event` as a ledger entry carries it."""
    return SampledGaussian(
        noise_multiplier=decimal_text(event.noise_multiplier),
        sampling_rate=decimal_text(event.sampling_rate),
        steps=event.steps,
    )


def from_wire(event: SampledGaussian) -> GaussianEvent:
    """Return the event that a ledger entry carries (ValueError: out of range)."""
    return GaussianEvent(
        noise_multiplier=Decimal(event.noise_multiplier),
        sampling_rate=Decimal(event.sampling_rate),
        steps=event.steps,
    )


def merged(events: Iterable[GaussianEvent]) -> tuple[GaussianEvent, ...]:
    """Return `events` in order, with equal sigma and q as one event: composition does not depend on order."""
    steps: dict[tuple[Decimal, Decimal], int] = {}
    for event in events:
        key = (event.noise_multiplier, event.sampling_rate)
        steps[key] = steps.get(key, 0) + event.steps
    return tuple(
        GaussianEvent(noise_multiplier=sigma, sampling_rate=q, steps=steps[sigma, q]) for sigma, q in sorted(steps)
    )
