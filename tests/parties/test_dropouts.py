"""One of four institutions vanishes, or uploads rubbish: the other three finish, and their evidence verifies."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties import setup
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.parties.mail import Address, write_answer
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.documents import RoundRecord
from fl_alliance.protocol.envelope import Envelope
from fl_alliance.rounds import coordinator as machine
from fl_alliance.rounds import institution as seat
from fl_alliance.store.journal import SqlJournal
from fl_alliance.training.model import adapter_digest
from tests.killed import Killed
from tests.parties.conftest import FOUR, SITES, Alliance

Build = Callable[..., Alliance]
GONE = "surgery"
SHAPE: dict[str, Any] = {"sites": FOUR, "threshold": 3, "quorum": 3, "rounds": 1, "phase_seconds": 60}


class Gone(Exception):
    """The line broke before the answer was sent."""


class Clock:
    """Each look is a second later: whoever waits for a member that is gone looks often."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1.0
        return self.seconds


def run(alliance: Alliance) -> machine.State:
    return alliance.coordinator(ask_again=1000.0, clock=Clock()).run()


def asked(request: bytes) -> tuple[str, int]:
    """(kind, round) of a request, as its label says."""
    fields = decode(Envelope, request).payload_type.split("|")
    return fields[1], int(fields[-1])


def vanishes(alliance: Alliance, name: str, kind: str, number: int = 1) -> None:
    """`name` does what it is asked with `kind` in round `number`, and is never heard of again."""
    handler = alliance.handlers[name]

    def last(request: bytes) -> bytes:
        reply = handler(request)
        if asked(request) == (kind, number):
            alliance.hub.detach(name)
            raise Gone
        return reply

    alliance.handlers[name] = last


def record(alliance: Alliance, name: str, number: int = 1) -> RoundRecord:
    path = alliance.job(name) / f"evidence/rounds/{number:04d}/record.dsse.json"
    return peek_document(path.read_bytes(), RoundRecord)


def charges(alliance: Alliance, name: str) -> int:
    ledger = alliance.home(name) / "ledger.jsonl"
    return len(ledger.read_bytes().splitlines()) if ledger.exists() else 0


def the_others_finish(alliance: Alliance, state: machine.State) -> None:
    """Three have one adapter, the one that their record names, and evidence that an auditor accepts."""
    assert isinstance(state, machine.Finished)
    assert set(state.progress.left) == {GONE}
    for name in SITES:
        last = record(alliance, name, alliance.plan.rounds)
        assert adapter_digest(alliance.job(name) / "adapter") == last.adapter_digest
        assert set(last.votes) == set(SITES)
        found = verify_evidence(alliance.job(name) / "evidence", root=None, say=lambda _: None)
        assert found.charges == charges(alliance, name) == alliance.plan.rounds


@pytest.mark.parametrize(
    ("kind", "charged", "in_roster", "in_sum"),
    [
        ("round-opening", 0, False, False),
        ("key-roster", 0, True, False),
        ("share-delivery", 1, True, False),
        ("survivor-list", 1, True, True),
        ("reveal-delivery", 1, True, True),
    ],
)
def test_one_of_four_vanishes_with_its_answer_unsent_and_the_others_finish(
    build: Build, kind: str, charged: int, in_roster: bool, in_sum: bool
):
    """What it was charged for stays charged, also where its update is in no sum."""
    alliance = build(**SHAPE)
    vanishes(alliance, GONE, kind)
    the_others_finish(alliance, run(alliance))
    made = record(alliance, "clinic")
    assert (GONE in made.members) == in_roster
    assert (GONE in {upload.member for upload in made.uploads}) == in_sum
    assert charges(alliance, GONE) == charged
    assert not (alliance.job(GONE) / "adapter").exists()


