"""Services as systemd sees them: a signal ends them in good order, their page says if they work, their log is JSON."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_alliance.parties.demo import stage
from tests.parties.conftest import settings, write_records
from tests.parties.processes import ROOT, Party, journal


def serve_page(home: Path, file: str) -> int:
    """Have the party in `home` serve its page and log JSON; return the page's port."""
    port = stage.free_port()
    text = (home / file).read_text()
    head = f'metrics = "127.0.0.1:{port}"\nlog = {{ format = "json", level = "debug" }}\n'
    (home / file).write_text(head + text)
    return port


def asked(port: int, path: str) -> int:
    """Return the status, 0 while nobody listens."""
    call = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        call.request("GET", path)
        return call.getresponse().status
    except OSError:
        return 0
    finally:
        call.close()


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[tuple[Party, Party, int, int]]:
    """The coordinator and one of three institutions, which has answered; and the ports of their pages."""
    write_records(tmp_path / "data")
    folder = tmp_path / "alliance"
    stage.prepare(settings(ROOT / "deploy/demo/model", tmp_path / "data", rounds=1), tmp_path, folder, threads=1)
    home, clinic = folder / "coordinator", folder / "clinic"
    pages = serve_page(home, "coordinator.toml"), serve_page(clinic, "institution.toml")
    started = [Party(folder, "clinic", "institution", "run", str(clinic))]
    try:
        institution = started[0]
        institution.until(lambda: asked(pages[1], "/healthz") == 200)
        institution.until(lambda: "no_coordinator" in institution.log)
        assert asked(pages[1], "/readyz") == 503
        started.append(Party(folder, "coordinator", "coordinator", "run", str(home), "job-1"))
        started[1].until(lambda: len(journal(home, "job-1")) == 3)
        yield started[1], institution, *pages
    finally:
        for party in started:
            party.kill()


def test_a_signal_ends_both_services_in_good_order_and_what_they_logged_is_json(
    parties: tuple[Party, Party, int, int],
) -> None:
    coordinator, institution, hq_page, clinic_page = parties
    assert asked(hq_page, "/readyz") == asked(clinic_page, "/readyz") == 200
    for party in (coordinator, institution):
        party.terminate()
    assert (coordinator.wait(), institution.wait()) == (0, 0)
    lines = [json.loads(line) for line in institution.log.splitlines()]
    assert {line["event"] for line in lines} >= {"progress", "no_coordinator"}
    assert next(line["reason"] for line in lines if line["event"] == "no_coordinator").startswith("ConnectError")
    assert {line["round"] for line in lines if "round" in line} == {0}
    *logged, said = coordinator.log.splitlines()
    assert said == "stopped: the same command goes on with job job-1"
    assert [line for line in map(json.loads, logged) if line.get("said") == "round 0/1: acceptance from clinic"]


HANGS = """
import time
from fl_alliance.cli.words import stop_at_signals
stop = stop_at_signals()
print("here", flush=True)
stop.wait()
print("asked", flush=True)
while True:
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_a_service_that_is_busy_at_once(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", HANGS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in ("here\n", "asked\n"):
            assert process.stdout.readline() == line
            process.send_signal(number)
        assert process.wait(30) == -number
