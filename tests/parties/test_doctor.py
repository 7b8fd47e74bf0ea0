"""The doctor finds each thing that would stop a job, names it, and says how to mend it; it reads no record."""

from __future__ import annotations

import builtins
import datetime
import http.server
import io
import json
import os
import re
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_alliance.parties import doctor, pki
from fl_alliance.parties.doctor import examine_coordinator, examine_institution
from fl_alliance.parties.doctor.finding import Finding
from fl_alliance.parties.setup import Keys
from tests.parties.conftest import Alliance, build_in

NAMES = ("clinic", "hospital", "school")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Alliance:
    return build_in(tmp_path_factory.mktemp("doctor"), rounds=1)


@pytest.fixture
def alliance(made: Alliance, tmp_path: Path) -> Alliance:
    """A copy to spoil."""
    shutil.copytree(made.folder, tmp_path / "alliance")
    return Alliance(tmp_path / "alliance", made.plan, made.hub, made.blobs)


@pytest.fixture
def home(alliance: Alliance) -> Path:
    return alliance.home("clinic")


class Front:
    """A listener with the coordinator's certificate that answers 404, with a date."""

    def __init__(self, keys: Keys, ahead: float = 0.0) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_error(404)

            def date_time_string(self, timestamp: float | None = None) -> str:
                now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=ahead)
                return now.strftime("%a, %d %b %Y %H:%M:%S GMT")

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys.tls_certificate, keys.tls_key)
        context.load_verify_locations(keys.tls_root)
        context.verify_mode = ssl.CERT_REQUIRED
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])


@pytest.fixture
def front(alliance: Alliance) -> Iterator[Callable[..., None]]:
    """Start the coordinator's listener, and have the clinic's configuration name it."""
    started: list[Front] = []

    def start(ahead: float = 0.0) -> None:
        started.append(Front(Keys(alliance.home("coordinator")), ahead))
        change(alliance.home("clinic") / "institution.toml", coordinator=f"127.0.0.1:{started[-1].port}")

    yield start
    for one in started:
        one.server.shutdown()
        one.server.server_close()


def change(file: Path, **fields: str | int) -> None:
    """Give each field another value, at its last place: `name` is the data set's."""
    lines = file.read_text().splitlines()
    for name, value in fields.items():
        place = max(n for n, line in enumerate(lines) if line.startswith(f"{name} "))
        lines[place] = f"{name} = {json.dumps(value)}"
    file.write_text("\n".join(lines) + "\n")


