"""One ledger entry, verified again from the files when its page is asked for: who signed it, what it is chained to,
which round's record names it, and where that record and the signed update are in the coordinator's log.

Every number on the pages comes from ledger entries. So this is where a number ends: in bytes that somebody signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from fl_alliance.errors import AllianceError, NotAuthentic
from fl_alliance.evidence.bundle import BUNDLE
from fl_alliance.evidence.log import head_entry, leaf_of, open_checkpoint, record_entry
from fl_alliance.evidence.merkle import climb, require_inclusion
from fl_alliance.evidence.sign import open_document, read_envelope
from fl_alliance.parties.audit_log import LEAVES, LOG, checkpoint_name, leaf_tree
from fl_alliance.parties.audit_pages.evidence import Evidence, House
from fl_alliance.parties.audit_rules import charges_of
from fl_alliance.parties.auditor import LEDGER, PLAN, REPORT
from fl_alliance.parties.mail import Address, read_answer
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import LedgerEntry, LogCheckpoint, PrivacyReport, RoundRecord, ledger_genesis
from fl_alliance.protocol.envelope import Envelope
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.log import LogEntry

T = TypeVar("T")

HEX: Final = "sha256:"


@dataclass(frozen=True)
class Check:
    """One thing that was verified again."""

    what: str
    file: str
    holds: bool
    found: str
    """What it shows; or why it does not hold."""


@dataclass(frozen=True, kw_only=True)
class LogPath:
    """That an entry is in the coordinator's log: every hash from its leaf to the root that the coordinator signed."""

    entry: LogEntry
    leaf: bytes
    index: int
    """From 0."""
    checkpoint: LogCheckpoint
    checkpoint_file: str
    steps: tuple[tuple[bool, bytes, bytes], ...]
    """See `merkle.climb`."""


@dataclass
class Proof:
    """What was found about one entry."""

    entry: LedgerEntry
    digest: str
    evidence: Evidence | None
    """Of the job that the entry charges; None: it was not given."""
    envelope: bytes = b""
    """The signed line of the ledger as it is now; empty: it can't be read."""
    checks: list[Check] = field(default_factory=list)
    record: str = ""
    """File of the record that names the entry as its institution's ledger head; empty: none does."""
    paths: list[LogPath] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether everything does."""
        return all(check.holds for check in self.checks)

    @property
    def opened(self) -> Envelope:
        """The envelope's parts; only of an envelope that holds."""
        return read_envelope(self.envelope)

    def check(self, what: str, file: str, look: Callable[[], tuple[T, str]]) -> T | None:
        """Note what `look` finds and says, or why it refuses."""
        try:
            found, said = look()
        except AllianceError as error:
            self.checks.append(Check(what, file, False, str(error)))
            return None
        self.checks.append(Check(what, file, True, said))
        return found


def prove(house: House, sequence: int) -> Proof:
    """Return entry `sequence` of the house's ledger, verified again from the files as they are now.

    Raises:
        KeyError: the ledger has no such entry.
    """
    ledger = house.ledger
    if not 1 <= sequence <= len(ledger.entries):
        raise KeyError(sequence)
    entry, digest = ledger.entries[sequence - 1], ledger.digests[sequence - 1]
    proof = Proof(entry, digest, house.of_job((entry.alliance, entry.job)))
    lines = proof.check("ledger", LEDGER, lambda: _lines(house))
    if lines is not None:
        proof.envelope = lines[sequence - 1]
        proof.check("signature", LEDGER, lambda: _signature(house, proof))
        proof.check("entry before", LEDGER, lambda: _before(house, proof, lines))
        after = _after if sequence < len(lines) else _end
        proof.check(
            "named by", LEDGER if sequence < len(lines) else _end_file(house, proof), lambda: after(house, proof, lines)
        )
    if proof.evidence is not None:
        _in_its_job(proof, proof.evidence)
    return proof


