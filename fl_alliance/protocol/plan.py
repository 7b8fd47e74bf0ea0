"""The training plan: everything that the institutions agree on before a record is read. It holds no cohort's true size.

Settings that change privacy are in `PrivacyPlan`; the ones that change what is learnt are in `AdapterPlan` and
`OptimizerPlan`; the ones of the blind sum in `SumPlan`. No seed of any noise is among them.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from fl_alliance.protocol.ids import DecimalText, Digest, Name
from fl_alliance.protocol.limits import MAX_MEMBERS, MAX_ROUNDS, MIN_MEMBERS
from fl_alliance.protocol.model import Wire

NOISE_REACH: Final = 10
"""Standard deviations of noise for which a coordinate has room: a Gaussian passes them once in 6e22 draws."""


def items(least: int, most: int) -> object:
    """Bounds of a list that travels (JSON has lists, we keep tuples)."""
    return Field(min_length=least, max_length=most, strict=False)


class ModelFile(Wire):
    """One file of the base model's folder."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    digest: Digest


class AdapterPlan(Wire):
    """The LoRA adapter (Hu et al. 2021). `ffa`: A is frozen at a public draw, B is trained (Sun et al. 2024)."""

    method: Literal["ffa-lora", "lora"] = "ffa-lora"
    rank: Annotated[int, Field(ge=1, le=256)]
    alpha: Annotated[int, Field(ge=1, le=1024)]
    targets: Annotated[tuple[str, ...], items(1, 16)]
    """Names of the Linear modules that get an adapter, such as `q_proj`."""
    modules: Annotated[int, Field(ge=1, le=100_000)]
    """How many modules the targets must hit: fewer means a mixer was skipped silently."""
    public_seed: Annotated[int, Field(ge=0, le=2**31 - 1)]
    """Draws the frozen A. Public by design: it is the starting point, not noise."""


class OptimizerPlan(Wire):
    """The local optimizer; its state starts anew in each round."""

    name: Literal["sgd", "adam"]
    learning_rate: DecimalText
    momentum: DecimalText = "0"
    """For sgd: momentum. For adam: beta1."""
    beta2: DecimalText = "0.999"
    """For adam only."""
    noise_floor: DecimalText | None = None
    """For adam only. A number: the noise's variance is taken off the second moment, of which at least this is left
    (DP-AdamBC, Tang et al. 2024). None: plain Adam."""

    @model_validator(mode="after")
    def _moves_and_settles(self) -> Self:
        _require_moving(self.learning_rate)
        _require_settling(momentum=self.momentum, beta2=self.beta2)
        if self.noise_floor is not None and (self.name != "adam" or Decimal(self.noise_floor) <= 0):
            raise ValueError(f"noise_floor {self.noise_floor} must be above 0, and only with adam, not {self.name}")
        return self


class ServerPlan(Wire):
    """How the mean of the updates moves the global adapter; every institution does it alike, on the opened sum."""

    name: Literal["mean", "adam"] = "mean"
    """`mean`: by the mean itself, and nothing below is used. `adam`: FedAdam (Reddi et al. 2021)."""
    learning_rate: DecimalText = "1"
    beta1: DecimalText = "0.9"
    beta2: DecimalText = "0.99"
    tau: DecimalText = "0.001"
    """Added to the root of the second moment: the larger, the less adaptive."""

    @model_validator(mode="after")
    def _moves_and_settles(self) -> Self:
        _require_moving(self.learning_rate)
        _require_settling(beta1=self.beta1, beta2=self.beta2)
        if Decimal(self.tau) <= 0:
            raise ValueError(f"tau {self.tau} must be above 0")
        return self


def _require_moving(learning_rate: str) -> None:
    if Decimal(learning_rate) <= 0:
        raise ValueError(f"learning_rate {learning_rate} must be above 0: nothing would be learnt")


def _require_settling(**decays: str) -> None:
    for name, decay in decays.items():
        if Decimal(decay) >= 1:
            raise ValueError(f"{name} {decay} must be below 1")


