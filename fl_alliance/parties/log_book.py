"""An institution's copy of the coordinator's log, and the checkpoint that it believed last, over all jobs.

A coordinator that shows two histories must show one of them to somebody who knows the other: each visit compares the
log with what was seen before, and members compare with one another what they were shown (`RoundKeys.checkpoint`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from fl_alliance.errors import LogForked, MalformedMessage, NotAuthentic, NotInLog, StoreFailed
from fl_alliance.evidence.log import leaf_of, open_checkpoint, receipt_of, require_root
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties.files import write_atomically
from fl_alliance.parties.transparency import newest_first
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import LogCheckpoint
from fl_alliance.protocol.limits import MAX_MESSAGE_BYTES
from fl_alliance.protocol.log import LogEntry
from fl_alliance.protocol.ports import Blobs
from fl_alliance.store.log_file import LogFile

ENTRIES, PINNED, FORKS = "entries.jsonl", "checkpoint.dsse.json", "forks"


class LogBook:
    """What one institution knows of the log, in `folder`; written before the answer that relies on it is given."""

    def __init__(self, folder: Path, *, name: str, alliance: str, blobs: Blobs) -> None:
        self._folder, self._name, self._alliance, self._blobs = folder, name, alliance, blobs
        self._copy = LogFile(folder / ENTRIES)
        self._pinned: bytes | None = None
        self._earlier: bytes | None = None
        """What was pinned before, as far as this process knows."""
        self._size = 0
        with contextlib.suppress(FileNotFoundError):
            self._load((folder / PINNED).read_bytes())

    def _load(self, data: bytes) -> None:
        """Take up the pinned checkpoint; it was verified when it was pinned."""
        pinned = peek_document(data, LogCheckpoint)
        if self._copy.size < pinned.size:
            raise StoreFailed(f"{self._folder / ENTRIES}: {self._copy.size} entries, {PINNED} says {pinned.size}")
        try:
            require_root(self._copy.tree, pinned)
        except LogForked as error:
            raise StoreFailed(f"{self._folder / ENTRIES}: {error}") from None
        self._pinned, self._size = data, pinned.size

    def visit(self, shown: bytes, key: bytes, required: Iterable[LogEntry]) -> None:
        """Compare the log of the checkpoint `shown` with what was seen before, and pin it.

        `key` is the coordinator's raw public key; each entry of `required` must be in the log.

        Raises:
            MalformedMessage, NotAuthentic: `shown` is no checkpoint of the coordinator for this alliance.
            LogForked: it has fewer entries than were seen, or others; both checkpoints are kept in `forks`.
            NotInLog: a required entry is missing.
            StoreFailed, LinkFailed: the entries can't be fetched or kept.
        """
        checkpoint = open_checkpoint(shown, alliance=self._alliance, public_key=key)
        try:
            self._follow(checkpoint)
        except LogForked:
            self._keep_fork(shown)
            raise
        if shown != self._pinned:
            write_atomically(self._folder / PINNED, shown)
            self._earlier, self._pinned, self._size = self._same_key(key), shown, checkpoint.size
        for entry in required:
            if self._copy.place(entry) is None:
                raise NotInLog(f"the log of {checkpoint.size} entries lacks {_words(entry)}")

    def _same_key(self, key: bytes) -> bytes | None:
        """Return what is pinned, if the coordinator had the same key then: a receipt has one key."""
        try:
            if self._pinned is not None:
                open_checkpoint(self._pinned, alliance=self._alliance, public_key=key)
        except NotAuthentic:
            return None
        return self._pinned

    def require_newest_head(self, digest: str | None) -> None:
        """Return if the last ledger head of this institution in the log is in the answer of this digest (None: none).

        Raises:
            NotInLog: it is in another answer; the coordinator did not bring back the newest.
        """
        if (newest := self._copy.newest_head(self._name)) != digest:
            raise NotInLog(f"last_seen: {digest} was brought back, the log's newest head of {self._name}: {newest}")

    def _follow(self, checkpoint: LogCheckpoint) -> None:
        """Copy what is new, once it is known to give the root that is signed."""
        if checkpoint.size < self._size:
            raise LogForked(f"the log has shrunk: {checkpoint.size} entries, {self._size} were seen")
        self._copy.cut(self._size)  # more is there where a process died, or the disk was full, before the pin
        new = self._fetched(checkpoint) if checkpoint.size > self._size else []
        tree = self._copy.tree
        for entry in new:
            tree.append(leaf_of(entry))
        try:
            require_root(tree, checkpoint)
        finally:
            tree.cut(self._size)
        self._copy.extend(new)

    def _fetched(self, checkpoint: LogCheckpoint) -> list[LogEntry]:
        """Return the entries behind the pinned ones. Where a piece holds pinned ones too, they must be the same."""
        new: list[LogEntry] = []
        for piece in newest_first(self._blobs, checkpoint.newest, MAX_MESSAGE_BYTES):
            if not new and piece.end != checkpoint.size:
                raise MalformedMessage(f"the newest piece ends with entry {piece.end} of {checkpoint.size}")
            old = max(0, self._size - piece.first)
            known = self._copy.entries(piece.first, self._size)
            for place, (seen, said) in enumerate(zip(known, piece.entries, strict=False), piece.first):
                if seen != said:
                    raise LogForked(f"entry {place} is now {_words(said)}, seen was {_words(seen)}")
            new = [*piece.entries[old:], *new]
            if piece.first <= self._size:
                break
        return new

    def _keep_fork(self, shown: bytes) -> None:
        """Keep what proves the fork: two checkpoints that the coordinator signed and no log can have both."""
        folder = self._folder / FORKS / f"{len(list((self._folder / FORKS).glob('*'))) + 1:04d}"
        write_atomically(folder / "shown.dsse.json", shown)
        if self._pinned is not None:
            write_atomically(folder / "seen.dsse.json", self._pinned)

    # ---- evidence of a job

    def evidence(self, number: int, shown: bytes, entry: LogEntry) -> dict[str, bytes]:
        """Return the files that show `entry` in the log of the checkpoint `shown`; `number` 0 is the proposal's.

        The leaf hashes tell of other jobs only how many entries they have, and make any two folders comparable.
        """
        size, index = peek_document(shown, LogCheckpoint).size, self._copy.place(entry)
        if index is None:
            raise NotInLog(f"the log lacks {_words(entry)}")
        receipt = receipt_of(self._copy.tree, index, entry, shown=shown, earlier=self._earlier or shown)
        return {
            f"checkpoint-{number:04d}.dsse.json": shown,
            f"receipt-{number:04d}.json": encode(receipt),
            "leaves": b"".join(self._copy.tree.leaves(size)),
        }


def _words(entry: LogEntry) -> str:
    where = "" if entry.job is None else f" of job {entry.job}, round {entry.round}"
    return f"the {entry.kind}{f' of {entry.member}' if entry.member else ''}{where} ({entry.digest})"
