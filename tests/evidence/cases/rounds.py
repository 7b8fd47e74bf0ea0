"""Step 8: what the members signed, against the coordinator's records."""

from __future__ import annotations

from typing import Any

from fl_alliance.protocol.ids import BlobRef, digest_of
from fl_alliance.protocol.plan import EvaluationPlan, SumPlan
from tests.evidence.alliance import key_of, members_of, plan_of
from tests.evidence.cases.case import COLLUDERS, COORDINATOR, INSTITUTION, MEMBER, Inputs, refused
from tests.evidence.cases.doctor import again, changed, honest, one, relabelled, signature, without
from tests.evidence.cases.honest import FOUR, four
from tests.evidence.paper import Paper, Who

KEYS, SAID = "jobs/job-1/keys/messages", "jobs/job-1/rounds/0001/messages"
RECORD = "record.job-1.1"


def swapped(name: str, other: Paper, job: str = "job-1", number: int = 1) -> Inputs:
    """One message is the one that was said in another job, alliance or round."""
    files = other.evidence["lagos", job]
    return again({**honest(), f"rounds/0001/messages/{name}": files[f"rounds/{number:04d}/messages/{name}"]})


# ---- before the first round


@refused(8, f"{KEYS}/acceptance.lima.json", "plan_digest is", by=COORDINATOR)
def two_plans_shown() -> Inputs:
    """lima accepted another plan of this job than the one that is here: the coordinator showed two."""
    return one(lies={"acceptance.lima.job-1.0": {"plan_digest": digest_of(b"another plan")}})


@refused(8, f"{KEYS}/acceptance.lima.json", "is missing", by=COORDINATOR, written=False)
def acceptance_missing() -> Inputs:
    """Nothing shows that lima accepted the plan."""
    return without("keys/messages/acceptance.lima")


@refused(8, f"{KEYS}/acceptance.lagos.json", "it was replaced", by=INSTITUTION)
def ledger_replaced_by_an_empty_one() -> Inputs:
    """lagos accepted the plan with a ledger of an older job, and charged it to a new one, in which that job is not."""
    paper = Paper().job(plan_of(rounds=1, job="job-0"))
    head = paper.ledger("lagos").head
    paper.lies["acceptance.lagos.job-1.0"] = {"ledger_head": head}
    paper.ledgers["lagos"] = []
    return again(paper.job(plan_of(rounds=1)).evidence["lagos", "job-1"])


@refused(8, f"{KEYS}/wrapped-keys.berlin.json", "acceptances_digest is", by=COLLUDERS)
def acceptance_swapped_afterwards() -> Inputs:
    """lagos signed another acceptance after the job; the key maker's message names the first one."""
    other = one(lies={"acceptance.lagos.job-1.0": {"wrap_key": "AAAA"}}).evidence["lagos", "job-1"]
    name = "keys/messages/acceptance.lagos.json"
    return again({**honest(), name: other[name]})


# ---- who took part


@refused(8, f"{SAID}/sealed-update.lima.json", "is missing", by=COORDINATOR)
def contributor_without_a_signed_upload() -> Inputs:
    """The record counts an upload of lima; nothing shows that lima signed it."""
    return without("rounds/0001/messages/sealed-update.lima")


@refused(8, f"{SAID}/revealed-shares.berlin.json", "survivors_digest is", by=COORDINATOR)
def sum_without_a_contributor() -> Inputs:
    """The record leaves out quito, which the list that was confirmed has: the sum is of four, the record of three."""
    three = ("berlin", "lagos", "lima")

    def shorter(record: Any) -> Any:
        kept = {
            name: tuple(x for x in getattr(record, name) if x.member in three) for name in ("uploads", "ledger_heads")
        }
        return record.model_copy(update={**kept, "votes": three})

    paper = Paper(members=members_of(FOUR), lies={RECORD: shorter})
    return paper.job(four(), Who(confirmed=three))


@refused(8, f"{SAID}/sealed-update.lima.json", "ledger_head is", by=COORDINATOR)
def contributor_without_a_ledger_entry() -> Inputs:
    """The record names another ledger head of lima than the one that lima signed with its upload."""

    def other(record: Any) -> Any:
        heads = tuple(
            head.model_copy(update={"head": digest_of(b"no entry")}) if head.member == "lima" else head
            for head in record.ledger_heads
        )
        return record.model_copy(update={"ledger_heads": heads})

    return one(lies={RECORD: other})


@refused(8, f"{SAID}/sealed-update.lima.json", "upload is", by=COORDINATOR, written=False)
def upload_swapped() -> Inputs:
    """lima signed another upload than the record names."""
    other = BlobRef(digest=digest_of(b"another upload"), length=9)
    return one(lies={"sealed-update.lima.job-1.1": {"upload": other}})


