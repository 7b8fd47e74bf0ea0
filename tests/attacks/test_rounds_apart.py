"""Uploads of one round used in another, and sums that are subtracted from one another."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fl_alliance.errors import OutOfRange, SecretUnavailable, WrongCipher
from fl_alliance.secagg import frame, packing, shares
from fl_alliance.secagg.frame import Kind
from tests.attacks import lattice
from tests.attacks.alliance import (
    UNLIKELY,
    Digits,
    Round,
    Slots,
    looks_uniform,
    switch_context_off,
    switch_masks_off,
)

OTHER_CONTEXTS: dict[str, dict[str, Any]] = {
    "round": {"round": 2},
    "job": {"job": "verbs"},
    "alliance": {"alliance": "south"},
    "roster": {"roster_digest": "sha256:" + "1" * 64},
}


def move_on(seen: Round, **changes: Any) -> None:
    """Go to another round with new updates and, to the attacker's advantage, the same secrets."""
    seen.context = replace(seen.context, **changes)
    seen.digits = {name: np.roll(digits, 7) for name, digits in seen.digits.items()}


# ---- replay


def replay(seen: Round, changes: dict[str, Any]) -> tuple[Digits, Digits]:
    """Put the victim's upload of one round into the sum of the next. Return what opens, and old plus new digits."""
    old, stored = seen.digits["clinic-0"], seen.upload("clinic-0")
    move_on(seen, **changes)
    total = seen.add([stored, seen.upload("clinic-1"), seen.upload("clinic-2")])
    return seen.open(total, seen.self_seeds()), old + seen.exact_sum(["clinic-1", "clinic-2"])


@pytest.mark.parametrize("what", OTHER_CONTEXTS)
def test_replayed_upload_leaves_noise_that_is_refused(what):
    """Attacker holds: the wire, every stored upload; the members even kept their secrets from one round to the next.
    Saw: the refusal of the opening. Learnt: nothing; the sum of an old upload with new ones has masks left in it.
    """
    with pytest.raises(OutOfRange, match="not as a sum of 3 updates leaves them"):
        replay(Round(3), OTHER_CONTEXTS[what])


@pytest.mark.parametrize("what", OTHER_CONTEXTS)
def test_without_the_context_in_the_keys_a_replayed_upload_is_summed(monkeypatch, what):
    """Defence off: masks do not depend on the round. Learnt: an old update counts again, and two sums subtract."""
    switch_context_off(monkeypatch)
    opened, expected = replay(Round(3), OTHER_CONTEXTS[what])
    assert (opened == expected).all()


@pytest.mark.parametrize("what", OTHER_CONTEXTS)
def test_replayed_shares_do_not_open(what):
    """Attacker relays the shares of another round. Saw: a refusal that names whose they are."""
    seen = Round(3)
    dealt = shares.deal_shares(threshold=2, **seen.session("clinic-0"))
    move_on(seen, **OTHER_CONTEXTS[what])
    with pytest.raises(SecretUnavailable, match="what clinic-0 sealed does not open"):
        shares.open_shares({"clinic-0": dealt["clinic-1"]}, **seen.session("clinic-1"))


# ---- one update under two masks, two updates under one mask


def difference(seen: Round, changes: dict[str, Any], *, same_update: bool) -> tuple[Slots, Slots]:
    """Subtract a member's masked slots of two rounds; return that, and the difference of its updates' slots."""
    low = np.uint64((1 << seen.parameters.modulus_bits) - 1)
    before, masked = seen.digits["clinic-0"], seen.masked("clinic-0")
    move_on(seen, **changes)
    if same_update:
        seen.digits["clinic-0"] = before
    after, again = seen.digits["clinic-0"], seen.masked("clinic-0")
    plain = packing.pack(before, seen.parameters) - packing.pack(after, seen.parameters)
    return (masked - again) & low, plain & low


