"""Blobs by fsspec: the contract on three stores, and what an S3 store shows of an upload that breaks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl_alliance.errors import BadConfig, NotAuthentic, StoreFailed
from fl_alliance.protocol.ids import blob_ref
from fl_alliance.protocol.ports import Blobs
from fl_alliance.store.remote_blobs import FsspecBlobs
from tests.store.contracts import BlobsContract
from tests.store.s3 import Bucket

PARTS = bytes(range(256)) * (17 << 12)
"""Seventeen MiB: more than two parts of an upload."""


@pytest.fixture
def stored(bucket: Bucket) -> Blobs:
    return bucket.stored


class TestMemory(BlobsContract):
    @pytest.fixture
    def blobs(self) -> Blobs:
        return FsspecBlobs(f"memory://{secrets.token_hex(6)}")


class TestLocalFiles(BlobsContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Blobs:
        return FsspecBlobs(f"file://{tmp_path}/blobs")


class TestS3(BlobsContract):
    @pytest.fixture
    def blobs(self, stored: Blobs) -> Blobs:
        return stored


def test_an_object_is_named_by_its_digest_below_the_prefix(stored: Blobs, bucket: Bucket) -> None:
    ref = blob_ref(PARTS)
    stored.put(ref, (PARTS[at : at + 1_000_003] for at in range(0, len(PARTS), 1_000_003)))
    assert bucket.objects() == {f"alliance/blobs/{ref.digest.removeprefix('sha256:')}": len(PARTS)}
    assert b"".join(stored.read(ref, 9_000_000)) == PARTS[9_000_000:]
    assert bucket.unfinished() == []


@pytest.mark.parametrize("last", [b"!", b"", None], ids=["other-bytes", "too-short", "source-breaks"])
def test_an_upload_that_breaks_after_some_parts_shows_nothing_and_leaves_no_part(
    stored: Blobs, bucket: Bucket, last: bytes | None
) -> None:
    seen = []

    def source() -> Iterator[bytes]:
        yield PARTS[:-1]
        seen.append((bucket.objects(), len(bucket.unfinished())))
        if last is None:
            raise ConnectionError("the member went away")
        yield last

    with pytest.raises((NotAuthentic, ConnectionError)):
        stored.put(blob_ref(PARTS), source())
    assert seen == [({}, 1)]
    assert bucket.objects() == {}
    assert bucket.unfinished() == []


def test_two_put_the_same_blob_at_once(stored: Blobs, bucket: Bucket) -> None:
    other = FsspecBlobs(f"s3://{bucket.name}/alliance/blobs")

    def meanwhile() -> Iterator[bytes]:
        yield b"by"
        other.put(blob_ref(b"bytes"), [b"bytes"])
        assert stored.has(blob_ref(b"bytes"))
        yield b"tes"

    stored.put(blob_ref(b"bytes"), meanwhile())
    assert b"".join(stored.read(blob_ref(b"bytes"))) == b"bytes"
    assert len(bucket.objects()) == 1


def test_an_object_that_was_cut_in_the_store_is_not_there(stored: Blobs, bucket: Bucket) -> None:
    stored.put(blob_ref(b"bytes"), [b"bytes"])
    (key,) = bucket.objects()
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"byte")
    assert not stored.has(blob_ref(b"bytes"))
    stored.put(blob_ref(b"bytes"), [b"bytes"])
    assert b"".join(stored.read(blob_ref(b"bytes"))) == b"bytes"


def test_an_object_that_goes_in_the_middle_of_a_read_is_a_named_error(stored: Blobs, bucket: Bucket) -> None:
    stored.put(blob_ref(PARTS), [PARTS])
    reading = stored.read(blob_ref(PARTS))
    assert next(reading) == PARTS[: 1 << 20]
    (key,) = bucket.objects()
    bucket.client.delete_object(Bucket=bucket.name, Key=key)
    with pytest.raises(StoreFailed, match=blob_ref(PARTS).digest):
        list(reading)


def test_a_bucket_that_is_not_there_is_a_named_error(bucket: Bucket) -> None:
    blobs = FsspecBlobs("s3://no-such-bucket/blobs")
    with pytest.raises(StoreFailed, match="bucket does not exist"):
        blobs.put(blob_ref(b"bytes"), [b"bytes"])


def test_a_transfer_takes_some_pieces_of_memory_and_not_the_blob(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    stored = bucket.stored
    fetch = stored._store.cat_file

    def watched(path: str, start: int, end: int) -> Any:
        asked.append(end - start)
        return fetch(path, start=start, end=end)

    monkeypatch.setattr(stored._store, "cat_file", watched)
    stored.put(blob_ref(PARTS), [PARTS])
    assert sum(len(chunk) for chunk in stored.read(blob_ref(PARTS))) == len(PARTS)
    assert asked == [8 << 20, 8 << 20, 1 << 20]


def test_a_protocol_that_nobody_knows_is_a_wrong_setting() -> None:
    with pytest.raises(BadConfig, match="blobs: nothing://there"):
        FsspecBlobs("nothing://there/at-all")
