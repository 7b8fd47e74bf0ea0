"""Make the folders of the parties: keys on site, certificates and membership from the coordinator.

    coordinator_init     root of the alliance (documents and TLS), the coordinator's keys
    institution_init     every key of an institution, on site; a signed request with public halves only
    institution_install  pins what a membership says
    publish_members      the signed list of members that every proposal carries

Who is asked, admitted and struck off is in `roster`; how the two sides meet is in `door` and `join`.

Private keys never leave the folder in which they were made, and have mode 0600.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from fl_alliance.errors import BadConfig, BadInput, MalformedMessage, NotAuthentic
from fl_alliance.evidence.keys import AllianceRoot, IdentityKey
from fl_alliance.evidence.sign import open_document, sign_document
from fl_alliance.parties import pki
from fl_alliance.parties.config import CoordinatorConfig, load
from fl_alliance.parties.files import read_file, write_atomically
from fl_alliance.parties.join_words import JoinRequest, Membership, open_request, sign_request
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import AllianceMember, AllianceMembers

RENEW_DAYS: Final = 30
"""A certificate that ends within so many days is due to be renewed."""

COORDINATOR = "coordinator"
"""The coordinator's name in labels and in the list of members; no institution may have it."""


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
    def model(self) -> Path:
        """EC key for model signatures, made at the first release."""
        return self.home / "keys" / "model.key"

    @property
    def root_public(self) -> Path:
        """Public half of the alliance root, as pinned."""
        return self.home / "root.pub.json"

    @property
    def members(self) -> Path:
        """Signed list of members: the coordinator's own, or the last that an institution was shown."""
        return self.home / "members.dsse.json"

    @property
    def request(self) -> Path:
        """The signed request by which an institution is a member, or will be."""
        return self.home / "join-request.json"

    @property
    def next(self) -> Keys:
        """New TLS and node keys with their request, until the coordinator has signed them."""
        return Keys(self.home / "next")

    @property
    def requests(self) -> Path:
        """Admitted requests (the coordinator's)."""
        return self.home / "members"

    @property
    def pending(self) -> Path:
        """Requests that wait for the admin (the coordinator's)."""
        return self.home / "pending"

    @property
    def invitations(self) -> Path:
        """What is kept of join codes (the coordinator's)."""
        return self.home / "invitations"

    @property
    def certificates(self) -> Path:
        """Every client certificate that was ever signed, as NAME.SERIAL.pem (the coordinator's)."""
        return self.home / "certificates"


def coordinator_init(
    home: Path, *, alliance: str, host: str, port: int, join_port: int | None = None, root_file: Path | None = None
) -> str:
    """Make the coordinator's folder and return the fingerprint of the alliance's root.

    `join_port` is where the join door listens; None: one above `port`. `root_file` is where the root's key goes; None:
    into the folder too.

    Raises:
        BadConfig: the folder already holds an alliance.
        StoreFailed: `root_file` is there already, or can't be written.
    """
    keys = Keys(home)
    _must_be_new(keys.identity)
    root, identity = IdentityKey.generate(), IdentityKey.generate()
    tls_root_key, tls_root = pki.make_root(alliance)
    tls_key = pki.new_key()
    tls = pki.server_certificate(tls_root_key, tls_root, tls_key, host)
    keys.root.parent.mkdir(parents=True, exist_ok=True)
    root.save(keys.root if root_file is None else root_file)
    write_atomically(keys.tls_root_key, pki.private_pem(tls_root_key))
    write_atomically(keys.tls_root, pki.certificate_pem(tls_root))
    write_atomically(keys.tls_key, pki.private_pem(tls_key))
    write_atomically(keys.tls_certificate, pki.certificate_pem(tls))
    write_atomically(keys.root_public, encode(AllianceRoot(key=root.public_text)))
    text = f"alliance = {json.dumps(alliance)}\nhost = {json.dumps(host)}\nport = {port}\n"
    text += f"join_port = {port + 1 if join_port is None else join_port}\n"
    write_atomically(home / "coordinator.toml", text.encode())
    identity.save(keys.identity)
    return root.keyid


