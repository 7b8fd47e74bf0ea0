"""A coordinator that is not ours: it leaves out, puts in, mixes and repeats, and each institution alone says no."""

from __future__ import annotations

import base64

import pytest

from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.ids import blob_ref, digest_of
from fl_alliance.rounds import coordinator as c
from fl_alliance.rounds import institution as i
from tests.rounds.book import ADD, RECORD
from tests.rounds.hostile import FIELDS, RELAYS, World, changed, world_of
from tests.rounds.play import record_of, sealed
from tests.rounds.scenes import FOUR, lie, resigned, the_others_finish, to_the_end, until_asked, without, world_at


def drawn_world(verifiers: int) -> tuple[World, list[str], list[str]]:
    """Five members before the sum check, with who was drawn and who was not."""
    world = world_at("sum-checked", members=5, threshold=3, quorum=3, verifiers=verifiers)
    wise = sorted(world.sites["ants"].gate.drawn)
    return world, wise, [name for name in world.plan.names if name not in wise]


def test_who_was_not_drawn_opens_without_adding_after_the_others_did():
    world, wise, others = drawn_world(1)
    assert len(wise) == 2
    assert isinstance(to_the_end(world), c.Finished)
    for name, site in world.sites.items():
        assert (("AddAgain", 2) in site.gate.done) == (name in wise)
        assert ("OpenSum", 2) in site.gate.done
    assert len(others) == 3


def test_one_drawn_verifier_that_says_null_is_out_and_its_spare_is_enough():
    world, (first, _), _ = drawn_world(1)
    lie(world, first, "null")
    the_others_finish(world, first, f"{first} did not check the sum of this list")


def test_a_sum_that_no_drawn_verifier_checked_is_opened_by_nobody():
    world, wise, _ = drawn_world(1)
    for name in wise:
        lie(world, name, "null")
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert "SumRefused: not 1 of those drawn checked the same sum" in state.reason
    assert not any(("OpenSum", 2) in site.gate.done for site in world.sites.values())


def test_one_verifier_of_two_is_not_enough():
    world, wise, _ = drawn_world(2)
    assert len(wise) == 4
    for name in wise[:3]:
        lie(world, name, "null")
    assert isinstance(to_the_end(world), c.Aborted)
    assert not any(("OpenSum", 2) in site.gate.done for site in world.sites.values())


@pytest.mark.parametrize("said", ["null", "another sum"])
def test_a_coordinator_that_passes_on_a_drawn_verifiers_odd_word_opens_nothing(said: str):
    """The coordinator that would relay it is not ours."""
    world, (_, spare), (reader, *_) = drawn_world(1)
    ask = until_asked(world, "sum-checks", reader)
    digest = {"null": None, "another sum": digest_of(b"another")}[said]
    mixed = resigned(ask.request, spare, sum_digest=digest)
    assert isinstance(world.hand(c.Ask(reader, mixed)), m.Refusal)
    assert ("OpenSum", 2) not in world.sites[reader].gate.done


ROUND_LISTS = [kind for kind in RELAYS if kind != "key-request"]


@pytest.mark.parametrize("kind", ROUND_LISTS)
def test_a_list_without_its_reader_is_refused(kind: str):
    world = world_of(**FOUR)
    ask = until_asked(world, kind, "ants")
    assert isinstance(world.hand(c.Ask("ants", without(ask.request, "ants"))), m.Refusal)


@pytest.mark.parametrize("kind", ROUND_LISTS)
def test_a_list_of_two_is_refused(kind: str):
    world = world_of(**FOUR)
    ask = until_asked(world, kind, "ants")
    assert isinstance(world.hand(c.Ask("ants", without(ask.request, "cats", "dogs"))), m.Refusal)


@pytest.mark.parametrize("kind", ROUND_LISTS)
def test_a_member_said_to_be_missing_makes_a_shorter_list_and_never_a_second_one(kind: str):
    """Differencing: whoever took a list answers no other one of its kind in this round, longer or shorter."""
    world = world_of(**FOUR)
    ask = until_asked(world, kind, "ants")
    first = world.hand(c.Ask("ants", without(ask.request, "dogs")))
    assert not isinstance(first, m.Refusal)
    site = world.sites["ants"]
    before, done = site.state, list(site.gate.done)
    for again in (ask.request, without(ask.request, "cats")):
        no = world.hand(c.Ask("ants", again))
        assert isinstance(no, m.Refusal)
        assert no.error == "OutOfOrder"
    assert (site.state, site.gate.done) == (before, done)


@pytest.mark.parametrize(
    ("earlier", "kind"),
    [("confirmations", "reveal-delivery"), ("reveal-delivery", "sum-checks"), ("reveal-delivery", "release")],
)
def test_a_member_that_was_missing_does_not_come_back_into_a_later_list(earlier: str, kind: str):
    """These lists are bound by no digest to the ones before them, only by the names."""
    world = world_of(**FOUR)
    said = world.hand(c.Ask("ants", without(until_asked(world, earlier, "ants").request, "dogs")))
    assert not isinstance(said, m.Refusal)
    world.event(world.sign("ants", said))
    if (earlier, kind) == ("reveal-delivery", "release"):
        ask = until_asked(world, "sum-checks", "ants")
        world.event(world.sign("ants", world.hand(c.Ask("ants", without(ask.request, "dogs")))))
    whole = until_asked(world, kind, "ants")
    assert isinstance(world.hand(whole), m.Refusal)