def _lines(house: House) -> tuple[list[bytes], str]:
    lines = house.read_ledger().split(b"\n")[:-1]
    if tuple(map(digest_of, lines)) != house.ledger.digests:
        raise NotAuthentic("is not the ledger that was verified when these pages were started: start them again")
    return lines, f"{len(lines)} lines, unchanged since these pages were started"


def _signature(house: House, proof: Proof) -> tuple[LedgerEntry, str]:
    institution = proof.entry.institution
    key = house.newest.key_of(institution)
    entry = open_document(proof.envelope, LedgerEntry, public_key=key)
    if entry != proof.entry:
        raise NotAuthentic(f"entry {proof.entry.sequence} says something else than when it was verified")
    return entry, f"signed by {institution} with key {digest_of(key)}, which the list of members names"


def _before(house: House, proof: Proof, lines: list[bytes]) -> tuple[None, str]:
    sequence = proof.entry.sequence
    before = digest_of(lines[sequence - 2]) if sequence > 1 else ledger_genesis(*house.name)
    if proof.entry.previous != before:
        raise NotAuthentic(f"names {proof.entry.previous} as the entry before, which is {before}")
    named = f"entry {sequence - 1}" if sequence > 1 else "the beginning of this ledger: it is the first"
    return None, f"the entry names the digest of {named}"


def _after(house: House, proof: Proof, lines: list[bytes]) -> tuple[None, str]:
    """The entry after this one names it."""
    key, sequence = house.newest.key_of(proof.entry.institution), proof.entry.sequence
    named = open_document(lines[sequence], LedgerEntry, public_key=key).previous
    return _named(proof, f"entry {sequence + 1}", named)


def _end(house: House, proof: Proof, lines: list[bytes]) -> tuple[None, str]:
    """The last entry is named by the report of a job; or the signed list of a bundle names the whole file."""
    one = _reported(house, proof)
    if one is not None:
        key = one.key_of(proof.entry.institution)
        report = open_document(one.read(REPORT), PrivacyReport, public_key=key)
        return _named(proof, "the signed report", report.ledger_head)
    whole = digest_of(b"".join(line + b"\n" for line in lines))
    if house.today is None or house.today.listed != whole:
        raise NotAuthentic(f"no signed report or list names a ledger that ends with entry {proof.entry.sequence}")
    return None, f"the bundle's list, signed by {proof.entry.institution}, names the ledger that ends with this entry"


def _reported(house: House, proof: Proof) -> Evidence | None:
    heads = {one.findings.sources.report.ledger_head: one for one in house.evidence}
    return heads.get(proof.digest)


def _end_file(house: House, proof: Proof) -> str:
    return BUNDLE if _reported(house, proof) is None else REPORT


def _named(proof: Proof, who: str, named: str) -> tuple[None, str]:
    if named != digest_of(proof.envelope):
        raise NotAuthentic(f"{who} names {named}, this entry is {digest_of(proof.envelope)}")
    return None, f"{who}, signed by {proof.entry.institution}, names the digest of this entry"


def _in_its_job(proof: Proof, evidence: Evidence) -> None:
    """Follow the entry into the evidence of the job that it charges."""
    proof.check("plan", PLAN, lambda: _charge(proof, evidence))
    number = _round_of(proof, evidence)
    if number is None:
        return
    where = f"rounds/{number:04d}"
    record = proof.check("record", f"{where}/record.dsse.json", lambda: _record(proof, evidence, number))
    if record is None:
        return
    proof.record = f"{where}/record.dsse.json"
    update = f"{where}/messages/sealed-update.{proof.entry.institution}.json"
    head = proof.check("update", update, lambda: _update(proof, evidence, update))
    for entry in (head, record):
        if entry is not None:
            path = proof.check(f"log: {entry.kind}", LOG, lambda entry=entry: log_path(evidence, entry))  # type: ignore[misc]
            if path is not None:
                proof.paths.append(path)


