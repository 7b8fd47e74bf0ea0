"""Logs of a party's process: one line for each event, in fields that are named here, and no private value.

    our own events   a literal name and fields of `FIELDS`. A field that is not listed, or whose value does not look as
                     its list says, is dropped, and its name (not its value) stands in `dropped`
    an error         `error=error`: an `AllianceError` gives its type and its text, which holds no private value
                     (fl_alliance/errors.py); any other gives its type and where it was raised, never its text:
                     a library's text may quote a record
    a library's      Flower, the web server and their kin see opaque bytes: their text is kept. All others (torch,
                     transformers, opacus, pyarrow ...) see records: level, logger and place are kept, the text is not

What ends the process unforeseen is logged by the same rules, also from a thread, so that no traceback with a value in
it reaches a log file.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import Processor

from fl_alliance.errors import AllianceError

Format = Literal["console", "json"]
Level = Literal["debug", "info", "warning", "error"]
Fields = MutableMapping[str, Any]
Check = Callable[[Any], bool]

_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,120}")
_MOST: Final = 500


def _name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _line(value: Any) -> bool:
    return isinstance(value, str)


FIELDS: Final[Mapping[str, Check]] = {
    # who and where
    "alliance": _name,
    "job": _name,
    "round": _count,
    "member": _name,
    "party": _name,
    # what
    "kind": _name,
    "work": _name,
    "phase": _name,
    "awaits": _name,
    "failure": _line,
    "said": _line,
    "file": _name,
    "address": _name,
    "app": _name,
    "digest": _name,
    "run": _count,
    # how much
    "bytes": _count,
    "most": _count,
    "failures": _count,
    "seconds": _seconds,
    "status": _count,
    "signal": _name,
}
"""What a call may log. A name is short and has no space in it; a line is one that this program wrote."""

_MADE: Final = frozenset(
    {"event", "level", "timestamp", "logger", "error", "reason", "place", "trace", "text", "dropped"}
)
"""What the processors below write, and no call."""

HOUSE: Final = "fl_alliance"
CARRIERS: Final = ("flwr", "uvicorn", "httpx", "httpcore", "asyncio")
"""Loggers whose text is kept: they see opaque bytes."""

_EVENT = re.compile(r"[a-z][a-z0-9_]{2,40}")

_HARMLESS: Final = re.compile(r"\[ApiError:2007\].*Run is finished", re.DOTALL)
"""What Flower calls an error and is none here: after a start of the coordinator its last run is over, and a member that
still answers to it is told so, and asked again in the next."""


def configure(form: Format = "console", level: Level | None = None, *, stream: TextIO | None = None) -> None:
    """Send every log of this process through the rules above, to `stream` (stderr by default).

    `level` counts for our own events (None: warning on a console, info in JSON); of a library only warnings and worse
    are kept.
    """
    level = level or ("info" if form == "json" else "warning")
    renderer: Processor = structlog.processors.JSONRenderer(sort_keys=True) if form == "json" else _for_people
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, _foreign],
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _only_listed,
                renderer,
            ],
        )
    )
    handler.addFilter(lambda record: record.name == HOUSE or record.levelno >= logging.WARNING)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(HOUSE).setLevel(level.upper())
    logging.Logger.callHandlers = _to_the_house  # type: ignore[assignment,method-assign]
    logging.captureWarnings(True)
    warnings.showwarning = _warned
    sys.excepthook, threading.excepthook = _crashed, _thread_crashed
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            _own,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=_logger_of_the_house,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _logger_of_the_house(*_: Any) -> logging.Logger:
    return logging.getLogger(HOUSE)


def _to_the_house(_: logging.Logger, record: logging.LogRecord) -> None:
    """Hand a record to our handler alone. Flower, torch, transformers and absl bring handlers, some at their import."""
    for handler in logging.getLogger().handlers:
        if record.levelno >= handler.level:
            handler.handle(record)


def about(**fields: Any) -> Any:
    """Return a context in which every event of this thread has these fields too (alliance, job, round, member)."""
    return structlog.contextvars.bound_contextvars(**fields)


# ---- processors


def _own(_: Any, __: str, event: Fields) -> Fields:
    """Our own event: turn an error into fields that hold no private value, and drop what is not listed."""
    error = event.pop("error", None)
    if event.pop("exc_info", None):
        error = error or sys.exc_info()[1]
    dropped = [name for name, value in event.items() if not _is_listed(name, value)]
    kept = {name: value for name, value in event.items() if name not in dropped}
    if not _EVENT.fullmatch(str(kept.get("event"))):
        kept["event"] = "unnamed"
    if dropped:
        kept["dropped"] = sorted(name if _name(name) else "?" for name in dropped)
    return {**kept, **(_said_of(error) if isinstance(error, BaseException) else {})}


def _is_listed(name: str, value: Any) -> bool:
    return name in ("event", "level") or (name in FIELDS and FIELDS[name](value))


def _said_of(error: BaseException) -> Fields:
    said: Fields = {"error": type(error).__name__}
    if isinstance(error, AllianceError):
        said["reason"] = str(error)
    else:
        said["trace"] = _trace(error.__traceback__)
    return said


def _trace(traceback: TracebackType | None) -> str:
    """Return where it was raised: files, lines and functions, outermost first; no source and no value."""
    places = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{_short(code.co_filename)}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return " > ".join(places[-12:])


def _short(file: str) -> str:
    return "/".join(Path(file).parts[-2:])


def _foreign(_: Any, __: str, event: Fields) -> Fields:
    """A record of the standard library's logging: a carrier's text is kept, of all others only that it spoke."""
    record: logging.LogRecord = event["_record"]
    made: Fields = {"event": "library", "level": event["level"], "logger": record.name}
    made["place"] = f"{_short(record.pathname)}:{record.lineno}"
    text = event["event"] if isinstance(event["event"], str) else ""
    if record.name.partition(".")[0] in CARRIERS:
        made["text"] = text
        if record.name == "flwr" and _HARMLESS.search(text):
            made["level"] = "info"
    if record.exc_info and record.exc_info[1] is not None:
        made.update(_said_of(record.exc_info[1]))
    record.exc_info = record.exc_text = record.stack_info = None
    return {**made, "_record": record, "_from_structlog": False}


def _only_listed(_: Any, __: str, event: Fields) -> Fields:
    """Last of all: nothing is written but what the lists name, in one line of bounded length."""
    return {
        name: _bounded(value) if isinstance(value, str) else value
        for name, value in event.items()
        if name in FIELDS or name in _MADE
    }


def _bounded(text: str) -> str:
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return line if len(line) <= _MOST else line[:_MOST] + "..."


def _for_people(_: Any, __: str, event: Fields) -> str:
    head = f"{event.pop('timestamp')} {event.pop('level'):7} {event.pop('event')}"
    return "  ".join([head, *(f"{name}={value}" for name, value in event.items())])


# ---- what nobody foresaw


def _warned(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    del message  # it may quote a value
    structlog.get_logger().warning("library_warning", kind=category.__name__, file=f"{_short(filename)}:{lineno}")


def _crashed(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    structlog.get_logger().critical("crashed", error=error)


def _thread_crashed(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
        structlog.get_logger().critical("thread_crashed", error=arguments.exc_value)
