"""Sums of some members' uploads, and sums that grow upload by upload."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from fl_alliance.errors import NotAuthentic, SumRefused, WrongCipher
from fl_alliance.secagg import cipher
from tests.secagg.test_cipher import SLOTS, TOP, TOTAL, UPLOADS, VALUES, P, opened


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_sum_of_survivors_is_exact_and_of_exactly_so_many(count: int) -> None:
    """With the parameters of all members: so that a member that vanishes does not cost the round."""
    total = cipher.add(UPLOADS[:count], parameters=P, slots=SLOTS, count=count)
    assert (opened(total) == VALUES[:count].sum(0) & np.uint64(TOP)).all()
    for other in {0, 1, 2, 3, 4} - {count}:
        with pytest.raises(SumRefused, match=f"uploads, need exactly {other}"):
            cipher.add(UPLOADS[:count], parameters=P, slots=SLOTS, count=other)


def test_a_running_sum_is_the_sum_after_each_upload() -> None:
    with cipher.RunningSum(P, SLOTS) as running:
        for count, upload in enumerate(UPLOADS, 1):
            running.take(upload)
            assert running.taken == count
            assert running.to_bytes() == cipher.add(UPLOADS[:count], parameters=P, slots=SLOTS, count=count)
        with pytest.raises(SumRefused, match="4 uploads of 3 members"):
            running.take(UPLOADS[0])
        assert running.to_bytes() == TOTAL


def test_an_upload_in_pieces_of_any_size_is_the_same_upload() -> None:
    for size in (1, 7, 33, 1000, len(UPLOADS[0])):
        with cipher.RunningSum(P, SLOTS) as running:
            for upload in UPLOADS:
                running.take(upload[at : at + size] for at in range(0, len(upload), size))
            assert running.to_bytes() == TOTAL


def test_a_refused_upload_leaves_the_running_sum_as_it_was() -> None:
    """Also where the pieces themselves raise at their end, as those with another digest than the signed one do."""

    def other_digest() -> Iterator[bytes]:
        yield UPLOADS[2]
        raise NotAuthentic("another digest")

    with cipher.RunningSum(P, SLOTS) as running:
        running.take(UPLOADS[0])
        for bad in (b"", UPLOADS[1][:-1], UPLOADS[1] + b"\0", TOTAL):
            with pytest.raises(WrongCipher, match=r"^the upload of lagos: "):
                running.take(bad, "the upload of lagos")
        with pytest.raises(NotAuthentic, match="another digest"):
            running.take(other_digest())
        assert (running.taken, running.lost) == (1, False)
        running.take(UPLOADS[1])
        running.take(UPLOADS[2])
        assert running.to_bytes() == TOTAL


def test_a_running_sum_of_nothing_is_refused() -> None:
    with cipher.RunningSum(P, SLOTS) as running, pytest.raises(SumRefused, match="0 uploads, need one at least"):
        running.to_bytes()
