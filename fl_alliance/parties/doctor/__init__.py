"""What is wrong with a party's folder and machine, and how to mend it. Reads no record, changes nothing.

Each check says one line. `ok` and `look` (it runs, but see to it) leave the exit code 0; `wrong` means that a job would
fail or be refused here.
"""

from __future__ import annotations

import datetime
import email.utils
import os
import socket
import stat
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final

import httpx
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from fl_alliance.errors import AllianceError, BadConfig
from fl_alliance.evidence.keys import AllianceRoot, IdentityKey
from fl_alliance.evidence.sign import open_document
from fl_alliance.parties import wiring
from fl_alliance.parties.config import CoordinatorConfig, InstitutionConfig, load
from fl_alliance.parties.doctor import machine
from fl_alliance.parties.doctor.finding import Check, Finding, State
from fl_alliance.parties.files import read_file
from fl_alliance.parties.join import door_of
from fl_alliance.parties.roster import waiting
from fl_alliance.parties.setup import RENEW_DAYS, Keys, admitted, list_is_behind, root_is_away
from fl_alliance.privacy.accountant import RdpAccountant
from fl_alliance.privacy.ledger import Ledger, spent, year_before
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.documents import InstitutionPolicy, model_digest
from fl_alliance.protocol.limits import MIN_MEMBERS
from fl_alliance.transport.proxy import https_client, proxy_for, without_password

SOON_DAYS: Final = RENEW_DAYS
"""A certificate that ends within so many days is worth a look."""
CLOCK_SECONDS: Final = 5
"""Clocks must agree to this (docs/architecture.md)."""
_CALL_SECONDS: Final = 5.0
_SERVER_MEND: Final = "start `coordinator serve` again: it signs a new one"


def examine_institution(home: Path) -> Iterator[Finding]:
    """Yield what an institution's folder and machine are found to be."""
    try:
        config = load(InstitutionConfig, home / "institution.toml")
    except AllianceError as error:
        yield Finding("configuration", "wrong", str(error), "fill in institution.toml as README shows")
        return
    yield Finding("configuration", "ok", f"{config.name} of alliance {config.alliance}")
    doctor = _Institution(home, config)
    yield from _each(
        ("keys", doctor.keys, "run `institution init` in a new folder, or give the files mode 0600"),
        ("membership", doctor.membership, "run `institution join` with the admin's code, or `institution rotate`"),
        ("proxy", doctor.proxy, "correct HTTPS_PROXY"),
        ("coordinator", doctor.coordinator, "ask the admin whether it runs, and IT for the way out to that port"),
        ("model", doctor.model, "put the plan's model folder there, files copied and not linked"),
        ("training", doctor.training, "correct processes or device in institution.toml"),
        ("data", doctor.data, "correct [data] in institution.toml"),
        ("policy", doctor.policy, "run `institution sign-policy` with a policy for this institution and data set"),
        ("ledger", doctor.ledger, "put the missing lines back, from the last job's evidence/ledger.jsonl"),
        ("gpu", doctor.gpu, "see that the driver and torch's CUDA fit together"),
        ("disk", lambda: machine.disk(home), ""),
        ("versions", lambda: machine.versions("institution"), ""),
    )


def examine_by_dry_run(home: Path) -> Iterator[Finding]:
    """Yield how a whole job of one round went here, with made-up partners and records; see `dry_run`."""
    from fl_alliance.parties.doctor.dry_run import dry_run

    yield from _each(("dry run", lambda: dry_run(home), "mend what is wrong above, then try again"))


def examine_coordinator(home: Path) -> Iterator[Finding]:
    """Yield what the coordinator's folder and machine are found to be."""
    try:
        config = load(CoordinatorConfig, home / "coordinator.toml")
    except AllianceError as error:
        yield Finding("configuration", "wrong", str(error), "run `coordinator init`")
        return
    yield Finding("configuration", "ok", f"alliance {config.alliance} at {config.host}:{config.port}")
    keys = Keys(home)
    root = () if root_is_away(home) else (keys.root,)
    private = (keys.identity, *root, keys.tls_root_key, keys.tls_key)
    yield from _each(
        ("keys", lambda: _private(private), "give the files mode 0600; a lost key can't be made again"),
        ("certificate", lambda: _certificate(keys, None, _SERVER_MEND), _SERVER_MEND),
        ("members", lambda: _members(home), "run `coordinator invite` for each institution"),
        ("listener", lambda: _listener(config), "end what uses the port, or name another one in coordinator.toml"),
        ("disk", lambda: machine.disk(home), ""),
        ("versions", lambda: machine.versions("coordinator"), ""),
    )


