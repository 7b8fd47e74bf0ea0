"""The cipher: exact sums, the same bytes in any order, and hostile bytes raise `WrongCipher` and nothing else."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal_api
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_alliance.errors import OutOfRange, SumRefused, WrongCipher
from fl_alliance.secagg import cipher, fixedpoint, frame, packing
from fl_alliance.secagg.frame import Kind
from fl_alliance.secagg.parameters import WIDTHS, SumParameters, sum_parameters

P = sum_parameters(members=3, bits=16)
KEY = cipher.AllianceKey.generate(P)
SLOTS = 20
TOP = 2**P.modulus_bits - 1
VALUES = np.random.default_rng(3).integers(0, TOP + 1, (3, SLOTS), dtype=np.uint64)
UPLOADS = [cipher.seal(row, key=KEY, parameters=P) for row in VALUES]
TOTAL = cipher.add(UPLOADS, parameters=P, slots=SLOTS)


def opened(total: bytes, key: cipher.AllianceKey = KEY, slots: int = SLOTS) -> NDArray[np.uint64]:
    return cipher.open_sum(total, key=key, parameters=P, slots=slots)


# ---- what the cipher promises


@pytest.mark.parametrize("slots", [1, 4095, 4096, 4097, 8192])
@pytest.mark.parametrize(("members", "bits"), [(3, 16), (3, 8), (5, 20)])
def test_an_opened_sum_is_the_sum_to_the_bit(members: int, bits: int, slots: int) -> None:
    p = sum_parameters(members=members, bits=bits)
    key = cipher.AllianceKey.generate(p)
    values = np.random.default_rng(slots).integers(0, 2**p.modulus_bits, (members, slots), dtype=np.uint64)
    values[:, 0] = 2**p.modulus_bits - 1  # the worst case: all members at the top
    total = cipher.add((cipher.seal(row, key=key, parameters=p) for row in values), parameters=p, slots=slots)
    expected = values.sum(0) & np.uint64(2**p.modulus_bits - 1)
    assert (cipher.open_sum(total, key=key, parameters=p, slots=slots) == expected).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 6), st.sampled_from(WIDTHS), st.data())
def test_the_sum_of_encodings_is_the_encoding_of_the_sum(members: int, bits: int, data: st.DataObject) -> None:
    """Floats in, floats out: what is opened is what adding the rounded updates in the clear gives, exactly."""
    p = sum_parameters(members=members, bits=bits)
    key = cipher.AllianceKey.generate(p)
    update = st.lists(st.floats(-3, 3), min_size=7, max_size=7)
    updates = np.array(data.draw(st.lists(update, min_size=members, max_size=members)))
    digits = [fixedpoint.quantise(row, clip=2.0, bits=bits) for row in updates]
    uploads = [cipher.seal(packing.pack(row, p), key=key, parameters=p) for row in digits]
    total = cipher.add(uploads, parameters=p, slots=p.slots(7))
    sums = packing.unpack(cipher.open_sum(total, key=key, parameters=p, slots=p.slots(7)), p, 7)
    assert (sums == np.sum(digits, axis=0)).all()
    got = fixedpoint.dequantise_sum(sums, clip=2.0, bits=bits, members=members)
    assert np.abs(got - np.clip(updates, -2, 2).sum(0)).max() <= members * 4 / (2**bits - 1) * (1 + 1e-9)


def test_any_order_of_addition_gives_the_same_bytes() -> None:
    """So that whoever holds the uploads can add again and compare digests."""
    assert {cipher.add(order, parameters=P, slots=SLOTS) for order in itertools.permutations(UPLOADS)} == {TOTAL}


def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    for number, upload in enumerate(UPLOADS):
        (tmp_path / str(number)).write_bytes(upload)
    code = """
import hashlib, sys
from pathlib import Path
from fl_alliance.secagg import cipher
from fl_alliance.secagg.parameters import sum_parameters
uploads = [Path(sys.argv[1], name).read_bytes() for name in "210"]
total = cipher.add(uploads, parameters=sum_parameters(members=3, bits=16), slots=int(sys.argv[2]))
print(hashlib.sha256(total).hexdigest())
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(SLOTS)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == hashlib.sha256(TOTAL).hexdigest()


