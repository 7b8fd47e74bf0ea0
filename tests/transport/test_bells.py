"""Bells: who waits hears at once, and a ring that is lost costs time only."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fl_alliance.protocol.ports import Reply
from fl_alliance.transport.flower import bells, coordinator, institution
from fl_alliance.transport.flower.bells import MOST_HELD, Bells
from fl_alliance.transport.flower.coordinator import IN_MEMORY, FlowerCoordinatorLink
from fl_alliance.transport.flower.institution import FlowerInstitutionLink
from tests.transport.conftest import all_replies, until
from tests.transport.pki import Party, Pki
from tests.transport.stores import FolderBlobs

NEVER = 3600.0
NODE = 7


@pytest.fixture(scope="module")
def party(pki: Pki) -> Party:
    return pki.party("listener")


@pytest.fixture
def link(pki: Pki, party: Party, tmp_path: Path) -> Iterator[FlowerCoordinatorLink]:
    made = FlowerCoordinatorLink(
        host="127.0.0.1", port=0, database=IN_MEMORY, tls=pki.party("coordinator").tls, home=tmp_path,
        nodes={"listener": party.node_public}, blobs=FolderBlobs(tmp_path / "blobs"),
    )  # fmt: skip
    yield made
    made.close()


class Listener:
    """The institution in a thread, which answers with what it was asked."""

    def __init__(self, link: FlowerCoordinatorLink, party: Party, state: Path) -> None:
        self._stop = threading.Event()
        self._link = FlowerInstitutionLink(
            address=f"127.0.0.1:{link.port}", tls=party.tls, node_key=party.node_key, state=state
        )
        going = {"keep_going": lambda: not self._stop.is_set()}
        self._thread = threading.Thread(target=self._link.serve, args=(lambda request: request,), kwargs=going)

    def __enter__(self) -> FlowerInstitutionLink:
        self._thread.start()
        return self._link

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._link.close()


def test_without_any_poll_each_request_and_each_reply_is_heard(
    link: FlowerCoordinatorLink, party: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(institution, "_QUIET_S", NEVER)
    found: list[Reply] = []
    with Listener(link, party, tmp_path / "state"):
        until(lambda: link.online() == {"listener"} and link._bells._held != {})
        monkeypatch.setattr(coordinator, "_POLL_S", (NEVER, NEVER))
        for number in (b"1", b"2", b"3"):
            link.ask("listener", number)
            link._pause = NEVER
            waiting = threading.Thread(target=lambda: found.extend(link.replies(NEVER)), daemon=True)
            waiting.start()
            waiting.join(30)
            assert [reply.payload for reply in found[-1:]] == [number]


def test_who_can_hear_the_bell_does_not_look_again_and_again(
    link: FlowerCoordinatorLink, party: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(institution, "_QUIET_S", NEVER)
    looks: list[int] = []
    with Listener(link, party, tmp_path / "state") as listener:
        look = listener._fleet.next
        monkeypatch.setattr(listener._fleet, "next", lambda node: looks.append(node) or look(node))
        link.ask("listener", b"1")
        assert len(all_replies(link, 1)) == 1
        before = len(looks)
        assert link.replies(1.0) == []
        assert len(looks) - before <= 2, "one after the answer, and one for a ring that came with it"


def test_a_ring_that_is_lost_costs_time_only(
    link: FlowerCoordinatorLink, party: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(institution, "_QUIET_S", 0.2)
    monkeypatch.setattr(Bells, "ring", lambda *_: None)
    monkeypatch.setattr(bells.Ear, "answered", lambda *_: None)
    with Listener(link, party, tmp_path / "state"):
        for number in (b"1", b"2"):
            link.ask("listener", number)
            assert [reply.payload for reply in all_replies(link, 1)] == [number]


def test_where_no_bell_can_be_reached_the_institution_looks_by_itself(
    link: FlowerCoordinatorLink, party: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_such_route(self: Bells, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    monkeypatch.setattr(Bells, "__call__", no_such_route)
    with Listener(link, party, tmp_path / "state"):
        for number in (b"1", b"2"):
            link.ask("listener", number)
            assert [reply.payload for reply in all_replies(link, 1)] == [number]


# ---- the coordinator's side alone


def asked(app: Bells, path: str, method: str = "GET") -> Any:
    """Return the response to one request, as a coroutine."""

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return await client.request(method, path)

    return ask()


def test_a_bell_is_answered_when_its_own_node_rings_and_not_another() -> None:
    app = Bells(lambda: None)
    app.hang([NODE, 8])

    async def story() -> tuple[str, str]:
        seen = (await asked(app, f"/bell/{NODE}")).text
        held = asyncio.ensure_future(asked(app, f"/bell/{NODE}?seen={seen}"))
        app.ring(8)
        await asyncio.sleep(0.05)
        assert not held.done()
        app.ring(NODE)
        return seen, (await held).text

    seen, heard = asyncio.run(story())
    assert int(heard) == int(seen) + 1


def test_a_ring_before_the_wait_is_heard_too() -> None:
    app = Bells(lambda: None)
    app.hang([NODE])

    async def story() -> bool:
        seen = (await asked(app, f"/bell/{NODE}")).text
        app.ring(NODE)
        return (await asked(app, f"/bell/{NODE}?seen={seen}")).text != seen

    assert asyncio.run(asyncio.wait_for(story(), bells.HOLD_S / 2))


def test_everybody_is_let_go_at_the_end_and_nobody_is_held_after_it() -> None:
    app = Bells(lambda: None)
    app.hang([NODE])

    async def story() -> None:
        seen = (await asked(app, f"/bell/{NODE}")).text
        held = asyncio.ensure_future(asked(app, f"/bell/{NODE}?seen={seen}"))
        await asyncio.sleep(0.05)
        app.close()
        assert (await held).text == seen
        assert (await asked(app, f"/bell/{NODE}?seen={seen}")).text == seen

    asyncio.run(asyncio.wait_for(story(), bells.HOLD_S / 2))


def test_a_member_that_waits_many_times_over_is_not_held() -> None:
    app = Bells(lambda: None)
    app.hang([NODE])

    async def story() -> None:
        seen = (await asked(app, f"/bell/{NODE}")).text
        many = [asyncio.ensure_future(asked(app, f"/bell/{NODE}?seen={seen}")) for _ in range(MOST_HELD)]
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in many)
        assert (await asked(app, f"/bell/{NODE}?seen={seen}")).text == seen
        app.close()
        await asyncio.gather(*many)

    asyncio.run(asyncio.wait_for(story(), bells.HOLD_S / 2))


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/bell/9"), ("GET", "/bell/"), ("PUT", f"/bell/{NODE}"), ("POST", "/bell/../bell/7")]
)
def test_what_is_no_bell_does_not_exist(method: str, path: str) -> None:
    rung: list[bool] = []
    app = Bells(lambda: rung.append(True))
    app.hang([NODE])
    assert asyncio.run(asked(app, path.replace("..", "%2e%2e"), method)).status_code == 404
    assert rung == []


def test_a_restarted_coordinator_s_bells_ring_for_who_waited_at_the_old_ones() -> None:
    old, new = Bells(lambda: None), Bells(lambda: None)
    for app in (old, new):
        app.hang([NODE])
    seen = asyncio.run(asked(old, f"/bell/{NODE}")).text
    heard = asyncio.run(asyncio.wait_for(asked(new, f"/bell/{NODE}?seen={seen}"), bells.HOLD_S / 2)).text
    assert heard != seen


def test_a_change_of_members_leaves_who_waits_waiting_and_lets_go_who_was_struck_off() -> None:
    app = Bells(lambda: None)
    app.hang([NODE, 8])

    async def story() -> None:
        seen = {node: (await asked(app, f"/bell/{node}")).text for node in (NODE, 8)}
        stays, gone = (asyncio.ensure_future(asked(app, f"/bell/{node}?seen={seen[node]}")) for node in (NODE, 8))
        await asyncio.sleep(0.05)
        app.hang([NODE, 9])
        assert (await gone).text == ""
        assert not stays.done()
        app.ring(NODE)
        assert int((await stays).text) == int(seen[NODE]) + 1
        assert (await asked(app, "/bell/8")).status_code == 404

    asyncio.run(asyncio.wait_for(story(), bells.HOLD_S / 2))
