"""Sign lists of files and make them one zip file, in memory, as the party does; or whoever else has a key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

from fl_alliance.evidence.archive import archive_of
from fl_alliance.evidence.bundle import BUNDLE, JOBS, MANIFEST
from fl_alliance.evidence.sign import sign_document
from fl_alliance.protocol.documents import EvidenceBundle, EvidenceManifest, ManifestFile
from fl_alliance.protocol.ids import digest_of
from tests.evidence.alliance import key_of
from tests.evidence.paper import NOW, Files, Paper


def listed(files: Mapping[str, bytes]) -> tuple[ManifestFile, ...]:
    return tuple(
        ManifestFile(name=name, digest=digest_of(data), length=len(data)) for name, data in sorted(files.items())
    )


STANDING: Final = ("root.pub.json", "members.dsse.json", "policy.dsse.json", "ledger.jsonl")

UNREAD: ContextVar[str] = ContextVar("UNREAD", default="")
"""Files of a job to leave out (a pattern): those that only later steps read than the one that refuses."""


def manifested(files: Mapping[str, bytes], name: str = "lagos", *, signer: str = "", **changes: Any) -> Files:
    """The files of one job with a manifest over them; an older one is replaced."""
    rest = {file: data for file, data in files.items() if file != MANIFEST}
    if unread := UNREAD.get():
        rest = {file: data for file, data in rest.items() if not re.match(unread, file)}
    key = key_of(signer or name)
    manifest = EvidenceManifest(institution=name, key=key.public_text, files=listed(rest)).model_copy(update=changes)
    return {**rest, MANIFEST: sign_document(key, manifest)}


def bundled(
    jobs: Mapping[str, Mapping[str, bytes]], name: str = "lagos", *, signer: str = "", more: Files | None = None,
    **changes: Any,
) -> Files:  # fmt: skip
    """The files of a bundle of `jobs`, whose manifests are there.

    `more` are files besides them, by default those of the last job.
    """
    key = key_of(signer or name)
    last = jobs[max(jobs)] if jobs else {}
    more = {file: last[file] for file in STANDING if file in last} if more is None else more
    files = more | {f"{JOBS}/{job}/{file}": data for job, part in jobs.items() for file, data in part.items()}
    own = more | {f"{JOBS}/{job}/{MANIFEST}": part[MANIFEST] for job, part in jobs.items() if MANIFEST in part}
    bundle = EvidenceBundle(
        alliance="clinics", role="institution", party=name, key=key.public_text, since=None, until=None,
        jobs=tuple(sorted(jobs)), files=listed(own), time=NOW + 86_400,
    ).model_copy(update=changes)  # fmt: skip
    return files | {BUNDLE: sign_document(key, bundle)}


def zipped(files: Mapping[str, bytes]) -> bytes:
    return b"".join(archive_of(files, files.__getitem__))


def handed_out(paper: Paper, *jobs: str, name: str = "lagos", **changes: Any) -> bytes:
    """The bundle of these jobs of an institution, or of all of them, as it comes out of its house."""
    wanted = jobs or [job for who, job in paper.evidence if who == name]
    parts = {job: manifested(paper.evidence[name, job], name) for job in wanted}
    return zipped(bundled(parts, name, more=paper.standing(name), **changes))


def coordinators(
    jobs: Mapping[str, Mapping[str, bytes]], more: Files, *, signer: str = "office", **changes: Any
) -> Files:
    """The files of the coordinator's bundle: one list names all of them."""
    key = key_of(signer)
    files = more | {f"{JOBS}/{job}/{file}": data for job, part in jobs.items() for file, data in part.items()}
    bundle = EvidenceBundle(
        alliance="clinics", role="coordinator", party="office", key=key.public_text, since=None, until=None,
        jobs=tuple(sorted(jobs)), files=listed(files), time=NOW + 86_400,
    ).model_copy(update=changes)  # fmt: skip
    return files | {BUNDLE: sign_document(key, bundle)}


def handed_out_by_the_coordinator(paper: Paper, *jobs: str, **changes: Any) -> bytes:
    """The coordinator's bundle of these jobs."""
    return zipped(coordinators({job: paper.relayed(job) for job in jobs}, paper.standing("office"), **changes))
