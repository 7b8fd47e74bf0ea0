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
from tests.rounds.book import ADD, ALARMS, RECORD, ROUND
from tests.rounds.hostile import FIELDS, RELAYS, World, changed, refusal_of, world_of
from tests.rounds.play import opened, record_of, sealed

FOUR = {"members": 4, "threshold": 3, "quorum": 3}
ASKED = tuple(kind for kind in ROUND if kind not in (ADD, RECORD))


def world_at(kind: str, number: int = 2, **shape: int | None) -> World:
    world = world_of(**shape)
    while world.book.phase != (kind, number):
        assert world.honest_step()
    return world


def to_the_end(world: World) -> c.State:
    while world.honest_step():
        pass
    world.crash()
    return world.state


def ask_for(world: World, member: str) -> c.Ask:
    """Take what `member` is asked off the wire."""
    (ask,) = (ask for ask in world.wire if ask.member == member)
    world.wire.remove(ask)
    return ask


def lie(world: World, member: str, field: str) -> None:
    """`member` answers what it is asked, with something else in `field`."""
    assert world.event(world.sign(member, changed(world.hand(ask_for(world, member)), field)))


def the_others_finish(world: World, gone: str, reason: str) -> None:
    """One member is out, knows why, and heard nothing else; the others have a record with their votes."""
    state = to_the_end(world)
    assert isinstance(state, c.Finished)
    assert set(state.progress.left) == {gone}
    assert reason in state.progress.left[gone]
    assert gone in world.told
    others = set(world.plan.names) - {gone}
    assert all(("Keep", 2) in world.sites[name].gate.done for name in others)


LIES = [
    ("round-keys", "plan_digest", "bees made keys for another plan"),
    ("sealed-shares", "roster_digest", "bees signed another roster"),
    ("sealed-shares", "shares", "bees signed another roster"),
    ("sealed-update", "roster_digest", "bees masked for another list of dealers"),
    ("sealed-update", "dealers_digest", "bees masked for another list of dealers"),
    ("survivors-confirmed", "survivors_digest", "bees confirmed another list"),
    ("revealed-shares", "survivors_digest", "bees revealed shares for another list"),
    ("sum-checked", "survivors_digest", "bees did not check the sum of this list"),
    ("adapter-vote", "sum_digest", "bees voted for what another sum gives"),
    ("adapter-vote", "adapter_digest", "bees voted for another adapter"),
    ("released", "record_digest", "bees kept another record"),
]


@pytest.mark.parametrize(("kind", "field", "reason"), LIES)
def test_who_signs_something_else_than_the_others_is_out_and_they_finish(kind: str, field: str, reason: str):
    world = world_at(kind, **FOUR)
    lie(world, "bees", field)
    the_others_finish(world, "bees", reason)


@pytest.mark.parametrize(("kind", "field", "reason"), [case for case in LIES if case[0] in ROUND[:3]])
def test_where_every_upload_is_needed_one_lie_ends_the_job_with_a_reason(kind: str, field: str, reason: str):
    world = world_at(kind)
    lie(world, "bees", field)
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason.startswith(reason)
    assert state.reason.endswith("; 2 members are left, need 3")


def test_a_check_of_another_sum_ends_the_job_for_all():
    world = world_at("sum-checked", **FOUR)
    lie(world, "bees", "sum_digest")
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason == "bees added the uploads to another sum"
    assert not any(("OpenSum", 2) in site.gate.done for site in world.sites.values())


def test_an_accepted_key_that_is_another_one_ends_the_job_before_anything_is_charged():
    world = world_at("key-accepted", 0, **FOUR)
    lie(world, "bees", "key_fingerprint")
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason == "bees accepted another alliance key"


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("kind", ASKED)
def test_one_of_four_misses_a_deadline_in_any_phase_and_the_others_finish(kind: str, number: int):
    world = world_at(kind, number, **FOUR)
    world.vanish("dogs")
    the_others_finish(world, "dogs", f"no {kind} from dogs in round {number} before the deadline")


@pytest.mark.parametrize("kind", ["acceptance", "key-accepted"])
def test_before_the_first_round_nobody_may_be_missing(kind: str):
    world = world_at(kind, 0, **FOUR)
    world.vanish("dogs")
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason == f"no {kind} from dogs in round 0 before the deadline"


def test_later_rounds_go_on_without_one_that_left_and_ask_it_nothing():
    world = world_at("released", 1, **FOUR)
    world.vanish("dogs")
    the_others_finish(world, "dogs", "no released from dogs in round 1")
    later = [ask for ask in world.log if ask.request.round == 2]
    assert {ask.member for ask in later} == {"ants", "bees", "cats"}
    assert world.state.progress.phases["sealed-update"].keys() == {"ants", "bees", "cats"}


@pytest.mark.parametrize("kind", ASKED)
def test_a_refusal_of_ones_own_affairs_leaves_one_out(kind: str):
    world = world_at(kind, **FOUR)
    no = refusal_of(ask_for(world, "cats").request, "BudgetExceeded", "epsilon_per_job is 8")
    assert world.event(world.sign("cats", no))
    the_others_finish(world, "cats", "cats refused: BudgetExceeded: epsilon_per_job is 8")


