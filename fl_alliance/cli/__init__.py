"""The command line: arguments in, one call to the parties out. Each command imports what it needs and no more."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from fl_alliance.cli import audit, auditor, coordinator, institution, plan
from fl_alliance.cli.demo import demo
from fl_alliance.cli.simulate import simulate
from fl_alliance.cli.words import tell_error
from fl_alliance.errors import AllianceError, BadConfig

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks print local variables: records and keys would be in a log
    help="Institutions fine-tune Qwen adapters together.",
)
app.add_typer(coordinator.app, name="coordinator")
app.add_typer(institution.app, name="institution")
app.add_typer(plan.app, name="plan")
app.add_typer(audit.app, name="audit")
app.add_typer(auditor.app, name="auditor")
app.command("demo")(demo)
app.command("simulate")(simulate)

_EXTRAS = dict.fromkeys(("OpenSSL", "model_signing", "sigstore_models"), "[audit-model]")
"""Extras that bring a package, where it is not one of a party's own."""


def main() -> None:
    """Run the command line; a named error, or a library that is not installed, becomes one line and exit code 1."""
    try:
        app()
    except AllianceError as error:
        _refuse(error)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "fl_alliance":
            raise
        extras = _EXTRAS.get(error.name.partition(".")[0], "[institution], or [coordinator]")
        _refuse(BadConfig(f"this command needs {error.name}: install fl-alliance{extras}"))


def _refuse(error: AllianceError) -> NoReturn:
    tell_error(f"{type(error).__name__}: {error}")
    sys.exit(1)
