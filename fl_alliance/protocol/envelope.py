"""DSSE envelopes: exact payload bytes, what they are, and who signed them.

Messages and documents travel in the same envelope (Dead Simple Signing Envelope 1.0, secure-systems-lab/dsse). The
`payloadType` of a message is its label: kind, sender, receiver, job and round are under the signature, so that a
message can't be replayed as another. Signing and checking live in `evidence`; here are only the bytes.
"""

from __future__ import annotations

import base64
from typing import Annotated

from pydantic import Field

from fl_alliance.protocol.ids import Base64, Digest, Name
from fl_alliance.protocol.model import Wire

STATEMENT_TYPE = "application/vnd.in-toto+json"
"""Payload type of every document: an in-toto Statement v1."""


class Signature(Wire):
    """One signature of an envelope."""

    keyid: Digest
    """Digest of the signer's raw Ed25519 public key."""
    sig: Base64


class Envelope(Wire):
    """Payload bytes with at least one signature."""

    payload: Base64
    payload_type: Annotated[str, Field(alias="payloadType", min_length=1, max_length=400)]
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1, max_length=1000, strict=False)]

    @property
    def body(self) -> bytes:
        """The signed payload, exactly as it was signed."""
        return base64.b64decode(self.payload)

    @property
    def signed_bytes(self) -> bytes:
        """What the signatures are over."""
        return pre_authentication_encoding(self.payload_type, self.body)


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return PAE(type, body) of the DSSE 1.0 specification."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def label(*, kind: str, sender: Name, receiver: Name, alliance: Name, job: Name, round_number: int) -> str:
    """Return the payload type of a message: what it is, from whom to whom, in which job and round (0: none)."""
    return f"fl-alliance/1|{kind}|{sender}|{receiver}|{alliance}|{job}|{round_number}"
