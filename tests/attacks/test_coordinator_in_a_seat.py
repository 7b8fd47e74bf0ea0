"""A coordinator that names itself a member of the job: its identity is in the signed list, and so it can sign answers.

A member gets the alliance key, and where its name sorts first it makes it. With a helper beside it, or with its own
seat counted as an update, the sum is what it must not see.
"""

from __future__ import annotations

import base64

import pytest

from fl_alliance.parties import institution, mail
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import Member
from fl_alliance.secagg import cipher, keywrap
from fl_alliance.secagg.parameters import sum_parameters
from tests.attacks.test_swapped_keys import text
from tests.attacks.wire import BITS, Refused, Wire, relay


def with_a_seat(wire: Wire, name: str) -> list[str]:
    """Change the plan: one member more, `name`; return the real ones."""
    seat = Member(name=name, declared_units=wire.plan.members[0].declared_units)
    seats = sorted((*wire.plan.members, seat), key=lambda member: member.name)
    wire.plan = wire.plan.model_copy(update={"members": tuple(seats), "threshold": 3, "quorum": 3})
    wire.plan_envelope = wire.signed(wire.plan)
    return wire.names


def test_a_plan_with_the_coordinator_in_a_members_seat_is_refused(tmp_path):
    """Attacker holds: the coordinator's key. Saw: a refusal before anything was made. Learnt: nothing."""
    wire = Wire(tmp_path, 3, helpers=0)
    for name in with_a_seat(wire, "coordinator"):
        with pytest.raises(Refused, match="BadPlan: members: coordinator: no institution of alliance"):
            wire.ask(name, wire.proposal())


def test_without_the_check_of_seats_the_coordinator_makes_the_alliance_key(monkeypatch, tmp_path):
    """Defence off: who may have a seat. Attacker holds: the coordinator's key and no helper.
    Saw: every member taking a key that the coordinator made. Learnt: the key that opens every sum of the job.
    """
    monkeypatch.setattr(institution, "_require_institutions", lambda *_: None)
    wire = Wire(tmp_path, 3, helpers=0)
    real, digest = with_a_seat(wire, "coordinator"), digest_of(wire.plan_envelope)
    accepted = wire.ask_all(wire.proposal(), real)
    _, public = keywrap.generate_wrap_key()
    own = m.Acceptance(**wire.bound, plan_digest=digest, wrap_key=text(public), ledger_head=digest)
    accepted["coordinator"] = wire.sign("coordinator", own)
    key = cipher.AllianceKey.generate(sum_parameters(members=4, bits=BITS))
    request = m.KeyRequest(**wire.bound, acceptances=relay(accepted))
    content_key, sealed = keywrap.seal_key(key.to_bytes(), wire.info("alliance-key", key.fingerprint()))
    wrapped = []
    for name in sorted(accepted):
        _, answer = mail.read_answer(wire.address, base64.b64decode(accepted[name]))
        public = base64.b64decode(answer.wrap_key)
        mine = keywrap.wrap_key(content_key, public, wire.info("content-key", name))
        wrapped.append(m.ToMember(member=name, sealed=text(mine)))
    keys = m.WrappedKeys(
        **wire.bound,
        acceptances_digest=digest_of(encode(request)),
        key_fingerprint=key.fingerprint(),
        sealed_key=text(sealed),
        wrapped=tuple(wrapped),
    )
    delivery = m.KeyDelivery(**wire.bound, acceptances=relay(accepted), wrapped_keys=wire.sign("coordinator", keys))
    wire.ask_all(delivery, real)
    assert [wire.answer(m.KeyAccepted, name).key_fingerprint for name in real] == [key.fingerprint()] * 3


def test_a_plan_with_a_member_that_nobody_knows_or_of_another_alliance_is_refused(tmp_path):
    """The second would be charged, and its evidence would be refused by every auditor."""
    wire = Wire(tmp_path, 3, helpers=0)
    plan = wire.plan
    with_a_seat(wire, "nobody")
    with pytest.raises(Refused, match="BadPlan: members: nobody: no institution of alliance"):
        wire.ask(wire.victim, wire.proposal())
    wire.plan = plan.model_copy(update={"alliance": "another"})
    wire.plan_envelope = wire.signed(wire.plan)
    with pytest.raises(Refused, match="BadPlan: alliance: 'another', "):
        wire.ask(wire.victim, wire.proposal())
