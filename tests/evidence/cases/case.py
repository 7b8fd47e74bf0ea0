"""What a vector is, and the two marks that make a function one: `holds` and `refused`."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fl_alliance.parties.audit_steps import EXIT_CODES, STEPS
from tests.evidence.alliance import key_of
from tests.evidence.paper import Paper
from tests.evidence.sealing import UNREAD, handed_out

ROOT: Final = key_of("root").keyid
OUTSIDER: Final = "anybody who has the bundle, without a key"
INSTITUTION: Final = "the institution whose evidence it is, with its key"
COORDINATOR: Final = "the coordinator, with its key"
MEMBER: Final = "another member of the job, with its key"
ROOT_HOLDER: Final = "whoever holds the alliance's root key"
COLLUDERS: Final = "the coordinator and the institution together, with both keys"
NOBODY: Final = "nobody: everything is as it should be"

Inputs = bytes | Mapping[str, bytes | None] | Paper
"""`bundle.zip`; or several by name, None: another case has it; or all that lagos hands out of an alliance on paper."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One folder of the vectors."""

    name: str
    did: str
    """What was done, in Markdown."""
    by: str
    make: Callable[[], Inputs]
    step: int | None = None
    """That must refuse; None: everything holds."""
    file: str = ""
    """That the first refusal is about."""
    why: str = ""
    """Words of the refusal of this implementation."""
    root: str | None = ROOT
    """Fingerprint that the auditor expects."""
    whole: bool = False
    """Whether it holds every file of the job."""
    written: bool = True
    """Whether it has a folder; else only the test makes it and runs it, so that the folders stay small."""
    times: int = 1
    """How many refusals there are, all of this step: a lie may stand in several places."""

    def files(self) -> dict[str, bytes]:
        """The bytes of the case's folder."""
        token = UNREAD.set("" if self.whole or self.step is None else unread_after(self.step))
        try:
            made = self.make()
            if isinstance(made, Paper):
                made = handed_out(made)
        finally:
            UNREAD.reset(token)
        inputs = {"bundle.zip": made} if isinstance(made, bytes) else dict(made)
        expected = (json.dumps(self.expected(sorted(inputs)), indent=2) + "\n").encode()
        written = {name: data for name, data in inputs.items() if data is not None}
        return {**written, "README.md": self.readme(sorted(inputs)).encode(), "expected.json": expected}

    def expected(self, inputs: list[str]) -> dict[str, Any]:
        """What another implementation compares with."""
        result = {"inputs": inputs, "root": self.root, "result": "holds" if self.step is None else "refused"}
        if self.step is None:
            return result | {"exit_code": 0}
        return result | {
            "step": self.step, "step_name": STEPS[self.step], "exit_code": EXIT_CODES[self.step], "file": self.file,
            "why": self.why, "refusals": self.times,
        }  # fmt: skip

    def readme(self, inputs: list[str]) -> str:
        """What a person reads."""
        if self.step is None:
            must = "It holds: exit code 0."
        else:
            about = f" because of `{self.file}`" if self.file else ""
            must = f"Step {self.step} ({STEPS[self.step]}) must refuse it{about}: exit code {EXIT_CODES[self.step]}."
        by = f"By: {self.by}.\n\n" if self.step is not None else ""
        given = ", ".join(f"`{name}`" for name in inputs)
        return f"# {self.name}\n\n{self.did}\n\n{by}{must}\n\nInputs: {given}.\n"


def unread_after(step: int) -> str:
    """Which files of a job only steps after this one read: a case that fails holds none of them, to stay small."""
    if step < 7:
        return r"keys/|rounds/|log/"
    return {7: r"keys/|rounds/\d+/messages/|log/", 8: "log/", 9: "log/"}.get(step, "")


CASES: Final[dict[str, Case]] = {}
"""By name, all modules of this folder together."""


def _add(make: Callable[[], Inputs], **fields: Any) -> Callable[[], Inputs]:
    name = make.__name__.replace("_", "-") + ("" if fields.get("step") is None else "_fail")
    assert name not in CASES
    did = "\n".join(textwrap.wrap(inspect.getdoc(make) or "", 118, break_long_words=False, break_on_hyphens=False))
    CASES[name] = Case(name=name, did=did, make=make, **fields)
    return make


def holds(**more: Any) -> Callable[[Callable[[], Inputs]], Callable[[], Inputs]]:
    """The function makes evidence that holds; its docstring says what is special about it."""
    return lambda make: _add(make, by=NOBODY, **more)


def refused(
    step: int, file: str, why: str, *, by: str, **more: Any
) -> Callable[[Callable[[], Inputs]], Callable[[], Inputs]]:
    """The function makes evidence that step `step` must refuse for `file`; its docstring says what was done."""
    return lambda make: _add(make, step=step, file=file, why=why, by=by, **more)
