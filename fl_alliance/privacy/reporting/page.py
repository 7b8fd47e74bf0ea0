"""A document as one HTML file: no script, no network, readable in black and white, on paper too."""

from __future__ import annotations

import functools
import re

import jinja2
from markupsafe import Markup, escape

from fl_alliance.privacy.reporting.document import Block, Bullets, Document, Figure, Paragraph, Table


def page_of(document: Document) -> bytes:
    """Return `document`, whose pictures are SVG, as a page in UTF-8; what others wrote is escaped, and visible."""
    numbers = iter(range(1, 1000))
    return _environment().get_template("report.html").render(
        document=document, printed=lambda block: _printed(block, numbers)
    ).encode()  # fmt: skip


def visible(value: object) -> object:
    """Return text with letters that can't be seen, or that turn others round, written as U+202E."""
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return "".join(sign if sign.isprintable() or sign == "\n" else f"U+{ord(sign):04X}" for sign in value)
    return value


def _printed(block: Block, numbers: object) -> Markup:
    macros = _environment().get_template("blocks.html").module
    match block:
        case Paragraph():
            text = macros.paragraph(block)  # type: ignore[attr-defined]
        case Bullets():
            text = macros.bullets(block)  # type: ignore[attr-defined]
        case Table():
            text = macros.table(block)  # type: ignore[attr-defined]
        case Figure():
            text = macros.figure(block, _inline(block, next(numbers)))  # type: ignore[attr-defined, call-overload]
    return Markup(text)  # noqa: S704  # a macro of an escaping template


def _inline(figure: Figure, number: int) -> Markup:
    """Return the picture as an element of the page: ids are made unique, and no address is left in it."""
    svg = figure.data.decode()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' (?:xmlns(?::xlink)?)="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>f{number}-", svg)
    label = f'<svg role="img" aria-label="{escape(figure.alt)}"'
    return Markup(svg.replace("<svg", label, 1))  # noqa: S704  # drawn by us; texts in it are paths


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("fl_alliance.privacy.reporting"),
        autoescape=True,
        finalize=visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
