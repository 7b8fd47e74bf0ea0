"""A small door for strangers: a few routes, short bodies, few calls from one address. No client certificate is asked.

What is said at it, and to whom, is the business of the routes' functions (`parties.door`).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from fl_alliance.errors import AllianceError, MalformedMessage, TooManyCalls
from fl_alliance.transport.flower.front import Receive, Scope, Send, body_length

Route = Callable[[bytes], bytes]
"""Body in, answer out; any `AllianceError` is a refusal."""

BODY_SECONDS: Final = 10.0
"""For a body to arrive."""
CALLS, CALLS_A_SECOND, MOST_ADDRESSES = 60, 2.0, 4096


class CallLimit:
    """A bucket of calls for each address: `CALLS` at once, refilled with `CALLS_A_SECOND`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> None:
        """Count one call.

        Raises:
            TooManyCalls: there were too many from this address.
        """
        now = self._clock()
        left, since = self._buckets.pop(address, (float(CALLS), now))
        left = min(float(CALLS), left + (now - since) * CALLS_A_SECOND)
        self._buckets[address] = (max(0.0, left - 1), now)
        while len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)  # who called longest ago has the fullest bucket
        if left < 1:
            raise TooManyCalls(f"more than {CALLS_A_SECOND:g} calls a second: call again in a moment")


class SmallDoor:
    """An ASGI app. `routes` are by method and path; `say` writes a refusal."""

    def __init__(
        self,
        routes: Mapping[tuple[str, str], Route],
        say: Callable[[AllianceError], bytes],
        *,
        longest: int,
        limit: CallLimit,
    ) -> None:
        self._routes, self._say, self._longest, self._limit = routes, say, longest, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: 200; 404 for no such route; 403, 411, 413, 429 with a refusal."""
        if scope["type"] != "http":
            return
        try:
            response = await self._answer(scope, receive)
        except ClientDisconnect:
            return
        response.headers["connection"] = "close"
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            return Response(status_code=404)
        try:
            self._limit.take((scope["client"] or ("",))[0])
            body = await self._body(scope, receive) if scope["method"] == "POST" else b""
            return _json(200, await run_in_threadpool(route, body))
        except TooManyCalls as error:
            return _json(429, self._say(error))
        except AllianceError as error:
            return _json(403, self._say(error))

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        length = body_length(scope)
        if length is None or length > self._longest:
            raise MalformedMessage(f"a body of {length} bytes, must be said beforehand and at most {self._longest}")
        try:
            return await asyncio.wait_for(Request(scope, receive).body(), BODY_SECONDS)
        except TimeoutError:
            raise MalformedMessage(f"the body took more than {BODY_SECONDS:g} s") from None


def _json(status: int, body: bytes) -> Response:
    return Response(body, status, media_type="application/json")
