"""A job after a job that ended while one institution did not hear of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from fl_alliance.parties import wiring
from fl_alliance.parties.desk import InstitutionDesk
from fl_alliance.parties.institution import Institution
from fl_alliance.parties.mail import read_request
from fl_alliance.rounds import coordinator as machine
from fl_alliance.rounds import institution as seat
from tests.parties.conftest import SITES, Alliance

Build = Callable[..., Alliance]


class Deaf:
    """One institution that hears everything but aborts."""

    def __init__(self, alliance: Alliance, name: str) -> None:
        inner = alliance.handlers[name]
        shell = getattr(inspect.unwrap(inner), "__self__", None)
        assert isinstance(shell, Institution)
        self.shell, self.inner = shell, inner
        alliance.handlers[name] = self.hear

    def hear(self, request: bytes) -> bytes:
        if self.shell._address.keys and read_request(self.shell._address, request).kind == "abort":
            raise ConnectionError("away")
        return self.inner(request)


def test_an_institution_that_never_heard_the_abort_takes_part_in_the_next_job(
    build: Build, monkeypatch: pytest.MonkeyPatch
):
    alliance = build(rounds=1)
    deaf = Deaf(alliance, "clinic")
    (alliance.folder.parent / "data" / "school.jsonl").rename(alliance.folder.parent / "data" / "away.jsonl")
    forgotten: list[str] = []
    forget = InstitutionDesk.forget
    monkeypatch.setattr(InstitutionDesk, "forget", lambda desk: (forgotten.append(desk._name), forget(desk))[1])

    first = alliance.coordinator()
    first._farewell_seconds = 0.1
    state = first.run()
    assert isinstance(state, machine.Aborted)
    assert "school refused" in state.reason
    assert isinstance(deaf.shell.state, seat.Waiting), "it still waits for the job that ended"

    (alliance.folder.parent / "data" / "away.jsonl").rename(alliance.folder.parent / "data" / "school.jsonl")
    forgotten.clear()
    alliance.plan = alliance.plan.model_copy(update={"job": "job-2"})
    wiring.propose(alliance.folder / "coordinator", alliance.plan)
    state = alliance.coordinator().run()
    assert isinstance(state, machine.Finished), state
    assert forgotten[0] == "clinic", "the secrets of the first job went before the second began"
    assert all((alliance.job(name) / "adapter").is_dir() for name in SITES)
