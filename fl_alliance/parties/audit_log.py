"""Step 10 of the audit: the coordinator's transparency log, in one folder and between folders.

A folder holds the leaf hashes of the log up to its last checkpoint: 32 bytes an entry, which tell nothing of other jobs
but how many entries they have. So any two folders can be compared, from whichever institutions and jobs they are.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fl_alliance.errors import EvidenceRefused, LogForked, NotAuthentic, NotInLog
from fl_alliance.evidence.log import (
    check_receipt,
    head_entry,
    leaf_of,
    members_entry,
    open_checkpoint,
    plan_entry,
    record_entry,
    require_root,
)
from fl_alliance.evidence.merkle import HASH_BYTES, Tree
from fl_alliance.parties.mail import Address, read_answer
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.log import LogEntry, LogReceipt

LOG, LEAVES = "log", "leaves"
CLOCKS_DIFFER: Final = 86_400
"""Seconds; far more than the transport lets the clocks of two parties differ."""


@dataclass(frozen=True, kw_only=True)
class Logged:
    """What a folder says must be in the log, all of it verified in earlier steps but for the log itself."""

    alliance: str
    job: str
    address: Address
    members: bytes
    plan: bytes
    records: Sequence[bytes]
    acceptances: Mapping[str, bytes]
    """From before the first round, by file name; others may lie among them."""
    messages: Sequence[Mapping[str, bytes]]
    """Of each round, by file name."""
    charged: Sequence[int] | None
    """When each round was charged, as the institution dates it; None: it is no institution's evidence."""

    @property
    def key(self) -> bytes:
        """The coordinator's raw public key."""
        return self.address.keys[self.address.coordinator]


def checkpoint_name(number: int) -> str:
    """Return the file of the checkpoint that came with the proposal (0) or with a round's release."""
    return f"checkpoint-{number:04d}.dsse.json"


def receipt_name(number: int) -> str:
    """Return the file of the receipt for the plan (0) or for a round's record."""
    return f"receipt-{number:04d}.json"


def check_log(files: Mapping[str, bytes], logged: Logged) -> int:
    """Return how many entries the log has, after everything that the job relied on was found in it.

    Raises:
        MalformedMessage, NotAuthentic: a checkpoint or receipt is none, or another than the members signed.
        LogForked: checkpoints, receipts and leaf hashes are not of one log that only grew.
        NotInLog: an entry is missing, or came later than the checkpoint that promised it.
    """
    rounds = len(logged.records)
    wanted = {LEAVES, *(name(n) for n in range(rounds + 1) for name in (checkpoint_name, receipt_name))}
    if odd := sorted(wanted ^ set(files)):
        raise NotAuthentic(f"{odd[0]} {'is missing' if odd[0] in wanted else 'does not belong there'}")
    tree, size, since = leaf_tree(files[LEAVES]), 0, 0
    places = {leaf: place for place, leaf in reversed(list(enumerate(tree.leaves(tree.size))))}
    for number in range(rounds + 1):
        shown = files[checkpoint_name(number)]
        checkpoint = open_checkpoint(shown, alliance=logged.alliance, public_key=logged.key)
        if not size <= checkpoint.size <= tree.size:
            raise LogForked(f"{checkpoint_name(number)}: {checkpoint.size} entries, after {size} and of {tree.size}")
        size = checkpoint.size
        require_root(tree, checkpoint)
        entries = list(_entries(logged, number))
        for entry in entries:
            if places.get(leaf_of(entry), size) >= size:
                raise NotInLog(f"{checkpoint_name(number)}: no {entry.kind} {entry.digest} among its {size} entries")
        _check_receipt(decode(LogReceipt, files[receipt_name(number)]), shown, entries[0], logged)
        if number and logged.charged is not None:
            _check_dated(number, since, logged.charged[number - 1], checkpoint.time)
        since = checkpoint.time
        if number < rounds:
            _check_shown(digest_of(shown), logged.messages[number], logged.address)
    if size != tree.size:
        raise LogForked(f"{LEAVES}: {tree.size} entries, the last checkpoint has {size}")
    return size


