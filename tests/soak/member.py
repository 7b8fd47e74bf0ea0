"""An institution as its admin starts it, but for its randomness: what decides the adapter comes from member and round.

    python -m tests.soak.member institution run HOME

Sampling, noise and rounding are then the same in each job, so that each has the adapter of a job without faults. Keys,
masks and shares stay random. The product has no such switch: here its generator is replaced from outside.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fl_alliance import cli
from fl_alliance.parties.desk import InstitutionDesk
from fl_alliance.rounds import institution as machine
from fl_alliance.secagg import fixedpoint
from fl_alliance.training import session
from fl_alliance.training.noise import SecretRandom


class Stream:
    """Bytes that follow from who draws, what for, and in which round: a second try draws the same."""

    def __init__(self, member: str, purpose: str) -> None:
        self._who = f"{member}|{purpose}"

    def begin(self, round_number: int) -> None:
        key = hashlib.sha256(f"{self._who}|{round_number}".encode()).digest()
        self._bytes = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def __call__(self, count: int) -> bytes:
        return self._bytes.update(bytes(count))


def determine(member: str) -> None:
    """Replace the sources of sampling, noise and rounding in this process."""
    noise, rounding = Stream(member, "noise"), Stream(member, "rounding")
    do = InstitutionDesk.do

    def begins_anew(desk: InstitutionDesk, work: machine.Work, *, again: bool = False) -> object:
        if isinstance(work, machine.Train):
            noise.begin(work.round)
            rounding.begin(work.round)
        return do(desk, work, again=again)

    InstitutionDesk.do = begins_anew  # type: ignore[method-assign]
    session.SecretRandom = lambda: SecretRandom._from(noise)  # type: ignore[assignment,misc]
    fixedpoint.quantise = functools.partial(fixedpoint.quantise, random_bytes=rounding)  # type: ignore[assignment]


if __name__ == "__main__":
    determine(Path(sys.argv[-1]).name)
    cli.main()
