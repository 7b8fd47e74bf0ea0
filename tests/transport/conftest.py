"""An alliance over Flower on loopback: this process coordinates, each institution is a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fl_alliance.protocol.ports import CoordinatorLink, Reply
from fl_alliance.transport.flower.coordinator import FlowerCoordinatorLink
from tests.transport.pki import Party, Pki
from tests.transport.stores import FolderBlobs

MEMBERS = ("lagos", "lima", "oslo")
ROOT = Path(__file__).parents[2]


@dataclass
class Flower:
    link: FlowerCoordinatorLink
    parties: dict[str, Party]
    pki: Pki
    blobs: FolderBlobs
    home: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.link.port}"


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def all_replies(link: CoordinatorLink, count: int, seconds: float = 30.0) -> list[Reply]:
    found: list[Reply] = []
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        found += link.replies(1.0)
    return found


def member_process(address: str, party: Party, state: Path) -> subprocess.Popen[bytes]:
    settings = {
        "address": address, "ca": str(party.tls.ca), "certificate": str(party.tls.certificate),
        "key": str(party.tls.key), "node_key": str(party.node_key), "state": str(state),
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.transport.member_process", json.dumps(settings)]
    with (state.parent / f"{state.name}.log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stderr=log)


def end_processes(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def flower(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    home = tmp_path_factory.mktemp("alliance")
    parties = {name: pki.party(name) for name in MEMBERS}
    blobs = FolderBlobs(home / "blobs")
    link = FlowerCoordinatorLink(
        host="127.0.0.1", port=0, database=home / "flower.db", tls=pki.party("coordinator").tls,
        nodes={name: party.node_public for name, party in parties.items()}, blobs=blobs, home=home / "coordinator",
    )  # fmt: skip
    alliance = Flower(link, parties, pki, blobs, home)
    processes = [member_process(alliance.address, party, home / name) for name, party in parties.items()]
    try:
        until(lambda: link.online() == set(MEMBERS))
        yield alliance
    finally:
        end_processes(*processes)
        link.close()
