"""The key from what was rightly opened: Li and Micciancio 2021, "On the Security of Homomorphic Encryption on
Approximate Numbers" (Eurocrypt). CKKS with NVFlare's parameters gives it away; exact BFV does not.

One observer for both: it has the ciphertexts of sums and what their opening showed, and solves for the key.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import tenseal as ts
import tenseal.sealapi as seal_api
from numpy.typing import NDArray

from fl_alliance.secagg import cipher
from fl_alliance.secagg.frame import Kind
from fl_alliance.secagg.parameters import CIPHER_MODULUS
from tests.attacks import lattice
from tests.attacks.alliance import Round, Slots
from tests.attacks.lattice import Poly, Ring

Floats = NDArray[np.float64]
Opening = tuple[Poly, Poly, Poly]

# ---- CKKS as NVFlare sets it

DEGREE, PRIMES, SCALE = 8192, [60, 40, 40], 2.0**40
HALF = DEGREE // 2
"""Slots of one ciphertext."""


def ckks_context() -> Any:
    """Return what every client of NVFlare holds: one key for all of them."""
    context = ts.context(ts.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=PRIMES)
    context.global_scale = SCALE
    return context


def ckks_halves(vector: Any) -> tuple[Poly, Poly]:
    """Return the values of c0 and c1 modulo the first prime; SEAL keeps them as values."""
    (ciphertext,) = vector.ciphertext()
    both = lattice.words(lattice.stored(ciphertext), 2, len(PRIMES) - 1, DEGREE)
    return both[0, 0], both[1, 0]


def ckks_ring() -> Ring:
    return Ring(DEGREE, seal_api.CoeffModulus.Create(DEGREE, PRIMES)[0].value())


def ckks_opening(ring: Ring, total: Any, shown: Floats) -> Opening:
    """Return what an observer of one opened chunk knows: the ciphertext, and the real part of the phase."""
    twice = lattice.complex_encode(shown, DEGREE, 2 * SCALE)
    return (*ckks_halves(total), ring.values(twice))


def sums_of_updates(context: Any, clients: int) -> tuple[list[Any], list[Any]]:
    """Return two chunks of a sum of `clients` updates, and the first client's two uploads."""
    rng = np.random.default_rng(0)
    first, totals = [], []
    for _ in range(2):
        uploads = [ts.ckks_vector(context, rng.normal(0, 0.01, HALF).tolist()) for _ in range(clients)]
        first.append(uploads[0])
        totals.append(sum(uploads[1:], uploads[0]))
    return totals, first


def ckks_key(ring: Ring, totals: list[Any], shown: list[Floats]) -> Poly:
    openings = [ckks_opening(ring, total, part) for total, part in zip(totals, shown, strict=True)]
    return lattice.key_from_openings(ring, openings)


def ckks_decrypt(ring: Ring, vector: Any, key: Poly) -> Floats:
    c0, c1 = ckks_halves(vector)
    return lattice.complex_decode(ring.coefficients(c0 + c1 * ring.values(key)), SCALE)


def test_ckks_with_nvflares_parameters_gives_the_key_to_whoever_sees_a_sum():
    """Attacker holds: the wire, no key. Saw: two chunks of one opened sum in full precision, which happens when a key
    holder hands the global model back. Learnt: all 8192 coefficients of the key that all clients share, and with it one
    client's update, to the digits that the client itself would decrypt.
    """
    context, ring = ckks_context(), ckks_ring()
    totals, uploads = sums_of_updates(context, 3)
    key = ckks_key(ring, totals, [np.array(total.decrypt()) for total in totals])
    assert set(key.tolist()) == {-1, 0, 1}
    for upload in uploads:
        assert np.abs(ckks_decrypt(ring, upload, key) - np.array(upload.decrypt())).max() < 1e-12
    truth = np.random.default_rng(0).normal(0, 0.01, HALF)
    assert np.abs(ckks_decrypt(ring, uploads[0], key) - truth).max() < 1e-7


def test_rounded_ckks_sum_does_not_give_the_key_to_this_observer():
    """Not a defence to rely on: here only to show that it is the noise in the last digits that gives the key away."""
    context, ring = ckks_context(), ckks_ring()
    totals, _ = sums_of_updates(context, 3)
    key = ckks_key(ring, totals, [np.round(total.decrypt(), 4) for total in totals])
    assert ternary(key) < 0.01


# ---- BFV as the alliance uses it


def ternary(key: Poly) -> float:
    """Return the share of coefficients that a key can have: -1, 0 or 1."""
    return float(np.mean(np.abs(key) <= 1))


def two_full_chunks() -> Round:
    seen = Round(3, dimension=2 * (8192 - 4))
    assert seen.slots == 2 * seen.parameters.degree
    return seen


