"""Steps 6 and 7: the institution's ledger, and the coordinator's records against it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fl_alliance.protocol.documents import SampledGaussian
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import EvaluationPlan
from tests.evidence.alliance import key_of, members_of, plan_of
from tests.evidence.cases.case import COLLUDERS, COORDINATOR, INSTITUTION, Inputs, refused
from tests.evidence.cases.doctor import again, changed, honest, one, respelt, signature
from tests.evidence.cases.honest import FOUR, four
from tests.evidence.paper import NOW, Paper, Who

LEDGER, RECORD = "jobs/job-1/ledger.jsonl", "jobs/job-1/rounds/0001/record.dsse.json"
BOTH = "ledger.jsonl"
"""Besides the jobs the same, and refused there first."""
ENTRY = "entry.lagos.job-1.1"


def entry(**changes: Any) -> Paper:
    """One job whose charge says something else; report and record follow it."""
    return one(lies={ENTRY: changes})


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Inputs:
    """A job of two rounds whose ledger has other lines in its evidence."""
    files = one(rounds=2).evidence["lagos", "job-1"]
    return changed("ledger.jsonl", lambda data: b"".join(change(data.splitlines(keepends=True))), files)


def event(**changes: Any) -> SampledGaussian:
    return SampledGaussian.model_validate({"noise_multiplier": "1.5", "sampling_rate": "0.1", "steps": 4} | changes)


# ---- (6) ledger


@refused(6, LEDGER, "entry 1: sequence is 2", by=INSTITUTION)
def ledger_gap() -> Inputs:
    """The first entry is gone."""
    return lines(lambda found: found[1:])


@refused(6, LEDGER, "entry 1: sequence is 2", by=INSTITUTION)
def ledger_reordered() -> Inputs:
    """Two entries have changed places."""
    return lines(lambda found: found[::-1])


@refused(6, LEDGER, "entry 2: sequence is 1", by=INSTITUTION)
def ledger_entry_doubled() -> Inputs:
    """The first entry stands twice."""
    return lines(lambda found: [found[0], *found])


@refused(6, BOTH, "entry 2: previous is", by=INSTITUTION, times=2)
def ledger_fork() -> Inputs:
    """The second entry was signed again, upon another first one: two histories of one ledger."""
    return one(rounds=2, lies={"entry.lagos.job-1.2": {"previous": digest_of(b"another first entry")}})


@refused(6, LEDGER, "the last line is torn", by=INSTITUTION)
def ledger_torn() -> Inputs:
    """The last line has no end, as after a crash."""
    return changed("ledger.jsonl", lambda data: data[:-1])


@refused(6, LEDGER, "canonical", by=INSTITUTION)
def ledger_with_carriage_returns() -> Inputs:
    """The lines end as on another system."""
    return changed("ledger.jsonl", lambda data: data.replace(b"\n", b"\r\n"))


@refused(6, BOTH, "signed with key", by=COORDINATOR, times=2)
def ledger_entry_of_the_coordinator() -> Inputs:
    """The coordinator signed the charge."""
    return one(signers={ENTRY: "office"})


@refused(6, LEDGER, "signed with key", by=INSTITUTION)
def key_id_of_another() -> Inputs:
    """The entry's envelope names another key than the one that signed it."""
    other = key_of("lima").keyid
    return changed("ledger.jsonl", lambda data: signature(data[:-1], keyid=other) + b"\n")


@refused(6, BOTH, "of lagos/other, must be lagos/cases", by=INSTITUTION, times=2)
def ledger_entry_of_another_data_set() -> Inputs:
    """The round was charged to another data set's name."""
    return entry(dataset="other")


@refused(6, BOTH, "entry 1 charged", by=INSTITUTION, times=2)
def data_set_changed_between_rounds() -> Inputs:
    """The second round's records are others than the first one's, under the same name."""
    return one(rounds=2, lies={"entry.lagos.job-1.2": {"dataset_digest": digest_of(b"other records")}})


@refused(6, BOTH, "is before the previous entry's", by=INSTITUTION, times=2)
def ledger_goes_back_in_time() -> Inputs:
    """The second entry is dated before the first one."""
    return one(rounds=2, lies={"entry.lagos.job-1.2": {"time": NOW - 400 * 86_400}})


