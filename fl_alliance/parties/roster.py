"""Who belongs: the coordinator invites, hears requests, admits, renews and strikes off. Files of its folder only.

    invitations/NAME.json           what is kept of a join code
    pending/NAME.json               the signed request that used it, until the admin admits it
    members/NAME.json               the signed request by which NAME is a member; this file is the membership
    certificates/NAME.SERIAL.pem    each client certificate, written before it is handed out
    members.dsse.json               the list that follows from members/, signed by the root

A certificate counts while its key is that of the request in `members/NAME.json`: whoever is struck off, or has renewed
its keys, is refused with the old one. So the file of the member decides alone, and every change of it is one rename or
one unlink; what else there is follows from it, and is made again by the same command after a crash.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from pydantic import TypeAdapter, ValidationError

from fl_alliance.errors import (
    BadInput,
    JoinCodeExpired,
    JoinCodeUsed,
    JoinCodeWrong,
    NotAMember,
    NotAuthentic,
)
from fl_alliance.evidence.keys import AllianceRoot, public_key_of
from fl_alliance.evidence.sign import peek_document, read_envelope
from fl_alliance.parties import pki
from fl_alliance.parties.config import CoordinatorConfig, load
from fl_alliance.parties.files import one_writer, read_file, write_atomically
from fl_alliance.parties.join_words import (
    AllianceRoots,
    Invitation,
    JoinAnswer,
    JoinCode,
    JoinOffer,
    JoinRequest,
    LeaveNotice,
    Membership,
    fingerprint_of,
    open_notice,
    open_request,
)
from fl_alliance.parties.setup import (
    COORDINATOR,
    Keys,
    admitted,
    alliance_of,
    publish_members,
    read_request,
    root_is_away,
    root_key,
)
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import AllianceMembers
from fl_alliance.protocol.ids import Name, digest_of

DAY_SECONDS: Final = 24 * 3600
_NOBODY: Final = digest_of(b"")
"""Compared with where there is no invitation, so that both take the same time."""


@dataclass(frozen=True)
class Roster:
    """What the transport has to know of the members."""

    nodes: Mapping[str, bytes]
    """Name to OpenSSH public key of its Flower node."""
    revoked: frozenset[int]
    """Serial numbers of certificates that no longer count."""


def roots_of(home: Path) -> AllianceRoots:
    """Return the alliance's roots, as the door shows them."""
    keys = Keys(home)
    return AllianceRoots(
        alliance=alliance_of(home),
        root=decode(AllianceRoot, read_file(keys.root_public, "alliance root")).key,
        tls_root=read_file(keys.tls_root, "TLS root certificate").decode(),
    )


def roster_of(home: Path) -> Roster:
    """Return who is a member now, and which certificates do not count."""
    members = {request.name: request for request in admitted(home)}
    revoked = {
        certificate.serial_number
        for name, certificate in _certificates(home, "*")
        if name not in members or not pki.is_answer_to(certificate, members[name].tls_request)
    }
    return Roster({name: r.node_key.encode() for name, r in members.items()}, frozenset(revoked))


# ---- invited


def invite(home: Path, name: str, *, now: int, days: int = 7) -> JoinCode:
    """Make a join code for `name` and forget an earlier one. Whoever is a member under this name stays it until then.

    `now` is in Unix seconds. A code that was used in time waits for the admin for as long as it takes.

    Raises:
        BadInput: `name` can't be an institution's, or the coordinator's host is not one that a code can hold.
    """
    _require_name(name)
    config = load(CoordinatorConfig, home / "coordinator.toml")
    code = JoinCode(
        name=name,
        host=config.host,
        port=config.door_port,
        roots=roots_of(home).fingerprint,
        secret=secrets.token_urlsafe(32),
    )
    if JoinCode.parse(code.text) != code:
        raise BadInput(f"host: {config.host!r} in coordinator.toml, a join code holds a DNS name or an IPv4 address")
    kept = Invitation(name=name, secret=_digest(code.secret), expires=now + days * DAY_SECONDS, request=None)
    with one_writer(home):
        write_atomically(_file(Keys(home).invitations, name), encode(kept))
        _file(Keys(home).pending, name).unlink(missing_ok=True)
    return code


