"""The command line as a person types it: each command does its work, or says in one line what is wrong and where.

`main` is called as the console script calls it. A refusal leaves with exit code 1, one line on stderr, no traceback,
and every file as it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fl_alliance import cli
from fl_alliance.errors import EvidenceRefused
from fl_alliance.evidence.keys import AllianceRoot, IdentityKey
from fl_alliance.evidence.sign import sign_message
from fl_alliance.parties.join_words import JOIN_REQUEST_TYPE
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.envelope import Envelope
from tests.evidence.alliance import key_of, plan_of
from tests.evidence.folder import Folder

MODEL = Path(__file__).parents[1] / "deploy" / "demo" / "model"
NAMES = ("berlin", "lagos", "lima")
POLICY = """
institution = "lagos"
dataset = "cases"
epsilon_per_job = "8"
epsilon_per_dataset = "12"
epsilon_per_year = "10"
delta_max = "0.00001"
allowed_units = ["patient"]
minimum_members = 3
"""
UNSORTED_PARTNERS = "".join(
    f'[[partners]]\nname = "{name}"\nkey = "sha256:{"0" * 64}"\n' for name in ("lima", "berlin")
)
CONFIG = f"""
name = "lagos"
alliance = "clinics"
coordinator = "127.0.0.1:9443"
model_folder = {json.dumps(str(MODEL))}
[data]
name = "cases"
path = "cases.jsonl"
unit_column = "patient"
prompt_column = "prompt"
answer_column = "answer"
"""


@dataclass
class Shell:
    """Types commands in a folder of its own."""

    here: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def leave(self, *words: object) -> tuple[int, str, str]:
        """Run one command; return exit code, stdout, stderr. Anything but a clean exit escapes and fails the test."""
        self.monkeypatch.setattr(sys, "argv", ["fl-alliance", *map(str, words)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = self.capsys.readouterr()
        return int(left.value.code or 0), out, err

    def type(self, *words: object) -> str:
        code, out, err = self.leave(*words)
        assert (code, err) == (0, "")
        return out

    def refuse(self, *words: object) -> str:
        """Run a command that must be refused: one line, exit code 1, nothing written."""
        before = self.files()
        code, out, err = self.leave(*words)
        assert code == 1
        assert out == ""
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert self.files() == before
        return err.rstrip("\n")

    def files(self) -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in self.here.rglob("*")}

    def write(self, name: str, text: str) -> Path:
        (self.here / name).parent.mkdir(parents=True, exist_ok=True)
        (self.here / name).write_text(text)
        return self.here / name


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def alliance(shell: Shell) -> Shell:
    """A coordinator, three admitted institutions."""
    shell.type("coordinator", "init", "office", "--alliance", "clinics")
    for name in NAMES:
        shell.type("institution", "init", name, "--name", name)
        shell.type(
            "coordinator", "admit", "office", "--file", f"{name}/join-request.json", "--out", f"{name}.membership.json"
        )
        shell.type("institution", "install", name, f"{name}.membership.json")
    return shell


def plan_file(shell: Shell, **changes: Any) -> Path:
    fields = json.loads(plan_of().model_dump_json())
    return shell.write("plan.json", json.dumps({**fields, **changes}, indent=2))


def signed_again(text: str, change: Callable[[bytes], bytes], key: IdentityKey | None = None) -> str:
    """The join request with another payload, signed with `key`."""
    payload = change(decode(Envelope, text.encode()).body)
    return sign_message(key or key_of("lagos"), JOIN_REQUEST_TYPE, payload).decode()


# ---- what works


def test_from_nothing_to_a_signed_plan(alliance: Shell):
    root = decode(AllianceRoot, (alliance.here / "office/root.pub.json").read_bytes())
    said = alliance.type("institution", "install", "lagos", "lagos.membership.json")
    assert said.splitlines()[0] == f"root fingerprint {root.fingerprint}"
    assert (alliance.here / "lagos/root.pub.json").read_bytes() == (alliance.here / "office/root.pub.json").read_bytes()
    alliance.write("policy.toml", POLICY)
    assert alliance.type("institution", "sign-policy", "lagos", "policy.toml") == "signed lagos/policy.dsse.json\n"
    plan_file(alliance)
    said = alliance.type("coordinator", "propose", "office", "plan.json")
    assert said == "signed office/jobs/job-1/plan.dsse.json\n"
    assert alliance.type("coordinator", "propose", "office", "plan.json") == said


def test_private_keys_are_nobody_elses(alliance: Shell):
    keys = [path for path in alliance.here.rglob("keys/*") if path.suffix == ".key"]
    assert len(keys) >= 3 * len(NAMES) + 3
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


def test_check_reads_model_and_records(shell: Shell):
    shell.write("lagos/institution.toml", CONFIG)
    shell.write("lagos/cases.jsonl", '{"patient": "p1", "prompt": "Who?", "answer": "Ada."}\n')
    said = shell.type("institution", "check", "lagos").splitlines()
    assert any(line.startswith("model model.safetensors sha256:") for line in said)
    assert said[-1] == "records of cases can be read, every row has its patient"


def test_verify_says_each_step_unbroken_and_as_it_is(shell: Shell):
    evidence = Folder(shell.here / "evi[red]dence").build()
    lines = shell.type("audit", "verify", evidence, "--root", key_of("root").keyid).splitlines()
    assert [line.partition(" ")[0] for line in lines[:-1]] == [f"({step})" for step in range(1, 12)]
    assert lines[-1] == "the evidence holds"


def test_a_path_with_brackets_is_printed_as_it_is(shell: Shell):
    said = shell.type("institution", "init", "[bold]" + "x" * 90, "--name", "lagos")
    assert said.startswith("send [bold]" + "x" * 90 + "/join-request.json to")
    assert said.splitlines()[1].startswith("key fingerprint sha256:")


# ---- what is refused


@pytest.mark.parametrize(
    "words",
    [
        ("coordinator", "admit", "nowhere", "--file", "lagos/join-request.json"),
        ("coordinator", "propose", "nowhere", "plan.json"),
        ("coordinator", "run", "nowhere", "job-1"),
        ("institution", "install", "lagos", "nowhere"),
        ("institution", "sign-policy", "nowhere", "policy.toml"),
        ("institution", "sign-policy", "lagos", "nowhere"),
        ("institution", "check", "nowhere"),
        ("institution", "run", "nowhere"),
        ("audit", "verify", "nowhere"),
        ("demo", "--settings", "nowhere", "--folder", "new"),
        ("demo", "--real", "nowhere", "--folder", "new"),
    ],
    ids=" ".join,
)
def test_an_unknown_folder_or_file_is_named(shell: Shell, words: tuple[str, ...]):
    shell.type("institution", "init", "lagos", "--name", "lagos")
    shell.write("policy.toml", POLICY)
    plan_file(shell)
    said = shell.refuse(*words)
    assert said.split(":")[0] in {"BadConfig", "StoreFailed", "EvidenceRefused"}
    assert "nowhere" in said


def test_a_step_that_was_left_out_is_named(shell: Shell):
    shell.type("coordinator", "init", "office", "--alliance", "clinics")
    assert "`coordinator propose` signs: office/jobs/job-1/" in shell.refuse("coordinator", "run", "office", "job-1")
    shell.type("institution", "init", "lagos", "--name", "lagos")
    shell.write("lagos/institution.toml", CONFIG)
    assert "`institution join` pins: lagos/root.pub.json" in shell.refuse("institution", "run", "lagos")
    shell.type("coordinator", "admit", "office", "--file", "lagos/join-request.json", "--out", "membership.json")
    shell.type("institution", "install", "lagos", "membership.json")
    assert "`institution sign-policy` signs: lagos/policy.dsse.json" in shell.refuse("institution", "run", "lagos")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--alliance", "Big Clinics"), ["alliance", "'Big Clinics'", "pattern"]),
        (("--alliance", "clinics", "--port", "0"), ["port", "got 0", "greater than or equal to 1"]),
        (("--alliance", "clinics", "--port", "99999"), ["port", "got 99999", "less than or equal to 65535"]),
    ],
)
def test_a_coordinator_that_could_not_run_is_not_made(shell: Shell, options: tuple[str, ...], said: list[str]):
    line = shell.refuse("coordinator", "init", "office", *options)
    assert line.startswith("BadConfig: ")
    assert all(part in line for part in said)


@pytest.mark.parametrize("name", ["Lagos", "lagos!", "", "x" * 64, "lagos/..", "coordinator"])
def test_an_institution_with_a_name_that_cannot_travel_is_not_made(shell: Shell, name: str):
    line = shell.refuse("institution", "init", "home", "--name", name)
    assert line.startswith("BadConfig: name: ")
    assert repr(name) in line


def test_an_identity_is_never_overwritten(alliance: Shell):
    assert "already there" in alliance.refuse("institution", "init", "lagos", "--name", "lagos")
    assert "already there" in alliance.refuse("coordinator", "init", "office", "--alliance", "clinics")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", ["not JSON"]),
        (lambda text: text[:-1], ["not JSON"]),
        (lambda text: text + "\n", ["not in canonical form"]),
        (lambda text: text.replace('"payload"', '"load"'), ["payload", "Field required"]),
        (lambda text: signed_again(text, lambda inside: inside.replace(b'"name"', b'"nick"')), ["name", "Field req"]),
        (lambda text: signed_again(text, lambda inside: inside.replace(b"lagos", b"lagon"), key_of("lima")), ["key"]),
    ],
    ids=["empty", "torn", "another layout", "a field missing", "a field missing inside", "signed by somebody else"],
)
def test_a_join_request_that_is_none_is_refused_by_file_and_field(alliance: Shell, change: Any, said: list[str]):
    text = (alliance.here / "lagos/join-request.json").read_text()
    alliance.write("odd.json", change(text))
    line = alliance.refuse("coordinator", "admit", "office", "--file", "odd.json")
    assert line.startswith("BadConfig: join request: odd.json is none (")
    assert all(part in line for part in said)


def test_a_membership_that_is_none_is_refused_by_file(alliance: Shell):
    line = alliance.refuse("institution", "install", "lagos", "lima/join-request.json")
    assert line.startswith("BadConfig: membership: lima/join-request.json is none (")
    assert "tls_root: Field required" in line


def test_an_institution_that_calls_itself_coordinator_is_not_admitted(alliance: Shell):
    text = (alliance.here / "lagos/join-request.json").read_text()
    identity = IdentityKey.load(alliance.here / "lagos/keys/identity.key")
    alliance.write(
        "odd.json", signed_again(text, lambda inside: inside.replace(b'"lagos"', b'"coordinator"'), identity)
    )
    line = alliance.refuse("coordinator", "admit", "office", "--file", "odd.json", "--out", "odd-membership.json")
    assert "'coordinator' is the coordinator's own name" in line


@pytest.mark.parametrize(("field", "other"), [("institution", "lima"), ("dataset", "notes")])
def test_a_policy_for_somebody_or_something_else_is_not_signed(alliance: Shell, field: str, other: str):
    alliance.write("lagos/institution.toml", CONFIG)
    right = {"institution": "lagos", "dataset": "cases"}[field]
    alliance.write("policy.toml", POLICY.replace(f'{field} = "{right}"', f'{field} = "{other}"'))
    line = alliance.refuse("institution", "sign-policy", "lagos", "policy.toml")
    assert line == f"BadConfig: policy: {field} is '{other}', institution.toml says '{right}'"


def test_another_institutions_membership_is_not_installed(alliance: Shell):
    line = alliance.refuse("institution", "install", "lagos", "lima.membership.json")
    assert line == "BadInput: name: the membership is for 'lima', this folder is 'lagos'"


def test_another_institution_of_the_same_name_is_refused(alliance: Shell):
    alliance.type("institution", "init", "twin", "--name", "lagos")
    line = alliance.refuse("coordinator", "admit", "office", "--file", "twin/join-request.json", "--out", "twin.json")
    assert line == "BadInput: name: 'lagos' is already a member with other keys"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epsilon_per_job = ", ["not TOML"]),
        (POLICY + 'colour = "red"\n', ["colour", "not permitted"]),
        (POLICY.replace('"8"', '"-8"'), ["epsilon_per_job", "'-8'", "plain decimal"]),
        (POLICY.replace('"8"', "8"), ["epsilon_per_job", "valid string"]),
        (POLICY.replace('dataset = "cases"', ""), ["dataset", "Field required"]),
        (POLICY.replace("minimum_members = 3", "minimum_members = 1"), ["minimum_members", "greater than or equal"]),
        (POLICY.replace('"12"', "2027-01-01"), ["epsilon_per_dataset", "2027-01-01", "plain decimal"]),
        (POLICY + UNSORTED_PARTNERS, ["BadConfig: policy: ", "partners must be sorted by name"]),
    ],
    ids=[
        "no TOML",
        "unknown field",
        "negative",
        "a number",
        "missing",
        "too few members",
        "a date",
        "partners unsorted",
    ],
)
def test_a_policy_with_a_wrong_field_is_not_signed(alliance: Shell, text: str, said: list[str]):
    alliance.write("policy.toml", text)
    line = alliance.refuse("institution", "sign-policy", "lagos", "policy.toml")
    assert line.startswith("BadConfig: ")
    assert all(part in line for part in said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rounds": 0}, ["rounds", "greater than or equal to 1"]),
        ({"rounds": "two"}, ["rounds", "valid integer"]),
        ({"colour": "red"}, ["colour", "not permitted"]),
        ({"quorum": 1}, ["quorum", "greater than or equal to 2"]),
        ({"threshold": 9}, ["threshold 9 must be above half of 3 members and at most all"]),
        ({"members": [{"name": "lagos", "declared_units": 1000}]}, ["members", "at least 3 items"]),
        ({"alliance": "schools"}, ["alliance: 'schools', this coordinator's is 'clinics'"]),
        (
            {
                "members": [{"name": name, "declared_units": 1000} for name in (*NAMES, "oslo")],
                "threshold": 3,
                "quorum": 3,
            },
            ["members: oslo must be admitted to alliance clinics first"],
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_plan_with_a_wrong_field_is_not_signed(alliance: Shell, changes: dict[str, Any], said: list[str]):
    plan_file(alliance, **changes)
    line = alliance.refuse("coordinator", "propose", "office", "plan.json")
    assert line.startswith("BadPlan: ")
    assert all(part in line for part in said)


def test_a_plan_that_is_no_json_is_not_signed(alliance: Shell):
    alliance.write("plan.json", "rounds: 2\n")
    assert "Invalid JSON" in alliance.refuse("coordinator", "propose", "office", "plan.json")


def test_another_plan_under_the_same_name_is_refused(alliance: Shell):
    plan_file(alliance)
    alliance.type("coordinator", "propose", "office", "plan.json")
    plan_file(alliance, rounds=3)
    line = alliance.refuse("coordinator", "propose", "office", "plan.json")
    assert line == "BadPlan: job: 'job-1' has another plan already, choose another name"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", ["not TOML"]),
        (CONFIG.replace('"127.0.0.1:9443"', '"office"'), ["coordinator", "pattern", "'office'"]),
        (CONFIG + 'colour = "red"\n', ["data.colour", "not permitted", "'red'"]),
        (CONFIG.replace('name = "lagos"', 'name = "Lagos"'), ["name", "pattern", "'Lagos'"]),
    ],
    ids=["no TOML", "no port", "unknown field", "wrong name"],
)
def test_a_wrong_configuration_is_refused_by_file_field_and_value(shell: Shell, text: str, said: list[str]):
    shell.write("lagos/institution.toml", text)
    line = shell.refuse("institution", "check", "lagos")
    assert line.startswith("BadConfig: lagos/institution.toml: ")
    assert all(part in line for part in said)


def test_a_demo_folder_that_is_there_is_left_alone(shell: Shell):
    shell.write("here/note.txt", "mine")
    settings = MODEL.parent / "demo.toml"
    line = shell.refuse("demo", "--settings", settings, "--folder", "here")
    assert line == "BadConfig: folder: here is there already, name a new one"


def test_an_error_with_line_ends_and_terminal_codes_is_still_one_plain_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    def refuse() -> None:
        raise EvidenceRefused("step 5, policy.dsse.json: unit \x1b[2Jvisit\nthe evidence holds")

    monkeypatch.setattr(cli, "app", refuse)
    line = shell.refuse()
    assert line == "EvidenceRefused: step 5, policy.dsse.json: unit  [2Jvisit the evidence holds"


def test_a_fault_of_our_own_is_not_hidden_as_a_missing_library(monkeypatch: pytest.MonkeyPatch):
    def broken() -> None:
        raise ModuleNotFoundError("no module", name="fl_alliance.nothing")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(ModuleNotFoundError):
        cli.main()
