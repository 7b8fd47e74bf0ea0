"""A coordinator that brings back another head than the one that the institution signed: it is refused by name."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.log import head_entry
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.ids import digest_of
from tests.attacks.wire import Refused, Wire

DIGEST = digest_of(b"a head that the victim never had")


def accepted(wire: Wire) -> m.Acceptance:
    return m.Acceptance(**wire.bound, plan_digest=DIGEST, wrap_key="AAAA", ledger_head=DIGEST)


FOREIGN: dict[str, tuple[Callable[[Wire], str], str]] = {
    "forged in the victim's name": (
        lambda wire: wire.sign(wire.victim, accepted(wire), IdentityKey.generate()),
        "NotAuthentic: signed with key",
    ),
    "another member's": (
        lambda wire: wire.sign(wire.names[0], accepted(wire)),
        "NotAuthentic: last_seen: acceptance of site-00, must be acceptance or sealed-update of site-02",
    ),
    "an answer without a head": (
        lambda wire: wire.sign(wire.victim, m.KeyAccepted(**wire.bound, key_fingerprint=DIGEST)),
        "NotAuthentic: last_seen: key-accepted of site-02, must be",
    ),
    "no envelope": (lambda _: base64.b64encode(b"{}").decode(), "MalformedMessage: "),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_head_that_the_institution_did_not_sign_is_refused_by_name(tmp_path: Path, name: str) -> None:
    wire = Wire(tmp_path, 3)
    make, said = FOREIGN[name]
    wire.last_seen = make(wire)
    with pytest.raises(Refused, match=said):
        wire.ask(wire.victim, wire.proposal())


def test_an_answer_of_its_own_is_taken_whatever_job_it_is_of(tmp_path: Path) -> None:
    wire = Wire(tmp_path, 3)
    answer = accepted(wire).model_copy(update={"job": "another-job"})
    wire.last_seen = wire.sign(wire.victim, answer)
    wire.log.add(head_entry(wire.victim, answer, base64.b64decode(wire.last_seen)))
    wire.ask(wire.victim, wire.proposal())
