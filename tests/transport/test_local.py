"""The in-process carrier's faults, each by name, and its threads."""

from __future__ import annotations

import threading

import pytest

from fl_alliance.errors import LinkFailed
from fl_alliance.transport.local import Fault, Faults, LocalHub, RandomFaults
from tests.transport.stores import FolderBlobs


def hub_with(tmp_path, faults: Faults) -> LocalHub:
    hub = LocalHub(["lagos", "oslo"], FolderBlobs(tmp_path), faults)
    hub.attach("lagos", lambda request: b"lagos " + request)
    hub.attach("oslo", lambda request: b"oslo " + request)
    return hub


def exchange(hub: LocalHub, *requests: tuple[str, bytes]) -> list[tuple[str, bytes | None]]:
    link = hub.coordinator_link()
    for member, request in requests:
        link.ask(member, request)
    return [(reply.member, reply.payload) for reply in link.replies(5)]


def test_a_dropped_request_never_reaches_the_handler(tmp_path) -> None:
    hub = hub_with(tmp_path, Faults(drop_request={("lagos", 1)}))
    assert exchange(hub, ("lagos", b"1"), ("lagos", b"2")) == [("lagos", b"lagos 2")]


def test_a_dropped_reply_was_handled(tmp_path) -> None:
    seen: list[bytes] = []
    hub = hub_with(tmp_path, Faults(drop_reply={("lagos", 1)}))
    hub.attach("lagos", lambda request: seen.append(request) or b"")
    assert exchange(hub, ("lagos", b"1")) == []
    assert seen == [b"1"]


def test_a_request_delivered_twice_is_answered_twice(tmp_path) -> None:
    hub = hub_with(tmp_path, Faults(deliver_twice={("oslo", 1)}))
    assert exchange(hub, ("oslo", b"1")) == [("oslo", b"oslo 1")] * 2


def test_a_delayed_reply_is_overtaken(tmp_path) -> None:
    hub = hub_with(tmp_path, Faults(delay={("lagos", 1): 1}))
    assert exchange(hub, ("lagos", b"1"), ("lagos", b"2")) == [("lagos", b"lagos 2")]
    assert exchange(hub) == [("lagos", b"lagos 1")]


def test_a_reply_can_be_handed_over_in_anothers_name(tmp_path) -> None:
    hub = hub_with(tmp_path, Faults(misattribute={("lagos", 1): "oslo"}))
    assert exchange(hub, ("lagos", b"1")) == [("oslo", b"lagos 1")]


def test_faults_at_random_come_at_their_rates_and_the_same_from_the_same_seed() -> None:
    messages = [("lagos", number) for number in range(1, 4001)]
    source = RandomFaults(seed=1, lose=0.1, duplicate=0.2, delay=0.3, longest_delay=5)
    faults = [source.of(nth) for nth in messages]
    rates = {
        "drop_request": (sum(fault.drop_request for fault in faults), 0.1),
        "drop_reply": (sum(fault.drop_reply for fault in faults), 0.1),
        "twice": (sum(fault.twice for fault in faults), 0.2),
        "delay": (sum(fault.delay > 0 for fault in faults), 0.3),
    }
    for name, (seen, rate) in rates.items():  # six standard deviations
        assert abs(seen - 4000 * rate) < 6 * (4000 * rate * (1 - rate)) ** 0.5, name
    assert {fault.delay for fault in faults} == set(range(6))
    assert sum(fault.drop_request and fault.drop_reply for fault in faults) < 90  # one does not go with the other
    assert [source.of(nth) for nth in reversed(messages)] == faults[::-1]
    assert [RandomFaults(seed=2, lose=0.1).of(nth) for nth in messages] != faults
    assert RandomFaults(seed=1).of(("lagos", 1)) == Fault()


def test_what_is_asked_of_an_absent_member_waits(tmp_path) -> None:
    hub = hub_with(tmp_path, Faults())
    hub.offline.add("lagos")
    assert hub.coordinator_link().online() == {"oslo"}
    assert exchange(hub, ("lagos", b"1")) == []
    hub.offline.clear()
    assert exchange(hub) == [("lagos", b"lagos 1")]


def test_serve_answers_in_a_thread_until_told_to_stop(tmp_path) -> None:
    hub = LocalHub(["lagos"], FolderBlobs(tmp_path))
    stop = threading.Event()
    thread = threading.Thread(
        target=hub.institution_link("lagos").serve,
        args=(bytes.upper,),
        kwargs={"keep_going": lambda: not stop.is_set()},
    )
    thread.start()
    link = hub.coordinator_link()
    link.ask("lagos", b"hello")
    assert [reply.payload for reply in link.replies(10)] == [b"HELLO"]
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert link.online() == frozenset()


def test_a_closed_link_takes_no_request(tmp_path) -> None:
    link = LocalHub(["lagos"], FolderBlobs(tmp_path)).coordinator_link()
    link.close()
    link.close()
    with pytest.raises(LinkFailed):
        link.ask("lagos", b"")


def test_a_stranger_gets_no_end_of_the_wire(tmp_path) -> None:
    with pytest.raises(LinkFailed):
        LocalHub(["lagos"], FolderBlobs(tmp_path)).institution_link("oslo")
