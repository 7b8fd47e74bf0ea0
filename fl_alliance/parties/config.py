"""Configuration files of the parties: TOML, checked field by field, unknown fields refused."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from fl_alliance.errors import BadConfig
from fl_alliance.parties.files import read_file
from fl_alliance.protocol.ids import Name

C = TypeVar("C", bound=BaseModel)
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


CipherProcesses = Annotated[int, Field(ge=0, le=64)]
"""Worker processes for ciphers (`secagg.worker.Performance`): speed and isolation, never a result. 0: none, so that
foreign ciphertexts are parsed in the party's own process."""


Loopback = Annotated[str, Field(pattern=r"^(127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5}$")]
"""Where a party's status page is served (`parties.status`), on this machine alone."""


class LogConfig(BaseModel):
    """How a party's process logs (`parties.logs`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] | None = None
    """None: warning on a console, info in JSON."""


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Database = Annotated[SecretStr, Field(min_length=1)]
"""URL of the party's PostgreSQL database, postgresql+psycopg://USER@HOST/DATABASE, for this party alone; unset: SQLite
in the party's folder. `${NAME}` in it is the environment variable NAME: the whole URL, or a part of it, then in any
characters. Without a password in it, PGPASSWORD or ~/.pgpass gives one. It is never shown."""


BlobStore = Annotated[str, Field(pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/\S*)?|file:///.+)$")]
"""s3://BUCKET/PREFIX, with credentials and endpoint from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL_S3, ...);
or file:///FOLDER."""


class DataConfig(_Config):
    """Where the private records are, and which columns mean what."""

    name: Name
    """The data set's name in the ledger; its file may not change under the same name."""
    path: Path
    ledger: Path = Path("ledger.jsonl")
    """The data set's ledger. The folders of one institution in several alliances name the same one: one budget."""
    unit_column: str
    prompt_column: str | None = None
    answer_column: str | None = None
    messages_column: str | None = None


class Whereabouts(BaseModel):
    """The fields of `institution.toml` that `institution join` fills in: who, in which alliance, and whom to call."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Name
    alliance: Name
    coordinator: Annotated[str, Field(pattern=r"^[^:\s]+:[0-9]{1,5}$")]
    """host:port of the coordinator."""
    join_door: Annotated[str, Field(pattern=r"^[^:\s]+:[0-9]{1,5}$")] | None = None
    """host:port of the coordinator's join door, where keys are renewed; None: the same host, one port above."""


class InstitutionConfig(Whereabouts):
    """`institution.toml` in an institution's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_folder: Path
    data: DataConfig
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processor threads for training, in each process: speed, never privacy."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that train together (`training.workers`): one for each GPU, or on the CPU. Speed, never privacy."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model is trained; auto: a CUDA GPU if there is one. Speed, never privacy."""
    gradient_checkpointing: bool = False
    """Train with less memory and more time (each block runs forward twice); never another result."""
    cipher_processes: CipherProcesses = 1
    database: Database | None = None
    metrics: Loopback | None = None
    """host:port of the status page; none is served by default."""
    log: LogConfig = LogConfig()


class CoordinatorConfig(_Config):
    """`coordinator.toml` in the coordinator's folder."""

    alliance: Name
    cipher_processes: CipherProcesses = 1
    database: Database | None = None
    blobs: BlobStore | None = None
    """Where uploads and adapters are kept; unset: the folder `blobs` in the coordinator's own."""
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)]
    join_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """Where the join door listens; None: one above `port`."""
    metrics: Loopback | None = None
    """host:port of the status page; none is served by default."""
    log: LogConfig = LogConfig()

    @property
    def door_port(self) -> int:
        """TCP port of the join door."""
        return self.port + 1 if self.join_port is None else self.join_port


def load(kind: type[C], path: Path) -> C:
    """Return the configuration in the TOML file `path`; relative paths in it start at the file's folder.

    Raises:
        BadConfig: it can't be read, is no TOML, or a field is wrong; the text names the field.
    """
    try:
        table = tomllib.loads(read_file(path, "configuration").decode())
        if unfilled := sorted(_unfilled({name: table[name] for name in kind.model_fields if name in table})):
            raise BadConfig(f"{path}: still to be filled in: {', '.join(unfilled)}")
        return kind.model_validate(table)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: not TOML ({error})") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors())
        raise BadConfig(f"{path}: {_without_passwords(problems)}") from None


def database_url(config: InstitutionConfig | CoordinatorConfig) -> str | None:
    """Return the URL of the party's database, with the environment's variables in it; None: it has none.

    Raises:
        BadConfig: a variable is not set.
    """
    if config.database is None:
        return None
    url = config.database.get_secret_value()
    if whole := _VARIABLE.fullmatch(url):
        return _from_environment(whole)
    return _VARIABLE.sub(lambda found: quote(_from_environment(found), safe=""), url)


def _from_environment(variable: re.Match[str]) -> str:
    name = variable[1]
    if name not in os.environ:
        raise BadConfig(f"database: the environment variable {name} is not set")
    return os.environ[name]


def _without_passwords(text: str) -> str:
    """Take the passwords of URLs out of a text, also of those in a field with the wrong name."""
    return re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)


def _unfilled(table: Mapping[str, object], above: str = "") -> Iterator[str]:
    """Yield the fields whose text begins with TODO, as `institution join` leaves them."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _unfilled(value, f"{above}{name}.")
        elif isinstance(value, str) and value.startswith("TODO"):
            yield above + name
