"""The transparency log as it travels: its entries, the pieces in which they are fetched, and proofs of one entry.

An entry names a signed envelope by the digest of its exact bytes. The leaf of the Merkle tree is the entry's canonical
bytes (`codec.encode`). Pieces are blobs: each names the one before it, so whoever knows the newest can go back as far
as what it has already.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fl_alliance.protocol.ids import Base64, BlobRef, Digest, Name
from fl_alliance.protocol.limits import MAX_LOG, MAX_LOG_PIECE, MAX_ROUNDS
from fl_alliance.protocol.model import Wire
from fl_alliance.protocol.plan import items

EntryKind = Literal["alliance-members", "training-plan", "ledger-head", "round-record"]


class LogEntry(Wire):
    """One signed envelope that the coordinator relies on, in the order in which it came to rely on it."""

    version: Literal[1] = 1
    kind: EntryKind
    job: Name | None
    """Null for a list of members, which belongs to no job."""
    round: Annotated[int, Field(ge=0, le=MAX_ROUNDS)]
    """0 outside rounds."""
    member: Name | None
    """Of a ledger head: whose. The envelope is that member's acceptance or sealed update, with the head in it."""
    digest: Digest

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.job is None) != (self.kind == "alliance-members"):
            raise ValueError(f"job must be null for a list of members and only there, here is {self.kind}")
        if (self.member is None) != (self.kind != "ledger-head"):
            raise ValueError(f"member must be given for a ledger head and only there, here is {self.kind}")
        return self


class LogPiece(Wire):
    """Some entries of the log, one after another."""

    kind: Literal["log-piece"] = "log-piece"
    version: Literal[1] = 1
    first: Annotated[int, Field(ge=0, le=MAX_LOG)]
    """How many entries are before them."""
    previous: BlobRef | None
    """The piece that ends where this one begins; null for the first."""
    entries: Annotated[tuple[LogEntry, ...], items(1, MAX_LOG_PIECE)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.first == 0) != (self.previous is None):
            raise ValueError("previous must be null for the first piece and only there")
        return self

    @property
    def end(self) -> int:
        """How many entries there are up to and with the last one here."""
        return self.first + len(self.entries)


Path = Annotated[tuple[Digest, ...], items(0, 64)]
"""Hashes of a proof, in the order of RFC 6962."""


class LogReceipt(Wire):
    """That one entry is in the log, and that the log only grew: checked with the coordinator's public key alone."""

    kind: Literal["log-receipt"] = "log-receipt"
    version: Literal[1] = 1
    checkpoint: Base64
    """Envelope of the `LogCheckpoint` for which this holds."""
    entry: LogEntry
    index: Annotated[int, Field(ge=0, le=MAX_LOG)]
    inclusion: Path
    """RFC 6962, section 2.1.1."""
    earlier: Base64
    """Envelope of an earlier `LogCheckpoint`, or the same."""
    consistency: Path
    """RFC 6962, section 2.1.2: from `earlier` to `checkpoint`."""
