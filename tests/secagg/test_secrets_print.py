import copy
import pickle

import pytest

from fl_alliance.secagg import cipher
from fl_alliance.secagg.masks import RoundSecrets
from fl_alliance.secagg.parameters import sum_parameters
from fl_alliance.secagg.shares import SharePair

SECRETS = [
    RoundSecrets.generate(),
    SharePair(index=1, self_share=b"s" * 16, mask_share=b"m" * 16),
    cipher.AllianceKey.generate(sum_parameters(members=3, bits=8)),
]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: type(secret).__name__)
def test_secrets_print_stars(secret):
    assert [repr(secret), str(secret), f"{secret}", f"{secret:>9}", f"{[secret]}"] == ["***"] * 4 + ["[***]"]
    assert not hasattr(secret, "__dict__")


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: type(secret).__name__)
@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_secrets_are_neither_pickled_nor_copied(secret, leave):
    with pytest.raises(TypeError, match="is a secret"):
        leave(secret)