def test_an_old_confirmation_of_another_round_does_not_count():
    world = world_of(**FOUR)
    ask = until_asked(world, "confirmations", "ants")
    mixed = resigned(ask.request, "bees", round=1)
    assert isinstance(world.hand(c.Ask("ants", mixed)), m.Refusal)
    assert ("RevealShares", 2) not in world.sites["ants"].gate.done


@pytest.mark.parametrize("field", ["sum_digest", "adapter_digest"])
def test_a_release_that_counts_a_vote_for_something_else_is_refused(field: str):
    """Else one member could make every evidence folder one that no auditor accepts."""
    world = world_of(**FOUR)
    ask = until_asked(world, "release", "ants")
    asked = world.asked(ask.request)
    assert isinstance(asked, i.Asked)
    votes = {**asked.relayed, "bees": changed(asked.relayed["bees"], field)}
    said = world.sites["ants"].take(i.Asked(asked.request, votes, asked.record, asked.record_digest))
    assert isinstance(said, m.Refusal)


@pytest.mark.parametrize("field", ["sum_digest", "adapter_digest", "previous_record", "ledger_heads", "votes"])
def test_a_record_with_one_lie_is_kept_by_nobody(field: str):
    world = world_at(RECORD)
    (effect,) = world.todo
    assert isinstance(effect, c.SignRecord)
    world.todo.clear()
    record = record_of(world.plan, digest_of(world.plan_envelope), effect)
    world.event(c.RecordSigned(encode(changed(record, field)), b"checkpoint"))
    assert isinstance(to_the_end(world), c.Aborted)
    assert all(("Keep", 1) in site.gate.done and ("Keep", 2) not in site.gate.done for site in world.sites.values())


def test_a_crafted_sum_is_opened_by_nobody():
    world = world_at(ADD)
    world.todo.clear()
    world.event(c.SumAdded(blob_ref(b"crafted")))
    assert isinstance(to_the_end(world), c.Aborted)
    assert not any(("OpenSum", 2) in site.gate.done for site in world.sites.values())


@pytest.mark.parametrize("kind", [kind for kind in RELAYS if kind != "key-request"])
@pytest.mark.parametrize("swap", ["last round's", "a lie"])
def test_one_relayed_envelope_that_does_not_fit_is_refused_in_every_request(kind: str, swap: str):
    _, field, answer = RELAYS[kind]
    world = world_of()
    while not any((ask.request.kind, ask.request.round) == (kind, 2) for ask in world.wire):
        assert world.honest_step()
    ask, site = world.wire[0], world.sites["ants"]
    assert ask.member == "ants"
    found = [a for a in world.said["bees"] if isinstance(a, answer)]
    digest = next(name for name in FIELDS if hasattr(found[0], name) and name != "ledger_head")
    other = found[0] if swap == "last round's" else changed(found[1], digest)
    envelopes = [e for e in getattr(ask.request, field) if not base64.b64decode(e).startswith(b"bees|")]
    envelopes.append(base64.b64encode(sealed("bees", other)).decode())
    done = list(site.gate.done)
    said = site.hear(mixed := ask.request.model_copy(update={field: tuple(sorted(envelopes))}), world.asked(mixed))
    assert isinstance(said, m.Refusal)
    assert isinstance(site.state, i.Over)
    assert site.gate.done == done


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


@pytest.mark.parametrize(
    ("member", "field", "reason"),
    [
        ("bees", "roster_digest", "an upload belongs to another roster"),
        ("bees", "dealers_digest", "an upload was masked for another list of dealers"),
        ("bees", "upload", "one upload stands twice in the list"),
        ("ants", "upload", "the list names another upload as mine"),
    ],
)
def test_a_list_with_an_upload_that_does_not_fit_is_confirmed_by_nobody(member: str, field: str, reason: str):
    world = world_of(**FOUR)
    ask = until_asked(world, "survivor-list", "ants")
    other = world.state.progress.phases["sealed-update"]["cats"].answer
    value = getattr(other, field) if field == "upload" else digest_of(b"another")
    said = world.hand(c.Ask("ants", resigned(ask.request, member, **{field: value})))
    assert isinstance(said, m.Refusal)
    assert said.reason == reason


def test_three_confirmations_of_five_reveal_nothing_though_three_shares_would_open_a_mask():
    """With one helper who confirms two lists, the coordinator would have both seeds of a member."""
    world = world_of(members=5, threshold=3, quorum=3)
    ask = until_asked(world, "confirmations", "ants")
    few = without(ask.request, "dogs", "eels")
    assert isinstance(world.hand(c.Ask("ants", few)), m.Refusal)
    assert ("RevealShares", 2) not in world.sites["ants"].gate.done
    other = until_asked(world, "confirmations", "bees")
    assert isinstance(world.hand(c.Ask("bees", without(other.request, "eels"))), m.RevealedShares)
