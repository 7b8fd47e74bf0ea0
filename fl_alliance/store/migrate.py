"""Bring a database to this program's tables, whoever else is doing the same: Alembic's migrations, under a lock."""

from __future__ import annotations

import threading
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from fl_alliance.errors import StoreTooNew

MIGRATING: Final = 4_202
"""Number of the advisory lock of a process that migrates."""
_ONE_AT_A_TIME: Final = threading.Lock()
"""Alembic keeps what is being migrated in a global."""


def migrate(engine: Engine, name: str) -> None:
    """Bring the database to the newest tables; all migrations happen, or none.

    Raises:
        StoreTooNew: a newer program has migrated it; it stays as it is.
    """
    config = Config()
    config.set_main_option("script_location", "fl_alliance.store:migrations")
    script = ScriptDirectory.from_config(config)
    with engine.begin() as connection:
        if _is_new(connection, script, name):
            return
    alone = engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
    with _ONE_AT_A_TIME, alone.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": MIGRATING})
        if not _is_new(connection, script, name):  # another process was first
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _is_new(connection: Connection, script: ScriptDirectory, name: str) -> bool:
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in {revision.revision for revision in script.walk_revisions()}:
        raise StoreTooNew(
            f"journal {name}: its tables are of revision {found}, this program knows up to "
            f"{script.get_current_head()}; install the newer program again"
        )
    return found == script.get_current_head()
