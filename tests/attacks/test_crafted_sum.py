"""A coordinator that asks for the opening of something else than the sum.

BFV is not CCA-secure: what a decryptor says about a ciphertext of the attacker's choice is about the key. What stands
against it is the sum check, and it must come before the opening; the range checks behind it are not enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fl_alliance.errors import AllianceError, SumRefused
from fl_alliance.secagg import cipher
from fl_alliance.secagg.frame import Kind
from fl_alliance.secagg.parameters import CIPHER_MODULUS, SumParameters
from tests.attacks import alliance, lattice
from tests.attacks.alliance import Round, Slots
from tests.attacks.lattice import Poly

Q = CIPHER_MODULUS
ONE_CHUNK = 6000
"""Coordinates that fit into one ciphertext."""


def opener(seen: Round, uploads: dict[str, bytes], *, range_check: bool = True) -> Callable[[bytes], Slots]:
    """Return an institution's opening as the coordinator meets it: sum in, opened slots or a refusal out."""
    parameters = seen.parameters if range_check else without_range_check(seen.parameters)

    def open_(total: bytes) -> Slots:
        alliance.require_the_sum(total, uploads.values(), seen.parameters, seen.slots)
        return cipher.open_sum(total, key=seen.key, parameters=parameters, slots=seen.slots)

    return open_


def without_range_check(parameters: SumParameters) -> SumParameters:
    """Hook: with so large an m every slot modulo t is in range, and none is cut to m bits."""
    return replace(parameters, modulus_bits=62)


def switch_sum_check_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(alliance, "require_the_sum", lambda *_: None)


# ---- one crafted sum


def steal_key(seen: Round, genuine: bytes, open_: Callable[[bytes], Slots]) -> Poly:
    """Ask for the opening of c0 = 0, c1 = q / t: its phase is s * q / t, so its plaintext is the key s.

    The padding must be zero: so the crafted frame says that it holds as many slots as a full ciphertext.
    """
    t, degree = seen.parameters.plain_modulus, seen.parameters.degree
    zero, constant = np.zeros(degree, object), np.zeros(degree, object)
    constant[0] = (2 * Q + t) // (2 * t)
    opened = open_(lattice.crafted_sum(genuine, zero, constant, seen.parameters, seen.slots))
    return lattice.batch_encode(opened, lattice.Ring(degree, t))


def full_chunk() -> Round:
    """Return a round in which one ciphertext has no padding."""
    seen = Round(3, dimension=2 * (4096 - 4))
    assert seen.slots == seen.parameters.degree
    return seen


def test_crafted_sum_that_is_opened_unchecked_gives_the_whole_key(monkeypatch):
    """Attacker holds: the wire, no key. Defence off: the sum check, and the range check behind it.
    Saw: the opening of one crafted sum. Learnt: all 4096 coefficients of the key, and with it decrypts an upload.
    """
    switch_sum_check_off(monkeypatch)
    seen = full_chunk()
    uploads = seen.uploads()
    key = steal_key(seen, seen.add(uploads.values()), opener(seen, uploads, range_check=False))
    assert set(key.tolist()) == {-1, 0, 1}
    masked = seen.masked("clinic-1")
    upload = cipher.seal(masked, key=seen.key, parameters=seen.parameters)
    assert (lattice.decrypt(Kind.UPLOAD, upload, key, seen.parameters, seen.slots) == masked).all()


def test_crafted_sum_is_refused_before_anything_is_decrypted(monkeypatch):
    """Attacker as above, sum check on. Saw: a refusal. Learnt: nothing; the key was not touched."""
    seen = full_chunk()
    uploads = seen.uploads()
    total = seen.add(uploads.values())
    opened = []
    monkeypatch.setattr(cipher, "open_sum", lambda *_, **__: opened.append(1))
    with pytest.raises(SumRefused, match="not the sum of the signed uploads"):
        steal_key(seen, total, opener(seen, uploads, range_check=False))
    assert opened == []
    opener(seen, uploads)(total)
    assert opened == [1]


