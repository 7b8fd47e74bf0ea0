"""A TCP proxy on loopback that delays, stalls and cuts what passes. It sees only what TLS shows."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from typing import Self

PIECE = 1 << 16
CUT, STALL, DELAY, REFUSE = 0.004, 0.002, 0.05, 0.03
"""Of the pieces that pass: the connection is cut; it falls silent, the piece is lost, then it is cut; the piece comes
late. Of the new connections: closed at once."""


class Proxy:
    """Relays 127.0.0.1:`port` to 127.0.0.1:`target`; faults happen while `faulty`."""

    def __init__(self, target: int, seed: int) -> None:
        self.faulty = False
        self.seen: Counter[str] = Counter()
        """Faults by name, and connections."""
        self.port = 0
        self._target, self._draw = target, random.Random(f"{seed}|proxy")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._relay, "127.0.0.1", 0), self._loop)
        self.port = server.result(10).sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _happens(self, fault: str, rate: float) -> bool:
        happens = self.faulty and self._draw.random() < rate
        self.seen[fault] += happens
        return happens

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen["connections"] += 1
        if self._happens("refused", REFUSE):
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the coordinator is down
            writer.transport.abort()
            return
        await asyncio.gather(self._pump(reader, back, writer), self._pump(there, writer, back))

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, other: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(PIECE):
                if self._happens("cut", CUT):
                    break
                if self._happens("stalled", STALL):
                    await asyncio.sleep(self._draw.uniform(0.5, 3.0))
                    break
                if self._happens("delayed", DELAY):
                    await asyncio.sleep(self._draw.uniform(0.0, 0.3))
                sink.write(piece)
                await sink.drain()
        sink.transport.abort()
        other.transport.abort()
