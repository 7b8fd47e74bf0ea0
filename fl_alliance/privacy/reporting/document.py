"""A printed document: sections of paragraphs, lists, tables and figures. Knows neither HTML nor PDF."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Paragraph:
    """Running text. `note`: printed smaller; `lead`: framed, what must be read if nothing else is."""

    text: str
    style: str = "plain"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table with a caption. The first column heads its row."""

    caption: str
    head: tuple[str, ...]
    """Names of the columns; all empty: the table is a list of names and values."""
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    """Columns that are set flush right."""
    code: frozenset[int] = frozenset()
    """Columns of digests and field names."""
    widths: tuple[int, ...] = ()
    """Of the columns, relative to one another; empty: all alike."""


@dataclass(frozen=True)
class Figure:
    """A picture and what it shows in words."""

    data: bytes
    """As SVG or PNG, as the printer needs it."""
    caption: str
    alt: str


Block = Paragraph | Bullets | Table | Figure


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """What is printed."""

    language: str
    title: str
    subject: str
    """Whose report it is, in one line."""
    time: int
    """Unix seconds: the only time that a printer may print."""
    when: str
    """The same, for people."""
    source: str
    """The signed documents that it was made from, in one line."""
    page: str
    """How a page's number is said: "Page {number} of {count}"."""
    sections: tuple[Section, ...] = field(default=())