def bfv_openings(seen: Round, total: bytes, phases: list[Poly]) -> list[Opening]:
    ring = Ring(seen.parameters.degree, CIPHER_MODULUS)
    both = lattice.halves(Kind.SUM, total, seen.parameters, seen.slots)
    openings = []
    for (c0, c1), phase in zip(both, phases, strict=True):
        values = ring.values(phase)
        openings.append((ring.values(c0), ring.values(c1), values + values[::-1]))
    return openings


def phases_by_opened_slots(seen: Round, opened: Slots) -> list[Poly]:
    """Return q * m / t, rounded, of the opened slots modulo t: the best that who sees an opening knows of the phase."""
    t = seen.parameters.plain_modulus
    ring = Ring(seen.parameters.degree, t)
    plains = [lattice.batch_encode(chunk, ring) for chunk in np.split(opened, 2)]
    return [(2 * CIPHER_MODULUS * plain + t) // (2 * t) for plain in plains]


def phases_with_noise(seen: Round, total: bytes) -> list[Poly]:
    """Hook: what a decryptor has before it rounds. No function of the package gives it out."""
    ring = Ring(seen.parameters.degree, CIPHER_MODULUS)
    secret = ring.values(lattice.key_from_bytes(seen.key.to_bytes(), seen.parameters))
    both = lattice.halves(Kind.SUM, total, seen.parameters, seen.slots)
    return [ring.centred(c0 + ring.coefficients(ring.values(c1) * secret)) for c0, c1 in both]


def bfv_key(seen: Round, total: bytes, phases: list[Poly]) -> Poly:
    ring = Ring(seen.parameters.degree, CIPHER_MODULUS)
    return lattice.key_from_openings(ring, bfv_openings(seen, total, phases))


def opened_modulo_t(seen: Round, total: bytes) -> Slots:
    """Decrypt with the true key: more than an observer gets, which are the slots modulo 2^m with the masks off."""
    key = lattice.key_from_bytes(seen.key.to_bytes(), seen.parameters)
    return lattice.decrypt(Kind.SUM, total, key, seen.parameters, seen.slots)


def test_the_same_observer_of_our_sums_gets_no_key():
    """Attacker holds: the wire, no key. Saw: two chunks of an opened sum, every slot modulo t.
    Learnt: the sum. Its solution for the key is 4096 arbitrary numbers of 60 bits, and decrypts an upload to noise.
    """
    seen = two_full_chunks()
    upload, masked = seen.upload("clinic-0"), seen.masked("clinic-0")
    total = seen.add([upload, seen.upload("clinic-1"), seen.upload("clinic-2")])
    key = bfv_key(seen, total, phases_by_opened_slots(seen, opened_modulo_t(seen, total)))
    assert ternary(key) < 0.01
    guess = lattice.decrypt(Kind.UPLOAD, upload, key, seen.parameters, seen.slots)
    assert np.mean(guess == masked) < 0.01


def test_an_observer_of_the_unrounded_phase_would_get_our_key_too():
    """Defence off: rounding, which takes off the noise. Learnt: the key, by the same code; it decrypts an upload."""
    seen = two_full_chunks()
    upload, masked = seen.upload("clinic-0"), seen.masked("clinic-0")
    total = seen.add([upload, seen.upload("clinic-1"), seen.upload("clinic-2")])
    key = bfv_key(seen, total, phases_with_noise(seen, total))
    assert ternary(key) == 1.0
    assert (lattice.decrypt(Kind.UPLOAD, upload, key, seen.parameters, seen.slots) == masked).all()


def test_opened_sum_is_the_same_under_every_key_in_bfv_and_not_in_ckks():
    """Why nothing can be learnt: whoever knows the sum could write down the opening without any key."""
    seen = two_full_chunks()
    opened = set()
    for _ in range(4):
        seen.key = cipher.AllianceKey.generate(seen.parameters)
        total = seen.add(seen.uploads().values())
        opened.add(hashlib.sha256(opened_modulo_t(seen, total).tobytes()).hexdigest())
    assert opened == {hashlib.sha256(plain_sum(seen).tobytes()).hexdigest()}
    shown = {tuple(sums_of_updates(ckks_context(), 3)[0][0].decrypt()) for _ in range(4)}
    assert len(shown) == 4


def plain_sum(seen: Round) -> Slots:
    total: Slots = np.sum([seen.masked(name) for name in seen.names], 0, dtype=np.uint64)
    return total


@pytest.mark.parametrize("chunk", [0, 1])
def test_observers_phase_differs_from_the_true_one_by_the_noise_alone(chunk):
    """The observer is a good one: what it lacks is noise of at most 3 * 21.5, and nothing else."""
    seen = two_full_chunks()
    total = seen.add(seen.uploads().values())
    guessed = phases_by_opened_slots(seen, opened_modulo_t(seen, total))[chunk]
    off = Ring(seen.parameters.degree, CIPHER_MODULUS).centred(phases_with_noise(seen, total)[chunk] - guessed)
    assert 0 < np.abs(off).max() <= 3 * 22
