"""What a party counts for its own IT, as Prometheus metrics. Every one is in the table of docs/operations.md.

An institution's metrics never leave the house by themselves: they are served on loopback and pushed nowhere. How long a
round's training took says something about how many records were sampled, so they are the institution's own. No label
and no value holds what a record says, or a number of records.
"""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final

from cryptography import x509
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fl_alliance import errors
from fl_alliance.errors import AllianceError
from fl_alliance.privacy.accountant import RdpAccountant
from fl_alliance.privacy.ledger import Ledger, spent, year_before
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.documents import InstitutionPolicy
from fl_alliance.rounds import coordinator, institution

_SECONDS: Final = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
_OTHER: Final = "other"

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a counter began is of no use to anybody here


class CoordinatorMetrics:
    """The coordinator's; a `CoordinatorWatch`."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase: tuple[str, float] | None = None
        self.jobs = Gauge("fl_alliance_jobs", "Jobs of this process, by state.", ["state"], registry=registry)
        self.round = Gauge("fl_alliance_round", "Round of the job that runs, 0 before the first.", registry=registry)
        self.phases = Histogram(
            "fl_alliance_phase_seconds", "How long a phase took.", ["phase"], registry=registry, buckets=_SECONDS
        )
        self.answers = Counter("fl_alliance_answers", "Answers taken, by kind.", ["kind"], registry=registry)
        self.refusals = Counter("fl_alliance_refusals", "Refusals of members, by error.", ["error"], registry=registry)
        self.drops = Counter(
            "fl_alliance_dropped_replies", "Replies that were none, came too late or were not authentic.", ["error"],
            registry=registry,
        )  # fmt: skip
        self.uploads = Counter("fl_alliance_upload_bytes", "Bytes of the uploads that were signed.", registry=registry)
        self.appends = Counter("fl_alliance_journal_appends", "Events written to the journal.", registry=registry)
        for state in ("running", "finished", "aborted"):
            self.jobs.labels(state)

    def happened(self, state: coordinator.State, event: coordinator.Event) -> None:
        """Count an event."""
        self.appends.inc()
        self.round.set(state.progress.round)
        if isinstance(event, coordinator.Answered):
            self._answered(event.signed.answer)
        self._time(state)
        self._note_end(state)

    def _answered(self, answer: m.Answer) -> None:
        self.answers.labels(answer.kind).inc()
        if isinstance(answer, m.Refusal):
            self.refusals.labels(known_error(answer.error)).inc()
        if isinstance(answer, m.SealedUpdate):
            self.uploads.inc(answer.upload.length)

    def _time(self, state: coordinator.State) -> None:
        name = type(state).__name__.lower()
        if isinstance(state, coordinator.Gathering):
            name = coordinator.kind_of(state.awaits)
        if self._phase is not None and self._phase[0] == name:
            return
        now = self._clock()
        if self._phase is not None:
            self.phases.labels(self._phase[0]).observe(now - self._phase[1])
        self._phase = (name, now)

    def _note_end(self, state: coordinator.State) -> None:
        outcome = {coordinator.Finished: "finished", coordinator.Aborted: "aborted"}.get(type(state))
        self.jobs.labels("running").set(outcome is None)
        if outcome is not None:
            self.jobs.labels(outcome).inc()
            self._phase = None

    def dropped(self, why: str) -> None:
        """Count a reply that was none."""
        self.drops.labels(why if why == "no-reply" else known_error(why)).inc()


class InstitutionMetrics:
    """The institution's; an `InstitutionWatch`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "fl_alliance_requests_answered", "Requests answered, by kind.", ["kind"], registry=registry
        )
        self.refusals = Counter(
            "fl_alliance_requests_refused", "Requests refused, by error.", ["error"], registry=registry
        )
        self.rounds = Counter("fl_alliance_rounds_trained", "Rounds trained.", registry=registry)
        self.training = Histogram(
            "fl_alliance_training_seconds", "How long a round's training took.", registry=registry, buckets=_SECONDS
        )

    def answered(self, request: m.Request, answer: m.Answer) -> None:
        """Count an answer."""
        self.requests.labels(request.kind).inc()
        if isinstance(answer, m.Refusal):
            self.refusals.labels(known_error(answer.error)).inc()

    def worked(self, work: institution.Work, seconds: float) -> None:
        """Count a round that was trained."""
        if isinstance(work, institution.Train):
            self.rounds.inc()
            self.training.observe(seconds)


