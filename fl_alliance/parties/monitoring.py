"""A running party's watch and status page, where its configuration asks for one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import open_document
from fl_alliance.parties.config import CoordinatorConfig, InstitutionConfig
from fl_alliance.parties.files import read_file
from fl_alliance.parties.setup import Keys, admitted
from fl_alliance.parties.watch import NOBODY, CoordinatorWatch, InstitutionWatch
from fl_alliance.protocol.documents import InstitutionPolicy
from fl_alliance.protocol.ports import CoordinatorLink
from fl_alliance.store.journal import Journal
from fl_alliance.store.ledger_file import LedgerFile

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from fl_alliance.parties.status import Check


@contextlib.contextmanager
def watched_coordinator(
    home: Path, config: CoordinatorConfig, link: CoordinatorLink, journal: Journal
) -> Iterator[CoordinatorWatch]:
    """Serve the coordinator's status page while the block runs.

    Raises:
        BadConfig: the address can't be listened on.
    """
    if config.metrics is None:
        yield NOBODY
        return
    from prometheus_client import CollectorRegistry

    from fl_alliance.parties import metrics

    registry = CollectorRegistry()
    watch = metrics.CoordinatorMetrics(registry)
    looks: list[Callable[[], Iterable[Metric]]] = [lambda: metrics.members_online(link.online, len(admitted(home)))]
    checks: dict[str, Check] = {"link": lambda: _none(link.online), "journal": lambda: _none(journal.check)}
    with _served(home, config.metrics, registry, looks, checks):
        yield watch


@contextlib.contextmanager
def watched_institution(
    home: Path,
    config: InstitutionConfig,
    ledger: LedgerFile,
    heard: Callable[[], float | None],
    retries: Callable[[], int],
) -> Iterator[InstitutionWatch]:
    """Serve the institution's status page while the block runs.

    `heard` says how many seconds ago the coordinator answered, `retries` how many calls failed.

    Raises:
        BadConfig: the address can't be listened on.
    """
    if config.metrics is None:
        yield NOBODY
        return
    from prometheus_client import CollectorRegistry

    from fl_alliance.parties import metrics, status

    registry = CollectorRegistry()
    watch = metrics.InstitutionMetrics(registry)
    looks: list[Callable[[], Iterable[Metric]]] = [
        lambda: metrics.coordinator_heard(heard, retries),
        metrics.Budget(ledger.read, partial(_policy, home)),
    ]
    checks: dict[str, Check] = {
        "coordinator": lambda: status.heard_check(heard()),
        "ledger": lambda: _none(ledger.read),
    }
    with _served(home, config.metrics, registry, looks, checks):
        yield watch


@contextlib.contextmanager
def _served(
    home: Path,
    address: str,
    registry: CollectorRegistry,
    looks: Sequence[Callable[[], Iterable[Metric]]],
    checks: Mapping[str, Check],
) -> Iterator[None]:
    """Serve a page at `address` with what every party shows too: its disk, and its certificate's days."""
    from fl_alliance.parties import metrics, status

    disk, days = partial(metrics.disk_free, home), partial(metrics.certificate_left, Keys(home).tls_certificate)
    registry.register(metrics.Looked(disk, days, *looks))
    page = status.StatusServer(address, registry, {**checks, "disk": partial(status.disk_check, home)})
    try:
        yield
    finally:
        page.close()


def _none(look: Callable[[], object]) -> None:
    """Look, and let what is wrong be raised."""
    look()


def _policy(home: Path) -> InstitutionPolicy:
    key = IdentityKey.load(Keys(home).identity).public
    return open_document(read_file(home / "policy.dsse.json", "policy"), InstitutionPolicy, public_key=key)
