"""Bundles: one file of an institution's jobs, verified as it is; what was changed after signing is found by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fl_alliance import cli
from fl_alliance.errors import BadConfig, EvidenceRefused
from fl_alliance.evidence.archive import Archive, archive_of
from fl_alliance.evidence.bundle import BUNDLE, MANIFEST
from fl_alliance.evidence.sign import peek_document, sign_document
from fl_alliance.parties.audit_inputs import audited
from fl_alliance.parties.bundles import Wanted, institution_bundle
from fl_alliance.protocol.documents import EvidenceBundle, ManifestFile
from fl_alliance.protocol.ids import digest_of
from tests.evidence.alliance import key_of, policy_of
from tests.evidence.folder import ME, NOW, Folder
from tests.evidence.house import House

ROOT = key_of("root").keyid


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    made = House(tmp_path_factory.mktemp("house") / ME)
    made.job("job-1")
    made.job("job-2")
    return made


@pytest.fixture(scope="module")
def bundle(house: House, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return house.bundle(tmp_path_factory.mktemp("bundle") / "lagos.zip")


def files_of(bundle: Path) -> dict[str, bytes]:
    with Archive.open(bundle) as archive:
        return {name: archive.read(name) for name in archive.names}


def refusals(*places: Path, root: str | None = ROOT) -> list[str]:
    with audited(places, root=root) as audit:
        assert audit.holds == (not audit.refusals)
        return audit.refusals


def written(place: Path, files: dict[str, bytes]) -> Path:
    place.write_bytes(b"".join(archive_of(files, files.__getitem__)))
    return place


def resigned(place: Path, content: dict[str, bytes], *, signer: str = ME, **changes: Any) -> Path:
    """An archive of `content` with a new list of them: whoever has the key can sign what he likes."""
    before = peek_document(content[BUNDLE], EvidenceBundle)
    own = {name: data for name, data in content.items() if name.endswith(MANIFEST) or not name.startswith("jobs/")}
    listed = tuple(
        ManifestFile(name=n, digest=digest_of(data), length=len(data)) for n, data in sorted(own.items()) if n != BUNDLE
    )
    fields = {"files": listed, "key": key_of(signer).public_text, **changes}
    document = before.model_copy(update=fields)
    return written(place, content | {BUNDLE: sign_document(key_of(signer), document)})


def test_a_bundle_of_all_jobs_holds_step_by_step(bundle: Path) -> None:
    said: list[str] = []
    with audited([bundle], root=ROOT, say=said.append) as audit:
        assert audit.holds
        assert audit.exit_code == 0
        (given,) = audit.inputs
        assert given.bundle is not None
        assert (given.bundle.party, given.bundle.jobs) == (ME, ("job-1", "job-2"))
        assert [step.number for step in given.steps] == [0, 1, 2, 3, 6, 12]
        assert {step.number for step in audit.together} == {13, 14}
        for job in given.jobs:
            assert [step.number for step in job.steps] == list(range(1, 12))
            assert job.findings is not None
            assert job.findings.job == job.job
    assert said[0].startswith("(0) archive: ")
    assert [line for line in said if line.startswith("job ")] == ["job job-1:", "job job-2:"]


def test_the_same_evidence_gives_the_same_bytes(house: House, bundle: Path, tmp_path: Path) -> None:
    again = house.bundle(tmp_path / "again.zip")
    assert again.read_bytes() == bundle.read_bytes()
    assert again.stat().st_mode & 0o777 == 0o600


def test_what_is_bundled_is_the_folder_as_it_lies_there(house: House, tmp_path: Path) -> None:
    found = files_of(house.bundle(tmp_path / "one.zip", "job-2"))
    folder = house.evidence("job-2")
    beside = {name for name in found if not name.startswith("jobs/")}
    assert beside == {BUNDLE, "ledger.jsonl", "members.dsse.json", "policy.dsse.json", "root.pub.json"}
    there = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {name.removeprefix("jobs/job-2/"): data for name, data in found.items() if name not in beside} == there


def test_a_period_is_by_the_day_of_the_report(house: House, tmp_path: Path) -> None:
    out = tmp_path / "out.zip"
    assert Wanted.of((), "2027-01-15", "2027-01-15").has("job-1", NOW + 100)
    assert institution_bundle(house.home, out, Wanted.of((), "2027-01-15", None)).jobs == ("job-1", "job-2")
    assert not refusals(out)
    for wanted in (Wanted.of((), "2027-01-16", None), Wanted.of((), None, "2027-01-14")):
        with pytest.raises(BadConfig, match="no job ended then; finished here: job-1, job-2"):
            institution_bundle(house.home, tmp_path / "none.zip", wanted)
    with pytest.raises(BadConfig, match="until: '2027-1-33' is no day"):
        Wanted.of((), None, "2027-1-33")
    with pytest.raises(BadConfig, match="job: 'job-9' is no finished job; finished here: job-1, job-2"):
        house.bundle(tmp_path / "none.zip", "job-9")
    assert [path.name for path in tmp_path.iterdir()] == ["out.zip"]


def test_evidence_that_was_changed_in_the_house_is_not_bundled(tmp_path: Path) -> None:
    house = House(tmp_path / ME)
    house.job(rounds=1)
    house.bundle(tmp_path / "out.zip")
    before = (tmp_path / "out.zip").read_bytes()
    (house.evidence("job-1") / "ledger.jsonl").write_bytes(b"")
    with pytest.raises(EvidenceRefused, match=r"^step 1, ledger\.jsonl: 0 bytes"):
        house.bundle(tmp_path / "out.zip")
    assert (tmp_path / "out.zip").read_bytes() == before


# ---- changed after it was signed


def test_a_changed_file_is_found_by_its_name_in_the_bundle(bundle: Path, tmp_path: Path) -> None:
    files = files_of(bundle)
    for name in (BUNDLE, f"jobs/job-1/{MANIFEST}", "jobs/job-2/rounds/0001/record.dsse.json"):
        changed = written(tmp_path / "changed.zip", files | {name: files[name][:-1] + b" "})
        (refusal,) = refusals(changed)
        assert refusal.startswith(f"step 1, {name}: ")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("notes.txt", "step 1, notes.txt: is not listed in bundle.dsse.json"),
        ("jobs/job-1/notes.txt", "step 1, jobs/job-1/notes.txt: is not listed in manifest.dsse.json"),
        ("jobs/job-3/plan.dsse.json", "step 1, jobs/job-3: is not one of the jobs that bundle.dsse.json names"),
    ],
)
def test_a_file_more_is_found(bundle: Path, tmp_path: Path, name: str, why: str) -> None:
    assert refusals(written(tmp_path / "more.zip", files_of(bundle) | {name: b"hello"})) == [why]


@pytest.mark.parametrize(
    ("gone", "why"),
    [
        (BUNDLE, "step 1, bundle.dsse.json: is missing or not a plain file"),
        (f"jobs/job-1/{MANIFEST}", f"step 1, jobs/job-1/{MANIFEST}: is missing, bundle.dsse.json lists it"),
        ("jobs/job-2/ledger.jsonl", "step 1, jobs/job-2/ledger.jsonl: is missing, manifest.dsse.json lists it"),
        ("jobs/job-2/", "step 1, jobs/job-2: is missing, bundle.dsse.json names it"),
    ],
)
def test_a_file_less_is_found(bundle: Path, tmp_path: Path, gone: str, why: str) -> None:
    less = {name: data for name, data in files_of(bundle).items() if not name.startswith(gone)}
    assert refusals(written(tmp_path / "less.zip", less)) == [why]


def test_one_refused_job_does_not_hide_what_the_others_show(bundle: Path, tmp_path: Path) -> None:
    less = {name: data for name, data in files_of(bundle).items() if name != "jobs/job-1/report.html"}
    with audited([written(tmp_path / "less.zip", less)], root=ROOT) as audit:
        first, second = audit.inputs[0].jobs
        assert first.findings is None
        assert second.findings is not None
        assert audit.exit_code == 10


# ---- signed lies


def test_a_bundle_that_a_stranger_signed_is_refused(bundle: Path, tmp_path: Path) -> None:
    """Each job holds: it is the institution's own. The list around them is not."""
    (found,) = refusals(resigned(tmp_path / "lie.zip", files_of(bundle), signer="berlin"))
    right, wrong = key_of(ME).keyid, key_of("berlin").keyid
    assert found == f"step 3, members.dsse.json: lagos has key {right}, the bundle is signed with {wrong}"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"party": "oslo"}, "oslo is no institution of the alliance"),
        ({"party": "office"}, "office is no institution of the alliance"),
        ({"role": "coordinator"}, "lagos is no coordinator of the alliance"),
        ({"alliance": "schools"}, "of alliance clinics, the bundle is of schools"),
    ],
)
def test_a_bundle_under_another_name_is_refused(
    bundle: Path, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    files = files_of(bundle)
    if "role" in changes:  # whose list names every file, and which has neither policy nor ledger
        files = {name: data for name, data in files.items() if name not in ("policy.dsse.json", "ledger.jsonl")}
        changes = changes | {"files": described(files)}
    assert refusals(resigned(tmp_path / "lie.zip", files, **changes)) == [f"step 3, members.dsse.json: {why}"]


def described(files: dict[str, bytes]) -> tuple[ManifestFile, ...]:
    return tuple(
        ManifestFile(name=name, digest=digest_of(data), length=len(data))
        for name, data in sorted(files.items())
        if name != BUNDLE
    )


def test_anothers_jobs_in_ones_own_bundle_are_refused(bundle: Path, tmp_path: Path) -> None:
    """Lima's name, key, policy and empty ledger around what lagos did."""
    policy = sign_document(key_of("lima"), policy_of(institution="lima"))
    files = files_of(bundle) | {"policy.dsse.json": policy, "ledger.jsonl": b""}
    found = refusals(resigned(tmp_path / "lie.zip", files, signer="lima", party="lima"))
    assert found == [f"step 3, jobs/{job}/{MANIFEST}: party is lagos, must be lima" for job in ("job-1", "job-2")]


def test_a_job_under_another_jobs_name_is_refused(bundle: Path, tmp_path: Path) -> None:
    """Twice the cheap job and never the dear one."""
    files = {name: data for name, data in files_of(bundle).items() if not name.startswith("jobs/job-2/")}
    twice = files | {name.replace("job-1", "job-2"): data for name, data in files.items()}
    (refusal,) = refusals(resigned(tmp_path / "lie.zip", twice))
    assert refusal == "step 4, jobs/job-2/plan.dsse.json: job is job-1, must be job-2"


def test_a_ledger_that_leaves_a_charge_out_is_refused(bundle: Path, tmp_path: Path) -> None:
    """Whoever shortens the ledger that stands for to-day contradicts that of his last job."""
    files = files_of(bundle)
    short = b"".join(files["ledger.jsonl"].splitlines(keepends=True)[:-1])
    lie = resigned(tmp_path / "lie.zip", files | {"ledger.jsonl": short})
    assert refusals(lie) == [f"step 14, ledger.jsonl: {lie} holds 3 entries, {lie} (job-2), which is older, holds 4"]


def test_another_root_is_refused(bundle: Path) -> None:
    (found,) = refusals(bundle, root=digest_of(b"another"))
    assert found.startswith("step 2, root.pub.json: fingerprint")


def test_what_nobody_compared_is_said_to_be_so(bundle: Path) -> None:
    said: list[str] = []
    with audited([bundle], root=None, say=said.append) as audit:
        assert audit.holds
        assert all(job.findings is not None and not job.findings.root_compared for job in audit.inputs[0].jobs)
    assert sum("NOT COMPARED" in line for line in said) == 3


@pytest.mark.parametrize("name", ["records.jsonl", "refusals/note.txt", "adapter/adapter_model.safetensors"])
def test_what_slipped_into_a_bundle_is_refused_though_it_is_signed(bundle: Path, tmp_path: Path, name: str) -> None:
    files = files_of(bundle) | {name: b'{"patient":"clinic-7"}'}
    assert refusals(resigned(tmp_path / "lie.zip", files)) == [f"step 1, {name}: does not belong to evidence"]


@pytest.mark.parametrize("name", ["cases.jsonl", "rounds/0001/update.bin", "keys/alliance.key", "logs/a"])
def test_what_slipped_into_a_jobs_folder_is_refused_though_it_is_signed(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path / "evidence", rounds=1)
    folder.write(name, b'{"patient":"clinic-7"}')
    assert refusals(folder.build()) == [f"step 1, {name}: does not belong to evidence"]


# ---- the command


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["fl-alliance", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_the_commands_write_a_bundle_and_verify_it(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lagos.zip"
    assert run(monkeypatch, "institution", "evidence", house.home, "--job", "job-2", "--out", out) == 0
    assert f"wrote {out}: jobs job-2; signed by lagos" in capsys.readouterr().out
    assert run(monkeypatch, "audit", "verify", out, "--root", ROOT) == 0
    assert capsys.readouterr().out.endswith("the evidence holds\n")
    out.write_bytes(out.read_bytes() + b"\0")
    assert run(monkeypatch, "audit", "verify", out, house.evidence("job-1")) == 10
    said = capsys.readouterr()
    assert said.err == f"EvidenceRefused: {out}: step 0, archive: something follows its end\n"
    assert "holds" not in said.out
    assert run(monkeypatch, "audit", "verify", tmp_path / "nowhere") == 1
    assert capsys.readouterr().err.startswith("BadConfig: evidence: there is no ")
