"""What tests of several rooms share."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest
import structlog

from tests.postgres import postgres

__all__ = ["postgres"]


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Undo what a command that was run in this process set for its logs: the next test has a process of its own."""
    root, hooks, shown = logging.getLogger(), (sys.excepthook, threading.excepthook), warnings.showwarning
    handlers, level, call, configured = (
        root.handlers[:],
        root.level,
        logging.Logger.callHandlers,
        structlog.is_configured(),
    )
    yield
    if structlog.is_configured() and not configured:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.Logger.callHandlers = call  # type: ignore[method-assign]
        logging.captureWarnings(False)
        (sys.excepthook, threading.excepthook), warnings.showwarning = hooks, shown
        structlog.reset_defaults()
