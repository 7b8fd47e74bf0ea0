"""One small alliance with hostile texts, and its pages, for all tests of this room."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fl_alliance.parties.audit_pages.app import app_of
from fl_alliance.parties.audit_pages.evidence import Case, examined
from fl_alliance.protocol.plan import AdapterPlan
from tests.evidence.alliance import key_of
from tests.web.paper import Paper

BEGIN = 1_800_000_000
NOW = 1_820_000_000
PORT = 4711
HOSTILE = "<script>alert(1)</script>\"\u202e'&lt;"
"""As the unit's name: the only free text that an institution and a coordinator must both sign."""
TARGET = "<b onload='alert(2)'>q_proj</b>"


@dataclass(frozen=True)
class Alliance:
    """job-1 has one round. In job-2 the second round is charged twice, and oslo leaves in it. job-1 is not given."""

    home: Path
    given: tuple[Path, ...]
    case: Case


def client_of(case: Case) -> TestClient:
    app = app_of(case, PORT, clock=lambda: NOW)
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False)


def seen(*places: Path, root: str | None = key_of("root").keyid) -> Case:
    """What pages of folders show: nothing of a folder needs to be closed."""
    with examined(places, root=root, now=NOW, say=lambda _: None) as case:
        return case


@pytest.fixture(scope="session")
def alliance(tmp_path_factory: pytest.TempPathFactory) -> Alliance:
    home = tmp_path_factory.mktemp("alliance")
    paper = Paper(home, unit=HOSTILE, policies={"lima": {"epsilon_per_year": "2.2"}})
    adapter = AdapterPlan(rank=4, alpha=8, targets=(TARGET,), modules=24, public_seed=7)
    paper.job("job-1", at=BEGIN, rounds=1, adapter=adapter)
    folders = paper.job("job-2", at=BEGIN + 9_000_000, rounds=2, adapter=adapter, leaves={"oslo": 2}, vain=(2,))
    given = (folders["lagos"], folders["lima"])
    return Alliance(home, given, seen(*given))


@pytest.fixture
def pages(alliance: Alliance) -> TestClient:
    return client_of(alliance.case)
