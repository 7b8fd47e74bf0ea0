"""The rules of the ledger: what a valid chain of charges is, what it has spent, and what may still be charged.

Pure: bytes and documents in, an answer or an exception out. Files and locks are in `store.ledger_file`.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from fl_alliance.errors import (
    AllianceError,
    ApprovalsMissing,
    BadRecords,
    BudgetExceeded,
    LedgerBroken,
    LedgerRolledBack,
    PolicyRefused,
)
from fl_alliance.privacy.accountant import Accountant
from fl_alliance.privacy.events import GaussianEvent, evaluation_event_of, event_of, from_wire, to_wire
from fl_alliance.protocol.documents import (
    AllianceMembers,
    InstitutionPolicy,
    LedgerEntry,
    PlanApproval,
    SampledGaussian,
    ledger_genesis,
    model_digest,
)
from fl_alliance.protocol.ids import decimal_text, digest_of
from fl_alliance.protocol.plan import TrainingPlan

YEAR_SECONDS = 365 * 86_400


@dataclass(frozen=True)
class Ledger:
    """A verified chain of charges for one data set of one institution."""

    institution: str
    dataset: str
    entries: tuple[LedgerEntry, ...]
    digests: tuple[str, ...]
    """Digest of each entry's envelope bytes, in order."""

    @property
    def head(self) -> str:
        """Digest of the last entry's envelope bytes, or the genesis."""
        return self.digests[-1] if self.digests else ledger_genesis(self.institution, self.dataset)


def verify_chain(
    lines: Sequence[bytes], *, open_entry: Callable[[bytes], LedgerEntry], institution: str, dataset: str
) -> Ledger:
    """Return the ledger that `lines` (envelope bytes, oldest first) hold.

    `open_entry` checks the signature of one envelope and returns its entry.

    Raises:
        LedgerBroken: names the entry that is not authentic, out of sequence, not chained to the one before, of another
            institution or data set, of changed records or another unit, or older than the one before.
    """
    entries: list[LedgerEntry] = []
    digests: list[str] = []
    previous = ledger_genesis(institution, dataset)
    for number, line in enumerate(lines, start=1):
        try:
            entry = open_entry(line)
        except AllianceError as error:
            raise LedgerBroken(f"entry {number}: {error}") from None
        _check_link(number, entry, previous, (institution, dataset), entries[-1].time if entries else 0)
        previous = digest_of(line)
        entries.append(entry)
        _check_same_data(number, entry, entries[0])
        digests.append(previous)
    return Ledger(institution, dataset, tuple(entries), tuple(digests))


def _check_link(number: int, entry: LedgerEntry, previous: str, owner: tuple[str, str], not_before: int) -> None:
    if entry.sequence != number:
        raise LedgerBroken(f"entry {number}: sequence is {entry.sequence}")
    if entry.previous != previous:
        raise LedgerBroken(f"entry {number}: previous is {entry.previous}, must be {previous}")
    if (entry.institution, entry.dataset) != owner:
        raise LedgerBroken(f"entry {number}: of {entry.institution}/{entry.dataset}, must be {owner[0]}/{owner[1]}")
    if entry.time < not_before:
        raise LedgerBroken(f"entry {number}: time {entry.time} is before the previous entry's {not_before}")
    for event in _wire_events(entry):
        if not (0 < Decimal(event.sampling_rate) <= 1 and Decimal(event.noise_multiplier) > 0):
            raise LedgerBroken(f"entry {number}: event {event} is out of range")
    if not 0 < Decimal(entry.delta) < 1:
        raise LedgerBroken(f"entry {number}: delta {entry.delta} is out of range")


def _check_same_data(number: int, entry: LedgerEntry, first: LedgerEntry) -> None:
    if entry.dataset_digest != first.dataset_digest:
        raise LedgerBroken(f"entry {number}: data set {entry.dataset_digest}, entry 1 charged {first.dataset_digest}")
    if entry.unit != first.unit:
        raise LedgerBroken(f"entry {number}: unit {entry.unit!r}, entry 1 counts {first.unit!r}")


