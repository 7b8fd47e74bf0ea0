"""The words of a plan: their numbers are those of the check, of the report and of the ledger afterwards."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_alliance.errors import BudgetExceeded
from fl_alliance.privacy.events import GaussianEvent
from fl_alliance.privacy.ledger import Ledger, check_plan, events_of, loads_of, next_entry, unopened_entry
from fl_alliance.privacy.plain_words import PlanFacts, chance_to_guess, facts_of
from fl_alliance.privacy.report import build_report, gauges_of
from fl_alliance.protocol.documents import InstitutionPolicy, Partner
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import EvaluationPlan, TrainingPlan
from tests.evidence.alliance import members_of, plan_of, policy_of

NOW = 1_900_000_000
DIGEST = digest_of(b"plan")


class Plain:
    """An accountant that costs nothing: it adds up steps, and has nothing to do with privacy."""

    def epsilon(self, events: Iterable[GaussianEvent], delta: Decimal) -> Decimal:
        total = sum((e.steps * (e.sampling_rate / e.noise_multiplier) ** 2 for e in events), Decimal(0))
        return (total * -delta.log10()).quantize(Decimal("0.0001"))


ADDS = Plain()


def empty() -> Ledger:
    return Ledger("lagos", "cases", (), ())


def charged(ledger: Ledger, plan: TrainingPlan, *, now: int = NOW) -> Ledger:
    """The ledger after every round of the plan was charged."""
    for number in range(1, plan.rounds + 1):
        entry = next_entry(
            ledger, plan, plan_digest=DIGEST, round_number=number, dataset_digest=digest_of(b"data"), now=now
        )
        digests = (*ledger.digests, digest_of(f"{entry}".encode()))
        ledger = Ledger(ledger.institution, ledger.dataset, (*ledger.entries, entry), digests)
    return ledger


def facts(plan: TrainingPlan, ledger: Ledger, policy: InstitutionPolicy | None = None, **more: Any) -> PlanFacts:
    fields: dict[str, Any] = {"approved": (), "now": NOW, "pld": ADDS, "rdp": ADDS}
    return facts_of(plan, DIGEST, ledger, policy or policy_of(), members_of(), **{**fields, **more})


@st.composite
def plans(draw: st.DrawFn, job: str) -> TrainingPlan:
    sigma = draw(st.sampled_from(["0.7", "1.1", "2.5"]))
    delta = draw(st.sampled_from(["0.00001", "0.000001"]))
    privacy = {"noise_multiplier": sigma, "steps_per_round": draw(st.integers(1, 20)), "delta": delta}
    return plan_of(job=job, rounds=draw(st.integers(1, 3)), privacy=privacy)


@settings(max_examples=60, deadline=None)
@given(plans("job-0"), plans("job-1"), st.sampled_from(["0.3", "1", "6"]), st.sampled_from([NOW, NOW - 400 * 86_400]))
def test_the_words_say_what_the_check_decides_and_what_the_ledger_and_the_report_say_afterwards(
    earlier: TrainingPlan, plan: TrainingPlan, cap: str, when: int
) -> None:
    before = charged(empty(), earlier, now=when)
    policy = policy_of(epsilon_per_job=cap, epsilon_per_year="1", epsilon_per_dataset="1.5")
    said = facts(plan, before, policy)
    over = [one.name for one in said.caps if Decimal(one.after) > Decimal(one.cap)]
    assert over == [one.name for one in said.caps if one.left.startswith("-")]
    assert bool(said.forbidden) == bool(over)
    proposed = unopened_entry(before, plan, plan_digest=DIGEST, now=NOW)
    if over:
        with pytest.raises(BudgetExceeded) as refused:
            check_plan(before.entries, proposed, plan, policy, ADDS)
        first = next(one for one in said.caps if one.name == over[0])
        words = f"{first.name} is {first.cap}: spent {first.spent}, would be {first.after} "
        assert str(refused.value).startswith(words)
    else:
        check_plan(before.entries, proposed, plan, policy, ADDS)
    after = charged(before, plan)
    next_year = facts(plan_of(job="job-2", privacy={"delta": plan.privacy.delta}), after, policy)
    if earlier.privacy.delta == plan.privacy.delta:
        assert [one.spent for one in next_year.caps[2:]] == [one.after for one in said.caps[2:]]
    else:
        assert next_year.caps[3].spent == said.caps[3].after


def test_the_words_and_the_report_of_the_finished_job_have_the_same_numbers_by_both_accountants() -> None:
    before, plan = charged(empty(), plan_of(job="job-0")), plan_of()
    said = facts(plan, before, pld=None, rdp=None)
    after = charged(before, plan)
    report = build_report(after, plan, plan_digest=DIGEST, policy_digest=DIGEST, adapter_digest=DIGEST, time=NOW)
    for field in ("epsilon_pld", "epsilon_rdp", "dataset_epsilon_pld", "dataset_epsilon_rdp", "delta", "unit"):
        assert getattr(said, field) == getattr(report, field), field
    assert said.guarantee in report.statement
    gauges = {gauge.cap: gauge for gauge in gauges_of(after, report, policy_of())}
    for one in said.caps[1:]:
        assert (Decimal(one.after), Decimal(one.left)) == (
            gauges[Decimal(one.cap)].spent,
            gauges[Decimal(one.cap)].left,
        )
    assert said.epsilon_pld != said.epsilon_rdp


def test_a_person_reads_what_with_whom_and_what_it_costs() -> None:
    said = "\n".join(facts(plan_of(), empty()).lines())
    for words in (
        "an adapter (ffa-lora, rank 4, on q_proj) is trained and given to all members, on data set cases, in at most 2",
        "berlin, lagos, lima; only sums of 3 or more updates are ever opened",
        "Whether all records of any one patient were in data set cases or not changes the probability of any outcome",
        "this institution adds all of it itself: the promise holds whatever the others or the coordinator do",
        "at delta 0.00001 for each patient",
        "this job: 0 of 8 spent",
        "none is needed",
    ):
        assert words in said, words
    assert "forbidden" not in said


def test_what_only_some_plans_do_is_said_of_them_alone() -> None:
    shared = facts(plan_of(privacy={"noise": "distributed", "steps_per_round": 1}), empty())
    assert shared.assumption.startswith("Assumption: the institutions of the job share one noise.")
    assert shared.forbidden.startswith("PolicyRefused: allow_distributed_noise is false")
    scored = plan_of(evaluation=EvaluationPlan(heldout="0.2", score_cap="8", noise_multiplier="3"))
    assert "about 0.2 of the patients are held out" in "\n".join(facts(scored, empty()).lines())
    released = facts(plan_of(release_to_coordinator=True), empty())
    assert "given to all members and the coordinator" in released.adapter


def test_a_partner_with_another_key_is_said() -> None:
    policy = policy_of(
        partners=(Partner(name="berlin", key=digest_of(b"x")), Partner(name="lima", key=digest_of(b"y")))
    )
    assert facts(plan_of(), empty(), policy).forbidden.startswith("PolicyRefused: partners: berlin with key ")


@pytest.mark.parametrize(("epsilon", "most"), [("0", "0.5"), ("1", "0.7311"), ("8", "0.9997"), ("1000000", "1")])
def test_what_a_guess_gains(epsilon: str, most: str) -> None:
    """e^epsilon / (1 + e^epsilon), rounded up and never down."""
    found = chance_to_guess(Decimal(epsilon), Decimal(0))
    assert found == Decimal(most)
    assert epsilon == "1000000" or float(found) >= 1 / (1 + math.exp(-float(epsilon)))
    assert chance_to_guess(Decimal(1), Decimal("0.5")) > chance_to_guess(Decimal(1), Decimal(0))


def test_caps_are_compared_at_the_least_delta_that_was_ever_charged() -> None:
    """A plan with a larger delta would make what was spent look smaller."""
    strict, plan = plan_of(job="job-0", privacy={"delta": "0.000001"}), plan_of()
    before = charged(empty(), strict)
    proposed = unopened_entry(before, plan, plan_digest=DIGEST, now=NOW)
    assert {load.delta for load in loads_of(before.entries, (proposed,), policy_of())} == {Decimal("0.000001")}
    spent = facts(plan, before).caps[3].spent
    assert Decimal(spent) == ADDS.epsilon(events_of(before.entries), Decimal("0.000001"))
