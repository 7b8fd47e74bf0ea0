"""The loop: mutate, parse, count. Anything but a named error of the alliance is a finding."""

from __future__ import annotations

import contextlib
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from types import FrameType

from fl_alliance.errors import AllianceError
from tests.fuzz.mutate import mutated
from tests.fuzz.parsers import Parser

SECONDS = 30
"""A parser that takes longer for one input hangs. Longer than a worker's own limit."""


class Hang(BaseException):
    """No parser may catch it."""


@dataclass
class Found:
    """What became of the inputs of one parser."""

    parser: str
    inputs: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    """For each finding: the error and the input."""
    seconds: float = 0.0

    @property
    def line(self) -> str:
        """One line of the table."""
        names = ", ".join(f"{name} {count}" for name, count in self.refused.most_common())
        speed = self.inputs / max(self.seconds, 1e-9)
        return f"{self.parser:<32}{self.inputs:>9}{self.accepted:>9}{len(self.bad):>5}{speed:>9.0f}  {names}"


HEADING = f"{'parser':<32}{'inputs':>9}{'accepted':>9}{'bad':>5}{'per s':>9}  refused"


def fuzz(parser: Parser, inputs: int, seed: int) -> Found:
    """Give `inputs` mutations to `parser`; the same seed gives the same ones."""
    rng, found = Random(f"{parser.name} {seed}"), Found(parser.name)
    for data in parser.seeds:
        parser.parse(data)  # a seed that is refused would make all that follows weak
    started = time.monotonic()
    while found.inputs < inputs and len(found.bad) < 10:
        data = mutated(rng, parser.seeds)
        found.inputs += 1
        one(parser, data, found)
    found.seconds = time.monotonic() - started
    return found


def one(parser: Parser, data: bytes, found: Found) -> None:
    """Parse one input and count what comes of it."""
    try:
        parse(parser, data)
        found.accepted += 1
    except AllianceError as error:
        died = " (its worker died)" if "worker was ended" in str(error) or "worker ended" in str(error) else ""
        found.refused[type(error).__name__ + died] += 1
        if "worker did not" in str(error):
            found.bad.append(f"a worker hung: {error}; input {data.hex()}")
    except (Exception, Hang) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        found.bad.append(f"{type(error).__name__}: {error} at {where.filename}:{where.lineno}; input {data.hex()}")


def parse(parser: Parser, data: bytes) -> None:
    """Parse `data`. What hangs once is tried again: the machine may have stood still, as under a stopped process."""
    with contextlib.suppress(Hang), alarm():
        parser.parse(data)
        return
    with alarm():
        parser.parse(data)


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    def ring(number: int, at: FrameType | None) -> None:
        raise Hang(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
