"""The two steps that `bench.dp` compares, over the same base, adapter, optimizer, records and passes.

`PlainStep` is LoRA without privacy: summed loss, backward, the optimizer's step. `PrivateStep` is the product's own
step (`TrainingSession`): gradients of each record, summed by unit, clipped, summed, noised, the optimizer's step.

    python -m bench.dp_steps plain|private CASE     one line of JSON: the memory of this process (Linux)
    python -m bench.dp_steps time CASE              the same of: seconds of both steps and of the private one's parts

are what `bench.dp` starts, one after the other, so that nothing else is in a figure or in the machine's memory.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from unittest import mock

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from bench.figures import Stopwatch
from fl_alliance.protocol.plan import AdapterPlan, Member, OptimizerPlan, PrivacyPlan, SumPlan, TrainingPlan
from fl_alliance.training.base import load_base, model_files
from fl_alliance.training.batches import Performance, Unit, groups, summed_loss
from fl_alliance.training.dp import UnitOptimizer
from fl_alliance.training.encode import IGNORED, Encoded, collate, pad_id
from fl_alliance.training.gradients import UnitGradients
from fl_alliance.training.model import adapter_size, attach_adapter, trained_parameters
from fl_alliance.training.optimizers import inner_optimizer
from fl_alliance.training.process import prepare_process
from fl_alliance.training.session import TrainingSession

DEMO: Final = Path(__file__).parents[1] / "deploy" / "demo" / "model"
SHAPES: Final = ("tiny", "0.5b")
METHODS: Final = ("ffa-lora", "lora")
LAYERS: Final = {"tiny": 4, "0.5b": 24}
TARGETS: Final = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
"""All linear layers of a block."""

MEMBER: Final = "berlin"
STEPS_OF_A_PEAK: Final = 2


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one comparison is about."""

    shape: str
    method: str
    tokens: int
    """Tokens of each record; the second half of them is learnt."""
    records: int
    """Records of a step."""
    records_per_unit: int
    rounds: int
    """Pairs of steps that are timed."""
    threads: int
    folder: str
    """The base model's folder."""


class Step(Protocol):
    """One logical step of training."""

    def step(self) -> None:
        """Take it."""


def make_base(shape: str, folder: Path) -> Path:
    """Return a folder with the base: the demo's own, or Qwen2 0.5B with random weights, written into `folder`."""
    if shape == "tiny":
        return DEMO
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, max_position_embeddings=32_768, tie_word_embeddings=True, dtype="bfloat16",
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(DEMO / name, folder / name)
    return folder


def plan_of(case: Case) -> TrainingPlan:
    """Return a plan for `case`; of its numbers only the adapter and the optimizer matter for time and memory."""
    return TrainingPlan(
        alliance="bench",
        job="dp",
        rounds=1,
        members=tuple(Member(name=name, declared_units=1000) for name in ("berlin", "lagos", "lima")),
        threshold=2,
        quorum=2,
        model=model_files(Path(case.folder)),
        adapter=AdapterPlan(
            method="lora" if case.method == "lora" else "ffa-lora",
            rank=8,
            alpha=16,
            targets=TARGETS,
            modules=len(TARGETS) * LAYERS[case.shape],
            public_seed=1,
        ),
        optimizer=OptimizerPlan(name="adam", learning_rate="0.001", momentum="0.9"),
        privacy=PrivacyPlan(
            unit="patient",
            clip_norm="1",
            noise_multiplier="1",
            sampling_rate="0.01",
            steps_per_round=1,
            records_per_unit=case.records_per_unit,
            delta="0.00001",
            epsilon_cap="8",
        ),
        sum=SumPlan(coordinate_clip="0.1"),
        max_tokens=case.tokens,
    )


def sample_of(case: Case) -> list[Unit]:
    """Return the units of a step: random tokens, the first half of a record is the prompt."""
    drawn = np.random.default_rng(1).integers(3, 4096, (case.records, case.tokens)).tolist()
    half = case.tokens // 2
    rows = [Encoded(tuple(ids), (IGNORED,) * half + tuple(ids[half:])) for ids in drawn]
    return [rows[start : start + case.records_per_unit] for start in range(0, case.records, case.records_per_unit)]


