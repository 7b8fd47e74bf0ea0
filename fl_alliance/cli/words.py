"""What every group of commands needs: one console, a way to read a file or a value, a way to say what was found."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console

from fl_alliance.errors import BadConfig, MalformedMessage

if TYPE_CHECKING:
    from fl_alliance.parties.doctor.finding import Finding

M = TypeVar("M", bound=BaseModel)
console = Console(highlight=False)

Folder = Annotated[Path, typer.Argument(help="The party's own folder.")]
LogFormat = Annotated[Literal["console", "json"] | None, typer.Option(help="Of the log; else as configured.")]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"] | None, typer.Option(help="From which level on; else as configured.")
]
Evidence = Annotated[
    list[Path],
    typer.Argument(metavar="EVIDENCE...", help="Evidence bundles or folders, of whichever parties and jobs."),
]
Root = Annotated[str | None, typer.Option(help="Expected fingerprint of the alliance's root.")]
BundleFile = Annotated[Path, typer.Option(help="The file to write: a zip file, for an auditor.")]
FinishedJobs = Annotated[list[str] | None, typer.Option("--job", help="Name of a finished job; none: all of them.")]
Since = Annotated[str | None, typer.Option(help="First day of a period, as 2026-01-31 (UTC).")]
Until = Annotated[str | None, typer.Option(help="Last day of the period.")]


def say(line: str) -> None:
    """Print one line as it is: a path or a name is neither wrapped nor read as markup."""
    console.print(line, soft_wrap=True, markup=False)


def tell(line: str) -> None:
    """Print what a service reports, at once: whoever reads it may be a file."""
    print(line, flush=True)  # noqa: T201


def tell_error(text: str) -> None:
    """Print one line on stderr, whatever a foreign file has put into the text."""
    print(one_line(text), file=sys.stderr)  # noqa: T201


def say_foreign(text: str) -> None:
    """Print one line, whatever a foreign file has put into the text."""
    say(one_line(text))


def one_line(text: str) -> str:
    """Return `text` with blanks for line ends and the codes that terminals obey."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def stop_at_signals() -> threading.Event:
    """Return what SIGTERM or SIGINT sets: the service leaves in good order. A second one ends it at once."""
    stop = threading.Event()

    def leave(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    return stop


def examined(findings: Iterable[Finding]) -> None:
    """Print what a doctor finds, as it finds it; exit code 1 if something is wrong."""
    wrong = 0
    for finding in findings:
        say(str(finding))
        wrong += finding.state == "wrong"
    if wrong:
        raise typer.Exit(1)


def read(kind: type[M], path: Path, what: str) -> M:
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


def check(kind: type[BaseModel], **values: object) -> None:
    """Refuse values that `kind` would refuse (BadConfig names field, value and rule): before anything is written."""
    try:
        kind.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors())
        raise BadConfig(problems) from None
