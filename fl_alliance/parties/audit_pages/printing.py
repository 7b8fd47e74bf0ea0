"""A page as HTML: the look of the privacy report, no script, every text from evidence escaped and made visible."""

from __future__ import annotations

import functools

import jinja2
from markupsafe import Markup

from fl_alliance.parties.audit_pages.blocks import (
    Beside,
    Bullets,
    Code,
    Form,
    Page,
    PageBlock,
    Paragraph,
    Picture,
    Table,
    Verdicts,
)
from fl_alliance.privacy.reporting.page import visible


def printed(page: Page, *, alarm: str = "") -> bytes:
    """Return a page in UTF-8; `alarm` stands on top of it, where there is one."""
    return _environment().get_template("page.html").render(page=page, alarm=alarm, printed=_printed).encode()


def style() -> bytes:
    """Return the one style sheet: the report's, and what pages need beside."""
    return "\n".join(_environment().get_template(name).render() for name in ("style.css", "pages.css")).encode()


def _printed(block: PageBlock) -> Markup:
    report, own = (_environment().get_template(name).module for name in ("blocks.html", "page_blocks.html"))
    match block:
        case Paragraph() | Bullets() | Table():
            text = getattr(report, type(block).__name__.lower())(block)
        case Beside():
            text = own.beside(_printed(block.left), _printed(block.right))  # type: ignore[attr-defined]
        case Picture() | Verdicts() | Code() | Form():
            text = getattr(own, type(block).__name__.lower())(block)
    return Markup(text)  # noqa: S704  # a macro of an escaping template


@functools.cache
def _environment() -> jinja2.Environment:
    rooms = ("fl_alliance.parties.audit_pages", "fl_alliance.privacy.reporting")
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(room) for room in rooms]),
        autoescape=True,
        finalize=visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
