"""A listener of the auditor's pages: on 127.0.0.1, in a thread, until it is closed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Final, Self

import uvicorn

from fl_alliance.errors import BadConfig, LinkFailed
from fl_alliance.parties.audit_pages.app import app_of
from fl_alliance.parties.audit_pages.evidence import Case

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 1
MOST_CONNECTIONS: Final = 32


class PagesServer:
    """Serves the pages of `case` from its construction until `close`.

    Raises:
        BadConfig: the port is none, or is taken.
    """

    def __init__(self, case: Case, *, port: int = 0, clock: Callable[[], float] = time.time) -> None:
        self._socket = _bound(port)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app_of(case, self.port, clock=clock), lifespan="off", log_level="critical", log_config=None,
            access_log=False, ws="none", server_header=False, proxy_headers=False, date_header=False,
            limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=STOP_SECONDS,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        run = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True, name="pages")
        self._thread = run
        run.start()
        self._await_start()

    @property
    def url(self) -> str:
        """Where a browser finds the first page."""
        return f"http://{HOST}:{self.port}/"

    def close(self) -> None:
        """Listen no longer; may be called twice."""
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS + 5)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _await_start(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                self.close()
                raise LinkFailed(f"the pages on port {self.port} did not start")
            time.sleep(0.005)


def _bound(port: int) -> socket.socket:
    if not 0 <= port <= 65_535:
        raise BadConfig(f"port: {port} must be 0 to 65535")
    sock = socket.socket(socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
    except OSError as error:
        sock.close()
        raise BadConfig(f"port: can't listen on {HOST} port {port}: {error.strerror}") from None
    return sock
