"""The command line: arguments in, one call to the parties out. Each command imports what it needs and no more."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console

from fl_alliance.errors import AllianceError, BadConfig, JobAborted, MalformedMessage

if TYPE_CHECKING:
    from fl_alliance.parties.doctor import Finding

M = TypeVar("M", bound=BaseModel)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks print local variables: records and keys would be in a log
    help="Institutions fine-tune Qwen adapters together.",
)
coordinator_app = typer.Typer(no_args_is_help=True, help="Run by the alliance's admin.")
institution_app = typer.Typer(no_args_is_help=True, help="Run inside a hospital or a school.")
plan_app = typer.Typer(no_args_is_help=True, help="Before a job: what a budget allows.")
audit_app = typer.Typer(no_args_is_help=True, help="Offline: of an evidence folder, or of training itself.")
app.add_typer(coordinator_app, name="coordinator")
app.add_typer(institution_app, name="institution")
app.add_typer(plan_app, name="plan")
app.add_typer(audit_app, name="audit")
console = Console(highlight=False)

Folder = Annotated[Path, typer.Argument(help="The party's own folder.")]


@coordinator_app.command("init")
def coordinator_init(
    home: Folder,
    alliance: Annotated[str, typer.Option(help="Name of the alliance, as in a DNS label.")],
    host: Annotated[str, typer.Option(help="Name or address that institutions call.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port of the only public listener.")] = 9443,
) -> None:
    """Make the alliance's roots and the coordinator's keys."""
    from fl_alliance.parties.config import CoordinatorConfig
    from fl_alliance.parties.setup import coordinator_init as make

    _check(CoordinatorConfig, alliance=alliance, host=host, port=port)
    _say(f"root fingerprint {make(home, alliance=alliance, host=host, port=port)}")


@coordinator_app.command("admit")
def coordinator_admit(
    home: Folder,
    request: Annotated[Path, typer.Argument(help="join-request.json of an institution.")],
    out: Annotated[Path, typer.Option(help="Where to write the membership file.")] = Path("membership.json"),
) -> None:
    """Sign an institution's request and publish the list of members anew."""
    from fl_alliance.parties import setup
    from fl_alliance.parties.files import write_atomically
    from fl_alliance.protocol.codec import encode

    joined = _read(setup.JoinRequest, request, "join request")
    write_atomically(out, encode(setup.coordinator_admit(home, joined)))
    setup.publish_members(home)
    _say(f"{joined.name} is a member; give it {out}")


@coordinator_app.command("propose")
def coordinator_propose(home: Folder, plan: Annotated[Path, typer.Argument(help="The plan as JSON.")]) -> None:
    """Sign a training plan as a job."""
    from fl_alliance.parties.files import read_file
    from fl_alliance.parties.plans import read_plan
    from fl_alliance.parties.wiring import propose

    _say(f"signed {propose(home, read_plan(read_file(plan, 'plan')))}")


@coordinator_app.command("run")
def coordinator_run(home: Folder, job: Annotated[str, typer.Argument(help="Name of a proposed job.")]) -> None:
    """Run a job, or go on with it after a crash."""
    from fl_alliance.parties.wiring import run_coordinator
    from fl_alliance.rounds.coordinator import Aborted

    state = run_coordinator(home, job, tell=lambda line: print(line, flush=True))  # noqa: T201
    if isinstance(state, Aborted):
        raise JobAborted(state.reason)
    _say(f"job {job} is finished: every member that stayed has the adapter")


@coordinator_app.command("doctor")
def coordinator_doctor(home: Folder) -> None:
    """Say what is wrong with folder, keys, members, listener and disk, and how to mend it."""
    from fl_alliance.parties.doctor import examine_coordinator

    _examined(examine_coordinator(home))


@institution_app.command("init")
def institution_init(home: Folder, name: Annotated[str, typer.Option(help="Name of the institution.")]) -> None:
    """Make every key of the institution on site, and a request with the public halves."""
    from fl_alliance.parties.setup import fingerprint_of
    from fl_alliance.parties.setup import institution_init as make
    from fl_alliance.protocol.plan import Member

    _check(Member, name=name, declared_units=1)
    request = make(home, name=name)
    _say(f"send {home / 'join-request.json'} to the alliance's admin; no private key is in it")
    _say(f"key fingerprint {fingerprint_of(request)}: for the policies of your partners, by phone")


@institution_app.command("install")
def institution_install(
    home: Folder, membership: Annotated[Path, typer.Argument(help="The file that the admin sent.")]
) -> None:
    """Pin the alliance's roots from the membership file."""
    from fl_alliance.parties import setup

    fingerprint = setup.institution_install(home, _read(setup.Membership, membership, "membership"))
    _say(f"root fingerprint {fingerprint}\ncompare it with the admin by phone before you run anything")


