"""`fl-alliance auditor ...`: what an auditor runs for longer than one question."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from fl_alliance.cli.words import Evidence, Root, say_foreign, stop_at_signals, tell
from fl_alliance.errors import BadConfig

app = typer.Typer(no_args_is_help=True, help="Pages for an auditor, on this machine alone.")


@app.callback()
def auditor() -> None:
    """Pages for an auditor, on this machine alone."""


@app.command("serve")
def auditor_serve(
    places: Evidence,
    root: Root = None,
    port: Annotated[int, typer.Option(help="Of 127.0.0.1; 0: any free one.")] = 0,
) -> None:
    """Verify evidence, then show budgets, jobs, entries and their proofs in a browser, until interrupted; offline."""
    from fl_alliance.parties.audit_pages.evidence import examined

    try:
        from fl_alliance.parties.audit_pages.serving import PagesServer
    except ModuleNotFoundError as error:
        raise BadConfig(f"auditor serve needs {error.name}: install fl-alliance[audit-serve]") from None
    stop = stop_at_signals()
    with (
        examined(places, root=root, now=int(time.time()), say=say_foreign) as case,
        PagesServer(case, port=port) as server,
    ):
        tell(f"open {server.url} (Ctrl-C ends it)")
        stop.wait()
