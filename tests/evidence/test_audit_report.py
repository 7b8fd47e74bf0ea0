"""`fl-alliance audit report`: only of evidence that holds, with the verifier's numbers, in both languages."""

from __future__ import annotations

import html
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_alliance import cli
from fl_alliance.errors import BadConfig, EvidenceRefused
from fl_alliance.parties.audit_printed import check_printed
from fl_alliance.parties.audit_report import write_report
from fl_alliance.parties.auditor import Findings, verify_evidence
from fl_alliance.protocol.ids import decimal_text
from tests.evidence.alliance import key_of
from tests.evidence.folder import Folder
from tests.evidence.house import House


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Folder(tmp_path_factory.mktemp("honest") / "evidence").build()


def report(given: Path | list[Path], out: Path, **options: Any) -> list[str]:
    said: list[str] = []
    chosen: dict[str, Any] = {"language": "en", "root": key_of("root").keyid, "empirical": None}
    write_report([given] if isinstance(given, Path) else given, out, say=said.append, **(chosen | options))
    return said


def result_of(**changes: Any) -> bytes:
    """What `audit empirical --json` writes for the folder's plan, without a guess that is right beyond chance."""
    told = {
        "canaries": 1000, "made": 500, "right": 260, "delta": "0.00001", "confidence": "0.95", "noise_part": "1",
        "claimed": "1.196944", "bound": "0", "ceiling": "5.05", "refuted": False,
    }  # fmt: skip
    return json.dumps(told | changes).encode()


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sigma=st.sampled_from(["1.2", "2", "3.5"]), rate=st.sampled_from(["0.05", "0.2"]), steps=st.integers(1, 6),
    rounds=st.integers(1, 3),
)  # fmt: skip
def test_every_number_of_the_report_is_the_verifiers(
    tmp_path_factory: pytest.TempPathFactory, sigma: str, rate: str, steps: int, rounds: int
) -> None:
    home = tmp_path_factory.mktemp("any")
    privacy = {"noise_multiplier": sigma, "sampling_rate": rate, "steps_per_round": steps}
    folder = Folder(home / "evidence", rounds=rounds, privacy=privacy).build()
    found = verify_evidence(folder, root=None, say=lambda _: None)
    report(folder, home / "report.html")
    assert printed_costs(home / "report.html") == verified_costs(found)


def printed_costs(page: Path) -> list[list[str]]:
    """Epsilon by two accountants and delta: of the job, then of all jobs on the data set."""
    text = html.unescape(page.read_text())
    rows = re.findall(r'<th scope="row">(?:This job|All jobs on this data set)</th>(.*?)</tr>', text)[:2]
    return [[re.sub("<.*?>", "", cell) for cell in row.split("</td>")[:3]] for row in rows]


def verified_costs(found: Findings) -> list[list[str]]:
    costs, delta = found.costs, found.delta
    both = ((costs.job_pld, costs.job_rdp, delta), (costs.dataset_pld, costs.dataset_rdp, delta))
    return [[decimal_text(number) for number in numbers] for numbers in both]


def test_what_the_job_cost_and_what_all_jobs_cost_are_told_apart(house: House, tmp_path: Path) -> None:
    found = verify_evidence(house.evidence("job-2"), root=None, say=lambda _: None)
    report(house.evidence("job-2"), tmp_path / "report.html")
    job, dataset = printed_costs(tmp_path / "report.html")
    assert [job, dataset] == verified_costs(found)
    assert Decimal(job[0]) < Decimal(dataset[0])


