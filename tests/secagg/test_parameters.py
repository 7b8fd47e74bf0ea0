import numpy as np
import pytest
import tenseal.sealapi as seal_api
from Crypto.Util.number import isPrime

from fl_alliance.errors import BadPlan
from fl_alliance.secagg import cipher
from fl_alliance.secagg.parameters import (
    CHECK_SLOTS,
    CIPHER_MODULUS,
    NOISE_BOUND,
    PLAIN_MODULI,
    WIDTHS,
    sum_parameters,
)

# (members, bits, digits, modulus bits, bits of t): measured before the library was written
TABLE = [
    (3, 16, 2, 36, 38),
    (3, 8, 5, 48, 50),
    (5, 16, 2, 37, 40),
    (20, 16, 2, 41, 46),
    (20, 8, 3, 37, 42),
    (50, 12, 2, 36, 42),
    (100, 12, 2, 38, 45),
    (1000, 20, 1, 30, 40),
]


@pytest.mark.parametrize(("members", "bits", "digits", "modulus_bits", "plain_bits"), TABLE)
def test_parameters_are_the_ones_of_the_table(members, bits, digits, modulus_bits, plain_bits):
    found = sum_parameters(members=members, bits=bits)
    assert (found.digits, found.modulus_bits, found.plain_modulus.bit_length()) == (digits, modulus_bits, plain_bits)
    assert found.radix == members * (2**bits - 1) + 1


@pytest.mark.parametrize("bits", WIDTHS)
def test_every_alliance_size_can_neither_wrap_nor_fail_to_decrypt(bits):
    for members in range(3, 1001):
        p = sum_parameters(members=members, bits=bits)
        assert p.radix**p.digits <= 2**p.modulus_bits
        assert members * 2**p.modulus_bits <= p.plain_modulus
        assert members * (NOISE_BOUND + 0.5) * 2 * p.plain_modulus < CIPHER_MODULUS
        assert CHECK_SLOTS * p.modulus_bits >= 72


@pytest.mark.parametrize("bits", WIDTHS)
def test_no_prime_at_all_would_give_an_alliance_more_digits(bits):
    for members in range(3, 1001):
        p = sum_parameters(members=members, bits=bits)
        least = members << (p.radix ** (p.digits + 1) - 1).bit_length()
        most = CIPHER_MODULUS // (43 * members)
        assert _batching_prime_from(least, most) > most, (members, bits)


def _batching_prime_from(least, most):
    """Smallest t >= least, 1 mod 8192 and prime; anything above `most` where there is none."""
    candidate = least + (1 - least) % 8192
    while candidate <= most and not isPrime(candidate):
        candidate += 8192
    return candidate


def test_moduli_are_primes_that_seal_itself_would_take():
    largest = {seal_api.PlainModulus.Batching(4096, bits).value() for bits in range(28, 53)}
    assert largest < set(PLAIN_MODULI)
    assert list(PLAIN_MODULI) == sorted(PLAIN_MODULI)
    for prime in (*PLAIN_MODULI, CIPHER_MODULUS):
        assert isPrime(prime, 1e-30)
        assert prime % 8192 == 1
    assert [prime.value() for prime in seal_api.CoeffModulus.Create(4096, [60])] == [CIPHER_MODULUS]


@pytest.mark.parametrize(("members", "bits"), [(3, 16), (40, 8), (200, 8)])
def test_measured_noise_of_a_full_sum_is_within_the_bound(members, bits):
    p = sum_parameters(members=members, bits=bits)
    key = cipher.AllianceKey.generate(p)
    slots = np.random.default_rng(1).integers(0, 2**p.modulus_bits, 4096, dtype=np.uint64)
    total = cipher.add((cipher.seal(slots, key=key, parameters=p) for _ in range(members)), parameters=p, slots=4096)
    opened = cipher.open_sum(total, key=key, parameters=p, slots=4096)
    assert (opened == slots * np.uint64(members) & np.uint64(2**p.modulus_bits - 1)).all()
    context = cipher._context(p)
    with cipher._Memory() as memory:
        decryptor = seal_api.Decryptor(context, cipher._secret_key(key, context, memory))
        (ciphertext,) = cipher._load(cipher.frame.read(cipher.Kind.SUM, total, p, 4096), p, memory)
        least = (CIPHER_MODULUS // (43 * members * p.plain_modulus)).bit_length() - 1
        assert decryptor.invariant_noise_budget(ciphertext) >= least


@pytest.mark.parametrize("members", [-1, 0, 1, 2, 1001])
def test_too_few_or_too_many_members_are_refused(members):
    with pytest.raises(BadPlan, match=f"members {members}"):
        sum_parameters(members=members, bits=16)


@pytest.mark.parametrize("bits", [0, 7, 24, 32])
def test_unknown_width_is_refused(bits):
    with pytest.raises(BadPlan, match=f"bits {bits}"):
        sum_parameters(members=3, bits=bits)


def test_slots_and_chunks_at_the_edges():
    p = sum_parameters(members=3, bits=16)
    assert [p.slots(d) for d in (1, 2, 3)] == [1 + CHECK_SLOTS, 1 + CHECK_SLOTS, 2 + CHECK_SLOTS]
    edge = (4096 - CHECK_SLOTS) * p.digits
    assert (p.chunks(edge), p.chunks(edge + 1)) == (1, 2)