def renew_server_certificate(home: Path) -> bool:
    """Sign the coordinator's own certificate anew, for the same key, if it ends within `RENEW_DAYS`; say whether."""
    keys = Keys(home)
    if not pki.ends_within(read_file(keys.tls_certificate, "TLS certificate"), RENEW_DAYS):
        return False
    host = load(CoordinatorConfig, home / "coordinator.toml").host
    root = x509.load_pem_x509_certificate(read_file(keys.tls_root, "TLS root certificate"))
    root_key, key = (pki.load_key(path.read_bytes()) for path in (keys.tls_root_key, keys.tls_key))
    certificate = pki.server_certificate(root_key, root, key, host)
    write_atomically(keys.tls_certificate, pki.certificate_pem(certificate))
    return True


def institution_init(home: Path, *, name: str, identity: IdentityKey | None = None) -> JoinRequest:
    """Make every key of an institution in its folder and return the public halves.

    `identity`: the key that it has already, in another alliance.

    Raises:
        BadConfig: the folder already holds an institution, or the name is the coordinator's.
    """
    keys = Keys(home)
    _must_be_new(keys.identity)
    if name == COORDINATOR:
        raise BadConfig(f"name: {name!r} is the coordinator's own name, choose another")
    identity, tls_key = identity or IdentityKey.generate(), pki.new_key()
    node_private, node_public = pki.openssh_pair(pki.new_key())
    request = JoinRequest(
        name=name,
        identity=identity.public_text,
        node_key=node_public.decode(),
        tls_request=pki.signing_request(tls_key, name).decode(),
    )
    write_atomically(keys.node_key, node_private)
    write_atomically(keys.tls_key, pki.private_pem(tls_key))
    write_atomically(keys.request, sign_request(identity, request))
    identity.save(keys.identity)
    return request


def institution_renew(home: Path) -> JoinRequest:
    """Make new TLS and node keys beside the present ones; return the request for them. Again: the same one.

    Raises:
        BadConfig: the folder holds no institution.
    """
    keys = Keys(home)
    if keys.next.request.exists():
        return read_request(keys.next.request)
    present, tls_key = read_request(keys.request), pki.new_key()
    node_private, node_public = pki.openssh_pair(pki.new_key())
    changes = {
        "number": present.number + 1,
        "node_key": node_public.decode(),
        "tls_request": pki.signing_request(tls_key, present.name).decode(),
    }
    request = present.model_copy(update=changes)
    write_atomically(keys.next.node_key, node_private)
    write_atomically(keys.next.tls_key, pki.private_pem(tls_key))
    write_atomically(keys.next.request, sign_request(IdentityKey.load(keys.identity), request))
    return request


def read_request(path: Path) -> JoinRequest:
    """Return the signed request in the file `path`.

    Raises:
        BadConfig: it can't be read or is none; the text names the file.
    """
    try:
        return open_request(read_file(path, "join request"))
    except (MalformedMessage, NotAuthentic) as error:
        raise BadConfig(f"join request: {path} is none ({error})") from None


def institution_install(home: Path, membership: Membership) -> str:
    """Pin a membership in an institution's folder and return the fingerprint to compare by phone.

    If it is for renewed keys, they take the place of the old ones; killed in between, run it again. Where the root is
    another one than before, the list of members that was shown here is forgotten: that root signed it.

    Raises:
        BadInput: the membership is another institution's, its certificate is for another key than this folder's, or
            its parts do not belong together.
    """
    keys = Keys(home)
    mine = read_request(keys.request).name
    if membership.name != mine:
        raise BadInput(f"name: the membership is for {membership.name!r}, this folder is {mine!r}")
    pki.require_issued(membership.tls_certificate.encode(), by=membership.tls_root.encode())
    root = AllianceRoot(key=membership.root)
    fingerprint = root.fingerprint
    certified = next((k for k in (keys.next, keys) if _is_for(k, membership)), None)
    if certified is None:
        raise BadInput(f"membership: its certificate is for another key than {keys.tls_key}")
    if not keys.root_public.exists() or keys.root_public.read_bytes() != encode(root):
        keys.members.unlink(missing_ok=True)
    if certified == keys.next:
        for name in ("node_key", "tls_key", "request"):
            write_atomically(getattr(keys, name), getattr(keys.next, name).read_bytes())
    write_atomically(keys.tls_root, membership.tls_root.encode())
    write_atomically(keys.tls_certificate, membership.tls_certificate.encode())
    write_atomically(keys.root_public, encode(root))
    if certified == keys.next:
        for name in ("request", "node_key", "tls_key"):
            getattr(keys.next, name).unlink()
    return fingerprint


