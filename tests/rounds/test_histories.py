"""Histories: honest steps mixed with a hostile wire, hostile members, a hostile coordinator, dropouts and crashes.

Every event of the coordinator's machine is foretold by `book.Book`; every effect of an institution's machine passes
`gate.Gate`. Random histories alone seldom get far, so each phase of a job has histories that begin in it; the rules
that may end a job wait for `patience` events more.
"""

from __future__ import annotations

import base64
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fl_alliance.errors import OutOfOrder
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.ids import blob_ref, digest_of
from fl_alliance.rounds import coordinator as c
from fl_alliance.rounds import institution as i
from tests.rounds.book import ADD, ALARMS, BEFORE, RECORD, ROUND
from tests.rounds.hostile import FIELDS, RELAYS, World, changed, world_of
from tests.rounds.play import opened, record_of, sealed

ANY = st.integers(0, 10_000)
PHASES = (*((kind, 0) for kind in BEFORE), *((kind, number) for number in (1, 2) for kind in ROUND), ("over", 2))
OWN_AFFAIRS = ("BudgetExceeded", "StoreFailed", "PolicyRefused", "SecretUnavailable", "OutOfOrder")
REACHED: Counter[tuple[str, tuple[str, int]]] = Counter()
"""How often which rule struck in which phase, over the histories of one test."""


