"""An alliance in one process: names, round secrets, and the steps of a round in order."""

from __future__ import annotations

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
        return cipher.add(uploads, parameters=self.parameters, slots=self.parameters.slots(dimension))

    def deal(self) -> dict[str, dict[str, bytes]]:
        """Sender -> recipient -> sealed shares."""
        return {name: shares.deal_shares(threshold=self.threshold, **self.session(name)) for name in self.names}

    def dealt_to(self, me: str, dealt: dict[str, dict[str, bytes]]) -> dict[str, bytes]:
        return {sender: to[me] for sender, to in dealt.items()}

    def reveal(self, dealt: dict[str, dict[str, bytes]], survivors: list[str] | None = None) -> dict[str, Any]:
        """Sender -> recipient -> sealed shares of self seeds."""
        return {
            name: shares.reveal_self_shares(
                shares.open_shares(self.dealt_to(name, dealt), **self.session(name)),
                survivors or self.names,
                **self.session(name),
            )
            for name in self.names
        }

    def recover(self, me: str, sealed: dict[str, bytes], survivors: list[str] | None = None) -> dict[str, bytes]:
        return shares.recover_self_seeds(
            sealed, survivors=survivors or self.names, threshold=self.threshold, **self.session(me)
        )

    def open(self, total: bytes, seeds: dict[str, bytes], dimension: int) -> NDArray[np.uint64]:
        slots = cipher.open_sum(total, key=self.key, parameters=self.parameters, slots=self.parameters.slots(dimension))
        clear = masks.remove_self_masks(
            slots, self_seeds=seeds, context=CONTEXT, modulus_bits=self.parameters.modulus_bits
        )
        return packing.unpack(clear, self.parameters, dimension)

    def self_seeds(self) -> dict[str, bytes]:
        return {name: secrets.self_seed for name, secrets in self.secrets.items()}
