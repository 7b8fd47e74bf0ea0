"""A dry run: the whole protocol in this process, with the institution's own settings and records made on the spot.

A coordinator, this institution and two made-up partners run a job of one round over the in-process wire, with keys,
ledgers and folders in a temporary place that is gone afterwards. No private record is read, nothing is charged, nothing
leaves the process. What it can't show is what lies between two machines: network, TLS, clocks; the doctor looks at
these by themselves.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from fl_alliance.errors import AllianceError, BadConfig
from fl_alliance.parties import wiring
from fl_alliance.parties.auditor import verify_evidence
from fl_alliance.parties.config import InstitutionConfig, load
from fl_alliance.parties.demo import settings as demo
from fl_alliance.parties.demo import stage
from fl_alliance.parties.doctor.finding import Finding
from fl_alliance.parties.setup import COORDINATOR
from fl_alliance.protocol.documents import InstitutionPolicy
from fl_alliance.protocol.plan import OptimizerPlan, SumPlan, TrainingPlan
from fl_alliance.rounds.coordinator import Aborted
from fl_alliance.store.blobs import FolderBlobs
from fl_alliance.transport.local import LocalHub

DEMO_MODEL: Final = Path(__file__).parents[3] / "deploy" / "demo" / "model"
"""Of a clone; an installed wheel has none."""
_JOB: Final = "dry-run"
_PARTNERS: Final = ("dry-run-partner-1", "dry-run-partner-2")
_UNITS: Final = 6
_DELTA: Final = "0.00001"
_EPSILON: Final = "50"


def dry_run(home: Path) -> Iterator[Finding]:
    """Yield what was tried and how it went.

    Raises:
        AllianceError: what stopped it, by its name.
    """
    from fl_alliance.training.process import prepare_process

    prepare_process()
    config = load(InstitutionConfig, home / "institution.toml")
    model, why = _model(home / config.model_folder)
    yield Finding(
        "dry run: model",
        "look" if why else "ok",
        f"{model.name}{f', the demo model: {why}' if why else ''}",
        "a job needs the plan's own model: see to that first",
    )
    with tempfile.TemporaryDirectory(prefix="fl-alliance-dry-run-") as place:
        yield from _run(Path(place), config, model)


def _model(folder: Path) -> tuple[Path, str]:
    """Return the institution's model folder, or the demo's and why it is not the own one.

    Raises:
        BadConfig: neither can be used.
    """
    from fl_alliance.training.base import model_files

    try:
        files = model_files(folder)
        require_room(folder, [file.name for file in files])
    except AllianceError as error:
        if not DEMO_MODEL.is_dir():
            raise BadConfig(f"model_folder: {error}; and there is no demo model here to try with") from None
        return DEMO_MODEL, str(error)
    return folder, ""


def require_room(folder: Path, files: list[str]) -> None:
    """Return if three copies of the model fit into memory, as three parties in one process hold them.

    Raises:
        BadConfig: they don't.
    """
    size = sum((folder / name).stat().st_size for name in files)
    need, free = 3 * 3 * size, _free_memory()
    if need > free:
        raise BadConfig(f"{folder.name} needs {need >> 20} MiB for three parties, {free >> 20} MiB are free")


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 62
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable")]
    return int(found[0]) << 10 if found else 1 << 62


def _run(place: Path, config: InstitutionConfig, model: Path) -> Iterator[Finding]:
    began = time.monotonic()
    plan = _prepare(place, config, model)
    yield Finding("dry run: set-up", "ok", f"keys, members, policies and a plan of one round in {_since(began)}")
    began = time.monotonic()
    hub = LocalHub(plan.names, FolderBlobs(place / COORDINATOR / "blobs"))
    for name in plan.names:
        hub.attach(name, wiring.institution(place / name, hub.institution_link(name)))
    state = wiring.coordinator(place / COORDINATOR, _JOB, hub.coordinator_link(), hub.blobs, ask_again=1.0).run()
    if isinstance(state, Aborted):
        raise BadConfig(f"the job was aborted: {state.reason}")
    said = f"one round with two made-up partners, device {config.device}: adapter released in {_since(began)}"
    yield Finding("dry run: job", "ok", said)
    verify_evidence(place / config.name / "jobs" / _JOB / "evidence", root=None, say=lambda _: None)
    yield Finding("dry run: audit", "ok", "the evidence of it holds; no private record was read, nothing was charged")


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"


def _prepare(place: Path, config: InstitutionConfig, model: Path) -> TrainingPlan:
    names = (config.name, *_PARTNERS)
    for name in names:
        _write_records(place / f"{name}.jsonl", config)
    plan = demo.make_plan(_settings(names, model.resolve()), place)
    stage.found(
        place,
        _JOB,
        {name: _configuration(name, config, model.resolve(), place) for name in names},
        lambda partners: {name: _policy(name, partners) for name in names},
        port=stage.free_port(),
    )
    wiring.propose(place / COORDINATOR, plan)
    return plan


def _write_records(path: Path, config: InstitutionConfig) -> None:
    """Write records that say nothing, in the columns that the institution's own file has."""
    data = config.data
    rows: list[dict[str, Any]] = []
    for n in range(2 * _UNITS):
        row: dict[str, Any] = {data.unit_column: f"made-up-{n // 2}"}
        asked, answered = f"Made-up question {n}?", f"Made-up answer {n}."
        if data.messages_column is not None:
            row[data.messages_column] = [
                {"role": "user", "content": asked}, {"role": "assistant", "content": answered},
            ]  # fmt: skip
        else:
            row |= {str(data.prompt_column): asked, str(data.answer_column): answered}
        rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _settings(names: tuple[str, ...], model: Path) -> demo.DemoSettings:
    """The smallest job that goes through every phase."""
    return demo.DemoSettings(
        alliance=_JOB,
        job=_JOB,
        model=model,
        rounds=1,
        threshold=2,
        quorum=3,
        max_tokens=48,
        epsilon_cap=_EPSILON,
        phase_seconds=3600,
        adapter=demo.AdapterSettings(rank=1, alpha=4, targets=("q_proj",), public_seed=1),
        optimizer=OptimizerPlan(name="sgd", learning_rate="0.1"),
        privacy=demo.PrivacySettings(
            unit="unit", clip_norm="1", noise_multiplier="4", sampling_rate="0.5", steps_per_round=1,
            records_per_unit=1, delta=_DELTA,
        ),
        sum=SumPlan(coordinate_clip="0.5"),
        columns=demo.Columns(unit="unit", prompt="prompt", answer="answer"),
        institutions=tuple(
            demo.Site(name=name, train=Path(f"{name}.jsonl"), heldout=Path(f"{name}.jsonl"), declared_units=1000)
            for name in names
        ),
    )  # fmt: skip


