"""An institution's folder with finished jobs in it, made without any training; and what is bundled of it."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_alliance.evidence.keys import AllianceRoot
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties.bundles import Wanted, institution_bundle
from fl_alliance.parties.mail import Address, write_answer, write_request
from fl_alliance.parties.refusals import keeping_refusals
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import AllianceMembers, InstitutionPolicy
from fl_alliance.protocol.ids import digest_of
from tests.evidence.alliance import key_of, members_of, policy_of
from tests.evidence.folder import ME, NOW, Folder


class House:
    """The home of one institution; `job` adds a job to it, on the same ledger and the same log."""

    def __init__(self, home: Path) -> None:
        self.home = home
        furnish(home, ME, sign_document(key_of("root"), members_of()), policy_of())
        self.last: Folder | None = None

    def evidence(self, job: str) -> Path:
        return self.home / "jobs" / job / "evidence"

    def job(self, job: str = "job-1", **changes: Any) -> Folder:
        folder = Folder(self.evidence(job), job=job, **changes)
        if self.last is not None:
            folder.log, folder.book = self.last.log, self.last.book
            folder.write("ledger.jsonl", (self.last.path / "ledger.jsonl").read_bytes())
        folder.build()
        (self.home / "ledger.jsonl").write_bytes((folder.path / "ledger.jsonl").read_bytes())
        self.last = folder
        return folder

    def refuse(self, job: str, error: str, reason: str) -> None:
        """Keep a plan that was refused, as `keeping_refusals` does; some job must have been finished before."""
        assert self.last is not None
        where = {"alliance": "clinics", "job": job, "round": 0}
        plan, members, shown = (
            base64.b64encode(data).decode()
            for data in (self.last.plan_bytes, (self.home / "members.dsse.json").read_bytes(), self.last.shown)
        )
        asked = m.Proposal(**where, plan=plan, members=members, last_seen=None, checkpoint=shown)
        request = write_request(Address("office", "office", {}), key_of("office"), ME, asked)
        said = m.Refusal(**where, request_digest=digest_of(encode(asked)), error=error, reason=reason)
        answer = write_answer(Address(ME, "office", {}), key_of(ME), said)
        keeping_refusals(self.home, lambda _: answer)(request)

    def bundle(self, out: Path, *jobs: str) -> Path:
        institution_bundle(self.home, out, Wanted(jobs=jobs), clock=lambda: NOW + 200)
        return out


def furnish(home: Path, name: str, members: bytes, policy: InstitutionPolicy) -> None:
    """Make the home of an institution that has done nothing yet."""
    (home / "keys").mkdir(parents=True)
    key_of(name).save(home / "keys" / "identity.key")
    (home / "institution.toml").write_text(
        f'name = "{name}"\nalliance = "clinics"\ncoordinator = "office:9443"\nmodel_folder = "model"\n'
        '[data]\nname = "cases"\npath = "cases.jsonl"\nunit_column = "patient"\n'
    )
    (home / "root.pub.json").write_bytes(encode(AllianceRoot(key=key_of("root").public_text)))
    (home / "members.dsse.json").write_bytes(members)
    (home / "policy.dsse.json").write_bytes(sign_document(key_of(name), policy))


def settle(
    home: Path, name: str, everyone: AllianceMembers, jobs: Mapping[str, Path], ledger: Path, *, now: int
) -> Path:
    """Make the home of an institution with folders of `jobs` that were made elsewhere; return its bundle."""
    furnish(home, name, sign_document(key_of("root"), everyone), policy_of(institution=name))
    for job, folder in jobs.items():
        shutil.copytree(folder, home / "jobs" / job / "evidence")
    shutil.copy(ledger, home / "ledger.jsonl")
    out = home.with_suffix(".zip")
    institution_bundle(home, out, Wanted(), clock=lambda: now)
    return out


def small_bundle(folder: Path) -> Path:
    """A bundle of one job of one round."""
    house = House(folder / ME)
    house.job(rounds=1)
    return house.bundle(folder / "small.zip")
