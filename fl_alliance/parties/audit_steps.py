"""The numbered steps of an audit of evidence, what each found, and the exit code of the command.

step             exit code   what is compared
 0  archive             10   a bundle's zip file is byte for byte as it must be written
 1  manifest            10   each file is one that a signed list names, unchanged
 2  root                11   the alliance's root key is the expected one
 3  members             11   the root signed the list of members, the signer of the evidence is in it
 4  plan                12   the coordinator signed it
 5  policy              12   the institution signed it, it allows the plan, the persons it asks for approved
 6  ledger              13   every charge signed and chained
 7  rounds              13   a record for each round and a charge for each record
 8  messages            14   the members' signatures say the same as the records: contributors, sum, votes
 9  epsilon             15   recomputed from the ledger; equals the report, within every cap
10  log                 16   what the job relied on is in the coordinator's log, which only grew
13  one log             18   of several inputs: one history
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

STEPS: Final = {
    0: "archive", 1: "manifest", 2: "root", 3: "members", 4: "plan", 5: "policy", 6: "ledger", 7: "rounds",
    8: "messages", 9: "epsilon", 10: "log", 11: "software", 12: "refusals", 13: "one log", 14: "one ledger",
    15: "one truth",
}  # fmt: skip
EXIT_CODES: Final = {
    0: 10, 1: 10, 2: 11, 3: 11, 4: 12, 5: 12, 6: 13, 7: 13, 8: 14, 9: 15, 10: 16, 11: 17, 12: 17,
    13: 18, 14: 18, 15: 18,
}  # fmt: skip
"""By step. 0: everything holds. 1: the command itself was given something wrong. 2: it was not understood."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step found."""

    number: int
    holds: bool
    text: str
    """What it shows; or why it is refused."""
    file: str = ""
    """Of a refusal: the file that is wrong."""

    @property
    def name(self) -> str:
        """In one or two words."""
        return STEPS[self.number]

    @property
    def line(self) -> str:
        """For people."""
        return f"({self.number}) {self.text}" if self.holds else f"({self.number}) REFUSED {self.file}: {self.text}"

    @property
    def refusal(self) -> str:
        """A refusal, as the error that it was."""
        return f"step {self.number}, {self.file}: {self.text}"


def exit_code_of(steps: Iterable[Step]) -> int:
    """Return 0 if all steps hold, else the code of the first that does not, in the order of their numbers."""
    failed = [step.number for step in steps if not step.holds]
    return EXIT_CODES[min(failed)] if failed else 0
