"""What a simulation measures: seconds and bytes, by phase. And its clock, which moves when nothing is under way."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from fl_alliance.protocol import messages as m
from fl_alliance.protocol.ids import BlobRef
from fl_alliance.protocol.ports import Blobs, CoordinatorLink, Reply
from fl_alliance.rounds import coordinator as machine

FAREWELL = "farewell"
Phase = tuple[int, str]
"""Round, and the kind of answer that is awaited."""


def phase_of(state: machine.State) -> Phase:
    """Return the phase of a job's state; what the coordinator does by itself belongs to the phase before."""
    match state:
        case machine.Gathering():
            kind = machine.kind_of(state.awaits)
        case machine.Adding():
            kind = machine.kind_of(m.SealedUpdate)
        case machine.Recording():
            kind = machine.kind_of(m.AdapterVote)
        case _:
            kind = FAREWELL
    return state.progress.round, kind


class Clock:
    """Seconds of the simulated world. A second of work takes none of them."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """Return the seconds since the beginning."""
        return self.seconds


@dataclass
class Tally:
    """One phase: counts, bytes at the coordinator's end (messages and blobs), seconds of work."""

    asked: int = 0
    """Requests sent, those sent again among them."""
    heard: int = 0
    """Replies that came back."""
    down: Counter[str] = field(default_factory=Counter)
    """Bytes to each member."""
    up: Counter[str] = field(default_factory=Counter)
    """Bytes from each member."""
    worked: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """CPU seconds of each member's work."""
    coordinator: float = 0.0
    """CPU seconds of the coordinator's work."""
    wall: float = 0.0
    """Seconds on the wall, of all of them one after another, with what they wait for the disk."""


class Meter:
    """Tallies by phase; `phase` says in which the job is now."""

    def __init__(self) -> None:
        self.tallies: dict[Phase, Tally] = {}
        self.phase: Callable[[], Phase] = lambda: (0, machine.kind_of(m.Acceptance))
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    @property
    def now(self) -> Tally:
        """The tally of the present phase."""
        return self.tallies.setdefault(self.phase(), Tally())

    def start(self) -> None:
        """The coordinator works from here on."""
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def pause(self) -> None:
        """The coordinator has worked up to here: count it to the phase that it has come to."""
        self.now.coordinator += time.process_time() - self._cpu
        self.now.wall += time.perf_counter() - self._wall
        self.start()

    @contextlib.contextmanager
    def member(self, name: str) -> Iterator[None]:
        """Count the block as work of member `name`."""
        tally, cpu, wall = self.now, time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            tally.worked[name] += time.process_time() - cpu
            tally.wall += time.perf_counter() - wall


class MeteredBlobs:
    """`Blobs` as one member reaches them over the wire."""

    def __init__(self, blobs: Blobs, member: str, meter: Meter) -> None:
        self._blobs, self._member, self._meter = blobs, member, meter

    def put(self, ref: BlobRef, chunks: Iterable[bytes]) -> None:
        """See `Blobs`."""
        self._meter.now.up[self._member] += ref.length
        self._blobs.put(ref, chunks)

    def read(self, ref: BlobRef, offset: int = 0, chunk: int = 1 << 20) -> Iterator[bytes]:
        """See `Blobs`."""
        for part in self._blobs.read(ref, offset, chunk):
            self._meter.now.down[self._member] += len(part)
            yield part

    def has(self, ref: BlobRef) -> bool:
        """See `Blobs`."""
        return self._blobs.has(ref)


class MeteredLink:
    """`CoordinatorLink` that counts what passes. Where nothing comes the clock moves by what would have been waited."""

    def __init__(self, link: CoordinatorLink, meter: Meter, clock: Clock) -> None:
        self._link, self._meter, self._clock = link, meter, clock

    def ask(self, member: str, request: bytes) -> None:
        """See `CoordinatorLink`."""
        self._meter.pause()
        self._link.ask(member, request)
        self._meter.now.asked += 1
        self._meter.now.down[member] += len(request)

    def replies(self, timeout: float) -> list[Reply]:
        """See `CoordinatorLink`."""
        self._meter.pause()
        found = self._link.replies(0)
        self._meter.start()
        if not found:
            self._clock.seconds += timeout
        for reply in found:
            if reply.payload is not None:
                self._meter.now.heard += 1
                self._meter.now.up[reply.member] += len(reply.payload)
        return found

    def online(self) -> frozenset[str]:
        """See `CoordinatorLink`."""
        return self._link.online()

    def close(self) -> None:
        """See `CoordinatorLink`."""
        self._link.close()
