"""Golden bytes, both ways, of everything that travels. Here a change of the wire format shows."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter

from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import Document, Statement, statement_for
from fl_alliance.protocol.envelope import Envelope
from fl_alliance.protocol.log import LogEntry, LogPiece, LogReceipt
from tests.protocol.examples import DOCUMENTS, GOLDEN, MESSAGES, golden, objects

OBJECTS = objects()


def reader(item: BaseModel) -> Any:
    """What a receiver decodes such bytes with."""
    if isinstance(item, Statement | Envelope | LogEntry | LogPiece | LogReceipt):
        return type(item)
    return m.REQUEST if isinstance(item, get_args(m.Request)) else m.ANSWER


@pytest.mark.parametrize(("folder", "name"), OBJECTS, ids="/".join)
def test_golden_bytes_both_ways(folder: str, name: str) -> None:
    item, data = OBJECTS[folder, name], golden(folder, name)
    assert encode(item) == data
    assert decode(reader(item), data) == item


@pytest.mark.parametrize(("folder", "name"), OBJECTS, ids="/".join)
def test_golden_bytes_are_as_another_canonical_writer_makes_them(folder: str, name: str) -> None:
    """No float and no key outside ASCII ever travels: then RFC 8785 is sorted keys, no spaces, and plain UTF-8."""
    data = golden(folder, name)
    other = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert other.encode() == data


def test_every_kind_has_golden_bytes() -> None:
    travelling = {
        *get_args(m.Request),
        *get_args(m.Answer),
        *get_args(Document),
        Envelope,
        LogEntry,
        LogPiece,
        LogReceipt,
    }
    covered = {type(item) for item in (*MESSAGES.values(), *DOCUMENTS.values(), *OBJECTS.values())} - {Statement}
    assert covered == travelling


def test_every_golden_file_has_its_object() -> None:
    """A kind is never removed: the file of one that is would stay here without an object."""
    files = {(path.parent.name, path.name.removesuffix(".json")) for path in GOLDEN.rglob("*") if path.is_file()}
    assert files == set(OBJECTS)


def test_every_kind_says_its_own_name() -> None:
    for name, item in (MESSAGES | DOCUMENTS).items():
        assert item.kind == name.partition(".")[0]
    kinds = [kind.model_fields["kind"].default for union in (m.Request, m.Answer, Document) for kind in get_args(union)]
    assert len(set(kinds)) == len(kinds)


def test_a_request_is_no_answer_and_an_answer_is_no_request() -> None:
    for name, item in MESSAGES.items():
        wrong: TypeAdapter[Any] = m.ANSWER if isinstance(item, get_args(m.Request)) else m.REQUEST
        with pytest.raises(ValueError, match="does not match any of the expected tags"):
            wrong.validate_json(golden("messages", name))


@pytest.mark.parametrize("item", [*MESSAGES.values(), *DOCUMENTS.values()], ids=[*MESSAGES, *DOCUMENTS])
def test_what_travels_never_changes_after_it_was_made(item: BaseModel) -> None:
    with pytest.raises(ValueError, match="frozen"):
        item.version = 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_the_predicate_of_its_statement(name: str) -> None:
    assert decode(Statement, golden("documents", name)).predicate == DOCUMENTS[name]
    assert encode(DOCUMENTS[name]) in encode(statement_for(DOCUMENTS[name]))
