"""Cut three institutes out of MedQuAD and write the settings of a demo with a real model.

    python -m bench.medquad MODEL_FOLDER medquad.jsonl.gz OUT
    fl-alliance demo --real OUT/real.toml

MODEL_FOLDER: a local Qwen2 or Qwen3 (safetensors). The data file has one JSON object a line with the fields source (the
institute), focus (the disease), q and a: MedQuAD (Ben Abacha and Demner-Fushman 2019), CC BY 4.0, which this project
does not ship. The unit of privacy is the disease, here in the patient's place; the split is by unit.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections import defaultdict
from pathlib import Path

INSTITUTES = {"gard": "GARD", "genetics-home": "GHR", "medline-plus": "MPlusHealthTopics"}
WORDS = 40

SETTINGS = """\
# Written by bench.medquad. Few steps of a large model on a small machine: it shows that the run works, not what it can.
alliance = "medquad-alliance"
job = "medquad"
model = {model}
rounds = {rounds}
threshold = 2
quorum = 3
max_tokens = 96
epsilon_cap = "8"
phase_seconds = 7200

[adapter]
rank = 4
alpha = 8
targets = ["o_proj", "q_proj", "v_proj"]
public_seed = 2019

[optimizer]
name = "sgd"
learning_rate = "0.5"
momentum = "0"

[privacy]
unit = "disease"
clip_norm = "0.5"
noise_multiplier = "0.6"
sampling_rate = "0.016"
steps_per_round = {steps}
records_per_unit = 1
delta = "0.00001"

[sum]
coordinate_clip = "0.25"
bits = 16

[columns]
unit = "disease"
prompt = "question"
answer = "answer"
"""

SITE = """
[[institutions]]
name = "{name}"
train = "{name}.train.jsonl"
heldout = "{name}.heldout.jsonl"
declared_units = {units}
"""


def main() -> None:
    """Write data files and settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("medquad", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--units", type=int, default=500, help="training units of each institute")
    parser.add_argument("--heldout", type=int, default=12, help="held-out units of each institute")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="steps a round")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    text = SETTINGS.format(
        model=json.dumps(str(arguments.model.resolve())), rounds=arguments.rounds, steps=arguments.steps
    )
    with gzip.open(arguments.medquad, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for name, source in INSTITUTES.items():
        write_institute(arguments.out, name, [row for row in rows if row["source"] == source], arguments)
        text += SITE.format(name=name, units=arguments.units)
    (arguments.out / "real.toml").write_text(text)
    print(f"fl-alliance demo --real {arguments.out / 'real.toml'}")


def write_institute(out: Path, name: str, rows: list[dict[str, str]], arguments: argparse.Namespace) -> None:
    """Write one institute's training and held-out records; units in the order of their SHA-256."""
    units: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        short = " ".join(row["a"].split()[:WORDS])
        units[row["focus"]].append({"disease": row["focus"], "question": row["q"], "answer": short})
    order = sorted(units, key=lambda unit: hashlib.sha256(unit.encode()).digest())
    parts = {"heldout": order[: arguments.heldout], "train": order[arguments.heldout :][: arguments.units]}
    for part, chosen in parts.items():
        lines = [json.dumps(row) + "\n" for unit in chosen for row in units[unit][:1]]
        (out / f"{name}.{part}.jsonl").write_text("".join(lines))
    print(f"{name}: {len(parts['train'])} training units, {len(parts['heldout'])} held out")


if __name__ == "__main__":
    main()
