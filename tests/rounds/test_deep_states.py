"""Deep states by name: each in the last round of a job, where a random history would need luck to come."""

from __future__ import annotations

import base64

import pytest

from fl_alliance.errors import OutOfOrder
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.ids import blob_ref, digest_of
from fl_alliance.rounds import coordinator as c
from fl_alliance.rounds import institution as i
from tests.rounds.hostile import ADD, FIELDS, RECORD, RELAYS, World, changed, world_of
from tests.rounds.play import record_of, sealed


def world_at(kind: str, number: int = 2, **shape: int) -> World:
    world = world_of(**shape)
    while world.book.phase != (kind, number):
        assert world.honest_step()
    return world


def to_the_end(world: World) -> c.State:
    while world.honest_step():
        pass
    world.crash()
    return world.state


@pytest.mark.parametrize(
    ("kind", "field", "reason"),
    [
        ("round-keys", "plan_digest", "the round keys are not everybody's for this plan"),
        ("sealed-shares", "roster_digest", "bees signed another roster"),
        ("sealed-update", "roster_digest", "an upload belongs to another roster"),
        ("survivors-confirmed", "survivors_digest", "bees confirmed another list"),
        ("revealed-shares", "survivors_digest", "shares were revealed for another list"),
        ("sum-checked", "sum_digest", "bees added the uploads to another sum"),
        ("sum-checked", "survivors_digest", "a sum of other uploads was checked"),
        ("adapter-vote", "adapter_digest", "2 members agree on an adapter"),
    ],
)
def test_one_lie_of_one_member_in_the_last_round_ends_the_job_with_a_reason(kind: str, field: str, reason: str):
    world = world_at(kind)
    (ask,) = (ask for ask in world.wire if ask.member == "bees")
    world.wire.remove(ask)
    assert world.event(world.sign("bees", changed(world.deliver(ask), field)))
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert reason in state.reason


def test_one_dissenting_vote_of_four_is_outvoted_where_the_quorum_is_three():
    world = world_at("adapter-vote", members=4, quorum=3)
    (ask,) = (ask for ask in world.wire if ask.member == "bees")
    world.wire.remove(ask)
    world.event(world.sign("bees", changed(world.deliver(ask), "adapter_digest")))
    assert isinstance(to_the_end(world), c.Finished)
    assert world.sites["cats"].gate.over


@pytest.mark.parametrize("field", ["sum_digest", "adapter_digest", "previous_record", "ledger_heads", "votes"])
def test_a_record_with_one_lie_is_kept_by_nobody(field: str):
    world = world_at(RECORD)
    (effect,) = world.todo
    assert isinstance(effect, c.SignRecord)
    world.todo.clear()
    record = record_of(world.plan, digest_of(world.plan_envelope), effect)
    world.event(c.RecordSigned(encode(changed(record, field))))
    assert isinstance(to_the_end(world), c.Aborted)
    assert all(("Keep", 1) in site.gate.done and ("Keep", 2) not in site.gate.done for site in world.sites.values())


def test_a_crafted_sum_is_opened_by_nobody():
    world = world_at(ADD)
    world.todo.clear()
    world.event(c.SumAdded(blob_ref(b"crafted")))
    assert isinstance(to_the_end(world), c.Aborted)
    assert not any(("OpenSum", 2) in site.gate.done for site in world.sites.values())


@pytest.mark.parametrize("kind", [kind for kind in RELAYS if kind != "key-request"])
@pytest.mark.parametrize("swap", ["last round's", "a lie", "missing"])
def test_one_relayed_envelope_that_does_not_fit_is_refused_in_every_request(kind: str, swap: str):
    _, field, answer = RELAYS[kind]
    world = world_of()
    while not any((ask.request.kind, ask.request.round) == (kind, 2) for ask in world.wire):
        assert world.honest_step()
    ask, site = world.wire[0], world.sites["ants"]
    assert ask.member == "ants"
    found = [a for a in world.said["bees"] if isinstance(a, answer)]
    digest = next(name for name in FIELDS if hasattr(found[0], name) and name != "ledger_head")
    other = {"last round's": [found[0]], "a lie": [changed(found[1], digest)], "missing": []}[swap]
    envelopes = [e for e in getattr(ask.request, field) if not base64.b64decode(e).startswith(b"bees|")]
    envelopes += [base64.b64encode(sealed("bees", a)).decode() for a in other]
    done = list(site.gate.done)
    said = site.hear(mixed := ask.request.model_copy(update={field: tuple(sorted(envelopes))}), world.asked(mixed))
    assert isinstance(said, m.Refusal)
    assert isinstance(site.state, i.Over)
    assert site.gate.done == done


def test_an_abort_of_another_job_ends_nothing():
    site = world_at("sealed-update").sites["ants"]
    before = site.state
    abort = m.Abort(alliance="zoo", job="job-0", round=1, reason="the job of last year")
    with pytest.raises(OutOfOrder, match="abort of job job-0, while job job-1 is under way"):
        site.take(i.Asked(abort, {}))
    assert site.state == before


def test_a_job_that_is_cancelled_without_a_reason_says_so():
    world = world_of()
    world.event(c.Cancelled(""))
    assert world.state.reason == "no reason was given"


def test_a_release_with_fewer_votes_than_the_quorum_is_kept_by_nobody_though_the_record_counts_them_truly():
    """The coordinator that would sign it is not ours: record and votes agree, and are too few."""
    world = world_of()
    while not any((ask.request.kind, ask.request.round) == ("release", 2) for ask in world.wire):
        assert world.honest_step()
    asked = world.asked(world.wire[0].request)
    assert isinstance(asked, i.Asked)
    assert asked.record is not None
    votes = {name: vote for name, vote in asked.relayed.items() if name != "bees"}
    few = i.Asked(asked.request, votes, asked.record.model_copy(update={"votes": ("ants", "cats")}), digest_of(b"few"))
    said = world.sites["ants"].take(few)
    assert isinstance(said, m.Refusal)
    assert said.reason == "2 members voted for this adapter, the quorum is 3"
    assert ("Keep", 2) not in world.sites["ants"].gate.done
