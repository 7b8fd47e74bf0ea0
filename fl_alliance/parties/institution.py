"""The institution's shell: one warm process that answers the coordinator's requests.

A request is answered once; a resend gets the stored bytes. The machine in `rounds` decides, `desk` does the work,
and nothing is signed but what the machine gives as a `Reply`. Each event is journalled before it is acted on, together
with what its work remembers and the reply that follows from it. A process that was killed goes on from there: it does
the piece of work again that was under way, for the same request only, so that no two updates of a round ever leave.
"""

from __future__ import annotations

import base64
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from fl_alliance.errors import (
    AllianceError,
    ApprovalsMissing,
    BadPlan,
    BadRecords,
    BlobMissing,
    LinkFailed,
    MalformedMessage,
    MembersRolledBack,
    NotAuthentic,
    OutOfOrder,
    StoreFailed,
)
from fl_alliance.evidence.keys import IdentityKey, public_key_of
from fl_alliance.evidence.log import members_entry, plan_entry, record_entry
from fl_alliance.evidence.sign import open_document
from fl_alliance.parties.job_journal import BROKEN, REQUEST, JobJournal, Row, event_of, row_of
from fl_alliance.parties.log_book import LogBook
from fl_alliance.parties.logs import about
from fl_alliance.parties.mail import Address, read_answer, read_request, write_answer
from fl_alliance.parties.watch import NOBODY, InstitutionWatch
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import AllianceMembers, RoundRecord
from fl_alliance.protocol.envelope import Envelope
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.log import LogEntry
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.rounds import institution as machine

log = structlog.get_logger()
Keep = Callable[[], None]
"""Writes evidence; called once the machine has accepted the event, and again if the process was killed then."""
Said = tuple[m.Answer, bytes]
"""An answer and its signed envelope."""
Offer = tuple[Address, dict[str, bytes]]
"""Whose keys a proposal brings, and its documents: they count once the machine has taken it."""


class Desk(Protocol):
    """Does the work that the machine asks for. Each method may raise any `AllianceError`."""

    def require_new(self, job: str) -> None:
        """Raise `OutOfOrder` if a job of this name has already been here."""

    def begin(self, plan: TrainingPlan, documents: Mapping[str, bytes]) -> None:
        """Take note of the job and keep its signed documents as evidence."""

    def resume(self, plan: TrainingPlan, documents: Mapping[str, bytes], memory: Mapping[str, bytes]) -> None:
        """Take up the job where another process left it, with what `changes` gave so far."""

    def changes(self) -> dict[str, bytes | None]:
        """Return what is to be remembered since the last call, by name; None: no longer."""

    def keep_messages(self, round_number: int, messages: Mapping[str, bytes]) -> None:
        """Keep relayed envelopes as evidence, by file name."""

    def keep_record(self, round_number: int, envelope: bytes) -> None:
        """Keep a record as evidence."""

    def keep_log(self, files: Mapping[str, bytes]) -> None:
        """Keep what shows that plan or record is in the transparency log, by file name."""

    def do(self, work: machine.Work, *, again: bool = False) -> object:
        """Do one piece of work; return what `rounds.institution` says of it. `again`: it may have been done before."""

    def forget(self) -> None:
        """Forget the secrets and updates of the job."""


