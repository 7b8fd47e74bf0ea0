"""What `make demo` leaves at its end: a screen for people and a file for programs, of findings on real signatures."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.parties.demo import Outcome, outcome_json
from fl_alliance.parties.demo.screen import show_outcome
from fl_alliance.parties.demo.table import Line
from tests.evidence.alliance import key_of
from tests.evidence.folder import Folder


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("demo") / "evidence"
    Folder(folder).build()
    found = verify_evidence(folder, root=key_of("root").keyid, say=lambda _: None)
    return Outcome(
        sites=(found.institution,),
        lines=(Line("base", 5.25, (5.25,)), Line("alliance", 4.125, (4.125,))),
        findings=(found,),
        adapter=folder.parent / "adapter",
        reports=(folder / "report.html",),
        parameters=1000,
        upload_bytes=4000,
        seconds={"job": 331.0},
    )


def test_the_file_for_programs_has_the_auditors_numbers_and_no_document(outcome: Outcome):
    told = json.loads(outcome_json(outcome))
    (found,) = outcome.findings
    assert set(told) == set(vars(outcome))
    assert told["lines"][1] == {"name": "alliance", "mean": 4.125, "each": [4.125]}
    assert told["findings"][0]["costs"]["job_pld"] == str(found.costs.job_pld)
    assert set(told["findings"][0]) == set(vars(found)) - {"sources"}
    assert told["adapter"] == str(outcome.adapter)


def test_the_screen_has_every_line_both_epsilons_and_the_command_that_verifies(outcome: Outcome):
    screen = io.StringIO()
    show_outcome(Console(file=screen, width=200), outcome)
    (found,) = outcome.findings
    for part in (
        "alliance", "4.1250", f"epsilon {found.costs.job_pld} (PLD), {found.costs.job_rdp} (RDP)", "4.00 each",
        f"fl-alliance audit verify {Path(outcome.reports[0]).parent} --root {found.root}", "job 331 s",
    ):  # fmt: skip
        assert part in screen.getvalue()
