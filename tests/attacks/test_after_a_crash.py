"""An institution's process is killed inside a round, and the coordinator tries to gain by asking the new one."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_alliance.errors import StoreFailed
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.log import members_entry, plan_entry
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties.desk import InstitutionDesk
from fl_alliance.parties.job_journal import JobJournal
from fl_alliance.parties.vault import Vault
from fl_alliance.protocol import messages as m
from fl_alliance.rounds import institution as machine
from tests.attacks.wire import Refused, Wire, relay
from tests.killed import Killed
from tests.parties.pages import MemoryPages


@pytest.fixture
def wire(tmp_path: Path) -> Wire:
    wire = Wire(tmp_path, 4)
    wire.start()
    return wire


def dealt(wire: Wire) -> dict[str, str]:
    """Bring a round to where shares were dealt."""
    wire.round = 1
    keys = wire.ask_all(m.RoundOpening(**wire.bound, previous_record=None))
    wire.roster = m.KeyRoster(**wire.bound, round_keys=relay(keys))
    said = wire.ask_all(wire.roster)
    wire.dealers = sorted(said)
    return said


def delivery(wire: Wire, said: dict[str, str], names: list[str]) -> m.ShareDelivery:
    return m.ShareDelivery(**wire.bound, sealed_shares=relay({name: said[name] for name in names}))


def kill_after_the_upload(wire: Wire, monkeypatch: pytest.MonkeyPatch, name: str, request: m.Request) -> None:
    """The ciphertext is with the coordinator, and the process dies before it has signed for it."""
    honest = InstitutionDesk.do

    def do(desk: InstitutionDesk, work: machine.Work, **named: Any) -> object:
        result = honest(desk, work, **named)
        if isinstance(work, machine.Seal):
            raise Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr("tests.attacks.wire.InstitutionDesk.do", do)
        with pytest.raises(Killed):
            wire.ask(name, request)
    wire.restart(name)


def test_a_vector_that_left_before_a_crash_is_sealed_again_and_no_other_is_ever_trained(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
):
    """Two vectors under the same masks would give away their difference to whoever has the alliance key."""
    request = delivery(wire, dealt(wire), wire.names)
    before = set(wire.blobs.data)
    kill_after_the_upload(wire, monkeypatch, wire.victim, request)
    (left,) = set(wire.blobs.data) - before
    wire.desks[wire.victim].trainer.update = -wire.desks[wire.victim].trainer.update  # training again would show
    wire.ask(wire.victim, request)
    signed = wire.answer(m.SealedUpdate, wire.victim).upload
    assert signed.digest != left, "a ciphertext is made anew"
    again = wire.decrypted(wire.victim)
    wire.blobs.data[signed.digest] = wire.blobs.data[left]
    assert np.array_equal(again, wire.decrypted(wire.victim))


def test_after_a_crash_no_upload_is_masked_towards_other_dealers(wire: Wire, monkeypatch: pytest.MonkeyPatch):
    said = dealt(wire)
    kill_after_the_upload(wire, monkeypatch, wire.victim, delivery(wire, said, wire.names))
    with pytest.raises(Refused, match="OutOfOrder"):
        wire.ask(wire.victim, delivery(wire, said, wire.names[1:]))


def test_after_a_crash_no_second_set_of_round_keys_is_made(wire: Wire):
    dealt(wire)
    wire.restart(wire.victim)
    with pytest.raises(Refused, match="OutOfOrder"):
        wire.ask(wire.victim, m.RoundOpening(**wire.bound, previous_record="sha256:" + "0" * 64))


def test_shares_that_were_revealed_are_not_revealed_for_another_list_after_a_crash(wire: Wire):
    wire.upload()
    shown = wire.list_of(wire.names)
    confirmations = wire.confirm(shown, wire.names)
    wire.ask(wire.victim, confirmations)
    wire.restart(wire.victim)
    fewer = m.Confirmations(**wire.bound, confirmed=confirmations.confirmed[1:])
    with pytest.raises(Refused, match="OutOfOrder"):
        wire.ask(wire.victim, fewer)
    assert not wire.desks[wire.victim]._pairs


def test_a_job_in_which_the_work_broke_stays_over_after_a_restart(wire: Wire, monkeypatch: pytest.MonkeyPatch):
    request = delivery(wire, dealt(wire), wire.names)

    monkeypatch.setattr(wire.desks[wire.victim].trainer, "train_round", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wire.ask(wire.victim, request)
    wire.restart(wire.victim)
    with pytest.raises(Refused, match="OutOfOrder"):
        wire.ask(wire.victim, request)
    assert wire.institutions[wire.victim].state == machine.Over(wire.victim, "Train failed: ZeroDivisionError")
    assert not wire.pages[wire.victim].memory(wire.plan.job)


def test_a_write_that_fails_changes_nothing_and_the_request_may_come_again(wire: Wire):
    request, pages = delivery(wire, dealt(wire), wire.names), wire.pages[wire.victim]

    def full_after(last: int) -> Callable[[int, str], None]:
        def dies(number: int, when: str) -> None:
            if number > last and when == "before":
                raise StoreFailed("journal: no space left on device")

        return dies

    for allowed in (0, 1, 1, 1, 1):  # the request; shares opened, charged, trained; sealed
        pages.dies = full_after(pages.writes + allowed)
        with pytest.raises(StoreFailed):
            wire.ask(wire.victim, request)
    pages.dies = lambda number, when: None
    wire.ask(wire.victim, request)
    others = [name for name in wire.names if name != wire.victim]
    wire.ask_all(request, others)
    wire.open(wire.list_of(wire.names), wire.names)
    assert np.array_equal(wire.opened_by_helper(4), sum(wire.digits.values()))


@pytest.mark.parametrize(
    "change", ["alliance", "job", "name", "identity", "byte", "cut", "longer", "order", "another time", "nothing"]
)
def test_a_secret_opens_whole_and_only_for_its_own_alliance_job_name_and_identity(
    change: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fl_alliance.parties.vault.PIECE_BYTES", 4)
    identity = IdentityKey.generate()
    sealed, later = (Vault(identity, "one").seal("job-1", "shares", b"my secret") for _ in range(2))
    assert len(sealed) == 3
    assert all(part not in b"".join(sealed) for part in (b"my s", b"ecre"))
    assert Vault(identity, "one").open("job-1", "shares", sealed) == b"my secret"
    assert Vault(identity, "one").open("job-1", "shares", Vault(identity, "one").seal("job-1", "shares", b"")) == b""
    job, name = "job-2" if change == "job" else "job-1", "update" if change == "name" else "shares"
    whose = IdentityKey.generate() if change == "identity" else identity
    vault = Vault(whose, "another" if change == "alliance" else "one")
    given = {
        "byte": (*sealed[:2], sealed[2][:-1] + bytes([sealed[2][-1] ^ 1])),
        "cut": sealed[:2],
        "longer": (*sealed, sealed[2]),
        "order": (sealed[1], sealed[0], sealed[2]),
        "another time": (sealed[0], later[1], sealed[2]),
        "nothing": (),
    }.get(change, sealed)
    with pytest.raises(StoreFailed, match=f"secret {name} of job {job}"):
        vault.open(job, name, given)


def test_a_database_of_another_institution_is_not_taken_up():
    pages = MemoryPages()
    mine, theirs = (JobJournal(pages, Vault(IdentityKey.generate(), "one")) for _ in range(2))
    mine.advance("job-1", ("request", b"{}"), remember={"update": b"secret"}, forget=False, reply=None)
    assert mine.memory("job-1") == {"update": b"secret"}
    with pytest.raises(StoreFailed, match="did not seal"):
        theirs.memory("job-1")


def test_a_member_killed_at_work_stops_when_it_is_told_and_forgets(wire: Wire, monkeypatch: pytest.MonkeyPatch):
    """The others went on without it, so nobody asks for its upload again: its secrets must not stay for that."""
    request = delivery(wire, dealt(wire), wire.names)
    kill_after_the_upload(wire, monkeypatch, wire.victim, request)
    assert wire.pages[wire.victim].memory(wire.plan.job)
    wire.ask(wire.victim, m.Abort(**wire.bound, reason="it missed the phase"))
    for _ in range(2):
        assert wire.institutions[wire.victim].state == machine.Over(wire.victim, "it missed the phase")
        assert not wire.pages[wire.victim].memory(wire.plan.job)
        with pytest.raises(Refused, match="OutOfOrder"):
            wire.ask(wire.victim, request)
        wire.restart(wire.victim)


def with_another_key_of(wire: Wire, name: str) -> m.Proposal:
    """Return a proposal of another job, with a list that the root signed, in which `name` has another identity key."""
    mine, wire.identities[name] = wire.identities[name], IdentityKey.generate()
    members = sign_document(wire.root, wire._members().model_copy(update={"serial": 2}))
    wire.identities[name] = mine
    envelope = wire.signed(wire.plan.model_copy(update={"job": "job-2"}))
    wire.log.add(members_entry(members), plan_entry("job-2", envelope))
    listed, proposed, shown = (base64.b64encode(data).decode() for data in (members, envelope, wire.log.checkpoint()))
    bound = wire.bound | {"job": "job-2", "round": 0}
    return m.Proposal(**bound, plan=proposed, members=listed, last_seen=None, checkpoint=shown)


def test_a_list_that_comes_with_a_refused_proposal_changes_no_key_of_the_job_under_way(wire: Wire):
    """Or what a new process reads in its journal would not be what the last one took for authentic."""
    keys = wire.institutions[wire.victim]._address.keys
    (wire.folder / wire.victim / "job-2" / "evidence").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(Refused, match="OutOfOrder: job job-2 has already been here"):
            wire.ask(wire.victim, with_another_key_of(wire, wire.names[1]))
        assert wire.institutions[wire.victim]._address.keys == keys
        assert wire.institutions[wire.victim]._documents["members.dsse.json"] == wire.members_envelope
        wire.restart(wire.victim)


def test_a_list_with_another_key_of_the_coordinator_than_it_signs_with_is_refused(wire: Wire):
    with pytest.raises(Refused, match="NotAuthentic: the list of members names another key for coordinator"):
        wire.ask(wire.victim, with_another_key_of(wire, "coordinator"))


def test_a_house_that_got_another_identity_key_starts_and_its_old_job_is_over(wire: Wire):
    dealt(wire)
    wire.identities[wire.victim] = IdentityKey.generate()
    wire.restart(wire.victim)
    reason = f"job {wire.plan.job} can't be taken up: NotAuthentic"
    assert wire.institutions[wire.victim].state == machine.Over(wire.victim, reason)


def test_a_job_whose_evidence_is_gone_is_not_begun_again(wire: Wire):
    wire.ask(wire.victim, m.Abort(**wire.bound, reason="stop"))
    shutil.rmtree(wire.folder / wire.victim / wire.plan.job)
    wire.log.add(plan_entry("job-2", wire.plan_envelope))  # the proposal is not the request that has a reply
    with pytest.raises(Refused, match=f"OutOfOrder: job {wire.plan.job} has already been here"):
        wire.ask(wire.victim, wire.proposal())
    wire.restart(wire.victim)
    assert wire.institutions[wire.victim].state == machine.Over(wire.victim, "stop")
