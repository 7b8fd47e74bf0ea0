"""The page of a ledger entry: from a number to the signed bytes, and to their place in the coordinator's log."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from fl_alliance.parties.audit_pages import addresses
from fl_alliance.parties.audit_pages.blocks import (
    Code,
    Page,
    PageBlock,
    Paragraph,
    Part,
    Table,
    Verdict,
    Verdicts,
    link,
)
from fl_alliance.parties.audit_pages.evidence import ACCOUNTING, House
from fl_alliance.parties.audit_pages.overview import HOME
from fl_alliance.parties.audit_pages.proofs import LogPath, Proof, leaf_bytes, prove, spoken
from fl_alliance.privacy.accountant import PldAccountant, RdpAccountant
from fl_alliance.privacy.ledger import spent
from fl_alliance.privacy.reporting.content import when
from fl_alliance.protocol.documents import SampledGaussian
from fl_alliance.protocol.ids import decimal_text


def entry_page(house: House, sequence: int, *, now: int) -> Page:
    """Return the page of an entry, verified again as the page is made (KeyError: there is none).

    The answer's status is 409 where something does not hold any more.
    """
    proof = prove(house, sequence)
    institution, dataset = house.name
    parts = [Part(f"Verified again, {when(now)}", tuple(_verdicts(proof)))]
    parts.append(Part("What was charged", tuple(_fields(house, proof))))
    if proof.holds:
        parts.append(Part("The signed bytes", tuple(_bytes(proof))))
        parts += [Part(f"In the coordinator's log: {path.entry.kind}", tuple(_path(path))) for path in proof.paths]
    return Page(
        title=f"Ledger entry {sequence}",
        lead=f"{institution}, data set {dataset}",
        trail=(HOME, (f"{institution}: {dataset}", addresses.of_house(house))),
        parts=parts,
        status=200 if proof.holds else 409,
    )


def _verdicts(proof: Proof) -> Iterator[PageBlock]:
    yield Verdicts(tuple(Verdict(check.holds, check.what, check.found, check.file) for check in proof.checks))
    if proof.evidence is None:
        job = f"{proof.entry.alliance} / {proof.entry.job}"
        yield Paragraph(f"No evidence of job {job} was given: its rounds and its place in the log can't be shown.")
    elif not proof.record and proof.holds:
        yield Paragraph("No round's record names this entry: the round was charged, and no sum was opened.")


def _fields(house: House, proof: Proof) -> Iterator[PageBlock]:
    entry, delta = proof.entry, Decimal(house.newest.findings.sources.report.delta)
    entries = house.ledger.entries
    job = f"{entry.alliance} / {entry.job}"
    name = (entry.alliance, entry.job)
    before, after = (spent(entries[:count], RdpAccountant(), delta) for count in (entry.sequence - 1, entry.sequence))
    rows = [
        ("Entry", str(entry.sequence)),
        ("Charged at", when(entry.time)),
        ("Job", link(addresses.of_job(name), job) if proof.evidence is not None else job),
        ("Round", str(entry.round)),
        ("Unit", entry.unit),
        ("Training", _event(entry.event)),
        ("Evaluation", "none" if entry.evaluation is None else _event(entry.evaluation)),
        ("Delta", entry.delta),
        ("Data set's epsilon before", f"{decimal_text(before)} (RDP) at delta {decimal_text(delta)}"),
        ("and after", f"{decimal_text(after)} (RDP), {decimal_text(_tight(house, proof, delta))} (PLD)"),
    ]
    yield Table("Fields of the entry, and what they add up to", ("", ""), tuple(rows))
    digests = (
        ("This entry", proof.digest),
        ("Entry before", entry.previous),
        ("Plan", entry.plan_digest),
        ("Data set", entry.dataset_digest),
    )
    yield Table("Digests", ("", ""), digests, code=frozenset({1}))


def _tight(house: House, proof: Proof, delta: Decimal) -> Decimal:
    with ACCOUNTING:
        return spent(house.ledger.entries[: proof.entry.sequence], PldAccountant(), delta)


def _event(event: SampledGaussian) -> str:
    return f"{event.steps} steps, noise multiplier {event.noise_multiplier}, sampling rate {event.sampling_rate}"


def _bytes(proof: Proof) -> Iterator[PageBlock]:
    envelope = proof.opened
    signature = envelope.signatures[0]
    yield Code("What is signed, of type " + envelope.payload_type, envelope.body.decode())
    yield Table("The signature (Ed25519, over the DSSE encoding)", ("", ""),
                (("Key", signature.keyid), ("Signature", signature.sig)), code=frozenset({1}))  # fmt: skip
    yield Code("The whole line of the ledger: its SHA-256 is this entry's digest", proof.envelope.decode())
    number = proof.entry.sequence
    yield Code("To compute the digest by hand", f"sed -n {number}p ledger.jsonl | tr -d '\\n' | sha256sum")


def _path(path: LogPath) -> Iterator[PageBlock]:
    yield Paragraph(
        f"Entry {path.index} (from 0) of the {path.checkpoint.size} entries of {path.checkpoint_file}. Begin with the "
        f"leaf hash and hash it with each other hash in turn (SHA-256 of byte 1, left, right): the last one is the "
        f"root that the coordinator signed."
    )
    yield Code("The log's entry: the leaf hash is SHA-256 of byte 0 and this", leaf_bytes(path).decode())
    rows = [("leaf", "—", "—", path.leaf.hex())]
    rows += [(str(n), *step) for n, step in enumerate(spoken(path.steps), start=1)]
    rows.append(("root", "—", "as signed", path.checkpoint.root.removeprefix("sha256:")))
    yield Table("Audit path (RFC 6962)", ("Step", "other is on the", "other hash", "hash so far"), tuple(rows),
                code=frozenset({2, 3}))  # fmt: skip
