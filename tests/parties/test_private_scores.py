"""A whole job with private evaluation: scores in the records, an early end, the best adapter, all of it audited."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from fl_alliance.errors import NotAuthentic
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties.audit_rules import check_ending
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.privacy.accountant import PldAccountant
from fl_alliance.privacy.events import evaluation_event_of, event_of
from fl_alliance.protocol.documents import PrivacyReport, RoundRecord
from fl_alliance.protocol.plan import EvaluationPlan
from fl_alliance.rounds import coordinator as machine
from fl_alliance.training.model import adapter_digest
from fl_alliance.training.records import Records
from fl_alliance.training.session import TrainingSession
from tests.parties.conftest import SITES, Alliance
from tests.protocol.examples import DOCUMENTS

Build = Callable[..., Alliance]
PRIVATE = EvaluationPlan(heldout="0.3", score_cap="9", noise_multiplier="4", patience=1)
SCORES = {0: 3.0, 1: 2.0, 2: 2.5, 3: 1.0}
"""By rounds trained before. With a patience of 1 the third ends the job: the fourth is never looked at."""


def records_of(alliance: Alliance, name: str) -> list[RoundRecord]:
    paths = sorted((alliance.job(name) / "evidence" / "rounds").glob("*/record.dsse.json"))
    return [peek_document(path.read_bytes(), RoundRecord) for path in paths]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores by script; all else is real."""
    trained: dict[int, int] = {}
    train = TrainingSession.train_round

    def train_round(session: TrainingSession, *given: object) -> object:
        trained[id(session)] = trained.get(id(session), 0) + 1
        return train(session, *given)  # type: ignore[arg-type]

    def evaluate(session: TrainingSession, heldout: Records) -> float:
        return SCORES[trained.get(id(session), 0)]

    monkeypatch.setattr(TrainingSession, "train_round", train_round)
    monkeypatch.setattr(TrainingSession, "evaluate", evaluate)


@pytest.mark.usefixtures("scripted")
def test_a_job_ends_at_its_best_score_keeps_that_adapter_and_verifies(build: Build) -> None:
    alliance = build(rounds=6, evaluation=PRIVATE)
    assert isinstance(alliance.coordinator().run(), machine.Finished)
    for name in SITES:
        records = records_of(alliance, name)
        assert [float(record.score or "nan") for record in records] == pytest.approx([3, 2, 2.5], abs=2e-3)
        assert adapter_digest(alliance.job(name) / "best-adapter") == records[0].adapter_digest
        assert adapter_digest(alliance.job(name) / "adapter") == records[2].adapter_digest
        findings = verify_evidence(alliance.job(name) / "evidence", root=None, say=lambda _: None)
        assert (findings.rounds, findings.charges) == (3, 3)
        report = peek_document((alliance.job(name) / "evidence/report.dsse.json").read_bytes(), PrivacyReport)
        scoring = evaluation_event_of(alliance.plan)
        assert scoring is not None
        both = (event_of(alliance.plan).times(3), scoring.times(3))
        assert Decimal(report.epsilon_pld) == PldAccountant().epsilon(both, Decimal(report.delta))
        assert "epsilon" in (page := (alliance.job(name) / "evidence" / "report.html").read_text())
        assert "About 0.3 of the units are never trained on." in page


def test_real_scores_are_the_noised_losses_of_units_that_are_held_out(build: Build) -> None:
    alliance = build(rounds=1, evaluation=PRIVATE.model_copy(update={"patience": None}))
    assert isinstance(alliance.coordinator().run(), machine.Finished)
    scores = {record.score for name in SITES for record in records_of(alliance, name)}
    assert len(scores) == 1
    assert 0 <= float(scores.pop() or "nan") < 6 * 9 / (0.3 * 10_000) + 0.1  # at most six units a member, and noise


def record(number: int, score: str | None) -> RoundRecord:
    example = DOCUMENTS["round-record"]
    assert isinstance(example, RoundRecord)
    return example.model_copy(update={"round": number, "score": score})


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (("3", "2"), "holds 2 rounds; by the plan and the scores the job did not end there"),
        (("3", "3", "1"), "holds 3 rounds; by the plan and the scores the job did not end there"),
        (("3", None, "4"), "round 2: score is None, against the plan's evaluation"),
    ],
    ids=["cut off", "went on", "left out"],
)
def test_rounds_that_do_not_fit_their_scores_are_refused(
    build: Build, scores: tuple[str | None, ...], said: str
) -> None:
    plan = build(rounds=6, evaluation=PRIVATE).plan
    check_ending(plan, [record(n, score) for n, score in enumerate(("3", "2", "2.5"), start=1)])
    with pytest.raises(NotAuthentic, match=said):
        check_ending(plan, [record(n, score) for n, score in enumerate(scores, start=1)])


def test_a_score_that_no_plan_asked_for_is_refused(build: Build) -> None:
    with pytest.raises(NotAuthentic, match="round 1: score is 2, against the plan's evaluation"):
        check_ending(build(rounds=1).plan, [record(1, "2")])
