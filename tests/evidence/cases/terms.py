"""Steps 4 and 5: the plan, and what the institution and its persons allow."""

from __future__ import annotations

from typing import Any

from fl_alliance.protocol.documents import Partner
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import Member
from tests.evidence.alliance import key_of, members_of, plan_of, policy_of
from tests.evidence.cases.case import COORDINATOR, INSTITUTION, ROOT_HOLDER, Inputs, refused
from tests.evidence.cases.doctor import again, changed, honest, one, relabelled, respelt
from tests.evidence.cases.honest import FOUR, approval, approvers, four
from tests.evidence.paper import Files, Paper, signed

PLAN, POLICY = "jobs/job-1/plan.dsse.json", "jobs/job-1/policy.dsse.json"


def with_policy(**changes: Any) -> Paper:
    return Paper(policies={"lagos": policy_of(**changes)}).job(plan_of(rounds=1))


def declared(*names: str) -> dict[str, Any]:
    return {"members": tuple(Member(name=name, declared_units=1000) for name in names)}


# ---- (4) plan


@refused(4, PLAN, "signed with key", by=INSTITUTION)
def other_plan() -> Inputs:
    """The institution shows a plan with more noise, which it signed itself."""
    other = plan_of(rounds=1, privacy={"noise_multiplier": "4"})
    return again({**honest(), "plan.dsse.json": signed(key_of("lagos"), other)})


@refused(4, PLAN, "of alliance schools, expected clinics", by=COORDINATOR)
def plan_of_another_alliance() -> Inputs:
    """The coordinator's plan is of another alliance, in which it has the same key."""
    return again({**honest(), "plan.dsse.json": signed(key_of("office"), plan_of(rounds=1, alliance="schools"))})


@refused(4, PLAN, "lima is not an institution of the alliance", by=COORDINATOR)
def revoked_member() -> Inputs:
    """The root has struck lima off the list; the coordinator's plan still has it."""
    shorter = members_of(("berlin", "lagos", "oslo")).model_copy(update={"serial": 2})
    return Paper(members=shorter).job(plan_of(rounds=1))


@refused(4, PLAN, "office is not an institution of the alliance", by=COORDINATOR)
def coordinator_as_member() -> Inputs:
    """The coordinator is a member of its own job: it would get the alliance's key, and with it every sum."""
    return one(**declared("berlin", "lagos", "office"))


@refused(4, PLAN, "lagos is not a member of the job", by=INSTITUTION)
def job_of_others() -> Inputs:
    """The institution shows a job of others as its own."""
    names = ("berlin", "lima", "quito")
    paper = Paper(members=members_of(("berlin", "lagos", "lima", "quito")))
    paper.job(plan_of(rounds=1, **declared(*names)))
    return again(paper.evidence["lima", "job-1"])


@refused(4, PLAN, "threshold 2", by=COORDINATOR)
def threshold_of_a_half() -> Inputs:
    """Two shares of four open a mask: two halves of the members could be shown two lists."""
    return Paper(members=members_of(FOUR), lies={"plan.job-1": {"threshold": 2}}).job(four())


@refused(4, PLAN, "above 1 / (10 * 1000 declared units)", by=COORDINATOR)
def delta_too_large_for_the_units() -> Inputs:
    """With this delta one unit's records may be published whole."""
    privacy = plan_of().privacy.model_copy(update={"delta": "0.01"})
    return one(lies={"plan.job-1": {"privacy": privacy}})


@refused(4, PLAN, "trailing zeros", by=COORDINATOR)
def decimal_with_trailing_zero() -> Inputs:
    """The noise multiplier is written 1.50: the same number in other bytes."""
    return changed("plan.dsse.json", respelt(b'"noise_multiplier":"1.5"', b'"noise_multiplier":"1.50"', "office"))


@refused(4, PLAN, "not in canonical form", by=COORDINATOR)
def letter_as_escape() -> Inputs:
    """A letter of the unit is written as an escape of JSON: the same text in other bytes."""
    return changed("plan.dsse.json", respelt(b'"unit":"patient"', b'"unit":"p\\u0061tient"', "office"))


@refused(4, PLAN, "integer", by=COORDINATOR)
def float_for_an_integer() -> Inputs:
    """The number of rounds is written 1.0."""
    return changed("plan.dsse.json", respelt(b'"rounds":1,', b'"rounds":1.0,', "office"))


@refused(4, PLAN, "Extra inputs are not permitted", by=COORDINATOR)
def field_that_nobody_knows() -> Inputs:
    """The plan has one field more; a reader that drops it reads another plan."""
    return changed("plan.dsse.json", respelt(b'"rounds":1,', b'"rounds":1,"runs":9,', "office"))


@refused(4, PLAN, "label is", by=COORDINATOR)
def payload_type_of_another_tool() -> Inputs:
    """The plan is signed under the type `application/json`, in which another tool's documents are signed."""
    return changed("plan.dsse.json", relabelled("application/json", "office"))


