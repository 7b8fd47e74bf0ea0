"""The coordinator's own evidence of a job, in its bundle: the steps that it can show; 5, 6, 9 and 11 are institutions'.

It has the signed plan and list, every record, every message that it relayed, and its log. That an institution charged
what its ledger heads say, only the institution can show; that both tell the same, step 15.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fl_alliance.evidence.files import EvidenceFiles
from fl_alliance.evidence.keys import public_key_of
from fl_alliance.parties.auditor import MEMBERS, PLAN, ROOT, JobSteps, Say, require_belongs
from fl_alliance.protocol.documents import EvidenceBundle, RoundRecord
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import TrainingPlan

_OF_A_JOB = re.compile(r"(log|keys/messages|rounds/[^/]+/messages)/[^/]+|rounds/[^/]+(/record\.dsse\.json)?")


@dataclass(frozen=True, kw_only=True)
class CoordinatorFindings:
    """What the coordinator's evidence of a job shows."""

    alliance: str
    job: str
    root: str
    """Fingerprint of the root key on which everything rests."""
    plan: TrainingPlan
    records: tuple[RoundRecord, ...]
    log_entries: int
    """Of its log, up to the last checkpoint of the job."""


def verify_coordinator_job(
    files: EvidenceFiles, bundle: EvidenceBundle, *, root: str | None, say: Say
) -> CoordinatorFindings:
    """Verify the coordinator's evidence of one job; step 1 of the `bundle` in which it lies holds.

    Raises:
        EvidenceRefused: "step N, FILE: why". Nothing else escapes.
    """
    return _CoordinatorSteps(files, say).run(bundle, root)


class _CoordinatorSteps(JobSteps):
    def run(self, bundle: EvidenceBundle, root: str | None) -> CoordinatorFindings:
        self._names = self._source.names()
        require_belongs(self._names, (ROOT, MEMBERS, PLAN), _OF_A_JOB)
        root_key = self.root(root)
        members = self.members(root_key, bundle.party, public_key_of(bundle.key), "coordinator")
        plan, plan_digest = self.plan(members, None)
        records = self.rounds(members, plan, plan_digest, None)
        address = self.messages(members, plan, plan_digest, records, None)
        entries = self.log(plan, address, records, None)
        return CoordinatorFindings(
            alliance=plan.alliance,
            job=plan.job,
            root=digest_of(root_key),
            plan=plan,
            records=records,
            log_entries=entries,
        )
