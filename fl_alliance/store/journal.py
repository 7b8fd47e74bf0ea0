"""An append-only journal of events, durable before `append` returns.

SQLite through SQLAlchemy: one file, full synchronisation, the number of an entry is its place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from fl_alliance.errors import StoreFailed

_METADATA = MetaData()
_EVENTS = Table(
    "events",
    _METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("job", String(63), nullable=False, index=True),
    Column("kind", String(40), nullable=False),
    Column("body", LargeBinary, nullable=False),
)
_REPLIES = Table(
    "replies",
    _METADATA,
    Column("request", String(71), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)


class Journal(Protocol):
    """Events of jobs, in order."""

    def append(self, job: str, kind: str, body: bytes) -> None:
        """Add one event, durably, before returning (StoreFailed: it is not added)."""

    def events(self, job: str) -> list[tuple[str, bytes]]:
        """Return (kind, body) of every event of `job`, oldest first (StoreFailed: they can't be read)."""


class SqliteJournal:
    """Events of jobs and replies already given, in one SQLite file (mode 0600).

    Everything raises `StoreFailed` where the file can't be used.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600, exist_ok=True)
        except OSError as error:
            raise StoreFailed(f"journal {path.name}: {error.strerror}") from None
        self._engine = create_engine(URL.create("sqlite", database=str(path)))
        event.listen(self._engine, "connect", _be_durable)
        with self._begin() as connection:
            _create_tables(connection)

    def append(self, job: str, kind: str, body: bytes) -> None:
        """Add one event, durably, before returning."""
        with self._begin() as connection:
            connection.execute(insert(_EVENTS).values(job=job, kind=kind, body=body))

    def events(self, job: str) -> list[tuple[str, bytes]]:
        """Return (kind, body) of every event of `job`, oldest first."""
        query = select(_EVENTS.c.kind, _EVENTS.c.body).where(_EVENTS.c.job == job).order_by(_EVENTS.c.number)
        with self._begin() as connection:
            return [(row.kind, row.body) for row in connection.execute(query)]

    def jobs(self) -> list[str]:
        """Return the jobs that have events."""
        with self._begin() as connection:
            return [row.job for row in connection.execute(select(_EVENTS.c.job).distinct())]

    def keep_reply(self, request: str, body: bytes) -> None:
        """Keep the reply to the request with this digest: a resend sends these bytes (StoreFailed: it has one)."""
        with self._begin() as connection:
            connection.execute(insert(_REPLIES).values(request=request, body=body))

    def reply(self, request: str) -> bytes | None:
        """Return the reply that was given to the request with this digest."""
        with self._begin() as connection:
            row = connection.execute(select(_REPLIES.c.body).where(_REPLIES.c.request == request)).first()
        return None if row is None else bytes(row.body)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _begin(self) -> Iterator[Connection]:
        """A transaction; what the database refuses gets our name, and no value of a row with it."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreFailed(f"journal {self._name}: {type(error).__name__}") from None


def _create_tables(connection: Connection) -> None:
    """Make what is missing, also while another process does the same."""
    for table in _METADATA.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in table.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))


def _be_durable(connection: object, _: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