def test_an_upload_is_sealed_anew_at_each_call() -> None:
    again = [cipher.seal(VALUES[0], key=KEY, parameters=P) for _ in range(3)]
    assert len({*again, UPLOADS[0]}) == 4
    for upload in again:
        assert (opened(cipher.add([upload, *UPLOADS[1:]], parameters=P, slots=SLOTS)) == opened(TOTAL)).all()


@pytest.mark.parametrize(
    ("members", "bits", "most"), [(3, 16, 4.2), (3, 8, 1.7), (5, 16, 4.2), (20, 16, 4.2), (20, 8, 2.8), (100, 12, 4.2)]
)
def test_bytes_a_parameter(members: int, bits: int, most: float) -> None:
    p = sum_parameters(members=members, bits=bits)
    dimension = (8 * p.degree - 4) * p.digits
    key = cipher.AllianceKey.generate(p)
    values = np.random.default_rng(0).integers(0, 2**p.modulus_bits, p.slots(dimension), dtype=np.uint64)
    upload = cipher.seal(values, key=key, parameters=p)
    assert len(upload) / dimension <= most
    total = cipher.add([upload] * members, parameters=p, slots=len(values))
    assert len(total) / dimension <= 2 * most


def test_sealing_many_slots_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """SEAL's own wrapper warns on C++ stdout when it splits a vector."""
    cipher.seal(np.zeros(10_000, np.uint64), key=KEY, parameters=P)
    assert capfd.readouterr() == ("", "")


def test_no_secret_is_written_to_a_disk_and_no_file_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[str] = []
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    enter = cipher._Memory.__enter__

    def watched(memory: Any) -> Any:
        entered = enter(memory)
        paths.append(str(Path(entered._path).readlink()))
        return entered

    monkeypatch.setattr(cipher._Memory, "__enter__", watched)
    before = len(list(Path("/proc/self/fd").iterdir()))
    key = cipher.AllianceKey.generate(P)
    opened(cipher.add([cipher.seal(row, key=key, parameters=P) for row in VALUES], parameters=P, slots=SLOTS), key)
    with pytest.raises(WrongCipher):
        cipher.AllianceKey.from_bytes(P, b"none")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(tmp_path.iterdir()) == []
    assert len(paths) == 10
    assert set(paths) == {"/memfd:fl-alliance (deleted)"}


# ---- keys


def test_a_key_comes_back_from_its_bytes() -> None:
    again = cipher.AllianceKey.from_bytes(P, KEY.to_bytes())
    assert again.fingerprint() == KEY.fingerprint()
    assert (opened(TOTAL, again) == opened(TOTAL)).all()


def test_a_fingerprint_is_of_the_key_under_a_label() -> None:
    assert KEY.fingerprint() == "sha256:" + hashlib.sha256(b"fl-alliance/1/alliance-key\0" + KEY.to_bytes()).hexdigest()
    assert len({cipher.AllianceKey.generate(P).fingerprint() for _ in range(10)}) == 10


def test_the_key_of_another_alliance_opens_nothing() -> None:
    for _ in range(5):
        with pytest.raises(OutOfRange, match="slots are no sum of 3 uploads: another key"):
            opened(TOTAL, cipher.AllianceKey.generate(P))


def test_the_key_of_other_parameters_is_refused() -> None:
    other = cipher.AllianceKey.generate(sum_parameters(members=3, bits=8))
    with pytest.raises(WrongCipher, match="alliance key: SEAL refuses"):
        opened(TOTAL, other)


