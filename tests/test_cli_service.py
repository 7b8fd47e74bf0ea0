"""The coordinator's service from the command line: it waits for jobs, and leaves in good order when it is told to."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_alliance.cli.words import stop_at_signals
from fl_alliance.parties import setup
from tests.parties.processes import Party


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_to_leave_and_the_second_ends_the_process(handlers: None, number: signal.Signals) -> None:
    stop = stop_at_signals()
    assert not stop.is_set()
    os.kill(os.getpid(), number)
    assert stop.is_set()
    assert signal.getsignal(number) == signal.SIG_DFL, "the next one does what the system does"


def test_a_service_without_jobs_listens_and_leaves_in_good_order(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path / "office"
    setup.coordinator_init(home, alliance="clinics", host="127.0.0.1", port=port)
    service = Party(tmp_path, "office", "coordinator", "serve", str(home))
    try:
        service.until(lambda: "waiting for jobs" in service.log)
        os.kill(service.pid, signal.SIGTERM)
        assert service.wait() == 0, service.log
        assert "stopped: a job under way goes on at the next start" in service.log
    finally:
        service.kill()
