"""Two lists of survivors, each confirmed by honest members who saw one and by a helper who signs both.

What the attacker holds: the coordinator, and one institution with its alliance key, its round secrets and its shares.
It shows half of the others a list with the victim and half of them one without. With t of n confirmations of each list
one half gives shares of the victim's self seed and the other half of its mask seed: together they open its upload.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from fl_alliance.protocol import messages as m
from fl_alliance.protocol.ids import blob_ref
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.rounds import coordinator as c
from fl_alliance.secagg import cipher, masks, packing, shares
from tests.rounds.play import sealed
from tests.rounds.real import RealHouse, RealPlay, names_of, on_levels, real_plan

BITS, MEMBERS = 16, 5
DIGITS = np.random.default_rng(3).integers(0, 1 << BITS, (MEMBERS, 8))
HELPER, VICTIM, FRIEND, LEFT, RIGHT = names_of(MEMBERS)


class TwoFaced:
    """A round of five up to the uploads, and a coordinator that goes on twice."""

    def __init__(self) -> None:
        self.play = RealPlay(real_plan(MEMBERS, BITS, threshold=3, rounds=1), on_levels(DIGITS, BITS))
        while not (isinstance(self.play.state, c.Gathering) and self.play.state.awaits is m.SurvivorsConfirmed):
            assert self.play.honest_step()
        helper = self.play.houses[HELPER]
        assert isinstance(helper, RealHouse)
        self.desk, self.pairs = helper.desk, dict(helper.desk._pairs)
        self.uploads = self.play.state.progress.done(m.SealedUpdate)

    def list_of(self, survivors: Sequence[str]) -> m.SurvivorList:
        total = self.play.adder.total({name: self.uploads[name].upload for name in survivors})
        self.play.blobs.put(blob_ref(total), [total])
        progress = self.play.state.progress
        envelopes = tuple(text(progress.phases["sealed-update"][name].envelope) for name in sorted(survivors))
        return m.SurvivorList(**progress.job.bound(1), sealed_updates=envelopes, sum=blob_ref(total))

    def answers(self, shown: m.SurvivorList, to: Sequence[str]) -> dict[str, m.Answer]:
        """What `to` reveal after they confirmed the list they were shown, and the helper with them."""
        confirmed = {name: self.ask(name, shown) for name in to}
        first = confirmed[to[0]]
        assert isinstance(first, m.SurvivorsConfirmed)
        confirmed[HELPER] = first
        envelopes = tuple(text(sealed(name, confirmed[name])) for name in sorted(confirmed))
        request = m.Confirmations(**self.play.state.progress.job.bound(1), confirmed=envelopes)
        return {name: self.ask(name, request) for name in to}

    def ask(self, name: str, request: m.Request) -> m.Answer:
        return self.play.houses[name].take(self.play.asked(request))

    def seeds(self, answers: Mapping[str, m.Answer], survivors: Sequence[str]) -> shares.Seeds:
        """Rebuild seeds from what the others revealed and from the helper's own shares."""
        lists = shares.Lists.of(dealers=self.play.plan.names, survivors=survivors)
        group, context = self.desk._group_secret, self.desk._context
        assert context is not None
        revealed = {name: base64.b64decode(a.sealed) for name, a in answers.items() if isinstance(a, m.RevealedShares)}
        revealed[HELPER] = shares.reveal_shares(self.pairs, lists, me=HELPER, group_secret=group, context=context)
        return shares.recover_seeds(
            revealed, lists, threshold=3, group_secret=group, publics=self.desk._publics, context=context
        )

    def read(self, self_seed: bytes, mask_seed: bytes) -> Any:
        """Open the victim's upload with the alliance key and take every mask off."""
        parameters, context, publics = self.desk._parameters, self.desk._context, self.desk._publics
        assert context is not None
        size, bits = parameters.slots(DIGITS.shape[1]), parameters.modulus_bits
        data = b"".join(self.play.blobs.read(self.uploads[VICTIM].upload))
        alone = cipher.add([data], parameters=parameters, slots=size, count=1)
        key = self.desk._key
        assert key is not None
        slots = cipher.open_sum(alone, key=key, parameters=parameters, slots=size)
        slots = masks.remove_self_masks(slots, self_seeds={VICTIM: self_seed}, context=context, modulus_bits=bits)
        others = [name for name in publics if name != VICTIM]
        # what the others' uploads would hold of masks with the victim is what the victim's holds, with the other sign
        zero = np.zeros_like(slots)
        held = masks.remove_pairwise_masks(
            zero, mask_seeds={VICTIM: mask_seed}, survivors=others, publics=publics, context=context, modulus_bits=bits
        )
        slots = (slots - held) & np.uint64((1 << bits) - 1)
        return packing.unpack(slots, parameters, DIGITS.shape[1])


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def attack() -> Any:
    attacker = TwoFaced()
    everybody = attacker.play.plan.names
    others = [name for name in everybody if name != VICTIM]
    with_the_victim = attacker.answers(attacker.list_of(everybody), (VICTIM, FRIEND))
    without = attacker.answers(attacker.list_of(others), (LEFT, RIGHT))
    selfs, mask = attacker.seeds(with_the_victim, everybody), attacker.seeds(without, others)
    return attacker.read(selfs.selfs[VICTIM], mask.masks[VICTIM])


def test_three_of_five_confirmations_of_each_list_would_open_the_victims_upload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the threshold as the number of confirmations, the attack reads the victim's digits."""
    monkeypatch.setattr(TrainingPlan, "confirmations", property(lambda plan: plan.threshold))
    assert np.array_equal(attack(), DIGITS[1])


def test_two_lists_cannot_both_be_confirmed_by_more_than_two_thirds() -> None:
    """Four of five are needed: neither half reveals a share, and too few shares open no seed."""
    assert real_plan(MEMBERS, BITS, threshold=3).confirmations == 4
    attacker = TwoFaced()
    answers = attacker.answers(attacker.list_of(attacker.play.plan.names), (VICTIM, FRIEND))
    assert {type(answer) for answer in answers.values()} == {m.Refusal}
    with pytest.raises(shares.SecretUnavailable, match="need 3"):
        attacker.seeds(answers, attacker.play.plan.names)


@pytest.mark.parametrize("members", range(4, 60))
def test_fewer_than_a_third_of_helpers_never_get_two_lists_confirmed(members: int) -> None:
    needed = real_plan(members, 8).confirmations
    helpers = -(-members // 3) - 1
    assert 2 * needed > members + helpers
    assert needed <= members
