"""An alliance of pure machines, without cipher, training or signature: a shell whose results are made up."""

from __future__ import annotations

import base64
import contextlib
from dataclasses import dataclass, field
from typing import Any

from fl_alliance.errors import OutOfOrder
from fl_alliance.parties.institution import relayed_envelopes
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import LedgerHead, RoundRecord, Upload
from fl_alliance.protocol.ids import BlobRef, blob_ref, digest_of
from fl_alliance.protocol.plan import (
    AdapterPlan,
    Member,
    ModelFile,
    OptimizerPlan,
    PrivacyPlan,
    SumPlan,
    TrainingPlan,
)
from fl_alliance.rounds import coordinator as c
from fl_alliance.rounds import institution as i

NAMES = ("ants", "bees", "cats")


def make_plan(**changes: Any) -> TrainingPlan:
    fields: dict[str, Any] = {
        "alliance": "zoo",
        "job": "job-1",
        "rounds": 2,
        "members": tuple(Member(name=name, declared_units=1000) for name in NAMES),
        "threshold": 2,
        "quorum": 3,
        "model": (ModelFile(name="config.json", digest=digest_of(b"config")),),
        "adapter": AdapterPlan(rank=2, alpha=4, targets=("q_proj",), modules=2, public_seed=1),
        "optimizer": OptimizerPlan(name="sgd", learning_rate="0.1"),
        "privacy": PrivacyPlan(
            unit="patient",
            clip_norm="1",
            noise_multiplier="4",
            sampling_rate="0.1",
            steps_per_round=2,
            records_per_unit=1,
            delta="0.00001",
            epsilon_cap="8",
        ),
        "sum": SumPlan(coordinate_clip="0.1"),
        "max_tokens": 64,
    }
    return TrainingPlan(**{**fields, **changes})


def results(name: str, work: i.Work) -> Any:  # noqa: C901
    """Return what an honest desk would give, by deterministic stand-ins."""
    number = getattr(work, "round", 0)
    match work:
        case i.Consider():
            return "AAAA", digest_of(b"head 0")
        case i.MakeAllianceKey():
            wrap = base64.b64encode(bytes(80)).decode()
            return digest_of(b"key"), "AAAA", tuple(m.ToMember(member=n, sealed=wrap) for n in sorted(work.acceptances))
        case i.TakeAllianceKey():
            return digest_of(b"key")
        case i.MakeRoundKeys():
            return "AAAA", "AAAA"
        case i.DealShares():
            return tuple(m.ToMember(member=other, sealed="AAAA") for other in sorted(work.roster))
        case i.OpenShares():
            return None
        case i.RevealShares():
            return "AAAA"
        case i.Charge():
            return digest_of(f"head {name} {number}".encode())
        case i.Train():
            return None
        case i.Seal():
            return blob_ref(f"upload {name} {number}".encode())
        case i.AddAgain():
            return total(work.uploads)
        case i.OpenSum():
            return digest_of(f"adapter {number}".encode()), None
        case i.Keep():
            return (digest_of(b"report") if work.last else None), None
    raise AssertionError(work)


def total(uploads: Any) -> BlobRef:
    return blob_ref("+".join(ref.digest for _, ref in sorted(uploads.items())).encode())


def record_of(plan: TrainingPlan, plan_digest: str, effect: c.SignRecord) -> RoundRecord:
    return RoundRecord(
        alliance=plan.alliance,
        job=plan.job,
        round=effect.round,
        plan_digest=plan_digest,
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
        time=0,
    )


@dataclass
class House:
    """One institution: its machine, and everything that it ever did, in order."""

    name: str
    plan: TrainingPlan
    state: i.State = field(init=False)
    did: list[i.Effect] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = i.Idle(self.name)

    def take(self, event: i.Event) -> m.Answer:
        """Feed one event and work on until the machine replies. Raises what the machine raises, unchanged."""
        state, effects = i.step(self.state, event)
        while True:
            self.state = state
            self.did.extend(effects)
            for effect in effects:
                if isinstance(effect, i.Reply):
                    return effect.answer
            (work,) = effects
            assert not isinstance(work, i.Reply | i.Forget)
            state, effects = i.step(self.state, self.work(work))

    def work(self, work: i.Work) -> i.Event:
        """Do one piece of work; here by stand-ins."""
        return i.Done(results(self.name, work))