@refused(8, f"{SAID}/round-keys.quito.json", "is missing", by=COORDINATOR)
def ghost_member_in_the_record() -> Inputs:
    """The record's roster has a member of the job that signed nothing in this round."""
    rest = tuple(name for name in FOUR if name != "quito")
    paper = Paper(members=members_of(FOUR), lies={RECORD: {"members": FOUR}})
    return paper.job(four(), Who(roster=rest))


@refused(8, SAID, "the round keys make roster", by=COORDINATOR, written=False)
def two_rosters_shown() -> Inputs:
    """The record's roster is another than the one of the keys that members signed."""
    return one(lies={RECORD: {"roster_digest": digest_of(b"another roster")}})


@refused(8, f"{SAID}/sealed-shares.lima.json", "roster_digest is", by=COORDINATOR, written=False)
def dealer_of_another_roster() -> Inputs:
    """lima dealt its shares to another roster: to whom, nobody knows."""
    return one(lies={"sealed-shares.lima.job-1.1": {"roster_digest": digest_of(b"another roster")}})


@refused(8, f"{SAID}/sealed-shares.quito.json", "is not among the record's members", by=COLLUDERS)
def dealer_outside_the_roster() -> Inputs:
    """quito dealt shares in a round whose roster does not have it: its mask is in the sum, its key in no list."""
    rest = tuple(name for name in FOUR if name != "quito")
    return Paper(members=members_of(FOUR)).job(four(), Who(roster=rest, dealers=FOUR, survivors=rest))


@refused(8, f"{SAID}/sealed-update.lima.json", "dealers_digest is", by=COORDINATOR, written=False)
def dealers_left_out() -> Inputs:
    """lima masked its upload towards other members than dealt their shares."""
    return one(lies={"sealed-update.lima.job-1.1": {"dealers_digest": digest_of(b"other dealers")}})


# ---- the sum and the votes


@refused(8, f"{SAID}/revealed-shares.berlin.json", "survivors_digest is", by=COORDINATOR)
def sum_of_something_else() -> Inputs:
    """The record names another sum than the members confirmed and checked."""
    return one(lies={RECORD: {"sum_digest": digest_of(b"another sum")}})


@refused(8, f"{SAID}/sum-checked.lima.json", "sum_digest is", by=COORDINATOR)
def sum_that_a_verifier_refused() -> Inputs:
    """lima added the uploads again and got another sum."""
    return one(lies={"sum-checked.lima.job-1.1": {"sum_digest": digest_of(b"what lima got")}})


@refused(8, f"{SAID}/sum-checked.berlin.json", "is missing", by=COORDINATOR)
def sum_that_too_few_checked() -> Inputs:
    """One member checked the sum; the plan asks for as many as the threshold."""
    return Paper().job(plan_of(rounds=1), Who(checked=("lagos",)))


@refused(8, f"{SAID}/sum-checked.lagos.json", "is missing", by=COORDINATOR, written=False)
def sum_that_nobody_drawn_checked() -> Inputs:
    """The plan has one verifier, drawn from the members; those who answered were not drawn."""
    plan = four(sum=SumPlan(coordinate_clip="0.5", verifiers=1))
    return Paper(members=members_of(FOUR)).job(plan, Who(checked=("berlin", "quito")))


@refused(8, f"{SAID}/survivors-confirmed.*.json", "1 members, need 2", by=COORDINATOR)
def survivors_that_too_few_confirmed() -> Inputs:
    """One member confirmed the list of uploads: the others may have been shown another."""
    return Paper(lies={RECORD: {"votes": ("berlin", "lagos")}}).job(plan_of(rounds=1), Who(confirmed=("lagos",)))


@refused(8, f"{SAID}/revealed-shares.*.json", "1 members, need 2", by=COLLUDERS, written=False)
def shares_that_too_few_revealed() -> Inputs:
    """One member revealed its shares: with so few the masks can't have been taken off."""
    return Paper(lies={RECORD: {"votes": ("berlin", "lagos")}}).job(plan_of(rounds=1), Who(revealed=("lagos",)))


@refused(8, f"{SAID}/adapter-vote.berlin.json", "adapter_digest is", by=COORDINATOR, written=False)
def adapter_swapped() -> Inputs:
    """The record names another adapter than the members voted for."""
    return one(lies={RECORD: {"adapter_digest": digest_of(b"another adapter")}})


@refused(8, f"{SAID}/adapter-vote.lima.json", "is missing", by=COORDINATOR)
def vote_invented() -> Inputs:
    """The record counts a vote of lima, which signed none."""
    return Paper(lies={RECORD: {"votes": ("berlin", "lagos", "lima")}}).job(
        plan_of(rounds=1), Who(votes=("berlin", "lagos"))
    )


