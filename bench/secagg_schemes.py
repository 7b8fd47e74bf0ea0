"""The schemes that `bench.secagg` compares. Each does the same round: n members sum vectors of d floats.

Steps, in CPU seconds of one process with one thread:

    fixed_point   floats to integers at one member, and the integers of the sum back to floats
    encrypt       one member: packing, encryption, bytes to send
    masks         one member: its self mask and n - 1 pairwise masks, key agreement included
    add_all       the coordinator: n uploads read from their bytes, added, and the sum written to bytes
    open          who opens: the sum read from its bytes, decrypted, unmasked, unpacked

Uploads after the first repeat the same bytes, so that n of them do not fill the memory. Left out everywhere, because
it does not grow with d: signatures and Shamir shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final, Protocol

import numpy as np
import tenseal
from flwr.common import bytes_to_ndarray, ndarray_to_bytes
from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.quantization import dequantize, quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives import asymmetric
from numpy.typing import NDArray

from bench.figures import Stopwatch
from fl_alliance.secagg import cipher, fixedpoint, masks, packing
from fl_alliance.secagg.parameters import SumParameters, sum_parameters

Floats = NDArray[np.float32]

STEPS: Final = ("fixed_point", "encrypt", "masks", "add_all", "open")
CLIP: Final = 0.05
"""Bound of a coordinate, for the schemes that let one choose it."""


@dataclass(frozen=True)
class Measured:
    """One round of one scheme: bytes of an upload and of the sum, CPU seconds of each step (0 where it has none)."""

    scheme: str
    upload: int
    total: int
    seconds: dict[str, float]


class Scheme(Protocol):
    """A way to sum."""

    def measure(self, update: Floats) -> list[Measured]:
        """Do one round with `update` of shape (d,) and return what it cost, once for each variant."""
        ...


class WrongSum(Exception):
    """A scheme gave another sum than the one that its uploads make: its figures mean nothing."""


class Plain:
    """float32 in the clear: what the others are paid on top of."""

    def __init__(self, members: int) -> None:
        self._members = members

    def measure(self, update: Floats) -> list[Measured]:
        """Do one round."""
        watch = Stopwatch()
        with watch.step("encrypt"):
            upload = update.tobytes()
        with watch.step("add_all"):
            total = np.zeros(len(update), np.float32)
            for _ in range(self._members):
                total += np.frombuffer(upload, np.float32)
            written = total.tobytes()
        with watch.step("open"):
            opened = np.frombuffer(written, np.float32)
        _require_close(opened, update * np.float32(self._members), 1e-4)
        return [_measured("float32, in the clear", len(upload), len(written), watch.seconds)]


class SecAggPlus:
    """Flower's SecAgg+, its own functions in the order of `secaggplus_mod` and `secaggplus_workflow` (flwr 1.41.0).

    Settings are the workflow's defaults; every member is everyone's neighbour. The server opens here, in the clear.
    """

    _CLIP: Final = 8.0
    _TARGET: Final = 1 << 22
    _MODULUS: Final = 1 << 32

    def __init__(self, members: int) -> None:
        private, _ = asymmetric.generate_key_pairs()
        self._private = asymmetric.private_key_to_bytes(private)
        publics = [asymmetric.generate_key_pairs()[1] for _ in range(members - 1)]
        self._publics = [asymmetric.public_key_to_bytes(public) for public in publics]
        self._seeds = [index.to_bytes(32, "big") for index in range(members)]

    def measure(self, update: Floats) -> list[Measured]:
        """Do one round."""
        watch = Stopwatch()
        with watch.step("fixed_point"):
            quantised = quantize([update], self._CLIP, self._TARGET)
            levels = arithmetic.factor_combine(self._TARGET, quantised)
        with watch.step("masks"):
            masked = self._masked(levels)
        with watch.step("encrypt"):
            upload = [ndarray_to_bytes(array) for array in masked]
        last = [ndarray_to_bytes(array) for array in self._closing(levels, masked)]
        with watch.step("add_all"):
            total = self._add(upload, last)
            written = [ndarray_to_bytes(array) for array in total]
        with watch.step("open"):
            levels_of_sum = self._unmask([bytes_to_ndarray(data) for data in written])
        with watch.step("fixed_point"):
            dequantize(levels_of_sum, self._CLIP, self._TARGET)
        _require_same(levels_of_sum[0], quantised[0].astype(np.int64) * len(self._seeds))
        return [_measured("Flower SecAgg+", sum(map(len, upload)), sum(map(len, written)), watch.seconds)]

    def _masked(self, levels: list[Any]) -> list[Any]:
        """As `_collect_masked_vectors` of the client's mod."""
        shapes = [array.shape for array in levels]
        total = arithmetic.parameters_addition(levels, pseudo_rand_gen(self._seeds[0], self._MODULUS, shapes))
        for index, public in enumerate(self._publics):
            shared = generate_shared_key(
                asymmetric.bytes_to_private_key(self._private), asymmetric.bytes_to_public_key(public)
            )
            mask = pseudo_rand_gen(shared, self._MODULUS, shapes)
            combine = arithmetic.parameters_addition if index % 2 else arithmetic.parameters_subtraction
            total = combine(total, mask)
        masked: list[Any] = arithmetic.parameters_mod(total, self._MODULUS)
        return masked

    def _closing(self, levels: list[Any], masked: list[Any]) -> list[Any]:
        """Return the vector that makes it, with n - 1 times `masked`, n times `levels` and all self masks."""
        shapes = [array.shape for array in levels]
        total = [array.astype(np.int64) * len(self._seeds) for array in levels]
        for seed in self._seeds:
            total = arithmetic.parameters_addition(total, pseudo_rand_gen(seed, self._MODULUS, shapes))
        rest = arithmetic.parameters_multiply(masked, len(self._publics))
        last: list[Any] = arithmetic.parameters_mod(arithmetic.parameters_subtraction(total, rest), self._MODULUS)
        return last

    def _add(self, upload: list[bytes], last: list[bytes]) -> list[Any]:
        """As `collect_masked_vectors_stage` of the workflow."""
        total = [bytes_to_ndarray(data) for data in last]
        for _ in self._publics:
            total = arithmetic.parameters_addition(total, [bytes_to_ndarray(data) for data in upload])
        reduced: list[Any] = arithmetic.parameters_mod(total, self._MODULUS)
        return reduced

    def _unmask(self, total: list[Any]) -> list[Any]:
        """As `unmask_stage` of the workflow, nobody dropped out."""
        shapes = arithmetic.get_parameters_shape(total)
        for seed in self._seeds:
            total = arithmetic.parameters_subtraction(total, pseudo_rand_gen(seed, self._MODULUS, shapes))
        levels: list[Any] = arithmetic.factor_extract(arithmetic.parameters_mod(total, self._MODULUS))[1]
        return levels