@pytest.mark.parametrize(
    "change",
    [lambda key: b"", lambda key: key[:-1], lambda key: key + b"\0", lambda key: b"\0" + key, lambda key: UPLOADS[0]],
    ids=["empty", "cut off", "longer", "shifted", "an upload"],
)
def test_what_is_not_exactly_a_key_is_refused(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(WrongCipher, match="alliance key"):
        cipher.AllianceKey.from_bytes(P, change(KEY.to_bytes()))


# ---- what is refused before it is sealed or added


@pytest.mark.parametrize("values", [[], [TOP + 1], [0, 2**63]])
def test_a_slot_that_would_wrap_is_refused(values: list[int]) -> None:
    with pytest.raises(OutOfRange, match=rf"{len(values)} slots, need one at least and all below 2\^36"):
        cipher.seal(np.array(values, np.uint64), key=KEY, parameters=P)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_sum_of_some_is_refused(count: int) -> None:
    with pytest.raises(SumRefused, match=f"{count} uploads, need exactly 3"):
        cipher.add(UPLOADS[:count], parameters=P, slots=SLOTS)


def test_one_upload_too_many_is_refused_and_no_more_are_read() -> None:
    taken = []

    def ten() -> Iterator[bytes]:
        for number in range(10):
            taken.append(number)
            yield UPLOADS[number % 3]

    with pytest.raises(SumRefused, match="4 uploads, need exactly 3"):
        cipher.add(ten(), parameters=P, slots=SLOTS)
    assert len(taken) == 4


def test_a_sum_is_not_added_and_an_upload_is_not_opened() -> None:
    with pytest.raises(WrongCipher, match="of a upload, expected"):
        cipher.add([TOTAL, *UPLOADS[1:]], parameters=P, slots=SLOTS)
    with pytest.raises(WrongCipher, match="of a sum, expected"):
        opened(UPLOADS[0])


@pytest.mark.parametrize("slots", [0, SLOTS - 1, SLOTS + 1, 4096, 10**9])
def test_another_size_is_refused(slots: int) -> None:
    with pytest.raises(WrongCipher, match="header"):
        cipher.add(UPLOADS, parameters=P, slots=slots)
    with pytest.raises(WrongCipher, match="header"):
        opened(TOTAL, slots=slots)


@pytest.mark.parametrize("other", [sum_parameters(members=4, bits=16), sum_parameters(members=3, bits=12)])
def test_other_parameters_are_refused(other: SumParameters) -> None:
    with pytest.raises(WrongCipher, match="header"):
        cipher.add(UPLOADS, parameters=other, slots=SLOTS)


def test_parameters_that_seal_does_not_make_our_modulus_for_are_refused() -> None:
    with pytest.raises(WrongCipher, match="this SEAL makes q"):
        cipher.seal(VALUES[0], key=KEY, parameters=replace(P, cipher_bits=59))


# ---- ciphertexts of another shape, well framed


def ciphertext_of(change: Callable[[Any, Any, Any], None]) -> bytes:
    """A framed sum whose one ciphertext was made into something else."""
    context = cipher._context(P)
    with cipher._Memory() as memory:
        (chunk,) = frame.read(Kind.SUM, TOTAL, P, SLOTS)
        loaded = memory.read(seal_api.Ciphertext(context), context, chunk, "ciphertext")
        change(loaded, seal_api.Evaluator(context), context)
        return frame.write(Kind.SUM, P, SLOTS, [memory.write(loaded)])


def test_the_helper_changes_nothing_by_itself() -> None:
    assert (opened(ciphertext_of(lambda loaded, evaluator, context: None)) == opened(TOTAL)).all()


def test_a_ciphertext_of_three_parts_is_refused() -> None:
    """The frame knows that two polynomials are shorter; without it the shape is what refuses."""
    square = ciphertext_of(lambda loaded, evaluator, context: evaluator.square_inplace(loaded))
    with pytest.raises(WrongCipher, match="at most 66560 are possible"):
        opened(square)
    with pytest.raises(WrongCipher, match=r"\(3, 4096, 1\), expected \(2, 4096, 1\)"):
        cipher.local_open([square[33:]], KEY, P)


def test_a_ciphertext_in_another_form_is_refused() -> None:
    with pytest.raises(WrongCipher, match="of another form"):
        opened(ciphertext_of(lambda loaded, evaluator, context: evaluator.transform_to_ntt_inplace(loaded)))


def test_an_empty_ciphertext_is_refused() -> None:
    """TenSEAL's own adder would crash the process."""
    with cipher._Memory() as memory:
        chunk = memory.write(seal_api.Ciphertext(cipher._context(P)))
    with pytest.raises(WrongCipher):
        cipher.add([frame.write(Kind.UPLOAD, P, SLOTS, [chunk])] * 3, parameters=P, slots=SLOTS)


def test_a_key_or_a_plaintext_in_place_of_a_ciphertext_is_refused() -> None:
    with cipher._Memory() as memory:
        chunks = [KEY.to_bytes(), memory.write(seal_api.Plaintext("1x^1"))]
    for chunk in chunks:
        with pytest.raises(WrongCipher):
            cipher.add([frame.write(Kind.UPLOAD, P, SLOTS, [chunk])] * 3, parameters=P, slots=SLOTS)


def test_a_sum_changed_beyond_the_noise_is_out_of_range() -> None:
    def shift(loaded: Any, evaluator: Any, context: Any) -> None:
        plain = seal_api.Plaintext()
        seal_api.BatchEncoder(context).encode([0] * SLOTS + [1], plain)
        evaluator.add_plain_inplace(loaded, plain)

    with pytest.raises(OutOfRange, match="1 of 4096 slots are no sum"):
        opened(ciphertext_of(shift))


# ---- hostile bytes


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([(0, 33), (41, 49)]), st.data())
def test_a_mutated_count_or_length_raises_only_wrong_cipher(part: tuple[int, int], data: st.DataObject) -> None:
    """In the header, in the table of lengths, in the length inside a chunk: found before SEAL sees a byte."""
    good = UPLOADS[1]
    start = data.draw(st.integers(part[0], part[1] - 1))
    end = data.draw(st.integers(start, part[1]))
    changed = good[:start] + data.draw(st.binary(max_size=6)) + good[end:]
    assume(changed != good)
    with pytest.raises(WrongCipher):
        cipher.add([UPLOADS[0], changed, UPLOADS[2]], parameters=P, slots=SLOTS)


