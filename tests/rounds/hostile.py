"""A world for hostile histories: sites with a gate beside each machine, a coordinator with a book beside it.

`gate.Gate` and `book.Book` are the tiny models: what the specification allows, kept apart from how the machines do it.
"""

from __future__ import annotations

from typing import Any

import pytest

from fl_alliance.errors import OutOfOrder
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import Member, SumPlan, TrainingPlan
from fl_alliance.rounds import coordinator as c
from fl_alliance.rounds import institution as i
from tests.rounds.book import ADD, RECORD, Asks, Book
from tests.rounds.gate import Gate, confirmations
from tests.rounds.play import House, Play, make_plan, results, sealed

ZOO = ("ants", "bees", "cats", "dogs", "eels")
FIELDS = (
    "plan_digest", "acceptances_digest", "key_fingerprint", "roster_digest", "dealers_digest", "shares", "ledger_head",
    "survivors_digest", "sum_digest", "adapter_digest", "record_digest",
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


class Site(House):
    """An institution: its machine, its shell's memory of replies, a desk that can fail, and the gate that watches."""

    def __init__(self, name: str, plan: TrainingPlan) -> None:
        super().__init__(name, plan)
        self.gate = Gate(name, plan)
        self.replies: dict[bytes, m.Answer] = {}
        self.fails: i.Failed | None = None
        self.restarted = False

    def hear(self, request: m.Request, event: i.Event) -> m.Answer:
        """As the shell: a resend gets the stored reply; what is out of order is refused, and changes nothing."""
        if (stored := self.replies.get(encode(request))) is not None:
            return stored
        before, did = self.state, len(self.did)
        self.gate.hear(request)
        try:
            if isinstance(event, i.Proposed) and isinstance(self.state, i.Over):
                self.state = i.Idle(self.name)
            answer = self.take(event)
        except OutOfOrder as error:
            assert len(self.did) == did, "it worked, and then refused to have been asked"
            self.state = before
            return refusal_of(request, "OutOfOrder", str(error))
        self.replies[encode(request)] = answer
        return answer

    def take(self, event: i.Event) -> m.Answer:
        """Feed one event and work on until the machine replies; each effect passes the gate first."""
        if isinstance(event, i.Asked | i.Proposed):
            self.gate.hear(event.request)
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
            state, effects = i.step(self.state, self.work(work))

    def restart(self) -> None:
        """The process died in a job: the secrets are gone, the replies are not."""
        if not self.did:
            return
        self.state, self.restarted, self.gate.over = i.Idle(self.name), True, True

    def work(self, work: i.Work) -> i.Event:
        if isinstance(work, i.Consider) and (self.restarted or self.did.count(work) > 1):
            return i.Failed("OutOfOrder", "the job has already been here")
        failed, self.fails = self.fails, None
        if failed is not None:
            return failed
        result = results(self.name, work)
        self.gate.got(work, result)
        return i.Done(result)


class World(Play):
    """A `Play` whose every event is foretold by the book and whose every effect passes a gate."""

    def __init__(self, plan: TrainingPlan) -> None:
        self.said: dict[str, list[m.Answer]] = {name: [] for name in plan.names}
        """Everything that each member ever signed, true or not."""
        self.liars: set[str] = set()
        self.asks: Asks = {}
        self.log: list[c.Ask] = []
        self.told: set[str] = set()
        """Who was sent an abort since the coordinator was started."""
        self.book = Book(plan, self.asks)
        super().__init__(plan)
        self.sites = {name: house for name, house in self.houses.items() if isinstance(house, Site)}

    def house(self, name: str) -> House:
        return Site(name, self.plan)

    def _accept(self, effects: tuple[c.Effect, ...]) -> None:
        """Whatever is asked a second time has the same bytes; who has left is asked nothing more, and told so."""
        for ask in effects:
            if not isinstance(ask, c.Ask):
                continue
            if isinstance(ask.request, m.Abort):
                assert self.book.aborted or ask.member in self.book.left, (
                    f"{ask.member} is aborted: {ask.request.reason}"
                )
                self.told.add(ask.member)
                continue
            assert ask.member in self.book.waiting, f"{ask.member} is asked for {self.book.phase}"
            known = self.asks.setdefault((ask.member, *self.book.phase), ask.request)
            assert encode(known) == encode(ask.request)
            self.log.append(ask)
        super()._accept(effects)

    def event(self, event: c.Event) -> bool:
        """Give the machine an event; it must take it exactly if the book awaits it. Return whether it was taken."""
        if not self.book.awaits(event):
            before = repr(self.state)
            with pytest.raises(OutOfOrder):
                c.step(self.state, event)
            assert repr(self.state) == before
            return False
        self.book.take(event)
        super().event(event)
        self.compare()
        return True

    def compare(self) -> None:
        """The machine stands where the book says, and the sites keep what they promise together."""
        state, (kind, number) = self.state, self.book.phase
        owed = [ask for ask in c.outstanding(state) if isinstance(ask, c.Ask)]
        asked = {ask.member for ask in owed if not isinstance(ask.request, m.Abort)}
        aborted = {ask.member for ask in owed if isinstance(ask.request, m.Abort)}
        assert asked == self.book.waiting
        assert aborted == (set(self.plan.names) if self.book.aborted else self.book.left) <= self.told
        assert self.book.aborted or set(state.progress.left) == self.book.left
        match state:
            case c.Aborted():
                assert self.book.aborted
                assert 0 < len(state.reason) <= 500
            case c.Finished():
                assert self.book.finished
            case c.Gathering():
                assert (c.kind_of(state.awaits), state.progress.round) == (kind, number)
            case c.Adding():
                assert (kind, number) == (ADD, state.progress.round)
            case c.Recording():
                assert (kind, number) == (RECORD, state.progress.round)
        self.one_list_a_round()

    def one_list_a_round(self) -> None:
        """Shares are revealed for one list, unless so many members confirm two that the threshold allows both.

        Two lists need twice the confirmations, and only who lies signs two: SPEC section 10.4.
        """
        members, everybody = len(self.plan.names), max(self.plan.threshold, self.plan.minimum_members)
        if everybody < members and 2 * confirmations(self.plan) <= members + len(self.liars):
            return
        for number in range(1, self.plan.rounds + 1):
            lists = {site.gate.revealed[number] for site in self.sites.values() if number in site.gate.revealed}
            assert len(lists) <= 1, f"shares for {len(lists)} lists of round {number}"

    def crash(self) -> None:
        """Lose everything but the journal: what is left must be what was."""
        assert self.replayed() == self.state
        self.told.clear()
        super().crash()
        self.compare()

    def hand(self, ask: c.Ask) -> m.Answer:
        """Give one request to its site and keep what it signed; the answer is under way."""
        site = self.sites[ask.member]
        answer = site.hear(ask.request, self.asked(ask.request))
        if answer not in self.said[ask.member]:
            self.said[ask.member].append(answer)
        return answer

    def sign(self, member: str, answer: m.Answer) -> c.Answered:
        """Note that `member` signed `answer`, and return it as it reaches the coordinator."""
        if answer not in self.said[member]:
            self.said[member].append(answer)
            self.liars.add(member)
        return c.Answered(member, c.Signed(answer, sealed(member, answer)))

    def deliver(self, ask: c.Ask) -> None:
        """Bring one request to its member, if it is there, and the answer back."""
        if ask.member not in self.gone:
            self.event(self.sign(ask.member, self.hand(ask)))

    def honest_step(self, choice: int = 0) -> bool:
        """Do what an honest run does next; ask again if nothing is under way. Return whether there was anything."""
        if self.todo:
            self.event(self._result(self.todo.pop(0)))
        elif self.wire:
            self.deliver(self.wire.pop(choice % len(self.wire)))
        elif isinstance(self.state, c.Finished | c.Aborted):
            return False
        elif self.book.waiting and self.book.waiting <= self.gone:
            self.event(c.DeadlinePassed(*self.book.phase))
        else:
            self._accept(c.outstanding(self.state))
        return True


def world_of(
    members: int = 3,
    rounds: int = 2,
    quorum: int | None = None,
    threshold: int | None = None,
    verifiers: int | None = None,
    minimum: int = 3,
) -> World:
    names = ZOO[:members]
    return World(
        make_plan(
            members=tuple(Member(name=name, declared_units=1000) for name in names),
            rounds=rounds,
            threshold=threshold or members // 2 + 1,
            quorum=quorum or members,
            minimum_members=minimum,
            sum=SumPlan(coordinate_clip="0.1", verifiers=verifiers),
        )
    )


def changed(signed: Any, field: str) -> Any:
    """`signed`, with something else in `field` if it has that field; "null" takes the sum out of a check."""
    if field == "null":
        return signed.model_copy(update={"sum_digest": None})
    value = getattr(signed, field, None)
    if value is None:
        return signed
    if field in ("votes", "shares"):
        return signed.model_copy(update={field: value[:2]})
    if field == "ledger_heads":
        other = value[0].model_copy(update={"head": digest_of(b"lie")})
        return signed.model_copy(update={"ledger_heads": (other, *value[1:])})
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
