"""Bundles of everybody in a job, institutions and coordinator: they tell one truth, or the lie is named."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from fl_alliance.errors import BadConfig
from fl_alliance.evidence.archive import Archive, archive_of
from fl_alliance.evidence.bundle import BUNDLE
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import peek_document, sign_document
from fl_alliance.parties.audit_inputs import Audit, audited
from fl_alliance.parties.audit_printed import check_printed
from fl_alliance.parties.audit_report import write_report
from fl_alliance.parties.bundles import Wanted, institution_bundle
from fl_alliance.parties.coordinator_bundle import coordinator_bundle
from fl_alliance.parties.mail import Address, read_answer, write_answer
from fl_alliance.parties.simulate.alliance import Simulation
from fl_alliance.parties.simulate.settings import SimulationSettings
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.documents import AllianceMembers, EvidenceBundle, ManifestFile, RoundRecord
from fl_alliance.protocol.ids import digest_of
from fl_alliance.rounds import coordinator as machine
from tests.evidence.alliance import key_of, members_of
from tests.evidence.folder import Folder

SITES = ("site-001", "site-002", "site-003")
NOW = 1_900_000_000


class Everybody:
    """A whole job on real messages and ciphers, without training; and everybody's bundle of it."""

    def __init__(self, folder: Path) -> None:
        simulation = Simulation(SimulationSettings(members=3, parameters=50, rounds=2), folder / "alliance")
        assert isinstance(simulation.run(), machine.Finished)
        self.folder, self.homes = folder, folder / "alliance"
        for name in SITES:
            institution_bundle(self.homes / name, self.place(name), Wanted(), clock=lambda: NOW)
        coordinator_bundle(self.homes / "coordinator", self.place("coordinator"), Wanted(), clock=lambda: NOW)
        self.places = [self.place(name) for name in (*SITES, "coordinator")]

    def place(self, name: str) -> Path:
        return self.folder / f"{name}.zip"

    def key(self, name: str) -> IdentityKey:
        return IdentityKey.load(self.homes / name / "keys" / "identity.key")

    def files(self, name: str) -> dict[str, bytes]:
        with Archive.open(self.place(name)) as archive:
            return {file: archive.read(file) for file in archive.names}


@pytest.fixture(scope="module")
def everybody(tmp_path_factory: pytest.TempPathFactory) -> Everybody:
    return Everybody(tmp_path_factory.mktemp("everybody"))


def verified(places: Sequence[Path], root: str | None = None) -> Audit:
    with audited(places, root=root) as audit:
        return audit


def lie_of_the_coordinator(everybody: Everybody, out: Path, changes: dict[str, bytes]) -> Path:
    """Its bundle with other files, and a new list of them under its own key."""
    files = everybody.files("coordinator") | changes
    bundle = peek_document(files[BUNDLE], EvidenceBundle)
    listed = tuple(
        ManifestFile(name=name, digest=digest_of(data), length=len(data))
        for name, data in sorted(files.items())
        if name != BUNDLE
    )
    files[BUNDLE] = sign_document(everybody.key("coordinator"), bundle.model_copy(update={"files": listed}))
    out.write_bytes(b"".join(archive_of(files, files.__getitem__)))
    return out


def test_everybodys_bundles_hold_and_tell_one_truth(everybody: Everybody) -> None:
    audit = verified(everybody.places)
    assert audit.refusals == []
    assert [step.number for step in audit.together] == [13, 13, 13, 14, 14, 14, 15]
    last = audit.inputs[-1].jobs[0]
    assert [step.number for step in last.steps] == [2, 3, 4, 7, 8, 10]
    assert last.findings is None
    assert last.relayed is not None
    assert len(last.relayed.records) == 2


def test_the_coordinator_has_what_the_institutions_have(everybody: Everybody) -> None:
    theirs = everybody.files("coordinator")
    own = re.compile(r"jobs/job-1/(policy|ledger|report|manifest|software|approvals|log/receipt)")
    for site in SITES:
        shared = {n: d for n, d in everybody.files(site).items() if n.startswith("jobs/") and not own.match(n)}
        assert len(shared) > 40
        assert shared.items() <= theirs.items()


def test_the_coordinators_bundle_is_the_same_each_time(everybody: Everybody, tmp_path: Path) -> None:
    coordinator_bundle(everybody.homes / "coordinator", tmp_path / "again.zip", Wanted(), clock=lambda: NOW)
    assert (tmp_path / "again.zip").read_bytes() == everybody.place("coordinator").read_bytes()
    with pytest.raises(BadConfig, match="job: 'job-7' is no finished job; finished here: job-1"):
        coordinator_bundle(everybody.homes / "coordinator", tmp_path / "none.zip", Wanted(jobs=("job-7",)))


def test_a_member_that_signed_two_messages_for_one_place_is_found(everybody: Everybody, tmp_path: Path) -> None:
    """Each bundle holds: only side by side they show that the member spoke with two tongues."""
    name = "jobs/job-1/rounds/0001/messages/revealed-shares.site-002.json"
    members = peek_document(everybody.files("coordinator")["members.dsse.json"], AllianceMembers)
    keys = {member.name: base64.b64decode(member.identity) for member in members.members}
    _, said = read_answer(Address("coordinator", "coordinator", keys), everybody.files("coordinator")[name])
    assert isinstance(said, m.RevealedShares)
    other = said.model_copy(update={"sealed": base64.b64encode(bytes(32)).decode()})
    envelope = write_answer(Address("site-002", "coordinator", keys), everybody.key("site-002"), other)
    lie = lie_of_the_coordinator(everybody, tmp_path / "lie.zip", {name: envelope})
    assert verified([lie]).holds
    (refusal,) = verified([everybody.place("site-001"), lie]).refusals
    assert refusal.startswith("step 15, rounds/0001/messages/revealed-shares.site-002.json: is sha256:")


