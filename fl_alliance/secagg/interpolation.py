"""Many secrets from their Shamir shares at once (Shamir 1979, over pycryptodome's GF(2^128)).

A secret is the sum of its shares, each times a weight that depends only on whose shares they are. `Shamir.combine`
makes the weights anew for each secret and multiplies bit by bit in Python; with a hundred members that is minutes. To
multiply by a fixed weight is a linear map over GF(2), and so is the whole sum: its matrix is made once for a choice of
members, by the library's own multiplications, and one product of matrices then gives all secrets of a round. The
matrix holds no secret, and what is done to the shares does not depend on their bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import numpy as np
from Crypto.Protocol.SecretSharing import _Element
from numpy.typing import NDArray

_BITS: Final = 128
_BYTES: Final = 16


def secrets_at_zero(indices: tuple[int, ...], shares: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what `Shamir.combine` gives for each secret.

    Args:
        indices: the members' places, each once, from 1.
        shares: shape (members, secrets, 16), in the order of `indices`.

    Returns: shape (secrets, 16).
    """
    members, secrets, _ = shares.shape
    bits = np.unpackbits(shares.transpose(1, 0, 2).reshape(secrets, members * _BYTES), axis=1)
    matrix = np.unpackbits(_matrix(indices), axis=1)
    ones = bits.astype(np.float32) @ matrix.astype(np.float32)  # exact: below 2**24 with up to 2**17 members
    return np.packbits(ones.astype(np.uint32) & 1, axis=1)


@lru_cache(maxsize=16)
def _matrix(indices: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return what each bit of each member's share adds to a secret, shape (128 x members, 16), bits packed.

    The rows of a member are its weight times x^127, ..., x, 1: the order of the bits of a share.
    """
    rows: list[bytes] = []
    for weight in _weights(indices):
        rows += reversed(list(_doublings(weight)))
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, _BYTES)


def _doublings(element: Any) -> Iterator[bytes]:
    """Yield `element` times 1, x, ..., x^127."""
    x: Any = _Element(2)
    for _ in range(_BITS):
        yield element.encode()
        element = element * x


def _weights(indices: tuple[int, ...]) -> Iterator[Any]:
    """Yield the Lagrange weights at 0: of x_i, the product of all x_j over x_i times the product of all x_i - x_j.

    Written so that one factor of each product is small: the library's time is in the bits of the smaller one.
    """
    points: list[Any] = [_Element(index) for index in indices]
    above: Any = _Element(1)
    for point in points:
        above = above * point
    for at, here in enumerate(points):
        below = here
        for other in points[:at] + points[at + 1 :]:
            below = below * (here + other)
        yield above * below.inverse()
