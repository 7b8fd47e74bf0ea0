"""The whole job over Flower with the parties as processes: who can knock, and what survives kill -9 of either side."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties import pki, setup, wiring
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.parties.demo import stage
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.documents import LedgerEntry, RoundRecord
from fl_alliance.protocol.envelope import Envelope
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.store.ledger_file import LedgerFile
from fl_alliance.transport.flower.tls import TlsFiles
from tests.parties.conftest import SITES, settings, write_records
from tests.parties.processes import ROOT, Party, journal, knock, listening, mapped, open_files

ENTRIES = 2 + (len(SITES) * 2 + 1) + (len(SITES) * 8 + 2)
"""Journal entries of a job of one round; the first two are the job and the heads that were seen before it."""
KILL_AT = (15, 19, 32)
"""Everybody has dealt shares and is to train; the sum was added; the record was signed and nobody has it."""


@dataclass
class Alliance:
    """Folders, the institutions' processes, and the coordinator's newest one."""

    folder: Path
    plan: TrainingPlan
    institutions: dict[str, Party] = field(default_factory=dict)
    parties: list[Party] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / setup.COORDINATOR

    def job(self, name: str, job: str) -> Path:
        return self.folder / name / "jobs" / job

    def coordinator(self, job: str) -> Party:
        return self._started(Party(self.folder, setup.COORDINATOR, "coordinator", "run", str(self.home), job))

    def institution(self, name: str) -> Party:
        party = self._started(Party(self.folder, name, "institution", "run", str(self.folder / name)))
        self.institutions[name] = party
        return party

    def _started(self, party: Party) -> Party:
        self.parties.append(party)
        return party

    def charges(self, name: str) -> tuple[LedgerEntry, ...]:
        """Return the verified ledger of an institution."""
        key = IdentityKey.load(setup.Keys(self.folder / name).identity).public
        path = self.folder / name / "ledger.jsonl"
        return LedgerFile(path, public_key=key, institution=name, dataset=f"{name}-records").read().entries


@pytest.fixture(scope="module")
def alliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alliance]:
    """An alliance whose institutions run."""
    base = tmp_path_factory.mktemp("processes")
    write_records(base / "data")
    folder = base / "alliance"
    plan = stage.prepare(settings(ROOT / "deploy/demo/model", base / "data", rounds=1), base, folder, threads=1)
    made = Alliance(folder, plan)
    try:
        for name in SITES:
            made.institution(name)
        yield made
    finally:
        for party in made.parties:
            party.kill()


@dataclass
class Story:
    """A job whose coordinator was killed again and again, and what was seen meanwhile."""

    alliance: Alliance
    institutions: dict[str, Party]
    coordinators: list[Party] = field(default_factory=list)
    killed_at: list[list[tuple[str, bytes]]] = field(default_factory=list)
    """The journal just before each kill."""
    answers: dict[str, bytes] = field(default_factory=dict)
    """What came back at the coordinator's door."""
    listening: dict[str, int] = field(default_factory=dict)
    mapped: dict[str, set[str]] = field(default_factory=dict)
    """Libraries in the memory of each party, at any time."""
    open_files: set[str] = field(default_factory=set)
    """Of the coordinator, at any time."""


@pytest.fixture(scope="module")
def story(alliance: Alliance) -> Story:
    made = Story(alliance, dict(alliance.institutions))
    for entries in (*KILL_AT, ENTRIES - 1):
        coordinator = run_until(made, entries)
        look(made, coordinator)
        if entries in KILL_AT:
            made.killed_at.append(journal(alliance.home, "job-1"))
            coordinator.kill()
    assert coordinator.wait() == 0, coordinator.log
    return made


def run_until(made: Story, entries: int) -> Party:
    """Start the coordinator and wait until its journal has so many entries."""
    coordinator, starts = made.alliance.coordinator("job-1"), len(made.coordinators) + 1
    made.coordinators.append(coordinator)
    coordinator.until(lambda: coordinator.log.count("listening on") == starts)
    made.answers = made.answers or knocks(made.alliance)
    coordinator.until(lambda: len(journal(made.alliance.home, "job-1")) >= entries)
    return coordinator


def look(made: Story, coordinator: Party) -> None:
    for name, party in {setup.COORDINATOR: coordinator, **made.institutions}.items():
        made.listening[name] = len(listening(party))
        made.mapped.setdefault(name, set()).update(mapped(party))
    made.open_files |= open_files(coordinator)


