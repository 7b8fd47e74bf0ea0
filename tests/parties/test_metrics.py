"""The status page: what is counted, what is ready, who may look; and the document that lists every metric."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from fl_alliance.errors import BadConfig, LinkFailed, StoreFailed
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.parties import metrics, status, wiring
from fl_alliance.parties.config import CoordinatorConfig, InstitutionConfig, load
from fl_alliance.parties.monitoring import watched_coordinator, watched_institution
from fl_alliance.parties.setup import Keys
from fl_alliance.parties.status import StatusServer, heard_check
from fl_alliance.store.journal import SqlJournal
from fl_alliance.store.ledger_file import LedgerFile
from tests.parties.conftest import Alliance, build_in

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Alliance, dict[str, str]]:
    """A job of one round, counted on both sides, and each party's page after it."""
    alliance = build_in(tmp_path_factory.mktemp("metrics"), rounds=1)
    clinic, hq = alliance.home("clinic"), alliance.folder / "coordinator"
    link = alliance.hub.coordinator_link()
    with (
        watched_institution(clinic, configured(clinic), ledger(clinic), lambda: 3.0, lambda: 2) as one,
        watched_coordinator(hq, configured_hq(hq), link, SqlJournal(hq / "journal.db")) as other,
    ):
        alliance.handlers["clinic"] = wiring.institution(clinic, alliance.hub.institution_link("clinic"), watch=one)
        wiring.coordinator(hq, "job-1", link, alliance.blobs, watch=other).run()
        return alliance, {"clinic": get(PAGES["clinic"], "/metrics")[1], "hq": get(PAGES["hq"], "/metrics")[1]}


PAGES = {"clinic": 0, "hq": 0}


@pytest.fixture(autouse=True, scope="module")
def any_port() -> Iterator[None]:
    """Let pages take any free port, and remember which."""
    with pytest.MonkeyPatch.context() as patch:
        original = StatusServer.__init__

        def noting(self: StatusServer, address: str, *rest: object) -> None:
            original(self, address, *rest)  # type: ignore[arg-type]
            PAGES["clinic" if address.startswith("localhost") else "hq"] = self.port

        patch.setattr(StatusServer, "__init__", noting)
        yield


def configured(home: Path) -> InstitutionConfig:
    return load(InstitutionConfig, home / "institution.toml").model_copy(update={"metrics": "localhost:0"})


def configured_hq(home: Path) -> CoordinatorConfig:
    return load(CoordinatorConfig, home / "coordinator.toml").model_copy(update={"metrics": "127.0.0.1:0"})


def ledger(home: Path) -> LedgerFile:
    return wiring.ledger_file(
        home, load(InstitutionConfig, home / "institution.toml"), IdentityKey.load(Keys(home).identity)
    )


def get(port: int, path: str) -> tuple[int, str]:
    call = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        call.request("GET", path)
        answer = call.getresponse()
        return answer.status, answer.read().decode()
    finally:
        call.close()


