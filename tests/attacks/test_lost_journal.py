"""An institution's database has lost its newest events, and the coordinator asks for them again: nothing leaves twice.

A database that was put back from a copy, or a standby that took over too early, is an honest house's accident; whoever
runs the database can bring it about. The house's own disk, with its ledger, is as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fl_alliance.protocol import messages as m
from tests.attacks.test_after_a_crash import dealt, delivery
from tests.attacks.wire import Refused, Wire


@pytest.fixture
def wire(tmp_path: Path) -> Wire:
    wire = Wire(tmp_path, 4)
    wire.start()
    return wire


@contextmanager
def forgotten(wire: Wire) -> Iterator[None]:
    """The victim's database forgets what is done inside, and its process starts again."""
    before = copy.deepcopy(wire.pages[wire.victim])
    yield
    wire.pages[wire.victim] = before
    wire.restart(wire.victim)


def test_no_second_vector_is_sealed_under_the_masks_of_one_whose_answer_the_journal_has_lost(wire: Wire):
    request = delivery(wire, dealt(wire), wire.names)
    with forgotten(wire):
        wire.ask(wire.victim, request)
    wire.desks[wire.victim].trainer.update = -wire.desks[wire.victim].trainer.update  # as fresh noise would be
    before = set(wire.blobs.data)
    with pytest.raises(Refused, match="OutOfOrder: another update of round 1 left this house before"):
        wire.ask(wire.victim, request)
    assert set(wire.blobs.data) == before


def test_no_shares_are_revealed_for_a_second_list_when_the_journal_has_lost_the_first(wire: Wire):
    wire.upload()
    with forgotten(wire):
        wire.ask(wire.victim, wire.confirm(wire.list_of(wire.names), wire.names))
    fewer = wire.names[1:]
    shown = wire.list_of(fewer)
    confirmations = wire.confirm(shown, [wire.victim], helpers=[name for name in fewer if name != wire.victim])
    with pytest.raises(Refused, match="OutOfOrder: another list of round 1 left this house before"):
        wire.ask(wire.victim, confirmations)


def test_the_same_vector_and_the_same_list_may_leave_again(wire: Wire):
    """So that a note is no trap for a house that was killed just after it."""
    said = dealt(wire)
    with forgotten(wire):
        wire.ask(wire.victim, delivery(wire, said, wire.names))  # the stand-in for training gives the same again
    wire.ask_all(delivery(wire, said, wire.names))
    shown = wire.list_of(wire.names)
    confirmations = wire.confirm(shown, wire.names)
    with forgotten(wire):
        wire.ask(wire.victim, confirmations)
    assert wire.ask(wire.victim, confirmations)
    assert isinstance(wire.answer(m.RevealedShares, wire.victim), m.RevealedShares)
