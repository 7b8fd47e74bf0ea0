"""A world for hostile histories: sites with a gate beside each machine, a coordinator with a book beside it.

`Gate` and `Book` are the tiny models: what the specification allows, kept apart from how the machines do it. They are
written from the table in `protocol.messages` and from the rules of the release gate, not from `rounds`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fl_alliance.errors import OutOfOrder
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import Member, TrainingPlan
from fl_alliance.rounds import coordinator as c
from fl_alliance.rounds import institution as i
from tests.rounds.play import House, Play, make_plan, results, sealed

ADD, RECORD = "(add)", "(record)"
BEFORE = ("acceptance", "wrapped-keys", "key-accepted")
ROUND = (
    "round-keys", "sealed-shares", "sealed-update", ADD, "survivors-confirmed", "revealed-shares", "sum-checked",
    "adapter-vote", RECORD, "released",
)  # fmt: skip

ZOO = ("ants", "bees", "cats", "dogs", "eels")
FIELDS = (
    "plan_digest", "acceptances_digest", "key_fingerprint", "roster_digest", "ledger_head", "survivors_digest",
    "sum_digest", "adapter_digest", "record_digest",
)  # fmt: skip
RELAYS: dict[str, tuple[type[Any], str, type[m.Answer]]] = {
    "key-request": (m.KeyRequest, "acceptances", m.Acceptance),
    "key-roster": (m.KeyRoster, "round_keys", m.RoundKeys),
    "share-delivery": (m.ShareDelivery, "sealed_shares", m.SealedShares),
    "survivor-list": (m.SurvivorList, "sealed_updates", m.SealedUpdate),
    "confirmations": (m.Confirmations, "confirmed", m.SurvivorsConfirmed),
    "reveal-delivery": (m.RevealDelivery, "revealed_shares", m.RevealedShares),
    "sum-checks": (m.SumChecks, "sum_checked", m.SumChecked),
}

Said = dict[str, list[m.Answer]]
"""Everything that each member ever signed, true or not."""


class Gate:
    """What one institution may do, effect by effect. `said` is what all members have really signed so far."""

    def __init__(self, name: str, plan: TrainingPlan, said: Said) -> None:
        self.name, self.plan, self.said = name, plan, said
        self.replies: dict[tuple[str, int], m.Answer] = {}
        self.done: list[tuple[str, int]] = []
        self.stated = self.added = ""
        """Digests: the sum in the list that I confirmed, and what the uploads in it add up to."""
        self.kept: list[str] = []
        self.over = False

    def see(self, effect: i.Effect) -> None:
        """Fail if the specification does not allow `effect` now."""
        if self.over:
            assert self._is_a_no(effect), f"{effect} after the end"
        elif isinstance(effect, i.Reply):
            self._leaves(effect.answer)
        elif isinstance(effect, i.Charge | i.Train | i.Seal | i.RevealShares | i.OpenSum | i.Keep):
            what = (type(effect).__name__, effect.round)
            assert what not in self.done, f"{what} twice"
            self.done.append(what)
            getattr(self, f"_{what[0].lower()}")(effect)

    @staticmethod
    def _is_a_no(effect: i.Effect) -> bool:
        nothing = isinstance(effect, i.Consider | i.Forget)
        return nothing or (isinstance(effect, i.Reply) and isinstance(effect.answer, m.Refusal | m.Stopped))

    def _leaves(self, answer: m.Answer) -> None:
        """One answer of a kind in a round; an upload only after it was sealed, a check only of what was added."""
        self.over = isinstance(answer, m.Refusal | m.Stopped) or self._is_last(answer)
        assert (answer.kind, answer.round) not in self.replies
        self.replies[answer.kind, answer.round] = answer
        if isinstance(answer, m.SealedUpdate):
            assert ("Seal", answer.round) in self.done
        if isinstance(answer, m.SumChecked):
            assert answer.sum_digest == self.added == self.stated

    def _is_last(self, answer: m.Answer) -> bool:
        return isinstance(answer, m.Released) and answer.round == self.plan.rounds

    def _charge(self, effect: i.Charge) -> None:
        """Round after round, and only for a roster that every member has signed as I did."""
        assert effect.round == 1 or ("Keep", effect.round - 1) in self.done
        self._everybody_said(m.SealedShares, effect.round, "roster_digest")

    def _train(self, effect: i.Train) -> None:
        assert self.done[-2] == ("Charge", effect.round)

    def _seal(self, effect: i.Seal) -> None:
        assert self.done[-2] == ("Train", effect.round)

    def _revealshares(self, effect: i.RevealShares) -> None:
        """Self-mask shares of those who uploaded; since nobody is ever both, the other kind is never given."""
        assert ("sealed-update", effect.round) in self.replies
        assert effect.survivors == self.plan.names
        self._everybody_said(m.SurvivorsConfirmed, effect.round, "survivors_digest")

    def _opensum(self, effect: i.OpenSum) -> None:
        self._everybody_said(m.SumChecked, effect.round, "survivors_digest", "sum_digest")

    def _keep(self, effect: i.Keep) -> None:
        """A quorum signed my adapter, and the record says what I saw."""
        vote, record = self.replies["adapter-vote", effect.round], effect.record
        assert isinstance(vote, m.AdapterVote)
        like_me = {name for name in self.plan.names if self._said_like(name, vote, ("adapter_digest",))}
        assert len(like_me) >= self.plan.quorum
        assert set(record.votes) <= like_me
        update = self.replies["sealed-update", effect.round]
        assert isinstance(update, m.SealedUpdate)
        assert {head.member: head.head for head in record.ledger_heads}[self.name] == update.ledger_head
        assert (record.round, record.adapter_digest, record.sum_digest) == (
            effect.round, vote.adapter_digest, vote.sum_digest,
        )  # fmt: skip

    def _everybody_said(self, kind: type[m.Answer], round_number: int, *fields: str) -> None:
        mine = self.replies[c.kind_of(kind), round_number]
        for name in self.plan.names:
            assert self._said_like(name, mine, fields), f"{name} never signed {fields} of {mine}"

    def _said_like(self, name: str, mine: m.Answer, fields: tuple[str, ...]) -> bool:
        return any(
            (a.kind, a.round) == (mine.kind, mine.round) and all(getattr(a, f) == getattr(mine, f) for f in fields)
            for a in self.said[name]
        )


class Site(House):
    """An institution: its machine, its shell's memory of replies, a desk that can fail, and the gate that watches."""

    def __init__(self, name: str, plan: TrainingPlan, said: Said) -> None:
        super().__init__(name, plan)
        self.gate = Gate(name, plan, said)
        self.replies: dict[bytes, m.Answer] = {}
        self.fails: i.Failed | None = None
        self.restarted = False

    def hear(self, request: m.Request, event: i.Event) -> m.Answer:
        """As the shell: a resend gets the stored reply; what is out of order is refused, and changes nothing."""
        if (stored := self.replies.get(encode(request))) is not None:
            return stored
        before = self.state
        try:
            if isinstance(event, i.Proposed) and isinstance(self.state, i.Over):
                self.state = i.Idle(self.name)
            answer = self.take(event)
        except OutOfOrder as error:
            self.state = before
            return refusal_of(request, "OutOfOrder", str(error))
        self.replies[encode(request)] = answer
        if isinstance(request, m.SurvivorList) and isinstance(answer, m.SurvivorsConfirmed):
            self.gate.stated = request.sum.digest
        return answer

    def take(self, event: i.Event) -> m.Answer:
        """Feed one event and work on until the machine replies; each effect passes the gate first."""
        state, effects = i.step(self.state, event)
        while True:
            self.state = state
            for effect in effects:
                self.did.append(effect)
                self.gate.see(effect)
                if isinstance(effect, i.Reply):
                    return effect.answer
            (work,) = effects
            assert not isinstance(work, i.Reply | i.Forget)
            state, effects = i.step(self.state, self._work(work))

    def restart(self) -> None:
        """The process died in a job: the secrets are gone, the replies are not."""
        if not self.did:
            return
        self.state, self.restarted, self.gate.over = i.Idle(self.name), True, True

    def _work(self, work: i.Work) -> i.Event:
        if isinstance(work, i.Consider) and (self.restarted or self.did.count(work) > 1):
            return i.Failed("OutOfOrder", "the job has already been here")
        failed, self.fails = self.fails, None
        if failed is not None:
            return failed
        result = self._result(work)
        if isinstance(work, i.AddAgain):
            self.gate.added = result.digest
        return i.Done(result)

    def _result(self, work: i.Work) -> Any:
        to_each = tuple(m.ToMember(member=name, sealed="AAAA") for name in self.plan.names)
        match work:
            case i.MakeAllianceKey():
                return digest_of(b"key"), to_each
            case i.DealShares() | i.RevealShares():
                return to_each
            case _:
                return results(self.name, work)


