"""The utility bench: units dealt so that nothing leaks into the held-out part, and scores that mean what they say."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from bench import utility_heart
from bench.utility import best_alone, mean_row, medquad_lines
from bench.utility_data import QUESTIONS, WORDS, Hospital, Shares, Units, ask, read_medquad, split


def _units(*names: str) -> Units:
    return {name: [ask(f"What is {name}?", "a disease")] for name in names}


def test_no_disease_is_in_two_parts_of_any_institutions() -> None:
    shared = [f"shared {k}" for k in range(40)]
    sites = {
        "large": _units(*shared, *(f"large {k}" for k in range(60))),
        "small": _units(*shared[:8]),
        "middle": _units(*shared[:30]),
    }
    dealt = split(sites, Shares(most_heldout=10, most_validation=5, most_train=50))
    held = {unit for site in dealt for unit in site.heldout.units}
    checked = {unit for site in dealt for unit in site.validation.units}
    trained = {unit for site in dealt for unit in site.train.units}
    assert [site.name for site in dealt] == ["large", "middle", "small"]
    assert all(site.heldout.units and site.validation.units and site.train.units for site in dealt)
    assert not held & checked
    assert not trained & (held | checked)
    assert max(len(site.train.units) for site in dealt) <= 50


def test_the_same_file_is_read_alike_whatever_the_order_of_its_lines(tmp_path: Path) -> None:
    rows = [
        {"source": "GARD", "focus": focus, "q": "What is it?", "a": " ".join(f"{k} word {n}" for n in range(40))}
        for k in range(7)
        for focus in ("Measles", "measles ")
    ]
    seen = []
    for order in (rows, rows[::-1]):
        file = tmp_path / "rows.jsonl.gz"
        file.write_bytes(gzip.compress("\n".join(map(json.dumps, order)).encode()))
        seen.append(read_medquad(file))
    (records,) = seen[0]["gard"].values()
    assert seen[0] == seen[1]
    first = [" ".join(row["a"].split()[:WORDS]) for row in rows[::2]][:QUESTIONS]
    assert [turns[1].content for turns in records] == first, "equal questions are kept in the order of their answers"


def test_an_order_of_patients_that_is_right_scores_one_and_a_reversed_one_nothing() -> None:
    sick = np.array([True, False, True, False])
    assert utility_heart.scores_of(np.array([2.0, -1.0, 1.0, -2.0]), sick) == {"mean": 1.0, "auc": 1.0}
    assert utility_heart.scores_of(np.array([-2.0, 1.0, -1.0, 2.0]), sick) == {"mean": 0.0, "auc": 0.0}
    assert utility_heart.scores_of(np.zeros(4), sick) == {"mean": 0.5, "auc": 0.5}


def test_the_regression_finds_a_line_that_is_there_and_is_not_told_of_held_out_patients() -> None:
    rows = np.random.default_rng(1).normal(size=(400, 3))
    rows[:, 2] = np.nan
    sick = rows[:, 0] - rows[:, 1] > 0
    names = tuple(f"patient {k}" for k in range(400))
    (one,) = utility_heart.cut([Hospital("north", names, names, rows, sick)], seed=1)
    spoilt = Hospital("north", names, names, rows, np.where(one.held, ~sick, sick))
    wrong = utility_heart.regression_scores([utility_heart.Cut(spoilt, one.held)], [one])
    assert one.held.sum() == 120
    assert len(one.train.units) == 280
    assert utility_heart.regression_scores([one], [one])["auc"] > 0.99
    assert wrong == utility_heart.regression_scores([one], [one])


def test_the_claim_is_about_the_best_institution_alone_at_the_same_epsilon() -> None:
    rows = [
        mean_row([{"mean": 4.0}, {"mean": 4.2}], epsilon="8", trained="alliance"),
        mean_row([{"mean": 4.3}], epsilon="8", trained="gard, alone"),
        mean_row([{"mean": 4.05}], epsilon="8", trained="ghr, alone"),
        mean_row([{"mean": 3.0}], epsilon="2", trained="ghr, alone"),
        mean_row([{"mean": 5.0}], trained="base"),
    ]
    (line,) = medquad_lines(rows, ["8"])
    assert rows[0]["spread"] == pytest.approx(0.2)
    assert best_alone(rows, "8", "mean", min) == 4.05
    assert line.value == pytest.approx(4.1)
    assert (line.limit, line.holds) == (4.05, False)
