"""The join door as strangers find it: four routes, short bodies, few calls; and codes that are none."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fl_alliance.errors import BadInput, LinkFailed, TooManyCalls
from fl_alliance.parties import roster
from fl_alliance.parties.join_words import MAX_JOIN_BYTES, JoinCode
from fl_alliance.transport import door as small_door
from fl_alliance.transport.door import CallLimit
from tests.parties.joining import Office


@pytest.fixture
def http(office: Office) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cadata=roster.roots_of(office.home).tls_root)
    with httpx.Client(verify=context, base_url=f"https://{office.address}") as client:
        yield client


def test_the_door_has_four_routes_and_no_other(http: httpx.Client) -> None:
    tried = {
        (method, path): http.request(method, path).status_code
        for method in ("GET", "POST", "PUT")
        for path in ("/join/roots", "/join/request", "/join/renew", "/join/leave", "/", "/v1/fleet/pull-messages",
                     "/blobs/", "/join/roots/", "/docs")
    }  # fmt: skip
    assert {what for what, status in tried.items() if status != 404} == {
        ("GET", "/join/roots"), ("POST", "/join/request"), ("POST", "/join/renew"), ("POST", "/join/leave"),
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/join/request", "/join/renew", "/join/leave"])
@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "MalformedMessage"),
        (b"{}", "MalformedMessage"),
        (b"[" * 10_000, "MalformedMessage"),
        (b"x" * (MAX_JOIN_BYTES + 1), "MalformedMessage"),
    ],
    ids=["empty", "no fields", "deep", "long"],
)
def test_a_body_that_is_none_is_refused_by_name(http: httpx.Client, path: str, body: bytes, error: str) -> None:
    answer = http.post(path, content=body)
    assert (answer.status_code, answer.json()["error"]) == (403, error)


def test_a_body_whose_length_is_not_said_is_refused_unread(http: httpx.Client) -> None:
    answer = http.post("/join/request", content=iter([b"{}"]))
    assert "must be said beforehand" in answer.json()["reason"]


def test_a_body_that_does_not_come_is_not_waited_for(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_door, "BODY_SECONDS", 0.05)
    context = ssl.create_default_context(cadata=roster.roots_of(office.home).tls_root)
    with socket.create_connection(("127.0.0.1", office.ports[1]), 20) as plain:
        sock = context.wrap_socket(plain, server_hostname="127.0.0.1")
        sock.sendall(b"POST /join/request HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        said = b""
        while part := sock.recv(4096):
            said += part
    assert b"the body took more than 0.05 s" in said


def test_too_many_calls_from_one_address_are_refused_and_others_are_not() -> None:
    now = [0.0]
    limit = CallLimit(clock=lambda: now[0])
    for _ in range(small_door.CALLS):
        limit.take("10.0.0.1")
    with pytest.raises(TooManyCalls):
        limit.take("10.0.0.1")
    limit.take("10.0.0.2")
    now[0] = 1 / small_door.CALLS_A_SECOND
    limit.take("10.0.0.1")
    with pytest.raises(TooManyCalls):
        limit.take("10.0.0.1")


def test_the_memory_of_the_call_limit_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_door, "MOST_ADDRESSES", 8)
    limit = CallLimit(clock=lambda: 0.0)
    for n in range(100):
        limit.take(f"10.0.0.{n}")
    assert len(limit._buckets) == 8


def test_a_flood_is_answered_by_name(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_door, "CALLS", 3)
    monkeypatch.setattr(small_door, "CALLS_A_SECOND", 0.001)
    answers = [http.get("/join/roots") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].json()["error"] == "TooManyCalls"


def test_where_no_door_is_the_error_says_so(tmp_path: Path) -> None:
    office = Office(tmp_path)
    with pytest.raises(LinkFailed, match=f"join door 127.0.0.1:{office.ports[1]}: ConnectError"):
        office.join("clinic")


@pytest.mark.parametrize(
    "text", ["", "fla1~clinic", "{code}x", "{short}", "{code}\n{code}", "FLA1{rest}", "fla1~a b~h~1~x~y"]
)
def test_a_text_that_is_no_code_is_refused_without_repeating_it(office: Office, text: str) -> None:
    code = office.invite("clinic").text
    text = text.format(code=code, short=code[:-1], rest=code[4:])
    with pytest.raises(BadInput, match="join code: not one") as refused:
        JoinCode.parse(text)
    assert code[-43:] not in str(refused.value)


def test_a_code_survives_white_space_and_is_safe_in_urls(office: Office) -> None:
    code = office.invite("clinic")
    assert JoinCode.parse(f"  {code.text}\n") == code
    assert httpx.URL(f"https://x/{code.text}").raw_path.decode() == f"/{code.text}"
