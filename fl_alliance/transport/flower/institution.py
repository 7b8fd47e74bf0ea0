"""The institution's end over Flower: one warm process that calls out, takes no code, answers only the known bundle."""

from __future__ import annotations

import contextlib
import email.utils
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from fl_alliance.errors import AllianceError, BadConfig, CertificateRefused, ClockSkew, LinkFailed
from fl_alliance.protocol.limits import MAX_MESSAGE_BYTES
from fl_alliance.transport.flower.bells import Ear
from fl_alliance.transport.flower.blobs import HttpBlobs
from fl_alliance.transport.flower.bundle import installed_bundle
from fl_alliance.transport.flower.front import REASON
from fl_alliance.transport.flower.internals.fleet import Fleet
from fl_alliance.transport.flower.internals.wire import HANDLER_RAISED, REFUSED_BUNDLE, Note, Parcel
from fl_alliance.transport.flower.tls import TlsFiles
from fl_alliance.transport.proxy import https_client

log = structlog.get_logger()
Handler = Callable[[bytes], bytes]
T = TypeVar("T")

_POLL_S = (0.05, 0.5)
"""Between two looks while the bell can't be heard."""
_QUIET_S = 10.0
"""The same while it can: in case a ring was lost."""
_STOP_S = 0.5
_BEAT_S = 20.0
_SLOWEST_RETRY_S = 15.0
_UPLOAD_S = 60.0
CLOCK_SECONDS: Final = 5
"""Clocks must agree to this: Flower refuses what was signed later than it is."""
_GONE = (400, 403, 404, 409, 410)
"""Statuses after which the request is dropped: its run has ended, or the coordinator no longer knows it."""


