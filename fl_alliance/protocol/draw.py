"""Who must check a sum: drawn from the signed list of uploads, so that nobody chooses.

The check keeps a coordinator from having a crafted ciphertext opened (BFV is not CCA-secure). Against a coordinator
that no institution helps, whoever is drawn is honest. One that a key holder helps has no use for a crafted sum: the
helper holds the key already, and the masks inside are what stands. So the draw need not withstand a helper who tries
many uploads until it is drawn itself; it only shares out the work.
"""

from __future__ import annotations

from collections.abc import Collection

from fl_alliance.protocol.ids import digest_of

SPARES = 2
"""So many times the plan's verifiers are drawn: as many as the plan names must answer, the others may be missing."""


def drawn_verifiers(survivors_digest: str, confirmed: Collection[str], verifiers: int | None) -> tuple[str, ...]:
    """Return the members of `confirmed` that must add again, sorted: everybody if `verifiers` is None.

    The order of the draw is that of SHA-256 of `<survivors_digest>|<name>`.
    """
    if verifiers is None:
        return tuple(sorted(confirmed))
    order = sorted(confirmed, key=lambda name: digest_of(f"{survivors_digest}|{name}".encode()))
    return tuple(sorted(order[: SPARES * verifiers]))


def checks_needed(drawn: Collection[str], *, verifiers: int | None, threshold: int) -> int:
    """Return how many of `drawn` must have added to the same sum before it may be opened."""
    return threshold if verifiers is None else min(verifiers, len(drawn))
