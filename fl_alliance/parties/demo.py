"""The demo: a coordinator and its institutions as real processes on loopback, then a table.

What the driver does stands in for people: it makes the folders, carries the public halves of keys between them, signs
the plan as the admin and the policies as the institutions, and starts the processes. It is no party of the protocol.
The table is computed afterwards from public held-out files, outside of any institution's job.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fl_alliance.errors import BadConfig, JobAborted
from fl_alliance.parties import setup, wiring
from fl_alliance.parties.config import load
from fl_alliance.parties.files import write_atomically
from fl_alliance.protocol.documents import InstitutionPolicy
from fl_alliance.protocol.plan import AdapterPlan, Member, OptimizerPlan, PrivacyPlan, SumPlan, TrainingPlan

Tell = Callable[[str], None]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AdapterSettings(_Settings):
    """The adapter of the plan; how many modules it hits is counted in the model."""

    method: Literal["ffa-lora", "lora"] = "ffa-lora"
    rank: int
    alpha: int
    targets: tuple[str, ...]
    public_seed: int


class PrivacySettings(_Settings):
    """Privacy of the plan, but for the cap."""

    unit: str
    clip_norm: str
    noise_multiplier: str
    sampling_rate: str
    steps_per_round: int
    records_per_unit: int
    delta: str


class Columns(_Settings):
    """Columns of the data files."""

    unit: str
    prompt: str
    answer: str


class Site(_Settings):
    """One institution of the demo; paths start at the settings file's folder."""

    name: str
    train: Path
    heldout: Path
    declared_units: int


class DemoSettings(_Settings):
    """`demo.toml`: one job, its institutions and their files."""

    alliance: str
    job: str
    model: Path
    rounds: int
    threshold: int
    quorum: int
    max_tokens: int
    epsilon_cap: str
    phase_seconds: int = 1800
    adapter: AdapterSettings
    optimizer: OptimizerPlan
    privacy: PrivacySettings
    sum: SumPlan
    columns: Columns
    institutions: Annotated[tuple[Site, ...], Field(min_length=3, max_length=20)]


@dataclass(frozen=True)
class Line:
    """One line of the table: mean held-out loss in nats a token, over all institutions and for each."""

    name: str
    mean: float
    each: tuple[float, ...]


@dataclass(frozen=True)
class Outcome:
    """What the demo leaves."""

    lines: tuple[Line, ...]
    epsilons: tuple[tuple[str, str, str], ...]
    """Institution, epsilon by PLD, epsilon by RDP."""
    adapter: Path
    reports: tuple[Path, ...]
    seconds: float


def run_demo(settings_file: Path, folder: Path, *, threads: int, tell: Tell, pooled: bool = True) -> Outcome:
    """Run the whole demo in `folder` (must not exist) and return the table.

    Raises:
        BadConfig: a setting, a file, or the folder.
        JobAborted: the job ended without an adapter; the logs in `folder` say more.
    """
    started = time.monotonic()
    settings = load(DemoSettings, settings_file)
    base = settings_file.resolve().parent
    if folder.exists():
        raise BadConfig(f"folder: {folder} is there already, name a new one")
    tell("making keys, certificates and policies")
    plan = prepare(settings, base, folder, threads=threads)
    tell(f"job {plan.job}: {len(plan.members)} institutions, {plan.rounds} rounds, one process each")
    run_processes(plan, folder, tell)
    tell("job finished; evaluating on public held-out files")
    lines = compare(settings, base, folder, plan, tell=tell, pooled=pooled)
    homes = [folder / site.name for site in settings.institutions]
    evidence = [home / "jobs" / plan.job / "evidence" for home in homes]
    return Outcome(
        lines=lines,
        epsilons=tuple(_epsilon(home) for home in evidence),
        adapter=homes[0] / "jobs" / plan.job / "adapter",
        reports=tuple(home / "report.html" for home in evidence),
        seconds=time.monotonic() - started,
    )


# ---- folders, keys, plan


def prepare(settings: DemoSettings, base: Path, folder: Path, *, threads: int) -> TrainingPlan:
    """Make the folders of all parties and the signed plan; return the plan."""
    coordinator = folder / "coordinator"
    port = free_port()
    setup.coordinator_init(coordinator, alliance=settings.alliance, host="127.0.0.1", port=port)
    for site in settings.institutions:
        request = setup.institution_init(folder / site.name, name=site.name)
        membership = setup.coordinator_admit(coordinator, request)
        setup.institution_install(folder / site.name, membership)
        _configure(settings, base, folder / site.name, site, port, threads)
    setup.publish_members(coordinator)
    plan = make_plan(settings, base)
    wiring.propose(coordinator, plan)
    return plan


def make_plan(settings: DemoSettings, base: Path) -> TrainingPlan:
    """Return the plan of the settings: model digests and module count are read from the model's folder."""
    from fl_alliance.training.base import load_base, model_files
    from fl_alliance.training.model import count_modules

    files = model_files(base / settings.model)
    model, _ = load_base(base / settings.model, files)
    adapter = settings.adapter.model_dump()
    return TrainingPlan(
        alliance=settings.alliance,
        job=settings.job,
        rounds=settings.rounds,
        members=tuple(
            Member(name=site.name, declared_units=site.declared_units)
            for site in sorted(settings.institutions, key=lambda site: site.name)
        ),
        threshold=settings.threshold,
        quorum=settings.quorum,
        model=files,
        adapter=AdapterPlan(**adapter, modules=count_modules(model, settings.adapter.targets)),
        optimizer=settings.optimizer,
        privacy=PrivacyPlan(**settings.privacy.model_dump(), epsilon_cap=settings.epsilon_cap),
        sum=settings.sum,
        max_tokens=settings.max_tokens,
        phase_seconds=settings.phase_seconds,
    )


