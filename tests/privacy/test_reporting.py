"""The report for a lawyer: self-contained, escaped, accessible, black and white, nothing cut; every number there."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from fl_alliance.errors import BadConfig
from fl_alliance.privacy.reporting import figures, pdf
from fl_alliance.privacy.reporting.appendix import appendix
from fl_alliance.privacy.reporting.content import MOST_ROWS, document_of
from fl_alliance.privacy.reporting.document import Bullets, Document, Figure, Paragraph, Table
from fl_alliance.privacy.reporting.facts import RefusedPlan, Sources, facts_of
from fl_alliance.privacy.reporting.page import page_of
from fl_alliance.privacy.reporting.pdf import pdf_of
from fl_alliance.privacy.reporting.words import languages
from fl_alliance.protocol.ids import decimal_text
from tests.privacy.sources import record_of, require_uncut, sources_of


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return sources_of(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(sources: Sources) -> str:
    return page_of(document_of(sources, language="en", pictures="svg")).decode()


def words_in(document: Document) -> list[str]:
    """Every text of a document, in order."""
    found = [document.title, document.subject, document.when]
    for section in document.sections:
        found.append(section.title)
        for block in section.blocks:
            match block:
                case Paragraph():
                    found.append(block.text)
                case Bullets():
                    found += block.items
                case Table():
                    found += [block.caption, *block.head, *(cell for row in block.rows for cell in row)]
                case Figure():
                    found += [block.caption, block.alt]
    return found


class Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


# ---- the page


def test_the_page_reaches_no_network_and_runs_no_script(page: str) -> None:
    read = Page(page)
    assert not {"script", "link", "img", "iframe", "object", "a"} & {tag for tag, _ in read.tags}
    for tag, attrs in read.tags:
        assert not {name for name in attrs if name.startswith("on") or name == "src"}, tag
        assert (attrs.get("href") or "#").startswith("#"), tag
    assert "http" not in page.replace("http-equiv", "")
    assert "@import" not in page


def test_a_screen_reader_finds_headings_captions_and_what_pictures_show(page: str) -> None:
    read = Page(page)
    assert read.all("html") == [{"lang": "en"}]
    assert len(read.all("h1")) == 1
    assert len(read.all("h2")) == len(read.all("section")) == 16
    assert len(read.all("caption")) == len(read.all("table")) >= 10
    assert all(attrs.get("scope") in ("row", "col") for attrs in read.all("th"))
    pictures = read.all("svg")
    assert len(pictures) == len(read.all("figcaption")) == 3
    assert all(attrs["role"] == "img" and len(str(attrs["aria-label"])) > 30 for attrs in pictures)
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) > 20
    named = {str(attrs["href"])[1:] for _, attrs in read.tags if "href" in attrs}
    assert named
    assert named <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_the_page_is_black_and_white(page: str) -> None:
    colours = {colour.lower() for colour in re.findall(r"#[0-9a-fA-F]{6}\b|(?<![\w&])#[0-9a-fA-F]{3}\b", page)}
    assert len(colours) >= 4
    for colour in colours:
        digits = colour[1:]
        parts = {digits[place : place + len(digits) // 3] for place in range(0, len(digits), len(digits) // 3)}
        assert len(parts) == 1, colour
    assert not re.search(r"rgb|hsl|\b(red|green|blue|orange)\b", page)


def test_what_a_coordinator_or_a_person_wrote_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>{{7*7}}"
    hostile = replace(sources_of(tmp_path, charged=1, privacy={"unit": evil}), approved=("<b>ann</b>",))
    page = page_of(document_of(hostile, language="en", pictures=None)).decode()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{7*7}}" in page


@pytest.mark.parametrize("turn", ["\u202e", "\u2066", "\u200b", "\u0085"])
def test_letters_that_turn_others_round_or_hide_are_printed_by_number(tmp_path: Path, turn: str) -> None:
    """A coordinator's plan names the unit: it could make a reader see 24.1 where 1.42 stands."""
    document = document_of(
        sources_of(tmp_path, charged=1, privacy={"unit": f"patient{turn}1.42"}), language="en", pictures=None
    )
    named = f"patientU+{ord(turn):04X}1.42"
    page = page_of(document).decode()
    assert turn not in page
    assert named in page
    printer = pdf._Print(document, Path(matplotlib.get_data_path()) / "fonts" / "ttf")
    assert printer._printable(f"patient{turn}1.42") == named


# ---- what is in it


