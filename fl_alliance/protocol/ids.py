"""Names, digests and decimal numbers, as they travel.

No float ever travels: privacy parameters are decimal strings, so that both ends hold the same number to the digit.
"""

from __future__ import annotations

import base64
import hashlib
import re
from decimal import Context, Decimal, InvalidOperation
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from fl_alliance.protocol.limits import MAX_BLOB_BYTES, MAX_NAME, MAX_ROUNDS

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", min_length=1, max_length=MAX_NAME)]
"""A member, job, alliance or data set: lower-case letters, digits and inner hyphens, as in a DNS label."""

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""SHA-256 of some exact bytes."""


def _has_no_stray_bits(text: str) -> str:
    """The last characters can have bits that no decoder reads: four spellings of one 32-byte key."""
    if base64.b64encode(base64.b64decode(text[-4:])).decode() != text[-4:]:
        raise ValueError("base64 ends in bits that stand for nothing")
    return text


Base64 = Annotated[
    str,
    StringConstraints(pattern=r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"),
    AfterValidator(_has_no_stray_bits),
]
"""Standard base64 with padding: one spelling for each bytes."""

RoundNumber = Annotated[int, Field(ge=1, le=MAX_ROUNDS)]
UnixTime = Annotated[int, Field(ge=0, le=2**40)]
"""Whole seconds since 1970-01-01 UTC."""

_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,14})(\.[0-9]{1,18})?")
_END = Decimal(10) ** 15
_SMALLEST = Decimal(10) ** -18
_EXACT = Context(prec=40)


def _is_decimal(text: str) -> str:
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text!r} is not a plain decimal such as 0.25")
    if "." in text and text.endswith("0"):
        raise ValueError(f"{text!r} has trailing zeros: write the shortest form")
    return text


DecimalText = Annotated[str, AfterValidator(_is_decimal)]
"""A non-negative decimal number in its shortest plain form, such as `0.25` or `8`: one spelling for each number."""


def decimal_text(value: Decimal | float | int | str) -> str:
    """Return the one spelling of `value` that `DecimalText` accepts, rounded to 18 decimal places.

    Raises:
        ValueError: `value` is negative, not finite, not a number, or 10^15 or more.
    """
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError(f"{value!r} is not a number") from error
    if not number.is_finite() or number < 0:
        raise ValueError(f"{value!r} is not a finite non-negative number")
    if number >= _END or (rounded := number.copy_abs().quantize(_SMALLEST, context=_EXACT)) >= _END:
        raise ValueError(f"{value!r} is 10^15 or more")
    return f"{rounded:f}".rstrip("0").rstrip(".")


class BlobRef(BaseModel):
    """A big thing beside the messages, named by what it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    digest: Digest
    length: Annotated[int, Field(ge=0, le=MAX_BLOB_BYTES)]
    """Bytes."""


def digest_of(data: bytes) -> str:
    """Return the `Digest` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob_ref(data: bytes) -> BlobRef:
    """Return the name of `data` as a blob."""
    return BlobRef(digest=digest_of(data), length=len(data))
