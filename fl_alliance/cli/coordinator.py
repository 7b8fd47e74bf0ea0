"""`fl-alliance coordinator ...`: what the alliance's admin types."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fl_alliance.cli.words import (
    BundleFile,
    FinishedJobs,
    Folder,
    LogFormat,
    LogLevel,
    Since,
    Until,
    check,
    console,
    examined,
    say,
    stop_at_signals,
)
from fl_alliance.errors import BadConfig, JobAborted

app = typer.Typer(no_args_is_help=True, help="Run by the alliance's admin.")
RootKey = Annotated[
    Path | None, typer.Option("--root-key", help="File with the alliance's root, where it is not in the folder.")
]


@app.command("init")
def coordinator_init(
    home: Folder,
    alliance: Annotated[str, typer.Option(help="Name of the alliance, as in a DNS label.")],
    host: Annotated[str, typer.Option(help="Name or address that institutions call.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port of the listener for members.")] = 9443,
    join_port: Annotated[int | None, typer.Option(help="TCP port of the join door; none: one above.")] = None,
    root_key: Annotated[
        Path | None, typer.Option(help="Where to keep the alliance's root, on a stick say; none: in the folder.")
    ] = None,
) -> None:
    """Make the alliance's roots and the coordinator's keys."""
    from fl_alliance.parties.config import CoordinatorConfig
    from fl_alliance.parties.setup import coordinator_init as make

    door = port + 1 if join_port is None else join_port
    check(CoordinatorConfig, alliance=alliance, host=host, port=port, join_port=door)
    fingerprint = make(home, alliance=alliance, host=host, port=port, join_port=door, root_file=root_key)
    say(f"root fingerprint {fingerprint}")


@app.command("invite")
def coordinator_invite(
    home: Folder,
    names: Annotated[list[str], typer.Argument(help="Names of institutions; one code for each.")],
    days: Annotated[int, typer.Option(min=1, max=365, help="For how long a code can be used.")] = 7,
) -> None:
    """Print a join code for each name: for its eyes only, and for one use. An earlier code of the name ends here."""
    from fl_alliance.parties.roster import invite

    for name in names:
        print(invite(home, name, now=int(time.time()), days=days).text)  # noqa: T201


@app.command("admit")
def coordinator_admit(
    home: Folder,
    names: Annotated[list[str] | None, typer.Argument(help="Who asked to join; none named: say who waits.")] = None,
    fingerprint: Annotated[
        list[str] | None, typer.Option(help="As told by phone, one for each name; without it you are asked.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="join-request.json, where there is no network between.")] = None,
    out: Annotated[Path, typer.Option(help="With --file: where to write the membership.")] = Path("membership.json"),
    root_key: RootKey = None,
) -> None:
    """Sign the requests of institutions whose fingerprints you have compared, and publish the list of members anew."""
    from fl_alliance.parties import roster
    from fl_alliance.parties.join_words import fingerprint_of

    if file is not None:
        _admit_file(home, file, out, root_key)
        return
    if fingerprint and len(fingerprint) != len(names or []):
        raise BadConfig(f"fingerprint: {len(fingerprint)} for {len(names or [])} names, must be one for each")
    if not names:
        for request in roster.waiting(home):
            say(f"{request.name} waits with key fingerprint {fingerprint_of(request)}")
        return
    asked = [
        roster.require_waiting(home, name, fingerprint=fingerprint[n] if fingerprint else None)
        for n, name in enumerate(names)
    ]
    for request in asked:
        if not fingerprint:
            say(f"{request.name} asks with key fingerprint {fingerprint_of(request)}")
            typer.confirm(f"Did {request.name} tell you this fingerprint by phone?", abort=True)
        roster.admit(home, request, root_file=root_key)
        say(f"{request.name} is a member")


def _admit_file(home: Path, file: Path, out: Path, root_key: Path | None) -> None:
    from fl_alliance.parties import roster
    from fl_alliance.parties.files import write_atomically
    from fl_alliance.parties.setup import read_request
    from fl_alliance.protocol.codec import encode

    request = read_request(file)
    write_atomically(out, encode(roster.admit_file(home, file.read_bytes(), root_file=root_key)))
    say(f"{request.name} is a member; give it {out}")


@app.command("remove")
def coordinator_remove(
    home: Folder, name: Annotated[str, typer.Argument(help="Name of a member.")], root_key: RootKey = None
) -> None:
    """Strike a member off: from the list of members, with its node key and certificates."""
    from fl_alliance.parties.roster import remove

    say(f"{name} is no member; list of members number {remove(home, name, root_file=root_key)}")


@app.command("publish")
def coordinator_publish(home: Folder, root_key: RootKey = None) -> None:
    """Sign the list of members anew, after a member left by itself while the root was not there."""
    from fl_alliance.parties.roster import publish

    say(f"list of members number {publish(home, root_file=root_key)}")


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


@app.command("evidence")
def coordinator_evidence(
    home: Folder,
    out: BundleFile,
    jobs: FinishedJobs = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write what the coordinator signed and relayed in finished jobs, and its log, as one file for `audit verify`."""
    from fl_alliance.parties.bundles import Wanted
    from fl_alliance.parties.coordinator_bundle import coordinator_bundle

    bundle = coordinator_bundle(home, out, Wanted.of(jobs or (), since, until))
    say(f"wrote {out}: jobs {', '.join(bundle.jobs)}; signed by {bundle.party}")


@app.command("doctor")
def coordinator_doctor(home: Folder) -> None:
    """Say what is wrong with folder, keys, members, listener and disk, and how to mend it."""
    from fl_alliance.parties.doctor import examine_coordinator

    examined(examine_coordinator(home))
