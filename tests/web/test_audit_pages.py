"""The auditor's pages: the verifier's numbers; what does not hold is red and counted nowhere; nobody else may ask."""

from __future__ import annotations

import hashlib
import html
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import escape
from starlette.testclient import TestClient

from fl_alliance.errors import BadConfig, BudgetExceeded
from fl_alliance.parties.audit_pages import houses
from fl_alliance.parties.audit_pages.evidence import House
from fl_alliance.parties.audit_pages.printing import visible
from fl_alliance.parties.audit_pages.what_if import answer
from fl_alliance.privacy.accountant import PldAccountant
from fl_alliance.privacy.ledger import check_plan, unopened_entry
from fl_alliance.protocol.ids import decimal_text, digest_of
from tests.evidence.alliance import key_of
from tests.web.conftest import BEGIN, HOSTILE, NOW, TARGET, Alliance, client_of, seen
from tests.web.paper import Paper

LIMA = "/institution/lima/cases"
VOID = {"meta", "link", "input", "br", "line", "rect", "polyline", "circle", "col"}


class Outline(HTMLParser):
    """What a page is made of; a tag that is closed in the wrong order fails the test."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


def walk(pages: TestClient) -> dict[str, str]:
    """Return every page that the first one leads to, by its address."""
    found: dict[str, str] = {}
    wanted = ["/"]
    while wanted:
        if (address := wanted.pop()) in found:
            continue
        answer = pages.get(address)
        assert answer.status_code == 200, address
        found[address] = answer.text
        links = [link["href"] or "" for link in Outline(answer.text).all("a")]
        wanted += [link.partition("#")[0] for link in links if link.startswith("/")]
    return found


def test_the_first_page_leads_to_every_other_and_each_can_be_read_without_eyes_or_colour(pages: TestClient) -> None:
    found = walk(pages)
    assert {"/", LIMA, f"{LIMA}/entry/4", "/job/clinics/job-2", "/evidence/2"} <= set(found)
    for address, page in found.items():
        outline = Outline(page)
        assert outline.all("html")[0]["lang"] == "en"
        assert len(outline.all("h1")) == len(outline.all("main")) == len(outline.all("title")) == 1, address
        assert all(cell.get("scope") in ("row", "col") for cell in outline.all("th"))
        assert all(picture.get("aria-label") for picture in outline.all("svg"))
        labelled = {label["for"] for label in outline.all("label")}
        asked = {field["id"] for tag in ("input", "select") for field in outline.all(tag)}
        assert asked == labelled
        ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
        assert len(ids) == len(set(ids)), address


def test_no_page_has_a_script_a_style_of_its_own_or_an_address_elsewhere(pages: TestClient) -> None:
    for address, page in walk(pages).items():
        outline = Outline(page)
        assert not {"script", "style", "iframe", "img", "object", "b", "i"} & {tag for tag, _ in outline.tags}, address
        for _, attributes in outline.tags:
            assert not [name for name in attributes if name == "style" or name.startswith("on")], address
            for name in ("href", "src", "action"):
                assert (attributes.get(name) or "/").startswith(("/", "#content")), address
                assert not (attributes.get(name) or "").startswith("//")


def test_hostile_texts_of_evidence_are_shown_as_texts(pages: TestClient) -> None:
    found = walk(pages)
    assert f"<td>{escape(HOSTILE.replace(chr(0x202E), 'U+202E'))}</td>" in found[f"{LIMA}/entry/4"]
    assert f"on {escape(TARGET)}</td>" in found["/job/clinics/job-2"]
    assert not any("\u202e" in page or "<script" in page or TARGET in page for page in found.values())


@pytest.mark.parametrize(
    ("text", "shown"),
    [("ab\u202ecd", "abU+202Ecd"), ("a\nb", "a\nb"), ("a\x00\x1b", "aU+0000U+001B"), ("naïve", "naïve")],
)
def test_letters_that_can_not_be_seen_are_named(text: str, shown: str) -> None:
    assert visible(text) == shown


# ---- numbers


def test_the_numbers_of_the_pages_are_the_verifiers(alliance: Alliance, pages: TestClient) -> None:
    page = text_of(pages.get("/").text)
    for house in alliance.case.houses:
        costs, cap = house.newest.findings.costs, house.newest.findings.sources.policy.epsilon_per_dataset
        left = decimal_text(int(cap) - costs.dataset_pld)
        assert f"{house.name[0]} cases " in page
        assert f"{cap} {decimal_text(costs.dataset_pld)} {left}" in page
    job = text_of(pages.get("/job/clinics/job-2").text)
    assert f"lagos {decimal_text(costs.job_pld)} {decimal_text(costs.job_rdp)} 8 3" in job


def test_a_job_page_names_who_left_and_what_was_charged_in_vain(pages: TestClient) -> None:
    job = text_of(pages.get("/job/clinics/job-2").text)
    assert "No update of oslo in the sum of: round 2." in job
    assert "Charged by lagos 3 , and no sum was opened with it: round 2." in job
    assert "Also members, of whom no evidence was given here: berlin, oslo." in job


def test_a_long_ledger_is_shown_in_pieces_that_lead_to_one_another(
    pages: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(houses, "ROWS", 3)
    assert "Entries 1 to 3 of 4" in pages.get(LIMA).text
    second = pages.get(f"{LIMA}?first=4")
    assert "Entries 4 to 4 of 4" in second.text
    assert f'href="{LIMA}?first=4#ledger"' in second.text
    assert 'id="ledger"' in second.text
    for wrong in ("0", "-1", "99", "x", "9" * 30):
        assert pages.get(f"{LIMA}?first={wrong}").status_code == 200


# ---- one entry


def test_an_entry_leads_to_its_signature_its_record_and_a_path_that_anybody_can_compute(pages: TestClient) -> None:
    answer = pages.get(f"{LIMA}/entry/4")
    said = text_of(answer.text)
    for what in (
        "✓ signature",
        "✓ entry before",
        "✓ named by",
        "✓ plan",
        "✓ record",
        "✓ update",
        "✓ log: ledger-head",
        "✓ log: round-record",
    ):
        assert what in said
    assert "the entry names the digest of entry 3" in said
    assert "the signed report, signed by lima, names the digest of this entry" in said
    for section in re.findall(r"In the coordinator&#39;s log: .*?</section>", answer.text, re.DOTALL):
        entry = html.unescape(re.findall(r"<pre.*?><code>(.*?)</code>", section, re.DOTALL)[0])
        rows = re.findall(r"<tr><th.*?>(.*?)</th><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", section, re.DOTALL)
        rows = [[re.sub("<.*?>", "", cell) for cell in row] for row in rows]
        node = hashlib.sha256(b"\x00" + entry.encode()).digest()
        assert rows[0][3] == node.hex()
        for _, side, other, so_far in rows[1:-1]:
            pair = bytes.fromhex(other) + node if side == "left" else node + bytes.fromhex(other)
            node = hashlib.sha256(b"\x01" + pair).digest()
            assert so_far == node.hex()
        assert rows[-1][0] == "root"
        assert rows[-1][3] == node.hex()


def test_the_signed_line_of_an_entry_has_the_digest_that_the_page_names(pages: TestClient) -> None:
    page = pages.get(f"{LIMA}/entry/2").text
    line = next(text for text in map(html.unescape, re.findall(r"<code>(.*?)</code>", page)) if '"payload"' in text)
    assert f"sha256:{hashlib.sha256(line.encode()).hexdigest()}" in page


def test_a_charge_that_no_record_names_and_one_of_a_job_that_was_not_given_say_so(pages: TestClient) -> None:
    assert "No round's record names this entry" in text_of(pages.get(f"{LIMA}/entry/3").text)
    assert "No evidence of job clinics / job-1 was given" in text_of(pages.get(f"{LIMA}/entry/1").text)


@pytest.mark.parametrize(
    ("file", "check"),
    [
        ("ledger.jsonl", "ledger"),
        ("plan.dsse.json", "plan"),
        ("rounds/0002/record.dsse.json", "record"),
        ("rounds/0002/messages/sealed-update.lima.json", "update"),
        ("log/leaves", "log: ledger-head"),
        ("log/checkpoint-0002.dsse.json", "log: round-record"),
        ("report.dsse.json", "named by"),
    ],
)
def test_what_was_changed_after_the_start_is_found_when_its_entry_is_asked_for(
    alliance: Alliance, tmp_path: Path, file: str, check: str
) -> None:
    folder = Path(shutil.copytree(alliance.given[1], tmp_path / "evidence"))
    pages = client_of(seen(folder))
    assert pages.get(f"{LIMA}/entry/4").status_code == 200
    data = bytearray((folder / file).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / file).write_bytes(data)
    answer = pages.get(f"{LIMA}/entry/4")
    assert answer.status_code == 409
    assert f"✗ DOES NOT HOLD: {check} {file.partition('/')[0]}" in text_of(answer.text)
    assert "The signed bytes" not in answer.text


@pytest.mark.parametrize(
    ("file", "other", "check"),
    [
        ("rounds/0002/record.dsse.json", "rounds/0001/record.dsse.json", "record"),
        ("rounds/0002/messages/sealed-update.lima.json", "rounds/0001/messages/sealed-update.lima.json", "update"),
        ("log/checkpoint-0002.dsse.json", "log/checkpoint-0001.dsse.json", "log: round-record"),
        ("log/leaves", "log/checkpoint-0001.dsse.json", "log: ledger-head"),
        ("plan.dsse.json", "policy.dsse.json", "plan"),
        ("report.dsse.json", "../../job-1/lima/report.dsse.json", "named by"),
    ],
)
def test_an_authentic_file_in_the_place_of_another_is_found_too(
    alliance: Alliance, tmp_path: Path, file: str, other: str, check: str
) -> None:
    folder = Path(shutil.copytree(alliance.given[1], tmp_path / "evidence"))
    pages = client_of(seen(folder))
    shutil.copy(alliance.given[1] / other, folder / file)
    answer = pages.get(f"{LIMA}/entry/4")
    assert answer.status_code == 409
    assert f"✗ DOES NOT HOLD: {check} " in text_of(answer.text)


@pytest.mark.parametrize("sequence", ["0", "5", "99999999999999999999", "-1", "x", "1/"])
def test_an_entry_that_is_none_has_no_page(pages: TestClient, sequence: str) -> None:
    assert pages.get(f"{LIMA}/entry/{sequence}").status_code == 404


# ---- what does not hold


def test_changed_evidence_is_red_with_step_and_file_and_nothing_of_it_is_counted(
    alliance: Alliance, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(alliance.given[0], tmp_path / "evidence"))
    path = folder / "policy.dsse.json"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    pages = client_of(seen(folder, alliance.given[1]))
    first = pages.get("/").text
    assert (
        f'<li class="refused"><strong>✗ DOES NOT HOLD: {folder}: step 1, manifest</strong> <code>policy.dsse.json'
        in first
    )
    assert "lagos" not in text_of(first).replace("berlin, lagos, lima, oslo", "")
    assert pages.get("/institution/lagos/cases").status_code == 404
    assert '<p class="alarm" role="alert"><strong>✗ DOES NOT HOLD.</strong> 1 finding' in pages.get(LIMA).text
    assert "✗ DOES NOT HOLD: step 1 policy.dsse.json" in text_of(pages.get("/evidence/1").text)


def test_another_root_than_the_expected_one_is_red(alliance: Alliance) -> None:
    case = seen(*alliance.given, root=key_of("lima").keyid)
    assert "step 2, root root.pub.json fingerprint" in text_of(client_of(case).get("/").text)
    assert case.houses == ()


def test_a_root_that_nobody_compared_is_said_in_a_frame(alliance: Alliance) -> None:
    case = seen(alliance.given[0], root=None)
    assert '<p class="lead">The alliance&#39;s root key was NOT COMPARED' in client_of(case).get("/").text


def test_of_two_ledgers_or_two_histories_of_a_job_neither_is_shown_as_true(alliance: Alliance, tmp_path: Path) -> None:
    other = Paper(tmp_path, unit=HOSTILE).job("job-2", at=BEGIN, rounds=1)["lima"]
    pages = client_of(seen(*alliance.given, other))
    said = text_of(pages.get("/").text)
    assert "all inputs together: step 14, one ledger ledger.jsonl lima signed two ledgers of cases" in said
    assert "all inputs together: step 15, one truth plan.dsse.json is sha256:" in said
    assert "the coordinator signed two histories" in said
    assert pages.get(LIMA).status_code == 404
    assert pages.get("/institution/lagos/cases").status_code == 200
    assert "its evidence contradicts other evidence" in text_of(pages.get("/job/clinics/job-2").text)


def test_a_place_where_nothing_is_is_named(alliance: Alliance, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"evidence: there is no .*nothing"):
        seen(alliance.given[0], tmp_path / "nothing")


# ---- one more job


def judged(house: House, **changes: str) -> str:
    """What the institution's process would say to one more job: it may be charged, or the refusal's text."""
    like = house.newest.findings.sources
    privacy = like.plan.privacy.model_copy(update=changes)
    plan = like.plan.model_copy(update={"job": "one-more", "rounds": 6, "privacy": privacy})
    entry = unopened_entry(house.ledger, plan, plan_digest=digest_of(b"one more"), now=NOW)
    try:
        check_plan(house.ledger.entries, entry, plan, like.policy, PldAccountant())
    except BudgetExceeded as error:
        return f"✗ would be refused because BudgetExceeded: {error}"
    return "✓ would be allowed"


@pytest.mark.parametrize(
    ("institution", "sigma", "named"),
    [("lima", "1.5", "epsilon_per_year is 2.2"), ("lima", "4", "allowed"), ("lagos", "1.5", "allowed"),
     ("lagos", "0.7", "epsilon_per_job is 8")],
)  # fmt: skip
def test_one_more_job_is_judged_as_the_institution_would(
    alliance: Alliance, pages: TestClient, institution: str, sigma: str, named: str
) -> None:
    asked = {"rounds": "6", "noise_multiplier": sigma, "epsilon_cap": "100"}
    said = text_of(pages.get(f"/what-if/{institution}/cases", params=asked).text)
    right = judged(alliance.case.house(institution, "cases"), noise_multiplier=sigma, epsilon_cap="100")
    assert right in said
    assert named in right
    assert ("(passes the cap)" in said) == ("refused" in right)


def test_one_more_job_shows_every_cap_and_both_accountants(alliance: Alliance, pages: TestClient) -> None:
    house = alliance.case.house("lagos", "cases")
    asked = {"rounds": "3", "noise_multiplier": "2.50"}
    facts = answer(house, house.newest, asked, now=NOW).facts
    assert facts is not None
    said = text_of(pages.get("/what-if/lagos/cases", params=asked).text)
    assert f"this job alone {facts.epsilon_pld} {facts.epsilon_rdp} 0.00001" in said
    assert len(facts.caps) == 4
    for cap in facts.caps:
        assert f"{cap.cap} {cap.spent} {cap.after} {cap.left}" in said


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("rounds", "0", "rounds: Input should be greater than or equal to 1"),
        ("rounds", "1.5", "rounds: '1.5' is not a whole number"),
        ("rounds", "٣", "rounds: '٣' is not a whole number"),
        ("steps_per_round", "9" * 40, "steps_per_round: "),
        ("sampling_rate", "1.5", "sampling_rate 1.5 must be at most 1"),
        ("sampling_rate", "0", "sampling_rate 0 must be above 0"),
        ("noise_multiplier", "-1", "noise_multiplier: '-1' must be at least 0"),
        ("noise_multiplier", "nan", "noise_multiplier: 'nan' is not a number"),
        ("noise_multiplier", "1e999999", "noise_multiplier: '1e999999' must be at least 0 and below 10^15"),
        ("epsilon_cap", "<script>", "epsilon_cap: '<script>' is not a number"),
        ("epsilon_cap", "", "epsilon_cap: '' is not a number"),
    ],
)
def test_a_plan_that_can_not_be_made_is_refused_by_its_field(
    pages: TestClient, field: str, value: str, named: str
) -> None:
    refused = pages.get("/what-if/lima/cases", params={field: value})
    assert refused.status_code == 400
    assert f"✗ no such plan can be made {named}" in text_of(refused.text).replace("privacy: Value error, ", "")
    assert Outline(refused.text).all("input")


def test_a_job_to_be_like_that_is_none_is_the_newest_one(pages: TestClient) -> None:
    page = pages.get("/what-if/lima/cases", params={"like": '"><script>', "noise_multiplier": "2.5"})
    assert page.status_code == 200
    assert "<option selected>clinics/job-2</option>" in page.text
