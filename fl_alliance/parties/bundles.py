"""What a party hands to an auditor: one zip file with the evidence of some jobs, or of all jobs of a period.

    bundle.dsse.json          `EvidenceBundle`, signed by the party: of whom, which jobs, and every file
    jobs/JOB/...              an institution's evidence folder of that job, with its manifest

The archive is written whole or not at all, one file in memory at a time; the same files and time give the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fl_alliance.errors import BadConfig
from fl_alliance.evidence.archive import archive_of
from fl_alliance.evidence.bundle import BUNDLE, JOBS, MANIFEST, check_manifest
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import open_document, sign_document
from fl_alliance.parties.config import Whereabouts, load
from fl_alliance.parties.files import read_file, write_pieces_atomically
from fl_alliance.parties.setup import Keys
from fl_alliance.protocol.documents import EvidenceBundle, ManifestFile, PrivacyReport
from fl_alliance.protocol.ids import digest_of


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which jobs a bundle shall hold: those named, or those whose report is of the period."""

    jobs: Collection[str] = ()
    """By name; empty: all of the period."""
    since: int | None = None
    """Unix seconds, included; None: from the first job on."""
    until: int | None = None

    @classmethod
    def of(cls, jobs: Collection[str], since: str | None, until: str | None) -> Wanted:
        """Return what a person asked for, with days as `2026-01-31` (BadConfig: a day is none)."""
        last = None if until is None else _midnight("until", until) + 86_399
        return cls(jobs=tuple(jobs), since=None if since is None else _midnight("since", since), until=last)

    def has(self, job: str, moment: int) -> bool:
        """Say whether a job that ended at `moment` is wanted."""
        named = not self.jobs or job in self.jobs
        return named and (self.since is None or self.since <= moment) and (self.until is None or moment <= self.until)


def _midnight(field: str, day: str) -> int:
    """Return the second, UTC, with which a day begins."""
    try:
        return int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except (ValueError, OverflowError):
        raise BadConfig(f"{field}: {day!r} is no day, must be like 2026-01-31") from None


def institution_bundle(
    home: Path, out: Path, wanted: Wanted, *, clock: Callable[[], float] = time.time
) -> EvidenceBundle:
    """Write the evidence of the finished jobs that are `wanted` to `out`; return what the bundle says of itself.

    Raises:
        BadConfig: no finished job is wanted, or a named one is none; names those that are here.
        EvidenceRefused: a job's evidence is not as its manifest says, or too much for one file.
        StoreFailed: it can't be read or written.
    """
    place = load(Whereabouts, home / "institution.toml")
    identity = IdentityKey.load(Keys(home).identity)
    files: dict[str, Path] = {}
    jobs = list(_finished(home / "jobs", identity, wanted))
    for job in jobs:
        folder = home / "jobs" / job / "evidence"
        manifest = check_manifest(folder, identity.public)
        for name in (MANIFEST, *(file.name for file in manifest.files)):
            files[f"{JOBS}/{job}/{name}"] = folder / name
    bundle = EvidenceBundle(
        alliance=place.alliance,
        role="institution",
        party=place.name,
        key=identity.public_text,
        since=wanted.since,
        until=wanted.until,
        jobs=tuple(jobs),
        files=tuple(_listed(files, [f"{JOBS}/{job}/{MANIFEST}" for job in jobs])),
        time=int(clock()),
    )
    _write(out, files, sign_document(identity, bundle))
    return bundle


def _finished(jobs: Path, identity: IdentityKey, wanted: Wanted) -> Iterator[str]:
    """Yield the finished jobs that are wanted: they have a manifest and, in it, a report with its time."""
    finished = {path.parts[-3] for path in jobs.glob(f"*/evidence/{MANIFEST}")}
    known = f"finished here: {', '.join(sorted(finished)) or 'none'}"
    for job in wanted.jobs:
        if job not in finished:
            raise BadConfig(f"job: {job!r} is no finished job; {known}")
    found = False
    for job in sorted(finished):
        data = read_file(jobs / job / "evidence" / "report.dsse.json", "report of a job")
        report = open_document(data, PrivacyReport, public_key=identity.public)
        if wanted.has(job, report.time):
            found = True
            yield job
    if not found:
        raise BadConfig(f"since, until: no job ended then; {known}")


def _listed(files: Mapping[str, Path], names: Collection[str]) -> Iterator[ManifestFile]:
    for name in sorted(names):
        data = read_file(files[name], "file of evidence")
        yield ManifestFile(name=name, digest=digest_of(data), length=len(data))


def _write(out: Path, files: Mapping[str, Path], envelope: bytes) -> None:
    def read(name: str) -> bytes:
        return envelope if name == BUNDLE else read_file(files[name], "file of evidence")

    write_pieces_atomically(out, archive_of([BUNDLE, *files], read))
