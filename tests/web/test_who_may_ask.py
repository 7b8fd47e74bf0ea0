"""The auditor's pages answer one host name, one kind of request, and no page of another site."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient


def test_every_answer_forbids_scripts_frames_and_reading_by_others(pages: TestClient) -> None:
    for address in ("/", "/style.css", "/nothing", "/institution/lima/cases", "/what-if/lima/cases?rounds=x"):
        headers = pages.get(address).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; form-action 'self';")
        assert "unsafe" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "set-cookie" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_but_reading_is_allowed(pages: TestClient, method: str) -> None:
    refused = pages.request(method, "/")
    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET, HEAD"
    assert "content-security-policy" in refused.headers


def test_the_head_of_a_page_can_be_asked_for(pages: TestClient) -> None:
    assert pages.head("/").status_code == 200


@pytest.mark.parametrize("host", ["evil.example:4711", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:4711.evil.example", ""])
def test_a_name_that_was_bound_to_this_machine_by_somebody_else_gets_nothing(pages: TestClient, host: str) -> None:
    refused = pages.get("/", headers={"host": host})
    assert refused.status_code == 421
    assert "clinics" not in refused.text


def test_the_other_name_of_this_machine_is_answered(pages: TestClient) -> None:
    assert pages.get("/", headers={"host": "localhost:4711"}).status_code == 200


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
def test_a_page_of_another_site_may_not_ask(pages: TestClient, site: str, status: int) -> None:
    assert pages.get("/style.css", headers={"sec-fetch-site": site}).status_code == status


@pytest.mark.parametrize(
    "address", ["/etc/passwd", "/..%2f..%2fetc/passwd", "/institution/lima/other", "/job/clinics/none", "/evidence/9"]
)
def test_what_is_no_page_is_not_found(pages: TestClient, address: str) -> None:
    missing = pages.get(address)
    assert missing.status_code == 404
    assert "No such page" in missing.text
