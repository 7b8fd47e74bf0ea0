"""Write and read the signed messages of a job: label, signature and canonical payload together.

A message is read in this order: length limit, envelope, sender named by the label, signature of that sender's pinned
key over label and payload, payload, and last that label and payload say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fl_alliance.errors import MalformedMessage, NotAuthentic
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import open_envelope, sign_message
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
    envelope = decode(Envelope, data)
    request = decode(REQUEST, _open(address, envelope, sender=address.coordinator))
    _same_label(envelope, _label(request, address.coordinator, address.me))
    return request


def read_answer(address: Address, data: bytes) -> tuple[str, Answer]:
    """Return who sent a signed answer to the coordinator, and the answer (errors as `read_request`)."""
    envelope = decode(Envelope, data)
    sender = _sender(envelope)
    answer = decode(ANSWER, _open(address, envelope, sender=sender))
    _same_label(envelope, _label(answer, sender, address.coordinator))
    return sender, answer


def _sender(envelope: Envelope) -> str:
    """Return the sender that the label names; not yet authentic.

    Raises:
        MalformedMessage: there is no such label.
    """
    fields = envelope.payload_type.split("|")
    if len(fields) != 7:
        raise MalformedMessage(f"a label has 7 fields, this one {len(fields)}")
    return fields[2]


def _open(address: Address, envelope: Envelope, *, sender: str) -> bytes:
    if sender not in address.keys:
        raise NotAuthentic(f"{sender!r} is not a member")
    return open_envelope(envelope, expected_label=envelope.payload_type, public_key=address.keys[sender])


def _same_label(envelope: Envelope, expected: str) -> None:
    if envelope.payload_type != expected:
        raise NotAuthentic(f"labelled {envelope.payload_type}, the payload says {expected}")


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
