#!/usr/bin/env python3
"""Cut the demo's three institutions out of Webster's Revised Unabridged Dictionary (1913, public domain).

Input: a .jsonl.gz of {term, subject, definition}, read from the entries tagged `[1913 Webster]` of Debian's
`dict-gcide`. Output, for each institution: `<name>.train.jsonl` and `<name>.heldout.jsonl` with the fields headword
(the unit of privacy: the term in lower case), prompt ("Define: X") and answer (the definition, cut at the end of a
sentence or word).

A unit is never split: the SHA-256 of institution and headword orders the units; the first HELDOUT are held out, the
next UNITS train. All records of a unit (several senses) stay together, at most RECORDS of them. A headword may be known
to several institutions, as a patient may be: then it is a unit at each of them; a headword that is held out anywhere
trains nowhere.

    python prepare_data.py webster1913-subjects.jsonl.gz OUT_DIR
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
from pathlib import Path

INSTITUTIONS: dict[str, tuple[str, ...]] = {
    "medical-school": ("Med", "Anat", "Physiol", "Surg", "Pharm"),
    "science-school": ("Chem", "Physics", "Math", "Geol", "Astron"),
    "natural-history-school": ("Bot", "Zool", "Biol"),
}
HELDOUT = 200  # units per institution
UNITS = 3500  # training units per institution, at most
RECORDS = 2  # records of a unit, at most
WORDS = 26  # of an answer, at most: nine in ten below 42 tokens of the demo's tokenizer
SHORTEST = 3  # words of an answer, at least
Record = dict[str, str]


def cut(text: str) -> str:
    """Shorten to WORDS words: at the last sentence end past the third word, else at a word with a full stop."""
    words = text.split()
    if len(words) <= WORDS:
        return " ".join(words)
    ends = [i for i in range(SHORTEST, WORDS) if re.search(r"[a-z\])]{3}\.$", words[i])]
    if ends:
        return " ".join(words[: ends[-1] + 1])
    breaks = [i for i in range(WORDS // 2, WORDS) if words[i][-1] in ";,:"]
    kept = words[: breaks[-1] + 1 if breaks else WORDS]
    return " ".join(kept).rstrip(";,:") + "."


def place(name: str, unit: str) -> str:
    """The fixed order of units: SHA-256 of institution and headword."""
    return hashlib.sha256(f"{name}/{unit}".encode()).hexdigest()


def read_units(source: Path, subjects: tuple[str, ...]) -> dict[str, list[Record]]:
    """Return the records of each unit, in the order of the file, without repeated answers."""
    units: dict[str, list[Record]] = {}
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            term, answer = " ".join(entry["term"].split()), cut(entry["definition"])
            if entry["subject"] not in subjects or not term or len(answer.split()) < SHORTEST:
                continue
            records = units.setdefault(term.lower(), [])
            if len(records) < RECORDS and all(r["answer"] != answer for r in records):
                records.append({"headword": term.lower(), "prompt": f"Define: {term}", "answer": answer})
    return units


def write(path: Path, units: list[list[Record]]) -> None:
    """Write one JSON object a line."""
    rows = [json.dumps(r, ensure_ascii=False) for records in units for r in records]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(units)} units, {len(rows)} records, {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Write the six files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    houses = {name: read_units(args.source, subjects) for name, subjects in INSTITUTIONS.items()}
    orders = {name: sorted(units, key=lambda unit: place(name, unit)) for name, units in houses.items()}
    held = {unit for order in orders.values() for unit in order[:HELDOUT]}
    for name, order in orders.items():
        train = [unit for unit in order[HELDOUT:] if unit not in held][:UNITS]
        write(args.out / f"{name}.heldout.jsonl", [houses[name][unit] for unit in order[:HELDOUT]])
        write(args.out / f"{name}.train.jsonl", [houses[name][unit] for unit in train])


if __name__ == "__main__":
    main()
