"""Signed lists of files: the manifest of an evidence folder, and that of a bundle of several parties' evidence.

A list carries the signer's public key, so that a changed byte is found before anybody's identity is known; whose key it
is, the alliance's members' list says (step 3 of the auditor).

    evidence folder of a job     manifest.dsse.json, `EvidenceManifest`: every other file
    bundle, one zip file         bundle.dsse.json, `EvidenceBundle`: every other file; of an institution's jobs
                                 only jobs/JOB/manifest.dsse.json, which lists the rest of the folder
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from fl_alliance.errors import AllianceError, EvidenceRefused, NotAuthentic, StoreFailed
from fl_alliance.evidence.files import EvidenceFiles, FolderFiles
from fl_alliance.evidence.keys import IdentityKey, public_key_of
from fl_alliance.evidence.sign import open_document, peek_document, sign_document
from fl_alliance.protocol.documents import EvidenceBundle, EvidenceManifest, ManifestFile
from fl_alliance.protocol.limits import MAX_MANIFEST_BYTES

MANIFEST: Final = "manifest.dsse.json"
BUNDLE: Final = "bundle.dsse.json"
JOBS: Final = "jobs"

L = TypeVar("L", EvidenceManifest, EvidenceBundle)


def write_manifest(folder: Path, key: IdentityKey, *, institution: str) -> bytes:
    """Write `manifest.dsse.json` over all files of `folder` and return its bytes. An older manifest is replaced.

    Raises:
        EvidenceRefused: a symlink or something that is not a plain file lies in the folder.
        StoreFailed: the folder can't be read or written.
    """
    try:
        for half in [path for path in folder.rglob(".*") if path.is_file()]:
            half.unlink()  # what a process left that was killed while it wrote; no file of evidence begins with a dot
        files = FolderFiles(folder)
        listed = tuple(described(files, name) for name in files.names() if name != MANIFEST)
        data = sign_document(key, EvidenceManifest(institution=institution, key=key.public_text, files=listed))
        draft = folder / f".{MANIFEST}.draft"
        draft.write_bytes(data)
        draft.replace(folder / MANIFEST)
    except OSError as error:
        raise StoreFailed(f"{folder}: {error.strerror}") from None
    except ValueError as error:
        raise EvidenceRefused(f"step 1, {MANIFEST}: can't list the files: {error}") from None
    return data


def check_manifest(where: Path | EvidenceFiles, public_key: bytes | None = None) -> EvidenceManifest:
    """Return the manifest of an evidence folder after every file was compared with it.

    With `public_key` the manifest must be signed with that key; without, with the key that it names itself, which
    shows only that nothing was changed since that key signed.

    Raises:
        EvidenceRefused: step 1; names the file that is missing, extra, changed, or not a plain file.
    """
    files = FolderFiles(where) if isinstance(where, Path) else where
    manifest = _open(files, MANIFEST, EvidenceManifest, public_key)
    _compare(files, manifest.files, MANIFEST, {MANIFEST})
    return manifest


def check_bundle(files: EvidenceFiles) -> EvidenceBundle:
    """Return what a bundle says of itself after every file was compared with its lists.

    Raises:
        EvidenceRefused: step 1, as `check_manifest`; or a job's folder is not one of the jobs that are named.
    """
    bundle = _open(files, BUNDLE, EvidenceBundle, None)
    names = files.names()
    folders = {name.split("/")[1] for name in names if name.startswith(f"{JOBS}/")}
    for job in sorted(folders ^ set(bundle.jobs)):
        why = f"is not one of the jobs that {BUNDLE} names" if job in folders else f"is missing, {BUNDLE} names it"
        raise EvidenceRefused(f"step 1, {JOBS}/{job}: {why}")
    own = {file.name for file in bundle.files}
    lists = [f"{JOBS}/{job}/{MANIFEST}" for job in bundle.jobs] if bundle.role == "institution" else []
    if bundle.role == "institution":
        _require_listed_once(own, lists)
    theirs = tuple(name.removesuffix(MANIFEST) for name in lists if name in own)
    besides = {name for name in names if name.startswith(theirs) and name not in own} if theirs else set[str]()
    _compare(files, bundle.files, BUNDLE, {BUNDLE, *besides})
    return bundle


def _require_listed_once(own: set[str], lists: Iterable[str]) -> None:
    """An institution's job lists its own files, and nobody else does: two lists could disagree."""
    for name in sorted(own - set(lists)):
        if name.startswith(f"{JOBS}/"):
            raise EvidenceRefused(f"step 1, {name}: is listed in {BUNDLE}, must be in its job's {MANIFEST} alone")


def described(files: EvidenceFiles, name: str) -> ManifestFile:
    """Return name, digest and length of a file (EvidenceRefused: step 1; it can't be read)."""
    try:
        return ManifestFile(name=name, digest=files.digest(name), length=files.length(name))
    except StoreFailed as error:
        raise EvidenceRefused(f"step 1, {name}: {error}") from None


def _open(files: EvidenceFiles, name: str, kind: type[L], public_key: bytes | None) -> L:
    try:
        if name not in files.names():
            raise NotAuthentic("is missing or not a plain file")
        if (length := files.length(name)) > MAX_MANIFEST_BYTES:
            raise NotAuthentic(f"{length} bytes, at most {MAX_MANIFEST_BYTES} are accepted")
        data = files.read(name)
        named = public_key_of(peek_document(data, kind, limit=MAX_MANIFEST_BYTES).key)
        if public_key is not None and public_key != named:
            raise NotAuthentic("names another key than the expected one")
        return open_document(data, kind, public_key=named, limit=MAX_MANIFEST_BYTES)
    except EvidenceRefused:
        raise
    except AllianceError as error:
        raise EvidenceRefused(f"step 1, {name}: {error}") from None


def _compare(files: EvidenceFiles, listed: Iterable[ManifestFile], where: str, besides: set[str]) -> None:
    """Return if exactly the files `listed` in `where` are there, unchanged; `besides` are listed elsewhere."""
    right: Mapping[str, ManifestFile] = {file.name: file for file in listed}
    present = set(files.names()) - besides
    for name in sorted(set(right) - present):
        raise EvidenceRefused(f"step 1, {name}: is missing, {where} lists it")
    for name in sorted(present - set(right)):
        raise EvidenceRefused(f"step 1, {name}: is not listed in {where}")
    for name, file in right.items():
        found = described(files, name)
        if file.length != found.length:
            raise EvidenceRefused(f"step 1, {name}: {found.length} bytes, {where} says {file.length}")
        if file.digest != found.digest:
            raise EvidenceRefused(f"step 1, {name}: digest {found.digest}, {where} says {file.digest}")
