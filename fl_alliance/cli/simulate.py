"""`fl-alliance simulate`: a whole alliance in this process, without a model, with faults."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fl_alliance.cli.words import check, console


def simulate(
    members: Annotated[int, typer.Option(help="Institutions.")] = 10,
    rounds: Annotated[int, typer.Option(help="Rounds of the job.")] = 1,
    parameters: Annotated[int, typer.Option(help="Coordinates of an update.")] = 10_000,
    threshold: Annotated[int | None, typer.Option(help="Of the plan; left out: above half of the members.")] = None,
    quorum: Annotated[int | None, typer.Option(help="Of the plan; left out: above half of the members.")] = None,
    bits: Annotated[int, typer.Option(help="Of a coordinate in the sum: 8, 12, 16, 18 or 20.")] = 16,
    verifiers: Annotated[
        int | None, typer.Option(help="Members that add the uploads again; left out: every member.")
    ] = None,
    drop: Annotated[float, typer.Option(help="Members that go away in each phase: a part below 1, or a number.")] = 0.0,
    duplicate: Annotated[float, typer.Option(help="Part of the requests that come twice.")] = 0.0,
    delay: Annotated[float, typer.Option(help="Part of the replies that come late.")] = 0.0,
    lose: Annotated[float, typer.Option(help="Part of the requests, and of the replies, that get lost.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the faults, and of nothing else.")] = 0,
    folder: Annotated[
        Path | None, typer.Option(help="Keep the parties' folders there; left out: gone at the end.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome there.")] = None,
) -> None:
    """Run a job of many institutions on this machine, with faults, and print what it took. Trains no model.

    A load and fault test of the protocol: real keys, ledgers, shares, masks and ciphers, updates of noise. Says
    nothing about privacy.
    """
    from fl_alliance.parties.files import write_atomically
    from fl_alliance.parties.simulate import SimulationSettings, require_right, run_simulation
    from fl_alliance.parties.simulate.screen import show_outcome

    values = {
        "members": members,
        "rounds": rounds,
        "parameters": parameters,
        "threshold": threshold,
        "quorum": quorum,
        "bits": bits,
        "verifiers": verifiers,
        "drop": drop,
        "duplicate": duplicate,
        "delay": delay,
        "lose": lose,
        "seed": seed,
    }
    check(SimulationSettings, **values)
    _quiet()
    with tempfile.TemporaryDirectory(prefix="fl-alliance-") as temporary, console.status("keys") as status:
        place = Path(temporary) / "alliance" if folder is None else folder
        outcome = run_simulation(SimulationSettings.model_validate(values), place, tell=status.update)
    show_outcome(console, outcome)
    if json_file is not None:
        write_atomically(json_file, json.dumps(outcome.as_json(), indent=1).encode(), mode=0o644)
    require_right(outcome)


def _quiet() -> None:
    """Faults are what is simulated: a line in the log for each would hide the table."""
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
