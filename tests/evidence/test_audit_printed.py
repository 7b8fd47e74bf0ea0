"""`fl-alliance audit printed`: a page or a PDF that says anything but what the evidence gives is refused, and named."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fl_alliance import cli
from fl_alliance.errors import BadConfig, EvidenceRefused, MalformedMessage
from fl_alliance.evidence.bundle import write_manifest
from fl_alliance.evidence.sign import peek_document, sign_document
from fl_alliance.parties.audit_printed import check_printed
from fl_alliance.parties.audit_report import printed as print_document
from fl_alliance.parties.audit_report import signature_of, write_report
from fl_alliance.parties.auditor import Findings, verify_evidence
from fl_alliance.privacy.reporting import facts, figures
from fl_alliance.privacy.reporting.content import document_of
from fl_alliance.privacy.reporting.reading import words_in
from fl_alliance.privacy.reporting.words import languages
from fl_alliance.protocol.documents import PrintedReport
from fl_alliance.protocol.ids import decimal_text, digest_of
from tests.evidence.alliance import key_of
from tests.evidence.folder import Folder


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Folder(tmp_path_factory.mktemp("honest") / "evidence", rounds=1).build()


@pytest.fixture(scope="module")
def found(honest: Path) -> Findings:
    return verify_evidence(honest, root=None, say=lambda _: None)


@pytest.fixture(scope="module")
def printed(found: Findings) -> dict[str, bytes]:
    """Every form in every language, by file name."""
    return {
        f"{language}.{form}": print_of(found, form, language) for language in languages() for form in ("html", "pdf")
    }


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without pictures, where a test is not about them: drawing takes longer than all else."""
    monkeypatch.setattr(figures, "can_draw", lambda: False)


def print_of(found: Findings, form: Any, language: str) -> bytes:
    return print_document(document_of(found.sources, language=language, pictures=figures.kind_for(form)), form)


def check(file: Path, folder: Path) -> str:
    said: list[str] = []
    check_printed(file, [folder], root=key_of("root").keyid, empirical=None, say=said.append)
    return said[-1]


def refusal(file: Path, folder: Path) -> str:
    with pytest.raises(EvidenceRefused) as error:
        check(file, folder)
    return str(error.value)


@pytest.mark.parametrize("name", ["en.html", "en.pdf", "de.html", "de.pdf"])
def test_numbers_and_origin_read_back_from_page_and_pdf_are_the_verifiers(
    found: Findings, printed: dict[str, bytes], name: str
) -> None:
    words = words_in(printed[name])
    text = "".join(words)
    costs = found.costs
    for number in (costs.job_pld, costs.job_rdp, costs.dataset_pld, costs.dataset_rdp, found.delta):
        assert decimal_text(number) in words
    known = facts.facts_of(found.sources)
    assert known.trade_off is not None
    for number in (known.trade_off.mu, *(n for gauge in known.gauges for n in (gauge.cap, gauge.spent, gauge.left))):
        assert decimal_text(number) in text
    assert found.sources.report_digest in text
    assert found.sources.report.ledger_head in text
    assert found.adapter_digest in text


