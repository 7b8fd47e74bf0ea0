"""What the doctor finds about the machine: disk, versions of the libraries, GPU."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final, Literal

from packaging.requirements import Requirement

from fl_alliance.parties.doctor.finding import Finding, State

PACKAGE: Final = "fl-alliance"
DISK_BYTES: Final = 2 << 30
"""Less free space than this is worth a look: uploads of a round, a model's cache, evidence."""
_SHOWN: Final = ("flwr", "tenseal", "torch", "transformers", "peft", "opacus")
_GIB: Final = 2**30


def disk(home: Path) -> Iterator[Finding]:
    """How much is free where the party's folder is."""
    free = shutil.disk_usage(home).free
    state: State = "ok" if free >= DISK_BYTES else "look"
    yield Finding("disk", state, f"{free / _GIB:.1f} GiB free", f"a job may need {DISK_BYTES >> 30} GiB: make room")


def versions(extra: Literal["coordinator", "institution"]) -> Iterator[Finding]:
    """Compare what is installed with what this package itself asks for, for a party with this extra."""
    try:
        asked = requirements(extra)
    except PackageNotFoundError:
        yield Finding("versions", "look", f"{PACKAGE} runs from a folder: nothing says which versions it asks for")
        return
    wrong = [said for requirement in asked if (said := _against(requirement))]
    shown = ", ".join(f"{name} {_version(name) or 'absent'}" for name in (PACKAGE, *_SHOWN))
    if wrong:
        mend = f"pip install '{PACKAGE}[{extra}]' again, in an environment of its own"
        yield Finding("versions", "wrong", "; ".join(wrong), mend)
    else:
        yield Finding("versions", "ok", f"{len(asked)} libraries as asked for: {shown}")


def requirements(extra: str) -> list[Requirement]:
    """Return what the installed package asks for with `extra`, and with the extras that this one names.

    Raises:
        PackageNotFoundError: it is not installed as a package.
    """
    found: dict[str, Requirement] = {}
    for text in requires(PACKAGE) or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name != PACKAGE:
            found[requirement.name] = requirement
            continue
        for inner in requirement.extras:
            found |= {each.name: each for each in requirements(inner)}
    return [found[name] for name in sorted(found)]


def _against(requirement: Requirement) -> str:
    """Say what is wrong with the installed version; nothing if it is as asked for."""
    installed = _version(requirement.name)
    if installed is None:
        return f"{requirement.name} is absent"
    if requirement.specifier.contains(installed, prereleases=True):
        return ""
    return f"{requirement.name} is {installed}, must be {requirement.specifier}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def gpu(device: str, model_bytes: int) -> Iterator[Finding]:
    """Compare the GPUs that torch sees with the configured `device` and with what a model of this size takes."""
    from fl_alliance.training.devices import gpus

    found = gpus()
    if not found:
        asked = device == "cuda"
        said = f'torch sees none; device is "{device}"' + ("" if asked else ": training is on the CPU")
        mend = 'install the driver and a torch with CUDA, or set device = "auto" in institution.toml'
        yield Finding("gpu", "wrong" if asked else "ok", said, mend)
        return
    said = "; ".join(f"{each.name}, {each.free / _GIB:.1f} of {each.total / _GIB:.1f} GiB free" for each in found)
    if device == "cpu":
        yield Finding("gpu", "look", f'device is "cpu", though there is {said}', 'device = "auto" uses it')
        return
    need = 3 * model_bytes
    state: State = "ok" if min(each.free for each in found) >= need else "look"
    yield Finding("gpu", state, said, f"the model takes about {need / _GIB:.1f} GiB: see what else uses the GPU")
