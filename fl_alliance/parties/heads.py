"""Heads of ledgers that were seen before, kept beside the ledgers: an older copy put back does not hold the newest.

The coordinator keeps for each institution the newest answer with a head in it, over all jobs, and brings it back with
the next proposal. An institution finds heads in the evidence of its own earlier jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from fl_alliance.errors import MalformedMessage, StoreFailed
from fl_alliance.evidence.sign import read_envelope
from fl_alliance.parties.files import write_atomically
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode


class SeenHeads:
    """The coordinator's: FOLDER/MEMBER.json is an envelope as it came, replaced as a whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, member: str, answer: m.Acceptance | m.SealedUpdate, envelope: bytes) -> bool:
        """Keep an authentic answer with a head, and say whether; within a job an earlier round replaces no later one.

        An answer of an earlier job may come late and replace a newer one: an older head says less, and nothing wrong.
        """
        path = self._file(member)
        if path.exists():
            alliance, job, number = read_envelope(path.read_bytes()).payload_type.split("|")[4:]
            if (alliance, job) == (answer.alliance, answer.job) and int(number) > answer.round:
                return False
        write_atomically(path, envelope)
        return True

    def newest(self, members: Iterable[str]) -> dict[str, bytes]:
        """Return what is kept, by member; who never answered is missing."""
        return {name: self._file(name).read_bytes() for name in members if self._file(name).exists()}

    def _file(self, member: str) -> Path:
        return self._folder / f"{member}.json"


def heads_in_evidence(jobs: Path, name: str) -> Iterator[str]:
    """Yield the head in every upload of institution `name` that came back to it in a list of survivors.

    Raises:
        StoreFailed: a file of the evidence is not what was written there.
    """
    for path in sorted(jobs.glob(f"*/evidence/rounds/*/messages/sealed-update.{name}.json")):
        try:
            answer = decode(m.ANSWER, read_envelope(path.read_bytes()).body)
        except (MalformedMessage, OSError) as error:
            raise StoreFailed(f"{path}: {error}") from None
        if isinstance(answer, m.SealedUpdate):
            yield answer.ledger_head
