"""An alliance in one process: names, round secrets, and the steps of a round in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_alliance.secagg import cipher, fixedpoint, masks, packing, shares
from fl_alliance.secagg.parameters import SumParameters, sum_parameters

CONTEXT = masks.RoundContext("north", "nouns", 1, "sha256:" + "0" * 64)
CLIP = 0.05


class Alliance:
    """`members` institutions in one round."""

    def __init__(self, members: int = 3, bits: int = 16, threshold: int | None = None) -> None:
        self.names = [f"clinic-{index}" for index in range(members)]
        self.threshold = threshold or members // 2 + 1
        self.parameters: SumParameters = sum_parameters(members=members, bits=bits)
        self.secrets = {name: masks.RoundSecrets.generate() for name in self.names}
        self.publics = {name: secrets.public for name, secrets in self.secrets.items()}
        self.key = cipher.AllianceKey.generate(self.parameters)

    def session(self, me: str, context: masks.RoundContext = CONTEXT) -> dict[str, Any]:
        return {"secrets": self.secrets[me], "me": me, "publics": self.publics, "context": context}

    def packed(self, update: NDArray[np.float64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        digits = fixedpoint.quantise(update, clip=CLIP, bits=self.parameters.bits)
        return digits, packing.pack(digits, self.parameters)

    def masked(self, me: str, slots: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return masks.add_masks(slots, modulus_bits=self.parameters.modulus_bits, **self.session(me))

    def seal(self, slots: NDArray[np.uint64]) -> bytes:
        return cipher.seal(slots, key=self.key, parameters=self.parameters)

    def add(self, uploads: list[bytes], dimension: int) -> bytes:
        slots = self.parameters.slots(dimension)
        return cipher.add(uploads, parameters=self.parameters, slots=slots, count=len(uploads))

    def deal(self) -> dict[str, dict[str, bytes]]:
        """Sender -> recipient -> sealed shares."""
        return {name: shares.deal_shares(threshold=self.threshold, **self.session(name)) for name in self.names}

    def dealt_to(self, me: str, dealt: dict[str, dict[str, bytes]]) -> dict[str, bytes]:
        return {sender: to[me] for sender, to in dealt.items()}

    def lists(self, survivors: Collection[str] | None = None) -> shares.Lists:
        """Everybody dealt; `survivors` (None: everybody) uploaded."""
        return shares.Lists.of(dealers=self.names, survivors=self.names if survivors is None else survivors)

    def reveal(self, dealt: dict[str, dict[str, bytes]], lists: shares.Lists | None = None) -> dict[str, bytes]:
        """Sender -> what each member reveals for `lists`."""
        pairs = {me: shares.open_shares(self.dealt_to(me, dealt), **self.session(me)) for me in self.names}
        return {me: self.revealed_by(me, pairs[me], lists) for me in self.names}

    def revealed_by(self, me: str, pairs: Mapping[str, shares.SharePair], lists: shares.Lists | None = None) -> bytes:
        return shares.reveal_shares(
            pairs, lists or self.lists(), me=me, group_secret=self.key.to_bytes(), context=CONTEXT
        )

    def recover(
        self,
        sealed: Mapping[str, bytes],
        lists: shares.Lists | None = None,
        *,
        context: masks.RoundContext = CONTEXT,
        group_secret: bytes | None = None,
    ) -> shares.Seeds:
        return shares.recover_seeds(
            sealed,
            lists or self.lists(),
            threshold=self.threshold,
            group_secret=group_secret or self.key.to_bytes(),
            publics=self.publics,
            context=context,
        )

    def unmasked(self, slots: NDArray[np.uint64], seeds: shares.Seeds) -> NDArray[np.uint64]:
        """Take off the survivors' self masks and the pairwise masks with those who dropped out."""
        bits = self.parameters.modulus_bits
        left = masks.remove_self_masks(slots, self_seeds=seeds.selfs, context=CONTEXT, modulus_bits=bits)
        return masks.remove_pairwise_masks(
            left,
            mask_seeds=seeds.masks,
            survivors=tuple(seeds.selfs),
            publics=self.publics,
            context=CONTEXT,
            modulus_bits=bits,
        )

    def open(self, total: bytes, seeds: shares.Seeds, dimension: int) -> NDArray[np.uint64]:
        slots = cipher.open_sum(total, key=self.key, parameters=self.parameters, slots=self.parameters.slots(dimension))
        return packing.unpack(self.unmasked(slots, seeds), self.parameters, dimension)

    def seeds(self, lists: shares.Lists | None = None) -> shares.Seeds:
        """The true seeds that `lists` names."""
        both = lists or self.lists()
        return shares.Seeds(
            {name: self.secrets[name].self_seed for name in both.survivors},
            {name: self.secrets[name].mask_seed for name in both.dropped},
        )

    def self_seeds(self) -> dict[str, bytes]:
        return {name: secrets.self_seed for name, secrets in self.secrets.items()}
