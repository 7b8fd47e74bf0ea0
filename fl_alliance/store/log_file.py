"""A transparency log on disk: one canonical entry a line, appended and synced. The coordinator's, and each copy of it.

As in the ledger, a line counts once it ends in a newline; a torn tail is left out by readers and cut off by the next
append. One process writes (`parties.files.only_process`); threads of it may read and write.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

from fl_alliance.errors import MalformedMessage, StoreFailed
from fl_alliance.evidence.merkle import Tree, leaf_hash
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.log import LogEntry
from fl_alliance.store.disk import sync_folder, write_tail


class LogFile:
    """Entries in order, with their Merkle tree. Memory: some 400 bytes an entry."""

    def __init__(self, path: Path) -> None:
        """Read the file; an absent one is an empty log (StoreFailed: it can't be read)."""
        self._path, self._lock = path, threading.Lock()
        self._lines: list[bytes] = []
        self._places: dict[bytes, int] = {}
        self._tree = Tree()
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise StoreFailed(f"log {path}: {error.strerror}") from None
        self._length = data.rfind(b"\n") + 1
        for line in data[: self._length].split(b"\n")[:-1]:
            self._note(line)

    @property
    def size(self) -> int:
        """How many entries there are."""
        return len(self._lines)

    @property
    def tree(self) -> Tree:
        """The Merkle tree of all entries. To be read only."""
        return self._tree

    def place(self, entry: LogEntry) -> int | None:
        """Return the place of the first entry that is equal to `entry`, from 0; None: there is none."""
        return self._places.get(encode(entry))

    def entries(self, first: int, end: int) -> tuple[LogEntry, ...]:
        """Return entries `first` to `end` - 1 (StoreFailed: a line is none)."""
        try:
            return tuple(decode(LogEntry, line) for line in self._lines[first:end])
        except MalformedMessage as error:
            raise StoreFailed(f"log {self._path}: one of entries {first} to {end}: {error}") from None

    def newest_head(self, member: str) -> str | None:
        """Return the digest in the last ledger head of `member`; None: there is none."""
        mark = f'"member":"{member}"'.encode()
        for place in range(self.size - 1, -1, -1):
            if mark in self._lines[place]:
                return self.entries(place, place + 1)[0].digest
        return None

    def add(self, entries: Iterable[LogEntry]) -> None:
        """Append those entries that are not there yet, durably (StoreFailed: none counts)."""
        with self._lock:
            new = dict.fromkeys(encode(entry) for entry in entries)
            self._append([line for line in new if line not in self._places])

    def extend(self, entries: Iterable[LogEntry]) -> None:
        """Append all of `entries`, durably: a copy holds what the log holds, also twice (StoreFailed: none counts)."""
        with self._lock:
            self._append([encode(entry) for entry in entries])

    def cut(self, size: int) -> None:
        """Keep the first `size` entries: the rest was copied by a process that died before it had checked them."""
        if size >= self.size:
            return
        with self._lock:
            gone = self._lines[size:]
            length = self._length - sum(len(line) + 1 for line in gone)
            _write(self._path, length, b"")
            del self._lines[size:]
            self._tree.cut(size)
            self._length = length
            self._places = {line: place for place, line in reversed(list(enumerate(self._lines)))}

    def _append(self, lines: list[bytes]) -> None:
        if not lines:
            return
        data = b"".join(line + b"\n" for line in lines)
        _write(self._path, self._length, data)
        self._length += len(data)
        for line in lines:
            self._note(line)

    def _note(self, line: bytes) -> None:
        self._places.setdefault(line, len(self._lines))
        self._lines.append(line)
        self._tree.append(leaf_hash(line))


def _write(path: Path, length: int, data: bytes) -> None:
    """Write `data` at `length` and cut off what is behind it. It is on the disk when this returns."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            write_tail(handle, length, data)
        finally:
            os.close(handle)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreFailed(f"log {path}: {error.strerror}") from None
