"""The process-wide settings of a process that trains, each tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

HELD = """
import resource, sys
import torch
from fl_alliance.training import process
if sys.argv[1] == "prepared" and not process.prepare_process():
    print("other allocator"); sys.exit()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
torch.zeros(28 * 2**20, dtype=torch.uint8)  # raises glibc's own threshold
small, before = [], resident()
for _ in range(8):
    block = torch.ones(24 * 2**20, dtype=torch.uint8)
    small.append(torch.ones(100_000, dtype=torch.uint8))  # lives on above the large one
    large = small.append(block)
small = [kept for kept in small if kept.numel() < 2**20]
del block
print((resident() - before) >> 20)
"""


def held(how: str) -> str:
    return subprocess.run([sys.executable, "-c", HELD, how], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_activations_that_are_freed_below_small_gradients_leave_no_holes():
    prepared = held("prepared")
    if prepared == "other allocator":
        pytest.skip("this allocator is not glibc's")
    assert int(prepared) < 24 < 100 < int(held("as it is"))
