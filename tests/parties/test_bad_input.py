"""Bad input at the parties' doors: a named error that says what is wrong, and nothing half-written."""

from __future__ import annotations

import inspect
import itertools
import json
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from fl_alliance.errors import BadPlan, MalformedMessage, NotAuthentic
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties import setup, wiring
from fl_alliance.parties.institution import Institution
from fl_alliance.parties.mail import Address, read_answer, read_request, write_request
from fl_alliance.parties.trainer import QwenTrainer
from fl_alliance.privacy.ledger import Ledger
from fl_alliance.protocol import messages as m
from fl_alliance.protocol import sizes
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.documents import InstitutionPolicy, PrivacyReport
from fl_alliance.protocol.envelope import Envelope
from fl_alliance.protocol.ids import decimal_text
from fl_alliance.rounds import coordinator as machine
from fl_alliance.rounds import institution as seat
from fl_alliance.store.ledger_file import LedgerFile
from fl_alliance.transport.local import Faults
from tests.parties.conftest import SITES, Alliance

Build = Callable[..., Alliance]


def aborted(alliance: Alliance) -> str:
    state = alliance.coordinator().run()
    assert isinstance(state, machine.Aborted)
    return state.reason


def half_written(alliance: Alliance) -> list[Path]:
    """Whatever is written whole or not at all has a name that begins with a dot until it is whole."""
    return [path for path in alliance.folder.rglob("*") if path.name.startswith(".")]


def adapters(alliance: Alliance) -> list[Path]:
    made = [path for name in SITES for path in (alliance.job(name) / "adapter", alliance.job(name) / "candidate")]
    return [path for path in made if path.exists()]


def nothing_spent_or_trained(alliance: Alliance) -> bool:
    """No charge, no upload, no adapter, no half-written file anywhere."""
    charges = [path for path in alliance.folder.rglob("ledger.jsonl") if path.read_bytes()]
    blobs = (alliance.folder / "coordinator" / "blobs").iterdir()
    uploads = [path for path in blobs if not path.read_bytes().startswith(b'{"entries":')]  # a piece of the log is none
    return not (charges or uploads or adapters(alliance) or half_written(alliance))


def new_policy(alliance: Alliance, name: str, **changes: object) -> None:
    fields: dict[str, object] = {
        "institution": name,
        "dataset": f"{name}-records",
        "epsilon_per_job": "8",
        "epsilon_per_dataset": "8",
        "epsilon_per_year": "8",
        "delta_max": "0.00001",
        "allowed_units": ("patient",),
        "minimum_members": 3,
    }
    wiring.sign_policy(alliance.home(name), InstitutionPolicy.model_validate({**fields, **changes}))
    alliance.attach(name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epsilon_per_job": "0.01"}, "epsilon_per_job"),
        ({"epsilon_per_year": "0.01"}, "epsilon_per_year"),
        ({"epsilon_per_dataset": "0.01"}, "epsilon_per_dataset"),
        ({"delta_max": "0.000001"}, "delta"),
        ({"allowed_units": ("record",)}, "unit"),
        ({"minimum_members": 4}, "members"),
    ],
)
def test_a_plan_over_one_institutions_policy_is_refused_before_anything_is_spent(
    build: Build, changes: dict[str, object], said: str
):
    alliance = build()
    new_policy(alliance, "hospital", **changes)
    reason = aborted(alliance)
    assert reason.startswith("hospital refused: ")
    assert said in reason
    assert nothing_spent_or_trained(alliance)


def test_a_budget_that_an_earlier_job_spent_is_refused_without_opening_the_data(build: Build):
    alliance = build(rounds=1)
    assert isinstance(alliance.coordinator().run(), machine.Finished)
    ledger = (alliance.home("hospital") / "ledger.jsonl").read_bytes()
    report = peek_document((alliance.job("hospital") / "evidence" / "report.dsse.json").read_bytes(), PrivacyReport)
    new_policy(alliance, "hospital", epsilon_per_dataset=decimal_text(Decimal(report.epsilon_pld) * 2 / Decimal("1.9")))
    (alliance.folder.parent / "data" / "hospital.jsonl").unlink()
    second = alliance.plan.model_copy(update={"job": "job-2"})
    wiring.propose(alliance.folder / "coordinator", second)
    alliance.plan = second
    reason = aborted(alliance)
    assert "hospital refused: BudgetExceeded: epsilon_per_dataset" in reason
    assert (alliance.home("hospital") / "ledger.jsonl").read_bytes() == ledger
    assert adapters(alliance) == []
    assert half_written(alliance) == []


def test_a_plan_of_another_alliance_than_the_configured_one_is_refused(build: Build):
    alliance = build()
    config = alliance.home("school") / "institution.toml"
    config.write_text(config.read_text().replace('"test-alliance"', '"other-alliance"'))
    alliance.attach("school")
    assert "school refused: BadPlan: alliance: 'test-alliance', school is configured for 'other-" in aborted(alliance)
    assert nothing_spent_or_trained(alliance)


