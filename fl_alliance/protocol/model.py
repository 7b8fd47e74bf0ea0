"""The base of everything that travels: frozen, strict, unknown fields refused."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """A value that travels. Strict: no coercion, no unknown field, no change after it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
