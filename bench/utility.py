"""What an alliance learns under privacy: held-out scores of real data at real epsilons.

    python -m bench.utility medquad FILE [--model FOLDER] [--quick] [--json FILE]     nine institutes, epsilon 2, 4, 8
    python -m bench.utility adapters FILE ...                                         FFA-LoRA against plain LoRA
    python -m bench.utility heart FILE ...                                            four hospitals, epsilon 8

The data are public and not shipped (`utility_data`); `utility_lines` says what is trained, and what is left out.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from rich.console import Console

from bench import figures, utility_heart
from bench.figures import Column, Line, Report, Row
from bench.utility_data import Shares, Site, read_heart, read_medquad, split
from bench.utility_lines import Noise, Settings, federated, plan_of, train_pooled
from fl_alliance.privacy.accountant import PldAccountant
from fl_alliance.privacy.events import event_of
from fl_alliance.training.evaluate import heldout_loss
from fl_alliance.training.process import prepare_process
from fl_alliance.training.records import Records
from fl_alliance.training.session import TrainingSession

DEMO_MODEL: Final = Path("deploy/demo/model")
ALONE: Final = "alone"
LONGER: Final = 3
"""Steps of pooled training for each round of the others: without noise nothing forbids more steps."""

SERVER_RATE: Final = "0.06"
NOISES: Final[tuple[Noise, ...]] = ("local", "distributed")
HEART_LINES: Final = ("regression", "pooled", *NOISES, "alone")
PACKAGES: Final = ("fl-alliance", "torch", "opacus", "peft", "transformers", "dp-accounting")
SHARES: Final = Shares()
QUICK: Final = Shares(most_heldout=3, most_validation=2, most_train=8)

Scores = Mapping[str, float]
Measure = Callable[[object, object], Scores]
"""Takes a PEFT model and its tokenizer."""

app = typer.Typer(add_completion=False, no_args_is_help=True)
screen = Console(stderr=True, highlight=False)


# ---- lines that both sets share


def mean_row(scores: Sequence[Scores], **about: figures.Figure) -> Row:
    """Return one row: the mean of each score over the repeats, and `spread`, the range of `mean` over them."""
    means = {key: statistics.fmean(score[key] for score in scores) for key in scores[0]}
    seen = [score["mean"] for score in scores]
    return {**about, "repeats": len(scores), **means, "spread": max(seen) - min(seen) if len(seen) > 1 else None}


class Bench:
    """The lines of one table: the same settings, data and score for each."""

    def __init__(self, settings: Settings, sites: Mapping[str, Records], measure: Measure, repeats: int) -> None:
        self.settings, self._sites, self._measure, self._repeats = settings, sites, measure, repeats

    def base(self, epsilon: str) -> Row:
        """The model that nobody trained. `epsilon`: of any line, for a plan."""
        plan = plan_of(self.settings, epsilon)
        session = TrainingSession(self.settings.model, plan, plan.names[0])
        return mean_row(
            [self._measure(session.model, session.tokenizer)], trained="base", parameters=len(session.vector)
        )

    def alone(self, epsilon: str) -> Iterator[Row]:
        """Each institution alone: the same plan, and no sum."""
        for name in self._sites:
            yield self._line(f"{name}, {ALONE}", epsilon, "local", [name], 1)

    def alliance(self, epsilon: str, noise: Noise) -> Row:
        """All institutions."""
        return self._line("alliance" if noise == "local" else f"alliance, {noise}", epsilon, noise, list(self._sites))

    def pooled(self, epsilon: str, steps: int) -> Row:
        """All records in one place, without privacy, for so many steps. `epsilon`: of any line, for a plan."""
        screen.print(f"pooled, no privacy, {steps} steps ...")
        plan = plan_of(self.settings, epsilon)
        scores = self._measure(*train_pooled(plan, self.settings.model, list(self._sites.values()), steps))
        return mean_row([scores], trained=f"pooled, {steps} steps")

    def _line(self, name: str, epsilon: str, noise: Noise, who: Sequence[str], repeats: int | None = None) -> Row:
        plan = plan_of(self.settings, epsilon, noise)
        spent = PldAccountant().epsilon([event_of(plan).times(plan.rounds)], Decimal(plan.privacy.delta))
        scores = []
        for turn in range(repeats or self._repeats):
            screen.print(f"epsilon {epsilon}: {name}, {turn + 1} ...")
            session = federated(plan, self.settings.model, [self._sites[one] for one in who])
            scores.append(self._measure(session.model, session.tokenizer))
            size = len(session.vector)
            del session
            gc.collect()  # its hooks point back at it: the next line would hold a second copy of the base
        return mean_row(
            scores,
            epsilon=epsilon,
            trained=name,
            spent=float(spent),
            sigma=plan.privacy.noise_multiplier,
            method=plan.adapter.method,
            parameters=size,
        )


def best_alone(rows: Sequence[Row], epsilon: str, key: str, choose: Callable[[Sequence[float]], float]) -> float:
    """Return the best score of an institution alone at `epsilon`; `choose` is min or max."""
    of = [row for row in rows if row.get("epsilon") == epsilon and str(row["trained"]).endswith(ALONE)]
    return choose([figures.number(row, key) for row in of])


# ---- MedQuAD


def heldout_of(sites: Sequence[Site], max_tokens: int) -> Measure:
    """Return what scores a model: nats a token of each institute's held-out answers, and their mean."""

    def measure(model: object, tokenizer: object) -> Scores:
        each = {site.name: heldout_loss(model, tokenizer, site.heldout, max_tokens) for site in sites}
        return {"mean": statistics.fmean(each.values()), **each}

    return measure