def hear(home: Path, offer: JoinOffer, *, now: int) -> JoinAnswer:
    """Take the request of an invited stranger; with the same request again, say how it stands.

    Raises:
        JoinCodeWrong, JoinCodeExpired, JoinCodeUsed: the code does not open the door.
        BadInput, MalformedMessage, NotAuthentic: the request can't be admitted as it is.
    """
    envelope = base64.b64decode(offer.request)
    with one_writer(home):
        invitation = _invitation(home, offer, digest_of(envelope), now)
        request = open_request(envelope)
        if request.name != offer.name:
            raise NotAuthentic(f"the request is by {request.name}, the code is for {offer.name}")
        member = _file(Keys(home).requests, offer.name)
        if member.exists() and member.read_bytes() == envelope:
            return _answer(home, request, admitted=True)
        _require_usable(home, request)
        write_atomically(_file(Keys(home).pending, offer.name), envelope)
        write_atomically(
            _file(Keys(home).invitations, offer.name),
            encode(invitation.model_copy(update={"request": digest_of(envelope)})),
        )
        return _answer(home, request, admitted=False)


def _invitation(home: Path, offer: JoinOffer, request: str, now: int) -> Invitation:
    path = _file(Keys(home).invitations, offer.name)
    invitation = decode(Invitation, path.read_bytes()) if path.exists() else None
    if not hmac.compare_digest(_digest(offer.secret), invitation.secret if invitation else _NOBODY) or not invitation:
        raise JoinCodeWrong(f"no invitation for {offer.name} has this secret: the newest code counts")
    if invitation.request not in (None, request):
        raise JoinCodeUsed(f"the code for {offer.name} was used with other keys: ask the admin for a new one")
    if invitation.request is None and now > invitation.expires:
        raise JoinCodeExpired(f"the code for {offer.name} expired {now - invitation.expires} s ago: ask for a new one")
    return invitation


# ---- admitted


def waiting(home: Path) -> list[JoinRequest]:
    """Return the requests that wait for the admin, by name."""
    return [read_request(path) for path in sorted(Keys(home).pending.glob("*.json"))]


def require_waiting(home: Path, name: str, *, fingerprint: str | None) -> JoinRequest:
    """Return the request of `name`, if it is the one with this fingerprint (None: any).

    Raises:
        BadInput: nobody waits under this name, or the fingerprint is another.
    """
    path = _file(Keys(home).pending, name)
    if not path.exists():
        raise BadInput(
            f"name: nobody waits as {name!r}; waiting: {', '.join(r.name for r in waiting(home)) or 'nobody'}"
        )
    request = read_request(path)
    if fingerprint not in (None, fingerprint_of(request)):
        raise BadInput(f"fingerprint: {name} asks with {fingerprint_of(request)}, not {fingerprint}: do not admit it")
    return request


def admit(home: Path, request: JoinRequest, *, root_file: Path | None = None) -> None:
    """Admit the waiting `request`, whose fingerprint was compared. Keys that the name had before end here.

    `root_file` holds the alliance's root; None: it is in the folder.

    Raises:
        BadInput: another request waits by now, or it can't be admitted as it is.
        BadConfig, StoreFailed: the root is not at hand. Nothing has changed.
    """
    keys, root = Keys(home), root_key(home, root_file)
    with one_writer(home):
        pending, invitation = _file(keys.pending, request.name), _file(keys.invitations, request.name)
        envelope = read_file(pending, "request")
        if open_request(envelope) != request or _used_by(invitation) != digest_of(envelope):
            raise BadInput(f"name: the request of {request.name} has changed, look at its fingerprint again")
        _admit(home, envelope, request)
        publish_members(home, root)
        pending.unlink()


