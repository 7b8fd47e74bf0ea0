"""The coordinator's job as a pure state machine: who is asked what, and when a phase is complete.

    Gathering(acceptance) -> (wrapped-keys) -> (key-accepted)
      -> for each round: (round-keys) -> (sealed-shares) -> (sealed-update) -> Adding -> (survivors-confirmed)
         -> (revealed-shares) -> (sum-checked) -> (adapter-vote) -> Recording -> (released)
      -> Finished                                      any state -> Aborted, with a reason

Before the first round every member must accept. In a round a member may go missing in any phase (its deadline passes,
it refuses, it signs something else than the others, its upload can't be added): it is then out of the job and is told
so, and the others finish. Until the uploads are here they must be as many as `TrainingPlan.fewest`, then
`TrainingPlan.confirmations` must sign the list, and from then on the threshold is enough; with fewer the job aborts.
A refusal that speaks of an attack aborts at once (`ALARMS`).

`step` raises `OutOfOrder` and changes nothing, or returns the next state with its effects. It reads no clock, draws
no randomness and does no I/O: `functools.reduce(step, journal)` is the state, and `outstanding(state)` is what has
to be done next, on the first run as after a restart.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from fl_alliance.errors import OutOfOrder
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.draw import drawn_verifiers
from fl_alliance.protocol.evaluation import ended
from fl_alliance.protocol.ids import BlobRef, digest_of
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.rounds.coordinator_words import (
    Aborted,
    Adding,
    AddUploads,
    Answered,
    Ask,
    Cancelled,
    DeadlinePassed,
    Effect,
    Event,
    Finished,
    Gathering,
    Job,
    Phase,
    Progress,
    Recording,
    RecordSigned,
    Signed,
    SignRecord,
    State,
    SumAdded,
    Transition,
    UploadRefused,
    kind_of,
)

__all__ = [
    "Aborted",
    "AddUploads",
    "Adding",
    "Answered",
    "Ask",
    "Cancelled",
    "DeadlinePassed",
    "Effect",
    "Event",
    "Finished",
    "Gathering",
    "Job",
    "Phase",
    "Progress",
    "RecordSigned",
    "Recording",
    "SignRecord",
    "Signed",
    "State",
    "SumAdded",
    "Transition",
    "UploadRefused",
    "key_maker",
    "key_roster",
    "kind_of",
    "outstanding",
    "share_delivery",
    "start",
    "step",
    "survivor_list",
    "waited_for",
]


ALARMS: Final = frozenset({"NotAuthentic", "SumRefused", "WrongCipher", "OutOfRange", "LogForked", "NotInLog"})
"""Errors of a refusal after which nobody goes on: what the coordinator relayed, summed or logged is not what was signed
or shown."""


def start(job: Job) -> Transition:
    """Begin the job: propose the plan to everybody, to each with the newest ledger head that it signed itself."""
    progress = Progress(job, checkpoint=digest_of(job.checkpoint))
    return _ask(progress, m.Acceptance, {name: _proposal(job, name) for name in job.names})


def _proposal(job: Job, member: str) -> m.Proposal:
    seen = job.last_seen.get(member)
    return m.Proposal(
        **job.bound(0),
        plan=_base64(job.plan_envelope),
        members=_base64(job.members_envelope),
        last_seen=None if seen is None else _base64(seen),
        checkpoint=_base64(job.checkpoint),
    )


def outstanding(state: State) -> tuple[Effect, ...]:
    """Return what must be done, or done again, in `state`. After a restart this is what to do first."""
    match state:
        case Gathering():
            return (*(Ask(name, state.asked[name]) for name in waited_for(state)), *_tell_left(state.progress))
        case Adding():
            return (AddUploads(_uploads(state.progress)), *_tell_left(state.progress))
        case Recording():
            return (_record(state.progress), *_tell_left(state.progress))
        case Finished():
            return _tell_left(state.progress)
        case Aborted():
            return _tell_abort(state.progress, state.reason)


def waited_for(state: State) -> tuple[str, ...]:
    """Return the members that owe an answer, sorted."""
    if not isinstance(state, Gathering):
        return ()
    return tuple(sorted(set(state.asked) - set(state.answers) - set(state.progress.left)))


def step(state: State, event: Event) -> Transition:
    """Take one event.

    Raises:
        OutOfOrder: `state` does not await `event`. Nothing has changed.
    """
    match state, event:
        case ((Finished() | Aborted()), _):
            raise OutOfOrder(f"the job is over, {type(event).__name__} comes too late")
        case Gathering(), Answered():
            return _answered(state, event)
        case Adding(), SumAdded():
            return _sum_added(state, event)
        case Adding(), UploadRefused():
            return _upload_refused(state, event)
        case Recording(), RecordSigned():
            return _record_signed(state, event)
        case _, Cancelled():
            return _abort(state.progress, event.reason)
        case Gathering(), DeadlinePassed():
            return _deadline(state, event)
        case _:
            raise OutOfOrder(f"{type(event).__name__} does not belong in {type(state).__name__}")


# ---- one answer more


def _answered(state: Gathering, event: Answered) -> Transition:
    answer, member = event.signed.answer, event.member
    if member not in state.asked:
        raise OutOfOrder(f"{member} was not asked for {kind_of(state.awaits)}")
    if member in state.progress.left:
        raise OutOfOrder(f"{member} is out of the job: {state.progress.left[member]}")
    if member in state.answers:
        raise OutOfOrder(f"{member} has already answered with {kind_of(state.awaits)}")
    if (answer.alliance, answer.job, answer.round) != tuple(state.progress.job.bound(state.progress.round).values()):
        raise OutOfOrder(f"{answer.kind} of round {answer.round} of job {answer.job}, not of this one")
    if isinstance(answer, m.Refusal):
        return _refused(state, member, answer)
    if not isinstance(answer, state.awaits):
        raise OutOfOrder(f"{answer.kind} from {member}, while {kind_of(state.awaits)} is awaited")
    return _go_on(replace(state, answers=MappingProxyType({**state.answers, member: event.signed})))


def _go_on(state: Gathering) -> Transition:
    """Complete the phase once nobody is waited for."""
    return (state, ()) if waited_for(state) else _complete(state)


def _refused(state: Gathering, member: str, refusal: m.Refusal) -> Transition:
    if refusal.request_digest != digest_of(encode(state.asked[member])):
        raise OutOfOrder(f"{member} refuses another request than the one it was asked")
    reason = f"{member} refused: {refusal.error}: {refusal.reason}"
    if refusal.error in ALARMS:
        return _abort(state.progress, reason)
    return _leave(state, {member: reason})


def _deadline(state: Gathering, event: DeadlinePassed) -> Transition:
    if (event.kind, event.round) != (kind_of(state.awaits), state.progress.round):
        raise OutOfOrder(f"the deadline of {event.kind} in round {event.round} no longer matters")
    missing = waited_for(state)
    reason = f"no {event.kind} from {', '.join(missing)} in round {event.round} before the deadline"
    return _leave(state, dict.fromkeys(missing, reason))


def _leave(state: Gathering, gone: Mapping[str, str]) -> Transition:
    """Go on without members that owe an answer; before the first round nobody may be missing."""
    if state.progress.round == 0:
        return _abort(state.progress, next(iter(gone.values())))
    return _with_the_rest(state.progress, state.awaits, gone, lambda p: _go_on(replace(state, progress=p)))


def _with_the_rest(
    p: Progress, awaits: type[m.Answer], gone: Mapping[str, str], go_on: Callable[[Progress], Transition]
) -> Transition:
    """Take `gone` out of the job and `go_on`, or abort if too few are left for the phase that `awaits` an answer."""
    if not gone:
        return go_on(p)
    p = replace(p, left=MappingProxyType({**p.left, **gone}))
    if len(p.present) < (needed := _needed(p.job.plan, awaits)):
        return _abort(p, f"{next(iter(gone.values()))}; {len(p.present)} members are left, need {needed}")
    state, effects = go_on(p)
    return state, (*_tell_left(p, gone), *effects)


def _needed(plan: TrainingPlan, awaits: type[m.Answer]) -> int:
    """Return how many members must be left: a sum has enough uploads; after it, enough shares to open the masks."""
    if awaits is m.Released:
        return 1
    if awaits is m.SurvivorsConfirmed:
        return plan.confirmations
    return plan.fewest if awaits in (m.RoundKeys, m.SealedShares, m.SealedUpdate) else plan.threshold


def _with_who_agrees(
    p: Progress,
    kind: type[m.Answer],
    said: Mapping[str, object],
    right: object,
    what: str,
    go_on: Callable[[Progress], Transition],
) -> Transition:
    """Leave out of the complete phase, and of the job, whoever signed something else than `right`."""
    gone = {name: f"{name} {what}" for name in sorted(said) if said[name] != right}
    return _with_the_rest(p, kind, gone, lambda rest: go_on(_trimmed(rest, kind)))


def _trimmed(p: Progress, kind: type[m.Answer]) -> Progress:
    """Return `p` without the answers of a phase that came from members who have left since."""
    answers = {name: signed for name, signed in p.phases[kind_of(kind)].items() if name not in p.left}
    return replace(p, phases=MappingProxyType({**p.phases, kind_of(kind): MappingProxyType(answers)}))


# ---- a phase is complete


def _complete(state: Gathering) -> Transition:
    """Keep the phase and ask for the next. The order is the protocol's."""
    phases = {**state.progress.phases, kind_of(state.awaits): state.answers}
    progress = replace(state.progress, phases=MappingProxyType(phases))
    return _NEXT[state.awaits](progress)


