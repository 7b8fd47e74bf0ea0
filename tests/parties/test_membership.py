"""Members come, renew their keys and go while the coordinator's link runs, over TLS on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fl_alliance.errors import AllianceError, CertificateRefused, MemberUnknown, NotAMember
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties import join, roster, setup, wiring
from fl_alliance.parties.config import CoordinatorConfig, load
from fl_alliance.parties.join_words import LeaveNotice, sign_notice
from fl_alliance.parties.setup import Keys, read_request
from fl_alliance.protocol.documents import AllianceMembers
from fl_alliance.protocol.ports import CoordinatorLink, Reply
from fl_alliance.rounds import coordinator as machine
from fl_alliance.store.blobs import FolderBlobs
from fl_alliance.transport.flower.coordinator import FlowerCoordinatorLink
from fl_alliance.transport.flower.institution import FlowerInstitutionLink
from tests.parties.conftest import Alliance
from tests.parties.joining import Office, files


class Member:
    """An institution in a thread: it answers with what it was asked, and keeps the error that ended its service."""

    def __init__(self, office: Office, name: str) -> None:
        keys = Keys(office.site(name))
        self.seen: list[bytes] = []
        self.ended: AllianceError | None = None
        self.link = FlowerInstitutionLink(
            address=f"127.0.0.1:{office.ports[0]}",
            tls=wiring.tls_files(keys),
            node_key=keys.node_key,
            state=office.site(name) / "flower",
        )
        self._go, self._stop = threading.Event(), threading.Event()
        self._go.set()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        try:
            self.link.serve(self._handle, keep_going=lambda: not self._stop.is_set())
        except AllianceError as error:
            self.ended = error

    def _handle(self, request: bytes) -> bytes:
        self.seen.append(request)
        self._go.wait(30)
        return request

    def holds_back(self) -> None:
        self._go.clear()

    def answers(self) -> None:
        self._go.set()

    def end(self) -> AllianceError | None:
        """Wait until the service has ended by itself."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.ended

    def __enter__(self) -> Member:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._go.set()
        self._thread.join()
        self.link.close()


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def answered(link: CoordinatorLink, count: int = 1) -> list[Reply]:
    found: list[Reply] = []
    until(lambda: found.extend(link.replies(0.2)) or len(found) >= count)
    return found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Office, FlowerCoordinatorLink]]:
    """A coordinator as `coordinator serve` has it: link and join door open, no member yet."""
    office = Office(tmp_path)
    config = load(CoordinatorConfig, office.home / "coordinator.toml")
    with wiring.coordinator_link(office.home, config, FolderBlobs(office.home / "blobs")) as link:
        assert isinstance(link, FlowerCoordinatorLink)
        yield office, link


Running = tuple[Office, FlowerCoordinatorLink]


def test_who_joins_is_asked_without_a_restart(running: Running) -> None:
    office, link = running
    assert link.members == frozenset()
    office.bring("clinic")
    until(lambda: link.members == {"clinic"})
    with Member(office, "clinic"):
        link.ask("clinic", b"are you there?")
        assert [reply.payload for reply in answered(link)] == [b"are you there?"]


def test_a_removed_member_is_refused_by_name_and_the_others_are_not_disturbed(running: Running) -> None:
    """It is removed while both are at work; its open connection is of no use to it."""
    office, link = running
    for name in ("clinic", "school"):
        office.bring(name)
    until(lambda: link.members == {"clinic", "school"})
    with Member(office, "clinic") as clinic, Member(office, "school") as school:
        for member in (clinic, school):
            member.holds_back()
        link.ask("clinic", b"work")
        link.ask("school", b"work")
        until(lambda: link.replies(0.05) == [] and clinic.seen and school.seen)
        node = link._ids["school"]
        assert roster.remove(office.home, "clinic") == 4
        until(lambda: link.members == {"school"})
        clinic.answers()
        assert isinstance(clinic.end(), CertificateRefused)
        school.answers()
        replies = {reply.member: reply for reply in answered(link, 2)}
        assert (replies["clinic"].payload, replies["clinic"].failure) == (None, "struck off")
        assert replies["school"].payload == b"work"
        assert (school.seen, link._ids["school"]) == ([b"work"], node)
        with pytest.raises(MemberUnknown, match="'clinic'"):
            link.ask("clinic", b"more work")
    with Member(office, "clinic") as again:  # a new process changes nothing
        assert isinstance(again.end(), CertificateRefused)


def test_rekeying_does_not_disturb_the_others(running: Running) -> None:
    office, link = running
    for name in ("clinic", "school"):
        office.bring(name)
    until(lambda: link.members == {"clinic", "school"})
    with Member(office, "school") as school:
        old = Member(office, "clinic")
        with old:
            old.holds_back()
            school.holds_back()
            link.ask("clinic", b"work")
            link.ask("school", b"work")
            until(lambda: link.replies(0.05) == [] and old.seen and school.seen)
            serial, node, before = office.members().serial, link._ids["school"], link._ids["clinic"]
            with_todo_filled(office.site("clinic"))
            assert join.rotate(office.site("clinic")).number == 2
            until(lambda: link._ids["clinic"] != before)
            old.answers()
            assert isinstance(old.end(), CertificateRefused)
        with Member(office, "clinic") as new:
            school.answers()
            assert {(reply.member, reply.payload) for reply in answered(link, 2)} == {
                ("clinic", b"work"),
                ("school", b"work"),
            }
            assert (new.seen, school.seen) == ([b"work"], [b"work"])
        assert (office.members().serial, link._ids["school"]) == (serial, node)


