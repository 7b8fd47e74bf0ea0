"""Both machines under a plan that evaluates: the job ends where the voted scores say, for all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import EvaluationPlan, TrainingPlan
from fl_alliance.rounds import coordinator as c
from fl_alliance.rounds import institution as i
from tests.rounds import play

SCORES = ("3", "2", "2.5", "2.25")
"""With a patience of 1 the third ends the job."""


@dataclass
class ScoringHouse(play.House):
    """An institution that opens these scores, round by round."""

    scores: Sequence[str | None] = field(default=SCORES)

    def work(self, work: i.Work) -> i.Event:
        if isinstance(work, i.OpenSum):
            return i.Done((digest_of(f"adapter {work.round}".encode()), self.scores[work.round - 1]))
        return super().work(work)


def make_plan(patience: int | None = 1, **changes: Any) -> TrainingPlan:
    evaluation = EvaluationPlan(heldout="0.1", score_cap="8", noise_multiplier="2", patience=patience)
    return play.make_plan(rounds=4, evaluation=evaluation, **changes)


class ScoringPlay(play.Play):
    def __init__(self, plan: TrainingPlan, liars: dict[str, Sequence[str | None]] | None = None) -> None:
        self.liars = liars or {}
        super().__init__(plan)

    def house(self, name: str) -> play.House:
        return ScoringHouse(name, self.plan, scores=self.liars.get(name, SCORES))


def rounds_of(game: play.Play) -> int:
    return sum(isinstance(event, c.RecordSigned) for event in game.journal)


def ends(game: play.Play, name: str) -> list[bool]:
    return [effect.last for effect in game.houses[name].did if isinstance(effect, i.Keep)]


def test_a_job_ends_when_its_patience_is_over_everywhere_at_once() -> None:
    game = ScoringPlay(make_plan())
    assert isinstance(game.run(), c.Finished)
    assert rounds_of(game) == 3
    for name, house in game.houses.items():
        assert house.state == i.Over(name, "complete")
        assert ends(game, name) == [False, False, True]


def test_without_patience_it_has_all_its_rounds() -> None:
    game = ScoringPlay(make_plan(patience=None))
    assert isinstance(game.run(), c.Finished)
    assert rounds_of(game) == 4


def test_a_restarted_coordinator_remembers_the_scores() -> None:
    """It crashes after every event: what it counts must be in the journal."""
    game = ScoringPlay(make_plan())
    while game.honest_step():
        game.crash()
    assert isinstance(game.state, c.Finished)
    assert rounds_of(game) == 3


@pytest.mark.parametrize("lie", ["1.5", None])
def test_a_member_that_votes_for_another_score_is_left_out(lie: str | None) -> None:
    """Same adapter, another score: with the right one it would end the job or not as it likes."""
    names = ("ants", "bees", "cats", "dogs")
    members = tuple(play.Member(name=name, declared_units=1000) for name in names)
    game = ScoringPlay(make_plan(members=members, threshold=3, quorum=3), liars={"dogs": ("3", "2", lie, "1")})
    assert isinstance(game.run(), c.Finished)
    assert rounds_of(game) == 3
    assert "voted for another adapter" in game.state.progress.left["dogs"]


def test_without_a_quorum_for_one_score_the_job_aborts() -> None:
    state = ScoringPlay(make_plan(), liars={"cats": ("3", "2", "1.5", "1")}).run()
    assert isinstance(state, c.Aborted)
    assert "2 members agree on an adapter" in state.reason


def test_a_record_with_another_score_than_mine_is_refused() -> None:
    """A coordinator that would end the job early, or never."""

    class Forger(ScoringPlay):
        def _result(self, effect: c.Effect) -> c.Event:
            if isinstance(effect, c.SignRecord):
                effect = c.SignRecord(**{**effect.__dict__, "score": "9"})
            return super()._result(effect)

    game = Forger(make_plan())
    game.run()
    first = game.houses["ants"].state
    assert isinstance(first, i.Over)
    assert "the record differs in score" in first.reason
    assert not any(ends(game, name) for name in game.houses)
