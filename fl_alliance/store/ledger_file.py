"""The ledger on disk: one signed entry a line, appended and synced before anybody may read a record.

A line counts once it ends in a newline. `charge` returns after the newline is on the disk, so a last line without one
belongs to a process that died inside `charge`: nobody was told that it counts, no record was read for it. Readers leave
such a torn tail out, the next charge cuts it off. What was ever acknowledged is never cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fl_alliance.errors import LedgerBroken, StoreFailed
from fl_alliance.evidence.sign import open_document
from fl_alliance.privacy.ledger import Ledger, verify_chain
from fl_alliance.protocol.documents import LedgerEntry
from fl_alliance.store.disk import sync_folder, write_tail


class LedgerFile:
    """The ledger of one data set. Safe between processes: one charges at a time."""

    def __init__(self, path: Path, *, public_key: bytes, institution: str, dataset: str) -> None:
        self._path = path
        self._public_key = public_key
        self._institution = institution
        self._dataset = dataset

    def lines(self) -> tuple[bytes, ...]:
        """Return the envelope bytes of every entry, oldest first, unverified (StoreFailed: can't be read)."""
        try:
            with self._path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                return _whole_lines(file.read())[0]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StoreFailed(f"ledger {self._path}: {error.strerror}") from None

    def read(self) -> Ledger:
        """Return the verified ledger; an absent file is an empty one.

        Raises:
            LedgerBroken: it fails its own verification.
            StoreFailed: it can't be read.
        """
        return self._verified(self.lines())

    def put_aside(self) -> tuple[Ledger, ...]:
        """Return the verified ledgers of the institution's other data sets: beside `ledger.jsonl`, `ledger.NAME.jsonl`.

        Raises:
            LedgerBroken: one fails its own verification; names the file.
            StoreFailed: one can't be read.
        """
        stem, suffix, found = self._path.stem, self._path.suffix, []
        for path in sorted(self._path.parent.glob(f"{stem}.*{suffix}")):
            dataset = path.name.removeprefix(f"{stem}.").removesuffix(suffix)
            if dataset != self._dataset:  # a copy of this one must not speak for it
                found.append(self._beside(path, dataset))
        return tuple(found)

    def _beside(self, path: Path, dataset: str) -> Ledger:
        other = LedgerFile(path, public_key=self._public_key, institution=self._institution, dataset=dataset)
        try:
            return other.read()
        except LedgerBroken as error:
            raise LedgerBroken(f"{path.name}: {error}") from None

    def charge(self, build: Callable[[Ledger], bytes]) -> bytes:
        """Append the envelope that `build` makes from the verified ledger, durably, and return it.

        Nobody else charges in between. `build` checks the policy and signs; what it raises leaves the file unchanged.

        Raises:
            LedgerBroken: the ledger, or the ledger with the new entry, does not verify; nothing is appended.
            StoreFailed: it can't be written; the charge may or may not count.
        """
        with self._locked() as handle:
            lines, length = _whole_lines(_read_all(handle))
            envelope = build(self._verified(lines))
            if b"\n" in envelope:
                raise LedgerBroken(f"entry {len(lines) + 1}: an envelope must be one line")
            self._verified((*lines, envelope))
            self._append(handle, length, envelope + b"\n")
        return envelope

    def _verified(self, lines: tuple[bytes, ...]) -> Ledger:
        return verify_chain(
            lines,
            open_entry=lambda line: open_document(line, LedgerEntry, public_key=self._public_key),
            institution=self._institution,
            dataset=self._dataset,
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreFailed(f"ledger {self._path}: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    def _append(self, handle: int, length: int, line: bytes) -> None:
        """Write `line` at `length`, cutting off a torn tail. It is on the disk when this returns."""
        try:
            write_tail(handle, length, line)
            sync_folder(self._path.parent)
        except OSError as error:
            raise StoreFailed(f"ledger {self._path}: {error.strerror}") from None


def _whole_lines(data: bytes) -> tuple[tuple[bytes, ...], int]:
    """Return the lines that end in a newline, and how many bytes they take."""
    length = data.rfind(b"\n") + 1
    return tuple(data[:length].split(b"\n")[:-1]), length


def _read_all(handle: int) -> bytes:
    os.lseek(handle, 0, os.SEEK_SET)
    parts = []
    while part := os.read(handle, 1 << 20):
        parts.append(part)
    return b"".join(parts)
