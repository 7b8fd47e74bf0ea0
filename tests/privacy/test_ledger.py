"""The ledger's rules, pure: chains, caps by name, policies; and golden bytes of an entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import pytest

from fl_alliance.errors import AllianceError, BadRecords, BudgetExceeded, LedgerBroken, LedgerRolledBack, PolicyRefused
from fl_alliance.evidence.sign import open_document, sign_document
from fl_alliance.privacy.accountant import RdpAccountant
from fl_alliance.privacy.events import GaussianEvent, merged
from fl_alliance.privacy.ledger import (
    YEAR_SECONDS,
    Ledger,
    check_charge,
    check_partners,
    check_plan,
    check_plan_terms,
    check_seen_head,
    next_entry,
    verify_chain,
)
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import LedgerEntry, Partner, model_digest
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import Member
from tests.evidence.alliance import key_of, members_of, plan_of, policy_of

KEY = key_of("lagos")
EMPTY = Ledger("lagos", "cases", (), ())
NOW = 1_800_000_000
RDP = RdpAccountant()


def propose(ledger: Ledger = EMPTY, *, job: str = "job-1", now: int = NOW, **changes: Any) -> LedgerEntry:
    entry = next_entry(
        ledger, plan_of(job=job), plan_digest=digest_of(job.encode()), round_number=1,
        dataset_digest=digest_of(b"records"), now=now,
    )  # fmt: skip
    return entry.model_copy(update=changes)


def chain_of(count: int) -> list[bytes]:
    lines: list[bytes] = []
    for _ in range(count):
        lines.append(sign_document(KEY, propose(verified(lines))))
    return lines


def verified(lines: list[bytes]) -> Ledger:
    return verify_chain(
        lines,
        open_entry=lambda line: open_document(line, LedgerEntry, public_key=KEY.public),
        institution="lagos",
        dataset="cases",
    )


def test_golden_bytes_of_an_entry_both_ways() -> None:
    entry = propose()
    golden = (
        b'{"alliance":"clinics","dataset":"cases","dataset_digest":"' + digest_of(b"records").encode() + b'",'
        b'"delta":"0.00001","evaluation":null,"event":{"mechanism":"poisson-gaussian","noise_multiplier":"1.5","sampling_rate":"0.1",'
        b'"steps":4},"institution":"lagos","job":"job-1","kind":"charge",'
        b'"plan_digest":"' + digest_of(b"job-1").encode() + b'",'
        b'"previous":"' + digest_of(b"fl-alliance ledger genesis|lagos|cases").encode() + b'",'
        b'"round":1,"sequence":1,"time":1800000000,"unit":"patient","version":1}'
    )
    assert encode(entry) == golden
    assert decode(LedgerEntry, golden) == entry


def test_an_honest_chain_verifies_and_ends_in_the_last_envelope() -> None:
    lines = chain_of(3)
    ledger = verified(lines)
    assert [entry.sequence for entry in ledger.entries] == [1, 2, 3]
    assert ledger.head == digest_of(lines[-1])
    assert verified([]).head == digest_of(b"fl-alliance ledger genesis|lagos|cases")


CHANGED_CHAINS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "first removed": (lambda lines: lines[1:], "entry 1: sequence is 2"),
    "middle removed": (lambda lines: [lines[0], lines[2]], "entry 2: sequence is 3"),
    "swapped": (lambda lines: [lines[1], lines[0], lines[2]], "entry 1: sequence is 2"),
    "doubled": (lambda lines: [lines[0], lines[0]], "entry 2: sequence is 1"),
    "not an envelope": (lambda lines: [lines[0], b"{}"], "entry 2: payload: Field required"),
    "empty line": (lambda lines: [lines[0], b""], "entry 2: not JSON"),
    "byte changed": (lambda lines: [lines[0].replace(b'"sig":"', b'"sig":"A', 1)], "entry 1: "),
    "another signer": (lambda _: [sign_document(key_of("lima"), propose())], "entry 1: signed with key"),
    "another head": (lambda _: [sign_document(KEY, propose(previous=digest_of(b"x")))], "entry 1: previous is"),
    "another owner": (lambda _: [sign_document(KEY, propose(institution="lima"))], "entry 1: of lima/cases"),
    "another data set": (lambda _: [sign_document(KEY, propose(dataset="other"))], "entry 1: of lagos/other"),
    "earlier": (lambda x: [*x, sign_document(KEY, propose(verified(x), time=NOW - 1))], "entry 4: time 1799999999"),
    "other unit": (lambda x: [*x, sign_document(KEY, propose(verified(x), unit="visit"))], "entry 4: unit 'visit'"),
    "other records": (
        lambda x: [*x, sign_document(KEY, propose(verified(x), dataset_digest=digest_of(b"y")))],
        "entry 4: data set",
    ),
    "other document": (lambda _: [sign_document(KEY, policy_of())], "entry 1: a institution-policy document"),
}


@pytest.mark.parametrize("name", CHANGED_CHAINS)
def test_a_changed_chain_is_refused_by_entry(name: str) -> None:
    change, refusal = CHANGED_CHAINS[name]
    with pytest.raises(LedgerBroken, match="^" + refusal):
        verified(change(chain_of(3)))


def test_a_ledger_older_than_a_head_that_was_seen_is_rolled_back() -> None:
    lines = chain_of(3)
    for seen in (digest_of(b"fl-alliance ledger genesis|lagos|cases"), *map(digest_of, lines)):
        check_seen_head(verified(lines), seen)
    old, newest = verified(lines[:-1]), digest_of(lines[-1])
    with pytest.raises(LedgerRolledBack, match=f"head {newest} .* 2 entries in {old.head}"):
        check_seen_head(old, newest)


def test_a_head_in_the_ledger_of_another_data_set_is_no_rollback() -> None:
    lines = chain_of(1)
    present = Ledger("lagos", "cases-2", (), ())
    check_seen_head(present, digest_of(lines[0]), [verified(lines)])
    with pytest.raises(LedgerRolledBack, match="or a ledger is missing"):
        check_seen_head(present, digest_of(lines[0]))


def test_a_clock_that_went_back_does_not_take_time_back() -> None:
    assert propose(verified(chain_of(1)), now=NOW - 500).time == NOW


@pytest.mark.parametrize(
    ("policy", "caps"),
    [
        ({"epsilon_per_job": "0.5"}, "epsilon_per_job is 0.5: spent 0, would be"),
        ({"epsilon_per_year": "0.5"}, "epsilon_per_year is 0.5: spent 0, would be"),
        ({"epsilon_per_dataset": "0.5"}, "epsilon_per_dataset is 0.5: spent 0, would be"),
    ],
)
def test_a_charge_above_a_cap_is_refused_by_the_cap_s_name(policy: dict[str, str], caps: str) -> None:
    check_charge((), propose(), policy_of(), RDP)
    with pytest.raises(BudgetExceeded, match=caps):
        check_charge((), propose(), policy_of(**policy), RDP)


def test_other_jobs_count_for_year_and_data_set_and_not_for_the_job() -> None:
    entries = verified(chain_of(3)).entries
    one = RDP.epsilon([], policy_delta()) + RDP.epsilon(events(1), policy_delta())
    check_charge(entries, propose(job="job-2"), policy_of(epsilon_per_job=str(one)), RDP)
    with pytest.raises(BudgetExceeded, match=f"epsilon_per_dataset is {one}"):
        check_charge(entries, propose(job="job-2"), policy_of(epsilon_per_dataset=str(one)), RDP)
    with pytest.raises(BudgetExceeded, match=f"epsilon_per_year is {one}"):
        check_charge(entries, propose(job="job-2"), policy_of(epsilon_per_year=str(one)), RDP)


def test_after_365_days_a_charge_leaves_the_year_and_stays_in_the_data_set() -> None:
    entries = verified(chain_of(3)).entries
    one = str(RDP.epsilon(events(1), policy_delta()))
    later = propose(job="job-2", now=NOW + YEAR_SECONDS)
    check_charge(entries, later, policy_of(epsilon_per_year=one), RDP)
    with pytest.raises(BudgetExceeded, match="epsilon_per_year"):
        check_charge(entries, propose(job="job-2", now=NOW + YEAR_SECONDS - 1), policy_of(epsilon_per_year=one), RDP)
    with pytest.raises(BudgetExceeded, match="epsilon_per_dataset"):
        check_charge(entries, later, policy_of(epsilon_per_dataset=one), RDP)


def test_the_whole_plan_must_fit_before_its_first_round() -> None:
    one, two = (str(RDP.epsilon(events(n), policy_delta())) for n in (1, 2))
    check_plan((), propose(), plan_of(), policy_of(epsilon_per_job=two), RDP)
    check_charge((), propose(), policy_of(epsilon_per_job=one), RDP)
    with pytest.raises(BudgetExceeded, match=f"epsilon_per_job is {one}: spent 0, would be {two}"):
        check_plan((), propose(), plan_of(), policy_of(epsilon_per_job=one), RDP)
    capped = plan_of(privacy={"epsilon_cap": one})
    with pytest.raises(BudgetExceeded, match="the plan's epsilon_cap"):
        check_plan((), propose(), capped, policy_of(), RDP)


class Asked:
    """An accountant that notes what it computes."""

    def __init__(self) -> None:
        self.events: set[tuple[GaussianEvent, ...]] = set()

    def epsilon(self, events: Iterable[GaussianEvent], delta: Decimal) -> Decimal:
        self.events.add(merged(events))
        return RDP.epsilon(merged(events), delta)


def test_a_charge_asks_for_no_epsilon_that_the_approval_did_not_ask_for() -> None:
    plan, accountant = plan_of(rounds=3), Asked()
    check_plan((), propose(), plan, policy_of(), accountant)
    approved, lines = set(accountant.events), list[bytes]()
    for left in (3, 2, 1):
        check_charge(verified(lines).entries, propose(verified(lines)), policy_of(), accountant, to_come=left)
        lines.append(sign_document(KEY, propose(verified(lines))))
    assert accountant.events == approved


def test_where_the_rounds_to_come_do_not_fit_the_next_one_alone_decides() -> None:
    one, two = (str(RDP.epsilon(events(n), policy_delta())) for n in (1, 2))
    entries = verified(chain_of(1)).entries
    check_charge(entries, propose(verified(chain_of(1))), policy_of(epsilon_per_dataset=two), RDP, to_come=2)
    with pytest.raises(BudgetExceeded, match=f"epsilon_per_dataset is {one}: spent {one}, would be {two}"):
        check_charge(entries, propose(verified(chain_of(1))), policy_of(epsilon_per_dataset=one), RDP, to_come=2)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], type[AllianceError], str]] = {
    "unit": ({}, {"allowed_units": ("visit",)}, PolicyRefused, "allowed_units visit: 'patient'"),
    "delta": ({}, {"delta_max": "0.000001"}, PolicyRefused, "delta_max 0.000001: delta would be 0.00001"),
    "members": ({}, {"minimum_members": 4}, PolicyRefused, "minimum_members 4: the plan sums as few as 3 members'"),
    "model": ({}, {"allowed_models": (digest_of(b"x"),)}, PolicyRefused, "allowed_models: base model sha256:"),
    "data set": ({}, {"dataset": "other"}, PolicyRefused, "the policy is for lagos/other, not for lagos/cases"),
    "changed file": ({"dataset_digest": digest_of(b"new")}, {}, BadRecords, "data set cases is now sha256:"),
    "job reused": ({"plan_digest": digest_of(b"new")}, {}, PolicyRefused, "job job-1: entry 1 charged plan"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_policy_refuses_by_name(name: str) -> None:
    entry, policy, error, refusal = REFUSED[name]
    entries = verified(chain_of(1)).entries
    with pytest.raises(error, match=refusal):
        check_plan(entries, propose(**entry), plan_of(), policy_of(**policy), RDP)


def test_a_policy_allows_shared_noise_only_where_it_says_so() -> None:
    """With local noise epsilon leans on nobody; with a shared one it leans on the others."""
    sharing = plan_of(privacy={"noise": "distributed", "steps_per_round": 1})
    check_plan_terms(sharing, policy_of(allow_distributed_noise=True))
    with pytest.raises(PolicyRefused, match="allow_distributed_noise is false: the plan's members share one noise"):
        check_plan_terms(sharing, policy_of())


def partner(name: str, key: bytes | None = None) -> Partner:
    return Partner(name=name, key=digest_of(key or key_of(name).public))


def test_partners_by_name_and_key_are_let_in_and_made_up_ones_are_not() -> None:
    """Whoever has the alliance's root could put made-up members around one real one and read its update."""
    check_partners(plan_of(), policy_of(), members_of())
    check_partners(plan_of(), policy_of(partners=(partner("berlin"), partner("lima"))), members_of())
    with pytest.raises(PolicyRefused, match=r"partners: lima with key sha256:[0-9a-f]{64} is not among them"):
        check_partners(plan_of(), policy_of(partners=(partner("berlin"),)), members_of())
    stolen = policy_of(partners=(partner("berlin"), partner("lima", b"another key of that name")))
    with pytest.raises(PolicyRefused, match="partners: lima with key"):
        check_partners(plan_of(), stolen, members_of())


