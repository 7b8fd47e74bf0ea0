"""Step 12 of the audit: plans that the institution refused, each with the coordinator's signed question."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from fl_alliance.errors import NotAuthentic
from fl_alliance.evidence.files import EvidenceFiles
from fl_alliance.evidence.keys import public_key_of
from fl_alliance.evidence.sign import open_document
from fl_alliance.parties.audit_rules import require_same
from fl_alliance.parties.mail import Address, read_answer, read_request
from fl_alliance.parties.refusals import PROPOSAL, REFUSAL, REFUSALS, name_of
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import AllianceMembers, EvidenceBundle
from fl_alliance.protocol.envelope import Envelope
from fl_alliance.protocol.ids import digest_of


def refused_folders(files: EvidenceFiles) -> Sequence[str]:
    """Return the folders of a bundle that hold a refusal, sorted."""
    return sorted({"/".join(name.split("/")[:2]) for name in files.names() if name.startswith(f"{REFUSALS}/")})


def check_refusal(files: EvidenceFiles, folder: str, bundle: EvidenceBundle, root: bytes) -> m.Refusal:
    """Return the refusal in `folder`, after both messages were verified.

    Args:
        files: of the bundle.
        folder: below refusals/.
        bundle: what the bundle says of itself; its signer is the institution.
        root: the alliance's raw root key.

    Raises:
        MalformedMessage, NotAuthentic: it is not this institution's refusal of that proposal.
        StoreFailed: one of the two files is missing.
    """
    proposal, answer = files.read(f"{folder}/{PROPOSAL}"), files.read(f"{folder}/{REFUSAL}")
    request = decode(m.REQUEST, decode(Envelope, proposal).body)
    if not isinstance(request, m.Proposal):
        raise NotAuthentic(f"{PROPOSAL} is a {request.kind}")
    members = open_document(base64.b64decode(request.members), AllianceMembers, public_key=root)
    keys = {member.name: public_key_of(member.identity) for member in members.members}
    address = Address(bundle.party, members.coordinator.name, keys | {bundle.party: public_key_of(bundle.key)})
    read_request(address, proposal)
    sender, refusal = read_answer(address, answer)
    if not isinstance(refusal, m.Refusal):
        raise NotAuthentic(f"{REFUSAL} is a {refusal.kind}")
    require_same(
        {
            "folder": (folder, f"{REFUSALS}/{name_of(proposal)}"),
            "sender": (sender, bundle.party),
            "alliance": (refusal.alliance, bundle.alliance),
            "request_digest": (refusal.request_digest, digest_of(encode(request))),
        }
    )
    return refusal
