"""Lengths of messages from the plan alone: as long as real ones, and with too many members a plan is refused."""

from __future__ import annotations

import base64
import os

import pytest

from fl_alliance.errors import BadPlan
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.parties.mail import Address, write_answer, write_request
from fl_alliance.protocol import messages as m
from fl_alliance.protocol import sizes
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.limits import SEALED_SHARES_BYTES, WRAPPED_KEY_BYTES
from fl_alliance.protocol.plan import Member, TrainingPlan
from fl_alliance.secagg import cipher, keywrap
from fl_alliance.secagg.parameters import sum_parameters
from tests.protocol.examples import PLAN

IDENTITY, DIGEST = IdentityKey.generate(), digest_of(b"")


def plan_of(members: int, width: int = 63) -> TrainingPlan:
    seats = (Member(name=f"{number:04d}".ljust(width, "x"), declared_units=1000) for number in range(members))
    changes = {"members": tuple(seats), "threshold": members, "quorum": members}
    return TrainingPlan.model_validate({**PLAN.model_dump(), **changes})


def text(length: int) -> str:
    return base64.b64encode(os.urandom(length)).decode()


def answer(name: str, message: m.Answer) -> str:
    return base64.b64encode(write_answer(Address(name, "coordinator", {}), IDENTITY, message)).decode()


def request(name: str, message: m.Request) -> int:
    return len(write_request(Address("coordinator", "coordinator", {}), IDENTITY, name, message))


def for_each(plan: TrainingPlan, length: int) -> tuple[m.ToMember, ...]:
    return tuple(m.ToMember(member=name, sealed=text(length)) for name in plan.names)


@pytest.mark.parametrize("members", [3, 17])
def test_no_real_message_is_longer_than_its_plan_said_and_hardly_shorter(members: int) -> None:
    plan = plan_of(members)
    bound = {"alliance": plan.alliance, "job": plan.job, "round": plan.rounds}
    shares = m.SealedShares(**bound, roster_digest=DIGEST, shares=for_each(plan, SEALED_SHARES_BYTES))
    dealt = tuple(answer(name, shares) for name in plan.names)
    accepted = m.Acceptance(**bound, plan_digest=DIGEST, wrap_key=text(32), ledger_head=DIGEST)
    wrapped = m.WrappedKeys(
        **bound, acceptances_digest=DIGEST, key_fingerprint=DIGEST, wrapped=for_each(plan, WRAPPED_KEY_BYTES)
    )
    keys = m.KeyDelivery(
        **bound,
        acceptances=tuple(answer(name, accepted) for name in plan.names),
        wrapped_keys=answer(plan.names[0], wrapped),
    )
    real = {
        sizes._share_delivery: request(plan.names[0], m.ShareDelivery(**bound, sealed_shares=dealt)),
        sizes._key_delivery: request(plan.names[0], keys),
        sizes.longest_wrapped_keys: len(base64.b64decode(keys.wrapped_keys)),
    }
    for bound_of, length in real.items():
        assert length <= bound_of(plan) <= 1.05 * length
    assert len(base64.b64decode(dealt[0])) <= sizes.longest_answer(plan)


def test_a_wrapped_key_and_dealt_shares_are_within_their_bounds() -> None:
    _, public = keywrap.generate_wrap_key()
    for members, bits in ((3, 8), (79, 16), (1000, 12)):
        key = cipher.AllianceKey.generate(sum_parameters(members=members, bits=bits)).to_bytes()
        assert WRAPPED_KEY_BYTES - 200 < len(keywrap.wrap_key(key, public, "info")) <= WRAPPED_KEY_BYTES


@pytest.mark.parametrize("width", [4, 63])
def test_seventy_nine_members_are_the_most(width: int) -> None:
    sizes.require_sendable(plan_of(79, width))
    with pytest.raises(BadPlan, match=r"members: with 80 of them a key-delivery has \d+ bytes, a message at most"):
        sizes.require_sendable(plan_of(80, width))


def test_too_many_shares_are_refused_where_the_keys_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_key_delivery", lambda _: 0)
    sizes.require_sendable(plan_of(140))
    with pytest.raises(BadPlan, match="with 150 of them a share-delivery has"):
        sizes.require_sendable(plan_of(150))
