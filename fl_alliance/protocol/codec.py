"""Canonical bytes (RFC 8785) of wire models, both ways.

`decode` accepts exactly the bytes that `encode` makes: whatever would not encode back to the same bytes is refused,
so that a digest of the bytes is a digest of the meaning.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, TypeVar

import rfc8785
from pydantic import BaseModel, TypeAdapter, ValidationError

from fl_alliance.errors import MalformedMessage
from fl_alliance.protocol.limits import MAX_MESSAGE_BYTES

M = TypeVar("M", bound=BaseModel)


def encode(message: BaseModel) -> bytes:
    """Return the RFC 8785 bytes of `message`."""
    return rfc8785.dumps(message.model_dump(mode="json", by_alias=True))


def decode(kind: type[M] | TypeAdapter[M], data: bytes, *, limit: int = MAX_MESSAGE_BYTES) -> M:
    """Return the `kind` that `data` encodes.

    Raises:
        MalformedMessage: too long, not JSON, not valid, or not in canonical form. Nothing else escapes.
    """
    if len(data) > limit:
        raise MalformedMessage(f"{len(data)} bytes, at most {limit} are accepted")
    adapter: TypeAdapter[M] = kind if isinstance(kind, TypeAdapter) else _adapter(kind)
    try:
        _json(data)
        message = adapter.validate_json(data)
        canonical = encode(message)
    except (ValueError, RecursionError, rfc8785.CanonicalizationError) as error:
        raise MalformedMessage(_reason(error)) from None
    if canonical != data:
        raise MalformedMessage("not in canonical form (RFC 8785)")
    return message


@lru_cache(maxsize=256)
def _adapter(kind: type[M]) -> TypeAdapter[M]:
    """Making one takes longer than to decode a small message with it."""
    return TypeAdapter(kind)


def plain_json(data: bytes, *, limit: int = MAX_MESSAGE_BYTES) -> Any:
    """Return the JSON value in `data`, a document of another's format (MalformedMessage: it is none, or has twins)."""
    if len(data) > limit:
        raise MalformedMessage(f"{len(data)} bytes, at most {limit} are accepted")
    try:
        return _json(data)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(_reason(error)) from None


def _json(data: bytes) -> Any:
    return json.loads(data, object_pairs_hook=_refuse_twins, parse_constant=_refuse_constant)


def _reason(error: Exception) -> str:
    """Name the fields that are wrong without quoting foreign values at length."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{_path(e['loc'])}: {e['msg'][:200]}" for e in error.errors()[:5])
    return f"not JSON as expected: {type(error).__name__}"


def _path(loc: tuple[int | str, ...]) -> str:
    """A field that we don't know is in `loc` with the name that a stranger gave it."""
    return ".".join(map(str, loc))[:200] or "message"


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
