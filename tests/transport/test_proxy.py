"""HTTPS_PROXY and NO_PROXY, with a proxy on loopback that notes whom it was asked to CONNECT to."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_alliance.errors import BadConfig
from fl_alliance.protocol.ids import blob_ref
from fl_alliance.transport import proxy
from fl_alliance.transport.flower.blobs import HttpBlobs
from fl_alliance.transport.proxy import proxy_for, without_password
from tests.transport.conftest import Flower, all_replies
from tests.transport.pki import Pki
from tests.transport.test_flower import Member, coordinator_link

VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy")


class ConnectProxy:
    """Takes CONNECT and nothing else, and carries bytes both ways."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._carry, args=(self._server.accept()[0],), daemon=True).start()

    def _carry(self, caller: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += caller.recv(1)
        verb, where, *_ = head.decode().split()
        self.asked.append(f"{verb} {where}")
        host, _, port = where.rpartition(":")
        far = socket.create_connection((host, int(port)))
        caller.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=self._pump, args=(far, caller), daemon=True)
        back.start()
        self._pump(caller, far)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def through(environment: pytest.MonkeyPatch) -> Iterator[ConnectProxy]:
    made = ConnectProxy()
    environment.setenv("HTTPS_PROXY", made.url)
    yield made
    made.close()


def test_an_institution_calls_through_the_proxy_and_tls_goes_through_unopened(
    pki: Pki, through: ConnectProxy, tmp_path: Path
) -> None:
    """Both clients of an institution: the node, and the blobs. The handshake with client certificates is end to end."""
    party, data = pki.party("behind"), b"through the proxy"
    link = coordinator_link(pki, tmp_path / "co", {"behind": party.node_public})
    with Member(f"127.0.0.1:{link.port}", party, tmp_path / "behind") as member:
        link.ask("behind", data)
        assert [reply.payload for reply in all_replies(link, 1)] == [data]
        node = len(through.asked)
        member.link.blobs.put(blob_ref(data), [data])
        assert b"".join(member.link.blobs.read(blob_ref(data))) == data
    link.close()
    assert 1 <= node < len(through.asked)
    assert set(through.asked) == {f"CONNECT 127.0.0.1:{link.port}"}


@pytest.mark.parametrize("exception", ["127.0.0.1", "*", "example.org, 127.0.0.1:{port}"])
def test_what_no_proxy_names_is_called_straight(
    flower: Flower, through: ConnectProxy, environment: pytest.MonkeyPatch, exception: str
) -> None:
    environment.setenv("NO_PROXY", exception.format(port=flower.link.port))
    blobs = HttpBlobs(address=flower.address, tls=flower.parties["lima"].tls, patience=5)
    assert not blobs.has(blob_ref(b"nowhere"))
    blobs.close()
    assert through.asked == []


@pytest.mark.parametrize(
    ("settings", "address", "expected"),
    [
        ({}, "a.example.org:9443", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "a.example.org:9443", "http://p:3128"),
        ({"https_proxy": "http://p:3128"}, "a.example.org:9443", "http://p:3128"),
        ({"HTTPS_PROXY": "p:3128"}, "a.example.org:9443", "http://p:3128"),
        ({"HTTP_PROXY": "http://p:3128"}, "a.example.org:9443", None),
        ({"ALL_PROXY": "socks5://p:1080"}, "a.example.org:9443", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": ".example.org"}, "a.example.org:9443", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "ample.org"}, "a.example.org:9443", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "a.example.org:1"}, "a.example.org:9443", "http://p:3128"),
    ],
    ids=str,
)
def test_the_variables_mean_what_they_mean_elsewhere(
    environment: pytest.MonkeyPatch, settings: dict[str, str], address: str, expected: str | None
) -> None:
    for name, value in settings.items():
        environment.setenv(name, value)
    assert proxy_for(address) == expected


def test_a_proxy_of_another_kind_is_refused_without_its_password(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "socks5://me:hunter2@p:1080")
    with pytest.raises(BadConfig, match=r"HTTPS_PROXY: socks5://\.\.\., must be http://HOST:PORT") as refused:
        proxy.proxy_for("a.example.org:9443")
    assert "hunter2" not in str(refused.value)
    assert without_password("http://me:hunter2@p:3128") == "http://p:3128"