class Play:
    """A coordinator's machine with its houses; the wire is a list of requests under way."""

    def __init__(self, plan: TrainingPlan | None = None) -> None:
        self.plan = plan or make_plan()
        self.plan_envelope = encode(self.plan)
        self.job = c.Job(self.plan, self.plan_envelope, b"members")
        self.houses = {name: self.house(name) for name in self.plan.names}
        self.gone: set[str] = set()
        """Members that no longer answer."""
        self.journal: list[c.Event] = []
        self.wire: list[c.Ask] = []
        self.todo: list[c.Effect] = []
        self.state, effects = c.start(self.job)
        self._accept(effects)

    def house(self, name: str) -> House:
        """Return a new institution."""
        return House(name, self.plan)

    def added(self, effect: c.AddUploads) -> c.Event:
        """Add the uploads; here by a stand-in."""
        return c.SumAdded(total(effect.uploads))

    def vanish(self, name: str) -> None:
        """From now on `name` answers nothing."""
        self.gone.add(name)

    def _accept(self, effects: tuple[c.Effect, ...]) -> None:
        self.wire += [effect for effect in effects if isinstance(effect, c.Ask)]
        self.todo += [effect for effect in effects if not isinstance(effect, c.Ask)]

    def event(self, event: c.Event) -> None:
        self.state, effects = c.step(self.state, event)
        self.journal.append(event)
        self._accept(effects)

    def replayed(self) -> c.State:
        state, _ = c.start(self.job)
        for event in self.journal:
            state, _ = c.step(state, event)
        return state

    def crash(self) -> None:
        """Lose everything but the journal."""
        self.state = self.replayed()
        self.wire, self.todo = [], []
        self._accept(c.outstanding(self.state))

    def honest_step(self) -> bool:
        """Do the next thing that an honest run does; say whether there was one."""
        if isinstance(self.state, c.Aborted | c.Finished):
            return False
        if self.todo:
            self.event(self._result(self.todo.pop(0)))
        elif self.wire:
            self.deliver(self.wire.pop(0))
        elif isinstance(self.state, c.Gathering) and self.gone:
            self.event(c.DeadlinePassed(c.kind_of(self.state.awaits), self.state.progress.round))
        else:
            return False
        return True

    def deliver(self, ask: c.Ask) -> None:
        """Bring one request to its member, if it is there, and the answer back."""
        if ask.member in self.gone:
            return
        if isinstance(ask.request, m.Abort):  # to one that has left; what it answers is not awaited
            with contextlib.suppress(OutOfOrder):
                self.houses[ask.member].take(self.asked(ask.request))
            return
        answer = self.houses[ask.member].take(self.asked(ask.request))
        self.event(c.Answered(ask.member, c.Signed(answer, sealed(ask.member, answer))))

    def run(self) -> c.State:
        while self.honest_step():
            pass
        return self.state

    def _result(self, effect: c.Effect) -> c.Event:
        if isinstance(effect, c.AddUploads):
            return self.added(effect)
        assert isinstance(effect, c.SignRecord)
        return c.RecordSigned(
            encode(record_of(self.plan, digest_of(self.plan_envelope), effect)), f"checkpoint {effect.round}".encode()
        )

    def asked(self, request: m.Request) -> i.Event:
        """What an institution's shell makes of a request: here an envelope is just the payload."""
        if isinstance(request, m.Proposal):
            return i.Proposed(request, self.plan, digest_of(self.plan_envelope))
        relayed = dict(opened(envelope) for envelope in relayed_envelopes(request))
        if isinstance(request, m.Release):
            data = base64.b64decode(request.record)
            return i.Asked(request, relayed, decode(RoundRecord, data), digest_of(data))
        return i.Asked(request, relayed)


def sealed(name: str, answer: m.Answer) -> bytes:
    """An envelope without cryptography: who, and what."""
    return name.encode() + b"|" + encode(answer)


def opened(envelope: bytes) -> tuple[str, m.Answer]:
    name, _, payload = envelope.partition(b"|")
    return name.decode(), decode(m.ANSWER, payload)
