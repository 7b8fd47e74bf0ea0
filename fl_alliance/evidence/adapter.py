"""The released adapter's folder: which files are in it, and the one digest that members vote on.

adapter_config.json, adapter_model.safetensors   the adapter itself: the same bytes at every member, voted on
README.md                                        model card of one institution
provenance.dsse.json                             `ModelProvenance`, signed by the institution
model.sig                                        OpenSSF model signature over the four others
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fl_alliance.errors import StoreFailed
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import ModelFile

ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")
CARD: Final = "README.md"
PROVENANCE: Final = "provenance.dsse.json"
SIGNATURE: Final = "model.sig"


def adapter_digest(folder: Path) -> str:
    """Return the digest that members vote on. What lies beside the adapter's own files does not change it.

    Raises:
        StoreFailed: a file of the adapter can't be read.
    """
    try:
        return digest_of_adapter(file_at(folder / name) for name in ADAPTER_FILES)
    except OSError as error:
        raise StoreFailed(f"{folder.name} can't be read: {error.strerror}") from error


def digest_of_adapter(files: Iterable[ModelFile]) -> str:
    """Return one `Digest` for the adapter's files among `files`: of the lines `<digest> <name>`, sorted by name."""
    mine = sorted((file.name, file.digest) for file in files if file.name in ADAPTER_FILES)
    return digest_of("".join(f"{digest} {name}\n" for name, digest in mine).encode())


def file_at(path: Path) -> ModelFile:
    """Return name and digest of the file `path` (OSError: it can't be read)."""
    with path.open("rb") as file:
        return ModelFile(name=path.name, digest=f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")
