"""A running party's watch and status page, where its configuration asks for one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

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

    from fl_alliance.parties import metrics, status

    registry = CollectorRegistry()
    watch = metrics.CoordinatorMetrics(registry)
    registry.register(
        metrics.Looked(
            partial(metrics.disk_free, home),
            partial(metrics.certificate_left, Keys(home).tls_certificate),
            lambda: metrics.members_online(link.online, len(admitted(home))),
        )
    )
    checks: dict[str, status.Check] = {
        "link": lambda: _none(link.online),
        "journal": lambda: _none(journal.check),
        "disk": partial(status.disk_check, home),
    }
    page = status.StatusServer(config.metrics, registry, checks)
    try:
        yield watch
    finally:
        page.close()


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
    registry.register(
        metrics.Looked(
            partial(metrics.disk_free, home),
            partial(metrics.certificate_left, Keys(home).tls_certificate),
            lambda: metrics.coordinator_heard(heard, retries),
            metrics.Budget(ledger.read, partial(_policy, home)),
        )
    )
    checks: dict[str, status.Check] = {
        "coordinator": lambda: status.heard_check(heard()),
        "ledger": lambda: _none(ledger.read),
        "disk": partial(status.disk_check, home),
    }
    page = status.StatusServer(config.metrics, registry, checks)
    try:
        yield watch
    finally:
        page.close()


def _none(look: Callable[[], object]) -> None:
    """Look, and let what is wrong be raised."""
    look()


def _policy(home: Path) -> InstitutionPolicy:
    key = IdentityKey.load(Keys(home).identity).public
    return open_document(read_file(home / "policy.dsse.json", "policy"), InstitutionPolicy, public_key=key)