class Institution:
    """One institution in one alliance; serves job after job."""

    def __init__(
        self,
        *,
        name: str,
        alliance: str,
        identity: IdentityKey,
        root: bytes,
        coordinator: str,
        members: bytes | None,
        desk: Callable[[], Desk],
        journal: JobJournal,
        log_book: LogBook,
        keep_members: Callable[[bytes], None] = lambda _: None,
        consider: Callable[[TrainingPlan, bytes, bytes], None] = lambda *_: None,
        tell: Callable[[str], None] = lambda _: None,
        watch: InstitutionWatch = NOBODY,
    ) -> None:
        """`members` is the list that `keep_members` was given last: who restarts knows whom to answer.

        `consider` gets each authentic proposal (plan, its envelope, the list's) before the machine does; it raises
        `ApprovalsMissing` while persons of the house have not decided yet.
        """
        self._name, self._alliance, self._identity, self._root = name, alliance, identity, root
        self._coordinator = coordinator
        self._new_desk, self._journal, self._tell, self._watch = desk, journal, tell, watch
        self._keep_members, self._consider, self._log_book = keep_members, consider, log_book
        self._desk: Desk = desk()
        self._documents: dict[str, bytes] = {}
        self._offered: Offer = Address(name, coordinator, {}), {}
        self._asked, self._keep, self._lost = "", _nothing, False
        """The request under way, by digest; what keeps its evidence; whether journal and memory may differ."""
        self._address = Address(name, coordinator, {})
        self._newest: AllianceMembers | None = None
        """The newest list of members that was ever shown here, whatever list the job under way began with."""
        if members is not None:
            self._newest, self._address = self._listed(members)
        self.state: machine.State = machine.Idle(name)
        self._resume()

    def handle(self, request: bytes) -> bytes:
        """Answer one request.

        Raises:
            MalformedMessage, NotAuthentic: it is not a request of the coordinator to this institution. Nothing is
                signed for a stranger.
            OutOfOrder: no proposal ever came before it, so nobody is known here.
            ApprovalsMissing: persons of the house have still to approve the plan: it is asked again later.
        """
        digest = digest_of(request)
        stored = self._journal.reply(digest)
        if stored is not None:
            return stored
        if self._lost:
            self._resume()
        message = self._read(request)
        with about(party=self._name, job=message.job, round=message.round):
            answer, reply = self._once(digest, request, message)
            self._watch.answered(message, answer)
            return reply

    def _once(self, digest: str, request: bytes, message: m.Request) -> Said:
        """Begin to work on a request, or go on with it after a crash."""
        if digest == self._asked and isinstance(self.state, machine.Working):
            self._tell(f"round {message.round}: {message.kind}, taken up again")
            return self._go_on(again=True)
        self._tell(f"round {message.round}: {message.kind}")
        try:
            if isinstance(message, m.Proposal):
                self._note_list(base64.b64decode(message.members))
            state, event, keep = self._event(message)
            self._visit_log(message)
            if isinstance(event, machine.Proposed):
                self._ask_the_house(event.plan)
            state, effects = machine.step(state, event)
        except (ApprovalsMissing, StoreFailed, LinkFailed):
            raise  # not a no: it is asked again later
        except AllianceError as error:
            log.warning("refused", kind=message.kind, error=error)
            return self._signed(_refusal(message, error))  # changes nothing: it may be asked again in its turn
        self._asked, self._keep = digest, keep
        begins = event.plan if isinstance(event, machine.Proposed) else None
        said = self._advance(message.job, (REQUEST, request), state, effects, begins=begins)
        return self._go_on() if said is None else said

    def _ask_the_house(self, plan: TrainingPlan) -> None:
        """Let pass a job that is new here, and that the persons who must approve it have approved.

        Called for what has just come, and never for what the journal holds already.
        """
        if plan.job == self._journal.current():  # also where its evidence was never written, or is gone
            raise OutOfOrder(f"job {plan.job} has already been here: give the new plan another job name")
        self._desk.require_new(plan.job)
        if self._name in plan.names:
            _, documents = self._offered
            self._consider(plan, documents["plan.dsse.json"], documents["members.dsse.json"])

    def _visit_log(self, message: m.Request) -> None:
        """Compare the log that a message shows with what was seen before; what the message relies on must be in it.

        Called for what has just come, as `_ask_the_house`.
        """
        if isinstance(message, m.Proposal | m.Release):
            shown, key = base64.b64decode(message.checkpoint), self._address.keys[self._coordinator]
            self._log_book.visit(shown, key, _relied_on(message))
        if isinstance(message, m.Proposal):
            seen = message.last_seen
            self._log_book.require_newest_head(None if seen is None else digest_of(base64.b64decode(seen)))

    def _keep_log(self, message: m.Proposal | m.Release) -> None:
        shown, entries = base64.b64decode(message.checkpoint), _relied_on(message)
        self._desk.keep_log(self._log_book.evidence(message.round, shown, entries[0]))

    def _read(self, request: bytes) -> m.Request:
        """Read a request; a proposal brings the list of members with it, signed by the pinned root."""
        address = self._address if self._address.keys else self._listed(_members_in(request))[1]
        message = read_request(address, request)
        self._address = address
        return message

    def _note_list(self, members: bytes) -> None:
        """Keep a newer list of members, on disk too, whatever becomes of the proposal that brings it.

        Called for what has just come: a replay has the list that its job began with.

        Raises:
            MembersRolledBack: the list is older than the newest, or another one with its serial. Nothing has changed.
        """
        shown, _ = self._listed(members)
        if self._newest is not None:
            require_not_older(shown, self._newest)
        if shown != self._newest:
            self._keep_members(members)
        self._newest = shown

    def _listed(self, members: bytes) -> tuple[AllianceMembers, Address]:
        """Return the list that the root signed, and all keys, if this institution is in it with its (NotAuthentic)."""
        document = open_document(members, AllianceMembers, public_key=self._root)
        keys = {member.name: public_key_of(member.identity) for member in document.members}
        if keys.get(self._name) != self._identity.public:
            raise NotAuthentic(f"the list of members names another key for {self._name}")
        if document.coordinator.name != self._coordinator:
            raise NotAuthentic(f"the list's coordinator is {document.coordinator.name}, here it is {self._coordinator}")
        return document, Address(self._name, self._coordinator, keys)

    def _signed(self, answer: m.Answer) -> Said:
        return answer, write_answer(self._address, self._identity, answer)

    # ---- the loop: decide, journal, adopt, act

    def _go_on(self, *, again: bool = False) -> Said:
        """Do what the machine asks for until it replies; `again`: the first piece of work may have been done before."""
        while isinstance(self.state, machine.Working):
            working = self.state
            event = self._do(working.work, again=again)
            state, effects = machine.step(working, event)
            said = self._advance(working.seat.plan.job, row_of(working.work, event), state, effects)
            if said is not None:
                return said
            again = False
        raise OutOfOrder("the machine neither works nor replies")

    def _advance(
        self,
        job: str,
        row: Row,
        state: machine.State,
        effects: tuple[machine.Effect, ...],
        *,
        begins: TrainingPlan | None = None,
    ) -> Said | None:
        """Journal what the machine decided, and only then adopt it and keep evidence. Return the reply if there is one.

        `begins`: the plan of a new job; the memory of any other goes.
        """
        over = any(isinstance(effect, machine.Forget) for effect in effects)
        said = next((self._signed(effect.answer) for effect in effects if isinstance(effect, machine.Reply)), None)
        self._lost = True  # until memory and journal say the same again
        self._journal.advance(
            job,
            row,
            remember={} if over or begins else self._desk.changes(),
            forget=over,
            begins=begins is not None,
            reply=None if said is None else (self._asked, said[1]),
        )
        self.state = state
        if begins is not None:
            self._address, self._documents = self._offered
            self._desk.forget()
            self._desk = self._new_desk()
            self._desk.begin(begins, self._documents)
        if row[0] == REQUEST:
            self._keep()
        self._lost = False
        if over:
            self._forget()
        return said

    def _forget(self) -> None:
        self._desk.forget()
        if isinstance(self.state, machine.Over):
            self._tell(f"job over: {self.state.reason}")

    def _do(self, work: machine.Work, *, again: bool) -> machine.Done | machine.Failed:
        """Do the work. What nobody foresaw ends the job here too, unsigned: the institution can take the next one.

        A disk that is full or a coordinator that is away ends nothing: no answer is given, and when the request comes
        again the work is done again, from what the journal holds.
        """
        try:
            began = time.monotonic()
            done = self._desk.do(work, again=again)
            self._watch.worked(work, time.monotonic() - began)
            return machine.Done(done)
        except BlobMissing as error:
            return self._failed(work, error)
        except (StoreFailed, LinkFailed) as error:
            log.warning("work_interrupted", work=type(work).__name__, error=error)
            self._lost = True
            raise
        except AllianceError as error:
            return self._failed(work, error)
        except Exception as error:
            self._break(f"{type(work).__name__} failed: {type(error).__name__}")
            raise

    def _failed(self, work: machine.Work, error: AllianceError) -> machine.Failed:
        log.warning("work_failed", work=type(work).__name__, error=error)
        return machine.Failed(type(error).__name__, _speakable(error))

    def _break(self, reason: str) -> None:
        job = self.state.seat.plan.job if isinstance(self.state, machine.Working) else ""
        self.state = machine.Over(self._name, reason)
        self._forget()
        try:
            self._journal.advance(job, (BROKEN, reason.encode()), remember={}, forget=True, reply=None)
        except StoreFailed as error:  # after a restart the same work is tried again, and breaks again
            log.warning("not_journalled", error=error)

    # ---- restart

    def _resume(self) -> None:
        """Fold the journal of the newest job, and take up what its work remembered.

        What is not authentic any more (signed before this house got another key, say) or not in the order that this
        program asks for ends the job here: nothing more leaves, and the next one may come.
        """
        self._lost, pinned = True, self._address
        self._begin_anew()
        job = self._journal.current()
        try:
            if job is not None:
                self._take_up(job)
        except StoreFailed:
            self._address = pinned
            raise
        except AllianceError as error:
            log.warning("not_taken_up", job=job, error=error)
            self._begin_anew()
            self.state = machine.Over(self._name, f"job {job} can't be taken up: {type(error).__name__}")
        if pinned.keys and not isinstance(self.state, machine.Waiting | machine.Working):
            self._address = pinned  # no older than the job's
        self._lost = False

    def _begin_anew(self) -> None:
        self._desk.forget()
        self.state, self._desk, self._asked = machine.Idle(self._name), self._new_desk(), ""

    def _take_up(self, job: str) -> None:
        """Replay the job among the members that its own proposal names, whatever list was shown since."""
        self._address = Address(self._name, self._coordinator, {})
        for kind, body in self._journal.events(job):
            self._replay(kind, body)
        if isinstance(self.state, machine.Waiting | machine.Working):
            self._desk.resume(self.state.seat.plan, self._documents, self._journal.memory(job))
            self._keep()
            self._tell(f"job {job} goes on: {type(self.state).__name__.lower()} in round {self.state.seat.round}")

    def _replay(self, kind: str, body: bytes) -> None:
        if kind == REQUEST:
            self._asked = digest_of(body)
            state, event, self._keep = self._event(self._read(body))
            self.state, _ = machine.step(state, event)
            if isinstance(event, machine.Proposed):
                self._address, self._documents = self._offered
        elif isinstance(self.state, machine.Working) and kind == BROKEN:
            self.state = machine.Over(self._name, body.decode())
        elif isinstance(self.state, machine.Working):
            self.state, _ = machine.step(self.state, event_of(self.state.work, kind, body))
        else:
            raise StoreFailed(f"journal: {kind!r} while {type(self.state).__name__.lower()}")

    # ---- from a message to an event: everything inside must be authentic; evidence is kept once the machine took it.
    # A restart reads the journal's messages again, long after: what asks persons, the network or the newest list of
    # members has no place here, but in `_ask_the_house`, which a replay leaves out.

    def _event(self, message: m.Request) -> tuple[machine.State, machine.Event, Keep]:
        match message:
            case m.Proposal():
                return self._proposed(message)
            case m.Release():
                return self._released(message)
            case _:
                relayed, files = self._relayed(message)
                keep = functools.partial(self._keep_messages, message.round, files)
                return self.state, machine.Asked(message, relayed), keep

    def _keep_messages(self, round_number: int, files: Mapping[str, bytes]) -> None:
        self._desk.keep_messages(round_number, files)

    def _proposed(self, message: m.Proposal) -> tuple[machine.State, machine.Event, Keep]:
        """A proposal of another job ends the present one: its abort may have come while this house was away."""
        if isinstance(self.state, machine.Waiting | machine.Working) and self.state.seat.plan.job == message.job:
            raise OutOfOrder(f"job {message.job} is proposed while it is under way")
        members, envelope = base64.b64decode(message.members), base64.b64decode(message.plan)
        people, address = self._listed(members)
        if (key := address.keys[self._coordinator]) != self._address.keys[self._coordinator]:
            raise NotAuthentic(f"the list of members names another key for {self._coordinator} than signs it")
        plan = open_document(envelope, TrainingPlan, public_key=key)
        if (plan.alliance, plan.job) != (message.alliance, message.job):
            raise NotAuthentic(f"the proposal of job {message.job} holds a plan of job {plan.job}")
        if plan.alliance != self._alliance:
            raise BadPlan(f"alliance: {plan.alliance!r}, {self._name} is configured for {self._alliance!r}")
        _require_institutions(plan, people)
        seen = self._seen_head(message, address)
        self._offered = address, {"members.dsse.json": members, "plan.dsse.json": envelope}
        keep = functools.partial(self._keep_log, message)
        return machine.Idle(self._name), machine.Proposed(message, plan, digest_of(envelope), seen), keep

    def _seen_head(self, message: m.Proposal, address: Address) -> str | None:
        """Return the ledger head that this institution signed before, as the coordinator brings it back.

        Raises:
            MalformedMessage, NotAuthentic: it is no answer of this institution with a head in it.
        """
        if message.last_seen is None:
            return None
        sender, answer = read_answer(address, base64.b64decode(message.last_seen))
        if sender != self._name or not isinstance(answer, m.Acceptance | m.SealedUpdate):
            raise NotAuthentic(
                f"last_seen: {answer.kind} of {sender}, must be acceptance or sealed-update of {self._name}"
            )
        return answer.ledger_head

    def _released(self, message: m.Release) -> tuple[machine.State, machine.Event, Keep]:
        envelope = base64.b64decode(message.record)
        record = open_document(envelope, RoundRecord, public_key=self._address.keys[self._coordinator])
        relayed, files = self._relayed(message)

        def keep() -> None:
            self._desk.keep_messages(message.round, files)
            self._desk.keep_record(message.round, envelope)
            self._keep_log(message)

        return self.state, machine.Asked(message, relayed, record, digest_of(envelope)), keep

    def _relayed(self, message: m.Request) -> tuple[dict[str, m.Answer], dict[str, bytes]]:
        """Return the authentic answers inside a request, by sender, and their envelopes, by file name.

        The acceptances in a key delivery are among the files alone: what the key maker answered is the answer.
        """
        answers, files = self._opened(message.kind, relayed_envelopes(message))
        if isinstance(message, m.KeyDelivery):
            files |= self._opened(message.kind, map(base64.b64decode, message.acceptances))[1]
        return answers, files

    def _opened(self, kind: str, envelopes: Iterable[bytes]) -> tuple[dict[str, m.Answer], dict[str, bytes]]:
        answers: dict[str, m.Answer] = {}
        files: dict[str, bytes] = {}
        for envelope in envelopes:
            sender, answer = read_answer(self._address, envelope)
            if sender in answers:
                raise MalformedMessage(f"{kind} holds two envelopes of {sender}")
            answers[sender] = answer
            files[f"{answer.kind}.{sender}.json"] = envelope
        return answers, files