# ---- range checks alone


def ask(seen: Round, genuine: bytes, place: int, sign: int, accepts: Callable[[bytes], bool]) -> bool:
    """Return whether a sum that differs from the genuine one only if key coefficient `place` is `sign` was accepted.

    The plaintext's first coefficient is moved to 2^12 below the edge of its rounding cell, and `sign` * key[place] *
    2^13 is added to it; the noise of a genuine sum of three is below 65. Across the edge every slot grows by one: the
    zeros that `packing` keeps at the end are not zeros then, and the institution refuses.
    """
    degree, t = seen.parameters.degree, seen.parameters.plain_modulus
    ((c0, c1),) = lattice.halves(Kind.SUM, genuine, seen.parameters, seen.slots)
    shift, step = np.zeros(degree, object), np.zeros(degree, object)
    shift[0] = Q // (2 * t) - 2**12
    step[(degree - place) % degree] = sign * 2**13 * (-1 if place else 1)  # X^-place = -X^(degree - place)
    return accepts(lattice.crafted_sum(genuine, c0 + shift, c1 + step, seen.parameters, seen.slots))


def key_by_refusals(seen: Round, genuine: bytes, places: range, accepts: Callable[[bytes], bool]) -> list[int]:
    """Two questions for each coefficient: is it 1, is it -1?"""
    return [
        1 if not ask(seen, genuine, place, 1, accepts) else -1 if not ask(seen, genuine, place, -1, accepts) else 0
        for place in places
    ]


def acceptor(seen: Round, uploads: dict[str, bytes]) -> Callable[[bytes], bool]:
    """Return what the coordinator sees of a whole opening, with every range check: did the round go on?"""

    def accepts(total: bytes) -> bool:
        try:
            alliance.require_the_sum(total, uploads.values(), seen.parameters, seen.slots)
            seen.open(total, seen.self_seeds())
        except AllianceError:
            return False
        return True

    return accepts


def test_range_checks_alone_tell_the_key_coefficient_by_coefficient(monkeypatch):
    """Attacker holds: the wire, no key; never sees an opened number. Defence off: the sum check only.
    Saw: whether the institution went on. Learnt: one key coefficient in two questions; 24 of 4096 are asked for here.
    That a job ends with the first refusal, and the next one has another key, leaves the attacker about a bit a job.
    """
    switch_sum_check_off(monkeypatch)
    seen = Round(3, dimension=ONE_CHUNK)
    uploads = seen.uploads()
    got = key_by_refusals(seen, seen.add(uploads.values()), range(24), acceptor(seen, uploads))
    assert got == lattice.key_from_bytes(seen.key.to_bytes(), seen.parameters)[:24].tolist()
    assert len(set(got)) > 1


def test_with_the_sum_check_every_crafted_sum_gets_the_same_answer():
    """Attacker as above, sum check on. Saw: a refusal each time, whatever the key is. Learnt: nothing."""
    seen = Round(3, dimension=ONE_CHUNK)
    uploads = seen.uploads()
    genuine = seen.add(uploads.values())
    accepts = acceptor(seen, uploads)
    assert not any(ask(seen, genuine, place, sign, accepts) for place in range(24) for sign in (1, -1))
    assert accepts(genuine)


def test_sum_check_sees_one_changed_bit_of_one_coefficient():
    """The smallest change that still parses: 1 more in one coefficient of c0, which opens to the same numbers."""
    seen = Round(3, dimension=ONE_CHUNK)
    uploads = seen.uploads()
    genuine = seen.add(uploads.values())
    ((c0, c1),) = lattice.halves(Kind.SUM, genuine, seen.parameters, seen.slots)
    c0[7] += 1
    touched = lattice.crafted_sum(genuine, c0, c1, seen.parameters, seen.slots)
    assert (seen.open(touched, seen.self_seeds()) == seen.open(genuine, seen.self_seeds())).all()
    with pytest.raises(SumRefused, match="not the sum of the signed uploads"):
        opener(seen, uploads)(touched)
