"""A second job over a cap: refused before anybody opens the data file, as Python and the kernel see it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.parties import setup, wiring
from fl_alliance.parties.accounts import Accounts
from fl_alliance.privacy.accountant import PldAccountant
from fl_alliance.privacy.ledger import spent
from fl_alliance.protocol.ids import decimal_text
from fl_alliance.rounds import coordinator as machine
from fl_alliance.store.ledger_file import LedgerFile
from fl_alliance.training.records import dataset_digest
from tests.parties.conftest import Alliance
from tests.parties.processes import ROOT
from tests.parties.test_bad_input import new_policy

Build = Callable[..., Alliance]
ME = "hospital"


@pytest.fixture
def second_job(build: Build) -> Alliance:
    """The hospital's ledger holds a first job; a second one is proposed."""
    alliance = build(rounds=1)
    accounts_of(alliance).charge(alliance.plan, "sha256:" + "0" * 64, 1)
    alliance.plan = alliance.plan.model_copy(update={"job": "job-2"})
    wiring.propose(alliance.folder / "coordinator", alliance.plan)
    return alliance


def ledger_of(alliance: Alliance) -> LedgerFile:
    identity = IdentityKey.load(setup.Keys(alliance.home(ME)).identity)
    path = alliance.home(ME) / "ledger.jsonl"
    return LedgerFile(path, public_key=identity.public, institution=ME, dataset=f"{ME}-records")


def accounts_of(alliance: Alliance) -> Accounts:
    return Accounts(
        identity=IdentityKey.load(setup.Keys(alliance.home(ME)).identity),
        policy=alliance.home(ME) / "policy.dsse.json",
        approvals=alliance.home(ME) / "approvals",
        ledger=ledger_of(alliance),
        dataset_digest=lambda: dataset_digest(data_of(alliance)),
    )


def data_of(alliance: Alliance) -> Path:
    return alliance.folder.parent / "data" / f"{ME}.jsonl"


def cap_the_data_set(alliance: Alliance, jobs: str) -> None:
    """Let the data set give so many times what it has given."""
    given = spent(ledger_of(alliance).read().entries, PldAccountant(), Decimal(alliance.plan.privacy.delta))
    new_policy(alliance, ME, epsilon_per_dataset=decimal_text(given * Decimal(jobs)))


def ask(alliance: Alliance, tmp_path: Path) -> tuple[int, str, str]:
    """Propose the job to the hospital in a process of its own: exit status, what it says, what the kernel saw."""
    coordinator, trace = alliance.coordinator(), tmp_path / "trace"
    (mine,) = (e for e in machine.outstanding(coordinator.state) if isinstance(e, machine.Ask) and e.member == ME)
    (tmp_path / "request").write_bytes(coordinator._request(mine))
    kernel = (
        ["strace", "-f", "--seccomp-bpf", "-e", "trace=open,openat,openat2", "-o", str(trace)]
        if shutil.which("strace")
        else []
    )
    child = [sys.executable, "-m", "tests.parties.considering_institution"]
    files = [str(path) for path in (alliance.home(ME), tmp_path / "request", data_of(alliance))]
    done = subprocess.run([*kernel, *child, *files], cwd=ROOT, capture_output=True, text=True)
    assert not kernel or trace.exists(), done.stderr
    return done.returncode, done.stdout, trace.read_text() if kernel else ""


def test_a_second_job_over_the_cap_is_refused_before_the_data_file_is_opened(second_job: Alliance, tmp_path: Path):
    cap_the_data_set(second_job, "1.05")
    ledger = (second_job.home(ME) / "ledger.jsonl").read_bytes()
    status, said, seen = ask(second_job, tmp_path)
    assert status == 0
    assert "refusal BudgetExceeded: epsilon_per_dataset is " in said
    assert data_of(second_job).name not in seen
    assert "ledger.jsonl" in seen or not seen
    assert (second_job.home(ME) / "ledger.jsonl").read_bytes() == ledger


def test_a_second_job_within_the_cap_opens_the_data_file_and_both_watchers_see_it(second_job: Alliance, tmp_path: Path):
    cap_the_data_set(second_job, "3")
    status, said, seen = ask(second_job, tmp_path)
    assert (status, said) == (3, "")
    assert data_of(second_job).name in seen or not shutil.which("strace")