def check_seen_head(ledger: Ledger, seen: str, others: Iterable[Ledger] = ()) -> None:
    """Return if `seen`, a head that was given out, is part of `ledger`, or of another data set's among `others`.

    An older head than the last one is fine: entries came after it.

    Raises:
        LedgerRolledBack: it is in none: an older copy of the ledger was put back. Names both heads.
    """
    for known in (ledger, *others):
        if seen in (ledger_genesis(known.institution, known.dataset), *known.digests):
            return
    raise LedgerRolledBack(
        f"head {seen} was given out by {ledger.institution} and is in no ledger here; the ledger of {ledger.dataset} "
        f"ends after {len(ledger.entries)} entries in {ledger.head}: an older copy was put back, or a ledger is missing"
    )


def events_of(entries: Iterable[LedgerEntry]) -> tuple[GaussianEvent, ...]:
    """Return what `entries` charge."""
    return tuple(from_wire(event) for entry in entries for event in _wire_events(entry))


def _wire_events(entry: LedgerEntry) -> tuple[SampledGaussian, ...]:
    return (entry.event,) if entry.evaluation is None else (entry.event, entry.evaluation)


def of_job(entries: Iterable[LedgerEntry], alliance: str, job: str) -> tuple[LedgerEntry, ...]:
    """Return the entries of one job."""
    return tuple(entry for entry in entries if (entry.alliance, entry.job) == (alliance, job))


def spent(entries: Iterable[LedgerEntry], accountant: Accountant, delta: Decimal) -> Decimal:
    """Return epsilon at `delta` of everything that `entries` charge, composed."""
    return accountant.epsilon(events_of(entries), delta)


def next_entry(
    ledger: Ledger, plan: TrainingPlan, *, plan_digest: str, round_number: int, dataset_digest: str, now: int
) -> LedgerEntry:
    """Return the charge for one round of `plan`, unsigned. A clock that went back does not take time back."""
    return LedgerEntry(
        sequence=len(ledger.entries) + 1,
        previous=ledger.head,
        institution=ledger.institution,
        dataset=ledger.dataset,
        dataset_digest=dataset_digest,
        alliance=plan.alliance,
        job=plan.job,
        round=round_number,
        plan_digest=plan_digest,
        unit=plan.privacy.unit,
        event=to_wire(event_of(plan)),
        evaluation=None if (scoring := evaluation_event_of(plan)) is None else to_wire(scoring),
        delta=plan.privacy.delta,
        time=max(now, ledger.entries[-1].time if ledger.entries else 0),
    )


def unopened_entry(ledger: Ledger, plan: TrainingPlan, *, plan_digest: str, now: int) -> LedgerEntry:
    """Return the charge of each round of `plan` before the data file is opened: its digest is the one of before."""
    known = ledger.entries[-1].dataset_digest if ledger.entries else digest_of(b"not opened yet")
    return next_entry(ledger, plan, plan_digest=plan_digest, round_number=1, dataset_digest=known, now=now)


def charges_to_come(
    entries: Iterable[LedgerEntry], proposed: LedgerEntry, plan: TrainingPlan
) -> tuple[LedgerEntry, ...]:
    """Return `proposed` once for each round of `plan` that is not in `entries` yet."""
    charged = {entry.round for entry in of_job(entries, plan.alliance, plan.job)}
    return (proposed,) * (plan.rounds - len(charged & set(range(1, plan.rounds + 1))))


@dataclass(frozen=True)
class Load:
    """What one cap bears now, and with a job's charges on top: composed, at the least delta of all."""

    name: str
    cap: Decimal
    before: tuple[LedgerEntry, ...]
    added: tuple[LedgerEntry, ...]
    delta: Decimal

    def already(self, accountant: Accountant) -> Decimal:
        """Return epsilon of what was charged."""
        return spent(self.before, accountant, self.delta)

    def would_be(self, accountant: Accountant) -> Decimal:
        """Return epsilon of that and of what is to come."""
        return spent((*self.before, *self.added), accountant, self.delta)