def knocks(alliance: Alliance) -> dict[str, bytes]:
    """What comes back at the coordinator's door, for the same request."""
    member = setup.Keys(alliance.folder / "clinic")
    own = TlsFiles(ca=member.tls_root, certificate=member.tls_certificate, key=member.tls_key)
    contexts = {
        "in the clear": None,
        "without a certificate": ssl.create_default_context(cafile=member.tls_root),
        "certified by another root": foreign_certificate(alliance.folder / "foreign", member.tls_root),
        "a member": own.client_context(),
    }
    return {who: knock(alliance.home, context) for who, context in contexts.items()}


def foreign_certificate(folder: Path, ca: Path) -> ssl.SSLContext:
    """A client whose certificate says clinic, signed by a root of its own that has our root's name."""
    folder.mkdir()
    root_key, root = pki.make_root("test-alliance")
    key = pki.new_key()
    certificate = pki.client_certificate(root_key, root, pki.signing_request(key, "clinic"), "clinic")
    files = TlsFiles(ca=ca, certificate=folder / "tls.pem", key=folder / "tls.key")
    files.certificate.write_bytes(pki.certificate_pem(certificate))
    files.key.write_bytes(pki.private_pem(key))
    return files.client_context()


def test_each_party_is_a_process_of_its_own_and_only_the_coordinator_listens(story: Story):
    """The coordinator's second socket is the one on loopback that wants a token."""
    pids = {party.pid for party in (*story.coordinators, *story.institutions.values())}
    assert len(pids) == len(KILL_AT) + 1 + len(SITES)
    assert story.listening == {setup.COORDINATOR: 3, "clinic": 0, "hospital": 0, "school": 0}


def test_the_coordinators_process_holds_no_torch_and_no_key_file(story: Story):
    assert story.mapped[setup.COORDINATOR] == {"tenseal"}
    assert all(story.mapped[name] == {"torch", "tenseal"} for name in SITES)
    assert any(path.endswith("/coordinator/journal.db") for path in story.open_files)
    assert [path for path in story.open_files if path.endswith((".key", ".pem")) or "/keys/" in path] == []
    assert [path for path in story.open_files if any(f"/{name}/" in path for name in SITES)] == []


@pytest.mark.parametrize("who", ["in the clear", "without a certificate", "certified by another root"])
def test_a_stranger_gets_no_answer(story: Story, who: str):
    """A member gets one to the same bytes."""
    assert story.answers["a member"].startswith(b"HTTP/1.1 404 ")
    assert b"HTTP/" not in story.answers[who]


def test_a_coordinator_killed_with_minus_nine_finishes_the_same_round(story: Story):
    entries = journal(story.alliance.home, "job-1")
    assert len(entries) == ENTRIES
    for target, before in zip(KILL_AT, story.killed_at, strict=True):
        assert target <= len(before) < ENTRIES
        assert entries[: len(before)] == before
    assert all(story.institutions[name].running() for name in SITES)
    records = {
        (story.alliance.job(name, "job-1") / "evidence/rounds/0001/record.dsse.json").read_bytes() for name in SITES
    }
    assert len(records) == 1
    assert peek_document(records.pop(), RoundRecord).votes == SITES


def test_a_round_that_is_asked_for_again_is_charged_once(story: Story):
    for name in SITES:
        verify_evidence(story.alliance.job(name, "job-1") / "evidence", root=None, say=lambda _: None)
        charged = [(charge.job, charge.round) for charge in story.alliance.charges(name)]
        assert charged[:1] == [("job-1", 1)]
        assert charged.count(("job-1", 1)) == 1


def test_an_institution_killed_after_its_charge_finishes_the_round_and_is_charged_once(story: Story):
    """It is started again while it trains, trains again, and only that update ever leaves."""
    alliance = story.alliance
    longer = alliance.plan.privacy.model_copy(update={"steps_per_round": 30})
    path = wiring.propose(alliance.home, alliance.plan.model_copy(update={"job": "job-2", "privacy": longer}))
    coordinator = alliance.coordinator("job-2")
    coordinator.until(lambda: len(alliance.charges("hospital")) == 2)
    alliance.institutions["hospital"].kill()
    alliance.institution("hospital")
    assert coordinator.wait() == 0
    charged = [(charge.job, charge.round) for charge in alliance.charges("hospital")]
    assert charged == [("job-1", 1), ("job-2", 1)]
    assert alliance.charges("hospital")[-1].plan_digest == digest_of(path.read_bytes())
    uploads = [answer for answer in said(alliance.home, "job-2") if isinstance(answer, m.SealedUpdate)]
    assert len(uploads) == len({upload.upload.digest for upload in uploads}) == len(SITES)
    for name in SITES:
        verify_evidence(alliance.job(name, "job-2") / "evidence", root=None, say=lambda _: None)


def said(home: Path, job: str) -> list[m.Answer]:
    """Return every answer that the coordinator took."""
    return [decode(m.ANSWER, decode(Envelope, body).body) for kind, body in journal(home, job) if kind == "answered"]
