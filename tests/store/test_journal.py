"""The journal on both databases: the contract, and what kill -9, a second process and a bad file do to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from fl_alliance.errors import StoreFailed
from fl_alliance.protocol.ids import digest_of
from fl_alliance.store.engines import sqlite_engine
from fl_alliance.store.journal import Journal, SqlJournal
from tests.store.contracts import JournalContract

WRITER = """
import sys
from pathlib import Path
from fl_alliance.store.journal import SqlJournal
print("ready", flush=True)
sys.stdin.readline()
where = sys.argv[1]
journal = SqlJournal(where if "://" in where else Path(where))
for number in range(int(sys.argv[3])):
    journal.append("job", sys.argv[2], number.to_bytes(4, "big") * 5000)
    reply = (f"{sys.argv[2]}-{number}", number.to_bytes(4, "big"))
    journal.advance("replies", "request", b"", remember={}, reply=reply)
    print(number, flush=True)
"""


def writer(where: Path | str, kind: str, count: int) -> subprocess.Popen[str]:
    """A process that waits for a line, then adds `count` events and says the number of each that was added."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(where), kind, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


class TestSqlJournal(JournalContract):
    @pytest.fixture
    def again(self, where: Path | str) -> Callable[[], Journal]:
        return lambda: SqlJournal(where)


def test_killed_at_any_moment_it_holds_every_event_and_reply_that_was_acknowledged(where: Path | str) -> None:
    for run, lines in enumerate((1, 7, 40)):
        process = writer(where, f"run-{run}", 100_000)
        start(process)
        assert process.stdout is not None
        heard = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        heard += process.stdout.read().splitlines()
        process.communicate()
        last = max(int(line) for line in heard if line.strip().isdigit())
        journal = SqlJournal(where)
        bodies = [body for kind, body in journal.events("job") if kind == f"run-{run}"]
        assert bodies == [number.to_bytes(4, "big") * 5000 for number in range(len(bodies))]
        assert last + 1 <= len(bodies) <= last + 2
        assert journal.reply(f"run-{run}-{last}") == last.to_bytes(4, "big")
        journal.close()


def test_two_processes_that_start_together_lose_no_event(where: Path | str) -> None:
    processes = [writer(where, f"writer-{number}", 25) for number in range(2)]
    for process in processes:
        start(process)
    assert [len(process.communicate()[0].splitlines()) for process in processes] == [25, 25]
    events = SqlJournal(where).events("job")
    for number in range(2):
        mine = [int.from_bytes(body[:4], "big") for kind, body in events if kind == f"writer-{number}"]
        assert mine == list(range(25))


def test_jobs_are_listed_once(where: Path | str) -> None:
    journal = SqlJournal(where)
    for job in ("b", "a", "b"):
        journal.append(job, "kind", b"")
    assert sorted(journal.jobs()) == ["a", "b"]


# ---- replies


def test_a_resend_gets_the_bytes_that_were_sent(where: Path | str) -> None:
    journal = SqlJournal(where)
    request = digest_of(b"request")
    assert journal.reply(request) is None
    journal.advance("job", "request", b"", remember={}, reply=(request, b"answer"))
    assert SqlJournal(where).reply(request) == b"answer"
    assert journal.reply(digest_of(b"another")) is None


def test_an_empty_reply_is_a_reply(where: Path | str) -> None:
    journal = SqlJournal(where)
    journal.advance("job", "request", b"", remember={}, reply=("request", b""))
    assert journal.reply("request") == b""


def test_a_second_reply_to_one_request_is_refused_and_the_first_stays(where: Path | str) -> None:
    journal = SqlJournal(where)
    journal.advance("job", "request", b"", remember={}, reply=("request", b"first"))
    with pytest.raises(StoreFailed, match=": IntegrityError") as caught:
        journal.advance("job", "request", b"", remember={}, reply=("request", b"second"))
    assert "second" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert journal.reply("request") == b"first"


# ---- an SQLite file


def test_a_commit_waits_for_the_disk_on_every_connection(tmp_path: Path) -> None:
    """kill -9 can't show it, a power cut would: SQLite's FULL syncs the log at each commit, NORMAL does not."""
    engine = sqlite_engine(tmp_path / "journal.db")
    with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
            assert connection.execute(text("PRAGMA secure_delete")).scalar() == 1


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    journal = SqlJournal(tmp_path / "journal.db")
    journal.append("job", "kind", b"private")
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert modes == {"journal.db": "0o600", "journal.db-wal": "0o600", "journal.db-shm": "0o600"}


