"""Steps 11 to 15: what stands beside the charges, and what several jobs and parties show together."""

from __future__ import annotations

import base64
from typing import Any

from fl_alliance.evidence.log import plan_entry
from fl_alliance.evidence.sign import read_envelope
from fl_alliance.parties.mail import Address, write_answer, write_request
from fl_alliance.parties.refusals import PROPOSAL, REFUSAL, REFUSALS, name_of
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.ids import digest_of
from tests.evidence.alliance import key_of, members_of, plan_of
from tests.evidence.cases.case import COLLUDERS, COORDINATOR, INSTITUTION, MEMBER, Inputs, holds, refused
from tests.evidence.cases.doctor import changed, one
from tests.evidence.cases.honest import FOUR, ONE
from tests.evidence.paper import Files, Paper, signed
from tests.evidence.sealing import bundled, handed_out, handed_out_by_the_coordinator, zipped

SOFTWARE = "jobs/job-1/software.cdx.json"

# ---- (11) software


@refused(11, SOFTWARE, "the plan's is", by=INSTITUTION)
def another_base_model() -> Inputs:
    """The bill of materials has another file of the base model than the plan: another model was trained."""
    old, new = (digest_of(data).removeprefix("sha256:").encode() for data in (b"weights", b"other weights"))
    return changed("software.cdx.json", lambda data: data.replace(old, new))


@refused(11, SOFTWARE, "CycloneDX document of version 1.6", by=INSTITUTION, written=False)
def bill_of_another_format() -> Inputs:
    """The bill of materials is of another version of CycloneDX."""
    return changed("software.cdx.json", lambda data: data.replace(b'"1.6"', b'"1.7"'))


# ---- (12) refusals


def asked(signer: str = "office") -> bytes:
    """The coordinator's proposal of a job that lagos refuses."""
    paper = Paper()
    plan = signed(key_of("office"), plan_of(job="job-9"))
    paper.enter("plan", plan_entry("job-9", plan))
    request = m.Proposal(
        alliance="clinics", job="job-9", round=0, plan=base64.b64encode(plan).decode(),
        members=base64.b64encode(paper.members).decode(), last_seen=None,
        checkpoint=base64.b64encode(paper.checkpoint("job-9.0")).decode(),
    )  # fmt: skip
    return write_request(Address(me=signer, coordinator="office", keys={}), key_of(signer), "lagos", request)


def answered(proposal: bytes, signer: str = "lagos", **changes: Any) -> bytes:
    fields = {"request_digest": digest_of(read_envelope(proposal).body), "error": "PolicyRefused", "reason": "too dear"}
    answer = m.Refusal(alliance="clinics", job="job-9", round=0, **(fields | changes))
    return write_answer(Address(me=signer, coordinator="office", keys={}), key_of(signer), answer)


def with_refusal(proposal: bytes, refusal: bytes) -> Inputs:
    folder = f"{REFUSALS}/{name_of(proposal)}"
    more: Files = Paper().standing("lagos") | {f"{folder}/{PROPOSAL}": proposal, f"{folder}/{REFUSAL}": refusal}
    return zipped(bundled({}, more=more))


@holds()
def plan_refused() -> Inputs:
    """The institution took part in nothing; it refused one plan, and shows question and answer."""
    return with_refusal(asked(), answered(asked()))


FOLDER = f"{REFUSALS}/{name_of(asked())}"


@refused(12, FOLDER, "request_digest is", by=INSTITUTION)
def refusal_of_another_question() -> Inputs:
    """The institution's refusal is the answer to another proposal."""
    return with_refusal(asked(), answered(asked(), request_digest=digest_of(b"another question")))


@refused(12, f"{REFUSALS}/{name_of(asked('mallory'))}", "signed with key", by=INSTITUTION)
def refusal_of_a_question_that_nobody_asked() -> Inputs:
    """The proposal that was refused is not signed by the coordinator."""
    return with_refusal(asked("mallory"), answered(asked("mallory")))


