"""What a process that trains sets for itself, once, before it loads a model. Not for a library: it is process-wide."""

from __future__ import annotations

import ctypes
import warnings
from typing import Final

from transformers.utils.logging import disable_progress_bar

LARGE_BLOCK: Final = 16 * 2**20
"""Bytes from which a freed block goes back to the system; see docs/dp-step-figures.md for what was measured."""

_M_MMAP_THRESHOLD: Final = -3
"""Of glibc's malloc.h."""


def prepare_process() -> bool:
    """Keep bars and remarks of the libraries out of a party's log, and large freed blocks out of its heap.

    glibc raises its threshold for separate blocks up to 32 MiB as they are freed; activations just below it then stay
    in the heap among small gradients that live longer, and a pass holds memory for holes.

    Returns:
        Whether the allocator took the setting; another one than glibc's is left as it is.
    """
    disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK) == 1
