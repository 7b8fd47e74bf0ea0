"""What a page is made of, beside the report's paragraphs, lists and tables. Text of these may hold links (`link`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from fl_alliance.privacy.reporting.document import Block, Bullets, Paragraph, Table


@dataclass(frozen=True)
class Picture:
    """An SVG that was drawn here, and what it shows in words."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Verdict:
    """One thing that was checked; the page says in words, not only in colour, whether it holds."""

    holds: bool
    name: str
    text: str
    file: str = ""
    refusal: str = "DOES NOT HOLD: "
    """What is said before the name of one that does not."""


@dataclass(frozen=True)
class Verdicts:
    """Several of them, in order."""

    items: tuple[Verdict, ...]


@dataclass(frozen=True)
class Code:
    """Exact text, line by line as wide as the page."""

    caption: str
    text: str


@dataclass(frozen=True)
class Input:
    """One field of a form."""

    name: str
    label: str
    value: str
    hint: str = ""
    choices: tuple[str, ...] = ()
    """One of these, where there are any."""


@dataclass(frozen=True)
class Form:
    """Asked by GET: the address says what was asked."""

    action: str
    inputs: tuple[Input, ...]
    button: str


@dataclass(frozen=True)
class Beside:
    """Two blocks side by side, where there is room."""

    left: PageBlock
    right: PageBlock


PageBlock = Paragraph | Bullets | Table | Picture | Verdicts | Code | Form | Beside


@dataclass(frozen=True)
class Part:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[PageBlock]
    anchor: str = ""
    """How an address leads here; empty: not at all."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page."""

    title: str
    lead: str = ""
    """Below the title, in one line."""
    trail: tuple[tuple[str, str], ...] = ()
    """Where the page is: names and addresses from the overview down."""
    parts: Sequence[Part] = field(default=())
    status: int = 200


def link(address: str, text: str) -> Markup:
    """Return a link to a page of ours."""
    return Markup('<a href="{}">{}</a>').format(address, text)


def links(items: Sequence[tuple[str, str]]) -> Markup:
    """Return several links, with commas between them."""
    return Markup(", ").join(link(address, text) for address, text in items)


__all__ = [
    "Beside", "Block", "Bullets", "Code", "Form", "Input", "Page", "PageBlock", "Paragraph", "Part", "Picture", "Table",
    "Verdict", "Verdicts", "link", "links",
]  # fmt: skip
