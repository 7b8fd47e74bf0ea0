"""Write the conformance vectors of evidence anew: `python -m tests.evidence.make_vectors`.

Every key is derived from its owner's name (tests/evidence/alliance.py), nothing is drawn and no clock is read: the same
program writes the same bytes. A folder that is no case any more is removed.
"""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fl_alliance.parties.audit_steps import EXIT_CODES, STEPS
from tests.evidence import cases as room
from tests.evidence.alliance import key_of
from tests.evidence.cases.case import CASES, Case

HERE: Final = Path(__file__).parent / "vectors"

README: Final = """\
# Vectors of evidence

What `fl-alliance audit verify` must say, case by case; for a second implementation of
[docs/SPEC.md](../../../docs/SPEC.md), 3.4, 3.5 and 3.7, and the steps of [docs/audit.md](../../../docs/audit.md).
{count} cases, of which {fail} must be refused; their folders end in `_fail`.

    CASE/README.md       what was done, by whom, and which step must refuse it
         expected.json   the same for programs
         *.zip           the inputs, which are verified together

`expected.json`: `inputs`: files, sorted, all given at once; some lie in another case's folder. `root`: fingerprint that
the auditor expects, or null: none was given. `result`: `holds` or `refused`. `exit_code`: of the command. Where it is
refused: `step` and `step_name`; `file` that the first refusal is about, by its name inside the input; `refusals`: how
many there are, all of this step. `why` is a part of this implementation's words: another one need not say the same.

Each forgery was signed again by whoever made it, all the way up, so that no earlier step sees anything. To stay small,
most that fail hold no file that only later steps read: a verifier with a hole comes to one of those. Compare the step.

Everything is fixed: times begin at Unix second 1,800,000,000. The Ed25519 seed of `NAME` is SHA-256 of the text
`test key of NAME`. **Every key here is public: use none of it.** Key ids of the parties:

{keys}

`python -m tests.evidence.make_vectors` writes all of it anew, to the same bytes; the cases are functions in
`tests/evidence/cases/`.

{table}
"""


def all_cases(*, written: bool = True) -> Mapping[str, Case]:
    """The cases of every module in `cases`, by name: those that have a folder, or those that have none."""
    for module in pkgutil.iter_modules(room.__path__):
        importlib.import_module(f"{room.__name__}.{module.name}")
    return {name: case for name, case in sorted(CASES.items()) if case.written == written}


def readme(cases: Mapping[str, Case]) -> str:
    """The page on all of them."""
    keys = "\n".join(f"    {name:<8}{key_of(name).keyid}" for name in ("root", "office", "berlin", "lagos", "lima"))
    rows = ["| case | must |", "|---|---|"]
    for name, case in cases.items():
        must = (
            "hold"
            if case.step is None
            else f"fail at step {case.step} ({STEPS[case.step]}), code {EXIT_CODES[case.step]}"
        )
        rows.append(f"| [{name}]({name}/README.md) | {must} |")
    fail = sum(case.step is not None for case in cases.values())
    return README.format(count=len(cases), fail=fail, keys=keys, table="\n".join(rows)).rstrip() + "\n"


def write(folder: Path) -> None:
    """Replace what is in `folder`."""
    cases = all_cases()
    for old in folder.glob("*/"):
        shutil.rmtree(old)
    for name, case in cases.items():
        (folder / name).mkdir(parents=True)
        for file, data in case.files().items():
            (folder / name / file).write_bytes(data)
    (folder / "README.md").write_text(readme(cases))


if __name__ == "__main__":
    write(HERE)
