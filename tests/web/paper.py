"""The evidence that these tests show: four institutions, one of which leaves, and a round that was charged twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_alliance.protocol.documents import AllianceMembers
from fl_alliance.protocol.plan import Member
from tests.evidence.alliance import members_of
from tests.evidence.shared import Alliance, Job

NAMES = ("berlin", "lagos", "lima", "oslo")


class Paper(Alliance):
    """An alliance whose jobs can lose a member, or a first try of a round."""

    def __init__(
        self, home: Path, *, unit: str = "patient", policies: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        changes = policies or {}
        super().__init__(home, {name: {"allowed_units": (unit,), **changes.get(name, {})} for name in NAMES})
        self.unit = unit

    def job(
        self, job: str, *, at: int, leaves: Mapping[str, int] | None = None, vain: Sequence[int] = (), **plan: Any
    ) -> dict[str, Path]:
        """Return the folder of each member that stays, by name, after a job that began `at`.

        `leaves` has the round from which on a member is missing. In the rounds `vain` everybody charges twice.
        """
        self.now = at
        privacy = {"unit": self.unit} | plan.pop("privacy", {})
        members = tuple(Member(name=name, declared_units=1000) for name in NAMES)
        plan |= {"job": job, "members": members, "threshold": 3, "quorum": 3, "privacy": privacy}
        done = PaperJob(self, self.home / "evidence" / job / "lagos", leaves or {}, vain, **plan)
        return {folder.name: folder for folder in done.everybody()}


class PaperJob(Job):
    """One job of it."""

    def __init__(
        self, alliance: Alliance, path: Path, leaves: Mapping[str, int], vain: Sequence[int], **plan: Any
    ) -> None:
        super().__init__(alliance, path, **plan)
        self.leaves, self.vain, self.pace = leaves, vain, 3600

    def everyone(self) -> AllianceMembers:
        return members_of(NAMES)

    def round(self, number: int, previous: str | None) -> bytes:
        self.names = tuple(name for name in self.plan.names if number < self.leaves.get(name, number + 1))
        return super().round(number, previous)

    def heads(self, number: int) -> dict[str, str]:
        if number in self.vain:
            super().heads(number)
        return super().heads(number)
