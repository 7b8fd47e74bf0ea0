"""How long the messages of a job get, known from its plan alone: a plan that can't be carried is refused beforehand.

One request grows with the square of the members: the share delivery relays to each a list of shares for each member
from each member. All others stay far below it; the key delivery, with the alliance key inside, is below 3 MiB with
`MAX_MEMBERS`. Envelopes are base64 twice over.
"""

from __future__ import annotations

import base64
from typing import Any

from fl_alliance.errors import BadPlan
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.envelope import Envelope, Signature, label
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.limits import (
    MAX_MESSAGE_BYTES,
    MAX_NAME,
    SEALED_KEY_BYTES,
    SEALED_SHARES_BYTES,
    WRAPPED_KEY_BYTES,
)
from fl_alliance.protocol.plan import TrainingPlan

_DIGEST = digest_of(b"")
_FORGED = Signature(keyid=_DIGEST, sig=base64.b64encode(bytes(64)).decode())
_AROUND = len(encode(Envelope.model_validate({"payload": "", "payloadType": "l", "signatures": (_FORGED,)}))) - 1
_SMALL = 8192
"""More than an answer takes that does not grow with the members; a refusal with its reason is the longest."""


def require_sendable(plan: TrainingPlan) -> None:
    """Return if every message of the job stays below `MAX_MESSAGE_BYTES`.

    Raises:
        BadPlan: names the message, its length and the number of members.
    """
    length = _share_delivery(plan)
    if length > MAX_MESSAGE_BYTES:
        raise BadPlan(
            f"members: with {len(plan.members)} of them a share-delivery has {length} bytes, a message at most "
            f"{MAX_MESSAGE_BYTES}"
        )


def longest_answer(plan: TrainingPlan) -> int:
    """Return a bound in bytes of an honest member's answers that are relayed together: no other is taken."""
    return max(_envelope(_sealed_shares(plan)), _SMALL)


def longest_wrapped_keys(plan: TrainingPlan) -> int:
    """Return a bound in bytes of the key maker's answer, which is relayed alone."""
    wrapped, sealed_key = _for_each(plan, WRAPPED_KEY_BYTES), _text(SEALED_KEY_BYTES)
    return _envelope(
        m.WrappedKeys(
            **_bound(plan), acceptances_digest=_DIGEST, key_fingerprint=_DIGEST, sealed_key=sealed_key, wrapped=wrapped
        )
    )


def _sealed_shares(plan: TrainingPlan) -> m.SealedShares:
    return m.SealedShares(**_bound(plan), roster_digest=_DIGEST, shares=_for_each(plan, SEALED_SHARES_BYTES))


def _share_delivery(plan: TrainingPlan) -> int:
    one = m.ShareDelivery(**_bound(plan), sealed_shares=("",))
    return _envelope(one, more=len(plan.members) * (_base64(_envelope(_sealed_shares(plan))) + 3))


def _envelope(message: m.Bound, *, more: int = 0) -> int:
    """Return the length of a signed `message`, between the longest names, with `more` bytes of payload."""
    kind, name = str(type(message).model_fields["kind"].default), "n" * MAX_NAME
    labelled = label(
        kind=kind, sender=name, receiver=name, alliance=message.alliance, job=message.job, round_number=message.round
    )
    return _AROUND + len(labelled) + _base64(len(encode(message)) + more)


def _for_each(plan: TrainingPlan, length: int) -> tuple[m.ToMember, ...]:
    return tuple(m.ToMember(member=name, sealed=_text(length)) for name in plan.names)


def _bound(plan: TrainingPlan) -> dict[str, Any]:
    return {"alliance": plan.alliance, "job": plan.job, "round": plan.rounds}


def _text(length: int) -> str:
    return base64.b64encode(bytes(length)).decode()


def _base64(length: int) -> int:
    return 4 * -(-length // 3)
