"""`fl-alliance audit empirical`: train with canaries at the institution, guess them, and bound epsilon from below.

Reads the institution's configuration and model, and public records if given; never its private records. So nothing is
charged, and nothing leaves the house.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

from fl_alliance.errors import BadConfig, EvidenceRefused
from fl_alliance.parties.config import InstitutionConfig, load
from fl_alliance.parties.trainer import record_source
from fl_alliance.privacy.accountant import PldAccountant
from fl_alliance.privacy.empirical import Guesses, default_guesses, guess, lower_bound
from fl_alliance.privacy.events import event_of
from fl_alliance.protocol.ids import decimal_text
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.training.batches import Performance
from fl_alliance.training.canaries import Progress, run_with_canaries
from fl_alliance.training.records import Records, load_records, records_of

PLACES = Decimal("0.000001")


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """How hard to look. All of it is fixed before the run."""

    canaries: int = 1000
    taken: int | None = None
    """Guesses "in"; None: from the plan's public settings, as `left`."""
    left: int | None = None
    """Guesses "out"."""
    confidence: Decimal = Decimal("0.95")
    noise_part: Decimal = Decimal(1)
    """Part of the plan's noise that is added; other than 1 only to show what the audit finds."""

    def __post_init__(self) -> None:
        """Refuse what can't be run, by name."""
        if self.canaries < 1:
            raise BadConfig(f"canaries {self.canaries} must be at least 1")
        if not 0 < self.confidence < 1:
            raise BadConfig(f"confidence {self.confidence} must be above 0 and below 1")
        if self.noise_part < 0:
            raise BadConfig(f"noise_part {self.noise_part} must be at least 0")

    def guesses(self, plan: TrainingPlan) -> tuple[int, int]:
        """Return how many to guess as in and as out.

        Raises:
            BadConfig: they are not 1 to as many as there are canaries, together.
        """
        rate, steps = float(plan.privacy.sampling_rate), plan.rounds * plan.privacy.steps_per_round
        taken, left = default_guesses(self.canaries, sampling_rate=rate, steps=steps)
        taken, left = taken if self.taken is None else self.taken, left if self.left is None else self.left
        if min(taken, left) < 0 or not 1 <= taken + left <= self.canaries:
            raise BadConfig(f"guesses {taken} in and {left} out: need 1 to {self.canaries} together, one a canary")
        return taken, left


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What one run with canaries showed."""

    guesses: Guesses
    delta: Decimal
    confidence: Decimal
    noise_part: Decimal
    claimed: Decimal
    """Epsilon of the plan's job by the accountant (PLD): an upper bound."""
    bound: Decimal
    """The lower bound, rounded down."""
    ceiling: Decimal
    """The lower bound if every guess had been right: the most that this audit can show."""

    @property
    def refuted(self) -> bool:
        """Whether the run gave more away than the accountant says is possible, at the stated confidence."""
        return self.bound > self.claimed

    def lines(self) -> Iterator[str]:
        """Say the result, and what it does not say."""
        told, made = self._told(), self.guesses.made
        percent = decimal_text(self.confidence * 100)
        if self.noise_part != 1:
            yield f"NOISE TIMES {told['noise_part']}: A TRIAL OF THE AUDIT, which shows nothing about the job"
        yield f"{self.guesses.right} of {made} guesses about {self.guesses.canaries} canaries are right"
        yield f"epsilon is at least {told['bound']} ({percent} % confidence, delta {told['delta']})"
        yield f"the accountant says at most {told['claimed']}; this audit can show at most {told['ceiling']}"
        if self.ceiling <= self.claimed:
            yield "so it could not have refuted the accountant: take more canaries, or a plan with a smaller epsilon"
        yield "a lower bound can refute a claim; it proves none: another attacker, or more canaries, may find more"

    def json(self) -> bytes:
        """Return the same as JSON, decimals as text."""
        told = {**asdict(self.guesses), **self._told(), "refuted": self.refuted}
        return (json.dumps(told, indent=2) + "\n").encode()

    def _told(self) -> dict[str, str]:
        numbers = ("delta", "confidence", "noise_part", "claimed", "bound", "ceiling")
        return {name: decimal_text(getattr(self, name)) for name in numbers}


def audit(
    home: Path,
    plan: TrainingPlan,
    settings: AuditSettings,
    *,
    public: Path | None = None,
    progress: Progress | None = None,
) -> AuditResult:
    """Run `plan`'s job alone, on canaries and the `public` file's records, and return what its steps gave away.

    Raises:
        BadConfig: the configuration, a setting, or `public` is the private data file.
        BadRecords, BadModel, BadPlan: as in a job.
        EvidenceRefused: an update holds more than the optimizer makes of the noised gradients.
    """
    config = load(InstitutionConfig, home / "institution.toml")
    taken, left = settings.guesses(plan)
    run = run_with_canaries(
        home / config.model_folder,
        plan,
        config.name,
        canaries=settings.canaries,
        public=_public(config, home, public),
        noise_part=float(settings.noise_part),
        performance=Performance(threads=config.threads),
        progress=progress,
    )
    guesses = guess(run.scores.tolist(), run.inside.tolist(), taken=taken, left=left)
    return result_of(guesses, plan, settings)


def result_of(guesses: Guesses, plan: TrainingPlan, settings: AuditSettings) -> AuditResult:
    """Return the bound that `guesses` give, beside what the accountant says of the whole job of `plan`."""
    delta = Decimal(plan.privacy.delta)
    return AuditResult(
        guesses=guesses,
        delta=delta,
        confidence=settings.confidence,
        noise_part=settings.noise_part,
        claimed=PldAccountant().epsilon([event_of(plan).times(plan.rounds)], delta),
        bound=_bound(guesses, delta, settings.confidence),
        ceiling=_bound(guesses.perfect, delta, settings.confidence),
    )


def require_unrefuted(result: AuditResult) -> None:
    """Refuse a run with all of its noise that gave away more than the accountant says.

    Raises:
        EvidenceRefused: names both numbers.
    """
    if result.refuted and result.noise_part == 1:
        raise EvidenceRefused(f"empirical audit: epsilon is at least {result.bound:f}, claimed {result.claimed:f}")


def _bound(guesses: Guesses, delta: Decimal, confidence: Decimal) -> Decimal:
    bound = lower_bound(guesses, float(delta), float(confidence))
    return Decimal(bound).quantize(PLACES, rounding=ROUND_FLOOR)


def _public(config: InstitutionConfig, home: Path, public: Path | None) -> Records:
    if public is None:
        return records_of({})
    private = home / config.data.path
    if public.exists() and private.exists() and public.samefile(private):
        raise BadConfig(f"public: {public} is the private data set {config.data.name}, which an audit never reads")
    return load_records(record_source(config.data.model_copy(update={"path": public.absolute()}), home))
