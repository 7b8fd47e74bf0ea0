"""`fl-alliance audit report`: the privacy report of evidence that was verified first, as a page or a PDF.

Of one institution's evidence of one job: what it gave in the job. Of more, from whichever bundles and folders of one
alliance: what was given, side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fl_alliance.errors import BadConfig, EvidenceRefused, NotAuthentic
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import peek_document, sign_document
from fl_alliance.parties.audit_inputs import InputAudit, audited
from fl_alliance.parties.auditor import MEMBERS, PAGE, Findings
from fl_alliance.parties.files import read_file, write_atomically
from fl_alliance.privacy.reporting.alliance import alliance_document_of
from fl_alliance.privacy.reporting.alliance_facts import alliance_facts_of
from fl_alliance.privacy.reporting.content import document_of
from fl_alliance.privacy.reporting.document import Document
from fl_alliance.privacy.reporting.empirical import read_empirical
from fl_alliance.privacy.reporting.facts import RefusedPlan, Sources
from fl_alliance.privacy.reporting.figures import Kind, kind_for
from fl_alliance.privacy.reporting.page import page_of
from fl_alliance.privacy.reporting.pdf import pdf_of
from fl_alliance.privacy.reporting.reading import Form
from fl_alliance.privacy.reporting.words import words_of
from fl_alliance.protocol.documents import AllianceMembers, PrintedReport
from fl_alliance.protocol.ids import digest_of

Maker = Callable[[str, Kind | None], Document]
"""Makes the report in a language, with pictures of a kind or none; the same input makes the same document."""


@dataclass(frozen=True)
class Verified:
    """Evidence that holds."""

    found: tuple[Findings, ...]
    """Of each institution and job."""
    pages: Mapping[str, str]
    """Digests of the pages that lie in it, with the institution whose manifest has each."""
    members: AllianceMembers
    """The newest list in it, signed by the root."""

    @property
    def alone(self) -> Verified:
        """The same without what bundles hold beside their jobs: as from folders."""
        found = [replace(one, sources=replace(one.sources, refused=None)) for one in self.found]
        return replace(self, found=tuple(found))

    @property
    def reports(self) -> tuple[str, ...]:
        """Digests of the signed reports."""
        return tuple(sorted({one.sources.report_digest for one in self.found}))


def write_report(
    places: Sequence[Path],
    out: Path,
    *,
    language: str,
    root: str | None,
    say: Callable[[str], None],
    job: str | None = None,
    empirical: Path | None = None,
    key: IdentityKey | None = None,
) -> None:
    """Verify the evidence `places`, then write their report to `out`; `say` is told each step of the verifier.

    `job`: only that one; `empirical`: the result of an audit with canaries, for one institution's report of one job;
    `root`: the expected fingerprint of the alliance's root; `key`: of a member, who signs the report beside it.

    Raises:
        EvidenceRefused: the evidence does not hold; nothing is written.
        BadConfig: `out` is neither .html nor .pdf, a language, job, result or member that is none, or a library is
            missing.
    """
    form = _form(out)
    words_of(language)
    evidence = verified(places, root=root, job=job, say=say)
    make = maker_of(evidence, empirical=empirical, say=say)
    signer = None if key is None else signer_of(key, evidence.members)
    data = printed(make(language, kind_for(form)), form)
    write_atomically(out, data, mode=0o644)
    signature_of(out).unlink(missing_ok=True)  # of a report that was there before
    if key is not None and signer is not None:
        document = PrintedReport(
            alliance=evidence.members.alliance,
            signer=signer,
            key=key.public_text,
            form=form,
            language=language,
            digest=digest_of(data),
            length=len(data),
            reports=evidence.reports,
        )
        write_atomically(signature_of(out), sign_document(key, document), mode=0o644)


def signature_of(printed: Path) -> Path:
    """Return where the signature of a printed report lies, if it has one."""
    return printed.with_name(f"{printed.name}.dsse.json")


def signer_of(key: IdentityKey, members: AllianceMembers) -> str:
    """Return the name of the member whose identity key it is (BadConfig: nobody's)."""
    for member in members.members:
        if member.identity == key.public_text:
            return member.name
    raise BadConfig(f"sign: key {key.keyid} is no member's of alliance {members.alliance}")


def verified(
    places: Sequence[Path], *, root: str | None, job: str | None = None, say: Callable[[str], None]
) -> Verified:
    """Verify bundles and evidence folders, each by itself and against the others, and return what they show of `job`.

    Raises:
        EvidenceRefused: something does not hold; names the first refusal.
        BadConfig: there is nothing at a place, or no such job in any of them.
    """
    with audited(places, root=root, say=say) as audit:
        if not audit.holds:
            raise EvidenceRefused(audit.refusals[0])
        held = [(given, part) for given in audit.inputs for part in given.jobs if job in (None, part.job)]
        parts = [part for _, part in held if part.findings is not None]
        found = tuple(_known(part.findings, given) for given, part in held if part.findings is not None)
        if not found:
            what = "no institution's job" if job is None else f"no institution's job {job}"
            raise BadConfig(f"evidence: {what} is in {_list(places)}")
        pages = [part.files.digest(PAGE) for part in parts]
        lists = [peek_document(part.files.read(MEMBERS), AllianceMembers) for part in parts]  # verified, step 3
        return Verified(
            found,
            dict(zip(pages, (one.institution for one in found), strict=True)),
            max(lists, key=lambda members: members.serial),
        )


def _known(findings: Findings, given: InputAudit) -> Findings:
    """Return what a job's evidence shows, with what the bundle that holds it shows beside."""
    if given.standing is None:
        return findings
    refused = tuple(
        RefusedPlan(findings.institution, one.job, one.error, one.reason) for one in given.standing.refusals
    )
    return replace(findings, sources=replace(findings.sources, refused=refused))


def maker_of(evidence: Verified, *, empirical: Path | None, say: Callable[[str], None]) -> Maker:
    """Return what makes the report of one institution and job, or of all that the evidence is of.

    Raises:
        EvidenceRefused: two institutions' evidence contradicts each other.
        BadConfig: `empirical` can't be read, is no result for this plan, or is given for more than one.
    """
    found = evidence.found
    if len(found) == 1:
        sources = _with_empirical(found[0].sources, empirical)
        return lambda language, pictures: document_of(sources, language=language, pictures=pictures)
    if empirical is not None:
        raise BadConfig(f"empirical: is for one institution's report of one job, the evidence is of {len(found)}")
    try:
        facts = alliance_facts_of([findings.sources for findings in found])
    except NotAuthentic as error:
        raise EvidenceRefused(f"together: {error}") from None
    say(f"together: {len(facts.institutions)} institutions, {len(facts.jobs)} jobs; plans, records and ledgers agree")
    return lambda language, pictures: alliance_document_of(
        facts, root=found[0].root, language=language, pictures=pictures
    )


def _with_empirical(sources: Sources, empirical: Path | None) -> Sources:
    if empirical is None:
        return sources
    return replace(sources, empirical=read_empirical(read_file(empirical, "empirical"), sources.plan))


def _list(places: Sequence[Path]) -> str:
    return ", ".join(map(str, places))


def printed(document: Document, form: Form) -> bytes:
    """Return `document` as a page or a PDF; the same document gives the same bytes."""
    return page_of(document) if form == "html" else pdf_of(document)


def _form(out: Path) -> Form:
    match out.suffix.lower():
        case ".html":
            return "html"
        case ".pdf":
            return "pdf"
    raise BadConfig(f"out: {out} must end with .html or .pdf")
