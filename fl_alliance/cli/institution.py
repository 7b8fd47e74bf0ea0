"""`fl-alliance institution ...`: what the IT of a hospital or a school types."""

from __future__ import annotations

import json
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
    examined,
    read,
    say,
    stop_at_signals,
    tell,
)

app = typer.Typer(no_args_is_help=True, help="Run inside a hospital or a school.")


@app.command("join")
def institution_join(
    home: Folder,
    code: Annotated[str, typer.Argument(help="The line that the alliance's admin gave you.")],
    wait: Annotated[bool, typer.Option(help="Wait until the admin has admitted you.")] = True,
    like: Annotated[
        Path | None, typer.Option(help="Your folder in another alliance: its identity key and its ledger are kept.")
    ] = None,
) -> None:
    """Make every key on site, ask to be admitted, and pin the alliance. Run it again to go on."""
    from fl_alliance.parties.join import join
    from fl_alliance.parties.join_words import JoinCode

    if join(home, JoinCode.parse(code), like=like, tell=tell, wait=wait):
        say(f"fill in {home / 'institution.toml'}, then: institution sign-policy, institution doctor, institution run")


@app.command("rotate")
def institution_rotate(home: Folder) -> None:
    """Renew TLS and node keys and the certificate; between two jobs, while `institution run` does not run."""
    from fl_alliance.parties.join import rotate

    say(f"{rotate(home).name} has new keys and a new certificate; the old ones do not count any more")


@app.command("leave")
def institution_leave(home: Folder) -> None:
    """End the membership. Keys, ledger and evidence stay where they are."""
    from fl_alliance.parties.join import leave

    leave(home)
    say("no longer a member; keep this folder: its ledger says what the data gave")


@app.command("init")
def institution_init(home: Folder, name: Annotated[str, typer.Option(help="Name of the institution.")]) -> None:
    """Make every key of the institution on site, and a request with the public halves."""
    from fl_alliance.parties.join_words import fingerprint_of
    from fl_alliance.parties.setup import institution_init as make
    from fl_alliance.protocol.plan import Member

    check(Member, name=name, declared_units=1)
    request = make(home, name=name)
    say(f"send {home / 'join-request.json'} to the alliance's admin; no private key is in it")
    say(f"key fingerprint {fingerprint_of(request)}: for the policies of your partners, by phone")


@app.command("install")
def institution_install(
    home: Folder, membership: Annotated[Path, typer.Argument(help="The file that the admin sent.")]
) -> None:
    """Pin the alliance's roots from the membership file."""
    from fl_alliance.parties.join_words import Membership
    from fl_alliance.parties.setup import institution_install as install

    fingerprint = install(home, read(Membership, membership, "membership"))
    say(f"root fingerprint {fingerprint}\ncompare it with the admin by phone before you run anything")


@app.command("sign-policy")
def institution_sign_policy(home: Folder, policy: Annotated[Path, typer.Argument(help="The policy as TOML.")]) -> None:
    """Sign the institution's privacy policy."""
    from fl_alliance.parties.files import read_file
    from fl_alliance.parties.plans import read_policy
    from fl_alliance.parties.wiring import sign_policy

    say(f"signed {sign_policy(home, read_policy(read_file(policy, 'policy')))}")


@app.command("approver-key")
def institution_approver_key(
    key: Annotated[Path, typer.Argument(help="A new file; whoever has it can approve in this person's name.")],
) -> None:
    """Make the key of a person who approves plans."""
    from fl_alliance.evidence.keys import IdentityKey

    identity = IdentityKey.generate()
    identity.save(key)
    say(f"key fingerprint {identity.keyid}: for `approvers` in the policy")


@app.command("plans")
def institution_plans(
    home: Folder, as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False
) -> None:
    """List the plans that were proposed, each in plain words: what it does, what it promises, what it costs."""
    from fl_alliance.parties.wiring import house_plans

    plans = house_plans(home).all()
    if as_json:
        say(json.dumps([plan.json() for plan in plans], indent=2))
    for line in [line for plan in plans for line in plan.lines()] if not as_json else []:
        say(line)


@app.command("approve")
def institution_approve(
    home: Folder,
    plan: Annotated[str, typer.Argument(help="Name of a proposed job, or the file of a signed plan.")],
    person: Annotated[str, typer.Option(help="Name of the person, as in the policy.")],
    key: Annotated[Path, typer.Option(help="The person's key.")],
) -> None:
    """Show a plan in plain words and approve it as a person whom the policy names."""
    from fl_alliance.parties.wiring import approve_plan, house_plans
    from fl_alliance.protocol.plan import Member

    check(Member, name=person, declared_units=1)
    envelope, facts = house_plans(home).to_approve(plan)
    path = approve_plan(home, envelope, person=person, key=key)
    for line in facts.lines():
        say(line)
    say(f"approved by {person}: {path}")


@app.command("decline")
def institution_decline(
    home: Folder,
    job: Annotated[str, typer.Argument(help="Name of a proposed job.")],
    reason: Annotated[str, typer.Option(help="What the coordinator and, by it, the other members are told.")],
) -> None:
    """Decline a plan: the coordinator gets a signed refusal, and the job ends for all."""
    from fl_alliance.parties.wiring import house_plans

    house_plans(home).decline(job, reason)
    say(f"job {job} is declined: {reason}")


@app.command("evidence")
def institution_evidence(
    home: Folder,
    out: BundleFile,
    jobs: FinishedJobs = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write the evidence of finished jobs as one file; `audit verify` verifies it anywhere."""
    from fl_alliance.parties.bundles import Wanted, institution_bundle

    bundle = institution_bundle(home, out, Wanted.of(jobs or (), since, until))
    say(f"wrote {out}: jobs {', '.join(bundle.jobs)}; signed by {bundle.party}")


@app.command("check")
def institution_check(home: Folder) -> None:
    """Check configuration, model folder and data file. Nothing leaves the house, and nothing is charged."""
    from fl_alliance.parties.config import InstitutionConfig, load
    from fl_alliance.parties.trainer import record_source
    from fl_alliance.training.base import model_files
    from fl_alliance.training.records import load_records

    config = load(InstitutionConfig, home / "institution.toml")
    for file in model_files(home / config.model_folder):
        say(f"model {file.name} {file.digest}")
    load_records(record_source(config.data, home))
    say(f"records of {config.data.name} can be read, every row has its {config.data.unit_column}")


@app.command("doctor")
def institution_doctor(
    home: Folder,
    dry: Annotated[bool, typer.Option("--dry-run", help="Also run a whole job here, with made-up records.")] = False,
) -> None:
    """Say what is wrong with folder, keys, network, model, policy, ledger, GPU and libraries, and how to mend it.

    Reads no record and charges nothing.
    """
    from itertools import chain

    from fl_alliance.parties.doctor import examine_by_dry_run, examine_institution

    examined(chain(examine_institution(home), examine_by_dry_run(home) if dry else ()))


@app.command("run")
def institution_run(home: Folder, log_format: LogFormat = None, log_level: LogLevel = None) -> None:
    """Serve the alliance until interrupted. Only calls out; nothing listens but, if asked for, a page on loopback."""
    from fl_alliance.cli.service import begin
    from fl_alliance.parties.config import InstitutionConfig
    from fl_alliance.parties.wiring import run_institution

    tell, stop = begin(InstitutionConfig, home / "institution.toml", log_format, log_level), stop_at_signals()
    run_institution(home, keep_going=lambda: not stop.is_set(), tell=tell)
