"""Both ports inside one process, with faults on demand: for simulator tests and notebooks.

Two ways to run it. `LocalHub.attach` registers a handler that is invoked inside `replies()`: one thread, always the
same order. `LocalInstitutionLink.serve` is the port's own loop, for tests with threads.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Protocol

from fl_alliance.errors import LinkFailed, MemberUnknown
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.ports import Blobs, Reply

Handler = Callable[[bytes], bytes]
Nth = tuple[str, int]
"""A member and the how-manieth request to it, from 1."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one request and its reply; nothing, if nothing is given."""

    drop_request: bool = False
    drop_reply: bool = False
    twice: bool = False
    """The request is delivered twice."""
    delay: int = 0
    """The reply is held back for this many calls of `replies()`, so that later ones overtake it."""
    misattribute: str | None = None
    """The reply is handed over as if it came from this other member."""


class FaultSource(Protocol):
    """Says of every request what goes wrong with it; of the same one always the same."""

    def of(self, nth: Nth) -> Fault:
        """Return the fault of one request."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Faults by name: each is of a member and the ordinal of a request to it. See `Fault`."""

    drop_request: Set[Nth] = frozenset()
    drop_reply: Set[Nth] = frozenset()
    deliver_twice: Set[Nth] = frozenset()
    delay: Mapping[Nth, int] = field(default_factory=dict)
    misattribute: Mapping[Nth, str] = field(default_factory=dict)

    def of(self, nth: Nth) -> Fault:
        """Return the fault of one request."""
        return Fault(
            drop_request=nth in self.drop_request,
            drop_reply=nth in self.drop_reply,
            twice=nth in self.deliver_twice,
            delay=self.delay.get(nth, 0),
            misattribute=self.misattribute.get(nth),
        )


@dataclass(frozen=True, kw_only=True)
class RandomFaults:
    """Faults at random, each at its own rate: drawn for a message from the seed, its member and its ordinal alone."""

    seed: int
    lose: float = 0.0
    """Of the requests, and of the replies."""
    duplicate: float = 0.0
    delay: float = 0.0
    longest_delay: int = 40
    """In calls of `replies()`."""

    def of(self, nth: Nth) -> Fault:
        """Return the fault of one request."""
        draw = random.Random(f"{self.seed}|{nth[0]}|{nth[1]}")  # noqa: S311  # faults to test with, nothing secret
        lost, unheard, twice, late = (draw.random() for _ in range(4))
        return Fault(
            drop_request=lost < self.lose,
            drop_reply=unheard < self.lose,
            twice=twice < self.duplicate,
            delay=draw.randint(1, self.longest_delay) if late < self.delay else 0,
        )


@dataclass(frozen=True)
class _Request:
    member: str
    nth: Nth
    data: bytes


