"""One more job of this size: what it would cost a house, and whether its own policy would let it in.

The answer is the one that the institution's persons see before they approve a real plan (`privacy.plain_words`): the
same accountants, the same rules of the ledger. Nothing is computed here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fl_alliance.errors import AllianceError, BadConfig
from fl_alliance.parties.audit_pages.evidence import ACCOUNTING, Evidence, House
from fl_alliance.parties.planning import number
from fl_alliance.parties.plans import read_plan
from fl_alliance.privacy.plain_words import PlanFacts, facts_of
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.ids import decimal_text, digest_of
from fl_alliance.protocol.plan import TrainingPlan

COUNTS: Final = ("rounds", "steps_per_round")
DECIMALS: Final = ("noise_multiplier", "sampling_rate", "epsilon_cap")
FIELDS: Final = ("rounds", "steps_per_round", "sampling_rate", "noise_multiplier", "epsilon_cap")
"""What may be changed; everything else is as in the job that is asked about again."""


@dataclass(frozen=True)
class Answer:
    """What was asked, and what the house's rules say to it."""

    values: Mapping[str, str]
    """Of every field, as asked."""
    facts: PlanFacts | None
    """None: no such plan can be made."""
    wrong: str = ""
    """Why."""


def values_of(plan: TrainingPlan) -> dict[str, str]:
    """Return what `plan` has in the fields that may be changed."""
    return {"rounds": str(plan.rounds)} | {field: str(getattr(plan.privacy, field)) for field in FIELDS[1:]}


def answer(house: House, like: Evidence, asked: Mapping[str, str], *, now: int) -> Answer:
    """Return what one more job like that of `like`, with the fields that are `asked` otherwise, would cost at `now`."""
    values = values_of(like.findings.sources.plan) | {name: asked[name].strip() for name in FIELDS if name in asked}
    try:
        plan = _changed(like.findings.sources.plan, values, _free_name(house))
        return Answer(values, _facts(house, like, plan, now))
    except AllianceError as error:
        return Answer(values, None, str(error))


def _facts(house: House, like: Evidence, plan: TrainingPlan, now: int) -> PlanFacts:
    policy, members = house.policy, like.members
    with ACCOUNTING:
        return facts_of(plan, digest_of(encode(plan)), house.ledger, policy, members, approved=(), now=now)


def _changed(plan: TrainingPlan, values: Mapping[str, str], job: str) -> TrainingPlan:
    """Return the plan with other values, under another name (BadConfig, BadPlan: names the field that is wrong)."""
    told = plan.model_dump(mode="json")
    told |= {"job": job, "rounds": _count("rounds", values["rounds"])}
    told["privacy"] |= {"steps_per_round": _count("steps_per_round", values["steps_per_round"])}
    told["privacy"] |= {name: _decimal(name, values[name]) for name in DECIMALS}
    return read_plan(json.dumps(told).encode())


def _count(field: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise BadConfig(f"{field}: {text[:40]!r} is not a whole number")
    return int(text)


def _decimal(field: str, text: str) -> str:
    try:
        return decimal_text(number(field, text[:40]))
    except ValueError:
        raise BadConfig(f"{field}: {text[:40]!r} must be at least 0 and below 10^15") from None


def _free_name(house: House) -> str:
    """Return a name that no job of the ledger has: a job's second plan would be refused for that alone."""
    taken = {entry.job for entry in house.ledger.entries}
    return next(name for count in range(len(taken) + 1) if (name := f"what-if-{count}") not in taken)
