"""The alliance's root is kept on a stick: what the coordinator's folder can do without it, and what it can't."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fl_alliance.cli import app
from fl_alliance.errors import BadConfig, StoreFailed
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.parties import join, roster, setup
from fl_alliance.parties.doctor import examine_coordinator
from fl_alliance.parties.door import open_to_members
from fl_alliance.parties.join_words import fingerprint_of
from fl_alliance.parties.setup import Keys, read_request
from fl_alliance.rounds import coordinator as machine
from tests.parties.conftest import Alliance
from tests.parties.joining import Office, files

AWAY = "root key: not in .*office, where this needs it: name its file with --root-key"


class Nobody:
    """A link that hears who the members are."""

    def update_members(self, nodes: object, revoked: object) -> None:
        pass


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    (tmp_path / "stick").mkdir()
    return tmp_path / "stick/root.key"


@pytest.fixture
def office(tmp_path: Path, stick: Path) -> Iterator[Office]:
    """The clinic has joined and waits for the admin."""
    office = Office(tmp_path, root_file=stick)
    with office.open():
        assert not office.join("clinic")
        yield office


def waiting(office: Office) -> setup.JoinRequest:
    return roster.require_waiting(office.home, "clinic", fingerprint=None)


def test_the_root_is_in_no_file_of_the_coordinators_folder(office: Office, stick: Path):
    secret = IdentityKey.load(stick)._key.private_bytes_raw()
    assert not Keys(office.home).root.exists()
    for data in files(office.home).values():
        assert secret not in data
        assert base64.b64encode(secret) not in data
        assert stick.read_bytes().splitlines()[1] not in data


def test_nobody_is_admitted_or_removed_without_the_root_and_nothing_changes(office: Office, stick: Path):
    before = files(office.home)
    request = (office.site("clinic") / "join-request.json").read_bytes()
    for act in (
        lambda: roster.admit(office.home, waiting(office)),
        lambda: roster.admit_file(office.home, request),
        lambda: roster.remove(office.home, "clinic"),
        lambda: roster.publish(office.home),
    ):
        with pytest.raises(BadConfig, match=AWAY):
            act()
        assert files(office.home) == before


def test_another_key_than_the_root_admits_nobody(office: Office, tmp_path: Path):
    """Whoever has the coordinator's folder has its identity key, and can make any other."""
    before, made = files(office.home), tmp_path / "made.key"
    IdentityKey.generate().save(made)
    for file in (made, Keys(office.home).identity):
        with pytest.raises(BadConfig, match=r"root key: .* holds sha256:.*, the alliance's root is sha256:"):
            roster.admit(office.home, waiting(office), root_file=file)
    with pytest.raises(StoreFailed, match=r"none\.key"):
        roster.admit(office.home, waiting(office), root_file=tmp_path / "none.key")
    assert files(office.home) == before


def test_with_the_root_members_come_and_without_it_they_renew_and_leave(office: Office, stick: Path):
    """Who left is heard no more at once; the list names it until the admin signs, and the doctor says so."""
    roster.admit(office.home, waiting(office), root_file=stick)
    assert office.members().serial == 1
    assert office.join("clinic")
    join.rotate(office.site("clinic"))
    assert office.members().serial == 1
    join.leave(office.site("clinic"))
    assert office.names() == []
    assert not roster.roster_of(office.home).nodes
    assert [member.name for member in office.members().members] == ["clinic", "coordinator"]
    assert "list of members" in [found.what for found in examine_coordinator(office.home)]
    assert roster.publish(office.home, root_file=stick) == 2
    assert [member.name for member in office.members().members] == ["coordinator"]
    assert "list of members" not in [found.what for found in examine_coordinator(office.home)]


def test_a_service_starts_without_the_root_also_where_the_list_is_behind(tmp_path: Path, stick: Path):
    office = Office(tmp_path, root_file=stick)
    with office.open():
        assert not office.join("clinic")
        roster.admit(office.home, waiting(office), root_file=stick)
        assert office.join("clinic")
        join.leave(office.site("clinic"))
    before = Keys(office.home).members.read_bytes()
    with open_to_members(office.home, Nobody()):
        assert Keys(office.home).members.read_bytes() == before


def test_a_job_runs_while_the_root_is_elsewhere(build: Callable[..., Alliance], tmp_path: Path):
    alliance = build(rounds=1)
    Keys(alliance.home("coordinator")).root.rename(tmp_path / "root.key")
    assert isinstance(alliance.coordinator().run(), machine.Finished)


def test_an_admin_types_where_the_root_is(tmp_path: Path, stick: Path):
    office, site = tmp_path / "hq", tmp_path / "clinic"
    told = setup.institution_init(site, name="clinic")
    assert told == read_request(Keys(site).request)

    def types(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output

    types("coordinator", "init", office, "--alliance", "north", "--root-key", stick)
    asks = Keys(site).request
    types("coordinator", "admit", office, "--file", asks, "--out", tmp_path / "m.json", "--root-key", stick)
    assert [fingerprint_of(request) for request in setup.admitted(office)] == [fingerprint_of(told)]
    assert "number 2" in " ".join(types("coordinator", "remove", office, "clinic", "--root-key", stick).split())
    assert "number 2" in " ".join(types("coordinator", "publish", office, "--root-key", stick).split())
    words = ["coordinator", "init", str(tmp_path / "b"), "--alliance", "b", "--root-key", str(stick)]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, StoreFailed)
    assert not (tmp_path / "b/keys/identity.key").exists()
