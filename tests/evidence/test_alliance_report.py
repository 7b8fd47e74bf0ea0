"""The report on a whole alliance: only of evidence that holds and agrees, with the verifier's numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fl_alliance.errors import BadConfig, EvidenceRefused, NotAuthentic
from fl_alliance.parties.audit_printed import check_printed
from fl_alliance.parties.audit_report import write_report
from fl_alliance.parties.auditor import Findings, verify_evidence
from fl_alliance.privacy.accountant import PldAccountant
from fl_alliance.privacy.ledger import events_of
from fl_alliance.privacy.reporting import alliance_figures
from fl_alliance.privacy.reporting.alliance import alliance_document_of
from fl_alliance.privacy.reporting.alliance_facts import alliance_facts_of
from fl_alliance.privacy.reporting.document import Document, Figure
from fl_alliance.privacy.reporting.facts import RefusedPlan, Sources
from fl_alliance.privacy.reporting.page import page_of
from fl_alliance.privacy.reporting.words import languages
from fl_alliance.protocol.ids import decimal_text, digest_of
from tests.evidence.alliance import key_of
from tests.evidence.folder import Folder
from tests.evidence.shared import Alliance
from tests.privacy.sources import require_uncut

ROOT = key_of("root").keyid


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two jobs of three institutions, a month apart; each has another cap."""
    alliance = Alliance(
        tmp_path_factory.mktemp("alliance"), {"berlin": {"epsilon_per_dataset": "6"}, "lima": {"delta_max": "0.001"}}
    )
    return [
        *alliance.run("triage", rounds=2),
        *alliance.run("letters", rounds=1, privacy={"noise_multiplier": "1.2"}),
    ]


@pytest.fixture(scope="module")
def found(folders: list[Path]) -> list[Findings]:
    return [verify_evidence(folder, root=ROOT, say=quiet) for folder in folders]


@pytest.fixture(scope="module")
def given(found: list[Findings]) -> list[Sources]:
    return [findings.sources for findings in found]


def document_of(given: list[Sources], language: str = "en", pictures: Any = None) -> Document:
    return alliance_document_of(alliance_facts_of(given), root=ROOT, language=language, pictures=pictures)


def text_of(given: list[Sources], language: str = "en") -> str:
    page = page_of(document_of(given, language)).decode()
    return html.unescape(re.sub(r"<[^>]*>", "|", page.partition("<body>")[2]))


def report(folders: list[Path], out: Path, **options: Any) -> list[str]:
    said: list[str] = []
    chosen: dict[str, Any] = {"language": "en", "root": ROOT, "empirical": None}
    write_report(folders, out, say=said.append, **(chosen | options))
    return said


@pytest.mark.parametrize("language", languages())
def test_every_institutions_numbers_are_the_verifiers(
    found: list[Findings], given: list[Sources], language: str
) -> None:
    text = text_of(given, language)
    for one in found:
        costs = (one.costs.job_pld, one.costs.job_rdp, one.delta)
        row = rf"\|{one.job}\|\|+{one.institution}\|\|+patient\|\|+{one.rounds}\|\|+{one.charges}\|\|+"
        assert re.search(row + r"\|\|+".join(re.escape(decimal_text(cost)) for cost in costs), text), one
        assert one.sources.report_digest in text
    for one in found[3:]:  # after both jobs
        row = rf"\|{one.institution} / cases\|\|+0\.00001\|\|+{decimal_text(one.costs.dataset_pld)}\|"
        assert re.search(row, text)
    assert ROOT in text
    assert "{" not in text


def test_budgets_are_of_the_longest_ledger_and_each_institutions_own_caps(given: list[Sources]) -> None:
    facts = alliance_facts_of(given)
    assert [(one.institution, one.total.cap) for one in facts.datasets] == [
        ("berlin", Decimal(6)), ("lagos", Decimal(12)), ("lima", Decimal(12)),
    ]  # fmt: skip
    for dataset in facts.datasets:
        assert len(dataset.newest.ledger.entries) == len(dataset.moments) == 3
        assert dataset.total.left == dataset.total.cap - dataset.total.spent
    assert "Nearest to its cap is berlin / cases" in text_of(given)


def test_somebody_in_every_data_set_is_told_what_all_charges_cost_together(given: list[Sources]) -> None:
    entries = [entry for part in given[3:] for entry in part.ledger.entries]
    assert len(entries) == 9
    together = PldAccountant().epsilon(events_of(entries), Decimal("0.00001"))
    alone = max(Decimal(part.report.dataset_epsilon_pld) for part in given)
    assert together > alone
    assert f"at most epsilon {decimal_text(together)} at delta 0.00001" in text_of(given)