class Histories(RuleBasedStateMachine):
    """One coordinator, three to five institutions, and everything that can happen between them."""

    world: World
    patience: int
    turn: int

    def __init__(self, start: tuple[str, int]) -> None:
        super().__init__()
        self.start = start

    @initialize(
        members=st.integers(3, 5),
        slack=st.tuples(st.integers(0, 2), st.integers(0, 2)),
        verifiers=st.sampled_from((None, None, 1, 2)),
        vanishes=st.none() | st.tuples(st.integers(0, 4), st.sampled_from(ROUND)),
        more=st.integers(0, 2),
        patience=st.integers(0, 9),
    )
    def begin(
        self, members: int, slack: tuple[int, int], verifiers: int | None, vanishes: tuple[int, str] | None,
        more: int, patience: int,
    ) -> None:  # fmt: skip
        """Play honestly into the phase where the history begins, perhaps without one that vanished; `more` answers."""
        most = members - (vanishes is not None and members > 3)
        threshold, quorum = (max(members // 2 + 1, most - short) for short in slack)
        self.world = world_of(members, quorum=quorum, threshold=threshold, verifiers=verifiers)
        while self.world.book.phase != self.start:
            if vanishes and members > 3 and self.world.book.phase == (vanishes[1], 1):
                self.world.vanish(self.member(vanishes[0]))
            assert self.world.honest_step()
        for _ in range(more * (self.start[0] not in (ADD, RECORD, "over"))):
            self.world.honest_step()
        self.patience, self.turn = len(self.world.journal) + patience, 0

    @invariant()
    def the_job_goes_on(self) -> None:
        """Every other time one honest step more: a history of one rule only stands still otherwise."""
        self.turn += 1
        if self.turn % 2 == 0:
            self.world.honest_step()

    # ---- what always may happen

    @rule(steps=st.integers(1, 8))
    def honest_steps(self, steps: int) -> None:
        for _ in range(steps):
            self.note("honest")
            self.world.honest_step()

    @rule(choice=ANY)
    def requests_overtake_one_another(self, choice: int) -> None:
        self.note("overtake")
        self.world.honest_step(choice)

    @precondition(lambda self: self.world.wire)
    @rule(choice=ANY, twice=st.booleans())
    def a_request_is_lost_or_doubled(self, choice: int, twice: bool) -> None:
        self.note("doubled" if twice else "lost")
        ask = self.world.wire.pop(choice % len(self.world.wire))
        self.world.wire += [ask, ask] if twice else []

    @precondition(lambda self: self.world.wire)
    @rule(choice=ANY)
    def an_answer_is_lost(self, choice: int) -> None:
        self.note("answer lost")
        self.world.hand(self.world.wire.pop(choice % len(self.world.wire)))

    @rule()
    def the_coordinator_crashes(self) -> None:
        self.note("crash")
        self.world.crash()

    @rule(choice=ANY)
    def an_old_request_comes_again(self, choice: int) -> None:
        """The same bytes as before, if it was answered: the shell's memory says so."""
        self.note("old request")
        ask = self.world.log[choice % len(self.world.log)]
        stored = self.world.sites[ask.member].replies.get(encode(ask.request))
        answer = self.world.hand(ask)
        assert stored is None or encode(answer) == encode(stored)

    @rule(choice=ANY)
    def an_old_request_comes_again_past_the_shell(self, choice: int) -> None:
        """Without the shell's memory the machine alone refuses what it has answered, and changes nothing."""
        if not self.world.log:
            return
        ask = self.world.log[choice % len(self.world.log)]
        site = self.world.sites[ask.member]
        if encode(ask.request) not in site.replies:
            return
        self.note("old request, machine")
        before, did = repr(site.state), len(site.did)
        if not isinstance(site.state, i.Idle):
            with pytest.raises(OutOfOrder):
                i.step(site.state, self.world.asked(ask.request))
        assert (repr(site.state), len(site.did)) == (before, did)

    @precondition(lambda self: self.world.journal)
    @rule(choice=ANY)
    def an_old_event_comes_again(self, choice: int) -> None:
        """An answer, a sum or a record of before: of this round, of another one, twice."""
        self.note("old event")
        self.strike_softly(self.world.journal[choice % len(self.world.journal)])

    @precondition(lambda self: self.world.journal)
    @rule(choice=ANY, member=ANY)
    def a_member_copies_anothers_answer(self, choice: int, member: int) -> None:
        self.note("copy")
        event = self.world.journal[choice % len(self.world.journal)]
        if isinstance(event, c.Answered):
            self.strike_softly(self.signed(self.member(member), event.signed.answer))

    @rule(kind=st.sampled_from((*BEFORE, *ROUND)), number=st.integers(0, 3))
    def a_deadline_passes_that_no_longer_matters(self, kind: str, number: int) -> None:
        self.note("stray deadline")
        self.strike_softly(c.DeadlinePassed(kind, number))

    @rule(member=ANY)
    def a_refusal_of_another_request(self, member: int) -> None:
        self.note("stray refusal")
        bound = self.world.job.bound(self.world.book.phase[1])
        refusal = m.Refusal(**bound, request_digest=digest_of(b"another"), error="PolicyRefused", reason="no")
        self.world.event(c.Answered(self.member(member), c.Signed(refusal, b"")))

    @rule(member=ANY, choice=st.integers(1, 3), field=st.sampled_from(FIELDS))
    def a_member_says_two_things(self, member: int, choice: int, field: str) -> None:
        """It signs a lie aside: only a coordinator that mixes can make use of it."""
        name = self.member(member)
        if said := self.world.said[name][-choice:]:
            self.note("two things")
            self.signed(name, changed(said[0], field))

    # ---- what can end a job

    def ripe(self) -> bool:
        return len(self.world.journal) >= self.patience

    @precondition(lambda self: self.ripe() and self.world.wire)
    @rule(choice=ANY, field=ANY)
    def a_member_lies_to_the_coordinator(self, choice: int, field: int) -> None:
        self.note("lie")
        ask = self.world.wire.pop(choice % len(self.world.wire))
        answer = self.world.hand(ask)
        fields = [name for name in FIELDS if hasattr(answer, name)] or ["nothing"]
        self.world.event(self.signed(ask.member, changed(answer, fields[field % len(fields)])))

    @precondition(ripe)
    @rule(member=ANY, error=st.sampled_from((*OWN_AFFAIRS, *ALARMS)))
    def a_desk_fails(self, member: int, error: str) -> None:
        self.note("desk fails")
        self.world.sites[self.member(member)].fails = i.Failed(error, "as the test wants it")

    @precondition(ripe)
    @rule(member=ANY)
    def an_institution_restarts(self, member: int) -> None:
        self.note("restart")
        self.world.sites[self.member(member)].restart()

    @precondition(ripe)
    @rule(member=ANY)
    def the_job_is_proposed_anew(self, member: int) -> None:
        """In other bytes, so that no stored reply fits."""
        self.note("proposed anew")
        proposal = m.Proposal(**self.world.job.bound(0), plan=base64.b64encode(self.world.plan_envelope).decode(),
                              members="AAAA", last_seen=None, checkpoint="AAAA")  # fmt: skip
        self.world.hand(c.Ask(self.member(member), proposal))

    @precondition(lambda self: self.ripe() and self.world.todo)
    @rule(field=st.sampled_from(("sum_digest", "adapter_digest", "previous_record", "ledger_heads", "votes")))
    def the_coordinator_lies_about_sum_or_record(self, field: str) -> None:
        self.note("crafted")
        effect = self.world.todo.pop(0)
        if isinstance(effect, c.AddUploads):
            self.world.event(c.SumAdded(blob_ref(b"crafted")))
        elif isinstance(effect, c.SignRecord):
            record = record_of(self.world.plan, digest_of(self.world.plan_envelope), effect)
            self.world.event(c.RecordSigned(encode(changed(record, field)), b"checkpoint"))

    @precondition(ripe)
    @rule(member=ANY, data=st.data())
    def the_coordinator_mixes_what_members_signed(self, member: int, data: st.DataObject) -> None:
        name = self.member(member)
        state = self.world.sites[name].state
        kind = state.awaits[0] if isinstance(state, i.Waiting) else ""
        if kind in RELAYS and (request := self.mixed(kind, state.seat.bound, data)):
            self.note("mixed")
            self.world.hand(c.Ask(name, request))

    @precondition(lambda self: self.ripe() and self.world.book.waiting)
    @rule(choice=ANY, error=st.sampled_from((*OWN_AFFAIRS, *ALARMS)))
    def a_member_refuses(self, choice: int, error: str) -> None:
        """Of its own affairs it speaks for itself, of an alarm for all."""
        self.note("refusal")
        kind, number = self.world.book.phase
        name = sorted(self.world.book.waiting)[choice % len(self.world.book.waiting)]
        digest = digest_of(encode(self.world.asks[name, kind, number]))
        bound = self.world.job.bound(number)
        refusal = m.Refusal(**bound, request_digest=digest, error=error, reason="as the test wants it")
        self.world.event(self.signed(name, refusal))

    @precondition(ripe)
    @rule(member=ANY)
    def a_member_vanishes(self, member: int) -> None:
        self.note("vanishes")
        self.world.vanish(self.member(member))

    @precondition(ripe)
    @rule(member=ANY)
    def a_member_that_left_speaks_again(self, member: int) -> None:
        """Whatever it signed so far, or the very answer that is awaited now."""
        left = sorted(self.world.book.left)
        if not left or not self.world.said[left[member % len(left)]]:
            return
        self.note("speaks again")
        name = left[member % len(left)]
        for answer in (self.world.said[name][-1], *(self.world.said[other][-1] for other in self.world.book.answers)):
            assert not self.world.event(self.signed(name, answer))

    @precondition(lambda self: self.ripe() and self.world.book.phase[0] == ADD and self.world.todo)
    @rule(member=ANY)
    def an_upload_is_refused(self, member: int) -> None:
        self.note("upload refused")
        event = c.UploadRefused(self.member(member), "its bytes are not what was signed")
        if self.world.book.awaits(event):
            self.world.todo.clear()
        self.world.event(event)

    @precondition(ripe)
    @rule(member=ANY)
    def an_upload_is_refused_that_nobody_adds_now(self, member: int) -> None:
        self.note("stray upload")
        if self.world.book.phase[0] != ADD:
            assert not self.world.event(c.UploadRefused(self.member(member), "too late"))

    @precondition(lambda self: self.ripe() and any(ask.request.kind in RELAYS for ask in self.world.wire))
    @rule(choice=ANY, missing=st.lists(ANY, min_size=1, max_size=2))
    def the_coordinator_says_that_somebody_is_missing(self, choice: int, missing: list[int]) -> None:
        """One member gets a shorter list than the others, perhaps without itself, or of two; its answer counts."""
        asks = [ask for ask in self.world.wire if ask.request.kind in RELAYS]
        self.world.wire.remove(ask := asks[choice % len(asks)])
        self.note("shorter list")
        answer = self.world.hand(c.Ask(ask.member, shorter(ask.request, {self.member(number) for number in missing})))
        self.world.event(self.signed(ask.member, answer))

    @precondition(ripe)
    @rule(member=ANY, choice=ANY, missing=ANY)
    def the_coordinator_runs_a_phase_again_with_a_shorter_list(self, member: int, choice: int, missing: int) -> None:
        """Differencing: a second list of this round, or of the last one, changes nothing at a member that has one."""
        name = self.member(member)
        site = self.world.sites[name]
        asked = [ask.request for ask in self.world.log if ask.member == name and ask.request.kind in RELAYS]
        asked = [request for request in asked if (request.kind, request.round) in site.gate.accepted]
        if not asked or isinstance(site.state, i.Idle):
            return
        request = asked[choice % len(asked)]
        again = shorter(request, {self.member(missing)} - {name})
        if encode(again) not in site.replies:
            self.note("run again")
            before, done = repr(site.state), list(site.gate.done)
            assert isinstance(self.world.hand(c.Ask(name, again)), m.Refusal)
            assert (repr(site.state), site.gate.done) == (before, done)

    @precondition(lambda self: self.ripe() and self.world.book.phase[0] in ("survivors-confirmed", "revealed-shares"))
    @rule(missing=ANY, helpers=st.sets(ANY, max_size=2), shown=st.sets(ANY))
    def the_coordinator_sends_two_survivor_lists(self, missing: int, helpers: set[int], shown: set[int]) -> None:
        """Some see a list without a victim, helpers confirm both lists; each member is shown who confirmed its own."""
        world, number = self.world, self.world.book.phase[1]
        whole = next(a for (_, kind, r), a in world.asks.items() if (kind, r) == ("survivors-confirmed", number))
        short = shorter(whole, {victim := self.member(missing)})
        self.note("two lists")
        for name in {self.member(n) for n in shown} - {victim}:
            world.hand(c.Ask(name, short))
        for name in set(world.plan.names) - {victim}:
            world.hand(c.Ask(name, whole))
        for request in (whole, short):
            both = m.SurvivorsConfirmed(**world.job.bound(number), survivors_digest=digest_of(encode(request)))
            for helper in {self.member(n) for n in helpers} - {victim}:
                self.signed(helper, both)
            said = [(name, a) for name in world.plan.names for a in world.said[name] if a == both]
            if not said:
                continue
            confirmed = tuple(base64.b64encode(sealed(name, a)).decode() for name, a in said)
            for name, _ in said:
                world.hand(c.Ask(name, m.Confirmations(**world.job.bound(number), confirmed=confirmed)))
        world.one_list_a_round()

    @precondition(lambda self: self.ripe() and self.world.book.phase[0] == "sum-checked")
    @rule(choice=ANY)
    def a_verifier_says_that_it_was_not_drawn(self, choice: int) -> None:
        self.note("null")
        for ask in [ask for ask in self.world.wire if ask.request.kind == "reveal-delivery"][choice % 3 :][:1]:
            self.world.wire.remove(ask)
            answer = self.world.hand(ask)
            if isinstance(answer, m.SumChecked):
                self.world.event(self.signed(ask.member, answer.model_copy(update={"sum_digest": None})))

    @precondition(ripe)
    @rule(reason=st.sampled_from(("the admin said so", "x" * 900, "")))
    def the_admin_cancels(self, reason: str) -> None:
        self.note("cancel")
        self.world.event(c.Cancelled(reason))

    @precondition(ripe)
    @rule()
    def the_deadline_passes(self) -> None:
        self.note("deadline")
        self.world.event(c.DeadlinePassed(*self.world.book.phase))

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.crash()

    # ---- helpers

    def note(self, what: str) -> None:
        REACHED[what, self.world.book.phase] += 1

    def member(self, number: int) -> str:
        return self.world.plan.names[number % len(self.world.plan.names)]

    def signed(self, member: str, answer: m.Answer) -> c.Answered:
        return self.world.sign(member, answer)

    def strike_softly(self, event: c.Event) -> None:
        """Leave it out while the job is young and the event would be taken: it could only end it early."""
        if self.ripe() or not self.world.book.awaits(event):
            self.world.event(event)

    def mixed(self, kind: str, bound: dict[str, Any], data: st.DataObject) -> m.Request | None:
        """A request whose relayed envelopes were signed by those whom they name, in this round or another, or miss."""
        request, field, answer = RELAYS[kind]
        envelopes = []
        for name in self.world.plan.names:
            found = [a for a in self.world.said[name] if isinstance(a, answer)]
            fresh = [a for a in found if a.round == bound["round"]] or found
            pick = data.draw(st.integers(0, 5))
            if found and pick:
                chosen = fresh[0] if pick < 4 else data.draw(st.sampled_from(found))
                envelopes.append(base64.b64encode(sealed(name, chosen)).decode())
        more = {"sum": blob_ref(b"crafted")} if kind == "survivor-list" else {}
        return request(**bound, **{field: tuple(envelopes)}, **more) if envelopes else None


def shorter(request: m.Request, missing: set[str]) -> m.Request:
    """`request` without what `missing` signed."""
    if request.kind not in RELAYS:
        return request
    field = RELAYS[request.kind][1]
    kept = tuple(e for e in getattr(request, field) if opened(base64.b64decode(e))[0] not in missing)
    return request.model_copy(update={field: kept}) if kept else request


@pytest.mark.parametrize("start", PHASES, ids="{0[0]} {0[1]}".format)
def test_no_history_breaks_a_promise(start: tuple[str, int]):
    REACHED.clear()
    run_state_machine_as_test(
        lambda: Histories(start),
        settings=settings(
            max_examples=8,
            stateful_step_count=25,
            deadline=None,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert any(phase == start for _, phase in REACHED)
    assert len({name for name, _ in REACHED}) >= 8
