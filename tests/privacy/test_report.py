"""The report's numbers and its guarantee in words. And decimals as they travel."""

from __future__ import annotations

import html
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fl_alliance.errors import BadPlan
from fl_alliance.privacy.ledger import Ledger
from fl_alliance.privacy.report import Gauge, build_report
from fl_alliance.privacy.reporting.content import document_of
from fl_alliance.privacy.reporting.facts import Sources
from fl_alliance.privacy.reporting.page import page_of as printed
from fl_alliance.protocol.ids import DecimalText, decimal_text, digest_of
from tests.evidence.alliance import plan_of, policy_of
from tests.evidence.folder import NOW, Folder

DIGEST = digest_of(b"x")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    folder = Folder(tmp_path / "evidence")
    for number in (1, 2):
        folder.charge(number)
    return folder.ledger.read()


def page_of(ledger: Ledger, unit: str = "patient", **privacy: object) -> str:
    plan = plan_of(privacy={"unit": unit, **privacy})
    report = build_report(ledger, plan, plan_digest=DIGEST, policy_digest=DIGEST, adapter_digest=DIGEST, time=NOW + 9)
    sources = Sources(
        report=report, report_digest=DIGEST, ledger=ledger, policy=policy_of(allowed_units=(unit,)), plan=plan
    )
    return html.unescape(printed(document_of(sources, language="en", pictures=None)).decode())


def test_shared_noise_is_said_with_what_it_leans_on(ledger: Ledger) -> None:
    def statement(**privacy: object) -> str:
        plan = plan_of(privacy=privacy)
        found = build_report(
            ledger, plan, plan_digest=DIGEST, policy_digest=DIGEST, adapter_digest=DIGEST, time=NOW + 9
        )
        return found.statement

    shared = statement(noise="distributed", steps_per_round=1)
    assert "Assumption: the institutions of the job share one noise." in shared
    assert "sums of 3 or more institutions, as long as at most 1 of them leave their part" in shared
    assert "Assumption" not in statement()


def test_the_page_does_not_promise_of_shared_noise_what_only_local_noise_keeps(ledger: Ledger) -> None:
    alone = "also if the encryption were broken: each institution adds its own noise"
    assert alone in page_of(ledger)
    shared = page_of(ledger, noise="distributed", steps_per_round=1)
    assert alone not in shared
    assert "together with at most 1 other members" in shared


def test_a_job_without_a_charge_has_no_report(ledger: Ledger) -> None:
    with pytest.raises(BadPlan, match="holds no charge"):
        build_report(
            ledger, plan_of(job="other"), plan_digest=DIGEST, policy_digest=DIGEST, adapter_digest=DIGEST, time=NOW
        )


@pytest.mark.parametrize(
    ("spent", "cap", "percent", "left"),
    [("0", "8", 0, "8"), ("0.01", "8", 1, "7.99"), ("9", "8", 100, "0"), ("0", "0", 100, "0")],
)
def test_a_gauge_never_shows_less_than_was_spent(spent: str, cap: str, percent: int, left: str) -> None:
    gauge = Gauge("x", Decimal(spent), Decimal(cap))
    assert (gauge.percent, gauge.left) == (percent, Decimal(left))


@given(st.decimals(min_value=0, max_value=10**14, places=18, allow_nan=False, allow_infinity=False))
@example(Decimal("1E+2"))
@example(Decimal("1E-18"))
def test_a_decimal_has_one_spelling_and_keeps_its_value(value: Decimal) -> None:
    text = decimal_text(value)
    assert TypeAdapter(DecimalText).validate_python(text) == text
    assert Decimal(text) == value
    assert decimal_text(text) == text


@given(st.floats(min_value=0, max_value=1e14))
def test_a_float_becomes_a_decimal_within_its_last_place(value: float) -> None:
    assert abs(Decimal(decimal_text(value)) - Decimal(str(value))) <= Decimal("1e-18")


@pytest.mark.parametrize("value", [-1, "nan", "inf", "-0.1", "one", float("nan"), ""])
def test_what_is_no_decimal_is_refused(value: float | str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        decimal_text(value)


@given(st.text(alphabet="0123456789.+-eE ", max_size=12))
def test_no_second_spelling_is_accepted(text: str) -> None:
    try:
        TypeAdapter(DecimalText).validate_python(text)
    except ValueError:
        return
    assert decimal_text(text) == text
