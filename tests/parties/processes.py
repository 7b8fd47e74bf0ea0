"""Parties as operating-system processes on loopback, started as their admins start them, and what is seen of them."""

from __future__ import annotations

import os
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fl_alliance.parties.config import CoordinatorConfig, load

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


class Party:
    """A process of the command line, or of a test entry around it; its output is in FOLDER/NAME.log."""

    def __init__(self, folder: Path, name: str, *arguments: str, entry: str = "fl_alliance.cli") -> None:
        self.log_file = folder / f"{name}.log"
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", entry, *arguments], cwd=ROOT, stdout=log, stderr=log, env=environment
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """kill -9; of a process that has ended, nothing."""
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """Ask it to end, as systemd does."""
        self._process.terminate()

    def wait(self, seconds: float = 120.0) -> int:
        return self._process.wait(seconds)

    def until(self, seen: Callable[[], T], seconds: float = 120.0) -> T:
        """Return what `seen` gives once it is true; fail when the process ends or the time is over before that."""
        end = time.monotonic() + seconds
        while not (found := seen()):
            assert self.running(), f"the process has ended: {self.log[-2000:]}"
            assert time.monotonic() < end, f"waited in vain: {self.log[-2000:]}"
            time.sleep(0.005)
        return found


def journal(home: Path, job: str) -> list[tuple[str, bytes]]:
    """Return the coordinator's journal of a job, read beside it; empty while there is none."""
    try:
        connection = sqlite3.connect(f"file:{home / 'journal.db'}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return []
    try:
        return connection.execute("select kind, body from events where job = ? order by place", (job,)).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def replies(home: Path) -> list[bytes]:
    """Return every reply that an institution has sent."""
    with sqlite3.connect(home / "journal.db") as connection:
        return [body for (body,) in connection.execute("select body from replies")]


# ---- what the operating system says of a process


def mapped(party: Party) -> set[str]:
    """Return which of the two heavy native libraries are in the memory of the process."""
    maps = Path(f"/proc/{party.pid}/maps").read_text()
    return {name for name, file in {"torch": "/libtorch_cpu.so", "tenseal": "/_sealapi_cpp."}.items() if file in maps}


def open_files(party: Party) -> set[str]:
    found = set()
    for link in Path(f"/proc/{party.pid}/fd").iterdir():
        try:
            found.add(str(link.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


def listening(party: Party) -> list[str]:
    """Return the TCP sockets on which the process takes connections."""
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{party.pid}/net/{name}").read_text().splitlines()
    ]
    files = open_files(party)
    return [fields[1] for fields in lines if fields[3] == "0A" and f"socket:[{fields[9]}]" in files]


# ---- at the coordinator's door

_REQUEST = b"POST /v1/control/start-run HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def knock(home: Path, context: ssl.SSLContext | None) -> bytes:
    """Ask for a forbidden route, in the clear or over TLS; return all that comes back, empty if the line is cut."""
    port = load(CoordinatorConfig, home / "coordinator.toml").port
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            line = context.wrap_socket(plain, server_hostname="localhost") if context else plain
            line.sendall(_REQUEST)
            answer = b""
            while part := line.recv(4096):
                answer += part
            return answer
    except (ssl.SSLError, ConnectionError) as refused:
        return type(refused).__name__.encode() + b": " + str(refused).encode()
