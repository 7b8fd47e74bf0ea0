"""Steps 13 to 15: what several jobs, bundles and parties show together. Everything here has held by itself.

(13) one log      of each two views of the coordinator's log, the shorter one is the beginning of the longer
(14) one ledger   of each two ledgers of a data set, too: no charge was dropped, changed or moved between jobs
(15) one truth    a job's plan, members, records, messages and checkpoints are the same bytes at everybody; no two
                  lists of members have one serial
"""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fl_alliance.errors import EvidenceRefused
from fl_alliance.evidence.files import EvidenceFiles
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties.audit_log import LEAVES, LOG, SeenLog, checkpoint_name, compare_logs
from fl_alliance.parties.auditor import LEDGER, MEMBERS, PLAN, ROOT, Say
from fl_alliance.protocol.documents import AllianceMembers, LogCheckpoint


class Noted(Protocol):
    """Turns a refusal inside its context into a step."""

    def __call__(self) -> contextlib.AbstractContextManager[None]:
        """Return the context."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A job's evidence, or what a bundle has besides its jobs, that holds by itself."""

    place: str
    """Which input."""
    where: str
    """For people: which input, and which job in it."""
    files: EvidenceFiles
    root: str
    """Fingerprint."""
    job: tuple[str, str] | None
    """Alliance and job; None: a bundle besides its jobs."""
    ledger: tuple[str, str] | None
    """Institution and data set; None: there is none, as at the coordinator."""


def check_together(held: Sequence[Held], say: Say, noted: Noted) -> None:
    """Compare everything with everything; each step may refuse, and the next is taken all the same."""
    with noted():
        _one_root(held)
    for compare in (_one_log, _one_ledger, _one_truth):
        with noted():
            compare(held, say)


def _one_root(held: Sequence[Held]) -> None:
    if len(roots := {item.root for item in held}) > 1:
        raise EvidenceRefused(f"step 2, {ROOT}: the inputs are of different alliances, with roots {sorted(roots)}")


# (13) A coordinator that shows two histories must show one of them to somebody here.
def _one_log(held: Sequence[Held], say: Say) -> None:
    logs = [SeenLog(item.where, item.files.read(f"{LOG}/{LEAVES}")) for item in held if item.job is not None]
    compare_logs(logs, lambda line: say(13, line))


# (14) A ledger only grows, whatever jobs come and fail in between.
def _one_ledger(held: Sequence[Held], say: Say) -> None:
    ledgers: dict[tuple[str, str], list[tuple[bytes, Held]]] = defaultdict(list)
    for item in held:
        if item.ledger is not None:
            ledgers[item.ledger].append((item.files.read(LEDGER), item))
    for (institution, dataset), found in sorted(ledgers.items()):
        found.sort(key=lambda ledger: len(ledger[0]))
        for (shorter, one), (longer, other) in itertools.pairwise(found):
            if not longer.startswith(shorter):
                entry = _first_other(shorter.split(b"\n"), longer.split(b"\n"))
                raise EvidenceRefused(
                    f"step 14, {LEDGER}: {institution} signed two ledgers of {dataset}: entry {entry} in {one.where} "
                    f"is another than in {other.where}"
                )
            if one.job is None and one.place == other.place and longer != shorter:
                raise EvidenceRefused(
                    f"step 14, {LEDGER}: {one.where} holds {_entries(shorter)} entries, {other.where}, which is older, "
                    f"holds {_entries(longer)}"
                )
        if len(found) > 1:
            entries = _entries(found[-1][0])
            say(14, f"one ledger: {len(found)} of {institution}'s {dataset}, each the beginning of {entries} entries")


def _entries(ledger: bytes) -> int:
    return ledger.count(b"\n")


def _first_other(one: Iterable[bytes], other: Iterable[bytes]) -> int:
    return next(number for number, (a, b) in enumerate(zip(one, other, strict=False), 1) if a != b)


# (15) Whoever was in a job has the same documents of it, and the same messages of everybody.
def _one_truth(held: Sequence[Held], say: Say) -> None:
    _one_list_for_each_serial(held)
    _lists_only_renewed([item for item in held if item.job is not None])
    jobs: dict[tuple[str, str], list[Held]] = defaultdict(list)
    for item in held:
        if item.job is not None:
            jobs[item.job].append(item)
    for (_, job), items in sorted(jobs.items()):
        if len(items) > 1:
            same = _same_files(items)
            say(15, f"one truth: job {job}: {same} files are the same in {len(items)} inputs")


def _same_files(items: Sequence[Held]) -> int:
    seen: dict[str, tuple[str, str]] = {}
    compared = set()
    for item in items:
        for name in _shared(item.files.names()):
            digest = item.files.digest(name)
            first, where = seen.setdefault(name, (digest, item.where))
            if first != digest:
                raise EvidenceRefused(f"step 15, {name}: is {first} in {where}, {digest} in {item.where}")
            if where != item.where:
                compared.add(name)
    return len(compared)


def _shared(names: Iterable[str]) -> Iterator[str]:
    """Yield the files that are no party's own, the most telling first."""
    yield from (ROOT, MEMBERS, PLAN)
    for name in names:
        if name.startswith(("keys/", "rounds/", f"{LOG}/checkpoint-")):
            yield name


def _one_list_for_each_serial(held: Sequence[Held]) -> None:
    lists: dict[tuple[str, int], tuple[AllianceMembers, str]] = {}
    for item in held:
        members = peek_document(item.files.read(MEMBERS), AllianceMembers)  # the root's signature: step 3
        first, where = lists.setdefault((item.root, members.serial), (members, item.where))
        if first != members:
            raise EvidenceRefused(
                f"step 15, {MEMBERS}: two lists of members with number {members.serial}, in {where} and {item.where}"
            )


def _lists_only_renewed(jobs: Sequence[Held]) -> None:
    """A job that began later, by the log, has no older list: who was struck off is not called back."""
    begun = []
    for item in jobs:
        first = peek_document(item.files.read(f"{LOG}/{checkpoint_name(0)}"), LogCheckpoint)  # both verified before
        serial = peek_document(item.files.read(MEMBERS), AllianceMembers).serial
        begun.append((item.root, first.size, serial, item.where))
    for (root, _, earlier, one), (same, _, later, other) in itertools.pairwise(sorted(begun)):
        if root == same and later < earlier:
            raise EvidenceRefused(
                f"step 15, {MEMBERS}: number {later} in {other}, number {earlier} in {one}, which began before"
            )