def loads_of(
    entries: Sequence[LedgerEntry],
    added: Sequence[LedgerEntry],
    policy: InstitutionPolicy,
    plan_cap: Decimal | None = None,
) -> tuple[Load, ...]:
    """Return every cap that `added`, of one charge at least, must keep within: the plan's own, then the policy's."""
    delta = min(Decimal(entry.delta) for entry in (*entries, added[0]))
    job = of_job(entries, added[0].alliance, added[0].job)
    year = year_before(entries, added[0].time)
    caps = [
        ("epsilon_per_job", Decimal(policy.epsilon_per_job), job),
        ("epsilon_per_year", Decimal(policy.epsilon_per_year), year),
        ("epsilon_per_dataset", Decimal(policy.epsilon_per_dataset), tuple(entries)),
    ]
    if plan_cap is not None:
        caps.insert(0, ("the plan's epsilon_cap", plan_cap, job))
    return tuple(Load(name, cap, before, tuple(added), delta) for name, cap, before in caps)


def check_charge(
    entries: Sequence[LedgerEntry],
    proposed: LedgerEntry,
    policy: InstitutionPolicy,
    accountant: Accountant,
    *,
    to_come: int = 1,
) -> None:
    """Return if `proposed` may be charged after `entries`.

    Caps are compared at the least delta of all entries, which can only make epsilon larger.

    `to_come` rounds like this one, itself included, are left of the job: if they fit together, each of them does, since
    fewer events cost no more. Their epsilon is the one that the plan was approved with, which the accountant remembers;
    the epsilon of each round in between it would have to compute anew. Where they don't fit, this one alone decides.

    Raises:
        PolicyRefused: unit or delta that the policy does not allow, a unit other than the ledger's, a reused job name.
        BadRecords: the data set's file is not the one that was charged before under this name.
        BudgetExceeded: the cap of the job, the data set or the year; names the cap, what is spent, what it would be.
    """
    _check_terms(policy, proposed.institution, proposed.dataset, proposed.unit, proposed.delta)
    _check_continuity(entries, proposed)
    if to_come > 1:
        with contextlib.suppress(BudgetExceeded):
            _check_caps(entries, (proposed,) * to_come, policy, accountant)
            return
    _check_caps(entries, (proposed,), policy, accountant)


def check_plan(
    entries: Sequence[LedgerEntry],
    proposed: LedgerEntry,
    plan: TrainingPlan,
    policy: InstitutionPolicy,
    accountant: Accountant,
) -> None:
    """Return if the whole of `plan` may be charged: `proposed` (see `next_entry`) once for each round still to come.

    Raises:
        PolicyRefused: also for too few members or a base model that the policy does not list.
        BadRecords, BudgetExceeded: as `check_charge`; also where the plan's own `epsilon_cap` would be passed.
    """
    check_plan_terms(plan, policy)
    _check_terms(policy, proposed.institution, proposed.dataset, proposed.unit, proposed.delta)
    _check_continuity(entries, proposed)
    to_come = charges_to_come(entries, proposed, plan)
    _check_caps(entries, to_come, policy, accountant, plan_cap=Decimal(plan.privacy.epsilon_cap))


def check_plan_terms(plan: TrainingPlan, policy: InstitutionPolicy) -> None:
    """Return if `policy` allows members, model, unit and delta of `plan`; what it costs is not looked at.

    Raises:
        PolicyRefused: names the rule of the policy.
    """
    if plan.fewest < policy.minimum_members:
        raise PolicyRefused(
            f"minimum_members {policy.minimum_members}: the plan sums as few as {plan.fewest} members' updates"
        )
    if policy.allowed_models and model_digest(plan.model) not in policy.allowed_models:
        raise PolicyRefused(f"allowed_models: base model {model_digest(plan.model)} is not among them")
    if plan.privacy.noise == "distributed" and not policy.allow_distributed_noise:
        raise PolicyRefused("allow_distributed_noise is false: the plan's members share one noise")
    _check_terms(policy, policy.institution, policy.dataset, plan.privacy.unit, plan.privacy.delta)


