"""Lengths of messages from the plan alone: as long as real ones, and with too many members a plan is refused."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest

from fl_alliance.errors import BadPlan
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.parties.mail import Address, write_answer, write_request
from fl_alliance.protocol import messages as m
from fl_alliance.protocol import sizes
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.limits import (
    MAX_MEMBERS,
    MAX_MESSAGE_BYTES,
    SEALED_KEY_BYTES,
    SEALED_SHARES_BYTES,
    WRAPPED_KEY_BYTES,
)
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


def bound_of(plan: TrainingPlan) -> dict[str, Any]:
    return {"alliance": plan.alliance, "job": plan.job, "round": plan.rounds}


def share_delivery(plan: TrainingPlan) -> m.ShareDelivery:
    shares = m.SealedShares(**bound_of(plan), roster_digest=DIGEST, shares=for_each(plan, SEALED_SHARES_BYTES))
    return m.ShareDelivery(**bound_of(plan), sealed_shares=tuple(answer(name, shares) for name in plan.names))


def key_delivery(plan: TrainingPlan) -> m.KeyDelivery:
    """Everything in it as long as it can be: the alliance key, too."""
    bound = bound_of(plan)
    accepted = m.Acceptance(**bound, plan_digest=DIGEST, wrap_key=text(32), ledger_head=DIGEST)
    keys = m.WrappedKeys(
        **bound,
        acceptances_digest=DIGEST,
        key_fingerprint=DIGEST,
        sealed_key=text(SEALED_KEY_BYTES),
        wrapped=for_each(plan, WRAPPED_KEY_BYTES),
    )
    acceptances = tuple(answer(name, accepted) for name in plan.names)
    return m.KeyDelivery(**bound, acceptances=acceptances, wrapped_keys=answer(plan.names[0], keys))


@pytest.mark.parametrize("members", [3, 17])
def test_no_real_message_is_longer_than_its_plan_said_and_hardly_shorter(members: int) -> None:
    plan = plan_of(members)
    dealt, keys = share_delivery(plan), key_delivery(plan)
    real = {
        sizes._share_delivery: request(plan.names[0], dealt),
        sizes.longest_wrapped_keys: len(base64.b64decode(keys.wrapped_keys)),
    }
    for most, length in real.items():
        assert length <= most(plan) <= 1.05 * length
    assert len(base64.b64decode(dealt.sealed_shares[0])) <= sizes.longest_answer(plan)


def test_a_sealed_alliance_key_is_within_its_bound_and_a_wrapped_content_key_has_its_length() -> None:
    _, public = keywrap.generate_wrap_key()
    for members, bits in ((3, 8), (141, 16), (1000, 12)):
        key = cipher.AllianceKey.generate(sum_parameters(members=members, bits=bits)).to_bytes()
        content_key, sealed = keywrap.seal_key(key, "info")
        assert SEALED_KEY_BYTES - 200 < len(sealed) <= SEALED_KEY_BYTES
        assert len(keywrap.wrap_key(content_key, public, "info")) == WRAPPED_KEY_BYTES


@pytest.mark.parametrize(("width", "most"), [(4, 174), (20, 163), (63, 141)])
def test_by_the_length_of_names_141_to_174_members_are_the_most(width: int, most: int) -> None:
    sizes.require_sendable(plan_of(most, width))
    refusal = rf"members: with {most + 1} of them a share-delivery has \d+ bytes, a message at most 8388608"
    with pytest.raises(BadPlan, match=refusal):
        sizes.require_sendable(plan_of(most + 1, width))


def test_the_most_members_can_really_be_sent_their_shares_and_keys_and_one_more_could_not() -> None:
    plan, more = plan_of(141), plan_of(142)
    assert request(plan.names[0], share_delivery(plan)) <= MAX_MESSAGE_BYTES
    assert request(plan.names[0], key_delivery(plan)) <= MAX_MESSAGE_BYTES / 10
    assert request(more.names[0], share_delivery(more)) > MAX_MESSAGE_BYTES


def test_the_keys_of_the_largest_alliance_fit_in_a_message() -> None:
    """Hence `require_sendable` need not count them."""
    plan = plan_of(MAX_MEMBERS).model_copy(update={"alliance": "a" * 63, "job": "j" * 63})
    assert request(plan.names[0], key_delivery(plan)) < 3 << 20 < MAX_MESSAGE_BYTES
