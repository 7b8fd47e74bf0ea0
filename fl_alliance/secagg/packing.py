"""Several digits in one slot, in the radix in which a sum of all members can't carry."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_alliance.errors import OutOfRange
from fl_alliance.secagg.fixedpoint import require_digits
from fl_alliance.secagg.parameters import CHECK_SLOTS, SumParameters


def pack(digits: NDArray[np.uint64], parameters: SumParameters) -> NDArray[np.uint64]:
    """Put `parameters.digits` digits into each slot: slot i holds the digits i, s + i, 2s + i, ... in radix R.

    s is the number of slots without the `CHECK_SLOTS` zeros at the end; digits that are missing are zero. Sums of
    packed slots are packed sums, as long as no more than `parameters.members` are added.

    Args:
        digits: uint64 array of shape (d,), each value in [0, 2^bits - 1].
        parameters: of the sum.

    Returns: uint64 array of shape (slots,), each value in [0, R^k - 1].

    Raises:
        OutOfRange: a digit is above 2^bits - 1, and members who add such digits would carry.
    """
    require_digits(digits, (1 << parameters.bits) - 1)
    columns = np.zeros((parameters.digits, parameters.slots(len(digits)) - CHECK_SLOTS), np.uint64)
    columns.reshape(-1)[: len(digits)] = digits
    packed: NDArray[np.uint64] = columns[-1].copy()
    for column in columns[-2::-1]:
        packed = packed * np.uint64(parameters.radix) + column
    return np.concatenate([packed, np.zeros(CHECK_SLOTS, np.uint64)])


def unpack(slots: NDArray[np.uint64], parameters: SumParameters, dimension: int) -> NDArray[np.uint64]:
    """Return the digits of a packed sum.

    What is left of masks or of a wrong key passes with probability 2^-72 at most. A member who lies about its own
    digits is not noticed.

    Args:
        slots: uint64 array of shape (slots,), each value in [0, R^k - 1].
        parameters: of the sum.
        dimension: d, coordinates that were packed.

    Returns: uint64 array of shape (d,), each value in [0, members * (2^bits - 1)].

    Raises:
        OutOfRange: another number of slots than d needs, a slot that no digits make, or a zero that is none.
    """
    if slots.shape != (parameters.slots(dimension),):
        raise OutOfRange(f"{slots.shape} slots, {dimension} coordinates need {parameters.slots(dimension)}")
    rest = slots[:-CHECK_SLOTS]
    columns = np.empty((parameters.digits, len(rest)), np.uint64)
    for index in range(parameters.digits):
        rest, columns[index] = np.divmod(rest, np.uint64(parameters.radix))
    digits = columns.reshape(-1)
    bad = sum(int(np.count_nonzero(zeros)) for zeros in (slots[-CHECK_SLOTS:], rest, digits[dimension:]))
    if bad:
        raise OutOfRange(f"{bad} slots or digits are not as a sum of {parameters.members} updates leaves them")
    return digits[:dimension]
