"""The coordinator's transparency log: what it relies on is in the log before the message that relies on it is sent.

Institutions fetch it in pieces, which are blobs. Each signed checkpoint names the newest piece, each piece the one
before it. Entries are found again by their bytes, so whatever a crash interrupted is done again and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from fl_alliance.errors import MalformedMessage, StoreFailed
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.log import root_digest
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties.files import write_atomically
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import LogCheckpoint
from fl_alliance.protocol.ids import BlobRef, blob_ref
from fl_alliance.protocol.limits import MAX_LOG_PIECE
from fl_alliance.protocol.log import LogEntry, LogPiece
from fl_alliance.protocol.ports import Blobs
from fl_alliance.store.log_file import LogFile


class CoordinatorLog:
    """The log of one alliance, in `folder`: entries.jsonl, and newest.json with the newest piece's name."""

    def __init__(
        self, folder: Path, *, alliance: str, identity: IdentityKey, blobs: Blobs, clock: Callable[[], float]
    ) -> None:
        """`clock` gives Unix seconds."""
        self._file, self._newest = LogFile(folder / "entries.jsonl"), folder / "newest.json"
        self._alliance, self._identity, self._blobs, self._clock = alliance, identity, blobs, clock

    def has(self, entry: LogEntry) -> bool:
        """Say whether an equal entry is in the log."""
        return self._file.place(entry) is not None

    def add(self, *entries: LogEntry) -> None:
        """Append those entries that are not there yet, durably."""
        self._file.add(entries)

    def checkpoint(self) -> bytes:
        """Publish what is new, and return a signed checkpoint of the whole log, which is not empty."""
        size, newest = self._file.size, self._publish()
        document = LogCheckpoint(
            alliance=self._alliance,
            size=size,
            root=root_digest(self._file.tree.root(size)),
            newest=newest,
            time=int(self._clock()),
        )
        return sign_document(self._identity, document)

    def _publish(self) -> BlobRef:
        """Put the entries since the last piece into pieces; nothing is lost if the note of the last one is."""
        previous, end = self._published()
        for first in range(end, self._file.size, MAX_LOG_PIECE):
            entries = self._file.entries(first, first + MAX_LOG_PIECE)
            data = encode(LogPiece(first=first, previous=previous, entries=entries))
            previous = blob_ref(data)
            self._blobs.put(previous, [data])
            write_atomically(self._newest, encode(previous))
        if previous is None:
            raise StoreFailed("a checkpoint of a log without entries")
        return previous

    def _published(self) -> tuple[BlobRef | None, int]:
        """Return the newest piece that is in the blob store, and how many entries it and those before it hold."""
        if not self._newest.exists():
            return None, 0
        try:
            ref = decode(BlobRef, self._newest.read_bytes())
            piece = decode(LogPiece, b"".join(self._blobs.read(ref)))
        except (MalformedMessage, StoreFailed):
            return None, 0
        return ref, piece.end


def newest_first(blobs: Blobs, ref: BlobRef, most: int) -> Iterable[LogPiece]:
    """Yield the pieces of a log from the newest back to the first, each as it follows from its neighbour.

    `most` is the longest piece that is fetched, in bytes. Every piece begins before the one after it, so there is an
    end, whoever made them.

    Raises:
        MalformedMessage: a piece is too long, none, or does not end where the next one begins.
        StoreFailed, LinkFailed, NotAuthentic: as `Blobs.read`.
    """
    end: int | None = None
    while True:
        if ref.length > most:
            raise MalformedMessage(f"a piece of the log of {ref.length} bytes, at most {most}")
        piece = decode(LogPiece, b"".join(blobs.read(ref)))
        if end is not None and piece.first + len(piece.entries) != end:
            raise MalformedMessage(
                f"a piece ends with entry {piece.first + len(piece.entries)}, the next begins at {end}"
            )
        yield piece
        if piece.previous is None:
            return
        ref, end = piece.previous, piece.first