def _each(*checks: tuple[str, Check, str]) -> Iterator[Finding]:
    """Yield what each of (what, check, how to mend it) finds; one that raises does not keep the next from looking."""
    for what, check, mend in checks:
        try:
            yield from check()
        except (AllianceError, OSError, ValueError) as error:
            yield Finding(what, "wrong", str(error), mend)


class _Institution:
    def __init__(self, home: Path, config: InstitutionConfig) -> None:
        self._home, self._config, self._keys = home, config, Keys(home)
        self._models: str | None = None
        self._model_bytes = 0

    def keys(self) -> Iterator[Finding]:
        yield from _private((self._keys.identity, self._keys.tls_key, self._keys.node_key))

    def membership(self) -> Iterator[Finding]:
        root = decode(AllianceRoot, read_file(self._keys.root_public, "alliance root"))
        yield Finding("membership", "ok", f"root {root.fingerprint}, to be compared by phone")
        if self._keys.next.request.exists():
            raise BadConfig(f"{self._keys.next.home}: new keys are made and not signed yet")
        yield from _certificate(self._keys, self._config.name, "run `institution rotate`, between two jobs")

    def proxy(self) -> Iterator[Finding]:
        """Through which proxy the coordinator and its join door are called."""
        for address in (self._config.coordinator, door_of(self._config)):
            url = proxy_for(address)
            said = f"calls to {address} go straight" if url is None else f"{without_password(url)} for {address}"
            yield Finding("proxy", "ok", said)

    def coordinator(self) -> Iterator[Finding]:
        """Call as a job would, and compare clocks by the answer's date."""
        host, _, port = self._config.coordinator.rpartition(":")
        before = time.time()
        skew = _clock_of(f"{host}:{port}", self._keys)
        said = f"{self._config.coordinator} answers within {time.time() - before:.1f} s, mutual TLS"
        yield Finding("coordinator", "ok", said)
        if skew is None:
            return
        state: State = "ok" if abs(skew) <= CLOCK_SECONDS else "wrong"
        yield Finding(
            "clock", state, f"{abs(skew):.0f} s from the coordinator's, at most {CLOCK_SECONDS}", "switch NTP on"
        )

    def model(self) -> Iterator[Finding]:
        from fl_alliance.training.base import model_files

        folder = self._home / self._config.model_folder
        files = model_files(folder)
        self._models = model_digest(files)
        self._model_bytes = sum((folder / file.name).stat().st_size for file in files)
        yield Finding("model", "ok", f"{folder.name} is {self._models}")

    def gpu(self) -> Iterator[Finding]:
        yield from machine.gpu(self._config.device, self._model_bytes)

    def training(self) -> Iterator[Finding]:
        """Whether each process that trains has a GPU, or a processor for each of its threads."""
        import torch

        from fl_alliance.parties.trainer import performance_of

        performance = performance_of(self._config)
        processes, threads = self._config.processes, self._config.threads
        if performance.torch_device().type == "cuda":
            seen, said = torch.cuda.device_count(), f"processes {processes}, a GPU for each"
        else:
            seen, said = os.cpu_count() or 1, f"processes {processes}, threads {threads} in each"
            processes *= threads
        fits: State = "ok" if processes <= seen else "look"
        yield Finding("training", fits, f"{said}; {seen} here", "threads wait for one another: lower one of the two")

    def data(self) -> Iterator[Finding]:
        """That the file is there and may be read; not what is in it."""
        from fl_alliance.parties.trainer import record_source
        from fl_alliance.training.records import require_columns_named

        path = self._home / self._config.data.path
        if not os.access(path, os.R_OK) or not path.is_file():
            raise BadConfig(f"data.path: {path} is not a file that may be read")
        require_columns_named(record_source(self._config.data, self._home))
        yield Finding("data", "ok", f"{path.name} is there; `institution check` reads it")

    def policy(self) -> Iterator[Finding]:
        policy = self._policy()
        wiring.require_own_policy(policy, self._config)
        yield Finding("policy", "ok", f"signed, {policy.epsilon_per_dataset} for {policy.dataset}")
        if not policy.partners:
            yield Finding("partners", "look", "the policy names none", "name them: else whoever the root admits joins")
        if self._models and policy.allowed_models and self._models not in policy.allowed_models:
            raise BadConfig(f"policy: allowed_models does not name the model in the folder, {self._models}")

    def ledger(self) -> Iterator[Finding]:
        from fl_alliance.training.records import dataset_digest

        ledger = wiring.ledger_file(self._home, self._config, IdentityKey.load(self._keys.identity)).read()
        yield Finding("ledger", "ok", f"{len(ledger.entries)} charges, chained and signed")
        if not ledger.entries:
            return
        charged, now = ledger.entries[-1].dataset_digest, dataset_digest(self._home / self._config.data.path)
        if now != charged:
            raise BadConfig(f"data.path: the file is now {now}, charged was {charged}: it needs another data.name")
        yield from self._left(ledger)

    def _left(self, ledger: Ledger) -> Iterator[Finding]:
        """What is left of each cap, by the looser accountant: it answers at once."""
        policy, accountant = self._policy(), RdpAccountant()
        delta = min(Decimal(entry.delta) for entry in ledger.entries)
        for name, cap, entries in (
            ("epsilon_per_year", policy.epsilon_per_year, year_before(ledger.entries, int(time.time()))),
            ("epsilon_per_dataset", policy.epsilon_per_dataset, ledger.entries),
        ):
            used = spent(entries, accountant, delta)
            state: State = "ok" if used < Decimal(cap) else "look"
            yield Finding("budget", state, f"{name}: {used:.3f} of {cap} spent", "every plan will be refused")

    def _policy(self) -> InstitutionPolicy:
        data = read_file(self._home / "policy.dsse.json", "policy")
        return open_document(data, InstitutionPolicy, public_key=IdentityKey.load(self._keys.identity).public)


