"""The messages of a job, in the order in which they travel.

A request goes from the coordinator to one institution and gets one reply. A request that relays what institutions
said carries their signed envelopes as they are: the coordinator is a messenger, and what it could forge is nothing.

    request              reply                  what the institution does in between
    Proposal             Acceptance             checks the plan against its own policy; makes a wrap key
    KeyRequest           WrappedKeys            (one member only) makes and seals the alliance key, for each member
    KeyDelivery          KeyAccepted            opens the alliance key
    RoundOpening         RoundKeys              makes the round's keys                    Bonawitz et al. 2017, round 0
    KeyRoster            SealedShares           checks every signature; deals shares                     round 1
    ShareDelivery        SealedUpdate           charges, trains, masks, encrypts, uploads                round 2
    SurvivorList         SurvivorsConfirmed     signs the list of uploads                                round 3
    Confirmations        RevealedShares         checks the confirmations; reveals shares for that list   round 4
    RevealDelivery       SumChecked             adds all uploads again and compares bytes, if drawn for it
    SumChecks            AdapterVote            decrypts, unmasks, applies; signs the adapter
    Release              Released               keeps adapter and record; after the last round, reports
    Abort                Stopped                forgets the round's secrets

A member may be missing from any relayed list of a round; it is then out of the job, and it gets an `Abort`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from fl_alliance.protocol.ids import Base64, BlobRef, DecimalText, Digest, Name
from fl_alliance.protocol.limits import MAX_MEMBERS, MAX_ROUNDS
from fl_alliance.protocol.model import Wire

_Many = Field(min_length=1, max_length=MAX_MEMBERS, strict=False)
Envelopes = Annotated[tuple[Base64, ...], _Many]
"""Signed envelopes of institutions, exactly as they came, sorted by sender."""


class Bound(Wire):
    """What every message says of itself; the label under the signature repeats it."""

    version: Literal[1] = 1
    alliance: Name
    job: Name
    round: Annotated[int, Field(ge=0, le=MAX_ROUNDS)]
    """0 outside rounds."""


class ToMember(Wire):
    """Bytes that only one member can open."""

    member: Name
    sealed: Base64


ForEach = Annotated[tuple[ToMember, ...], _Many]


class Proposal(Bound):
    """A plan, signed by the coordinator, and the members that it names, signed by the alliance's root."""

    kind: Literal["proposal"] = "proposal"
    plan: Base64
    members: Base64
    last_seen: Base64 | None
    """The receiver's own newest answer with a ledger head in it, of whatever job, as it came; null before the first."""
    checkpoint: Base64
    """Of the transparency log, signed by the coordinator: the same bytes for each member."""


class Acceptance(Bound):
    """The institution's own policy allows this plan."""

    kind: Literal["acceptance"] = "acceptance"
    plan_digest: Digest
    wrap_key: Base64
    """X25519 public key to which the content key of this job is wrapped."""
    ledger_head: Digest


class KeyRequest(Bound):
    """To the key maker: everybody accepted."""

    kind: Literal["key-request"] = "key-request"
    acceptances: Envelopes


class WrappedKeys(Bound):
    """The alliance key of the job, sealed once, and what opens it for each member; the coordinator relays it blind."""

    kind: Literal["wrapped-keys"] = "wrapped-keys"
    acceptances_digest: Digest
    key_fingerprint: Digest
    """Of the alliance key: whoever takes the key of this message has the same as all others who take it."""
    sealed_key: Base64
    """The alliance key under a content key that is drawn for this message alone."""
    wrapped: ForEach
    """The content key, wrapped to each member of the plan, in its order."""


class KeyDelivery(Bound):
    """The key maker's message, as it came."""

    kind: Literal["key-delivery"] = "key-delivery"
    acceptances: Envelopes
    wrapped_keys: Base64


class KeyAccepted(Bound):
    """The alliance key opened and has the stated fingerprint."""

    kind: Literal["key-accepted"] = "key-accepted"
    key_fingerprint: Digest


class RoundOpening(Bound):
    """A round begins from the named record (none before the first)."""

    kind: Literal["round-opening"] = "round-opening"
    previous_record: Digest | None


class RoundKeys(Bound):
    """Public keys of one round, signed by the pinned identity."""

    kind: Literal["round-keys"] = "round-keys"
    plan_digest: Digest
    checkpoint: Digest
    """Of the log's checkpoint that I was shown last in this job: whoever was shown another history finds it here."""
    mask_key: Base64
    channel_key: Base64


