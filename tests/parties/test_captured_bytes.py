"""Every byte that the coordinator's process receives, stores and holds in memory, searched for every secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from fl_alliance.parties import setup, wiring
from fl_alliance.parties.demo import stage
from fl_alliance.protocol.plan import TrainingPlan
from tests.parties.conftest import SITES, settings, write_records
from tests.parties.haystack import Needles, peeled
from tests.parties.processes import ROOT, Party, replies

WHAT = (
    "update in float64", "update in float32", "packed update", "digits", "digits of 16 bits", "sum", "alliance key",
    "mask seed", "self seed", "channel key", "mask key", "wrap key", "content key", "unwrapped key", "share 1",
    "share 2", "share 3",
)  # fmt: skip


@dataclass
class Spied:
    """Folders of an alliance whose institutions note their secrets and run."""

    folder: Path
    plan: TrainingPlan

    @property
    def home(self) -> Path:
        return self.folder / setup.COORDINATOR

    def notes(self, name: str) -> Path:
        return self.folder / f"{name}.notes"

    def run(self, job: str) -> tuple[int, Haystack]:
        """Run the coordinator of a job under the tap; return its exit code and what it saw."""
        capture = self.folder / f"capture-{job}"
        arguments = (str(capture), "coordinator", "run", str(self.home), job)
        coordinator = Party(self.folder, job, *arguments, entry="tests.parties.spying_coordinator")
        try:
            code = coordinator.wait()
        finally:
            coordinator.kill()
        wire = b"".join(path.read_bytes() for path in sorted(capture.glob("[0-9]*")))
        memory = (capture / "memory").read_bytes()
        (capture / "memory").unlink()
        stored = b"".join(path.read_bytes() for path in sorted(self.home.rglob("*")) if path.is_file())
        return code, Haystack(peeled(wire), peeled(stored), memory)


@dataclass
class Haystack:
    """What reached the coordinator, what it keeps, and what it held at the end; the first two with base64 undone."""

    wire: bytes
    stored: bytes
    memory: bytes

    def parts(self) -> dict[str, bytes]:
        return {"wire": self.wire, "stored": self.stored, "memory": self.memory}


@pytest.fixture(scope="module")
def spied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spied]:
    base = tmp_path_factory.mktemp("captured")
    write_records(base / "data")
    folder = base / "alliance"
    plan = stage.prepare(settings(ROOT / "deploy/demo/model", base / "data", rounds=1), base, folder, threads=1)
    made = Spied(folder, plan)
    parties = []
    try:
        for name in SITES:
            arguments = (str(made.notes(name)), "institution", "run", str(folder / name))
            parties.append(Party(folder, name, *arguments, entry="tests.parties.spying_institution"))
        yield made
    finally:
        for party in parties:
            party.kill()


@pytest.fixture(scope="module")
def honest(spied: Spied) -> Haystack:
    """What the coordinator saw of a job that went well."""
    code, seen = spied.run(spied.plan.job)
    assert code == 0, (spied.folder / f"{spied.plan.job}.log").read_text()
    return seen


def noted(spied: Spied, *, after: int = 0) -> dict[str, bytes]:
    """Return the secrets that the institutions noted, all or those after so many lines, each with a name."""
    found = {}
    for name in SITES:
        for number, line in enumerate(spied.notes(name).read_text().splitlines()[after:]):
            what, secret = json.loads(line)
            found[f"{name}: {what} ({number})"] = bytes.fromhex(secret)
    return found


def private_keys(home: Path) -> dict[str, bytes]:
    """Return what is secret in an institution's key files: 32 bytes, or a number of 48."""
    keys = setup.Keys(home)
    identity = load_pem_private_key(keys.identity.read_bytes(), None)
    tls = load_pem_private_key(keys.tls_key.read_bytes(), None)
    node = load_ssh_private_key(keys.node_key.read_bytes(), None)
    assert isinstance(tls, EllipticCurvePrivateKey)
    assert isinstance(node, EllipticCurvePrivateKey)
    return {
        f"{home.name}: identity key": identity.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()),
        f"{home.name}: tls key": tls.private_numbers().private_value.to_bytes(48, "big"),
        f"{home.name}: node key": node.private_numbers().private_value.to_bytes(48, "big"),
    }


def test_no_update_sum_or_key_is_among_the_bytes_that_the_coordinator_receives_stores_or_holds(
    spied: Spied, honest: Haystack
):
    secrets = noted(spied)
    for what in WHAT:
        sites = {name for name in SITES if any(f"{name}: {what} " in secret for secret in secrets)}
        assert sites == ({"clinic"} if what in {"alliance key", "content key"} else set(SITES)), what
    for name in SITES:
        secrets |= private_keys(spied.folder / name)
    needles = Needles(secrets)
    for place, data in honest.parts().items():
        assert needles.found_in(data) == set(), place


def test_the_search_finds_what_the_coordinator_did_receive(spied: Spied, honest: Haystack):
    """Every reply of every institution is on the wire and stored, every upload too; the last replies are in memory."""
    sent = {f"{name} {n}": body for name in SITES for n, body in enumerate(replies(spied.folder / name))}
    uploads = {path.name: path.read_bytes() for path in (spied.home / "blobs").iterdir()}
    uploads = {name: data for name, data in uploads.items() if data.startswith(b"FLSC")}  # not the log's pieces
    assert len(uploads) == len(SITES) + 1
    needles = Needles(sent)
    assert needles.found_in(honest.wire) == set(sent)
    assert needles.found_in(honest.stored) == set(sent)
    assert len(needles.found_in(honest.memory)) > len(sent) // 2
    assert len(Needles(uploads).found_in(honest.wire)) == len(SITES)


def test_the_search_finds_an_update_that_is_sent_in_the_clear(spied: Spied, honest: Haystack):
    """With masks and cipher switched off inside the institutions, the same search finds their updates."""
    before = min(len(spied.notes(name).read_text().splitlines()) for name in SITES)
    for name in SITES:
        Path(f"{spied.notes(name)}.naked").touch()
    wiring.propose(spied.home, spied.plan.model_copy(update={"job": "job-2"}))
    code, seen = spied.run("job-2")
    assert code == 1
    assert "was refused: WrongCipher" in (spied.folder / "job-2.log").read_text()
    packed = {key: value for key, value in noted(spied, after=before).items() if "packed update" in key}
    assert len(packed) == len(SITES)
    assert Needles(packed).found_in(seen.wire) == set(packed)
    assert Needles(packed).found_in(seen.stored) == set(packed)
    assert Needles(packed).found_in(seen.memory) != set()
