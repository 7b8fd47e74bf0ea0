"""Who must approve a plan: what counts and what does not, at the institution and before an auditor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fl_alliance.errors import EvidenceRefused, PolicyRefused
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties.approvals import approvals_in, sign_approval
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.protocol.documents import Approver, InstitutionPolicy, PlanApproval
from fl_alliance.protocol.ids import digest_of
from tests.evidence.alliance import key_of, plan_of, policy_of
from tests.evidence.folder import ME, Folder

PEOPLE = ("ann", "ben", "cem")
PLAN = sign_document(key_of("office"), plan_of())
OTHER = sign_document(key_of("office"), plan_of(job="job-2"))


def policy_for(needed: int, people: tuple[str, ...] = PEOPLE) -> InstitutionPolicy:
    approvers = tuple(Approver(name=name, key=key_of(name).keyid) for name in people)
    return policy_of(approvers=approvers, approvals_needed=needed)


def approve(folder: Path, person: str, plan: bytes = PLAN) -> bytes:
    return sign_approval(folder, plan, policy_for(1), person=person, key=key_of(person)).read_bytes()


def approval_of(person: str, **changes: str) -> PlanApproval:
    """What an honest approval says, with other words in it."""
    fields = {"institution": ME, "person": person, "key": key_of(person).public_text, "plan_digest": digest_of(PLAN)}
    return PlanApproval(**{**fields, **changes}, alliance="clinics", job="job-1", time=0)


BAD: dict[str, Callable[[Path], bytes]] = {
    "of another plan": lambda folder: approve(folder / "elsewhere", "ben", OTHER),
    "of a person whom the policy does not name": lambda _: sign_document(key_of("eve"), approval_of("eve")),
    "in a person's name with another key": lambda _: sign_document(
        key_of("eve"), approval_of("ben", key=key_of("eve").public_text)
    ),
    "with a person's key named and another one used": lambda _: sign_document(key_of("eve"), approval_of("ben")),
    "at another institution": lambda _: sign_document(key_of("ben"), approval_of("ben", institution="lima")),
    "of the same person a second time": lambda _: sign_document(key_of("ann"), approval_of("ann")),
    "another document": lambda _: PLAN,
    "no envelope": lambda _: b"{}",
}


@pytest.mark.parametrize("name", BAD)
def test_an_approval_does_not_count(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "approvals"
    approve(folder, "ann")
    (folder / "other.json").write_bytes(BAD[name](tmp_path))
    with pytest.raises(PolicyRefused, match=rf"approvals_needed 2: plan {digest_of(PLAN)} has 1, not yet of ben, cem$"):
        approvals_in(folder, digest_of(PLAN), policy_for(2))


def test_as_many_as_the_policy_asks_for_are_enough_and_their_bytes_are_given(tmp_path: Path) -> None:
    signed = {person: approve(tmp_path, person) for person in ("ann", "cem")}
    assert approvals_in(tmp_path, digest_of(PLAN), policy_for(2)) == signed
    assert approvals_in(tmp_path / "nowhere", digest_of(PLAN), policy_for(0)) == {}
    with pytest.raises(PolicyRefused, match=r"has 2, not yet of ben$"):
        approvals_in(tmp_path, digest_of(PLAN), policy_for(3))


def test_who_is_not_named_can_not_sign(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match=f"approvers: ann with key {key_of('eve').keyid} is not among them"):
        sign_approval(tmp_path, PLAN, policy_for(1), person="ann", key=key_of("eve"))
    assert list(tmp_path.iterdir()) == []


# ---- evidence


def evidence_with(folder: Path, needed: int, **files: bytes) -> Path:
    evidence = Folder(folder)
    evidence.policy_bytes = sign_document(key_of(ME), policy_for(needed))
    for person, data in files.items():
        evidence.write(f"approvals/{person}.dsse.json", data)
    return evidence.build()


def test_an_auditor_sees_who_approved(tmp_path: Path) -> None:
    said: list[str] = []
    folder = evidence_with(tmp_path / "e", 2, **{person: approve(tmp_path, person) for person in ("ann", "ben")})
    verify_evidence(folder, root=None, say=said.append)
    assert "(5) approved by ann, ben; needed 2" in said


@pytest.mark.parametrize(
    ("needed", "files", "refusal"),
    [
        (2, ("ann",), "approvals_needed 2: plan .* has 1, not yet of ben, cem"),
        (0, ("ann", "other plan"), "files is .*, must be"),
        (0, ("ann", "forged"), "the signature does not verify|signed with key"),
    ],
    ids=["too few", "one that does not count", "a forged one"],
)
def test_evidence_without_the_approvals_that_the_policy_asks_for_is_refused(
    tmp_path: Path, needed: int, files: tuple[str, ...], refusal: str
) -> None:
    made = {
        "ann": lambda: approve(tmp_path, "ann"),
        "other plan": lambda: approve(tmp_path, "ben", OTHER),
        "forged": lambda: sign_document(key_of("eve"), approval_of("ben")),
    }
    folder = evidence_with(tmp_path / "e", needed, **{name.partition(" ")[0]: made[name]() for name in files})
    with pytest.raises(EvidenceRefused, match=f"^step 5, approvals: {refusal}"):
        verify_evidence(folder, root=None, say=lambda _: None)
