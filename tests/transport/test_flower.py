"""Flower boxed in: who is refused, and what survives a crash."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.control_pb2 import StopRunRequest

from fl_alliance.errors import BadConfig, LinkFailed
from fl_alliance.protocol.ids import blob_ref
from fl_alliance.transport.flower import bundle, coordinator, institution
from fl_alliance.transport.flower.coordinator import IN_MEMORY, FlowerCoordinatorLink
from fl_alliance.transport.flower.institution import FlowerInstitutionLink
from fl_alliance.transport.flower.internals.fleet import Fleet
from tests.transport.conftest import ROOT, Flower, all_replies, end_processes, member_process, until
from tests.transport.pki import Party, Pki
from tests.transport.stores import FolderBlobs


class Member:
    """An institution in a thread of this process."""

    def __init__(self, address: str, party: Party, state: Path) -> None:
        self.seen: list[bytes] = []
        self.link = FlowerInstitutionLink(address=address, tls=party.tls, node_key=party.node_key, state=state)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self.link.serve, args=(self._handle,), kwargs={"keep_going": lambda: not self._stop.is_set()}
        )

    def _handle(self, request: bytes) -> bytes:
        self.seen.append(request)
        if request.startswith(b"sleep "):
            time.sleep(float(request[6:]))
        return request

    def __enter__(self) -> Member:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.link.close()


def coordinator_link(pki: Pki, home: Path, nodes: dict[str, bytes], *, port: int = 0, **more) -> FlowerCoordinatorLink:
    settings = {"database": IN_MEMORY} | more
    return FlowerCoordinatorLink(
        host="127.0.0.1", port=port, tls=pki.party("coordinator").tls, nodes=nodes, blobs=FolderBlobs(home / "blobs"),
        home=home, **settings,
    )  # fmt: skip


def fleet(flower: Flower, party: Party) -> Fleet:
    key = load_ssh_private_key(party.node_key.read_bytes(), None)
    return Fleet(httpx.Client(verify=party.tls.client_context()), f"https://{flower.address}", key)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def test_a_node_key_that_is_not_enrolled_is_refused(flower: Flower) -> None:
    stranger = fleet(flower, flower.pki.party("stranger"))
    with pytest.raises(httpx.HTTPStatusError) as refused:
        stranger.activate()
    assert refused.value.response.is_client_error


def test_a_member_cannot_fetch_the_messages_of_another(flower: Flower) -> None:
    lima, oslo = fleet(flower, flower.parties["lima"]), flower.link._ids["oslo"]
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        lima.next(oslo)
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        lima.beat(oslo)


def test_a_run_with_a_hostile_bundle_is_refused_and_no_code_is_executed(pki: Pki, tmp_path, monkeypatch) -> None:
    traces = tmp_path / "executed"
    hostile = tmp_path / "hostile.fab"
    with zipfile.ZipFile(hostile, "w") as archive:
        code = f"import pathlib\npathlib.Path({str(traces)!r}).write_text('x')\n"
        manifest = bundle._APP.joinpath("pyproject.toml").read_text()
        for name, text in {
            "pyproject.toml": manifest,
            "trampoline/__init__.py": code,
            "trampoline/nothing.py": code,
        }.items():
            archive.writestr(name, text)
    monkeypatch.setattr(coordinator, "trampoline", hostile.read_bytes)
    party = pki.party("victim")
    link = coordinator_link(pki, tmp_path / "co", {"victim": party.node_public})
    with Member(f"127.0.0.1:{link.port}", party, tmp_path / "victim") as victim:
        link.ask("victim", b"obey")
        (reply,) = all_replies(link, 1)
    link.close()
    assert reply.payload is None
    assert (reply.failure or "").startswith("refused")
    assert victim.seen == []
    assert not traces.exists()


def test_a_killed_coordinator_finds_the_same_institution_again(pki: Pki, tmp_path) -> None:
    party, port, home = pki.party("survivor"), free_port(), tmp_path / "co"
    home.mkdir()
    tls = pki.party("coordinator").tls
    settings = {
        "ca": str(tls.ca), "certificate": str(tls.certificate), "key": str(tls.key), "port": str(port),
        "home": str(home), "member": "survivor", "node": party.node_public.decode(),
    }  # fmt: skip
    member = member_process(f"127.0.0.1:{port}", party, tmp_path / "survivor")
    command = [sys.executable, "-m", "tests.transport.coordinator_process", json.dumps(settings)]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert first.stdout is not None
        pid = first.stdout.readline().strip()
        assert pid == str(member.pid).encode()
        time.sleep(0.7)
        first.send_signal(signal.SIGKILL)
        first.wait()
        time.sleep(1.5)
        link = coordinator_link(pki, home, {"survivor": party.node_public}, port=port, database=home / "flower.db")
        node = dict(link._ids)
        link.ask("survivor", b"pid")
        link.ask("survivor", b"sleep 2")
        found = all_replies(link, 2, 40)
        assert {reply.payload for reply in found} == {pid, b"2 peels"}
        assert str(node["survivor"]) == (tmp_path / "survivor" / "node-id").read_text().strip()
        link.close()
    finally:
        end_processes(first, member)


def test_what_is_asked_of_an_absent_member_waits_for_it(pki: Pki, tmp_path) -> None:
    party = pki.party("late")
    link = coordinator_link(pki, tmp_path / "co", {"late": party.node_public})
    link.ask("late", b"are you there?")
    assert link.replies(0.3) == []
    for _ in range(2):  # the second time it comes back by heartbeat, with the node id it kept
        with Member(f"127.0.0.1:{link.port}", party, tmp_path / "late"):
            assert [reply.payload for reply in all_replies(link, 1)] == [b"are you there?"]
        until(lambda: link.online() == frozenset())
        link.ask("late", b"are you there?")
    link.close()


def test_an_institution_killed_at_work_is_asked_again_when_it_is_back(pki: Pki, tmp_path) -> None:
    party = pki.party("phoenix")
    link = coordinator_link(pki, tmp_path / "co", {"phoenix": party.node_public})
    state = tmp_path / "phoenix"
    first = member_process(f"127.0.0.1:{link.port}", party, state)
    link.ask("phoenix", b"sleep 1")
    until(lambda: link.replies(0.1) == [] and link._sent != {})
    time.sleep(0.7)
    first.kill()
    first.wait()
    node = (state / "node-id").read_text()
    second = member_process(f"127.0.0.1:{link.port}", party, state)
    try:
        assert [reply.payload for reply in all_replies(link, 1, 20)] == [b"1 peels"]
        assert (state / "node-id").read_text() == node
    finally:
        end_processes(second)
        link.close()


def test_a_member_that_was_taken_for_gone_is_asked_again(pki: Pki, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(institution, "_BEAT_S", 0.3)
    monkeypatch.setattr(coordinator, "_LOOK_S", 60.0)
    party = pki.party("quiet")
    link = coordinator_link(pki, tmp_path / "co", {"quiet": party.node_public})
    with Member(f"127.0.0.1:{link.port}", party, tmp_path / "quiet") as quiet:
        alive, beating, beat = threading.Event(), threading.Lock(), quiet.link._fleet.beat

        def beat_while_alive(node: int) -> bool:
            with beating:  # none is under way when the node is taken for gone
                return alive.is_set() and beat(node)

        alive.set()
        monkeypatch.setattr(quiet.link._fleet, "beat", beat_while_alive)
        link.ask("quiet", b"sleep 0.5")
        until(lambda: link.replies(0.1) == [] and quiet.seen != [])
        with beating:
            alive.clear()
            quiet.link._fleet.deactivate(link._ids["quiet"])
        until(lambda: link.replies(0.05) == [] and link._waiting != [])
        alive.set()
        assert [reply.payload for reply in all_replies(link, 1)] == [b"sleep 0.5"]
        assert len(quiet.seen) == 2
    link.close()


def test_a_request_expires(pki: Pki, tmp_path) -> None:
    link = coordinator_link(pki, tmp_path, {"absent": pki.party("absent").node_public}, ttl=0.2)
    link.ask("absent", b"")
    (reply,) = all_replies(link, 1, 5)
    assert (reply.member, reply.payload, reply.failure) == ("absent", None, "expired")
    link.close()
    link.close()
    with pytest.raises(LinkFailed):
        link.ask("absent", b"")


def test_a_member_that_was_struck_off_is_refused_after_a_restart(pki: Pki, tmp_path) -> None:
    parties = {name: pki.party(name) for name in ("stays", "goes")}
    nodes = {name: party.node_public for name, party in parties.items()}
    database = tmp_path / "flower.db"
    first = coordinator_link(pki, tmp_path, nodes, database=database)
    kept = first._ids["stays"]
    first.close()
    second = coordinator_link(pki, tmp_path, {"stays": nodes["stays"]}, database=database)
    assert second._ids == {"stays": kept}
    key = load_ssh_private_key(parties["goes"].node_key.read_bytes(), None)
    http = httpx.Client(verify=parties["goes"].tls.client_context())
    with pytest.raises(httpx.HTTPStatusError):
        Fleet(http, f"https://127.0.0.1:{second.port}", key).activate()
    second.close()


def test_a_long_handler_goes_on_giving_signs_of_life(pki: Pki, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(institution, "_BEAT_S", 0.1)
    party, beats = pki.party("busy"), []
    link = coordinator_link(pki, tmp_path / "co", {"busy": party.node_public})
    with Member(f"127.0.0.1:{link.port}", party, tmp_path / "busy") as busy:
        until(lambda: link.online() == {"busy"})
        beat = busy.link._fleet.beat
        monkeypatch.setattr(busy.link._fleet, "beat", lambda node: beats.append(busy.seen != []) or beat(node))
        link.ask("busy", b"sleep 1")
        assert [reply.payload for reply in all_replies(link, 1)] == [b"sleep 1"]
    assert sum(beats) >= 3
    link.close()


def test_closing_ends_every_thread(pki: Pki, tmp_path) -> None:
    before = set(threading.enumerate())
    coordinator_link(pki, tmp_path, {"a": pki.party("a").node_public}).close()
    until(lambda: {t for t in threading.enumerate() if t.name.startswith(("listener", "run-"))} <= before)


def test_a_lost_run_is_replaced_and_its_requests_are_sent_again(pki: Pki, tmp_path, monkeypatch) -> None:
    """As after the machine slept: Flower has given up the run while requests were under way."""
    party = pki.party("patient")
    link = coordinator_link(pki, tmp_path / "co", {"patient": party.node_public})
    with Member(f"127.0.0.1:{link.port}", party, tmp_path / "patient") as patient:
        until(lambda: link.online() == {"patient"})
        run = link._seat.run
        link.ask("patient", b"sleep 0.5")
        assert link.replies(0) == []
        until(lambda: patient.seen != [])
        link._control._client.StopRun(StopRunRequest(run_id=link._seat.run))
        assert [reply.payload for reply in all_replies(link, 1)] == [b"sleep 0.5"]
        assert len(patient.seen) == 2
        assert link._seat.run != run
    link.close()


@pytest.mark.parametrize("nodes", [{"a": b"ssh-ed25519 AAAA"}, {"a": b""}])
def test_a_node_key_of_another_kind_is_refused(pki: Pki, tmp_path, nodes: dict[str, bytes]) -> None:
    with pytest.raises(BadConfig, match="'a'"):
        coordinator_link(pki, tmp_path, nodes)


def test_two_members_with_one_key_are_refused(pki: Pki, tmp_path) -> None:
    key = pki.party("twin").node_public
    with pytest.raises(BadConfig, match="same node key"):
        coordinator_link(pki, tmp_path, {"a": key, "b": key})


def test_an_address_in_use_is_refused(pki: Pki, tmp_path, flower: Flower) -> None:
    with pytest.raises(LinkFailed, match="cannot listen"):
        coordinator_link(pki, tmp_path, {}, port=flower.link.port)


def test_the_memory_of_the_coordinator_stays_flat_under_a_large_blob(flower: Flower) -> None:
    data = os.urandom(192 << 20)
    ref = blob_ref(data)
    before = resident()
    blobs = institution.HttpBlobs(address=flower.address, tls=flower.parties["oslo"].tls)
    blobs.put(ref, (data[i : i + (1 << 20)] for i in range(0, len(data), 1 << 20)))
    assert sum(map(len, blobs.read(ref))) == len(data)
    blobs.close()
    # less than a copy: what other tests left behind moves this number by some dozen MiB
    assert resident() - before < 144 << 20


def resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


OFFLINE = """
import fcntl, socket, struct, subprocess, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", b"lo", 0x41))  # SIOCSIFFLAGS: loopback up
sys.exit(subprocess.call([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
    "tests/transport/test_flower.py::test_what_is_asked_of_an_absent_member_waits_for_it"]))
"""


@pytest.mark.skipif(subprocess.call(["unshare", "-rn", "true"]) != 0, reason="no network namespaces here")
def test_a_whole_run_needs_no_network_but_loopback() -> None:
    done = subprocess.run(["unshare", "-rn", sys.executable, "-c", OFFLINE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
