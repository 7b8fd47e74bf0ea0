"""The institution's side of the join door: join with a code, renew keys, leave. It calls out; nothing listens here.

    (1) Make every key on site, if there is none yet.
    (2) Get the roots from the door, which nobody vouches for yet; compare their fingerprint with that of the code.
    (3) Call again: now TLS must verify against the root from (2), or nothing is said.
    (4) Send the secret and the signed request; ask until the admin has admitted it.
    (5) Check that the membership is what (2) and the own keys say, then pin it.

Killed anywhere, the same command goes on: keys and request stay, the door knows the request again.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import httpx
from pydantic import BaseModel

from fl_alliance import errors
from fl_alliance.errors import (
    BadConfig,
    BadInput,
    JoinRefused,
    LinkFailed,
    MalformedMessage,
    NotAuthentic,
    RootsDiffer,
    TooManyCalls,
)
from fl_alliance.evidence.keys import AllianceRoot, IdentityKey
from fl_alliance.parties import setup
from fl_alliance.parties.config import InstitutionConfig, Whereabouts, load
from fl_alliance.parties.files import only_process, read_file, write_atomically
from fl_alliance.parties.join_words import (
    MAX_JOIN_BYTES,
    AllianceRoots,
    JoinAnswer,
    JoinCode,
    JoinOffer,
    JoinRefusal,
    JoinRequest,
    LeaveNotice,
    Membership,
    fingerprint_of,
    sign_notice,
)
from fl_alliance.parties.setup import Keys, read_request
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.transport.proxy import https_client

A = TypeVar("A", bound=BaseModel)
Tell = Callable[[str], None]

ASK_SECONDS: Final = 3.0
"""Between two questions whether the admin has admitted the request."""
_CALL_SECONDS: Final = 20.0


class Door:
    """Calls to the join door at `address` (host:port), whose certificate `root` (PEM) must have signed.

    `root` None: nobody's word is taken, and only the roots may be asked for.
    """

    def __init__(self, address: str, root: str | None) -> None:
        self._address, self._vouched = address, root is not None
        self._http = https_client(address, _context(root), timeout=_CALL_SECONDS)

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def roots(self) -> AllianceRoots:
        """Return the roots that whoever answers shows."""
        return self._call("GET", "/join/roots", b"", AllianceRoots)

    def ask(self, path: str, body: bytes) -> JoinAnswer:
        """Return the answer to `body`.

        Raises:
            JoinRefused: the door says no; the error's own type says why.
            RootsDiffer: the certificate there is not signed by the root.
            LinkFailed: the door can't be reached, or what answers is no join door.
        """
        if not self._vouched:
            raise RootsDiffer("nothing is said to a door whose certificate nobody checks")
        return self._call("POST", path, body, JoinAnswer)

    def _call(self, method: str, path: str, body: bytes, kind: type[A]) -> A:
        try:
            with self._http.stream(method, path, content=body) as answer:
                status, said = answer.status_code, _bounded(answer)
        except httpx.HTTPError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise RootsDiffer(
                    f"join door {self._address}: its certificate is not by the alliance's root ({error}): somebody "
                    "stands between, or a proxy opens TLS"
                ) from None
            raise LinkFailed(f"join door {self._address}: {type(error).__name__}: {error}") from None
        try:
            if status == 200:
                return decode(kind, said)
            raise _refused(decode(JoinRefusal, said))
        except MalformedMessage as error:
            raise LinkFailed(f"join door {self._address}: status {status}, and no answer of a door ({error})") from None


def _bounded(answer: httpx.Response) -> bytes:
    said = b""
    for part in answer.iter_bytes():
        said += part
        if len(said) > MAX_JOIN_BYTES:
            raise httpx.DecodingError(f"more than {MAX_JOIN_BYTES} bytes")
    return said


def _refused(refusal: JoinRefusal) -> JoinRefused:
    """Return the refusal as the error that it names."""
    kind = getattr(errors, refusal.error, None)
    if isinstance(kind, type) and issubclass(kind, JoinRefused):
        return kind(refusal.reason)
    return JoinRefused(f"{refusal.error}: {refusal.reason}")


def _context(root: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if root is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=root)
    return context


# ---- join


def join(
    home: Path,
    code: JoinCode,
    *,
    like: Path | None = None,
    tell: Tell = lambda _: None,
    wait: bool = True,
    pause: Callable[[float], object] = time.sleep,
) -> bool:
    """Join as `code` says, or go on with it; return whether the membership is pinned (False: not admitted yet).

    With `wait` it asks until the admin has decided, also while the coordinator is away. `like`: the institution's
    folder in another alliance, whose identity key and ledger it keeps; all other keys are new.

    Raises:
        JoinRefused: the door says no, or shows other roots (`RootsDiffer`).
        BadConfig: the folder is another institution's, or `like` is.
        LinkFailed: without `wait`, the coordinator can't be reached.
    """
    ledger = None if like is None else _ledger_of(like)  # before anything is made
    home.mkdir(parents=True, exist_ok=True)
    with only_process(home):
        keys, address = Keys(home), f"{code.host}:{code.port}"
        request = _own_request(home, code.name, like)
        with Door(address, None) as stranger:
            roots = stranger.roots()
        if roots.fingerprint != code.roots:
            raise RootsDiffer(
                f"join door {address} shows roots {roots.fingerprint}, the code says {code.roots}: "
                "somebody stands between, or the code is another alliance's; nothing was sent"
            )
        offer = JoinOffer(
            name=code.name, secret=code.secret, request=base64.b64encode(keys.request.read_bytes()).decode()
        )
        tell(f"key fingerprint {fingerprint_of(request)}: tell it to the admin and to your partners by phone")
        with Door(address, roots.tls_root) as door:
            answer = _asked(door, encode(offer), wait=wait, tell=tell, pause=pause)
        _configure(home, roots.alliance, answer, address, ledger)
        if answer.membership is None:
            tell("not admitted yet: run the same command again to go on")
            return False
        install(home, answer.membership, roots)
        tell(f"{code.name} is a member of {roots.alliance}; root {_root_fingerprint(home)}")
        return True


def _own_request(home: Path, name: str, like: Path | None) -> JoinRequest:
    keys = Keys(home)
    if not keys.identity.exists():
        return setup.institution_init(home, name=name, identity=None if like is None else _identity_of(like, name))
    request = read_request(keys.request)
    if request.name != name:
        raise BadConfig(f"{home}: holds the keys of {request.name}, the code is for {name}: name a new folder")
    return request


def _identity_of(home: Path, name: str) -> IdentityKey:
    """Return the identity key in `home`; a ledger belongs to one name and one key (BadConfig: the name is another)."""
    known = read_request(Keys(home).request).name
    if known != name:
        raise BadConfig(f"{home}: is of {known}, the code is for {name}: ask the admin for a code for {known}")
    return IdentityKey.load(Keys(home).identity)


def _asked(door: Door, offer: bytes, *, wait: bool, tell: Tell, pause: Callable[[float], object]) -> JoinAnswer:
    said = ""
    while True:
        try:
            answer, now = door.ask("/join/request", offer), "waiting for the admin: `coordinator admit`"
            if answer.membership is not None or not wait:
                return answer
        except (LinkFailed, TooManyCalls) as error:
            if not wait:
                raise
            now = str(error)
        if now != said:
            tell(now)
        said = now
        pause(ASK_SECONDS)


def install(home: Path, membership: Membership, roots: AllianceRoots) -> None:
    """Pin a membership that must be of these very roots.

    Raises:
        NotAuthentic: it is of others.
        BadInput: it is not this folder's.
    """
    shown = AllianceRoots(alliance=membership.alliance, root=membership.root, tls_root=membership.tls_root)
    if shown != roots:
        raise NotAuthentic(f"the membership is of roots {shown.fingerprint}, expected {roots.fingerprint}")
    setup.institution_install(home, membership)


def _configure(home: Path, alliance: str, answer: JoinAnswer, door: str, ledger: Path | None) -> None:
    """Write institution.toml, where there is none: what is known, and TODO where a person must fill it in."""
    path = home / "institution.toml"
    if path.exists():
        return
    known = {"name": answer.name, "alliance": alliance, "coordinator": answer.coordinator, "join_door": door}
    text = "".join(f"{field} = {json.dumps(value)}\n" for field, value in known.items()) + _TO_FILL_IN
    if ledger is not None:
        text += f"ledger = {json.dumps(str(ledger))}    # the same in each alliance: one data set, one budget\n"
    write_atomically(path, text.encode())


def _ledger_of(home: Path) -> Path:
    config: InstitutionConfig = load(InstitutionConfig, home / "institution.toml")
    return (home / config.data.ledger).resolve()


_TO_FILL_IN = """model_folder = "TODO"            # folder of the base model, as the admin names it

