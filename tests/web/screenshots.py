"""Make the pictures of docs/auditor.md: `.venv/bin/python -m tests.web.screenshots`, with a Chromium on the PATH.

The alliance is one on paper: four made-up institutions, three jobs in one year, no training.
"""

from __future__ import annotations

import os
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import sync_playwright

from fl_alliance.parties.audit_pages.evidence import examined
from fl_alliance.parties.audit_pages.serving import PagesServer
from tests.evidence.alliance import key_of
from tests.web.paper import Paper
from tests.web.test_browser import CHROMIUM

BEGIN: Final = 1_767_600_000
DAY: Final = 86_400
NOW: Final = BEGIN + 330 * DAY
POLICIES: Final = {
    "berlin": {"epsilon_per_dataset": "8"},
    "lima": {"epsilon_per_dataset": "5", "epsilon_per_year": "4"},
    "oslo": {"epsilon_per_dataset": "3.5"},
}
PICTURES: Final = Path(__file__).parents[2] / "docs" / "pictures"
SHOTS: Final = {
    "auditor-overview": ("", 0, 870),
    "auditor-entry": ("institution/lima/cases/entry/9", 0, 730),
    "auditor-what-if": ("what-if/lima/cases?rounds=6&noise_multiplier=1.1", 0, 760),
}
"""Address, and from where to where of the page (pixels)."""


def written(home: Path) -> list[Path]:
    """Write the evidence and return its folders, relative to `home`."""
    paper = Paper(home, policies=POLICIES)
    paper.job("triage-1", at=BEGIN, rounds=3)
    second = paper.job("triage-2", at=BEGIN + 90 * DAY, rounds=4, vain=(2,), privacy={"noise_multiplier": "1.2"})
    third = paper.job("letters-1", at=BEGIN + 300 * DAY, rounds=5, leaves={"oslo": 3})
    return [folder.relative_to(home) for folder in (*third.values(), second["oslo"], second["lima"])]


def main() -> None:
    """Write the pictures, in few colours: they are small."""
    home = Path(tempfile.mkdtemp())
    places = written(home)
    os.chdir(home)
    with (
        examined(places, root=key_of("root").keyid, now=NOW, say=lambda _: None) as case,
        PagesServer(case, clock=lambda: NOW) as server,
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 900, "height": 800})
        for name, (address, top, bottom) in SHOTS.items():
            page.goto(server.url + address)
            shot = page.screenshot(full_page=True, clip={"x": 0, "y": top, "width": 900, "height": bottom - top})
            PICTURES.mkdir(exist_ok=True)
            Image.open(BytesIO(shot)).convert("RGB").quantize(32).save(PICTURES / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
