"""The coordinator's end over Flower: an embedded SuperLink behind two doors, and the run's ServerApp seat.

Threads: the two listeners and the heartbeat of the run have one each. `ask`, `replies`, `online` and `close` may be
called from any thread; one lock guards the bookkeeping and is never held while waiting for replies.

A reply rings (`bells`), and so does what is asked; without a ring both ends look now and then.
A request stays in this process until its member is online. It is sent again when Flower says that it or its reply got
lost, and when the member's node came online anew. So a handler can see a request twice, and `replies` can return two
replies to one request.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import structlog

from fl_alliance.errors import BadConfig, LinkFailed, MemberUnknown
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.limits import MAX_MESSAGE_BYTES
from fl_alliance.protocol.ports import Blobs, Reply
from fl_alliance.transport.flower.bells import Bells
from fl_alliance.transport.flower.bundle import trampoline
from fl_alliance.transport.flower.front import PrivateFront, PublicFront
from fl_alliance.transport.flower.internals.superlink import FLEET_ROUTES, Control, Seat, node_key_pem, superlink_app
from fl_alliance.transport.flower.internals.wire import HANDLER_RAISED, LOST, REFUSED_BUNDLE, Note, Parcel, Unfit
from fl_alliance.transport.flower.serving import Listener, bind
from fl_alliance.transport.flower.tls import TlsFiles
from fl_alliance.transport.flower.uploads import BlobRoutes

T = TypeVar("T")
log = structlog.get_logger()

IN_MEMORY = ":flwr-in-memory:"
_POLL_S = (0.05, 1.0)
_BEAT_S = 15.0
_LOOK_S = 1.0
_TRIES = 4
_MOST_SENDS = 50


@dataclass
class _Ask:
    member: str
    request: bytes
    digest: str
    deadline: float
    sends: int = 0
    sent_to: str = ""
    """When the node that it was sent to had come online."""


class FlowerCoordinatorLink:
    """`CoordinatorLink` that listens on `host` and `port` (0: any free one; see the attribute `port`).

    `nodes` is the whole list of members: a node whose key is not in it is struck off. A client certificate whose serial
    number is in `revoked` is refused. Both may change later (`update_members`). With the same `database` (a path,
    or `IN_MEMORY`) the members' nodes are known again after a crash; what was asked is not: the caller asks again.
    `ttl` is how long a request waits for its member and its reply, in seconds.

    Raises:
        BadConfig: a node key is no OpenSSH EC P-384 public key, or two members have the same.
        LinkFailed: the address can't be used, or Flower refuses to start.
    """

    def __init__(
        self, *, host: str, port: int, database: str | Path, tls: TlsFiles, nodes: Mapping[str, bytes], blobs: Blobs,
        home: Path, ttl: float = 3600.0, revoked: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        home.mkdir(parents=True, exist_ok=True)
        os.environ["FLWR_HOME"] = str(home / "flwr")
        keys = _node_keys(nodes)
        self._ttl = ttl
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._news = threading.Event()
        self._bells = Bells(self._news.set)
        self._waiting: list[_Ask] = []
        self._sent: dict[str, _Ask] = {}
        self._coming: list[tuple[Parcel, _Ask]] = []
        self._look_again = 0.0
        self._pause = _POLL_S[0]
        """Between two looks. It grows over calls of `replies`: hours of training are not polled at full speed."""
        self._listeners: list[Listener] = []
        self._open_doors(host, port, database, tls, BlobRoutes(blobs, home / "uploads"), revoked)
        try:
            self._take_part(keys)
        except BaseException:
            self.close()
            raise

    def _open_doors(
        self, host: str, port: int, database: str | Path, tls: TlsFiles, blobs: BlobRoutes, revoked: frozenset[int]
    ) -> None:
        public, private = bind(host, port), bind("127.0.0.1", 0)
        token = secrets.token_urlsafe(32)
        self._url = f"http://127.0.0.1:{private.getsockname()[1]}"
        self._http = httpx.Client(
            headers={"authorization": f"Bearer {token}"}, timeout=30.0, trust_env=False, follow_redirects=False
        )
        app = self._app = superlink_app(str(database), private.getsockname()[1])
        self._listeners.append(Listener(private, PrivateFront(app, token), tls=None, lifespan=True))
        self._front = PublicFront(app, {"/blobs/": blobs, "/bell/": self._bells}, FLEET_ROUTES, revoked)
        self._listeners.insert(0, Listener(public, self._front, tls=tls, lifespan=False))
        self.port = self._listeners[0].port

    def _take_part(self, keys: Mapping[str, bytes]) -> None:
        self._control = Control(self._http, self._url)
        self._names = self._call(self._control.enrol, keys)
        self._ids = {name: node for node, name in self._names.items()}
        self._bells.hang(self._names)
        self.members = frozenset(self._ids)
        self._take_seat()
        self._beating = threading.Thread(target=self._beat, daemon=True, name="run-heartbeat")
        self._beating.start()

    def _take_seat(self) -> None:
        run = self._call(self._control.open_run, trampoline())
        self._seat = self._call(Seat, self._http, self._url, self._app, run)
        with self._lock:
            self._waiting.extend(self._sent.values())
            self._waiting.extend(ask for _, ask in self._coming)
            self._sent, self._coming = {}, []

    def _beat(self) -> None:
        while not self._closed.wait(_BEAT_S):
            try:
                self._keep_seat()
            except LinkFailed as error:
                log.error("no_new_run", error=error)  # noqa: TRY400

    def _keep_seat(self) -> bool:
        """Say that the run is alive; if Flower has given it up, start another. Return whether it is still the same."""
        with self._lock:
            try:
                if self._seat.beat():
                    return True
            except httpx.HTTPStatusError as error:
                log.info("run_heartbeat_failed", run=self._seat.run, status=error.response.status_code)
            except httpx.HTTPError:
                return True
            log.warning("run_given_up", run=self._seat.run)  # was this machine asleep? another one is started
            self._take_seat()
            return False

    def update_members(self, nodes: Mapping[str, bytes], *, revoked: frozenset[int]) -> None:
        """Let `nodes` be the whole list of members from now on, and refuse the certificates `revoked`.

        The others notice nothing. A member with a new node key is asked under it what it was asked under the old one;
        what was asked of a member that is struck off counts as a reply, without a payload.

        Raises:
            BadConfig: a node key is none, or two members have the same; nothing has changed.
            LinkFailed: Flower answers wrongly, again and again.
        """
        keys = _node_keys(nodes)
        self._front.revoked = revoked
        with self._lock:
            self._names = self._call(self._control.enrol, keys)
            before, self._ids = self._ids, {name: node for node, name in self._names.items()}
            self._bells.hang(self._names)
            self.members = frozenset(self._ids)
            for message, ask in list(self._sent.items()):
                if before.get(ask.member) != self._ids.get(ask.member):
                    self._waiting.append(self._sent.pop(message))
            self._pause = _POLL_S[0]
            self._news.set()

    def ask(self, member: str, request: bytes) -> None:
        """Queue `request` for `member` and return at once; it is sent by `replies`, as soon as the member is online.

        Raises:
            MemberUnknown: `member` is not among the members, or no longer.
            LinkFailed: the request is too long, or the link is closed.
        """
        if member not in self._ids:
            raise MemberUnknown(f"member {member!r} is unknown, the link knows {sorted(self._ids)}")
        if len(request) > MAX_MESSAGE_BYTES:
            raise LinkFailed(f"a request of {len(request)} bytes, at most {MAX_MESSAGE_BYTES}")
        if self._closed.is_set():
            raise LinkFailed("the link is closed")
        with self._lock:
            self._waiting.append(_Ask(member, request, digest_of(request), time.monotonic() + self._ttl))
            self._pause = _POLL_S[0]
            self._news.set()

    def replies(self, timeout: float) -> list[Reply]:
        """Return what has arrived, waiting at most `timeout` seconds; a request that expired counts as a reply.

        Raises:
            LinkFailed: Flower answers wrongly, again and again.
        """
        end = time.monotonic() + timeout
        while not self._closed.is_set():
            self._news.clear()
            with self._lock:
                found = self._step()
            left = end - time.monotonic()
            if found or left <= 0:
                return found
            rang = self._news.wait(min(self._pause, left))
            self._pause = _POLL_S[0] if rang else min(1.3 * self._pause, _POLL_S[1])
        return []

    def _step(self) -> list[Reply]:
        try:
            self._advance()
        except LinkFailed:
            if self._keep_seat():
                raise
        coming, self._coming = self._coming, []
        found = [reply for parcel, ask in coming if (reply := self._receive(parcel, ask)) is not None]
        return found + self._expired() + self._struck_off()

    def _advance(self) -> None:
        if self._waiting or (self._sent and time.monotonic() > self._look_again):
            online = self._call(self._seat.online)
            self._look_again = time.monotonic() + _LOOK_S
            self._recall(online)
            self._send_waiting(online)
        if self._sent:
            for parcel in self._call(self._seat.announced, list(self._sent)):
                if (ask := self._sent.pop(parcel.answers, None)) is not None:
                    self._coming.append((parcel, ask))

    def _expired(self) -> list[Reply]:
        now = time.monotonic()
        gone = [ask for ask in self._waiting if ask.deadline <= now]
        gone += [ask for ask in self._sent.values() if ask.deadline <= now]
        gone += [ask for _, ask in self._coming if ask.deadline <= now]
        if gone:
            self._waiting = [ask for ask in self._waiting if ask.deadline > now]
            self._sent = {key: ask for key, ask in self._sent.items() if ask.deadline > now}
            self._coming = [pair for pair in self._coming if pair[1].deadline > now]
        return [Reply(ask.member, ask.digest, None, "expired") for ask in gone]

    def _struck_off(self) -> list[Reply]:
        gone = [ask for ask in self._waiting if ask.member not in self._ids]
        self._waiting = [ask for ask in self._waiting if ask.member in self._ids]
        return [Reply(ask.member, ask.digest, None, "struck off") for ask in gone]

    def _recall(self, online: Mapping[int, str]) -> None:
        """Take back what was sent to a node that has come online since: its process may have died with the request."""
        for message, ask in list(self._sent.items()):
            if online.get(self._ids[ask.member], ask.sent_to) != ask.sent_to:
                self._waiting.append(self._sent.pop(message))

    def _send_waiting(self, online: Mapping[int, str]) -> None:
        for ask in [ask for ask in self._waiting if self._ids.get(ask.member) in online]:
            left = max(1.0, ask.deadline - time.monotonic())
            try:
                message = self._call(self._seat.push, self._ids[ask.member], ask.request, left)
            except Unfit as error:
                log.warning("request_waits", member=ask.member, error=error)
                continue
            self._bells.ring(self._ids[ask.member])
            self._waiting.remove(ask)
            ask.sends += 1
            ask.sent_to = online[self._ids[ask.member]]
            self._sent[message] = ask

    def _receive(self, parcel: Parcel, ask: _Ask) -> Reply | None:
        try:
            note = self._call(self._seat.fetch, parcel)
        except Unfit as error:
            return Reply(ask.member, ask.digest, None, f"malformed: {error}")
        except LinkFailed as error:
            return self._again(ask, str(error))
        if note is None:
            self._coming.append((parcel, ask))
            return None
        if note.error in LOST:
            return self._again(ask, "lost")
        return Reply(ask.member, ask.digest, None if note.error else note.payload, _failure(note))

    def _again(self, ask: _Ask, why: str) -> Reply | None:
        if ask.sends >= _MOST_SENDS:
            return Reply(ask.member, ask.digest, None, f"sent {ask.sends} times in vain: {why}")
        self._waiting.append(ask)
        return None

    def online(self) -> frozenset[str]:
        """Return the members whose node gave a sign of life within the last minute."""
        present = self._call(self._seat.online)
        return frozenset(name for node, name in self._names.items() if node in present)

    def close(self) -> None:
        """End the run, the listeners and their threads; may be called twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._news.set()
        self._bells.close()
        if hasattr(self, "_beating"):
            self._beating.join(5)
            try:
                self._seat.leave()
            except httpx.HTTPError as error:
                log.info("run_not_ended", run=self._seat.run, error=error)
        for listener in self._listeners:
            listener.close()
        self._http.close()

    def _call(self, grid: Callable[..., T], *args: Any) -> T:
        for remaining in reversed(range(_TRIES)):
            try:
                return grid(*args)
            except httpx.HTTPError as error:
                if not remaining or self._closed.is_set():
                    raise LinkFailed(f"Flower: {type(error).__name__}: {error}") from error
                time.sleep(0.1)
        raise LinkFailed("Flower was not asked")


def _node_keys(nodes: Mapping[str, bytes]) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for name, ssh in nodes.items():
        try:
            keys[name] = node_key_pem(ssh)
        except ValueError as error:
            raise BadConfig(f"node key of {name!r}: {error}") from error
    if len(set(keys.values())) < len(keys):
        raise BadConfig("two members have the same node key")
    return keys


def _failure(note: Note) -> str | None:
    """Return a reason in our own words; what the peer wrote is cut to a short, printable name."""
    if note.error is None:
        return None
    kind = {REFUSED_BUNDLE: "refused", HANDLER_RAISED: "failed"}.get(note.error, f"error {note.error}")
    name = "".join(c for c in note.reason[:80] if c.isalnum() or c in "_-. ")
    return f"{kind}: {name}"
