"""The base of every secret of this room: it prints as `***` and does not leave the process by accident."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """A value that neither `repr`, `str`, an f-string, `pickle` nor `copy` gives away.

    Guarantees: text made of it is `***`; pickling and copying raise TypeError; comparing tells identity only.
    Not guaranteed: that its bytes are wiped from memory, which Python can't do.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"

    def __str__(self) -> str:
        return "***"

    def __format__(self, format_spec: str) -> str:
        return "***"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is a secret: it can't be pickled or copied")