class PrivacyPlan(Wire):
    """What decides epsilon: DP-SGD with Poisson sampling of units (Abadi et al. 2016), add-or-remove one unit."""

    unit: Annotated[str, Field(min_length=1, max_length=63)]
    """The unit of privacy in plain words: patient, student, headword."""
    clip_norm: DecimalText
    """L2 bound C of one unit's gradient."""
    clipping: Literal["flat", "auto-s"] = "flat"
    """`flat`: a gradient above C is cut down to it. `auto-s`: every gradient is scaled to nearly C, whatever its length
    (Bu et al. 2023), so that C and the learning rate need not be tuned together. Both bound a unit by C."""
    noise_multiplier: DecimalText
    """Standard deviation of the noise over C (sigma)."""
    noise: Literal["local", "distributed"] = "local"
    """`local`: each member adds all of it. `distributed`: each adds a part; only the sum is private (decision 8)."""
    sampling_rate: DecimalText
    """Probability q that a unit is in a step's sample."""
    steps_per_round: Annotated[int, Field(ge=1, le=100_000)]
    records_per_unit: Annotated[int, Field(ge=1, le=1000)]
    """At most so many records of a unit are used in a step (k)."""
    delta: DecimalText
    epsilon_cap: DecimalText
    """No member may spend more on this job; the plan's own epsilon must be below it."""

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        for name in ("clip_norm", "noise_multiplier", "sampling_rate", "delta", "epsilon_cap"):
            if Decimal(getattr(self, name)) <= 0:
                raise ValueError(f"{name} {getattr(self, name)} must be above 0")
        if Decimal(self.sampling_rate) > 1:
            raise ValueError(f"sampling_rate {self.sampling_rate} must be at most 1")
        if Decimal(self.delta) >= 1:
            raise ValueError(f"delta {self.delta} must be below 1")
        return self


class EvaluationPlan(Wire):
    """Scores of units that are never trained on, under privacy of their own; charged with each round."""

    heldout: DecimalText
    """Part of the units that is held out, drawn once for each data set by a key of the institution."""
    score_cap: DecimalText
    """A unit's score is the mean loss of its records in nats a token, and this at most."""
    noise_multiplier: DecimalText
    """Standard deviation of the noise in a member's sum of scores, over the cap."""
    patience: Annotated[int, Field(ge=1, le=MAX_ROUNDS)] | None = None
    """The job ends early after so many scores without a new best one; None: it has all its rounds."""

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if not 0 < Decimal(self.heldout) <= Decimal("0.5"):
            raise ValueError(f"heldout {self.heldout} must be above 0 and at most 0.5")
        for name in ("score_cap", "noise_multiplier"):
            if Decimal(getattr(self, name)) <= 0:
                raise ValueError(f"{name} {getattr(self, name)} must be above 0")
        return self


class SumPlan(Wire):
    """The blind sum: fixed point and the cipher's version (docs/architecture.md, secure aggregation)."""

    coordinate_clip: DecimalText
    """Each coordinate of an update is clipped to [-c, c] before it is made an integer."""
    bits: Literal[8, 12, 16, 18, 20] = 16
    cipher: Literal["tenseal-0.3.18/bfv-4096-60"] = "tenseal-0.3.18/bfv-4096-60"
    """Library version and parameter family: SEAL refuses another version's bytes."""
    verifiers: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] | None = None
    """How many members add the uploads again before anybody opens the sum (`protocol.draw`); None: every member."""


class Member(Wire):
    """A member of the job and what it declared about itself."""

    name: Name
    declared_units: Annotated[int, Field(ge=1, le=10**9)]
    """A public constant that the institution declared; the true number of units is never in a plan."""