def test_a_coordinator_that_signs_another_record_for_the_auditor_is_found(everybody: Everybody, tmp_path: Path) -> None:
    name = "jobs/job-1/rounds/0002/record.dsse.json"
    record = peek_document(everybody.files("coordinator")[name], RoundRecord)
    other = sign_document(everybody.key("coordinator"), record.model_copy(update={"time": record.time + 1}))
    lie = lie_of_the_coordinator(everybody, tmp_path / "lie.zip", {name: other})
    audit = verified([lie])
    assert audit.refusals[0].startswith("step 10, jobs/job-1/log: checkpoint-0002.dsse.json: no round-record sha256:")
    assert audit.exit_code == 16


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "rounds/0002/messages/sealed-update.site-003.json",
            "step 8, jobs/job-1/rounds/0002/messages/sealed-update.site",
        ),
        ("rounds/0001/record.dsse.json", "step 7, jobs/job-1/rounds/0001/record.dsse.json: is missing"),
        ("log/leaves", "step 10, jobs/job-1/log: leaves is missing"),
    ],
)
def test_what_the_coordinator_leaves_out_is_missed(everybody: Everybody, tmp_path: Path, name: str, why: str) -> None:
    files = everybody.files("coordinator")
    del files[f"jobs/job-1/{name}"]
    bundle = peek_document(files[BUNDLE], EvidenceBundle)
    listed = tuple(file for file in bundle.files if file.name in files)
    files[BUNDLE] = sign_document(everybody.key("coordinator"), bundle.model_copy(update={"files": listed}))
    (tmp_path / "lie.zip").write_bytes(b"".join(archive_of(files, files.__getitem__)))
    (refusal,) = verified([tmp_path / "lie.zip"]).refusals
    assert refusal.startswith(why)


# ---- folders, made on paper, each of which holds by itself


def beside(first: Folder, path: Path, *, ledger: bool = True, **changes: object) -> Folder:
    """A folder of the same institution on the same log, and on the same ledger if wanted."""
    second = Folder(path, **changes)
    second.log, second.book = first.log, first.book
    if ledger:
        second.write("ledger.jsonl", (first.path / "ledger.jsonl").read_bytes())
    return second


@pytest.fixture
def first(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "one" / "evidence", rounds=1)
    folder.build()
    return folder


def refused(first: Folder, second: Path) -> str:
    assert verified([first.path]).holds
    assert verified([second]).holds
    (refusal,) = verified([first.path, second]).refusals
    return refusal


def test_a_second_ledger_for_the_next_job_is_found(first: Folder, tmp_path: Path) -> None:
    """The cheap way to spend a budget twice."""
    second = beside(first, tmp_path / "two" / "evidence", ledger=False, job="job-2", rounds=1).build()
    assert refused(first, second) == (
        f"step 14, ledger.jsonl: lagos signed two ledgers of cases: entry 1 in {first.path} (job-1) is another than in "
        f"{second} (job-2)"
    )


def test_two_plans_under_one_jobs_name_are_found(first: Folder, tmp_path: Path) -> None:
    second = beside(first, tmp_path / "two" / "evidence", ledger=False, rounds=1, max_tokens=65)
    found = verified([first.path, second.build()]).refusals
    assert [refusal.partition(":")[0] for refusal in found] == ["step 14, ledger.jsonl", "step 15, plan.dsse.json"]


def test_two_lists_of_members_with_one_number_are_found(
    first: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = members_of(("berlin", "lagos", "lima", "oslo"))
    monkeypatch.setattr("tests.evidence.folder.members_of", lambda: more)
    second = beside(first, tmp_path / "two" / "evidence", job="job-2", rounds=1).build()
    assert refused(first, second).startswith("step 15, members.dsse.json: two lists of members with number 1, in ")


def test_two_alliances_are_not_compared_as_one(first: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.evidence.folder.key_of", lambda name: key_of("another root" if name == "root" else name))
    second = Folder(tmp_path / "two" / "evidence", rounds=1).build()
    found = verified([first.path, second]).refusals
    assert found[0].startswith("step 2, root.pub.json: the inputs are of different alliances, with roots ")


def test_a_report_of_everybody_may_be_signed_by_the_coordinator_and_needs_no_bundle_of_its(
    everybody: Everybody, tmp_path: Path
) -> None:
    *houses, coordinator = everybody.places
    out = tmp_path / "all.html"
    said: list[str] = []
    key = everybody.key("coordinator")
    write_report(everybody.places, out, language="en", root=None, say=said.append, key=key)
    assert said[-1] == "together: 3 institutions, 1 jobs; plans, records and ledgers agree"
    assert "The bundle of evidence holds no plan that was refused." in out.read_text()
    check_printed(out, houses, root=None, say=said.append)
    assert said[-1] == "printed: all.html is the report of this evidence, to the byte; signed by coordinator"
    with pytest.raises(BadConfig, match=r"evidence: no institution's job is in .*coordinator.zip"):
        write_report([coordinator], tmp_path / "none.html", language="en", root=None, say=said.append)
