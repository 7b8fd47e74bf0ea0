"""Make the folders of the parties: keys on site, certificates and membership from the coordinator.

    coordinator_init   root of the alliance (documents and TLS), the coordinator's keys
    institution_init   every key of an institution, on site; prints a request with public halves only
    coordinator_admit  signs the request: a membership file for that institution
    institution_install  pins what the membership file says, after the fingerprints were compared by phone
    publish_members    the signed list of members that every proposal carries

Private keys never leave the folder in which they were made, and have mode 0600.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field

from fl_alliance.errors import BadConfig, BadInput
from fl_alliance.evidence.keys import AllianceRoot, IdentityKey, public_key_of
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties import pki
from fl_alliance.parties.config import CoordinatorConfig, load
from fl_alliance.parties.files import read_file, write_atomically
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import AllianceMember, AllianceMembers
from fl_alliance.protocol.ids import Base64, Name, digest_of
from fl_alliance.protocol.model import Wire

COORDINATOR = "coordinator"
"""The coordinator's name in labels and in the list of members; no institution may have it."""


class JoinRequest(Wire):
    """Public halves of an institution's keys."""

    kind: Literal["join-request"] = "join-request"
    version: Literal[1] = 1
    name: Name
    identity: Base64
    node_key: Annotated[str, Field(max_length=1000)]
    tls_request: Annotated[str, Field(max_length=4000)]


class Membership(Wire):
    """What an institution pins: the alliance's roots and its own certificate."""

    kind: Literal["membership"] = "membership"
    version: Literal[1] = 1
    alliance: Name
    name: Name
    root: Base64
    tls_root: Annotated[str, Field(max_length=4000)]
    tls_certificate: Annotated[str, Field(max_length=4000)]


@dataclass(frozen=True)
class Keys:
    """File names inside a party's folder."""

    home: Path

    @property
    def identity(self) -> Path:
        """Ed25519 identity key."""
        return self.home / "keys" / "identity.key"

    @property
    def root(self) -> Path:
        """Ed25519 key that signs the list of members (the admin's)."""
        return self.home / "keys" / "alliance-root.key"

    @property
    def tls_root_key(self) -> Path:
        """Key of the TLS root (the admin's)."""
        return self.home / "keys" / "tls-root.key"

    @property
    def tls_root(self) -> Path:
        """Certificate of the TLS root."""
        return self.home / "keys" / "tls-root.pem"

    @property
    def tls_key(self) -> Path:
        """Own TLS key."""
        return self.home / "keys" / "tls.key"

    @property
    def tls_certificate(self) -> Path:
        """Own TLS certificate."""
        return self.home / "keys" / "tls.pem"

    @property
    def node_key(self) -> Path:
        """Flower node key, OpenSSH."""
        return self.home / "keys" / "node.key"

    @property
    def root_public(self) -> Path:
        """Public half of the alliance root, as pinned."""
        return self.home / "root.pub.json"

    @property
    def members(self) -> Path:
        """Signed list of members: the coordinator's own, or the last that an institution was shown."""
        return self.home / "members.dsse.json"

    @property
    def requests(self) -> Path:
        """Admitted requests (the coordinator's)."""
        return self.home / "members"


def coordinator_init(home: Path, *, alliance: str, host: str, port: int) -> str:
    """Make the coordinator's folder and return the fingerprint of the alliance's root.

    Raises:
        BadConfig: the folder already holds an alliance.
    """
    keys = Keys(home)
    _must_be_new(keys.identity)
    root, identity = IdentityKey.generate(), IdentityKey.generate()
    tls_root_key, tls_root = pki.make_root(alliance)
    tls_key = pki.new_key()
    tls = pki.server_certificate(tls_root_key, tls_root, tls_key, host)
    keys.root.parent.mkdir(parents=True, exist_ok=True)
    root.save(keys.root)
    write_atomically(keys.tls_root_key, pki.private_pem(tls_root_key))
    write_atomically(keys.tls_root, pki.certificate_pem(tls_root))
    write_atomically(keys.tls_key, pki.private_pem(tls_key))
    write_atomically(keys.tls_certificate, pki.certificate_pem(tls))
    write_atomically(keys.root_public, encode(AllianceRoot(key=root.public_text)))
    text = f"alliance = {json.dumps(alliance)}\nhost = {json.dumps(host)}\nport = {port}\n"
    write_atomically(home / "coordinator.toml", text.encode())
    identity.save(keys.identity)
    return root.keyid


