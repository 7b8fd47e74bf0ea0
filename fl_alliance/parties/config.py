"""Configuration files of the parties: TOML, checked field by field, unknown fields refused."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fl_alliance.errors import BadConfig
from fl_alliance.parties.files import read_file
from fl_alliance.protocol.ids import Name

C = TypeVar("C", bound=BaseModel)


CipherProcesses = Annotated[int, Field(ge=0, le=64)]
"""Worker processes for ciphers (`secagg.worker.Performance`): speed and isolation, never a result. 0: none, so that
foreign ciphertexts are parsed in the party's own process."""


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Config):
    """Where the private records are, and which columns mean what."""

    name: Name
    """The data set's name in the ledger; its file may not change under the same name."""
    path: Path
    unit_column: str
    prompt_column: str | None = None
    answer_column: str | None = None
    messages_column: str | None = None


class InstitutionConfig(_Config):
    """`institution.toml` in an institution's folder."""

    name: Name
    alliance: Name
    coordinator: Annotated[str, Field(pattern=r"^[^:\s]+:[0-9]{1,5}$")]
    """host:port of the coordinator."""
    model_folder: Path
    data: DataConfig
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processor threads for training: speed, never privacy."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model is trained; auto: a CUDA GPU if there is one. Speed, never privacy."""
    gradient_checkpointing: bool = False
    """Train with less memory and more time (each block runs forward twice); never another result."""
    cipher_processes: CipherProcesses = 1


class CoordinatorConfig(_Config):
    """`coordinator.toml` in the coordinator's folder."""

    alliance: Name
    cipher_processes: CipherProcesses = 1
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)]


def load(kind: type[C], path: Path) -> C:
    """Return the configuration in the TOML file `path`; relative paths in it start at the file's folder.

    Raises:
        BadConfig: it can't be read, is no TOML, or a field is wrong; the text names the field.
    """
    try:
        table = tomllib.loads(read_file(path, "configuration").decode())
        return kind.model_validate(table)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: not TOML ({error})") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors())
        raise BadConfig(f"{path}: {problems}") from error
