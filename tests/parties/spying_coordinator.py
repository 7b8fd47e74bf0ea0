"""The coordinator's command line with a tap on every byte that arrives, and a picture of its memory at the end.

    python -m tests.parties.spying_coordinator CAPTURE coordinator run HOME JOB

CAPTURE/<number> holds what one connection brought, after TLS; CAPTURE/memory the pages that the process may write.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fl_alliance import cli
from fl_alliance.parties.coordinator import Coordinator

_BLOCK = 1 << 16


def tap(protocol: Any, folder: Path, numbers: itertools.count[int]) -> None:
    """Write what each connection of `protocol` receives to a file of its own, before the server sees it."""
    made, received = protocol.connection_made, protocol.data_received

    def connection_made(self: Any, transport: Any) -> None:
        self.tapped = (folder / f"{next(numbers)}").open("ab", buffering=0)
        made(self, transport)

    def data_received(self: Any, data: bytes) -> None:
        self.tapped.write(data)
        received(self, data)

    protocol.connection_made, protocol.data_received = connection_made, data_received


def picture_at_the_end(path: Path) -> None:
    run = Coordinator.run

    def run_and_show(self: Coordinator) -> Any:
        state = run(self)
        copy_memory(path)
        return state

    Coordinator.run = run_and_show  # type: ignore[method-assign]


def copy_memory(path: Path) -> None:
    """Copy every writable page of this process that holds anything but zeros."""
    regions = [line.split()[:2] for line in Path("/proc/self/maps").read_text().splitlines()]
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    with path.open("wb") as out:
        for span, rights in regions:
            start, end = (int(edge, 16) for edge in span.split("-"))
            for at in range(start, end, _BLOCK) if "w" in rights else ():
                out.write(_read(memory, at, min(_BLOCK, end - at)))
    os.close(memory)


def _read(memory: int, at: int, length: int) -> bytes:
    try:
        block = os.pread(memory, length, at)
    except OSError:  # given back meanwhile
        return b""
    return block if block.count(0) < len(block) else b""


def main() -> None:
    folder = Path(sys.argv.pop(1))
    folder.mkdir()
    numbers = itertools.count()
    tap(HttpToolsProtocol, folder, numbers)
    tap(H11Protocol, folder, numbers)
    picture_at_the_end(folder / "memory")
    cli.main()


if __name__ == "__main__":
    main()