def test_who_answers_the_proposal_after_the_abort_hears_of_the_abort_too(build: Build):
    """Else it would be in the dead job for ever, and refuse the next one."""
    alliance = build()
    new_policy(alliance, "clinic", epsilon_per_job="0.01")
    handler, looks = alliance.handlers["school"], itertools.count()
    heard: list[str] = []

    def slow(request: bytes) -> bytes:
        reply = handler(request)
        heard.append(decode(Envelope, request).payload_type.split("|")[1])
        alliance.hub.offline.add("school")
        return reply

    def clock() -> float:
        if "school" in alliance.hub.offline and next(looks) == 8:
            alliance.hub.offline.clear()
        return 0.0

    alliance.handlers["school"] = slow
    alliance.hub.faults = Faults(delay={("school", 1): 1})
    assert isinstance(alliance.coordinator(clock=clock).run(), machine.Aborted)
    assert heard == ["proposal", "abort"]


def other_model(alliance: Alliance, name: str, tmp_path: Path) -> Path:
    """Give one institution its own copy of the model's folder."""
    copy = tmp_path / "other-model"
    shutil.copytree(Path(__file__).parents[2] / "deploy" / "demo" / "model", copy)
    config = alliance.home(name) / "institution.toml"
    lines = [
        f"model_folder = {json.dumps(str(copy))}" if line.startswith("model_folder") else line
        for line in config.read_text().splitlines()
    ]
    config.write_text("\n".join(lines) + "\n")
    return copy


def test_a_model_folder_with_a_pickle_is_refused_by_name(build: Build, tmp_path: Path):
    alliance = build()
    (other_model(alliance, "school", tmp_path) / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    alliance.attach("school")
    reason = aborted(alliance)
    assert "school refused: BadModel: pytorch_model.bin" in reason
    assert nothing_spent_or_trained(alliance)


def test_a_model_file_with_another_digest_is_refused_by_name(build: Build, tmp_path: Path):
    alliance = build()
    weights = other_model(alliance, "school", tmp_path) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    alliance.attach("school")
    reason = aborted(alliance)
    assert "school refused: BadModel: model.safetensors has digest" in reason
    assert nothing_spent_or_trained(alliance)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "holds no record"),
        ([{"prompt": "p", "answer": "a"}], "patient"),
        ([{"patient": None, "prompt": "p", "answer": "a"}], "patient"),
    ],
    ids=["empty-file", "no-unit-column", "null-unit"],
)
def test_unusable_records_stop_the_job_and_only_the_institution_learns_why(
    build: Build, rows: list[dict[str, object]], said: str, capsys: pytest.CaptureFixture[str]
):
    alliance = build(rounds=1)
    path = alliance.folder.parent / "data" / "clinic.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reason = aborted(alliance)
    said_outside = "clinic refused: BadRecords: the institution's records can't be used; its own log says why"
    assert reason == f"{said_outside}; 2 members are left, need 3"
    assert said in capsys.readouterr().out
    assert adapters(alliance) == []
    assert half_written(alliance) == []


