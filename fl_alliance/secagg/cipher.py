"""The sum cipher: BFV of SEAL 4.3.3 through TenSEAL 0.3.18, symmetric and seed-compressed, sums without a key.

BFV (Brakerski 2012; Fan and Vercauteren 2012) is exact, so an opened sum says nothing about the key; but it is not
CCA-secure: whoever gets the opening of a crafted "sum" gets the key. So an institution opens only what it, or the
verifiers of the plan, added again from the signed uploads. This module can't know that; `rounds` does.

SEAL reads and writes by path only: here always an anonymous file in memory (Linux), so that no secret is on a disk.
TenSEAL's own vectors are not used: they trust the sizes that a sender writes. What SEAL's parser does with hostile
bytes is SEAL's: verify the signature over the exact bytes before they come here, and let a `worker` call this.

MemoryError: SEAL leaves a spin lock of its memory pool locked, and what it frees or allocates next spins for ever. A
worker stops short of its limit, and if it is reached, ends inside the handler, while the traceback holds every object
of SEAL; no other process should go near its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Protocol, Self

import numpy as np
import tenseal.sealapi as seal_api
from numpy.typing import NDArray

from fl_alliance.errors import OutOfRange, SumRefused, WrongCipher
from fl_alliance.secagg import frame
from fl_alliance.secagg.frame import Kind, slots_in
from fl_alliance.secagg.parameters import CIPHER_MODULUS, SumParameters
from fl_alliance.secagg.secret import Secret

__all__ = ["AllianceKey", "ChunkSum", "LocalChunkSum", "RunningSum", "add", "open_sum", "seal", "slots_in"]

_FINGERPRINT: Final = b"fl-alliance/1/alliance-key\0"


class AllianceKey(Secret):
    """The institutions' shared key of one job. The coordinator never has it."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    @classmethod
    def generate(cls, parameters: SumParameters) -> Self:
        """Draw a new key with the operating system's generator (SEAL's key generator)."""
        with _Memory() as memory:
            return cls(memory.write(seal_api.KeyGenerator(_context(parameters)).secret_key()))

    @classmethod
    def from_bytes(cls, parameters: SumParameters, data: bytes) -> Self:
        """Return the key that `to_bytes` gave.

        Raises:
            WrongCipher: made with other parameters or another version of SEAL, or not exactly a key.
        """
        with _Memory() as memory:
            loaded = memory.read(seal_api.SecretKey(), _context(parameters), data, "alliance key")
            if memory.write(loaded) != data:
                raise WrongCipher("alliance key: bytes are left over or not as SEAL writes them")
        return cls(data)

    def to_bytes(self) -> bytes:
        """Return the key in the clear, about 32 KiB: to wrap (`keywrap`) or for the institution's vault."""
        return self._data

    def fingerprint(self) -> str:
        """Return a `Digest` by which holders compare the key; it does not reveal it."""
        return "sha256:" + hashlib.sha256(_FINGERPRINT + self._data).hexdigest()


def seal(
    slots: NDArray[np.uint64],
    *,
    key: AllianceKey,
    parameters: SumParameters,
    seal_chunks: Callable[[NDArray[np.uint64]], list[bytes]] | None = None,
) -> bytes:
    """Encrypt masked slots: the upload of one member, about 8.05 bytes a slot.

    Args:
        slots: uint64 array of shape (slots,), each value in [0, 2^m - 1].
        key: of the alliance.
        parameters: of the sum.
        seal_chunks: encrypts elsewhere (`worker`) what `local_seal` encrypts here.

    Returns: a frame of kind upload; other bytes at each call, so a resend sends the stored ones.

    Raises:
        OutOfRange: a value is not below 2^m, or there is none.
    """
    if not slots.size or int(slots.max()) >> parameters.modulus_bits:
        raise OutOfRange(f"{slots.size} slots, need one at least and all below 2^{parameters.modulus_bits}")
    chunks = seal_chunks(slots) if seal_chunks else local_seal(slots, key, parameters)
    return frame.write(Kind.UPLOAD, parameters, len(slots), chunks)