@refused(4, PLAN, "a alliance-members document, expected TrainingPlan", by=COORDINATOR)
def document_of_another_kind() -> Inputs:
    """Where the plan must be there is a list of members that the coordinator signed."""
    return again({**honest(), "plan.dsse.json": signed(key_of("office"), members_of())})


@refused(4, PLAN, "subject is not what the predicate is about", by=COORDINATOR)
def statement_about_another_model() -> Inputs:
    """The statement's subject is another base model than its predicate's: tools that read subjects see the other."""
    hexes = [digest_of(data).removeprefix("sha256:").encode() for data in (b"weights", b"other weights")]
    return changed("plan.dsse.json", respelt(b'"sha256":"' + hexes[0], b'"sha256":"' + hexes[1], "office"))


# ---- (5) policy and persons


@refused(5, "policy.dsse.json", "signed with key", by=COORDINATOR, times=2)
def policy_of_the_coordinator() -> Inputs:
    """A policy that allows everything, signed by the coordinator."""
    return one(signers={"policy.lagos": "office"})


@refused(5, "policy.dsse.json", "of lima, expected lagos", by=INSTITUTION, times=2)
def policy_of_another_institution() -> Inputs:
    """The policy is about another institution."""
    return one(lies={"policy.lagos": {"institution": "lima"}})


@refused(5, POLICY, "allowed_units", by=INSTITUTION)
def unit_that_only_looks_alike() -> Inputs:
    """The policy allows `patient` with a Cyrillic letter; the plan's unit is written in Latin ones."""
    return with_policy(allowed_units=("p\u0430tient",))


@refused(5, POLICY, "delta_max", by=INSTITUTION)
def delta_above_the_policy() -> Inputs:
    """The plan's delta is above the one that the policy allows."""
    return with_policy(delta_max="0.000001")


@refused(5, POLICY, "partners: lima", by=ROOT_HOLDER)
def ghost_in_place_of_a_partner() -> Inputs:
    """The policy names its partners with their keys; the root has given lima's name to another key."""
    partners = tuple(Partner(name=name, key=key_of(f"{name}, as known").keyid) for name in ("berlin", "lima"))
    known = (partners[0].model_copy(update={"key": key_of("berlin").keyid}), partners[1])
    return with_policy(partners=known)


@refused(5, POLICY, "minimum_members 4", by=COORDINATOR)
def fewer_members_than_the_policy_asks_for() -> Inputs:
    """The policy takes part in sums of four and more; the plan has three."""
    return with_policy(minimum_members=4)


@refused(5, POLICY, "allow_distributed_noise is false", by=COORDINATOR)
def noise_shared_against_the_policy() -> Inputs:
    """The members share one noise; the policy does not allow it."""
    return one(privacy={"noise": "distributed", "steps_per_round": 1})


@refused(5, POLICY, "allowed_models", by=COORDINATOR)
def model_that_the_policy_does_not_list() -> Inputs:
    """The policy lists another base model."""
    return with_policy(allowed_models=(digest_of(b"another"),))


@refused(5, POLICY, "is not a plain decimal", by=INSTITUTION)
def cap_that_is_no_number() -> Inputs:
    """The policy's cap for a job is NaN, below which everything and nothing is."""
    return changed("policy.dsse.json", respelt(b'"epsilon_per_job":"8"', b'"epsilon_per_job":"NaN"', "lagos"))


def approved(**said: bytes) -> Paper:
    files: Files = dict(said)
    return Paper(policies=approvers("ada", "grace", needed=2)).job(plan_of(rounds=1), approvals={"lagos": files})


SIGNED = signed(key_of("office"), plan_of(rounds=1))


@refused(5, "jobs/job-1/approvals", "approvals_needed 2", by=INSTITUTION)
def approval_missing() -> Inputs:
    """The policy asks for two persons; one has signed."""
    return approved(ada=approval("ada", SIGNED))


@refused(5, "jobs/job-1/approvals", "approvals_needed 2", by=INSTITUTION)
def approval_of_another_plan() -> Inputs:
    """The second person has signed another plan."""
    return approved(ada=approval("ada", SIGNED), grace=approval("grace", b"another plan"))


@refused(5, "jobs/job-1/approvals", "approvals_needed 2", by=INSTITUTION)
def approval_with_another_key() -> Inputs:
    """The institution signed for the second person, with a key that it made for it."""
    forged = approval("grace", SIGNED, "grace, as the institution likes her")
    return approved(ada=approval("ada", SIGNED), grace=forged)


@refused(5, "jobs/job-1/approvals", "approvals_needed 2", by=INSTITUTION)
def approval_counted_twice() -> Inputs:
    """One person's approval lies there under two names."""
    return approved(ada=approval("ada", SIGNED), grace=approval("ada", SIGNED))