def medquad_lines(rows: Sequence[Row], epsilons: Sequence[str]) -> list[Line]:
    """Return the claim, for each epsilon and noise: on the mean, the alliance is better than the best one alone."""
    lines = []
    for epsilon in epsilons:
        best = best_alone(rows, epsilon, "mean", min)
        for row in rows:
            if row.get("epsilon") == epsilon and str(row["trained"]).startswith("alliance"):
                what = f"epsilon {epsilon}: {row['trained']} and the best institution alone, mean nats a token"
                lines.append(Line(what=what, value=figures.number(row, "mean"), limit=best))
    return lines


def medquad_columns(sites: Sequence[Site]) -> list[Column]:
    """Return the table's columns: one for each institute."""
    names = [Column(site.name, site.name, ".3f") for site in sites]
    return [Column("epsilon", "eps"), Column("trained", "trained by"), Column("mean", "mean", ".4f"),
            Column("spread", "range", ".4f"), *names]  # fmt: skip


def medquad_settings(model: Path, sites: Sequence[Site], rounds: int, declared: int) -> Settings:
    """Return the settings of the MedQuAD tables, chosen on the validation diseases (docs/utility.md)."""
    return Settings(
        model=model,
        members=tuple(site.name for site in sites),
        unit="disease",
        declared=declared,
        rounds=rounds,
        rate="1",
        server_rate=SERVER_RATE,
        targets=("down_proj", "o_proj"),
        rank=8,
    )


def medquad_bench(file: Path, model: Path, quick: bool, repeats: int, rounds: int) -> tuple[Bench, list[Site]]:
    """Return the bench of a MedQuAD table, and the institutes."""
    sites = split(read_medquad(file), QUICK if quick else SHARES)
    settings = medquad_settings(model, sites, 2 if quick else rounds, (QUICK if quick else SHARES).most_train)
    train = {site.name: site.train for site in sites}
    return Bench(settings, train, heldout_of(sites, settings.max_tokens), repeats), sites


# ---- commands

File = Annotated[Path, typer.Argument(help="The data file; without it the bench says so and does nothing.")]
Model = Annotated[Path, typer.Option(help="Folder of a Qwen2 or Qwen3.")]
Epsilons = Annotated[str, typer.Option(help="By commas.")]
Repeats = Annotated[int, typer.Option(min=1, help="Trainings of each line of the alliance: noise has no seed.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds, of one step each.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch.")]
Quick = Annotated[bool, typer.Option("--quick", help="A few units and two rounds: shows only that it runs.")]
Json = Annotated[Path | None, typer.Option(help="File for the figures as JSON.")]
Markdown = Annotated[Path | None, typer.Option(help="File for the table as Markdown.")]


