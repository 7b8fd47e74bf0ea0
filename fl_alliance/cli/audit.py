"""`fl-alliance audit ...`: offline, of evidence, of a released adapter, or of training itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fl_alliance.cli.words import Evidence, Folder, Root, console, say, say_foreign, tell_error

app = typer.Typer(no_args_is_help=True, help="Offline: of evidence, of a released adapter, or of training itself.")


@app.command("verify")
def audit_verify(
    places: Evidence,
    root: Root = None,
    out: Annotated[
        str | None, typer.Option("--json", help="Write the result there, for programs; -: on stdout.")
    ] = None,
) -> None:
    """Verify signatures, chain and every epsilon of evidence, each by itself and all against one another; offline.

    Exit code 0: the evidence holds. 10 to 18: the kind of what was refused (docs/audit.md).
    """
    from fl_alliance.parties.audit_inputs import audited
    from fl_alliance.parties.audit_result import result_of
    from fl_alliance.parties.files import write_atomically

    with audited(places, root=root, say=lambda line: None if out == "-" else say_foreign(line)) as audit:
        if out == "-":
            typer.echo(result_of(audit, root=root))
        elif out is not None:
            write_atomically(Path(out), result_of(audit, root=root), mode=0o644)
        for refusal in audit.refusals:
            tell_error(f"EvidenceRefused: {refusal}")
        if not audit.holds:
            raise typer.Exit(audit.exit_code)
    if out != "-":
        say("the evidence holds")


@app.command("model")
def audit_model(
    folder: Annotated[Path, typer.Argument(help="A released adapter's folder.")],
    evidence: Annotated[Path | None, typer.Option(help="The same institution's evidence folder of the job.")] = None,
    root: Root = None,
) -> None:
    """Verify signatures, provenance and card of a released adapter, and with evidence the votes for it; offline."""
    from fl_alliance.parties.model_auditor import verify_model

    verify_model(folder, evidence=evidence, root=root, say=say)
    say("the model holds" if evidence is not None else "the model holds together; without --evidence no more is shown")


@app.command("report")
def audit_report(
    places: Annotated[
        list[Path],
        typer.Argument(metavar="EVIDENCE...", help="Bundles or folders: of one job of one institution, or all."),
    ],
    out: Annotated[Path, typer.Option(help="File to write: FILE.html or FILE.pdf.")],
    language: Annotated[str, typer.Option(help="en or de.")] = "en",
    job: Annotated[str | None, typer.Option(help="Only this job of what the evidence is of.")] = None,
    root: Root = None,
    empirical: Annotated[Path | None, typer.Option(help="What `audit empirical --json` wrote, for this plan.")] = None,
    sign: Annotated[Path | None, typer.Option(help="Folder of a member, who signs it: FILE.dsse.json.")] = None,
) -> None:
    """Verify evidence, and print its privacy report for people: a page or a PDF, offline."""
    from fl_alliance.evidence.keys import IdentityKey
    from fl_alliance.parties.audit_report import write_report
    from fl_alliance.parties.setup import Keys

    key = None if sign is None else IdentityKey.load(Keys(sign).identity)
    write_report(places, out, language=language, root=root, job=job, empirical=empirical, key=key, say=say_foreign)
    say(f"wrote {out}" + ("" if key is None else f", signed with {key.keyid}"))


@app.command("printed")
def audit_printed(
    file: Annotated[Path, typer.Argument(help="A printed report: .html or .pdf.")],
    evidence: Annotated[list[Path], typer.Option(help="A bundle or folder; again for each that it is made of.")],
    job: Annotated[str | None, typer.Option(help="The report is of this job only.")] = None,
    root: Root = None,
    empirical: Annotated[Path | None, typer.Option(help="The result that the report was printed with, if any.")] = None,
) -> None:
    """Verify evidence, and that a printed report is the one that it gives, to the byte; offline."""
    from fl_alliance.parties.audit_printed import check_printed

    check_printed(file, evidence, root=root, job=job, empirical=empirical, say=say_foreign)
    say("the printed report holds")


@app.command("empirical")
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
    from fl_alliance.training.process import prepare_process

    prepare_process()
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
        say(line)
    if out is not None:
        write_atomically(out, result.json(), mode=0o644)
    empirical.require_unrefuted(result)
