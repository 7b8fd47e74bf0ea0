"""An institution whose ledger is an older copy: it refuses the next job, as far as anybody can tell it."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest

from fl_alliance.parties import wiring
from fl_alliance.parties.mail import read_answer
from fl_alliance.protocol import messages as m
from fl_alliance.rounds import coordinator as machine
from tests.parties.conftest import Alliance, attached, build_in


@pytest.fixture(scope="module")
def first_job(tmp_path_factory: pytest.TempPathFactory) -> Alliance:
    """An alliance after its first job, with a backup of the clinic's folder from before it; the second is proposed."""
    alliance = build_in(tmp_path_factory.mktemp("first-job"), rounds=1)
    shutil.copytree(alliance.home("clinic"), backup_of(alliance))
    assert isinstance(alliance.coordinator().run(), machine.Finished)
    alliance.plan = alliance.plan.model_copy(update={"job": "job-2"})
    wiring.propose(alliance.folder / "coordinator", alliance.plan)
    return alliance


@pytest.fixture
def after_a_job(first_job: Alliance, tmp_path: Path) -> Alliance:
    """A copy of its own for each test."""
    shutil.copytree(first_job.folder.parent, tmp_path, dirs_exist_ok=True)
    return attached(tmp_path / "alliance", first_job.plan)


def backup_of(alliance: Alliance) -> Path:
    return alliance.folder.parent / "backup"


def restore_everything(alliance: Alliance) -> None:
    shutil.rmtree(alliance.home("clinic"))
    shutil.copytree(backup_of(alliance), alliance.home("clinic"))
    alliance.attach("clinic")


def restore_the_ledger(alliance: Alliance) -> None:
    (alliance.home("clinic") / "ledger.jsonl").unlink()
    alliance.attach("clinic")


def start_the_log_anew(alliance: Alliance) -> None:
    """The coordinator forgets what its log held."""
    shutil.rmtree(alliance.folder / "coordinator" / "log")


def withhold(alliance: Alliance) -> None:
    shutil.rmtree(alliance.folder / "coordinator" / "heads")


def test_a_restored_backup_refuses_to_train_for_the_coordinator_kept_the_newest_head(after_a_job: Alliance):
    restore_everything(after_a_job)
    state = after_a_job.coordinator().run()
    assert isinstance(state, machine.Aborted)
    assert state.reason.startswith("clinic refused: LedgerRolledBack: head sha256:")
    assert "is in no ledger here; the ledger of clinic-records ends after 0 entries" in state.reason
    assert not (after_a_job.home("clinic") / "ledger.jsonl").exists()


def test_an_old_ledger_beside_newer_evidence_refuses_to_train_whatever_the_coordinator_says(after_a_job: Alliance):
    shutil.rmtree(after_a_job.home("clinic") / "log")
    restore_the_ledger(after_a_job)
    withhold(after_a_job)
    start_the_log_anew(after_a_job)
    state = after_a_job.coordinator().run()
    assert isinstance(state, machine.Aborted)
    assert "clinic refused: LedgerRolledBack: " in state.reason


def test_a_whole_backup_with_a_coordinator_that_withholds_the_head_refuses_to_train(after_a_job: Alliance):
    """The log has it, and the coordinator can't bring what it says it has not."""
    restore_everything(after_a_job)
    withhold(after_a_job)
    state = after_a_job.coordinator().run()
    assert isinstance(state, machine.Aborted)
    assert state.reason.startswith("clinic refused: NotInLog: last_seen: None was brought back, the log's newest head")
    assert not (after_a_job.home("clinic") / "ledger.jsonl").exists()


def test_a_log_without_the_withheld_head_is_refused_by_whoever_was_in_the_job(after_a_job: Alliance):
    """The restored clinic alone can't tell; the others saw the log with its head in it."""
    restore_everything(after_a_job)
    withhold(after_a_job)
    start_the_log_anew(after_a_job)
    state = after_a_job.coordinator().run()
    assert isinstance(state, machine.Aborted)
    assert "LogForked" in state.reason
    assert not (after_a_job.home("clinic") / "ledger.jsonl").exists()


def test_a_coordinator_that_starts_again_proposes_in_the_same_words(after_a_job: Alliance):
    """Else an institution that had accepted would take the second for another proposal of a job under way."""
    proposals = machine.outstanding(after_a_job.coordinator().state)
    assert all(newest_head(after_a_job, ask) for ask in proposals)
    withhold(after_a_job)
    assert machine.outstanding(after_a_job.coordinator().state) == proposals


def newest_head(alliance: Alliance, ask: machine.Effect) -> bool:
    """Whether a proposal holds the head that its receiver's ledger has now."""
    assert isinstance(ask, machine.Ask)
    assert isinstance(ask.request, m.Proposal)
    assert ask.request.last_seen is not None
    sender, answer = read_answer(alliance.coordinator()._address, base64.b64decode(ask.request.last_seen))
    assert isinstance(answer, m.SealedUpdate)
    return (sender, answer.round) == (ask.member, 1)
