"""Engines of the two databases: how a connection is made, and what makes its commits durable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError

from fl_alliance.errors import BadConfig, StoreFailed

_LINE: Final = {
    "application_name": "fl-alliance",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""What the client asks of the line, unless the URL says otherwise: a server that lost its power is soon missed."""
_SESSION: Final = (
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
    "SET lock_timeout = '30s'",
    "SET idle_in_transaction_session_timeout = '60s'",
)
"""What the server is asked of the session: a client without power holds no lock for longer than a minute."""
_PASSING: Final = {"57P01", "57P02", "57P03", "57P05", "53300"}
"""Server errors that pass: shut down by its admin or by a crash, starting up, idle too long, too many connections."""
_FINAL: Final = ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf")
"""What a server says, in English, to a client that need not ask again. In another language it is asked again."""


# ---- SQLite


def sqlite_engine(path: Path) -> Engine:
    """Return an engine over the file, made where it is not there (mode 0600; StoreFailed: it can't be made)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise StoreFailed(f"journal {path.name}: {error.strerror}") from None
    engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": 30})
    event.listen(engine, "connect", _be_durable)
    event.listen(engine, "begin", _begin)
    return engine


def _be_durable(connection: Any, _: object) -> None:
    """Sync the log at each commit, and leave nothing of a deleted row in the file."""
    connection.isolation_level = None  # so that `_begin` says when a transaction begins, also around a table's making
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


# ---- PostgreSQL


def postgresql_url(text: str) -> URL:
    """Return the URL with what is asked of the line (BadConfig: it is no URL of a PostgreSQL database)."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = URL.create("none")
    if url.drivername != "postgresql+psycopg" or not url.database:
        raise BadConfig("database: must be postgresql+psycopg://USER@HOST/DATABASE")  # what it is may hold a password
    return url.update_query_dict({name: said for name, said in _LINE.items() if name not in url.query})


def postgresql_engine(url: URL, prepare: Callable[[psycopg.Connection[Any]], None]) -> Engine:
    """Return an engine with one connection at most, which `prepare` sees outside a transaction before it is used."""
    engine = create_engine(url, pool_size=1, max_overflow=0, hide_parameters=True)

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _: object, arguments: Any, options: dict[str, Any]) -> object:
        connection: psycopg.Connection[Any] = dialect.connect(*arguments, **options)
        try:
            connection.autocommit = True
            _be_a_durable_session(connection)
            prepare(connection)
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        return connection

    return engine


def _be_a_durable_session(connection: psycopg.Connection[Any]) -> None:
    if _shown(connection, "SHOW fsync") == "off":
        raise StoreFailed("database: the server runs with fsync=off, what it commits is not durable; turn it on")
    if _shown(connection, "SHOW synchronous_commit") == "off":
        connection.execute("SET synchronous_commit = on")
    for setting in _SESSION:
        connection.execute(setting)


def _shown(connection: psycopg.Connection[Any], query: str) -> str:
    row = connection.execute(query).fetchone()
    return "" if row is None else str(row[0])


def passes(error: SQLAlchemyError) -> bool:
    """Say whether the server may soon be there again: it restarts, or the line was cut."""
    if not isinstance(error, DBAPIError) or not isinstance(error.orig, psycopg.Error):
        return False
    state = error.orig.sqlstate
    if state is None and isinstance(error, OperationalError):
        return not any(reason in str(error.orig) for reason in _FINAL)
    return error.connection_invalidated or state in _PASSING


def reason_of(error: SQLAlchemyError, url: URL) -> str:
    """Return what may be told of an error: its class, and of a failed connection also the text, without the password.

    The text of any other error may hold a value of a row.
    """
    name, original = type(error).__name__, getattr(error, "orig", None)
    if isinstance(error, OperationalError) and isinstance(original, psycopg.Error) and original.sqlstate is None:
        said = (str(original).strip() or name).splitlines()[0]
        return f"{name}: {said.replace(url.password, '***') if url.password else said}"
    return name
