"""Plans that an institution refused, by its policy or by a person: kept as evidence, each with what it was asked.

    refusals/JOB-DIGEST/proposal.json    the coordinator's signed proposal, with the plan in it
    refusals/JOB-DIGEST/refusal.json     the institution's signed answer, with the reason

DIGEST is the first 16 hexadecimal digits of the proposal's: asked again the same way, the house answers the same.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_alliance.evidence.sign import peek_document, read_envelope
from fl_alliance.parties.files import read_file, write_atomically
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.documents import LogCheckpoint
from fl_alliance.protocol.ids import digest_of

REFUSALS: Final = "refusals"
PROPOSAL, REFUSAL = "proposal.json", "refusal.json"


def keeping_refusals(home: Path, handle: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Return `handle`, the handler of the institution in `home`, as one that keeps a refused plan before it answers.

    It raises what `handle` does, and StoreFailed where the refusal can't be kept: then no answer is given.
    """

    @functools.wraps(handle)
    def kept(request: bytes) -> bytes:
        reply = handle(request)
        if _kind(reply) == "refusal" and _kind(request) == "proposal":
            folder = home / REFUSALS / name_of(request)
            for name, data in ((PROPOSAL, request), (REFUSAL, reply)):
                if not (folder / name).exists():
                    write_atomically(folder / name, data)
        return reply

    return kept


def name_of(proposal: bytes) -> str:
    """Return the folder of the refusal of a signed proposal."""
    job = read_envelope(proposal).payload_type.split("|")[5]
    return f"{job}-{digest_of(proposal).removeprefix('sha256:')[:16]}"


@dataclass(frozen=True)
class Refused:
    """A plan that was refused here; both messages were signed, the one by the coordinator, the other by this house."""

    job: str
    time: int
    """Of the log's checkpoint that came with the proposal, Unix seconds."""
    folder: Path


def refusals_in(home: Path) -> Iterator[Refused]:
    """Yield what the institution in `home` refused, by job; a folder that a killed process left half is none."""
    for folder in sorted((home / REFUSALS).glob("*")):
        if (folder / REFUSAL).exists():
            proposal = decode(m.REQUEST, read_envelope(read_file(folder / PROPOSAL, "proposal that was refused")).body)
            if isinstance(proposal, m.Proposal):
                shown = peek_document(base64.b64decode(proposal.checkpoint), LogCheckpoint)
                yield Refused(proposal.job, shown.time, folder)


def _kind(message: bytes) -> str:
    return read_envelope(message).payload_type.split("|")[1]