def with_todo_filled(home: Path) -> None:
    """Rotation needs none of the fields that a person fills in."""
    assert "TODO" in (home / "institution.toml").read_text()


# ---- at the door


def test_an_older_request_brings_no_old_keys_back(office: Office) -> None:
    home = office.bring("clinic")
    first = Keys(home).request.read_bytes()
    join.rotate(home)
    before = files(office.home)
    with pytest.raises(NotAMember, match="request 1 of clinic, its membership is by 2"), door(office) as open_door:
        open_door.ask("/join/renew", first)
    assert files(office.home) == before


def test_nobody_renews_in_anothers_name(office: Office, tmp_path: Path) -> None:
    office.bring("clinic")
    twin = setup.institution_init(tmp_path / "twin", name="clinic")
    assert twin.name == "clinic"
    with pytest.raises(NotAMember, match="'clinic' is already a member with other keys"), door(office) as open_door:
        open_door.ask("/join/renew", Keys(tmp_path / "twin").request.read_bytes())


def test_nobody_leaves_in_anothers_name(office: Office) -> None:
    clinic, school = office.bring("clinic"), office.bring("school")
    notice = LeaveNotice(alliance="north", name="clinic", number=read_request(Keys(clinic).request).number)
    forged = sign_notice(IdentityKey.load(Keys(school).identity), notice)
    with pytest.raises(join.JoinRefused, match=r"^NotAuthentic: signed with key"), door(office) as open_door:
        open_door.ask("/join/leave", forged)
    assert office.names() == ["clinic", "school"]


def test_a_notice_to_leave_ends_no_later_membership(office: Office) -> None:
    home = office.bring("clinic")
    notice = LeaveNotice(alliance="north", name="clinic", number=1)
    signed = sign_notice(IdentityKey.load(Keys(home).identity), notice)
    join.rotate(home)
    with pytest.raises(join.JoinRefused, match="the notice is about"), door(office) as open_door:
        open_door.ask("/join/leave", signed)
    assert office.names() == ["clinic"]


def test_who_leaves_is_no_member_and_keeps_its_folder(office: Office) -> None:
    home = office.bring("clinic")
    before, serial = files(home), office.members().serial
    join.leave(home)
    assert (office.names(), office.members().serial) == ([], serial + 1)
    assert [member.name for member in office.members().members] == ["coordinator"]
    assert files(home) == before
    for act in (join.leave, join.rotate):
        with pytest.raises(NotAMember, match="clinic is no member of this alliance"):
            act(home)


def door(office: Office) -> join.Door:
    return join.Door(office.address, roster.roots_of(office.home).tls_root)


# ---- the list of members


def test_each_change_of_the_list_has_a_higher_serial_and_only_a_change_has(office: Office) -> None:
    office.bring("clinic")
    serials = [office.members().serial]
    join.rotate(office.site("clinic"))
    setup.publish_members(office.home)
    serials.append(office.members().serial)
    roster.remove(office.home, "clinic")
    serials.append(office.members().serial)
    assert serials == [1, 1, 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (-1, "members: a list with serial 1, here is one with 2"),
        (0, "members: two different lists with serial 2"),
    ],
    ids=["older", "another of the same serial"],
)
def test_a_list_of_members_rolled_back_is_refused(build: Callable[..., Alliance], change: int, said: str) -> None:
    """The clinic was shown the newer list before its process started again."""
    alliance = build(rounds=1)
    office = alliance.home("coordinator")
    root = IdentityKey.load(Keys(office).root)
    shown = roster._list_in(Keys(office).members.read_bytes()).model_copy(update={"serial": 2})
    Keys(alliance.home("clinic")).members.write_bytes(sign_document(root, shown))
    alliance.attach("clinic")
    older = shown.model_copy(update={"serial": 2 + change, "members": _with_a_stranger(shown)})
    Keys(office).members.write_bytes(sign_document(root, older))
    state = alliance.coordinator().run()
    assert isinstance(state, machine.Aborted)
    assert state.reason == f"clinic refused: MembersRolledBack: {said}"


def _with_a_stranger(shown: AllianceMembers) -> tuple[object, ...]:
    stranger = shown.members[0].model_copy(
        update={"name": "zoo", "role": "institution", "identity": IdentityKey.generate().public_text}
    )
    return (*shown.members, stranger)


def test_a_newer_list_is_kept_also_when_its_proposal_is_refused(build: Callable[..., Alliance]) -> None:
    """Else a coordinator could take it back by the next start of the institution."""
    alliance = build(rounds=1)
    (alliance.folder.parent / "data" / "clinic.jsonl").unlink()
    assert isinstance(alliance.coordinator().run(), machine.Aborted)
    assert Keys(alliance.home("clinic")).members.read_bytes() == Keys(alliance.home("coordinator")).members.read_bytes()


def test_a_job_goes_on_with_the_list_it_began_with(build: Callable[..., Alliance]) -> None:
    """A member that leaves during a job is missed by it; the others' answers are still known after a restart."""
    alliance = build(rounds=1)
    office = alliance.home("coordinator")
    first = alliance.coordinator()
    began = (alliance.job("coordinator") / "members.dsse.json").read_bytes()
    first._adder.close()
    roster.remove(office, "school")
    assert Keys(office).members.read_bytes() != began
    assert isinstance(alliance.coordinator().run(), machine.Finished)
