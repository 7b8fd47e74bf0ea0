"""The journal's tables: what the migrations make is what the program uses, and a newer program's are left alone."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from fl_alliance.errors import StoreFailed, StoreTooNew
from fl_alliance.store.journal import METADATA, SqlJournal


def execute(journal: SqlJournal, statement: str) -> None:
    journal._database.run(lambda connection, _: connection.execute(text(statement)))


def test_the_migrations_make_the_tables_that_the_program_uses(where: Path | str) -> None:
    with SqlJournal(where)._database._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_a_newer_programs_tables_are_refused_and_stay_as_they_are(where: Path | str) -> None:
    journal = SqlJournal(where)
    journal.append("job", "kind", b"1")
    execute(journal, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreTooNew, match="of revision 9999, this program knows up to 0"):
        SqlJournal(where)
    assert journal.events("job") == [("kind", b"1")]


def test_tables_that_no_migration_made_are_a_named_error_and_stay_as_they_are(where: Path | str) -> None:
    """All migrations happen or none: also on SQLite, where making a table is a part of the transaction only if told."""
    journal = SqlJournal(where)
    execute(journal, "DROP TABLE alembic_version")
    execute(journal, "DROP TABLE events")
    with pytest.raises(StoreFailed, match=r"journal .*: (OperationalError|ProgrammingError)"):
        SqlJournal(where)
    with pytest.raises(StoreFailed):
        journal.events("job")


def test_an_event_that_is_missing_is_noticed(where: Path | str) -> None:
    """A database that was put back from a copy, or a standby that took over too early, has forgotten what counted."""
    journal = SqlJournal(where)
    journal.append_all("job", [("kind", bytes([number])) for number in range(3)])
    execute(journal, "DELETE FROM events WHERE place = 2")
    with pytest.raises(StoreFailed, match="event 2 of job job is missing"):
        journal.events("job")


def test_all_events_of_one_append_are_added_or_none(where: Path | str) -> None:
    journal = SqlJournal(where)
    with pytest.raises(StoreFailed):
        journal.append_all("job", [("kind", b"1"), (None, b"2")])  # type: ignore[list-item]
    assert journal.events("job") == []


def test_the_migrations_are_in_the_package() -> None:
    versions = importlib.resources.files("fl_alliance.store.migrations") / "versions"
    assert [file.name for file in versions.iterdir() if file.name.startswith("m0001")]
