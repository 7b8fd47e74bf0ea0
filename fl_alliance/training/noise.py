"""Gaussian noise and coin flips from the operating system's generator. No seed exists, in no configuration.

torch's generators are not cryptographic and take 64-bit seeds; a stray `set_seed(42)` would give two institutions the
same noise. Here each draw has a fresh 256-bit key from `os.urandom`, expanded by AES-256 in counter mode.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Self

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

ByteSource = Callable[[int], bytes]
"""Gives so many unpredictable bytes."""

DRAWS = 4
"""Gaussian draws in one value of noise (Holohan and Braghin 2021: against floating-point attacks, Mironov 2012)."""

PIECE = 2**16
"""Values of noise that are made at a time: what a pass works on then stays in the processor's cache."""


def system_bytes(count: int) -> bytes:
    """Return `count` bytes: AES-256-CTR under a fresh key of the operating system (so that forks never share one)."""
    cipher = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(os.urandom(16)))
    return cipher.encryptor().update(bytes(count))


class SecretRandom:
    """Randomness that privacy rests on.

    Guarantees: two draws share no state; `random.seed`, `numpy.random.seed` and `torch.manual_seed` change nothing.
    Not guaranteed: an exactly Gaussian value; it is a float64 near one, and four are combined for that reason.
    """

    def __init__(self) -> None:
        self._bytes: ByteSource = system_bytes

    @classmethod
    def _from(cls, source: ByteSource) -> Self:
        """For tests only: take bytes from `source`."""
        made = cls()
        made._bytes = source
        return made

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Return `count` numbers in (0, 1], each from 53 random bits."""
        made = (np.frombuffer(self._bytes(8 * count), dtype="<u8") >> np.uint64(11)).astype(np.float64)
        made += 0.5
        made *= 2.0**-53
        return made

    def normals(self, count: int) -> NDArray[np.float64]:
        """Return `count` standard normal numbers (Box and Muller 1958)."""
        half = (count + 1) // 2
        radius, angle = np.split(self.uniforms(2 * half), 2)
        np.sqrt(np.multiply(np.log(radius, out=radius), -2.0, out=radius), out=radius)
        angle *= 2.0 * np.pi
        both = np.empty(2 * half)
        for part, wave in zip(np.split(both, 2), (torch.cos, torch.sin), strict=True):
            wave(torch.from_numpy(angle), out=torch.from_numpy(part))  # three times as fast as numpy's
            part *= radius
        return both[:count]

    def noise(self, count: int, scale: float) -> NDArray[np.float64]:
        """Return `count` Gaussian numbers with standard deviation `scale`: half the sum of four draws each."""
        total: NDArray[np.float64] = np.zeros(count)
        for start in range(0, count, PIECE):
            piece = total[start : start + PIECE]
            for _ in range(DRAWS):
                piece += self.normals(len(piece))
            piece *= scale / math.sqrt(DRAWS)
        return total

    def coins(self, count: int, probability: float) -> NDArray[np.bool_]:
        """Return `count` independent coins that are True with `probability`: a Poisson sample."""
        if probability >= 1:
            return np.ones(count, dtype=np.bool_)
        return self.uniforms(count) < probability

    def choose(self, count: int, most: int) -> list[int]:
        """Return at most `most` of the indices 0..count-1, each subset as likely as another, in increasing order."""
        if count <= most:
            return list(range(count))
        return sorted(np.argsort(self.uniforms(count))[:most].tolist())
