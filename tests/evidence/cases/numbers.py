"""Steps 9 and 10: epsilon, and the coordinator's log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import SampledGaussian
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.log import LogReceipt
from tests.evidence.alliance import plan_of, policy_of
from tests.evidence.cases.case import COLLUDERS, COORDINATOR, INSTITUTION, Inputs, refused
from tests.evidence.cases.doctor import again, changed, honest, one, without
from tests.evidence.paper import NOW, Paper

REPORT, LEDGER, LOG = "jobs/job-1/report.dsse.json", "jobs/job-1/ledger.jsonl", "jobs/job-1/log"
YEAR = 365 * 86_400


def reported(**changes: Any) -> Paper:
    return one(lies={"report.lagos.job-1": changes})


def with_policy(**changes: Any) -> Paper:
    return Paper(policies={"lagos": policy_of(**changes)}).job(plan_of(rounds=1))


# ---- (9) epsilon


@refused(9, REPORT, "epsilon_pld is 0.1", by=INSTITUTION)
def epsilon_too_small() -> Inputs:
    """The report says a smaller epsilon than the ledger gives."""
    return reported(epsilon_pld="0.1")


@refused(9, REPORT, "epsilon_rdp is", by=INSTITUTION, written=False)
def epsilon_of_the_second_accountant_too_small() -> Inputs:
    """Only the looser number, by the second accountant, is too small."""
    return reported(epsilon_rdp="0.959476")


@refused(9, REPORT, "dataset_epsilon_pld is", by=INSTITUTION)
def earlier_jobs_forgotten() -> Inputs:
    """The report says that the data set has spent what this job cost; the ledger has an older job."""
    paper = Paper().job(plan_of(rounds=1, job="job-0"))
    paper.lies["report.lagos.job-1"] = lambda report: report.model_copy(
        update={"dataset_epsilon_pld": report.epsilon_pld, "dataset_epsilon_rdp": report.epsilon_rdp}
    )
    return again(paper.job(plan_of(rounds=1)).evidence["lagos", "job-1"])


@refused(9, REPORT, "is not a plain decimal", by=INSTITUTION, written=False)
def epsilon_that_is_no_number() -> Inputs:
    """The report's epsilon is NaN, which is unlike everything and above nothing."""
    return reported(epsilon_pld="NaN")


@refused(9, REPORT, "delta is 0.000001", by=INSTITUTION, written=False)
def report_with_another_delta() -> Inputs:
    """The report states epsilon at a smaller delta than it is for."""
    return reported(delta="0.000001")


@refused(9, REPORT, "unit is visit", by=INSTITUTION, written=False)
def report_for_another_unit() -> Inputs:
    """The report says that visits are protected; it is patients."""
    return reported(unit="visit")


@refused(9, REPORT, "entries is 7", by=INSTITUTION, written=False)
def report_of_another_ledger() -> Inputs:
    """The report counts seven entries, the ledger has one."""
    return reported(entries=7)


@refused(9, REPORT, "policy_digest is", by=INSTITUTION)
def policy_swapped_afterwards() -> Inputs:
    """A policy with larger caps lies in the place of the one that the report names."""
    other = with_policy(epsilon_per_job="1000").evidence["lagos", "job-1"]["policy.dsse.json"]
    return again({**honest(), "policy.dsse.json": other})


@refused(9, REPORT, "adapter_digest is", by=INSTITUTION, written=False)
def report_of_another_adapter() -> Inputs:
    """The report is about another adapter than the last record."""
    return reported(adapter_digest=digest_of(b"another adapter"))


@refused(9, REPORT, "statement is", by=INSTITUTION)
def guarantee_in_other_words() -> Inputs:
    """The numbers are right; the guarantee in plain words, which people read, is larger."""
    return reported(statement="Nobody can learn anything about anybody from what lagos released.")


@refused(9, REPORT, "signed with key", by=COLLUDERS, written=False)
def report_signed_by_the_coordinator() -> Inputs:
    """The coordinator signed the institution's report."""
    return one(signers={"report.lagos.job-1": "office"})


@refused(9, LEDGER, "epsilon_per_job is 0.9", by=INSTITUTION)
def cap_for_a_job_passed() -> Inputs:
    """The job cost more than the policy allows for one."""
    return with_policy(epsilon_per_job="0.9")


@refused(9, LEDGER, "epsilon_per_dataset is 1", by=INSTITUTION)
def cap_for_the_data_set_passed() -> Inputs:
    """Two jobs together cost more than the policy allows for the data set; each alone does not."""
    paper = Paper(policies={"lagos": policy_of(epsilon_per_dataset="1")}).job(plan_of(rounds=1, job="job-0"))
    return again(paper.job(plan_of(rounds=1)).evidence["lagos", "job-1"])


@refused(9, LEDGER, "epsilon_per_year is 1", by=INSTITUTION, written=False)
def cap_for_a_year_passed() -> Inputs:
    """Two jobs of one year cost more than the policy allows for a year."""
    paper = Paper(policies={"lagos": policy_of(epsilon_per_year="1")}).job(plan_of(rounds=1, job="job-0"))
    return again(paper.job(plan_of(rounds=1)).evidence["lagos", "job-1"])


