"""Joining with a code over TLS on loopback: who gets in, and who does not."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import pytest

from fl_alliance.errors import (
    BadConfig,
    BadInput,
    JoinCodeExpired,
    JoinCodeUsed,
    JoinCodeWrong,
    JoinRefused,
    RootsDiffer,
)
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.parties import join, pki, roster, setup
from fl_alliance.parties.config import InstitutionConfig, load
from fl_alliance.parties.join_words import (
    MAX_JOIN_BYTES,
    AllianceRoots,
    JoinCode,
    fingerprint_of,
    open_request,
    sign_request,
)
from fl_alliance.parties.setup import Keys, read_request
from fl_alliance.protocol.codec import encode
from fl_alliance.transport.door import CallLimit, SmallDoor
from fl_alliance.transport.flower.serving import Listener, bind
from fl_alliance.transport.flower.tls import TlsFiles
from tests.parties.joining import Office, files, free_port, offer_of

# ---- who gets in


def test_from_a_code_to_a_pinned_membership(office: Office) -> None:
    """The admin types invite and admit, the institution join; the fingerprint went by phone."""
    said: list[str] = []
    code = JoinCode.parse(office.invite("clinic").text)
    home = office.site("clinic")
    admin = threading.Thread(target=lambda: (asked.wait(20), office.admit("clinic")))
    asked = threading.Event()
    admin.start()

    def pause(_: float) -> None:
        asked.set()
        admin.join(20)

    assert join.join(home, code, tell=said.append, pause=pause)
    assert fingerprint_of(read_request(Keys(home).request)) in said[0]
    assert said[1] == "waiting for the admin: `coordinator admit`"
    keys, hq = Keys(home), Keys(office.home)
    assert keys.root_public.read_bytes() == hq.root_public.read_bytes()
    assert keys.tls_root.read_bytes() == hq.tls_root.read_bytes()
    assert pki.is_key_of(keys.tls_key.read_bytes(), keys.tls_certificate.read_bytes())
    assert {path.stat().st_mode & 0o777 for path in (home / "keys").iterdir() if path.suffix == ".key"} == {0o600}
    text = (home / "institution.toml").read_text()
    assert f'name = "clinic"\nalliance = "north"\ncoordinator = "127.0.0.1:{office.ports[0]}"\n' in text
    with pytest.raises(BadConfig, match=r"still to be filled in: data\.answer_column, data\.name, .*model_folder"):
        load(InstitutionConfig, home / "institution.toml")


def test_no_secret_of_a_code_is_on_the_coordinators_disk_or_in_a_printed_code(office: Office) -> None:
    code = office.invite("clinic")
    office.join("clinic", code)
    everything = b"".join(files(office.home).values())
    assert code.secret.encode() not in everything
    assert code.secret not in repr(code)
    assert b'"kind":"invitation"' in everything


def test_an_admitted_members_new_identity_counts_only_once_it_is_admitted(office: Office, tmp_path: Path) -> None:
    home = office.bring("clinic")
    old, serial = IdentityKey.load(Keys(home).identity).public_text, office.members().serial
    code = office.invite("clinic")
    assert not office.join("clinic", code, tmp_path / "new")
    assert office.members().member("clinic").identity == old
    assert roster.roster_of(office.home).revoked == frozenset()
    office.admit("clinic", tmp_path / "new")
    assert office.join("clinic", code, tmp_path / "new")
    now = office.members()
    assert (now.member("clinic").identity != old, now.serial) == (True, serial + 1)
    assert len(roster.roster_of(office.home).revoked) == 1
    with pytest.raises(JoinCodeUsed):  # the old keys do not come back by the newest code
        join.join(home, code, wait=False)


# ---- who does not


def test_a_replayed_join_code_is_refused(office: Office, tmp_path: Path) -> None:
    code = office.invite("clinic")
    office.join("clinic", code)
    for _ in range(2):  # before the admission and after it
        with pytest.raises(JoinCodeUsed, match="clinic was used with other keys"):
            office.join("clinic", code, tmp_path / "thief")
        assert [open_request(path.read_bytes()) for path in Keys(office.home).pending.iterdir()] in (
            [],
            [read_request(Keys(office.site("clinic")).request)],
        )
        if not office.names():
            office.admit("clinic")
    assert office.names() == ["clinic"]


def test_an_expired_code_is_refused_but_one_that_was_used_in_time_waits_for_the_admin(tmp_path: Path) -> None:
    office = Office(tmp_path)
    code, late = office.invite("clinic"), office.invite("school")
    with office.open():
        office.join("clinic", code)
    with office.open(now=lambda: time.time() + 8 * roster.DAY_SECONDS):
        with pytest.raises(JoinCodeExpired, match="the code for school expired"):
            office.join("school", late)
        office.admit("clinic")
        assert office.join("clinic", code)


@pytest.mark.parametrize("name", ["clinic", "nobody-invited-me"])
def test_a_wrong_secret_is_refused_in_the_same_words_for_names_that_exist_and_that_do_not(
    office: Office, name: str
) -> None:
    code = dataclasses.replace(office.invite("clinic"), name=name, secret="A" * 43)
    with pytest.raises(JoinCodeWrong, match=f"^no invitation for {name} has this secret: the newest code counts$"):
        office.join(name, code)
    assert not list(Keys(office.home).pending.glob("*"))


def test_an_earlier_code_of_the_same_name_is_refused(office: Office) -> None:
    first = office.invite("clinic")
    office.join("clinic", first)
    office.invite("clinic")
    with pytest.raises(JoinCodeWrong):
        office.join("clinic", first)
    with pytest.raises(BadInput, match="nobody waits as 'clinic'; waiting: nobody"):
        office.admit("clinic")


class Mallory:
    """A door with roots and a certificate of its own, which notes whatever is said to it."""

    def __init__(self, folder: Path, roots: AllianceRoots | None = None) -> None:
        self.heard: list[bytes] = []
        port = free_port()
        setup.coordinator_init(folder, alliance="north", host="127.0.0.1", port=port, join_port=port)
        keys = Keys(folder)
        shown = encode(roots or roster.roots_of(folder))
        app = SmallDoor(
            {("GET", "/join/roots"): lambda _: shown, ("POST", "/join/request"): self._hear},
            lambda error: str(error).encode(),
            longest=MAX_JOIN_BYTES,
            limit=CallLimit(),
        )
        tls = TlsFiles(ca=keys.tls_root, certificate=keys.tls_certificate, key=keys.tls_key)
        self.listener = Listener(bind("127.0.0.1", 0), app, tls=tls, lifespan=False, client_certificates=False)

    def _hear(self, body: bytes) -> bytes:
        self.heard.append(body)
        return b"{}"

    def diverted(self, code: JoinCode) -> JoinCode:
        return dataclasses.replace(code, port=self.listener.port)


@pytest.mark.parametrize(
    ("shows_the_right_roots", "said"),
    [(False, "shows roots sha256:.* nothing was sent"), (True, "its certificate is not by the alliance's root")],
    ids=["own roots", "the alliance's roots, own certificate"],
)
def test_a_man_in_the_middle_hears_no_secret(
    office: Office, tmp_path: Path, shows_the_right_roots: bool, said: str
) -> None:
    mallory = Mallory(tmp_path / "mallory", roster.roots_of(office.home) if shows_the_right_roots else None)
    try:
        with pytest.raises(RootsDiffer, match=said):
            office.join("clinic", mallory.diverted(office.invite("clinic")))
        assert mallory.heard == []
        assert not (office.site("clinic") / "institution.toml").exists()
    finally:
        mallory.listener.close()


def test_a_code_of_another_alliance_is_refused_by_the_roots(office: Office, tmp_path: Path) -> None:
    other = Office(tmp_path / "other")
    code = dataclasses.replace(other.invite("clinic"), port=office.ports[1])
    with pytest.raises(RootsDiffer, match="the code is another alliance's"):
        office.join("clinic", code)


def test_another_fingerprint_than_the_one_told_by_phone_is_not_admitted(office: Office) -> None:
    office.join("clinic")
    with pytest.raises(BadInput, match="do not admit it"):
        roster.require_waiting(office.home, "clinic", fingerprint="sha256:" + "0" * 64)


def test_a_request_that_changed_while_the_admin_was_at_the_phone_is_not_admitted(
    office: Office, tmp_path: Path
) -> None:
    office.join("clinic")
    seen = roster.require_waiting(office.home, "clinic", fingerprint=None)
    office.join("clinic", office.invite("clinic"), tmp_path / "other")
    with pytest.raises(BadInput, match="has changed"):
        roster.admit(office.home, seen)
    assert office.names() == []


def swapped(office: Office, **fields: str) -> None:
    """Let the clinic ask with some of its keys another's, well signed."""
    keys = Keys(office.site("clinic"))
    setup.institution_init(office.site("clinic"), name="clinic")
    request = read_request(keys.request).model_copy(update=fields)
    keys.request.write_bytes(sign_request(IdentityKey.load(keys.identity), request))
    office.join("clinic")


