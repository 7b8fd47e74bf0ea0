"""All secrets of a round at once are what pycryptodome's own `Shamir.combine` gives for each of them."""

from __future__ import annotations

import os

import numpy as np
import pytest
from Crypto.Protocol.SecretSharing import Shamir
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_alliance.secagg import interpolation, shares
from fl_alliance.secagg.interpolation import secrets_at_zero

SHARE = st.binary(min_size=16, max_size=16)


def together(indices: tuple[int, ...], secrets: list[list[bytes]]) -> list[bytes]:
    """What the shares of each secret, in the order of `indices`, give."""
    found = secrets_at_zero(indices, array_of(secrets))
    return [row.tobytes() for row in found]


def array_of(secrets: list[list[bytes]]) -> NDArray[np.uint8]:
    given_shares = np.array([[list(share) for share in row] for row in secrets], np.uint8)
    return given_shares.transpose(1, 0, 2)


def one_by_one(indices: tuple[int, ...], secrets: list[list[bytes]]) -> list[bytes]:
    return [Shamir.combine(list(zip(indices, row, strict=True)), ssss=False) for row in secrets]


@st.composite
def any_shares(draw: st.DrawFn) -> tuple[tuple[int, ...], list[list[bytes]]]:
    """Places in any order, up to the most that an alliance can have, and any bytes for one to four secrets."""
    indices = tuple(draw(st.lists(st.integers(1, 1000), min_size=1, max_size=9, unique=True)))
    row = st.lists(SHARE, min_size=len(indices), max_size=len(indices))
    return indices, draw(st.lists(row, min_size=1, max_size=4))


@settings(max_examples=100, deadline=None)
@given(any_shares())
def test_all_at_once_are_the_librarys_one_by_one_whatever_was_revealed(case: tuple[tuple[int, ...], list[list[bytes]]]):
    indices, secrets = case
    assert together(indices, secrets) == one_by_one(indices, secrets)


@pytest.mark.parametrize("share", [bytes(16), b"\xff" * 16, bytes(15) + b"\x01", b"\x80" + bytes(15)])
def test_shares_at_the_ends_of_the_field_too(share: bytes) -> None:
    secrets = [[share, share, share], [share, bytes(16), b"\xff" * 16]]
    assert together((3, 1, 174), secrets) == one_by_one((3, 1, 174), secrets)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(0, 6), st.randoms(use_true_random=False))
def test_any_threshold_of_dealt_shares_gives_the_secret(threshold: int, more: int, coins: object) -> None:
    secrets = [os.urandom(16) for _ in range(3)]
    dealt = [Shamir.split(threshold, threshold + more, secret, ssss=False) for secret in secrets]
    chosen = coins.sample(range(threshold + more), threshold)  # type: ignore[attr-defined]
    rows = [[all_shares[at][1] for at in chosen] for all_shares in dealt]
    assert together(tuple(at + 1 for at in chosen), rows) == secrets


def test_of_a_hundred_members_a_matrix_is_made_for_each_choice_and_not_for_each_seed(monkeypatch) -> None:
    """What grows with the square of the members: three times, however many seeds are opened and rounds go by."""
    made: list[tuple[int, ...]] = []
    weights = interpolation._weights
    monkeypatch.setattr(interpolation, "_weights", lambda indices: made.append(indices) or weights(indices))
    interpolation._matrix.cache_clear()
    secrets = {f"clinic-{at}": os.urandom(16) for at in range(3)}
    dealt = [Shamir.split(51, 100, secret, ssss=False) for secret in secrets.values()]
    opened = [(at + 1, [all_shares[at][1] for all_shares in dealt]) for at in range(100)]
    for _ in range(2):
        assert shares._combine(tuple(secrets), opened, 51) == secrets
    assert made == [tuple(range(1, 52)), tuple(range(2, 53)), tuple(range(50, 101))]
