"""The manifest: what is missing, extra, changed, or not a plain file is refused by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_alliance.errors import EvidenceRefused
from fl_alliance.evidence.bundle import MANIFEST, check_manifest, write_manifest
from fl_alliance.evidence.sign import sign_message
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import EvidenceManifest, ManifestFile, statement_for
from fl_alliance.protocol.envelope import STATEMENT_TYPE
from fl_alliance.protocol.ids import digest_of
from tests.evidence.alliance import key_of

KEY = key_of("lagos")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "evidence"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"a")
    (folder / "deep" / "b.txt").write_bytes(b"b")
    (tmp_path / "outside.txt").write_bytes(b"b")
    write_manifest(folder, KEY, institution="lagos")
    return folder


def test_an_unchanged_folder_passes_and_a_second_manifest_has_the_same_bytes(folder: Path) -> None:
    manifest = check_manifest(folder, KEY.public)
    assert [file.name for file in manifest.files] == ["a.txt", "deep/b.txt"]
    assert write_manifest(folder, KEY, institution="lagos") == (folder / MANIFEST).read_bytes()


def missing(folder: Path) -> None:
    (folder / "deep/b.txt").unlink()


def extra(folder: Path) -> None:
    (folder / "deep/c.txt").write_bytes(b"")


def hidden_extra(folder: Path) -> None:
    (folder / ".c").write_bytes(b"")


def changed(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"b")


def longer(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"aa")


def link_to_same_bytes(folder: Path) -> None:
    (folder / "deep/b.txt").unlink()
    (folder / "deep/b.txt").symlink_to(folder.parent / "outside.txt")


def link_to_folder(folder: Path) -> None:
    (folder / "more").symlink_to(folder / "deep")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (missing, "deep/b.txt: is missing"),
        (extra, "deep/c.txt: is not listed"),
        (hidden_extra, ".c: is not listed"),
        (changed, "a.txt: digest sha256:"),
        (longer, "a.txt: 2 bytes, manifest.dsse.json says 1"),
        (link_to_same_bytes, "deep/b.txt: is a symbolic link"),
        (link_to_folder, "more: is a symbolic link"),
        (pipe, "pipe: is not a plain file"),
        (no_manifest, "manifest.dsse.json: is missing"),
    ],
)
def test_a_changed_folder_is_refused_by_file(folder: Path, change: Callable[[Path], None], refusal: str) -> None:
    change(folder)
    with pytest.raises(EvidenceRefused, match="^step 1, " + refusal.replace(".", r"\.")):
        check_manifest(folder)


def test_another_key_than_the_expected_is_refused(folder: Path) -> None:
    with pytest.raises(EvidenceRefused, match=r"step 1, manifest.dsse.json: names another key"):
        check_manifest(folder, key_of("lima").public)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/passwd", "deep/../a.txt", "./a.txt", "deep//b.txt", "a\\b"])
def test_path_tricks_are_refused_though_they_are_signed(folder: Path, name: str) -> None:
    file = ManifestFile(name="placeholder", digest=digest_of(b"b"), length=1)
    manifest = EvidenceManifest(institution="lagos", key=KEY.public_text, files=(file,))
    payload = encode(statement_for(manifest)).replace(b"placeholder", name.replace("\\", "\\\\").encode())
    (folder / MANIFEST).write_bytes(sign_message(KEY, STATEMENT_TYPE, payload))
    with pytest.raises(EvidenceRefused, match=r"step 1, manifest.dsse.json: .*files\.0\.name"):
        check_manifest(folder)


def test_a_link_is_not_signed_either(folder: Path) -> None:
    link_to_folder(folder)
    with pytest.raises(EvidenceRefused, match="more: is a symbolic link"):
        write_manifest(folder, KEY, institution="lagos")


def test_what_a_killed_process_left_half_written_is_no_evidence(tmp_path: Path) -> None:
    (tmp_path / "rounds").mkdir()
    (tmp_path / "plan.dsse.json").write_bytes(b"plan")
    for name in (".new-abc", "rounds/.new-def", f".{MANIFEST}.draft"):
        (tmp_path / name).write_bytes(b"half")
    write_manifest(tmp_path, KEY, institution="lagos")
    assert [file.name for file in check_manifest(tmp_path).files] == ["plan.dsse.json"]
