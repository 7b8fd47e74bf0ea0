"""Decimal numbers, digests and base64: one spelling for each value."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fl_alliance.protocol.ids import Base64, DecimalText, blob_ref, decimal_text, digest_of

DECIMAL: TypeAdapter[str] = TypeAdapter(DecimalText)
BASE64: TypeAdapter[str] = TypeAdapter(Base64)

SPELLED = [
    (0, "0"),
    (-0.0, "0"),
    ("-0.000", "0"),
    (8, "8"),
    ("8.0", "8"),
    ("0.250", "0.25"),
    ("1e3", "1000"),
    (1e-6, "0.000001"),
    (0.1, "0.1"),
    (Decimal("1E+2"), "100"),
    (10**15 - 1, "999999999999999"),
    ("123456789012.1234567890123456789", "123456789012.123456789012345679"),
    ("1e-18", "0.000000000000000001"),
    ("1e-30", "0"),
]


@pytest.mark.parametrize(("value", "text"), SPELLED, ids=str)
def test_spelling(value: Any, text: str) -> None:
    assert decimal_text(value) == text
    assert DECIMAL.validate_python(text) == text


@given(st.integers(0, 10**33 - 1), st.integers(0, 18))
def test_a_decimal_comes_back_to_the_digit(digits: int, places: int) -> None:
    value = Decimal(f"{digits % 10 ** (15 + places)}E-{places}")  # exact: arithmetic would round to 28 digits
    text = DECIMAL.validate_python(decimal_text(value))
    assert Decimal(text) == value
    assert decimal_text(text) == text


@given(st.floats(0, 1e15, exclude_max=True))
def test_a_float_comes_back_to_18_places(value: float) -> None:
    text = DECIMAL.validate_python(decimal_text(value))
    assert abs(Decimal(text) - Decimal(str(value))) <= Decimal("5e-19")


@given(st.decimals() | st.floats() | st.integers() | st.text(max_size=8))
def test_whatever_is_given_is_spelled_well_or_refused(value: Any) -> None:
    try:
        text = decimal_text(value)
    except ValueError:
        return
    assert DECIMAL.validate_python(text) == text


@pytest.mark.parametrize("value", [-1, -1e-9, float("nan"), float("inf"), "-inf", "sNaN", "", "eight", True, None])
def test_what_is_no_plain_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a"):
        decimal_text(value)


@pytest.mark.parametrize("value", [10**15, 1e300, "1e999999999", "999999999999999.9999999999999999999"])
def test_a_number_too_long_to_travel_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"10\^15 or more"):
        decimal_text(value)


@given(st.text(alphabet="0123456789.+-e \n٣", max_size=8))
def test_an_accepted_text_is_the_only_one_for_its_number(text: str) -> None:
    try:
        DECIMAL.validate_python(text)
    except ValidationError:
        return
    assert decimal_text(text) == text


@given(st.binary(max_size=40))
def test_base64_of_any_bytes_is_accepted(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert BASE64.validate_python(text) == text


@given(st.text(alphabet="ABQRgwz019+/=-_\n ", max_size=9))
def test_accepted_base64_is_the_only_text_for_its_bytes(text: str) -> None:
    try:
        BASE64.validate_python(text)
    except ValidationError:
        return
    assert base64.b64encode(base64.b64decode(text, validate=True)).decode() == text


def test_golden_digest() -> None:
    # FIPS 180-2, appendix B.1
    assert digest_of(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert blob_ref(b"abc").length == 3
    assert blob_ref(b"abc").digest == digest_of(b"abc")
