"""Envelopes: the DSSE specification's own example, and another implementation of it, agree with ours."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as PeerEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from fl_alliance.errors import MalformedMessage
from fl_alliance.evidence.sign import sign_document
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.envelope import STATEMENT_TYPE, Envelope, label, pre_authentication_encoding
from tests.evidence.alliance import key_of
from tests.protocol.examples import DOCUMENTS, ENVELOPE, golden

# The example of https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md, "Test Vectors"
SPEC_TYPE = "http://example.com/HelloWorld"
SPEC_KEY = EllipticCurvePublicNumbers(
    46950820868899156662930047687818585632848591499744589407958293238635476079160,
    5640078356564379163099075877009565129882514886557779369047442380624545832820,
    SECP256R1(),
).public_key()
SPEC_SIGNATURE = "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="


def test_the_example_of_the_specification() -> None:
    encoded = pre_authentication_encoding(SPEC_TYPE, b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_the_signature_of_the_specification_verifies_over_our_bytes() -> None:
    envelope = Envelope.model_validate(
        {
            "payload": "aGVsbG8gd29ybGQ=",
            "payloadType": SPEC_TYPE,
            "signatures": [{"keyid": "sha256:" + "00" * 32, "sig": SPEC_SIGNATURE}],
        }
    )
    raw = base64.b64decode(SPEC_SIGNATURE)
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    SPEC_KEY.verify(encode_dss_signature(r, s), envelope.signed_bytes, ECDSA(SHA256()))  # raises if it does not


@pytest.mark.parametrize("name", ENVELOPE)
def test_golden_envelope_is_signed_over_the_bytes_that_the_peer_signs(name: str) -> None:
    peer = PeerEnvelope.from_dict(json.loads(golden("envelopes", name)))
    assert peer.pae() == ENVELOPE[name].signed_bytes
    assert peer.payload == ENVELOPE[name].body


@given(st.text(max_size=40), st.binary(max_size=40))
def test_any_type_and_payload_are_encoded_as_the_peer_does(payload_type: str, payload: bytes) -> None:
    assert pre_authentication_encoding(payload_type, payload) == PeerEnvelope(payload, payload_type, {}).pae()


def test_lengths_count_bytes_and_not_letters() -> None:
    assert pre_authentication_encoding("é", "ü€".encode()) == "DSSEv1 2 é 5 ü€".encode()


def test_a_space_in_the_type_is_not_a_border() -> None:
    assert pre_authentication_encoding("a 1 b", b"c") != pre_authentication_encoding("a", b"1 b 1 c")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_another_library_verifies_our_documents(name: str) -> None:
    """A document stays readable without us: securesystemslib takes the envelope and finds the signature good."""
    signer = key_of("lagos")
    data = sign_document(signer, DOCUMENTS[name])
    key = SSlibKey(signer.keyid, "ed25519", "ed25519", {"public": signer.public.hex()})
    peer = PeerEnvelope.from_dict(json.loads(data))
    assert set(peer.verify([key], 1)) == {signer.keyid}
    assert json.loads(peer.payload)["predicate"]["kind"] == DOCUMENTS[name].kind
    peer.payload += b" "
    with pytest.raises(VerificationError):
        peer.verify([key], 1)


def test_the_label_names_everything_that_a_replay_would_change() -> None:
    own = {"kind": "stopped", "sender": "a", "receiver": "b", "alliance": "c", "job": "d", "round_number": 1}
    assert label(**own) == "fl-alliance/1|stopped|a|b|c|d|1"  # type: ignore[arg-type]
    others = [label(**(own | {field: 2})) for field in own]  # type: ignore[arg-type]
    assert len({label(**own), *others}) == 7  # type: ignore[arg-type]


REFUSED = {
    "no signature": (b'"signatures":[', b'"signatures":[],"x":['),
    "base64 for URLs": (b"eyJhIjoxfQ==", b"eyJhIjo-fQ=="),
    "payload with stray bits": (b"eyJhIjoxfQ==", b"eyJhIjoxfR=="),
    "signature with stray bits": (b"Pw==", b"Px=="),
    "key id of another algorithm": (b"sha256:1b", b"sha512:1b"),
    "a certificate beside the signature": (b'"keyid"', b'"cert":"","keyid"'),
    "empty type": (b"fl-alliance/1|sum-checked|lagos|office|clinics|nouns-7|3", b""),
    "endless type": (b"fl-alliance/1|sum-checked", b"x" * 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_envelope(name: str) -> None:
    data = golden("envelopes", "message").replace(*REFUSED[name])
    assert data != golden("envelopes", "message")
    with pytest.raises(MalformedMessage):
        decode(Envelope, data)


def test_a_document_has_the_media_type_of_in_toto() -> None:
    assert STATEMENT_TYPE == "application/vnd.in-toto+json"
    assert json.loads(golden("envelopes", "document"))["payloadType"] == STATEMENT_TYPE
