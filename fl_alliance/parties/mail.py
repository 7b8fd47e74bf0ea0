"""Write and read the signed messages of a job: label, signature and canonical payload together.

A message is read in this order: length limit, envelope, sender named by the label, signature of that sender's pinned
key over label and payload, payload, and last that label and payload say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fl_alliance.errors import MalformedMessage, NotAuthentic
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import open_message, sign_message
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.envelope import Envelope, label
from fl_alliance.protocol.messages import ANSWER, REQUEST, Answer, Bound, Request


@dataclass(frozen=True)
class Address:
    """Who writes and to whom, with the pinned public keys (raw Ed25519, by name)."""

    me: str
    coordinator: str
    keys: Mapping[str, bytes]


def write_request(address: Address, identity: IdentityKey, member: str, request: Request) -> bytes:
    """Return the coordinator's signed request to `member`. Ed25519 is deterministic: a resend has the same bytes."""
    return sign_message(identity, _label(request, address.coordinator, member), encode(request))


def write_answer(address: Address, identity: IdentityKey, answer: Answer) -> bytes:
    """Return this institution's signed answer."""
    return sign_message(identity, _label(answer, address.me, address.coordinator), encode(answer))


def read_request(address: Address, data: bytes) -> Request:
    """Return the coordinator's request to this institution.

    Raises:
        MalformedMessage: the bytes are no canonical envelope of a known request.
        NotAuthentic: it is not signed by the coordinator for this institution, or label and payload differ.
    """
    payload = _open(address, data, sender=address.coordinator)
    request = decode(REQUEST, payload)
    _same_label(data, _label(request, address.coordinator, address.me))
    return request


def read_answer(address: Address, data: bytes) -> tuple[str, Answer]:
    """Return who sent a signed answer to the coordinator, and the answer (errors as `read_request`)."""
    sender = sender_of(data)
    answer = decode(ANSWER, _open(address, data, sender=sender))
    _same_label(data, _label(answer, sender, address.coordinator))
    return sender, answer


def sender_of(data: bytes) -> str:
    """Return the sender that the label names; not yet authentic.

    Raises:
        MalformedMessage: there is no such label.
    """
    fields = decode(Envelope, data).payload_type.split("|")
    if len(fields) != 7:
        raise MalformedMessage(f"a label has 7 fields, this one {len(fields)}")
    return fields[2]


def _open(address: Address, data: bytes, *, sender: str) -> bytes:
    if sender not in address.keys:
        raise NotAuthentic(f"{sender!r} is not a member")
    return open_message(data, expected_label=decode(Envelope, data).payload_type, public_key=address.keys[sender])


def _same_label(data: bytes, expected: str) -> None:
    seen = decode(Envelope, data).payload_type
    if seen != expected:
        raise NotAuthentic(f"labelled {seen}, the payload says {expected}")


def _label(message: Bound, sender: str, receiver: str) -> str:
    kind = str(type(message).model_fields["kind"].default)
    return label(
        kind=kind,
        sender=sender,
        receiver=receiver,
        alliance=message.alliance,
        job=message.job,
        round_number=message.round,
    )
