"""Blobs in a folder: the contract, and what kill -9, a full disk and a second process do to it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_alliance.errors import NotAuthentic, StoreFailed
from fl_alliance.protocol.ids import blob_ref
from fl_alliance.protocol.ports import Blobs
from fl_alliance.store.blobs import FolderBlobs
from tests.store.contracts import BlobsContract
from tests.transport import stores

PUTTER = """
import resource, sys
from pathlib import Path
from fl_alliance.errors import StoreFailed
from fl_alliance.protocol.ids import blob_ref
from fl_alliance.store.blobs import FolderBlobs
blobs = FolderBlobs(Path(sys.argv[1]))
data = bytes(range(256)) * 4000
"""
STOPS_HALFWAY = (
    PUTTER
    + """
def halfway():
    yield data[:500_000]
    print("halfway", flush=True)
    sys.stdin.readline()
    yield data[500_000:]
blobs.put(blob_ref(data), halfway())
print("stored", flush=True)
"""
)
FULL_DISK = (
    PUTTER
    + """
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    blobs.put(blob_ref(data), [data[:int(sys.argv[2])], data[int(sys.argv[2]):]])
except StoreFailed as error:
    print(error)
else:
    print("stored", blobs.has(blob_ref(data)))
"""
)
DATA = bytes(range(256)) * 4000


def putter(code: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


class TestFolderBlobs(BlobsContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Blobs:
        return FolderBlobs(tmp_path)


class TestTheDoubleOfTheTransportTests(BlobsContract):
    """The transport may not import the real store: its double is held to the same promises."""

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Blobs:
        return stores.FolderBlobs(tmp_path)


def test_an_endless_source_is_cut_off_at_the_stated_length(tmp_path: Path) -> None:
    taken = []

    def endless() -> Iterator[bytes]:
        for number in range(100):
            taken.append(number)
            yield DATA[:100_000]

    with pytest.raises(NotAuthentic, match=f"longer than the {len(DATA)} bytes stated"):
        FolderBlobs(tmp_path).put(blob_ref(DATA), endless())
    assert len(taken) == len(DATA) // 100_000 + 1


def test_a_blob_is_a_file_named_by_its_digest_for_its_owner_only(tmp_path: Path) -> None:
    FolderBlobs(tmp_path).put(blob_ref(DATA), [DATA])
    (file,) = tmp_path.iterdir()
    assert file.name == hashlib.sha256(DATA).hexdigest()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes() == DATA


@pytest.mark.parametrize("given", [[DATA[:-1]], [DATA, b"x"]])
def test_nothing_of_a_refused_blob_stays_in_the_folder(tmp_path: Path, given: list[bytes]) -> None:
    with pytest.raises(NotAuthentic, match="blob sha256"):
        FolderBlobs(tmp_path).put(blob_ref(DATA), given)
    assert list(tmp_path.iterdir()) == []


def test_killed_in_the_middle_no_half_blob_shows_and_the_next_put_is_whole(tmp_path: Path) -> None:
    process = putter(STOPS_HALFWAY, tmp_path)
    assert heard(process) == "halfway"
    process.kill()
    process.communicate()
    blobs = FolderBlobs(tmp_path)
    assert not blobs.has(blob_ref(DATA))
    with pytest.raises(StoreFailed):
        list(blobs.read(blob_ref(DATA)))
    blobs.put(blob_ref(DATA), [DATA])
    assert b"".join(blobs.read(blob_ref(DATA))) == DATA


def test_killed_as_soon_as_it_says_so_the_blob_is_whole(tmp_path: Path) -> None:
    process = putter(STOPS_HALFWAY, tmp_path)
    assert heard(process) == "halfway"
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert heard(process) == "stored"
    process.kill()
    process.communicate()
    assert b"".join(FolderBlobs(tmp_path).read(blob_ref(DATA))) == DATA


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_put_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 can't show it, a power cut would."""
    blobs, synced = FolderBlobs(tmp_path), []

    def watched(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name[:6], blobs.has(blob_ref(DATA))))
        fsync(descriptor)

    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", watched)
    blobs.put(blob_ref(DATA), [DATA])
    assert synced == [(".part-", False), (tmp_path.name[:6], True)]


def test_two_processes_put_the_same_blob_at_once(tmp_path: Path) -> None:
    processes = [putter(STOPS_HALFWAY, tmp_path) for _ in range(2)]
    assert [heard(process) for process in processes] == ["halfway"] * 2
    for process in processes:
        assert process.communicate("\n")[0] == "stored\n"
        assert b"".join(FolderBlobs(tmp_path).read(blob_ref(DATA))) == DATA
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("first", [0, 999_999, 1_000_001])
def test_a_disk_that_fills_up_is_a_named_error_and_nothing_is_kept(tmp_path: Path, first: int) -> None:
    """The system writes what still fits and raises nothing: whoever does not look keeps a short file."""
    said, _ = putter(FULL_DISK, tmp_path, str(first)).communicate()
    assert said == f"blob {blob_ref(DATA).digest} of {len(DATA)} bytes: File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_used_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFailed, match=r"Not a directory|File exists"):
        FolderBlobs(tmp_path / "file" / "blobs")
    blobs = FolderBlobs(tmp_path / "blobs")
    (tmp_path / "blobs").rmdir()
    with pytest.raises(StoreFailed, match="No such file"):
        blobs.put(blob_ref(DATA), [DATA])


def test_a_blob_that_was_cut_on_the_disk_is_not_there(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    blobs.put(blob_ref(DATA), [DATA])
    blobs.path(blob_ref(DATA)).write_bytes(DATA[:-1])
    assert not blobs.has(blob_ref(DATA))
    blobs.put(blob_ref(DATA), [DATA])
    assert b"".join(blobs.read(blob_ref(DATA))) == DATA


def test_a_reader_keeps_its_blob_while_another_put_ends(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)

    def twice() -> Iterator[bytes]:
        blobs.put(blob_ref(DATA), [DATA])
        reading.append(blobs.read(blob_ref(DATA), 0, 1000))
        assert next(reading[0]) == DATA[:1000]
        yield DATA

    reading: list[Iterator[bytes]] = []
    blobs.put(blob_ref(DATA), twice())
    assert b"".join(reading[0]) == DATA[1000:]
