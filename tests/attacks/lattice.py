"""The attackers' own arithmetic: rings, SEAL's bytes, and keys from what a decryptor let out.

Nothing here uses the package's cipher, so that an attack does not rest on the code it attacks. Polynomials are numpy
arrays of Python integers, because the primes have 60 bits.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import tenseal.sealapi as seal_api
from numpy.typing import NDArray

from fl_alliance.secagg import frame
from fl_alliance.secagg.parameters import CIPHER_MODULUS, SumParameters

Poly = NDArray[Any]
"""Coefficients, or values at all roots in SEAL's order; Python integers, shape (degree,)."""

_SEAL_HEADER = struct.Struct("<HBBBBHQ")


def bit_reversed(degree: int) -> NDArray[np.int64]:
    """Return i -> i with its log2(degree) bits reversed, shape (degree,)."""
    order = np.zeros(1, np.int64)
    while len(order) < degree:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


class Ring:
    """Z_p[X] / (X^N + 1) with SEAL's order of roots: place i is the value at psi^(2 * reversed(i) + 1).

    psi is the smallest primitive 2N-th root of 1, as SEAL takes it. The inverse root of place i is at N - 1 - i, so
    reversing the values is X -> 1/X.
    """

    def __init__(self, degree: int, prime: int) -> None:
        self.degree, self.prime = degree, prime

    @cached_property
    def psi(self) -> int:
        step = (self.prime - 1) // (2 * self.degree)
        root = next(r for r in (pow(g, step, self.prime) for g in range(2, 999)) if self._is_primitive(r))
        square = root * root % self.prime
        powers = [root]
        while len(powers) < self.degree:
            powers.append(powers[-1] * square % self.prime)
        return min(powers)

    def _is_primitive(self, root: int) -> bool:
        return pow(root, self.degree, self.prime) == self.prime - 1

    def _powers(self, root: int) -> Poly:
        powers = [1]
        while len(powers) < self.degree:
            powers.append(powers[-1] * root % self.prime)
        return np.array(powers, object)[bit_reversed(self.degree)]

    @cached_property
    def _twiddles(self) -> tuple[Poly, Poly]:
        return self._powers(self.psi), self._powers(pow(self.psi, -1, self.prime))

    def values(self, poly: Poly) -> Poly:
        """Coefficients to values: the transform of Cooley and Tukey."""
        blocks, rows = poly.astype(object) % self.prime, 1
        while rows < self.degree:
            halves = blocks.reshape(rows, 2, -1)
            low, high = halves[:, 0], halves[:, 1] * self._twiddles[0][rows : 2 * rows, None] % self.prime
            blocks = np.stack([low + high, low - high], 1) % self.prime
            rows *= 2
        return blocks.reshape(-1)

    def coefficients(self, values: Poly) -> Poly:
        """Values to coefficients in (-p/2, p/2): the transform of Gentleman and Sande."""
        blocks, rows = values.astype(object) % self.prime, self.degree // 2
        while rows:
            halves = blocks.reshape(rows, 2, -1)
            low, high = halves[:, 0], halves[:, 1]
            turned = (low - high) * self._twiddles[1][rows : 2 * rows, None]
            blocks = np.stack([low + high, turned], 1) % self.prime
            rows //= 2
        return self.centred(blocks.reshape(-1) * pow(self.degree, -1, self.prime))

    def centred(self, poly: Poly) -> Poly:
        poly = poly % self.prime
        return np.where(poly > self.prime // 2, poly - self.prime, poly)

    def inverse(self, values: Poly) -> Poly:
        """Return 1 / value at each place (0 where the value is 0)."""
        return np.array([pow(value, -1, self.prime) if value else 0 for value in values.tolist()], object)


def slot_places(degree: int) -> NDArray[np.int64]:
    """Return slot -> exponent e of psi^(2e + 1): powers of 3, and their negatives for the second half."""
    powers = [1]
    while len(powers) < degree // 2:
        powers.append(powers[-1] * 3 % (2 * degree))
    rows = np.array(powers)
    return np.concatenate([(rows - 1) // 2, (2 * degree - rows - 1) // 2])


def batch_decode(poly: Poly, ring: Ring) -> NDArray[np.uint64]:
    """Return the slots of a BFV plaintext; `ring` is the one modulo t."""
    return ring.values(poly)[bit_reversed(ring.degree)[slot_places(ring.degree)]].astype(np.uint64)


def batch_encode(slots: NDArray[np.uint64], ring: Ring) -> Poly:
    """Return the BFV plaintext of the slots, coefficients in (-t/2, t/2)."""
    values = np.zeros(ring.degree, object)
    values[bit_reversed(ring.degree)[slot_places(ring.degree)]] = slots.tolist()
    return ring.coefficients(values)


def complex_decode(poly: Poly, scale: float) -> NDArray[np.float64]:
    """Return the real parts of the N/2 slots of a CKKS plaintext."""
    degree = len(poly)
    turned = poly.astype(np.float64) * np.exp(1j * np.pi * np.arange(degree) / degree)
    slots: NDArray[np.float64] = (np.fft.ifft(turned) * degree)[slot_places(degree)[: degree // 2]].real / scale
    return slots


def complex_encode(slots: NDArray[np.float64], degree: int, scale: float) -> Poly:
    """Return the CKKS plaintext with these N/2 real slots, rounded to integers."""
    values = np.zeros(degree, np.complex128)
    values[slot_places(degree)] = np.concatenate([slots, slots])
    turned = np.fft.fft(values) / degree * np.exp(-1j * np.pi * np.arange(degree) / degree)
    return np.array([round(x) for x in (turned.real * scale).tolist()], object)


# ---- SEAL's bytes


def unzipped(data: bytes) -> bytes:
    """Return what follows the header of a SEAL object, which is one zstd stream."""
    return bytes(pa.CompressedInputStream(pa.BufferReader(data[_SEAL_HEADER.size :]), "zstd").read())


def stored(thing: Any) -> bytes:
    """Return `thing` as SEAL writes it."""
    descriptor = os.memfd_create("attack")
    try:
        thing.save(f"/proc/self/fd/{descriptor}")
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


def words(thing: bytes, *shape: int) -> Poly:
    """Return the numbers at the end of a SEAL object, as Python integers in `shape`."""
    count = int(np.prod(shape))
    return np.frombuffer(unzipped(thing)[-8 * count :], "<u8").astype(object).reshape(shape)


def bfv_context(parameters: SumParameters) -> Any:
    """Return SEAL's context; everything in it is public."""
    wanted = seal_api.EncryptionParameters(seal_api.SCHEME_TYPE.BFV)
    wanted.set_poly_modulus_degree(parameters.degree)
    wanted.set_coeff_modulus(seal_api.CoeffModulus.Create(parameters.degree, [parameters.cipher_bits]))
    wanted.set_plain_modulus(parameters.plain_modulus)
    return seal_api.SEALContext(wanted, True, seal_api.SEC_LEVEL_TYPE.TC192)


def expanded(chunk: bytes, context: Any) -> bytes:
    """Return a ciphertext with its second half written out, where it was only a seed."""
    ciphertext = seal_api.Ciphertext(context)
    descriptor = os.memfd_create("attack")
    try:
        os.pwrite(descriptor, chunk, 0)
        ciphertext.load(context, f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return stored(ciphertext)


def halves(kind: frame.Kind, data: bytes, parameters: SumParameters, slots: int) -> Iterator[tuple[Poly, Poly]]:
    """Yield c0 and c1 of each ciphertext of a frame."""
    context = bfv_context(parameters)
    for chunk in frame.read(kind, data, parameters, slots):
        c0, c1 = words(expanded(bytes(chunk), context), 2, parameters.degree)
        yield c0, c1


def crafted_sum(genuine: bytes, c0: Poly, c1: Poly, parameters: SumParameters, slots: int) -> bytes:
    """Return a sum of one ciphertext in which everything but the two polynomials is as in `genuine`."""
    (chunk,) = frame.read(frame.Kind.SUM, genuine, parameters, slots)
    numbers = np.concatenate([c0, c1]) % CIPHER_MODULUS
    body = unzipped(bytes(chunk))[: -16 * parameters.degree] + numbers.astype("<u8").tobytes()
    zipped = pa.Codec("zstd").compress(body, asbytes=True)
    magic, size, major, minor, mode, reserved, _ = _SEAL_HEADER.unpack_from(chunk)
    head = _SEAL_HEADER.pack(magic, size, major, minor, mode, reserved, size + len(zipped))
    return frame.write(frame.Kind.SUM, parameters, slots, [head + zipped])


# ---- keys


def key_from_bytes(data: bytes, parameters: SumParameters) -> Poly:
    """Return the coefficients of a stored key: -1, 0 and 1."""
    return Ring(parameters.degree, CIPHER_MODULUS).coefficients(words(data, parameters.degree))


def decrypt(kind: frame.Kind, data: bytes, key: Poly, parameters: SumParameters, slots: int) -> NDArray[np.uint64]:
    """Decrypt any frame with a key's coefficients: every slot modulo t, no check at all."""
    ring = Ring(parameters.degree, CIPHER_MODULUS)
    plain_ring = Ring(parameters.degree, parameters.plain_modulus)
    secret, t = ring.values(key), parameters.plain_modulus
    opened = []
    for c0, c1 in halves(kind, data, parameters, slots):
        phase = ring.centred(c0 + ring.coefficients(ring.values(c1) * secret))
        opened.append(batch_decode((2 * t * phase + CIPHER_MODULUS) // (2 * CIPHER_MODULUS) % t, plain_ring))
    return np.concatenate(opened)[:slots]


def key_from_openings(ring: Ring, openings: list[tuple[Poly, Poly, Poly]]) -> Poly:
    """Solve for the key from two ciphertexts and the real parts of their decryptions (Li and Micciancio 2021).

    At each root z, with p the decrypted polynomial: c0(z) + c1(z) s(z) = p(z). Real slots give only p(z) + p(1/z), half
    of the equations; two ciphertexts under one key give them all: for each pair z, 1/z two equations, two unknowns.

    Args:
        ring: of the ciphertexts.
        openings: two times values of c0, c1 and p(z) + p(1/z).

    Returns: coefficients in (-p/2, p/2); -1, 0 and 1 if `openings` were exact.
    """
    (c0, c1, real), (d0, d1, other) = openings
    left, right = real - c0 - c0[::-1], other - d0 - d0[::-1]
    determinant = (c1 * d1[::-1] - c1[::-1] * d1) % ring.prime
    return ring.coefficients((left * d1[::-1] - right * c1[::-1]) * ring.inverse(determinant))
