"""Envelopes, keys and documents: golden bytes, every flipped byte refused, the PAE as another library computes it."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as PeerEnvelope

from fl_alliance.errors import BadConfig, MalformedMessage, NotAuthentic, StoreFailed
from fl_alliance.evidence.keys import _SMALL_ORDER, IdentityKey, check_signature, public_key_of
from fl_alliance.evidence.sign import open_document, open_message, read_envelope, sign_document, sign_message
from fl_alliance.protocol.documents import AllianceMembers, InstitutionPolicy, LedgerEntry
from fl_alliance.protocol.envelope import Envelope
from tests.evidence.alliance import key_of, members_of, policy_of
from tests.evidence.paper import Neutral

KEY = key_of("lagos")
LABEL = "fl-alliance/1|sum-checked|lagos|office|clinics|job-1|1"
GOLDEN = (
    b'{"payload":"eyJhIjoxfQ==","payloadType":"fl-alliance/1|sum-checked|lagos|office|clinics|job-1|1","signatures":'
    b'[{"keyid":"sha256:c616b4330ec6bed9b6345d935c63627cacd88cf4b91e1c3d95ec4260b6eeacf4","sig":'
    b'"/lnlu+/IHJX/PSFCG5ztK7K75o+brwWiKw9qmHaJtf1gidEg7Aajo9CMFC39bZDZgQeWMrHpq+T8QaXLbxwrDA=="}]}'
)


def open_it(data: bytes) -> bytes:
    return open_message(data, expected_label=LABEL, public_key=KEY.public)


def test_golden_envelope_both_ways() -> None:
    assert sign_message(KEY, LABEL, b'{"a":1}') == GOLDEN
    assert open_it(GOLDEN) == b'{"a":1}'


def test_every_flipped_bit_of_an_envelope_is_refused() -> None:
    for position in range(len(GOLDEN)):
        for bit in range(8):
            forged = GOLDEN[:position] + bytes([GOLDEN[position] ^ 1 << bit]) + GOLDEN[position + 1 :]
            with pytest.raises((MalformedMessage, NotAuthentic)):
                open_it(forged)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_random_bytes_raise_only_malformed_message(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        open_it(data)
    with pytest.raises(MalformedMessage):
        open_document(data, LedgerEntry, public_key=KEY.public)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(
    st.sampled_from(["payload", "payloadType", "signatures", "keyid", "sig"]), c), max_leaves=12))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_random_json_raises_only_malformed_message(value: object) -> None:
    with pytest.raises(MalformedMessage):
        open_it(json.dumps(value).encode())


def test_the_pre_authentication_encoding_is_the_one_of_securesystemslib() -> None:
    peer = PeerEnvelope.from_dict(json.loads(GOLDEN))
    assert peer.pae() == Envelope.model_validate_json(GOLDEN).signed_bytes


def test_another_label_is_refused_with_both_values() -> None:
    replayed = LABEL.replace("|1", "|2")
    with pytest.raises(NotAuthentic, match=r"label is .*job-1\|1'.*expected .*job-1\|2'"):
        open_message(GOLDEN, expected_label=replayed, public_key=KEY.public)


def test_another_signer_is_refused_with_both_keys() -> None:
    with pytest.raises(NotAuthentic, match=f"{KEY.keyid}, expected {key_of('lima').keyid}"):
        open_message(GOLDEN, expected_label=LABEL, public_key=key_of("lima").public)


def test_a_borrowed_key_id_does_not_help() -> None:
    forged = sign_message(key_of("mallory"), LABEL, b"{}").replace(key_of("mallory").keyid.encode(), KEY.keyid.encode())
    with pytest.raises(NotAuthentic, match="does not verify"):
        open_it(forged)


def test_two_signatures_are_refused() -> None:
    envelope = json.loads(GOLDEN)
    envelope["signatures"] *= 2
    with pytest.raises(MalformedMessage, match="2 signatures, must be exactly one"):
        read_envelope(json.dumps(envelope, separators=(",", ":"), sort_keys=True).encode())


def test_a_document_of_another_kind_is_refused() -> None:
    data = sign_document(KEY, policy_of())
    assert open_document(data, InstitutionPolicy, public_key=KEY.public) == policy_of()
    with pytest.raises(NotAuthentic, match="institution-policy document, expected AllianceMembers"):
        open_document(data, AllianceMembers, public_key=KEY.public)


def test_a_statement_about_something_else_than_its_predicate_is_refused() -> None:
    envelope = Envelope.model_validate_json(sign_document(KEY, policy_of()))
    statement = json.loads(envelope.body)
    for change in ({"predicateType": "https://example.org/x"}, {"subject": []}, {"_type": "other"}):
        body = json.dumps(statement | change, separators=(",", ":"), sort_keys=True).encode()
        data = sign_message(KEY, envelope.payload_type, body)
        with pytest.raises(MalformedMessage):
            open_document(data, InstitutionPolicy, public_key=KEY.public)
    statement["subject"][0]["name"] = "another"
    body = json.dumps(statement, separators=(",", ":"), sort_keys=True).encode()
    with pytest.raises(MalformedMessage, match="subject is not what the predicate is about"):
        open_document(sign_message(KEY, envelope.payload_type, body), InstitutionPolicy, public_key=KEY.public)


def test_golden_statement_is_an_in_toto_statement() -> None:
    statement = json.loads(Envelope.model_validate_json(sign_document(key_of("root"), members_of())).body)
    assert list(statement) == ["_type", "predicate", "predicateType", "subject"]
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://fl-alliance.org/predicates/alliance-members/v1"
    assert statement["subject"][1] == {"name": "lagos", "digest": {"sha256": KEY.keyid.removeprefix("sha256:")}}


def test_a_key_comes_back_from_its_file_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    KEY.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert IdentityKey.load(path).public == KEY.public
    assert [file.name for file in tmp_path.iterdir()] == ["identity.pem"]


def test_a_key_is_never_written_over_a_key(tmp_path: Path) -> None:
    KEY.save(tmp_path / "identity.pem")
    with pytest.raises(StoreFailed, match="File exists"):
        key_of("lima").save(tmp_path / "identity.pem")
    assert IdentityKey.load(tmp_path / "identity.pem").public == KEY.public
    assert [file.name for file in tmp_path.iterdir()] == ["identity.pem"]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    KEY.save(tmp_path / "identity.pem")
    (tmp_path / "identity.pem").chmod(0o640)
    with pytest.raises(BadConfig, match="mode 0640"):
        IdentityKey.load(tmp_path / "identity.pem")


def test_what_is_not_an_ed25519_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    with pytest.raises(StoreFailed, match="No such file"):
        IdentityKey.load(path)
    pem = Ed448PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for data, why in ((b"no key", "not an unencrypted PEM"), (pem, "must be an Ed25519 key")):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(BadConfig, match=why):
            IdentityKey.load(path)


def test_a_key_prints_as_stars_and_can_not_be_pickled() -> None:
    assert repr(KEY) == "IdentityKey(***)"
    assert f"{KEY}" == "IdentityKey(***)"
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(KEY)


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", base64.b64encode(bytes(33)).decode()])
def test_what_is_not_a_public_key_is_malformed(text: str) -> None:
    with pytest.raises(MalformedMessage):
        public_key_of(text)


def test_every_spelling_of_a_point_of_small_order_is_refused_as_a_key() -> None:
    """By the curve's own formulas (RFC 8032, 5.1): eight times each is the neutral point, and there are no others."""
    prime = 2**255 - 19
    d = -121665 * pow(121666, -1, prime) % prime

    def doubled(xx: int, y: int) -> tuple[int, int]:
        """Of x squared and y; all five values of y of the points whose order divides 8 are closed under it."""
        dxxyy = d * xx * y * y
        return (
            4 * xx * y * y * pow(1 + dxxyy, -2, prime) % prime,
            (y * y + xx) * pow(1 - dxxyy, -1, prime) % prime,
        )

    values = {int.from_bytes(spelling, "little") for spelling in _SMALL_ORDER}
    assert {value % prime for value in values} == {-value % prime for value in values}
    assert len({value % prime for value in values}) == 5
    assert values == {value % prime + more for value in values for more in (0, prime) if value % prime + more < 2**255}
    for value in values:
        point = ((value * value - 1) * pow(d * value * value + 1, -1, prime) % prime, value % prime)
        assert doubled(*doubled(*doubled(*point))) == (0, 1)
        for sign in (0, 1 << 255):
            with pytest.raises(MalformedMessage, match="small order"):
                public_key_of(base64.b64encode((value | sign).to_bytes(32, "little")).decode())


def test_a_signature_of_nobody_verifies_under_the_neutral_point_if_it_is_let() -> None:
    check_signature(Neutral.public, Neutral().sign(b""), b"whatever")