[data]
name = "TODO"                    # the data set's name in the ledger, as in a DNS label; a changed file needs another
path = "TODO"                    # JSONL, CSV or Parquet
unit_column = "TODO"             # whose records belong together: patient, student
prompt_column = "TODO"           # or messages_column = "..." for chats, instead of these two
answer_column = "TODO"
"""


# ---- renew and leave


def rotate(home: Path) -> JoinRequest:
    """Renew the TLS and node keys of the institution in `home`, or go on with that; return the new request.

    The old keys count no longer, once the door has answered. Nobody else notices.

    Raises:
        BadConfig: no membership is pinned here, or a process serves this folder.
        JoinRefused: the coordinator does not know this institution under its identity key.
    """
    with only_process(home):
        roots, address = _pinned(home)
        setup.institution_renew(home)
        with Door(address, roots.tls_root) as door:
            answer = door.ask("/join/renew", Keys(home).next.request.read_bytes())
        if answer.membership is None:
            raise BadInput(f"join door {address}: it answers without a membership")
        install(home, answer.membership, roots)
        return read_request(Keys(home).request)


def leave(home: Path) -> None:
    """End the membership of the institution in `home`. Its keys, ledger and evidence stay where they are.

    Raises:
        BadConfig: no membership is pinned here, or a process serves this folder.
        NotAMember: it has ended before.
    """
    with only_process(home):
        roots, address = _pinned(home)
        keys = Keys(home)
        member = read_request(keys.request)
        notice = LeaveNotice(alliance=roots.alliance, name=member.name, number=member.number)
        with Door(address, roots.tls_root) as door:
            door.ask("/join/leave", sign_notice(IdentityKey.load(keys.identity), notice))


def door_of(config: Whereabouts) -> str:
    """Return host:port of the join door."""
    host, _, port = config.coordinator.rpartition(":")
    return config.join_door or f"{host}:{int(port) + 1}"


def _pinned(home: Path) -> tuple[AllianceRoots, str]:
    """Return the pinned roots, and the door's address."""
    keys, config = Keys(home), load(Whereabouts, home / "institution.toml")
    root = decode(AllianceRoot, read_file(keys.root_public, "alliance root, which `institution join` pins"))
    tls_root = read_file(keys.tls_root, "TLS root certificate").decode()
    return AllianceRoots(alliance=config.alliance, root=root.key, tls_root=tls_root), door_of(config)


def _root_fingerprint(home: Path) -> str:
    return decode(AllianceRoot, Keys(home).root_public.read_bytes()).fingerprint