@pytest.mark.parametrize("language", languages())
def test_every_number_of_the_facts_is_printed(sources: Sources, language: str) -> None:
    facts = facts_of(sources)
    text = "\n".join(words_in(document_of(sources, language=language, pictures=None)))
    assert facts.trade_off is not None
    numbers = [facts.costs.job_pld, facts.costs.job_rdp, facts.costs.dataset_pld, facts.costs.dataset_rdp]
    numbers += [facts.trade_off.mu, facts.trade_off.beta(0.05)]
    for gauge in facts.gauges:
        numbers += [gauge.cap, gauge.spent, gauge.left]
    for _entry, so_far in facts.charges:
        numbers.append(so_far)
    for number in numbers:
        assert decimal_text(number) in text
    digests = (sources.report.ledger_head, sources.report.plan_digest, sources.report.policy_digest)
    for word in (*digests, "add-or-remove-one-unit", "patient", "berlin, lagos, lima", "1.5", "0.1", "0.00001"):
        assert word in text
    assert "{" not in text


def test_the_english_lead_is_word_for_word_what_was_signed(sources: Sources) -> None:
    english = document_of(sources, language="en", pictures=None).sections[0].blocks[0]
    german = document_of(sources, language="de", pictures=None).sections[0].blocks[0]
    assert english == Paragraph(sources.report.statement, "lead")
    assert isinstance(german, Paragraph)
    for number in (sources.report.epsilon_pld, sources.report.dataset_epsilon_pld, sources.report.delta):
        assert number in german.text


def test_who_was_missing_and_what_was_charged_in_vain_is_named(tmp_path: Path) -> None:
    three = sources_of(tmp_path, charged=3, rounds=3)
    records = (record_of(1), record_of(2))
    text = "\n".join(words_in(document_of(replace(three, records=records), language="en", pictures=None)))
    assert "Round 3: charged (entry 3), and no sum was opened." in text
    assert "Nobody was left out" not in text
    whole = "\n".join(words_in(document_of(three, language="en", pictures=None)))
    assert "Nobody was left out of a round, and no round was charged in vain." in whole


def test_a_member_without_an_upload_is_named(sources: Sources) -> None:
    plan = sources.plan.model_copy(update={"members": (*sources.plan.members, sources.plan.members[0].model_copy(
        update={"name": "oslo"}))})  # fmt: skip
    text = "\n".join(words_in(document_of(replace(sources, plan=plan), language="en", pictures=None)))
    assert "Round 1: no update of oslo in the sum." in text


@pytest.mark.parametrize("language", languages())
def test_plans_that_were_refused_are_told_with_their_reasons_or_that_nobody_knows(
    sources: Sources, language: str
) -> None:
    def told(refused: tuple[RefusedPlan, ...] | None) -> str:
        return "\n".join(words_in(document_of(replace(sources, refused=refused), language=language, pictures=None)))

    plan = RefusedPlan("lagos", "greedy", "BudgetExceeded", "epsilon 9 is above epsilon_per_job 8 <b>")
    text = told((plan,))
    for word in ("lagos", "greedy", "BudgetExceeded", plan.reason):
        assert f"\n{word}\n" in text
    assert "greedy" not in told(())
    assert len({told(None), told(()), text}) == 3
    if language == "en":
        assert "made from a folder without them" in told(None)
        assert "holds no plan that was refused" in told(())
    page = page_of(document_of(replace(sources, refused=(plan,)), language=language, pictures=None)).decode()
    assert "epsilon_per_job 8 &lt;b&gt;" in page


def test_of_a_long_job_first_and_last_rounds_are_shown_and_the_gap_is_told(tmp_path: Path) -> None:
    rounds = MOST_ROWS + 5
    long = sources_of(tmp_path, charged=rounds, rounds=rounds, privacy={"noise_multiplier": "6"})
    document = document_of(long, language="en", pictures=None)
    for title in ("Charges of this job", "Who took part"):
        blocks = next(section.blocks for section in document.sections if section.title == title)
        table = next(block for block in blocks if isinstance(block, Table))
        assert len(table.rows) == MOST_ROWS + 1
        assert [table.rows[0][0], table.rows[-1][0]] == ["1", str(rounds)]
        assert Paragraph("5 rows in the middle are left out here; the evidence folder holds them.", "note") in blocks


def test_caps_are_shown_at_the_least_delta_of_all_charges(tmp_path: Path) -> None:
    sources = sources_of(tmp_path, charged=1)
    ledger = sources.ledger
    smaller = ledger.entries[0].model_copy(update={"delta": "0.0000001", "job": "earlier"})
    both = replace(ledger, entries=(smaller, *ledger.entries), digests=(ledger.head, *ledger.digests))
    facts = facts_of(replace(sources, ledger=both))
    assert facts.caps_delta == Decimal("0.0000001")
    assert facts.gauges[0].spent > facts.costs.job_pld
    assert [job.job for job in facts.jobs] == ["earlier", "job-1"]
    assert facts.moments[-1].dataset == facts.jobs[-1].after == facts.costs.dataset_rdp


