"""Who gets a copy: of an institution's database in the middle of a round, and of the evidence that an auditor is given.

Every secret that an institution keeps is noted as it is sealed, and each eight bytes of it are looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_alliance.parties.job_journal import JobJournal
from fl_alliance.parties.simulate import Simulation, SimulationSettings
from fl_alliance.parties.vault import Vault
from tests.parties.haystack import peeled

SECRET = {"wrap-key", "alliance-key", "round-secrets", "shares", "update"}
"""What is sealed beside them is public: names and keys of the roster, costs."""
CHUNK, OVERLAP = 4096, 16


def words(data: bytes) -> NDArray[np.uint64]:
    """Every eight bytes in a row, wherever they begin."""
    cut = [data[at : at + (len(data) - at) // 8 * 8] for at in range(8)]
    return np.concatenate([np.frombuffer(part, np.uint64) for part in cut])


def telling(secret: bytes) -> NDArray[np.uint64]:
    """Those of a secret that are neither padding nor a name."""
    found = [secret[at : at + 8] for at in range(0, len(secret) - 7, 4)]
    return np.frombuffer(b"".join(part for part in found if len(set(part)) > 5 and b"site" not in part), np.uint64)


def any_of(there: NDArray[np.uint64], secret: bytes) -> bool:
    sought = np.unique(telling(secret))
    places = np.minimum(np.searchsorted(sought, there), len(sought) - 1)
    return bool((sought[places] == there).any())


class Copies:
    """Secrets of all members, and everything that was ever in a file of their databases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets: dict[str, list[bytes]] = {name: [] for name in SECRET}
        self.sealed: dict[str, list[bytes]] = {name: [] for name in SECRET}
        self.stolen: set[bytes] = set()

    def note(self, name: str, secret: bytes, sealed: Sequence[bytes]) -> None:
        if name in SECRET:
            self.secrets[name].append(secret)
            self.sealed[name].append(sealed[0])

    def steal(self) -> None:
        for path in self.folder.glob("site-*/journal.db*"):
            data = path.read_bytes()
            self.stolen |= {data[at : at + CHUNK + OVERLAP] for at in range(0, len(data), CHUNK)}

    def within(self, data: bytes) -> set[str]:
        """Which secrets have eight bytes in `data`, as they are or in base64."""
        there = words(peeled(data))
        return {name for name, found in self.secrets.items() if any_of(there, b"".join(found))}


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copies:
    """A job of three, of whose databases a copy is taken after each write."""
    made = Copies(tmp_path / "alliance")
    seal, advance = Vault.seal, JobJournal.advance

    def noting(self: Vault, job: str, name: str, secret: bytes) -> tuple[bytes, ...]:
        sealed = seal(self, job, name, secret)
        made.note(name, secret, sealed)
        return sealed

    def stealing(self: JobJournal, *args: object, **more: object) -> None:
        advance(self, *args, **more)  # type: ignore[arg-type]
        made.steal()

    monkeypatch.setattr(Vault, "seal", noting)
    monkeypatch.setattr(JobJournal, "advance", stealing)
    Simulation(SimulationSettings(members=3, parameters=40), made.folder).run()
    return made


def test_neither_a_database_at_any_moment_nor_the_evidence_at_the_end_holds_a_secret(copies: Copies):
    stolen = b"".join(copies.stolen)
    for name, sealed in copies.sealed.items():  # it was copied while they were there, as they are kept
        assert sealed, name
        assert all(part[:64] in stolen for part in sealed), name
    assert copies.within(stolen) == set()

    files = [path for path in copies.folder.glob("site-*/jobs/*/evidence/**/*") if path.is_file()]
    evidence = b"".join(path.read_bytes() for path in files)
    assert len(files) > 100
    assert copies.within(evidence) == set()

    for name, secrets in copies.secrets.items():  # and the search would find one
        assert copies.within(b"?" + secrets[0][-40:-1] + b"?") == {name}