def test_minimum_members_is_compared_with_the_smallest_sum_of_the_plan() -> None:
    """Not with its members: those may vanish in a round, down to the threshold and the plan's own minimum."""
    five = tuple(Member(name=name, declared_units=1000) for name in ("abuja", "kyoto", "lagos", "lima", "oslo"))
    least_three = plan_of(members=five, threshold=3, quorum=3)
    with pytest.raises(PolicyRefused, match="minimum_members 4: the plan sums as few as 3 members'"):
        check_plan((), propose(), least_three, policy_of(minimum_members=4), RDP)
    check_plan((), propose(), least_three, policy_of(minimum_members=3), RDP)
    for changes in ({"threshold": 4}, {"threshold": 3, "minimum_members": 4}):
        check_plan((), propose(), plan_of(members=five, quorum=3, **changes), policy_of(minimum_members=4), RDP)


def test_a_listed_model_is_allowed() -> None:
    check_plan((), propose(), plan_of(), policy_of(allowed_models=(model_digest(plan_of().model),)), RDP)


def test_another_unit_than_the_ledger_counts_is_refused() -> None:
    entries = verified(chain_of(1)).entries
    with pytest.raises(PolicyRefused, match="unit 'visit': the ledger counts 'patient'"):
        check_charge(entries, propose(unit="visit"), policy_of(allowed_units=("patient", "visit")), RDP)


def policy_delta() -> Any:
    from decimal import Decimal

    return Decimal("0.00001")


def events(rounds: int) -> Any:
    from fl_alliance.privacy.events import event_of

    return [event_of(plan_of()).times(rounds)]