@refused(9, LEDGER, "the plan's epsilon_cap is 0.9", by=COORDINATOR, written=False)
def cap_of_the_plan_passed() -> Inputs:
    """The plan promises its members that nobody spends more than 0.9; its own parameters cost more."""
    return one(privacy={"epsilon_cap": "0.9"})


@refused(9, REPORT, "no finite epsilon", by=INSTITUTION)
def noise_of_almost_nothing() -> Inputs:
    """An older job in the ledger has a noise of 10^-18: no accountant finds a finite epsilon."""
    nothing = SampledGaussian(noise_multiplier="0.000000000000000001", sampling_rate="0.1", steps=4)
    honest_report = one().evidence["lagos", "job-1"]["report.dsse.json"]
    paper = Paper(lies={"entry.lagos.job-0.1": {"event": nothing}})
    paper.charge("lagos", plan_of(rounds=1, job="job-0"), b"its plan", 1)
    paper.reports = False
    files = paper.job(plan_of(rounds=1)).evidence["lagos", "job-1"]
    return again(files | {"report.dsse.json": honest_report})


# ---- (10) log


def receipt(**changes: Any) -> Inputs:
    def other(data: bytes) -> bytes:
        return encode(decode(LogReceipt, data).model_copy(update=changes))

    return changed("log/receipt-0001.json", other)


def leaves(change: Callable[[bytes], bytes]) -> Inputs:
    return changed("log/leaves", change)


@refused(10, LOG, "have root", by=INSTITUTION, written=False)
def log_entry_swapped() -> Inputs:
    """The hash of the log's first entry is another."""
    return leaves(lambda data: bytes(32) + data[32:])


@refused(10, LOG, "entries, after", by=INSTITUTION)
def log_cut() -> Inputs:
    """The hash of the log's last entry is gone."""
    return leaves(lambda data: data[:-32])


@refused(10, LOG, "checkpoint-0001.dsse.json is missing", by=INSTITUTION, written=False)
def log_checkpoint_missing() -> Inputs:
    """The checkpoint that came with the record is gone."""
    return without("log/checkpoint-0001")


@refused(10, LOG, "no round-record", by=COORDINATOR)
def record_not_in_the_log() -> Inputs:
    """The coordinator never logged the record that it signed: it may have signed two."""
    return Paper(untold=("record.job-1.1",)).job(plan_of(rounds=1))


@refused(10, LOG, "no training-plan", by=COORDINATOR, written=False)
def plan_not_in_the_log() -> Inputs:
    """The coordinator never logged the plan: it may have shown another one to others."""
    return Paper(untold=("plan.job-1",)).job(plan_of(rounds=1))


@refused(10, LOG, "no alliance-members", by=COORDINATOR, written=False)
def members_not_in_the_log() -> Inputs:
    """The list of members was never logged: others may have been shown a newer one."""
    return Paper(untold=("members",)).job(plan_of(rounds=1))


@refused(10, LOG, "no ledger-head", by=COORDINATOR)
def ledger_head_not_in_the_log() -> Inputs:
    """lima's ledger head was never logged: nobody could bring it back to lima when its ledger is rolled back."""
    return Paper(untold=("sealed-update.lima.job-1.1",)).job(plan_of(rounds=1))


@refused(10, LOG, "no ledger-head", by=COORDINATOR, written=False)
def acceptance_not_in_the_log() -> Inputs:
    """lima's acceptance, with its ledger head, was never logged."""
    return Paper(untold=("acceptance.lima.job-1.0",)).job(plan_of(rounds=1))


@refused(10, LOG, "was shown checkpoint", by=COORDINATOR)
def two_logs_shown() -> Inputs:
    """lima signed that it was shown another checkpoint before the round: the coordinator has two logs."""
    return one(lies={"round-keys.lima.job-1.1": {"checkpoint": digest_of(b"another log")}})


@refused(10, LOG, "of the log of alliance schools", by=COORDINATOR, written=False)
def checkpoint_of_another_alliance() -> Inputs:
    """The checkpoint is of the log of another alliance of the same coordinator."""
    return one(lies={"checkpoint.job-1.1": {"alliance": "schools"}})


@refused(10, LOG, "signed with key", by=INSTITUTION, written=False)
def checkpoint_of_the_institution() -> Inputs:
    """The institution signed the checkpoint itself."""
    return one(signers={"checkpoint.job-1.1": "lagos"})


@refused(10, LOG, "the proof", by=INSTITUTION, written=False)
def receipt_with_another_path() -> Inputs:
    """The receipt's hashes do not lead from the record to the root."""
    return receipt(inclusion=(digest_of(b"another path"),))


@refused(10, LOG, "are not shown to begin with", by=INSTITUTION, written=False)
def receipt_with_another_past() -> Inputs:
    """The receipt does not show that the log only grew."""
    return receipt(consistency=())


@refused(10, LOG, "was charged at", by=INSTITUTION)
def charge_dated_into_another_year() -> Inputs:
    """The charge is dated two years back, where the year's cap has room; the log knows when the round was."""
    return one(lies={"entry.lagos.job-1.1": {"time": NOW - 2 * YEAR}})
