"""The institution's job as a pure state machine: the release gate.

    Idle -> Waiting(key-delivery) -> Waiting(round-opening)
      -> for each round: Waiting(key-roster) -> Waiting(share-delivery) -> Opening -> Charging -> Training -> Sealing
         -> Waiting(confirmations) ...: Offered -> Charged -> Trained -> Sealed -> SumChecked -> Answered
      -> Over                                              any state -> Over, when refused or aborted

Nothing leaves the house except a `Reply` of this machine. The ledger is charged before `Train` is ever asked for, and
nothing opens a sum before the members that the plan asks for have signed that they added the same uploads to the same
bytes. Other members may go missing in any phase; each list that is relayed must be within the one before it, and as
long as the plan's `fewest` (until the uploads), `confirmations` (of the list) or threshold (after that). Shares are
revealed once in a round, for one list of survivors. `step` raises `OutOfOrder` and changes nothing, or returns. The
shell has checked every signature, also of relayed envelopes.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from fl_alliance.errors import OutOfOrder
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import RoundRecord
from fl_alliance.protocol.draw import checks_needed, drawn_verifiers
from fl_alliance.protocol.evaluation import ended
from fl_alliance.protocol.ids import BlobRef, digest_of
from fl_alliance.protocol.limits import SEALED_KEY_BYTES, WRAPPED_KEY_BYTES
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.rounds.institution_words import (
    AddAgain,
    Asked,
    Charge,
    Consider,
    DealShares,
    Done,
    Effect,
    Event,
    Failed,
    Forget,
    Idle,
    Keep,
    MakeAllianceKey,
    MakeRoundKeys,
    Memory,
    OpenShares,
    OpenSum,
    Over,
    Proposed,
    Reply,
    RevealShares,
    Seal,
    Seat,
    State,
    TakeAllianceKey,
    Train,
    Transition,
    Waiting,
    Work,
    Working,
)

__all__ = [
    "AddAgain",
    "Asked",
    "Charge",
    "Consider",
    "DealShares",
    "Done",
    "Effect",
    "Event",
    "Failed",
    "Forget",
    "Idle",
    "Keep",
    "MakeAllianceKey",
    "MakeRoundKeys",
    "Memory",
    "OpenShares",
    "OpenSum",
    "Over",
    "Proposed",
    "Reply",
    "RevealShares",
    "Seal",
    "Seat",
    "State",
    "TakeAllianceKey",
    "Train",
    "Transition",
    "Waiting",
    "Work",
    "Working",
    "step",
]


R = TypeVar("R", bound=m.Answer)


def step(state: State, event: Event) -> Transition:
    """Take one event.

    Raises:
        OutOfOrder: `state` does not await `event`. Nothing has changed.
    """
    match state, event:
        case Idle(), Proposed():
            return _proposed(state, event)
        case ((Waiting() | Working()), Asked(request=m.Abort() as abort)):
            return _aborted(state, abort)
        case Waiting(), Asked():
            return _asked(state, event)
        case Working(), Done():
            transition: Transition = _DONE[type(state.work)](state, event.result)
            return transition
        case Working(), Failed():
            return _refuse(state.seat, state.request, event.error, event.reason)
        case _:
            raise OutOfOrder(f"{_describe(event)} does not belong in {type(state).__name__}")


def _describe(event: Event) -> str:
    return event.request.kind if isinstance(event, Asked | Proposed) else type(event).__name__


def _proposed(state: Idle, event: Proposed) -> Transition:
    seat = Seat(state.name, event.plan, event.plan_digest, checkpoint=_shown(event.request))
    if state.name not in event.plan.names:
        return _refuse(seat, event.request, "BadPlan", f"{state.name} is not a member of the plan")
    return _work(seat, Memory(), event.request, Consider(event.plan, event.seen_head))


def _aborted(state: Waiting | Working, request: m.Abort) -> Transition:
    """Whatever the round, for the coordinator may be ahead; but an abort of another job ends nothing here.

    Also where work was cut off by a crash: nobody may ask for it again, and its secrets would stay.
    """
    if (request.alliance, request.job) != (state.seat.plan.alliance, state.seat.plan.job):
        raise OutOfOrder(f"abort of job {request.job}, while job {state.seat.plan.job} is under way")
    seat = replace(state.seat, round=request.round)
    return Over(state.seat.name, request.reason), (Forget(), Reply(m.Stopped(**seat.bound)))


def _asked(state: Waiting, event: Asked) -> Transition:
    request = event.request
    if request.kind not in state.awaits:
        raise OutOfOrder(f"{request.kind}, while {' or '.join(state.awaits)} is awaited")
    expected = state.seat.round + 1 if isinstance(request, m.RoundOpening) else state.seat.round
    if (request.alliance, request.job, request.round) != (state.seat.plan.alliance, state.seat.plan.job, expected):
        raise OutOfOrder(f"{request.kind} of round {request.round} of job {request.job}, round {expected} is awaited")
    return _ASKED[type(request)](state, event)


# ---- requests


def _key_request(state: Waiting, event: Asked) -> Transition:
    acceptances = _within(state.seat, event, m.Acceptance, state.seat.plan.names, len(state.seat.plan.names))
    if acceptances is None or _odd({n: a.plan_digest for n, a in acceptances.items()}, state.seat.plan_digest):
        return _refuse(state.seat, event.request, "NotAuthentic", "the acceptances are not everybody's of this plan")
    return _work(state.seat, state.memory, event.request, MakeAllianceKey(acceptances))


def _key_delivery(state: Waiting, event: Asked) -> Transition:
    """The key must come from the key maker, for exactly these acceptances."""
    keys = event.relayed.get(state.seat.plan.names[0])
    request = event.request
    if not isinstance(keys, m.WrappedKeys) or not isinstance(request, m.KeyDelivery):
        return _refuse(state.seat, request, "NotAuthentic", f"no wrapped keys of {state.seat.plan.names[0]}")
    accepted = m.KeyRequest(**state.seat.bound, acceptances=request.acceptances)
    if keys.acceptances_digest != digest_of(encode(accepted)):
        return _refuse(state.seat, request, "NotAuthentic", "the keys were wrapped for other acceptances")
    if no := _badly_wrapped(keys, state.seat.plan.names):
        return _refuse(state.seat, request, "NotAuthentic", no)
    return _work(state.seat, state.memory, request, TakeAllianceKey(keys))


def _badly_wrapped(keys: m.WrappedKeys, names: tuple[str, ...]) -> str:
    """Return what no honest key maker writes: one wrap for each member, as long as all others, and no long rest."""
    if tuple(to.member for to in keys.wrapped) != names:
        return "the key is not wrapped to each member of the plan, in order"
    lengths = {to.member: len(base64.b64decode(to.sealed)) for to in keys.wrapped}
    if odd := [f"{name} {length}" for name, length in lengths.items() if length != WRAPPED_KEY_BYTES]:
        return f"a wrapped key has {WRAPPED_KEY_BYTES} bytes, that of {odd[0]}"
    if (length := len(base64.b64decode(keys.sealed_key))) > SEALED_KEY_BYTES:
        return f"the sealed key has {length} bytes, at most {SEALED_KEY_BYTES}"
    return ""


def _round_opening(state: Waiting, event: Asked) -> Transition:
    request = event.request
    previous = request.previous_record if isinstance(request, m.RoundOpening) else None
    if previous != state.seat.previous_record:
        raise OutOfOrder(f"round {request.round} after record {previous}, here it is {state.seat.previous_record}")
    seat = replace(state.seat, round=request.round)
    return _work(seat, Memory(), request, MakeRoundKeys(request.round))


def _key_roster(state: Waiting, event: Asked) -> Transition:
    plan = state.seat.plan
    roster = _within(state.seat, event, m.RoundKeys, plan.names, plan.fewest)
    if roster is None or _odd({n: k.plan_digest for n, k in roster.items()}, state.seat.plan_digest):
        reason = f"the round keys are not mine and of {plan.fewest} members in all, for this plan"
        return _refuse(state.seat, event.request, "NotAuthentic", reason)
    if odd := [name for name, keys in sorted(roster.items()) if keys.checkpoint != state.seat.checkpoint]:
        reason = f"another log than mine was shown to {', '.join(odd)[:400]}"
        return _refuse(state.seat, event.request, "LogForked", reason)
    digest = digest_of(encode(event.request))
    memory = replace(state.memory, roster=tuple(sorted(roster)), roster_digest=digest)
    return _work(state.seat, memory, event.request, DealShares(state.seat.round, roster, digest))


def _share_delivery(state: Waiting, event: Asked) -> Transition:
    """All dealers must have signed the roster that I saw: then, and only then, the ledger is charged."""
    dealt = _within(state.seat, event, m.SealedShares, state.memory.roster, state.seat.plan.fewest)
    if dealt is None or _odd({n: s.roster_digest for n, s in dealt.items()}, state.memory.roster_digest):
        return _refuse(state.seat, event.request, "NotAuthentic", "somebody signed another roster of this round")
    if any([share.member for share in s.shares] != list(state.memory.roster) for s in dealt.values()):
        return _refuse(state.seat, event.request, "NotAuthentic", "somebody's shares are not for the roster, in order")
    digest = digest_of(encode(event.request))
    memory = replace(state.memory, dealers=tuple(sorted(dealt)), dealers_digest=digest)
    return _work(state.seat, memory, event.request, OpenShares(state.seat.round, dealt))


def _survivor_list(state: Waiting, event: Asked) -> Transition:
    plan, memory = state.seat.plan, state.memory
    updates = _within(state.seat, event, m.SealedUpdate, memory.dealers, plan.fewest)
    request = event.request
    if updates is None or not isinstance(request, m.SurvivorList):
        reason = f"the list does not hold my upload and {plan.fewest} dealers' in all"
        return _refuse(state.seat, request, "NotAuthentic", reason)
    if _odd({n: u.roster_digest for n, u in updates.items()}, memory.roster_digest):
        return _refuse(state.seat, request, "NotAuthentic", "an upload belongs to another roster")
    if _odd({n: u.dealers_digest for n, u in updates.items()}, memory.dealers_digest):
        return _refuse(state.seat, request, "NotAuthentic", "an upload was masked for another list of dealers")
    if updates[state.seat.name].upload != state.memory.upload:
        return _refuse(state.seat, request, "NotAuthentic", "the list names another upload as mine")
    uploads = {name: update.upload for name, update in sorted(updates.items())}
    if len({upload.digest for upload in uploads.values()}) != len(uploads):
        return _refuse(state.seat, request, "NotAuthentic", "one upload stands twice in the list")
    heads = {name: update.ledger_head for name, update in updates.items()}
    memory = replace(memory, survivors=request, uploads=uploads, heads=heads)
    confirmed = m.SurvivorsConfirmed(**state.seat.bound, survivors_digest=digest_of(encode(request)))
    return _answer(state.seat, memory, confirmed, "confirmations")


def _confirmations(state: Waiting, event: Asked) -> Transition:
    """The consistency check: no share is revealed before `TrainingPlan.confirmations` members signed the same list."""
    memory, survivors = state.memory, tuple(state.memory.uploads)
    confirmed = _within(state.seat, event, m.SurvivorsConfirmed, survivors, state.seat.plan.confirmations)
    digests = {n: c.survivors_digest for n, c in (confirmed or {}).items()}
    if confirmed is None or _odd(digests, _survivors_digest(memory)):
        return _refuse(state.seat, event.request, "NotAuthentic", "somebody confirmed another list of survivors")
    work = RevealShares(state.seat.round, memory.dealers, survivors)
    return _work(state.seat, replace(memory, confirmed=tuple(sorted(confirmed))), event.request, work)


def _reveal_delivery(state: Waiting, event: Asked) -> Transition:
    """Add again if I was drawn; say that I was not, otherwise."""
    memory, plan = state.memory, state.seat.plan
    revealed = _within(state.seat, event, m.RevealedShares, memory.confirmed, plan.threshold)
    digests = {n: r.survivors_digest for n, r in (revealed or {}).items()}
    if revealed is None or _odd(digests, _survivors_digest(memory)):
        return _refuse(state.seat, event.request, "NotAuthentic", "shares were revealed for another list")
    memory = replace(memory, revealed=revealed)
    if state.seat.name in _verifiers(plan, memory):
        return _work(state.seat, memory, event.request, AddAgain(state.seat.round, memory.uploads))
    answer = m.SumChecked(**state.seat.bound, survivors_digest=_survivors_digest(memory), sum_digest=None)
    return _answer(state.seat, memory, answer, "sum-checks")


def _sum_checks(state: Waiting, event: Asked) -> Transition:
    """Nobody opens before enough of those that were drawn have added the same uploads to the same bytes."""
    memory, plan = state.memory, state.seat.plan
    checks = _within(state.seat, event, m.SumChecked, tuple(memory.revealed), plan.threshold)
    total = memory.survivors.sum if memory.survivors else BlobRef(digest=digest_of(b""), length=0)
    drawn = _verifiers(plan, memory)
    said = {n: c.sum_digest for n, c in (checks or {}).items() if c.sum_digest is not None or n in drawn}
    needed = checks_needed(drawn, verifiers=plan.sum.verifiers, threshold=plan.threshold)
    if (
        checks is None
        or any(digest != total.digest for digest in said.values())
        or len(set(said) & set(drawn)) < needed
    ):
        return _refuse(state.seat, event.request, "SumRefused", f"not {needed} of those drawn checked the same sum")
    if _odd({n: c.survivors_digest for n, c in checks.items()}, _survivors_digest(memory)):
        return _refuse(state.seat, event.request, "SumRefused", "a sum of other uploads was checked")
    work = OpenSum(state.seat.round, total, memory.dealers, tuple(memory.uploads), memory.revealed)
    return _work(state.seat, memory, event.request, work)


def _release(state: Waiting, event: Asked) -> Transition:
    """The record must say what this institution saw, and a quorum must have voted for its adapter."""
    record, digest = event.record, event.record_digest
    if record is None or digest is None:
        return _refuse(state.seat, event.request, "MalformedMessage", "the release holds no record")
    if wrong := _wrong_in_record(state, record):
        return _refuse(state.seat, event.request, "NotAuthentic", f"the record differs in {wrong}")
    votes = _within(state.seat, event, m.AdapterVote, tuple(state.memory.revealed), 1) or {}
    mine = (record.sum_digest, state.memory.adapter_digest, state.memory.score)
    agree = [n for n, v in votes.items() if (v.sum_digest, v.adapter_digest, v.score) == mine]
    if len(agree) < state.seat.plan.quorum:
        reason = f"{len(agree)} members voted for this adapter, the quorum is {state.seat.plan.quorum}"
        return _refuse(state.seat, event.request, "NotAuthentic", reason)
    if set(record.votes) != set(agree):
        reason = f"the record counts the votes of {record.votes}, signed are those of {agree}"
        return _refuse(state.seat, event.request, "NotAuthentic", reason)
    memory = replace(state.memory, record_digest=digest)
    last = ended(state.seat.plan, (*state.seat.scores, state.memory.score))
    return _work(state.seat, memory, event.request, Keep(state.seat.round, record, last))


def _wrong_in_record(state: Waiting, record: RoundRecord) -> str:
    seat, memory = state.seat, state.memory
    pairs = {
        "job": ((record.alliance, record.job), (seat.plan.alliance, seat.plan.job)),
        "round": (record.round, seat.round),
        "plan": (record.plan_digest, seat.plan_digest),
        "members": (record.members, memory.roster),
        "roster": (record.roster_digest, memory.roster_digest),
        "sum": (
            (record.sum_digest, record.sum_length),
            (memory.survivors.sum.digest, memory.survivors.sum.length) if memory.survivors else None,
        ),
        "adapter": (record.adapter_digest, memory.adapter_digest),
        "score": (record.score, memory.score),
        "previous record": (record.previous_record, seat.previous_record),
        "ledger heads": ({h.member: h.head for h in record.ledger_heads}, dict(memory.heads)),
        "uploads": (
            {u.member: (u.digest, u.length) for u in record.uploads},
            {n: (u.digest, u.length) for n, u in memory.uploads.items()},
        ),
    }
    return ", ".join(name for name, (said, seen) in pairs.items() if said != seen)


_ASKED = {
    m.KeyRequest: _key_request,
    m.KeyDelivery: _key_delivery,
    m.RoundOpening: _round_opening,
    m.KeyRoster: _key_roster,
    m.ShareDelivery: _share_delivery,
    m.SurvivorList: _survivor_list,
    m.Confirmations: _confirmations,
    m.RevealDelivery: _reveal_delivery,
    m.SumChecks: _sum_checks,
    m.Release: _release,
}

# ---- results of effects


def _considered(s: Working, result: tuple[str, str]) -> Transition:
    wrap_key, head = result
    answer = m.Acceptance(**s.seat.bound, plan_digest=s.seat.plan_digest, wrap_key=wrap_key, ledger_head=head)
    first = ("key-request",) if s.seat.name == s.seat.plan.names[0] else ("key-delivery",)
    return _answer(s.seat, s.memory, answer, *first)


def _alliance_key_made(s: Working, result: tuple[str, str, tuple[m.ToMember, ...]]) -> Transition:
    fingerprint, sealed_key, wrapped = result
    answer = m.WrappedKeys(
        **s.seat.bound,
        acceptances_digest=digest_of(encode(s.request)),
        key_fingerprint=fingerprint,
        sealed_key=sealed_key,
        wrapped=wrapped,
    )
    return _answer(s.seat, s.memory, answer, "key-delivery")


def _alliance_key_taken(s: Working, result: str) -> Transition:
    return _answer(s.seat, s.memory, m.KeyAccepted(**s.seat.bound, key_fingerprint=result), "round-opening")


def _round_keys_made(s: Working, result: tuple[str, str]) -> Transition:
    mask_key, channel_key = result
    seat = s.seat
    answer = m.RoundKeys(
        **seat.bound, plan_digest=seat.plan_digest, checkpoint=seat.checkpoint, mask_key=mask_key,
        channel_key=channel_key,
    )  # fmt: skip
    return _answer(s.seat, s.memory, answer, "key-roster")


def _shares_dealt(s: Working, result: tuple[m.ToMember, ...]) -> Transition:
    answer = m.SealedShares(**s.seat.bound, roster_digest=s.memory.roster_digest, shares=result)
    return _answer(s.seat, s.memory, answer, "share-delivery")


def _shares_opened(s: Working, _: None) -> Transition:
    return _work(s.seat, s.memory, s.request, Charge(s.seat.round))


def _charged(s: Working, head: str) -> Transition:
    """Only now may a record be read."""
    return _work(s.seat, replace(s.memory, ledger_head=head), s.request, Train(s.seat.round))


def _trained(s: Working, _: None) -> Transition:
    return _work(s.seat, s.memory, s.request, Seal(s.seat.round, s.memory.dealers))


def _sealed(s: Working, upload: BlobRef) -> Transition:
    memory = replace(s.memory, upload=upload)
    answer = m.SealedUpdate(
        **s.seat.bound,
        roster_digest=memory.roster_digest,
        dealers_digest=memory.dealers_digest,
        upload=upload,
        ledger_head=memory.ledger_head,
    )
    return _answer(s.seat, memory, answer, "survivor-list")


def _shares_revealed(s: Working, result: str) -> Transition:
    answer = m.RevealedShares(**s.seat.bound, survivors_digest=_survivors_digest(s.memory), sealed=result)
    return _answer(s.seat, s.memory, answer, "reveal-delivery")


def _added_again(s: Working, total: BlobRef) -> Transition:
    said = s.memory.survivors
    if said is None or total != said.sum:
        return _refuse(s.seat, s.request, "SumRefused", f"the uploads add up to {total.digest}, not to the sum stated")
    answer = m.SumChecked(**s.seat.bound, survivors_digest=_survivors_digest(s.memory), sum_digest=total.digest)
    return _answer(s.seat, s.memory, answer, "sum-checks")


def _opened(s: Working, result: tuple[str, str | None]) -> Transition:
    digest, score = result
    total = s.memory.survivors.sum.digest if s.memory.survivors else ""
    answer = m.AdapterVote(**s.seat.bound, sum_digest=total, adapter_digest=digest, score=score)
    return _answer(s.seat, replace(s.memory, adapter_digest=digest, score=score), answer, "release")


def _kept(s: Working, result: tuple[str | None, BlobRef | None]) -> Transition:
    report, adapter = result
    record = s.memory.record_digest
    answer = m.Released(**s.seat.bound, record_digest=record, report_digest=report, adapter=adapter)
    scores = (*s.seat.scores, s.memory.score)
    if ended(s.seat.plan, scores):
        return Over(s.seat.name, "complete"), (Forget(), Reply(answer))
    seat = replace(s.seat, previous_record=record, scores=scores, checkpoint=_shown(s.request))
    return _answer(seat, Memory(), answer, "round-opening")


_DONE: dict[type[Work], Any] = {
    Consider: _considered,
    MakeAllianceKey: _alliance_key_made,
    TakeAllianceKey: _alliance_key_taken,
    MakeRoundKeys: _round_keys_made,
    DealShares: _shares_dealt,
    OpenShares: _shares_opened,
    Charge: _charged,
    Train: _trained,
    Seal: _sealed,
    RevealShares: _shares_revealed,
    AddAgain: _added_again,
    OpenSum: _opened,
    Keep: _kept,
}

# ---- small things


def _work(seat: Seat, memory: Memory, request: m.Request, work: Work) -> Transition:
    return Working(seat, memory, request, work), (work,)


def _answer(seat: Seat, memory: Memory, answer: m.Answer, *awaits: str) -> Transition:
    return Waiting(seat, memory, awaits), (Reply(answer),)


def _refuse(seat: Seat, request: m.Request, error: str, reason: str) -> Transition:
    """Say no, and end the job here: nothing more leaves."""
    bound = {"alliance": request.alliance, "job": request.job, "round": request.round}
    refusal = m.Refusal(**bound, request_digest=digest_of(encode(request)), error=error, reason=reason[:500])  # type: ignore[arg-type]
    return Over(seat.name, f"{error}: {reason}"), (Forget(), Reply(refusal))


def _of(event: Asked, kind: type[R]) -> dict[str, R]:
    return {name: answer for name, answer in event.relayed.items() if isinstance(answer, kind)}


def _within(seat: Seat, event: Asked, kind: type[R], allowed: Collection[str], fewest: int) -> dict[str, R] | None:
    """Return the answers of this kind and round, mine among them, or None: one is foreign, or there are too few."""
    answers = _of(event, kind)
    fits = all((a.alliance, a.job, a.round) == tuple(seat.bound.values()) for a in answers.values())
    whole = set(answers) == set(event.relayed) <= set(allowed) and seat.name in answers
    return answers if fits and whole and len(answers) >= fewest else None


def _shown(request: m.Request) -> str:
    """Return the digest of the log's checkpoint in a proposal or release."""
    return digest_of(base64.b64decode(request.checkpoint)) if isinstance(request, m.Proposal | m.Release) else ""


def _odd(seen: Mapping[str, str], expected: str) -> bool:
    return any(digest != expected for digest in seen.values())


def _verifiers(plan: TrainingPlan, memory: Memory) -> tuple[str, ...]:
    return drawn_verifiers(_survivors_digest(memory), memory.confirmed, plan.sum.verifiers)


def _survivors_digest(memory: Memory) -> str:
    return digest_of(encode(memory.survivors)) if memory.survivors else ""