class Book:
    """Where the job must stand, from the order of the phases and the answers that count."""

    def __init__(self, plan: TrainingPlan, plan_digest: str) -> None:
        self.plan, self.plan_digest = plan, plan_digest
        self.order = [(kind, 0) for kind in BEFORE]
        self.order += [(kind, number) for number in range(1, plan.rounds + 1) for kind in ROUND]
        self.place, self.aborted = 0, False
        self.answers: dict[str, m.Answer] = {}
        self.sum_digest = ""

    @property
    def finished(self) -> bool:
        return self.place == len(self.order)

    @property
    def phase(self) -> tuple[str, int]:
        """(kind awaited, round)."""
        return ("over", self.plan.rounds) if self.finished or self.aborted else self.order[self.place]

    @property
    def asked(self) -> set[str]:
        kind = self.phase[0]
        if kind in (ADD, RECORD, "over"):
            return set()
        return {self.plan.names[0]} if kind == "wrapped-keys" else set(self.plan.names)

    def awaits(self, event: c.Event, asks: dict[tuple[str, str, int], m.Request]) -> bool:
        """Say whether the machine must take `event`; otherwise it must raise OutOfOrder."""
        kind, number = self.phase
        match event:
            case c.Cancelled():
                return kind != "over"
            case c.SumAdded():
                return kind == ADD
            case c.RecordSigned():
                return kind == RECORD
            case c.DeadlinePassed():
                return bool(self.asked) and (event.kind, event.round) == (kind, number)
            case c.Answered(member=member, signed=signed):
                answer, waiting = signed.answer, self.asked - set(self.answers)
                if member not in waiting or answer.round != number:
                    return False
                if isinstance(answer, m.Refusal):
                    return answer.request_digest == digest_of(encode(asks[member, kind, number]))
                return answer.kind == kind

    def take(self, event: c.Event, asks: dict[tuple[str, str, int], m.Request]) -> None:
        """Note an event that was awaited."""
        match event:
            case c.Cancelled() | c.DeadlinePassed() | c.Answered(signed=c.Signed(answer=m.Refusal())):
                self.aborted = True
                return
            case c.SumAdded():
                self.sum_digest = event.sum.digest
            case c.Answered():
                self.answers[event.member] = event.signed.answer
        if set(self.answers) == self.asked:
            self.aborted = not self._they_agree(asks)
            self.place, self.answers = self.place + (not self.aborted), {}

    def _they_agree(self, asks: dict[tuple[str, str, int], m.Request]) -> bool:
        """The digests that a phase is about must be what was asked; the votes must make a quorum."""
        kind, number = self.phase
        if kind == "adapter-vote":
            votes = Counter(getattr(a, "adapter_digest", "") for a in self.answers.values())
            return max(votes.values()) >= self.plan.quorum
        field = {"acceptance": "plan_digest", "sealed-shares": "roster_digest",
                 "survivors-confirmed": "survivors_digest", "sum-checked": "sum_digest"}.get(kind)  # fmt: skip
        if field is None:
            return True
        right = {"acceptance": self.plan_digest, "sum-checked": self.sum_digest}.get(kind)
        return all(
            getattr(answer, field) == (right or digest_of(encode(asks[name, kind, number])))
            for name, answer in self.answers.items()
        )


