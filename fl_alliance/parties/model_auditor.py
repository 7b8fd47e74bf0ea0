"""What anybody runs on a released adapter's folder, offline and without torch: numbered steps, named refusals.

    (1) files        the five files of a released adapter, plain ones, and nothing else
    (2) provenance   signed with the key that it names; every file is the one that it names
    (3) signature    an OpenSSF model signature, by the key that the provenance certifies, over every other file
    (4) adapter      its two files are the adapter that the report names; its weights are no pickle
    (5) card         the bytes that the signed provenance makes: no other epsilon, no other word
    (6) evidence     holds; its institution, key, plan, report and last record are the provenance's; a quorum voted

Without an evidence folder step 6 is left out, and said to be: then the folder is only checked against itself, and by
the key whose fingerprint step 2 prints. Not checked in any case: what the auditor of evidence can't either.
"""

from __future__ import annotations

import base64
import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from fl_alliance.errors import AllianceError, BadConfig, EvidenceRefused, NotAuthentic
from fl_alliance.evidence.adapter import ADAPTER_FILES, CARD, PROVENANCE, SIGNATURE, digest_of_adapter, file_at
from fl_alliance.evidence.keys import public_key_of
from fl_alliance.evidence.model_signature import check_model_signature
from fl_alliance.evidence.sign import open_document, peek_document
from fl_alliance.parties.audit_rules import require_same
from fl_alliance.parties.auditor import MEMBERS, PLAN, REPORT, verify_evidence
from fl_alliance.privacy.model_card import render_card
from fl_alliance.protocol.documents import AllianceMembers, ModelProvenance, PrivacyReport
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.limits import MAX_BLOB_BYTES, MAX_MESSAGE_BYTES
from fl_alliance.protocol.plan import TrainingPlan

WEIGHTS: Final = ADAPTER_FILES[1]
FILES: Final = (CARD, *ADAPTER_FILES, SIGNATURE, PROVENANCE)
PICKLES: Final = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")


@dataclass(frozen=True, kw_only=True)
class ModelFindings:
    """What a released adapter's folder shows."""

    institution: str
    alliance: str
    job: str
    key: str
    """Fingerprint of the key that signed the provenance."""
    epsilon: Decimal
    delta: Decimal
    adapter_digest: str
    evidence_compared: bool


def verify_model(
    folder: Path, *, evidence: Path | None = None, root: str | None = None, say: Callable[[str], None]
) -> ModelFindings:
    """Verify the released adapter in `folder`; `say` is told each step's result.

    Raises:
        EvidenceRefused: "step N, FILE: why"; of the evidence's own steps "step 6, evidence: step N, FILE: why".
        BadConfig: `root` without `evidence`, which is where the root's key is.
    """
    if root is not None and evidence is None:
        raise BadConfig("root: the root's key is in the evidence folder, give --evidence as well")
    audit = _ModelAudit(folder, say)
    audit.files()
    provenance = audit.provenance()
    audit.signature(provenance)
    audit.adapter(provenance)
    audit.card(provenance)
    audit.evidence(provenance, evidence, root)
    report = provenance.report
    return ModelFindings(
        institution=report.institution,
        alliance=report.alliance,
        job=report.job,
        key=digest_of(public_key_of(provenance.key)),
        epsilon=Decimal(report.epsilon_pld),
        delta=Decimal(report.delta),
        adapter_digest=report.adapter_digest,
        evidence_compared=evidence is not None,
    )