def test_where_members_share_one_noise_no_number_is_given_for_a_person_in_several_data_sets(
    given: list[Sources],
) -> None:
    shared = given[0].plan.privacy.model_copy(update={"noise": "distributed"})
    plan = given[0].plan.model_copy(update={"privacy": shared})
    mixed = [replace(part, plan=plan) if part.report.job == "triage" else part for part in given]
    text = text_of(mixed)
    assert "there is no number here" in text
    assert "all charges counted together" not in text
    assert "triage: Assumption: the institutions of the job share one noise" in text
    assert "letters: Nothing is assumed of the coordinator" in text


def test_who_gave_no_evidence_and_who_missed_a_round_is_named(given: list[Sources]) -> None:
    without = [part for part in given if (part.report.institution, part.report.job) != ("lima", "letters")]
    without = [part for part in without if part.report.institution != "berlin"]
    short = [_without_upload(part, "lima") if part.report.job == "triage" else part for part in without]
    text = text_of(short)
    assert re.search(r"\|berlin\|\|+2\|\|+3\|\|+none\|", text)
    assert re.search(r"\|lima\|\|+2\|\|+2\|\|+not of letters\|", text)
    assert "triage: Round 2: no update of lima in the sum." in text
    assert "Nobody was left out" not in text
    assert "Nobody was left out of a round" in text_of(given)


def _without_upload(part: Sources, name: str) -> Sources:
    last = part.records[-1]
    uploads = tuple(upload for upload in last.uploads if upload.member != name)
    return replace(part, records=(*part.records[:-1], last.model_copy(update={"uploads": uploads})))


def test_a_round_that_was_charged_in_vain_is_named_with_its_institution(given: list[Sources]) -> None:
    part = next(part for part in given if part.report.job == "triage" and part.report.institution == "lagos")
    again = part.ledger.entries[-1].model_copy(update={"round": 9, "sequence": 7})
    ledger = replace(part.ledger, entries=(*part.ledger.entries, again), digests=(*part.ledger.digests, "x"))
    text = text_of([replace(part, ledger=ledger)])
    assert "triage: lagos: Round 9: charged (entry 7), and no sum was opened." in text


def test_refused_plans_of_all_bundles_are_told_once(given: list[Sources]) -> None:
    greedy = RefusedPlan("lagos", "greedy", "BudgetExceeded", "epsilon 9 is above epsilon_per_job 8")
    early = RefusedPlan("berlin", "early", "PolicyRefused", "unit visit is not among those allowed: patient")
    known = [replace(given[0], refused=(early,)), replace(given[1], refused=(greedy,)), given[2]]
    text = text_of([*known, replace(given[4], refused=(greedy,)), given[3]])
    assert re.search(r"\|early\|\|+berlin\|\|+PolicyRefused\|\|+unit visit is not among", text)
    assert re.search(r"early\|.*\|greedy\|\|+lagos\|\|+BudgetExceeded\|", text, re.DOTALL)
    assert text.count("BudgetExceeded") == 1
    assert "made from a folder without them" in text_of(given)


# ---- evidence that contradicts itself


def other_plan(part: Sources) -> Sources:
    return replace(part, report=part.report.model_copy(update={"plan_digest": digest_of(b"other")}))


def other_record(part: Sources) -> Sources:
    return replace(part, records=(part.records[0].model_copy(update={"sum_length": 12}), *part.records[1:]))


def other_alliance(part: Sources) -> Sources:
    return replace(part, report=part.report.model_copy(update={"alliance": "schools"}))


def other_ledger(part: Sources) -> Sources:
    ledger = part.ledger
    return replace(part, ledger=replace(ledger, digests=(digest_of(b"forked"), *ledger.digests[1:])))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_plan, "job triage: lagos was shown plan sha256:[0-9a-f]+, berlin sha256:"),
        (other_record, "job triage, round 1: two members hold two different records"),
        (other_alliance, "the evidence is of alliances clinics, schools, must be of one"),
        (other_ledger, "lagos, cases: the ledger shown for job triage does not begin the one shown for job letters"),
    ],
)
def test_evidence_that_contradicts_the_others_is_refused(
    given: list[Sources], change: Callable[[Sources], Sources], named: str
) -> None:
    assert (given[1].report.institution, given[1].report.job) == ("lagos", "triage")
    with pytest.raises(NotAuthentic, match=named):
        alliance_facts_of([given[0], change(given[1]), *given[2:]])


def test_one_institutions_evidence_of_a_job_counts_once(given: list[Sources]) -> None:
    with pytest.raises(NotAuthentic, match="job triage: the evidence of berlin is there twice"):
        alliance_facts_of([*given, given[0]])


# ---- the command


