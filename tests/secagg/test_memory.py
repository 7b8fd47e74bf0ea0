"""The coordinator's memory does not grow with the number of members: one plan of 100 members, sums of 10 and of 100.

    MEMORY_PARAMETERS=1000000 pytest tests/secagg/test_memory.py -s        for an adapter of a million parameters

One plan for both, so that a parameter costs the same: with fewer members more digits share a slot.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.ids import blob_ref
from fl_alliance.secagg import cipher
from fl_alliance.secagg.parameters import sum_parameters
from fl_alliance.store.blobs import FolderBlobs
from tests.rounds.real import real_plan

PARAMETERS = int(os.environ.get("MEMORY_PARAMETERS", "200000"))
BITS = 12

ADDER = """
import json, sys
from pathlib import Path
from fl_alliance.parties.adder import UploadAdder
from fl_alliance.protocol.ids import BlobRef
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.protocol.codec import decode
from fl_alliance.store.blobs import FolderBlobs

def peak(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

folder, count, kept = Path(sys.argv[1]), int(sys.argv[2]), []
refs = [BlobRef(**fields) for fields in json.loads((folder / "refs.json").read_text())]
plan = decode(TrainingPlan, (folder / "plan.json").read_bytes())
adder = UploadAdder(plan, FolderBlobs(folder))
uploads = {name: refs[n % len(refs)] for n, name in enumerate(plan.names[:count])}
for name, ref in uploads.items():
    adder.arrived(name, ref)
    if "hoard" in sys.argv:
        kept.append(b"".join(adder._blobs.read(ref)))
assert len(adder._added) == count
adder._running.to_bytes()
(worker,) = adder._running._chunks._workers
peaks = {"worker": peak(worker._process.pid)}
adder.total(uploads)
peaks["adder"] = peak("self")
print(json.dumps(peaks))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three uploads, which the members share: what differs in them changes no size."""
    folder, p = tmp_path_factory.mktemp("blobs"), sum_parameters(members=100, bits=BITS)
    key, blobs, refs = cipher.AllianceKey.generate(p), FolderBlobs(folder), []
    for seed in range(3):
        slots = np.random.default_rng(seed).integers(0, 2**p.modulus_bits, p.slots(PARAMETERS), dtype=np.uint64)
        upload = cipher.seal(slots, key=key, parameters=p)
        refs.append(blob_ref(upload))
        blobs.put(refs[-1], [upload])
    (folder / "plan.json").write_bytes(encode(real_plan(100, BITS)))
    (folder / "refs.json").write_text(json.dumps([ref.model_dump() for ref in refs]))
    return folder


def peaks(folder: Path, members: int, *how: str) -> dict[str, int]:
    """Peak resident KiB of the coordinator's process and of its worker."""
    run = subprocess.run(
        [sys.executable, "-c", ADDER, str(folder), str(members), *how], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found: dict[str, int] = json.loads(run.stdout)
    return found


def test_the_peak_with_100_members_is_that_with_10(folder: Path) -> None:
    few, many = peaks(folder, 10), peaks(folder, 100)
    print(f"\n{PARAMETERS} parameters, peak KiB: 10 members {few}, 100 members {many}")
    assert many["adder"] <= 1.2 * few["adder"]
    assert many["worker"] <= 1.2 * few["worker"]


def test_the_measure_sees_an_adder_that_keeps_every_upload(folder: Path) -> None:
    few, many = peaks(folder, 10, "hoard"), peaks(folder, 100, "hoard")
    assert many["adder"] > 1.2 * few["adder"]