def values(text: str) -> dict[str, float]:
    """By name and labels; what belongs to a histogram only as its count."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(value for name, value in sorted(sample.labels.items()) if name != "le")
            found[f"{sample.name.removeprefix('fl_alliance_')}{{{labels}}}"] = sample.value
    return found


def test_a_job_is_counted_at_the_coordinator(finished: tuple[Alliance, dict[str, str]]) -> None:
    alliance, pages = finished
    seen = values(pages["hq"])
    assert seen["jobs{finished}"] == 1
    assert seen["jobs{running}"] == seen["jobs{aborted}"] == 0
    assert seen["round{}"] == 1
    assert seen["answers_total{sealed-update}"] == 3
    assert seen["phase_seconds_count{sealed-update}"] == seen["phase_seconds_count{adapter-vote}"] == 1
    records = [path for path in (alliance.folder / "coordinator" / "blobs").iterdir() if path.is_file()]
    assert 0 < seen["upload_bytes_total{}"] < sum(path.stat().st_size for path in records)
    assert seen["journal_appends_total{}"] == 3 * 2 + 1 + 3 * 8 + 2
    assert (seen["members{}"], seen["members_online{}"]) == (3, 3)
    assert seen["certificate_days_left{}"] > 300
    assert seen["disk_free_bytes{}"] > 0


def test_a_job_is_counted_at_the_institution(finished: tuple[Alliance, dict[str, str]]) -> None:
    _, pages = finished
    seen = values(pages["clinic"])
    assert seen["requests_answered_total{proposal}"] == seen["requests_answered_total{release}"] == 1
    assert seen["rounds_trained_total{}"] == seen["training_seconds_count{}"] == 1
    assert seen["link_retries{}"] == 2
    assert seen["coordinator_heard_seconds{}"] == 3
    assert seen["epsilon_cap{clinic-records,ever}"] == 8
    assert 0 < seen["epsilon_spent{clinic-records,year}"] == seen["epsilon_spent{clinic-records,ever}"] < 8


def test_what_is_spent_is_what_the_ledger_says(finished: tuple[Alliance, dict[str, str]]) -> None:
    alliance, pages = finished
    read = ledger(alliance.home("clinic")).read()
    expected = metrics.spent(read.entries, metrics.RdpAccountant(), Decimal(read.entries[0].delta))
    assert values(pages["clinic"])["epsilon_spent{clinic-records,ever}"] == pytest.approx(float(expected))


def test_no_metric_has_a_number_of_records_or_a_unit(finished: tuple[Alliance, dict[str, str]]) -> None:
    """The clinic has 12 records of 6 patients; labels are names of data sets, kinds, phases, errors and states."""
    _, pages = finished
    for text in pages.values():
        for family in text_string_to_metric_families(text):
            assert {name for sample in family.samples for name in sample.labels} <= {
                "dataset", "period", "kind", "phase", "error", "state", "le",
            }  # fmt: skip
            assert not re.search("record|unit|patient|cohort|sample", family.name)


def test_the_document_lists_every_metric_with_its_labels(finished: tuple[Alliance, dict[str, str]]) -> None:
    _, pages = finished
    rows = re.findall(r"^\| `(fl_alliance_\w+)`(?: `\{(\w+(?:, \w+)*)\}`)? \| (\w+)", DOCUMENT.read_text(), re.M)
    listed = {(name.removesuffix("_total"), labels, kind) for name, labels, kind in rows}
    served = {
        (family.name, ", ".join(sorted({*labels_of(family)} - {"le"})), family.type)
        for text in pages.values()
        for family in text_string_to_metric_families(text)
    }
    assert {row for row in listed if row[0] not in NOT_YET} == {row for row in served if row[0] not in NOT_YET}
    assert {(row[0], row[2]) for row in listed} == {(row[0], row[2]) for row in served}


NOT_YET = {f"fl_alliance_{name}" for name in ("refusals", "requests_refused", "dropped_replies")}
"""What did not happen in this job has no sample yet, and so no label."""


def labels_of(family: Metric) -> Iterator[str]:
    for sample in family.samples:
        yield from sample.labels


def test_another_partys_words_make_no_label() -> None:
    watch = metrics.CoordinatorMetrics(registry := CollectorRegistry())
    for n in range(100):
        watch.dropped(f"Zuleikha-{n}")
    watch.dropped("NotAuthentic")
    watch.dropped("no-reply")
    drops = {name: value for name, value in values(generate_latest(registry).decode()).items() if "_replies" in name}
    assert {n: v for n, v in drops.items() if "total" in n} == {
        "dropped_replies_total{other}": 100,
        "dropped_replies_total{NotAuthentic}": 1,
        "dropped_replies_total{no-reply}": 1,
    }


# ---- the page


def page(checks: dict[str, Callable[[], str | None]]) -> StatusServer:
    return StatusServer("127.0.0.1:0", CollectorRegistry(), checks)


def fails(error: Exception) -> Callable[[], None]:
    def check() -> None:
        raise error

    return check


def test_ready_is_what_every_check_says() -> None:
    trouble: list[str] = []
    server = page({"disk": lambda: trouble[0] if trouble else None, "journal": lambda: None})
    try:
        assert get(server.port, "/healthz")[0] == 200
        assert get(server.port, "/readyz") == (200, '{"ready": true, "disk": "ok", "journal": "ok"}\n')
        trouble.append("12 MiB free, at least 256")
        code, text = get(server.port, "/readyz")
        assert (code, json.loads(text)["ready"], json.loads(text)["disk"]) == (503, False, trouble[0])
        assert get(server.port, "/healthz")[0] == 200
        assert get(server.port, "/metrics/../keys")[0] == 404
    finally:
        server.close()


@pytest.mark.parametrize("error", [StoreFailed("closed"), LinkFailed("closed"), OSError(28, "full")])
def test_a_check_that_raises_is_not_ready(error: Exception) -> None:
    server = page({"it": fails(error)})
    try:
        assert get(server.port, "/readyz")[0] == 503
    finally:
        server.close()


def test_an_institution_that_hears_nothing_is_not_ready() -> None:
    assert heard_check(None) == "not heard of yet"
    assert heard_check(1.0) is None
    assert heard_check(status.QUIET_SECONDS + 1) == "not heard of for 91 s"


def test_a_disk_that_is_nearly_full_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status.disk_check(tmp_path) is None
    monkeypatch.setattr(status, "LOW_DISK_BYTES", 1 << 60)
    assert "MiB free, at least" in str(status.disk_check(tmp_path))


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "10.0.0.7:9464", "example.org:9464", ":9464", "9464", "[::]:9464"])
def test_a_page_beyond_this_machine_is_refused(address: str, tmp_path: Path) -> None:
    file = tmp_path / "coordinator.toml"
    file.write_text(f'alliance = "north"\nport = 9443\nmetrics = "{address}"\n')
    with pytest.raises(BadConfig, match="metrics"):
        load(CoordinatorConfig, file)


def test_a_port_that_is_taken_is_named() -> None:
    server = page({})
    try:
        with pytest.raises(BadConfig, match=rf"metrics: 127.0.0.1:{server.port} can't be listened on"):
            StatusServer(f"127.0.0.1:{server.port}", CollectorRegistry(), {})
    finally:
        server.close()


def test_a_gauge_that_cannot_be_looked_up_hides_no_other(tmp_path: Path) -> None:
    (registry := CollectorRegistry()).register(
        metrics.Looked(fails(StoreFailed("ledger")), lambda: metrics.disk_free(tmp_path))  # type: ignore[arg-type]
    )
    assert list(values(generate_latest(registry).decode())) == ["disk_free_bytes{}"]
