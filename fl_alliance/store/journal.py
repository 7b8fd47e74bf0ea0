"""An append-only journal of events, durable before `append` returns.

SQLite through SQLAlchemy: one file, full synchronisation, the number of an entry is its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table, create_engine, event, insert, select
from sqlalchemy.exc import SQLAlchemyError

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
        """Add one event, durably, before returning."""

    def events(self, job: str) -> list[tuple[str, bytes]]:
        """Return (kind, body) of every event of `job`, oldest first."""


class SqliteJournal:
    """Events of jobs and replies already given, in one SQLite file (mode 0600)."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        self._engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _be_durable)
        try:
            _METADATA.create_all(self._engine)
        except SQLAlchemyError as error:
            raise StoreFailed(f"journal {path.name}: {type(error).__name__}") from error

    def append(self, job: str, kind: str, body: bytes) -> None:
        """Add one event, durably, before returning."""
        with self._engine.begin() as connection:
            connection.execute(insert(_EVENTS).values(job=job, kind=kind, body=body))

    def events(self, job: str) -> list[tuple[str, bytes]]:
        """Return (kind, body) of every event of `job`, oldest first."""
        query = select(_EVENTS.c.kind, _EVENTS.c.body).where(_EVENTS.c.job == job).order_by(_EVENTS.c.number)
        with self._engine.connect() as connection:
            return [(row.kind, row.body) for row in connection.execute(query)]

    def jobs(self) -> list[str]:
        """Return the jobs that have events."""
        with self._engine.connect() as connection:
            return [row.job for row in connection.execute(select(_EVENTS.c.job).distinct())]

    def keep_reply(self, request: str, body: bytes) -> None:
        """Keep the reply to the request with this digest: a resend sends these bytes."""
        with self._engine.begin() as connection:
            connection.execute(insert(_REPLIES).values(request=request, body=body))

    def reply(self, request: str) -> bytes | None:
        """Return the reply that was given to the request with this digest."""
        with self._engine.connect() as connection:
            row = connection.execute(select(_REPLIES.c.body).where(_REPLIES.c.request == request)).first()
        return None if row is None else bytes(row.body)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()


def _be_durable(connection: object, _: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