def local_seal(slots: NDArray[np.uint64], key: AllianceKey, parameters: SumParameters) -> list[bytes]:
    """Return the seed-compressed ciphertexts of `slots`, N slots in each."""
    context = _context(parameters)
    with _Memory() as memory:
        encryptor = seal_api.Encryptor(context, _secret_key(key, context, memory))
        encoder = seal_api.BatchEncoder(context)
        chunks = []
        for start in range(0, len(slots), parameters.degree):
            plain = seal_api.Plaintext()
            encoder.encode(slots[start : start + parameters.degree].tolist(), plain)
            chunks.append(memory.write(encryptor.encrypt_symmetric(plain)))
    return chunks


class ChunkSum(Protocol):
    """Adds lists of ciphertexts, chunk by chunk: here (`LocalChunkSum`) or in worker processes."""

    lost: bool
    """The sum is gone with its worker: begin a new one."""

    def take(self, chunks: Iterable[bytes]) -> None:
        """Add the ciphertexts of one upload, once `chunks` is exhausted without an error.

        Raises:
            WrongCipher: a chunk is no ciphertext of these parameters; unless `lost`, the sum is as it was.
        """

    def chunks(self) -> list[bytes]:
        """Return the sum's ciphertexts."""

    def close(self) -> None:
        """Forget the sum."""


class LocalChunkSum:
    """A `ChunkSum` in this process."""

    def __init__(self, parameters: SumParameters) -> None:
        self.lost = False
        self._parameters, self._context = parameters, _context(parameters)
        self._adder = seal_api.Evaluator(self._context)
        self._totals: list[Any] = []
        self._loaded: list[Any] = []

    def take(self, chunks: Iterable[bytes]) -> None:
        """Add one upload; see `ChunkSum`."""
        self.load(list(chunks))
        self.add_loaded()

    def load(self, chunks: Iterable[bytes]) -> None:
        """Load the ciphertexts of one upload, or raise WrongCipher; the sum stays as it is."""
        self._loaded = []
        loaded: list[Any] = []  # a name, so that a MemoryError's traceback holds what is in it
        with _Memory() as memory:
            loaded.extend(_load(chunks, self._parameters, memory))
        self._loaded = loaded

    def add_loaded(self) -> None:
        """Add what was loaded."""
        loaded, self._loaded = self._loaded, []
        self._totals = _add_each(self._adder, self._totals, loaded) if self._totals else loaded

    def chunks(self) -> list[bytes]:
        """Return the sum's ciphertexts."""
        with _Memory() as memory:
            return [memory.write(total) for total in self._totals]

    def close(self) -> None:
        """Forget the sum."""
        self._totals, self._loaded = [], []