def _nothing() -> None:
    pass


def require_not_older(shown: AllianceMembers, known: AllianceMembers) -> None:
    """Refuse a list of members that was replaced, or a second one with the serial of the first.

    Raises:
        MembersRolledBack: names both serials.
    """
    if shown.serial < known.serial:
        raise MembersRolledBack(f"members: a list with serial {shown.serial}, here is one with {known.serial}")
    if shown.serial == known.serial and shown != known:
        raise MembersRolledBack(f"members: two different lists with serial {known.serial}")


def _relied_on(message: m.Proposal | m.Release) -> tuple[LogEntry, ...]:
    """Return what must be in the log for this message; the first is what the evidence gets a receipt for."""
    if isinstance(message, m.Release):
        return (record_entry(message.job, message.round, base64.b64decode(message.record)),)
    plan, members = base64.b64decode(message.plan), base64.b64decode(message.members)
    return plan_entry(message.job, plan), members_entry(members)


def relayed_envelopes(message: m.Request) -> list[bytes]:
    """Return the members' envelopes that a request relays."""
    match message:
        case m.KeyRequest():
            inside: tuple[str, ...] = message.acceptances
        case m.KeyDelivery():
            inside = (message.wrapped_keys,)
        case m.KeyRoster():
            inside = message.round_keys
        case m.ShareDelivery():
            inside = message.sealed_shares
        case m.SurvivorList():
            inside = message.sealed_updates
        case m.Confirmations():
            inside = message.confirmed
        case m.RevealDelivery():
            inside = message.revealed_shares
        case m.SumChecks():
            inside = message.sum_checked
        case m.Release():
            inside = message.votes
        case _:
            inside = ()
    return [base64.b64decode(envelope) for envelope in inside]


