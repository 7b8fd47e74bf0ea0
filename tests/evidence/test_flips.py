"""One changed byte of a bundle is found wherever it is. All of them: `python -m tests.evidence.flips`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from fl_alliance.errors import EvidenceRefused
from fl_alliance.evidence.archive import Archive
from tests.evidence import flips
from tests.evidence.house import small_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("small"))


def test_one_changed_byte_is_found_in_a_thousand_places_and_at_both_ends(bundle: Path) -> None:
    data = bundle.read_bytes()
    flips.check(data)
    ends = [*range(200), *range(len(data) - 200, len(data))]
    found: Counter[str] = Counter()
    assert flips.missed(data, [*ends, *Random(7).sample(range(len(data)), 600)], found) == []
    assert found.total() == 1000


def test_a_changed_byte_whose_checksums_were_made_to_fit_is_found_in_each_file(bundle: Path) -> None:
    """CRCs keep nobody from anything: the digests in signed lists do. Each file of the bundle, by its name."""
    with Archive.open(bundle) as archive:
        lengths = {name: archive.length(name) for name in archive.names}
    assert len(lengths) > 40
    for number, (name, length) in enumerate(lengths.items()):
        if not length:
            continue
        with pytest.raises(EvidenceRefused) as refused:
            flips.check(flips.fitting(bundle.read_bytes(), name, number * 7919 % length))
        step, file, _ = refused.value.parts
        assert step == 1
        assert file == name or name == f"jobs/job-1/{file}"


def test_the_search_finds_a_byte_that_does_not_count(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody compares the job's files with its list, fitting changes of them are missed: the tests have power."""
    monkeypatch.setattr(flips, "check_manifest", lambda _: None)
    flips.check(flips.fitting(bundle.read_bytes(), "jobs/job-1/ledger.jsonl", 100))
    with pytest.raises(EvidenceRefused, match=r"^step 1, ledger\.jsonl: "):
        flips.check(flips.fitting(bundle.read_bytes(), "ledger.jsonl", 100))
