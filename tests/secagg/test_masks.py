"""Masks, and the mistakes of others with them."""

import hmac
import itertools

import numpy as np
import pytest
from Crypto.Cipher import AES
from Crypto.Protocol.DH import import_x25519_private_key, import_x25519_public_key, key_agreement
from scipy.stats import chisquare

from fl_alliance.errors import BadPlan, MalformedMessage, NotAuthentic, OutOfRange, SecretUnavailable
from fl_alliance.secagg import derive, masks
from fl_alliance.secagg.masks import RoundContext, RoundPublic, RoundSecrets
from tests.secagg.alliance import CONTEXT, Alliance

BITS = 36


# ---- a second implementation of the derivation, from the table in derive.py, with other libraries


def info(*fields):
    return b"".join(len(f).to_bytes(2, "big") + f.encode() for f in fields)


def hkdf(secret, about):
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, about + b"\x01", "sha256")


def stream(key, slots):
    data = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=bytes(16)).encrypt(bytes(8 * slots))
    return [int.from_bytes(data[at : at + 8], "little") % 2**BITS for at in range(0, 8 * slots, 8)]


def x25519(private, public):
    return key_agreement(
        static_priv=import_x25519_private_key(private),
        static_pub=import_x25519_public_key(public),
        kdf=lambda shared: shared,
    )


def fixed(index):
    return RoundSecrets(
        mask_seed=bytes([index]) * 16, self_seed=bytes([index + 16]) * 16, channel_private=bytes([index + 32]) * 32
    )


def test_masks_are_the_ones_that_a_second_implementation_makes():
    secrets = {name: fixed(index) for index, name in enumerate(("a", "b", "c"), 1)}
    publics = {name: own.public for name, own in secrets.items()}
    got = masks.add_masks(
        np.arange(5, dtype=np.uint64), secrets=secrets["b"], me="b", publics=publics, context=CONTEXT, modulus_bits=BITS
    )
    bound = ("north", "nouns", "1", "sha256:" + "0" * 64)
    label = "fl-alliance/1/secagg"
    private = hkdf(bytes([2]) * 16, info(label, "mask-private"))
    own = stream(hkdf(bytes([18]) * 16, info(label, "self-mask", *bound, "b")), 5)
    minus = stream(hkdf(x25519(private, publics["a"].mask), info(label, "pairwise-mask", *bound, "a", "b")), 5)
    plus = stream(hkdf(x25519(private, publics["c"].mask), info(label, "pairwise-mask", *bound, "b", "c")), 5)
    expected = [(i + s - m + p) % 2**BITS for i, s, m, p in zip(range(5), own, minus, plus, strict=True)]
    assert got.tolist() == expected


def test_golden_bytes_of_the_derivation():
    own = fixed(1)
    assert own.public.mask.hex() == "fcd3ac2e9a1a40b2f6b14f2c9092c143fa2e3507652d5c54e68e44bf2861cf67"
    assert own.public.channel.hex() == "7d34a4815fa6b982535e60af3bd9b49556816080f1641ff81d2b7c8ae8268a44"
    assert derive.join(("a", "", "é")).hex() == "000161" + "0000" + "0002c3a9"
    key = derive.key_for("self-mask", own.self_seed, CONTEXT, "a")
    assert key.hex() == "f0f7361c5d556912a9ef4d407022003c079a18ad67d52fbfb71d7fe287206e9c"
    assert derive.keystream(key, 4, BITS).tolist() == [26090148616, 67982383122, 42536572341, 32793173665]
    assert own.to_bytes().hex() == "464c525301" + "01" * 16 + "11" * 16 + "21" * 32


# ---- what masks promise


