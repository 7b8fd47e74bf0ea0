"""The coordinator's shell: it carries, adds ciphertexts and records. It holds no key that opens anything.

Loop: read an event, let the machine decide, append the event to the journal durably, run the effects. No rule of the
protocol lives here. After a crash `run` replays the journal and does what is outstanding; since signatures are
deterministic and institutions keep their replies, asking again changes nothing.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import structlog

from fl_alliance.errors import (
    AllianceError,
    ApprovalsMissing,
    BadUpload,
    MalformedMessage,
    MemberUnknown,
    NotAuthentic,
    OutOfOrder,
)
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.log import head_entry, members_entry, plan_entry, record_entry
from fl_alliance.evidence.sign import open_document, sign_document
from fl_alliance.parties.files import write_atomically
from fl_alliance.parties.heads import SeenHeads
from fl_alliance.parties.logs import about
from fl_alliance.parties.mail import Address, read_answer, write_request
from fl_alliance.parties.transparency import CoordinatorLog
from fl_alliance.parties.watch import NOBODY, CoordinatorWatch
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import LedgerHead, RoundRecord, Upload
from fl_alliance.protocol.ids import BlobRef, blob_ref, digest_of
from fl_alliance.protocol.ports import Blobs, CoordinatorLink, Reply
from fl_alliance.protocol.sizes import longest_answer, longest_wrapped_keys
from fl_alliance.rounds import coordinator as machine
from fl_alliance.store.journal import Journal

log = structlog.get_logger()


class Adder(Protocol):
    """Adds uploads that are in the blob store."""

    def expect(self) -> None:
        """Be ready: uploads are to come."""

    def arrived(self, member: str, upload: BlobRef) -> None:
        """Begin to add an upload."""

    def total(self, uploads: Mapping[str, BlobRef]) -> bytes:
        """Return the framed sum of exactly these uploads (BadUpload: of all but one)."""

    def close(self) -> None:
        """Give back what the adding takes."""


class Coordinator:
    """One job, from its proposal to its last record."""

    def __init__(
        self,
        *,
        identity: IdentityKey,
        address: Address,
        job: machine.Job,
        journal: Journal,
        link: CoordinatorLink,
        blobs: Blobs,
        adder: Adder,
        folder: Path,
        heads: SeenHeads,
        transparency: CoordinatorLog,
        tell: Callable[[str], None] = lambda _: None,
        ask_again_seconds: float = 90.0,
        ask_again_at_most: float = 900.0,
        farewell_seconds: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        between: Callable[[float, float], float] = random.uniform,
        watch: CoordinatorWatch = NOBODY,
        cancelled: Callable[[], str | None] = lambda: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`clock` gives seconds that only grow: phases and farewells are measured with it, each from when it began in
        this process, so that a coordinator that was down costs no member its time.

        Who owes an answer is asked again after `ask_again_seconds`, then after twice as long each time, up to
        `ask_again_at_most`; `between` draws each wait from the last quarter of that, so that members fall out of step.

        `cancelled` gives the reason once the admin ends the job. Once `stopping` is true `run` leaves between two
        events, and another `run` goes on.
        """
        self._identity, self._address, self._job = identity, address, job
        self._journal, self._link, self._blobs, self._adder = journal, link, blobs, adder
        self._folder, self._heads, self._tell = folder, heads, tell
        self._ask_again, self._ask_again_at_most, self._between = ask_again_seconds, ask_again_at_most, between
        self._log = transparency
        self._farewell_seconds, self._clock, self._watch = farewell_seconds, clock, watch
        self._cancelled, self._stopping = cancelled, stopping
        self._longest, self._longest_keys = longest_answer(job.plan), longest_wrapped_keys(job.plan)
        self._due: dict[str, tuple[float, float]] = {}
        """By member: when to ask again for what it owes, and how long the wait until then is."""
        self.state = self._replay()

    def run(self) -> machine.State:
        """Run the job to its end and return the last state (`Finished` or `Aborted`; another one when stopped)."""
        try:
            return self._run()
        finally:
            self._adder.close()

    def _run(self) -> machine.State:
        self._obey()
        self._run_effects(machine.outstanding(self.state))
        started = self._clock()
        phase = _phase(self.state)
        while not self._over:
            if self._stopping():
                return self.state
            self._obey()
            for reply in self._link.replies(timeout=0.5):
                self._take(reply)
            if _phase(self.state) != phase:
                phase, started = _phase(self.state), self._clock()
            self._mind_the_time(started)
        self._let_them_hear()
        return self.state

    @property
    def _over(self) -> bool:
        return isinstance(self.state, machine.Finished | machine.Aborted)

    def _obey(self) -> None:
        """End the job if the admin says so."""
        if not self._over and (reason := self._cancelled()) is not None:
            self._event(machine.Cancelled(reason))

    def _let_them_hear(self) -> None:
        """After an abort, give the members some seconds to fetch the news; a late answer to something else is none."""
        asks = [ask for ask in machine.outstanding(self.state) if isinstance(ask, machine.Ask)]
        left = {(ask.member, digest_of(self._request(ask))) for ask in asks}
        end = self._clock() + self._farewell_seconds
        while left and self._clock() < end and not self._stopping():
            left -= {(reply.member, reply.request) for reply in self._link.replies(timeout=0.2)}

    # ---- events

    def _take(self, reply: Reply) -> None:
        """Check one reply and hand it to the machine; what is not authentic or comes too late is logged and dropped."""
        if reply.payload is None:
            log.warning("no_reply", member=reply.member, failure=reply.failure)
            self._watch.dropped("no-reply")
            if ApprovalsMissing.__name__ in (reply.failure or ""):
                self._tell(f"{reply.member} has not decided yet: persons there must approve the plan")
            return
        try:
            sender, answer = read_answer(self._address, reply.payload)
            self._require_short(answer, len(reply.payload))
            self._note_head(sender, answer, reply.payload)  # also one too late for its round: it was charged
            self._event(machine.Answered(sender, machine.Signed(answer, reply.payload)))
        except (MalformedMessage, NotAuthentic, OutOfOrder) as error:
            log.warning("reply_dropped", member=reply.member, error=error)
            self._watch.dropped(type(error).__name__)

    def _note_head(self, sender: str, answer: m.Answer, envelope: bytes) -> None:
        """Keep and log an answer with a ledger head in it, once: the newest that is kept is the newest in the log."""
        if isinstance(answer, m.Acceptance | m.SealedUpdate):
            entry = head_entry(sender, answer, envelope)
            if not self._log.has(entry) and self._heads.note(sender, answer, envelope):
                self._log.add(entry)

    def _require_short(self, answer: m.Answer, length: int) -> None:
        """Refuse an answer that no honest member gives: relayed with the others' it could be more than a message holds.

        Raises:
            MalformedMessage: it is too long.
        """
        most = self._longest_keys if isinstance(answer, m.WrappedKeys) else self._longest
        if length > most:
            raise MalformedMessage(f"a {answer.kind} of {length} bytes, at most {most} in this job")

    def _event(self, event: machine.Event) -> None:
        """Decide, journal, adopt, act: nothing is journalled that the machine refuses."""
        state, effects = machine.step(self.state, event)
        self._journal.append(self._job.plan.job, *_to_journal(event))
        self.state = state
        self._watch.happened(state, event)
        with about(job=self._job.plan.job, round=state.progress.round):
            self._tell(_progress_line(state, event))
        if isinstance(event, machine.Answered) and isinstance(event.signed.answer, m.SealedUpdate):
            self._adder.arrived(event.member, event.signed.answer.upload)
        elif isinstance(state, machine.Gathering) and state.awaits is m.SealedUpdate:
            self._adder.expect()
        self._run_effects(effects)

    def _mind_the_time(self, phase_started: float) -> None:
        state = self.state
        if not isinstance(state, machine.Gathering):
            return
        now = self._clock()
        if now - phase_started > _seconds_for(state):
            self._event(machine.DeadlinePassed(machine.kind_of(state.awaits), state.progress.round))
            return
        for effect in machine.outstanding(state):
            if not isinstance(effect, machine.Ask) or isinstance(effect.request, m.Abort):
                continue
            due, wait = self._due[effect.member]
            if now > due:  # who trains for hours is not asked every minute
                self._ask(effect, 2 * wait)

    # ---- effects

    def _run_effects(self, effects: tuple[machine.Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case machine.Ask():
                    self._ask(effect)
                case machine.AddUploads():
                    self._event(self._add(effect))
                case machine.SignRecord():
                    self._event(self._sign_record(effect))

    def _ask(self, ask: machine.Ask, wait: float | None = None) -> None:
        wait = min(self._ask_again if wait is None else wait, self._ask_again_at_most)
        self._due[ask.member] = (self._clock() + self._between(0.75 * wait, wait), wait)
        try:
            self._link.ask(ask.member, self._request(ask))
        except MemberUnknown as error:  # struck off in the middle of a job: its deadline passes, as of one who is away
            log.warning("not_asked", member=ask.member, error=error)

    def _request(self, ask: machine.Ask) -> bytes:
        """Return the signed bytes: the same each time, for Ed25519 is deterministic."""
        return write_request(self._address, self._identity, ask.member, ask.request)

    def _add(self, effect: machine.AddUploads) -> machine.Event:
        """Add and store. Where the sum can't be stored (StoreFailed: a full disk) nothing is decided: `run` adds anew.

        A worker that dies is another matter: an upload may have made it die each time.
        """
        try:
            total = self._adder.total(effect.uploads)
        except BadUpload as error:
            return machine.UploadRefused(error.member, error.reason[:400])
        except AllianceError as error:
            if self._stopping():  # what told us to stop may have ended the workers too
                raise
            return machine.Cancelled(f"the uploads can't be added: {type(error).__name__}: {error}"[:400])
        ref = blob_ref(total)
        self._blobs.put(ref, [total])
        return machine.SumAdded(ref)

    def _sign_record(self, effect: machine.SignRecord) -> machine.Event:
        plan = self._job.plan
        record = RoundRecord(
            alliance=plan.alliance,
            job=plan.job,
            round=effect.round,
            plan_digest=digest_of(self._job.plan_envelope),
            roster_digest=effect.roster_digest,
            members=effect.roster,
            uploads=tuple(Upload(member=n, digest=u.digest, length=u.length) for n, u in effect.uploads.items()),
            sum_digest=effect.sum.digest,
            sum_length=effect.sum.length,
            adapter_digest=effect.adapter_digest,
            score=effect.score,
            ledger_heads=tuple(LedgerHead(member=n, head=h) for n, h in sorted(effect.ledger_heads.items())),
            votes=effect.votes,
            previous_record=effect.previous_record,
            time=int(time.time()),
        )
        envelope = self._recorded(record)
        self._log.add(record_entry(plan.job, record.round, envelope))
        return machine.RecordSigned(envelope, self._log.checkpoint())

    def _recorded(self, record: RoundRecord) -> bytes:
        """Return the signed record; one that was signed before a crash is that of the round, whenever it was."""
        path = self._folder / f"record-{record.round:04d}.dsse.json"
        if path.exists():
            envelope = path.read_bytes()
            before = open_document(envelope, RoundRecord, public_key=self._identity.public)
            if before == record.model_copy(update={"time": before.time}):
                return envelope
        envelope = sign_document(self._identity, record)
        write_atomically(path, envelope)
        return envelope

    # ---- restart

    def _replay(self) -> machine.State:
        """Fold the journal, behind the job itself and what its proposals hold.

        So a restart can't mix jobs, and proposes in the same words.
        """
        name = self._job.plan.job
        events = self._journal.events(name)
        if not events:
            events.append(self._noted("job", self._job.plan_envelope))
        elif events[0] != ("job", self._job.plan_envelope):
            raise OutOfOrder(f"job {name} was begun with another plan: give the new plan another job name")
        if len(events) == 1:
            events.append(self._noted("shown", self._first_shown()))
        self._job = _with_shown(self._job, events)
        return state_after(self._job, self._address, events)

    def _first_shown(self) -> bytes:
        """Log what the proposals rely on; return what they hold beside the plan, as text."""
        job, seen = self._job, self._heads.newest(self._job.names)
        answers = {name: read_answer(self._address, envelope)[1] for name, envelope in seen.items()}
        heads = [
            head_entry(name, answer, seen[name])
            for name, answer in answers.items()
            if isinstance(answer, m.Acceptance | m.SealedUpdate)
        ]
        self._log.add(*heads, members_entry(job.members_envelope), plan_entry(job.plan.job, job.plan_envelope))
        return _to_text(seen, self._log.checkpoint())

    def _noted(self, kind: str, body: bytes) -> tuple[str, bytes]:
        self._journal.append(self._job.plan.job, kind, body)
        return kind, body


def state_after(job: machine.Job, address: Address, events: Sequence[tuple[str, bytes]]) -> machine.State:
    """Return the state that the journal's `events` of `job` make; two at its head are the job, and what was shown."""
    *_, (_, state, _) = replayed(job, address, events)
    return state


def replayed(
    job: machine.Job, address: Address, events: Sequence[tuple[str, bytes]]
) -> Iterator[tuple[machine.Event | None, machine.State, tuple[machine.Effect, ...]]]:
    """Yield each event of the journal (None: the start), the state after it, and what it made the coordinator do."""
    state, effects = machine.start(_with_shown(job, events))
    yield None, state, effects
    for kind, body in events[2:]:
        event = _from_journal(address, kind, body)
        state, effects = machine.step(state, event)
        yield event, state, effects


def _with_shown(job: machine.Job, events: Sequence[tuple[str, bytes]]) -> machine.Job:
    """Return `job` with what its proposals hold, once the journal has it."""
    if len(events) < 2:
        return job
    last_seen, checkpoint = _from_text(*events[1])
    return replace(job, last_seen=last_seen, checkpoint=checkpoint)


def _seconds_for(state: machine.Gathering) -> int:
    """Return how long the phase may take: persons read a plan before it is accepted, machines do the rest."""
    plan = state.progress.job.plan
    return plan.accept_seconds if state.awaits is m.Acceptance else plan.phase_seconds


def _phase(state: machine.State) -> tuple[str, int]:
    awaits = machine.kind_of(state.awaits) if isinstance(state, machine.Gathering) else type(state).__name__
    return awaits, state.progress.round


def _progress_line(state: machine.State, event: machine.Event) -> str:
    """Return one line for people: what happened and what is awaited. No private value is known here."""
    said = f"{event.signed.answer.kind} from {event.member}" if isinstance(event, machine.Answered) else ""
    where = f"round {state.progress.round}/{state.progress.job.plan.rounds}"
    why = f": {state.reason}" if isinstance(state, machine.Aborted) else ""
    return f"{where}: {said or type(event).__name__}{why}"


# ---- events as bytes


def _to_text(last_seen: Mapping[str, bytes], checkpoint: bytes) -> bytes:
    texts = {name: base64.b64encode(data).decode() for name, data in sorted(last_seen.items())}
    return json.dumps({"checkpoint": base64.b64encode(checkpoint).decode(), "last_seen": texts}).encode()


def _from_text(kind: str, body: bytes) -> tuple[dict[str, bytes], bytes]:
    if kind != "shown":
        raise MalformedMessage(f"the journal's second event is {kind!r}, must be 'shown'")
    found = json.loads(body)
    last_seen = {name: base64.b64decode(text) for name, text in found["last_seen"].items()}
    return last_seen, base64.b64decode(found["checkpoint"])


def _to_journal(event: machine.Event) -> tuple[str, bytes]:
    match event:
        case machine.Answered():
            return "answered", event.signed.envelope
        case machine.SumAdded():
            return "sum-added", encode(event.sum)
        case machine.UploadRefused():
            return "upload-refused", json.dumps([event.member, event.reason]).encode()
        case machine.RecordSigned():
            pair = [base64.b64encode(data).decode() for data in (event.envelope, event.checkpoint)]
            return "record-signed", json.dumps(pair).encode()
        case machine.DeadlinePassed():
            return "deadline-passed", json.dumps([event.kind, event.round]).encode()
        case machine.Cancelled():
            return "cancelled", event.reason.encode()


def _from_journal(address: Address, kind: str, body: bytes) -> machine.Event:
    match kind:
        case "answered":
            sender, answer = read_answer(address, body)
            return machine.Answered(sender, machine.Signed(answer, body))
        case "sum-added":
            return machine.SumAdded(decode(BlobRef, body))
        case "upload-refused":
            return machine.UploadRefused(*json.loads(body))
        case "record-signed":
            return machine.RecordSigned(*(base64.b64decode(text) for text in json.loads(body)))
        case "deadline-passed":
            return machine.DeadlinePassed(*json.loads(body))
        case "cancelled":
            return machine.Cancelled(body.decode())
        case _:
            raise MalformedMessage(f"the journal holds an event of kind {kind!r}, which is not known here")
