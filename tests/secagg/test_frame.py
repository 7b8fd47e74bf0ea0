"""The frame: golden bytes, and hostile ones raise `WrongCipher` and nothing else."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_alliance.errors import WrongCipher
from fl_alliance.secagg import frame
from fl_alliance.secagg.frame import Kind
from fl_alliance.secagg.parameters import SumParameters, sum_parameters

P = sum_parameters(members=3, bits=16)
SLOTS = 4097


def chunk(body: bytes) -> bytes:
    """What looks like a SEAL object from outside: its head states its own length."""
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, 2, 0, 16 + len(body)) + body


CHUNKS = [chunk(b"first"), chunk(b"")]
GOLDEN = bytes.fromhex(
    "464c5343"  # FLSC
    "01" "01" "0003" "10"  # version, kind, members, bits
    "00001000" "0000003ffffea001"  # N, t
    "00001001" "00000002"  # slots, chunks
    "00000015" "00000010"  # lengths
    "5ea1100403020000" "1500000000000000" "6669727374"
    "5ea1100403020000" "1000000000000000"
)  # fmt: skip
HEAD = 29


def test_golden_frame_both_ways() -> None:
    assert frame.write(Kind.UPLOAD, P, SLOTS, CHUNKS) == GOLDEN
    assert list(map(bytes, frame.read(Kind.UPLOAD, GOLDEN, P, SLOTS))) == CHUNKS
    assert frame.slots_in(GOLDEN) == SLOTS


def test_a_sum_is_no_upload() -> None:
    total = frame.write(Kind.SUM, P, SLOTS, CHUNKS)
    assert total[5] == 2
    with pytest.raises(WrongCipher, match="of a upload, expected"):
        frame.read(Kind.UPLOAD, total, P, SLOTS)
    with pytest.raises(WrongCipher, match="of a sum, expected"):
        frame.read(Kind.SUM, GOLDEN, P, SLOTS)


@pytest.mark.parametrize(
    "other",
    [
        sum_parameters(members=4, bits=16),
        sum_parameters(members=3, bits=12),
        replace(P, plain_modulus=P.plain_modulus - 8192),
        replace(P, degree=8192),
    ],
    ids=["members", "bits", "t", "degree"],
)
def test_a_frame_of_other_parameters_is_refused_with_both_headers(other: SumParameters) -> None:
    with pytest.raises(WrongCipher, match=f"header {GOLDEN[:HEAD].hex()} of a upload, expected"):
        frame.read(Kind.UPLOAD, GOLDEN, other, SLOTS)


@pytest.mark.parametrize("slots", [0, 1, SLOTS - 1, SLOTS + 1, 2 * SLOTS])
def test_a_frame_of_another_size_is_refused(slots: int) -> None:
    with pytest.raises(WrongCipher, match="expected"):
        frame.read(Kind.UPLOAD, GOLDEN, P, slots)


def test_a_frame_cut_off_anywhere_is_refused() -> None:
    for length in range(len(GOLDEN)):
        with pytest.raises(WrongCipher):
            frame.read(Kind.UPLOAD, GOLDEN[:length], P, SLOTS)


def test_a_byte_behind_is_refused() -> None:
    with pytest.raises(WrongCipher, match=f"{len(GOLDEN) + 1} bytes, the header and the lengths make {len(GOLDEN)}"):
        frame.read(Kind.UPLOAD, GOLDEN + b"\0", P, SLOTS)


@pytest.mark.parametrize("stated", [0, 15, 17, 2**31, 2**63, 2**64 - 1])
def test_a_chunk_that_states_another_length_is_refused(stated: int) -> None:
    """SEAL itself would ignore what follows, or wait for more."""
    lying = CHUNKS[1][:8] + struct.pack("<Q", stated)
    with pytest.raises(WrongCipher, match="a chunk of 16 bytes states another length"):
        frame.read(Kind.UPLOAD, frame.write(Kind.UPLOAD, P, SLOTS, [CHUNKS[0], lying]), P, SLOTS)


@pytest.mark.parametrize("length", [0, 1, 15])
def test_a_chunk_too_short_for_its_head_is_refused(length: int) -> None:
    with pytest.raises(WrongCipher, match=f"a chunk of {length} bytes"):
        frame.read(Kind.UPLOAD, frame.write(Kind.UPLOAD, P, SLOTS, [CHUNKS[0], bytes(length)]), P, SLOTS)


def test_lengths_that_shift_bytes_from_one_chunk_to_the_next_are_refused() -> None:
    shifted = GOLDEN[:HEAD] + struct.pack(">II", 0x14, 0x11) + GOLDEN[HEAD + 8 :]
    with pytest.raises(WrongCipher, match="a chunk of 20 bytes states another length"):
        frame.read(Kind.UPLOAD, shifted, P, SLOTS)


def read(data: bytes) -> None:
    """What is accepted is written again as the same bytes; everything else is WrongCipher."""
    try:
        chunks = frame.read(Kind.UPLOAD, data, P, SLOTS)
    except WrongCipher:
        return
    assert frame.write(Kind.UPLOAD, P, SLOTS, list(map(bytes, chunks))) == data


@given(st.integers(0, len(GOLDEN)), st.integers(0, 8), st.binary(max_size=8))
def test_a_mutated_frame_raises_only_wrong_cipher(start: int, cut: int, inserted: bytes) -> None:
    read(GOLDEN[:start] + inserted + GOLDEN[start + cut :])


@given(st.binary(max_size=120))
def test_random_bytes_raise_only_wrong_cipher(data: bytes) -> None:
    read(GOLDEN[:HEAD] + data)
    with pytest.raises(WrongCipher):
        frame.read(Kind.UPLOAD, data, P, SLOTS)


@pytest.mark.parametrize("data", [b"", GOLDEN[:28], b"FLSD" + GOLDEN[4:], b"FLSC\x02" + GOLDEN[5:]])
def test_slots_of_what_is_no_frame_are_not_told(data: bytes) -> None:
    with pytest.raises(WrongCipher, match=f"{len(data)} bytes do not begin with a header of version 1"):
        frame.slots_in(data)