def test_of_several_folders_the_command_prints_what_audit_printed_accepts(folders: list[Path], tmp_path: Path) -> None:
    said = report(folders, out := tmp_path / "all.html", language="de")
    assert said[-1] == "together: 3 institutions, 2 jobs; plans, records and ledgers agree"
    lines: list[str] = []
    check_printed(out, list(reversed(folders)), root=ROOT, empirical=None, say=lines.append)
    assert lines[-1] == "printed: all.html is the report of this evidence, to the byte; not signed itself"
    with pytest.raises(EvidenceRefused, match=r"printed, all.html: says “.*”, the evidence gives “"):
        check_printed(out, folders[:-1], root=ROOT, empirical=None, say=quiet)
    out.write_text(out.read_text().replace("0.00001</td>", "0.0000001</td>", 1))
    with pytest.raises(EvidenceRefused, match=r"printed, all.html: says “.* 0.0000001 "):
        check_printed(out, folders, root=ROOT, empirical=None, say=quiet)


def test_of_two_histories_or_a_changed_folder_there_is_no_report(folders: list[Path], tmp_path: Path) -> None:
    other = Folder(tmp_path / "other", job="job-9", rounds=1).build()
    with pytest.raises(EvidenceRefused, match="step 13, log: the coordinator signed two histories"):
        report([*folders, other], tmp_path / "all.html")
    with pytest.raises(BadConfig, match="empirical: is for one institution's report of one job, the evidence is of 6"):
        report(folders, tmp_path / "all.html", empirical=tmp_path)
    with pytest.raises(EvidenceRefused, match=r"^together: job triage: the evidence of berlin is there twice"):
        report([folders[0], folders[0]], tmp_path / "all.html")
    assert not (tmp_path / "all.html").exists()


# ---- pictures


def test_pictures_show_the_facts(given: list[Sources], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(alliance_figures, "drawn", lambda figure, *_: drawn.append(figure) or Figure(b"<svg/>", "", ""))
    short = [_without_upload(part, "lima") if part.report.job == "triage" else part for part in given]
    facts = alliance_facts_of(short)
    alliance_document_of(facts, root=ROOT, language="en", pictures="svg")
    part, caps, together = (figure.axes[0] for figure in drawn)
    rounds = [(box.get_y() + box.get_height() / 2, sum(box.get_facecolor()[:3]) == 0) for box in part.patches]
    names = [label.get_text() for label in part.get_yticklabels()]
    assert [names[round(place)] for place, black in rounds if not black] == ["lima"]
    assert len(rounds) == 3 * 3
    assert [bar.get_width() for bar in caps.patches[1::2]] == [dataset.total.percent for dataset in facts.datasets]
    lines = {line.get_label(): list(line.get_ydata()) for line in together.lines[:3]}
    assert {dataset.title for dataset in facts.datasets} == set(lines)
    for dataset in facts.datasets:
        last = 100 * float(dataset.moments[-1].dataset) / float(dataset.total.cap)
        assert lines[dataset.title][-1] == pytest.approx(last)
    assert set(together.lines[3].get_ydata()) == {100}


def _renamed(part: Sources, name: str) -> Sources:
    return replace(part, report=part.report.model_copy(update={"institution": name}))


@pytest.mark.parametrize("language", languages())
@pytest.mark.parametrize("many", [False, True])
def test_no_word_of_a_picture_is_cut(
    given: list[Sources], language: str, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(alliance_figures, "drawn", lambda figure, *_: drawn.append(figure) or Figure(b"<svg/>", "", ""))
    facts = alliance_facts_of(given)
    if many:
        jobs = [
            replace(facts.jobs[0], plan=facts.jobs[0].plan.model_copy(update={"job": f"a-job-with-a-long-name-{n}"}))
            for n in range(30)
        ]
        named = replace(facts.datasets[0], newest=_renamed(facts.datasets[0].newest, "a-clinic-" * 7))
        facts = replace(facts, jobs=tuple(jobs), datasets=(named, *facts.datasets * 20))
    alliance_document_of(facts, root=ROOT, language=language, pictures="svg")
    assert len(drawn) == (6 if many else 3)
    for figure in drawn:
        require_uncut(figure)
        assert figure.get_size_inches()[1] < 9.5, "a page of A4 has 10.3 inches between its margins"


def test_the_page_is_black_and_white_and_reaches_nothing(given: list[Sources]) -> None:
    page = page_of(document_of(given, pictures="svg")).decode()
    assert page.count("<svg") == 3
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    for colour in set(re.findall(r"(?<![\w&])#[0-9a-fA-F]{6}\b", page)):
        assert len({colour[1:3].lower(), colour[3:5].lower(), colour[5:7].lower()}) == 1