@institution_app.command("sign-policy")
def institution_sign_policy(home: Folder, policy: Annotated[Path, typer.Argument(help="The policy as TOML.")]) -> None:
    """Sign the institution's privacy policy."""
    from fl_alliance.parties.files import read_file
    from fl_alliance.parties.plans import read_policy
    from fl_alliance.parties.wiring import sign_policy

    _say(f"signed {sign_policy(home, read_policy(read_file(policy, 'policy')))}")


@institution_app.command("approver-key")
def institution_approver_key(
    key: Annotated[Path, typer.Argument(help="A new file; whoever has it can approve in this person's name.")],
) -> None:
    """Make the key of a person who approves plans."""
    from fl_alliance.evidence.keys import IdentityKey

    identity = IdentityKey.generate()
    identity.save(key)
    _say(f"key fingerprint {identity.keyid}: for `approvers` in the policy")


@institution_app.command("approve")
def institution_approve(
    home: Folder,
    plan: Annotated[Path, typer.Argument(help="The signed plan (plan.dsse.json) that the admin sent.")],
    person: Annotated[str, typer.Option(help="Name of the person, as in the policy.")],
    key: Annotated[Path, typer.Option(help="The person's key.")],
) -> None:
    """Approve a plan as a person whom the policy names, before the job is run."""
    from fl_alliance.parties.wiring import approve_plan
    from fl_alliance.protocol.plan import Member

    _check(Member, name=person, declared_units=1)
    seen, path = approve_plan(home, plan, person=person, key=key)
    _say(
        f"job {seen.job} of alliance {seen.alliance} with {', '.join(seen.names)}: {seen.rounds} rounds, epsilon up to "
        f"{seen.privacy.epsilon_cap} at delta {seen.privacy.delta} for each {seen.privacy.unit}"
    )
    _say(f"approved by {person}: {path}")


@institution_app.command("check")
def institution_check(home: Folder) -> None:
    """Check configuration, model folder and data file. Nothing leaves the house, and nothing is charged."""
    from fl_alliance.parties.config import InstitutionConfig, load
    from fl_alliance.parties.trainer import record_source
    from fl_alliance.training.base import model_files
    from fl_alliance.training.records import load_records

    config = load(InstitutionConfig, home / "institution.toml")
    for file in model_files(home / config.model_folder):
        _say(f"model {file.name} {file.digest}")
    load_records(record_source(config.data, home))
    _say(f"records of {config.data.name} can be read, every row has its {config.data.unit_column}")


@institution_app.command("doctor")
def institution_doctor(home: Folder) -> None:
    """Say what is wrong with folder, keys, network, model, policy and ledger, and how to mend it. Reads no record."""
    from fl_alliance.parties.doctor import examine_institution

    _examined(examine_institution(home))


@institution_app.command("run")
def institution_run(home: Folder) -> None:
    """Serve the alliance until interrupted. Only calls out; nothing listens."""
    from fl_alliance.parties.wiring import run_institution

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run_institution(home, keep_going=lambda: not stop.is_set(), tell=lambda line: print(line, flush=True))  # noqa: T201


@plan_app.command("suggest")
def plan_suggest(
    epsilon: Annotated[str, typer.Option(help="What the whole job may spend.")],
    delta: Annotated[str | None, typer.Option(help="As in the plan.")] = None,
    units: Annotated[int | None, typer.Option(help="Declared units of the smallest institution.")] = None,
    like: Annotated[Path | None, typer.Option(help="A plan to take delta and the smallest cohort from.")] = None,
    rate: Annotated[list[str] | None, typer.Option(help="Sampling rate to try; may be repeated.")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="Steps of the whole job to try; may be repeated.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the trade-off of the first guess as SVG.")] = None,
) -> None:
    """Find the least noise for a target epsilon, for each sampling rate and number of steps. Reads no record."""
    from fl_alliance.parties import planning

    question = planning.Question.of(epsilon=epsilon, delta=delta, units=units, like=like)
    with console.status("two accountants are at work: PLD takes its time where the noise is small"):
        found, chosen = planning.answer(
            question, rates=rate or ["0.05", "0.1", "0.2"], steps=steps or [12, 48], plot=plot
        )
    console.print(planning.table_of(found, chosen))
    _say(f"for {question.units} declared units at delta {question.delta:f}; noise is in clip norms, in a step's mean")


@audit_app.command("verify")
def audit_verify(
    folder: Annotated[Path, typer.Argument(help="An institution's evidence folder.")],
    root: Annotated[str | None, typer.Option(help="Expected fingerprint of the alliance's root.")] = None,
) -> None:
    """Verify signatures, chain and every epsilon of an evidence folder, offline."""
    from fl_alliance.parties.auditor import verify_evidence

    verify_evidence(folder, root=root, say=_say)
    _say("the evidence holds")