@pytest.mark.parametrize("members", [3, 4, 7])
def test_pairwise_masks_cancel_and_self_masks_come_off(members):
    alliance = Alliance(members)
    bits = alliance.parameters.modulus_bits
    slots = np.random.default_rng(0).integers(0, 2**bits // members, (members, 50), dtype=np.uint64)
    total = sum(alliance.masked(name, row) for name, row in zip(alliance.names, slots, strict=True))
    total &= np.uint64(2**bits - 1)
    clear = masks.remove_self_masks(total, self_seeds=alliance.self_seeds(), context=CONTEXT, modulus_bits=bits)
    assert (clear == slots.sum(0)).all()
    one_left = dict(itertools.islice(alliance.self_seeds().items(), members - 1))
    left = masks.remove_self_masks(total, self_seeds=one_left, context=CONTEXT, modulus_bits=bits)
    assert not (left == slots.sum(0)).any()


def uniform(values, bits):
    """p-value of the top 6 bits being uniform."""
    return chisquare(np.bincount((values >> np.uint64(bits - 6)).astype(int), minlength=64)).pvalue


def test_masked_update_is_uniform_and_the_test_would_see_a_missing_mask():
    alliance = Alliance(3)
    bits = alliance.parameters.modulus_bits
    plain = np.random.default_rng(0).normal(2 ** (bits - 1), 2 ** (bits - 4), 20_000).astype(np.uint64)
    assert uniform(alliance.masked("clinic-1", plain), bits) > 1e-6
    assert uniform(plain, bits) < 1e-100


def test_coordinator_with_colluders_sees_noise_while_one_other_member_is_honest():
    """Knows the victim's self seed (revealed at the end) and all colluders' mask keys."""
    alliance = Alliance(5)
    bits = alliance.parameters.modulus_bits
    victim, *others = alliance.names
    plain = np.arange(20_000, dtype=np.uint64)
    masked = alliance.masked(victim, plain)

    def strip(colluders):
        seeds = {victim: alliance.secrets[victim].self_seed}
        left = masks.remove_self_masks(masked, self_seeds=seeds, context=CONTEXT, modulus_bits=bits)
        for name in colluders:
            shared = derive.exchange(alliance.secrets[name].mask_private, alliance.publics[victim].mask, victim)
            low, high = sorted((victim, name))
            mask = derive.keystream(derive.key_for("pairwise-mask", shared, CONTEXT, low, high), len(plain), bits)
            left = left - mask if victim == low else left + mask
        return left & np.uint64(2**bits - 1)

    assert (strip(others) == plain).all()
    for honest in others:
        assert uniform(strip(set(others) - {honest}), bits) > 1e-6


def test_no_two_masks_are_the_same():
    """APPFL shares one mask secret; here each pair, member, round, job and roster has its own."""
    secret = bytes(range(32))
    contexts = [
        RoundContext("a", "j", 1, "d"),
        RoundContext("a", "j", 2, "d"),
        RoundContext("a", "k", 1, "d"),
        RoundContext("b", "j", 1, "d"),
        RoundContext("a", "j", 1, "e"),
        RoundContext("aj", "", 1, "d"),
        RoundContext("a", "j1", 1, "d"),
    ]
    uses = [
        ("self-mask", "x"),
        ("pairwise-mask", "x", "y"),
        ("share", "x", "y"),
        ("share", "y", "x"),
        ("share", "xy", ""),
    ]
    keys = {derive.key_for(purpose, secret, context, *names) for context in contexts for purpose, *names in uses}
    assert len(keys) == len(contexts) * len(uses)


def test_mask_key_depends_on_every_bit_of_the_shared_secret():
    """Flower's SecAgg+ folds a pairwise seed to 28 free bits (its issue 7522)."""
    secret = bytes(range(32))
    flipped = {
        derive.key_for(
            "pairwise-mask", (int.from_bytes(secret, "big") ^ 1 << bit).to_bytes(32, "big"), CONTEXT, "a", "b"
        )
        for bit in range(256)
    }
    assert len(flipped) == 256
    assert {len(key) for key in flipped} == {32}


def test_new_round_secrets_every_time_from_the_whole_entropy():
    drawn = []
    made = RoundSecrets.generate(lambda n: drawn.append(n) or bytes([len(drawn)]) * n)
    assert drawn == [16, 16, 32]
    assert len({made.mask_seed, made.self_seed, made.channel_private}) == 3
    assert len({RoundSecrets.generate().to_bytes() for _ in range(50)}) == 50


# ---- what masks refuse


def refused(alliance, publics, me="clinic-0"):
    session = {**alliance.session(me), "publics": publics}
    return masks.add_masks(np.zeros(3, np.uint64), modulus_bits=BITS, **session)


def test_two_members_are_refused_because_the_sum_minus_mine_is_yours():
    alliance = Alliance(3)
    with pytest.raises(BadPlan, match="2 members in the roster, need 3"):
        refused(alliance, {name: alliance.publics[name] for name in alliance.names[:2]})


def test_roster_with_another_key_for_me_is_refused():
    alliance = Alliance(3)
    for mine in (RoundSecrets.generate().public, None):
        publics = {**alliance.publics, "clinic-0": mine, "clinic-9": RoundSecrets.generate().public}
        if mine is None:
            del publics["clinic-0"]
        with pytest.raises(NotAuthentic, match="keys for clinic-0"):
            refused(alliance, publics)


def test_member_that_repeats_a_key_is_refused():
    alliance = Alliance(3)
    mine, other = alliance.publics["clinic-0"], alliance.publics["clinic-1"]
    own = RoundSecrets.generate().public
    for copied in (
        mine,
        other,
        RoundPublic(mask=mine.mask, channel=own.channel),
        RoundPublic(mask=own.mask, channel=other.channel),
        RoundPublic(mask=other.channel, channel=own.channel),
        RoundPublic(mask=own.mask, channel=own.mask),
    ):
        with pytest.raises(NotAuthentic, match="stands twice"):
            refused(alliance, {**alliance.publics, "clinic-2": copied})


@pytest.mark.parametrize("point", [0, 1, 2**255 - 19, 2**255 - 20])
def test_point_of_small_order_is_refused(point):
    alliance = Alliance(3)
    bad = RoundPublic(mask=point.to_bytes(32, "little"), channel=RoundSecrets.generate().public.channel)
    with pytest.raises(NotAuthentic, match="clinic-2 is a point of small order"):
        refused(alliance, {**alliance.publics, "clinic-2": bad})


@pytest.mark.parametrize("length", [0, 31, 33])
def test_public_key_of_another_length_is_refused(length):
    with pytest.raises(MalformedMessage, match=f"channel key of {length} bytes"):
        RoundPublic(mask=bytes(32), channel=bytes(length))


def test_slot_above_the_modulus_is_refused():
    alliance = Alliance(3)
    with pytest.raises(OutOfRange, match=r"above 2\^36"):
        alliance.masked("clinic-0", np.array([2**36], np.uint64))


def test_vault_bytes_come_back_and_others_are_refused():
    own = RoundSecrets.generate()
    assert RoundSecrets.from_bytes(own.to_bytes()).public == own.public
    good = own.to_bytes()
    for bad in (b"", good[:-1], good + b"\0", b"FLRS\x02" + good[5:]):
        with pytest.raises(SecretUnavailable, match="not round secrets"):
            RoundSecrets.from_bytes(bad)
