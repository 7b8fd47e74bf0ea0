"""How many digits fit into a slot, and which plaintext modulus holds their sum: computed, never chosen by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fl_alliance.errors import BadPlan
from fl_alliance.protocol.limits import MAX_MEMBERS, MIN_MEMBERS

WIDTHS: Final = (8, 12, 16, 18, 20)
"""Bits of one coordinate that a plan may ask for."""

CIPHER_MODULUS: Final = 0xFFFFFFFFFFFC001
"""q: the 60-bit prime that SEAL makes for N = 4096 (`CoeffModulus.Create(4096, [60])`)."""

NOISE_BOUND: Final = 21
"""Largest |e| of SEAL's fresh noise, which is centred binomial: ones among 21 random bits minus ones among 21 more."""

CHECK_SLOTS: Final = 4
"""Zeros behind the packed digits. A wrong seed, a wrong key or a missing upload leaves noise there: at least 72 bits of
it. Range checks alone would not do: where R^k is close to 2^m, such as for 4 members, noise is a valid sum."""

PLAIN_MODULI: Final = (
    268369921,
    536813569,
    1073692673,
    2147377153,
    4294828033,
    8589852673,
    17179754497,
    34359697409,
    68719403009,
    137438822401,
    274877816833,
    549755731969,
    1099511480321,
    2199023190017,
    4398046486529,
    8796092858369,
    17592186028033,
    35184371884033,
    70368743669761,
    140737488273409,
    281474976694273,
    281474976768001,
    562949953216513,
    1125899906826241,
    1688849860280321,
    1829587348725761,
    2251799813554177,
    4503599627149313,
    4503599627542529,
)
"""Primes t = 1 mod 8192 that SEAL can batch with, ascending: for each bit length from 28 to 52 the largest, as SEAL's
`PlainModulus.Batching(4096, bits)` gives it, and four smaller ones with which 4, 12, 13 and 64 members get one digit
more. A table, so that nobody needs a primality test or the cipher library to know a plan's parameters; the tests
compare it with SEAL and with pycryptodome, and show that no other prime would give any alliance more digits. Large
primes and not the smallest: the more room above members * 2^m, the surer `cipher.open_sum` notices a wrong key."""


@dataclass(frozen=True, kw_only=True)
class SumParameters:
    """Everything that both ends of a sum must agree on. Made by `sum_parameters`."""

    members: int
    bits: int
    """b: bits of one coordinate."""
    radix: int
    """R = members * (2^b - 1) + 1: a digit of the sum is below it."""
    digits: int
    """k: coordinates in one slot."""
    modulus_bits: int
    """m: masks are added modulo 2^m >= R^k."""
    plain_modulus: int
    """t: prime, t = 1 mod 2N, t >= members * 2^m, so that masked sums never wrap modulo t."""
    degree: int = 4096
    """N: slots of one ciphertext."""
    cipher_bits: int = 60
    """Bits of the one prime q."""

    def slots(self, dimension: int) -> int:
        """Return the slots that `dimension` coordinates need, `CHECK_SLOTS` among them."""
        return -(-dimension // self.digits) + CHECK_SLOTS

    def chunks(self, dimension: int) -> int:
        """Return the ciphertexts of `degree` slots that `dimension` coordinates need."""
        return -(-self.slots(dimension) // self.degree)


def sum_parameters(*, members: int, bits: int) -> SumParameters:
    """Return the parameters with the most digits per slot that can't fail to decrypt.

    The bound: a fresh symmetric BFV ciphertext of SEAL carries noise of at most 21 (centred binomial) + 1/2 (rounding
    of q * m / t), a sum of n of them at most n * 21.5, and decryption is exact while that is below q / (2t). So
    n * 43 * t < q, which is checked in integers. The failure probability of honest inputs is zero, not small.

    Source: Fan and Vercauteren 2012, "Somewhat practical fully homomorphic encryption", lemma 1, with the hard bound
    of SEAL's sampler in place of a tail bound.

    Raises:
        BadPlan: `members` outside 3 to 1000, `bits` not one of `WIDTHS`, or nothing fits.
    """
    if not MIN_MEMBERS <= members <= MAX_MEMBERS:
        raise BadPlan(f"members {members} must be {MIN_MEMBERS} to {MAX_MEMBERS}")
    if bits not in WIDTHS:
        raise BadPlan(f"bits {bits} must be one of {WIDTHS}")
    for digits in range(7, 0, -1):
        found = _fit(members, bits, digits)
        if found is not None:
            return found
    raise BadPlan(f"no sum of {members} members with {bits} bits fits a {CIPHER_MODULUS.bit_length()}-bit modulus")


def _fit(members: int, bits: int, digits: int) -> SumParameters | None:
    """Return the parameters with so many digits per slot, or None where the noise bound forbids them."""
    radix = members * ((1 << bits) - 1) + 1
    modulus_bits = (radix**digits - 1).bit_length()
    largest_sum = members << modulus_bits
    modulus = next((prime for prime in PLAIN_MODULI if prime >= largest_sum), CIPHER_MODULUS)
    if members * (2 * NOISE_BOUND + 1) * modulus >= CIPHER_MODULUS:
        return None
    return SumParameters(
        members=members, bits=bits, radix=radix, digits=digits, modulus_bits=modulus_bits, plain_modulus=modulus
    )