def _after_acceptance(p: Progress) -> Transition:
    digests = {name: a.plan_digest for name, a in p.done(m.Acceptance).items()}
    if odd := _odd(digests, digest_of(p.job.plan_envelope)):
        return _abort(p, f"{', '.join(odd)} accepted another plan")
    request = m.KeyRequest(**p.job.bound(0), acceptances=p.envelopes(m.Acceptance))
    return _ask(p, m.WrappedKeys, {key_maker(p.job.plan): request})


def _after_wrapped_keys(p: Progress) -> Transition:
    (wrapped,) = p.envelopes(m.WrappedKeys)
    return _ask_all(
        p,
        m.KeyAccepted,
        m.KeyDelivery(**p.job.bound(0), acceptances=p.envelopes(m.Acceptance), wrapped_keys=wrapped),
    )


def _after_key_accepted(p: Progress) -> Transition:
    (wrapped,) = p.done(m.WrappedKeys).values()
    if odd := _odd({name: k.key_fingerprint for name, k in p.done(m.KeyAccepted).items()}, wrapped.key_fingerprint):
        return _abort(p, f"{', '.join(odd)} accepted another alliance key")
    return _open_round(p, 1, None)


def _after_round_keys(p: Progress) -> Transition:
    said = {name: (k.plan_digest, k.checkpoint) for name, k in p.done(m.RoundKeys).items()}
    right = (digest_of(p.job.plan_envelope), p.checkpoint)
    return _with_who_agrees(p, m.RoundKeys, said, right, "made keys for another plan or log", _ask_to_deal)


