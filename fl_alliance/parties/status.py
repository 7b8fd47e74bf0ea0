"""A small page for monitoring, on loopback only: /metrics, /healthz, /readyz.

    /metrics   Prometheus' text
    /healthz   200 while the process answers at all
    /readyz    200 if it can do its work now, else 503; JSON with a word for each check

Loopback, whatever is configured: an institution's metrics tell what it spends and how long it trains. Who wants them
elsewhere puts something in front that asks for a name.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from fl_alliance.errors import AllianceError, BadConfig

LOW_DISK_BYTES: Final = 256 << 20
"""With less free space a party is not ready: the next upload or reply may not fit."""
QUIET_SECONDS: Final = 90.0
"""An institution that heard nothing for so long is not ready: three heartbeats were lost."""

Check = Callable[[], str | None]
"""Return what is wrong, or None."""


class StatusServer:
    """Serves the page in a thread until it is closed."""

    def __init__(self, address: str, registry: CollectorRegistry, checks: Mapping[str, Check]) -> None:
        """Listen on `address` (host:port of loopback; port 0: any free one).

        Raises:
            BadConfig: the address can't be used.
        """
        host, _, port = address.rpartition(":")
        self._metrics, self._checks = make_wsgi_app(registry), checks
        kind = _Server6 if ":" in host else _Server
        try:
            self._server = make_server(host.strip("[]"), int(port), self._answer, kind, _Quiet)
        except (OSError, OverflowError) as error:
            raise BadConfig(f"metrics: {address} can't be listened on ({error})") from None
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True, name="status")
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _answer(self, environment: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        match environment.get("PATH_INFO"):
            case "/metrics":
                found: Iterable[bytes] = self._metrics(environment, start)
                return found
            case "/healthz":
                return _say(start, "200 OK", {"alive": True})
            case "/readyz":
                said = {name: _checked(check) for name, check in self._checks.items()}
                ready = set(said.values()) == {"ok"}
                return _say(start, "200 OK" if ready else "503 Service Unavailable", {"ready": ready, **said})
            case _:
                return _say(start, "404 Not Found", {"here": ["/metrics", "/healthz", "/readyz"]})


def _checked(check: Check) -> str:
    try:
        return check() or "ok"
    except AllianceError as error:
        return f"{type(error).__name__}: {error}"
    except OSError as error:
        return str(error.strerror)


def _say(start: StartResponse, status: str, body: Mapping[str, object]) -> Iterable[bytes]:
    data = json.dumps(body).encode() + b"\n"
    start(status, [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


def disk_check(home: Path) -> str | None:
    """Say if the folder's disk is nearly full."""
    free = shutil.disk_usage(home).free
    return None if free >= LOW_DISK_BYTES else f"{free >> 20} MiB free, at least {LOW_DISK_BYTES >> 20}"


def heard_check(age: float | None) -> str | None:
    """Say if the coordinator was not heard of lately."""
    if age is None:
        return "not heard of yet"
    return None if age <= QUIET_SECONDS else f"not heard of for {age:.0f} s"


class _Quiet(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:  # the standard library's own name
        """Write no access log."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6