@refused(8, f"{SAID}/adapter-vote.berlin.json", "score is", by=COORDINATOR, written=False)
def score_other_than_voted() -> Inputs:
    """The record has a better score than the members signed: it decides when the job ends."""
    evaluation = EvaluationPlan(heldout="0.1", score_cap="4", noise_multiplier="2")
    return Paper(lies={RECORD: {"score": "0.5"}}).job(plan_of(rounds=1, evaluation=evaluation), Who(score="1.5"))


# ---- replays


@refused(8, f"{SAID}/adapter-vote.lima.json", "job is job-0", by=COORDINATOR)
def message_of_another_job() -> Inputs:
    """lima's vote is the one of another job."""
    return swapped("adapter-vote.lima.json", one(job="job-0"), "job-0")


@refused(8, f"{SAID}/adapter-vote.lima.json", "alliance is schools", by=COORDINATOR)
def message_of_another_alliance() -> Inputs:
    """lima's vote is the one of a job of the same name in another alliance, where lima has the same key."""
    members = members_of().model_copy(update={"alliance": "schools"})
    other = Paper(alliance="schools", members=members).job(plan_of(rounds=1, alliance="schools"))
    return swapped("adapter-vote.lima.json", other)


@refused(8, f"{SAID}/adapter-vote.lima.json", "round is 2", by=COORDINATOR)
def message_of_another_round() -> Inputs:
    """lima's vote is the one of another round."""
    return swapped("adapter-vote.lima.json", one(rounds=2), number=2)


@refused(8, f"{SAID}/adapter-vote.lima.json", "holds a adapter-vote of berlin", by=COORDINATOR, written=False)
def message_of_another_member() -> Inputs:
    """Where lima's vote must be there is berlin's, once more."""
    files = honest()
    name = "rounds/0001/messages/adapter-vote"
    return again(files | {f"{name}.lima.json": files[f"{name}.berlin.json"]})


@refused(8, f"{SAID}/adapter-vote.lima.json", "labelled", by=MEMBER, written=False)
def message_under_another_label() -> Inputs:
    """lima's vote is signed under the label of a sum check: one signature would do for two kinds."""
    label = "fl-alliance/1|sum-checked|lima|office|clinics|job-1|1"
    return changed("rounds/0001/messages/adapter-vote.lima.json", relabelled(label, "lima"))


@refused(8, f"{SAID}/adapter-vote.lima.json", "lima is not among the senders of revealed-shares", by=COLLUDERS)
def vote_of_one_that_did_not_reveal() -> Inputs:
    """lima revealed no share and voted all the same: for an adapter that it can't have made from the sum."""
    return Paper().job(plan_of(rounds=1), Who(revealed=("berlin", "lagos"), votes=("berlin", "lagos", "lima")))


@refused(8, f"{SAID}/adapter-vote.lima.json", "signed with key", by=MEMBER, written=False)
def message_with_a_retired_key() -> Inputs:
    """lima signed with the key that it had before the list was renewed."""
    return one(signers={"adapter-vote.lima.job-1.1": "lima, before"})


@refused(8, f"{SAID}/adapter-vote.lima.json", "signed with key", by=COORDINATOR, written=False)
def message_signed_by_the_coordinator() -> Inputs:
    """The coordinator signed lima's vote itself."""
    return one(signers={"adapter-vote.lima.job-1.1": "office"})


@refused(8, f"{SAID}/adapter-vote.lima.json", "does not verify", by=COORDINATOR, written=False)
def message_whose_key_id_lies() -> Inputs:
    """The coordinator signed lima's vote, and wrote lima's key id beside the signature."""
    files = one(signers={"adapter-vote.lima.job-1.1": "office"}).evidence["lagos", "job-1"]
    name = "rounds/0001/messages/adapter-vote.lima.json"
    return again(files | {name: signature(files[name], keyid=key_of("lima").keyid)})


@refused(8, f"{SAID}/adapter-vote.quito.json", "quito is not a member of the job", by=MEMBER, written=False)
def message_of_a_stranger() -> Inputs:
    """A member of the alliance that is not in the job voted too."""
    paper = Paper(members=members_of(FOUR)).job(plan_of(rounds=1))
    said = Paper(members=members_of(FOUR)).job(four()).evidence["quito", "job-1"]
    name = "rounds/0001/messages/adapter-vote.quito.json"
    return again(paper.evidence["lagos", "job-1"] | {name: said[name]})


@refused(8, f"{SAID}/notes.txt", "JSON", by=INSTITUTION, written=False)
def file_among_the_messages() -> Inputs:
    """A file that is no message lies among them."""
    return again({**honest(), "rounds/0001/messages/notes.txt": b"what a member said by phone"})
