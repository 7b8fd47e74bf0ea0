"""The first page: what holds and what does not, every budget over time, every job. And the page of one input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fl_alliance.parties.audit_pages import addresses, charts
from fl_alliance.parties.audit_pages.blocks import (
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
from fl_alliance.parties.audit_pages.evidence import Case, Given, House, refused
from fl_alliance.parties.audit_steps import Step
from fl_alliance.privacy.report import Gauge
from fl_alliance.privacy.reporting.content import day, when
from fl_alliance.protocol.ids import decimal_text
from fl_alliance.protocol.messages import Refusal

HOME = ("Overview", addresses.OVERVIEW)


def overview(case: Case) -> Page:
    """Return the first page."""
    parts = [Part("What was given", tuple(_given(case)))]
    if case.houses:
        parts = [Part("Budgets", tuple(_budgets(case.houses))), Part("Jobs", (_jobs(case),)), *parts]
    if case.besides:
        parts.insert(-1, Part("Refused plans", (refusals_of(refused(case.besides)),)))
    if case.problems:
        parts.insert(0, Part("What does not hold", tuple(_problems(case))))
    institutions = len({house.name[0] for house in case.houses})
    lead = f"{_many(institutions, 'institution')}, {_many(len(case.jobs), 'job')}; verified {when(case.time)}, offline"
    return Page(title="Evidence of the alliance", lead=lead, parts=parts)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _problems(case: Case) -> Iterator[PageBlock]:
    yield Verdicts(
        tuple(
            Verdict(False, f"{place}: step {step.number}, {step.name}", step.text, step.file)
            for place, step in case.problems
        )
    )
    yield Paragraph(
        "Nothing of an input that does not hold is counted or shown below. Where two inputs contradict each other, "
        "neither is shown as true.",
        "note",
    )


def _budgets(houses: Sequence[House]) -> Iterator[PageBlock]:
    lines = [line_of(house) for house in houses]
    yield Picture(
        charts.budgets_over_time(lines),
        "What each data set has spent over time (RDP, an upper bound); the top of a frame is the cap for ever. Dots: "
        "after each job, by PLD, which the cap is compared with.",
    )
    yield Table(
        "Budgets: epsilon (PLD), spent and left",
        ("Institution", "data set", "unit", "cap for ever", "spent", "left", "part spent", "left of 365 days", "jobs"),
        tuple(_budget(house) for house in houses),
        numbers=frozenset({3, 4, 5, 6, 7, 8}),
    )
    yield Paragraph(
        "Left is what the institution's own signed policy still allows at the end of its newest evidence here. What it "
        "charged later stands in no file that was given.",
        "note",
    )


def line_of(house: House) -> charts.Line:
    """Return a house's line in the picture of all budgets."""
    institution, dataset = house.name
    gauge = cap_for_ever(house)
    spent, cap = decimal_text(gauge.spent), decimal_text(gauge.cap)
    return charts.Line(
        label=f"{institution}, {dataset}: {spent} of {cap} spent, {decimal_text(gauge.left)} left",
        points=tuple((moment.time, float(moment.dataset)) for moment in house.facts.moments),
        dots=dots_of(house),
        cap=float(gauge.cap),
    )


def dots_of(house: House) -> tuple[charts.Point, ...]:
    """Return what the data set had spent after each of its last jobs (PLD)."""
    return tuple((job.last, float(job.after_tight)) for job in house.facts.jobs if job.after_tight is not None)


def cap_for_ever(house: House) -> Gauge:
    """Return the gauge of all that the data set may ever give."""
    return next(gauge for gauge in house.facts.gauges if gauge.name == "dataset")


def _budget(house: House) -> tuple[str, ...]:
    gauges = {gauge.name: gauge for gauge in house.facts.gauges}
    institution, dataset = house.name
    for_ever = gauges["dataset"]
    return (
        link(addresses.of_house(house), institution),
        dataset,
        house.newest.findings.unit,
        decimal_text(for_ever.cap),
        decimal_text(for_ever.spent),
        decimal_text(for_ever.left),
        f"{for_ever.percent} %",
        decimal_text(gauges["year"].left),
        str(len(house.facts.jobs)),
    )


def _jobs(case: Case) -> Table:
    return Table(
        "Jobs of which there is evidence",
        ("Job", "ended", "rounds", "members", "evidence of", "largest epsilon (PLD)", "delta"),
        tuple(_job(case, name) for name in case.jobs),
        numbers=frozenset({2, 5, 6}),
    )


def _job(case: Case, name: tuple[str, str]) -> tuple[str, ...]:
    evidence = case.of_job(name)
    if not evidence:
        return (link(addresses.of_job(name), " / ".join(name)), "—", "—", "—", "—", "—", "—")
    first = evidence[0].findings
    return (
        link(addresses.of_job(name), " / ".join(name)),
        day(first.sources.records[-1].time),
        str(first.rounds),
        ", ".join(first.sources.plan.names),
        links([(addresses.of_input(one.number), one.findings.institution) for one in evidence]),
        decimal_text(max(one.findings.costs.job_pld for one in evidence)),
        decimal_text(first.delta),
    )


def refusals_of(found: Sequence[tuple[str, Refusal]]) -> PageBlock:
    """Return plans that were refused, by whom and why."""
    if not found:
        return Paragraph("The institutions whose bundles were given kept none.")
    return Table(
        "Each signed by the institution; the bundle holds the coordinator's signed question",
        ("Institution", "job", "error", "reason"),
        tuple((name, f"{one.alliance} / {one.job}", one.error, one.reason) for name, one in found),
    )


def _given(case: Case) -> Iterator[PageBlock]:
    compared = (
        f"The alliance's root key was compared: {case.root}."
        if case.root is not None
        else "The alliance's root key was NOT COMPARED with anything: whoever made these files may have made it up. "
        "Ask the alliance for its fingerprint by another way, and start these pages with --root."
    )
    yield Paragraph(compared, "plain" if case.root is not None else "lead")
    yield Table(
        "Inputs, each verified in numbered steps",
        ("Input", "result", "steps"),
        tuple(_input(given) for given in case.given),
    )
    if case.together:
        yield _verdicts(case.together)


def _input(given: Given) -> tuple[str, ...]:
    result = "✓ holds" if given.holds else "✗ DOES NOT HOLD"
    held = sum(step.holds for step in given.steps)
    return given.place, result, link(addresses.of_input(given.number), f"{held} of {len(given.steps)} steps hold")


def input_page(given: Given) -> Page:
    """Return what each step of the verifier found in one input."""
    return Page(
        title=f"Input {given.number}: " + ("holds" if given.holds else "does not hold"),
        lead=given.place,
        trail=(HOME,),
        parts=[Part(title, (_verdicts(steps),)) for title, steps in given.groups],
    )


def _verdicts(steps: Sequence[Step]) -> Verdicts:
    return Verdicts(tuple(Verdict(s.holds, f"step {s.number}", s.text, s.file) for s in steps))