class FlowerInstitutionLink:
    """`InstitutionLink` to the coordinator at `address` (host:port).

    `node_key` is an unencrypted OpenSSH EC P-384 private key. The folder `state` keeps the node id, which is no secret:
    with it a process that starts again within a minute is known at once.

    Raises:
        BadConfig: a TLS file or the node key can't be used.
    """

    def __init__(self, *, address: str, tls: TlsFiles, node_key: Path, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        os.environ["FLWR_HOME"] = str(state / "flwr")
        self._bundle = installed_bundle()
        self._kept, self._tls = state / "node-id", tls
        self._http = https_client(address, tls.client_context(), timeout=30.0)
        self._url = f"https://{address}"
        self._fleet = Fleet(self._http, self._url, _load_key(node_key))
        self._node: int | None = None
        self._is_new = True
        self._heard: float | None = None
        self._failed = 0
        self._bundles: dict[int, tuple[str, str]] = {}
        self.blobs: HttpBlobs = HttpBlobs(address=address, tls=tls)
        """The coordinator's store, over the same listener."""

    def serve(self, handler: Handler, *, keep_going: Callable[[], bool]) -> None:
        """Answer every request with `handler` in the calling thread, until `keep_going` says no.

        Runs on while the coordinator is away, for however long. An exception of `handler` is logged here; the
        coordinator learns the name of its type. `keep_going` is asked twice a second, but not while `handler` runs.

        Raises:
            CertificateRefused: the certificate was revoked or has expired; calling on would change nothing.
        """
        stop, ear = threading.Event(), Ear(self._http, self._url)
        beating = threading.Thread(target=self._beat, args=(stop,), daemon=True, name="node-heartbeat")
        beating.start()
        pause, failures = _POLL_S[0], 0
        try:
            while keep_going():
                try:
                    ear.forget()
                    node = self._turn(handler)
                    failures = 0
                    if node is not None:
                        ear.answered(node)
                        pause = _POLL_S[0]
                    else:
                        pause = min(1.3 * pause, _POLL_S[1])
                        self._rest(ear, pause, keep_going)
                except httpx.HTTPError as error:
                    self._require_welcome(error)
                    failures += 1
                    self._recover(error, failures, keep_going)
        finally:
            stop.set()
            ear.stop()
            beating.join(35)
            if self._node is not None:
                self._leave(self._node)
            self._node, self._is_new = None, True

    def _rest(self, ear: Ear, pause: float, keep_going: Callable[[], bool]) -> None:
        """Return when the bell rings, when it is time to look without one, or when it is time to stop."""
        start = time.monotonic()
        while self._node is not None and not ear.wait(self._node, min(pause, _STOP_S)):
            if time.monotonic() - start >= (_QUIET_S if ear.hears else pause) or not keep_going():
                return

    def _turn(self, handler: Handler) -> int | None:
        """Come online if need be, then answer one request; return the node that did, None if there was no request."""
        if self._node is None:
            self._node = self._come_online()
        parcel = self._fleet.next(self._node)
        self._heard = time.monotonic()
        if parcel is None:
            return None
        try:
            self._answer(self._node, parcel, handler)
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in _GONE:
                raise
            log.warning("request_dropped", run=parcel.run, status=error.response.status_code)
        except LinkFailed as error:
            log.warning("request_dropped", run=parcel.run, error=error)
        return self._node

    def _answer(self, node: int, parcel: Parcel, handler: Handler) -> None:
        # (1) The run must be the trampoline; its bundle is never fetched, whatever it is.
        if parcel.run not in self._bundles:
            self._bundles = {parcel.run: _retrying(lambda: self._fleet.bundle_of(node, parcel.run))}
        app, sha256 = self._bundles[parcel.run]
        if (app.removeprefix("@"), sha256) != (self._bundle.app, self._bundle.sha256):
            log.error("bundle_refused", run=parcel.run, app=app, digest=sha256)
            _retrying(lambda: self._fleet.answer(node, parcel, Note(b"", REFUSED_BUNDLE, "another bundle")))
            return
        # (2) Fetch the request. (3) Handle it; this may take minutes. (4) Send the reply.
        payload = self._fetch(node, parcel)
        if payload is None:
            return
        reply = _handled(handler, payload)
        _retrying(lambda: self._fleet.answer(node, parcel, reply))

    def _fetch(self, node: int, parcel: Parcel) -> bytes | None:
        end = time.monotonic() + _UPLOAD_S
        while time.monotonic() < end:
            note = _retrying(lambda: self._fleet.fetch(node, parcel))
            if note is not None:
                return note.payload if note.error is None else None
            time.sleep(0.05)
        return None

    def _come_online(self) -> int:
        kept = self._kept.read_text().strip() if self._kept.exists() else ""
        if kept.isdigit():
            with contextlib.suppress(httpx.HTTPStatusError):
                if (
                    self._is_new
                ):  # the coordinator sees that this process is another, and sends again what the last one held
                    self._leave(int(kept))
                if self._fleet.beat(int(kept)):
                    self._is_new = False
                    return int(kept)
        node = self._fleet.activate()
        self._is_new = False
        with contextlib.suppress(OSError):  # on a full disk a new process is only known later
            self._kept.write_text(f"{node}\n")
        return node

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(_BEAT_S * random.uniform(0.8, 1.0)):  # noqa: S311
            if (node := self._node) is None:
                continue
            try:
                self._fleet.beat(node)
                self._heard = time.monotonic()
            except httpx.HTTPError as error:
                log.info("no_heartbeat", error=named(error))

    def heard_seconds(self) -> float | None:
        """Return how many seconds ago the coordinator answered; None: never yet."""
        return None if self._heard is None else time.monotonic() - self._heard

    def retries(self) -> int:
        """Return how many calls failed and were tried again."""
        return self._failed

    def _recover(self, error: httpx.HTTPError, failures: int, keep_going: Callable[[], bool]) -> None:
        self._failed += 1
        if failures in (1, 10) or failures % 100 == 0:
            log.warning("no_coordinator", failures=failures, error=named(error))
        end = time.monotonic() + min(0.1 * 2 ** min(failures, 10), _SLOWEST_RETRY_S) * random.uniform(0.5, 1.0)  # noqa: S311
        while keep_going() and time.monotonic() < end:
            time.sleep(min(0.2, max(0.0, end - time.monotonic())))
        # Come back by heartbeat: a coordinator that was away has this node offline, or does not know it.
        self._node = None

    def _require_welcome(self, error: httpx.HTTPError) -> None:
        """Raise what ends the service: this certificate counts no longer, by its date or the coordinator's answer."""
        if isinstance(error, httpx.HTTPStatusError) and REASON in error.response.headers:
            raise CertificateRefused(
                "the coordinator answers: certificate revoked; this institution was removed, or its keys were renewed: "
                "install the new membership, or ask the admin"
            )
        self._tls.require_valid()

    def _leave(self, node: int) -> None:
        with contextlib.suppress(httpx.HTTPError):
            self._fleet.deactivate(node)

    def close(self) -> None:
        """Close the connections; may be called twice."""
        self._http.close()
        self.blobs.close()


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError) as error:
        raise BadConfig(f"node key {path}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise BadConfig(f"node key {path} is no OpenSSH EC P-384 private key")
    return key


def _handled(handler: Handler, payload: bytes) -> Note:
    try:
        reply = handler(payload)
    except AllianceError as error:  # it has a name and says what is wrong: no traceback
        log.warning("not_answered", error=error)
        return Note(b"", HANDLER_RAISED, type(error).__name__)
    except Exception as error:
        log.error("handler_failed", error=error)  # noqa: TRY400  # a traceback quotes what a record says
        return Note(b"", HANDLER_RAISED, type(error).__name__)
    if len(reply) > MAX_MESSAGE_BYTES:
        log.error("reply_too_long", bytes=len(reply), most=MAX_MESSAGE_BYTES)
        return Note(b"", HANDLER_RAISED, "ReplyTooLong")
    return Note(reply)


def _retrying(call: Callable[[], T]) -> T:
    """Call until the coordinator answers; a restart of it in the middle of an answer shall not cost a training."""
    for tries in range(6):
        try:
            return call()
        except httpx.HTTPStatusError as error:
            if error.response.status_code < 500:
                raise
        except httpx.TransportError:
            pass
        time.sleep(min(0.2 * 2**tries, 5.0) * random.uniform(0.5, 1.0))  # noqa: S311
    return call()


def named(error: httpx.HTTPError) -> LinkFailed:
    """Return the error in our words. A 401 is a clock or a key; the answer's date says which."""
    if not isinstance(error, httpx.HTTPStatusError) or error.response.status_code != 401:
        return LinkFailed(f"{type(error).__name__}: {error}")
    if (ahead := seconds_ahead(error.response.headers.get("date"))) is not None and abs(ahead) > CLOCK_SECONDS:
        where = "ahead of" if ahead > 0 else "behind"
        return ClockSkew(
            f"this clock is {abs(ahead):.0f} s {where} the coordinator's, at most {CLOCK_SECONDS}: switch NTP on"
        )
    return LinkFailed("the coordinator answers 401: is this node's public key among the admitted ones?")


def seconds_ahead(date: str | None) -> float | None:
    """Return how far this clock is ahead of the one that wrote an HTTP date (None: it is no date)."""
    try:
        return time.time() - email.utils.parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
