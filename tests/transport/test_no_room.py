"""A coordinator without room for an upload: the member goes on where it was once there is room, or gives up by name."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterator
from typing import Any, BinaryIO

import pytest

from fl_alliance.errors import StoreFailed
from fl_alliance.protocol.ids import blob_ref
from fl_alliance.transport.flower import uploads
from fl_alliance.transport.flower.blobs import HttpBlobs
from fl_alliance.transport.flower.uploads import PIECE
from tests.transport.conftest import Flower


@pytest.fixture
def store(flower: Flower) -> Iterator[HttpBlobs]:
    made = HttpBlobs(address=flower.address, tls=flower.parties["lima"].tls, patience=30.0)
    yield made
    made.close()


@pytest.mark.parametrize("size", [0, 1000, PIECE, PIECE + 1000])
def test_a_store_that_is_full_for_a_while_gets_the_whole_upload(
    flower: Flower, store: HttpBlobs, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    data = bytes(size - 1) + b"a" if size else b""
    ref, put, refused = blob_ref(data), type(flower.blobs).put, list[str]()

    def full_at_first(self: Any, *given: Any) -> None:
        if len(refused) < 2:
            refused.append("full")
            raise StoreFailed("no room")
        put(self, *given)

    flower.blobs._path(ref).unlink(missing_ok=True)  # another file's tests may have put the empty blob
    monkeypatch.setattr(type(flower.blobs), "put", full_at_first)
    store.put(ref, [data])
    assert len(refused) == 2
    assert b"".join(flower.blobs.read(ref)) == data


def test_a_piece_that_was_written_in_part_is_gone_on_with(
    flower: Flower, store: HttpBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(PIECE) + b"second" * 1000
    append, refused = uploads._append, list[int]()

    async def full_at_first(file: BinaryIO, stream: AsyncIterator[bytes], end: int) -> None:
        if not refused:
            refused.append(end)
            file.write(await anext(stream))
            raise OSError(errno.ENOSPC, "No space left on device")
        await append(file, stream, end)

    monkeypatch.setattr(uploads, "_append", full_at_first)
    store.put(blob_ref(data), [data])
    assert refused == [PIECE]
    assert b"".join(flower.blobs.read(blob_ref(data))) == data


def test_a_store_that_stays_full_is_named_when_patience_is_over(
    flower: Flower, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StoreFailed("no room")

    monkeypatch.setattr(type(flower.blobs), "put", full)
    store = HttpBlobs(address=flower.address, tls=flower.parties["lima"].tls, patience=0.0)
    with pytest.raises(StoreFailed, match=r"the coordinator cannot store sha256:[0-9a-f]{64} of 4 bytes"):
        store.put(blob_ref(b"full"), [b"full"])
    store.close()
    assert not flower.blobs.has(blob_ref(b"full"))
