"""The words of the coordinator's machine: events, effects and states. What follows from them is in `coordinator`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from fl_alliance.protocol import messages as m
from fl_alliance.protocol.ids import BlobRef
from fl_alliance.protocol.model import Wire
from fl_alliance.protocol.plan import TrainingPlan

A = TypeVar("A", bound=m.Answer)


@dataclass(frozen=True)
class Signed:
    """An authentic answer and the envelope that proves it."""

    answer: m.Answer
    envelope: bytes


# ---- events


@dataclass(frozen=True)
class Answered:
    """`member` answered; the shell has checked its signature and label."""

    member: str
    signed: Signed


@dataclass(frozen=True)
class SumAdded:
    """The uploads of the round were added; the sum is in the blob store."""

    sum: BlobRef


@dataclass(frozen=True)
class UploadRefused:
    """The upload of `member` is not what it signed, or can't be added; the others' can."""

    member: str
    reason: str


@dataclass(frozen=True)
class RecordSigned:
    """The round's record was signed and is in the log; `checkpoint` is the log's, signed."""

    envelope: bytes
    checkpoint: bytes


@dataclass(frozen=True)
class DeadlinePassed:
    """The phase that awaited `kind` in `round` took longer than the plan allows."""

    kind: str
    round: int


@dataclass(frozen=True)
class Cancelled:
    """The admin, or the shell, gives up."""

    reason: str


Event = Answered | SumAdded | UploadRefused | RecordSigned | DeadlinePassed | Cancelled

# ---- effects


@dataclass(frozen=True)
class Ask:
    """Sign `request` and send it to `member`. Sending it again sends the same bytes."""

    member: str
    request: m.Request


@dataclass(frozen=True)
class AddUploads:
    """Add the ciphertexts that the signed uploads name."""

    uploads: Mapping[str, BlobRef]


@dataclass(frozen=True)
class SignRecord:
    """Write and sign the record of the round."""

    round: int
    roster: tuple[str, ...]
    roster_digest: str
    previous_record: str | None
    uploads: Mapping[str, BlobRef]
    ledger_heads: Mapping[str, str]
    sum: BlobRef
    adapter_digest: str
    score: str | None
    votes: tuple[str, ...]


Effect = Ask | AddUploads | SignRecord

# ---- states


@dataclass(frozen=True)
class Job:
    """What stays the same over the whole job."""

    plan: TrainingPlan
    plan_envelope: bytes
    members_envelope: bytes
    last_seen: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    """By member, if there is one: its newest answer of earlier jobs that holds a head of its ledger."""
    checkpoint: bytes = b""
    """Of the transparency log, signed, when the job began: list of members, plan and last_seen are in it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The members, sorted."""
        return self.plan.names

    def bound(self, round_number: int) -> dict[str, Any]:
        """The fields that bind a message to this job and round."""
        return {"alliance": self.plan.alliance, "job": self.plan.job, "round": round_number}


Phase = Mapping[str, Signed]
"""One phase's complete answers, by member."""


@dataclass(frozen=True)
class Progress:
    """What has been agreed so far: complete phases of the job and of the present round, by kind of answer."""

    job: Job
    round: int = 0
    previous_record: str | None = None
    phases: Mapping[str, Phase] = field(default_factory=lambda: MappingProxyType({}))
    sum: BlobRef | None = None
    left: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Members that are out of the job, with the reason."""
    scores: tuple[str | None, ...] = ()
    """Of the rounds that are over."""
    checkpoint: str = ""
    """Digest of the log's checkpoint that the members were shown last."""

    @property
    def present(self) -> tuple[str, ...]:
        """The members that still take part, sorted."""
        return tuple(name for name in self.job.names if name not in self.left)

    def done(self, kind: type[A]) -> dict[str, A]:
        """Return the answers of a complete phase, by member."""
        answers = {name: signed.answer for name, signed in self.phases[kind_of(kind)].items()}
        return {name: answer for name, answer in answers.items() if isinstance(answer, kind)}

    def envelopes(self, kind: type[m.Answer]) -> tuple[str, ...]:
        """Return the envelopes of a complete phase in base64, sorted by member."""
        phase = self.phases[kind_of(kind)]
        return tuple(base64.b64encode(phase[name].envelope).decode() for name in sorted(phase))


@dataclass(frozen=True)
class Gathering:
    """Waiting for an answer of one kind from each member that was asked."""

    progress: Progress
    awaits: type[m.Answer]
    asked: Mapping[str, m.Request]
    answers: Phase


@dataclass(frozen=True)
class Adding:
    """All uploads are here; the sum is being added."""

    progress: Progress


@dataclass(frozen=True)
class Recording:
    """The quorum voted for one adapter; the record is being signed."""

    progress: Progress


@dataclass(frozen=True)
class Finished:
    """All rounds are recorded and kept."""

    progress: Progress


@dataclass(frozen=True)
class Aborted:
    """The job ended without a result."""

    progress: Progress
    reason: str


State = Gathering | Adding | Recording | Finished | Aborted
Transition = tuple[State, tuple[Effect, ...]]


def kind_of(kind: type[Wire]) -> str:
    """Return the `kind` of a message class as it travels."""
    return str(kind.model_fields["kind"].default)