class RunningSum:
    """A sum of uploads, without a key, in the order in which they come. Memory: the sum and one upload.

    Guarantees: an upload that is refused leaves the sum as it was, or `lost` says that it took the worker with it.
    """

    def __init__(self, parameters: SumParameters, slots: int, chunks: ChunkSum | None = None) -> None:
        self._parameters, self._slots = parameters, slots
        self._chunks = chunks or LocalChunkSum(parameters)
        self.taken = 0
        """Uploads in the sum."""

    @property
    def lost(self) -> bool:
        """A worker died and the sum with it: begin a new one."""
        return self._chunks.lost

    def take(self, upload: bytes | Iterable[bytes], who: str = "an upload") -> None:
        """Add one upload, whole or in pieces. An error that `pieces` raises, also at its end, leaves the sum as it was.

        Raises:
            WrongCipher: its header, counts, lengths or ciphertexts are not those of these parameters and slots, or
                the worker that loaded it died of it. The text begins with `who`.
            SumRefused: as many uploads as there are members are in already.
        """
        if self.taken == self._parameters.members:
            raise SumRefused(f"{self.taken + 1} uploads of {self.taken} members")
        pieces = (upload,) if isinstance(upload, bytes) else upload
        try:
            self._chunks.take(frame.split(Kind.UPLOAD, pieces, self._parameters, self._slots))
        except WrongCipher as error:
            raise WrongCipher(f"{who}: {error}") from None
        self.taken += 1

    def to_bytes(self) -> bytes:
        """Return a frame of kind sum, about 16.05 bytes a slot (SumRefused: nothing was added)."""
        if not self.taken:
            raise SumRefused("0 uploads, need one at least")
        return frame.write(Kind.SUM, self._parameters, self._slots, self._chunks.chunks())

    def close(self) -> None:
        """Forget the sum and end its workers."""
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def add(
    uploads: Iterable[bytes],
    *,
    parameters: SumParameters,
    slots: int,
    count: int | None = None,
    chunks: ChunkSum | None = None,
) -> bytes:
    """Add `count` uploads (None: one of each member), without a key, one upload in memory at a time.

    Guarantees: the same bytes whatever the order of `uploads`, on every machine with this version of TenSEAL: addition
    modulo q is exact and commutes. Whoever holds the uploads can add again and compare.

    Returns: a frame of kind sum, about 16.05 bytes a slot.

    Raises:
        WrongCipher: an upload's header, counts, lengths or ciphertexts are not those of `parameters` and `slots`;
            names it by its place.
        SumRefused: more or fewer uploads than `count`.
    """
    expected = parameters.members if count is None else count
    with RunningSum(parameters, slots, chunks) as total:
        for upload in uploads:
            if total.taken == expected:
                raise SumRefused(f"{expected + 1} uploads, need exactly {expected}")
            total.take(upload, f"upload {total.taken + 1} of {expected}")
        if total.taken != expected:
            raise SumRefused(f"{total.taken} uploads, need exactly {expected}")
        return total.to_bytes()


def open_sum(
    total: bytes,
    *,
    key: AllianceKey,
    parameters: SumParameters,
    slots: int,
    open_chunks: Callable[[list[bytes]], NDArray[np.uint64]] | None = None,
) -> NDArray[np.uint64]:
    """Decrypt a sum that was checked to be the sum of the signed uploads. The masks are still inside.

    A wrong key or a ciphertext beyond the noise bound raises nothing in SEAL: the numbers are random below t. It shows
    here as a value above members * (2^m - 1) or as padding that is not zero, and otherwise in `packing.unpack`.

    Args:
        total: a frame of kind sum.
        key: of the alliance.
        parameters: of the sum.
        slots: of the sum.
        open_chunks: decrypts elsewhere (`worker`) what `local_open` decrypts here.

    Returns: uint64 array of shape (slots,), values modulo 2^m.

    Raises:
        WrongCipher: the frame or a ciphertext is not a sum of these parameters and this size, or the key is not.
        OutOfRange: another key, or not a sum of honest uploads.
    """
    chunks = frame.read(Kind.SUM, total, parameters, slots)
    opened = open_chunks(chunks) if open_chunks else local_open(chunks, key, parameters)
    largest = parameters.members * ((1 << parameters.modulus_bits) - 1)
    bad = int(np.count_nonzero(opened[:slots] > np.uint64(largest))) + int(np.count_nonzero(opened[slots:]))
    if bad:
        raise OutOfRange(f"{bad} of {len(opened)} slots are no sum of {parameters.members} uploads: another key?")
    return opened[:slots] & np.uint64((1 << parameters.modulus_bits) - 1)