def known_error(name: str) -> str:
    """Return `name` if it is an error of ours: another party's words make no label."""
    kind = getattr(errors, name, None)
    return name if isinstance(kind, type) and issubclass(kind, AllianceError) else _OTHER


# ---- what is looked up when somebody asks


class Looked(Collector):
    """Gauges that are looked up at each scrape. One that can't be is left out; the others are still there."""

    def __init__(self, *looks: Callable[[], Iterable[Metric]]) -> None:
        self._looks = looks

    def collect(self) -> Iterator[Metric]:
        """Yield each gauge."""
        for look in self._looks:
            try:
                yield from list(look())
            except (AllianceError, OSError, ValueError):
                continue

    def describe(self) -> list[Metric]:
        """Return nothing: so that registering looks nothing up."""
        return []


def disk_free(home: Path) -> Iterator[Metric]:
    """Free bytes where the party's folder is."""
    yield GaugeMetricFamily("fl_alliance_disk_free_bytes", "Free bytes on the folder's disk.", _free(home))


def _free(home: Path) -> int:
    return shutil.disk_usage(home).free


def certificate_left(path: Path) -> Iterator[Metric]:
    """Days until the party's TLS certificate ends."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    days = left.total_seconds() / 86_400
    yield GaugeMetricFamily("fl_alliance_certificate_days_left", "Days until the TLS certificate ends.", days)


def members_online(online: Callable[[], frozenset[str]], members: int) -> Iterator[Metric]:
    """How many members are admitted, and how many gave a sign of life within the last minute."""
    yield GaugeMetricFamily("fl_alliance_members", "Institutions admitted.", members)
    yield GaugeMetricFamily("fl_alliance_members_online", "Institutions that are reachable now.", len(online()))


class Budget:
    """What is spent of the caps of one data set, by the looser accountant: it answers at once."""

    def __init__(self, read: Callable[[], Ledger], policy: Callable[[], InstitutionPolicy]) -> None:
        self._read, self._policy = read, policy
        self._known: tuple[str, int, list[Metric]] | None = None

    def __call__(self) -> Iterable[Metric]:
        """Return spent and cap; computed anew when there is a new charge, and once a day."""
        ledger, day = self._read(), int(time.time()) // 86_400
        if self._known is None or self._known[:2] != (ledger.head, day):
            self._known = (ledger.head, day, list(self._gauges(ledger, self._policy())))
        return self._known[2]

    def _gauges(self, ledger: Ledger, policy: InstitutionPolicy) -> Iterator[Metric]:
        labels = ["dataset", "period"]
        used = GaugeMetricFamily("fl_alliance_epsilon_spent", "Epsilon spent, by RDP.", labels=labels)
        caps = GaugeMetricFamily("fl_alliance_epsilon_cap", "Epsilon that the policy allows.", labels=labels)
        for period, cap, entries in (
            ("year", policy.epsilon_per_year, year_before(ledger.entries, int(time.time()))),
            ("ever", policy.epsilon_per_dataset, ledger.entries),
        ):
            caps.add_metric([policy.dataset, period], float(Decimal(cap)))
            used.add_metric([policy.dataset, period], self._spent(ledger, entries))
        yield from (used, caps)

    @staticmethod
    def _spent(ledger: Ledger, entries: Iterable[object]) -> float:
        if not ledger.entries:
            return 0.0
        delta = min(Decimal(entry.delta) for entry in ledger.entries)
        return float(spent(entries, RdpAccountant(), delta))  # type: ignore[arg-type]


def coordinator_heard(age: Callable[[], float | None], retries: Callable[[], int]) -> Iterator[Metric]:
    """When the institution last heard from the coordinator, and how often it called in vain."""
    yield GaugeMetricFamily("fl_alliance_link_retries", "Calls that failed and were tried again.", retries())
    if (seconds := age()) is not None:
        yield GaugeMetricFamily("fl_alliance_coordinator_heard_seconds", "Seconds since it last answered.", seconds)