@audit_app.command("empirical")
def audit_empirical(
    home: Folder,
    plan: Annotated[Path, typer.Argument(help="The job's plan as JSON.")],
    canaries: Annotated[int, typer.Option(help="Made-up units, each in or out by a coin.")] = 1000,
    taken: Annotated[int | None, typer.Option("--guess-in", help="How many to guess as in.")] = None,
    left: Annotated[int | None, typer.Option("--guess-out", help="How many to guess as out.")] = None,
    confidence: Annotated[str, typer.Option(help="Of the lower bound.")] = "0.95",
    public: Annotated[Path | None, typer.Option(help="Public records to train on beside the canaries.")] = None,
    without_noise: Annotated[bool, typer.Option("--without-noise", help="TRIAL: shows what the audit finds.")] = False,
    out: Annotated[Path | None, typer.Option("--json", help="Write the result there.")] = None,
) -> None:
    """Train a job's plan on canaries at the institution, guess who was in, and bound epsilon from below.

    Reads no private record, so nothing is charged; nothing leaves the house.
    """
    from fl_alliance.parties import empirical
    from fl_alliance.parties.files import read_file, write_atomically
    from fl_alliance.parties.planning import number
    from fl_alliance.parties.plans import read_plan
    from fl_alliance.training.base import quiet

    quiet()
    settings = empirical.AuditSettings(
        canaries=canaries,
        taken=taken,
        left=left,
        confidence=number("confidence", confidence),
        noise_part=number("noise_part", "0" if without_noise else "1"),
    )
    with console.status("training, and looking at each step") as status:
        result = empirical.audit(
            home,
            read_plan(read_file(plan, "plan")),
            settings,
            public=public,
            progress=lambda step, steps: status.update(f"looked at step {step} of {steps}"),
        )
    for line in result.lines():
        _say(line)
    if out is not None:
        write_atomically(out, result.json(), mode=0o644)
    empirical.require_unrefuted(result)


@app.command("demo")
def demo(
    folder: Annotated[Path | None, typer.Option(help="Where to run; a new folder.")] = None,
    settings: Annotated[Path, typer.Option(help="Settings of the job and its institutions.")] = Path(
        "deploy/demo/demo.toml"
    ),
    real: Annotated[
        Path | None, typer.Option(help="Settings file that names a real model folder and real data files.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of each institution.")] = 1,
    pooled: Annotated[bool, typer.Option(help="Also train on pooled records without privacy.")] = True,
) -> None:
    """Run a coordinator and its institutions as processes on this machine, and print a table."""
    from fl_alliance.parties.demo import run_demo
    from fl_alliance.parties.demo.screen import ConsoleScreen, show_outcome

    with ConsoleScreen(console) as screen:
        outcome = run_demo(
            real or settings, folder or _next_folder(Path("run")), threads=threads, screen=screen, pooled=pooled
        )
    show_outcome(console, outcome)


def _say(line: str) -> None:
    """Print one line as it is: a path or a name is neither wrapped nor read as markup."""
    console.print(line, soft_wrap=True, markup=False)


def _examined(findings: Iterable[Finding]) -> None:
    """Print what a doctor finds, as it finds it; exit code 1 if something is wrong."""
    wrong = 0
    for finding in findings:
        _say(str(finding))
        wrong += finding.state == "wrong"
    if wrong:
        raise typer.Exit(1)


def _read(kind: type[M], path: Path, what: str) -> M:
    """Return the `kind` in the file `path`.

    Raises:
        BadConfig: it can't be read or is none; the text names the file and the field.
    """
    from fl_alliance.parties.files import read_file
    from fl_alliance.protocol.codec import decode

    try:
        return decode(kind, read_file(path, what))
    except MalformedMessage as error:
        raise BadConfig(f"{what}: {path} is none ({error})") from None


def _check(kind: type[BaseModel], **values: object) -> None:
    """Refuse values that `kind` would refuse (BadConfig names field, value and rule): before anything is written."""
    try:
        kind.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors())
        raise BadConfig(problems) from None


def _next_folder(parent: Path) -> Path:
    number = 1
    while (parent / f"demo-{number}").exists():
        number += 1
    return parent / f"demo-{number}"


def main() -> None:
    """Run the command line; a named error, or a library that is not installed, becomes one line and exit code 1."""
    try:
        app()
    except AllianceError as error:
        _refuse(error)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == __package__:
            raise
        _refuse(BadConfig(f"this command needs {error.name}: install fl-alliance[institution], or [coordinator]"))


def _refuse(error: AllianceError) -> NoReturn:
    """Print one line, also where the text holds line ends or terminal codes of a foreign file, and leave."""
    line = "".join(sign if sign.isprintable() else " " for sign in f"{type(error).__name__}: {error}")
    print(line, file=sys.stderr)  # noqa: T201
    sys.exit(1)


if __name__ == "__main__":
    main()