def test_a_node_with_anothers_key_is_not_taken(office: Office) -> None:
    school = read_request(Keys(office.bring("school")).request)
    with pytest.raises(JoinRefused, match="BadInput: node_key: clinic has the node key of school"):
        swapped(office, node_key=school.node_key + " a comment")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("node_key", "ssh-ed25519 AAAA", "BadInput: node key: must be an OpenSSH EC P-384 public key"),
        ("tls_request", "none", "BadInput: signing request of clinic"),
        ("name", "school", "NotAuthentic: the request is by school, the code is for clinic"),
    ],
)
def test_keys_that_nobody_could_use_are_not_taken(office: Office, field: str, value: str, said: str) -> None:
    with pytest.raises((JoinRefused, BadConfig), match=said if field != "name" else "holds the keys of school"):
        swapped(office, **{field: value})
    assert not list(Keys(office.home).pending.glob("*"))


def test_a_request_signed_by_another_key_than_its_own_is_refused(office: Office) -> None:
    code = office.invite("clinic")
    setup.institution_init(office.site("clinic"), name="clinic")
    request = read_request(Keys(office.site("clinic")).request)
    forged = sign_request(IdentityKey.generate(), request)
    Keys(office.site("clinic")).request.write_bytes(forged)
    with pytest.raises(BadConfig, match="is none"):
        office.join("clinic", code)
    with join.Door(office.address, roster.roots_of(office.home).tls_root) as door:
        offer = offer_of(office.site("clinic"), code)
        with pytest.raises(JoinRefused, match=r"^NotAuthentic: signed with key"):
            door.ask("/join/request", encode(offer))


def test_the_folder_of_another_institution_is_left_alone(office: Office) -> None:
    home = office.bring("clinic")
    before = files(home)
    with pytest.raises(BadConfig, match="holds the keys of clinic, the code is for school"):
        office.join("school", home=home)
    assert files(home) == before
