"""A document as PDF, by fpdf2: no browser, no network, no program beside Python. In the extra `report`.

The same document gives the same bytes: the only time in the file is the document's own.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fl_alliance.errors import BadConfig
from fl_alliance.privacy.reporting.document import Block, Bullets, Document, Figure, Paragraph, Section, Table

if TYPE_CHECKING:
    from fpdf import FPDF

MARGIN: Final = 18.0
"""Of each side, in mm."""
TEXT: Final = 9.5
"""Size of running text, in points."""
LINE: Final = 4.8
"""Height of its lines, in mm."""
ROW: Final = 6.0
"""Height of a table's row of one line, in mm."""
TOGETHER: Final = 10
"""A table of fewer rows, with its caption and head, is not torn by the end of a page; of a longer one so many begin."""
SERIF: Final = "serif"
MONO: Final = "mono"
FONTS: Final = {
    (SERIF, ""): "DejaVuSerif.ttf",
    (SERIF, "B"): "DejaVuSerif-Bold.ttf",
    (SERIF, "I"): "DejaVuSerif-Italic.ttf",
    (MONO, ""): "DejaVuSansMono.ttf",
    (MONO, "B"): "DejaVuSansMono-Bold.ttf",
}
"""DejaVu comes with matplotlib. It has Latin, Greek and Cyrillic; a letter that it lacks, or that
can't be seen, is printed as U+XXXX."""


def pdf_of(document: Document) -> bytes:
    """Return `document`, whose pictures are PNG, as a PDF of A4 pages.

    Raises:
        BadConfig: fpdf2 or matplotlib is not installed.
    """
    try:
        import fpdf  # noqa: F401
        from matplotlib import get_data_path
    except ModuleNotFoundError as error:
        raise BadConfig(f"pdf: {error.name} is not installed, install fl-alliance[report]") from None
    return _Print(document, Path(get_data_path()) / "fonts" / "ttf").bytes()