class LocalHub:
    """The wire between one coordinator and its members. Every method may be called from any thread."""

    def __init__(self, members: Iterable[str], blobs: Blobs, faults: FaultSource | None = None) -> None:
        self.members = frozenset(members)
        self.blobs = blobs
        self.faults: FaultSource = faults or Faults()
        self.offline: set[str] = set()
        """Members that are away now; what is asked of them waits. A test may change it at any time."""
        self._handlers: dict[str, Handler] = {}
        self._serving: Counter[str] = Counter()
        self._inboxes: dict[str, deque[_Request]] = {member: deque() for member in self.members}
        self._asked: Counter[str] = Counter()
        self._outbox: list[tuple[int, Reply]] = []
        self._changed = threading.Condition()

    def coordinator_link(self) -> LocalCoordinatorLink:
        """Return the coordinator's end."""
        return LocalCoordinatorLink(self)

    def institution_link(self, member: str) -> LocalInstitutionLink:
        """Return the end of `member`.

        Raises:
            LinkFailed: `member` is unknown.
        """
        self._require_member(member)
        return LocalInstitutionLink(self, member)

    def attach(self, member: str, handler: Handler) -> None:
        """Answer for `member` with `handler`, inside the coordinator's calls of `replies()`.

        Raises:
            LinkFailed: `member` is unknown.
        """
        self._require_member(member)
        self._handlers[member] = handler

    def detach(self, member: str) -> None:
        """Undo `attach`, as if the institution's process had died; what is asked of it waits."""
        self._handlers.pop(member, None)

    def _require_member(self, member: str) -> None:
        if member not in self.members:
            raise MemberUnknown(f"member {member!r} is unknown, the link knows {sorted(self.members)}")

    def _ask(self, member: str, data: bytes) -> None:
        self._require_member(member)
        with self._changed:
            self._asked[member] += 1
            request = _Request(member, (member, self._asked[member]), data)
            fault = self.faults.of(request.nth)
            if not fault.drop_request:
                self._inboxes[member].extend([request] * (2 if fault.twice else 1))
            self._changed.notify_all()

    def _next_request(self, member: str) -> _Request | None:
        with self._changed:
            inbox = self._inboxes[member]
            return inbox.popleft() if inbox and member not in self.offline else None

    def _answer(self, request: _Request, handler: Handler) -> None:
        try:
            payload, failure = handler(request.data), None
        except Exception as error:  # the border to foreign code: only the type's name crosses
            payload, failure = None, type(error).__name__
        fault = self.faults.of(request.nth)
        if fault.drop_reply:
            return
        reply = Reply(fault.misattribute or request.member, digest_of(request.data), payload, failure)
        with self._changed:
            self._outbox.append((fault.delay, reply))
            self._changed.notify_all()

    def _pump(self) -> None:
        for member in sorted(self._handlers):
            while member in self._handlers and (request := self._next_request(member)) is not None:
                self._answer(request, self._handlers[member])

    def _collect(self) -> list[Reply]:
        ready = [reply for delay, reply in self._outbox if delay == 0]
        self._outbox = [(delay - 1, reply) for delay, reply in self._outbox if delay > 0]
        return ready

    def _replies(self, timeout: float) -> list[Reply]:
        self._pump()
        with self._changed:
            if self._serving.total() and not self._outbox:
                self._changed.wait_for(lambda: bool(self._outbox), timeout)
            return self._collect()

    def _online(self) -> frozenset[str]:
        with self._changed:
            present = set(self._handlers) | {member for member, count in self._serving.items() if count}
        return frozenset(present - self.offline)


class LocalCoordinatorLink:
    """`CoordinatorLink` over a `LocalHub`."""

    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub
        self._closed = False

    def ask(self, member: str, request: bytes) -> None:
        """Queue `request` for `member`.

        Raises:
            LinkFailed: `member` is unknown, or the link is closed.
        """
        if self._closed:
            raise LinkFailed("the link is closed")
        self._hub._ask(member, request)

    def replies(self, timeout: float) -> list[Reply]:
        """Let the attached handlers answer; wait (seconds) only if some member serves in a thread of its own."""
        return [] if self._closed else self._hub._replies(timeout)

    def online(self) -> frozenset[str]:
        """Return the members with a handler or a serving loop that are not switched `offline`."""
        return self._hub._online()

    def close(self) -> None:
        """Stop; may be called twice."""
        self._closed = True


class LocalInstitutionLink:
    """`InstitutionLink` over a `LocalHub`."""

    def __init__(self, hub: LocalHub, member: str) -> None:
        self.blobs = hub.blobs
        self._hub = hub
        self._member = member

    def serve(self, handler: Handler, *, keep_going: Callable[[], bool]) -> None:
        """Answer every request with `handler` in the calling thread, until `keep_going` says no."""
        hub = self._hub
        with hub._changed:
            hub._serving[self._member] += 1
        try:
            while keep_going():
                request = hub._next_request(self._member)
                if request is not None:
                    hub._answer(request, handler)
                    continue
                with hub._changed:
                    hub._changed.wait(0.01)
        finally:
            with hub._changed:
                hub._serving[self._member] -= 1