class _ModelAudit:
    """One audit; each method is one step."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say

    # (1) Nothing is opened before all of it is known to be plain files of a sensible length.
    def files(self) -> None:
        with _step(1, self._folder.name or "folder"):
            if self._folder.is_symlink() or not self._folder.is_dir():
                raise NotAuthentic("is not a folder")
            found = sorted(self._folder.iterdir())
        for path in found:
            with _step(1, path.name):
                _require_plain(path, path.lstat())
        for name in sorted(set(FILES) - {path.name for path in found}):
            raise EvidenceRefused(f"step 1, {name}: is missing, every released adapter has it")
        self._say(f"(1) files: {len(FILES)}, plain ones, and nothing else")

    # (2) The provenance says how the adapter came to be, and names each file by its digest.
    def provenance(self) -> ModelProvenance:
        data = self._read(2, PROVENANCE)
        with _step(2, PROVENANCE):
            key = public_key_of(peek_document(data, ModelProvenance).key)
            provenance = open_document(data, ModelProvenance, public_key=key)
            named = {file.name: file.digest for file in provenance.files}
            if set(named) != {CARD, *ADAPTER_FILES}:
                raise NotAuthentic(f"names {', '.join(named)}; must name {', '.join((CARD, *ADAPTER_FILES))}")
        for name, digest in named.items():
            with _step(2, name):
                if (seen := file_at(self._folder / name).digest) != digest:
                    raise NotAuthentic(f"digest {seen}, {PROVENANCE} says {digest}")
        report = provenance.report
        self._say(
            f"(2) provenance: job {report.job} of {report.alliance}, {len(named)} files as {report.institution} "
            f"signed with key {digest_of(key)}"
        )
        return provenance

    # (3) The model signature, for tools that know nothing of us, is by the institution's certified key.
    def signature(self, provenance: ModelProvenance) -> None:
        with _step(3, SIGNATURE):
            others = (*provenance.files, file_at(self._folder / PROVENANCE))
            check_model_signature(self._folder, base64.b64decode(provenance.model_key), others)
        self._say(f"(3) signature: OpenSSF model signature over {len(others)} files, by the key of the provenance")

    # (4) One digest over both files is what members vote on.
    def adapter(self, provenance: ModelProvenance) -> None:
        with _step(4, WEIGHTS):
            digest = digest_of_adapter(provenance.files)
            require_same({"adapter_digest": (digest, provenance.report.adapter_digest)})
            _require_safetensors(self._folder / WEIGHTS)
        self._say(f"(4) adapter: {digest}, as in the report; safetensors, no code in it")

    # (5) Whatever the card says follows from what was signed: rendered again, it has the same bytes.
    def card(self, provenance: ModelProvenance) -> None:
        data, report = self._read(5, CARD), provenance.report
        with _step(5, CARD):
            right = render_card(provenance, adapter_digest=report.adapter_digest)
            if data != right:
                raise NotAuthentic(_difference(data, right))
        self._say(f"(5) card: as the provenance makes it, epsilon {report.epsilon_pld} at delta {report.delta}")

    # (6) The evidence holds by itself, and is of this very adapter.
    def evidence(self, provenance: ModelProvenance, folder: Path | None, root: str | None) -> None:
        if folder is None:
            self._say("(6) evidence: NOT COMPARED: who voted, whose key it is and what it cost, only --evidence shows")
            return
        with _step(6, "evidence"):
            findings = verify_evidence(folder, root=root, say=lambda line: self._say(f"    {line}"))
            members = peek_document((folder / MEMBERS).read_bytes(), AllianceMembers)
            last = folder / "rounds" / f"{findings.rounds:04d}" / "record.dsse.json"
            report = provenance.report
            require_same(
                {
                    "institution": (report.institution, findings.institution),
                    "key": (provenance.key, members.member(findings.institution).identity),
                    "plan_digest": (provenance.plan_digest, digest_of((folder / PLAN).read_bytes())),
                    "report_digest": (provenance.report_digest, digest_of((folder / REPORT).read_bytes())),
                    "report": (report, peek_document((folder / REPORT).read_bytes(), PrivacyReport)),
                    "plan": (provenance.plan, peek_document((folder / PLAN).read_bytes(), TrainingPlan)),
                    "rounds": (provenance.rounds, findings.rounds),
                    "record_digest": (provenance.record_digest, digest_of(last.read_bytes())),
                    "adapter_digest": (report.adapter_digest, findings.adapter_digest),
                }
            )
        self._say(f"(6) evidence: holds, and is of this adapter; a quorum voted for {findings.adapter_digest}")

    def _read(self, step: int, name: str) -> bytes:
        with _step(step, name):
            return (self._folder / name).read_bytes()


def _require_plain(path: Path, found: os.stat_result) -> None:
    """Return if `path` is one of the five files; a link, a folder or another file is none, whatever it holds."""
    if stat.S_ISLNK(found.st_mode):
        raise NotAuthentic("is a symbolic link, must be a plain file")
    if not stat.S_ISREG(found.st_mode):
        raise NotAuthentic("is not a plain file")
    if path.suffix.lower() in PICKLES:
        raise NotAuthentic("is a pickle by its name: whoever loads it runs its code; a released adapter has none")
    if path.name not in FILES:
        raise NotAuthentic(f"does not belong here: a released adapter has {', '.join(FILES)}")
    most = MAX_BLOB_BYTES if path.name == WEIGHTS else MAX_MESSAGE_BYTES
    if found.st_size > most:
        raise NotAuthentic(f"{found.st_size} bytes, at most {most} are accepted")


def _require_safetensors(path: Path) -> None:
    """A safetensors file begins with the length of its JSON header (8 bytes, little-endian) and the header."""
    with path.open("rb") as file:
        start, size = file.read(9), os.fstat(file.fileno()).st_size
    if len(start) < 9 or start[8:] != b"{" or int.from_bytes(start[:8], "little") > size - 8:
        raise NotAuthentic("is not a safetensors file: a pickle in its place would run code where it is loaded")


def _difference(data: bytes, right: bytes) -> str:
    """Name the first line that is another one than the signed documents make."""
    said, made = (text.decode(errors="replace").split("\n") for text in (data, right))
    for number, (line, expected) in enumerate(zip(said, made, strict=False), 1):
        if line != expected:
            return f"line {number} is {line[:200]!r}, must be {expected[:200]!r}"
    return f"{len(said)} lines, must be {len(made)}"


@contextlib.contextmanager
def _step(number: int, file: str) -> Iterator[None]:
    """Name step and file in whatever is refused inside."""
    try:
        yield
    except AllianceError as error:
        raise EvidenceRefused(f"step {number}, {file}: {error}") from None
    except OSError as error:
        raise EvidenceRefused(f"step {number}, {file}: {error.strerror}") from None
