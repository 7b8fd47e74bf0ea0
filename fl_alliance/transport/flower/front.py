"""What the outside can reach: nine fleet routes of Flower, the blob routes and the bells. Everything else is 404.

The list names what is allowed, so a route that a new version of Flower adds is not reachable. Two plain ASGI doors:
`PublicFront` stands on the listener with mutual TLS, `PrivateFront` on the one on loopback.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import Response

from fl_alliance.protocol.limits import MAX_MESSAGE_BYTES

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SERIAL = "fl_alliance.certificate_serial"
"""Key of a request's scope: serial number of the client's certificate, which `serving.Listener` puts there."""
REASON = "fl-alliance-refused"
"""Header of a refusal that ends the caller's service here."""

MAX_FLEET_BODY = MAX_MESSAGE_BYTES + (128 << 10)
"""Bytes of one fleet request: a message's payload with its wrapping."""


async def _refuse(
    status: int, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str] | None = None
) -> None:
    # The body is not read: the connection closes instead.
    await Response(status_code=status, headers={"connection": "close", **(headers or {})})(scope, receive, send)


def body_length(scope: Scope) -> int | None:
    """Return the one `content-length` of a request, None without it."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else None


class PublicFront:
    """The door to the institutions: Flower's whole app, of which `routes` are open, and `own` apps by path prefix.

    Certificates whose serial number is in `revoked` are refused, also on connections that are open already.
    """

    def __init__(
        self, fleet: App, own: Mapping[str, App], routes: frozenset[str], revoked: frozenset[int] = frozenset()
    ) -> None:
        self.revoked = revoked
        self._fleet = fleet
        self._own = dict(own)
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer 403 (certificate), 404, 411 (no length), 413 (too long), its body unread."""
        if scope["type"] != "http":
            return
        own = next((app for prefix, app in self._own.items() if scope["path"].startswith(prefix)), None)
        if scope.get(SERIAL) is None or scope[SERIAL] in self.revoked:
            await _refuse(403, scope, receive, send, {REASON: "certificate revoked"})
        elif own is not None:
            await own(scope, receive, send)
        elif scope["path"] not in self._routes or scope["method"] != "POST":
            await _refuse(404, scope, receive, send)
        elif (length := body_length(scope)) is None:
            await _refuse(411, scope, receive, send)
        elif length > MAX_FLEET_BODY:
            await _refuse(413, scope, receive, send)
        else:
            await self._fleet(scope, receive, send)


class PrivateFront:
    """The door on loopback: whatever the path, only for who knows the token that this process drew at its start."""

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._expected = b"Bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request with the token through; answer 401 to any other."""
        if scope["type"] == "http":
            shown = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(shown, self._expected):
                await _refuse(401, scope, receive, send)
                return
        elif scope["type"] != "lifespan":
            return
        await self._app(scope, receive, send)
