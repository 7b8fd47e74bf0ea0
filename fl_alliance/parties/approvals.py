"""Approvals of plans: a person of the institution signs a plan's digest with a key of its own, before the job."""

from __future__ import annotations

import time
from pathlib import Path

import structlog

from fl_alliance.errors import AllianceError, PolicyRefused
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import open_approval, peek_document, sign_document
from fl_alliance.parties.files import write_atomically
from fl_alliance.privacy.ledger import approved_by, check_approvals
from fl_alliance.protocol.documents import InstitutionPolicy, PlanApproval
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import TrainingPlan

log = structlog.get_logger()


def sign_approval(folder: Path, plan: bytes, policy: InstitutionPolicy, *, person: str, key: IdentityKey) -> Path:
    """Sign that `person` approves the plan in the envelope `plan`; return the file in `folder`.

    Whether the coordinator signed the plan is checked when it proposes these very bytes.

    Raises:
        PolicyRefused: the policy does not know the person with this key.
        MalformedMessage, NotAuthentic: `plan` is no plan in an envelope.
    """
    document = peek_document(plan, TrainingPlan)
    approval = PlanApproval(
        institution=policy.institution,
        person=person,
        key=key.public_text,
        alliance=document.alliance,
        job=document.job,
        plan_digest=digest_of(plan),
        time=int(time.time()),
    )
    if not approved_by(digest_of(plan), policy, [(key.keyid, approval)]):
        raise PolicyRefused(f"approvers: {person} with key {key.keyid} is not among them")
    path = folder / f"{document.job}.{person}.dsse.json"
    write_atomically(path, sign_document(key, approval))
    return path


def approvals_in(folder: Path, plan_digest: str, policy: InstitutionPolicy) -> dict[str, bytes]:
    """Return the envelopes in `folder` that count for the plan, as `approvals_found`.

    Raises:
        ApprovalsMissing: there are too few.
    """
    found = approvals_found(folder, plan_digest, policy)
    check_approvals(plan_digest, policy, found)
    return found


def approvals_found(folder: Path, plan_digest: str, policy: InstitutionPolicy) -> dict[str, bytes]:
    """Return the envelopes in `folder` that count for the plan, by person; a file that is none is logged, left out."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.glob("*.json")):
        data = path.read_bytes()
        try:
            approved = approved_by(plan_digest, policy, [open_approval(data)])
        except AllianceError as error:
            log.warning("approval_ignored", file=path.name, error=error)
            continue
        found |= dict.fromkeys(approved, data)
    return found