class TrainingPlan(Wire):
    """A job: one adapter of one base model, so many rounds, by these members, under these privacy settings."""

    kind: Literal["training-plan"] = "training-plan"
    version: Literal[1] = 1
    alliance: Name
    job: Name
    rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)]
    members: Annotated[tuple[Member, ...], items(MIN_MEMBERS, MAX_MEMBERS)]
    threshold: Annotated[int, Field(ge=2, le=MAX_MEMBERS)]
    """Shares that open a mask (t > n/2), and the fewest members that must stay to the end of a round."""
    minimum_members: Annotated[int, Field(ge=MIN_MEMBERS, le=MAX_MEMBERS)] = MIN_MEMBERS
    """Fewest uploads in a sum: with fewer the round aborts, whatever the threshold."""
    quorum: Annotated[int, Field(ge=2, le=MAX_MEMBERS)]
    """Members that must sign the same adapter before it is released."""
    model: Annotated[tuple[ModelFile, ...], items(1, 200)]
    adapter: AdapterPlan
    optimizer: OptimizerPlan
    server: ServerPlan = ServerPlan()
    privacy: PrivacyPlan
    evaluation: EvaluationPlan | None = None
    sum: SumPlan
    max_tokens: Annotated[int, Field(ge=8, le=32_768)]
    """Longest record; longer ones are cut at the end."""
    release_to_coordinator: bool = False
    accept_seconds: Annotated[int, Field(ge=1, le=90 * 86_400)] = 7 * 86_400
    """The job aborts when a member has not accepted the plan by then: persons must read it, or it may be away."""
    phase_seconds: Annotated[int, Field(ge=1, le=7 * 86_400)] = 600
    """Who takes longer for any later phase is out of the job."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [member.name for member in self.members]
        if names != sorted(set(names)):
            raise ValueError("members must be sorted by name, each once")
        if not len(names) // 2 < self.threshold <= len(names):
            raise ValueError(f"threshold {self.threshold} must be above half of {len(names)} members and at most all")
        if not len(names) // 2 < self.quorum <= len(names):
            raise ValueError(f"quorum {self.quorum} must be above half of {len(names)} members and at most all")
        if self.minimum_members > len(names):
            raise ValueError(f"minimum_members {self.minimum_members} must be at most the {len(names)} members")
        files = [file.name for file in self.model]
        if files != sorted(set(files)):
            raise ValueError("model files must be sorted by name, each once")
        if not self.adapter.targets == tuple(sorted(set(self.adapter.targets))):
            raise ValueError("adapter targets must be sorted, each once")
        least = min(member.declared_units for member in self.members)
        if Decimal(self.privacy.delta) * 10 * least > 1:
            raise ValueError(f"delta {self.privacy.delta} is above 1 / (10 * {least} declared units)")
        if self.privacy.noise == "distributed":
            self._require_one_linear_step()
        return self

    def _require_one_linear_step(self) -> None:
        """Noise of several members protects only what is linear in it: one SGD step, neither clipped nor coarse."""
        if self.privacy.steps_per_round != 1:
            raise ValueError(f"steps_per_round {self.privacy.steps_per_round} must be 1 with distributed noise")
        if self.optimizer.name != "sgd" or Decimal(self.optimizer.momentum) != 0:
            raise ValueError(f"optimizer must be sgd with momentum 0 with distributed noise, not {self.optimizer.name}")
        clip, level = float(self.sum.coordinate_clip), 2 * float(self.sum.coordinate_clip) / ((1 << self.sum.bits) - 1)
        least, most = 2 * NOISE_REACH * self.update_noise, self.update_noise / 4
        if clip < least:
            raise ValueError(f"coordinate_clip {self.sum.coordinate_clip} must be {least:.3g} at least: it cuts noise")
        if level > most:
            raise ValueError(f"bits {self.sum.bits}: a level is {level:.3g}, with distributed noise at most {most:.3g}")

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, sorted."""
        return tuple(member.name for member in self.members)

    @property
    def fewest(self) -> int:
        """Fewest members with which a round goes on: as many as the threshold and as the minimum."""
        return max(self.threshold, self.minimum_members)

    @property
    def confirmations(self) -> int:
        """Members that must confirm one list of survivors before anybody reveals a share: more than two thirds.

        A coordinator with h helpers, who confirm whatever it likes, gets two lists of n members confirmed if twice this
        number is at most n + h: then one half of the others would give shares of a member's self mask, the other half
        of its mask key (Bonawitz et al. 2017, theorem 6.5; docs/SPEC.md, 10.4). More than two thirds stands against
        h < n/3. Where a list must hold every member there is only one, and the threshold is enough.
        """
        members = len(self.members)
        return self.threshold if self.fewest == members else max(self.threshold, 2 * members // 3 + 1)

    def declared_units(self, name: str) -> int:
        """Return what member `name` declared (KeyError: not a member)."""
        return {member.name: member.declared_units for member in self.members}[name]

    def normaliser(self, name: str) -> float:
        """Return by what member `name` divides its noised gradient: q times declared units, a public constant.

        With distributed noise times the mean of all members' declared units: parts of one noise need one scale.
        """
        units: float = self.declared_units(name)
        if self.privacy.noise == "distributed":
            units = sum(member.declared_units for member in self.members) / len(self.members)
        return float(self.privacy.sampling_rate) * units

    @property
    def noise_parts(self) -> int:
        """Parts of the noise surely in a sum: of the fewest survivors, `threshold` - 1 may leave theirs out."""
        return 1 if self.privacy.noise == "local" else self.fewest - self.threshold + 1

    @property
    def member_noise(self) -> float:
        """Standard deviation of one member's noise in its summed gradient, over C: `noise_parts` of them make sigma."""
        return float(self.privacy.noise_multiplier) / math.sqrt(self.noise_parts)

    @property
    def update_noise(self) -> float:
        """Standard deviation of that noise in a coordinate of an update of one SGD step by the first member."""
        return float(self.optimizer.learning_rate) * self.gradient_noise(self.names[0])

    def gradient_noise(self, name: str) -> float:
        """Return the standard deviation of the noise in a coordinate of member `name`'s normalised gradient."""
        return self.member_noise * float(self.privacy.clip_norm) / self.normaliser(name)
