"""The journal in PostgreSQL: restarts, ends that are not heard, one process that serves, and what is never shown."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from structlog.testing import capture_logs

from fl_alliance.errors import BadConfig, StoreFailed, StoreTaken
from fl_alliance.store import database
from fl_alliance.store.journal import SqlJournal
from tests.postgres import PASSWORD, QUOTED, Server

SERVER: Final = """
import sys
from fl_alliance.store.journal import SqlJournal
journal = SqlJournal(sys.argv[1], serves=True)
journal.append("job", "kind", b"1")
print("serves", flush=True)
sys.stdin.readline()
"""
WRITES: Final[dict[str, Callable[[SqlJournal], None]]] = {
    "append": lambda journal: journal.append("job", "kind", b"1"),
    "append_all": lambda journal: journal.append_all("job", [("kind", b"1"), ("kind", b"2")]),
    "advance": lambda journal: journal.advance(
        "job", "kind", b"1", remember={"key": (b"secret",)}, reply=("request", b"1")
    ),
}


@pytest.fixture
def url(postgres: Server) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
def opened(url: str) -> Iterator[Callable[..., SqlJournal]]:
    """Opens journals that are closed at the end."""
    journals: list[SqlJournal] = []

    def opens(where: str = url, **options: Any) -> SqlJournal:
        journals.append(SqlJournal(where, **options))
        return journals[-1]

    yield opens
    for journal in journals:
        journal.close()


def end_other_sessions(admin: psycopg.Connection[Any]) -> None:
    """Cut the line of everybody else who is connected to the database, at the server's end."""
    admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def end_sessions(postgres: Server, url: str) -> None:
    with postgres.connect(url) as admin:
        end_other_sessions(admin)


def kept(journal: SqlJournal) -> list[bytes]:
    reply = journal.reply("request")
    return [body for _, body in journal.events("job")] + ([] if reply is None else [reply])


# ---- the server goes away


@pytest.mark.parametrize(("serves", "mode"), [(False, "fast"), (True, "immediate")])
def test_a_journal_outlives_a_restart_of_the_server(postgres: Server, opened: Any, serves: bool, mode: str) -> None:
    journal = opened(serves=serves)
    journal.append("job", "kind", b"1")
    postgres.restart(mode)
    journal.append("job", "kind", b"2")
    assert kept(journal) == [b"1", b"2"]


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("committed", [True, False], ids=["committed", "not-committed"])
def test_a_write_whose_end_was_not_heard_is_there_once(
    postgres: Server,
    url: str,
    opened: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Any,
    committed: bool,
) -> None:
    journal = opened()
    engine, cuts = journal._database._engine, []
    commit = engine.dialect.do_commit

    def is_cut(connection: Any) -> None:
        if not cuts:
            cuts.append(committed)
            if committed:
                commit(connection)
            end_sessions(postgres, url)
            connection.execute("SELECT 1")  # raises what the client hears of the cut
        commit(connection)

    monkeypatch.setattr(engine.dialect, "do_commit", is_cut)
    write(journal)
    assert cuts == [committed]
    once = SqlJournal(tmp_path / "journal.db")
    write(once)
    assert kept(journal) == kept(once)


def test_a_server_that_stays_away_is_waited_for_so_long_and_then_named(
    postgres: Server, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(patience=0.2)
    postgres.stop()
    try:
        with capture_logs() as logs, pytest.raises(StoreFailed, match="OperationalError") as caught:
            journal.append("job", "kind", b"private")
        monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("the health page waits"))
        with pytest.raises(StoreFailed):
            journal.check()
        monkeypatch.undo()
    finally:
        postgres.start()
    assert [(line["event"], line["seconds"]) for line in logs] == [("database_away", 0.2)]
    for said in (str(caught.value), str(logs)):
        assert "private" not in said
        assert PASSWORD not in said
        assert QUOTED not in said
    journal.check()
    journal.append("job", "kind", b"2")
    assert kept(journal) == [b"2"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [((QUOTED, "wrong-pass"), "authentication failed"), (("/journal_", "/nothing_"), "does not exist")],
)
def test_who_is_not_let_in_does_not_knock_again(
    url: str, opened: Any, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], reason: str
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
    with pytest.raises(StoreFailed, match=reason) as caught:
        opened(url.replace(*change))
    for secret in (PASSWORD, QUOTED, "wrong-pass"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    ["sqlite:///hidden", "postgresql://u:hidden@h/d", "hidden", "postgresql+psycopg://u:hidden@h:x/d",
     "postgresql+psycopg://u:hidden@h"],
)  # fmt: skip
def test_what_is_no_url_of_a_database_is_refused_without_a_word_of_it(wrong: str) -> None:
    with pytest.raises(BadConfig, match=r"^database: must be postgresql\+psycopg://USER@HOST/DATABASE$") as caught:
        SqlJournal(wrong)
    assert caught.value.__cause__ is None


# ---- durable


def test_a_commit_waits_for_the_disk_whatever_the_server_has_as_a_default(
    postgres: Server, url: str, opened: Any
) -> None:
    with postgres.connect(url) as admin:
        admin.execute(f"ALTER DATABASE {admin.info.dbname} SET synchronous_commit = off")
    with opened()._database._engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


def test_a_server_that_never_waits_for_its_disk_is_refused(postgres: Server, url: str) -> None:
    def set_fsync(value: str) -> None:
        with postgres.connect("postgres") as admin:
            admin.execute(f"ALTER SYSTEM SET fsync = {value}")
        postgres.restart()

    set_fsync("off")
    try:
        with pytest.raises(StoreFailed, match="fsync=off"):
            SqlJournal(url)
    finally:
        set_fsync("on")


# ---- one process serves


def test_a_second_process_that_would_serve_is_refused_and_others_may_write(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "TAKING_SECONDS", 0.1)
    first = opened(serves=True)
    with pytest.raises(StoreTaken, match="another process serves this database"):
        opened(serves=True)
    opened().append("*orders", "proposed", b"1")
    first.append("*orders", "proposed", b"2")
    assert opened().events("*orders") == [("proposed", b"1"), ("proposed", b"2")]
    first.close()
    opened(serves=True).append("job", "kind", b"3")


def test_the_lock_goes_with_a_process_that_is_killed(url: str, opened: Any) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "serves\n"
    process.kill()
    process.communicate()
    assert kept(opened(serves=True)) == [b"1"]


def test_who_lost_the_line_does_not_go_on_behind_another_that_served_meanwhile(
    postgres: Server, url: str, opened: Any
) -> None:
    """Its state is a fold of a journal that has grown since: what it would write does not follow."""
    stale = opened(serves=True)
    stale.append("job", "kind", b"1")
    end_sessions(postgres, url)
    other = opened(serves=True)
    other.append("job", "kind", b"2")
    other.close()
    for _ in range(2):
        with pytest.raises(StoreTaken, match="another process has served it meanwhile"):
            stale.append("job", "kind", b"3")
    assert kept(opened()) == [b"1", b"2"]


def test_who_lost_the_line_waits_for_the_lock_that_its_own_old_session_may_hold(
    postgres: Server, url: str, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(serves=True)
    with postgres.connect(url) as holder:
        end_other_sessions(holder)
        holder.execute("SELECT pg_advisory_lock(%s)", [database.SERVING])
        monkeypatch.setattr(time, "sleep", lambda _: holder.execute("SELECT pg_advisory_unlock_all()"))
        journal.append("job", "kind", b"1")
    assert kept(journal) == [b"1"]
