"""A party of `bench.rounds`: the product's own command line, with a stopwatch in it and without training.

    python -m bench.round_parties NOTES coordinator run HOME JOB
    python -m bench.round_parties NOTES institution run HOME

What is replaced is `QwenTrainer.train_round`: it gives a noised vector at once. All else is what an institution runs:
model, ledger, ciphers, blobs, Flower with mutual TLS. NOTES gets a line of JSON for each span: `what`, `at` (its start
on the clock that all processes of the machine share), `total` and `own` seconds (without the spans inside it) and the
CPU seconds of the process and its ended children so far.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import rfc8785

from fl_alliance import cli
from fl_alliance.evidence import keys, sign
from fl_alliance.parties import accounts, adder
from fl_alliance.parties.coordinator import Coordinator
from fl_alliance.parties.institution import Institution
from fl_alliance.secagg import worker
from fl_alliance.store.journal import SqlJournal
from fl_alliance.transport.flower.blobs import HttpBlobs
from fl_alliance.transport.flower.internals.superlink import Seat

STANDARD_DEVIATION: Final = 0.01


class Notes:
    """Spans of this process, in a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._open = threading.local()

    def event(self, what: str, **more: object) -> None:
        """Note that something has happened now."""
        self._write(what, time.monotonic(), 0.0, 0.0, **more)

    @contextmanager
    def span(self, what: str, **more: object) -> Iterator[None]:
        """Note the seconds of the block, and how many of them are in no span inside it."""
        stack: list[float] = self._open.__dict__.setdefault("stack", [])
        start = time.monotonic()
        stack.append(0.0)
        try:
            yield
        finally:
            total, inside = time.monotonic() - start, stack.pop()
            if stack:
                stack[-1] += total
            self._write(what, start, total, total - inside, **more)

    def _write(self, what: str, at: float, total: float, own: float, **more: object) -> None:
        line = {"what": what, "at": at, "total": total, "own": own, "cpu": sum(os.times()[:4]), **more}
        self._file.write(json.dumps(line | {"main": threading.current_thread() is threading.main_thread()}) + "\n")

    def time(self, place: Any, name: str, what: str, more: Callable[..., dict[str, object]] | None = None) -> None:
        """Let every call of `place.name` be a span."""
        work = getattr(place, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.span(what, **(more(*args) if more else {})):
                return work(*args, **kwargs)

        setattr(place, name, timed)

    def time_pieces(self, place: Any, name: str, what: str) -> None:
        """Let every step of the iterator that `place.name` gives be a span."""
        work = getattr(place, name)

        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            pieces = iter(work(*args, **kwargs))
            while True:
                with self.span(what):
                    piece = next(pieces, None)
                if piece is None:
                    return
                yield piece

        setattr(place, name, timed)


def label_of(_: object, request: bytes) -> dict[str, object]:
    """Return kind and round of a request, by its envelope's label."""
    fields = json.loads(request)["payloadType"].split("|")
    return {"kind": fields[1], "round": int(fields[-1])}


def watch(notes: Notes) -> None:
    """Put the stopwatch at what both sides do."""
    notes.time(os, "fsync", "fsync")
    notes.time(rfc8785, "dumps", "canonical JSON")
    notes.time(sign, "check_signature", "signatures")
    notes.time(keys.IdentityKey, "sign", "signatures")
    notes.time(worker._Process, "__init__", "worker start")
    notes.time(worker._Process, "_greet", "worker start")
    notes.time(worker._Process, "close", "worker end")


def watch_institution(notes: Notes) -> None:
    """Put the stopwatch at what an institution does, and let it train in no time."""
    from fl_alliance.parties.desk import InstitutionDesk
    from fl_alliance.parties.trainer import QwenTrainer

    notes.time(Institution, "handle", "handle", label_of)
    notes.time(InstitutionDesk, "do", "work", lambda _, work: {"work": type(work).__name__})
    notes.time(accounts, "check_charge", "accountant")
    notes.time(SqlJournal, "advance", "journal")
    notes.time(HttpBlobs, "put", "blobs")
    notes.time_pieces(HttpBlobs, "read", "blobs")
    notes.time(QwenTrainer, "apply", "adapter")
    notes.time(QwenTrainer, "save", "adapter")
    drawn: list[Any] = []

    def at_once(self: QwenTrainer) -> Any:
        if not drawn:
            drawn.append(np.random.default_rng().normal(0.0, STANDARD_DEVIATION, len(self.vector)))
        return drawn[0]

    QwenTrainer.train_round = at_once  # type: ignore[method-assign]


def watch_coordinator(notes: Notes) -> None:
    """Put the stopwatch at what the coordinator does."""
    notes.time(SqlJournal, "append", "journal")
    notes.time(adder.UploadAdder, "arrived", "adding")
    notes.time(adder.UploadAdder, "total", "adding")
    for call in ("push", "announced", "fetch", "online"):
        notes.time(Seat, call, "Flower")
    start = Coordinator.__init__

    def begin(self: Coordinator, *, tell: Callable[[str], None], **settings: Any) -> None:
        def noted(line: str) -> None:
            notes.event("event", line=line)
            tell(line)

        start(self, tell=noted, **settings)

    Coordinator.__init__ = begin  # type: ignore[assignment,method-assign]


def main() -> None:
    notes = Notes(Path(sys.argv.pop(1)))
    watch(notes)
    (watch_coordinator if sys.argv[1] == "coordinator" else watch_institution)(notes)
    cli.main()


if __name__ == "__main__":
    main()