def _ask_to_deal(p: Progress) -> Transition:
    return _ask_all(p, m.SealedShares, key_roster(p))


def _after_sealed_shares(p: Progress) -> Transition:
    dealt = p.done(m.SealedShares)
    said = {name: (s.roster_digest, tuple(to.member for to in s.shares)) for name, s in dealt.items()}
    right = (digest_of(encode(key_roster(p))), tuple(sorted(p.phases[kind_of(m.RoundKeys)])))
    return _with_who_agrees(p, m.SealedShares, said, right, "signed another roster", _ask_for_updates)


def _ask_for_updates(p: Progress) -> Transition:
    return _ask_all(p, m.SealedUpdate, share_delivery(p))


def _after_sealed_update(p: Progress) -> Transition:
    said = {name: (u.roster_digest, u.dealers_digest) for name, u in p.done(m.SealedUpdate).items()}
    right = (digest_of(encode(key_roster(p))), digest_of(encode(share_delivery(p))))
    return _with_who_agrees(p, m.SealedUpdate, said, right, "masked for another list of dealers", _add_the_uploads)


def _add_the_uploads(p: Progress) -> Transition:
    return Adding(p), (AddUploads(_uploads(p)),)


def _upload_refused(state: Adding, event: UploadRefused) -> Transition:
    """Leave one upload out: the others' shares open its sender's pairwise masks, as if it had vanished before."""
    if event.member not in state.progress.phases[kind_of(m.SealedUpdate)]:
        raise OutOfOrder(f"{event.member} has no upload in this round")
    gone = {event.member: f"the upload of {event.member} was refused: {event.reason}"}
    return _with_the_rest(state.progress, m.SealedUpdate, gone, lambda p: _add_the_uploads(_trimmed(p, m.SealedUpdate)))


def _sum_added(state: Adding, event: SumAdded) -> Transition:
    p = replace(state.progress, sum=event.sum)
    return _ask_all(p, m.SurvivorsConfirmed, survivor_list(p))


def _after_survivors_confirmed(p: Progress) -> Transition:
    seen = {name: c.survivors_digest for name, c in p.done(m.SurvivorsConfirmed).items()}
    return _with_who_agrees(
        p, m.SurvivorsConfirmed, seen, _survivors_digest(p), "confirmed another list of survivors", _ask_for_shares
    )


