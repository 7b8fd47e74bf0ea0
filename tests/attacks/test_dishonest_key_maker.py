"""A key maker that lies. What it signs comes to the members as it is: nobody but they can refuse it.

It knows the alliance key as every member does, so there is nothing to learn. It could set members apart: some with one
key, some with another, or with none that opens. The fingerprint, signed beside the sealed key, stands against it.
"""

from __future__ import annotations

import base64
import os

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from fl_alliance.protocol import messages as m
from fl_alliance.secagg import cipher, keywrap
from tests.attacks.test_swapped_keys import text
from tests.attacks.wire import Refused, Wire

P = 2**130 - 5


class KeyMaker:
    """The first member, which helps the attacker, once everybody has accepted and it has the key of the job itself."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self.name, self.victim = wire, wire.names[0], wire.victim
        wire.ask(self.name, wire.key_delivery(wire.wrapped_keys()))
        self.keys = wire.answer(m.WrappedKeys, self.name)
        key = wire.desks[self.name]._key
        assert key is not None
        self.key = key.to_bytes()
        self.seal_info = wire.info("alliance-key", self.keys.key_fingerprint)
        self.wrap_info = wire.info("content-key", self.victim)

    def deliver(self, **changes: object) -> None:
        """Bring the keys, signed with `changes`, to the victim; Refused: it does not take them."""
        keys = self.keys.model_copy(update=changes)
        self.wire.ask(self.victim, self.wire.key_delivery(self.wire.sign(self.name, keys)))

    def wrap(self, content_key: bytes, info: str) -> tuple[m.ToMember, ...]:
        """Return the wraps with this one for the victim."""
        public = base64.b64decode(self.wire.answer(m.Acceptance, self.victim).wrap_key)
        return self.with_wrap(text(keywrap.wrap_key(content_key, public, info)))

    def with_wrap(self, sealed: str) -> tuple[m.ToMember, ...]:
        mine = m.ToMember(member=self.victim, sealed=sealed)
        return tuple(mine if to.member == self.victim else to for to in self.keys.wrapped)

    def sealed(self, data: bytes, *, seal_info: str = "", wrap_info: str = "") -> dict[str, object]:
        """Return the changes that bring `data` to the victim, bound as it should be or otherwise."""
        content_key, sealed = keywrap.seal_key(data, seal_info or self.seal_info)
        return {"sealed_key": text(sealed), "wrapped": self.wrap(content_key, wrap_info or self.wrap_info)}


@pytest.fixture
def maker(tmp_path) -> KeyMaker:
    return KeyMaker(Wire(tmp_path, 3, helpers=1, dimension=10))


def elsewhere(info: str, where: str) -> str:
    parts = dict(zip(("protocol", "purpose", "alliance", "job", "plan", "whose"), info.split("|"), strict=True))
    return "|".join({**parts, where: "another"}.values())


def test_the_key_sealed_again_by_this_attacker_is_taken(maker):
    """What the refusals below are compared with: its seal and its wraps are as they should be."""
    maker.deliver(**maker.sealed(maker.key))
    assert maker.wire.answer(m.KeyAccepted, maker.victim).key_fingerprint == maker.keys.key_fingerprint


@pytest.mark.parametrize("place", [0, 11, 12, 20_000, -17, -16, -1])
def test_a_sealed_key_with_one_changed_bit_is_refused(maker, place):
    sealed = bytearray(base64.b64decode(maker.keys.sealed_key))
    sealed[place] ^= 1
    with pytest.raises(Refused, match=r"SecretUnavailable: the sealed key of \d+ bytes does not open"):
        maker.deliver(sealed_key=text(bytes(sealed)))


def test_another_members_wrap_is_refused(maker):
    others = [to.sealed for to in maker.keys.wrapped if to.member != maker.victim]
    with pytest.raises(Refused, match="SecretUnavailable: the wrapped key of 80 bytes does not open"):
        maker.deliver(wrapped=maker.with_wrap(others[-1]))


@pytest.mark.parametrize("where", ["protocol", "purpose", "alliance", "job", "plan", "whose"])
def test_a_wrap_from_another_job_or_for_another_member_is_refused(maker, where):
    with pytest.raises(Refused, match="SecretUnavailable: the wrapped key of 80 bytes does not open"):
        maker.deliver(**maker.sealed(maker.key, wrap_info=elsewhere(maker.wrap_info, where)))


@pytest.mark.parametrize("where", ["protocol", "purpose", "alliance", "job", "plan", "whose"])
def test_a_key_sealed_for_another_job_or_fingerprint_is_refused(maker, where):
    with pytest.raises(Refused, match=r"SecretUnavailable: the sealed key of \d+ bytes does not open"):
        maker.deliver(**maker.sealed(maker.key, seal_info=elsewhere(maker.seal_info, where)))


def test_a_wrap_of_less_than_a_content_key_is_refused(maker):
    with pytest.raises(Refused, match="NotAuthentic: a wrapped key has 80 bytes, that of site-02 64"):
        maker.deliver(wrapped=maker.wrap(bytes(16), maker.wrap_info))


def test_another_key_than_the_fingerprint_says_is_refused(maker):
    """A key that the cipher takes, sealed and wrapped as it should be."""
    other = cipher.AllianceKey.generate(maker.wire.parameters)
    with pytest.raises(Refused, match=f"NotAuthentic: the key's fingerprint is {other.fingerprint()}, not sha256:"):
        maker.deliver(**maker.sealed(other.to_bytes()))


# ---- one text, two keys


def mac_keys(key: bytes, nonce: bytes) -> tuple[int, int]:
    """Return r and s of Poly1305 under ChaCha20 (RFC 8439, 2.6)."""
    block = Cipher(ChaCha20(key, bytes(4) + nonce), None).encryptor().update(bytes(32))
    r, s = (int.from_bytes(half, "little") for half in (block[:16], block[16:]))
    return r & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF, s


def blocks(data: bytes) -> list[int]:
    data += bytes(-len(data) % 16)
    return [int.from_bytes(data[at : at + 16], "little") + (1 << 128) for at in range(0, len(data), 16)]


def opening_under_both(one: bytes, two: bytes, body: bytes, info: bytes) -> bytes:
    """Return nonce, `body`, two blocks that fit and a tag, which ChaCha20-Poly1305 opens under either key.

    The tag is a polynomial in r for each key; two free blocks before the lengths solve the two equations.
    """
    lengths = len(info).to_bytes(8, "little") + (len(body) + 32).to_bytes(8, "little")
    before, last = [*blocks(info), *blocks(body)], blocks(lengths)[0]
    while True:
        nonce, tag = os.urandom(12), int.from_bytes(os.urandom(16), "little")
        rows = []
        for key in (one, two):
            r, s = mac_keys(key, nonce)
            known = 0
            for block in before:
                known = (known + block) * r % P
            # (((known + a) r + b) r + last) r + s = tag, so a r + b = wanted
            wanted = ((tag - s) % (1 << 128) - last * r) * pow(r, -2, P) - known * r
            rows.append((r, wanted))
        (r1, w1), (r2, w2) = rows
        a = (w1 - w2) * pow(r1 - r2, -1, P) % P
        b = (w1 - a * r1) % P
        free = [block - (1 << 128) for block in (a, b)]
        if all(0 <= block < 1 << 128 for block in free):
            ends = b"".join(block.to_bytes(16, "little") for block in free)
            return nonce + body + ends + tag.to_bytes(16, "little")


def test_one_sealed_text_that_gives_two_members_two_keys_is_refused(maker):
    """The AEAD does not commit to its key: the text opens for each, to other bytes. One fingerprint is not both's."""
    one, two = os.urandom(32), os.urandom(32)
    sealed = opening_under_both(one, two, maker.key[:4096], maker.seal_info.encode())
    opened = [keywrap.open_key(sealed, key, maker.seal_info) for key in (one, two)]
    assert opened[0] != opened[1]
    found = cipher.AllianceKey(opened[1]).fingerprint()
    with pytest.raises(Refused, match=f"NotAuthentic: the key's fingerprint is {found}, not sha256:"):
        maker.deliver(sealed_key=text(sealed), wrapped=maker.wrap(two, maker.wrap_info))
