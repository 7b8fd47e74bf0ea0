"""An append-only journal of events, durable before `append` returns, in SQLite or PostgreSQL.

The database gives an event its place in its job. The token that the writer draws for it says whether an append is there
whose end was not heard.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import Column, Connection, Integer, LargeBinary, MetaData, String, Table, func, insert, literal, select

from fl_alliance.errors import StoreFailed
from fl_alliance.store.database import Database, alone

METADATA: Final = MetaData()
"""What the migrations make."""
_EVENTS: Final = Table(
    "events",
    METADATA,
    Column("job", String(63), primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("token", String(32), nullable=False, unique=True),
    Column("kind", String(40), nullable=False),
    Column("body", LargeBinary, nullable=False),
)
_REPLIES: Final = Table(
    "replies",
    METADATA,
    Column("request", String(71), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
_SERVING: Final = Table("serving", METADATA, Column("epoch", Integer, nullable=False))
"""One row: how often a process began to serve; `store.database` reads it."""


class Journal(Protocol):
    """Events of jobs, in order."""

    def append(self, job: str, kind: str, body: bytes) -> None:
        """Add one event, durably, before returning.

        Raises:
            StoreFailed: it is not added; or, where the database went away and stayed away, it may be. Who goes on
                reads `events` again.
        """

    def events(self, job: str) -> list[tuple[str, bytes]]:
        """Return (kind, body) of every event of `job`, oldest first (StoreFailed: they can't be read)."""

    def check(self) -> None:
        """Return if the database answers, and don't wait for one that is away (StoreFailed: it does not)."""


class SqlJournal:
    """Events of jobs and replies already given, in one database; one database for each party.

    Everything raises `StoreFailed` where the database can't be used.
    """

    def __init__(self, where: Path | str, *, serves: bool = False, patience: float = 60.0) -> None:
        """Open the SQLite file or the PostgreSQL URL `where`; see `store.database.Database`."""
        self._database = Database(where, serves=serves, patience=patience)

    def append(self, job: str, kind: str, body: bytes) -> None:
        """Add one event, durably, before returning."""
        self.append_all(job, [(kind, body)])

    def append_all(self, job: str, events: Sequence[tuple[str, bytes]]) -> None:
        """Add events, all or none, durably, before returning."""
        tokens = [secrets.token_hex(16) for _ in events]

        def add(connection: Connection, again: bool) -> None:
            alone(connection, f"job {job}")
            if again and _is_there(connection, tokens):
                return
            for token, (kind, body) in zip(tokens, events, strict=True):
                _add(connection, job, token, kind, body)

        self._database.run(add)

    def events(self, job: str) -> list[tuple[str, bytes]]:
        """Return (kind, body) of every event of `job`, oldest first (StoreFailed: one is missing)."""
        query = select(_EVENTS.c.place, _EVENTS.c.kind, _EVENTS.c.body).where(_EVENTS.c.job == job)
        rows = self._database.run(lambda c, _: c.execute(query.order_by(_EVENTS.c.place)).all())
        for expected, row in enumerate(rows, start=1):
            if row.place != expected:
                raise StoreFailed(f"journal {self._database.name}: event {expected} of job {job} is missing")
        return [(row.kind, row.body) for row in rows]

    def jobs(self) -> list[str]:
        """Return the jobs that have events."""
        query = select(_EVENTS.c.job).distinct()
        return self._database.run(lambda connection, _: list(connection.execute(query).scalars()))

    def keep_reply(self, request: str, body: bytes) -> None:
        """Keep the reply to the request with this digest: a resend sends these bytes (StoreFailed: it has one)."""

        def keep(connection: Connection, again: bool) -> None:
            alone(connection, f"reply {request}")
            if again and _reply(connection, request) == body:
                return
            connection.execute(insert(_REPLIES).values(request=request, body=body))

        self._database.run(keep)

    def reply(self, request: str) -> bytes | None:
        """Return the reply that was given to the request with this digest."""
        return self._database.run(lambda connection, _: _reply(connection, request))

    def check(self) -> None:
        """Return if the database answers, and don't wait for one that is away."""
        self._database.run(lambda connection, _: connection.execute(select(_SERVING)).all(), patience=0.0)

    def close(self) -> None:
        """Close the file or the line to the server."""
        self._database.close()


def _is_there(connection: Connection, tokens: Sequence[str]) -> bool:
    """Say whether the events with these tokens were added; they are together or not at all."""
    query = select(func.count()).select_from(_EVENTS).where(_EVENTS.c.token.in_(tokens))
    return connection.execute(query).scalar_one() == len(tokens)


def _add(connection: Connection, job: str, token: str, kind: str, body: bytes) -> None:
    """Add an event at the next place; one statement, so that SQLite reads the place under its lock for writers."""
    place = select(
        literal(job), func.coalesce(func.max(_EVENTS.c.place), 0) + 1, literal(token), literal(kind), literal(body)
    ).where(_EVENTS.c.job == job)
    connection.execute(insert(_EVENTS).from_select(["job", "place", "token", "kind", "body"], place))


def _reply(connection: Connection, request: str) -> bytes | None:
    body = connection.execute(select(_REPLIES.c.body).where(_REPLIES.c.request == request)).scalar()
    return None if body is None else bytes(body)
