"""The demo: a coordinator and its institutions as real processes on loopback, then a table.

What the driver does stands in for people: it makes the folders, carries the public halves of keys between them, signs
the plan as the admin and the policies as the institutions, and starts the processes. It is no party of the protocol.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from fl_alliance.errors import BadConfig
from fl_alliance.evidence.keys import AllianceRoot
from fl_alliance.parties.auditor import Findings, verify_evidence
from fl_alliance.parties.config import load
from fl_alliance.parties.demo.settings import DemoSettings
from fl_alliance.parties.demo.stage import Screen, prepare, run_processes
from fl_alliance.parties.demo.table import Line, compare
from fl_alliance.parties.files import read_file, write_atomically
from fl_alliance.protocol.codec import decode

__all__ = ["DemoSettings", "Outcome", "Screen", "outcome_json", "run_demo"]


@dataclass(frozen=True)
class Outcome:
    """What the demo leaves."""

    sites: tuple[str, ...]
    lines: tuple[Line, ...]
    findings: tuple[Findings, ...]
    """What the auditor found, for each institution."""
    adapter: Path
    reports: tuple[Path, ...]
    parameters: int
    """Trained parameters of the adapter."""
    upload_bytes: int
    """Length of one institution's upload in one round."""
    seconds: dict[str, float]
    """Wall time of each part."""


def run_demo(settings_file: Path, folder: Path, *, threads: int, screen: Screen, pooled: bool = True) -> Outcome:
    """Run the whole demo in `folder` (must not exist) and return what it leaves.

    Raises:
        BadConfig: a setting, a file, or the folder.
        JobAborted: the job ended without an adapter; the logs in `folder` say more.
        EvidenceRefused: the auditor refused an institution's evidence.
    """
    settings, base = load(DemoSettings, settings_file), settings_file.resolve().parent
    if folder.exists():
        raise BadConfig(f"folder: {folder} is there already, name a new one")
    clock = [time.monotonic()]
    plan = prepare(settings, base, folder, threads=threads)
    screen.say(
        f"job {plan.job}: {len(plan.names)} institutions and a coordinator, one process each, in {folder}; "
        f"{plan.rounds} rounds of {plan.privacy.steps_per_round} steps"
    )
    clock.append(time.monotonic())
    run_processes(plan, folder, screen)
    clock.append(time.monotonic())
    jobs = [folder / name / "jobs" / plan.job for name in plan.names]
    root = decode(AllianceRoot, read_file(folder / "coordinator" / "root.pub.json", "alliance root")).fingerprint
    findings = tuple(verify_evidence(job / "evidence", root=root, say=lambda _: None) for job in jobs)
    screen.say("auditor: the evidence of every institution holds")
    clock.append(time.monotonic())
    table = compare(settings, base, jobs[0] / "adapter", plan, screen=screen, pooled=pooled)
    clock.append(time.monotonic())
    parts = ("keys and plan", "job", "audit", "table")
    outcome = Outcome(
        sites=plan.names,
        lines=table.lines,
        parameters=table.parameters,
        findings=findings,
        adapter=jobs[0] / "adapter",
        reports=tuple(job / "evidence" / "report.html" for job in jobs),
        upload_bytes=findings[0].upload_bytes,
        seconds={part: end - start for part, start, end in zip(parts, clock[:-1], clock[1:], strict=True)},
    )
    write_atomically(folder / "outcome.json", outcome_json(outcome))
    return outcome


def outcome_json(outcome: Outcome) -> bytes:
    """Return the outcome for programs: all of it but the documents in which the auditor found it."""
    return json.dumps(outcome, default=_plain, indent=1).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Path | Decimal):
        return str(value)
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value) if field.name != "sources"}
    raise TypeError(f"{type(value).__name__} has no place in an outcome")