HOSTILE = """
import collections, json, random, resource, struct, sys, zlib
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from fl_alliance.errors import SumRefused
from tests.secagg.test_cipher import KEY, P, SLOTS, TOTAL, UPLOADS
from fl_alliance.secagg import cipher, frame
from fl_alliance.secagg.frame import Kind

seen = collections.Counter()

def outcome(use, *args, **more):
    try:
        use(*args, parameters=P, slots=SLOTS, **more)
    except SumRefused as error:
        return type(error).__name__
    return "taken"

def mutated(good, draw):
    changed = bytearray(good)
    end = draw.choice([33 + 16, 33 + 200, len(good)])
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(33, end)
        if not 41 <= at < 49:
            changed[at] = draw.randrange(256)
    return bytes(changed)

draw = random.Random(sys.argv[1])
for _ in range(int(sys.argv[2])):
    seen["add " + outcome(cipher.add, [mutated(UPLOADS[0], draw), *UPLOADS[1:]])] += 1
    seen["open " + outcome(cipher.open_sum, mutated(TOTAL, draw), key=KEY)] += 1

def framed(mode, body):
    chunk = struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, mode, 0, 16 + len(body)) + body
    return frame.write(Kind.UPLOAD, P, SLOTS, [chunk])

blocks = b"".join(struct.pack("<I", (n == 32767) | 2 | (128 << 10) << 3)[:3] + b"\\0" for n in range(32768))
bombs = {
    "zlib": framed(1, zlib.compress(bytes(300 << 20), 9)),
    "zstd": framed(2, struct.pack("<I", 0xFD2FB528) + bytes([0, 7 << 3]) + blocks),
    "plain": framed(0, bytes(100)),
}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, bomb in bombs.items():
    seen[name + " " + outcome(cipher.add, [bomb, *UPLOADS[1:]])] += 1
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"seen": seen, "grown": grown}))
"""


def test_mutated_ciphertexts_and_bombs_never_crash_the_process() -> None:
    """What SEAL's parser does with hostile bytes is SEAL's: here that it refuses, or gives numbers, and lives.

    Many changed ciphertexts are taken and add up to noise: so a signature over the exact bytes is checked before.
    """
    run = subprocess.run([sys.executable, "-c", HOSTILE, "1", "300"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    seen = found["seen"]
    assert set(seen) == {
        "add WrongCipher",
        "add taken",
        "open WrongCipher",
        "open OutOfRange",
        "open taken",
        "zlib WrongCipher",
        "zstd WrongCipher",
        "plain WrongCipher",
    }
    assert sum(count for name, count in seen.items() if name.startswith(("add", "open"))) == 600
    assert found["grown"] < 100 << 10, "KiB: 300 MiB and 4 GiB were packed into the two bombs"
