"""The auditor's parsers: a bundle's bytes, and what is behind its signatures when those who signed it lie together."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path

from fl_alliance.errors import StoreFailed
from fl_alliance.evidence.archive import Archive, archive_of
from fl_alliance.evidence.bundle import BUNDLE, MANIFEST, check_bundle
from fl_alliance.evidence.files import ArchiveFiles
from fl_alliance.evidence.sign import peek_document, read_envelope, sign_message
from fl_alliance.parties import auditor
from fl_alliance.parties.audit_bundle import BundleAudit
from fl_alliance.parties.audit_refusals import check_refusal
from fl_alliance.parties.mail import Address, write_answer, write_request
from fl_alliance.parties.refusals import PROPOSAL, REFUSAL, REFUSALS, name_of
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import EvidenceBundle
from fl_alliance.protocol.ids import digest_of
from tests.evidence.alliance import key_of
from tests.evidence.folder import ME
from tests.evidence.house import small_bundle
from tests.fuzz.parsers import Parser

JOB = "jobs/job-1/"
SIGNERS = {"members.dsse.json": "root", "policy.dsse.json": ME, "report.dsse.json": ME, "ledger.jsonl": ME}
"""Of the others: the coordinator of documents, and of a message whoever its file names."""


class MemoryFiles:
    """Files in memory."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._files))

    def length(self, name: str) -> int:
        return len(self.read(name))

    def digest(self, name: str) -> str:
        return digest_of(self.read(name))

    def read(self, name: str) -> bytes:
        if name not in self._files:
            raise StoreFailed("is missing")
        return self._files[name]


class BehindTheManifest(auditor._InstitutionSteps):
    """All steps but the first: what a manifest lists, its signer can list anew."""

    def _manifest(self) -> tuple[str, bytes]:
        self._names = self._source.names()
        return ME, key_of(ME).public


def parsers(folder: Path) -> list[Parser]:
    data = small_bundle(folder).read_bytes()
    archive = Archive(io.BytesIO(data), len(data))
    files = {name: archive.read(name) for name in archive.names}
    job = {name.removeprefix(JOB): found for name, found in files.items() if name.startswith(JOB)}
    del job[MANIFEST]
    return [
        Parser("evidence: bundle", [data], whole),
        Parser("evidence: archive", [b"".join(archive_of(["a", "b/c"], str.encode))], opened),
        Parser("evidence: list by a liar", [read_envelope(files[BUNDLE]).body], listed(files)),
        Parser("evidence: job", [name.encode() + b"\0" + found for name, found in job.items()], spoilt(job)),
        Parser("evidence: job by liars", [seed(name, found) for name, found in job.items()], resigned(job)),
        Parser("evidence: besides, by a liar", besides_seeds(files), besides(files)),
        refusals(files),
    ]


def opened(data: bytes) -> Archive:
    return Archive(io.BytesIO(data), len(data))


def whole(data: bytes) -> None:
    check_bundle(ArchiveFiles(opened(data)))


def listed(files: Mapping[str, bytes]) -> Callable[[bytes], None]:
    def parse(data: bytes) -> None:
        check_bundle(MemoryFiles({**files, BUNDLE: document(ME, data)}))

    return parse


def document(signer: str, payload: bytes) -> bytes:
    return sign_message(key_of(signer), "application/vnd.in-toto+json", payload)


def spoilt(job: Mapping[str, bytes]) -> Callable[[bytes], None]:
    """Any file of the job is another one; nothing is signed again but the manifest."""

    def parse(data: bytes) -> None:
        name, _, body = data.partition(b"\0")
        verify({**job, named(name, job): body})

    return parse


def verify(files: Mapping[str, bytes]) -> None:
    BehindTheManifest(MemoryFiles(files), lambda *_: None).run(None)


def named(name: bytes, files: Mapping[str, bytes]) -> str:
    """The file that a spoilt name stands for: one that is there."""
    text = name.decode("latin-1")
    return text if text in files else sorted(files)[len(name) % len(files)]


def seed(name: str, data: bytes) -> bytes:
    """File and what is inside its signature; of the ledger the first line."""
    if name.endswith(".jsonl"):
        data = data.split(b"\n")[0]
    inside = read_envelope(data).body if signed(name) else data
    return name.encode() + b"\0" + inside


def signed(name: str) -> bool:
    return name.endswith((".dsse.json", ".jsonl")) or "/messages/" in name


def resigned(job: Mapping[str, bytes]) -> Callable[[bytes], None]:
    """Root, coordinator and every member sign whatever is asked of them."""

    def parse(data: bytes) -> None:
        start, _, body = data.partition(b"\0")
        name = named(start, job)
        if name.endswith(".jsonl"):
            body = document(ME, body) + b"\n"
        elif "/messages/" in name:
            label = read_envelope(job[name]).payload_type
            body = sign_message(key_of(label.split("|")[2]), label, body)
        elif signed(name):
            body = document(SIGNERS.get(name, "office"), body)
        verify({**job, name: body})

    return parse


def besides_seeds(files: Mapping[str, bytes]) -> list[bytes]:
    own = {name: data for name, data in files.items() if "/" not in name and name != BUNDLE}
    return [seed(name, data) for name, data in own.items()]


def besides(files: Mapping[str, bytes]) -> Callable[[bytes], None]:
    bundle = peek_document(files[BUNDLE], EvidenceBundle)
    own = {name: data for name, data in files.items() if "/" not in name and name != BUNDLE}

    def parse(data: bytes) -> None:
        start, _, body = data.partition(b"\0")
        name = named(start, own)
        if signed(name):
            body = document(SIGNERS.get(name, "office"), body) + (b"\n" if name.endswith(".jsonl") else b"")
        audit = BundleAudit(MemoryFiles({**own, name: body}), lambda *_: None)
        root = audit.root(None)
        audit.members(bundle, root)
        audit.standing(bundle, root)

    return parse


def refusals(files: Mapping[str, bytes]) -> Parser:
    bundle = peek_document(files[BUNDLE], EvidenceBundle)
    bound = {"alliance": "clinics", "job": "job-1", "round": 0}
    texts = {name: base64.b64encode(files[f"{JOB}{name}"]).decode() for name in ("plan.dsse.json", "members.dsse.json")}
    shown = base64.b64encode(files[f"{JOB}log/checkpoint-0000.dsse.json"]).decode()
    asked = m.Proposal(
        **bound, plan=texts["plan.dsse.json"], members=texts["members.dsse.json"], last_seen=None, checkpoint=shown
    )
    keys = {"office": key_of("office").public}
    question = write_request(Address("office", "office", keys), key_of("office"), ME, asked)
    refusal = m.Refusal(**bound, request_digest=digest_of(encode(asked)), error="PlanDeclined", reason="not this one")
    address = Address(ME, "office", keys)
    folder = f"{REFUSALS}/{name_of(question)}"
    label = read_envelope(write_answer(address, key_of(ME), refusal)).payload_type

    def parse(data: bytes) -> None:
        answer = sign_message(key_of(ME), label, data)
        kept = MemoryFiles({f"{folder}/{PROPOSAL}": question, f"{folder}/{REFUSAL}": answer})
        check_refusal(kept, folder, bundle, key_of("root").public)

    return Parser("evidence: refusal by a liar", [encode(refusal)], parse)
