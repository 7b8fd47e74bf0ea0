"""Plans and policies as people write them: JSON and TOML files, checked field by field."""

from __future__ import annotations

import json
import tomllib

from pydantic import ValidationError

from fl_alliance.errors import BadConfig, BadPlan
from fl_alliance.protocol.documents import InstitutionPolicy
from fl_alliance.protocol.plan import TrainingPlan


def read_plan(data: bytes) -> TrainingPlan:
    """Return the plan in JSON `data`, in any layout.

    Raises:
        BadPlan: not JSON, or a field is wrong; the text names it.
    """
    try:
        return TrainingPlan.model_validate_json(data)
    except ValidationError as error:
        raise BadPlan(_problems(error, "plan")) from error


def read_policy(data: bytes) -> InstitutionPolicy:
    """Return the policy in TOML `data`.

    Raises:
        BadConfig: not TOML, or a field is wrong; the text names it.
    """
    try:
        return InstitutionPolicy.model_validate_json(json.dumps(tomllib.loads(data.decode()), default=str))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"policy: not TOML ({error})") from error
    except ValidationError as error:
        raise BadConfig(_problems(error, "policy")) from error


def _problems(error: ValidationError, whole: str) -> str:
    """Name each field (or the `whole`), its rule and, where it is short, the value that was given."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or whole}: {e['msg']}{_given(e['input'])}" for e in error.errors())


def _given(value: object) -> str:
    return f", got {value!r:.80}" if isinstance(value, str | int | float | bool) else ""
