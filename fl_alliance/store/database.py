"""One SQL database of a party, an SQLite file or PostgreSQL: opened, migrated, and asked again after a restart.

A server that restarts is waited for, with jitter, for a bounded time. A transaction whose end was not heard may have
been committed: its work is then run `again`, and looks first whether it is done.

PostgreSQL only: a process that serves holds a lock of its session, the one session that it has. So who lost the line
lost the lock too, and writes nothing before it holds it again; and it goes on only if nobody served meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg
import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from fl_alliance.errors import StoreFailed, StoreTaken
from fl_alliance.store.engines import passes, postgresql_engine, postgresql_url, reason_of, sqlite_engine
from fl_alliance.store.migrate import migrate

T = TypeVar("T")
log = structlog.get_logger()

SERVING: Final = 4_201
"""Number of the advisory lock of the process that serves."""
TAKING_SECONDS: Final = 5.0
"""How long an opening waits for that lock: the server needs a moment to see that a killed process is gone."""
_JITTER: Final = random.SystemRandom()


class _ServedMeanwhile(StoreTaken):
    """Another process served while this one had no line: what this one knows is old."""


class Database:
    """Transactions in one database. Everything raises `StoreFailed` where it can't be used."""

    def __init__(self, where: Path | str, *, serves: bool = False, patience: float = 60.0) -> None:
        """Open the SQLite file `where` (a path; made where it is not there, mode 0600) or the PostgreSQL URL `where`.

        `serves`: no other process may serve this database (PostgreSQL; a folder has a lock of its own).
        `patience`: seconds for which a server that is away is waited for.

        Raises:
            BadConfig: it is no URL of a PostgreSQL database.
            StoreTaken: another process serves it.
            StoreTooNew: a newer program has migrated it.
        """
        self._serves, self._patience = serves, patience
        self._epoch: int | None = None
        if isinstance(where, Path):
            self._engine = sqlite_engine(where)
            self.name = where.name
        else:
            self._engine = postgresql_engine(postgresql_url(where), self._take)
            self.name = f"{self._engine.url.host or 'localhost'}/{self._engine.url.database}"
        self._patiently(lambda _: migrate(self._engine, self.name), patience)
        if serves:
            self._epoch = self.run(_next_epoch)

    def run(self, work: Callable[[Connection, bool], T], *, patience: float | None = None) -> T:
        """Run `work` in one transaction; what it did is durable when this returns. `patience`: if not the usual one.

        The second argument of `work` is true where an earlier transaction of it may have been committed, unheard. That
        is unknown, too, where this raises `StoreFailed` since the server stays away; otherwise nothing was done.
        """

        def once(again: bool) -> T:
            with self._engine.begin() as connection:
                return work(connection, again)

        return self._patiently(once, self._patience if patience is None else patience)

    def clear_log(self) -> None:
        """SQLite only: bring what is committed into the file and empty the log, so that neither holds what was deleted.

        Where it can't be done now, as on a full disk, SQLite does it later.
        """
        if self._engine.dialect.name == "sqlite":
            with contextlib.suppress(SQLAlchemyError), self._engine.connect() as connection:
                connection.execution_options(sqlite_begin="").exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file or the line, and give the lock back."""
        self._engine.dispose()

    def _patiently(self, attempt: Callable[[bool], T], patience: float) -> T:
        """Attempt it until it works or can't; what the database refuses gets our name, and no value of a row."""
        start = time.monotonic()
        for number in itertools.count():
            try:
                return attempt(number > 0)
            except SQLAlchemyError as error:
                failed = StoreFailed(f"journal {self.name}: {reason_of(error, self._engine.url)}")
                if not passes(error) or time.monotonic() - start >= patience:
                    raise failed from None
                if number == 0:
                    log.warning("database_away", error=failed, seconds=patience)
            except _ServedMeanwhile:
                raise
            except StoreTaken:
                if time.monotonic() - start >= (TAKING_SECONDS if self._epoch is None else patience):
                    raise
            time.sleep(_JITTER.uniform(0.5, 1.0) * min(2.0, 0.05 * 2.0**number))
        raise AssertionError("unreachable")

    def _take(self, connection: psycopg.Connection[Any]) -> None:
        """Take the lock with a new connection of a process that serves.

        Raises:
            StoreTaken: another process holds it; or held it while this one had no line.
        """
        if not self._serves:
            return
        if connection.execute("SELECT pg_try_advisory_lock(%s)", [SERVING]).fetchone() != (True,):
            raise StoreTaken(f"journal {self.name}: another process serves this database; end that one first")
        if self._epoch is None:
            return
        if connection.execute("SELECT epoch FROM serving").fetchone() != (self._epoch,):
            raise _ServedMeanwhile(
                f"journal {self.name}: another process has served it meanwhile; start this one again"
            )


def alone(connection: Connection, what: str) -> None:
    """Wait until no other transaction is at work on `what`, an unheard one of this process least of all."""
    if connection.dialect.name == "postgresql":  # SQLite lets one transaction write at a time
        number = int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big", signed=True)
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


def _next_epoch(connection: Connection, _: bool) -> int:
    """Begin an epoch: who served before can't go on. One too many does no harm."""
    alone(connection, "serving")
    connection.execute(text("UPDATE serving SET epoch = epoch + 1"))
    return int(connection.execute(text("SELECT epoch FROM serving")).scalar_one())