def test_a_data_file_that_changes_between_its_charge_and_its_reading_gives_no_upload(
    build: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The ledger names the old file by digest; the trainer would read the new one."""
    alliance = build(rounds=1)
    path, charge = alliance.folder.parent / "data" / "clinic.jsonl", LedgerFile.charge

    def swapped(ledger: LedgerFile, make: Callable[[Ledger], bytes]) -> bytes:
        envelope = charge(ledger, make)
        if ledger.read().institution == "clinic":
            path.write_text(path.read_text().replace("clinic-0", "clinic-x"))
        return envelope

    monkeypatch.setattr(LedgerFile, "charge", swapped)
    reason = aborted(alliance)
    assert reason.startswith("clinic refused: BadRecords: the institution's records can't be used")
    assert "it changed meanwhile" in capsys.readouterr().out
    assert len((alliance.home("clinic") / "ledger.jsonl").read_bytes().splitlines()) == 1
    assert adapters(alliance) == []


def test_an_error_that_nobody_foresaw_ends_the_job_and_not_the_institution(
    build: Build, monkeypatch: pytest.MonkeyPatch
):
    alliance = build(rounds=1)
    with monkeypatch.context() as patch:

        def fails(_: QwenTrainer) -> None:
            raise RuntimeError("a bug, and a record's text perhaps")

        patch.setattr(QwenTrainer, "train_round", fails)
        state = alliance.coordinator(ask_again=0.5).run()  # the bug is no answer: who is silent is asked again
    assert isinstance(state, machine.Aborted)
    assert "refused: OutOfOrder: " in state.reason
    assert "bug" not in state.reason
    second = alliance.plan.model_copy(update={"job": "job-2"})
    wiring.propose(alliance.folder / "coordinator", second)
    alliance.plan = second
    assert isinstance(alliance.coordinator().run(), machine.Finished)


def test_a_plan_whose_messages_would_be_too_long_is_refused_when_it_is_proposed(
    build: Build, monkeypatch: pytest.MonkeyPatch
):
    alliance = build()
    second = alliance.plan.model_copy(update={"job": "job-2"})
    monkeypatch.setattr(sizes, "MAX_MESSAGE_BYTES", 3_000)
    with pytest.raises(BadPlan, match="members: with 3 of them a share-delivery has"):
        wiring.propose(alliance.folder / "coordinator", second)
    assert not (alliance.folder / "coordinator" / "jobs" / "job-2").exists()


# ---- messages. A handler's exception stays in the hub, so what is seen inside one is asserted after the run.


class Wire:
    """Stands between the hub and one institution, and can sign as the coordinator."""

    def __init__(self, alliance: Alliance, name: str) -> None:
        self.requests: list[bytes] = []
        self.inner = alliance.handlers[name]
        shell = getattr(inspect.unwrap(self.inner), "__self__", None)
        assert isinstance(shell, Institution)
        self.shell = shell
        keys = setup.Keys(alliance.folder / "coordinator")
        self.coordinator = IdentityKey.load(keys.identity)
        self.me = name
        alliance.handlers[name] = self.hear

    @property
    def address(self) -> Address:
        return self.shell._address

    def hear(self, request: bytes) -> bytes:
        self.requests.append(request)
        return self.inner(request)

    def forge(self, message: m.Request, key: IdentityKey | None = None) -> bytes:
        return write_request(self.address, key or self.coordinator, self.me, message)


def test_a_request_that_comes_twice_gets_the_same_bytes_and_costs_nothing(build: Build):
    alliance = build(rounds=1)
    wire = Wire(alliance, "clinic")
    inner, replies = wire.inner, []

    def twice(request: bytes) -> bytes:
        replies.append((inner(request), inner(request)))
        return replies[-1][1]

    wire.inner = twice
    assert isinstance(alliance.coordinator().run(), machine.Finished)
    assert len(replies) == 11
    assert all(first == second for first, second in replies)
    assert len((alliance.home("clinic") / "ledger.jsonl").read_bytes().splitlines()) == 1


def test_a_request_out_of_order_is_refused_and_changes_nothing(build: Build):
    """Before each request come authentic ones that are not its turn, among them the very bytes that are due later."""
    alliance = build(rounds=1)
    wire = Wire(alliance, "clinic")
    inner = wire.inner
    kinds: list[str] = []
    answers: list[tuple[m.Answer, bool]] = []

    def jostled(request: bytes) -> bytes:
        if wire.address.keys:
            kinds.append(read_request(wire.address, request).kind)
            early = [] if "round-opening" in kinds else [opening("job-1", 1)]
            for wrong in (opening("job-1", 7), opening("another", 1), *early):
                before = wire.shell.state
                _, answer = read_answer(wire.address, inner(wire.forge(wrong)))
                answers.append((answer, wire.shell.state is before))
        return inner(request)

    wire.inner = jostled
    state = alliance.coordinator().run()
    assert isinstance(state, machine.Finished), state
    assert len(answers) == 2 * 10 + 2
    assert all(isinstance(answer, m.Refusal) and answer.error == "OutOfOrder" for answer, _ in answers)
    assert all(unchanged for _, unchanged in answers)
    assert len((alliance.home("clinic") / "ledger.jsonl").read_bytes().splitlines()) == 1


def opening(job: str, number: int) -> m.RoundOpening:
    return m.RoundOpening(alliance="test-alliance", job=job, round=number, previous_record=None)


def test_an_institution_that_starts_anew_within_a_round_goes_on_with_it(build: Build):
    """With its real model, which it loads again."""
    alliance = build(rounds=1)
    wire = Wire(alliance, "clinic")
    first, seen = wire.inner, wire.requests

    def dies_after_five(request: bytes) -> bytes:
        if len(seen) == 6:
            wire.inner = wiring.institution(alliance.home("clinic"), alliance.hub.institution_link("clinic"))
            return wire.inner(request)
        return first(request)

    wire.inner = dies_after_five
    assert isinstance(alliance.coordinator().run(), machine.Finished)
    assert wire.inner is not first
    assert len((alliance.home("clinic") / "ledger.jsonl").read_bytes().splitlines()) == 1
    assert len({(path / "adapter_model.safetensors").read_bytes() for path in adapters(alliance)}) == 1


def test_a_request_with_a_wrong_signature_gets_no_answer_and_changes_nothing(build: Build):
    alliance = build(rounds=1)
    wire = Wire(alliance, "clinic")
    assert isinstance(alliance.coordinator().run(), machine.Finished)
    state = wire.shell.state
    assert isinstance(state, seat.Over)
    message = read_request(wire.address, wire.requests[3])
    with pytest.raises(NotAuthentic):
        wire.inner(wire.forge(message, IdentityKey.generate()))
    flipped = bytearray(wire.requests[3])
    flipped[flipped.rindex(b'"sig":"') + 9] ^= 1
    with pytest.raises((NotAuthentic, MalformedMessage)):
        wire.inner(bytes(flipped))
    other = write_request(wire.address, wire.coordinator, "school", message)
    with pytest.raises(NotAuthentic):
        wire.inner(other)
    assert wire.shell.state is state
