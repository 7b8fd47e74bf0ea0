"""Routes, methods and headers of the auditor's pages. Read-only: whatever is not GET or HEAD is refused.

A page from the internet that is open in the same browser can send requests here. So a request must name this very
address as its host (against DNS rebinding) and must not come from another site (`Sec-Fetch-Site`, which browsers set
and pages can't); no answer may be embedded or read elsewhere; there is no cookie, no script and nothing to change.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fl_alliance.errors import AllianceError
from fl_alliance.parties.audit_pages.blocks import Page, Paragraph, Part
from fl_alliance.parties.audit_pages.entries import entry_page
from fl_alliance.parties.audit_pages.evidence import Case, House
from fl_alliance.parties.audit_pages.houses import house_page, what_if_page
from fl_alliance.parties.audit_pages.jobs import job_page
from fl_alliance.parties.audit_pages.overview import HOME, input_page, overview
from fl_alliance.parties.audit_pages.printing import printed, style

HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
Clock = Callable[[], float]


class Guarded:
    """The pages behind their rules: who may ask, and what every answer carries."""

    def __init__(self, pages: Starlette, hosts: frozenset[str]) -> None:
        self._pages, self._hosts = pages, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: 405, 421 or 403 before any page is made."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Scope) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._pages)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        if scope["method"] not in ("GET", "HEAD"):
            return Response("read-only: GET or HEAD\n", 405, {"allow": "GET, HEAD"}, "text/plain")
        if [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"] not in self._one_host:
            return Response("another host: open the address that was printed\n", 421, media_type="text/plain")
        sites = [value for name, value in scope["headers"] if name == b"sec-fetch-site"]
        if any(site not in (b"none", b"same-origin") for site in sites):
            return Response("from another site: type the address that was printed\n", 403, media_type="text/plain")
        return None

    @property
    def _one_host(self) -> list[list[str]]:
        return [[host] for host in self._hosts]


def app_of(case: Case, port: int, *, clock: Clock = time.time) -> Guarded:
    """Return the pages of `case`, for a listener on `port` of 127.0.0.1."""
    pages = _Pages(case, clock)
    routes = [
        Route("/", pages.overview),
        Route("/style.css", lambda _: Response(style(), media_type="text/css")),
        Route("/institution/{institution}/{dataset}", pages.house),
        Route("/institution/{institution}/{dataset}/entry/{sequence:int}", pages.entry),
        Route("/what-if/{institution}/{dataset}", pages.what_if),
        Route("/job/{alliance}/{job}", pages.job),
        Route("/evidence/{number:int}", pages.input),
    ]
    missing = {404: pages.missing, KeyError: pages.missing, AllianceError: pages.failed}
    app = Starlette(routes=routes, exception_handlers=missing)  # type: ignore[arg-type]
    app.router.redirect_slashes = False
    return Guarded(app, frozenset({f"127.0.0.1:{port}", f"localhost:{port}"}))


class _Pages:
    def __init__(self, case: Case, clock: Clock) -> None:
        self._case, self._clock = case, clock
        broken = len(case.problems)
        self._alarm = f"{broken} finding{'s' if broken != 1 else ''} in what was given." if broken else ""

    def overview(self, _: Request) -> Response:
        return self._say(overview(self._case), alarm="")

    def house(self, request: Request) -> Response:
        first = request.query_params.get("first", "1")
        at = int(first) if first.isascii() and first.isdecimal() and len(first) < 16 else 1
        return self._say(house_page(self._house(request), first=at))

    def entry(self, request: Request) -> Response:
        return self._say(entry_page(self._house(request), request.path_params["sequence"], now=int(self._clock())))

    def what_if(self, request: Request) -> Response:
        return self._say(what_if_page(self._house(request), request.query_params, now=int(self._clock())))

    def job(self, request: Request) -> Response:
        return self._say(job_page(self._case, (request.path_params["alliance"], request.path_params["job"])))

    def input(self, request: Request) -> Response:
        return self._say(input_page({given.number: given for given in self._case.given}[request.path_params["number"]]))

    def missing(self, _: Request, __: HTTPException | KeyError) -> Response:
        text = Paragraph("Nothing that was given and holds has such a page.")
        return self._say(Page(title="No such page", trail=(HOME,), parts=(Part("What to do", (text,)),), status=404))

    def failed(self, _: Request, error: AllianceError) -> Response:
        text = Paragraph(f"{type(error).__name__}: {error}")
        page = Page(title="This page can't be made", trail=(HOME,), parts=(Part("Why", (text,)),), status=500)
        return self._say(page)

    def _house(self, request: Request) -> House:
        return self._case.house(request.path_params["institution"], request.path_params["dataset"])

    def _say(self, page: Page, *, alarm: str | None = None) -> Response:
        body = printed(page, alarm=self._alarm if alarm is None else alarm)
        return Response(body, page.status, media_type="text/html")
