"""The privacy report: the signed numbers, and a page of plain words that a lawyer can print."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import jinja2

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
        statement=_statement(plan, ledger, costs),
    )


def _statement(plan: TrainingPlan, ledger: Ledger, costs: Costs) -> str:
    return (
        f"Everything that {ledger.institution} released in job {plan.job} is differentially private: "
        + guarantee_of(plan, ledger.dataset, costs)
        + (f" {shared_noise(plan)}" if plan.privacy.noise == "distributed" else "")
    )


def guarantee_of(plan: TrainingPlan, dataset: str, costs: Costs) -> str:
    """Return what `costs` promise each unit, in a sentence of the report and of the plan's words."""
    return (
        f"whether all records of any one {plan.privacy.unit} were in data set {dataset} or not changes the probability "
        f"of any outcome by a factor of at most e^{decimal_text(costs.job_pld)}, plus at most {plan.privacy.delta}. "
        f"Together with all earlier jobs on this data set the exponent is at most {decimal_text(costs.dataset_pld)}."
    )


def shared_noise(plan: TrainingPlan) -> str:
    """Return what a guarantee rests on where the members share one noise."""
    return (
        f"Assumption: the institutions of the job share one noise. This holds for what was released, the sums of "
        f"{plan.fewest} or more institutions, as long as at most {plan.threshold - 1} of them leave their part of the "
        f"noise out or tell it to others; a single institution's update is protected by its encryption and has only a "
        f"part of the noise."
    )


def gauges_of(ledger: Ledger, report: PrivacyReport, policy: InstitutionPolicy) -> tuple[Gauge, ...]:
    """Return what is spent of each cap at the report's time and delta (PLD)."""
    delta = Decimal(report.delta)
    year = year_before(ledger.entries, report.time)
    return (
        Gauge("This job", Decimal(report.epsilon_pld), Decimal(policy.epsilon_per_job)),
        Gauge("Last 365 days", spent(year, PldAccountant(), delta), Decimal(policy.epsilon_per_year)),
        Gauge("Data set, all jobs", Decimal(report.dataset_epsilon_pld), Decimal(policy.epsilon_per_dataset)),
    )


def render_html(report: PrivacyReport, ledger: Ledger, policy: InstitutionPolicy, plan: TrainingPlan) -> str:
    """Return the report as one self-contained page: no script, no network, readable in black and white."""
    delta = Decimal(report.delta)
    mine = of_job(ledger.entries, report.alliance, report.job)
    rows = [(entry, spent(mine[: n + 1], RdpAccountant(), delta)) for n, entry in enumerate(mine)]
    return _template().render(
        report=report, policy=policy, plan=plan, rows=rows, gauges=gauges_of(ledger, report, policy), when=_when
    )


def _when(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fl_alliance.privacy"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")