def test_the_next_round_goes_on_without_one_that_vanished_after_the_vote(build: Build):
    alliance = build(**{**SHAPE, "rounds": 2})
    vanishes(alliance, GONE, "sum-checks")
    the_others_finish(alliance, run(alliance))
    first, second = (record(alliance, "clinic", number) for number in (1, 2))
    assert GONE in first.members
    assert GONE in {upload.member for upload in first.uploads}
    assert second.members == SITES
    assert {upload.member for upload in second.uploads} == set(SITES)
    assert charges(alliance, GONE) == 1


def test_one_that_comes_back_is_told_that_it_is_out_and_forgets(build: Build):
    alliance = build(**SHAPE)
    shell = inspect.unwrap(alliance.handlers[GONE]).__self__
    vanishes(alliance, GONE, "share-delivery")
    back = alliance.handlers["clinic"]

    def also_brings_back(request: bytes) -> bytes:
        if asked(request) == ("confirmations", 1):
            alliance.attach(GONE)
            alliance.handlers[GONE] = shell.handle
        return back(request)

    alliance.handlers["clinic"] = also_brings_back
    the_others_finish(alliance, run(alliance))
    assert shell.state == seat.Over(GONE, f"no sealed-update from {GONE} in round 1 before the deadline")
    assert charges(alliance, GONE) == 1


@pytest.mark.parametrize("written", [True, False], ids=["after-the-entry", "before-the-entry"])
def test_a_coordinator_killed_as_the_deadline_passes_finishes_without_the_one_that_vanished(
    build: Build, monkeypatch: pytest.MonkeyPatch, written: bool
):
    alliance = build(**SHAPE)
    vanishes(alliance, GONE, "share-delivery")
    append, deaths = SqlJournal.append, []

    def falls(journal: SqlJournal, job: str, kind: str, body: bytes) -> None:
        dies = kind == "deadline-passed" and not deaths
        if written or not dies:
            append(journal, job, kind, body)
        if dies:
            deaths.append(body)
            raise Killed

    monkeypatch.setattr(SqlJournal, "append", falls)
    with pytest.raises(Killed):
        run(alliance)
    the_others_finish(alliance, run(alliance))
    assert deaths == [b'["sealed-update", 1]']
    assert charges(alliance, GONE) == 1


def test_an_upload_that_was_changed_in_the_store_leaves_its_sender_out(build: Build):
    alliance = build(**SHAPE)
    handler = alliance.handlers[GONE]
    shell = inspect.unwrap(handler).__self__

    def spoils(request: bytes) -> bytes:
        reply = handler(request)
        if asked(request) == ("share-delivery", 1):
            answer = decode(m.ANSWER, decode(Envelope, reply).body)
            assert isinstance(answer, m.SealedUpdate)
            path = alliance.blobs.path(answer.upload)
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        return reply

    alliance.handlers[GONE] = spoils
    state = run(alliance)
    the_others_finish(alliance, state)
    assert state.progress.left[GONE].startswith(f"the upload of {GONE} was refused: NotAuthentic: ")
    assert {upload.member for upload in record(alliance, "clinic").uploads} == set(SITES)
    assert charges(alliance, GONE) == 1
    assert isinstance(shell.state, seat.Over)


def test_an_answer_longer_than_any_honest_one_is_not_relayed_and_its_sender_is_out(build: Build):
    """Relayed with the others' it would make a request that can't be sent: the job would stand, for everybody."""
    alliance = build(**SHAPE)
    handler, identity = alliance.handlers[GONE], IdentityKey.load(setup.Keys(alliance.home(GONE)).identity)

    def bloated(request: bytes) -> bytes:
        reply = handler(request)
        answer = decode(m.ANSWER, decode(Envelope, reply).body)
        if not isinstance(answer, m.RoundKeys):
            return reply
        longer = answer.model_copy(update={"mask_key": "AAAA" * 1_500_000})
        return write_answer(Address(GONE, setup.COORDINATOR, {}), identity, longer)

    alliance.handlers[GONE] = bloated
    the_others_finish(alliance, run(alliance))
    assert GONE not in record(alliance, "clinic").members
