"""Scenes for tests of deep states: a world in a chosen phase, and what may be done to it there."""

from __future__ import annotations

import base64

from fl_alliance.protocol import messages as m
from fl_alliance.rounds import coordinator as c
from tests.rounds.hostile import RELAYS, World, changed, world_of
from tests.rounds.play import opened, sealed

FOUR = {"members": 4, "threshold": 3, "quorum": 3}


def world_at(kind: str, number: int = 2, **shape: int | None) -> World:
    world = world_of(**shape)
    while world.book.phase != (kind, number):
        assert world.honest_step()
    return world


def to_the_end(world: World) -> c.State:
    while world.honest_step():
        pass
    world.crash()
    return world.state


def ask_for(world: World, member: str) -> c.Ask:
    """Take what `member` is asked off the wire."""
    (ask,) = (ask for ask in world.wire if ask.member == member)
    world.wire.remove(ask)
    return ask


def lie(world: World, member: str, field: str) -> None:
    """`member` answers what it is asked, with something else in `field`."""
    assert world.event(world.sign(member, changed(world.hand(ask_for(world, member)), field)))


def the_others_finish(world: World, gone: str, reason: str) -> None:
    """One member is out, knows why, and heard nothing else; the others have a record with their votes."""
    state = to_the_end(world)
    assert isinstance(state, c.Finished)
    assert set(state.progress.left) == {gone}
    assert reason in state.progress.left[gone]
    assert gone in world.told
    others = set(world.plan.names) - {gone}
    assert all(("Keep", 2) in world.sites[name].gate.done for name in others)


def until_asked(world: World, kind: str, member: str) -> c.Ask:
    """Play until `member` is asked `kind` in round 2, and take it off the wire."""
    while True:
        for ask in world.wire:
            if (ask.member, ask.request.kind, ask.request.round) == (member, kind, 2):
                world.wire.remove(ask)
                return ask
        assert world.honest_step()


def resigned(request: m.Request, member: str, **fields: object) -> m.Request:
    """`request` with other words of one member in it, as if it had signed them."""
    field = RELAYS[request.kind][1]
    envelopes = []
    for envelope in getattr(request, field):
        name, answer = opened(base64.b64decode(envelope))
        other = answer.model_copy(update=fields) if name == member else answer
        envelopes.append(base64.b64encode(sealed(name, other)).decode())
    return request.model_copy(update={field: tuple(envelopes)})


def without(request: m.Request, *missing: str) -> m.Request:
    field = RELAYS[request.kind][1]
    kept = tuple(e for e in getattr(request, field) if opened(base64.b64decode(e))[0] not in missing)
    return request.model_copy(update={field: kept})
