"""The words of a printed report, read back from a page or a PDF. What they must be is for the caller to know."""

from __future__ import annotations

import io
import logging
import re
from html.parser import HTMLParser
from typing import Final, Literal

from fl_alliance.errors import BadConfig, MalformedMessage

SILENT: Final = frozenset({"style", "svg"})
"""Elements whose text nobody reads: the letters of our pictures are paths."""

Form = Literal["html", "pdf"]


def form_of(printed: bytes) -> Form:
    """Return whether `printed` begins as a page or as a PDF of ours begins.

    Raises:
        MalformedMessage: as neither.
    """
    if printed.startswith(b"%PDF-"):
        return "pdf"
    if printed.startswith(b"<!DOCTYPE html>"):
        return "html"
    raise MalformedMessage("is neither a page nor a PDF of this program")


def language_of(printed: bytes) -> str:
    """Return the language that `printed` says it is in, unchecked.

    Raises:
        MalformedMessage: it says none.
    """
    pattern = rb"^/Lang \(([a-zA-Z-]{2,20})\)$" if form_of(printed) == "pdf" else rb'^<html lang="([a-zA-Z-]{2,20})">$'
    found = re.search(pattern, printed, re.MULTILINE)
    if found is None:
        raise MalformedMessage("does not say in which language it is, as every report of this program does")
    return found[1].decode()


def words_in(printed: bytes) -> list[str]:
    """Return every word and number that `printed` shows, in order, without the pictures.

    Raises:
        MalformedMessage: it can't be read to its end.
        BadConfig: it is a PDF, and pypdf is not installed.
    """
    if form_of(printed) == "pdf":
        return _text_of_pdf(printed).split()
    try:
        page = _Page(printed.decode())
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"is not UTF-8 at byte {error.start}") from None
    return " ".join(page.text).split()


class _Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self._silent = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self._silent += tag in SILENT

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in SILENT

    def handle_data(self, data: str) -> None:
        if self._silent <= 0:
            self.text.append(data)


def _text_of_pdf(printed: bytes) -> str:
    try:
        from pypdf import PdfReader
    except ModuleNotFoundError as error:
        raise BadConfig(f"pdf: {error.name} is not installed, install fl-alliance[report]") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL + 1)  # what it finds odd is ours to tell
    try:
        return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(printed)).pages)
    except Exception as error:  # whatever a library raises on a stranger's file
        raise MalformedMessage(f"can't be read as a PDF: {type(error).__name__}") from None
