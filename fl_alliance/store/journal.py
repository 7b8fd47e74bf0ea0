"""An append-only journal of events, durable before `append` returns, in SQLite or PostgreSQL.

The database gives an event its place in its job. The token that the writer draws for it says whether an append is there
whose end was not heard.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    literal,
    select,
)

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
_CURRENT: Final = Table("current", METADATA, Column("job", String(63), primary_key=True))
"""One row: the job that `advance` wrote last."""
_MEMORY: Final = Table(
    "memory",
    METADATA,
    Column("job", String(63), primary_key=True),
    Column("name", String(40), primary_key=True),
    Column("piece", Integer, primary_key=True, autoincrement=False),
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

    def current(self) -> str | None:
        """Return the job that `advance` wrote last."""
        return self._database.run(lambda connection, _: connection.execute(select(_CURRENT.c.job)).scalar())

    def memory(self, job: str) -> dict[str, tuple[bytes, ...]]:
        """Return what is remembered for `job`, in its pieces, by name."""
        query = select(_MEMORY.c.name, _MEMORY.c.body).where(_MEMORY.c.job == job)
        rows = self._database.run(lambda c, _: c.execute(query.order_by(_MEMORY.c.name, _MEMORY.c.piece)).all())
        names = dict.fromkeys(row.name for row in rows)
        return {name: tuple(bytes(row.body) for row in rows if row.name == name) for name in names}

    def advance(
        self,
        job: str,
        kind: str,
        body: bytes,
        *,
        remember: Mapping[str, Sequence[bytes] | None],
        forget: bool = False,
        begins: bool = False,
        reply: tuple[str, bytes] | None = None,
    ) -> None:
        """Add one event and all that follows from it, durably, before returning; or nothing.

        If `begins`, all that there is goes first: events, memory and replies of the jobs before. Of memory all goes
        also if `forget`; then each name in `remember` gets its new body, in pieces, or is removed for None. `reply` is
        (digest of the request, body): a resend sends these bytes (StoreFailed: it has a reply). What was removed is in
        no file of SQLite any more when this returns.
        """
        token = secrets.token_hex(16)

        def advance(connection: Connection, again: bool) -> None:
            alone(connection, f"job {job}")
            if again and _is_there(connection, [token]):
                return
            if begins:
                connection.execute(delete(_EVENTS))
                connection.execute(delete(_REPLIES))
            _add(connection, job, token, kind, body)
            connection.execute(delete(_CURRENT))
            connection.execute(insert(_CURRENT).values(job=job))
            _remember(connection, job, remember, forget=forget or begins)
            if reply is not None:
                connection.execute(insert(_REPLIES).values(request=reply[0], body=reply[1]))

        self._database.run(advance)
        if begins or forget or None in remember.values():
            self._database.clear_log()

    def reply(self, request: str) -> bytes | None:
        """Return the reply that was given to the request with this digest."""
        query = select(_REPLIES.c.body).where(_REPLIES.c.request == request)
        found = self._database.run(lambda connection, _: connection.execute(query).scalar())
        return None if found is None else bytes(found)

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


def _remember(connection: Connection, job: str, bodies: Mapping[str, Sequence[bytes] | None], *, forget: bool) -> None:
    if forget:
        connection.execute(delete(_MEMORY))
    for name, pieces in bodies.items():
        connection.execute(delete(_MEMORY).where(_MEMORY.c.job == job, _MEMORY.c.name == name))
        for number, piece in enumerate(pieces or ()):
            connection.execute(insert(_MEMORY).values(job=job, name=name, piece=number, body=piece))
