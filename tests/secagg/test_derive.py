"""Test vectors of every derived key. A second implementation that makes these can join an alliance."""

from __future__ import annotations

import pytest
from Crypto.Cipher import AES
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF

from fl_alliance.errors import NotAuthentic
from fl_alliance.secagg import derive
from fl_alliance.secagg.derive import RoundContext

CONTEXT = RoundContext("clinics", "nouns-7", 3, "sha256:" + "ab" * 32)
SECRET = bytes(range(32))
SEED = bytes(range(16))

# purpose, input, context, own fields, key: as in the table of derive.py
VECTORS = [
    ("mask-private", SEED, None, (), "82e6229c7010dbdaa878463dc4e8dde7dcea82b026cff405933f3528996636b9"),
    ("self-mask", SEED, CONTEXT, ("lagos",), "ee7989ebb2e45f7197f9f1accd9c28e66768892e72c85a0aa1e775596db24f17"),
    (
        "pairwise-mask",
        SECRET,
        CONTEXT,
        ("berlin", "lagos"),
        "5c4d7f1fc9e46873264143d4444ac5f73ba11e8ca20eda502b2c70c039643335",
    ),
    ("share", SECRET, CONTEXT, ("berlin", "lagos"), "7b3cf0f47958fcc2da202cd9cda04f8111db53064a8c51ef838826349da96325"),
    ("share", SECRET, CONTEXT, ("lagos", "berlin"), "cf8f12402154c57059967a1701d5ebaebc984833001091165e450d690493bf02"),
    (
        "revealed-shares",
        SECRET,
        CONTEXT,
        ("berlin", "cd" * 32),
        "1b98a4d4f26681ef1ea10530d48dd771a71fffa07c3eae7bf43f51e41e991348",
    ),
]


@pytest.mark.parametrize(("purpose", "secret", "context", "fields", "key"), VECTORS)
def test_golden_key(
    purpose: str, secret: bytes, context: RoundContext | None, fields: tuple[str, ...], key: str
) -> None:
    assert derive.key_for(purpose, secret, context, *fields).hex() == key


@pytest.mark.parametrize(("purpose", "secret", "context", "fields", "key"), VECTORS)
def test_another_library_makes_the_same_key(
    purpose: str, secret: bytes, context: RoundContext | None, fields: tuple[str, ...], key: str
) -> None:
    bound = ("clinics", "nouns-7", "3", "sha256:" + "ab" * 32) if context else ()
    info = b""
    for field in ("fl-alliance/1/secagg", purpose, *bound, *fields):
        info += bytes([0, len(field)]) + field.encode()
    assert HKDF(secret, 32, b"", SHA256, context=info).hex() == key


def test_golden_info() -> None:
    assert derive.join(()) == b""
    assert derive.join(("ab", "", "é")) == b"\x00\x02ab\x00\x00\x00\x02\xc3\xa9"
    assert derive.join(("x" * 300,))[:2] == b"\x01\x2c"


def test_no_two_lists_of_fields_are_joined_to_the_same_bytes() -> None:
    lists = [(), ("",), ("", ""), ("a",), ("a", ""), ("", "a"), ("ab",), ("a", "b"), ("\0\x01a",), ("a\0\x01b",)]
    assert len({derive.join(fields) for fields in lists}) == len(lists)


def test_x25519_is_the_one_of_rfc_7748() -> None:
    """Section 6.1: Bob's keys, Alice's public key, what they share."""
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert derive.public_of(bob).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = derive.exchange(bob, alice, "alice").hex()
    assert shared == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


@pytest.mark.parametrize("bits", [18, 36, 52])
def test_the_keystream_is_aes_256_ctr_from_a_zero_block(bits: int) -> None:
    key = derive.key_for("self-mask", SEED, CONTEXT, "lagos")
    stream = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=bytes(16)).encrypt(bytes(8 * 1001))
    words = [int.from_bytes(stream[at : at + 8], "little") % 2**bits for at in range(0, len(stream), 8)]
    assert derive.keystream(key, 1001, bits).tolist() == words
    assert derive.keystream(key, 7, bits).tolist() == words[:7]


@pytest.mark.parametrize("public", [bytes(32), bytes([1]) + bytes(31)])
def test_a_point_of_small_order_is_refused_by_the_name_of_its_owner(public: bytes) -> None:
    with pytest.raises(NotAuthentic, match="X25519 key of lima is a point of small order"):
        derive.exchange(SECRET, public, "lima")
