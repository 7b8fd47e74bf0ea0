"""Weights that are computed once give what pycryptodome's own `Shamir.combine` gives."""

from __future__ import annotations

import os

from Crypto.Protocol.SecretSharing import Shamir
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_alliance.secagg import shares


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), st.integers(0, 6), st.randoms(use_true_random=False))
def test_interpolation_is_the_librarys(threshold: int, more: int, coins: object) -> None:
    secret = os.urandom(16)
    dealt = Shamir.split(threshold, threshold + more, secret, ssss=False)
    chosen = coins.sample(dealt, threshold)  # type: ignore[attr-defined]
    assert shares._interpolate(chosen) == Shamir.combine(chosen, ssss=False) == secret


def test_a_wrong_share_gives_another_secret_in_both_alike() -> None:
    dealt = Shamir.split(3, 3, bytes(16), ssss=False)
    dealt[1] = (dealt[1][0], os.urandom(16))
    assert shares._interpolate(dealt) == Shamir.combine(dealt, ssss=False) != bytes(16)
