"""kill -9 at random instants of rounds, in short. The long form: `python -m tests.parties.ledger_kills --kills 200`."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.parties.ledger_kills import FAULTS, PHASES
from tests.parties.processes import ROOT


def test_killed_at_random_instants_of_rounds_the_ledger_never_counts_less_than_was_released() -> None:
    """And the same kills find each planted fault: a release or a read before the charge, a torn line that stays."""
    command = [sys.executable, "-m", "tests.parties.ledger_kills", "--kills", "25"]
    for fault in FAULTS:
        command += ["--fault", fault]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    honest, *faulty = done.stdout.splitlines()
    assert re.match(r"honest: 25 kills .*; nothing wrong$", honest)
    assert int(re.findall(r"(\d+) torn lines", honest)[0]) > 0
    assert all(name in honest for name in PHASES)
    assert [line.partition(":")[0] for line in faulty] == list(FAULTS)
    assert all("is not charged" in line for line in faulty[:2])
    assert "LedgerBroken" in faulty[2]
