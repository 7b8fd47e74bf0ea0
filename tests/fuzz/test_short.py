"""The short form of `python -m tests.fuzz`, and that it finds what it should."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from fl_alliance.errors import MalformedMessage
from tests.fuzz import run
from tests.fuzz.parsers import Parser, all_parsers
from tests.fuzz.run import fuzz

INPUTS = 1500
FEWER = {"cipher": 250, "mail: request by": 500, "mail: answer by": 500, "document: by": 500, "manifest": 500,
         "log: piece by": 300, "log: checkpoint": 300, "log: receipt": 500,
         "evidence: bundle": 300, "evidence: list": 300, "evidence: job": 100, "evidence: besides": 300,
         "evidence: refusal": 300}  # fmt: skip
NAMES = (
    "request", "answer", "envelope", "mail: request", "mail: answer", "mail: first proposal",
    "mail: request by a liar", "mail: answer by a liar", "statement", "document: peek", "document: by a liar",
    "manifest", "manifest by a liar", "public key", "envelope of the specification", "log: piece",
    "log: piece by a liar", "log: receipt", "log: checkpoint by a liar", "evidence: bundle", "evidence: archive",
    "evidence: list by a liar", "evidence: job", "evidence: job by liars", "evidence: besides, by a liar",
    "evidence: refusal by a liar", "shares: open", "shares: open, by a liar", "shares: recover",
    "shares: recover, by a liar", "alliance key: unwrap", "alliance key: open", "alliance key: content key",
    "round keys", "frame", "cipher: upload", "cipher: inside an upload", "cipher: inside a sum",
    "cipher: alliance key",
)  # fmt: skip


@pytest.fixture(scope="module")
def parsers() -> Iterator[dict[str, Parser]]:
    with all_parsers() as found:
        yield found


def test_every_parser_is_in_the_list_below(parsers: dict[str, Parser]) -> None:
    assert tuple(parsers) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_mutated_bytes_raise_only_named_errors(parsers: dict[str, Parser], name: str) -> None:
    inputs = next((count for start, count in FEWER.items() if name.startswith(start)), INPUTS)
    found = fuzz(parsers[name], inputs, seed=7)
    assert not found.bad
    assert found.inputs == inputs == found.accepted + found.refused.total()
    assert found.refused, "nothing was refused: the mutations are too weak"


def escapes(data: bytes) -> None:
    if data[:1] == b"\x01":
        raise ValueError("escaped")
    raise MalformedMessage("not one") if data != b"seed" else SystemExit(0)


def hangs(data: bytes) -> None:
    if data != b"seed":
        while True:
            time.monotonic()


@pytest.mark.parametrize(("parse", "said"), [(escapes, "ValueError: escaped"), (hangs, "Hang: more than 1 s")])
def test_an_error_that_escapes_and_a_hang_are_found(
    parse: Callable[[bytes], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SECONDS", 1)
    found = run.Found("planted")
    run.one(Parser("planted", [], parse), b"\x01", found)
    (finding,) = found.bad
    assert finding.startswith(said)
    assert finding.endswith("input 01")


def test_a_seed_that_is_refused_is_no_start() -> None:
    with pytest.raises(MalformedMessage):
        fuzz(Parser("planted", [b"\x02"], escapes), 1, seed=1)