def found(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def wrong(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.what: finding.said for finding in findings if finding.state == "wrong"}


def test_a_healthy_institution_has_nothing_wrong(home: Path, front: Callable[..., None]) -> None:
    front()
    findings = found(examine_institution(home))
    assert {what for what, finding in findings.items() if finding.state == "wrong"} == set()
    assert findings["clock"].state == findings["coordinator"].state == findings["certificate"].state == "ok"


def test_a_healthy_coordinator_has_nothing_wrong(alliance: Alliance) -> None:
    findings = found(examine_coordinator(alliance.home("coordinator")))
    assert {what for what, finding in findings.items() if finding.state == "wrong"} == set()
    assert findings["members"].said == "3 admitted: clinic, hospital, school"


def test_no_record_is_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no charge yet, so that nobody needs the file's digest either."""
    opened: list[str] = []
    for module, name in ((builtins, "open"), (io, "open"), (os, "open")):
        original = getattr(module, name)

        def spy(path: Any, *given: Any, original: Any = original, **named: Any) -> Any:
            opened.append(str(path))
            return original(path, *given, **named)

        monkeypatch.setattr(module, name, spy)
    findings = found(examine_institution(home))
    assert findings["data"].state == "ok"
    assert any("institution.toml" in path for path in opened)
    assert not [path for path in opened if path.endswith("clinic.jsonl")]


def test_a_clock_that_is_off_is_found(home: Path, front: Callable[..., None]) -> None:
    front(ahead=60.0)
    assert "s from the coordinator's, at most 5" in wrong(examine_institution(home))["clock"]


SPOILED: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "a key that others may read": (lambda h: Keys(h).identity.chmod(0o644), "keys", "mode 0644 lets others read it"),
    "no key": (lambda h: Keys(h).node_key.unlink(), "keys", "No such file"),
    "no membership": (lambda h: Keys(h).root_public.unlink(), "membership", "alliance root: .* can't be read"),
    "a certificate of another party": (
        lambda h: shutil.copy(Keys(h.parent / "school").tls_certificate, Keys(h).tls_certificate),
        "membership",
        "for another key than",
    ),
    "a certificate of another root": (
        lambda h: Keys(h).tls_root.write_bytes(pki.certificate_pem(pki.make_root("other")[1])),
        "membership",
        "not signed by the root",
    ),
    "nobody answers": (lambda h: change(h / "institution.toml", coordinator=f"127.0.0.1:{free_port()}"), "coordinator",
                       "can't be reached: .*refused"),
    "a link in the model": (
        lambda h: change(h / "institution.toml", model_folder=str(linked(h))),
        "model",
        "is a symbolic link: copy the file itself",
    ),
    "no data": (lambda h: change(h / "institution.toml", path="nowhere.jsonl"), "data", "is not a file that may be"),
    "another data set's policy": (
        lambda h: change(h / "institution.toml", name="other"), "policy", "says 'other'",
    ),
    "no policy": (lambda h: (h / "policy.dsse.json").unlink(), "policy", "policy: .* can't be read"),
    "a broken ledger": (lambda h: (h / "ledger.jsonl").write_bytes(b"{}\n"), "ledger", "entry 1: "),
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def linked(home: Path) -> Path:
    folder = home / "linked"
    folder.mkdir()
    (folder / "config.json").symlink_to(home / "institution.toml")
    return folder


@pytest.mark.parametrize("name", SPOILED)
def test_what_would_stop_a_job_is_found_and_the_rest_is_still_looked_at(name: str, home: Path) -> None:
    spoil, what, said = SPOILED[name]
    spoil(home)
    findings = list(examine_institution(home))
    match = [f for f in findings if f.what == what and f.state == "wrong"]
    assert len(match) == 1
    assert re.search(said, match[0].said)
    assert match[0].mend
    assert f"-> {match[0].mend}" in str(match[0])
    assert findings[-1].what == "versions"


def settle(home: Path, line: str) -> None:
    """Put `line` at the top of institution.toml, above every table."""
    file = home / "institution.toml"
    file.write_text(f"{line}\n{file.read_text()}")


def test_processes_without_a_gpu_for_each_are_found_before_a_job(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    settle(home, "processes = 2")
    assert found(examine_institution(home))["training"].said == "processes 2, a GPU for each; 2 here"
    settle(home, 'device = "cpu"')
    assert "processes 2, threads 1 in each" in found(examine_institution(home))["training"].said
    change(home / "institution.toml", processes=3, device="auto")
    said = wrong(examine_institution(home))["training"]
    assert said == "processes 3: torch sees 2 CUDA GPUs here, one for each is needed"


def test_more_threads_than_processors_are_worth_a_look(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settle(home, f"processes = {(os.cpu_count() or 1) + 1}")
    assert found(examine_institution(home))["training"].state == "look"


def test_a_data_file_that_was_changed_after_a_charge_is_found(alliance: Alliance, tmp_path: Path) -> None:
    """A job is run for the charge."""
    whole = build_in(tmp_path / "run", rounds=1)
    whole.coordinator().run()
    home = whole.home("clinic")
    assert "ledger" not in wrong(examine_institution(home))
    budget = found(examine_institution(home))["budget"]
    assert budget.said.startswith("epsilon_per_dataset: ")
    data = tmp_path / "run" / "data" / "clinic.jsonl"
    data.write_text(data.read_text() + "\n")
    assert "the file is now sha256:" in wrong(examine_institution(home))["ledger"]


def test_a_certificate_that_ends_soon_is_worth_a_look(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SOON_DAYS", 900)
    certificate = found(examine_institution(home))["certificate"]
    assert certificate.state == "look"
    assert certificate.mend == "run `institution rotate`, between two jobs"


def test_a_listener_that_is_taken_and_too_few_members_are_worth_a_look(alliance: Alliance) -> None:
    home = alliance.home("coordinator")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        text = (home / "coordinator.toml").read_text().splitlines()
        port = f"port = {taken.getsockname()[1]}"
        (home / "coordinator.toml").write_text("\n".join([*(t for t in text if "port" not in t), port]) + "\n")
        (home / "members" / "school.json").unlink()
        findings = found(examine_coordinator(home))
    assert (findings["listener"].state, findings["members"].state) == ("look", "look")
    assert "2 admitted: clinic, hospital" in findings["members"].said


def test_without_a_configuration_that_is_all_there_is_to_say(tmp_path: Path) -> None:
    for examine in (examine_institution, examine_coordinator):
        (finding,) = examine(tmp_path)
        assert (finding.what, finding.state) == ("configuration", "wrong")
