"""A small institution's sources of a report, without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fl_alliance.privacy.report import build_report
from fl_alliance.privacy.reporting.facts import Sources
from fl_alliance.protocol.documents import LedgerHead, RoundRecord, Upload
from fl_alliance.protocol.ids import digest_of
from tests.evidence.alliance import NAMES, plan_of, policy_of
from tests.evidence.folder import ME, NOW, Folder

DIGEST = digest_of(b"x")


def record_of(number: int, uploads: tuple[str, ...] = NAMES) -> RoundRecord:
    return RoundRecord(
        alliance="clinics", job="job-1", round=number, plan_digest=DIGEST, roster_digest=DIGEST, members=NAMES,
        uploads=tuple(Upload(member=name, digest=DIGEST, length=9) for name in uploads),
        sum_digest=DIGEST, sum_length=11, adapter_digest=DIGEST,
        ledger_heads=tuple(LedgerHead(member=name, head=DIGEST) for name in uploads),
        votes=NAMES, previous_record=None if number == 1 else DIGEST, time=NOW + number,
    )  # fmt: skip


def sources_of(path: Path, *, charged: int = 2, policy: dict[str, Any] | None = None, **plan: Any) -> Sources:
    """Return the sources of a job with so many charges, each with a record."""
    folder = Folder(path / "evidence", **plan)
    for number in range(1, charged + 1):
        folder.charge(number)
    ledger = folder.ledger.read()
    report = build_report(
        ledger, folder.plan, plan_digest=DIGEST, policy_digest=DIGEST, adapter_digest=DIGEST, time=NOW + 100
    )
    records = tuple(record_of(number) for number in range(1, charged + 1))
    unit = folder.plan.privacy.unit
    return Sources(
        report=report, report_digest=DIGEST, ledger=ledger,
        policy=policy_of(allowed_units=(unit,), **(policy or {})), plan=folder.plan,
        records=records,
    )  # fmt: skip


__all__ = ["DIGEST", "ME", "NAMES", "NOW", "plan_of", "record_of", "sources_of"]


def require_uncut(figure: Any) -> None:
    """Fail if a word or a line of a drawn picture lies beyond its edges."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    inside, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
    assert inside.x0 >= 0
    assert inside.y0 >= 0
    assert inside.x1 <= width
    assert inside.y1 <= height
