"""The languages of the report: English as it stands in the code, others by a gettext catalogue in `locale/`."""

from __future__ import annotations

import gettext
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fl_alliance.errors import BadConfig

LOCALE: Final = Path(__file__).with_name("locale")
DOMAIN: Final = "report"
SOURCE: Final = "en"

Words = Callable[[str], str]
"""Returns an English sentence in the reader's language; `{names}` in it stay as they are."""


def languages() -> tuple[str, ...]:
    """Return the languages that there is a report in."""
    return tuple(sorted({SOURCE, *(path.parts[-3] for path in LOCALE.glob(f"*/LC_MESSAGES/{DOMAIN}.mo"))}))


def words_of(language: str) -> Words:
    """Return the words of `language`.

    Raises:
        BadConfig: there is no catalogue of it; names those that there are.
    """
    if language not in languages():
        raise BadConfig(f"language: {language!r} must be one of {', '.join(languages())}")
    if language == SOURCE:
        return str
    return gettext.translation(DOMAIN, LOCALE, languages=[language]).gettext
