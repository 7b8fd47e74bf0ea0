"""`fl-alliance coordinator ...`: what the alliance's admin types."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fl_alliance.cli.words import Folder, LogFormat, LogLevel, check, console, examined, read, say, stop_at_signals
from fl_alliance.errors import JobAborted

app = typer.Typer(no_args_is_help=True, help="Run by the alliance's admin.")


@app.command("init")
def coordinator_init(
    home: Folder,
    alliance: Annotated[str, typer.Option(help="Name of the alliance, as in a DNS label.")],
    host: Annotated[str, typer.Option(help="Name or address that institutions call.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port of the only public listener.")] = 9443,
) -> None:
    """Make the alliance's roots and the coordinator's keys."""
    from fl_alliance.parties.config import CoordinatorConfig
    from fl_alliance.parties.setup import coordinator_init as make

    check(CoordinatorConfig, alliance=alliance, host=host, port=port)
    say(f"root fingerprint {make(home, alliance=alliance, host=host, port=port)}")


@app.command("admit")
def coordinator_admit(
    home: Folder,
    request: Annotated[Path, typer.Argument(help="join-request.json of an institution.")],
    out: Annotated[Path, typer.Option(help="Where to write the membership file.")] = Path("membership.json"),
) -> None:
    """Sign an institution's request and publish the list of members anew."""
    from fl_alliance.parties import setup
    from fl_alliance.parties.files import write_atomically
    from fl_alliance.protocol.codec import encode

    joined = read(setup.JoinRequest, request, "join request")
    write_atomically(out, encode(setup.coordinator_admit(home, joined)))
    setup.publish_members(home)
    say(f"{joined.name} is a member; give it {out}")


@app.command("propose")
def coordinator_propose(home: Folder, plan: Annotated[Path, typer.Argument(help="The plan as JSON.")]) -> None:
    """Sign a training plan as a job, and queue it."""
    from fl_alliance.parties.files import read_file
    from fl_alliance.parties.plans import read_plan
    from fl_alliance.parties.wiring import propose

    say(f"signed {propose(home, read_plan(read_file(plan, 'plan')))}")


@app.command("run")
def coordinator_run(
    home: Folder,
    job: Annotated[str, typer.Argument(help="Name of a proposed job.")],
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Run a job, or go on with it after a crash or a stop."""
    from fl_alliance.cli.service import begin
    from fl_alliance.parties.config import CoordinatorConfig
    from fl_alliance.parties.wiring import run_coordinator
    from fl_alliance.rounds.coordinator import Aborted, Finished

    tell, stop = begin(CoordinatorConfig, home / "coordinator.toml", log_format, log_level), stop_at_signals()
    state = run_coordinator(home, job, tell=tell, stopping=stop.is_set)
    if isinstance(state, Aborted):
        raise JobAborted(state.reason)
    if isinstance(state, Finished):
        say(f"job {job} is finished: every member that stayed has the adapter")
    else:
        say(f"stopped: the same command goes on with job {job}")


@app.command("serve")
def coordinator_serve(home: Folder, log_format: LogFormat = None, log_level: LogLevel = None) -> None:
    """Run queued jobs one after the other, until interrupted; go on with one that was interrupted."""
    from fl_alliance.cli.service import begin
    from fl_alliance.parties.config import CoordinatorConfig
    from fl_alliance.parties.wiring import serve_coordinator

    tell = begin(CoordinatorConfig, home / "coordinator.toml", log_format, log_level)
    serve_coordinator(home, stop=stop_at_signals(), tell=tell)


@app.command("jobs")
def coordinator_jobs(
    home: Folder, as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False
) -> None:
    """List every job: queued, running with round and phase, finished, aborted with the reason."""
    from fl_alliance.parties.job_status import table_of
    from fl_alliance.parties.wiring import job_statuses

    jobs = job_statuses(home)
    if as_json:
        say(json.dumps([asdict(job) for job in jobs], indent=2))
    else:
        console.print(table_of(jobs))


@app.command("cancel")
def coordinator_cancel(
    home: Folder,
    job: Annotated[str, typer.Argument(help="Name of a proposed job.")],
    reason: Annotated[str, typer.Option(help="What the members are told.")] = "cancelled by the alliance's admin",
) -> None:
    """Take a job out of the queue, or end it where it is; the service that runs it obeys at once."""
    from fl_alliance.parties.wiring import cancel_job

    cancel_job(home, job, reason)
    say(f"job {job} is cancelled: {reason}")


@app.command("doctor")
def coordinator_doctor(home: Folder) -> None:
    """Say what is wrong with folder, keys, members, listener and disk, and how to mend it."""
    from fl_alliance.parties.doctor import examine_coordinator

    examined(examine_coordinator(home))
