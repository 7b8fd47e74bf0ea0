import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_alliance.errors import OutOfRange
from fl_alliance.secagg.fixedpoint import dequantise_sum, quantise
from fl_alliance.secagg.packing import pack, unpack
from fl_alliance.secagg.parameters import CHECK_SLOTS, WIDTHS, sum_parameters


@given(
    st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=20),
    st.sampled_from(WIDTHS),
    st.floats(1e-12, 1e12),
)
def test_one_update_comes_back_within_a_level(values, bits, clip):
    update = np.array(values)
    back = dequantise_sum(quantise(update, clip=clip, bits=bits), clip=clip, bits=bits, members=1)
    level = 2 * clip / (2**bits - 1)
    assert np.abs(back - np.clip(update, -clip, clip)).max() <= level * (1 + 1e-9)
    assert np.abs(back).max() <= clip * (1 + 1e-12)


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_ends_of_the_range_are_the_ends_of_the_digits(bits):
    for draw in (bytes, lambda n: b"\xff" * n):
        got = quantise(np.array([-2.0, -1.0, 1.0, 7.0]), clip=1.0, bits=bits, random_bytes=draw)
        assert got.tolist() == [0, 0, 2**bits - 1, 2**bits - 1]


def test_rounding_has_no_bias_and_rounding_to_nearest_would():
    value, clip, bits, count = 0.013, 1.0, 8, 400_000
    step = 2 * clip / (2**bits - 1)

    def deviation(digits):
        mean = dequantise_sum(digits, clip=clip, bits=bits, members=1).mean()
        return abs(mean - value) / (step / 2 / np.sqrt(count))

    update = np.full(count, value)
    assert deviation(quantise(update, clip=clip, bits=bits)) < 6
    nearest = quantise(update, clip=clip, bits=bits, random_bytes=lambda n: b"\x00\x00\x00\x80" * (n // 4))
    assert deviation(nearest) > 50


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_update_that_is_not_finite_is_refused_without_its_values(bad):
    with pytest.raises(OutOfRange, match="2 of 4 coordinates") as caught:
        quantise(np.array([0.123, bad, bad, 0.456]), clip=1.0, bits=8)
    assert "0.123" not in str(caught.value)


@pytest.mark.parametrize("clip", [0.0, -1.0, np.nan, np.inf])
def test_clip_that_is_no_bound_is_refused(clip):
    with pytest.raises(OutOfRange, match="clip"):
        quantise(np.zeros(3), clip=clip, bits=8)


def test_dequantised_sum_has_the_same_bytes_everywhere():
    total = np.array([0, 1, 98302, 98303, 196605], np.uint64)
    got = dequantise_sum(total, clip=0.05, bits=16, members=3)
    assert got.astype(">f8").tobytes().hex() == (
        "bfc3333333333334bfc333266659998dbea999b3334ccce73ea999b3334ccce73fc3333333333334"
    )
    with pytest.raises(OutOfRange):
        dequantise_sum(total + np.uint64(1), clip=0.05, bits=16, members=3)


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 100), st.sampled_from(WIDTHS), st.integers(1, 50), st.integers(0, 2**32))
def test_sum_of_packed_is_packed_sum(members, bits, dimension, seed):
    p = sum_parameters(members=members, bits=bits)
    random = np.random.default_rng(seed)
    digits = random.integers(0, 2**bits, (members, dimension), dtype=np.uint64)
    digits[:, random.random(dimension) < 0.3] = 2**bits - 1  # the worst case: all members at the top
    total = sum(pack(row, p) for row in digits)
    assert int(total.max()) < 2**p.modulus_bits
    assert (unpack(total, p, dimension) == digits.sum(0)).all()


@pytest.mark.parametrize(("members", "bits"), [(3, 16), (4, 16), (8, 12), (1000, 8)])
def test_noise_is_not_a_sum(members, bits):
    p = sum_parameters(members=members, bits=bits)
    for seed in range(50):
        noise = np.random.default_rng(seed).integers(0, 2**p.modulus_bits, p.slots(10), dtype=np.uint64)
        with pytest.raises(OutOfRange):
            unpack(noise, p, 10)


def test_digit_out_of_range_is_refused_before_packing():
    p = sum_parameters(members=3, bits=8)
    with pytest.raises(OutOfRange, match="1 of 2 digits are above 255"):
        pack(np.array([255, 256], np.uint64), p)


def test_changed_sum_is_refused_by_name():
    p = sum_parameters(members=3, bits=16)
    good = pack(np.arange(5, dtype=np.uint64), p)
    with pytest.raises(OutOfRange, match="slots, 7 coordinates need"):
        unpack(good, p, 7)
    check, padding, above = good.copy(), good.copy(), good.copy()
    check[-1] = 1
    padding[2] += p.radix  # the sixth digit, of which there are five
    above[0] = p.radix**p.digits
    for changed in (check, padding, above):
        with pytest.raises(OutOfRange, match="1 slots or digits"):
            unpack(changed, p, 5)
    assert (good[-CHECK_SLOTS:] == 0).all()