def check_partners(plan: TrainingPlan, policy: InstitutionPolicy, members: AllianceMembers) -> None:
    """Return if every other member of `plan` is a partner that `policy` names, with that key; or if it names none.

    Args:
        plan: of the job.
        policy: of the institution.
        members: signed by the alliance's root; says whose key is whose.

    Raises:
        PolicyRefused: names the member and its key.
    """
    if not policy.partners:
        return
    known = {partner.name: partner.key for partner in policy.partners}
    for name in plan.names:
        key = digest_of(base64.b64decode(members.member(name).identity))
        if name != policy.institution and known.get(name) != key:
            raise PolicyRefused(f"partners: {name} with key {key} is not among them")


def approved_by(
    plan_digest: str, policy: InstitutionPolicy, approvals: Iterable[tuple[str, PlanApproval]]
) -> frozenset[str]:
    """Return which of the policy's approvers have approved the plan; others' approvals don't count, nor a second one.

    Args:
        plan_digest: of the plan's envelope.
        policy: of the institution.
        approvals: each with the digest of the key that its signature was verified with.
    """
    known = {(approver.name, approver.key) for approver in policy.approvers}
    right = (policy.institution, plan_digest)
    return frozenset(
        approval.person
        for key, approval in approvals
        if (approval.person, key) in known and (approval.institution, approval.plan_digest) == right
    )


def check_approvals(plan_digest: str, policy: InstitutionPolicy, approved: Collection[str]) -> None:
    """Return if those who have `approved` the plan are as many as `policy` asks for.

    Raises:
        ApprovalsMissing: they are fewer; names who is missing.
    """
    if len(approved) < policy.approvals_needed:
        missing = sorted({approver.name for approver in policy.approvers} - set(approved))
        raise ApprovalsMissing(
            f"approvals_needed {policy.approvals_needed}: plan {plan_digest} has {len(approved)}, not yet of "
            f"{', '.join(missing)}"
        )


def year_before(entries: Iterable[LedgerEntry], now: int) -> tuple[LedgerEntry, ...]:
    """Return the entries of the 365 days that end at `now`."""
    return tuple(entry for entry in entries if entry.time > now - YEAR_SECONDS)


def _check_terms(policy: InstitutionPolicy, institution: str, dataset: str, unit: str, delta: str) -> None:
    if (institution, dataset) != (policy.institution, policy.dataset):
        raise PolicyRefused(f"the policy is for {policy.institution}/{policy.dataset}, not for {institution}/{dataset}")
    if unit not in policy.allowed_units:
        raise PolicyRefused(f"allowed_units {', '.join(policy.allowed_units)}: {unit!r} is not among them")
    if Decimal(delta) > Decimal(policy.delta_max):
        raise PolicyRefused(f"delta_max {policy.delta_max}: delta would be {delta}")


def _check_continuity(entries: Sequence[LedgerEntry], proposed: LedgerEntry) -> None:
    for entry in entries:
        if entry.dataset_digest != proposed.dataset_digest:
            raise BadRecords(
                f"data set {proposed.dataset} is now {proposed.dataset_digest}, entry {entry.sequence} charged "
                f"{entry.dataset_digest}: changed records need a data set name and a ledger of their own"
            )
        if entry.unit != proposed.unit:
            raise PolicyRefused(f"unit {proposed.unit!r}: the ledger counts {entry.unit!r} (entry {entry.sequence})")
    for entry in of_job(entries, proposed.alliance, proposed.job):
        if entry.plan_digest != proposed.plan_digest:
            raise PolicyRefused(
                f"job {proposed.job}: entry {entry.sequence} charged plan {entry.plan_digest}, "
                f"now {proposed.plan_digest}"
            )


def _check_caps(
    entries: Sequence[LedgerEntry],
    added: Sequence[LedgerEntry],
    policy: InstitutionPolicy,
    accountant: Accountant,
    plan_cap: Decimal | None = None,
) -> None:
    for load in loads_of(entries, added, policy, plan_cap) if added else ():
        would_be = load.would_be(accountant)
        if would_be > load.cap:
            already = load.already(accountant)
            raise BudgetExceeded(
                f"{load.name} is {decimal_text(load.cap)}: spent {decimal_text(already)}, would be "
                f"{decimal_text(would_be)} (delta {decimal_text(load.delta)})"
            )
