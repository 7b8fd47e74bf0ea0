"""Killed at each of its writes, a command that is run again ends where it would have ended."""

from __future__ import annotations

import contextlib
import copy
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.parties import join, pki, roster
from fl_alliance.parties.join_words import JoinAnswer, JoinOffer
from fl_alliance.parties.setup import Keys
from fl_alliance.protocol.codec import decode
from tests.killed import Killed
from tests.parties.joining import Office


@dataclass
class Death:
    """Counts what changes a folder (rename, unlink, a key's link) and kills at one of them: before it, or after it."""

    at: int
    late: bool
    done: int = 0

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for owner, name in ((Path, "replace"), (Path, "rename"), (Path, "unlink"), (IdentityKey, "save")):
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name), name))

    def _wrapped(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(first: Any, *given: Any, **named: Any) -> Any:
            if name == "unlink" and (first.name.startswith(".") or not first.exists()):
                return original(first, *given, **named)  # the cleaning up of another write
            self.done += 1
            if self.done == self.at and not self.late:
                raise Killed
            result = original(first, *given, **named)
            if self.done == self.at:
                raise Killed
            return result

        return call


class Direct:
    """Stands for `join.Door`: both sides are in this thread, so that the coordinator dies at its writes too."""

    office: Office

    def __init__(self, address: str, root: str | None) -> None:
        pass

    def __enter__(self) -> Direct:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def roots(self) -> Any:
        return roster.roots_of(self.office.home)

    def ask(self, path: str, body: bytes) -> JoinAnswer:
        if path == "/join/request":
            return roster.hear(self.office.home, decode(JoinOffer, body), now=int(time.time()))
        return {"/join/renew": roster.renew, "/join/leave": roster.leave}[path](self.office.home, body)


def killed_everywhere(
    template: Office, place: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Office], None], *, late: bool
) -> list[Office]:
    """Run `act` in a copy of `template` killed at its first write, then again; in another at its second; and so on.

    The last one was not killed.
    """
    found: list[Office] = []
    while True:
        office = copy.copy(template)
        office.folder = place / f"killed-{len(found)}"
        shutil.copytree(template.folder, office.folder)
        monkeypatch.setattr(Direct, "office", office, raising=False)
        monkeypatch.setattr(join, "Door", Direct)
        death = Death(len(found) + 1, late)
        found.append(office)
        with monkeypatch.context() as patch:
            death.patch(patch)
            with contextlib.suppress(Killed):
                act(office)
        act(office)
        if death.done < death.at:
            return found


LATE = pytest.mark.parametrize("late", [False, True], ids=["before the write", "after the write"])


@LATE
def test_a_join_killed_at_each_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    template = Office(tmp_path / "template")
    code = template.invite("clinic")

    def act(office: Office) -> None:
        if "clinic" not in office.names() or list(Keys(office.home).pending.glob("*")):
            office.join("clinic", code)
            if list(Keys(office.home).pending.glob("*")):
                office.admit("clinic")
        assert office.join("clinic", code)

    offices = killed_everywhere(template, tmp_path, monkeypatch, act, late=late)
    assert len(offices) > 14
    for office in offices:
        keys = Keys(office.site("clinic"))
        assert office.names() == ["clinic"]
        assert office.members().member("clinic").identity == IdentityKey.load(keys.identity).public_text
        assert_usable(office, keys)


@LATE
def test_a_rotation_killed_at_each_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    template = Office(tmp_path / "template")
    with template.open():
        template.bring("clinic")
    before = Keys(template.site("clinic")).tls_key.read_bytes()
    offices = killed_everywhere(
        template, tmp_path, monkeypatch, lambda office: void(join.rotate(office.site("clinic"))), late=late
    )
    assert len(offices) > 10
    for office in offices:
        keys = Keys(office.site("clinic"))
        assert not list(keys.next.home.rglob("*.json"))
        assert keys.tls_key.read_bytes() != before
        assert_usable(office, keys)


@LATE
def test_a_removal_killed_at_each_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    template = Office(tmp_path / "template")
    with template.open():
        template.bring("clinic")
        template.bring("school")

    def act(office: Office) -> None:
        if "clinic" in [member.name for member in office.members().members]:
            roster.remove(office.home, "clinic")

    for office in killed_everywhere(template, tmp_path, monkeypatch, act, late=late):
        assert office.names() == ["school"]
        assert [member.name for member in office.members().members] == ["coordinator", "school"]
        assert len(roster.roster_of(office.home).revoked) == 1


def assert_usable(office: Office, keys: Keys) -> None:
    """The pinned certificate is of the own key, and the coordinator takes it with the node key that is here."""
    member = roster.roster_of(office.home)
    certificate = keys.tls_certificate.read_bytes()
    assert pki.is_key_of(keys.tls_key.read_bytes(), certificate)
    assert serial_of(certificate) not in member.revoked
    assert member.nodes["clinic"].split()[:2] == public_half(keys.node_key).split()[:2]
    assert not list(office.folder.rglob(".new-*"))


def serial_of(certificate: bytes) -> int:
    return x509.load_pem_x509_certificate(certificate).serial_number


def public_half(node_key: Path) -> bytes:
    key = serialization.load_ssh_private_key(node_key.read_bytes(), None)
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)


def void(_: object) -> None:
    pass
