"""What travels when an institution joins, renews its keys or leaves; and the join code, which travels on paper.

A join code holds what a stranger needs to know a door, and the door to know the stranger: the address, the fingerprint
of both roots of the alliance, and a secret for one use (kubeadm's join token and `discovery-token-ca-cert-hash` are
the model; here nobody is let in by the secret alone, see docs/decisions/0017-join-code.md).
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import Field

from fl_alliance.errors import BadInput, NotAuthentic
from fl_alliance.evidence.keys import IdentityKey, public_key_of
from fl_alliance.evidence.sign import open_message, read_envelope, sign_message
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.ids import Base64, Digest, Name, UnixTime, digest_of
from fl_alliance.protocol.limits import MAX_NAME
from fl_alliance.protocol.model import Wire

JOIN_REQUEST_TYPE: Final = "application/vnd.fl-alliance.join-request+json"
LEAVE_NOTICE_TYPE: Final = "application/vnd.fl-alliance.leave-notice+json"
MAX_JOIN_BYTES: Final = 16 << 10
"""Bytes of anything that is said at the join door, in either direction."""

Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}:[0-9]{1,5}$")]
"""host:port."""
Pem = Annotated[str, Field(max_length=4000)]
Secret = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
"""32 random bytes in base64url."""

_CODE = re.compile(
    rf"fla1~(?P<name>[a-z0-9-]{{1,{MAX_NAME}}})~(?P<host>[A-Za-z0-9.-]{{1,253}})~(?P<port>[0-9]{{1,5}})"
    r"~(?P<roots>[A-Za-z0-9_-]{43})~(?P<secret>[A-Za-z0-9_-]{43})"
)


class AllianceRoots(Wire):
    """The alliance by name and by both its roots. Believe it only once its fingerprint was compared."""

    kind: Literal["alliance-roots"] = "alliance-roots"
    version: Literal[1] = 1
    alliance: Name
    root: Base64
    """Raw Ed25519 public key that signs the lists of members."""
    tls_root: Pem
    """Certificate that signs TLS certificates."""

    @property
    def fingerprint(self) -> str:
        """Digest of these very bytes: of the name and of both roots."""
        return digest_of(encode(self))


@dataclass(frozen=True, kw_only=True)
class JoinCode:
    """One line for one institution, made of characters that any mail or chat leaves alone."""

    name: str
    host: str
    port: int
    roots: str
    """`AllianceRoots.fingerprint`."""
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """`fla1~NAME~HOST~PORT~ROOTS~SECRET`: the last two are 32 bytes each in base64url."""
        roots = base64.urlsafe_b64encode(bytes.fromhex(self.roots.removeprefix("sha256:"))).decode().rstrip("=")
        return f"fla1~{self.name}~{self.host}~{self.port}~{roots}~{self.secret}"

    @classmethod
    def parse(cls, text: str) -> JoinCode:
        """Return the code that `text` is; white space around it is no part of it.

        Raises:
            BadInput: it is none. The text never holds the secret.
        """
        found = _CODE.fullmatch(text.strip())
        if found is None:
            raise BadInput("join code: not one, must be fla1~NAME~HOST~PORT~ROOTS~SECRET, whole and on one line")
        roots = base64.urlsafe_b64decode(found["roots"] + "=")
        return cls(
            name=found["name"],
            host=found["host"],
            port=int(found["port"]),
            roots=f"sha256:{roots.hex()}",
            secret=found["secret"],
        )


class JoinRequest(Wire):
    """Public halves of an institution's keys. Its identity key signs it, so that key's fingerprint vouches for all."""

    kind: Literal["join-request"] = "join-request"
    version: Literal[1] = 1
    name: Name
    number: Annotated[int, Field(ge=1, le=2**40)] = 1
    """Grows when the institution renews its TLS and node keys: an earlier request is not taken again."""
    identity: Base64
    node_key: Annotated[str, Field(max_length=1000)]
    tls_request: Pem


class Membership(Wire):
    """What an institution pins: the alliance's roots and its own certificate."""

    kind: Literal["membership"] = "membership"
    version: Literal[1] = 1
    alliance: Name
    name: Name
    root: Base64
    tls_root: Pem
    tls_certificate: Pem


class JoinOffer(Wire):
    """A stranger with a join code asks to be admitted."""

    kind: Literal["join-offer"] = "join-offer"
    version: Literal[1] = 1
    name: Name
    secret: Secret
    request: Base64
    """The signed `JoinRequest`."""


class JoinAnswer(Wire):
    """What the door says to who may ask."""

    kind: Literal["join-answer"] = "join-answer"
    version: Literal[1] = 1
    name: Name
    coordinator: Address
    """Where the institution will call."""
    membership: Membership | None
    """None: the admin has not admitted it yet."""


class JoinRefusal(Wire):
    """What the door says to who may not: the name of one of our errors, and why."""

    kind: Literal["join-refusal"] = "join-refusal"
    version: Literal[1] = 1
    error: Annotated[str, Field(pattern=r"^[A-Za-z]{1,40}$")]
    reason: Annotated[str, Field(max_length=400)]


class LeaveNotice(Wire):
    """A member ends its membership."""

    kind: Literal["leave-notice"] = "leave-notice"
    version: Literal[1] = 1
    alliance: Name
    name: Name
    number: Annotated[int, Field(ge=1, le=2**40)]
    """Of the `JoinRequest` by which it is a member: the notice ends no later membership."""


class Invitation(Wire):
    """What the coordinator keeps of a join code: nothing by which the code could be written again."""

    kind: Literal["invitation"] = "invitation"
    version: Literal[1] = 1
    name: Name
    secret: Digest
    """SHA-256 of the secret, which is 32 random bytes: no dictionary helps."""
    expires: UnixTime
    request: Digest | None
    """Of the signed request that used the code; None: not used yet."""


def sign_request(key: IdentityKey, request: JoinRequest) -> bytes:
    """Return the envelope of `request`."""
    return sign_message(key, JOIN_REQUEST_TYPE, encode(request))


def open_request(envelope: bytes) -> JoinRequest:
    """Return the request in `envelope`, which must be signed with the very identity key that it names.

    Raises:
        MalformedMessage, NotAuthentic: it is none, or not so signed.
    """
    claimed = decode(JoinRequest, read_envelope(envelope).body)
    public = public_key_of(claimed.identity)
    return decode(JoinRequest, open_message(envelope, expected_label=JOIN_REQUEST_TYPE, public_key=public))


def sign_notice(key: IdentityKey, notice: LeaveNotice) -> bytes:
    """Return the envelope of `notice`."""
    return sign_message(key, LEAVE_NOTICE_TYPE, encode(notice))


def open_notice(envelope: bytes, expected: LeaveNotice, member: JoinRequest) -> None:
    """Return if `envelope` holds the `expected` notice, signed with the identity key of `member`.

    Raises:
        MalformedMessage, NotAuthentic: it is none, is signed with another key, or is about another membership.
    """
    payload = open_message(envelope, expected_label=LEAVE_NOTICE_TYPE, public_key=public_key_of(member.identity))
    if (notice := decode(LeaveNotice, payload)) != expected:
        raise NotAuthentic(f"the notice is about {notice.alliance}, {notice.name}, {notice.number}: not {expected}")


def fingerprint_of(request: JoinRequest) -> str:
    """Return the fingerprint of an institution's identity key: what its partners write into their policies."""
    return digest_of(public_key_of(request.identity))