def _configuration(name: str, config: InstitutionConfig, model: Path, place: Path) -> str:
    """The institution's own settings, but for names, places and what would reach out of the dry run."""
    data = config.data.model_copy(update={"name": f"{name}-made-up"[:63].rstrip("-"), "path": place / f"{name}.jsonl"})
    own = config.model_dump(mode="json", exclude_none=True, exclude={"metrics", "log", "database", "data"})
    own |= {"name": name, "alliance": _JOB, "coordinator": "127.0.0.1:1", "model_folder": str(model)}
    return f"{_toml(own)}\n[data]\n{_toml(data.model_dump(mode='json', exclude_none=True))}"


def _toml(table: Mapping[str, Any]) -> str:
    """Strings, numbers and truth values are written alike in JSON and TOML; tables of tables are left out."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items() if not isinstance(value, dict))


def _policy(name: str, partners: Any) -> InstitutionPolicy:
    return InstitutionPolicy(
        institution=name,
        dataset=f"{name}-made-up"[:63].rstrip("-"),
        epsilon_per_job=_EPSILON,
        epsilon_per_dataset=_EPSILON,
        epsilon_per_year=_EPSILON,
        delta_max=_DELTA,
        allowed_units=("unit",),
        minimum_members=3,
        partners=tuple(sorted((p for p in partners if p.name != name), key=lambda partner: partner.name)),
    )
