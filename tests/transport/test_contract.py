"""One contract for both carriers: the in-process one, and Flower with institutions in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_alliance.errors import LinkFailed, NotAuthentic, StoreFailed
from fl_alliance.protocol.ids import BlobRef, blob_ref, digest_of
from fl_alliance.protocol.ports import Blobs, CoordinatorLink
from fl_alliance.transport.flower.blobs import HttpBlobs
from fl_alliance.transport.local import LocalHub
from tests.transport.conftest import MEMBERS, Flower, all_replies
from tests.transport.member_process import handler
from tests.transport.stores import FolderBlobs


class LinkContract:
    @pytest.fixture
    def link(self) -> CoordinatorLink:
        raise NotImplementedError

    @pytest.mark.parametrize("size", [0, 1, 1 << 20])
    def test_each_member_answers_what_it_was_asked(self, link: CoordinatorLink, size: int) -> None:
        request = os.urandom(size)
        for member in MEMBERS:
            link.ask(member, request)
        found = all_replies(link, len(MEMBERS))
        assert sorted(reply.member for reply in found) == sorted(MEMBERS)
        assert {reply.payload for reply in found} == {request[::-1]}
        assert {reply.request for reply in found} == {digest_of(request)}
        assert {reply.failure for reply in found} == {None}

    def test_an_unknown_member_is_refused(self, link: CoordinatorLink) -> None:
        with pytest.raises(LinkFailed, match="nobody"):
            link.ask("nobody", b"")

    def test_the_text_of_an_exception_does_not_travel(self, link: CoordinatorLink) -> None:
        link.ask("lima", b"boom")
        (reply,) = all_replies(link, 1)
        assert reply.payload is None
        assert reply.failure is not None
        assert "ValueError" in reply.failure
        assert "private" not in reply.failure

    def test_every_member_is_online(self, link: CoordinatorLink) -> None:
        assert link.online() == set(MEMBERS)

    def test_without_requests_there_are_no_replies(self, link: CoordinatorLink) -> None:
        assert link.replies(0.05) == []


class TestLocalLink(LinkContract):
    @pytest.fixture
    def link(self, tmp_path: Path) -> CoordinatorLink:
        hub = LocalHub(MEMBERS, FolderBlobs(tmp_path))
        for member in MEMBERS:
            hub.attach(member, handler)
        return hub.coordinator_link()


class TestFlowerLink(LinkContract):
    @pytest.fixture
    def link(self, flower: Flower) -> CoordinatorLink:
        return flower.link


class BlobsContract:
    @pytest.fixture
    def blobs(self) -> Blobs:
        raise NotImplementedError

    @pytest.mark.parametrize("size", [0, 1, 8 << 20, (16 << 20) + 3])
    def test_what_is_put_can_be_read_from_any_offset(self, blobs: Blobs, size: int) -> None:
        data = os.urandom(size)
        ref = blob_ref(data)
        assert not blobs.has(ref) or size == 0
        blobs.put(ref, (data[i : i + 100_000] for i in range(0, size, 100_000)))
        blobs.put(ref, [data])
        assert blobs.has(ref)
        assert b"".join(blobs.read(ref)) == data
        assert b"".join(blobs.read(ref, size // 2, 1000)) == data[size // 2 :]

    @pytest.mark.parametrize("given", [b"other", b"bytes and more", b"byt"])
    def test_other_bytes_than_named_are_refused_and_nothing_is_kept(self, blobs: Blobs, given: bytes) -> None:
        ref = blob_ref(b"bytes")
        with pytest.raises(NotAuthentic):
            blobs.put(ref, [given])
        assert not blobs.has(ref)

    def test_a_missing_blob_cannot_be_read(self, blobs: Blobs) -> None:
        with pytest.raises(StoreFailed):
            list(blobs.read(blob_ref(b"never put")))

    def test_a_known_digest_with_another_length_is_not_there(self, blobs: Blobs) -> None:
        data = os.urandom(10)
        blobs.put(blob_ref(data), [data])
        assert not blobs.has(BlobRef(digest=digest_of(data), length=11))


class TestFolderBlobs(BlobsContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Blobs:
        return FolderBlobs(tmp_path)


class TestHttpBlobs(BlobsContract):
    @pytest.fixture
    def blobs(self, flower: Flower) -> Iterator[Blobs]:
        client = HttpBlobs(address=flower.address, tls=flower.parties["oslo"].tls, patience=5)
        yield client
        client.close()