def admit_file(home: Path, envelope: bytes, *, root_file: Path | None = None) -> Membership:
    """Admit a request that came as a file, or new keys of a member; return what it has to install.

    `root_file` holds the alliance's root; None: it is in the folder.

    Raises:
        BadInput: another institution has the name, or the request can't be admitted as it is.
        MalformedMessage, NotAuthentic: it is no signed request.
        BadConfig, StoreFailed: the root is not at hand. Nothing has changed.
    """
    request, root = open_request(envelope), root_key(home, root_file)
    with one_writer(home):
        path = _file(Keys(home).requests, request.name)
        if path.exists():
            _require_renewal(read_request(path), request)
        _admit(home, envelope, request)
        publish_members(home, root)
        return _membership(home, request)


def renew(home: Path, envelope: bytes) -> JoinAnswer:
    """Give a member that asks with its identity key a certificate for its new keys; the old ones end here.

    The list names identities, which stay: it needs no new signature.

    Raises:
        NotAMember: it is not a member under this key, or has renewed its keys since.
        BadInput, MalformedMessage, NotAuthentic: the request can't be taken as it is.
    """
    request = open_request(envelope)
    with one_writer(home):
        path = _file(Keys(home).requests, request.name)
        if not path.exists():
            raise NotAMember(f"{request.name} is no member of this alliance")
        try:
            _require_renewal(read_request(path), request)
        except BadInput as error:
            raise NotAMember(str(error)) from None
        _admit(home, envelope, request)
        return _answer(home, request, admitted=True)


def _require_renewal(member: JoinRequest, request: JoinRequest) -> None:
    if member.identity != request.identity:
        raise BadInput(f"name: {request.name!r} is already a member with other keys")
    if request.number < member.number or (request.number == member.number and request != member):
        raise BadInput(f"number: request {request.number} of {request.name}, its membership is by {member.number}")


def _admit(home: Path, envelope: bytes, request: JoinRequest) -> None:
    """Sign and keep the certificate, then the member; the list follows: so a crash leaves nobody half in."""
    _require_usable(home, request)
    keys = Keys(home)
    root_key = pki.load_key(read_file(keys.tls_root_key, "TLS root key"))
    root = x509.load_pem_x509_certificate(read_file(keys.tls_root, "TLS root certificate"))
    certificate = pki.client_certificate(root_key, root, request.tls_request.encode(), request.name)
    _put_heads_aside(home, request)
    path = keys.certificates / f"{request.name}.{certificate.serial_number:040x}.pem"
    write_atomically(path, pki.certificate_pem(certificate))
    write_atomically(_file(keys.requests, request.name), envelope)


def _require_usable(home: Path, request: JoinRequest) -> None:
    """Refuse keys that would be found wrong by everybody at the next job, or that are another member's."""
    _require_name(request.name)
    public_key_of(request.identity)
    pki.require_node_key(request.node_key)
    pki.require_signing_request(request.tls_request.encode(), request.name)
    for other in admitted(home):
        if other.name == request.name:
            continue
        if other.identity == request.identity:
            raise BadInput(f"identity: {request.name} has the identity key of {other.name}")
        if other.node_key.split()[:2] == request.node_key.split()[:2]:
            raise BadInput(f"node_key: {request.name} has the node key of {other.name}")


def _put_heads_aside(home: Path, request: JoinRequest) -> None:
    """A ledger head that an earlier identity signed means nothing to the new one, which would refuse every job."""
    path = home / "heads" / f"{request.name}.json"
    if path.exists() and (key := read_envelope(path.read_bytes()).signatures[0].keyid) != fingerprint_of(request):
        path.rename(path.with_name(f"{request.name}.{key.removeprefix('sha256:')}.former"))


# ---- struck off


