"""An alliance with its journals in PostgreSQL: a restart of the server in the middle of a round, and the settings."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fl_alliance.errors import BadConfig, StoreTaken
from fl_alliance.parties import wiring
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.parties.config import CoordinatorConfig, database_url, load
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.envelope import Envelope
from fl_alliance.rounds import coordinator as machine
from fl_alliance.store.journal import SqlJournal
from tests.parties.conftest import SITES, Alliance, set_database
from tests.postgres import PASSWORD, QUOTED, Server

Build = Callable[..., Alliance]
SETTINGS = {"coordinator": "coordinator.toml"} | dict.fromkeys(SITES, "institution.toml")


@pytest.fixture
def databases(postgres: Server) -> Iterator[dict[str, str]]:
    """A database for each party."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(postgres.database()) for name in SETTINGS}


def moved(alliance: Alliance, databases: dict[str, str]) -> Alliance:
    """Give every party a database, and start the institutions anew."""
    for name, settings in SETTINGS.items():
        set_database(alliance.home(name), settings, databases[name])
        (alliance.home(name) / "journal.db").unlink()
    for name in SITES:
        alliance.attach(name)
    return alliance


def test_a_restart_of_postgresql_in_the_middle_of_a_round_is_survived(
    build: Build, postgres: Server, databases: dict[str, str]
) -> None:
    alliance = moved(build(rounds=1), databases)
    handler, restarts = alliance.handlers["clinic"], []

    def restarts_it(request: bytes) -> bytes:
        message = decode(m.REQUEST, decode(Envelope, request).body)
        if isinstance(message, m.ShareDelivery) and not restarts:
            restarts.append(message.round)
            postgres.restart("immediate")
        return handler(request)

    alliance.handlers["clinic"] = restarts_it
    with capture_logs() as logs:
        state = alliance.coordinator().run()
    assert isinstance(state, machine.Finished)
    assert restarts == [1]
    away = {str(line["error"]).split(":")[0] for line in logs if line["event"] == "database_away"}
    assert len(away) == len(SETTINGS), "each party had lost its line"
    assert not list(alliance.folder.glob("*/journal.db"))
    for name in SITES:
        found = verify_evidence(alliance.job(name) / "evidence", root=None, say=lambda _: None)
        assert found.charges == 1
    entries = SqlJournal(databases["coordinator"]).events("job-1")
    assert len(entries) == 2 + (len(SITES) * 2 + 1) + (len(SITES) * 8 + 2)


def test_two_processes_do_not_serve_one_database_from_two_folders(
    build: Build, databases: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's lock is no help against a copy of the folder on another machine."""
    monkeypatch.setattr("fl_alliance.store.database.TAKING_SECONDS", 0.1)
    home = build(rounds=1).home("coordinator")
    set_database(home, "coordinator.toml", databases["coordinator"])
    with wiring.open_journal(home, serves=True), pytest.raises(StoreTaken), wiring.open_journal(home, serves=True):
        pass


def test_a_service_ends_when_another_has_served_its_database_meanwhile(
    build: Build, postgres: Server, databases: dict[str, str]
) -> None:
    """It would go on from an old state; whoever starts it again lets it read the journal anew."""
    alliance = build(rounds=1)
    home = alliance.home("coordinator")
    set_database(home, "coordinator.toml", databases["coordinator"])
    with wiring.open_journal(home, serves=True) as journal:
        postgres.restart()
        SqlJournal(databases["coordinator"], serves=True).close()
        service = wiring.service(home, alliance.hub.coordinator_link(), alliance.blobs, journal, stop=threading.Event())
        with pytest.raises(StoreTaken, match="has served it meanwhile"):
            service.run()


# ---- settings


def config(tmp_path: Path, *lines: str) -> CoordinatorConfig:
    file = tmp_path / "coordinator.toml"
    file.write_text("\n".join(('alliance = "a"', "port = 9443", *lines)))
    return load(CoordinatorConfig, file)


def test_a_url_takes_a_password_of_any_characters_from_the_environment(
    tmp_path: Path, postgres: Server, databases: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_PASSWORD", PASSWORD)
    url = databases["coordinator"]
    named = config(tmp_path, f'database = "{url.replace(QUOTED, "${JOURNAL_PASSWORD}")}"')
    assert database_url(named) == url
    SqlJournal(database_url(named) or "").close()
    monkeypatch.setenv("JOURNAL", url)
    assert database_url(config(tmp_path, 'database = "${JOURNAL}"')) == url
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    SqlJournal(url.replace(f":{QUOTED}", "")).close()


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="database: the environment variable NO_SUCH_PASSWORD is not set"):
        database_url(config(tmp_path, 'database = "postgresql+psycopg://u:${NO_SUCH_PASSWORD}@h/d"'))


@pytest.mark.parametrize(
    "line",
    ['databse = "postgresql+psycopg://u:hidden@h/d"', 'database = ["postgresql+psycopg://u:hid@den@h/d"]',
     'database = "postgresql+psycopg://u:hidden@h/d"\nhost = "no host"\nprot = 1',
     'blobs = "postgresql+psycopg://u:hidden@h/d"'],
)  # fmt: skip
def test_a_wrong_setting_is_named_without_the_password(tmp_path: Path, line: str) -> None:
    with pytest.raises(BadConfig) as caught:
        config(tmp_path, line)
    assert "hid" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_setting_is_named_without_the_password(tmp_path: Path) -> None:
    (tmp_path / "coordinator.toml").write_text('database = "postgresql+psycopg://u:hidden@h/d"')
    with pytest.raises(BadConfig, match="alliance") as caught:
        load(CoordinatorConfig, tmp_path / "coordinator.toml")
    assert "hidden" not in str(caught.value)


def test_a_configuration_prints_no_password(tmp_path: Path) -> None:
    assert "hidden" not in repr(config(tmp_path, 'database = "postgresql+psycopg://u:hidden@h/d"'))


@pytest.mark.parametrize("blobs", ["http://host/x", "s3://B/x", "memory://x", "s3:/bucket", "file://"])
def test_another_kind_of_blob_store_is_refused(tmp_path: Path, blobs: str) -> None:
    with pytest.raises(BadConfig, match="blobs"):
        config(tmp_path, f'blobs = "{blobs}"')


def test_blobs_are_where_the_configuration_says(tmp_path: Path) -> None:
    blobs = wiring.blobs_of(tmp_path, config(tmp_path, f'blobs = "file://{tmp_path}/elsewhere"'))
    assert type(blobs).__name__ == "FolderBlobs"
    assert (tmp_path / "elsewhere").is_dir()
    assert type(wiring.blobs_of(tmp_path, config(tmp_path, 'blobs = "s3://bucket/x"'))).__name__ == "FsspecBlobs"
    assert not (tmp_path / "blobs").exists()
