"""The auditor's pages in a real browser: from the first page to the signed bytes of a number, and one more job.

Where no Chromium is installed this is skipped; with FL_ALLIANCE_TEST_BROWSER=1 it fails instead.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from fl_alliance.parties.audit_pages.serving import PagesServer
from tests.web.conftest import NOW, Alliance

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TAB_STOPS = 6
"""Fewer than the first page has links."""
CUT = "e => e.scrollWidth > e.clientWidth + 1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        missing = "no Chromium on the PATH: apt install chromium"
        pytest.fail(missing) if os.environ.get("FL_ALLIANCE_TEST_BROWSER") == "1" else pytest.skip(missing)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(alliance: Alliance) -> Iterator[str]:
    with PagesServer(alliance.case, clock=lambda: NOW) as server:
        yield server.url


@pytest.fixture(params=["with scripts"])
def context(browser: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    context = browser.new_context(
        viewport={"width": 1000, "height": 800}, java_script_enabled=request.param == "with scripts"
    )
    yield context
    context.close()


BOTH = pytest.mark.parametrize("context", ["with scripts", "scripts switched off"], indirect=True)


@pytest.fixture
def page(context: BrowserContext, url: str) -> Iterator[Page]:
    """A page at the first address. What the console says, a dialog, or a request elsewhere fails the test."""
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: None if request.url.startswith(url) else complaints.append(request.url))
    page.goto(url)
    yield page
    assert complaints == []


@BOTH
def test_from_a_number_on_the_first_page_to_the_signed_entry_and_its_proof(page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text("Evidence of the alliance")
    page.get_by_role("row", name=re.compile("^lima cases")).get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("lima: data set cases")
    page.get_by_role("rowheader", name="4", exact=True).get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ledger entry 4")
    expect(page.get_by_text("✓ signature")).to_be_visible()
    expect(page.get_by_role("heading", name="In the coordinator's log: round-record")).to_be_visible()
    expect(page.get_by_text('"kind":"charge"')).to_be_visible()
    assert page.locator(".refused").count() == 0
    page.get_by_role("navigation").get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Evidence of the alliance")


@BOTH
def test_one_more_job_is_asked_with_the_keyboard_alone(page: Page, url: str) -> None:
    page.goto(f"{url}institution/lima/cases")
    page.get_by_label("Rounds", exact=True).focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("6")
    page.keyboard.press("Enter")
    expect(page.get_by_text("✗ would be refused because")).to_be_visible()
    expect(page.get_by_text("epsilon_per_year is 2.2: spent")).to_be_visible()
    page.get_by_label("Noise multiplier").fill("4")
    page.get_by_role("button", name="What would it cost?").press("Enter")
    expect(page.get_by_text("✓ would be allowed")).to_be_visible()
    assert "noise_multiplier=4" in page.url
    assert page.get_by_label("Rounds", exact=True).input_value() == "6"


def test_nothing_is_cut_off_on_a_narrow_screen_or_on_paper(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    for media in ("screen", "print"):
        page.emulate_media(media=media)  # type: ignore[arg-type]
        for address in ("", "institution/lima/cases", "institution/lima/cases/entry/4", "job/clinics/job-2"):
            page.goto(url + address)
            if media == "screen":  # wide tables scroll in themselves; on paper they can't
                assert page.evaluate("document.documentElement.scrollWidth") <= 360, address
            blocks = "[...document.querySelectorAll('p, li, pre, figure, form')]"
            assert page.evaluate(f"{blocks}.filter({CUT}).length") == 0, (media, address)


def test_the_keyboard_reaches_the_content_first_and_shows_where_it_is(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    for _ in range(TAB_STOPS):
        page.keyboard.press("Tab")
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid"
