"""The coordinator's blob routes: content-addressed, resumable, streamed.

    HEAD   /blobs/<sha256 hex>?length=<bytes>   200 if whole, else 404; `upload-offset` says what is there of an upload
    GET    the same, with `Range: bytes=<offset>-`   the blob from `offset` on
    PUT    the same, with `Content-Range: bytes <first>-<last>/<bytes>`   one piece, in order; 202, and 201 for the last
    DELETE the same   drop one's own unfinished upload; a whole blob stays

An upload belongs to who knows its `upload-id` (a secret of the client), so nobody can spoil the unfinished upload of
another. A piece out of order is 409; a whole with another digest is 422 and nothing is kept; a store
that can't take it, as on a full disk, is 507, and what is there of the upload stays. The store is touched in
worker threads; memory holds one network read at a time.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from fl_alliance.errors import NotAuthentic, StoreFailed
from fl_alliance.protocol.ids import BlobRef
from fl_alliance.protocol.ports import Blobs
from fl_alliance.transport.flower.front import Receive, Scope, Send

PIECE = 8 << 20
"""Longest body of one PUT, in bytes."""

KEEP_UNFINISHED_S = 7 * 24 * 3600
_ID = re.compile(r"^[0-9a-f]{32}$")
_CONTENT_RANGE = re.compile(r"^bytes (?:(\d{1,12})-(\d{1,12})|\*)/(\d{1,12})$")
_RANGE = re.compile(r"^bytes=(\d{1,12})-$")


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class _Piece:
    first: int
    end: int


def _ref(request: Request) -> BlobRef:
    try:
        length = int(request.query_params.get("length", ""))
        return BlobRef(digest="sha256:" + request.url.path.removeprefix("/blobs/"), length=length)
    except (ValueError, ValidationError):
        raise _Refused(404) from None


def _piece(request: Request, ref: BlobRef) -> _Piece:
    found = _CONTENT_RANGE.match(request.headers.get("content-range", ""))
    if found is None or int(found[3]) != ref.length:
        raise _Refused(400)
    piece = _Piece(int(found[1]), int(found[2]) + 1) if found[1] else _Piece(0, 0)
    size = piece.end - piece.first
    if size > PIECE or piece.end > ref.length or size < 0:
        raise _Refused(413)
    if request.headers.get("content-length") != str(size) or (size == 0) != (ref.length == 0):
        raise _Refused(400)
    return piece


def _pieces_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


class BlobRoutes:
    """An ASGI app over `blobs`; unfinished uploads lie in the folder `staging`."""

    def __init__(self, blobs: Blobs, staging: Path) -> None:
        staging.mkdir(parents=True, exist_ok=True)
        self._blobs = blobs
        self._staging = staging
        self._writing: set[Path] = set()
        self._drop_old()

    def _drop_old(self) -> None:
        for path in self._staging.iterdir():
            if path.stat().st_mtime < time.time() - KEEP_UNFINISHED_S:
                path.unlink()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            response = await self._route(request)
        except _Refused as refused:
            response = Response(status_code=refused.status, headers={"connection": "close"})
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _route(self, request: Request) -> Response:
        ref = _ref(request)
        if request.method == "HEAD":
            return await self._head(request, ref)
        if request.method == "GET":
            return await self._get(request, ref)
        if request.method == "PUT":
            return await self._put(request, ref)
        if request.method == "DELETE":
            self._unused(request, ref).unlink(missing_ok=True)
            return Response(status_code=204)
        raise _Refused(404)

    def _path(self, request: Request, ref: BlobRef) -> Path:
        upload = request.headers.get("upload-id", "")
        if not _ID.match(upload):
            raise _Refused(400)
        return self._staging / f"{ref.digest.removeprefix('sha256:')}.{upload}"

    def _unused(self, request: Request, ref: BlobRef) -> Path:
        path = self._path(request, ref)
        if path in self._writing:
            raise _Refused(409)
        return path

    async def _head(self, request: Request, ref: BlobRef) -> Response:
        if await run_in_threadpool(self._blobs.has, ref):
            return Response(headers={"upload-offset": str(ref.length)})
        path = self._path(request, ref) if "upload-id" in request.headers else None
        offset = path.stat().st_size if path is not None and path.exists() else 0
        return Response(status_code=404, headers={"upload-offset": str(offset)})

    async def _get(self, request: Request, ref: BlobRef) -> Response:
        found = _RANGE.match(request.headers.get("range", "bytes=0-"))
        offset = int(found[1]) if found else ref.length + 1
        if offset > ref.length:
            raise _Refused(416)
        if not await run_in_threadpool(self._blobs.has, ref):
            raise _Refused(404)
        headers = {"content-length": str(ref.length - offset)}
        body = self._blobs.read(ref, offset)
        return StreamingResponse(body, 206 if offset else 200, headers, "application/octet-stream")

    async def _put(self, request: Request, ref: BlobRef) -> Response:
        piece, path = _piece(request, ref), self._unused(request, ref)
        if await run_in_threadpool(self._blobs.has, ref):
            return Response(status_code=201)
        self._writing.add(path)
        try:
            with path.open("ab") as file:
                if file.tell() != piece.first:
                    return Response(status_code=409, headers={"upload-offset": str(file.tell()), "connection": "close"})
                await _append(file, request.stream(), piece.end)
            if piece.end < ref.length:
                return Response(status_code=202)
            return await run_in_threadpool(self._finish, path, ref, piece.first)
        except OSError:
            raise _Refused(507) from None
        finally:
            self._writing.discard(path)

    def _finish(self, path: Path, ref: BlobRef, last: int) -> Response:
        """Store the whole. Where there is no room for it, the last piece (from byte `last` on) is awaited again."""
        try:
            self._blobs.put(ref, _pieces_of(path))
        except StoreFailed:
            os.truncate(path, last)
            return Response(status_code=507)
        except NotAuthentic:
            path.unlink(missing_ok=True)
            return Response(status_code=422)
        path.unlink(missing_ok=True)
        return Response(status_code=201)


async def _append(file: BinaryIO, stream: AsyncIterator[bytes], end: int) -> None:
    async for block in stream:
        if file.tell() + len(block) > end:
            raise _Refused(400)
        file.write(block)
