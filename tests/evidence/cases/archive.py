"""Step 0: a zip file that two programs could read in two ways, or that says more than its files, is none."""

from __future__ import annotations

import functools
import struct
from dataclasses import replace

from tests.evidence.cases.case import OUTSIDER, refused
from tests.evidence.cases.doctor import tiny
from tests.evidence.cases.zips import Entry, entries_of, placed, with_fields, written
from tests.evidence.sealing import zipped

LIST, MEMBERS, KEY = "bundle.dsse.json", "members.dsse.json", "root.pub.json"
archive = functools.partial(refused, 0, by=OUTSIDER)


def whole() -> bytes:
    return zipped(tiny())


def added(name: str, data: bytes = b"", **changes: object) -> bytes:
    """The honest archive with one file more, in its place."""
    return written(sorted([*entries_of(tiny()), Entry(name=name.encode(), data=data, **changes)], key=lambda e: e.name))  # type: ignore[arg-type]


@archive(KEY, "CRC-32")
def zip_flipped_bit() -> bytes:
    """One bit of one file is another, as on a failing disk."""
    data, place = whole(), whole().index(b"alliance-root")
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@archive(MEMBERS, "the archive ends before")
def zip_truncated_in_a_file() -> bytes:
    """The file ends in the middle of the list of members, as after a broken transfer."""
    return whole()[: whole().index(tiny()[MEMBERS]) + 100]


@archive("archive", "central directory")
def zip_truncated_by_one_byte() -> bytes:
    """Only the last byte is missing; most programs open it."""
    return whole()[:-1]


@archive("archive", "something follows its end")
def zip_trailing_byte() -> bytes:
    """One byte more at the end; most programs open it."""
    return whole() + b"\0"


@archive("archive", "does not begin with a file")
def zip_leading_script() -> bytes:
    """A shell script stands in front, as in a file that unpacks itself; most programs open it."""
    return b"#!/bin/sh\n" + whole()


@archive("archive", "does not begin with a file")
def zip_empty_file() -> bytes:
    """Nothing at all."""
    return b""


@archive("archive", "does not begin with a file")
def zip_without_files() -> bytes:
    """A zip file of no files: only the record of its end."""
    return written([])


@archive("archive", "central directory")
def zip_with_a_comment() -> bytes:
    """The archive has a comment, which no list covers."""
    return written(entries_of(tiny()), comment=b"epsilon is 0.1")


@archive(MEMBERS, "comes after")
def zip_duplicate_name() -> bytes:
    """There are two lists of members: some programs take the first one, others the last."""
    twice = [*entries_of(tiny()), Entry(name=MEMBERS.encode(), data=b"{}")]
    return written(sorted(twice, key=lambda entry: entry.name))


@archive("'../members.dsse.json'", "no name of evidence")
def zip_path_out_of_the_folder() -> bytes:
    """A file's name leads out of the folder into which somebody may unpack."""
    return added("../members.dsse.json")


@archive("'/etc/cron.d/job'", "no name of evidence")
def zip_absolute_path() -> bytes:
    """A file's name is a place on the disk."""
    return added("/etc/cron.d/job")


@archive(MEMBERS, "central directory")
def zip_symbolic_link() -> bytes:
    """The list of members is a symbolic link, by its attributes."""
    return written(with_fields(tiny(), MEMBERS, attributes=0o120777 << 16))


@archive("'jobs/'", "no name of evidence")
def zip_folder_entry() -> bytes:
    """A folder has an entry of its own."""
    return added("jobs/", attributes=0o40755 << 16)


@archive(MEMBERS, "local header")
def zip_deflated() -> bytes:
    """One file is packed (RFC 1951): the same contents, other bytes, and a way to a bomb."""
    data = tiny()[MEMBERS]
    packed = b"\1" + struct.pack("<2H", len(data), len(data) ^ 0xFFFF) + data
    return written(with_fields(tiny(), MEMBERS, method=8, stored=packed))


@archive(MEMBERS, "local header")
def zip_encrypted_flag() -> bytes:
    """One file says that it is encrypted; it is not."""
    return written(with_fields(tiny(), MEMBERS, flags=1))


@archive(MEMBERS, "local header")
def zip_64_bit_lengths() -> bytes:
    """One file says its lengths again with 64 bits, in an extra field."""
    size = len(tiny()[MEMBERS])
    return written(with_fields(tiny(), MEMBERS, extra=struct.pack("<2H2Q", 1, 16, size, size)))


@archive(MEMBERS, "central directory")
def zip_other_name_in_the_directory() -> bytes:
    """The directory calls the list of members by another name than its local header: programs show one or the other."""
    found = entries_of(tiny())
    told = [replace(entry, name=entry.name.replace(b"members", b"Members")) for entry in placed(found)]
    return written(found, told)


@archive(MEMBERS, "central directory")
def zip_file_that_the_directory_hides() -> bytes:
    """A file is there and in the signed list, and the directory leaves it out."""
    found = entries_of(tiny())
    return written(found, [entry for entry in placed(found) if entry.name != MEMBERS.encode()])


@archive(MEMBERS, "central directory")
def zip_overlapping_entries() -> bytes:
    """Two entries of the directory share the bytes of one file."""
    found = entries_of(tiny())
    told = placed(found)
    first = told[0].offset
    return written(found, [replace(e, offset=first) if e.name == MEMBERS.encode() else e for e in told])


@archive("'Bundle.dsse.json'", "no name of evidence")
def zip_name_in_capitals() -> bytes:
    """A second list whose name differs by one capital letter: on some disks both are one file."""
    return added("Bundle.dsse.json", tiny()[LIST])


@archive("'pl\\ufffd\\ufffdn.dsse.json'", "no name of evidence")
def zip_name_in_another_script() -> bytes:
    """A second plan, in whose name a Cyrillic letter looks like an `a`."""
    return added("pl\u0430n.dsse.json", flags=0x800)


@archive("archive", "a name of 301 bytes")
def zip_name_too_long() -> bytes:
    """A name of 301 bytes; 300 are allowed."""
    return added("x" * 301)


@archive(LIST, "comes after")
def zip_unsorted() -> bytes:
    """The files are in another order: the same contents, another digest of the whole."""
    return written([*entries_of(tiny())[1:], entries_of(tiny())[0]])


@archive(MEMBERS, "local header")
def zip_dated() -> bytes:
    """One file has a date: bytes that nothing decides."""
    return written(with_fields(tiny(), MEMBERS, date=(46 << 9) | 33))


@archive(LIST, "central directory")
def zip_gap_between_files() -> bytes:
    """Four bytes between two files belong to neither."""
    return written(with_fields(tiny(), MEMBERS, after=b"gap!"))


@archive("members.dsse.json/more", "is a file, not a folder")
def zip_file_that_is_a_folder() -> bytes:
    """A file's name is also the name of a folder of another one: no disk can hold both."""
    return added("members.dsse.json/more")
