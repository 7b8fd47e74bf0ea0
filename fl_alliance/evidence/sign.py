"""Sign and open envelopes: messages under their label, documents as in-toto statements.

Opening needs the key that the reader expects: the key id in an envelope is compared with it and never believed.
"""

from __future__ import annotations

import base64
from typing import TypeVar

from pydantic import BaseModel

from fl_alliance.errors import MalformedMessage, NotAuthentic
from fl_alliance.evidence.keys import IdentityKey, check_signature, public_key_of
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import Document, PlanApproval, Statement, statement_for
from fl_alliance.protocol.envelope import STATEMENT_TYPE, Envelope, Signature, pre_authentication_encoding
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.limits import MAX_MESSAGE_BYTES

D = TypeVar("D", bound=BaseModel)


def sign_message(key: IdentityKey, label: str, payload: bytes) -> bytes:
    """Return the envelope of `payload`, signed under `label` (see `protocol.envelope.label`)."""
    signature = key.sign(pre_authentication_encoding(label, payload))
    return encode(
        Envelope.model_validate(
            {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": label,
                "signatures": (Signature(keyid=key.keyid, sig=base64.b64encode(signature).decode()),),
            }
        )
    )


def open_message(data: bytes, *, expected_label: str, public_key: bytes, limit: int = MAX_MESSAGE_BYTES) -> bytes:
    """Return the payload of the envelope `data`, which has at most `limit` bytes.

    Raises:
        MalformedMessage: `data` is not a canonical envelope with exactly one signature.
        NotAuthentic: another label, another key, or a signature that does not verify.
    """
    return open_envelope(decode(Envelope, data, limit=limit), expected_label=expected_label, public_key=public_key)


def open_envelope(envelope: Envelope, *, expected_label: str, public_key: bytes) -> bytes:
    """Return the payload of an envelope that was decoded already (errors as `open_message`)."""
    signature = _only_signature(envelope)
    if envelope.payload_type != expected_label:
        raise NotAuthentic(f"label is {envelope.payload_type!r}, expected {expected_label!r}")
    if signature.keyid != (expected := digest_of(public_key)):
        raise NotAuthentic(f"signed with key {signature.keyid}, expected {expected}")
    check_signature(public_key, base64.b64decode(signature.sig), envelope.signed_bytes)
    return envelope.body


def read_envelope(data: bytes, *, limit: int = MAX_MESSAGE_BYTES) -> Envelope:
    """Return the envelope `data`, nothing of it verified: to learn who claims to have sent what.

    Raises:
        MalformedMessage: not canonical, also inside its base64, or not exactly one signature.
    """
    envelope = decode(Envelope, data, limit=limit)
    _only_signature(envelope)
    return envelope


def _only_signature(envelope: Envelope) -> Signature:
    if len(envelope.signatures) != 1:
        raise MalformedMessage(f"{len(envelope.signatures)} signatures, must be exactly one")
    return envelope.signatures[0]


def sign_document(key: IdentityKey, document: Document) -> bytes:
    """Return the envelope of `document` as a signed in-toto statement; its subjects follow from the document."""
    return sign_message(key, STATEMENT_TYPE, encode(statement_for(document)))


def open_document(data: bytes, kind: type[D], *, public_key: bytes, limit: int = MAX_MESSAGE_BYTES) -> D:
    """Return the document of type `kind` in the envelope `data`, which has at most `limit` bytes.

    Raises:
        MalformedMessage: not a canonical envelope or statement.
        NotAuthentic: not signed with `public_key`, or a document of another kind.
    """
    payload = open_message(data, expected_label=STATEMENT_TYPE, public_key=public_key, limit=limit)
    return _of_kind(decode(Statement, payload, limit=limit), kind)


def peek_document(data: bytes, kind: type[D], *, limit: int = MAX_MESSAGE_BYTES) -> D:
    """Return the document in `data` without verifying its signature: to learn whose key to open it with."""
    envelope = read_envelope(data, limit=limit)
    if envelope.payload_type != STATEMENT_TYPE:
        raise NotAuthentic(f"label is {envelope.payload_type!r}, expected {STATEMENT_TYPE!r}")
    return _of_kind(decode(Statement, envelope.body, limit=limit), kind)


def open_approval(data: bytes) -> tuple[str, PlanApproval]:
    """Return the digest of the key that verifies an approval, and the approval.

    Raises:
        MalformedMessage, NotAuthentic: it is none, or not signed with the key that it names.
    """
    key = public_key_of(peek_document(data, PlanApproval).key)
    return digest_of(key), open_document(data, PlanApproval, public_key=key)


def _of_kind(statement: Statement, kind: type[D]) -> D:
    if not isinstance(statement.predicate, kind):
        raise NotAuthentic(f"a {statement.predicate.kind} document, expected {kind.__name__}")
    return statement.predicate
