"""The transparency log as an institution or an auditor checks it: entries, checkpoints, receipts. No file is read here.

A leaf is SHA-256(0x00 || canonical bytes of the entry) (RFC 6962, section 2.1). A checkpoint is size and root, signed
by the coordinator: a promise about everything before it. A receipt is an entry with its audit path, and the proof that
the log of an earlier checkpoint only grew.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from fl_alliance.errors import LogForked, NotAuthentic
from fl_alliance.evidence import merkle
from fl_alliance.evidence.sign import open_document, peek_document
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import LogCheckpoint
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.log import LogEntry, LogReceipt


def members_entry(envelope: bytes) -> LogEntry:
    """Return the entry of a signed list of members."""
    return LogEntry(kind="alliance-members", job=None, round=0, member=None, digest=digest_of(envelope))


def plan_entry(job: str, envelope: bytes) -> LogEntry:
    """Return the entry of a signed plan."""
    return LogEntry(kind="training-plan", job=job, round=0, member=None, digest=digest_of(envelope))


def record_entry(job: str, number: int, envelope: bytes) -> LogEntry:
    """Return the entry of a round's signed record."""
    return LogEntry(kind="round-record", job=job, round=number, member=None, digest=digest_of(envelope))


def head_entry(member: str, answer: m.Acceptance | m.SealedUpdate, envelope: bytes) -> LogEntry:
    """Return the entry of an answer with a ledger head in it, signed by `member`."""
    return LogEntry(kind="ledger-head", job=answer.job, round=answer.round, member=member, digest=digest_of(envelope))


def leaf_of(entry: LogEntry) -> bytes:
    """Return the leaf hash of an entry, 32 bytes."""
    return merkle.leaf_hash(encode(entry))


def root_digest(root: bytes) -> str:
    """Return a root as checkpoints write it."""
    return f"sha256:{root.hex()}"


def open_checkpoint(data: bytes, *, alliance: str, public_key: bytes) -> LogCheckpoint:
    """Return the checkpoint in the envelope `data`.

    Raises:
        MalformedMessage, NotAuthentic: it is none, not signed with the coordinator's key, or of another alliance.
    """
    checkpoint = open_document(data, LogCheckpoint, public_key=public_key)
    if checkpoint.alliance != alliance:
        raise NotAuthentic(f"a checkpoint of the log of alliance {checkpoint.alliance}, expected {alliance}")
    return checkpoint


def require_root(tree: merkle.Tree, checkpoint: LogCheckpoint) -> None:
    """Return if the first entries of `tree` are those of the checkpoint; it has at least as many.

    Raises:
        LogForked: they are others.
    """
    if (found := root_digest(tree.root(checkpoint.size))) != checkpoint.root:
        raise LogForked(f"the log's {checkpoint.size} entries have root {found}, its checkpoint says {checkpoint.root}")


def receipt_of(tree: merkle.Tree, index: int, entry: LogEntry, *, shown: bytes, earlier: bytes) -> LogReceipt:
    """Return the receipt of entry `index` under the checkpoint `shown`; `earlier` is one with no more entries."""
    first, size = (peek_document(data, LogCheckpoint).size for data in (earlier, shown))
    return LogReceipt(
        checkpoint=base64.b64encode(shown).decode(),
        entry=entry,
        index=index,
        inclusion=_digests(tree.inclusion(index, size)),
        earlier=base64.b64encode(earlier).decode(),
        consistency=_digests(tree.consistency(first, size)),
    )


def check_receipt(receipt: LogReceipt, *, alliance: str, public_key: bytes) -> tuple[LogCheckpoint, LogCheckpoint]:
    """Return the receipt's earlier and later checkpoint, after both proofs were checked.

    Raises:
        MalformedMessage, NotAuthentic: a checkpoint is not the coordinator's of this alliance.
        NotInLog: the audit path does not lead from the entry to the root.
        LogForked: the log of the later checkpoint is not shown to begin with that of the earlier one.
    """
    earlier, shown = (
        open_checkpoint(base64.b64decode(text), alliance=alliance, public_key=public_key)
        for text in (receipt.earlier, receipt.checkpoint)
    )
    root, leaf = _raw(shown.root), leaf_of(receipt.entry)
    merkle.require_inclusion(leaf, receipt.index, shown.size, [_raw(d) for d in receipt.inclusion], root)
    path = [_raw(digest) for digest in receipt.consistency]
    merkle.require_consistency(earlier.size, _raw(earlier.root), shown.size, root, path)
    return earlier, shown


def _digests(hashes: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(root_digest(hashed) for hashed in hashes)


def _raw(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("sha256:"))