def institution_init(home: Path, *, name: str) -> JoinRequest:
    """Make every key of an institution in its folder and return the public halves.

    Raises:
        BadConfig: the folder already holds an institution, or the name is the coordinator's.
    """
    keys = Keys(home)
    _must_be_new(keys.identity)
    if name == COORDINATOR:
        raise BadConfig(f"name: {name!r} is the coordinator's own name, choose another")
    identity, tls_key = IdentityKey.generate(), pki.new_key()
    node_private, node_public = pki.openssh_pair(pki.new_key())
    request = JoinRequest(
        name=name,
        identity=identity.public_text,
        node_key=node_public.decode(),
        tls_request=pki.signing_request(tls_key, name).decode(),
    )
    write_atomically(keys.node_key, node_private)
    write_atomically(keys.tls_key, pki.private_pem(tls_key))
    write_atomically(home / "join-request.json", encode(request))
    identity.save(keys.identity)
    return request


def fingerprint_of(request: JoinRequest) -> str:
    """Return the fingerprint of an institution's identity key: what its partners write into their policies."""
    return digest_of(public_key_of(request.identity))


def coordinator_admit(home: Path, request: JoinRequest) -> Membership:
    """Sign an institution's request and keep it among the members.

    Raises:
        BadInput: another institution has the name, or the signing request is wrong.
    """
    if request.name == COORDINATOR:
        raise BadInput(f"name: {request.name!r} is the coordinator's own name, the institution must choose another")
    public_key_of(request.identity)  # a key that is none would be found at the next job, by everybody
    keys = Keys(home)
    kept = keys.requests / f"{request.name}.json"
    if kept.exists() and kept.read_bytes() != encode(request):
        raise BadInput(f"name: {request.name!r} is already a member with other keys")
    root_key = serialization.load_pem_private_key(read_file(keys.tls_root_key, "TLS root key"), None)
    if not isinstance(root_key, ec.EllipticCurvePrivateKey):
        raise BadConfig(f"{keys.tls_root_key}: not an EC key")
    tls_root = read_file(keys.tls_root, "TLS root certificate")
    certificate = pki.client_certificate(
        root_key, x509.load_pem_x509_certificate(tls_root), request.tls_request.encode(), request.name
    )
    write_atomically(kept, encode(request))
    return Membership(
        alliance=alliance_of(home),
        name=request.name,
        root=decode(AllianceRoot, read_file(keys.root_public, "alliance root")).key,
        tls_root=tls_root.decode(),
        tls_certificate=pki.certificate_pem(certificate).decode(),
    )


def institution_install(home: Path, membership: Membership) -> str:
    """Pin a membership in an institution's folder and return the fingerprint to compare by phone.

    The list of members that was shown here before is forgotten: another root may have signed it.

    Raises:
        BadInput: the membership is another institution's.
    """
    mine = decode(JoinRequest, read_file(home / "join-request.json", "join request")).name
    if membership.name != mine:
        raise BadInput(f"name: the membership is for {membership.name!r}, this folder is {mine!r}")
    keys = Keys(home)
    root = AllianceRoot(key=membership.root)
    keys.members.unlink(missing_ok=True)
    write_atomically(keys.root_public, encode(root))
    write_atomically(keys.tls_root, membership.tls_root.encode())
    write_atomically(keys.tls_certificate, membership.tls_certificate.encode())
    return root.fingerprint


def publish_members(home: Path) -> bytes:
    """Sign and keep the list of all members (the coordinator among them); return the envelope."""
    keys = Keys(home)
    alliance, identity = alliance_of(home), IdentityKey.load(keys.identity)
    members = [AllianceMember(name=COORDINATOR, role="coordinator", identity=identity.public_text)]
    members += [AllianceMember(name=r.name, role="institution", identity=r.identity) for r in admitted(home)]
    document = AllianceMembers(alliance=alliance, members=tuple(sorted(members, key=lambda member: member.name)))
    envelope = sign_document(IdentityKey.load(keys.root), document)
    write_atomically(keys.members, envelope)
    return envelope


def admitted(home: Path) -> list[JoinRequest]:
    """Return the requests that the coordinator has admitted, by name."""
    return [decode(JoinRequest, path.read_bytes()) for path in sorted(Keys(home).requests.glob("*.json"))]


def alliance_of(home: Path) -> str:
    """Return the alliance's name from the coordinator's configuration."""
    return load(CoordinatorConfig, home / "coordinator.toml").alliance


def _must_be_new(path: Path) -> None:
    if path.exists():
        raise BadConfig(f"{path} is already there: an existing identity is never overwritten")