class KeyRoster(Bound):
    """The signed round keys of the members that take part: the roster of this round."""

    kind: Literal["key-roster"] = "key-roster"
    round_keys: Envelopes


class SealedShares(Bound):
    """Shares of the self mask and of the mask key, sealed end to end; and the roster that they belong to."""

    kind: Literal["sealed-shares"] = "sealed-shares"
    roster_digest: Digest
    shares: ForEach


class ShareDelivery(Bound):
    """The sealed shares, as signed; each member opens its own. The senders' masks are what the uploads hold."""

    kind: Literal["share-delivery"] = "share-delivery"
    sealed_shares: Envelopes


class SealedUpdate(Bound):
    """An upload: encrypted masked update, and the ledger's head after it was charged."""

    kind: Literal["sealed-update"] = "sealed-update"
    roster_digest: Digest
    dealers_digest: Digest
    """Of the share delivery: whose pairwise masks are inside."""
    upload: BlobRef
    ledger_head: Digest


class SurvivorList(Bound):
    """Every signed upload that came, and what the coordinator says is their sum."""

    kind: Literal["survivor-list"] = "survivor-list"
    sealed_updates: Envelopes
    sum: BlobRef


class SurvivorsConfirmed(Bound):
    """The consistency check of the active variant: this is the list that I saw."""

    kind: Literal["survivors-confirmed"] = "survivors-confirmed"
    survivors_digest: Digest


class Confirmations(Bound):
    """At least threshold confirmations of the same list."""

    kind: Literal["confirmations"] = "confirmations"
    confirmed: Envelopes


class RevealedShares(Bound):
    """My shares of the survivors' self masks and of the others' mask keys, sealed under the alliance key of the job."""

    kind: Literal["revealed-shares"] = "revealed-shares"
    survivors_digest: Digest
    sealed: Base64


class RevealDelivery(Bound):
    """At least threshold members' revealed shares, as signed."""

    kind: Literal["reveal-delivery"] = "reveal-delivery"
    revealed_shares: Envelopes


class SumChecked(Bound):
    """I added all signed uploads again, and this is their sum; or I was not drawn to, and say so with null."""

    kind: Literal["sum-checked"] = "sum-checked"
    survivors_digest: Digest
    sum_digest: Digest | None


class SumChecks(Bound):
    """The members' checks of the same sum: it may be opened."""

    kind: Literal["sum-checks"] = "sum-checks"
    sum_checked: Envelopes


class AdapterVote(Bound):
    """The adapter that I get from the opened sum."""

    kind: Literal["adapter-vote"] = "adapter-vote"
    sum_digest: Digest
    adapter_digest: Digest
    score: DecimalText | None = None
    """Mean private score of the adapter with which the round began, where the plan evaluates."""


class Release(Bound):
    """The round's record, signed by the coordinator, with the votes that it counts."""

    kind: Literal["release"] = "release"
    record: Base64
    votes: Envelopes
    checkpoint: Base64
    """Of the transparency log with this record in it: the same bytes for each member."""


class Released(Bound):
    """The record is kept; after the last round the privacy report is written."""

    kind: Literal["released"] = "released"
    record_digest: Digest
    report_digest: Digest | None
    adapter: BlobRef | None
    """The adapter folder as one archive, only where the plan releases it to the coordinator."""


class Abort(Bound):
    """The job ends without a result."""

    kind: Literal["abort"] = "abort"
    reason: Annotated[str, Field(min_length=1, max_length=500)]


class Stopped(Bound):
    """The abort was noted; secrets of the round are gone."""

    kind: Literal["stopped"] = "stopped"


class Refusal(Bound):
    """An institution does not do what was asked, and says why without a private value."""

    kind: Literal["refusal"] = "refusal"
    request_digest: Digest
    error: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]{2,40}$")]
    """Name of the error, as in `fl_alliance.errors`."""
    reason: Annotated[str, Field(min_length=1, max_length=500)]


Request = (
    Proposal
    | KeyRequest
    | KeyDelivery
    | RoundOpening
    | KeyRoster
    | ShareDelivery
    | SurvivorList
    | Confirmations
    | RevealDelivery
    | SumChecks
    | Release
    | Abort
)
Answer = (
    Acceptance
    | WrappedKeys
    | KeyAccepted
    | RoundKeys
    | SealedShares
    | SealedUpdate
    | SurvivorsConfirmed
    | RevealedShares
    | SumChecked
    | AdapterVote
    | Released
    | Stopped
    | Refusal
)
REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])
ANSWER: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")])
