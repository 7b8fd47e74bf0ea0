"""The GPUs of this machine, as torch sees them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fl_alliance.errors import BadConfig


@dataclass(frozen=True)
class Gpu:
    """One CUDA device; memory in bytes."""

    name: str
    free: int
    total: int


def gpus() -> tuple[Gpu, ...]:
    """Return every GPU that torch can use, none where there is no driver.

    Raises:
        BadConfig: torch sees one and can't use it.
    """
    if not torch.cuda.is_available():
        return ()
    numbers = range(torch.cuda.device_count())
    try:
        return tuple(Gpu(torch.cuda.get_device_name(n), *torch.cuda.mem_get_info(n)) for n in numbers)
    except (RuntimeError, AssertionError) as error:  # a driver that is too old, a torch without CUDA
        raise BadConfig(f"torch sees {len(numbers)} and can't use them: {type(error).__name__}: {error}") from None