def _require_institutions(plan: TrainingPlan, people: AllianceMembers) -> None:
    """Refuse a plan with the coordinator, or anybody unknown, in a member's seat: members hold the alliance key.

    Raises:
        BadPlan: names who is no institution, or the other alliance.
    """
    if plan.alliance != people.alliance:
        raise BadPlan(f"alliance: {plan.alliance!r}, the list of members is {people.alliance!r}'s")
    institutions = {member.name for member in people.members if member.role == "institution"}
    if strangers := sorted(set(plan.names) - institutions):
        raise BadPlan(f"members: {', '.join(strangers)}: no institution of alliance {people.alliance}")


def _members_in(request: bytes) -> bytes:
    """Return the list of members inside a proposal that can't be checked yet; the root's signature checks the list."""
    message = decode(m.REQUEST, decode(Envelope, request).body)
    if not isinstance(message, m.Proposal):
        raise OutOfOrder(f"{message.kind} before any proposal")
    return base64.b64decode(message.members)


def _speakable(error: AllianceError) -> str:
    """Return a reason that may leave the house: what depends on records stays in the institution's own log."""
    if isinstance(error, BadRecords):
        return "the institution's records can't be used; its own log says why"
    return str(error) or type(error).__name__


def _refusal(message: m.Request, error: AllianceError) -> m.Refusal:
    return m.Refusal(
        alliance=message.alliance,
        job=message.job,
        round=message.round,
        request_digest=digest_of(encode(message)),
        error=type(error).__name__,
        reason=_speakable(error)[:500],
    )