@pytest.mark.parametrize("error", ALARMS)
@pytest.mark.parametrize("kind", ["round-keys", "survivors-confirmed", "adapter-vote", "released"])
def test_a_refusal_that_is_an_alarm_ends_the_job_for_all(kind: str, error: str):
    world = world_at(kind, **FOUR)
    no = refusal_of(ask_for(world, "cats").request, error, "not what was signed")
    assert world.event(world.sign("cats", no))
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason == f"cats refused: {error}: not what was signed"
    assert world.told == set(world.plan.names)


@pytest.mark.parametrize(
    ("kind", "left"),
    [("round-keys", 3), ("sealed-update", 3), ("survivors-confirmed", 4), ("revealed-shares", 3), ("adapter-vote", 3)],
)
def test_one_member_fewer_than_a_phase_needs_ends_the_job(kind: str, left: int):
    """Five members, threshold 3: three for a sum, four (two thirds and more) to confirm its list, three to open it."""
    shape = {"members": 5, "threshold": 3, "quorum": 3}
    enough, few = world_at(kind, **shape), world_at(kind, **shape)
    for world, stay in ((enough, left), (few, left - 1)):
        for name in world.plan.names[stay:]:
            world.vanish(name)
        while world.book.phase == (kind, 2):
            assert world.honest_step()
    assert not isinstance(enough.state, c.Aborted)
    assert isinstance(few.state, c.Aborted)
    assert few.state.reason.endswith(f"{left - 1} members are left, need {left}")


def test_after_the_vote_one_member_is_enough_for_the_last_round():
    world = world_at("released", **FOUR)
    for name in ("bees", "cats", "dogs"):
        world.vanish(name)
    assert isinstance(to_the_end(world), c.Finished)
    assert set(world.state.progress.left) == {"bees", "cats", "dogs"}


def test_after_the_vote_too_few_members_end_the_job_before_another_round():
    world = world_at("released", 1, **FOUR)
    for name in ("cats", "dogs"):
        world.vanish(name)
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason == "2 members are left for round 2, need 3"


def test_an_upload_that_cannot_be_added_is_left_out_of_sum_list_and_record():
    world = world_at(ADD, **FOUR)
    world.todo.clear()
    assert world.event(c.UploadRefused("ants", "its bytes are not what was signed"))
    the_others_finish(world, "ants", "the upload of ants was refused: its bytes are not what was signed")
    assert "ants" not in world.state.progress.phases["sealed-update"]
    assert "ants" in world.state.progress.phases["sealed-shares"]


def test_two_uploads_of_four_that_cannot_be_added_end_the_job():
    world = world_at(ADD, **FOUR)
    for name in ("ants", "bees"):
        world.todo.clear()
        assert world.event(c.UploadRefused(name, "bad"))
    state = to_the_end(world)
    assert isinstance(state, c.Aborted)
    assert state.reason == "the upload of bees was refused: bad; 2 members are left, need 3"


def test_an_upload_that_was_refused_is_not_refused_again():
    world = world_at(ADD, members=5, threshold=3, quorum=3)
    world.todo.clear()
    assert world.event(c.UploadRefused("ants", "bad"))
    assert not world.event(c.UploadRefused("ants", "bad"))


def test_who_left_is_told_again_after_a_crash_in_any_later_phase():
    world = world_at("sealed-shares", 1, **FOUR)
    world.vanish("dogs")
    seen = set()
    while world.honest_step():
        if world.book.left and world.book.phase not in seen:
            seen.add(world.book.phase)
            world.crash()  # compares what is outstanding with what is owed
            assert [ask.member for ask in world.wire if isinstance(ask.request, m.Abort)] == ["dogs"]
    assert len(seen) == 2 * len(ROUND) - 1
    assert isinstance(world.state, c.Finished)


def test_three_lists_of_which_each_is_within_the_one_before_it():
    """One vanishes in each of three phases of the round: the record names roster and uploads, votes are fewer."""
    world = world_at("sealed-shares", members=5, threshold=3, quorum=3, minimum=3)
    for kind, name in (("sealed-shares", "eels"), ("revealed-shares", "dogs")):
        while world.book.phase[0] != kind:
            assert world.honest_step()
        world.vanish(name)
    assert isinstance(to_the_end(world), c.Finished)
    gate = world.sites["ants"].gate
    assert [len(gate.lists[kind]) for kind in ("key-roster", "share-delivery", "survivor-list", "reveal-delivery")] == [
        5, 4, 4, 3,
    ]  # fmt: skip


# ---- verifiers


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


# ---- a coordinator that is not ours


def until_asked(world: World, kind: str, member: str) -> c.Ask:
    """Play until `member` is asked `kind` in round 2, and take it off the wire."""
    while True:
        for ask in world.wire:
            if (ask.member, ask.request.kind, ask.request.round) == (member, kind, 2):
                world.wire.remove(ask)
                return ask
        assert world.honest_step()


def resigned(request: m.Request, member: str, **fields: object) -> m.Request:
    """`request` with other words of one member in it, as if it had signed them."""
    field = RELAYS[request.kind][1]
    envelopes = []
    for envelope in getattr(request, field):
        name, answer = opened(base64.b64decode(envelope))
        other = answer.model_copy(update=fields) if name == member else answer
        envelopes.append(base64.b64encode(sealed(name, other)).decode())
    return request.model_copy(update={field: tuple(envelopes)})


def without(request: m.Request, *missing: str) -> m.Request:
    field = RELAYS[request.kind][1]
    kept = tuple(e for e in getattr(request, field) if opened(base64.b64decode(e))[0] not in missing)
    return request.model_copy(update={field: kept})


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
