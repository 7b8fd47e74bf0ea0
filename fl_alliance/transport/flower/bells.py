"""Bells instead of polls: who waits for a message hears at once that there may be one, and looks then.

    GET  /bell/<node>?seen=<number>   the bell's number, as soon as it is another than `seen`; after 20 s in any case
    POST /bell/<node>                 the node says that an answer of it is complete; 204

A node's number changes with every request that is sent to it, and with every start of the coordinator. A bell carries
nothing and proves nothing: what there is, and for whom, Flower says, to whoever signs for the node. A ring that is lost
costs time only, because both ends also look now and then without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Callable, Iterable

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from fl_alliance.transport.flower.front import Receive, Scope, Send

HOLD_S = 20.0
MOST_HELD = 8
"""Callers that wait for one node; another one is answered at once."""
_RETRY_S = 0.5


class Bells:
    """The coordinator's side: an ASGI app; `answered` is called when a node says that it has answered."""

    def __init__(self, answered: Callable[[], None]) -> None:
        self._answered = answered
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._held: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}
        self._closed = False

    def hang(self, nodes: Iterable[int]) -> None:
        """Let there be the bells of exactly these nodes: who waits for one that stays waits on, the others may go."""
        with self._lock:
            hung = {str(node) for node in nodes}
            for node in self._numbers.keys() - hung:
                self._wake(node)
            self._numbers = {node: self._numbers.get(node, secrets.randbelow(1 << 62)) for node in hung}
            self._held = {node: self._held.get(node, set()) for node in hung}

    def ring(self, node: int) -> None:
        """Let who waits for `node` look; from any thread."""
        with self._lock:
            self._numbers[str(node)] += 1
            self._wake(str(node))

    def close(self) -> None:
        """Let everybody go who waits; nobody is held any more."""
        with self._lock:
            self._closed = True
            for node in self._held:
                self._wake(node)

    def _wake(self, node: str) -> None:
        for loop, event in self._held[node]:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(event.set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        node = scope["path"].removeprefix("/bell/")
        if node not in self._numbers or scope["method"] not in ("GET", "POST"):
            response = Response(status_code=404, headers={"connection": "close"})
        elif scope["method"] == "POST":
            self._answered()
            response = Response(status_code=204)
        else:
            await self._hold(node, Request(scope, receive))
            response = PlainTextResponse(str(self._numbers.get(node, "")))
        await response(scope, receive, send)

    async def _hold(self, node: str, request: Request) -> None:
        """Return when the number is another than the one seen, the caller has gone, or the time is over."""
        place = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            news = str(self._numbers.get(node)) != request.query_params.get("seen")
            if self._closed or news or len(self._held[node]) >= MOST_HELD:
                return
            held = self._held[node]
            held.add(place)
        waiting = {asyncio.ensure_future(place[1].wait()), asyncio.ensure_future(_gone(request))}
        try:
            await asyncio.wait(waiting, timeout=HOLD_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            with self._lock:
                held.discard(place)
            for task in waiting:
                task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Ear:
    """The institution's side: a thread that waits at the bell, so that who waits for it here can stop at any time."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self._http, self._url = http, url
        self._rang, self._stopped = threading.Event(), threading.Event()
        self._node = 0
        self._thread: threading.Thread | None = None
        self.hears = False
        """Whether the bell could be reached when it was last tried: if not, look more often."""

    def forget(self) -> None:
        """Forget what has rung until now: before one looks."""
        self._rang.clear()

    def wait(self, node: int, seconds: float) -> bool:
        """Return whether `node`'s bell rang, waiting at most `seconds` for it."""
        self._node = node
        if self._thread is None:
            self._thread = threading.Thread(target=self._listen, daemon=True, name="bell")
            self._thread.start()
        return self._rang.wait(seconds)

    def answered(self, node: int) -> None:
        """Say that an answer of `node` is complete. Nobody is told if the coordinator can't be reached."""
        with contextlib.suppress(httpx.HTTPError):
            self._http.post(f"{self._url}/bell/{node}")

    def stop(self) -> None:
        """End the thread, after what it waits for."""
        self._stopped.set()

    def _listen(self) -> None:
        seen = ""
        while not self._stopped.is_set():
            try:
                answer = self._http.get(f"{self._url}/bell/{self._node}", params={"seen": seen}, timeout=2 * HOLD_S)
                answer.raise_for_status()
            except (httpx.HTTPError, RuntimeError):  # the client was closed meanwhile
                self.hears = False
                self._rang.set()
                self._stopped.wait(_RETRY_S)
                continue
            self.hears = True
            if answer.text != seen:
                seen = answer.text
                self._rang.set()
