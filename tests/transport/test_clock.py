"""A clock that is off: the coordinator's door refuses it, and the institution's log says what it is and what to do."""

from __future__ import annotations

import datetime
import email.utils
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from flwr.supernode import node_auth_http_interceptor
from structlog.testing import capture_logs

from fl_alliance.errors import ClockSkew, LinkFailed
from fl_alliance.transport.flower import institution
from fl_alliance.transport.flower.institution import FlowerInstitutionLink, named, seconds_ahead
from tests.transport.conftest import Flower

AHEAD = 60.0


def refused(status: int, date: str | None) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://127.0.0.1/v1/fleet/pull-messages")
    answer = httpx.Response(status, headers={} if date is None else {"date": date}, request=request)
    return httpx.HTTPStatusError("refused", request=request, response=answer)


def date(ahead: float) -> str:
    return email.utils.formatdate(time.time() + ahead, usegmt=True)


@pytest.mark.parametrize(("theirs", "said"), [(-60, "ahead of"), (60, "behind")])
def test_a_401_with_another_time_is_a_clock_that_is_off(theirs: float, said: str) -> None:
    error = named(refused(401, date(theirs)))
    assert isinstance(error, ClockSkew)
    assert f"s {said} the coordinator's, at most 5: switch NTP on" in str(error)


@pytest.mark.parametrize("stated", [None, "no date", "Thu, 99 Foo 2026 00:00:00 GMT", "now"])
def test_a_401_with_the_same_time_or_none_is_a_key_that_is_not_known(stated: str | None) -> None:
    error = named(refused(401, date(0) if stated == "now" else stated))
    assert not isinstance(error, ClockSkew)
    assert "is this node's public key among the admitted ones?" in str(error)


def test_another_failure_is_no_clock() -> None:
    for error in (refused(503, date(60)), httpx.ConnectError("refused")):
        assert type(named(error)) is LinkFailed


def test_seconds_ahead_reads_an_http_date() -> None:
    now = datetime.datetime.now(datetime.UTC)
    assert seconds_ahead(email.utils.format_datetime(now, usegmt=True)) == pytest.approx(0, abs=2)
    assert seconds_ahead(None) is None


def test_an_institution_whose_clock_is_ahead_says_so_in_its_log(
    flower: Flower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    party = flower.parties["oslo"]
    link = FlowerInstitutionLink(address=flower.address, tls=party.tls, node_key=party.node_key, state=tmp_path)
    now = node_auth_http_interceptor.now
    off = SimpleNamespace(time=lambda: time.time() + AHEAD, monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setattr(node_auth_http_interceptor, "now", lambda: now() + datetime.timedelta(seconds=AHEAD))
    monkeypatch.setattr(institution, "time", off)
    with capture_logs() as lines:
        link.serve(lambda request: request, keep_going=lambda: not lines)
    link.close()
    (line,) = lines
    assert line["event"] == "no_coordinator"
    assert isinstance(line["error"], ClockSkew)
    assert link.retries() == 1
    assert link.heard_seconds() is None
