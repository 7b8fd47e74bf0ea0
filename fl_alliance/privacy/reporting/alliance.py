"""What an alliance's numbers mean, in words: one document on several institutions' evidence of several jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from fl_alliance.privacy.reporting import alliance_figures, figures
from fl_alliance.privacy.reporting.alliance_facts import AllianceFacts, DataSet, SharedJob
from fl_alliance.privacy.reporting.closing import assumptions, coverage
from fl_alliance.privacy.reporting.content import day, gaps_of, no_pictures, refused_plans, shortened, when
from fl_alliance.privacy.reporting.document import Block, Bullets, Document, Paragraph, Section, Table
from fl_alliance.privacy.reporting.words import Words, words_of
from fl_alliance.protocol.ids import decimal_text

MOST_PARTS: Final = 200
"""Rows of a table with a row for each institution and job."""


def alliance_document_of(facts: AllianceFacts, *, root: str, language: str, pictures: figures.Kind | None) -> Document:
    """Return the report on an alliance in `language`; `root` is the fingerprint of the alliance's root key.

    `pictures`: as the printer takes them; None, or matplotlib is not installed: without.

    Raises:
        BadConfig: there is no such language.
    """
    _ = words_of(language)
    kind, plans = pictures if figures.can_draw() else None, [job.plan for job in facts.jobs]
    subject = _("Alliance {alliance}: evidence of {institutions} institutions, {jobs} jobs")
    return Document(
        language=language,
        title=_("Privacy report of an alliance"),
        subject=subject.format(
            alliance=facts.alliance, institutions=len(facts.institutions), jobs=len(facts.jobs)
        ),
        time=facts.time,
        when=when(facts.time),
        source=_("Made from {count} signed reports, which the last section names").format(count=len(facts.given)),
        page=_("Page {number} of {count}"),
        sections=(
            _in_short(facts, _),
            _who(facts, kind, _),
            _jobs(facts, _),
            _costs(facts, _),
            _budgets(facts, kind, _),
            _refused(facts, _),
            assumptions(plans, _),
            *coverage(plans, _),
            _how_to_check(facts, root, kind, _),
        ),
    )  # fmt: skip


def _in_short(facts: AllianceFacts, _: Words) -> Section:
    most = max((part.report for part in facts.given), key=lambda report: float(report.dataset_epsilon_pld))
    lead = _(
        "{reports} signed reports of {institutions} institutions on {jobs} jobs were verified, each by itself and all "
        "against one another. The largest epsilon of a data set, in all jobs that it was ever used for, is {epsilon} "
        "at delta {delta} ({institution}, {dataset})."
    ).format(
        reports=len(facts.given),
        institutions=len(facts.institutions),
        jobs=len(facts.jobs),
        epsilon=most.dataset_epsilon_pld,
        delta=most.delta,
        institution=most.institution,
        dataset=most.dataset,
    )
    nearest = max(facts.datasets, key=lambda dataset: dataset.total.percent)
    left = _("Nearest to its cap is {title}: {percent} per cent are spent, epsilon {left} is left.").format(
        title=nearest.title, percent=nearest.total.percent, left=decimal_text(nearest.total.left)
    )
    return Section(
        _("In short"),
        (
            Paragraph(lead, "lead"),
            Paragraph(left),
            Paragraph(_everywhere(facts, _)),
            Paragraph(_("Numbers stand as they are signed, with a decimal point."), "note"),
        ),
    )


def _everywhere(facts: AllianceFacts, _: Words) -> str:
    if facts.everywhere is None:
        return _(
            "Each guarantee is for one institution's data. For a person who is in the data of several of them there is "
            "no number here: in a job of these the members share one noise, and it is accounted for one of them."
        )
    epsilon, delta = facts.everywhere
    return _(
        "Each guarantee is for one institution's data. Somebody who is in all {count} data sets, once in each, gives "
        "in the jobs of this report at most epsilon {epsilon} at delta {delta}, all charges counted together (PLD)."
    ).format(count=len(facts.datasets), epsilon=decimal_text(epsilon), delta=decimal_text(delta))


def _who(facts: AllianceFacts, kind: figures.Kind | None, _: Words) -> Section:
    names = sorted({name for job in facts.jobs for name in job.plan.names})
    rows = tuple(
        (name, str(len(asked)), str(sum(job.rounds_of(name) for job in asked)), _given(name, asked, _))
        for name in names
        if (asked := [job for job in facts.jobs if name in job.plan.names])
    )
    head = (_("Institution"), _("jobs"), _("rounds in the sum"), _("evidence here"))
    table = Table(_("Members of the jobs"), head, rows, frozenset({1, 2}), widths=(30, 12, 20, 38))
    pictures: Iterable[Block] = (no_pictures(_),)
    if kind is not None:
        pictures = alliance_figures.part_figures(facts.jobs, names, kind, _)
    return Section(_("Who took part"), (table, *pictures))


def _given(name: str, asked: Sequence[SharedJob], _: Words) -> str:
    silent = [job.plan.job for job in asked if name in job.silent]
    if not silent:
        return _("of every job")
    return _("none") if len(silent) == len(asked) else _("not of {jobs}").format(jobs=", ".join(silent))


def _jobs(facts: AllianceFacts, _: Words) -> Section:
    head = (_("Job"), _("rounds"), _("first"), _("last"), _("members"), _("noise"), _("rate"), _("steps"), _("sum of"))
    rows = tuple(
        (
            job.plan.job,
            f"{len(job.records)} / {job.plan.rounds}",
            day(job.records[0].time),
            day(job.records[-1].time),
            str(len(job.plan.names)),
            job.plan.privacy.noise_multiplier,
            job.plan.privacy.sampling_rate,
            str(job.plan.privacy.steps_per_round),
            _("{fewest} or more").format(fewest=job.plan.fewest),
        )
        for job in facts.jobs
    )
    shown, left_out = shortened(rows, _, MOST_PARTS)
    note = _(
        "In each step every unit takes part with probability “rate”; Gaussian noise of “noise” times the clip norm is "
        "added. Only the sum of so many members' updates is ever opened."
    )
    table = Table(
        _("Jobs, by the time of their last round"), head, shown, frozenset(range(1, 9)),
        widths=(16, 9, 13, 13, 13, 8, 8, 8, 12),
    )  # fmt: skip
    return Section(_("Jobs"), (table, *left_out, Paragraph(note, "note")))


def _costs(facts: AllianceFacts, _: Words) -> Section:
    head = (
        _("Job"), _("Institution"), _("unit"), _("rounds"), _("charges"), _("epsilon (PLD)"), _("epsilon (RDP)"),
        "delta",
    )  # fmt: skip
    rows = tuple(
        (
            job.plan.job,
            part.report.institution,
            part.report.unit,
            str(job.rounds_of(part.report.institution)),
            str(sum((entry.alliance, entry.job) == (facts.alliance, job.plan.job) for entry in part.ledger.entries)),
            part.report.epsilon_pld,
            part.report.epsilon_rdp,
            part.report.delta,
        )
        for job in facts.jobs
        for part in job.parts
    )
    shown, left_out = shortened(rows, _, MOST_PARTS)
    note = _(
        "What the job cost one unit of the institution's data, by two accountants, as the institution signed it and as "
        "it was computed again from its ledger. More charges than rounds: a round was charged and then failed."
    )
    table = Table(
        _("Epsilon of each institution in each job"), head, shown, frozenset(range(3, 8)),
        widths=(17, 17, 12, 9, 10, 13, 13, 11),
    )  # fmt: skip
    return Section(_("What it cost"), (table, *left_out, Paragraph(note, "note")))


def _budgets(facts: AllianceFacts, kind: figures.Kind | None, _: Words) -> Section:
    head = (
        _("Data set"), "delta", _("spent for ever"), _("cap"), _("left"), _("part spent"), _("spent in 365 days"),
        _("cap"),
    )  # fmt: skip
    table = Table(
        _("Budget of each data set, in epsilon (PLD)"), head, tuple(_budget(dataset) for dataset in facts.datasets),
        frozenset(range(1, 8)), widths=(24, 11, 12, 8, 12, 10, 13, 8),
    )  # fmt: skip
    note = _(
        "By the longest ledger of the data set among the evidence, at the least delta of its charges; jobs of other "
        "alliances count too. Each institution sets its own caps, and no coordinator can change them."
    )
    pictures: tuple[Block, ...] = (no_pictures(_),)
    if kind is not None:
        pictures = (
            *alliance_figures.caps_figures(facts.datasets, kind, _),
            alliance_figures.together_figure(facts.datasets, kind, _),
        )
    return Section(_("Budgets: spent and left"), (table, Paragraph(note, "note"), *pictures))


def _budget(dataset: DataSet) -> tuple[str, ...]:
    year, total = dataset.year, dataset.total
    numbers = (total.spent, total.cap, total.left)
    return (
        dataset.title,
        decimal_text(dataset.delta),
        *map(decimal_text, numbers),
        f"{total.percent} %",
        decimal_text(year.spent),
        decimal_text(year.cap),
    )


def _refused(facts: AllianceFacts, _: Words) -> Section:
    known = [part.refused for part in facts.given if part.refused is not None]
    plans = sorted({plan for refused in known for plan in refused}, key=lambda plan: (plan.job, plan.institution))
    return Section(
        _("What was refused"), (*refused_plans(plans if known else None, _), Bullets(tuple(_gaps(facts, _))))
    )


def _gaps(facts: AllianceFacts, _: Words) -> Iterable[str]:
    found = [f"{job.plan.job}: {gap}" for job in facts.jobs for gap in _gaps_of(job, _)]
    yield from found[:MOST_PARTS]
    if len(found) > MOST_PARTS:
        yield _("And {count} more, which the evidence folder holds.").format(count=len(found) - MOST_PARTS)
    if not found:
        yield _("Nobody was left out of a round, and no round was charged in vain.")
    yield _("A job that never ended left no evidence of this kind, and is not counted here.")


def _gaps_of(job: SharedJob, _: Words) -> Iterable[str]:
    yield from gaps_of(job.plan, job.records, (), _)
    for part in job.parts:
        mine = [e for e in part.ledger.entries if (e.alliance, e.job) == (job.plan.alliance, job.plan.job)]
        for gap in gaps_of(job.plan, (), [e for e in mine if e.round not in {r.round for r in part.records}], _):
            yield f"{part.report.institution}: {gap}"


def _how_to_check(facts: AllianceFacts, root: str, kind: figures.Kind | None, _: Words) -> Section:
    text = _(
        "The first command verifies all evidence, bundles or folders, and that the coordinator showed one history to "
        "all of these institutions; the second one prints this report anew and compares it with this file."
    )
    rows = (
        (_("Evidence"), "fl-alliance audit verify EVIDENCE ... --root FINGERPRINT"),
        (_("This file"), "fl-alliance audit printed FILE --evidence EVIDENCE ... --root FINGERPRINT"),
        (_("Root key"), root),
        (_("Printed by"), figures.printed_by(kind)),
    )
    reports = tuple(
        (f"{part.report.job} / {part.report.institution}", part.report_digest) for part in facts.given
    )  # fmt: skip
    return Section(
        _("How to check it"),
        (
            Paragraph(text),
            Table(_("Commands and key"), ("", ""), rows, code=frozenset({1}), widths=(16, 84)),
            Table(
                _("Signed reports"),
                (_("Job and institution"), _("digest")),
                reports,
                code=frozenset({1}),
                widths=(28, 72),
            ),
        ),
    )
