"""The data of `bench.utility`: public sets that stand in for an alliance's private ones, split by unit.

* MedQuAD (Ben Abacha and Demner-Fushman 2019), CC BY 4.0, not shipped: one JSON object a line (gzip) with the fields
  source (the institute), focus (the disease), q and a. Unit: the disease, in the patient's place.
* UCI Heart Disease (Janosi, Steinbrunn, Pfisterer, Detrano 1988, doi 10.24432/C52P4X), CC BY 4.0, not shipped: 920
  patients of four hospitals, a CSV file with the column `dataset` for the hospital and `num` above 0 for the disease.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_alliance.training.records import CONTROL, Dialogue, Records, Turn, records_of

Units = Mapping[str, Sequence[Dialogue]]

WORDS: Final = 12
"""Words of an answer that are kept."""

QUESTIONS: Final = 3
"""Records of a disease that are kept, in the order of their SHA-256."""


@dataclass(frozen=True)
class Site:
    """One institution: its records by unit, no unit of a part in another part of any institution."""

    name: str
    train: Records
    validation: Records
    """For choosing settings, and nothing else."""
    heldout: Records
    """For the table, and nothing else."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How units are dealt: `heldout` and `validation` parts of each institution's units, and the most of each."""

    heldout: float = 0.25
    most_heldout: int = 20
    validation: float = 0.1
    most_validation: int = 15
    most_train: int = 100


def split(sites: Mapping[str, Units], shares: Shares) -> list[Site]:
    """Deal each institution's units into training, validation and held-out ones.

    Guarantees: a unit that is held out at one institution is in no other part of any; one that is for validation
    somewhere is trained on nowhere. The order is that of the SHA-256 of the unit's name, without case: the same on
    every machine, and the same disease comes first at each institute. Sites are sorted by name.
    Not guaranteed: that two names are two diseases.
    """
    orders = {name: sorted(units, key=_place) for name, units in sites.items()}
    held = _first(orders, lambda count: min(round(shares.heldout * count), shares.most_heldout), set())
    checked = _first(orders, lambda count: min(round(shares.validation * count), shares.most_validation), held)
    done = []
    for name in sorted(sites):
        units, order = sites[name], orders[name]
        heldout = [unit for unit in order if unit in held][: shares.most_heldout]
        validation = [unit for unit in order if unit in checked][: shares.most_validation]
        train = [unit for unit in order if unit not in held | checked][: shares.most_train]
        done.append(Site(name, *(records_of({u: units[u] for u in part}) for part in (train, validation, heldout))))
    return done


def _first(orders: Mapping[str, list[str]], count: Callable[[int], int], taken: set[str]) -> set[str]:
    """Return the first units of each order that are not `taken`, so many as `count` says of all, over all sites."""
    return {u for order in orders.values() for u in [u for u in order if u not in taken][: max(1, count(len(order)))]}


def _place(text: str) -> bytes:
    return hashlib.sha256(text.casefold().encode()).digest()


def ask(prompt: str, answer: str) -> Dialogue:
    """Return one question and its answer, without the marks of the chat format."""
    for mark in CONTROL:
        prompt, answer = prompt.replace(mark, " "), answer.replace(mark, " ")
    return (Turn("user", prompt), Turn("assistant", answer))


def read_medquad(path: Path) -> dict[str, Units]:
    """Return the nine institutes' diseases; names without case, answers cut at `WORDS` words."""
    sites: dict[str, dict[str, list[tuple[str, str]]]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            units = sites.setdefault(row["source"].lower(), {})
            units.setdefault(row["focus"].casefold().strip(), []).append((row["q"], " ".join(row["a"].split()[:WORDS])))
    return {name: {unit: _few(pairs) for unit, pairs in units.items()} for name, units in sites.items()}


def _few(pairs: Sequence[tuple[str, str]]) -> list[Dialogue]:
    return [ask(*pair) for pair in sorted(set(pairs), key=lambda pair: (_place(pair[0]), pair[1]))[:QUESTIONS]]


# ---- heart


NUMBERS: Final = ("age", "trestbps", "chol", "thalch", "oldpeak", "ca")
WORDS_OF: Final = ("sex", "cp", "fbs", "restecg", "exang", "slope", "thal")


@dataclass(frozen=True)
class Hospital:
    """The hospital's patients: `rows` (patients, features) with NaN for what is missing, `sick` (patients,)."""

    name: str
    patients: tuple[str, ...]
    texts: tuple[str, ...]
    rows: NDArray[np.float64]
    sick: NDArray[np.bool_]


def read_heart(path: Path) -> list[Hospital]:
    """Return the hospitals, sorted by name. Categories are one column each, over all hospitals."""
    with path.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    kinds = [(name, value) for name in WORDS_OF for value in sorted({row[name] for row in table} - {""})]
    by_name: dict[str, list[dict[str, str]]] = {}
    for row in table:
        by_name.setdefault("-".join(row["dataset"].lower().split()), []).append(row)
    return [_hospital(name, rows, kinds) for name, rows in sorted(by_name.items())]


def _hospital(name: str, rows: Sequence[Mapping[str, str]], kinds: Sequence[tuple[str, str]]) -> Hospital:
    features = [
        [_number(row[key]) for key in NUMBERS] + [float(row[key] == value) for key, value in kinds] for row in rows
    ]
    return Hospital(
        name=name,
        patients=tuple(f"patient {row['id']}" for row in rows),
        texts=tuple(describe(row) for row in rows),
        rows=np.array(features),
        sick=np.array([int(row["num"]) > 0 for row in rows]),
    )


def _number(text: str) -> float:
    return float(text) if text else float("nan")


def describe(row: Mapping[str, str]) -> str:
    """Return one patient in words: coarse, since a small tokenizer reads words better than digits."""
    said = [row["sex"].lower()]
    said += [_level("age", row["age"], (50, 60), ("young", "middle", "old"))]
    said += [row["cp"] or ""]
    said += [_level("chol", row["chol"], (1, 240), ("cholesterol zero", "cholesterol low", "cholesterol high"))]
    said += [_level("thalch", row["thalch"], (120, 150), ("heart slow", "heart middle", "heart fast"))]
    said += [_level("oldpeak", row["oldpeak"], (0.5, 1.5), ("depression none", "depression some", "depression strong"))]
    said += [{"TRUE": "angina by exercise", "FALSE": "no angina by exercise"}.get(row["exang"], "")]
    said += [row["slope"], row["thal"].replace("reversable", "reversible")]
    said += [f"vessels {int(float(row['ca']))}" if row["ca"] else ""]
    return ", ".join(word for word in said if word)


def _level(_: str, text: str, bounds: tuple[float, float], names: tuple[str, str, str]) -> str:
    if not text:
        return ""
    return names[sum(float(text) >= bound for bound in bounds)]
