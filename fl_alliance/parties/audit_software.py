"""Step 11 of the audit: the bill of materials of a job. Who writes it needs a library for it, who reads it needs none.

It says with what the institution's process ran, and that the files of the base model were those of the plan. That the
process really was this software no paper can show; that the list was not written afterwards the manifest's signature.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fl_alliance.errors import NotAuthentic
from fl_alliance.protocol.codec import plain_json
from fl_alliance.protocol.documents import model_digest
from fl_alliance.protocol.plan import TrainingPlan

SOFTWARE: Final = "software.cdx.json"
US: Final = "fl-alliance"
MODEL: Final = "base-model"
RECORD: Final = "fl-alliance:record"
"""Property of a package: digest of its RECORD."""
SOURCES: Final = "fl-alliance:sources"
"""Property of this software: digest of its source files."""


def check_software(data: bytes, plan: TrainingPlan) -> tuple[str, int]:
    """Return the version of this software that a bill of materials names, and how many packages it lists.

    Raises:
        MalformedMessage: it is no JSON.
        NotAuthentic: it is no CycloneDX document of version 1.6, or its base model is not the plan's.
    """
    bill = _bill(data)
    components = list(_components(bill))
    models = [part for part in components if part.get("name") == MODEL]
    if len(models) != 1 or models[0].get("type") != "machine-learning-model":
        raise NotAuthentic(f"{len(models)} components are the {MODEL}, must be one machine-learning-model")
    if (said := models[0].get("version")) != (right := model_digest(plan.model)):
        raise NotAuthentic(f"the {MODEL} is {str(said)[:100]!r}, the plan's is {right}")
    files = {str(file.get("name")): _sha256(file) for file in _components(models[0])}
    if files != (planned := {file.name: file.digest for file in plan.model}):
        odd = min(name for name in {*files, *planned} if files.get(name, "") != planned.get(name, ""))
        raise NotAuthentic(f"the {MODEL}'s file {odd[:100]!r} is {files.get(odd)}, the plan's is {planned.get(odd)}")
    return _own_version(bill), sum(part.get("type") == "library" for part in components)


def _own_version(bill: Mapping[str, Any]) -> str:
    about = bill.get("metadata")
    us = about.get("component") if isinstance(about, dict) else None
    version = us.get("version") if isinstance(us, dict) and us.get("name") == US else None
    if not isinstance(version, str) or not re.fullmatch(r"[0-9A-Za-z.+-]{1,64}", version):
        raise NotAuthentic(f"metadata.component must be {US} with its version")
    return version


def _bill(data: bytes) -> Mapping[str, Any]:
    bill = plain_json(data)
    if not isinstance(bill, dict) or (bill.get("bomFormat"), bill.get("specVersion")) != ("CycloneDX", "1.6"):
        raise NotAuthentic("must be a CycloneDX document of version 1.6")
    return bill


def _components(above: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    parts = above.get("components", [])
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise NotAuthentic("components must be a list of objects")
    yield from parts


def _sha256(file: Mapping[str, Any]) -> str | None:
    hashes = file.get("hashes")
    if not isinstance(hashes, list) or len(hashes) != 1 or not isinstance(hashes[0], dict):
        return None
    content = hashes[0].get("content")
    return f"sha256:{content}" if hashes[0].get("alg") == "SHA-256" and isinstance(content, str) else None
