"""The page of a job: who took part, what it cost whom, what was charged and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from fl_alliance.parties.audit_pages import addresses
from fl_alliance.parties.audit_pages.blocks import (
    Bullets,
    Page,
    PageBlock,
    Paragraph,
    Part,
    Table,
    Verdict,
    Verdicts,
    link,
    links,
)
from fl_alliance.parties.audit_pages.evidence import Case, Evidence
from fl_alliance.parties.audit_pages.overview import HOME
from fl_alliance.privacy.reporting.content import mechanism_of, when
from fl_alliance.protocol.documents import LedgerEntry, RoundRecord, model_digest
from fl_alliance.protocol.ids import decimal_text
from fl_alliance.protocol.plan import TrainingPlan


def job_page(case: Case, name: tuple[str, str]) -> Page:
    """Return the page of a job (KeyError: nobody's evidence of it was given)."""
    evidence = case.of_job(name)
    title = f"Job {name[1]} of alliance {name[0]}"
    if not evidence:
        if name not in case.jobs:
            raise KeyError(name)
        why = "its evidence contradicts other evidence: see the overview. Nothing of it is shown as true."
        return Page(
            title=title,
            trail=(HOME,),
            parts=(Part("What does not hold", (Verdicts((Verdict(False, name[1], why),)),)),),
        )
    plan, records = evidence[0].findings.sources.plan, evidence[0].findings.sources.records
    return Page(
        title=title,
        lead=f"{len(records)} of at most {plan.rounds} rounds, {len(plan.names)} members",
        trail=(HOME,),
        parts=(
            Part("What it cost whom", tuple(_costs(case, plan, evidence))),
            Part("Who took part", tuple(_rounds(case, records, evidence))),
            Part("What was refused or left out", tuple(_gaps(case, plan, records, evidence))),
            Part("The plan", (_plan(plan, evidence[0]),)),
        ),
    )


def _costs(case: Case, plan: TrainingPlan, evidence: Sequence[Evidence]) -> Iterator[PageBlock]:
    yield Table(
        f"Epsilon of this job, at delta {plan.privacy.delta}, recomputed by two accountants",
        ("Institution", "epsilon (PLD)", "epsilon (RDP)", "cap of a job", "charges", "approved by", "evidence"),
        tuple(_cost(case, one) for one in evidence),
        numbers=frozenset({1, 2, 3, 4}),
    )
    known = {one.findings.institution for one in evidence}
    if missing := [name for name in plan.names if name not in known]:
        text = "Also members, of whom no evidence was given here: {}. Each has its own ledger and budget."
        yield Paragraph(text.format(", ".join(missing)), "note")
    for number in [number for name, number in case.relayed if name == evidence[0].name]:
        where = link(addresses.of_input(number), f"input {number}")
        yield Paragraph(Markup("The coordinator's own evidence of the job was compared with theirs: {}.").format(where))


def _cost(case: Case, one: Evidence) -> tuple[str, ...]:
    found = one.findings
    house = case.house(found.institution, found.dataset)
    policy = found.sources.policy
    approved = ", ".join(found.sources.approved) or ("—" if policy.approvals_needed else "not asked for")
    return (
        link(addresses.of_house(house), found.institution),
        decimal_text(found.costs.job_pld),
        decimal_text(found.costs.job_rdp),
        policy.epsilon_per_job,
        str(found.charges),
        approved,
        link(addresses.of_input(one.number), f"input {one.number}"),
    )


def _rounds(case: Case, records: Sequence[RoundRecord], evidence: Sequence[Evidence]) -> Iterator[PageBlock]:
    charged = {(one.number, digest): entry for one in evidence for entry, digest in _charges(one)}
    yield Table(
        "Rounds, as the coordinator recorded them and the members signed",
        ("Round", "finished", "updates in the sum", "votes for the adapter", "charged by ledger entry"),
        tuple(
            (
                str(record.round),
                when(record.time),
                ", ".join(upload.member for upload in record.uploads),
                ", ".join(record.votes),
                links(
                    [
                        _entry(case, one, charged[one.number, head.head].sequence)
                        for one in evidence
                        for head in record.ledger_heads
                        if (one.number, head.head) in charged
                    ]
                ),
            )
            for record in records
        ),
    )


def _entry(case: Case, one: Evidence, sequence: int) -> tuple[str, str]:
    house = case.house(one.findings.institution, one.findings.dataset)
    return addresses.of_entry(house, sequence), f"{one.findings.institution} {sequence}"


def _charges(one: Evidence) -> Iterator[tuple[LedgerEntry, str]]:
    """Yield the ledger entries of the job, with their digests."""
    ledger = one.findings.sources.ledger
    for entry, digest in zip(ledger.entries, ledger.digests, strict=True):
        if (entry.alliance, entry.job) == one.name:
            yield entry, digest


def _gaps(
    case: Case, plan: TrainingPlan, records: Sequence[RoundRecord], evidence: Sequence[Evidence]
) -> Iterator[PageBlock]:
    rounds: dict[str, list[str]] = {}
    for record in records:
        uploaded = {upload.member for upload in record.uploads}
        for member in plan.names:
            if member not in uploaded:
                rounds.setdefault(member, []).append(str(record.round))
    items: list[str] = [f"No update of {member} in the sum of: round {', '.join(at)}." for member, at in rounds.items()]
    items += [
        f"Refused by {house.name[0]}, {refusal.error}: {refusal.reason}"
        for house in case.houses
        for refusal in house.refusals
        if (refusal.alliance, refusal.job) == evidence[0].name
    ]
    for one in evidence:
        items += [
            Markup("Charged by {}, and no sum was opened with it: round {}.").format(
                link(*_entry(case, one, entry.sequence)), entry.round
            )
            for entry in _in_vain(one)
        ]
    yield Bullets(tuple(items) or ("Nobody was left out of a round, and no round was charged in vain.",))


def _in_vain(one: Evidence) -> Iterator[LedgerEntry]:
    """Yield the job's charges that no record names: the try failed, and the charge stands."""
    named = {head.head for record in one.findings.sources.records for head in record.ledger_heads}
    for entry, digest in _charges(one):
        if digest not in named:
            yield entry


def _plan(plan: TrainingPlan, one: Evidence) -> Table:
    privacy = plan.privacy
    rows = [
        ("Unit of privacy", f"one {privacy.unit}: all its records count as one"),
        ("Mechanism", mechanism_of(plan, str)),
        ("Sampling rate", privacy.sampling_rate),
        ("Delta", privacy.delta),
        ("The plan's own cap", f"epsilon {privacy.epsilon_cap}"),
        ("Only opened", f"sums of {plan.fewest} or more updates; released after {plan.quorum} equal votes"),
        ("Adapter", f"{plan.adapter.method}, rank {plan.adapter.rank}, on {', '.join(plan.adapter.targets)}"),
        ("Released adapter", one.findings.adapter_digest),
        ("Base model", model_digest(plan.model)),
        ("Plan", one.findings.sources.report.plan_digest),
    ]
    if plan.evaluation is not None:
        rows.append(("Scores", f"of about {plan.evaluation.heldout} held-out units, noised, charged with each round"))
    return Table("Signed by the coordinator before the job", ("", ""), tuple(rows))
