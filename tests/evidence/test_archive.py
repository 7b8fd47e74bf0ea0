"""The one zip file: its bytes follow from its files, other tools read it, every other spelling is refused by name."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fl_alliance.errors import EvidenceRefused, StoreFailed
from fl_alliance.evidence import archive as archives
from fl_alliance.evidence.archive import Archive, archive_of
from fl_alliance.evidence.files import ArchiveFiles

FILES = {"bundle.dsse.json": b"{}", "jobs/a/ledger.jsonl": b"one\ntwo\n", "jobs/a/log/leaves": b""}


def made(files: Mapping[str, bytes] = FILES) -> bytes:
    return b"".join(archive_of(files, files.__getitem__))


def opened(data: bytes) -> Archive:
    return Archive(io.BytesIO(data), len(data))


def refusal(data: bytes) -> str:
    with pytest.raises(EvidenceRefused) as error:
        opened(data)
    assert str(error.value).startswith("step 0, ")
    return str(error.value).removeprefix("step 0, ")


def test_an_archive_gives_back_its_files() -> None:
    archive = opened(made())
    assert archive.names == tuple(FILES)
    assert {name: archive.read(name) for name in archive.names} == FILES
    assert [archive.length(name) for name in archive.names] == [2, 8, 0]
    part = ArchiveFiles(archive, "jobs/a")
    assert part.names() == ("ledger.jsonl", "log/leaves")
    assert part.read("ledger.jsonl") == b"one\ntwo\n"
    with pytest.raises(StoreFailed, match="is missing"):
        part.read("bundle.dsse.json")


def test_the_bytes_are_these_for_ever() -> None:
    """Field by field, from APPNOTE 4.3.7, 4.3.12 and 4.3.16."""
    crc = 0x8CDC1683
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 10, 0, 0, 0, 33, crc, 1, 1, 1, 0)
    sizes = struct.pack("<IIIHHHHHII", crc, 1, 1, 1, 0, 0, 0, 0, 0o100644 << 16, 0)
    central = struct.pack("<4sHHHHHH", b"PK\1\2", 0x0314, 10, 0, 0, 0, 33) + sizes
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(central) + 1, len(local) + 2, 0)
    assert made({"a": b"x"}) == local + b"a" + b"x" + central + b"a" + end


def test_the_order_in_which_files_are_given_does_not_count() -> None:
    assert made(dict(reversed(FILES.items()))) == made()


def test_another_program_for_zip_files_reads_the_same() -> None:
    with zipfile.ZipFile(io.BytesIO(made())) as read:
        assert read.testzip() is None
        assert {name: read.read(name) for name in read.namelist()} == FILES


def test_more_files_than_16_bits_count_are_read_here_and_elsewhere() -> None:
    many = {f"f{number:05d}": b"" for number in range(65_536)}
    data = made(many)
    assert len(opened(data).names) == 65_536
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        assert len(read.namelist()) == 65_536
    for place in (-22 - 20 - 56, -22 - 20, -22, -22 - 20 - 8):
        assert refusal(flipped(data, len(data) + place)).startswith("archive: ")


def flipped(data: bytes, place: int, bit: int = 0) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def test_every_single_bit_counts() -> None:
    data = made()
    for place in range(len(data)):
        for bit in range(8):
            refusal(flipped(data, place, bit))


def test_every_cut_and_every_byte_more_is_found() -> None:
    data = made()
    for place in range(len(data)):
        refusal(data[:place])
        refusal(data[:place] + b"\0" + data[place:])
    assert refusal(data + b"\0") == "archive: something follows its end"


def zipped(*entries: tuple[str, bytes], comment: bytes = b"", **fields: object) -> bytes:
    """A zip file as Python writes it, with our fields but for those that the test changes."""
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w") as file:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            usual = {"extract_version": 10, "create_system": 3, "external_attr": 0o100644 << 16}
            for field, value in {**usual, **fields}.items():
                setattr(info, field, value)
            file.writestr(info, data)
        file.comment = comment
    return place.getvalue()


def test_python_writes_the_same_bytes_where_it_is_told_the_same_fields() -> None:
    assert zipped(*FILES.items()) == made()


def ours(data: bytes, *changes: tuple[bytes, bytes]) -> bytes:
    for old, new in changes:
        assert old in data
        assert len(old) == len(new)
        data = data.replace(old, new)
    return data


TRICKS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "archive: does not begin with a file"),
    "no zip file": (b"\x89PNG\r\n" * 20, "archive: does not begin with a file"),
    "an empty zip file": (zipped(), "archive: does not begin with a file"),
    "something in front, as in a program that unpacks itself": (b"#!/bin/sh\n" + made(), "archive: does not begin"),
    "a comment": (made()[:-2] + b"\x02\x00hi", "archive: the central directory"),
    "a comment of the archive": (zipped(("a", b"x"), comment=b"hi"), "archive: the central directory"),
    "a text file, as the directory says": (zipped(("a", b"x"), internal_attr=1), "a: the central directory"),
    "a bomb": (zipped(("a", bytes(1 << 20)), compress_type=zipfile.ZIP_DEFLATED), "a: its local header"),
    "compressed, though there is nothing": (zipped(("a", b""), compress_type=zipfile.ZIP_DEFLATED), "a: its local"),
    "an extra field": (zipped(("a", b"x"), extra=b"\xfe\xca\0\0"), "a: its local header"),
    "64-bit lengths": (zipped(("a", b"x"), extra=b"\x99\0\x10\0" + bytes(16)), "a: its local header"),
    "a date": (zipped(("a", b"x"), date_time=(2026, 1, 1, 0, 0, 0)), "a: its local header"),
    "made elsewhere": (zipped(("a", b"x"), create_system=0), "a: the central directory"),
    "a file that runs": (zipped(("a", b"x"), external_attr=0o100755 << 16), "a: the central directory"),
    "a symbolic link": (zipped(("a", b"/etc/passwd"), external_attr=0o120777 << 16), "a: the central directory"),
    "a newer reader needed": (zipped(("a", b"x"), extract_version=20), "a: its local header"),
    "an encrypted file": (
        ours(made(), (b"\x0a\0\0\0\0\0\0\0\x21", b"\x0a\0\1\0\0\0\0\0\x21")),
        "bundle.dsse.json: its local header",
    ),
    "a folder": (zipped(("jobs/", b"")), "'jobs/': no name of evidence"),
    "a file twice": (zipped(("a", b"x"), ("a", b"y")), "a: comes after a"),
    "another order": (zipped(("b", b"x"), ("a", b"y")), "a: comes after b"),
    "letters of another script": (zipped(("jobs/\u0430/plan", b"")), "'jobs/\\ufffd\\ufffd/plan': no name"),
    "a capital letter, for disks that know none": (zipped(("Bundle.dsse.json", b"")), "'Bundle.dsse.json': no name"),
    "a way out": (zipped(("../a", b"")), "'../a': no name of evidence"),
    "a place on the disk": (zipped(("/etc/passwd", b"")), "'/etc/passwd': no name of evidence"),
    "a way out by a backslash": (zipped(("a\\..\\b", b"")), "'a\\\\..\\\\b': no name of evidence"),
    "a hidden file": (zipped((".a", b"")), "'.a': no name of evidence"),
    "a line end in a name": (zipped(("a\n", b"")), "'a\\n': no name of evidence"),
    "an end of text in a name": (ours(made({"a0b": b""}), (b"a0b", b"a\0b")), "'a\\x00b': no name of evidence"),
}  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_refused_by_name(trick: str) -> None:
    data, why = TRICKS[trick]
    assert refusal(data).startswith(why)


Lie = Callable[[list[archives.Member]], list[archives.Member]]


def told(monkeypatch: pytest.MonkeyPatch, lie: Lie) -> bytes:
    """An archive whose central directory is that of other members."""
    right = archives._directory
    monkeypatch.setattr(archives, "_directory", lambda members, offset: right(lie(members), offset))
    data = made()
    monkeypatch.setattr(archives, "_directory", right)
    return data


LIES: dict[str, tuple[Lie, str]] = {
    "a member that only the directory has": (lambda found: [*found, found[-1]], "archive"),
    "a member that the directory leaves out": (lambda found: found[:-1], "jobs/a/log/leaves"),
    "two entries for one member": (lambda found: [found[0], found[0], *found[2:]], "jobs/a/ledger.jsonl"),
    "another order in the directory": (lambda found: [found[1], found[0], found[2]], "bundle.dsse.json"),
    "another name in the directory": (
        lambda found: [archives.Member("bundle.dsse.jsoo", found[0].length, found[0].crc, 0), *found[1:]],
        "bundle.dsse.json",
    ),
    "a longer file in the directory": (
        lambda found: [archives.Member(found[0].name, found[0].length + 1, found[0].crc, 0), *found[1:]],
        "bundle.dsse.json",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_directory_that_tells_of_other_files_is_refused(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs believe the directory, or the local headers: here both must say the same."""
    change, name = LIES[lie]
    assert refusal(told(monkeypatch, change)).startswith(f"{name}: the central directory is not the one")


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("a", "a/b"), "a/b: a is a file, not a folder"),
        (("a", "a-b", "a.b", "a/b/c"), "a/b/c: a is a file, not a folder"),
        (("a", "a"), "a: comes after a"),
        (("a", "A"), "'A': no name"),
        (("x" * 301,), f"'{'x' * 301}': no name"),
    ],
)
def test_no_archive_is_made_that_could_not_be_read(names: tuple[str, ...], why: str) -> None:
    with pytest.raises(EvidenceRefused) as error:
        list(archive_of(names, lambda _: b""))
    assert str(error.value).startswith(f"step 0, {why}")


def test_a_file_that_is_also_a_folder_is_not_read() -> None:
    data = ours(made({"a": b"", "a-b": b""}), (b"a-b", b"a/b"))
    assert refusal(data) == "a/b: a is a file, not a folder"


def test_too_much_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = made()
    monkeypatch.setattr(archives, "MAX_BUNDLE_BYTES", len(data) - 1)
    assert refusal(data) == f"archive: {len(data)} bytes, at most {len(data) - 1} are accepted"
    monkeypatch.undo()
    monkeypatch.setattr(archives, "MAX_BUNDLE_FILES", 2)
    assert refusal(data) == "jobs/a/log/leaves: an archive holds at most 2 files: take fewer jobs"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvidenceRefused, match=r"^step 0, archive: .*none\.zip can't be read: No such file"):
        Archive.open(tmp_path / "none.zip")
