"""The privacy report: the numbers that are signed, and the guarantee in words. How it is printed: `reporting`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from fl_alliance.errors import BadPlan
from fl_alliance.privacy.accountant import Accountant, PldAccountant, RdpAccountant
from fl_alliance.privacy.ledger import Ledger, of_job, spent, year_before
from fl_alliance.protocol.documents import InstitutionPolicy, LedgerEntry, PrivacyReport
from fl_alliance.protocol.ids import decimal_text
from fl_alliance.protocol.plan import TrainingPlan


@dataclass(frozen=True)
class Costs:
    """Epsilon of a job and of everything that its data set ever gave, by both accountants."""

    job_pld: Decimal
    job_rdp: Decimal
    dataset_pld: Decimal
    dataset_rdp: Decimal


@dataclass(frozen=True)
class Gauge:
    """How much of one cap is spent."""

    name: str
    spent: Decimal
    cap: Decimal

    @property
    def left(self) -> Decimal:
        """What may still be spent."""
        return max(Decimal(0), self.cap - self.spent)

    @property
    def percent(self) -> int:
        """Spent part of the cap, rounded up, at most 100."""
        return 100 if self.cap <= 0 else min(100, math.ceil(self.spent * 100 / self.cap))


def costs_of(
    entries: Sequence[LedgerEntry],
    *,
    alliance: str,
    job: str,
    delta: Decimal,
    pld: Accountant | None = None,
    rdp: Accountant | None = None,
) -> Costs:
    """Return what the job and the whole data set cost at `delta`, recomputed from `entries`."""
    tight, loose = pld or PldAccountant(), rdp or RdpAccountant()
    mine = of_job(entries, alliance, job)
    return Costs(
        job_pld=spent(mine, tight, delta),
        job_rdp=spent(mine, loose, delta),
        dataset_pld=spent(entries, tight, delta),
        dataset_rdp=spent(entries, loose, delta),
    )


def build_report(
    ledger: Ledger, plan: TrainingPlan, *, plan_digest: str, policy_digest: str, adapter_digest: str, time: int
) -> PrivacyReport:
    """Return the report of the job of `plan`, every number computed from `ledger`.

    Raises:
        BadPlan: the ledger holds no charge of this job.
    """
    if not of_job(ledger.entries, plan.alliance, plan.job):
        raise BadPlan(f"job {plan.job}: the ledger of {ledger.dataset} holds no charge of it")
    delta = Decimal(plan.privacy.delta)
    costs = costs_of(ledger.entries, alliance=plan.alliance, job=plan.job, delta=delta)
    return PrivacyReport(
        institution=ledger.institution,
        dataset=ledger.dataset,
        alliance=plan.alliance,
        job=plan.job,
        plan_digest=plan_digest,
        unit=plan.privacy.unit,
        delta=plan.privacy.delta,
        epsilon_pld=decimal_text(costs.job_pld),
        epsilon_rdp=decimal_text(costs.job_rdp),
        dataset_epsilon_pld=decimal_text(costs.dataset_pld),
        dataset_epsilon_rdp=decimal_text(costs.dataset_rdp),
        entries=len(ledger.entries),
        ledger_head=ledger.head,
        adapter_digest=adapter_digest,
        policy_digest=policy_digest,
        time=time,
        statement=statement_of(plan, ledger, costs),
    )


def statement_of(plan: TrainingPlan, ledger: Ledger, costs: Costs, _: Callable[[str], str] = str) -> str:
    """Return the guarantee in plain words; `_` translates them, and without it they are the ones that are signed."""
    everything = _("Everything that {institution} released in job {job} is differentially private:")
    said = everything.format(institution=ledger.institution, job=plan.job)
    shared = f" {shared_noise(plan, _)}" if plan.privacy.noise == "distributed" else ""
    return f"{said} {guarantee_of(plan, ledger.dataset, costs, _)}{shared}"


def guarantee_of(plan: TrainingPlan, dataset: str, costs: Costs, _: Callable[[str], str] = str) -> str:
    """Return what `costs` promise each unit, in a sentence of the report and of the plan's words."""
    return _(
        "whether all records of any one {unit} were in data set {dataset} or not changes the probability of any "
        "outcome by a factor of at most e^{epsilon}, plus at most {delta}. Together with all earlier jobs on this "
        "data set the exponent is at most {total}."
    ).format(
        unit=plan.privacy.unit,
        dataset=dataset,
        epsilon=decimal_text(costs.job_pld),
        delta=plan.privacy.delta,
        total=decimal_text(costs.dataset_pld),
    )


def shared_noise(plan: TrainingPlan, _: Callable[[str], str] = str) -> str:
    """Return what a guarantee rests on where the members share one noise."""
    return _(
        "Assumption: the institutions of the job share one noise. This holds for what was released, the sums of "
        "{fewest} or more institutions, as long as at most {leaving} of them leave their part of the noise out or "
        "tell it to others; a single institution's update is protected by its encryption and has only a part of the "
        "noise."
    ).format(fewest=plan.fewest, leaving=plan.threshold - 1)


def gauges_of(ledger: Ledger, report: PrivacyReport, policy: InstitutionPolicy) -> tuple[Gauge, ...]:
    """Return what is spent of each cap at the report's time (PLD), as caps are compared: at the least delta of all."""
    delta = min(Decimal(entry.delta) for entry in ledger.entries)
    job, year = of_job(ledger.entries, report.alliance, report.job), year_before(ledger.entries, report.time)
    tight = PldAccountant()
    return (
        Gauge("job", spent(job, tight, delta), Decimal(policy.epsilon_per_job)),
        Gauge("year", spent(year, tight, delta), Decimal(policy.epsilon_per_year)),
        Gauge("dataset", spent(ledger.entries, tight, delta), Decimal(policy.epsilon_per_dataset)),
    )