class World(Play):
    """A `Play` whose every event is foretold by the book and whose every effect passes a gate."""

    def __init__(self, plan: TrainingPlan) -> None:
        self.said: Said = {name: [] for name in plan.names}
        self.asks: dict[tuple[str, str, int], m.Request] = {}
        self.log: list[c.Ask] = []
        self.book = Book(plan, digest_of(encode(plan)))
        super().__init__(plan)
        self.sites = {name: Site(name, plan, self.said) for name in plan.names}

    def _accept(self, effects: tuple[c.Effect, ...]) -> None:
        """Whatever is asked a second time has the same bytes."""
        for ask in effects:
            if isinstance(ask, c.Ask) and not isinstance(ask.request, m.Abort):
                known = self.asks.setdefault((ask.member, *self.book.phase), ask.request)
                assert encode(known) == encode(ask.request)
                self.log.append(ask)
        super()._accept(effects)

    def event(self, event: c.Event) -> bool:
        """Give the machine an event; it must take it exactly if the book awaits it. Return whether it was taken."""
        if not self.book.awaits(event, self.asks):
            before = repr(self.state)
            with pytest.raises(OutOfOrder):
                c.step(self.state, event)
            assert repr(self.state) == before
            return False
        self.book.take(event, self.asks)
        super().event(event)
        self.compare()
        return True

    def compare(self) -> None:
        """The machine stands where the book says."""
        state, (kind, number) = self.state, self.book.phase
        asked = {ask.member for ask in c.outstanding(state) if isinstance(ask, c.Ask)}
        match state:
            case c.Aborted():
                assert self.book.aborted
                assert 0 < len(state.reason) <= 500
                assert asked == set(self.plan.names)
            case c.Finished():
                assert self.book.finished
                assert not asked
            case c.Gathering():
                assert (c.kind_of(state.awaits), state.progress.round) == (kind, number)
                assert asked == self.book.asked - set(self.book.answers)
            case c.Adding():
                assert (kind, number) == (ADD, state.progress.round)
            case c.Recording():
                assert (kind, number) == (RECORD, state.progress.round)

    def crash(self) -> None:
        """Lose everything but the journal: what is left must be what was."""
        assert self.replayed() == self.state
        super().crash()
        self.compare()

    def deliver(self, ask: c.Ask) -> m.Answer:
        """Give one request to its site and keep what it signed; the answer is under way."""
        answer = self.sites[ask.member].hear(ask.request, self.asked(ask.request))
        self.sign(ask.member, answer)
        return answer

    def sign(self, member: str, answer: m.Answer) -> c.Answered:
        """Note that `member` signed `answer`, and return it as it reaches the coordinator."""
        if answer not in self.said[member]:
            self.said[member].append(answer)
        return c.Answered(member, c.Signed(answer, sealed(member, answer)))

    def honest_step(self, choice: int = 0) -> bool:
        """Do what an honest run does next; ask again if nothing is under way. Return whether there was anything."""
        if self.todo:
            self.event(self._result(self.todo.pop(0)))
        elif self.wire:
            ask = self.wire.pop(choice % len(self.wire))
            self.event(self.sign(ask.member, self.deliver(ask)))
        elif isinstance(self.state, c.Finished | c.Aborted):
            return False
        else:
            self._accept(c.outstanding(self.state))
        return True


def world_of(members: int = 3, rounds: int = 2, quorum: int | None = None) -> World:
    names = ZOO[:members]
    return World(
        make_plan(
            members=tuple(Member(name=name, declared_units=1000) for name in names),
            rounds=rounds,
            threshold=members // 2 + 1,
            quorum=quorum or members,
        )
    )


def changed(signed: Any, field: str) -> Any:
    """`signed`, with something else in `field` if it has that field."""
    if not hasattr(signed, field):
        return signed
    value = getattr(signed, field)
    if field == "votes":
        return signed.model_copy(update={"votes": value[:2]})
    if field == "ledger_heads":
        other = value[0].model_copy(update={"head": digest_of(b"lie")})
        return signed.model_copy(update={"ledger_heads": (other, *value[1:])})
    if field == "previous_record" and value is None:
        return signed
    return signed.model_copy(update={field: digest_of(f"lie about {field}".encode())})


def refusal_of(request: m.Request, error: str, reason: str) -> m.Refusal:
    return m.Refusal(
        alliance=request.alliance,
        job=request.job,
        round=request.round,
        request_digest=digest_of(encode(request)),
        error=error,
        reason=reason[:500],
    )
