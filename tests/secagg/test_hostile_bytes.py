"""Traps of TenSEAL 0.3.18 and SEAL 4.3.3, one by one: what the library does with such bytes, and what ours do.

What may read or crash where it should not runs in a process of its own. Ours are read as in a job: in a worker.
"""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal_api

from fl_alliance.errors import OutOfRange, WrongCipher
from fl_alliance.secagg import cipher, frame
from fl_alliance.secagg.frame import Kind
from fl_alliance.secagg.parameters import sum_parameters
from fl_alliance.secagg.worker import CipherWorker

P = sum_parameters(members=3, bits=16)
SLOTS = 4100
KEY = cipher.AllianceKey.generate(P)
TOP = 2**P.modulus_bits - 1
VALUES = np.random.default_rng(5).integers(0, TOP + 1, (3, SLOTS), dtype=np.uint64)
UPLOADS = [cipher.seal(row, key=KEY, parameters=P) for row in VALUES]
TOTAL = cipher.add(UPLOADS, parameters=P, slots=SLOTS)
CHUNKS = frame.read(Kind.UPLOAD, UPLOADS[0], P, SLOTS)
WORKER = CipherWorker(P)

TENSEAL = """
import json, sys, tenseal as ts
context = ts.context(ts.SCHEME_TYPE.BFV, 4096, plain_modulus=1032193, encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC)
vector = ts.bfv_vector(context, [1, 2, 3])
proto = vector.serialize()
SIZES = bytes([0x0A, 1, 3])  # field 1, packed: one size, 3
assert proto.startswith(SIZES)
"""


