"""The join door of a running coordinator, and the watch over its members' folder.

    GET  /join/roots     the alliance's roots: for everybody, and worth nothing until compared with a join code
    POST /join/request   a `JoinOffer`; answered with the membership once the admin has admitted it
    POST /join/renew     a member's signed `JoinRequest` for new TLS and node keys; answered with its membership
    POST /join/leave     a member's signed `LeaveNotice`

TLS with the coordinator's certificate and without one of the caller's, for who joins has none yet. Every answer is a
`JoinAnswer`, a `JoinRefusal` or `AllianceRoots`. The admin's commands change the same folder while this runs: what they
change, and what the door changes, reaches the link within a second.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

import structlog
from pydantic import BaseModel

from fl_alliance.errors import AllianceError
from fl_alliance.parties import roster
from fl_alliance.parties.config import CoordinatorConfig, load
from fl_alliance.parties.files import one_writer
from fl_alliance.parties.join_words import MAX_JOIN_BYTES, JoinOffer, JoinRefusal
from fl_alliance.parties.setup import Keys, list_is_behind
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.transport.door import CallLimit, Route, SmallDoor
from fl_alliance.transport.flower.serving import Listener, bind
from fl_alliance.transport.flower.tls import TlsFiles

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
"""Between two looks at the members' folder."""
MOST_CONNECTIONS: Final = 128


class Members(Protocol):
    """A link whose members may change (`FlowerCoordinatorLink`)."""

    def update_members(self, nodes: Mapping[str, bytes], *, revoked: frozenset[int]) -> None:
        """Let `nodes` be the members from now on, and refuse the certificates `revoked`."""


class JoinDoor:
    """Listens from its construction until `close`, on `host` and `join_port` of coordinator.toml.

    `changed` is called after each change that a caller brought about.

    Raises:
        LinkFailed: the address can't be used.
    """

    def __init__(
        self, home: Path, *, changed: Callable[[], None] = lambda: None, now: Callable[[], float] = time.time
    ) -> None:
        config, keys = load(CoordinatorConfig, home / "coordinator.toml"), Keys(home)
        self._home, self._changed, self._now = home, changed, now
        door = SmallDoor(self._routes(), _refusal, longest=MAX_JOIN_BYTES, limit=CallLimit())
        tls = TlsFiles(ca=keys.tls_root, certificate=keys.tls_certificate, key=keys.tls_key)
        self._listener = Listener(
            bind(config.host, config.door_port),
            door,
            tls=tls,
            lifespan=False,
            client_certificates=False,
            connections=MOST_CONNECTIONS,
        )

    def __enter__(self) -> JoinDoor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Listen no longer; may be called twice."""
        self._listener.close()

    def _routes(self) -> dict[tuple[str, str], Route]:
        return {
            ("GET", "/join/roots"): lambda _: encode(roster.roots_of(self._home)),
            ("POST", "/join/request"): self._request,
            ("POST", "/join/renew"): self._noting("renewed", lambda body: roster.renew(self._home, body)),
            ("POST", "/join/leave"): self._noting("left", lambda body: roster.leave(self._home, body)),
        }

    def _request(self, body: bytes) -> bytes:
        answer = roster.hear(self._home, decode(JoinOffer, body), now=int(self._now()))
        return encode(answer)

    def _noting(self, what: str, act: Callable[[bytes], BaseModel]) -> Route:
        def route(body: bytes) -> bytes:
            answer = encode(act(body))
            log.info("member_changed", kind=what)
            self._changed()
            return answer

        return route


def _refusal(error: AllianceError) -> bytes:
    log.info("join_refused", error=error)
    return encode(JoinRefusal(error=type(error).__name__, reason=str(error)[:400]))


class Watch:
    """Tells a link who the members are: at the start, soon after their folder changes, and at once after `look`."""

    def __init__(self, home: Path, link: Members) -> None:
        self._home, self._link = home, link
        self._wake, self._closed = threading.Event(), threading.Event()
        self._told: object = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="members-watch")
        self._thread.start()

    def look(self) -> None:
        """Look now."""
        self._wake.set()

    def close(self) -> None:
        """End the thread; may be called twice."""
        self._closed.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.clear()
            try:
                self._look()
            except (AllianceError, OSError) as error:  # a file that was just struck off, a link that is busy: again
                log.warning("members_not_told", error=error)
            self._wake.wait(LOOK_SECONDS)

    def _look(self) -> None:
        keys = Keys(self._home)
        seen = [
            (path.name, stat.st_ino, stat.st_mtime_ns)
            for folder in (keys.requests, keys.certificates)
            for path in sorted(folder.glob("*.*"))
            for stat in (path.stat(),)
        ]
        if seen == self._told:
            return
        with one_writer(self._home):
            members = roster.roster_of(self._home)
        self._link.update_members(members.nodes, revoked=members.revoked)
        self._told = seen


@contextlib.contextmanager
def open_to_members(home: Path, link: Members) -> Iterator[JoinDoor]:
    """Keep the join door open and the link's members up to date."""
    with one_writer(home):
        roster.publish_where_root_is(home)  # a command that was killed may have left the list behind its members
        if list_is_behind(home):
            log.warning("list_behind")
    watch = Watch(home, link)
    try:
        with JoinDoor(home, changed=watch.look) as door:
            yield door
    finally:
        watch.close()
