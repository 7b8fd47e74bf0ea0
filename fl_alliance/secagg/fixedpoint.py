"""Floats to unsigned integers and back. Exact arithmetic begins here: what is added later is integers only."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fl_alliance.errors import OutOfRange


def quantise(
    update: NDArray[np.float64], *, clip: float, bits: int, random_bytes: Callable[[int], bytes] = os.urandom
) -> NDArray[np.uint64]:
    """Clip each coordinate to [-clip, clip] and round it to one of 2^bits levels at random, so that the mean stays.

    The level of x is (x + clip) * (2^bits - 1) / (2 * clip), rounded up with probability equal to its fraction (to
    2^-32). The error of one coordinate is below 2 * clip / (2^bits - 1), its mean is zero.

    Args:
        update: shape (d,), any unit.
        clip: bound of a coordinate, in the unit of `update`.
        bits: width of a digit.
        random_bytes: n -> n random bytes; 4 d are drawn.

    Returns: uint64 array of shape (d,), each value in [0, 2^bits - 1].

    Raises:
        OutOfRange: `update` has a NaN or an infinite coordinate, or `clip` is not a positive number.
    """
    if not (np.isfinite(clip) and clip > 0):
        raise OutOfRange(f"clip {clip} must be a positive finite number")
    bad = int(np.count_nonzero(~np.isfinite(update)))
    if bad:
        raise OutOfRange(f"{bad} of {update.size} coordinates of the update are not finite")
    top = (1 << bits) - 1
    level = np.minimum((np.clip(update, -clip, clip) / clip + 1.0) * (top / 2.0), float(top))
    low = np.floor(level)
    draw = np.frombuffer(random_bytes(4 * update.size), "<u4").reshape(update.shape)
    return low.astype(np.uint64) + (draw < (level - low) * 2.0**32).astype(np.uint64)


def dequantise_sum(total: NDArray[np.uint64], *, clip: float, bits: int, members: int) -> NDArray[np.float64]:
    """Return the sum of the members' updates, from the sum of their levels.

    Guarantees: the same bytes on every machine. The integer 2 * total - members * (2^bits - 1) is exact in a float64,
    and what follows is one IEEE 754 division of two scalars and one multiplication for each coordinate.

    Args:
        total: shape (d,), each value in [0, members * (2^bits - 1)].
        clip: bound of a coordinate of one member's update.
        bits: width of a digit.
        members: how many updates are in `total`.

    Returns: float64 array of shape (d,), in the unit of `clip`.

    Raises:
        OutOfRange: a value of `total` is larger than `members` updates can make it.
    """
    top = (1 << bits) - 1
    require_digits(total, members * top)
    twice = 2 * total.astype(np.int64) - members * top
    return twice.astype(np.float64) * (clip / top)


def require_digits(digits: NDArray[np.uint64], largest: int) -> None:
    """Refuse digits above `largest`; the text says how many, not which.

    Raises:
        OutOfRange: a digit is above `largest`.
    """
    bad = int(np.count_nonzero(digits > np.uint64(largest)))
    if bad:
        raise OutOfRange(f"{bad} of {digits.size} digits are above {largest}")
