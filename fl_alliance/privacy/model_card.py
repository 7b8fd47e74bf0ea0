"""The model card of a released adapter (Hugging Face's form): a function of the signed provenance, and of nothing else.

An auditor renders it again and compares bytes. So the text of version 1 never changes: other words are another version
of `ModelProvenance`, and the golden card in the tests holds this.
"""

from __future__ import annotations

import functools
import re

import jinja2

from fl_alliance.protocol.documents import ModelProvenance, model_digest

_MARKUP = re.compile(r"([\\`*_\[\]<>#|~&$])")


def render_card(provenance: ModelProvenance, *, adapter_digest: str) -> bytes:
    """Return the card's bytes, UTF-8. Free text of the plan is escaped: a unit's name can't write Markdown."""
    text = _template().render(
        p=provenance,
        plan=provenance.plan,
        report=provenance.report,
        base=model_digest(provenance.plan.model),
        adapter_digest=adapter_digest,
    )
    return text.encode()


def _plain(text: str) -> str:
    """Return `text` in one line, with a backslash before whatever Markdown or HTML might read as markup."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fl_alliance.privacy"),
        autoescape=False,  # noqa: S701  Markdown: `plain` and `tojson` escape
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = _plain
    return environment.get_template("model-card.md")
