"""Heads of ledgers that were seen before: what the coordinator keeps, what accounts make of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_alliance.errors import LedgerRolledBack, StoreFailed
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties.accounts import Accounts
from fl_alliance.parties.heads import SeenHeads, heads_in_evidence
from fl_alliance.parties.mail import Address, write_answer
from fl_alliance.privacy.accountant import RdpAccountant
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.ids import blob_ref, digest_of
from fl_alliance.store.ledger_file import LedgerFile
from tests.evidence.alliance import key_of, members_of, plan_of, policy_of

KEY, PLAN = key_of("lagos"), digest_of(b"plan")


def accepted(job: str, head: str = "h") -> m.Acceptance:
    digest = digest_of(head.encode())
    return m.Acceptance(alliance="clinics", job=job, round=0, plan_digest=digest, wrap_key="AAAA", ledger_head=digest)


def sealed(job: str, number: int) -> m.SealedUpdate:
    digest = digest_of(f"{job} {number}".encode())
    return m.SealedUpdate(
        alliance="clinics", job=job, round=number, roster_digest=digest, dealers_digest=digest, upload=blob_ref(b"u"),
        ledger_head=digest,
    )  # fmt: skip


def envelope(answer: m.Answer) -> bytes:
    return write_answer(Address("lagos", "office", {}), KEY, answer)


def kept_after(folder: Path, *answers: m.Acceptance | m.SealedUpdate) -> bytes:
    for answer in answers:
        SeenHeads(folder).note("lagos", answer, envelope(answer))
    return SeenHeads(folder).newest(["lagos", "lima"])["lagos"]


def test_the_newest_answer_with_a_head_is_kept_over_jobs_and_restarts(tmp_path: Path) -> None:
    assert SeenHeads(tmp_path / "heads").newest(["lagos"]) == {}
    assert kept_after(tmp_path / "heads", accepted("job-1"), sealed("job-1", 1)) == envelope(sealed("job-1", 1))
    assert kept_after(tmp_path / "heads", sealed("job-1", 2)) == envelope(sealed("job-1", 2))
    assert kept_after(tmp_path / "heads", accepted("job-2")) == envelope(accepted("job-2"))


def test_an_earlier_answer_that_comes_again_does_not_replace_a_later_one(tmp_path: Path) -> None:
    assert kept_after(tmp_path, sealed("job-1", 2), accepted("job-1"), sealed("job-1", 1)) == envelope(
        sealed("job-1", 2)
    )


def test_every_upload_of_ones_own_in_the_evidence_gives_its_head(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / "job-1" / "evidence" / "rounds" / f"{number:04d}" / "messages"
        folder.mkdir(parents=True)
        (folder / "sealed-update.lagos.json").write_bytes(envelope(sealed("job-1", number)))
        (folder / "sealed-update.lima.json").write_bytes(envelope(sealed("job-1", 9)))
    assert list(heads_in_evidence(tmp_path, "lagos")) == [sealed("job-1", n).ledger_head for n in (1, 2)]
    (folder / "sealed-update.lagos.json").write_bytes(b"{}")
    with pytest.raises(StoreFailed, match=r"0002/messages/sealed-update\.lagos\.json: "):
        list(heads_in_evidence(tmp_path, "lagos"))


# ---- accounts


def accounts_in(home: Path, dataset: str = "cases") -> Accounts:
    (home / "policy.dsse.json").write_bytes(sign_document(KEY, policy_of(dataset=dataset)))
    return Accounts(
        identity=KEY,
        policy=home / "policy.dsse.json",
        approvals=home / "approvals",
        ledger=LedgerFile(home / "ledger.jsonl", public_key=KEY.public, institution="lagos", dataset=dataset),
        dataset_digest=lambda: digest_of(dataset.encode()),
        accountant=RdpAccountant(),
    )


def charged(accounts: Accounts, job: str = "job-1", number: int = 1) -> str:
    return accounts.charge(plan_of(job=job), digest_of(job.encode()), number)


def test_a_head_that_was_given_out_must_be_in_the_ledger_before_a_plan_is_approved(tmp_path: Path) -> None:
    first = charged(accounts_in(tmp_path))
    old = (tmp_path / "ledger.jsonl").read_bytes()
    second = charged(accounts_in(tmp_path), number=2)
    assert accounts_in(tmp_path).approve(plan_of(job="job-2"), PLAN, members_of(), [first, second]) == second
    (tmp_path / "ledger.jsonl").write_bytes(old)
    assert accounts_in(tmp_path).approve(plan_of(job="job-2"), PLAN, members_of(), [first]) == first
    with pytest.raises(LedgerRolledBack, match=f"head {second} .* after 1 entries in {first}"):
        accounts_in(tmp_path).approve(plan_of(job="job-2"), PLAN, members_of(), [first, second])


@pytest.mark.parametrize("back", ["approved", "charged"])
def test_a_ledger_put_back_while_a_job_runs_is_not_charged(tmp_path: Path, back: str) -> None:
    ledger = tmp_path / "ledger.jsonl"
    charged(accounts_in(tmp_path))
    old = ledger.read_bytes()
    charged(accounts_in(tmp_path), number=2)
    accounts = accounts_in(tmp_path)
    accounts.approve(plan_of(job="job-2"), PLAN, members_of())
    if back == "charged":
        old = ledger.read_bytes()
        charged(accounts, "job-2")
    ledger.write_bytes(old)
    with pytest.raises(LedgerRolledBack):
        charged(accounts, "job-2", 2)
    assert ledger.read_bytes() == old


def test_an_update_goes_no_further_where_its_charge_was_taken_out_of_the_ledger_meanwhile(tmp_path: Path) -> None:
    accounts, ledger = accounts_in(tmp_path), tmp_path / "ledger.jsonl"
    charged(accounts)
    old = ledger.read_bytes()
    charged(accounts, number=2)
    accounts.require_charged_records()
    ledger.write_bytes(old)
    taken_up = accounts_in(tmp_path)  # as by a process that was started again
    taken_up.restore(accounts.state())
    with pytest.raises(LedgerRolledBack):
        taken_up.require_charged_records()


def test_who_changes_the_data_set_puts_its_ledger_aside_and_may_not_lose_it(tmp_path: Path) -> None:
    head = charged(accounts_in(tmp_path))
    (tmp_path / "ledger.jsonl").rename(tmp_path / "ledger.cases.jsonl")
    accounts_in(tmp_path, "cases-2").approve(plan_of(job="job-2"), PLAN, members_of(), [head])
    (tmp_path / "ledger.cases.jsonl").unlink()
    with pytest.raises(LedgerRolledBack, match="or a ledger is missing"):
        accounts_in(tmp_path, "cases-2").approve(plan_of(job="job-2"), PLAN, members_of(), [head])