def local_open(chunks: Iterable[bytes], key: AllianceKey, parameters: SumParameters) -> NDArray[np.uint64]:
    """Return what is in `chunks` (one at least), N values below t of each (WrongCipher: as `open_sum`)."""
    context = _context(parameters)
    with _Memory() as memory:
        decryptor = seal_api.Decryptor(context, _secret_key(key, context, memory))
        encoder = seal_api.BatchEncoder(context)
        values = []
        for ciphertext in _load(chunks, parameters, memory):
            plain = seal_api.Plaintext()
            decryptor.decrypt(ciphertext, plain)
            values.append(np.array(encoder.decode_uint64(plain), np.uint64))
    return np.concatenate(values)


@lru_cache(maxsize=8)
def _context(parameters: SumParameters) -> Any:
    """Return SEAL's context for exactly these parameters, at 192 bits of security by the HE standard's table."""
    wanted = seal_api.EncryptionParameters(seal_api.SCHEME_TYPE.BFV)
    wanted.set_poly_modulus_degree(parameters.degree)
    wanted.set_coeff_modulus(seal_api.CoeffModulus.Create(parameters.degree, [parameters.cipher_bits]))
    wanted.set_plain_modulus(parameters.plain_modulus)
    context = seal_api.SEALContext(wanted, True, seal_api.SEC_LEVEL_TYPE.TC192)
    primes = [prime.value() for prime in wanted.coeff_modulus()]
    if not context.parameters_set() or primes != [CIPHER_MODULUS]:
        raise WrongCipher(f"this SEAL makes q = {primes} or refuses: {context.parameters_error_name()}")
    return context


class _Memory:
    """An anonymous file in memory: SEAL's `save` and `load` take a path and nothing else."""

    def __enter__(self) -> Self:
        self._fd = os.memfd_create("fl-alliance", os.MFD_CLOEXEC)
        self._path = f"/proc/self/fd/{self._fd}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._fd)

    def write(self, thing: Any) -> bytes:
        """Return `thing` as SEAL writes it."""
        os.ftruncate(self._fd, 0)
        thing.save(self._path)
        return os.pread(self._fd, os.fstat(self._fd).st_size, 0)

    def read(self, thing: Any, context: Any, data: bytes, what: str) -> Any:
        """Load `data` into `thing` and return it (WrongCipher: SEAL refuses the bytes)."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)
        try:
            thing.load(context, self._path)
        except (RuntimeError, ValueError, IndexError, OverflowError) as error:
            raise WrongCipher(f"{what}: SEAL refuses {len(data)} bytes: {error}") from None
        return thing


def _secret_key(key: AllianceKey, context: Any, memory: _Memory) -> Any:
    return memory.read(seal_api.SecretKey(), context, key.to_bytes(), "alliance key")


def _load(chunks: Iterable[bytes], parameters: SumParameters, memory: _Memory) -> Iterable[Any]:
    """Yield the ciphertexts of a frame's chunks, expanded from their seeds and checked."""
    context = _context(parameters)
    for chunk in chunks:
        ciphertext = memory.read(seal_api.Ciphertext(context), context, chunk, "ciphertext")
        _require_shape(ciphertext, context, parameters)
        yield ciphertext


def _require_shape(ciphertext: Any, context: Any, parameters: SumParameters) -> None:
    seen = (ciphertext.size(), ciphertext.poly_modulus_degree(), ciphertext.coeff_modulus_size())
    if seen != (2, parameters.degree, 1):
        raise WrongCipher(f"ciphertext of (parts, degree, primes) {seen}, expected {(2, parameters.degree, 1)}")
    if ciphertext.is_ntt_form() or ciphertext.parms_id() != context.first_parms_id():
        raise WrongCipher("ciphertext of another form or other parameters")


def _add_each(adder: Any, totals: list[Any], loaded: Iterable[Any]) -> list[Any]:
    for total, ciphertext in zip(totals, loaded, strict=True):
        try:
            adder.add_inplace(total, ciphertext)
        except (RuntimeError, ValueError) as error:
            raise WrongCipher(f"SEAL refuses to add: {error}") from None
    return totals