def _private(paths: tuple[Path, ...]) -> Iterator[Finding]:
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise BadConfig(f"{path}: mode {mode:04o} lets others read it, must be 0600")
    IdentityKey.load(paths[0])
    yield Finding("keys", "ok", f"{len(paths)} private keys, each for its owner alone")


def _certificate(keys: Keys, name: str | None, mend: str) -> Iterator[Finding]:
    """The own certificate: of the own key, signed by the pinned root, for `name`, and how long it lasts."""
    mine = x509.load_pem_x509_certificate(read_file(keys.tls_certificate, "TLS certificate"))
    root = x509.load_pem_x509_certificate(read_file(keys.tls_root, "TLS root certificate"))
    key = serialization.load_pem_private_key(read_file(keys.tls_key, "TLS key"), None)
    try:
        mine.verify_directly_issued_by(root)
    except (InvalidSignature, TypeError, ValueError):
        raise BadConfig(f"{keys.tls_certificate}: not signed by the root in {keys.tls_root}") from None
    if key.public_key() != mine.public_key():
        raise BadConfig(f"{keys.tls_certificate}: for another key than {keys.tls_key}")
    if name is not None and (said := mine.subject.rfc4514_string()) != f"CN={name}":
        raise BadConfig(f"{keys.tls_certificate}: for {said}, this folder is {name}")
    now = datetime.datetime.now(datetime.UTC)
    left = (min(mine.not_valid_after_utc, root.not_valid_after_utc) - now).days
    if now < mine.not_valid_before_utc or left < 0:
        raise BadConfig(
            f"{keys.tls_certificate}: valid {mine.not_valid_before_utc:%Y-%m-%d} to {mine.not_valid_after_utc:%Y-%m-%d}"
        )
    state: State = "ok" if left > SOON_DAYS else "look"
    yield Finding("certificate", state, f"valid for {left} days", mend)


def _clock_of(address: str, keys: Keys) -> float | None:
    """Return how far the coordinator's clock is from ours in seconds (None: it gave no date)."""
    with https_client(address, wiring.tls_files(keys).client_context(), timeout=_CALL_SECONDS) as call:
        try:
            date = call.get("/").headers.get("date")  # refused by the front, and dated
        except httpx.RemoteProtocolError as error:
            raise BadConfig(f"coordinator: {address} does not speak HTTP ({error!r})") from None
        except httpx.HTTPError as error:
            raise BadConfig(f"coordinator: {address} can't be reached: {error}") from None
    if date is None:
        return None
    return time.time() - email.utils.parsedate_to_datetime(date).timestamp()


def _members(home: Path) -> Iterator[Finding]:
    names = [request.name for request in admitted(home)]
    said = f"{len(names)} admitted: {', '.join(names) or 'nobody'}"
    state: State = "ok" if len(names) >= MIN_MEMBERS else "look"
    yield Finding("members", state, said, f"a job has {MIN_MEMBERS} at least: run `coordinator invite`")
    if list_is_behind(home):
        yield Finding(
            "list of members", "look", "signed for others than are members", "run `coordinator publish --root-key FILE`"
        )
    if asking := [request.name for request in waiting(home)]:
        yield Finding("waiting", "look", ", ".join(asking), "compare fingerprints by phone, run `coordinator admit`")


def _listener(config: CoordinatorConfig) -> Iterator[Finding]:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((config.host, config.port))
        except OSError as error:
            said = f"{config.host}:{config.port}: {error.strerror}"
            yield Finding("listener", "look", said, "fine while a job runs; else free it, or take another port")
            return
    yield Finding("listener", "ok", f"{config.host}:{config.port} is free")