def tenseal(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` with TenSEAL's own vectors, in a process that may crash."""
    return subprocess.run([sys.executable, "-c", TENSEAL + code], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def total() -> Iterator[cipher.RunningSum]:
    """A sum with one upload in it, in a worker."""
    with WORKER.running_sum(SLOTS) as running:
        running.take(UPLOADS[0])
        yield running


def framed(chunks: list[bytes], slots: int = SLOTS) -> bytes:
    return frame.write(Kind.UPLOAD, P, slots, chunks)


def require_refused(total: cipher.RunningSum, upload: bytes, match: str) -> None:
    """Refused by name, and the sum in the worker is still that of the first upload."""
    before = total.to_bytes()
    with pytest.raises(WrongCipher, match=match):
        total.take(upload)
    assert not total.lost
    assert total.to_bytes() == before


# ---- sizes[] of a BFVVectorProto


def test_tenseal_returns_heap_memory_for_a_size_that_the_sender_made_up() -> None:
    """2000 words more than the ciphertext has come out of `decrypt`, and not all are zero: memory of the opener."""
    run = tenseal("""
lie = bytes([0x0A, 2, 6096 & 127 | 128, 6096 >> 7]) + proto[len(SIZES):]
print(json.dumps(ts.bfv_vector_from(context, lie).decrypt()))
""")
    assert run.returncode == 0, run.stderr[-500:]
    values = json.loads(run.stdout)
    assert values[:3] == [1, 2, 3]
    assert len(values) == 6096
    assert any(values[4096:])


@pytest.mark.parametrize("slots", [4096, 4097, 8192, 8193, 20_000, 2**29, 2**32 - 1])
def test_a_size_that_the_sender_made_up_is_refused(total: cipher.RunningSum, slots: int) -> None:
    lie = UPLOADS[1][:21] + struct.pack(">I", slots) + UPLOADS[1][25:]
    require_refused(total, lie, "header")


@pytest.mark.parametrize("slots", [0, 2**29 + 1, 2**31, 2**32 - 1])
def test_an_adder_believes_no_size_that_no_blob_can_hold(slots: int) -> None:
    """The coordinator does not know the size: it learns it from the header."""
    lie = UPLOADS[1][:21] + struct.pack(">I", slots) + UPLOADS[1][25:]
    with pytest.raises(WrongCipher, match=f"header of {slots} slots"):
        frame.slots_in(lie)
    with pytest.raises(WrongCipher, match=f"header of {slots} slots"), WORKER.running_sum(slots) as running:
        running.take(lie)


# ---- no ciphertext at all


def test_tenseal_dies_when_a_vector_without_ciphertexts_is_added() -> None:
    run = tenseal("vector.add_(ts.bfv_vector_from(context, SIZES))")
    assert run.returncode == -signal.SIGSEGV


@pytest.mark.parametrize(
    "upload",
    [framed([]), framed([], slots=0), framed(CHUNKS[:1]), framed([*CHUNKS, CHUNKS[0]]), framed([CHUNKS[0], b""])],
    ids=["none", "none for no slots", "one too few", "one too many", "an empty one"],
)
def test_another_number_of_ciphertexts_is_refused(total: cipher.RunningSum, upload: bytes) -> None:
    require_refused(total, upload, r"header|a chunk of 0 bytes")


def test_a_sum_of_nothing_is_not_opened() -> None:
    with pytest.raises(WrongCipher, match="header"):
        WORKER.open_sum(frame.write(Kind.SUM, P, 0, []), key=KEY, slots=0)


# ---- SEAL's own end

ABORT = """
from tests.secagg.test_hostile_bytes import P, endless
from fl_alliance.secagg import cipher
cipher.LocalChunkSum(P).take([endless()])
"""


def endless() -> bytes:
    """A ciphertext whose seed says of itself that it is compressed and 2^63 bytes long."""
    at = CHUNKS[0].rindex(bytes.fromhex("5ea1100403"))
    return CHUNKS[0][: at + 5] + bytes([2, 0, 0]) + struct.pack("<Q", 2**63) + CHUNKS[0][at + 16 :]


def test_seal_aborts_the_process_over_a_length_and_the_worker_is_what_ends() -> None:
    """Found by tests/fuzz: an exception that SEAL lets out where C++ allows none. No `except` helps against that."""
    run = subprocess.run([sys.executable, "-c", ABORT], capture_output=True, text=True, check=False)
    assert run.returncode == -signal.SIGABRT, run.stderr[-500:]
    assert "terminate called" in run.stderr
    with WORKER.running_sum(SLOTS) as running:
        running.take(UPLOADS[0])
        with pytest.raises(WrongCipher, match=r"^lagos: the cipher's worker was ended by SIGABRT"):
            running.take(framed([endless(), CHUNKS[1]]), "lagos")
        assert running.lost
    assert WORKER.add(UPLOADS, slots=SLOTS) == TOTAL


# ---- wrong numbers without an exception


def decrypted_by_seal(chunk: bytes, key: cipher.AllianceKey = KEY) -> tuple[list[int], int]:
    """What SEAL itself gives for a ciphertext of a sum, and the noise budget that it claims."""
    context = cipher._context(P)
    with cipher._Memory() as memory:
        decryptor = seal_api.Decryptor(context, cipher._secret_key(key, context, memory))
        loaded = memory.read(seal_api.Ciphertext(context), context, chunk, "ciphertext")
        plain = seal_api.Plaintext()
        decryptor.decrypt(loaded, plain)
        return seal_api.BatchEncoder(context).decode_uint64(plain), decryptor.invariant_noise_budget(loaded)


def changed_sum(change: Callable[[Any, Any], None]) -> list[bytes]:
    """The sum's chunks, the first of them changed by an evaluator."""
    context = cipher._context(P)
    first, *rest = frame.read(Kind.SUM, TOTAL, P, SLOTS)
    with cipher._Memory() as memory:
        loaded = memory.read(seal_api.Ciphertext(context), context, first, "ciphertext")
        change(loaded, seal_api.Evaluator(context))
        return [memory.write(loaded), *rest]


def test_a_wrong_key_gives_numbers_to_seal_and_an_error_to_us() -> None:
    stranger = cipher.AllianceKey.generate(P)
    (first, _) = frame.read(Kind.SUM, TOTAL, P, SLOTS)
    numbers, _ = decrypted_by_seal(first, stranger)
    assert max(numbers) < P.plain_modulus
    assert numbers != decrypted_by_seal(first)[0]
    with pytest.raises(OutOfRange, match="another key"):
        WORKER.open_sum(TOTAL, key=stranger, slots=SLOTS)


def test_an_exhausted_noise_budget_gives_numbers_to_seal_and_an_error_to_us() -> None:
    """Doubled 40 times: 2^40 times the sum modulo t, if the noise were still below q / 2t."""

    def double(loaded: Any, evaluator: Any) -> None:
        for _ in range(40):
            evaluator.add_inplace(loaded, loaded)

    chunks = changed_sum(double)
    numbers, budget = decrypted_by_seal(chunks[0])
    assert budget == 0
    right = [int(value) * 2**40 % P.plain_modulus for value in VALUES.astype(object).sum(0)[:4096]]
    assert sum(a != b for a, b in zip(numbers, right, strict=True)) > 4000
    with pytest.raises(OutOfRange, match="are no sum of 3 uploads"):
        WORKER.open_sum(frame.write(Kind.SUM, P, SLOTS, chunks), key=KEY, slots=SLOTS)


def test_a_value_of_t_or_more_wraps_in_tenseal_and_is_refused_here() -> None:
    run = tenseal("print(json.dumps(ts.bfv_vector(context, [1032193 + 5]).decrypt()))")
    assert json.loads(run.stdout) == [5]
    for value in (TOP + 1, P.plain_modulus, P.plain_modulus + 5):
        with pytest.raises(OutOfRange, match=r"below 2\^36"):
            WORKER.seal(np.array([value], np.uint64), key=KEY)


def test_a_member_that_seals_values_between_the_masks_and_t_makes_no_sum() -> None:
    """A liar's own SEAL seals any value below t. What is between 2^m and t shows in the sum."""
    chunks = cipher.local_seal(np.full(SLOTS, P.plain_modulus // 2, np.uint64), KEY, P)
    lie = WORKER.add([framed(chunks), *UPLOADS[1:]], slots=SLOTS)
    with pytest.raises(OutOfRange, match="are no sum of 3 uploads"):
        WORKER.open_sum(lie, key=KEY, slots=SLOTS)


# ---- another version, other parameters


@pytest.mark.parametrize(
    ("place", "byte"), [(0, 0x5F), (2, 0x11), (3, 3), (3, 5), (4, 2), (4, 4), (5, 0), (5, 1), (5, 3), (6, 1)]
)
def test_the_header_of_another_version_of_seal_is_refused(total: cipher.RunningSum, place: int, byte: int) -> None:
    """Magic, header's length, major, minor, compression, reserved: before SEAL sees the bytes."""
    changed = bytearray(CHUNKS[1])
    changed[place] = byte
    require_refused(total, framed([CHUNKS[0], bytes(changed)]), "not as SEAL 4.3 writes it")


@pytest.mark.parametrize(
    "other", [sum_parameters(members=3, bits=8), sum_parameters(members=100, bits=16)], ids=["8 bits", "100 members"]
)
def test_ciphertexts_of_another_plain_modulus_under_our_header_are_refused(
    total: cipher.RunningSum, other: Any
) -> None:
    """Same N and q; what differs is the parameters' id inside, which SEAL compares."""
    assert other.plain_modulus != P.plain_modulus
    chunks = cipher.local_seal(VALUES[0] & np.uint64(1), cipher.AllianceKey.generate(other), other)
    require_refused(total, framed(chunks), "SEAL refuses")


def test_ciphertexts_of_another_degree_under_our_header_are_refused(total: cipher.RunningSum) -> None:
    context = seal_api.EncryptionParameters(seal_api.SCHEME_TYPE.BFV)
    context.set_poly_modulus_degree(2048)
    context.set_coeff_modulus(seal_api.CoeffModulus.Create(2048, [54]))
    context.set_plain_modulus(65537)
    made = seal_api.SEALContext(context, True, seal_api.SEC_LEVEL_TYPE.TC128)
    with cipher._Memory() as memory:
        key = seal_api.KeyGenerator(made).secret_key()
        plain = seal_api.Plaintext("1x^1")
        chunk = memory.write(seal_api.Encryptor(made, key).encrypt_symmetric(plain))
    require_refused(total, framed([chunk, chunk]), "SEAL refuses")


def test_a_seed_that_was_not_drawn_for_this_ciphertext_makes_no_sum() -> None:
    """SEAL expands whatever seed it is given. The numbers are noise, and noise is no sum."""
    body = bytearray(CHUNKS[0])
    body[-20] ^= 0xFF
    lie = WORKER.add([framed([bytes(body), CHUNKS[1]]), *UPLOADS[1:]], slots=SLOTS)
    with pytest.raises(OutOfRange, match="are no sum of 3 uploads"):
        WORKER.open_sum(lie, key=KEY, slots=SLOTS)


def test_an_upload_of_an_unknown_generator_is_refused(total: cipher.RunningSum) -> None:
    """The generator that expands the seed is the byte behind the last of SEAL's headers. This one there never was."""
    at = CHUNKS[0].rindex(bytes.fromhex("5ea1100403"))
    assert CHUNKS[0][at + 16] == 1, "BLAKE2xb"
    changed = bytearray(CHUNKS[0])
    changed[at + 16] = 9
    require_refused(total, framed([bytes(changed), CHUNKS[1]]), "SEAL refuses")


# ---- cut off, or longer


def test_an_upload_cut_off_anywhere_is_refused(total: cipher.RunningSum) -> None:
    good = UPLOADS[1]
    for length in [*range(45), 100, len(good) // 2, len(good) - len(CHUNKS[1]), len(good) - 1]:
        require_refused(total, good[:length], "the bytes end inside")


def test_seal_ignores_what_follows_and_we_do_not(total: cipher.RunningSum) -> None:
    context = cipher._context(P)
    with cipher._Memory() as memory:
        memory.read(seal_api.Ciphertext(context), context, CHUNKS[0] + b"more", "ciphertext")
    require_refused(total, framed([CHUNKS[0] + b"more", CHUNKS[1]]), "states another length of itself")
    require_refused(total, framed([CHUNKS[0][:-1], CHUNKS[1]]), "states another length of itself")
    require_refused(total, UPLOADS[1] + b"more", "the header and the lengths make")


def test_a_ciphertext_that_says_less_of_itself_than_it_has_is_refused(total: cipher.RunningSum) -> None:
    short = CHUNKS[0][:8] + struct.pack("<Q", len(CHUNKS[0]) - 10) + CHUNKS[0][16:-10]
    require_refused(total, framed([short, CHUNKS[1]]), "SEAL refuses")


def test_a_chunk_longer_than_a_ciphertext_can_be_is_not_even_read(total: cipher.RunningSum) -> None:
    head = framed([b"", b""])
    lengths = struct.pack(">II", 2**32 - 1, 2**32 - 1)
    require_refused(total, head[:-8] + lengths, "at most 66560 are possible")


@pytest.mark.parametrize(
    "data",
    [b"", KEY.to_bytes()[:-1], KEY.to_bytes() + b"\0", CHUNKS[0], cipher.AllianceKey.generate(P).to_bytes()[:16]],
    ids=["empty", "cut off", "longer", "a ciphertext", "a header"],
)
def test_what_is_no_alliance_key_is_refused(data: bytes) -> None:
    with pytest.raises(WrongCipher, match="alliance key"):
        WORKER.load_key(data)
    other = replace(P, plain_modulus=sum_parameters(members=3, bits=8).plain_modulus)
    with pytest.raises(WrongCipher, match="alliance key"):
        CipherWorker(other).load_key(KEY.to_bytes())
