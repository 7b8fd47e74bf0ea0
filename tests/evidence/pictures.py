"""The pictures of docs/report.md: `python -m tests.evidence.pictures docs/pictures`, with Poppler's pdftoppm.

Made-up evidence of three institutions and three jobs, well signed and without any training, printed by `audit report`
as whoever has real evidence prints it; of both reports the first two pages, in grey, as a printer without colour has
them.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from fl_alliance.parties.audit_report import write_report
from tests.evidence.alliance import key_of
from tests.evidence.shared import Alliance

DOTS = 80
"""An inch."""
GREYS = 16
CAPS = {"berlin": {"epsilon_per_dataset": "6"}, "lima": {"epsilon_per_dataset": "20"}}


def main(out: Path) -> None:
    """Write `report.png` and `report-alliance.png` to the folder `out`."""
    with tempfile.TemporaryDirectory() as home:
        evidence = example(Path(home))
        picture(evidence[-2:-1], out / "report.png")
        picture(evidence, out / "report-alliance.png")


def example(home: Path) -> list[Path]:
    """Return the evidence folders of three jobs."""
    alliance = Alliance(home, CAPS)
    return [
        *alliance.run("triage", rounds=4),
        *alliance.run("letters", rounds=6, privacy={"noise_multiplier": "2"}),
        *alliance.run("discharge", rounds=3, privacy={"noise_multiplier": "1.2", "steps_per_round": 2}),
    ]


def picture(evidence: list[Path], out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.pdf"
        write_report(evidence, report, language="en", root=key_of("root").keyid, say=lambda _: None)
        pages = [page_of(report, number) for number in (1, 2)]
    sheet = Image.new("L", (sum(page.width for page in pages), pages[0].height), 255)
    for place, page in enumerate(pages):
        sheet.paste(page, (place * page.width, 0))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(GREYS).save(out, optimize=True)


def page_of(report: Path, number: int) -> Image.Image:
    command = ["pdftoppm", "-gray", "-png", "-r", str(DOTS), "-f", str(number), "-l", str(number), str(report)]
    return Image.open(io.BytesIO(subprocess.run(command, check=True, capture_output=True).stdout)).convert("L")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
