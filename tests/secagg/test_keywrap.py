"""The alliance key under its seal, and what opens it in its wrapping: for its receiver, this job, unchanged."""

from __future__ import annotations

import pytest
from Crypto.Cipher import ChaCha20_Poly1305
from Crypto.Protocol import HPKE
from Crypto.Protocol.DH import import_x25519_private_key, import_x25519_public_key
from hypothesis import given
from hypothesis import strategies as st

from fl_alliance.errors import NotAuthentic, SecretUnavailable
from fl_alliance.secagg import cipher
from fl_alliance.secagg.keywrap import generate_wrap_key, open_key, seal_key, unwrap_key, wrap_key
from fl_alliance.secagg.parameters import sum_parameters

INFO = "clinics|nouns-7|lagos"
KEY = bytes(range(256)) * 4
PRIVATE, PUBLIC = generate_wrap_key()
WRAPPED = wrap_key(KEY, PUBLIC, INFO)
CONTENT_KEY, SEALED = seal_key(KEY, INFO)


def test_the_alliance_key_arrives_as_it_was_made() -> None:
    parameters = sum_parameters(members=3, bits=16)
    key = cipher.AllianceKey.generate(parameters)
    content_key, sealed = seal_key(key.to_bytes(), "job")
    arrived = open_key(sealed, unwrap_key(wrap_key(content_key, PUBLIC, INFO), PRIVATE, INFO), "job")
    assert cipher.AllianceKey.from_bytes(parameters, arrived).fingerprint() == key.fingerprint()


def test_another_library_opens_ours_and_we_open_its() -> None:
    """RFC 9180, base mode, by pycryptodome."""
    ours = HPKE.new(
        receiver_key=import_x25519_private_key(PRIVATE),
        aead_id=HPKE.AEAD.CHACHA20_POLY1305,
        enc=WRAPPED[:32],
        info=INFO.encode(),
    )
    assert ours.unseal(WRAPPED[32:]) == KEY
    theirs = HPKE.new(
        receiver_key=import_x25519_public_key(PUBLIC), aead_id=HPKE.AEAD.CHACHA20_POLY1305, info=INFO.encode()
    )
    sealed = theirs.seal(KEY)
    assert unwrap_key(theirs.enc + sealed, PRIVATE, INFO) == KEY


def test_a_wrapped_key_is_48_bytes_longer_and_never_the_same() -> None:
    again = [wrap_key(KEY, PUBLIC, INFO) for _ in range(5)]
    assert {len(wrapped) for wrapped in again} == {len(KEY) + 48}
    assert len({wrapped[:32] for wrapped in again}) == 5
    assert not [wrapped for wrapped in again if KEY[:16] in wrapped]


def test_new_wrap_keys_every_time() -> None:
    pairs = [generate_wrap_key() for _ in range(20)]
    assert len({private for private, _ in pairs}) == len({public for _, public in pairs}) == 20


@pytest.mark.parametrize(
    "info", ["", "clinics|nouns-7|lima", "clinics|nouns-8|lagos", "other|nouns-7|lagos", INFO + " "]
)
def test_a_key_for_another_job_or_member_does_not_open(info: str) -> None:
    with pytest.raises(SecretUnavailable, match="does not open with this key and info"):
        unwrap_key(WRAPPED, PRIVATE, info)


def test_another_member_can_not_open_it() -> None:
    with pytest.raises(SecretUnavailable):
        unwrap_key(WRAPPED, generate_wrap_key()[0], INFO)


@given(st.integers(0, len(WRAPPED) - 1), st.integers(1, 255))
def test_a_changed_byte_does_not_open(position: int, change: int) -> None:
    changed = WRAPPED[:position] + bytes([WRAPPED[position] ^ change]) + WRAPPED[position + 1 :]
    with pytest.raises(SecretUnavailable):
        unwrap_key(changed, PRIVATE, INFO)


def test_the_bit_of_the_sender_key_that_x25519_ignores_does_not_help() -> None:
    """The encapsulated key itself goes into HPKE's key schedule."""
    with pytest.raises(SecretUnavailable):
        unwrap_key(WRAPPED[:31] + bytes([WRAPPED[31] ^ 0x80]) + WRAPPED[32:], PRIVATE, INFO)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 47, 48, len(WRAPPED) - 1])
