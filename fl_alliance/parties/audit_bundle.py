"""A bundle as a whole, before its jobs: steps 0 to 3; and what an institution's holds besides them: steps 6 and 12."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fl_alliance.errors import NotAuthentic
from fl_alliance.evidence.bundle import BUNDLE, JOBS, check_bundle
from fl_alliance.evidence.files import EvidenceFiles
from fl_alliance.evidence.keys import AllianceRoot, public_key_of
from fl_alliance.evidence.sign import open_document
from fl_alliance.parties.audit_refusals import check_refusal, refused_folders
from fl_alliance.parties.auditor import LEDGER, MEMBERS, POLICY, ROOT, Say, read_ledger, require_belongs, step
from fl_alliance.parties.refusals import PROPOSAL, REFUSAL, REFUSALS
from fl_alliance.privacy.ledger import Ledger
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.documents import AllianceMembers, EvidenceBundle, InstitutionPolicy
from fl_alliance.protocol.ids import digest_of

_REFUSAL = re.compile(rf"{REFUSALS}/[^/]+/({PROPOSAL}|{REFUSAL})")
_NOTHING = re.compile("(?!)")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What an institution's bundle shows besides its jobs."""

    root: str
    """Fingerprint of the alliance's root key."""
    policy: InstitutionPolicy
    """As it is now."""
    ledger: Ledger
    """Of its data set, to the last charge before the bundle was made."""
    refusals: tuple[m.Refusal, ...]


class BundleAudit:
    """One bundle. Each method is one step and raises EvidenceRefused."""

    def __init__(self, files: EvidenceFiles, say: Say) -> None:
        self._files, self._say = files, say

    # (1) Every file is listed once, unchanged; those of a job by the job's own manifest, in its own step 1.
    def manifest(self) -> EvidenceBundle:
        """Return what the bundle says of itself."""
        bundle = check_bundle(self._files)
        known = (BUNDLE, ROOT, MEMBERS) if bundle.role == "coordinator" else (BUNDLE, ROOT, MEMBERS, POLICY, LEDGER)
        beside = [name for name in self._files.names() if not name.startswith(f"{JOBS}/")]
        require_belongs(beside, known, _REFUSAL if bundle.role == "institution" else _NOTHING)
        jobs = ", ".join(bundle.jobs) or "none"
        self._say(1, f"bundle: {bundle.party}, {bundle.role} of {bundle.alliance}, signed its list; jobs: {jobs}")
        return bundle

    # (2) The root key must be the one whose fingerprint the auditor got by another way.
    def root(self, expected: str | None) -> bytes:
        """Return the alliance's raw root key."""
        with step(2, ROOT):
            key = decode(AllianceRoot, self._files.read(ROOT)).public
            if expected is not None and digest_of(key) != expected:
                raise NotAuthentic(f"fingerprint {digest_of(key)}, expected {expected}")
        compared = "as expected" if expected is not None else "NOT COMPARED: ask the alliance for its fingerprint"
        self._say(2, f"root key {digest_of(key)}: {compared}")
        return key

    # (3) The root signed a list of members in which the bundle's signer is, under its name and in its role.
    def members(self, bundle: EvidenceBundle, root: bytes) -> AllianceMembers:
        """Return the newest list of members that the party was shown."""
        with step(3, MEMBERS):
            members = open_document(self._files.read(MEMBERS), AllianceMembers, public_key=root)
            if bundle.alliance != members.alliance:
                raise NotAuthentic(f"of alliance {members.alliance}, the bundle is of {bundle.alliance}")
            keys = {member.name: member.identity for member in members.members if member.role == bundle.role}
            if bundle.party not in keys:
                raise NotAuthentic(f"{bundle.party} is no {bundle.role} of the alliance")
            right, signer = (digest_of(public_key_of(key)) for key in (keys[bundle.party], bundle.key))
            if right != signer:
                raise NotAuthentic(f"{bundle.party} has key {right}, the bundle is signed with {signer}")
        self._say(3, f"members: number {members.serial}, {len(members.members)} of them, {bundle.party} with this key")
        return members

    def standing(self, bundle: EvidenceBundle, root: bytes) -> Standing:
        """Return what the bundle of an institution holds besides its jobs."""
        policy, ledger = self._ledger(bundle)
        refusals = self._refusals(bundle, root)
        return Standing(root=digest_of(root), policy=policy, ledger=ledger, refusals=refusals)

    # (6) Everything that the data set ever gave, also in jobs that failed or are not in this bundle.
    def _ledger(self, bundle: EvidenceBundle) -> tuple[InstitutionPolicy, Ledger]:
        """Return policy and ledger as they were when the bundle was made."""
        key = public_key_of(bundle.key)
        with step(5, POLICY):
            policy = open_document(self._files.read(POLICY), InstitutionPolicy, public_key=key)
            if policy.institution != bundle.party:
                raise NotAuthentic(f"of {policy.institution}, expected {bundle.party}")
        with step(6, LEDGER):
            ledger = read_ledger(self._files.read(LEDGER), policy, key)
        jobs = len({(entry.alliance, entry.job) for entry in ledger.entries})
        self._say(6, f"ledger of {policy.dataset} to this day: {len(ledger.entries)} entries of {jobs} jobs")
        return policy, ledger

    # (12) What the institution would not do, with what it was asked.
    def _refusals(self, bundle: EvidenceBundle, root: bytes) -> tuple[m.Refusal, ...]:
        """Return every refusal in the bundle, by job."""
        found = []
        for folder in refused_folders(self._files):
            with step(12, folder):
                refusal = check_refusal(self._files, folder, bundle, root)
            found.append(refusal)
            self._say(12, f"refused: job {refusal.job}, {refusal.error}: {refusal.reason}")
        if not found:
            self._say(12, "refused: nothing that the institution kept")
        return tuple(found)
