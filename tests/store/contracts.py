"""What every journal, keeper of replies and blob store promises. A new one is tested by naming it in a subclass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fl_alliance.errors import NotAuthentic, StoreFailed
from fl_alliance.protocol.ids import BlobRef, blob_ref, digest_of
from fl_alliance.protocol.ports import Blobs
from fl_alliance.store.journal import Journal


class JournalContract:
    """`again` opens the same journal a second time, as a restart does."""

    @pytest.fixture
    def again(self) -> Callable[[], Journal]:
        raise NotImplementedError

    @pytest.fixture
    def journal(self, again: Callable[[], Journal]) -> Journal:
        return again()

    def test_events_come_back_in_the_order_in_which_they_were_added(self, journal: Journal) -> None:
        given = [(f"kind-{number % 3}", bytes([number])) for number in range(40)]
        for kind, body in given:
            journal.append("job", kind, body)
        assert journal.events("job") == given

    def test_an_event_is_kept_to_the_byte(self, journal: Journal) -> None:
        bodies = [b"", b"\0", bytes(range(256)), b"x" * 3_000_000, "é\u2028".encode()]
        for body in bodies:
            journal.append("job", "kind", body)
        assert [body for _, body in journal.events("job")] == bodies

    def test_the_same_event_twice_is_two_events(self, journal: Journal) -> None:
        for _ in range(2):
            journal.append("job", "kind", b"same")
        assert journal.events("job") == [("kind", b"same")] * 2

    def test_jobs_do_not_see_one_another(self, journal: Journal) -> None:
        journal.append("job", "kind", b"1")
        journal.append("job-2", "kind", b"2")
        journal.append("JOB", "kind", b"3")
        assert journal.events("job") == [("kind", b"1")]
        assert journal.events("job-3") == []

    def test_what_was_added_is_there_after_a_restart(self, journal: Journal, again: Callable[[], Journal]) -> None:
        journal.append("job", "kind", b"1")
        second = again()
        assert second.events("job") == [("kind", b"1")]
        second.append("job", "kind", b"2")
        assert journal.events("job") == [("kind", b"1"), ("kind", b"2")]


class Broken(Exception):
    """Raised by a source of chunks: a link that went away."""


class BlobsContract:
    @pytest.fixture
    def blobs(self) -> Blobs:
        raise NotImplementedError

    @pytest.mark.parametrize("size", [0, 1, 1 << 20, (3 << 20) + 7])
    def test_what_is_put_is_read_from_any_offset_in_any_chunk(self, blobs: Blobs, size: int) -> None:
        data = bytes(index * 7 % 251 for index in range(min(size, 4096))) * (size // 4096 + 1)
        data = data[:size]
        blobs.put(blob_ref(data), (data[at : at + 65_536] for at in range(0, size, 65_536)))
        assert blobs.has(blob_ref(data))
        assert b"".join(blobs.read(blob_ref(data))) == data
        for offset in (0, 1, size // 2, max(0, size - 1), size, size + 5):
            chunks = list(blobs.read(blob_ref(data), offset, 100_003))
            assert b"".join(chunks) == data[offset:]
            assert all(0 < len(chunk) <= 100_003 for chunk in chunks)

    def test_no_chunk_and_empty_chunks_are_the_empty_blob(self, blobs: Blobs) -> None:
        assert not blobs.has(blob_ref(b""))
        blobs.put(blob_ref(b""), [])
        blobs.put(blob_ref(b"ab"), [b"", b"a", b"", b"b", b""])
        assert list(blobs.read(blob_ref(b""))) == []
        assert b"".join(blobs.read(blob_ref(b"ab"))) == b"ab"

    def test_a_blob_is_put_twice_as_once(self, blobs: Blobs) -> None:
        for _ in range(2):
            blobs.put(blob_ref(b"bytes"), [b"bytes"])
        assert b"".join(blobs.read(blob_ref(b"bytes"))) == b"bytes"

    @pytest.mark.parametrize("given", [[], [b"byte"], [b"Bytes"], [b"bytes", b"!"], [b"bytes and more"]])
    def test_other_bytes_than_named_are_refused_and_nothing_is_kept(self, blobs: Blobs, given: list[bytes]) -> None:
        with pytest.raises(NotAuthentic, match=blob_ref(b"bytes").digest):
            blobs.put(blob_ref(b"bytes"), given)
        assert not blobs.has(blob_ref(b"bytes"))
        blobs.put(blob_ref(b"bytes"), [b"bytes"])

    def test_a_stated_length_that_is_another_is_refused(self, blobs: Blobs) -> None:
        for length in (4, 6):
            with pytest.raises(NotAuthentic):
                blobs.put(BlobRef(digest=digest_of(b"bytes"), length=length), [b"bytes"])
        blobs.put(blob_ref(b"bytes"), [b"bytes"])
        other = BlobRef(digest=digest_of(b"bytes"), length=6)
        assert not blobs.has(other)
        with pytest.raises(StoreFailed):
            list(blobs.read(other))

    def test_a_source_that_breaks_leaves_nothing_and_its_own_error(self, blobs: Blobs) -> None:
        def breaks() -> Iterator[bytes]:
            yield b"by"
            raise Broken

        with pytest.raises(Broken):
            blobs.put(blob_ref(b"bytes"), breaks())
        assert not blobs.has(blob_ref(b"bytes"))
        blobs.put(blob_ref(b"bytes"), [b"bytes"])

    def test_a_half_written_blob_is_not_there(self, blobs: Blobs) -> None:
        ref, seen = blob_ref(b"bytes"), []

        def watched() -> Iterator[bytes]:
            for byte in b"bytes":
                seen.append(blobs.has(ref))
                yield bytes([byte])
            seen.append(blobs.has(ref))

        blobs.put(ref, watched())
        assert seen == [False] * 6
        assert blobs.has(ref)

    def test_a_missing_blob_can_not_be_read(self, blobs: Blobs) -> None:
        with pytest.raises(StoreFailed, match=blob_ref(b"never put").digest):
            list(blobs.read(blob_ref(b"never put")))