class PlainStep:
    """LoRA without clipping and noise, in the passes that the private step has."""

    def __init__(self, case: Case, plan: TrainingPlan) -> None:
        base, tokenizer = load_base(Path(case.folder), plan.model)
        self.model: Any = attach_adapter(base, plan.adapter)
        self._pad = pad_id(tokenizer)
        self._limits = Performance().limits(adapter_size(self.model), base.config.vocab_size)
        self._normaliser = plan.normaliser(MEMBER)
        self._sample = sample_of(case)
        self._optimizer = inner_optimizer(trained_parameters(self.model), plan.optimizer)

    def step(self) -> None:
        """Backward for each pass, one step of the optimizer."""
        for group in groups(self._sample, *self._limits):
            for rows in group.passes:
                loss = summed_loss(self.model, collate(rows, self._pad)) / self._normaliser
                loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad()


class PrivateStep:
    """The step of `TrainingSession`, on a sample that is given instead of drawn."""

    def __init__(self, case: Case, plan: TrainingPlan) -> None:
        self._session = TrainingSession(Path(case.folder), plan, MEMBER, Performance(threads=case.threads))
        self._sample = sample_of(case)
        self._optimizer = self._session._optimizer()

    @property
    def size(self) -> int:
        """Coordinates of the adapter."""
        return len(self._session.vector)

    def share_base(self, model: Any) -> None:
        """Use the frozen weights of `model`: at 256 tokens two bases would be much of a machine's memory."""
        theirs = dict(model.named_parameters())
        for name, parameter in self._session.model.named_parameters():
            if not parameter.requires_grad:
                parameter.data = theirs[name].data

    def step(self) -> None:
        """Take one step as a round does."""
        self._session._step(self._optimizer, self._sample)


PARTS: Final[Mapping[str, Sequence[tuple[type, str]]]] = {
    "hooks": ((UnitGradients, "capture_activations_hook"), (UnitGradients, "capture_backprops_hook")),
    "clip": ((UnitOptimizer, "accumulate"),),
    "noise": ((UnitOptimizer, "add_noise"),),
}
"""Where the private step spends what the plain one does not, and the methods that are it."""


@contextmanager
def watched(watch: Stopwatch) -> Iterator[None]:
    """Have `watch` add up the parts of the private steps that are built in the block."""
    with ExitStack() as stack:
        for name, methods in PARTS.items():
            for owner, method in methods:
                timed = _timed(getattr(owner, method), watch, name)
                stack.enter_context(mock.patch.object(owner, method, timed))
        yield


def _timed(method: Callable[..., Any], watch: Stopwatch, name: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        with watch.step(name):
            return method(*args, **kwargs)

    return run


def seconds(step: Step) -> float:
    """Take a step; return its CPU seconds, of all threads."""
    start = time.process_time()
    step.step()
    return time.process_time() - start


def times(case: Case) -> dict[str, Any]:
    """Return the seconds of `rounds` pairs of steps, plain and private in turn, and of the private step's parts."""
    watch = Stopwatch()
    with watched(watch):
        plan = plan_of(case)
        plain, private = PlainStep(case, plan), PrivateStep(case, plan)
        private.share_base(plain.model)
        for step in (plain, private):  # the first step makes the optimizer's state and warms the allocator
            step.step()
        watch.seconds.clear()
        pairs = [(seconds(plain), seconds(private)) for _ in range(case.rounds)]
    parts = {part: watch.seconds[part] / case.rounds for part in PARTS}
    return {"size": private.size, "pairs": pairs, "parts": parts}


def memory(kind: str, case: Case) -> dict[str, int]:
    """Return the memory of this process in bytes: with the model loaded, and the peak of two steps after that."""
    plan = plan_of(case)
    step: Step = PlainStep(case, plan) if kind == "plain" else PrivateStep(case, plan)
    Path("/proc/self/clear_refs").write_text("5")  # start the peak anew: reading the files is not the step
    loaded = _status("VmRSS")
    for _ in range(STEPS_OF_A_PEAK):
        step.step()
    return {"loaded": loaded, "peak": _status("VmHWM")}


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def as_argument(case: Case) -> str:
    """Return `case` as the argument of a child."""
    return json.dumps(asdict(case))


if __name__ == "__main__":
    prepare_process()
    asked, about = sys.argv[1], Case(**json.loads(sys.argv[2]))
    torch.set_num_threads(about.threads)
    print(json.dumps(times(about) if asked == "time" else memory(asked, about)))
