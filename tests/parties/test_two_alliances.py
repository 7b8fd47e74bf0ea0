"""One institution in two alliances: one identity, one ledger, one budget."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from fl_alliance.errors import BadConfig, BudgetExceeded
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties import join, wiring
from fl_alliance.parties.accounts import Accounts
from fl_alliance.parties.config import InstitutionConfig, load
from fl_alliance.parties.files import write_atomically
from fl_alliance.parties.setup import Keys
from fl_alliance.privacy.accountant import RdpAccountant
from fl_alliance.privacy.events import event_of
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import TrainingPlan
from tests.evidence.alliance import members_of, plan_of, policy_of
from tests.parties.joining import Office

NAME = "lagos"


def join_both(folder: Path) -> tuple[Path, Path]:
    """Join two alliances whose coordinators do not know each other; return both folders of the institution."""
    homes = folder / "north" / NAME, folder / "south" / NAME
    for number, home in enumerate(homes):
        office = Office(home.parent)
        with office.open():
            code = office.invite(NAME)
            like = homes[0] if number else None
            assert not join.join(home, code, like=like, wait=False)
            office.admit(NAME, home)
            assert join.join(home, code, like=like, wait=False)
        settings = home / "institution.toml"
        settings.write_text(settings.read_text().replace("TODO", "cases"))
    return homes


def accounts(home: Path) -> Accounts:
    identity = IdentityKey.load(Keys(home).identity)
    config = load(InstitutionConfig, home / "institution.toml")
    return Accounts(
        identity=identity,
        policy=home / "policy.dsse.json",
        approvals=home / "approvals",
        ledger=wiring.ledger_file(home, config, identity),
        dataset_digest=lambda: digest_of(b"the same file"),
        accountant=RdpAccountant(),
    )


def cost(plan: TrainingPlan, jobs: int) -> Decimal:
    return RdpAccountant().epsilon((event_of(plan),) * plan.rounds * jobs, Decimal(plan.privacy.delta))


def test_what_one_alliance_spent_counts_in_the_other_and_a_job_over_the_cap_is_refused_there(tmp_path: Path) -> None:
    north, south = join_both(tmp_path)
    plans = [plan_of(alliance=alliance) for alliance in ("north", "south")]
    cap = (cost(plans[0], 1) + cost(plans[0], 2)) / 2  # one job fits, two do not
    for home in (north, south):
        key = IdentityKey.load(Keys(home).identity)
        policy = policy_of(epsilon_per_dataset=str(round(cap, 3)), epsilon_per_year="100")
        write_atomically(home / "policy.dsse.json", sign_document(key, policy))
    people = members_of()
    accounts(south).approve(plans[1], digest_of(b"south"), people)  # before the other job it fits
    first = accounts(north)
    first.approve(plans[0], digest_of(b"north"), people)
    for number in (1, 2):
        first.charge(plans[0], digest_of(b"north"), number)
    with pytest.raises(BudgetExceeded):
        accounts(south).approve(plans[1], digest_of(b"south"), people)
    assert not (south / "ledger.jsonl").exists()


def test_only_the_identity_is_shared_and_only_under_its_name(tmp_path: Path) -> None:
    north, south = join_both(tmp_path)
    assert Keys(north).identity.read_bytes() == Keys(south).identity.read_bytes()
    for key in ("tls_key", "node_key"):
        assert getattr(Keys(north), key).read_bytes() != getattr(Keys(south), key).read_bytes()
    office = Office(tmp_path / "east")
    with office.open(), pytest.raises(BadConfig, match="ask the admin for a code for lagos"):
        join.join(tmp_path / "east" / "lima", office.invite("lima"), like=north, wait=False)
    assert not Keys(tmp_path / "east" / "lima").identity.exists()
