"""A whole alliance in one process: real folders, keys, ciphers and training of a tiny Qwen; only the wire is a hub."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fl_alliance.parties import wiring
from fl_alliance.parties.coordinator import Coordinator
from fl_alliance.parties.demo import settings as demo
from fl_alliance.parties.demo import stage
from fl_alliance.protocol.plan import OptimizerPlan, SumPlan, TrainingPlan
from fl_alliance.store.blobs import FolderBlobs
from fl_alliance.transport.local import LocalHub
from tests.parties.joining import Office
from tests.postgres import Server

SITES = ("clinic", "hospital", "school")
FOUR = (*SITES, "surgery")


@dataclass
class Alliance:
    """Folders of all parties, the hub between them, and every byte that reached the coordinator."""

    folder: Path
    plan: TrainingPlan
    hub: LocalHub
    blobs: FolderBlobs
    received: list[bytes] = field(default_factory=list)
    handlers: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)

    def home(self, name: str) -> Path:
        return self.folder / name

    def job(self, name: str) -> Path:
        return self.home(name) / "jobs" / self.plan.job

    def attach(self, name: str) -> None:
        handler = wiring.institution(self.home(name), self.hub.institution_link(name))
        self.handlers[name] = handler

        def heard(request: bytes) -> bytes:
            reply = self.handlers[name](request)
            self.received.append(reply)
            return reply

        self.hub.attach(name, heard)

    def coordinator(self, *, ask_again: float = 60.0, clock: Callable[[], float] = time.monotonic) -> Coordinator:
        link = self.hub.coordinator_link()
        folder = self.folder / "coordinator"
        return wiring.coordinator(folder, self.plan.job, link, self.blobs, ask_again=ask_again, clock=clock)


def settings(model: Path, data: Path, sites: tuple[str, ...] = SITES, **changes: Any) -> demo.DemoSettings:
    fields: dict[str, Any] = {
        "alliance": "test-alliance",
        "job": "job-1",
        "model": model,
        "rounds": 2,
        "threshold": 2,
        "quorum": 3,
        "max_tokens": 48,
        "epsilon_cap": "8",
        "adapter": demo.AdapterSettings(rank=2, alpha=8, targets=("q_proj", "v_proj"), public_seed=7),
        "optimizer": OptimizerPlan(name="sgd", learning_rate="0.5"),
        "privacy": demo.PrivacySettings(
            unit="patient",
            clip_norm="1",
            noise_multiplier="4",
            sampling_rate="0.5",
            steps_per_round=2,
            records_per_unit=2,
            delta="0.00001",
        ),
        "sum": SumPlan(coordinate_clip="0.5"),
        "columns": demo.Columns(unit="patient", prompt="prompt", answer="answer"),
        "institutions": tuple(
            demo.Site(name=name, train=data / f"{name}.jsonl", heldout=data / f"{name}.jsonl", declared_units=10_000)
            for name in sites
        ),
    }
    return demo.DemoSettings(**{**fields, **changes})


def write_records(data: Path) -> None:
    data.mkdir(parents=True, exist_ok=True)
    for name in FOUR:
        rows = [
            {"patient": f"{name}-{n // 2}", "prompt": f"Define: word {n}", "answer": f"a thing of {name} number {n}"}
            for n in range(12)
        ]
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """A coordinator whose join door is open."""
    made = Office(tmp_path)
    with made.open():
        yield made


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Alliance]:
    """Return a maker of alliances; keyword arguments change the settings."""

    return functools.partial(build_in, tmp_path)


def build_in(place: Path, **changes: Any) -> Alliance:
    """Make data and folders of an alliance below `place`, and attach its institutions."""
    write_records(place / "data")
    chosen = settings(Path(__file__).parents[2] / "deploy" / "demo" / "model", place / "data", **changes)
    return attached(place / "alliance", stage.prepare(chosen, place, place / "alliance", threads=1))


def set_database(home: Path, settings: str, url: str) -> None:
    """Set the database of a party in its settings; before everything else there, for tables may follow."""
    file = home / settings
    file.write_text(f'database = "{url}"\n{file.read_text()}')


@pytest.fixture
def database_url(postgres: Server) -> Iterator[str]:
    """An empty PostgreSQL database."""
    with postgres.database() as url:
        yield url


def attached(folder: Path, plan: TrainingPlan) -> Alliance:
    """Return the alliance whose folders are in `folder`, as after a restart of everybody."""
    blobs = FolderBlobs(folder / "coordinator" / "blobs")
    alliance = Alliance(folder, plan, LocalHub(plan.names, blobs), blobs)
    for name in plan.names:
        alliance.attach(name)
    return alliance