@refused(6, LEDGER, "out of range", by=INSTITUTION)
def sampling_rate_above_one() -> Inputs:
    """The charge samples each unit with probability 2."""
    old, new = b'"sampling_rate":"0.1"', b'"sampling_rate":"2"'
    return changed("ledger.jsonl", lambda data: respelt(old, new, "lagos")(data[:-1]) + b"\n")


@refused(6, LEDGER, "is not a plain decimal", by=INSTITUTION)
def decimal_with_exponent() -> Inputs:
    """The charge's noise multiplier is written 15e-1."""
    old, new = b'"noise_multiplier":"1.5"', b'"noise_multiplier":"15e-1"'
    return changed("ledger.jsonl", lambda data: respelt(old, new, "lagos")(data[:-1]) + b"\n")


@refused(6, LEDGER, "is not a plain decimal", by=INSTITUTION)
def decimal_minus_zero() -> Inputs:
    """The charge's delta is written -0."""
    old, new = b'"delta":"0.00001"', b'"delta":"-0"'
    return changed("ledger.jsonl", lambda data: respelt(old, new, "lagos")(data[:-1]) + b"\n")


# ---- (7) rounds: charges


@refused(7, LEDGER, "event is", by=INSTITUTION)
def event_changed() -> Inputs:
    """The institution charged six times the noise of the plan, and reports the smaller epsilon that follows."""
    return entry(event=event(noise_multiplier="9"))


@refused(7, LEDGER, "event is", by=INSTITUTION)
def fewer_steps_charged() -> Inputs:
    """The institution charged one step of the plan's four."""
    return entry(event=event(steps=1))


@refused(7, LEDGER, "evaluation is", by=INSTITUTION)
def evaluation_not_charged() -> Inputs:
    """The plan scores held-out units; the institution charged only the training."""
    evaluation = EvaluationPlan(heldout="0.1", score_cap="4", noise_multiplier="2")
    return Paper(lies={ENTRY: {"evaluation": None}}).job(plan_of(rounds=1, evaluation=evaluation), Who(score="1.5"))


@refused(7, LEDGER, "plan_digest is", by=INSTITUTION)
def charge_of_another_plan() -> Inputs:
    """The charge names another plan of the same job."""
    return entry(plan_digest=digest_of(b"another plan"))


@refused(7, LEDGER, "unit is visit", by=INSTITUTION)
def charge_for_a_smaller_unit() -> Inputs:
    """The charge counts visits, the plan protects patients."""
    return entry(unit="visit")


@refused(7, LEDGER, "delta is 0.0001", by=INSTITUTION)
def charge_with_a_larger_delta() -> Inputs:
    """The charge has ten times the plan's delta."""
    return entry(delta="0.0001")


@refused(7, LEDGER, "charges round 2, the plan has 1", by=INSTITUTION)
def charge_of_a_round_that_is_not_planned() -> Inputs:
    """The charge is for a second round of a job of one."""
    return entry(round=2)


@refused(7, RECORD, "is no charge of this job", by=INSTITUTION)
def ledger_rolled_back() -> Inputs:
    """After the job the institution put back the ledger of before, with a charge of an older job at its end."""
    paper = Paper().job(plan_of(rounds=1, job="job-0"))
    before = paper.evidence["lagos", "job-0"]["ledger.jsonl"]
    files = paper.job(plan_of(rounds=1)).evidence["lagos", "job-1"]
    return again(files | {"ledger.jsonl": before})


@refused(7, RECORD, "is no charge of this job", by=INSTITUTION)
def charge_under_another_job() -> Inputs:
    """The round was charged under another job's name, so that this one costs nothing."""
    files = one(rounds=2, lies={"entry.lagos.job-1.1": {"job": "job-9"}}).evidence["lagos", "job-1"]
    return again(files)


@refused(7, RECORD, "is no charge of this job", by=INSTITUTION)
def charge_in_another_alliance() -> Inputs:
    """The round was charged to a job of the same name in another alliance."""
    files = one(rounds=2, lies={"entry.lagos.job-1.1": {"alliance": "schools"}}).evidence["lagos", "job-1"]
    return again(files)


@refused(7, "jobs/job-1/rounds/0002/record.dsse.json", "charges round 1, must be round 2", by=INSTITUTION)
def one_charge_for_two_rounds() -> Inputs:
    """The second round's charge says that it is the first one's: a round repeated, as it seems, and one not paid."""
    return one(rounds=2, lies={"entry.lagos.job-1.2": {"round": 1}})


# ---- (7) rounds: records


