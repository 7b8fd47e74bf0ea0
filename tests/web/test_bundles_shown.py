"""The auditor's pages of bundles: their jobs as folders are shown, and what a bundle holds besides its jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties.audit_pages.evidence import Case, examined
from fl_alliance.privacy.ledger import Ledger, next_entry
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.messages import Refusal
from fl_alliance.store.ledger_file import LedgerFile
from tests.evidence.alliance import key_of, plan_of
from tests.evidence.folder import ME
from tests.evidence.house import House, small_bundle
from tests.web.conftest import NOW, client_of

LEDGER = "/institution/lagos/cases"


def with_refusal(case: Case) -> Case:
    """As if the bundle held a refusal; what is verified of one: tests/evidence/test_refusals.py."""
    refusal = Refusal(
        alliance="clinics", job="job-1", round=0, request_digest=digest_of(b"asked"), error="BudgetExceeded",
        reason="epsilon_per_job is 8: <b>no</b>",
    )  # fmt: skip
    (house,), (besides,) = case.houses, case.besides
    besides = replace(besides, standing=replace(besides.standing, refusals=(refusal,)))
    return replace(case, houses=(replace(house, besides=(besides,)),), besides=(besides,))


def charge_in_vain(house: House) -> None:
    """Charge a round of a job that ended without evidence, on the ledger of the house."""
    plan = plan_of(job="job-9")

    def build(ledger: Ledger) -> bytes:
        entry = next_entry(
            ledger, plan, plan_digest=digest_of(b"job-9"), round_number=1, dataset_digest=digest_of(b"records"),
            now=NOW,
        )  # fmt: skip
        return sign_document(key_of(ME), entry)

    path = house.home / "ledger.jsonl"
    LedgerFile(path, public_key=key_of(ME).public, institution=ME, dataset="cases").charge(build)


def test_what_was_charged_after_the_last_job_is_in_the_budget_and_has_a_page(tmp_path: Path) -> None:
    house = House(tmp_path / "lagos")
    house.job("job-1", rounds=1)
    charge_in_vain(house)
    bundle = house.bundle(tmp_path / "lagos.zip")
    with examined([bundle], root=key_of("root").keyid, now=NOW, say=lambda _: None) as case:
        pages = client_of(case)
        page, entry = pages.get(LEDGER).text, pages.get(f"{LEDGER}/entry/2")
        assert "Entries 1 to 2 of 2" in page
        assert "clinics / job-9" in page
        spent = case.houses[0].facts.costs.dataset_pld
        assert spent > case.evidence[0].findings.costs.dataset_pld
        assert f">{spent.normalize():f}<" in pages.get("/").text
        assert entry.status_code == 200
        assert "the bundle&#39;s list, signed by lagos, names the ledger that ends with this entry" in entry.text
        assert "No evidence of job clinics / job-9 was given" in entry.text


def test_a_refused_plan_is_shown_to_whoever_looks_at_the_institution_the_job_or_all(tmp_path: Path) -> None:
    with examined([small_bundle(tmp_path)], root=None, now=NOW, say=lambda _: None) as case:
        said = [client_of(with_refusal(case)).get(address).text for address in ("/", LEDGER, "/job/clinics/job-1")]
        assert "kept none" in client_of(case).get("/").text
    for page in said:
        assert "epsilon_per_job is 8: &lt;b&gt;no&lt;/b&gt;" in page
        assert "BudgetExceeded" in page


def test_a_bundle_is_shown_as_its_folders_are(tmp_path: Path) -> None:
    house = House(tmp_path / "lagos")
    house.job("job-1", rounds=1)
    house.job("job-2", rounds=2)
    bundle, folders = house.bundle(tmp_path / "lagos.zip"), [house.evidence("job-1"), house.evidence("job-2")]
    said = []
    for places in ([bundle], folders):
        with examined(places, root=key_of("root").keyid, now=NOW, say=lambda _: None) as case:
            pages = client_of(case)
            address = "/institution/lagos/cases/entry/3"
            said.append([pages.get(a).text for a in (address, "/job/clinics/job-1", "/institution/lagos/cases")])
            assert "✓ log: round-record" in said[-1][0]
    *alike, ledger = [page.replace("input 2", "input 1").replace("/evidence/2", "/evidence/1") for page in said[1]]
    assert alike == said[0][:2]
    assert ledger.partition("Plans that it refused")[0] == said[0][2].partition("Plans that it refused")[0]


def test_a_bundle_with_one_byte_changed_is_red_and_nothing_of_it_is_shown(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path)
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    with examined([bundle], root=None, now=NOW, say=lambda _: None) as case:
        page = client_of(case).get("/").text
    assert "✗ DOES NOT HOLD" in page
    assert "step 0, archive" in page
    assert case.houses == ()