@refused(12, FOLDER, "sender is lima", by=INSTITUTION)
def refusal_of_another_institution() -> Inputs:
    """The refusal is lima's."""
    return with_refusal(asked(), answered(asked(), "lima"))


# ---- (13) one log


@refused(13, "log", "two histories", by=COORDINATOR)
def two_logs_in_two_bundles() -> Inputs:
    """lagos and lima were in two jobs and were shown two logs: each bundle holds by itself."""
    other = Paper()
    other.enter("extra", plan_entry("job-0", b"shown to some"))
    other.job(plan_of(rounds=1, job="job-2"))
    return {ONE: None, "lima.zip": handed_out(other, name="lima")}


# ---- (14) one ledger


@refused(14, "ledger.jsonl", "signed two ledgers of cases", by=INSTITUTION)
def ledger_begun_anew_between_jobs() -> Inputs:
    """For the second job the institution began a new ledger, in which the first job cost nothing."""
    paper = one()
    paper.ledgers["lagos"] = []
    return handed_out(paper.job(plan_of(rounds=1, job="job-2")))


@refused(14, "ledger.jsonl", "which is older", by=INSTITUTION)
def ledger_older_than_the_jobs() -> Inputs:
    """The ledger besides the jobs, to this day, lacks the second job's charge."""
    paper = one()
    before = list(paper.ledgers["lagos"])
    paper.job(plan_of(rounds=1, job="job-2"))
    paper.ledgers["lagos"] = before
    return handed_out(paper, "job-2")


@refused(14, "ledger.jsonl", "signed two ledgers of cases", by=INSTITUTION)
def two_ledgers_for_two_auditors() -> Inputs:
    """One auditor got the first job's bundle, another one the second job's, whose ledger never had the first."""
    paper = one()
    paper.ledgers["lagos"] = []
    paper.job(plan_of(rounds=1, job="job-2"))
    return {ONE: None, "second.zip": handed_out(paper, "job-2")}


# ---- (15) one truth


@refused(15, "plan.dsse.json", "is sha256:", by=COORDINATOR)
def two_plans_of_one_job() -> Inputs:
    """The coordinator ran one job twice, with two plans: lagos was in the one, lima in the other, both are logged."""
    paper = one()
    paper.ledgers.clear()
    paper.job(plan_of(rounds=1, max_tokens=65))
    return {ONE: None, "lima.zip": handed_out(paper, name="lima")}


@refused(15, "members.dsse.json", "two lists of members with number 1", by=COLLUDERS)
def two_lists_of_one_number() -> Inputs:
    """The root signed two lists of members with one number: lagos was shown another alliance in each job."""
    paper = one()
    paper.admit(members_of(FOUR))
    return handed_out(paper.job(plan_of(rounds=1, job="job-2")))


@refused(15, "members.dsse.json", "number 1", by=COORDINATOR)
def list_rolled_back() -> Inputs:
    """The root struck quito off its list before the first job; for the second the coordinator took the older list."""
    paper = Paper(members=members_of().model_copy(update={"serial": 2})).job(plan_of(rounds=1))
    paper.admit(members_of(FOUR))
    return handed_out(paper.job(plan_of(rounds=1, job="job-2")))


@refused(15, "rounds/0001/messages/revealed-shares.lima.json", "is sha256:", by=MEMBER)
def member_that_says_two_things() -> Inputs:
    """lima revealed other shares to berlin than to lagos."""
    other = one(lies={"revealed-shares.lima.job-1.1": {"sealed": "AAAA"}})
    return {ONE: None, "berlin.zip": handed_out(other, name="berlin")}


@refused(15, "rounds/0001/messages/revealed-shares.lima.json", "is sha256:", by=COORDINATOR, written=False)
def coordinator_that_relayed_something_else() -> Inputs:
    """The coordinator's bundle has other shares of lima than it relayed to lagos."""
    other = one(lies={"revealed-shares.lima.job-1.1": {"sealed": "AAAA"}})
    return {ONE: None, "office.zip": handed_out_by_the_coordinator(other, "job-1")}
