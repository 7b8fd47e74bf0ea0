"""Several digits in one slot, in the radix in which a sum of all members can't carry."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_alliance.errors import OutOfRange
from fl_alliance.secagg.fixedpoint import require_digits
from fl_alliance.secagg.parameters import SumParameters


def pack(digits: NDArray[np.uint64], parameters: SumParameters) -> NDArray[np.uint64]:
    """Put `parameters.digits` digits into each slot: slot i holds the digits i, s + i, 2s + i, ... in radix R.

    s is the number of slots; what is missing at the end is zero. Sums of packed slots are packed sums, as long as no
    more than `parameters.members` are added.

    Args:
        digits: uint64 array of shape (d,), each value in [0, 2^bits - 1].
        parameters: of the sum.

    Returns: uint64 array of shape (slots,), each value in [0, R^k - 1].

    Raises:
        OutOfRange: a digit is above 2^bits - 1, and members who add such digits would carry.
    """
    require_digits(digits, (1 << parameters.bits) - 1)
    slots = parameters.slots(len(digits))
    columns = np.zeros((parameters.digits, slots), np.uint64)
    columns.reshape(-1)[: len(digits)] = digits
    packed: NDArray[np.uint64] = columns[-1].copy()
    for column in columns[-2::-1]:
        packed = packed * np.uint64(parameters.radix) + column
    return packed


def unpack(slots: NDArray[np.uint64], parameters: SumParameters, dimension: int) -> NDArray[np.uint64]:
    """Return the digits of a packed sum.

    Args:
        slots: uint64 array of shape (slots,), each value in [0, R^k - 1].
        parameters: of the sum.
        dimension: d, coordinates that were packed.

    Returns: uint64 array of shape (d,), each value in [0, members * (2^bits - 1)].

    Raises:
        OutOfRange: another number of slots than d needs, a slot that no digits make, or padding that is not zero.
            A slot of random bits is noticed where 2^m > R^k; that a whole vector of them is not is improbable.
    """
    if slots.shape != (parameters.slots(dimension),):
        raise OutOfRange(f"{slots.shape} slots, {dimension} coordinates need {parameters.slots(dimension)}")
    columns = np.empty((parameters.digits, len(slots)), np.uint64)
    rest = slots
    for index in range(parameters.digits):
        rest, columns[index] = np.divmod(rest, np.uint64(parameters.radix))
    bad = int(np.count_nonzero(rest)) + int(np.count_nonzero(columns.reshape(-1)[dimension:]))
    if bad:
        raise OutOfRange(
            f"{bad} of {len(slots)} slots hold more than {parameters.digits} digits of {parameters.bits} bits"
        )
    return columns.reshape(-1)[:dimension]