@pytest.mark.parametrize("folder", ["a?b=c", "a#b", "a%20b", "a b", "é", ":memory:"])
def test_it_is_in_the_file_that_was_named(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "journal.db"
    SqlJournal(path).append("job", "kind", b"body")
    assert [file.name for file in tmp_path.iterdir()] == [folder]
    assert SqlJournal(path).events("job") == [("kind", b"body")]


# ---- what can't be used


def test_a_file_that_is_no_journal_is_a_named_error_and_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"patients' letters, not a journal" * 100)
    with pytest.raises(StoreFailed, match=r"journal\.db: DatabaseError"):
        SqlJournal(path)
    assert path.read_bytes() == b"patients' letters, not a journal" * 100


def test_a_folder_that_can_not_be_made_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFailed, match=r"journal\.db: (Not a directory|File exists)"):
        SqlJournal(tmp_path / "file" / "journal.db")
    with pytest.raises(StoreFailed, match="OperationalError"):
        SqlJournal(tmp_path)


USES: dict[str, Callable[[SqlJournal], object]] = {
    "append": lambda journal: journal.append("job", "kind", b"2"),
    "events": lambda journal: journal.events("job"),
    "jobs": lambda journal: journal.jobs(),
    "advance": lambda journal: journal.advance("job", "request", b"", remember={}, reply=("request", b"2")),
    "reply": lambda journal: journal.reply("request"),
}


@pytest.mark.parametrize("name", USES)
def test_a_file_that_breaks_later_is_a_named_error_at_every_use(tmp_path: Path, name: str) -> None:
    path = tmp_path / "journal.db"
    journal = SqlJournal(path)
    journal.append("job", "kind", b"1")
    journal.close()
    path.write_bytes(b"rot" * 4096)
    with pytest.raises(StoreFailed, match=r"journal\.db: DatabaseError"):
        USES[name](journal)


# ---- what an institution remembers of the job under way


def test_memory_events_and_reply_are_written_together_or_not_at_all(where: Path | str) -> None:
    journal = SqlJournal(where)
    old, new = {"key": (b"old", b"and long"), "share": (b"s",)}, {"key": (b"new",), "share": None}
    journal.advance("job", "request", b"1", remember=old, reply=("first", b"answer"))
    with pytest.raises(StoreFailed):
        journal.advance("job", "request", b"2", remember=new, reply=("first", b"twice"))
    again = SqlJournal(where)
    assert again.memory("job") == old
    assert again.events("job") == [("request", b"1")]
    again.advance("job", "done", b"3", remember=new)
    assert SqlJournal(where).memory("job") == {"key": (b"new",)}


def test_a_new_job_is_the_current_one_and_nothing_of_the_last_is_kept(where: Path | str) -> None:
    """Or the journal would grow for ever: a request relays what all members said."""
    journal = SqlJournal(where)
    assert journal.current() is None
    journal.advance("one", "request", b"", remember={"key": (b"secret",)}, reply=("first", b"answer"))
    journal.advance("two", "request", b"", remember={"key": (b"other",)}, begins=True, reply=("second", b"answer"))
    again = SqlJournal(where)
    assert (again.current(), again.memory("one"), again.memory("two")) == ("two", {}, {"key": (b"other",)})
    assert (again.events("one"), again.events("two")) == ([], [("request", b"")])
    assert (again.reply("first"), again.reply("second")) == (None, b"answer")


@pytest.mark.parametrize("how", ["removed", "forgotten", "a new job"])
def test_what_is_no_longer_remembered_is_in_no_file_of_sqlite(tmp_path: Path, how: str) -> None:
    secret = b"share of a seed, sealed" * 500
    journal = SqlJournal(tmp_path / "journal.db")
    journal.advance("job", "done", b"", remember={"shares": (secret, b"rest")})
    assert any(secret[:23] in path.read_bytes() for path in tmp_path.iterdir())
    removed: dict[str, None] = {"shares": None} if how == "removed" else {}
    journal.advance("job", "done", b"", remember=removed, forget=how == "forgotten", begins=how == "a new job")
    assert [path.name for path in tmp_path.iterdir() if secret[:23] in path.read_bytes()] == []
