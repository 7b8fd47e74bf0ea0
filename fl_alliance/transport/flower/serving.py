"""One uvicorn listener in a thread that starts before the constructor returns and ends when it is told to."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import ssl
import threading
import time
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from fl_alliance.errors import LinkFailed
from fl_alliance.transport.flower.front import SERIAL, App, Receive, Scope, Send
from fl_alliance.transport.flower.tls import TlsFiles

_START_S = 30.0
_STOP_S = 1

# Said at every stop while an idle keep-alive connection is open.
logging.getLogger("uvicorn.error").addFilter(lambda record: not record.getMessage().startswith("Cancel 0 running"))


class _Peer(AutoHTTPProtocol):  # type: ignore[valid-type, misc]
    """uvicorn tells an app nothing of the client's certificate: its serial number goes into each request's scope."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        shown = transport.get_extra_info("peercert") or {}
        serial = int(shown["serialNumber"], 16) if "serialNumber" in shown else None
        app: App = self.app  # type: ignore[has-type]
        self.app = functools.partial(_with_serial, app, serial)


async def _with_serial(app: App, serial: int | None, scope: Scope, receive: Receive, send: Send) -> None:
    await app({**scope, SERIAL: serial}, receive, send)


class Listener:
    """Serves `app`. With `tls`, only clients whose certificate the alliance's CA signed finish the handshake.

    Without `client_certificates` anybody does. At most `connections` at once, None: as many as come.
    """

    def __init__(
        self, sock: socket.socket, app: Any, *, tls: TlsFiles | None, lifespan: bool,
        client_certificates: bool = True, connections: int | None = None,
    ) -> None:  # fmt: skip
        self.port: int = sock.getsockname()[1]
        options: dict[str, Any] = {}
        if tls is not None:
            options = {"ssl_ca_certs": str(tls.ca), "ssl_certfile": str(tls.certificate), "ssl_keyfile": str(tls.key)}
            options["ssl_cert_reqs"] = ssl.CERT_REQUIRED if client_certificates else ssl.CERT_NONE
        config = uvicorn.Config(
            app, lifespan="on" if lifespan else "off", log_level="warning", log_config=None, access_log=False,
            http=_Peer, ws="none", server_header=False, proxy_headers=False, limit_concurrency=connections,
            timeout_keep_alive=75, timeout_graceful_shutdown=_STOP_S, **options,
        )  # fmt: skip
        self._sock = sock
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [sock]}, daemon=True, name=f"listener-{self.port}"
        )
        self._start()

    def _start(self) -> None:
        self._thread.start()
        end = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                self.close()
                raise LinkFailed(f"the listener on port {self.port} did not start: see the log")
            time.sleep(0.005)

    def close(self) -> None:
        """End the thread: wait a second for requests under way, then cut them off. May be called twice."""
        self._server.should_exit = True
        self._thread.join(_STOP_S + 5)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(_STOP_S)
        self._sock.close()


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to `host` and `port` (0: any free one).

    Raises:
        LinkFailed: the address is in use or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise LinkFailed(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return sock
