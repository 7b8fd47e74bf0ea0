"""What leaves the houses in bundles after a real job: no record, no update, no secret, no true count of units."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl_alliance.evidence.archive import Archive
from fl_alliance.parties.audit_inputs import audited
from fl_alliance.parties.bundles import Wanted, institution_bundle
from fl_alliance.parties.coordinator_bundle import coordinator_bundle
from fl_alliance.rounds import coordinator as machine
from tests.parties import conftest
from tests.parties.conftest import SITES, Alliance
from tests.parties.haystack import Needles, peeled
from tests.parties.test_whole_run import spy

UNITS, RECORDS = 1487, 2113
"""Of each institution: numbers that stand nowhere by chance. Declared are 10,000."""
NUMBERS = {
    "version", "serial", "rounds", "round", "declared_units", "threshold", "quorum", "minimum_members", "rank", "alpha",
    "modules", "public_seed", "records_per_unit", "steps_per_round", "steps", "bits", "verifiers", "max_tokens",
    "accept_seconds", "phase_seconds", "approvals_needed", "sequence", "entries", "length", "sum_length", "size",
    "index", "time", "private_until_release", "warmup_rounds",
}  # fmt: skip
"""Every field of a bundle that holds an integer: of the public plan, of ciphertexts and of the log, or a time."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Alliance, dict[str, bytes]]:
    """A finished job, and every secret of its institutions."""
    secrets: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conftest, "write_records", write_records)
        spy(patch, secrets)
        alliance = conftest.build_in(
            tmp_path_factory.mktemp("run"),
            rounds=1,
            privacy=conftest.demo.PrivacySettings(
                unit="patient", clip_norm="1", noise_multiplier="4", sampling_rate="0.01", steps_per_round=2,
                records_per_unit=2, delta="0.00001",
            ),
        )  # fmt: skip
        assert isinstance(alliance.coordinator().run(), machine.Finished)
    return alliance, {f"secret {number}": secret for number, secret in enumerate(secrets) if len(secret) >= 16}


def write_records(data: Path) -> None:
    data.mkdir(parents=True, exist_ok=True)
    for name in conftest.FOUR:
        rows = [
            {"patient": f"{name}-{n % UNITS}", "prompt": f"Define: word {n}", "answer": f"a thing of {name}, the {n}th"}
            for n in range(RECORDS)
        ]
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def bundles(run: tuple[Alliance, dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    alliance, out = run[0], tmp_path_factory.mktemp("bundles")
    for name in SITES:
        institution_bundle(alliance.home(name), out / f"{name}.zip", Wanted())
    coordinator_bundle(alliance.home("coordinator"), out / "coordinator.zip", Wanted())
    return {path.stem: path for path in sorted(out.iterdir())}


def test_everybodys_bundles_of_a_real_job_hold_together(bundles: dict[str, Path]) -> None:
    with audited(list(bundles.values()), root=None) as audit:
        assert audit.refusals == []
        assert {step.number for step in audit.together} == {13, 14, 15}


def test_no_bundle_holds_a_record_or_a_unit(bundles: dict[str, Path]) -> None:
    needle = re.compile(rb"a thing of \w+, the|Define: word|\b(clinic|hospital|school)-\d")
    assert needle.search(peeled(json.dumps({"p": base64.b64encode(b'{"patient":"clinic-7"}').decode()}).encode()))
    for name, path in bundles.items():
        assert not (found := needle.search(peeled(path.read_bytes()))), f"{name}: {found}"


def test_no_bundle_holds_an_update_a_sum_or_a_key(
    run: tuple[Alliance, dict[str, bytes]], bundles: dict[str, Path]
) -> None:
    secrets = run[1]
    assert len(secrets) > 4 * len(SITES)
    needles = Needles(secrets)
    planted = next(iter(secrets.values()))
    assert needles.found_in(peeled(b'{"sealed":"' + base64.b64encode(planted) + b'"}'))
    for name, path in bundles.items():
        assert needles.found_in(peeled(path.read_bytes())) == set(), name


def test_no_bundle_holds_the_number_of_units_or_records_or_of_those_in_a_batch(bundles: dict[str, Path]) -> None:
    """The true counts stand nowhere; and every integer is in a field that is known to hold something public."""
    count = re.compile(rb"(?<![0-9A-Za-z+/=._-])(%d|%d)(?![0-9A-Za-z+/=_-])" % (UNITS, RECORDS))
    assert count.search(b'{"units":1487}')
    for name, path in bundles.items():
        data = re.sub(rb' d="M [^"]*"', b"", peeled(path.read_bytes()))  # the outlines of letters in a picture
        assert [data[max(0, at.start() - 60) : at.end() + 30] for at in count.finditer(data)] == [], name
        with Archive.open(path) as archive:
            for file in archive.names:
                if file.endswith((".json", ".jsonl")) and not file.endswith(".cdx.json"):
                    for line in archive.read(file).splitlines():
                        fields = set(integers(json.loads(line)))
                        assert fields <= NUMBERS, f"{name}: {file}: {fields - NUMBERS}"


def integers(value: Any, field: str = "") -> Iterator[str]:
    """Yield each field that holds an integer, also inside of base64."""
    match value:
        case bool():
            return
        case int():
            yield field
        case dict():
            for key, item in value.items():
                yield from integers(item, key)
        case list():
            for item in value:
                yield from integers(item, field)
        case str() if len(value) > 40:
            try:
                yield from integers(json.loads(base64.b64decode(value, validate=True)), field)
            except ValueError:
                return


def test_the_search_for_integers_finds_one_inside_of_envelopes() -> None:
    inside = base64.b64encode(b'{"predicate":{"units_in_batch":31,"names":["aaaaaaaaaaaaaaaaaaaa"]}}').decode()
    assert list(integers({"payload": inside})) == ["units_in_batch"]
