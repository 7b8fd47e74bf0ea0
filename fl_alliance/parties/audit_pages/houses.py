"""The page of a house: one data set of one institution, its caps, its ledger over time. And the what-if."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal

from fl_alliance.parties.audit_pages import addresses, charts
from fl_alliance.parties.audit_pages.blocks import (
    Beside,
    Form,
    Input,
    Page,
    PageBlock,
    Paragraph,
    Part,
    Picture,
    Table,
    Verdict,
    Verdicts,
    link,
    links,
)
from fl_alliance.parties.audit_pages.evidence import Evidence, House
from fl_alliance.parties.audit_pages.overview import HOME, dots_of, refusals_of
from fl_alliance.parties.audit_pages.what_if import Answer, answer, values_of
from fl_alliance.privacy.accountant import RdpAccountant
from fl_alliance.privacy.ledger import spent
from fl_alliance.privacy.plain_words import CAPS, PlanFacts
from fl_alliance.privacy.report import Gauge
from fl_alliance.privacy.reporting.content import figures_of, when
from fl_alliance.protocol.documents import InstitutionPolicy, LedgerEntry
from fl_alliance.protocol.ids import decimal_text

ROWS = 100
"""Of the ledger on one page."""

GAUGES = {"job": "the newest job here", "year": "the 365 days before its report", "dataset": "the data set, for ever"}


def house_page(house: House, *, first: int) -> Page:
    """Return the page of a house, with the ledger's entries from `first` on."""
    institution, dataset = house.name
    return Page(
        title=f"{institution}: data set {dataset}",
        lead=f"{len(house.ledger.entries)} signed ledger entries; unit of privacy: {house.newest.findings.unit}",
        trail=(HOME,),
        parts=(
            Part("Budget", tuple(_budget(house))),
            Part("One more job", (_ask(house, house.newest, None),)),
            Part("Jobs on this data set", (_jobs(house),)),
            Part("Ledger", tuple(_ledger(house, first)), anchor="ledger"),
            Part("Plans that it refused", (_refusals(house),)),
            Part("The institution's policy", (_policy(house.policy),)),
        ),
    )


def _budget(house: House) -> Iterator[PageBlock]:
    facts, policy = house.facts, house.policy
    named = [(GAUGES[gauge.name], gauge) for gauge in facts.gauges]
    table = Table(
        f"Caps in epsilon (PLD), at delta {decimal_text(facts.caps_delta)}, the least of all charges",
        ("Cap on", "cap", "spent", "left"),
        tuple(_gauge(name, gauge) for name, gauge in named),
        numbers=frozenset({1, 2, 3}),
    )
    yield Beside(Picture(charts.gauges(named), "Part of each cap that is spent (black)."), table)
    yield Picture(
        charts.spent_over_time(
            [(moment.time, float(moment.dataset)) for moment in facts.moments],
            [(moment.time, float(moment.year)) for moment in facts.moments],
            dots_of(house),
            dataset_cap=float(policy.epsilon_per_dataset),
            year_cap=float(policy.epsilon_per_year),
        ),
        "Spent over time: all jobs (line) and the 365 days before (dotted), by RDP, an upper bound; dots: after each "
        "job by PLD, which caps are compared with. Nothing is ever taken back.",
    )


def _gauge(name: str, gauge: Gauge) -> tuple[str, ...]:
    return name, decimal_text(gauge.cap), decimal_text(gauge.spent), decimal_text(gauge.left)


def _jobs(house: House) -> Table:
    given = {one.name for one in house.evidence}
    return Table(
        f"Every job that ever charged it, at delta {house.newest.findings.sources.report.delta}",
        ("Job", "first charge", "last charge", "charges", "alone (RDP)", "data set after (RDP)", "(PLD)"),
        tuple(
            (
                link(addresses.of_job(name), " / ".join(name)) if name in given else " / ".join(name),
                *figures_of(job),
            )
            for job in house.facts.jobs
            for name in [(job.alliance, job.job)]
        ),
        numbers=frozenset({3, 4, 5, 6}),
    )


def _ledger(house: House, first: int) -> Iterator[PageBlock]:
    entries = house.ledger.entries
    start = min(max(1, first), len(entries))
    shown = entries[start - 1 : start - 1 + ROWS]
    delta = Decimal(house.newest.findings.sources.report.delta)
    after = [spent(entries[: entry.sequence], RdpAccountant(), delta) for entry in shown]
    yield Table(
        f"Entries {start} to {start - 1 + len(shown)} of {len(entries)}: each is signed, and leads to its proof",
        ("Entry", "charged at", "job", "round", "noise", "rate", "steps", "data set after (RDP)"),
        tuple(_row(house, entry, decimal_text(total)) for entry, total in zip(shown, after, strict=True)),
        numbers=frozenset({0, 3, 4, 5, 6, 7}),
    )
    firsts = range(1, len(entries) + 1, ROWS)
    if len(firsts) > 1:
        pages = [(addresses.of_ledger(house, at), f"from {at}") for at in firsts]
        yield Paragraph(links(pages))


