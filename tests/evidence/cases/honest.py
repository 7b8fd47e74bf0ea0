"""What must hold, one vector for each thing that a job can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fl_alliance.evidence.sign import sign_document
from fl_alliance.protocol.documents import Approver, Partner, PlanApproval, model_digest
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import EvaluationPlan, Member, OptimizerPlan, SumPlan
from tests.evidence.alliance import NAMES, key_of, members_of, plan_of, policy_of
from tests.evidence.cases.case import Inputs, holds
from tests.evidence.cases.doctor import one, tiny
from tests.evidence.paper import NOW, Paper, Who
from tests.evidence.sealing import handed_out, handed_out_by_the_coordinator, zipped

ONE = "../one-round/bundle.zip"
FOUR = ("berlin", "lagos", "lima", "quito")


def four(**changes: Any) -> Any:
    """A plan of four members, of whom three must stay."""
    members = tuple(Member(name=name, declared_units=1000) for name in FOUR)
    return plan_of(**{"rounds": 1, "members": members, "threshold": 3, "quorum": 3} | changes)


def approval(person: str, plan: bytes, signer: str = "") -> bytes:
    key = key_of(signer or person)
    document = PlanApproval(
        institution="lagos", person=person, key=key.public_text, alliance="clinics", job="job-1",
        plan_digest=digest_of(plan), time=NOW,
    )  # fmt: skip
    return sign_document(key, document)


def approvers(*persons: str, needed: int) -> Mapping[str, Any]:
    named = tuple(Approver(name=person, key=key_of(person).keyid) for person in sorted(persons))
    return {"lagos": policy_of(approvers=named, approvals_needed=needed)}


@holds()
def one_round() -> Inputs:
    """The smallest job: three institutions, one round."""
    return one()


@holds(written=False)
def two_rounds() -> Inputs:
    """Two rounds: the second record names the first."""
    return one(rounds=2)


@holds()
def two_jobs_of_one_ledger() -> Inputs:
    """Two jobs, one after the other: the second one's ledger and log go on where the first one's ended."""
    return one().job(plan_of(rounds=1, job="job-2"))


@holds(root=None)
def root_not_compared() -> Inputs:
    """The auditor was told no fingerprint: the evidence is only checked against itself."""
    return {ONE: None}


@holds()
def member_dropped() -> Inputs:
    """Of four members one dealt its shares, charged its ledger and then vanished: it is in the roster, not the sum."""
    rest = tuple(name for name in FOUR if name != "quito")
    return Paper(members=members_of(FOUR)).job(four(), Who(survivors=rest))


@holds()
def member_gone_after_a_round() -> Inputs:
    """Of four members one left after the first round: the second round's roster is without it."""
    rest = tuple(name for name in FOUR if name != "quito")
    return Paper(members=members_of(FOUR)).job(four(rounds=2), Who(), Who(roster=rest))


@holds()
def fewest_revealed_and_voted() -> Inputs:
    """As few as the threshold revealed their shares, checked the sum and voted."""
    return Paper().job(plan_of(rounds=1), Who(revealed=("berlin", "lagos")))


@holds()
def verifiers_drawn() -> Inputs:
    """The plan has one member's check of the sum: two are drawn, and nobody else need answer."""
    plan = four(sum=SumPlan(coordinate_clip="0.5", verifiers=1))
    return Paper(members=members_of(FOUR)).job(plan)


@holds(written=False)
def job_given_up() -> Inputs:
    """A job was given up after it was charged; the next one pays for it too, and says so."""
    paper = Paper()
    failed = plan_of(rounds=1, job="job-0")
    paper.tick()
    paper.charge("lagos", failed, b"its plan", 1)
    return paper.job(plan_of(rounds=1))


@holds()
def round_charged_twice() -> Inputs:
    """The institution charged one round twice: it costs twice, and the record names the second charge."""
    return Paper().job(plan_of(rounds=1), Who(twice=("lagos",)))


@holds()
def scores_and_early_end() -> Inputs:
    """A plan with evaluation: the score did not get better for one round, so the job ended after two of three."""
    evaluation = EvaluationPlan(heldout="0.1", score_cap="4", noise_multiplier="2", patience=1)
    return Paper().job(plan_of(rounds=3, evaluation=evaluation), Who(score="1.5"), Who(score="1.5"))


@holds()
def distributed_noise() -> Inputs:
    """The members share one noise, and the policy allows it."""
    policy = policy_of(allow_distributed_noise=True)
    plan = plan_of(
        rounds=1, privacy={"noise": "distributed", "steps_per_round": 1},
        optimizer=OptimizerPlan(name="sgd", learning_rate="0.1"),
    )  # fmt: skip
    return Paper(policies={"lagos": policy}).job(plan)


@holds()
def approved_by_two_persons() -> Inputs:
    """The policy asks for two of three named persons, and two have signed the plan."""
    plan = plan_of(rounds=1)
    signed = sign_document(key_of("office"), plan)
    said = {person: approval(person, signed) for person in ("ada", "grace")}
    return Paper(policies=approvers("ada", "grace", "mary", needed=2)).job(plan, approvals={"lagos": said})


@holds()
def policy_names_partners_and_model() -> Inputs:
    """The policy names the partners with their keys, and the base model."""
    partners = tuple(Partner(name=name, key=key_of(name).keyid) for name in NAMES if name != "lagos")
    policy = policy_of(partners=partners, allowed_models=(model_digest(plan_of().model),))
    return Paper(policies={"lagos": policy}).job(plan_of(rounds=1))


@holds()
def members_list_renewed() -> Inputs:
    """Between two jobs the root signed a new list, with one institution more; both jobs hold with their own list."""
    paper = one()
    paper.admit(members_of(FOUR).model_copy(update={"serial": 2}))
    return paper.job(plan_of(rounds=1, job="job-2"))


@holds()
def names_at_their_limits() -> Inputs:
    """The job's name has 63 characters, as many as a name may have."""
    return one(job="j" + "-" * 61 + "1")


@holds()
def two_alliances_in_one_ledger() -> Inputs:
    """The data set was used in another alliance before: its entry is in the ledger, and counts."""
    schools = Paper(alliance="schools", members=members_of().model_copy(update={"alliance": "schools"}))
    schools.job(plan_of(rounds=1, alliance="schools"))
    paper = Paper()
    paper.ledgers, paper.clock = schools.ledgers, schools.clock
    return paper.job(plan_of(rounds=1))


@holds()
def three_institutions_together() -> Inputs:
    """The evidence of all three institutions of a job: it shows one history."""
    paper = one()
    return {ONE: None} | {f"{name}.zip": handed_out(paper, name=name) for name in NAMES if name != "lagos"}


@holds()
def period_of_two_bundles() -> Inputs:
    """Two bundles of one institution, of one job each: the second one's log and ledger begin with the first one's."""
    return {ONE: None, "second.zip": handed_out(one().job(plan_of(rounds=1, job="job-2")), "job-2")}


@holds()
def coordinators_bundle() -> Inputs:
    """The coordinator's own bundle of a job: plan, records, every message that it relayed, and its log."""
    return handed_out_by_the_coordinator(one(), "job-1")


@holds()
def coordinator_without_jobs() -> Inputs:
    """The smallest bundle: the coordinator's before its first job, a root's key and a list of members."""
    return zipped(tiny())


@holds()
def everybody_together() -> Inputs:
    """Three institutions and the coordinator, of one job: one log, one ledger each, one truth."""
    others = [f"../three-institutions-together/{name}.zip" for name in NAMES if name != "lagos"]
    return dict.fromkeys([ONE, "../coordinators-bundle/bundle.zip", *others])
