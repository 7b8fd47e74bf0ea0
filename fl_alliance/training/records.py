"""The private data file: rows in, records grouped by unit out.

Every refusal names the file, the field and the row number; none shows a value, since values are private.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from fl_alliance.errors import BadRecords

ROLES = ("system", "user", "assistant")
CONTROL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
"""Strings that the chat format gives a meaning to: a record that holds one could pass for another speaker."""

Row = tuple[int, Mapping[str, Any]]


@dataclass(frozen=True)
class RecordSource:
    """Where the records are and what their columns are called: `messages_column`, or prompt and answer."""

    path: Path
    unit_column: str
    prompt_column: str | None = None
    answer_column: str | None = None
    messages_column: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read. Nothing else of the file is looked at."""
        named = (self.messages_column,) if self.messages_column else (self.prompt_column, self.answer_column)
        return (self.unit_column, *(name for name in named if name is not None))


@dataclass(frozen=True)
class Turn:
    """One message of a chat."""

    role: str
    content: str = field(repr=False)


Dialogue = tuple[Turn, ...]
"""One record: it has at least one turn of the assistant."""


@dataclass(frozen=True)
class Records:
    """All records of an institution, grouped by unit of privacy. Its repr shows neither values nor counts."""

    units: Mapping[str, tuple[Dialogue, ...]] = field(repr=False)
    """The unit's name, as `load_records` compares it, to its records; never empty."""


def load_records(source: RecordSource) -> Records:
    """Read `source` (JSONL, CSV or Parquet, by its suffix).

    Unit names are compared without case, outer blanks and Unicode's compatibility forms (NFKC): to merge two units is
    the safe error, to split one gives a patient twice the weight that was promised.

    Raises:
        BadRecords: the file, a column, a row's unit or a row's text is not usable; names the field and the row.
    """
    require_columns_named(source)
    units: dict[str, list[Dialogue]] = {}
    for number, row in _rows(source.path, source.columns):
        units.setdefault(_unit(source, number, row), []).append(_dialogue(source, number, row))
    if not units:
        raise BadRecords(f"{source.path.name} holds no record")
    return Records(units={name: tuple(dialogues) for name, dialogues in units.items()})


def split_units(records: Records, share: float, key: bytes) -> tuple[Records, Records]:
    """Return the records of the units to train on, and those of the units that are held out.

    A unit is held out with probability `share`, by a keyed hash of its name (HMAC-SHA256): the same units in every job
    of one key, and a larger share holds out more units and none less. Whether a unit is there changes no other's place.
    """

    def is_held_out(name: str) -> bool:
        drawn = hmac.digest(key, name.encode(), "sha256")
        return int.from_bytes(drawn[:8], "big") < share * 2.0**64

    held = {name for name in records.units if is_held_out(name)}
    return (
        Records(units={name: rows for name, rows in records.units.items() if name not in held}),
        Records(units={name: rows for name, rows in records.units.items() if name in held}),
    )


def dataset_digest(path: Path) -> str:
    """Return the SHA-256 of the file's exact bytes as a `Digest`, reading a piece at a time.

    Raises:
        BadRecords: the file can't be read.
    """
    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadRecords(f"{path.name} can't be read: {error.strerror}") from error


def require_columns_named(source: RecordSource) -> None:
    """Return if the columns are enough to read records (BadRecords: they are not). The file is not opened."""
    if source.messages_column is None and (source.prompt_column is None or source.answer_column is None):
        raise BadRecords("name either messages_column, or both prompt_column and answer_column")


