"""What a job ran with, as a CycloneDX bill of materials: Python, every package of the process, the base model's files.

Written by the process that trained, into the evidence, before the manifest is signed. A package is named with version
and the digest of its RECORD, in which an installer lists the package's files with theirs; this software is named with
the digest of its own source files, as they lie on the disk.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from fl_alliance import __version__
from fl_alliance.parties.audit_software import MODEL, RECORD, SOURCES, US
from fl_alliance.protocol.documents import model_digest
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import TrainingPlan


@dataclass(frozen=True)
class Package:
    """One installed package."""

    name: str
    version: str
    record: str | None
    """Digest of its RECORD; None: it has none."""


def bill_of_materials(plan: TrainingPlan, *, moment: int) -> bytes:
    """Return the bill of this process, which runs the job of `plan`, as JSON; `moment` in Unix seconds is its time."""
    return bill_of(plan, moment, python=platform.python_version(), sources=_sources_digest(), packages=_packages())


@functools.lru_cache(maxsize=4)
def bill_of(plan: TrainingPlan, moment: int, *, python: str, sources: str, packages: tuple[Package, ...]) -> bytes:
    """Return the bill of a process that has this Python, these `sources` of ours by digest, and these packages.

    Made once for all institutions of a simulation, which are one process.
    """
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"fl-alliance:{plan.alliance}/{plan.job}/{moment}"))
    bom.metadata.timestamp = datetime.fromtimestamp(moment, UTC)
    bom.metadata.component = us = Component(
        name=US,
        version=__version__,
        type=ComponentType.APPLICATION,
        bom_ref=US,
        properties=[Property(name=SOURCES, value=sources)],
    )
    runtime = Component(name="python", version=python, type=ComponentType.PLATFORM, bom_ref="python")
    parts = (runtime, *map(_library, packages), _model(plan))
    bom.components.update(parts)
    bom.register_dependency(us, parts)
    return JsonV1Dot6(bom).output_as_string(indent=1).encode()


def _library(package: Package) -> Component:
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"pypi/{package.name}",
        purl=PackageURL("pypi", None, package.name, package.version),
        properties=[] if package.record is None else [Property(name=RECORD, value=package.record)],
    )


@functools.cache
def _packages() -> tuple[Package, ...]:
    """Return every package that this process could import, by name."""
    found = {_normal(package.metadata["Name"]): package for package in metadata.distributions()}
    return tuple(_package(name, package) for name, package in sorted(found.items()))


def _package(name: str, package: metadata.Distribution) -> Package:
    record = package.read_text("RECORD")
    return Package(name, package.version, None if record is None else digest_of(record.encode()))


def _model(plan: TrainingPlan) -> Component:
    files = [
        Component(
            name=file.name,
            type=ComponentType.FILE,
            bom_ref=f"{MODEL}/{file.name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.digest.removeprefix("sha256:"))],
        )
        for file in plan.model
    ]
    kind = ComponentType.MACHINE_LEARNING_MODEL
    return Component(name=MODEL, version=model_digest(plan.model), type=kind, bom_ref=MODEL, components=files)


@functools.cache
def _sources_digest() -> str:
    """Return the digest of the lines `<digest> <name>` of this package's source files, sorted by name."""
    root = Path(__file__).parents[1]
    lines = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        lines.update(f"{digest_of(path.read_bytes())} {path.relative_to(root).as_posix()}\n".encode())
    return f"sha256:{lines.hexdigest()}"


def _normal(name: str) -> str:
    """Return a package's name as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()
