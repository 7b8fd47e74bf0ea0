"""Settings of a demo: one job, its institutions and their files, in one TOML file; and the plan that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fl_alliance.parties.config import DataConfig
from fl_alliance.protocol.ids import Name
from fl_alliance.protocol.limits import MAX_MEMBERS, MIN_MEMBERS
from fl_alliance.protocol.plan import (
    AdapterPlan,
    EvaluationPlan,
    Member,
    OptimizerPlan,
    PrivacyPlan,
    ServerPlan,
    SumPlan,
    TrainingPlan,
)


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
    clipping: Literal["flat", "auto-s"] = "flat"
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

    name: Name
    train: Path
    heldout: Path
    declared_units: int


class DemoSettings(_Settings):
    """`demo.toml`."""

    alliance: Name
    job: Name
    model: Path
    rounds: int
    threshold: int
    quorum: int
    max_tokens: int
    epsilon_cap: str
    phase_seconds: int = 1800
    adapter: AdapterSettings
    optimizer: OptimizerPlan
    server: ServerPlan = ServerPlan()
    privacy: PrivacySettings
    evaluation: EvaluationPlan | None = None
    sum: SumPlan
    columns: Columns
    institutions: Annotated[tuple[Site, ...], Field(min_length=MIN_MEMBERS, max_length=MAX_MEMBERS)]

    def data(self, name: str, path: Path) -> DataConfig:
        """Return the configuration of one data file."""
        columns = self.columns
        return DataConfig(
            name=name,
            path=path,
            unit_column=columns.unit,
            prompt_column=columns.prompt,
            answer_column=columns.answer,
        )


def make_plan(settings: DemoSettings, base: Path) -> TrainingPlan:
    """Return the plan of the settings: model digests and module count are read from the model's folder.

    Raises:
        BadModel: the model's folder; BadPlan: what the adapter targets; pydantic's ValidationError: a field.
    """
    from fl_alliance.training.base import load_base, model_files
    from fl_alliance.training.model import count_modules

    files = model_files(base / settings.model)
    model, _ = load_base(base / settings.model, files)
    modules = count_modules(model, settings.adapter.targets)
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
        adapter=AdapterPlan(**settings.adapter.model_dump(), modules=modules),
        optimizer=settings.optimizer,
        server=settings.server,
        evaluation=settings.evaluation,
        privacy=PrivacyPlan(**settings.privacy.model_dump(), epsilon_cap=settings.epsilon_cap),
        sum=settings.sum,
        max_tokens=settings.max_tokens,
        accept_seconds=settings.phase_seconds,  # nobody is asked, and nobody comes later
        phase_seconds=settings.phase_seconds,
    )