def _round_of(proof: Proof, evidence: Evidence) -> int | None:
    """Return the round whose record names the entry; None: it was charged, and no sum was opened."""
    for record in evidence.findings.sources.records:
        if any(head.head == proof.digest for head in record.ledger_heads):
            return record.round
    return None


def _charge(proof: Proof, evidence: Evidence) -> tuple[None, str]:
    plan, ledger = evidence.findings.sources.plan, evidence.findings.sources.ledger
    digest = digest_of(evidence.read(PLAN))
    if proof.digest not in charges_of(plan, digest, ledger):
        raise NotAuthentic(f"entry {proof.entry.sequence} is no charge of job {plan.job}")
    return None, f"the entry charges what plan {digest} does in a round, no more and no less"


def _record(proof: Proof, evidence: Evidence, number: int) -> tuple[LogEntry, str]:
    coordinator = evidence.members.coordinator.name
    data = evidence.read(f"rounds/{number:04d}/record.dsse.json")
    record = open_document(data, RoundRecord, public_key=evidence.key_of(coordinator))
    heads = {head.member: head.head for head in record.ledger_heads}
    if heads.get(proof.entry.institution) != proof.digest or record.round != proof.entry.round:
        raise NotAuthentic(f"names head {heads.get(proof.entry.institution)}, this entry is {proof.digest}")
    said = f"signed by {coordinator}: round {number} had this entry as the ledger head of {proof.entry.institution}"
    return record_entry(record.job, number, data), said


def _update(proof: Proof, evidence: Evidence, file: str) -> tuple[LogEntry, str]:
    institution, coordinator = proof.entry.institution, evidence.members.coordinator.name
    data = evidence.read(file)
    address = Address(me=coordinator, coordinator=coordinator, keys={institution: evidence.key_of(institution)})
    _, answer = read_answer(address, data)
    if not isinstance(answer, m.SealedUpdate) or answer.ledger_head != proof.digest:
        raise NotAuthentic("names another ledger head")
    said = f"signed by {institution}: its update of round {answer.round} left after this entry was written"
    return head_entry(institution, answer, data), said


def log_path(evidence: Evidence, entry: LogEntry) -> tuple[LogPath, str]:
    """Return where `entry` is in the log of the evidence's last checkpoint, and the same in words.

    Raises:
        NotInLog: it is not in it.
        NotAuthentic: the checkpoint is not the coordinator's.
    """
    findings = evidence.findings
    file = f"{LOG}/{checkpoint_name(len(findings.sources.records))}"
    key = evidence.key_of(evidence.members.coordinator.name)
    checkpoint = open_checkpoint(evidence.read(file), alliance=findings.alliance, public_key=key)
    tree, leaf = leaf_tree(evidence.read(f"{LOG}/{LEAVES}")), leaf_of(entry)
    leaves = list(tree.leaves(checkpoint.size))
    index = leaves.index(leaf) if leaf in leaves else -1
    audit_path = tree.inclusion(index, checkpoint.size) if index >= 0 else ()
    root = bytes.fromhex(checkpoint.root.removeprefix(HEX))
    require_inclusion(leaf, index, checkpoint.size, audit_path, root)
    path = LogPath(
        entry=entry,
        leaf=leaf,
        index=index,
        checkpoint=checkpoint,
        checkpoint_file=file,
        steps=tuple(climb(leaf, index, checkpoint.size, audit_path)),
    )
    return (
        path,
        f"entry {index} of {checkpoint.size}: the path leads to the root in {file}, which the coordinator signed",
    )


def leaf_bytes(path: LogPath) -> bytes:
    """Return what the leaf hash is of, after a zero byte."""
    return encode(path.entry)


def spoken(steps: tuple[tuple[bool, bytes, bytes], ...]) -> Iterator[tuple[str, str, str]]:
    """Yield each step of a path in words: side, other hash, node above, in hexadecimal."""
    for on_left, hashed, node in steps:
        yield "left" if on_left else "right", hashed.hex(), node.hex()
