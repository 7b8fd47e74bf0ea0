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
from fl_alliance.privacy.reporting.page import page_of
from fl_alliance.privacy.reporting.pdf import pdf_of
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
    print_it = _printer(out)
    words_of(language)
    sources = verify_evidence(folder, root=root, say=say).sources
    if empirical is not None:
        result = read_empirical(read_file(empirical, "empirical"), sources.plan)
        sources = replace(sources, empirical=result)
    write_atomically(out, print_it(sources, language), mode=0o644)


def _printer(out: Path) -> Callable[[Sources, str], bytes]:
    match out.suffix.lower():
        case ".html":
            return lambda sources, language: page_of(document_of(sources, language=language, pictures="svg"))
        case ".pdf":
            return lambda sources, language: pdf_of(document_of(sources, language=language, pictures="png"))
    raise BadConfig(f"out: {out} must end with .html or .pdf")
