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
from fl_alliance.parties.audit_pages.evidence import examined
from fl_alliance.parties.audit_pages.serving import PagesServer
from tests.evidence.alliance import key_of
from tests.evidence.house import House, small_bundle
from tests.evidence.test_without_heavy_libraries import HEAVY, HOOK, MAIN, run
from tests.web.conftest import NOW, Alliance, client_of

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


def test_a_bundle_is_shown_as_its_folders_are(tmp_path: Path) -> None:
    house = House(tmp_path / "lagos")
    house.job("job-1", rounds=1)
    house.job("job-2", rounds=2)
    bundle, folders = house.bundle(tmp_path / "lagos.zip"), [house.evidence("job-1"), house.evidence("job-2")]
    said = []
    for places in ([bundle], folders):
        with examined(places, root=key_of("root").keyid, now=NOW, say=lambda _: None) as case:
            pages = client_of(case)
            address = "/institution/lagos/cases/entry/3"
            said.append([pages.get(a).text for a in (address, "/job/clinics/job-1", "/institution/lagos/cases")])
            assert "✓ log: round-record" in said[-1][0]
    assert [page.replace("input 2", "input 1").replace("/evidence/2", "/evidence/1") for page in said[1]] == said[0]


def test_a_bundle_with_one_byte_changed_is_red_and_nothing_of_it_is_shown(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path)
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    with examined([bundle], root=None, now=NOW, say=lambda _: None) as case:
        page = client_of(case).get("/").text
    assert "✗ DOES NOT HOLD" in page
    assert "step 0, archive" in page
    assert case.houses == ()


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