def _ask_for_shares(p: Progress) -> Transition:
    request = m.Confirmations(**p.job.bound(p.round), confirmed=p.envelopes(m.SurvivorsConfirmed))
    return _ask_all(p, m.RevealedShares, request)


def _after_revealed_shares(p: Progress) -> Transition:
    seen = {name: r.survivors_digest for name, r in p.done(m.RevealedShares).items()}
    return _with_who_agrees(
        p, m.RevealedShares, seen, _survivors_digest(p), "revealed shares for another list", _ask_for_checks
    )


def _ask_for_checks(p: Progress) -> Transition:
    request = m.RevealDelivery(**p.job.bound(p.round), revealed_shares=p.envelopes(m.RevealedShares))
    return _ask_all(p, m.SumChecked, request)


def _after_sum_checked(p: Progress) -> Transition:
    """Another sum ends the job; who was drawn and did not add, or checked another list, is left out."""
    checks = p.done(m.SumChecked)
    sums = {name: c.sum_digest for name, c in checks.items() if c.sum_digest is not None}
    if odd := _odd(sums, survivor_list(p).sum.digest):
        return _abort(p, f"{', '.join(odd)} added the uploads to another sum")
    confirmed = p.phases[kind_of(m.SurvivorsConfirmed)]
    drawn = drawn_verifiers(_survivors_digest(p), tuple(confirmed), p.job.plan.sum.verifiers)
    said = {name: (c.survivors_digest, name not in drawn or name in sums) for name, c in checks.items()}
    return _with_who_agrees(
        p, m.SumChecked, said, (_survivors_digest(p), True), "did not check the sum of this list", _ask_to_open
    )


def _ask_to_open(p: Progress) -> Transition:
    return _ask_all(p, m.AdapterVote, m.SumChecks(**p.job.bound(p.round), sum_checked=p.envelopes(m.SumChecked)))


def _after_adapter_vote(p: Progress) -> Transition:
    sums = {name: vote.sum_digest for name, vote in p.done(m.AdapterVote).items()}
    return _with_who_agrees(
        p, m.AdapterVote, sums, survivor_list(p).sum.digest, "voted for what another sum gives", _count_the_votes
    )


def _count_the_votes(p: Progress) -> Transition:
    (adapter, score), votes = _winner(p)
    if len(votes) < p.job.plan.quorum:
        return _abort(
            p, f"{len(votes)} members agree on an adapter ({adapter}), the plan's quorum is {p.job.plan.quorum}"
        )
    ballots = {name: (vote.adapter_digest, vote.score) for name, vote in p.done(m.AdapterVote).items()}
    return _with_who_agrees(p, m.AdapterVote, ballots, (adapter, score), "voted for another adapter", _write_the_record)


def _write_the_record(p: Progress) -> Transition:
    return Recording(p), (_record(p),)


def _record_signed(state: Recording, event: RecordSigned) -> Transition:
    checkpoint = digest_of(event.checkpoint)
    p = replace(state.progress, previous_record=digest_of(event.envelope), checkpoint=checkpoint)
    votes = p.envelopes(m.AdapterVote)
    return _ask_all(
        p,
        m.Released,
        m.Release(
            **p.job.bound(p.round), record=_base64(event.envelope), votes=votes, checkpoint=_base64(event.checkpoint)
        ),
    )


def _after_released(p: Progress) -> Transition:
    kept = {name: r.record_digest for name, r in p.done(m.Released).items()}
    return _with_who_agrees(p, m.Released, kept, p.previous_record, "kept another record", _after_the_round)


def _after_the_round(p: Progress) -> Transition:
    p = replace(p, scores=(*p.scores, _winner(p)[0][1]))
    if ended(p.job.plan, p.scores):
        return Finished(p), ()
    if len(p.present) < p.job.plan.fewest:
        return _abort(p, f"{len(p.present)} members are left for round {p.round + 1}, need {p.job.plan.fewest}")
    return _open_round(p, p.round + 1, p.previous_record)


_NEXT = {
    m.Acceptance: _after_acceptance,
    m.WrappedKeys: _after_wrapped_keys,
    m.KeyAccepted: _after_key_accepted,
    m.RoundKeys: _after_round_keys,
    m.SealedShares: _after_sealed_shares,
    m.SealedUpdate: _after_sealed_update,
    m.SurvivorsConfirmed: _after_survivors_confirmed,
    m.RevealedShares: _after_revealed_shares,
    m.SumChecked: _after_sum_checked,
    m.AdapterVote: _after_adapter_vote,
    m.Released: _after_released,
}