def _row(house: House, entry: LedgerEntry, total: str) -> tuple[str, ...]:
    return (
        link(addresses.of_entry(house, entry.sequence), str(entry.sequence)),
        when(entry.time),
        f"{entry.alliance} / {entry.job}",
        str(entry.round),
        entry.event.noise_multiplier,
        entry.event.sampling_rate,
        str(entry.event.steps),
        total,
    )


def _refusals(house: House) -> PageBlock:
    if not house.besides:
        return Paragraph("They are in an institution's bundle; none of it was given, only its jobs.", "note")
    return refusals_of([(house.name[0], refusal) for refusal in house.refusals])


def _policy(policy: InstitutionPolicy) -> Table:
    named = ", ".join(partner.name for partner in policy.partners) or "any that the alliance's root admits"
    approvers = ", ".join(person.name for person in policy.approvers) or "nobody"
    return Table(
        "What it allows, signed by itself; no coordinator can change it",
        ("", ""),
        (
            ("epsilon of a job", f"at most {policy.epsilon_per_job}"),
            ("epsilon of 365 days", f"at most {policy.epsilon_per_year}"),
            ("epsilon of the data set, for ever", f"at most {policy.epsilon_per_dataset}"),
            ("delta", f"at most {policy.delta_max}"),
            ("units", ", ".join(policy.allowed_units)),
            ("members in a sum", f"at least {policy.minimum_members}"),
            ("partners", named),
            ("persons who must approve a plan", f"{policy.approvals_needed} of {approvers}"),
            ("noise shared by the members", "allowed" if policy.allow_distributed_noise else "not allowed"),
        ),
    )


# ---- one more job


def what_if_page(house: House, asked: Mapping[str, str], *, now: int) -> Page:
    """Return what one more job would cost the house, as `asked`; the form asks again."""
    like = _like(house, asked.get("like", ""))
    found = answer(house, like, asked, now=now)
    institution, dataset = house.name
    blocks = list(_refused(found)) if found.facts is None else list(_answer(found.facts))
    return Page(
        title="One more job",
        lead=f"What it would cost {institution}, data set {dataset}, and what its policy would say",
        trail=(HOME, (f"{institution}: {dataset}", addresses.of_house(house))),
        parts=(
            Part("The answer", blocks),
            Part("Ask otherwise", (_ask(house, like, found), *_limits())),
        ),
        status=200 if found.facts is not None else 400,
    )


def _like(house: House, text: str) -> Evidence:
    named = {"/".join(one.name): one for one in house.evidence}
    return named.get(text, house.newest)


def _ask(house: House, like: Evidence, found: Answer | None) -> Form:
    values = values_of(like.findings.sources.plan) if found is None else found.values
    hints = {
        "sampling_rate": "probability that a unit is in a step's sample",
        "noise_multiplier": "sigma: noise over the clip norm",
        "epsilon_cap": "the plan's own cap for this job",
    }
    labels = {
        "rounds": "Rounds", "steps_per_round": "Steps in a round", "sampling_rate": "Sampling rate",
        "noise_multiplier": "Noise multiplier", "epsilon_cap": "Plan's epsilon cap",
    }  # fmt: skip
    choices = tuple("/".join(one.name) for one in house.evidence)
    job = Input("like", "Everything else as in job", "/".join(like.name), choices=choices)
    inputs = tuple(Input(name, labels[name], values[name], hints.get(name, "")) for name in labels)
    return Form(addresses.of_what_if(house), (job, *inputs), "What would it cost?")


def _refused(found: Answer) -> Iterator[PageBlock]:
    yield Verdicts((Verdict(False, "no such plan can be made", found.wrong, refusal=""),))


def _answer(facts: PlanFacts) -> Iterator[PageBlock]:
    if facts.forbidden:
        yield Verdicts((Verdict(False, "would be refused because", facts.forbidden, refusal=""),))
    else:
        yield Verdicts((Verdict(True, "would be allowed", "Policy and budget of this institution allow it."),))
    yield Table(
        "Caps in epsilon (PLD), if every round is charged",
        ("Cap on", "cap", "spent now", "after it", "left then"),
        tuple((CAPS[cap.name], cap.cap, cap.spent, cap.after, _left(cap.left)) for cap in facts.caps),
        numbers=frozenset({1, 2, 3, 4}),
    )
    yield Table(
        "Epsilon by two accountants",
        ("", "epsilon (PLD)", "epsilon (RDP)", "delta"),
        (
            ("this job alone", facts.epsilon_pld, facts.epsilon_rdp, facts.delta),
            ("all jobs on the data set", facts.dataset_epsilon_pld, facts.dataset_epsilon_rdp, facts.delta),
        ),
        numbers=frozenset({1, 2, 3}),
    )
    yield Paragraph(f"{facts.guarantee[:1].upper()}{facts.guarantee[1:]} {facts.guess}")
    if facts.approvals_needed:
        people = ", ".join(facts.may_approve)
        yield Paragraph(f"Before it begins, {facts.approvals_needed} of these persons must approve it: {people}.")


def _left(left: str) -> str:
    return f"{left} (passes the cap)" if Decimal(left) < 0 else left


def _limits() -> Iterator[PageBlock]:
    yield Paragraph(
        "Computed by the rules and accountants with which the institution itself decides, from its newest policy and "
        "ledger here. It does not know what was charged since, a newer policy, or whether the data file is still the "
        "one of before.",
        "note",
    )