@pytest.mark.parametrize("name", ["en.html", "en.pdf", "de.html", "de.pdf"])
def test_what_the_evidence_gives_is_accepted_in_every_form_and_language(
    honest: Path, printed: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(printed[name])
    assert check(tmp_path / name, honest) == (
        f"printed: {name} is the report of this evidence, to the byte; not signed itself"
    )


@pytest.mark.parametrize(
    ("language", "old", "new"),
    [
        ("en", "e^{epsilon}", "e^0.5"),
        ("en", "at most 0.00001", "at most 0.0000001"),
        ("de", "{epsilon}", "0.196944"),
        ("en", "{epsilon}</td>", "0.196944</td>"),
        ("en", "Nobody was left out", "Somebody was left out"),
        ("en", "sha256:", "sha256:0"),
        ("en", "<li>", "<li>Guaranteed by the ministry. "),
        ("en", "</main>", "<p>epsilon 0.1</p></main>"),
    ],
)
@pytest.mark.usefixtures("plain")
def test_a_number_or_word_that_was_changed_is_named(
    honest: Path, found: Findings, tmp_path: Path, language: str, old: str, new: str
) -> None:
    page = print_of(found, "html", language).decode()
    old = old.format(epsilon=decimal_text(found.costs.job_pld))
    assert old in page
    (tmp_path / "report.html").write_text(page.replace(old, new, 1))
    assert re.match(r"printed, report.html: says “.*”, the evidence gives “", refusal(tmp_path / "report.html", honest))


@pytest.mark.parametrize("form", ["html", "pdf"])
def test_a_printer_that_prints_a_wrong_number_is_found_out(
    honest: Path, found: Findings, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything else in the file, its digests and its pictures too, is right."""
    right = facts.costs_of
    with monkeypatch.context() as patched:
        patched.setattr(facts, "costs_of", lambda *a, **k: replace(right(*a, **k), dataset_pld=Decimal("0.25")))
        data = print_of(found, form, "en")
    (tmp_path / f"report.{form}").write_bytes(data)
    said = refusal(tmp_path / f"report.{form}", honest)
    assert "0.25" in said.partition("the evidence gives")[0]
    assert decimal_text(found.costs.dataset_pld) in said.partition("the evidence gives")[2]


def hide(page: str) -> str:
    return page.replace(".note {", ".note { display: none;", 1)


def draw_over(page: str) -> str:
    return page.replace("<path ", '<path d="M 0 0 L 9 9" ', 1)


def comment(page: str) -> str:
    return page.replace("<main>", "<main><!-- epsilon -->", 1)


@pytest.mark.parametrize("change", [hide, draw_over, comment])
def test_a_page_of_the_same_words_that_looks_otherwise_is_refused(
    honest: Path, printed: dict[str, bytes], tmp_path: Path, change: Callable[[str], str]
) -> None:
    page = printed["en.html"].decode()
    assert change(page) != page
    (tmp_path / "report.html").write_text(change(page))
    said = refusal(tmp_path / "report.html", honest)
    assert said.endswith(
        "every word and number of the evidence, but other pictures, fonts or layout: they were changed"
    )


def test_of_another_version_of_a_library_only_the_pictures_are_said_to_be_unknown(
    honest: Path, printed: dict[str, bytes], tmp_path: Path
) -> None:
    page = re.sub(r"matplotlib \d+\.\d+\.\d+", "matplotlib 3.9.0", printed["en.html"].decode())
    (tmp_path / "report.html").write_text(page)
    assert "printed by others than fl-alliance " in refusal(tmp_path / "report.html", honest)
    lie = re.sub(r"e\^[0-9.]+[0-9]", "e^0.1", page)
    (tmp_path / "report.html").write_text(lie)
    assert "says “" in refusal(tmp_path / "report.html", honest)


@pytest.mark.usefixtures("plain")
def test_the_report_of_another_job_or_institution_is_refused(honest: Path, found: Findings, tmp_path: Path) -> None:
    other = Folder(tmp_path / "evidence", job="job-2", rounds=1).build()
    (tmp_path / "report.html").write_bytes(print_of(found, "html", "en"))
    assert "job-1" in refusal(tmp_path / "report.html", other)


@pytest.mark.usefixtures("plain")
def test_a_report_that_the_manifest_covers_is_said_to_be_signed(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "evidence", rounds=1).build()
    write_report([folder], folder / "report.html", language="en", root=None, say=lambda _: None)
    write_manifest(folder, key_of("lagos"), institution="lagos")
    assert check(folder / "report.html", folder).endswith("to the byte; signed by lagos")


# ---- signed by a member, beside the file


@pytest.fixture
def signed(honest: Path, tmp_path: Path, plain: None) -> Path:
    """A page that an institution of the alliance printed and signed."""
    out = tmp_path / "report.html"
    write_report([honest], out, language="de", root=None, say=lambda _: None, key=key_of("lima"))
    return out


def resign(file: Path, name: str, **changes: Any) -> None:
    beside = signature_of(file)
    document = peek_document(beside.read_bytes(), PrintedReport).model_copy(update=changes)
    beside.write_bytes(sign_document(key_of(name), document))


def test_a_signature_beside_the_file_is_verified_and_its_member_named(honest: Path, signed: Path) -> None:
    assert check(signed, honest).endswith("to the byte; signed by lima")
    report = peek_document(signature_of(signed).read_bytes(), PrintedReport)
    assert (report.signer, report.language, report.form) == ("lima", "de", "html")
    assert report.digest == digest_of(signed.read_bytes())


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("lagos", {}, "signed with key sha256:"),
        (
            "stranger",
            {"signer": "stranger", "key": key_of("stranger").public_text},
            "stranger is no member of alliance",
        ),
        ("lima", {"digest": digest_of(b"other")}, "digest is sha256:"),
        ("lima", {"length": 9}, "length is 9, must be "),
        ("lima", {"form": "pdf"}, "form is pdf, must be html"),
        ("lima", {"language": "en"}, "language is en, must be de"),
        ("lima", {"alliance": "schools"}, "alliance is schools, must be clinics"),
        ("lima", {"key": key_of("lagos").public_text}, "key is "),
        ("lima", {"reports": (digest_of(b"other"),)}, "reports is "),
    ],
)
def test_a_signature_of_another_member_file_or_report_is_refused(
    honest: Path, signed: Path, name: str, changes: dict[str, Any], named: str
) -> None:
    resign(signed, name, **changes)
    said = refusal(signed, honest)
    assert said.startswith("printed, report.html.dsse.json: ")
    assert named in said


def test_the_command_signs_with_the_key_in_a_members_folder(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clinic" / "keys").mkdir(parents=True)
    key_of("lagos").save(tmp_path / "clinic" / "keys" / "identity.key")
    out = str(tmp_path / "report.pdf")
    for words in (
        ["report", str(honest), "--out", out, "--sign", str(tmp_path / "clinic")],
        ["printed", out, "--evidence", str(honest)],
    ):
        monkeypatch.setattr("sys.argv", ["fl-alliance", "audit", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert not left.value.code
    lines = capsys.readouterr().out.splitlines()
    assert f"wrote {out}, signed with {key_of('lagos').keyid}" in lines
    assert "printed: report.pdf is the report of this evidence, to the byte; signed by lagos" in lines


def test_a_torn_signature_is_refused_and_an_old_one_does_not_stay(honest: Path, signed: Path) -> None:
    beside = signature_of(signed)
    beside.write_bytes(beside.read_bytes()[:-9])
    assert refusal(signed, honest).startswith("printed, report.html.dsse.json: ")
    write_report([honest], signed, language="en", root=None, say=lambda _: None)
    assert not beside.exists()


def test_who_is_no_member_can_not_sign_and_nothing_is_written(honest: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"sign: key sha256:[0-9a-f]+ is no member's of alliance clinics"):
        write_report(
            [honest], tmp_path / "out.html", language="en", root=None, say=lambda _: None, key=key_of("stranger")
        )
    assert not (tmp_path / "out.html").exists()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "is neither a page nor a PDF of this program"),
        (b"PK\x03\x04", "is neither a page nor a PDF of this program"),
        (b"%PDF-1.7\n", "does not say in which language it is"),
        (b"%PDF-1.7\n/Lang (en)\n", "can't be read as a PDF: "),
        (b"<!DOCTYPE html>\n<html>", "does not say in which language it is"),
        (b'<!DOCTYPE html>\n<html lang="xx">\n', "is in xx, must be in one of de, en"),
        (b'<!DOCTYPE html>\n<html lang="en">\n\xff', "is not UTF-8 at byte"),
        (b'<!DOCTYPE html>\n<html lang="en">\n', "says “”, the evidence gives “Privacy"),
    ],
)
def test_what_is_no_report_is_refused_by_name(honest: Path, tmp_path: Path, data: bytes, named: str) -> None:
    (tmp_path / "file").write_bytes(data)
    said = refusal(tmp_path / "file", honest)
    assert said.startswith("printed, file: ")
    assert named in said


def test_a_damaged_pdf_is_refused_by_name_and_its_reader_says_nothing_else(
    honest: Path, printed: dict[str, bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, chance = printed["en.pdf"], random.Random(7)
    for _ in range(6):
        damaged = bytearray(whole)
        for place in (chance.randrange(len(whole)) for _ in range(20)):
            damaged[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        with pytest.raises(MalformedMessage, match=r"can't be read as a PDF|does not say in which|neither"):
            words_in(bytes(damaged)[: chance.randrange(1000, len(whole))])
        (tmp_path / "report.pdf").write_bytes(damaged)
    assert refusal(tmp_path / "report.pdf", honest).startswith("printed, report.pdf: ")
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_not_there_or_too_long_is_refused_before_the_evidence_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadConfig, match="can't be read"):
        check(tmp_path / "none", tmp_path)
    monkeypatch.setattr("fl_alliance.parties.audit_printed.MAX_PRINTED", 3)
    (tmp_path / "long").write_bytes(b"long")
    assert "is longer than 3 bytes" in refusal(tmp_path / "long", tmp_path)


def test_a_report_with_pictures_needs_what_draws_them(
    honest: Path, printed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.html").write_bytes(printed["en.html"])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BadConfig, match=r"install fl-alliance\[report\]"):
        check(tmp_path / "report.html", honest)


def test_the_command_says_each_step_and_leaves_with_one_for_a_lie(
    honest: Path, printed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file = tmp_path / "report.html"
    file.write_bytes(printed["en.html"])
    monkeypatch.setattr("sys.argv", ["fl-alliance", "audit", "printed", str(file), "--evidence", str(honest)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    assert capsys.readouterr().out.splitlines()[-1] == "the printed report holds"
    file.write_bytes(printed["en.html"].replace(b"e^", b"e^0"))
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    assert capsys.readouterr().err.startswith("EvidenceRefused: printed, report.html: says ")
