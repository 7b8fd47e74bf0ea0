"""The worker's own program: the only place where SEAL parses foreign bytes. `worker` starts it and talks to it.

    python -P -m fl_alliance.secagg.worker_main FD MEMORY_BYTES SECONDS PARAMETERS

FD is one end of a socket pair, PARAMETERS the fields of `SumParameters` as JSON. A message is one byte (what it is),
four bytes (length, big endian) and a body; nothing is pickled, in either direction.

    c  a chunk for the next request            k  the alliance key: check it and hold it
    l  load the chunks as one upload           a  add what was loaded
    d  forget chunks and what was loaded       t  give the sum, as chunks
    o  decrypt the chunks, give N values each  s  encrypt the chunks of up to N values, give ciphertexts

Each but `c` and `d` is answered: chunks `c`, if it gives any, and then `y`, or `n` with "<error>: <text>".
Before the first message the process forbids itself core dumps, other processes' looks into its memory (ptrace) and more
address space than MEMORY_BYTES, and answers `y`. It imports numpy and TenSEAL; it opens no socket and no file but
anonymous ones in memory and its own figures in /proc. It ends when the other end
closes, and by itself when a request takes twice SECONDS.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from fl_alliance.errors import SumRefused, WrongCipher
from fl_alliance.secagg import cipher
from fl_alliance.secagg.cipher import AllianceKey, LocalChunkSum
from fl_alliance.secagg.parameters import SumParameters

HEAD: Final = struct.Struct(">cI")
_PR_SET_DUMPABLE: Final = 4
_SPARE_BYTES: Final = 8 << 20


class EndOfTalk(Exception):
    """The other end closed."""


def send(talk: socket.socket, what: bytes, body: bytes = b"") -> None:
    """Send one message."""
    talk.sendall(HEAD.pack(what, len(body)))
    talk.sendall(body)


def receive(talk: socket.socket, length: int) -> bytes:
    """Return exactly `length` bytes (EndOfTalk: the other end closed before)."""
    held = bytearray(length)
    view, at = memoryview(held), 0
    while at < length:
        got = talk.recv_into(view[at:])
        if not got:
            raise EndOfTalk
        at += got
    return bytes(held)


class Room:
    """What one worker holds."""

    def __init__(self, parameters: SumParameters) -> None:
        self._parameters = parameters
        self._chunks: list[bytes] = []
        self._sum = LocalChunkSum(parameters)
        self._key: AllianceKey | None = None

    def hold(self, chunk: bytes) -> None:
        """Keep a chunk for the next request."""
        self._chunks.append(chunk)

    def discard(self) -> None:
        """Forget chunks and what was loaded."""
        self._chunks = []
        self._sum.load(())

    def do(self, what: bytes, body: bytes) -> Iterable[bytes]:
        """Do one request and return the chunks that it gives."""
        return _REQUESTS[what](self, body)

    def _take_key(self, body: bytes) -> Iterable[bytes]:
        self._key = AllianceKey.from_bytes(self._parameters, body)
        return ()

    def _load(self, _: bytes) -> Iterable[bytes]:
        self._sum.load(self._taken())
        return ()

    def _add(self, _: bytes) -> Iterable[bytes]:
        self._sum.add_loaded()
        return ()

    def _total(self, _: bytes) -> Iterable[bytes]:
        return self._sum.chunks()

    def _open(self, _: bytes) -> Iterable[bytes]:
        values = cipher.local_open(self._taken(), self._held_key, self._parameters)
        return (part.tobytes() for part in values.reshape(-1, self._parameters.degree))

    def _seal(self, _: bytes) -> Iterable[bytes]:
        slots = np.frombuffer(b"".join(self._taken()), np.uint64)
        return cipher.local_seal(slots, self._held_key, self._parameters)

    @property
    def _held_key(self) -> AllianceKey:
        if self._key is None:
            raise WrongCipher("this worker was given no key")
        return self._key

    def _taken(self) -> Iterator[bytes]:
        """Yield the chunks, and before each see that there is room: SEAL is never to reach the limit (see `cipher`)."""
        chunks, self._chunks = self._chunks, []
        for chunk in chunks:
            require_room()
            yield chunk


_REQUESTS: Final[dict[bytes, Callable[[Room, bytes], Iterable[bytes]]]] = {
    b"k": Room._take_key,
    b"l": Room._load,
    b"a": Room._add,
    b"t": Room._total,
    b"o": Room._open,
    b"s": Room._seal,
}


def require_room() -> None:
    """Raise MemoryError near the limit. SEAL's pool grows by a twentieth of what it has."""
    limit, used = resource.getrlimit(resource.RLIMIT_AS)[0], _address_space()
    if limit != resource.RLIM_INFINITY and limit - used < used // 16 + _SPARE_BYTES:
        raise MemoryError


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_bytes().split()[0]) * resource.getpagesize()


def forbid(memory_bytes: int) -> None:
    """Give up core dumps, being traced, and more address space than `memory_bytes`."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # a core pattern with a pipe ignores the limit above
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def serve(talk: socket.socket, room: Room, seconds: float) -> None:
    """Answer until the other end closes. A request that takes twice `seconds` ends the process: nobody waits for it."""
    send(talk, b"y")
    while True:
        what, length = HEAD.unpack(receive(talk, HEAD.size))
        body = receive(talk, length)
        if what == b"c":
            room.hold(body)
        elif what == b"d":
            room.discard()
        else:
            signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
            _answer(talk, room, what, body)
            signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(talk: socket.socket, room: Room, what: bytes, body: bytes) -> None:
    try:
        for chunk in room.do(what, body):
            send(talk, b"c", chunk)
    except SumRefused as error:
        send(talk, b"n", f"{type(error).__name__}: {error}".encode()[:1000])
    else:
        send(talk, b"y")


def main(arguments: list[str]) -> None:
    """Run a worker."""
    descriptor, memory_bytes, seconds, fields = arguments
    talk = socket.socket(fileno=int(descriptor))
    room = Room(SumParameters(**json.loads(fields)))
    forbid(int(memory_bytes))
    try:
        serve(talk, room, float(seconds))
    except (EndOfTalk, ConnectionError):
        return
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # at once: see `cipher`


OUT_OF_MEMORY: Final = 77
"""Exit status of a worker that reached its memory limit."""

if __name__ == "__main__":
    main(sys.argv[1:])