def test_the_appendix_has_the_registrys_fields_and_every_part_of_the_pyramid(sources: Sources) -> None:
    registry, nist = (section.blocks[1] for section in appendix(facts_of(sources), str))
    assert isinstance(registry, Table)
    assert isinstance(nist, Table)
    fields = [row[0] for row in registry.rows]
    groups = ["basic", "dp_variant", "privacy_loss", "deployment_model", "implementation", "administrative"]
    assert list(dict.fromkeys(field.partition(".")[0] for field in fields)) == groups
    assert len(fields) == len(set(fields)) == 39
    points = " ".join(row[0] for row in nist.rows)
    for point in (
        "privacy parameters", "unit of privacy", "algorithms and correctness", "utility", "bias", "trust models",
        "mechanism implementation", "data security and access control", "data collection exposure",
    ):  # fmt: skip
        assert point in points


# ---- pictures


def drawn(sources: Sources, language: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The drawings of a report, before they are made SVG."""
    found: list[Any] = []

    def keep(figure: Any, *_: object) -> Figure:
        found.append(figure)
        return Figure(b"<svg/>", "", "")

    monkeypatch.setattr(figures, "drawn", keep)
    document_of(sources, language=language, pictures="svg")
    return found


@pytest.mark.parametrize("language", languages())
def test_no_word_of_a_picture_is_cut(sources: Sources, language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for figure in drawn(sources, language, monkeypatch):
        require_uncut(figure)


def test_pictures_show_the_facts(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = facts_of(sources)
    assert facts.trade_off is not None
    trade_off, budget, time = (figure.axes[0] for figure in drawn(sources, "en", monkeypatch))
    guess, best, gaussian = (line.get_xydata() for line in trade_off.lines)
    assert all(alpha + beta == pytest.approx(1) for alpha, beta in guess)
    assert all(beta == pytest.approx(float(facts.trade_off.beta(float(alpha)))) for alpha, beta in best)
    assert all(low[1] <= high[1] + 1e-3 for low, high in zip(gaussian, best[1:-1], strict=True))
    black = [bar.get_width() for bar in budget.patches[1::2]]
    assert black == [gauge.percent for gauge in facts.gauges]
    assert [text.get_text().split()[-2] for text in budget.texts] == [str(gauge.percent) for gauge in facts.gauges]
    dataset, year, ends, cap, year_cap = (list(line.get_ydata()) for line in time.lines)
    assert dataset == [float(moment.dataset) for moment in facts.moments]
    assert year == [float(moment.year) for moment in facts.moments]
    assert ends == [float(facts.costs.dataset_pld)]
    assert (cap[0], year_cap[0]) == (12, 10)


def test_without_matplotlib_the_page_says_so_and_the_pdf_says_what_to_install(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    document = document_of(sources, language="en", pictures="svg")
    page = page_of(document).decode()
    assert "<svg" not in page
    assert page.count("The picture is left out: matplotlib was not installed") == 2
    with pytest.raises(BadConfig, match=r"matplotlib is not installed, install fl-alliance\[report\]"):
        pdf_of(document)


# ---- PDF


def test_the_pdf_prints_every_word_of_the_document(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    whole = pdf._Print._printable

    def listen(self: Any, text: str) -> str:
        printed.append(text)
        return whole(self, text)

    monkeypatch.setattr(pdf._Print, "_printable", listen)
    document = document_of(sources, language="de", pictures="png")
    assert pdf_of(document).startswith(b"%PDF-")
    titles = {f"{number}. {section.title}" for number, section in enumerate(document.sections, start=1)}
    expected = {word for word in words_in(document) if word} - {section.title for section in document.sections}
    assert expected | titles <= set(printed)


def test_the_same_report_is_the_same_bytes_at_another_time_and_in_another_process(
    sources: Sources, tmp_path: Path
) -> None:
    """The only time in the file is the report's; pictures are drawn alike too."""
    document = document_of(sources, language="en", pictures="png")
    assert document == document_of(sources, language="en", pictures="png")
    (tmp_path / "document").write_bytes(pickle.dumps(document))
    program = (
        "import pickle, pathlib, sys\nfrom fl_alliance.privacy.reporting.pdf import pdf_of\n"
        "sys.stdout.buffer.write(pdf_of(pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())))"
    )
    other = subprocess.run([sys.executable, "-c", program, tmp_path / "document"], capture_output=True, check=True)
    here = pdf_of(document)
    assert other.stdout == here
    assert set(re.findall(rb"D:(\d{14})", here)) == {b"20270115080140"}


def test_a_letter_that_the_font_lacks_is_printed_by_its_number(tmp_path: Path) -> None:
    odd = sources_of(tmp_path, charged=1, privacy={"unit": "患者 пациент"})
    document = document_of(odd, language="en", pictures=None)
    printer = pdf._Print(document, Path(matplotlib.get_data_path()) / "fonts" / "ttf")
    assert printer._printable("患者 пациент ε") == "U+60A3U+8005 пациент ε"
