"""The manifest of an evidence folder: every file's name, digest and length, signed by the institution.

The manifest carries the signer's public key, so that a changed byte is found before anybody's identity is known; whose
key it is, the alliance's members' list says (step 3 of the auditor).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from fl_alliance.errors import AllianceError, EvidenceRefused, NotAuthentic, StoreFailed
from fl_alliance.evidence.keys import IdentityKey, public_key_of
from fl_alliance.evidence.sign import open_document, peek_document, sign_document
from fl_alliance.protocol.documents import EvidenceManifest, ManifestFile
from fl_alliance.protocol.limits import MAX_MESSAGE_BYTES

MANIFEST = "manifest.dsse.json"


def write_manifest(folder: Path, key: IdentityKey, *, institution: str) -> bytes:
    """Write `manifest.dsse.json` over all files of `folder` and return its bytes. An older manifest is replaced.

    Raises:
        EvidenceRefused: a symlink or something that is not a plain file lies in the folder.
        StoreFailed: the folder can't be read or written.
    """
    try:
        for half in [path for path in folder.rglob(".*") if path.is_file()]:
            half.unlink()  # what a process left that was killed while it wrote; no file of evidence begins with a dot
        files = tuple(_described(folder, name) for name in sorted(_names(folder)) if name != MANIFEST)
        data = sign_document(key, EvidenceManifest(institution=institution, key=key.public_text, files=files))
        draft = folder / f".{MANIFEST}.draft"
        draft.write_bytes(data)
        draft.replace(folder / MANIFEST)
    except OSError as error:
        raise StoreFailed(f"{folder}: {error.strerror}") from None
    except ValueError as error:
        raise EvidenceRefused(f"step 1, {MANIFEST}: can't list the files: {error}") from None
    return data


def check_manifest(folder: Path, public_key: bytes | None = None) -> EvidenceManifest:
    """Return the manifest of `folder` after every file was compared with it.

    With `public_key` the manifest must be signed with that key; without, with the key that it names itself, which
    shows only that nothing was changed since that key signed.

    Raises:
        EvidenceRefused: step 1; names the file that is missing, extra, changed, or not a plain file.
    """
    manifest = _open(folder, public_key)
    present = set(_names(folder)) - {MANIFEST}
    listed = {file.name for file in manifest.files}
    for name in sorted(listed - present):
        raise EvidenceRefused(f"step 1, {name}: is missing, {MANIFEST} lists it")
    for name in sorted(present - listed):
        raise EvidenceRefused(f"step 1, {name}: is not listed in {MANIFEST}")
    for file in manifest.files:
        _compare(file, _described(folder, file.name))
    return manifest


def _open(folder: Path, public_key: bytes | None) -> EvidenceManifest:
    try:
        path = folder / MANIFEST
        if path.is_symlink() or not path.is_file():
            raise NotAuthentic("is missing or not a plain file")
        if path.stat().st_size > MAX_MESSAGE_BYTES:
            raise NotAuthentic(f"{path.stat().st_size} bytes, at most {MAX_MESSAGE_BYTES} are accepted")
        data = path.read_bytes()
        named = public_key_of(peek_document(data, EvidenceManifest).key)
        if public_key is not None and public_key != named:
            raise NotAuthentic("names another key than the expected one")
        return open_document(data, EvidenceManifest, public_key=named)
    except AllianceError as error:
        raise EvidenceRefused(f"step 1, {MANIFEST}: {error}") from None
    except OSError as error:
        raise EvidenceRefused(f"step 1, {MANIFEST}: {error.strerror}") from None


def _names(folder: Path) -> Iterator[str]:
    """Yield every file below `folder` as a relative name with forward slashes; refuse what is not a plain file."""
    for here, folders, files in os.walk(folder, followlinks=False):
        for name in (*folders, *files):
            path = Path(here) / name
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise EvidenceRefused(f"step 1, {relative}: is a symbolic link, must be a plain file")
            if name in files:
                if not path.is_file():
                    raise EvidenceRefused(f"step 1, {relative}: is not a plain file")
                yield relative


def _described(folder: Path, name: str) -> ManifestFile:
    try:
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return ManifestFile(name=name, digest=f"sha256:{digest}", length=os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise EvidenceRefused(f"step 1, {name}: {error.strerror}") from None


def _compare(listed: ManifestFile, found: ManifestFile) -> None:
    if listed.length != found.length:
        raise EvidenceRefused(f"step 1, {listed.name}: {found.length} bytes, {MANIFEST} says {listed.length}")
    if listed.digest != found.digest:
        raise EvidenceRefused(f"step 1, {listed.name}: digest {found.digest}, {MANIFEST} says {listed.digest}")
