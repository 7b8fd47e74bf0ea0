"""A keystream made in blocks is one stream."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fl_alliance.secagg import derive

KEY = bytes(range(32))


@pytest.mark.parametrize("slots", [0, 1, 16_383, 16_384, 16_385, 50_001])
def test_stream_is_one_aes_ctr_run_however_long(slots: int) -> None:
    stream = Cipher(algorithms.AES(KEY), modes.CTR(bytes(16))).encryptor().update(bytes(8 * slots))
    expected = [word % 2**41 for word in np.frombuffer(stream, "<u8").tolist()]
    made = derive.keystream(KEY, slots, 41)
    assert made.tolist() == expected
    assert made.dtype == np.uint64


def test_no_part_of_a_long_stream_comes_again() -> None:
    made = derive.keystream(KEY, 100_000, 52)
    assert len(np.unique(made)) == made.size