# ---- what the phases say


def key_maker(plan: TrainingPlan) -> str:
    """Return the member that makes the alliance key of the job."""
    return plan.names[0]


def key_roster(p: Progress) -> m.KeyRoster:
    """Return the roster of the round; its digest binds everything that follows."""
    return m.KeyRoster(**p.job.bound(p.round), round_keys=p.envelopes(m.RoundKeys))


def share_delivery(p: Progress) -> m.ShareDelivery:
    """Return who dealt shares; its digest is in every upload."""
    return m.ShareDelivery(**p.job.bound(p.round), sealed_shares=p.envelopes(m.SealedShares))


def survivor_list(p: Progress) -> m.SurvivorList:
    """Return the list of uploads with their sum."""
    if p.sum is None:
        raise OutOfOrder("the uploads have not been added")
    return m.SurvivorList(**p.job.bound(p.round), sealed_updates=p.envelopes(m.SealedUpdate), sum=p.sum)


def _survivors_digest(p: Progress) -> str:
    return digest_of(encode(survivor_list(p)))


def _open_round(p: Progress, number: int, previous: str | None) -> Transition:
    keyed = {kind: p.phases[kind] for kind in ("acceptance", "wrapped-keys", "key-accepted")}
    phases = MappingProxyType(keyed)
    fresh = Progress(p.job, number, previous, phases, left=p.left, scores=p.scores, checkpoint=p.checkpoint)
    return _ask_all(fresh, m.RoundKeys, m.RoundOpening(**p.job.bound(number), previous_record=previous))


def _record(p: Progress) -> SignRecord:
    (adapter, score), votes = _winner(p)
    updates = p.done(m.SealedUpdate)
    return SignRecord(
        round=p.round,
        roster=tuple(sorted(p.phases[kind_of(m.RoundKeys)])),
        roster_digest=digest_of(encode(key_roster(p))),
        previous_record=p.previous_record,
        uploads=_uploads(p),
        ledger_heads={name: update.ledger_head for name, update in updates.items()},
        sum=survivor_list(p).sum,
        adapter_digest=adapter,
        score=score,
        votes=votes,
    )


def _winner(p: Progress) -> tuple[tuple[str, str | None], tuple[str, ...]]:
    """Return the adapter (and score) with most votes and who voted for it; ties go to the smaller digest and score."""
    ballots: dict[tuple[str, str | None], list[str]] = {}
    for name, vote in p.done(m.AdapterVote).items():
        if vote.sum_digest != survivor_list(p).sum.digest:
            continue
        ballots.setdefault((vote.adapter_digest, vote.score), []).append(name)
    won = min(ballots, key=lambda b: (-len(ballots[b]), b[0], b[1] or ""), default=("", None))
    return won, tuple(sorted(ballots.get(won, ())))


def _uploads(p: Progress) -> dict[str, BlobRef]:
    return {name: update.upload for name, update in sorted(p.done(m.SealedUpdate).items())}


def _odd(seen: Mapping[str, str], expected: str) -> list[str]:
    """Return who saw something else than `expected`, sorted."""
    return sorted(name for name, digest in seen.items() if digest != expected)


def _ask_all(p: Progress, awaits: type[m.Answer], request: m.Request) -> Transition:
    return _ask(p, awaits, dict.fromkeys(p.present, request))


def _ask(p: Progress, awaits: type[m.Answer], asked: Mapping[str, m.Request]) -> Transition:
    state = Gathering(p, awaits, MappingProxyType(dict(asked)), MappingProxyType({}))
    return state, tuple(Ask(name, request) for name, request in sorted(asked.items()))


def _abort(p: Progress, reason: str) -> Transition:
    said = reason[:500] or "no reason was given"
    return Aborted(p, said), _tell_abort(p, said)


def _tell_abort(p: Progress, reason: str) -> tuple[Effect, ...]:
    abort = m.Abort(**p.job.bound(p.round), reason=reason)
    return tuple(Ask(name, abort) for name in p.job.names)


def _tell_left(p: Progress, names: Iterable[str] | None = None) -> tuple[Effect, ...]:
    """Tell members that the job goes on without them, and why; None: all that have left."""
    told = sorted(p.left if names is None else names)
    return tuple(Ask(name, m.Abort(**p.job.bound(p.round), reason=p.left[name][:500])) for name in told)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