def _configure(settings: DemoSettings, base: Path, home: Path, site: Site, port: int, threads: int) -> None:
    columns = settings.columns
    lines = [
        f'name = "{site.name}"',
        f'alliance = "{settings.alliance}"',
        f'coordinator = "127.0.0.1:{port}"',
        f'model_folder = "{(base / settings.model).resolve()}"',
        f"threads = {threads}",
        "[data]",
        f'name = "{site.name}-records"',
        f'path = "{(base / site.train).resolve()}"',
        f'unit_column = "{columns.unit}"',
        f'prompt_column = "{columns.prompt}"',
        f'answer_column = "{columns.answer}"',
    ]
    write_atomically(home / "institution.toml", "\n".join(lines).encode() + b"\n")
    policy = InstitutionPolicy(
        institution=site.name,
        dataset=f"{site.name}-records",
        epsilon_per_job=settings.epsilon_cap,
        epsilon_per_dataset=settings.epsilon_cap,
        epsilon_per_year=settings.epsilon_cap,
        delta_max=settings.privacy.delta,
        allowed_units=(settings.privacy.unit,),
        minimum_members=3,
    )
    wiring.sign_policy(home, policy)


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---- processes


def run_processes(plan: TrainingPlan, folder: Path, tell: Tell) -> None:
    """Start the coordinator and the institutions, wait for the coordinator, stop the institutions.

    Raises:
        JobAborted: the coordinator ended without finishing the job.
    """
    with ExitStack() as stack:
        for name in plan.names:
            stack.enter_context(_process(folder, name, "institution", "run", str(folder / name)))
        coordinator = stack.enter_context(
            _process(folder, "coordinator", "coordinator", "run", str(folder / "coordinator"), plan.job)
        )
        _follow(folder / "coordinator.log", coordinator, tell)
        if coordinator.wait() != 0:
            last = (folder / "coordinator.log").read_text().strip().splitlines()[-1:]
            raise JobAborted(f"{' '.join(last)} (logs are in {folder})")


class _process:  # noqa: N801  # reads as a function where it is used
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


def _follow(log: Path, process: subprocess.Popen[bytes], tell: Tell) -> None:
    """Hand on the coordinator's lines as they come."""
    with log.open() as lines:
        while True:
            if line := lines.readline():
                tell(line.rstrip())
            elif process.poll() is not None:
                return
            else:
                time.sleep(0.2)


# ---- the table


def compare(
    settings: DemoSettings, base: Path, folder: Path, plan: TrainingPlan, *, tell: Tell, pooled: bool
) -> tuple[Line, ...]:
    """Return base, each institution alone at the same epsilon, the alliance, and pooled non-private training."""
    import torch

    from fl_alliance.parties.trainer import record_source
    from fl_alliance.training.evaluate import heldout_loss, train_plain
    from fl_alliance.training.records import Records, load_records, records_of
    from fl_alliance.training.session import TrainingSession

    torch.set_num_threads(os.cpu_count() or 1)
    source = _source_maker(settings, base, record_source)
    heldout = [load_records(source(site.heldout)) for site in settings.institutions]

    def line(name: str, model: Any, tokenizer: Any) -> Line:
        each = tuple(heldout_loss(model, tokenizer, records, plan.max_tokens) for records in heldout)
        return Line(name, sum(each) / len(each), each)

    model_folder = base / settings.model
    session = TrainingSession(model_folder, plan, plan.names[0])
    lines = [line("base model", session.model, session.tokenizer)]
    everything: dict[str, Any] = {}
    for site in settings.institutions:
        tell(f"training {site.name} alone, at the same epsilon")
        records: Records = load_records(source(site.train))
        everything |= {f"{site.name}|{unit}": dialogues for unit, dialogues in records.units.items()}
        alone = TrainingSession(model_folder, plan, site.name)
        for _ in range(plan.rounds):
            alone.apply(alone.train_round(records).update)
        lines.append(line(f"{site.name} alone", alone.model, alone.tokenizer))
    lines.append(line("alliance", *_with_adapter(folder, plan, session)))
    if pooled:
        tell("training on pooled records, without privacy")
        steps = plan.rounds * plan.privacy.steps_per_round
        model, tokenizer = train_plain(model_folder, plan, records_of(everything), steps=steps)
        lines.append(line("pooled, not private", model, tokenizer))
    return tuple(lines)


def _source_maker(settings: DemoSettings, base: Path, make: Any) -> Any:
    from fl_alliance.parties.config import DataConfig

    columns = settings.columns
    return lambda path: make(
        DataConfig(
            name="public",
            path=path,
            unit_column=columns.unit,
            prompt_column=columns.prompt,
            answer_column=columns.answer,
        ),
        base,
    )


def _with_adapter(folder: Path, plan: TrainingPlan, session: Any) -> tuple[Any, Any]:
    """Load the released adapter as anybody would, onto the base model."""
    from peft import PeftModel

    adapter = folder / plan.names[0] / "jobs" / plan.job / "adapter"
    return PeftModel.from_pretrained(session.model.unload(), adapter), session.tokenizer


def _epsilon(evidence: Path) -> tuple[str, str, str]:
    from fl_alliance.evidence.sign import peek_document
    from fl_alliance.protocol.documents import PrivacyReport

    report = peek_document((evidence / "report.dsse.json").read_bytes(), PrivacyReport)
    return report.institution, report.epsilon_pld, report.epsilon_rdp