def test_a_cut_off_key_does_not_open(length: int) -> None:
    with pytest.raises(SecretUnavailable, match=f"wrapped key of {length} bytes"):
        unwrap_key(WRAPPED[:length], PRIVATE, INFO)


def test_bytes_behind_do_not_open() -> None:
    with pytest.raises(SecretUnavailable):
        unwrap_key(WRAPPED + b"\0", PRIVATE, INFO)


@pytest.mark.parametrize("enc", [bytes(32), bytes([1]) + bytes(31)])
def test_a_sender_key_of_small_order_does_not_open(enc: bytes) -> None:
    with pytest.raises(SecretUnavailable):
        unwrap_key(enc + WRAPPED[32:], PRIVATE, INFO)


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), bytes(32), bytes([1]) + bytes(31)])
def test_what_is_no_key_to_wrap_for_is_refused(public: bytes) -> None:
    with pytest.raises(NotAuthentic, match=f"{len(public)} bytes are no X25519 public key"):
        wrap_key(KEY, public, INFO)


def test_no_error_tells_a_byte_of_the_key() -> None:
    with pytest.raises(SecretUnavailable) as caught:
        unwrap_key(WRAPPED, PRIVATE, "other")
    assert caught.value.__cause__ is None
    assert str(caught.value) == f"the wrapped key of {len(WRAPPED)} bytes does not open with this key and info"


# ---- the seal


def test_another_library_opens_our_seal_and_we_open_its() -> None:
    """RFC 8439, by pycryptodome."""
    ours = ChaCha20_Poly1305.new(key=CONTENT_KEY, nonce=SEALED[:12])
    ours.update(INFO.encode())
    assert ours.decrypt_and_verify(SEALED[12:-16], SEALED[-16:]) == KEY
    theirs = ChaCha20_Poly1305.new(key=CONTENT_KEY, nonce=bytes(12))
    theirs.update(INFO.encode())
    assert open_key(bytes(12) + b"".join(theirs.encrypt_and_digest(KEY)), CONTENT_KEY, INFO) == KEY


def test_a_sealed_key_is_28_bytes_longer_under_a_content_key_that_is_never_the_same() -> None:
    again = [seal_key(KEY, INFO) for _ in range(20)]
    assert {(len(content_key), len(sealed)) for content_key, sealed in again} == {(32, len(KEY) + 28)}
    assert len({content_key for content_key, _ in again}) == len({sealed[:12] for _, sealed in again}) == 20
    assert not [sealed for _, sealed in again if KEY[:16] in sealed]


@pytest.mark.parametrize("info", ["", "clinics|nouns-7|lima", INFO + " "])
def test_a_key_sealed_for_something_else_does_not_open(info: str) -> None:
    with pytest.raises(SecretUnavailable, match="does not open with this content key and info"):
        open_key(SEALED, CONTENT_KEY, info)


def test_another_content_key_does_not_open_it() -> None:
    with pytest.raises(SecretUnavailable):
        open_key(SEALED, seal_key(KEY, INFO)[0], INFO)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_what_is_no_content_key_does_not_open(length: int) -> None:
    with pytest.raises(SecretUnavailable):
        open_key(SEALED, bytes(length), INFO)


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_a_changed_byte_of_the_seal_does_not_open(position: int, change: int) -> None:
    changed = SEALED[:position] + bytes([SEALED[position] ^ change]) + SEALED[position + 1 :]
    with pytest.raises(SecretUnavailable):
        open_key(changed, CONTENT_KEY, INFO)


@pytest.mark.parametrize("length", [0, 1, 11, 12, 27, 28, len(SEALED) - 1])
def test_a_cut_off_seal_does_not_open(length: int) -> None:
    with pytest.raises(SecretUnavailable, match=f"the sealed key of {length} bytes"):
        open_key(SEALED[:length], CONTENT_KEY, INFO)


def test_no_error_of_the_seal_tells_a_byte_of_the_key() -> None:
    with pytest.raises(SecretUnavailable) as caught:
        open_key(SEALED, CONTENT_KEY, "other")
    assert caught.value.__cause__ is None
    assert str(caught.value) == f"the sealed key of {len(SEALED)} bytes does not open with this content key and info"