@pytest.mark.parametrize("same_update", [True, False])
@pytest.mark.parametrize("what", OTHER_CONTEXTS)
def test_difference_of_two_masked_uploads_is_uniform(what, same_update):
    """Attacker holds: the wire and the alliance key; an update was masked in two rounds, with the same secrets.
    Saw: both uploads decrypted. Learnt: nothing from subtracting, not even whether the two updates are the same.
    """
    seen = Round(3)
    left, plain = difference(seen, OTHER_CONTEXTS[what], same_update=same_update)
    assert looks_uniform(left, seen.parameters.modulus_bits) > UNLIKELY
    assert np.mean(left == plain) < 0.001


@pytest.mark.parametrize("same_update", [True, False])
@pytest.mark.parametrize("what", OTHER_CONTEXTS)
def test_one_mask_used_twice_gives_the_difference_away(monkeypatch, what, same_update):
    """Defence off: masks do not depend on the round. Learnt: the exact difference of two updates."""
    switch_context_off(monkeypatch)
    seen = Round(3)
    left, plain = difference(seen, OTHER_CONTEXTS[what], same_update=same_update)
    assert (left == plain).all()
    assert looks_uniform(left, seen.parameters.modulus_bits) < UNLIKELY


# ---- differencing: the sum of all minus the sum of all but one


def one_chunk() -> Round:
    return Round(4, dimension=6000)


def add_by_hand(seen: Round, genuine: bytes, uploads: Collection[bytes]) -> bytes:
    """Add ciphertexts without asking how many there should be: the coordinator owes nobody to use `cipher.add`."""
    pairs = [next(lattice.halves(Kind.UPLOAD, upload, seen.parameters, seen.slots)) for upload in uploads]
    c0, c1 = (sum(pair[half] for pair in pairs) for half in (0, 1))
    return lattice.crafted_sum(genuine, c0, c1, seen.parameters, seen.slots)


def open_all_and_all_but_one(seen: Round) -> Digits:
    """Open the sum of four, then the sum of the same uploads but the victim's; return the difference."""
    uploads = seen.uploads()
    genuine = seen.add(uploads.values())
    rest = [upload for name, upload in uploads.items() if name != "clinic-0"]
    seeds = {name: seed for name, seed in seen.self_seeds().items() if name != "clinic-0"}
    return seen.open(genuine, seen.self_seeds()) - seen.open(add_by_hand(seen, genuine, rest), seeds)


def test_sum_of_the_same_uploads_without_one_does_not_open():
    """Attacker holds: the wire, and institutions that open whatever they get, without the sum check.
    Saw: the sum of four, then a refusal. Learnt: the sum of four: masks towards the one left out do not cancel.
    """
    with pytest.raises(OutOfRange, match="not as a sum of 4 updates leaves them"):
        open_all_and_all_but_one(one_chunk())


def test_without_pairwise_masks_two_sums_subtract_to_one_update(monkeypatch):
    """Defence off: self masks only. Learnt: the update of the one left out, exactly."""
    switch_masks_off(monkeypatch, "pairwise-mask")
    seen = one_chunk()
    assert (open_all_and_all_but_one(seen) == seen.digits["clinic-0"]).all()


def test_stored_uploads_do_not_make_the_sum_of_a_smaller_alliance():
    """Attacker runs the round again with three of four members and gives their stored uploads to the adder, as they
    are or with the header of three. Saw: refusals. The plaintext modulus, which is in every ciphertext, is another.
    """
    four, three = one_chunk(), Round(3, dimension=6000)
    stored = [four.upload(name) for name in four.names[1:]]
    with pytest.raises(WrongCipher, match="header"):
        three.add(stored)
    headed = [with_header_of(three, upload) for upload in stored]
    with pytest.raises(WrongCipher, match="SEAL refuses"):
        three.add(headed)


def with_header_of(seen: Round, upload: bytes) -> bytes:
    header = len(frame.write(Kind.UPLOAD, seen.parameters, seen.slots, [b""])) - 4
    return seen.upload("clinic-0")[:header] + upload[header:]
