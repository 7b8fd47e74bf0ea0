"""What a party hands to an auditor: one zip file with the evidence of some jobs, or of all jobs of a period.

    bundle.dsse.json          `EvidenceBundle`, signed by the party: of whom, which jobs, and every file
    root.pub.json             the alliance's root key, as it was pinned here
    members.dsse.json         the newest list of members that was shown here
    policy.dsse.json          what the institution allows now
    ledger.jsonl              its data set's whole ledger, as it stands now
    refusals/JOB-DIGEST/...   a plan that was refused (`parties/refusals.py`)
    jobs/JOB/...              the evidence folder of a finished job, with its manifest

The archive is written whole or not at all, one file in memory at a time; the same files and time give the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from fl_alliance.errors import BadConfig
from fl_alliance.evidence.archive import archive_of
from fl_alliance.evidence.bundle import BUNDLE, JOBS, MANIFEST, check_manifest
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import open_document, sign_document
from fl_alliance.parties.auditor import LEDGER, MEMBERS, POLICY, REPORT, ROOT
from fl_alliance.parties.config import InstitutionConfig, load
from fl_alliance.parties.files import read_file, write_pieces_atomically
from fl_alliance.parties.refusals import PROPOSAL, REFUSAL, REFUSALS, refusals_in
from fl_alliance.parties.setup import Keys
from fl_alliance.protocol.documents import EvidenceBundle, ManifestFile, PrivacyReport
from fl_alliance.protocol.ids import digest_of
from fl_alliance.store.ledger_file import LedgerFile

Source = Path | bytes
"""Where the bytes of a file of a bundle are."""


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

    def require_known(self, known: Collection[str]) -> None:
        """Return if every named job is `known` (BadConfig: names those that are)."""
        for job in self.jobs:
            if job not in known:
                raise BadConfig(f"job: {job!r} is no finished job; finished here: {', '.join(sorted(known)) or 'none'}")

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
    """Write the evidence of the finished jobs, and of the refused plans, that are `wanted` to `out`.

    Returns: what the bundle says of itself.

    Raises:
        BadConfig: nothing is wanted that is here, or a named job is neither finished nor refused; names those that are.
        EvidenceRefused: a job's evidence is not as its manifest says, or too much for one file.
        StoreFailed: it can't be read or written.
    """
    config = load(InstitutionConfig, home / "institution.toml")
    identity = IdentityKey.load(Keys(home).identity)
    finished, refused = dict(_finished(home / "jobs", identity)), list(refusals_in(home))
    wanted.require_known({*finished, *(refusal.job for refusal in refused)})
    jobs = [job for job, moment in sorted(finished.items()) if wanted.has(job, moment)]
    refused = [refusal for refusal in refused if wanted.has(refusal.job, refusal.time)]
    if not jobs and not refused:
        raise BadConfig(f"since, until: no job ended then; finished here: {', '.join(sorted(finished)) or 'none'}")
    contents = _standing(home, config, identity)
    contents |= {
        f"{REFUSALS}/{refusal.folder.name}/{name}": refusal.folder / name
        for refusal in refused
        for name in (PROPOSAL, REFUSAL)
    }
    own = set(contents)
    for job in jobs:
        folder = home / "jobs" / job / "evidence"
        manifest = check_manifest(folder, identity.public)
        own.add(f"{JOBS}/{job}/{MANIFEST}")
        for name in (MANIFEST, *(file.name for file in manifest.files)):
            contents[f"{JOBS}/{job}/{name}"] = folder / name
    return write_bundle(
        out, contents, own, wanted, identity=identity, moment=int(clock()),
        alliance=config.alliance, role="institution", party=config.name, jobs=jobs,
    )  # fmt: skip


def _standing(home: Path, config: InstitutionConfig, identity: IdentityKey) -> dict[str, Source]:
    """Return what is no job's: who it is, what it allows now, all that its data set ever gave."""
    ledger = LedgerFile(
        home / config.data.ledger, public_key=identity.public, institution=config.name, dataset=config.data.name
    )
    keys = Keys(home)
    return {
        ROOT: keys.root_public,
        MEMBERS: keys.members,
        POLICY: home / POLICY,
        LEDGER: b"".join(line + b"\n" for line in ledger.lines()),
    }


def _finished(jobs: Path, identity: IdentityKey) -> Iterator[tuple[str, int]]:
    """Yield each finished job and when it ended: it has a manifest and, in it, a report with its time."""
    for path in sorted(jobs.glob(f"*/evidence/{MANIFEST}")):
        data = read_file(path.with_name(REPORT), "report of a job")
        yield path.parts[-3], open_document(data, PrivacyReport, public_key=identity.public).time


def _listed(contents: Mapping[str, Source], names: Collection[str]) -> Iterator[ManifestFile]:
    """Yield digest and length of the files `names` among `contents`, sorted."""
    for name in sorted(names):
        data = _read(contents[name])
        yield ManifestFile(name=name, digest=digest_of(data), length=len(data))


def write_bundle(
    out: Path, contents: Mapping[str, Source], own: Collection[str], wanted: Wanted, *,
    identity: IdentityKey, moment: int,
    alliance: str, role: Literal["institution", "coordinator"], party: str, jobs: Sequence[str],
) -> EvidenceBundle:  # fmt: skip
    """Write the archive of `contents` to `out`, whole or not at all, and return what it says of itself.

    `own` are the files that it lists itself; the rest is in a job's manifest. `moment` in Unix seconds.
    """
    bundle = EvidenceBundle(
        alliance=alliance,
        role=role,
        party=party,
        key=identity.public_text,
        since=wanted.since,
        until=wanted.until,
        jobs=tuple(jobs),
        files=tuple(_listed(contents, own)),
        time=moment,
    )
    everything: dict[str, Source] = {**contents, BUNDLE: sign_document(identity, bundle)}
    write_pieces_atomically(out, archive_of(everything, lambda name: _read(everything[name])))
    return bundle


def _read(source: Source) -> bytes:
    return source if isinstance(source, bytes) else read_file(source, "file of evidence")