@refused(7, "jobs/job-1/rounds", "the plan has 2 rounds", by=INSTITUTION)
def round_missing() -> Inputs:
    """The second round of two is gone, with everything that was said in it."""
    files = one(rounds=2).evidence["lagos", "job-1"]
    return again({name: data for name, data in files.items() if not name.startswith("rounds/0002")})


@refused(7, "jobs/job-1/rounds", "the plan has 1 rounds", by=INSTITUTION)
def round_duplicated() -> Inputs:
    """The only round lies there twice."""
    files = honest()
    twice = {name.replace("rounds/0001", "rounds/0002"): data for name, data in files.items() if "rounds/" in name}
    return again(files | twice)


@refused(7, "jobs/job-1/rounds", "holds nothing", by=INSTITUTION)
def no_round_of_a_job_that_may_end_early() -> Inputs:
    """The job may end when its scores get no better; the institution shows none of its rounds."""
    evaluation = EvaluationPlan(heldout="0.1", score_cap="4", noise_multiplier="2", patience=1)
    paper = Paper().job(plan_of(rounds=1, evaluation=evaluation), Who(score="1.5"))
    files = paper.evidence["lagos", "job-1"]
    return again({name: data for name, data in files.items() if not name.startswith("rounds/")})


@refused(7, "jobs/job-1/rounds", "did not end there", by=INSTITUTION)
def ended_before_the_scores_say() -> Inputs:
    """The scores were still getting better; the institution shows two rounds of three."""
    evaluation = EvaluationPlan(heldout="0.1", score_cap="4", noise_multiplier="2", patience=1)
    plan = plan_of(rounds=3, evaluation=evaluation)
    return Paper().job(plan, Who(score="1.5"), Who(score="1.4"))


@refused(7, "jobs/job-1/rounds", "against the plan's evaluation", by=COORDINATOR)
def score_without_an_evaluation() -> Inputs:
    """The record has a score, and the plan no evaluation: nobody charged for it."""
    return Paper().job(plan_of(rounds=1), Who(score="1.5"))


@refused(7, "jobs/job-1/rounds/0002/record.dsse.json", "previous_record is", by=COORDINATOR)
def record_of_another_history() -> Inputs:
    """The second record names another first record than the one that is here."""
    return one(rounds=2, lies={"record.job-1.2": {"previous_record": digest_of(b"another first record")}})


@refused(7, RECORD, "plan_digest is", by=COORDINATOR)
def record_of_another_plan() -> Inputs:
    """The coordinator's record is of another plan than the one that is here."""
    return one(lies={"record.job-1.1": {"plan_digest": digest_of(b"another plan")}})


@refused(7, RECORD, "signed with key", by=INSTITUTION)
def record_of_the_institution() -> Inputs:
    """The institution signed the record itself."""
    return one(signers={"record.job-1.1": "lagos"})


@refused(7, RECORD, "2 votes, the quorum is 3", by=COORDINATOR)
def votes_below_the_quorum() -> Inputs:
    """Two members voted for the adapter; the plan asks for three."""
    return Paper().job(plan_of(rounds=1, quorum=3), Who(votes=("berlin", "lagos")))


@refused(7, RECORD, "3 uploads, the plan sums 4 at least", by=COORDINATOR)
def uploads_below_the_minimum() -> Inputs:
    """The sum is of three members' updates; the plan promised each of them at least four."""
    plan = four(minimum_members=4)
    return Paper(members=members_of(FOUR)).job(plan, Who(survivors=("berlin", "lagos", "lima")))


@refused(7, RECORD, "mallory is not a member of the job", by=COORDINATOR)
def ghost_in_the_roster() -> Inputs:
    """The record's roster has somebody whom the plan does not know."""
    return one(lies={"record.job-1.1": {"members": ("berlin", "lagos", "lima", "mallory")}})


@refused(7, RECORD, "lagos has no upload in round 1", by=COLLUDERS)
def contributor_left_out_of_the_record() -> Inputs:
    """The record leaves lagos out, whose evidence this is: its update may be in the sum all the same."""
    paper = Paper(members=members_of(FOUR)).job(four())
    files = paper.evidence["lagos", "job-1"]
    rest = Paper(members=members_of(FOUR)).job(four(), Who(survivors=("berlin", "lima", "quito")))
    name = "rounds/0001/record.dsse.json"
    return again(files | {name: rest.evidence["lima", "job-1"][name]})
