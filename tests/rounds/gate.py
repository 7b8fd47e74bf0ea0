"""What one institution may do, written from docs/SPEC.md (section 7) and the release gate's rules, not from `rounds`.

`Gate` is a tiny model beside an institution's machine: it hears every request and sees every effect, and fails if the
specification does not allow it now.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

from fl_alliance.parties.institution import relayed_envelopes
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import RoundRecord
from fl_alliance.protocol.ids import BlobRef, digest_of
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.rounds import institution as i
from tests.rounds.play import opened

TABLE = (
    ("proposal", "acceptance"), ("key-request", "wrapped-keys"), ("key-delivery", "key-accepted"),
    ("round-opening", "round-keys"), ("key-roster", "sealed-shares"), ("share-delivery", "sealed-update"),
    ("survivor-list", "survivors-confirmed"), ("confirmations", "revealed-shares"),
    ("reveal-delivery", "sum-checked"), ("sum-checks", "adapter-vote"), ("release", "released"),
)  # fmt: skip
"""Request and answer, in the order in which they come."""

WITHIN: dict[str, tuple[str, type[Any]]] = {
    "key-roster": ("plan", m.RoundKeys),
    "share-delivery": ("key-roster", m.SealedShares),
    "survivor-list": ("share-delivery", m.SealedUpdate),
    "confirmations": ("survivor-list", m.SurvivorsConfirmed),
    "reveal-delivery": ("confirmations", m.RevealedShares),
    "sum-checks": ("reveal-delivery", m.SumChecked),
    "release": ("reveal-delivery", m.AdapterVote),
}
"""Each relayed list of a round lies within an earlier one, and holds answers of one kind."""

FRESH = ("key-roster", "share-delivery", "survivor-list")
"""Lists that need the plan's fewest; the list of survivors needs confirmations, what comes then the threshold."""

NEXT_TO = {"Charge": "OpenShares", "Train": "Charge", "Seal": "Train"}
"""What must have been done last: no record is read that was not charged, nothing is charged before shares opened."""


def drawn(survivors_digest: str, confirmed: Iterable[str], verifiers: int | None) -> set[str]:
    """SPEC S6.2: who must add again."""
    order = sorted(confirmed, key=lambda name: hashlib.sha256(f"{survivors_digest}|{name}".encode()).digest())
    return set(order if verifiers is None else order[: 2 * verifiers])


