"""Ports that more than one room needs. Each has at least two implementations; a contract test runs for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from fl_alliance.protocol.ids import BlobRef


class Blobs(Protocol):
    """Content-addressed bytes. What is there is whole and has the digest that names it; no half-written blob shows."""

    def put(self, ref: BlobRef, chunks: Iterable[bytes]) -> None:
        """Store `chunks` under `ref`, durably.

        Raises:
            NotAuthentic: the bytes have another digest or length; nothing is kept.
            StoreFailed: the store can't be written.
        """

    def read(self, ref: BlobRef, offset: int = 0, chunk: int = 1 << 20) -> Iterator[bytes]:
        """Yield the bytes of `ref` from `offset` on.

        Raises:
            BlobMissing: there is no such blob.
            StoreFailed, LinkFailed: the store can't be read.
        """

    def has(self, ref: BlobRef) -> bool:
        """Say whether the whole blob is here."""


@dataclass(frozen=True)
class Reply:
    """What came back for one request: a payload, or why there is none."""

    member: str
    request: str
    """Digest of the request's bytes."""
    payload: bytes | None
    failure: str | None = None


class CoordinatorLink(Protocol):
    """The coordinator's end: one request to one member, one reply. Delivery is at most once; nothing is ordered."""

    def ask(self, member: str, request: bytes) -> None:
        """Queue `request` for `member` and return at once.

        Raises:
            LinkFailed: `member` is unknown to the link.
        """

    def replies(self, timeout: float) -> list[Reply]:
        """Return what has arrived, waiting at most `timeout` seconds for the first; an empty list if nothing did."""

    def online(self) -> frozenset[str]:
        """Return the members that are reachable now, as far as the link knows."""

    def close(self) -> None:
        """Stop listening. Requests under way are lost; the caller's journal knows them."""


class InstitutionLink(Protocol):
    """The institution's end. It only calls out; nothing listens."""

    @property
    def blobs(self) -> Blobs:
        """The coordinator's blob store, over the wire."""

    def serve(self, handler: Callable[[bytes], bytes], *, keep_going: Callable[[], bool]) -> None:
        """Answer every request with `handler`, until `keep_going` says no.

        `handler` may see the same request twice (a resend) and must then return the same bytes.
        """
