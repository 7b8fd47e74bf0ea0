"""Every byte of a small bundle, changed one at a time: `python -m tests.evidence.flips`; `--sample N`: some of them.

A change must be found by step 0 or 1, of the bundle or of the job inside. It is a header's, or the CRC finds it; where
CRCs are made to fit (`fitting`), the digests in the signed lists do.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random

from fl_alliance.errors import EvidenceRefused
from fl_alliance.evidence.archive import Archive, archive_of
from fl_alliance.evidence.bundle import JOBS, check_bundle, check_manifest
from fl_alliance.evidence.files import ArchiveFiles


def check(data: bytes) -> None:
    """Steps 0 and 1, of the bundle and of each job."""
    archive = Archive(io.BytesIO(data), len(data))
    bundle = check_bundle(ArchiveFiles(archive))
    for job in bundle.jobs:
        check_manifest(ArchiveFiles(archive, f"{JOBS}/{job}"))


def missed(data: bytes, places: Iterable[int], found: Counter[str]) -> list[int]:
    """Return where a changed bit was not found; `found` counts the steps that found the others."""
    changed, wrong = bytearray(data), []
    for place in places:
        changed[place] ^= 1 << place % 8
        try:
            check(bytes(changed))
            wrong.append(place)
        except EvidenceRefused as error:
            found[f"step {error.parts[0]}"] += 1
        changed[place] ^= 1 << place % 8
    return wrong


def fitting(data: bytes, name: str, place: int) -> bytes:
    """The archive with one bit of one file changed, and CRC, headers and directory as if that were right."""
    archive = Archive(io.BytesIO(data), len(data))
    files = {one: archive.read(one) for one in archive.names}
    changed = bytearray(files[name])
    changed[place] ^= 1 << place % 8
    files[name] = bytes(changed)
    return b"".join(archive_of(files, files.__getitem__))


def main() -> None:
    from tests.evidence.house import small_bundle

    options = argparse.ArgumentParser(prog="python -m tests.evidence.flips")
    options.add_argument("--bundle", type=Path, help="instead of a small one that is made")
    options.add_argument("--sample", type=int, help="so many places, drawn; else every one")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = (given.bundle or small_bundle(Path(folder))).read_bytes()
    check(data)
    places: Iterable[int] = range(len(data))
    if given.sample is not None:
        places = Random(1).sample(range(len(data)), min(given.sample, len(data)))
    found: Counter[str] = Counter()
    began = time.process_time()
    wrong = missed(data, places, found)
    print(f"{len(data)} bytes, {found.total() + len(wrong)} changed one at a time, {time.process_time() - began:.0f} s")
    print("found:", ", ".join(f"{step}: {count}" for step, count in sorted(found.items())))
    print("not found:", len(wrong), wrong[:20])
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
