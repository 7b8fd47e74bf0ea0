"""The catalogue: each sentence of the report is in each language, with the same names in braces."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

import fl_alliance.privacy
from fl_alliance.errors import BadConfig
from fl_alliance.privacy.reporting.words import LOCALE, SOURCE, languages, words_of

SOURCES = Path(fl_alliance.privacy.__file__).parent
OTHERS = [language for language in languages() if language != SOURCE]


def sentences() -> set[str]:
    """Every text that the code marks for translation."""
    found: Iterator[tuple[str, int, str, list[str], str | None]] = extract_from_dir(SOURCES)
    return {text for _, _, text, _, _ in found}


def catalogue(language: str) -> Catalog:
    with (LOCALE / language / "LC_MESSAGES" / "report.po").open("rb") as file:
        return read_po(file)


def braces(text: str) -> set[str]:
    return set(re.findall(r"\{\w*\}", text))


def test_there_are_two_languages_and_another_is_refused_by_name() -> None:
    assert languages() == ("de", "en")
    assert words_of("en")("In short") == "In short"
    assert words_of("de")("In short") == "In Kürze"
    with pytest.raises(BadConfig, match="language: 'fr' must be one of de, en"):
        words_of("fr")


@pytest.mark.parametrize("language", OTHERS)
def test_every_sentence_is_translated_and_no_translation_is_left_over(language: str) -> None:
    translated = {str(message.id): message for message in catalogue(language) if message.id}
    assert sentences() == set(translated)
    assert len(translated) > 150
    for text, message in translated.items():
        assert message.string, text
        assert not message.fuzzy, text
        assert braces(str(message.string)) == braces(text), text


@pytest.mark.parametrize("language", OTHERS)
def test_the_compiled_catalogue_is_that_of_the_text(language: str) -> None:
    """`make words` compiles it."""
    compiled = io.BytesIO()
    write_mo(compiled, catalogue(language))
    assert (LOCALE / language / "LC_MESSAGES" / "report.mo").read_bytes() == compiled.getvalue()
