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

PLAIN_MODULI: Final = {
    28: 268369921,
    29: 536813569,
    30: 1073692673,
    31: 2147377153,
    32: 4294828033,
    33: 8589852673,
    34: 17179754497,
    35: 34359697409,
    36: 68719403009,
    37: 137438822401,
    38: 274877816833,
    39: 549755731969,
    40: 1099511480321,
    41: 2199023190017,
    42: 4398046486529,
    43: 8796092858369,
    44: 17592186028033,
    45: 35184371884033,
    46: 70368743669761,
    47: 140737488273409,
    48: 281474976694273,
    49: 562949953216513,
    50: 1125899906826241,
    51: 2251799813554177,
    52: 4503599627149313,
}
"""Bit length -> largest prime t of that length with t = 1 mod 8192: what SEAL's `PlainModulus.Batching(4096, bits)`
gives. A table, so that nobody needs a primality test or the cipher library to know a plan's parameters; the tests
compare it with SEAL and with pycryptodome. The largest prime and not the smallest: the more room above members * 2^m,
the surer a wrong key shows in `cipher.open_sum`."""


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
        """Return the slots that `dimension` coordinates need."""
        return -(-dimension // self.digits)

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
    modulus = PLAIN_MODULI.get(largest_sum.bit_length(), 0)
    if modulus < largest_sum or members * (2 * NOISE_BOUND + 1) * modulus >= CIPHER_MODULUS:
        return None
    return SumParameters(
        members=members, bits=bits, radix=radix, digits=digits, modulus_bits=modulus_bits, plain_modulus=modulus
    )
