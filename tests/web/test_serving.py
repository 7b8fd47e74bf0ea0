"""`fl-alliance auditor serve` as a process: on loopback alone, with the small extra alone, until it is told to end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fl_alliance.errors import BadConfig
from fl_alliance.parties.audit_pages.serving import PagesServer
from tests.evidence.test_without_heavy_libraries import HEAVY, HOOK, MAIN, run
from tests.web.conftest import Alliance

NEEDED = ("starlette", "uvicorn")
ABSENT = (*(name for name in HEAVY if name not in NEEDED), "matplotlib", "fpdf")


@contextmanager
def serving(*words: object) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run the command until its address is printed; the lines that it said so far are the second result."""
    program = [sys.executable, "-c", f"REFUSED = {ABSENT}\n{HOOK}{MAIN}", "auditor", "serve", *map(str, words)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.rstrip("\n"))
            if said[-1].startswith("open "):
                break
        yield process, said
    finally:
        process.kill()
        process.communicate()


def test_the_command_verifies_prints_its_address_answers_and_ends_when_told(alliance: Alliance) -> None:
    with serving(alliance.given[0]) as (process, said):
        assert said[0].startswith("(1) manifest: ")
        url = said[-1].split()[1]
        with urllib.request.urlopen(url) as answer:  # what no starlette app says of itself: the listener's own headers
            assert "server" not in {name.lower() for name in answer.headers}
            assert b"Evidence of the alliance" in answer.read()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "tried\n")


def test_the_pages_are_on_loopback_alone_and_a_taken_port_is_named(alliance: Alliance) -> None:
    with PagesServer(alliance.case) as server:
        assert server.url == f"http://127.0.0.1:{server.port}/"
        with socket.socket(socket.AF_INET) as other:
            other.settimeout(5)
            assert other.connect_ex(("127.0.0.2", server.port)) != 0
        with pytest.raises(BadConfig, match=f"port: can't listen on 127.0.0.1 port {server.port}: "):
            PagesServer(alliance.case, port=server.port)
    with pytest.raises(BadConfig, match="port: 65536 must be 0 to 65535"):
        PagesServer(alliance.case, port=65_536)


def test_without_the_extra_the_command_says_in_one_line_what_to_install(tmp_path: Path) -> None:
    done = run(MAIN, "auditor", "serve", tmp_path)
    assert done.returncode == 1
    first = done.stderr.splitlines()[0]
    assert first in {f"BadConfig: auditor serve needs {name}: install fl-alliance[audit-serve]" for name in NEEDED}
