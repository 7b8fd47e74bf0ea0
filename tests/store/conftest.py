"""Where a journal is: what is tested with `where` is tested on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import Server
from tests.store.s3 import bucket, one_bucket

__all__ = ["bucket", "one_bucket"]


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """An SQLite file that is not there yet, and an empty PostgreSQL database's URL."""
    if request.param == "sqlite":
        yield tmp_path / "journal.db"
        return
    server: Server = request.getfixturevalue("postgres")
    with server.database() as url:
        yield url
