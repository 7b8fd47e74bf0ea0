"""An institution's folder with finished jobs in it, made without any training; and what is bundled of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fl_alliance.parties.bundles import Wanted, institution_bundle
from tests.evidence.alliance import key_of
from tests.evidence.folder import ME, NOW, Folder


class House:
    """The home of one institution; `job` adds a job to it, on the same ledger and the same log."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "keys").mkdir(parents=True)
        key_of(ME).save(home / "keys" / "identity.key")
        (home / "institution.toml").write_text(
            f'name = "{ME}"\nalliance = "clinics"\ncoordinator = "office:9443"\nmodel_folder = "TODO"\n'
        )
        self.last: Folder | None = None

    def evidence(self, job: str) -> Path:
        return self.home / "jobs" / job / "evidence"

    def job(self, job: str = "job-1", **changes: Any) -> Folder:
        folder = Folder(self.evidence(job), job=job, **changes)
        if self.last is not None:
            folder.log, folder.book = self.last.log, self.last.book
            folder.write("ledger.jsonl", (self.last.path / "ledger.jsonl").read_bytes())
        folder.build()
        self.last = folder
        return folder

    def bundle(self, out: Path, *jobs: str) -> Path:
        institution_bundle(self.home, out, Wanted(jobs=jobs), clock=lambda: NOW + 200)
        return out


def small_bundle(folder: Path) -> Path:
    """A bundle of one job of one round."""
    house = House(folder / ME)
    house.job(rounds=1)
    return house.bundle(folder / "small.zip")
