"""One line of the doctor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "look", "wrong"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and how to mend it."""

    what: str
    state: State
    said: str
    mend: str = ""

    def __str__(self) -> str:
        line = f"{self.state:5}  {self.what}: {self.said}"
        return f"{line}\n       -> {self.mend}" if self.mend and self.state != "ok" else line


Check = Callable[[], Iterator[Finding]]
