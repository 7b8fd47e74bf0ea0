"""Where a job must stand, written from docs/SPEC.md, sections 7 to 9: the order of phases, and who may be missing."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.rounds import coordinator as c
from tests.rounds.gate import confirmations, drawn

ADD, RECORD = "(add)", "(record)"
BEFORE = ("acceptance", "wrapped-keys", "key-accepted")
ROUND = (
    "round-keys", "sealed-shares", "sealed-update", ADD, "survivors-confirmed", "revealed-shares", "sum-checked",
    "adapter-vote", RECORD, "released",
)  # fmt: skip
FRESH = ("round-keys", "sealed-shares", "sealed-update", ADD)
ALARMS = ("NotAuthentic", "SumRefused", "WrongCipher", "OutOfRange")

Asks = dict[tuple[str, str, int], m.Request]
"""What each member was asked, by member, kind that is awaited, and round."""


class Book:
    """Foretells the coordinator's machine, event by event."""

    def __init__(self, plan: TrainingPlan, asks: Asks) -> None:
        self.plan, self.asks, self.plan_digest = plan, asks, digest_of(encode(plan))
        self.order = [(kind, 0) for kind in BEFORE]
        self.order += [(kind, number) for number in range(1, plan.rounds + 1) for kind in ROUND]
        self.place, self.aborted = 0, False
        self.left: set[str] = set()
        self.answers: dict[str, Any] = {}
        self.whole: dict[str, dict[str, Any]] = {}
        """Complete phases, by kind: what counts of them."""
        self.sum_digest = self.record = ""

    @property
    def finished(self) -> bool:
        return self.place == len(self.order)

    @property
    def phase(self) -> tuple[str, int]:
        """(kind awaited, round)."""
        return ("over", self.plan.rounds) if self.finished or self.aborted else self.order[self.place]

    @property
    def present(self) -> set[str]:
        return set(self.plan.names) - self.left

    @property
    def waiting(self) -> set[str]:
        """Who owes an answer."""
        kind = self.phase[0]
        if kind in (ADD, RECORD, "over"):
            return set()
        asked = {self.plan.names[0]} if kind == "wrapped-keys" else self.present
        return asked - set(self.answers)

    def awaits(self, event: c.Event) -> bool:
        """Say whether the machine must take `event`; otherwise it must raise OutOfOrder."""
        kind, number = self.phase
        match event:
            case c.Cancelled():
                return kind != "over"
            case c.SumAdded():
                return kind == ADD
            case c.UploadRefused():
                return kind == ADD and event.member in self.whole["sealed-update"]
            case c.RecordSigned():
                return kind == RECORD
            case c.DeadlinePassed():
                return bool(self.waiting) and (event.kind, event.round) == (kind, number)
            case c.Answered(member=member, signed=signed):
                answer = signed.answer
                if member not in self.waiting or answer.round != number:
                    return False
                if isinstance(answer, m.Refusal):
                    return answer.request_digest == digest_of(encode(self.asks[member, kind, number]))
                return answer.kind == kind

    def take(self, event: c.Event) -> None:
        """Note an event that was awaited."""
        match event:
            case c.Cancelled():
                self.aborted = True
            case c.DeadlinePassed():
                self._leave(self.waiting)
            case c.UploadRefused():
                del self.whole["sealed-update"][event.member]
                self._leave({event.member})
                return
            case c.Answered(signed=c.Signed(answer=m.Refusal() as refusal)):
                self._leave({event.member})
                self.aborted |= refusal.error in ALARMS
            case c.Answered():
                self.answers[event.member] = event.signed.answer
            case c.SumAdded():
                self.sum_digest = event.sum.digest
            case c.RecordSigned():
                self.record = digest_of(event.envelope)
        if not self.aborted and not self.waiting:
            self._complete()

    def _leave(self, gone: set[str]) -> None:
        """Before the first round nobody may be missing; then `fewest` until the uploads, `threshold` after.

        The list of survivors must be confirmed by more than two thirds; after the vote nobody is needed.
        """
        kind, number = self.phase
        self.left |= gone
        need = {"survivors-confirmed": confirmations(self.plan), "released": 1}.get(kind, self.plan.threshold)
        if kind in FRESH:
            need = max(self.plan.threshold, self.plan.minimum_members)
        self.aborted |= bool(gone) and (number == 0 or len(self.present) < need)

    def _complete(self) -> None:
        kind, number = self.phase
        odd = {name for name, answer in self.answers.items() if not self._as_asked(name, answer)}
        self._leave(odd)
        if kind == "sum-checked":
            self.aborted |= any(a.sum_digest not in (None, self.sum_digest) for a in self.answers.values())
        self.whole[kind] = {name: answer for name, answer in self.answers.items() if name not in odd}
        if kind == "adapter-vote" and not self.aborted:
            self._count(self.whole[kind])
        if kind == "released" and number < self.plan.rounds:
            self.aborted |= len(self.present) < self.plan.fewest
        self.place, self.answers = self.place + (not self.aborted), {}

    def _count(self, votes: dict[str, m.AdapterVote]) -> None:
        """A quorum for one adapter; who voted for another one is out."""
        adapters = Counter((vote.adapter_digest, vote.score) for vote in votes.values())
        most = min(adapters, key=lambda digest: (-adapters[digest], digest))
        self.aborted |= adapters[most] < self.plan.quorum
        self._leave({name for name, vote in votes.items() if (vote.adapter_digest, vote.score) != most})

    def _as_asked(self, name: str, answer: Any) -> bool:
        """Whether a member signed what everybody is to sign in this phase."""
        if isinstance(answer, m.SealedShares) and [to.member for to in answer.shares] != sorted(
            self.whole["round-keys"]
        ):
            return False
        return all(getattr(answer, field) == right for field, right in self._right(name, answer).items())

    def _digest(self, name: str, kind: str) -> str:
        return digest_of(encode(self.asks[name, kind, self.phase[1]]))

    def _right(self, name: str, answer: Any) -> dict[str, Any]:
        match answer:
            case m.Acceptance() | m.RoundKeys():
                return {"plan_digest": self.plan_digest}
            case m.KeyAccepted():
                return {"key_fingerprint": self.whole["wrapped-keys"][self.plan.names[0]].key_fingerprint}
            case m.SealedShares():
                return {"roster_digest": self._digest(name, "sealed-shares")}
            case m.SealedUpdate():
                roster, dealers = self._digest(name, "sealed-shares"), self._digest(name, "sealed-update")
                return {"roster_digest": roster, "dealers_digest": dealers}
            case m.SumChecked():
                survivors = self._digest(name, "survivors-confirmed")
                if name in drawn(survivors, self.whole["survivors-confirmed"], self.plan.sum.verifiers):
                    return {"survivors_digest": survivors, "sum_digest": answer.sum_digest or self.sum_digest}
                return {"survivors_digest": survivors}
            case m.SurvivorsConfirmed() | m.RevealedShares():
                return {"survivors_digest": self._digest(name, "survivors-confirmed")}
            case m.AdapterVote():
                return {"sum_digest": self.sum_digest}
            case m.Released():
                return {"record_digest": self.record}
        return {}