class _Print:
    """One document on its way to paper."""

    def __init__(self, document: Document, fonts: Path) -> None:
        self._document, self._letters = document, _letters(fonts / FONTS[SERIF, ""])
        self._pdf = _paper(document, lambda text: self._printable(text))
        for (family, style), file in FONTS.items():
            self._pdf.add_font(family, style, fonts / file)

    def bytes(self) -> bytes:
        pdf, document = self._pdf, self._document
        pdf.add_page()
        self._text(document.title, size=19, style="B", line=9)
        self._text(document.subject, size=10.5, line=5.5)
        self._text(document.when, size=8.5, line=4.5)
        self._text(document.source, size=7, line=4.5)
        for number, section in enumerate(document.sections, start=1):
            self._section(number, section)
        return bytes(pdf.output())

    def _section(self, number: int, section: Section) -> None:
        pdf = self._pdf
        pdf.ln(4)
        if pdf.will_page_break(30):
            pdf.add_page()
        title = f"{number}. {section.title}"
        pdf.start_section(self._printable(title))
        self._text(title, size=12, style="B", line=6.5)
        pdf.set_line_width(0.3)
        pdf.line(pdf.l_margin, pdf.get_y(), pdf.w - pdf.r_margin, pdf.get_y())
        pdf.ln(2)
        for block in section.blocks:
            self._block(block)

    def _block(self, block: Block) -> None:
        match block:
            case Paragraph():
                self._paragraph(block)
            case Bullets():
                self._bullets(block)
            case Table():
                self._table(block)
            case Figure():
                self._figure(block)

    def _paragraph(self, block: Paragraph) -> None:
        if block.style == "lead":
            self._pdf.set_line_width(0.6)
            self._text(block.text, size=TEXT + 0.5, line=LINE + 0.3, framed=True)
        elif block.style == "note":
            self._text(block.text, size=TEXT - 1.3, line=LINE - 0.7)
        else:
            self._text(block.text)
        self._pdf.ln(1.8)

    def _bullets(self, block: Bullets) -> None:
        pdf, indent = self._pdf, 4.5
        for item in block.items:
            pdf.set_font(SERIF, "", TEXT)
            if pdf.will_page_break(2 * LINE):
                pdf.add_page()
            pdf.cell(indent, LINE, "•")
            pdf.set_left_margin(MARGIN + indent)
            self._text(item)
            pdf.set_left_margin(MARGIN)
            pdf.set_x(MARGIN)
            pdf.ln(0.8)
        pdf.ln(1)

    def _table(self, block: Table) -> None:
        from fpdf.enums import TableBordersLayout
        from fpdf.fonts import FontFace

        pdf, named = self._pdf, any(block.head)
        if pdf.will_page_break(ROW * min(len(block.rows) + 2, TOGETHER)):
            pdf.add_page()
        self._text(block.caption, size=TEXT - 0.8, style="I", line=LINE)
        pdf.set_font(SERIF, "", TEXT - 1.3)
        pdf.set_line_width(0.2)
        bold, mono = FontFace(emphasis="BOLD"), FontFace(family=MONO, size_pt=TEXT - 2.6)
        with pdf.table(
            borders_layout=TableBordersLayout.HORIZONTAL_LINES,
            col_widths=block.widths or None,
            first_row_as_headings=named,
            headings_style=bold,
            line_height=LINE - 0.9,
            padding=(0.7, 1.6),
            text_align=tuple("RIGHT" if n in block.numbers else "LEFT" for n in range(len(block.head))),
        ) as table:
            for row in (block.head, *block.rows) if named else block.rows:
                line = table.row()
                for column, text in enumerate(row):
                    heads = row is not block.head and column == 0 and column not in block.numbers | block.code
                    coded = row is not block.head and column in block.code
                    line.cell(self._printable(text), style=mono if coded else bold if heads else None)
        pdf.ln(2)

    def _figure(self, block: Figure) -> None:
        pdf = self._pdf
        picture = io.BytesIO(block.data)
        height = pdf.epw * _height_over_width(block.data)
        if pdf.will_page_break(height + 8):
            pdf.add_page()
        pdf.image(picture, w=pdf.epw, alt_text=self._printable(block.alt))
        self._text(block.caption, size=TEXT - 1.3, line=LINE - 0.7, style="I")
        pdf.ln(2)

    def _text(
        self,
        text: str,
        *,
        size: float = TEXT,
        style: str = "",
        line: float = LINE,
        framed: bool = False,
    ) -> None:
        from fpdf.util import Padding

        self._pdf.set_font(SERIF, style, size)
        self._pdf.multi_cell(
            0,
            line,
            self._printable(text),
            border=1 if framed else 0,
            padding=Padding(2.5, 3, 2.5, 3) if framed else Padding(),
            align="L",
            new_x="LMARGIN",
            new_y="NEXT",
        )

    def _printable(self, text: str) -> str:
        known = self._letters
        return "".join(x if x.isprintable() and ord(x) in known else f"U+{ord(x):04X}" for x in text)


@lru_cache(maxsize=4)
def _letters(font: Path) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with TTFont(font, lazy=True) as opened:
        return frozenset(opened.getBestCmap())


def _height_over_width(png: bytes) -> float:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        return float(picture.height / picture.width)


def _paper(document: Document, printable: Any) -> FPDF:
    """Return an empty PDF with the document's title, language and time, and a line at the foot of each page."""
    from fpdf import FPDF

    class Paper(FPDF):
        def footer(self) -> None:
            self.set_y(-13)
            self.set_font(SERIF, "", 7.5)
            self.cell(0, 4, printable(document.subject)[:110], align="L", new_x="LMARGIN")
            number = document.page.format(number=self.page_no(), count="{nb}")
            self.cell(0, 4, number, align="R")

    pdf = Paper(format="A4")
    pdf.set_margins(MARGIN, 16, MARGIN)
    pdf.set_auto_page_break(True, 18)
    pdf.set_title(f"{document.title}: {document.subject}")
    pdf.set_lang(document.language)
    pdf.set_creator("fl-alliance")
    pdf.set_producer("fl-alliance")
    pdf.set_creation_date(datetime.fromtimestamp(document.time, UTC))
    return pdf