@pytest.mark.parametrize("name", ["report.html", "REPORT.PDF"])
def test_the_command_verifies_step_by_step_and_writes_the_file(
    honest: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    words = ["audit", "report", honest, "--out", out, "--language", "de", "--root", key_of("root").keyid]
    monkeypatch.setattr("sys.argv", ["fl-alliance", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("(1) manifest")
    assert lines[-1] == f"wrote {out}"
    data = out.read_bytes()
    assert data.startswith(b"%PDF-") if name.lower().endswith("pdf") else b'<html lang="de">' in data


@pytest.mark.parametrize("file", ["ledger.jsonl", "report.html", "rounds/0001/record.dsse.json"])
def test_of_evidence_that_was_changed_there_is_no_report(tmp_path: Path, file: str) -> None:
    folder = Folder(tmp_path / "evidence", rounds=1).build()
    path = folder / file
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(EvidenceRefused, match=f"step 1, {file}"):
        report(folder, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Two finished jobs."""
    house = House(tmp_path / "lagos")
    for job in ("job-1", "job-2"):
        house.job(job, rounds=1)
    return house


def test_a_bundle_gives_the_report_of_one_job_or_of_all(house: House, tmp_path: Path) -> None:
    bundle = house.bundle(tmp_path / "lagos.zip")
    report([bundle], tmp_path / "one.html", job="job-2")
    report(house.evidence("job-2"), tmp_path / "folder.html")
    one, folder = ((tmp_path / name).read_text() for name in ("one.html", "folder.html"))
    assert "The bundle of evidence holds no plan that was refused." in one
    assert "made from a folder without them" in folder
    for name in ("one.html", "folder.html"):  # an institution prints its own from the folder
        check_printed(tmp_path / name, [bundle], root=None, job="job-2", say=lambda _: None)
    with pytest.raises(
        EvidenceRefused, match=r"printed, one.html: says .*The bundle of evidence holds”, the evidence gives “"
    ):
        check_printed(tmp_path / "one.html", [house.evidence("job-2")], root=None, say=lambda _: None)
    assert report([bundle], tmp_path / "all.html")[-1].startswith("together: 1 institutions, 2 jobs")
    with pytest.raises(BadConfig, match=r"no institution's job job-3 is in .*lagos.zip"):
        report([bundle], tmp_path / "none.html", job="job-3")
    assert not (tmp_path / "none.html").exists()


def test_plans_that_were_refused_are_in_the_report_of_a_bundle(house: House, tmp_path: Path) -> None:
    house.refuse("greedy", "BudgetExceeded", "this job: epsilon 9 is above epsilon_per_job 8")
    bundle = house.bundle(tmp_path / "lagos.zip")
    for name, job in (("one.html", "job-1"), ("all.html", None)):
        report([bundle], tmp_path / name, job=job)
        row = (
            html.unescape((tmp_path / name).read_text())
            .partition("Plans that were refused")[2]
            .partition("</tbody>")[0]
        )
        cells = re.findall(r">([^<>]+)</t[hd]>", row.partition("<tbody>")[2])
        assert cells == ["greedy", "lagos", "BudgetExceeded", "this job: epsilon 9 is above epsilon_per_job 8"]


@pytest.mark.parametrize(
    ("out", "options", "named"),
    [
        ("report.docx", {}, "out: .* must end with .html or .pdf"),
        ("report", {}, "out: .* must end with .html or .pdf"),
        ("report.html", {"language": "fr"}, "language: 'fr' must be one of de, en"),
        ("report.html", {"language": "../de"}, "language: '../de' must be one of"),
    ],
)
def test_what_can_not_be_printed_is_refused_before_anything_is_read(
    tmp_path: Path, out: str, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadConfig, match=named):
        report(tmp_path / "no folder", tmp_path / out, **options)
    assert not (tmp_path / out).exists()


def test_an_empirical_result_is_shown_beside_the_proved_bound(honest: Path, tmp_path: Path) -> None:
    from fl_alliance.privacy.empirical import Guesses, lower_bound

    perfect = Guesses(canaries=1000, made=500, right=260).perfect
    ceiling = decimal_text(Decimal(lower_bound(perfect, 1e-5, 0.95)).quantize(Decimal("0.000001"), "ROUND_FLOOR"))
    (tmp_path / "result.json").write_bytes(result_of(ceiling=ceiling))
    report(honest, tmp_path / "report.html", empirical=tmp_path / "result.json")
    page = html.unescape((tmp_path / "report.html").read_text())
    assert "Of 500 guesses who was in, 260 were right. So epsilon is at least 0 (95 per cent confidence" in page
    assert f"This audit can show at most {ceiling}." in page


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (result_of(noise_part="0"), "noise_part is 0, of this plan and these guesses it is 1"),
        (result_of(claimed="3.5"), "claimed is 3.5, of this plan and these guesses it is 1.196944"),
        (result_of(delta="0.0001"), "delta is 0.0001"),
        (result_of(bound="0.7"), "bound is 0.7, of this plan and these guesses it is 0"),
        (result_of(right=480, refuted=False), "bound is 0, of this plan and these guesses it is [1-9]"),
        (result_of(right=501), "right=501.* needs 0 <= right <= made"),
        (result_of(canaries=10**9), "canaries: "),
        (result_of(confidence="1"), "confidence 1.0 must be above 0 and below 1"),
        (result_of(extra=1), "extra: "),
        (b"[]", "empirical: file: "),
        (b"{", "empirical: file: "),
    ],
)
def test_an_empirical_result_that_is_none_of_this_plan_is_refused(
    honest: Path, tmp_path: Path, data: bytes, named: str
) -> None:
    (tmp_path / "result.json").write_bytes(data)
    with pytest.raises(BadConfig, match=named):
        report(honest, tmp_path / "report.html", empirical=tmp_path / "result.json")
    assert not (tmp_path / "report.html").exists()
