"""`fl-alliance audit printed`: whether a printed report is what the evidence gives, to the byte; else, where it is not.

The evidence is verified first (parties/audit_inputs.py). Then its report is printed anew, in the file's own language,
and must be the file. Where a signature lies beside it, that must be a member's, of this file and these reports.

A file of which only some bytes differ is never accepted, since a page or a PDF can show what its text does not say. But
the refusal names the first word or number that differs; if none does, that pictures or layout do, and which programs
printed the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final, NoReturn

from fl_alliance.errors import AllianceError, BadConfig, EvidenceRefused, MalformedMessage, NotAuthentic
from fl_alliance.evidence.keys import public_key_of
from fl_alliance.evidence.sign import open_document, peek_document
from fl_alliance.parties.audit_report import Maker, Verified, maker_of, printed, signature_of, verified
from fl_alliance.parties.audit_rules import require_same
from fl_alliance.privacy.reporting.figures import can_draw, kind_for, printed_by
from fl_alliance.privacy.reporting.reading import form_of, language_of, words_in
from fl_alliance.privacy.reporting.words import languages
from fl_alliance.protocol.documents import PrintedReport
from fl_alliance.protocol.ids import digest_of

MAX_PRINTED: Final = 64 << 20
"""Longest printed report that is read."""
AROUND: Final = 4
"""Words that are shown on each side of one that differs."""


def check_printed(
    file: Path,
    places: Sequence[Path],
    *,
    root: str | None,
    say: Callable[[str], None],
    job: str | None = None,
    empirical: Path | None = None,
) -> None:
    """Verify the evidence `places`, and that the printed report `file` is made of it; `say` is told each step.

    `job`: the report is of that one only; `empirical`: the result of an audit with canaries that it was printed with.

    Raises:
        EvidenceRefused: the evidence does not hold, or the file is not its report: names the first difference.
        BadConfig: the file, the job or the result is not there, or a library is missing.
    """
    data = _read(file)
    evidence = verified(places, root=root, job=job, say=say)
    makers = [maker_of(evidence, empirical=empirical, say=say)]
    if evidence.alone != evidence:  # an institution prints its job's report before there is a bundle
        makers.append(maker_of(evidence.alone, empirical=empirical, say=lambda _: None))
    with _named(file):
        _compare(data, makers)
    signer = evidence.pages.get(digest_of(data))
    if signature_of(file).exists():
        with _named(signature_of(file)):
            signer = _signer(_read(signature_of(file)), data, evidence)
    by = "not signed itself" if signer is None else f"signed by {signer}"
    say(f"printed: {file.name} is the report of this evidence, to the byte; {by}")


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """Name the file in whatever is refused inside."""
    try:
        yield
    except BadConfig:
        raise
    except AllianceError as error:
        raise EvidenceRefused(f"printed, {file.name}: {error}") from None


def _signer(signature: bytes, data: bytes, evidence: Verified) -> str:
    """Return which member of the alliance signed the report `data`."""
    name = peek_document(signature, PrintedReport).signer
    keys = {member.name: public_key_of(member.identity) for member in evidence.members.members}
    if name not in keys:
        raise NotAuthentic(f"{name} is no member of alliance {evidence.members.alliance}")
    signed = open_document(signature, PrintedReport, public_key=keys[name])
    require_same(
        {
            "alliance": (signed.alliance, evidence.members.alliance),
            "key": (public_key_of(signed.key), keys[name]),
            "digest": (signed.digest, digest_of(data)),
            "length": (signed.length, len(data)),
            "form": (signed.form, form_of(data)),
            "language": (signed.language, language_of(data)),
            "reports": (signed.reports, evidence.reports),
        }
    )
    return name


def _compare(data: bytes, makers: Sequence[Maker]) -> None:
    """Print the report again as `data` says that it was printed; one of `makers` must make it."""
    form, language = form_of(data), language_of(data)
    if language not in languages():
        raise MalformedMessage(f"is in {language}, must be in one of {', '.join(languages())}")
    pictures = kind_for(form) if form == "pdf" or b"<svg" in data else None
    if pictures is not None and not can_draw():
        raise BadConfig("file: it has pictures; to draw them again install fl-alliance[report]")
    right = [printed(make(language, pictures), form) for make in makers]
    if data not in right:
        _refuse(data, right[0], printed_by(pictures))


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_PRINTED + 1)
    except OSError as error:
        raise BadConfig(f"file: {file} can't be read ({error.strerror})") from None
    if len(data) > MAX_PRINTED:
        raise EvidenceRefused(f"printed, {file.name}: is longer than {MAX_PRINTED} bytes, no report is")
    return data


def _refuse(said: bytes, right: bytes, programs: str) -> NoReturn:
    """Name the first difference of two files that are not the same."""
    words, expected = words_in(said), words_in(right)
    place = _first_difference(words, expected, programs.split())
    if place is not None:
        raise EvidenceRefused(
            f"says \u201c{_near(words, place)}\u201d, the evidence gives \u201c{_near(expected, place)}\u201d"
        )
    why = "they were changed" if words == expected else f"it was printed by others than {programs}"
    raise NotAuthentic(f"has every word and number of the evidence, but other pictures, fonts or layout: {why}")


def _first_difference(words: Sequence[str], expected: Sequence[str], versions: Sequence[str]) -> int | None:
    """Return the place of the first word that differs, and not only as the name or version of a program."""
    pairs = enumerate(zip_longest(words, expected))
    return next((place for place, (word, right) in pairs if word != right and right not in versions), None)


def _near(words: Sequence[str], place: int) -> str:
    return " ".join(words[max(0, place - AROUND) : place + AROUND + 1])[:200]
