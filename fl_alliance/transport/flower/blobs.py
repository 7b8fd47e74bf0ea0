"""The institution's side of the blob routes: the coordinator's store, over the wire."""

from __future__ import annotations

import hashlib
import hmac
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import httpx

from fl_alliance.errors import BlobMissing, LinkFailed, NotAuthentic, StoreFailed
from fl_alliance.protocol.ids import BlobRef
from fl_alliance.transport.flower.tls import TlsFiles
from fl_alliance.transport.flower.uploads import PIECE
from fl_alliance.transport.proxy import https_client

T = TypeVar("T")


class _NoRoom(httpx.HTTPError):
    """The coordinator's disk is full: somebody may make room."""


_SLOWEST_RETRY_S = 10.0


def _cut(chunks: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Yield the bytes of `chunks` in pieces of `size`, each with whether it is the last; there is always a last."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) > size:
            yield bytes(held[:size]), False
            del held[:size]
    yield bytes(held), True


class HttpBlobs:
    """`Blobs` at `address` (host:port). Rides out a coordinator that is away for `patience` seconds."""

    def __init__(self, *, address: str, tls: TlsFiles, patience: float = 300.0) -> None:
        self._http = https_client(address, tls.client_context(), timeout=60.0)
        self._secret = hashlib.sha256(b"fl-alliance/1 upload-id" + tls.key.read_bytes()).digest()
        self._patience = patience

    def put(self, ref: BlobRef, chunks: Iterable[bytes]) -> None:
        """Upload `chunks` as `ref`, from where an earlier attempt stopped. Memory: two pieces of 8 MiB.

        Raises:
            NotAuthentic: the bytes have another digest or length; nothing is kept.
            LinkFailed: the coordinator stayed away, or lost the beginning of this upload: put again.
            StoreFailed: the coordinator could not store it for as long.
        """
        whole_there, there = self._retrying(lambda: self._state(ref))
        if whole_there:
            return
        sent, whole = 0, hashlib.sha256()
        for piece, is_last in _cut(chunks, PIECE):
            whole.update(piece)
            end = sent + len(piece)
            if is_last != (end == ref.length) or (is_last and "sha256:" + whole.hexdigest() != ref.digest):
                self._refuse(ref)
            if end > there or is_last:
                self._send(ref, piece, sent)
            sent = end

    def _refuse(self, ref: BlobRef) -> None:
        self._retrying(lambda: self._call("DELETE", ref))
        raise NotAuthentic(f"the bytes given are not {ref.digest} of {ref.length} bytes")

    def _send(self, ref: BlobRef, piece: bytes, first: int) -> None:
        end = first + len(piece)

        def once() -> None:
            whole, start = self._state(ref)
            if whole or first < end == start:
                return
            if not first <= start <= end:
                raise LinkFailed(
                    f"{ref.digest}: the coordinator has {start} bytes, awaited {first} to {end}: put again"
                )
            where = f"bytes {start}-{end - 1}/{ref.length}" if ref.length else "bytes */0"
            answer = self._call("PUT", ref, content=piece[start - first :], headers={"content-range": where})
            if answer.status_code == 422:
                raise NotAuthentic(f"{ref.digest}: the coordinator got bytes with another digest; nothing was kept")

        self._retrying(once)

    def read(self, ref: BlobRef, offset: int = 0, chunk: int = 1 << 20) -> Iterator[bytes]:
        """Yield the bytes from `offset` on, going on after an interruption.

        The digest is checked when `offset` is 0, and the check comes after the last chunk: use nothing before the
        iterator has ended.

        Raises:
            StoreFailed: there is no such blob.
            NotAuthentic: what arrived has another digest or length.
            LinkFailed: the coordinator stayed away.
        """
        whole, at, quiet_since = hashlib.sha256(), offset, time.monotonic()
        while True:
            try:
                for block in self._stream(ref, at, chunk):
                    at += len(block)
                    if at > ref.length:
                        raise NotAuthentic(f"{ref.digest}: more than {ref.length} bytes arrived")
                    whole.update(block)
                    yield block
                    quiet_since = time.monotonic()
                break
            except httpx.TransportError as error:
                self._pause(error, quiet_since, 1)
        if at != ref.length or (offset == 0 and "sha256:" + whole.hexdigest() != ref.digest):
            raise NotAuthentic(f"{ref.digest}: {at} bytes arrived, which are not this blob of {ref.length}")

    def _stream(self, ref: BlobRef, offset: int, chunk: int) -> Iterator[bytes]:
        headers = {"range": f"bytes={offset}-", "accept-encoding": "identity"}
        with self._http.stream("GET", self._url(ref), headers=headers) as answer:
            if answer.status_code in (404, 416):
                raise BlobMissing(f"the coordinator has no blob {ref.digest} of {ref.length} bytes")
            _require(answer)
            yield from answer.iter_raw(chunk)

    def has(self, ref: BlobRef) -> bool:
        """Say whether the coordinator has the whole blob.

        Raises:
            LinkFailed: the coordinator stayed away.
        """
        return self._retrying(lambda: self._call("HEAD", ref).status_code == 200)

    def close(self) -> None:
        """Close the connections; may be called twice."""
        self._http.close()

    def _url(self, ref: BlobRef) -> str:
        return f"/blobs/{ref.digest.removeprefix('sha256:')}?length={ref.length}"

    def _state(self, ref: BlobRef) -> tuple[bool, int]:
        answer = self._call("HEAD", ref)
        return answer.status_code == 200, int(answer.headers.get("upload-offset", "0"))

    def _call(
        self, method: str, ref: BlobRef, *, content: bytes | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        upload = hmac.new(self._secret, ref.digest.encode(), "sha256").hexdigest()[:32]
        answer = self._http.request(
            method, self._url(ref), content=content, headers={"upload-id": upload} | (headers or {})
        )
        if answer.status_code == 507:
            raise _NoRoom(f"the coordinator cannot store {ref.digest} of {ref.length} bytes")
        if answer.status_code not in (404, 422):
            _require(answer)
        return answer

    def _retrying(self, call: Callable[[], T]) -> T:
        started, tries = time.monotonic(), 0
        while True:
            try:
                return call()
            except httpx.HTTPError as error:
                tries += 1
                self._pause(error, started, tries)

    def _pause(self, error: httpx.HTTPError, since: float, tries: int) -> None:
        if time.monotonic() - since > self._patience:
            if isinstance(error, _NoRoom):
                raise StoreFailed(str(error)) from None
            raise LinkFailed(f"the coordinator's blob store: {type(error).__name__}: {error}") from error
        time.sleep(min(0.1 * 2**tries, _SLOWEST_RETRY_S) * random.uniform(0.5, 1.0))  # noqa: S311


def _require(answer: httpx.Response) -> None:
    if answer.is_client_error and answer.status_code not in (408, 409, 429):
        raise LinkFailed(f"{answer.request.method} {answer.request.url}: the coordinator answers {answer.status_code}")
    if not answer.is_success:
        raise httpx.RemoteProtocolError(f"status {answer.status_code}")
