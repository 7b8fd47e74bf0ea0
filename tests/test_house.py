"""The house rules that no other tool holds: names, docstrings, numbers, sizes, commands, and no trace of a machine."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import fl_alliance
from fl_alliance import errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fl_alliance"
DECISIONS = ROOT / "docs" / "decisions"
SOURCES = sorted(PACKAGE.rglob("*.py"))
IGNORED = {".git", ".venv", ".cache", ".hypothesis", "__pycache__"}


def texts() -> dict[Path, str]:
    """Every text file of the project by relative path; what git ignores is not the project's."""
    found = {}
    for path in sorted(ROOT.rglob("*")):
        inside = path.relative_to(ROOT)
        ignored = any(part in IGNORED or part.endswith("_cache") for part in inside.parts)
        ignored = ignored or inside.parts[0] in {"build", "dist", "run"}
        if ignored or path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            found[inside] = data.decode()
    return found


def test_the_project_is_read_as_a_whole():
    names = {path.as_posix() for path in texts()}
    assert {
        "README.md",
        "Makefile",
        "fl_alliance/cli/words.py",
        "tests/test_house.py",
        ".ci/run",
        "pyproject.toml",
    } <= names


def public_lists() -> list[str]:
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if re.search(r"^__all__\b", path.read_text(), re.MULTILINE)
    ]


@pytest.mark.parametrize("name", public_lists())
def test_public_names_are_sorted_and_there(name: str):
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(set(module.__all__))
    for public in module.__all__:
        assert hasattr(module, public)


def test_the_package_has_public_names_and_one_version():
    assert "fl_alliance" in public_lists()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert fl_alliance.__version__ == project["version"]


@pytest.mark.parametrize("folder", sorted({path.parent for path in SOURCES}), ids=lambda p: p.name)
def test_every_room_says_what_it_is_for(folder: Path):
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert said
    assert len(said.splitlines()[0]) > 20


def test_every_room_is_drawn_in_the_architecture():
    drawn = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [module.name for module in pkgutil.iter_modules([str(PACKAGE)]) if module.ispkg]
    assert len(rooms) >= 10
    for room in rooms:
        assert re.search(rf"^ +{room}/ +\S", drawn, re.MULTILINE), room


