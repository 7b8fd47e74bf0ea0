"""What the commands that run for weeks have in common: how they log, and how they are ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from fl_alliance.cli.words import tell
from fl_alliance.parties import logs
from fl_alliance.parties.config import CoordinatorConfig, InstitutionConfig, load


def begin(
    kind: type[CoordinatorConfig] | type[InstitutionConfig],
    file: Path,
    form: logs.Format | None,
    level: logs.Level | None,
) -> Callable[[str], None]:
    """Set up this process's logs; return where its lines for people go: stdout, or with JSON the log itself."""
    chosen = load(kind, file).log
    form = form or chosen.format
    logs.configure(form, level or chosen.level)
    if form == "console":
        return tell
    return lambda line: structlog.get_logger().info("progress", said=line)