@app.command()
def medquad(
    file: File,
    model: Model = DEMO_MODEL,
    epsilons: Epsilons = "2,4,8",
    repeats: Repeats = 1,
    rounds: Rounds = 3,
    pooled: Annotated[bool, typer.Option(help="Whether all are trained pooled too, without privacy.")] = True,
    private: Annotated[bool, typer.Option(help="Whether the private lines are trained.")] = True,
    threads: Threads = 1,
    quick: Quick = False,
    json: Json = None,
    markdown: Markdown = None,
) -> None:
    """Nine institutes of MedQuAD: base, each alone, the alliance with local and shared noise, pooled."""
    begin(file, threads)
    bench, sites = medquad_bench(file, model, quick, repeats, rounds)
    steps, targets = bench.settings.rounds, epsilons.split(",")
    rows = [bench.base(targets[-1])]
    rows += [bench.pooled(targets[-1], LONGER * steps)] if pooled else []
    for epsilon in targets if private else ():
        rows += [bench.alliance(epsilon, "local"), bench.alliance(epsilon, "distributed"), *bench.alone(epsilon)]
    notes = (
        "Held-out loss, nats for each token of the answer, lower is better. mean: over the nine institutes.",
        *notes_of(rows),
    )
    lines = medquad_lines(rows, targets if private else ())
    report = report_of("MedQuAD, nine institutes", medquad_columns(sites), rows, lines, notes)
    figures.publish(replace(report, settings=about(bench)), json_file=json, markdown_file=markdown)


@app.command()
def adapters(
    file: File,
    model: Model = DEMO_MODEL,
    epsilon: Annotated[str, typer.Option(help="Of each line.")] = "8",
    methods: Annotated[str, typer.Option(help="By commas.")] = "ffa-lora,lora",
    server_rate: Annotated[str, typer.Option(help="Learning rate of FedAdam.")] = SERVER_RATE,
    repeats: Repeats = 1,
    rounds: Rounds = 3,
    threads: Threads = 1,
    quick: Quick = False,
    json: Json = None,
    markdown: Markdown = None,
) -> None:
    """FFA-LoRA against plain LoRA: the alliance on MedQuAD, the same settings but for the adapter's method."""
    begin(file, threads)
    bench, sites = medquad_bench(file, model, quick, repeats, rounds)
    rows = []
    for method in methods.split(","):
        bench.settings = Settings(**{**vars(bench.settings), "method": method, "server_rate": server_rate})
        rows.append(bench.alliance(epsilon, "local"))
    columns = [Column("method", "adapter"), Column("parameters", "trained", ",d"), *medquad_columns(sites)]
    notes = ("Held-out loss, nats for each token of the answer, lower is better.", *notes_of(rows))
    report = report_of("FFA-LoRA and plain LoRA", columns, rows, [], notes)
    figures.publish(replace(report, settings=about(bench)), json_file=json, markdown_file=markdown)


