"""The demo's stage: folders, keys, signatures of the people involved, and one process for each party."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Protocol

from pydantic import ValidationError

from fl_alliance.errors import BadConfig, JobAborted
from fl_alliance.parties import roster, setup, wiring
from fl_alliance.parties.demo.settings import DemoSettings, Site, make_plan
from fl_alliance.parties.files import write_atomically
from fl_alliance.parties.join_words import fingerprint_of
from fl_alliance.parties.setup import COORDINATOR
from fl_alliance.protocol.documents import InstitutionPolicy, Partner
from fl_alliance.protocol.plan import TrainingPlan

_ROUND = re.compile(r"round \d+/(\d+): (.*)")
_STEP = re.compile(r"step \d+/\d+")


class Screen(Protocol):
    """Where the demo shows what happens."""

    def say(self, line: str) -> None:
        """Show one line."""

    def bar(self, party: str, done: float, total: float, note: str = "") -> None:
        """Show how far `party` is; the first call makes its bar."""


# ---- folders, keys, plan


def prepare(settings: DemoSettings, base: Path, folder: Path, *, threads: int) -> TrainingPlan:
    """Make the folders of all parties in `folder` and the signed plan; return the plan.

    Raises:
        BadConfig: a field of the settings, or a data file that is not there.
        BadModel, BadPlan: the model's folder, or what the adapter targets in it.
    """
    from fl_alliance.training.process import prepare_process

    prepare_process()
    try:
        plan = make_plan(settings, base)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadConfig(f"settings: {problems}") from error
    for site in settings.institutions:
        for path in (base / site.train, base / site.heldout):
            if not path.is_file():
                raise BadConfig(f"institutions: {site.name} names {path}, which is not a file")
    port = free_port()
    found(
        folder,
        settings.alliance,
        {site.name: _configuration(settings, base, site, port, threads) for site in settings.institutions},
        lambda partners: {site.name: _policy(settings, site, partners) for site in settings.institutions},
        port=port,
    )
    wiring.propose(folder / COORDINATOR, plan)
    return plan


def found(
    folder: Path,
    alliance: str,
    configurations: Mapping[str, str],
    policies: Callable[[Sequence[Partner]], Mapping[str, InstitutionPolicy]],
    *,
    port: int,
) -> None:
    """Make the folders and keys of a coordinator and its institutions below `folder`; sign members and policies.

    `configurations`: an `institution.toml` for each name. `policies` gets all institutions as partners.
    """
    coordinator, partners = folder / COORDINATOR, []
    setup.coordinator_init(coordinator, alliance=alliance, host="127.0.0.1", port=port, join_port=free_port())
    for name, configuration in configurations.items():
        home = folder / name
        request = setup.institution_init(home, name=name)
        setup.institution_install(home, roster.admit_file(coordinator, setup.Keys(home).request.read_bytes()))
        write_atomically(home / "institution.toml", configuration.encode())
        partners.append(Partner(name=name, key=fingerprint_of(request)))
    for name, policy in policies(partners).items():
        wiring.sign_policy(folder / name, policy)


def _configuration(settings: DemoSettings, base: Path, site: Site, port: int, threads: int) -> str:
    columns = settings.columns
    table: dict[str, str | int] = {
        "name": site.name,
        "alliance": settings.alliance,
        "coordinator": f"127.0.0.1:{port}",
        "model_folder": str((base / settings.model).resolve()),
        "threads": threads,
    }
    data = {
        "name": f"{site.name}-records",
        "path": str((base / site.train).resolve()),
        "unit_column": columns.unit,
        "prompt_column": columns.prompt,
        "answer_column": columns.answer,
    }
    return f"{toml(table)}\n[data]\n{toml(data)}"


def _policy(settings: DemoSettings, site: Site, partners: Sequence[Partner]) -> InstitutionPolicy:
    """Return the policy of one institution: the demo's caps, and the others by the keys that they told it."""
    return InstitutionPolicy(
        institution=site.name,
        dataset=f"{site.name}-records",
        epsilon_per_job=settings.epsilon_cap,
        epsilon_per_dataset=settings.epsilon_cap,
        epsilon_per_year=settings.epsilon_cap,
        delta_max=settings.privacy.delta,
        allowed_units=(settings.privacy.unit,),
        minimum_members=3,
        partners=others(partners, site.name),
    )


def others(partners: Sequence[Partner], name: str) -> tuple[Partner, ...]:
    """Return all but `name`, as its policy lists them."""
    return tuple(sorted((p for p in partners if p.name != name), key=lambda partner: partner.name))


def toml(table: Mapping[str, str | int]) -> str:
    """Return the lines of a table: strings and numbers are written alike in JSON and TOML."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---- processes


def run_processes(plan: TrainingPlan, folder: Path, screen: Screen) -> None:
    """Start the coordinator and the institutions, wait for the coordinator, stop the institutions.

    Raises:
        JobAborted: the coordinator ended without finishing the job.
    """
    steps = plan.rounds * plan.privacy.steps_per_round
    with ExitStack() as stack:
        for name in plan.names:
            stack.enter_context(process(folder, name, "institution", "run", str(folder / name)))
        coordinator = stack.enter_context(
            process(folder, COORDINATOR, "coordinator", "run", str(folder / COORDINATOR), plan.job)
        )
        logs = {name: stack.enter_context((folder / f"{name}.log").open()) for name in (COORDINATOR, *plan.names)}
        screen.bar(COORDINATOR, 0, plan.rounds, "waiting for institutions")
        for name in plan.names:
            screen.bar(name, 0, steps)
        done = dict.fromkeys(logs, 0)
        while coordinator.poll() is None:
            _show(logs, done, steps, screen)
            time.sleep(0.2)
        _show(logs, done, steps, screen)
        if coordinator.returncode != 0:
            last = (folder / f"{COORDINATOR}.log").read_text().strip().splitlines()[-1:]
            raise JobAborted(f"{' '.join(last)} (logs are in {folder})")


def _show(logs: Mapping[str, IO[str]], done: dict[str, int], steps: int, screen: Screen) -> None:
    """Turn the parties' new log lines into progress."""
    for name, log in logs.items():
        for line in log.readlines():
            if name == COORDINATOR and (seen := _ROUND.match(line)):
                rounds, what = seen.groups()
                done[name] += what == "RecordSigned"
                screen.bar(name, done[name], int(rounds), what)
            elif name != COORDINATOR and _STEP.match(line):
                done[name] += 1
                screen.bar(name, done[name], steps, "training")


class process:  # noqa: N801  # reads as a function where it is used
    """A party's process with its output in FOLDER/NAME.log; ended when the block is left."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self._log = (folder / f"{name}.log").open("ab")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "fl_alliance.cli", *arguments]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, env=environment)

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