def leaf_tree(data: bytes) -> Tree:
    """Return the tree of the leaf hashes in `data`.

    Raises:
        NotAuthentic: not a whole number of hashes.
    """
    if len(data) % HASH_BYTES:
        raise NotAuthentic(f"{LEAVES}: {len(data)} bytes, must be a multiple of {HASH_BYTES}")
    return Tree(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))


def _entries(logged: Logged, number: int) -> Iterator[LogEntry]:
    """Yield what the checkpoint with this number promises: first what its receipt is for."""
    if number == 0:
        yield plan_entry(logged.job, logged.plan)
        yield members_entry(logged.members)
        return
    yield record_entry(logged.job, number, logged.records[number - 1])
    said = {**logged.messages[number - 1], **(logged.acceptances if number == 1 else {})}
    for name, envelope in sorted(said.items()):
        if name.startswith(("acceptance.", "sealed-update.")):
            sender, answer = read_answer(logged.address, envelope)
            if isinstance(answer, m.Acceptance | m.SealedUpdate):
                yield head_entry(sender, answer, envelope)


def _check_receipt(receipt: LogReceipt, shown: bytes, entry: LogEntry, logged: Logged) -> None:
    check_receipt(receipt, alliance=logged.alliance, public_key=logged.key)
    if base64.b64decode(receipt.checkpoint) != shown or receipt.entry != entry:
        raise NotAuthentic(f"the receipt is for {receipt.entry.kind} {receipt.entry.digest} or another checkpoint")


def _check_dated(number: int, since: int, charged: int, until: int) -> None:
    """A round is charged between the checkpoint before it and its own: an entry of another date is in another year."""
    if not since - CLOCKS_DIFFER <= charged <= until + CLOCKS_DIFFER:
        raise NotAuthentic(f"round {number} was charged at {charged}, its checkpoints are of {since} and {until}")


def _check_shown(digest: str, messages: Mapping[str, bytes], address: Address) -> None:
    """Every member of the round signed that it was shown the same checkpoint before."""
    for name, envelope in sorted(messages.items()):
        sender, answer = read_answer(address, envelope)
        if isinstance(answer, m.RoundKeys) and answer.checkpoint != digest:
            raise LogForked(f"{name}: {sender} was shown checkpoint {answer.checkpoint}, not {digest}")


@dataclass(frozen=True)
class SeenLog:
    """The log as one job's evidence has it, which was verified."""

    where: str
    leaves: bytes

    @property
    def size(self) -> int:
        """How many entries there are."""
        return len(self.leaves) // HASH_BYTES


def compare_logs(logs: Sequence[SeenLog], say: Callable[[str], None]) -> None:
    """Return if all show one history: of each two, the shorter log is the beginning of the longer one.

    Raises:
        EvidenceRefused: step 13; names two places with two histories; the coordinator signed both.
    """
    ordered = sorted(logs, key=lambda log: log.size)
    for shorter, longer in itertools.pairwise(ordered):
        if not longer.leaves.startswith(shorter.leaves):
            raise EvidenceRefused(
                f"step 13, {LOG}: the coordinator signed two histories: entry {_first_other(shorter, longer)} in "
                f"{shorter.where} ({shorter.size} entries) is another than in {longer.where} ({longer.size})"
            )
        say(f"one log: {shorter.where} and {longer.where}: {shorter.size} entries in common, one history")


def _first_other(shorter: SeenLog, longer: SeenLog) -> int:
    starts = range(0, len(shorter.leaves), HASH_BYTES)
    pieces = ((shorter.leaves[at : at + HASH_BYTES], longer.leaves[at : at + HASH_BYTES]) for at in starts)
    return next(place for place, (one, other) in enumerate(pieces) if one != other)