def _is_for(keys: Keys, membership: Membership) -> bool:
    if not (keys.request.exists() and keys.tls_key.exists()):
        return False
    return pki.is_key_of(keys.tls_key.read_bytes(), membership.tls_certificate.encode())


def root_key(home: Path, file: Path | None = None) -> IdentityKey:
    """Return the alliance's root from `file`, or None: from the coordinator's folder.

    Raises:
        BadConfig: it is not in the folder, or the file holds another key.
        StoreFailed: the file can't be read.
    """
    keys = Keys(home)
    if file is None and root_is_away(home):
        raise BadConfig(f"root key: not in {home}, where this needs it: name its file with --root-key")
    root, public = IdentityKey.load(file or keys.root), read_file(keys.root_public, "alliance root")
    if encode(AllianceRoot(key=root.public_text)) != public:
        expected = decode(AllianceRoot, public).fingerprint
        raise BadConfig(f"root key: {file or keys.root} holds {root.keyid}, the alliance's root is {expected}")
    return root


def root_is_away(home: Path) -> bool:
    """Whether the alliance's root is kept elsewhere than in the coordinator's folder."""
    return not Keys(home).root.exists()


def publish_members(home: Path, root: IdentityKey | None = None) -> bytes:
    """Keep the list of all members (the coordinator among them), signed if it has changed; return the envelope.

    Its serial is one above that of the list before. `root` None: the root in the coordinator's folder.

    Raises:
        BadConfig: the list has changed, and the root is not at hand. Nothing has been written.
    """
    keys = Keys(home)
    document = _next_list(home)
    if document is None:
        return keys.members.read_bytes()
    envelope = sign_document(root or root_key(home), document)
    write_atomically(keys.members, envelope)
    return envelope


def list_is_behind(home: Path) -> bool:
    """Whether the list of members, as it was signed last, is not that of who is a member."""
    return _next_list(home) is not None


def _next_list(home: Path) -> AllianceMembers | None:
    """Return the list of who is a member, with the serial that follows; None: the one that was signed last says it."""
    keys = Keys(home)
    identity = IdentityKey.load(keys.identity)
    members = [AllianceMember(name=COORDINATOR, role="coordinator", identity=identity.public_text)]
    members += [AllianceMember(name=r.name, role="institution", identity=r.identity) for r in admitted(home)]
    document = AllianceMembers(
        alliance=alliance_of(home), serial=1, members=tuple(sorted(members, key=lambda member: member.name))
    )
    if not keys.members.exists():
        return document
    root = decode(AllianceRoot, read_file(keys.root_public, "alliance root"))
    last = open_document(keys.members.read_bytes(), AllianceMembers, public_key=root.public)
    if document.model_copy(update={"serial": last.serial}) == last:
        return None
    return document.model_copy(update={"serial": last.serial + 1})


def admitted(home: Path) -> list[JoinRequest]:
    """Return the requests that the coordinator has admitted, by name."""
    return [read_request(path) for path in sorted(Keys(home).requests.glob("*.json"))]


def alliance_of(home: Path) -> str:
    """Return the alliance's name from the coordinator's configuration."""
    return load(CoordinatorConfig, home / "coordinator.toml").alliance


def _must_be_new(path: Path) -> None:
    if path.exists():
        raise BadConfig(f"{path} is already there: an existing identity is never overwritten")