def test_the_tree_of_errors_is_drawn_as_it_is():
    drawn: dict[str, str] = {}
    above: dict[int, str] = {}
    for bars, name in re.findall(r"^    ([| ]*[|`]-- )?([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE):
        depth = len(bars) // 4
        above[depth] = name
        drawn[name] = above[depth - 1] if depth else "Exception"
    real = {
        name: kind.__base__.__name__
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__ and kind.__base__ is not None
    }
    assert drawn == real


def test_decisions_are_numbered_without_a_gap_and_have_a_status():
    files = {path.name[:5]: path for path in sorted(DECISIONS.glob("*.md"))}
    assert list(files) == [f"{number:04d}-" for number in range(1, len(list(DECISIONS.glob("*.md"))) + 1)]
    for number, path in files.items():
        lines = path.read_text().splitlines()
        assert lines[0].startswith(f"# {int(number[:4])}. "), path.name
        assert any(line.startswith("Status: ") for line in lines), path.name


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_no_file_of_the_package_is_too_long_to_read(path: Path):
    assert len(path.read_text().splitlines()) <= 600


@pytest.mark.parametrize(
    ("target", "runs"),
    [
        ("demo", ("fl-alliance demo",)),
        ("test", ("ruff check", "ruff format --check", "mypy", "lint-imports", "pytest")),
    ],
)
def test_the_two_commands_do_what_the_readme_says(target: str, runs: tuple[str, ...]):
    plan = subprocess.run(
        ["make", "--dry-run", "--always-make", target], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for command in (" -m venv ", " install ", *runs):
        assert command in plan
    assert f"make {target} " in (ROOT / "README.md").read_text()


def test_ci_runs_the_command_of_the_readme():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().splitlines()[-1] == "make test"


def test_every_dependency_has_an_upper_bound():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*table["build-system"]["requires"], *table["project"]["dependencies"]]
    for extra in table["project"]["optional-dependencies"].values():
        wanted += extra
    assert len(wanted) > 20
    for requirement in wanted:
        assert re.search(r"==|<", requirement) or requirement.startswith("fl-alliance["), requirement


MACHINE = re.compile(r"(?<![\w.~-])/(?:home|Users|root|workspace)/[\w.-]+|\b[A-Z]:\\Users\\")
"""Paths that exist on somebody's machine only."""


@pytest.mark.parametrize("path", ["/home/ann/x.py", "see /Users/ann.", "at /root/key", r"C:\Users\ann"])
def test_the_search_finds_a_path_of_a_machine(path: str):
    assert MACHINE.search(path)
    assert not MACHINE.search(path.replace("/", "~/", 1).replace(":", ""))


def test_no_text_names_a_path_of_a_machine():
    here = [str(place) + "/" for place in (ROOT, Path.home()) if len(place.parts) > 1]
    for path, text in texts().items():
        if path == Path("tests/test_house.py"):
            continue
        assert not (found := MACHINE.search(text)), f"{path}: {found and found.group()}"
        for place in here:
            assert not re.search(r"(?<![\w.])" + re.escape(place), text), f"{path}: {place}"


def test_every_link_of_the_documents_leads_to_something_of_the_project():
    links = 0
    for path, text in texts().items():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" in target or target.startswith("mailto:"):
                continue
            links += 1
            place = (ROOT / path.parent / target).resolve()
            assert place.is_relative_to(ROOT), f"{path}: {target}"
            assert place.exists(), f"{path}: {target}"
    assert links > 5


def documents() -> dict[Path, str]:
    return {path: text for path, text in texts().items() if path.suffix == ".md"}


def named_in(text: str) -> list[tuple[str, str]]:
    """Each `file.py::name`, and each `::name` with the file that was named before it."""
    found, file = [], ""
    for named, name in re.findall(r"`([\w./-]+\.py)?::(\w+)`", text):
        file = named or file
        found.append((file, name))
    return found


def test_a_name_without_a_file_is_of_the_file_before():
    assert named_in("`a/b.py::c`, `::d`; `e.py::f`") == [("a/b.py", "c"), ("a/b.py", "d"), ("e.py", "f")]


def test_every_test_and_function_that_a_document_names_is_there():
    named = 0
    for path, text in documents().items():
        for file, name in named_in(text):
            if (file, name) == ("", "name"):  # how names are written
                continue
            named += 1
            places = [place for place in (ROOT / "tests" / file, PACKAGE / file) if place.is_file()]
            assert len(places) == 1, f"{path}: {file}"
            assert re.search(rf"^\s*(def|class) {name}\b", places[0].read_text(), re.MULTILINE), (
                f"{path}: {file}::{name}"
            )
    assert named > 100


def rows_of(text: str, title: str) -> list[str]:
    """The rows of the table in a section, without its head."""
    section = text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("title", ["Adversaries", "Who colludes with whom", "Pitfalls"])
def test_every_row_of_what_is_protected_against_whom_names_a_test(title: str):
    rows = rows_of((ROOT / "SECURITY.md").read_text(), title)
    assert len(rows) > 15
    for row in rows:
        assert named_in(row.rstrip(" |").rsplit(" | ", 1)[1]), row[:100]


def test_every_file_that_a_document_names_is_there():
    named = 0
    for path, text in documents().items():
        for file in re.findall(r"(?<![\w./-])((?:fl_alliance|tests|docs|bench|deploy)/[\w./-]+\.\w+)\b", text):
            if "NAME" in file:
                continue
            named += 1
            assert (ROOT / file).exists(), f"{path}: {file}"
    assert named > 20
