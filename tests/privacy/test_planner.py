"""The planner: the least noise for a target is enough, and a grain less is not."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_alliance.errors import BadConfig, BadPlan
from fl_alliance.parties.planning import Question, answer, table_of
from fl_alliance.privacy.accountant import PldAccountant, RdpAccountant
from fl_alliance.privacy.events import GaussianEvent
from fl_alliance.privacy.planner import STEP, Suggestion, best, curve, least_noise, suggest
from fl_alliance.protocol.codec import encode
from tests.evidence.alliance import plan_of

D = Decimal
RDP = RdpAccountant()


def epsilon(sigma: Decimal, rate: Decimal, steps: int, delta: Decimal, accountant: object = RDP) -> Decimal:
    event = GaussianEvent(noise_multiplier=sigma, sampling_rate=rate, steps=steps)
    return accountant.epsilon([event], delta)  # type: ignore[attr-defined,no-any-return]


@settings(max_examples=25, deadline=None)
@given(
    st.decimals("0.5", "20", places=1),
    st.sampled_from((D("0.01"), D("0.1"), D("0.5"), D(1))),
    st.integers(1, 200),
    st.sampled_from((D("0.00001"), D("0.000001"))),
)
def test_the_least_noise_is_enough_and_a_grain_less_is_not(
    target: Decimal, rate: Decimal, steps: int, delta: Decimal
) -> None:
    sigma = least_noise(target, delta=delta, sampling_rate=rate, steps=steps, accountant=RDP)
    assert epsilon(sigma, rate, steps, delta) <= target
    if sigma > D("0.3"):
        assert epsilon(sigma - STEP, rate, steps, delta) > target


def test_pld_needs_less_noise_than_rdp_for_the_same_target_and_keeps_it() -> None:
    asked = {"delta": D("0.00001"), "sampling_rate": D("0.5"), "steps": 20}
    tight, loose = least_noise(D(4), **asked), least_noise(D(4), accountant=RDP, **asked)
    assert tight < loose
    assert epsilon(tight, D("0.5"), 20, D("0.00001"), PldAccountant()) <= 4
    assert epsilon(tight - STEP, D("0.5"), 20, D("0.00001"), PldAccountant()) > 4


def test_suggestions_say_what_the_accountants_say_and_the_demos_noise_is_above_its_target() -> None:
    (one,) = suggest(D(8), delta=D("0.000001"), units=3000, rates=[D("0.1")], steps=[12])
    assert one.epsilon_pld == epsilon(one.noise_multiplier, D("0.1"), 12, D("0.000001"), PldAccountant()) <= 8
    assert one.epsilon_rdp == epsilon(one.noise_multiplier, D("0.1"), 12, D("0.000001"))
    assert one.noise_multiplier < D("0.74")
    assert one.batch == 300
    assert one.noise == one.noise_multiplier / 300


def made(sigma: str, rate: str, steps: int) -> Suggestion:
    return Suggestion(
        sampling_rate=D(rate), steps=steps, noise_multiplier=D(sigma), epsilon_pld=D(1), epsilon_rdp=D(1), units=1000
    )


def test_the_first_guess_has_the_least_noise_in_the_mean_of_all_steps() -> None:
    one, other = made("1", "0.1", 10), made("2", "0.5", 20)
    assert best((one, other)) == other
    assert other.noise_of_job < one.noise_of_job


def test_epsilon_falls_along_the_curve() -> None:
    points = curve(made("2", "0.5", 4), delta=D("0.00001"), points=6)
    assert [point[0] for point in points] == sorted(point[0] for point in points)
    for which in (1, 2):
        values = [point[which] for point in points]
        assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": D(0)}, "epsilon 0 must be above 0"),
        ({"units": 0}, "units 0 must be at least 1"),
        ({"units": 20_000}, "delta 0.00001 is above 1 / \\(10 \\* 20000 declared units\\)"),
        ({"rates": [D("1.5")]}, "sampling_rate 1.5 must be above 0 and at most 1"),
        ({"steps": [0]}, "steps 0 must be at least 1"),
        ({"target": D("0.001"), "steps": [100_000], "rates": [D(1)]}, "needs more noise than 500"),
    ],
)
def test_what_cannot_be_met_is_refused_by_name(changes: dict[str, object], said: str) -> None:
    fields: dict[str, object] = {
        "target": D(8),
        "delta": D("0.00001"),
        "units": 1000,
        "rates": [D("0.1")],
        "steps": [4],
    }
    fields |= changes
    target = fields.pop("target")
    with pytest.raises(BadPlan, match=said):
        suggest(target, **fields)  # type: ignore[arg-type]


# ---- the command's part


def test_a_plan_gives_delta_and_its_smallest_cohort(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(encode(plan_of()))
    asked = Question.of(epsilon="4", delta=None, units=None, like=path)
    assert (asked.delta, asked.units) == (D("0.00001"), 1000)
    assert Question.of(epsilon="4", delta="0.000001", units=7, like=path).units == 7


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epsilon": "eight"}, "epsilon: 'eight' is not a number"),
        ({"epsilon": "nan"}, "epsilon: 'nan' is not a number"),
        ({"units": None}, "delta, units: give both"),
    ],
)
def test_a_wrong_option_is_named(changes: dict[str, object], said: str) -> None:
    options: dict[str, object] = {"epsilon": "8", "delta": "0.00001", "units": 1000, "like": None} | changes
    with pytest.raises(BadConfig, match=said):
        Question.of(**options)  # type: ignore[arg-type]


def test_the_picture_is_the_same_for_the_same_question_and_names_target_and_choice(tmp_path: Path) -> None:
    asked = Question(epsilon=D(4), delta=D("0.00001"), units=1000)
    pictures = []
    for name in ("one.svg", "two.svg"):
        found, chosen = answer(asked, rates=["0.5"], steps=[8], plot=tmp_path / name)
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"<?xml")
    assert b"target 4" in pictures[0]
    assert table_of(found, chosen).row_count == 1
