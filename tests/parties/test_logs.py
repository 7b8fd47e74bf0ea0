"""What a party logs holds no private value, whoever wrote it: our code, a library, a crash, a thread."""

from __future__ import annotations

import ast
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest

from fl_alliance.errors import BadPlan
from fl_alliance.parties import logs, wiring
from fl_alliance.parties.metrics import CoordinatorMetrics, InstitutionMetrics
from fl_alliance.rounds.coordinator import Aborted, Finished
from fl_alliance.training.session import TrainingSession
from tests.parties.conftest import SITES, Alliance

PACKAGE = Path(logs.__file__).parents[1]
MARKS = ("Zuleikha-Quartz", "unspoken-7731-diagnosis", "whispered-4410-answer")
"""A unit, a prompt, an answer."""
Build = Callable[..., Alliance]


@pytest.fixture
def written() -> Callable[[], list[dict[str, Any]]]:
    """Configure the logs of this process; the value returns what was written so far."""
    stream = io.StringIO()
    logs.configure("json", "debug", stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


Written = Callable[[], list[dict[str, Any]]]


def test_a_field_that_nobody_listed_is_dropped_and_only_its_name_is_kept(written: Written) -> None:
    structlog.get_logger().warning("refused", job="job-1", patient=MARKS[0], round=3)
    (line,) = written()
    assert (line["job"], line["round"], line["dropped"]) == ("job-1", 3, ["patient"])
    assert MARKS[0] not in json.dumps(line)


@pytest.mark.parametrize("value", ["two words", "x" * 200, {"a": 1}, b"bytes", 4, None])
def test_a_listed_field_with_a_value_of_another_form_is_dropped(written: Written, value: object) -> None:
    structlog.get_logger().info("refused", member=value)
    assert "member" not in written()[0]
    assert written()[0]["dropped"] == ["member"]


def test_a_value_inside_an_events_name_is_dropped(written: Written) -> None:
    structlog.get_logger().info(f"trained on {MARKS[0]}")
    structlog.get_logger().info("trained on %s", MARKS[0])
    assert [line["event"] for line in written()] == ["unnamed", "unnamed"]
    assert MARKS[0] not in json.dumps(written())


def raises(error: Exception) -> None:
    raise error


def test_an_error_of_ours_is_logged_with_its_text_and_any_other_without(written: Written) -> None:
    for error in (BadPlan("rounds: 0, at least 1"), KeyError(MARKS[0]), ValueError(f"can't parse {MARKS[1]}")):
        try:
            raises(error)
        except Exception as caught:
            structlog.get_logger().error("work_failed", error=caught)
            structlog.get_logger().exception("work_failed")
    lines = written()
    assert [line["error"] for line in lines[::2]] == ["BadPlan", "KeyError", "ValueError"]
    assert lines[0]["reason"] == "rounds: 0, at least 1"
    assert all("test_logs.py" in line["trace"] and "reason" not in line for line in lines[2:])
    assert not [mark for mark in MARKS if mark in json.dumps(lines)]


def test_a_library_that_sees_records_is_heard_but_not_quoted(written: Written) -> None:
    for name in ("torch.nn", "transformers", "opacus", "pyarrow", "absl", "py.warnings", "somebody.new"):
        logging.getLogger(name).warning("row %s", MARKS[0], extra={"job": MARKS[1]})
    warnings.warn(f"overflow in {MARKS[2]}", RuntimeWarning, stacklevel=1)
    lines = written()
    assert [line.get("logger") for line in lines[:2]] == ["torch.nn", "transformers"]
    assert lines[-1]["kind"] == "RuntimeWarning"
    assert len(lines) == 8
    assert not [mark for mark in MARKS if mark in json.dumps(lines)]


def test_flower_speaks_in_our_form_and_only_its_known_false_alarm_is_no_error(
    written: Written, capfd: pytest.CaptureFixture[str]
) -> None:
    import flwr  # noqa: F401  # brings a handler of its own

    flower = logging.getLogger("flwr")
    flower.error("[/v1/fleet/push-messages][ApiError:2007] SuperNode 1, exception: Run is finished. Stopped by user.")
    flower.error("[/v1/fleet/push-messages][ApiError:2003] the run's state is lost")
    flower.info("ControlServicer.RegisterNode")
    assert flower.handlers
    assert capfd.readouterr() == ("", "")
    assert [(line["level"], line["logger"]) for line in written()] == [("info", "flwr"), ("error", "flwr")]
    assert written()[1]["text"].endswith("the run's state is lost")


def test_a_line_is_one_line_and_bounded(written: Written) -> None:
    structlog.get_logger().info("progress", said="a\n{}\x1b[2J" + "b" * 5000)
    (line,) = written()
    assert len(line["said"]) < 600
    assert line["said"].isprintable()


def test_fields_of_a_block_are_in_each_event_of_it(written: Written) -> None:
    with logs.about(party="clinic", job="job-1", round=2):
        structlog.get_logger().info("refused", kind="proposal")
    structlog.get_logger().info("refused", kind="proposal")
    inside, outside = written()
    assert (inside["party"], inside["job"], inside["round"]) == ("clinic", "job-1", 2)
    assert "job" not in outside


CRASH = """
import sys, threading
from fl_alliance.parties import logs
logs.configure({form!r})
thread = threading.Thread(target=lambda: [][int({mark!r})])
thread.start(), thread.join()
{{}}[{mark!r}]
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_what_ends_the_process_unforeseen_quotes_nothing(form: str) -> None:
    code = CRASH.format(form=form, mark=MARKS[0])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "thread_crashed" in done.stderr
    assert "KeyError" in done.stderr
    assert MARKS[0] not in done.stdout + done.stderr


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    levels = {"debug", "info", "warning", "error", "critical", "exception"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in levels):
                continue
            owner = ast.unparse(node.func.value)
            if owner in ("log", "logger", "structlog.get_logger()", "logging"):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def test_every_call_in_the_package_names_its_event_and_uses_listed_fields() -> None:
    calls = list(log_calls())
    assert len(calls) > 15
    for where, call in calls:
        assert len(call.args) == 1, where
        assert isinstance(call.args[0], ast.Constant), where
        assert logs._EVENT.fullmatch(str(call.args[0].value)), where
        assert {keyword.arg for keyword in call.keywords} <= {*logs.FIELDS, "error"}, where


# ---- a whole job


def with_marks(alliance: Alliance) -> None:
    """Let every record of the clinic hold a mark in each of its fields."""
    path = alliance.folder.parent / "data" / "clinic.jsonl"
    rows = [
        {"patient": f"{MARKS[0]}-{n // 2}", "prompt": f"{MARKS[1]} {n}", "answer": f"{MARKS[2]} number {n}"}
        for n in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_watched(alliance: Alliance) -> tuple[object, str]:
    """Run the job with metrics on both sides; return its last state and the text of all metrics."""
    registries = [CollectorRegistry() for _ in (*SITES, "coordinator")]
    said: list[str] = []
    for name, registry in zip(SITES, registries, strict=False):
        link = alliance.hub.institution_link(name)
        watch = InstitutionMetrics(registry)
        alliance.handlers[name] = wiring.institution(alliance.home(name), link, tell=said.append, watch=watch)
    link, home = alliance.hub.coordinator_link(), alliance.folder / "coordinator"
    watching = CoordinatorMetrics(registries[-1])
    job = alliance.plan.job
    state = wiring.coordinator(home, job, link, alliance.blobs, tell=said.append, watch=watching, ask_again=0.5).run()
    return state, "\n".join([*said, *(generate_latest(registry).decode() for registry in registries)])


def test_a_job_logged_at_debug_says_nothing_of_a_record(
    build: Build, written: Written, capfd: pytest.CaptureFixture[str]
) -> None:
    alliance = build(rounds=1)
    with_marks(alliance)
    state, metrics = run_watched(alliance)
    assert isinstance(state, Finished)
    assert "fl_alliance_rounds_trained_total 1.0" in metrics
    everything = json.dumps(written()) + metrics + "".join(capfd.readouterr())
    assert not [mark for mark in MARKS if mark in everything]


def test_a_training_that_fails_with_a_record_in_its_text_says_only_how(
    build: Build, written: Written, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: TrainingSession, records: Any, _: Any) -> None:
        logging.getLogger("torch").error("can't encode %s", next(iter(records.units)))
        raise RuntimeError(f"can't encode {records}")

    alliance = build(rounds=1)
    with_marks(alliance)
    monkeypatch.setattr(TrainingSession, "train_round", fails)
    state, metrics = run_watched(alliance)
    assert isinstance(state, Aborted)
    lines = written()
    assert [line for line in lines if line.get("logger") == "torch"]
    assert [line for line in lines if line["event"] == "no_reply" and "RuntimeError" in line["failure"]]
    everything = json.dumps(lines) + metrics + "".join(capfd.readouterr()) + state.reason
    assert not [mark for mark in MARKS if mark in everything]