@app.command()
def heart(
    file: File,
    model: Model = DEMO_MODEL,
    epsilon: Annotated[str, typer.Option(help="Of each private line.")] = "8",
    repeats: Repeats = 1,
    rounds: Rounds = 10,
    server_rate: Annotated[str, typer.Option(help="Learning rate of FedAdam.")] = "0.03",
    rank: Annotated[int, typer.Option(min=1, help="Rank of the adapter.")] = 4,
    threads: Threads = 1,
    seed: Annotated[int, typer.Option(help="Draws the held-out patients.")] = 1988,
    lines: Annotated[str, typer.Option(help="What is trained, by commas.")] = ",".join(HEART_LINES),
    quick: Quick = False,
    json: Json = None,
    markdown: Markdown = None,
) -> None:
    """Four hospitals of the heart set: logistic regression, base, each alone, the alliance, pooled."""
    if unknown := set(lines.split(",")) - set(HEART_LINES):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: lines are {', '.join(HEART_LINES)}")
    begin(file, threads)
    cuts = utility_heart.cut(read_heart(file), seed)
    names = [one.hospital.name for one in cuts]
    settings = Settings(
        model=model,
        members=tuple(names),
        unit="patient",
        declared=200,
        rounds=1 if quick else rounds,
        rate="0.05" if quick else "1",
        server_rate=server_rate,
        targets=("down_proj", "o_proj"),
        rank=rank,
        max_tokens=96,
    )
    bench = Bench(
        settings,
        {one.hospital.name: one.train for one in cuts},
        lambda model, tokenizer: utility_heart.model_scores(model, tokenizer, cuts, settings.max_tokens),
        repeats,
    )
    regression = [
        ("logistic regression, pooled", cuts),
        *((f"logistic regression, {n}", [c]) for n, c in zip(names, cuts, strict=True)),
    ]
    asked, rows = lines.split(","), []
    if "regression" in asked:
        rows += [mean_row([utility_heart.regression_scores(on, cuts)], trained=name) for name, on in regression]
    rows += [bench.base(epsilon)]
    rows += [bench.pooled(epsilon, LONGER * settings.rounds)] if "pooled" in asked else []
    rows += [bench.alliance(epsilon, noise) for noise in NOISES if noise in asked]
    rows += bench.alone(epsilon) if "alone" in asked else []
    columns = [Column("epsilon", "eps"), Column("trained", "trained by"), Column("mean", "accuracy", ".3f"),
               Column("auc", "AUC", ".3f"), Column("spread", "range of accuracy", ".3f")]  # fmt: skip
    sick = utility_heart.heldout_sick(cuts)
    notes = (f"On {len(sick)} held-out patients of all hospitals, {sick.mean():.3f} of them sick.", *notes_of(rows))
    claims = heart_lines(rows, epsilon) if "alone" in asked else []
    report = report_of("Heart disease, four hospitals", columns, rows, claims, notes)
    figures.publish(replace(report, settings=about(bench)), json_file=json, markdown_file=markdown)


def heart_lines(rows: Sequence[Row], epsilon: str) -> list[Line]:
    """Return the claim, for each noise: the alliance orders patients better than the best hospital alone."""
    return [
        Line(
            what=f"epsilon {epsilon}: AUC of {row['trained']} and of the best hospital alone",
            value=figures.number(row, "auc"),
            limit=best_alone(rows, epsilon, "auc", max),
            relation=">=",
        )
        for row in rows
        if str(row["trained"]).startswith("alliance")
    ]


def begin(file: Path, threads: int) -> None:
    """Set up the process; without the data say why nothing is done, and leave."""
    if not file.is_file():
        screen.print(f"skipped: {file} is not there. The data are public and not shipped: see bench/utility_data.py")
        raise typer.Exit
    prepare_process()
    torch.set_num_threads(threads)


def notes_of(rows: Sequence[Row]) -> list[str]:
    """Return what the private lines spent, as their plans say it."""
    spent = {str(row["epsilon"]): row for row in rows if "spent" in row}
    said = [f"{epsilon}: sigma {row['sigma']}, spent {row['spent']:.4f} (PLD)" for epsilon, row in spent.items()]
    return [
        *([f"epsilon {'; '.join(said)}."] if said else []),
        "range: largest minus smallest mean of the repeats. Alone: one training. alliance, distributed: epsilon leans "
        "on the other members (decision 8); alone: the whole noise.",
        "Without encryption, which is exact; with quantising and all else of the product's training.",
    ]


def report_of(
    title: str, columns: Sequence[Column], rows: Sequence[Row], lines: Sequence[Line], notes: Sequence[str]
) -> Report:
    """Return the report; rows of one epsilon stand together."""
    return Report(bench="utility", title=title, columns=columns, rows=[{"epsilon": None, **row} for row in rows],
                  lines=lines, notes=notes, section=("epsilon",), packages=PACKAGES)  # fmt: skip


def about(bench: Bench) -> dict[str, object]:
    """Return the settings of the lines as JSON has them."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(bench.settings).items()}


if __name__ == "__main__":
    app()