def _rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield each row with its number, from 1: the line for JSONL, the row below the header for CSV and Parquet."""
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise BadRecords(f"{path.name}: suffix {path.suffix!r} is none of {', '.join(readers)}")
    if not path.is_file():
        raise BadRecords(f"{path.name} is not a file")
    try:
        yield from readers[path.suffix.lower()](path, columns)
    except UnicodeDecodeError:
        raise BadRecords(f"{path.name} is not UTF-8 text") from None
    except OSError as error:
        raise BadRecords(f"{path.name} can't be read: {error.strerror or 'it is damaged'}") from None


def _jsonl(path: Path, _: Sequence[str]) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=_object)
            except (ValueError, RecursionError):
                raise BadRecords(f"{path.name} row {number} is not JSON, or names a field twice") from None
            if not isinstance(row, dict):
                raise BadRecords(f"{path.name} row {number} is not a JSON object")
            yield number, row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is named twice: whose record it is would depend on the reader")
    return found


def _csv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        # strict: else a quote that is never closed makes the records of other units part of one unit's text
        reader = csv.DictReader(file, strict=True)
        number = 0
        try:
            _require_once(path, reader.fieldnames or (), columns)
            for number, row in enumerate(reader, start=1):
                if None in row or None in row.values():  # a comma too many moves text into the unit's column
                    raise BadRecords(f"{path.name} row {number} has another number of fields than the header")
                yield number, row
        except csv.Error:
            raise BadRecords(f"{path.name} row {number + 1} is not CSV, or a field is above 128 KiB") from None


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _require_once(path, file.schema_arrow.names, columns)
            for batch in file.iter_batches(columns=list(columns)):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, ValueError, OverflowError):  # the last two: a date that Python can't hold
        raise BadRecords(f"{path.name} is not a Parquet file of text columns, at row {number + 1}") from None


def _require_once(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    for column in columns:
        if list(header).count(column) > 1:
            raise BadRecords(f"{path.name} has more than one column {column!r}")


def _cell(source: RecordSource, number: int, row: Mapping[str, Any], column: str) -> Any:
    if column not in row:  # the names that are there stay unsaid: a CSV without a header has a record in their place
        raise BadRecords(
            f"{source.path.name} row {number} has no column {column!r} (is it spelt so, and has the file a header?)"
        )
    return row[column]


def _unit(source: RecordSource, number: int, row: Mapping[str, Any]) -> str:
    value = _cell(source, number, row, source.unit_column)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    where = f"{source.path.name} row {number}: unit column {source.unit_column!r}"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise BadRecords(f"{where} is null: a record of nobody can't be protected")
    if not isinstance(value, str):
        raise BadRecords(f"{where} is neither text nor a whole number")
    if not (name := unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold()).strip()):
        raise BadRecords(f"{where} is empty: a record of nobody can't be protected")
    return name


def _dialogue(source: RecordSource, number: int, row: Mapping[str, Any]) -> Dialogue:
    where = f"{source.path.name} row {number}: "
    if source.messages_column is not None:
        column = source.messages_column
        return _chat(where + f"column {column!r}", _cell(source, number, row, column))
    turns = []
    for role, named in (("user", source.prompt_column), ("assistant", source.answer_column)):
        text = _cell(source, number, row, str(named))
        turns.append(Turn(role, _text(where + f"column {named!r}", text)))
    return tuple(turns)


def _chat(where: str, value: Any) -> Dialogue:
    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=_object)
        except (ValueError, RecursionError):
            raise BadRecords(f"{where} is not JSON") from None
    if not isinstance(value, list) or not value:
        raise BadRecords(f"{where} is not a list of messages")
    turns = tuple(_turn(f"{where} message {place}", message) for place, message in enumerate(value, start=1))
    if not any(turn.role == "assistant" for turn in turns):
        raise BadRecords(f"{where} has no assistant message: nothing to learn")
    return turns


def _turn(where: str, message: Any) -> Turn:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise BadRecords(f"{where} needs a role, one of {', '.join(ROLES)}, and a content")
    return Turn(message["role"], _text(where + " content", message.get("content")))


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRecords(f"{where} is missing or empty text")
    if any(mark in value for mark in CONTROL):
        raise BadRecords(f"{where} holds a control string of the chat format ({', '.join(CONTROL)})")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRecords(f"{where} holds half of a character (a lone surrogate), which no tokenizer reads") from None
    return value


def records_of(units: Mapping[str, Iterable[Dialogue]]) -> Records:
    """Return records that are in memory already (public data of a demo, tests)."""
    return Records(units={name: tuple(dialogues) for name, dialogues in units.items()})