class DoubleMasks:
    """fl_alliance: double masks inside packed BFV. An institution opens."""

    _CONTEXT: Final = masks.RoundContext("bench", "secagg", 1, "sha256:" + "0" * 64)

    def __init__(self, members: int, bits: int) -> None:
        self._parameters: SumParameters = sum_parameters(members=members, bits=bits)
        self._key = cipher.AllianceKey.generate(self._parameters)
        self._secrets = {f"member-{index:04}": masks.RoundSecrets.generate() for index in range(members)}
        self._publics = {name: secrets.public for name, secrets in self._secrets.items()}
        self._self_seeds = {name: secrets.self_seed for name, secrets in self._secrets.items()}
        self._me = f"member-{members // 2:04}"

    def measure(self, update: Floats) -> list[Measured]:
        """Do one round."""
        p, watch = self._parameters, Stopwatch()
        with watch.step("fixed_point"):
            digits = fixedpoint.quantise(update.astype(np.float64), clip=CLIP, bits=p.bits)
        with watch.step("encrypt"):
            packed = packing.pack(digits, p)
        with watch.step("masks"):
            masked = self._masked(packed)
        with watch.step("encrypt"):
            upload = cipher.seal(masked, key=self._key, parameters=p)
        last = cipher.seal(self._closing(packed, masked), key=self._key, parameters=p)
        with watch.step("add_all"):
            uploads = chain([last], repeat(upload, p.members - 1))
            total = cipher.add(uploads, parameters=p, slots=p.slots(len(update)))
        with watch.step("open"):
            opened = self._open(total, len(update))
        with watch.step("fixed_point"):
            fixedpoint.dequantise_sum(opened, clip=CLIP, bits=p.bits, members=p.members)
        _require_same(opened, digits * np.uint64(p.members))
        return [_measured(f"fl_alliance, {p.bits} bits", len(upload), len(total), watch.seconds)]

    def _masked(self, packed: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return masks.add_masks(
            packed,
            secrets=self._secrets[self._me],
            me=self._me,
            publics=self._publics,
            context=self._CONTEXT,
            modulus_bits=self._parameters.modulus_bits,
        )

    def _unmasked(self, slots: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return masks.remove_self_masks(
            slots,
            self_seeds=self._self_seeds,
            context=self._CONTEXT,
            modulus_bits=self._parameters.modulus_bits,
        )

    def _closing(self, packed: NDArray[np.uint64], masked: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return the slots that make it, with n - 1 times `masked`, n times `packed` and all self masks."""
        n = self._parameters.members
        negative_masks = self._unmasked(np.zeros_like(packed))
        total = packed * np.uint64(n) - negative_masks - masked * np.uint64(n - 1)
        return total & np.uint64((1 << self._parameters.modulus_bits) - 1)

    def _open(self, total: bytes, dimension: int) -> NDArray[np.uint64]:
        p = self._parameters
        slots = cipher.open_sum(total, key=self._key, parameters=p, slots=p.slots(dimension))
        return packing.unpack(self._unmasked(slots), p, dimension)


class Ckks:
    """CKKS with NVFlare's parameters, through the same TenSEAL calls as NVFlare. A client opens.

    Sources, github.com/NVIDIA/NVFlare: parameters and symmetric encryption, `nvflare/lighter/impl/he.py` (`HEBuilder`);
    encrypt, `nvflare/app_opt/he/model_encryptor.py`; add and mean, `intime_accumulate_model_aggregator.py`; open,
    `model_decryptor.py`. NVFlare gives a layer to `ckks_vector`, which cuts it into ciphertexts of N/2 slots; here each
    of those is a call, which is the same work without TenSEAL's warning for each long vector.

    Two variants: the sum, as all the others; and the mean as NVFlare's aggregator takes it, inside the cipher, which
    costs one multiplication and leaves a smaller ciphertext to send and to open.
    """

    _DEGREE: Final = 8192
    _SLOTS: Final = _DEGREE // 2

    def __init__(self, members: int) -> None:
        self._members = members
        self._client: Any = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS,
            poly_modulus_degree=self._DEGREE,
            coeff_mod_bit_sizes=[60, 40, 40],
            encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
            n_threads=1,
        )
        self._client.generate_relin_keys()
        self._client.global_scale = 2**40
        shown = self._client.serialize(
            save_public_key=False, save_secret_key=False, save_galois_keys=False, save_relin_keys=True
        )
        self._server: Any = tenseal.context_from(shown, n_threads=1)

    def measure(self, update: Floats) -> list[Measured]:
        """Do one round, twice from the sum on."""
        values, watch = update.astype(np.float64), Stopwatch()
        with watch.step("encrypt"):
            starts = range(0, len(values), self._SLOTS)
            upload = [self._encrypted(values[start : start + self._SLOTS]) for start in starts]
        with watch.step("add_all"):
            totals = self._add(upload)
        done, size = dict(watch.seconds), sum(map(len, upload))
        expected = values * self._members
        return [
            self._close("CKKS, NVFlare's parameters", totals, 1.0, done, size, expected),
            self._close("CKKS, NVFlare's mean", totals, 1.0 / self._members, done, size, values),
        ]

    def _encrypted(self, values: NDArray[np.float64]) -> bytes:
        return bytes(tenseal.ckks_vector(self._client, values).serialize())

    def _add(self, upload: Sequence[bytes]) -> list[Any]:
        totals = [tenseal.ckks_vector_from(self._server, data) for data in upload]
        for _ in range(self._members - 1):
            for index, data in enumerate(upload):
                totals[index] = totals[index] + tenseal.ckks_vector_from(self._server, data)
        return totals

    def _close(
        self,
        name: str,
        totals: list[Any],
        factor: float,
        done: dict[str, float],
        upload: int,
        expected: NDArray[np.float64],
    ) -> Measured:
        """Write the sum (times `factor`, unless it is 1), open it, and return all steps together."""
        watch = Stopwatch()
        watch.seconds |= done
        with watch.step("add_all"):
            written = [(total if factor == 1.0 else total * factor).serialize() for total in totals]
        with watch.step("open"):
            opened = [tenseal.ckks_vector_from(self._client, data).decrypt() for data in written]
        _require_close(np.concatenate(opened), expected, 1e-4)
        return _measured(name, upload, sum(map(len, written)), watch.seconds)


def _measured(name: str, upload: int, total: int, seconds: dict[str, float]) -> Measured:
    return Measured(name, upload, total, {step: seconds.get(step, 0.0) for step in STEPS})


def _require_same(seen: NDArray[Any], expected: NDArray[Any]) -> None:
    if not np.array_equal(seen, expected):
        raise WrongSum(f"{np.count_nonzero(seen != expected)} of {expected.size} values differ")


def _require_close(seen: NDArray[Any], expected: NDArray[Any], bound: float) -> None:
    worst = float(np.abs(seen - expected).max())
    if not worst <= bound:
        raise WrongSum(f"a value is off by {worst}, allowed {bound}")
