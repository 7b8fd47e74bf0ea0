"""What an institution lays beside its adapter: the same after a kill, a key of its own, a card in golden bytes."""

from __future__ import annotations

import stat
from html import escape
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from fl_alliance.errors import BadConfig, StoreFailed
from fl_alliance.evidence.adapter import adapter_digest
from fl_alliance.parties import release as releases
from fl_alliance.parties.model_auditor import FILES, verify_model
from fl_alliance.privacy.model_card import render_card
from fl_alliance.protocol.documents import ModelProvenance
from tests.evidence.alliance import key_of
from tests.evidence.folder import ME
from tests.evidence.released import copy_of, release, released
from tests.killed import Killed
from tests.protocol.examples import DOCUMENTS, digest

GOLDEN_CARD = Path(__file__).parent / "golden-card.md"
EXAMPLE = DOCUMENTS["model-provenance"]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released(tmp_path_factory.mktemp("honest") / "job")


@pytest.fixture
def job(honest: Path, tmp_path: Path) -> Path:
    return copy_of(honest, tmp_path / "job")


def holds(job: Path) -> None:
    found = verify_model(job / "adapter", evidence=job / "evidence", root=key_of("root").keyid, say=lambda _: None)
    assert found.evidence_compared
    assert sorted(path.name for path in (job / "adapter").iterdir()) == sorted(FILES)


def test_done_again_card_and_provenance_are_the_same_bytes_and_the_signature_verifies(job: Path) -> None:
    before = {name: (job / "adapter" / name).read_bytes() for name in FILES}
    release(job)
    holds(job)
    changed = [name for name in FILES if (job / "adapter" / name).read_bytes() != before[name]]
    assert changed in ([], ["model.sig"])  # ECDSA draws a number for each signature


@pytest.mark.parametrize("write", range(1, 6))
def test_killed_at_any_write_and_done_again_the_release_is_whole(
    job: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    for path in (*(job / "keys").iterdir(), *(job / "adapter" / name for name in FILES if "adapter_" not in name)):
        path.unlink()
    done, real = [], releases.write_atomically

    def dies(path: Path, *args: Any, **named: Any) -> None:
        done.append(path.name)
        if len(done) == write:
            (path.parent / ".new-half").write_bytes(b"half of it")
            raise Killed
        real(path, *args, **named)

    monkeypatch.setattr(releases, "write_atomically", dies)
    with pytest.raises(Killed):
        release(job)
    assert done == ["model.key", "model.pub.pem", "README.md", "provenance.dsse.json", "model.sig"][:write]
    monkeypatch.setattr(releases, "write_atomically", real)
    release(job)
    holds(job)


def test_the_voted_files_and_their_digest_stay_as_they_were(job: Path) -> None:
    before = adapter_digest(job / "adapter")
    release(job)
    assert adapter_digest(job / "adapter") == before


def test_a_full_disk_is_a_named_error_and_no_folder_that_looks_whole(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StoreFailed("model.sig can't be written in adapter: No space left on device")

    monkeypatch.setattr(releases, "sign_model", full)
    with pytest.raises(StoreFailed):
        release(job)
    assert not (job / "adapter" / "model.sig").exists()


def test_a_folder_without_an_adapter_is_a_named_error(job: Path) -> None:
    (job / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(StoreFailed, match="adapter can't be described: No such file"):
        release(job)


# ---- the key for model signatures


def test_the_key_is_made_once_and_is_its_owners_alone(job: Path) -> None:
    key = job / "keys" / "model.key"
    before = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    release(job)
    assert key.read_bytes() == before
    assert b"PRIVATE" not in (job / "keys" / "model.pub.pem").read_bytes()


@pytest.mark.parametrize("content", [b"", b"no key", None], ids=["empty", "text", "ed25519"])
def test_a_file_that_holds_no_ec_key_is_refused(job: Path, content: bytes | None) -> None:
    key = job / "keys" / "model.key"
    key.unlink()
    if content is None:
        key_of(ME).save(key)
    else:
        key.write_bytes(content)
        key.chmod(0o600)
    with pytest.raises(BadConfig, match=r"model key .*: (not an unencrypted|a Ed25519PrivateKey, must be an EC key)"):
        release(job)


def test_a_key_that_others_can_read_is_refused(job: Path) -> None:
    (job / "keys" / "model.key").chmod(0o640)
    with pytest.raises(BadConfig, match="mode 0640 lets others read it"):
        release(job)


# ---- the card


def test_the_card_is_in_golden_bytes() -> None:
    """An auditor renders it again: other words would refuse every card that was signed before."""
    assert isinstance(EXAMPLE, ModelProvenance)
    assert render_card(EXAMPLE, adapter_digest=digest(11)) == GOLDEN_CARD.read_bytes()


def front_matter(card: bytes) -> dict[str, Any]:
    _, head, _ = card.decode().split("---\n", 2)
    found = yaml.safe_load(head)
    assert isinstance(found, dict)
    return found


def test_the_front_matter_is_yaml_with_the_reports_numbers() -> None:
    assert front_matter(GOLDEN_CARD.read_bytes()) == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "federated-learning", "differential-privacy"],
        "differential_privacy": {
            "unit": "patient",
            "relation": "add-or-remove-one-unit",
            "epsilon": "3.17",
            "delta": "0.000001",
            "epsilon_of_all_jobs": "5.02",
        },
    }


def test_the_card_names_every_public_parameter_that_decides_epsilon() -> None:
    card = GOLDEN_CARD.read_text()
    for value in ("1.25", "0.01", "40 a round", "0.000001", "auto-s", "4 in a step", "11 of 12", "3.17 (3.61)", "7.5"):
        assert value in card


@pytest.mark.parametrize("unit", ['x"\nepsilon: 0', "<script>alert(1)</script>", "[a](http://b) | c\n# Epsilon 0"])
def test_a_unit_of_markup_stays_text(unit: str) -> None:
    assert isinstance(EXAMPLE, ModelProvenance)
    report = EXAMPLE.report.model_copy(update={"unit": unit, "statement": f"Each {unit} is safe."})
    card = render_card(EXAMPLE.model_copy(update={"report": report}), adapter_digest=digest(11))
    assert front_matter(card)["differential_privacy"]["unit"] == unit
    html = page(card)
    assert html.count("<h") == page(GOLDEN_CARD.read_bytes()).count("<h")
    assert html.count("<td>") == page(GOLDEN_CARD.read_bytes()).count("<td>")
    assert "<script" not in html
    assert "<a " not in html
    assert escape(" ".join(unit.split())) in html


def page(card: bytes) -> str:
    """Return the card as a reader shows it: CommonMark with tables, HTML let through."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(card.decode().split("---\n", 2)[2])
