"""A PostgreSQL server of the tests' own: started on first use, on a socket in a short folder, gone when the tests are.

It runs Debian's binaries, or those that `pg_config` names; under another user where the tests run as root, which
PostgreSQL refuses. Where there are none its tests are skipped with a reason; `.ci/run` demands them.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

PASSWORD: Final = "pass@word/" + secrets.token_hex(4)
"""Of the server's only user; no error and no log may hold it."""
QUOTED: Final = PASSWORD.replace("@", "%40").replace("/", "%2F")
DEMANDED: Final = "FL_ALLIANCE_TEST_POSTGRESQL"
"""Set by `.ci/run`: tests that need a server fail where there is none."""
KEEPER: Final = """
trap '' INT TERM HUP
while read -r line; do :; done
"$1/pg_ctl" stop --silent --mode=immediate --pgdata="$2/data"
rm -rf "$2"
"""
"""Ends the server and removes its folder when the tests' end of its standard input closes, however they end."""


def binaries() -> Path | None:
    """Return the folder of the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    config = shutil.which("pg_config")
    named = subprocess.run([config, "--bindir"], capture_output=True, text=True).stdout.strip() if config else ""
    return Path(named) if named and (Path(named) / "postgres").exists() else None


class Server:
    """One server, with one user."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._as: dict[str, Any] = _another_user() if os.geteuid() == 0 else {}
        self.folder = Path(tempfile.mkdtemp(prefix="fl-pg-", dir=_short_folder()))
        if self._as:
            os.chown(self.folder, self._as["user"], self._as["group"])
        self._keeper = subprocess.Popen(
            ["sh", "-c", KEEPER, "sh", str(programs), str(self.folder)],
            stdin=subprocess.PIPE, cwd="/", start_new_session=True, **self._as,
        )  # fmt: skip
        self._run("sh", "-c", "umask 077; cat > password", given=PASSWORD)
        self._run("initdb", "--auth=scram-sha-256", "--pwfile=password", "--username=tester", "--encoding=UTF8",
                  "--no-locale", "--no-sync", "--pgdata=data")  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c max_connections=40"
        self._run("pg_ctl", "start", "--wait", "--silent", "--pgdata=data", "--log=log", f"--options={options}")

    def stop(self, mode: str = "fast") -> None:
        """End it: `fast` is what an admin's restart does to its clients, `immediate` what a crash does."""
        self._run("pg_ctl", "stop", "--wait", "--silent", f"--mode={mode}", "--pgdata=data")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """An empty database, by its URL; gone at the end, whoever is connected."""
        name = f"journal_{secrets.token_hex(6)}"
        with self.connect("postgres") as admin:
            admin.execute(f"CREATE DATABASE {name}")
        yield self.url(name)
        with self.connect("postgres") as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://tester:{QUOTED}@/{database}?host={self.folder}"

    @contextlib.contextmanager
    def connect(self, database: str) -> Iterator[psycopg.Connection[Any]]:
        """A connection outside any transaction, to the database of this name or URL."""
        database = database.split("?")[0].split("/")[-1]
        options = {"dbname": database, "user": "tester", "password": PASSWORD, "host": str(self.folder)}
        with psycopg.connect(**options, autocommit=True) as connection:
            yield connection

    def close(self) -> None:
        """End it and remove its folder."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(300)

    def _run(self, program: str, *arguments: str, given: str = "") -> None:
        result = subprocess.run(
            [program if program == "sh" else self._programs / program, *arguments],
            cwd=self.folder, input=given, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **self._as,
        )  # fmt: skip
        assert result.returncode == 0, f"{program}: {result.stderr}"


def _short_folder() -> str:
    """Return where the server's folder is made: in memory if there is room, for a loaded disk syncs slowly.

    A socket's path has at most 107 characters, so not below pytest's own.
    """
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30 else "/tmp"


def _another_user() -> dict[str, Any]:
    """Return how a child of root becomes the user that Debian's server package makes, or nobody."""
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The tests' server."""
    programs = binaries()
    if programs is None:
        reason = "no PostgreSQL server here: apt-get install postgresql, or pg_config of one on the PATH"
        if os.environ.get(DEMANDED):
            pytest.fail(f"{reason}; {DEMANDED} is set")
        pytest.skip(reason)
    server = Server(programs)
    yield server
    server.close()
