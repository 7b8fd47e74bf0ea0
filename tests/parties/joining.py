"""A coordinator whose join door is open on loopback, and what an admin and an institution do at it."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fl_alliance.parties import join, roster, setup
from fl_alliance.parties.door import JoinDoor
from fl_alliance.parties.join_words import JoinCode, JoinOffer, Membership, fingerprint_of
from fl_alliance.parties.setup import Keys, read_request
from fl_alliance.protocol.documents import AllianceMembers


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@dataclass
class Office:
    """A coordinator's folder, and the institutions' beside it."""

    folder: Path
    ports: tuple[int, int] = field(default_factory=lambda: (free_port(), free_port()))
    root_file: Path | None = None

    def __post_init__(self) -> None:
        port, door = self.ports
        setup.coordinator_init(
            self.home, alliance="north", host="127.0.0.1", port=port, join_port=door, root_file=self.root_file
        )

    @property
    def home(self) -> Path:
        return self.folder / "office"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports[1]}"

    def site(self, name: str) -> Path:
        return self.folder / name

    def open(self, **settings: Callable[..., object]) -> JoinDoor:
        return JoinDoor(self.home, **settings)  # type: ignore[arg-type]

    def invite(self, name: str) -> JoinCode:
        return roster.invite(self.home, name, now=int(time.time()))

    def admit(self, name: str, home: Path | None = None) -> None:
        """As the admin does it, with the fingerprint that the institution told by phone."""
        told = fingerprint_of(read_request(Keys(home or self.site(name)).request))
        roster.admit(self.home, roster.require_waiting(self.home, name, fingerprint=told))

    def join(self, name: str, code: JoinCode | None = None, home: Path | None = None) -> bool:
        """Ask once; return whether the membership is pinned."""
        return join.join(home or self.site(name), code or self.invite(name), wait=False)

    def bring(self, name: str) -> Path:
        """Join `name` from nothing to the end, the door being open."""
        code = self.invite(name)
        assert not self.join(name, code)
        self.admit(name)
        assert self.join(name, code)
        return self.site(name)

    def members(self) -> AllianceMembers:
        return roster._list_in(Keys(self.home).members.read_bytes())

    def names(self) -> list[str]:
        return [request.name for request in setup.admitted(self.home)]


def offer_of(home: Path, code: JoinCode) -> JoinOffer:
    """The offer that `institution join` would send from `home`."""
    request = base64.b64encode(Keys(home).request.read_bytes()).decode()
    return JoinOffer(name=code.name, secret=code.secret, request=request)


def files(home: Path) -> dict[str, bytes]:
    """Every file below `home` but the locks."""
    return {
        path.relative_to(home).as_posix(): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and path.name not in ("lock", "writer")
    }


def pinned(home: Path, member: Membership) -> bool:
    keys = Keys(home)
    return keys.tls_certificate.read_bytes() == member.tls_certificate.encode()