def remove(home: Path, name: str, *, root_file: Path | None = None) -> int:
    """Strike `name` off: list, node key and certificates. Return the new list's serial.

    `root_file` holds the alliance's root; None: it is in the folder.

    Raises:
        BadInput: there is no such member.
        BadConfig, StoreFailed: the root is not at hand. Nothing has changed.
    """
    root = root_key(home, root_file)
    with one_writer(home):
        members = [request.name for request in admitted(home)]
        if name not in members and name not in _listed(home):
            raise BadInput(f"name: {name!r} is no member; members: {', '.join(members) or 'nobody'}")
        _strike_off(home, name)
        return _list_in(publish_members(home, root)).serial


def leave(home: Path, envelope: bytes) -> JoinAnswer:
    """Strike off a member that asks for it with its identity key.

    It is heard no more at once. Where the root is kept elsewhere, the list names it until the admin signs a new one.

    Raises:
        NotAMember: it is none.
        MalformedMessage, NotAuthentic: this member did not sign that it leaves.
    """
    notice = decode(LeaveNotice, read_envelope(envelope).body)
    with one_writer(home):
        path = _file(Keys(home).requests, notice.name)
        if not path.exists():
            raise NotAMember(f"{notice.name} is no member of this alliance")
        member = read_request(path)
        open_notice(envelope, LeaveNotice(alliance=alliance_of(home), name=member.name, number=member.number), member)
        _strike_off(home, notice.name)
        publish_where_root_is(home)
        return _answer(home, member, admitted=False)


def _strike_off(home: Path, name: str) -> None:
    keys = Keys(home)
    for folder in (keys.invitations, keys.pending, keys.requests):
        _file(folder, name).unlink(missing_ok=True)


def publish(home: Path, *, root_file: Path | None = None) -> int:
    """Sign the list of members if it is behind them; return its serial (BadConfig, StoreFailed: no root at hand)."""
    root = root_key(home, root_file)
    with one_writer(home):
        return _list_in(publish_members(home, root)).serial


def publish_where_root_is(home: Path) -> None:
    """Sign the list of members if it is behind them and the root is in the folder."""
    if not root_is_away(home):
        publish_members(home)


def _listed(home: Path) -> list[str]:
    """Who is in the list as it was published last: a command that was killed may have left it behind."""
    path = Keys(home).members
    return [member.name for member in _list_in(path.read_bytes()).members] if path.exists() else []


def _list_in(envelope: bytes) -> AllianceMembers:
    return peek_document(envelope, AllianceMembers)


# ---- answers


def _answer(home: Path, request: JoinRequest, *, admitted: bool) -> JoinAnswer:
    config = load(CoordinatorConfig, home / "coordinator.toml")
    return JoinAnswer(
        name=request.name,
        coordinator=f"{config.host}:{config.port}",
        membership=_membership(home, request) if admitted else None,
    )


def _membership(home: Path, request: JoinRequest) -> Membership:
    """Return what a member installs, with the certificate for its keys that lasts longest."""
    mine = [c for _, c in _certificates(home, request.name) if pki.is_answer_to(c, request.tls_request)]
    roots = roots_of(home)
    return Membership(
        alliance=roots.alliance,
        name=request.name,
        root=roots.root,
        tls_root=roots.tls_root,
        tls_certificate=pki.certificate_pem(max(mine, key=lambda c: c.not_valid_after_utc)).decode(),
    )


def _certificates(home: Path, name: str) -> Iterator[tuple[str, x509.Certificate]]:
    for path in sorted(Keys(home).certificates.glob(f"{name}.*.pem")):
        yield path.name.split(".")[0], x509.load_pem_x509_certificate(path.read_bytes())


def _used_by(invitation: Path) -> str | None:
    return decode(Invitation, read_file(invitation, "invitation")).request


def _require_name(name: str) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise BadInput(f"name: {name!r} must be lower-case letters, digits and inner hyphens, at most 63") from None
    if name == COORDINATOR:
        raise BadInput(f"name: {name!r} is the coordinator's own name, the institution must choose another")


def _digest(secret: str) -> str:
    return digest_of(secret.encode())


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"
