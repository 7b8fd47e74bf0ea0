"""`fl-alliance audit report`: the privacy report of an evidence folder that was verified first, as a page or a PDF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fl_alliance.errors import BadConfig
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.parties.files import read_file, write_atomically
from fl_alliance.privacy.reporting.content import document_of
from fl_alliance.privacy.reporting.empirical import read_empirical
from fl_alliance.privacy.reporting.facts import Sources
from fl_alliance.privacy.reporting.figures import Kind, kind_for
from fl_alliance.privacy.reporting.page import page_of
from fl_alliance.privacy.reporting.pdf import pdf_of
from fl_alliance.privacy.reporting.reading import Form
from fl_alliance.privacy.reporting.words import words_of


def write_report(
    folder: Path, out: Path, *, language: str, root: str | None, empirical: Path | None, say: Callable[[str], None]
) -> None:
    """Verify the evidence `folder`, then write its report to `out`; `say` is told each step of the verifier.

    `empirical` is the result of an audit with canaries; `root` the expected fingerprint of the alliance's root.

    Raises:
        EvidenceRefused: the folder does not hold; nothing is written.
        BadConfig: `out` is neither .html nor .pdf, a language or result that is none, or a library is missing.
    """
    form = _form(out)
    words_of(language)
    sources = sources_of(folder, root=root, empirical=empirical, say=say)
    write_atomically(out, print_report(sources, form, language, kind_for(form)), mode=0o644)


def sources_of(folder: Path, *, root: str | None, empirical: Path | None, say: Callable[[str], None]) -> Sources:
    """Verify the evidence `folder`, and return what its report is made of.

    Raises:
        EvidenceRefused: the folder does not hold.
        BadConfig: `empirical` can't be read, or is no result for this plan.
    """
    sources = verify_evidence(folder, root=root, say=say).sources
    if empirical is None:
        return sources
    return replace(sources, empirical=read_empirical(read_file(empirical, "empirical"), sources.plan))


def print_report(sources: Sources, form: Form, language: str, pictures: Kind | None) -> bytes:
    """Return the report on `sources` as a page or a PDF; the same input gives the same bytes."""
    document = document_of(sources, language=language, pictures=pictures)
    return page_of(document) if form == "html" else pdf_of(document)


def _form(out: Path) -> Form:
    match out.suffix.lower():
        case ".html":
            return "html"
        case ".pdf":
            return "pdf"
    raise BadConfig(f"out: {out} must end with .html or .pdf")
