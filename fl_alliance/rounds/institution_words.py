"""The words of the institution's machine: events, effects and states. What follows from them is in `institution`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from fl_alliance.protocol import messages as m
from fl_alliance.protocol.documents import RoundRecord
from fl_alliance.protocol.ids import BlobRef
from fl_alliance.protocol.plan import TrainingPlan

# ---- events


@dataclass(frozen=True)
class Proposed:
    """An authentic plan was proposed. `seen_head`: of my ledger, which I signed before and the coordinator has kept."""

    request: m.Proposal
    plan: TrainingPlan
    plan_digest: str
    seen_head: str | None = None


@dataclass(frozen=True)
class Asked:
    """An authentic request; `relayed` are the authentic answers of members inside it, by member."""

    request: m.Request
    relayed: Mapping[str, m.Answer]
    record: RoundRecord | None = None
    record_digest: str | None = None


@dataclass(frozen=True)
class Done:
    """The effect under way gave `result`."""

    result: Any


@dataclass(frozen=True)
class Failed:
    """The effect under way raised a named error; `reason` holds no private value."""

    error: str
    reason: str


Event = Proposed | Asked | Done | Failed

# ---- effects: each is followed by `Done` or `Failed`, but for `Reply` and `Forget`


@dataclass(frozen=True)
class Consider:
    """Check the plan against policy, ledger, model and data. Done(wrap key, ledger head)."""

    plan: TrainingPlan
    seen_head: str | None


@dataclass(frozen=True)
class MakeAllianceKey:
    """Make the key of the job, seal it, wrap what opens it to each member. Done(fingerprint, sealed key, wrapped)."""

    acceptances: Mapping[str, m.Acceptance]


@dataclass(frozen=True)
class TakeAllianceKey:
    """Unwrap what opens the key of the job, and open it. Done(fingerprint)."""

    keys: m.WrappedKeys


@dataclass(frozen=True)
class MakeRoundKeys:
    """Make the secrets of a round. Done(mask key, channel key)."""

    round: int


@dataclass(frozen=True)
class DealShares:
    """Deal shares of this round's secrets to the roster. Done(sealed shares)."""

    round: int
    roster: Mapping[str, m.RoundKeys]
    roster_digest: str


@dataclass(frozen=True)
class OpenShares:
    """Open and keep the shares that the dealers dealt to me, before the charge: a lie costs nothing. Done(None)."""

    round: int
    dealt: Mapping[str, m.SealedShares]


@dataclass(frozen=True)
class Charge:
    """Charge the round to the ledger, durably. Done(ledger head)."""

    round: int


@dataclass(frozen=True)
class Train:
    """Read the records and train; keep the noised update. Done(None)."""

    round: int


@dataclass(frozen=True)
class Seal:
    """Quantise, mask towards the dealers, encrypt and upload the update. Done(blob)."""

    round: int
    dealers: tuple[str, ...]


@dataclass(frozen=True)
class RevealShares:
    """Seal my shares: of the survivors' self masks, of the other dealers' mask keys. Done(sealed bytes in base64)."""

    round: int
    dealers: tuple[str, ...]
    survivors: tuple[str, ...]


@dataclass(frozen=True)
class AddAgain:
    """Fetch the uploads and add them again. Done(blob of the sum)."""

    round: int
    uploads: Mapping[str, BlobRef]


@dataclass(frozen=True)
class OpenSum:
    """Decrypt, unmask, unpack and apply the sum. Done(adapter digest, score or None)."""

    round: int
    sum: BlobRef
    dealers: tuple[str, ...]
    survivors: tuple[str, ...]
    revealed: Mapping[str, m.RevealedShares]


@dataclass(frozen=True)
class Keep:
    """Keep the record, the adapter and the evidence. Done(report digest or None, adapter blob or None)."""

    round: int
    record: RoundRecord
    last: bool


@dataclass(frozen=True)
class Forget:
    """Forget secrets and updates of the job that no longer matter."""


@dataclass(frozen=True)
class Reply:
    """Sign the answer, keep its bytes, and send them."""

    answer: m.Answer


Work = (
    Consider
    | MakeAllianceKey
    | TakeAllianceKey
    | MakeRoundKeys
    | DealShares
    | OpenShares
    | Charge
    | Train
    | Seal
    | RevealShares
    | AddAgain
    | OpenSum
    | Keep
)
Effect = Work | Forget | Reply

# ---- states


@dataclass(frozen=True)
class Idle:
    """No job yet."""

    name: str


@dataclass(frozen=True)
class Seat:
    """The institution's seat in a job: its own name, the plan, and where the job stands."""

    name: str
    plan: TrainingPlan
    plan_digest: str
    round: int = 0
    previous_record: str | None = None
    checkpoint: str = ""
    """Digest of the log's checkpoint that was shown last in this job."""
    scores: tuple[str | None, ...] = ()
    """Of the rounds before this one."""

    @property
    def bound(self) -> dict[str, Any]:
        """The fields that bind a message to this job and round."""
        return {"alliance": self.plan.alliance, "job": self.plan.job, "round": self.round}


@dataclass(frozen=True)
class Memory:
    """What the present round has agreed on so far; empty between rounds."""

    roster: tuple[str, ...] = ()
    roster_digest: str = ""
    dealers: tuple[str, ...] = ()
    dealers_digest: str = ""
    upload: BlobRef | None = None
    survivors: m.SurvivorList | None = None
    uploads: Mapping[str, BlobRef] = field(default_factory=lambda: MappingProxyType({}))
    heads: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """The survivors' ledger heads, as signed with the upload."""
    confirmed: tuple[str, ...] = ()
    revealed: Mapping[str, m.RevealedShares] = field(default_factory=lambda: MappingProxyType({}))
    adapter_digest: str = ""
    score: str | None = None
    ledger_head: str = ""
    record_digest: str = ""


@dataclass(frozen=True)
class Waiting:
    """The last request is answered; one kind of request may come next (two for the key maker)."""

    seat: Seat
    memory: Memory
    awaits: tuple[str, ...]


@dataclass(frozen=True)
class Working:
    """A request is being worked on."""

    seat: Seat
    memory: Memory
    request: m.Request
    work: Work


@dataclass(frozen=True)
class Over:
    """The job ended here: complete, refused or aborted."""

    name: str
    reason: str


State = Idle | Waiting | Working | Over
Transition = tuple[State, tuple[Effect, ...]]