def confirmations(plan: TrainingPlan) -> int:
    """More than two thirds, unless every member must be in every list anyway."""
    members = len(plan.members)
    if max(plan.threshold, plan.minimum_members) == members:
        return plan.threshold
    return max(plan.threshold, members * 2 // 3 + 1)


class Gate:
    """One institution's gate in one job."""

    def __init__(self, name: str, plan: TrainingPlan) -> None:
        self.name, self.plan, self.plan_digest = name, plan, digest_of(encode(plan))
        self.request: m.Request | None = None
        self.accepted: list[tuple[str, int]] = []
        self.done: list[tuple[str, int]] = []
        self.lists: dict[str, dict[str, Any]] = {"plan": dict.fromkeys(plan.names)}
        self.digests: dict[str, str] = {}
        self.results: dict[str, Any] = {}
        """What work of the present round gave, by its kind."""
        self.revealed: dict[int, str] = {}
        """For which list of survivors shares were revealed, by round."""
        self.record = ""
        self.over = False

    @property
    def round(self) -> int:
        return self.accepted[-1][1] if self.accepted else 0

    def hear(self, request: m.Request) -> None:
        """Note what the machine is asked."""
        self.request = request

    def got(self, work: i.Work, result: Any) -> None:
        """Note what a piece of work gave."""
        self.results[type(work).__name__] = result

    def see(self, effect: i.Effect) -> None:
        """Fail if the specification does not allow `effect` now."""
        no = isinstance(effect, i.Reply) and isinstance(effect.answer, m.Refusal | m.Stopped)
        if self.over:
            assert no or isinstance(effect, i.Consider | i.Forget), f"{effect} after the end"
        elif no:
            self.over = True
        elif not isinstance(effect, i.Forget):
            self._accept()
            self._reply(effect.answer) if isinstance(effect, i.Reply) else self._work(effect)

    # ---- requests

    def _accept(self) -> None:
        """The first thing done for a request, other than to refuse it, accepts it: once, in order, with a fit list."""
        request = self.request
        assert request is not None, "something is done that nobody asked for"
        what = (request.kind, request.round)
        if self.accepted and self.accepted[-1] == what:
            return
        assert what not in self.accepted, f"{what} twice"
        kinds = [kind for kind, _ in TABLE]
        if request.kind == "round-opening":
            assert request.round == self.round + 1
            assert request.previous_record == (self.record or None)
            self.results = {}
        else:
            assert request.round == self.round
        if request.kind != "proposal":
            before = "release" if (request.kind, self.round > 0) == ("round-opening", True) else ""
            before = before or kinds[kinds.index(request.kind) - 1]
            skipped = (before, self.accepted[-1][0]) == ("key-request", "proposal")
            assert self.accepted[-1][0] == before or (skipped and self.name != self.plan.names[0])
        self.accepted.append(what)
        if request.kind in WITHIN:
            self._list(request)
        self.digests[request.kind] = digest_of(encode(request))

    def _list(self, request: m.Request) -> None:
        outer, kind = WITHIN[request.kind]
        said = dict(opened(envelope) for envelope in relayed_envelopes(request))
        assert self.name in said
        assert set(said) <= set(self.lists[outer]), f"{request.kind} holds names that {outer} has not"
        least = {"confirmations": confirmations(self.plan), "release": 1}.get(request.kind, self.plan.threshold)
        assert len(said) >= (max(least, self.plan.minimum_members) if request.kind in FRESH else least)
        for name, answer in said.items():
            assert isinstance(answer, kind)
            assert answer.round == request.round
            for field, right in self._must_say(request.kind).items():
                assert getattr(answer, field) == right, f"{field} of {name} in {request.kind}"
        getattr(self, f"_{request.kind.replace('-', '_')}", lambda *_: None)(request, said)
        self.lists[request.kind] = said

    def _must_say(self, kind: str) -> dict[str, str]:
        if kind == "key-roster":
            return {"plan_digest": self.plan_digest}
        if kind == "share-delivery":
            return {"roster_digest": self.digests["key-roster"]}
        if kind == "survivor-list":
            digests = self.digests
            return {"roster_digest": digests["key-roster"], "dealers_digest": digests["share-delivery"]}
        return {"survivors_digest": self.digests["survivor-list"]} if kind != "release" else {}

    def _share_delivery(self, _: m.ShareDelivery, said: dict[str, m.SealedShares]) -> None:
        for answer in said.values():
            assert [share.member for share in answer.shares] == sorted(self.lists["key-roster"])

    def _survivor_list(self, _: m.SurvivorList, said: dict[str, m.SealedUpdate]) -> None:
        assert said[self.name].upload == self.results["Seal"]
        assert len({answer.upload.digest for answer in said.values()}) == len(said)
        self.results["uploads"] = {name: answer.upload for name, answer in said.items()}
        self.results["heads"] = {name: answer.ledger_head for name, answer in said.items()}

    def _sum_checks(self, _: m.SumChecks, said: dict[str, m.SumChecked]) -> None:
        """Nobody who was drawn says nothing, nobody says another sum, and enough of the drawn say it."""
        wise = self.drawn
        assert all(said[name].sum_digest is not None for name in wise & set(said))
        assert {a.sum_digest for a in said.values()} <= {self.stated.digest, None}
        verifiers = self.plan.sum.verifiers
        enough = self.plan.threshold if verifiers is None else min(verifiers, len(wise))
        assert len(wise & set(said)) >= enough

    def _release(self, request: m.Release, said: dict[str, m.AdapterVote]) -> None:
        """A quorum signed my adapter, of my sum, and the record says what I saw."""
        mine = (self.stated.digest, *self.results["OpenSum"])
        agree = {name for name, vote in said.items() if (vote.sum_digest, vote.adapter_digest, vote.score) == mine}
        record = RoundRecord.model_validate_json(relayed_record(request))
        assert len(agree) >= self.plan.quorum
        assert set(record.votes) == agree
        assert record.round == request.round
        assert (record.sum_digest, record.adapter_digest, record.score) == mine
        assert (record.plan_digest, record.previous_record) == (self.plan_digest, self.record or None)
        assert set(record.members) == set(self.lists["key-roster"])
        assert {u.member: u.digest for u in record.uploads} == {n: u.digest for n, u in self.uploads.items()}
        assert {head.member: head.head for head in record.ledger_heads} == self.results["heads"]
        self.record = digest_of(relayed_record(request))

    # ---- effects

    @property
    def stated(self) -> BlobRef:
        """The sum in the list that I confirmed."""
        return self.results["survivor-list"].sum

    @property
    def uploads(self) -> dict[str, BlobRef]:
        return self.results["uploads"]

    @property
    def drawn(self) -> set[str]:
        return drawn(self.digests["survivor-list"], self.lists["confirmations"], self.plan.sum.verifiers)

    def _names(self, kind: str) -> tuple[str, ...]:
        return tuple(sorted(self.lists.get(kind, ())))

    def _work(self, effect: i.Work) -> None:
        """Each piece of work of a round is done once, for the round and the lists that were accepted."""
        if not hasattr(effect, "round"):
            return
        kind = type(effect).__name__
        assert effect.round == self.round
        assert (kind, effect.round) not in self.done, f"{kind} twice in round {effect.round}"
        if kind in NEXT_TO:
            assert self.done[-1] == (NEXT_TO[kind], effect.round)
        self.done.append((kind, effect.round))
        for field, right in self._for(kind).items():
            seen = getattr(effect, field)
            assert (tuple(sorted(seen)) if isinstance(right, tuple) else seen) == right, f"{field} of {kind}"
        if kind == "RevealShares":
            self.revealed[effect.round] = self.digests["survivor-list"]

    def _for(self, kind: str) -> dict[str, Any]:
        if kind == "DealShares":
            return {"roster": self._names("key-roster"), "roster_digest": self.digests["key-roster"]}
        if kind == "OpenShares":
            return {"dealt": self._names("share-delivery")}
        if kind == "Seal":
            return {"dealers": self._names("share-delivery")}
        lists = {"dealers": self._names("share-delivery"), "survivors": self._names("survivor-list")}
        if kind == "RevealShares":
            assert self.accepted[-1][0] == "confirmations"
            return lists
        if kind == "AddAgain":
            assert self.name in self.drawn
            return {"uploads": self.uploads}
        if kind == "OpenSum":
            assert self.accepted[-1][0] == "sum-checks"
            if self.name in self.drawn:
                assert self.results["AddAgain"] == self.stated
            return {**lists, "sum": self.stated, "revealed": self._names("reveal-delivery")}
        if kind == "Keep":
            assert self.accepted[-1][0] == "release"
            return {"last": self.round == self.plan.rounds}
        return {}

    # ---- answers

    def _reply(self, answer: m.Answer) -> None:
        """The answer that the request is for, about what was asked and done."""
        assert self.request is not None
        assert (self.request.kind, answer.kind) in TABLE
        assert (answer.round, answer.job) == (self.round, self.plan.job)
        for field, right in self._must_answer(answer).items():
            assert getattr(answer, field) == right, f"{field} of {answer.kind}"
        if isinstance(self.request, m.SurvivorList):
            self.results["survivor-list"] = self.request
        self.over = isinstance(answer, m.Released) and answer.round == self.plan.rounds

    def _must_answer(self, answer: m.Answer) -> dict[str, Any]:
        match answer:
            case m.Acceptance() | m.RoundKeys():
                return {"plan_digest": self.plan_digest}
            case m.SealedShares():
                return {"roster_digest": self.digests["key-roster"]}
            case m.SealedUpdate():
                digests = {"ledger_head": self.results["Charge"], "upload": self.results["Seal"]}
                return {**digests, **self._must_say("survivor-list")}
            case m.SumChecked():
                added = self.stated.digest if ("AddAgain", self.round) in self.done else None
                assert (added is not None) == (self.name in self.drawn)
                return {"sum_digest": added, **self._must_say("sum-checks")}
            case m.SurvivorsConfirmed() | m.RevealedShares():
                return self._must_say("sum-checks")
            case m.AdapterVote():
                digest, score = self.results["OpenSum"]
                return {"sum_digest": self.stated.digest, "adapter_digest": digest, "score": score}
            case m.Released():
                assert ("Keep", self.round) in self.done
                return {"record_digest": self.record}
        return {}


def relayed_record(request: m.Release) -> bytes:
    """The record's envelope: here just its payload."""
    return base64.b64decode(request.record)
