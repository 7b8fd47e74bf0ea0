"""What the numbers mean, in words: the document that the page and the PDF print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from fl_alliance.privacy.plain_words import chance_to_guess
from fl_alliance.privacy.report import Gauge, statement_of
from fl_alliance.privacy.reporting import figures
from fl_alliance.privacy.reporting.appendix import appendix
from fl_alliance.privacy.reporting.closing import assumptions, coverage, empirical, how_to_check
from fl_alliance.privacy.reporting.document import Block, Bullets, Document, Paragraph, Section, Table
from fl_alliance.privacy.reporting.facts import Facts, JobFacts, RefusedPlan, Sources, facts_of
from fl_alliance.privacy.reporting.words import Words, words_of
from fl_alliance.privacy.trade_off import gaussian_beta
from fl_alliance.protocol.documents import LedgerEntry, RoundRecord, model_digest
from fl_alliance.protocol.ids import decimal_text
from fl_alliance.protocol.plan import TrainingPlan

Rows = tuple[tuple[str, ...], ...]

MOST_ROWS = 40
"""Of a table with a row for each round; of longer ones the middle is left out, and the report says so."""

ALPHAS = ("0.01", "0.05", "0.1", "0.25", "0.5")


def document_of(sources: Sources, *, language: str, pictures: figures.Kind | None) -> Document:
    """Return the report on `sources` in `language`.

    `pictures`: as the printer takes them; None, or matplotlib is not installed: without.

    Raises:
        BadConfig: there is no such language.
        BadPlan: an accountant finds no finite epsilon.
    """
    _, facts = words_of(language), facts_of(sources)
    kind = pictures if figures.can_draw() else None
    report = sources.report
    subject = _("{institution}, data set {dataset}, job {job} of alliance {alliance}")
    return Document(
        language=language,
        title=_("Privacy report"),
        subject=subject.format(
            institution=report.institution, dataset=report.dataset, job=report.job, alliance=report.alliance
        ),
        time=report.time,
        when=when(report.time),
        source=_("Made from the signed report {digest}").format(digest=sources.report_digest),
        page=_("Page {number} of {count}"),
        sections=(
            _in_short(facts, _),
            _released(facts, _),
            _guarantee(facts, _),
            _cost(facts, kind, _),
            _budget(facts, kind, _),
            _jobs(facts, _),
            _charges(facts, _),
            _who(facts, _),
            _refused(facts, _),
            empirical(facts, _),
            assumptions([sources.plan], _),
            *coverage([sources.plan], _),
            how_to_check(facts, kind, _),
            *appendix(facts, _),
        ),
    )


def when(time: int) -> str:
    """Return `time` (Unix seconds) for people of any language."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def day(time: int) -> str:
    """Return the day of `time` (Unix seconds) in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")


def _in_short(facts: Facts, _: Words) -> Section:
    plan, costs = facts.sources.plan, facts.costs
    percent = 100 * chance_to_guess(costs.job_pld, Decimal(plan.privacy.delta))
    guess = _(
        "Who knows everything else and guesses with even odds whether one {unit} was in it is right in at most "
        "{percent} of 100 cases (50 without the job)."
    ).format(unit=plan.privacy.unit, percent=decimal_text(percent))
    dataset = facts.gauges[-1]
    left = _("Of the {cap} that this institution allows for the data set, {spent} are spent and {left} are left.")
    return Section(
        _("In short"),
        (
            Paragraph(statement_of(plan, facts.sources.ledger, costs, _), "lead"),
            Paragraph(guess),
            Paragraph(
                left.format(
                    cap=decimal_text(dataset.cap), spent=decimal_text(dataset.spent), left=decimal_text(dataset.left)
                )
            ),
            Paragraph(_("Numbers stand as they are signed, with a decimal point."), "note"),
        ),
    )


def _released(facts: Facts, _: Words) -> Section:
    plan = facts.sources.plan
    to = _("all members and the coordinator") if plan.release_to_coordinator else _("all members")
    adapter = _("An adapter ({method}, rank {rank}) of a language model, trained on {targets}; given to {to}.")
    sealed = _(
        "One sealed update a round, in at most {rounds} rounds. Only the sum of {fewest} or more members' updates is "
        "ever opened."
    )
    rows = [
        (_("Product"), adapter.format(
            method=plan.adapter.method, rank=plan.adapter.rank, targets=", ".join(plan.adapter.targets), to=to
        )),
        (_("What leaves the house"), sealed.format(rounds=plan.rounds, fewest=plan.fewest)),
        (_("Base model"), model_digest(plan.model)),
    ]  # fmt: skip
    if plan.evaluation is not None:
        scores = _(
            "About {heldout} of the units are never trained on. Each round their scores (at most {cap} each) are "
            "summed with Gaussian noise of {noise} times that bound; only the mean over the members is ever opened. "
            "Charged as if the same units were in training and evaluation."
        )
        rows.append((_("Scores"), scores.format(
            heldout=plan.evaluation.heldout, cap=plan.evaluation.score_cap, noise=plan.evaluation.noise_multiplier
        )))  # fmt: skip
    return Section(_("What was released"), (_named(_("What the job released"), rows),))


def _guarantee(facts: Facts, _: Words) -> Section:
    plan, report = facts.sources.plan, facts.sources.report
    unit = _("One {unit}: all records of one {unit} count as one (at most {records} of them in a step).")
    relation = _("Add or remove one {unit} ({relation})")
    sampling = _("Poisson: in each step every {unit} takes part with probability {rate}, independently.")
    rows = (
        (_("Unit of privacy"), unit.format(unit=report.unit, records=plan.privacy.records_per_unit)),
        (_("Relation"), relation.format(unit=report.unit, relation=report.relation)),
        (_("Sampling"), sampling.format(unit=report.unit, rate=plan.privacy.sampling_rate)),
        (_("Mechanism"), mechanism_of(plan, _)),
        (_("Definition"), _("(epsilon, delta)-differential privacy, by two accountants; and Gaussian DP up to delta.")),
    )
    return Section(_("The guarantee"), (_named(_("Terms of the guarantee"), rows),))


def mechanism_of(plan: TrainingPlan, _: Words) -> str:
    """Return what was done with the gradients, in a sentence or two."""
    text = _(
        "DP-SGD: the sum of clipped gradients (norm at most {clip}) with Gaussian noise of {noise} times that norm; "
        "steps in a round: {steps}."
    ).format(clip=plan.privacy.clip_norm, noise=plan.privacy.noise_multiplier, steps=plan.privacy.steps_per_round)
    if plan.privacy.noise == "distributed":
        text += " " + _("The noise is the sum of the members' parts.")
    return text


def _cost(facts: Facts, kind: figures.Kind | None, _: Words) -> Section:
    costs, delta = facts.costs, facts.sources.report.delta
    rows = (
        (_("This job"), decimal_text(costs.job_pld), decimal_text(costs.job_rdp), delta),
        (_("All jobs on this data set"), decimal_text(costs.dataset_pld), decimal_text(costs.dataset_rdp), delta),
    )
    head = ("", _("epsilon (PLD)"), _("epsilon (RDP)"), "delta")
    blocks: list[Block] = [
        Table(_("Epsilon and delta by two accountants"), head, rows, frozenset({1, 2, 3}), widths=(40, 20, 20, 20)),
        Paragraph(_(
            "Two accountants computed the cost independently. PLD (privacy loss distributions) is the tight one that "
            "the caps are compared with; RDP (Rényi divergences) is a looser check and normally a little higher. Both "
            "are upper bounds, rounded up."
        ), "note"),
    ]  # fmt: skip
    return Section(_("What it cost"), (*blocks, *_errors(facts, kind, _)))


def _errors(facts: Facts, kind: figures.Kind | None, _: Words) -> Iterable[Block]:
    curve = facts.trade_off
    if curve is None:
        yield Paragraph(_("Epsilon is so large that the tight accountant was not asked: there is no curve and no mu."))
        return
    yield Paragraph(_(
        "Gaussian DP: mu = {mu}. Whoever tests whether one unit was in has, up to delta, errors at least as large as "
        "somebody who must tell two normal distributions apart that are {mu} standard deviations from each other."
    ).format(mu=decimal_text(curve.mu)))  # fmt: skip
    gaussian = [
        Decimal(max(0.0, gaussian_beta(float(curve.mu), float(alpha)))).quantize(Decimal("0.0001")) for alpha in ALPHAS
    ]
    yield Table(
        _("Least errors of any test whether one unit was in this job"),
        (_("type I error"), _("type II error at least"), _("by mu alone"), _("a guess without the job's release")),
        tuple(
            (alpha, f"{curve.beta(float(alpha)):f}", f"{by_mu:f}", f"{1 - Decimal(alpha):f}")
            for alpha, by_mu in zip(ALPHAS, gaussian, strict=True)
        ),
        frozenset(range(4)),
    )
    yield no_pictures(_) if kind is None else figures.trade_off_figure(curve, kind, _)


def no_pictures(_: Words) -> Paragraph:
    """Return what stands where a picture would be."""
    return Paragraph(_("The picture is left out: matplotlib was not installed where this report was written."), "note")


def _gauge_names(gauges: Sequence[Gauge], _: Words) -> list[str]:
    names = {"job": _("This job"), "year": _("Last 365 days"), "dataset": _("Data set, all jobs for ever")}
    return [names[gauge.name] for gauge in gauges]


def _budget(facts: Facts, kind: figures.Kind | None, _: Words) -> Section:
    policy, gauges = facts.sources.policy, facts.gauges
    names = _gauge_names(gauges, _)
    rows = tuple(
        (name, decimal_text(gauge.cap), decimal_text(gauge.spent), decimal_text(gauge.left), f"{gauge.percent} %")
        for name, gauge in zip(names, gauges, strict=True)
    )
    head = (_("Cap on"), _("cap"), _("spent"), _("left"), _("part spent"))
    note = _(
        "In epsilon (PLD) at delta {delta}, the least of all charges. The caps are set by the institution's own signed "
        "policy, which no coordinator can change. Its largest delta is {delta_max}; it joins no sum of fewer than "
        "{minimum} members."
    ).format(delta=decimal_text(facts.caps_delta), delta_max=policy.delta_max, minimum=policy.minimum_members)
    pictures: tuple[Block, ...] = (no_pictures(_),)
    if kind is not None:
        pictures = (
            figures.budget_figure(gauges, names, kind, _),
            figures.time_figure(
                facts.moments,
                facts.jobs,
                dataset_cap=float(policy.epsilon_per_dataset),
                year_cap=float(policy.epsilon_per_year),
                kind=kind,
                _=_,
            ),
        )
    table = Table(_("Budget spent and left"), head, rows, frozenset({1, 2, 3, 4}), widths=(36, 16, 16, 16, 16))
    return Section(_("Budget: spent and left"), (table, Paragraph(note, "note"), *pictures))


def figures_of(job: JobFacts) -> tuple[str, ...]:
    """Return what stands behind a job in a table of jobs: days, charges, epsilon alone and after it."""
    return (
        day(job.first),
        day(job.last),
        str(job.charges),
        decimal_text(job.alone),
        decimal_text(job.after),
        "—" if job.after_tight is None else decimal_text(job.after_tight),
    )


def _jobs(facts: Facts, _: Words) -> Section:
    head = (_("Job"), _("charged from"), _("to"), _("charges"), _("alone (RDP)"), _("data set after (RDP)"), _("(PLD)"))
    rows: Rows = tuple((f"{job.alliance} / {job.job}", *figures_of(job)) for job in facts.jobs)
    rows, left_out = shortened(rows, _)
    table = Table(
        _("Every job that ever touched the data set, at delta {delta}").format(delta=facts.sources.report.delta),
        head, rows, frozenset(range(3, 7)), widths=(26, 14, 14, 10, 12, 12, 12),
    )  # fmt: skip
    return Section(_("Jobs on this data set"), (table, *left_out))


def _charges(facts: Facts, _: Words) -> Section:
    head = (_("Round"), _("entry"), _("charged at"), _("noise"), _("rate"), _("steps"), _("epsilon so far (RDP)"))
    rows, left_out = shortened(
        tuple(
            (
                str(entry.round),
                str(entry.sequence),
                when(entry.time),
                entry.event.noise_multiplier,
                entry.event.sampling_rate,
                str(entry.event.steps),
                decimal_text(so_far),
            )
            for entry, so_far in facts.charges
        ),
        _,
    )
    note = _(
        "A charge is written before any record is read and is never taken back; a round that failed after its charge "
        "still counts."
    )
    table = Table(
        _("Charges of this job in the ledger"), head, rows, frozenset({0, 1, 3, 4, 5, 6}),
        widths=(9, 9, 30, 11, 11, 10, 20),
    )  # fmt: skip
    return Section(_("Charges of this job"), (table, *left_out, Paragraph(note, "note")))


def _who(facts: Facts, _: Words) -> Section:
    sources = facts.sources
    members = _("Members of the job: {names}. Each round needed {fewest} of them at least, and {quorum} votes.")
    blocks: list[Block] = [
        Paragraph(
            members.format(names=", ".join(sources.plan.names), fewest=sources.plan.fewest, quorum=sources.plan.quorum)
        )
    ]
    if sources.policy.approvals_needed:
        approvals = _("Persons of the institution who approved the plan: {names} (needed: {needed}).")
        said = approvals.format(names=", ".join(sources.approved) or "—", needed=sources.policy.approvals_needed)
    else:
        said = _("The institution's policy asks for no approval by persons.")
    blocks.append(Paragraph(said))
    rows, left_out = shortened(
        tuple(
            (
                str(record.round),
                when(record.time),
                ", ".join(upload.member for upload in record.uploads),
                ", ".join(record.votes),
            )
            for record in sources.records
        ),
        _,
    )
    head = (_("Round"), _("finished"), _("updates in the sum"), _("votes for the adapter"))
    if rows:
        table = Table(_("Who took part in each round"), head, rows, frozenset({0}), widths=(9, 27, 32, 32))
        blocks += [table, *left_out]
    else:
        blocks.append(Paragraph(_("The coordinator's records of the rounds were not at hand."), "note"))
    return Section(_("Who took part"), tuple(blocks))


def gaps_of(plan: TrainingPlan, records: Iterable[RoundRecord], vain: Iterable[LedgerEntry], _: Words) -> Iterable[str]:
    """Yield who is not in the sum of which round, and which charges (`vain`) are of a round without a sum."""
    for record in records:
        if missing := sorted(set(plan.names) - {upload.member for upload in record.uploads}):
            yield _("Round {round}: no update of {names} in the sum.").format(
                round=record.round, names=", ".join(missing)
            )
    for entry in vain:
        yield _("Round {round}: charged (entry {entry}), and no sum was opened.").format(
            round=entry.round, entry=entry.sequence
        )


def _refused(facts: Facts, _: Words) -> Section:
    sources = facts.sources
    done = {record.round for record in sources.records}
    vain = [entry for entry, _so_far in facts.charges if sources.records and entry.round not in done]
    items = [*gaps_of(sources.plan, sources.records, vain, _)]
    shown, left_out = items[:MOST_ROWS], len(items) - MOST_ROWS
    if left_out > 0:
        shown.append(_("And {count} more, which the evidence folder holds.").format(count=left_out))
    if not shown:
        shown = [_("Nobody was left out of a round, and no round was charged in vain.")]
    return Section(
        _("What was refused"),
        (
            Paragraph(_(
                "The institution refuses a plan before it opens a record: for a unit, delta, base model, partner or "
                "number of members that its policy does not allow, for approvals that are missing, and where any cap "
                "would be passed. What it refused left no charge and is in no sum."
            )),
            *refused_plans(sources.refused, _),
            Paragraph(_("Of the rounds of this job the records show:")),
            Bullets(tuple(shown)),
        ),
    )  # fmt: skip


def refused_plans(refused: Sequence[RefusedPlan] | None, _: Words) -> tuple[Block, ...]:
    """Return what is to be said of the plans that were refused."""
    if refused is None:
        note = _("Which plans it refused, an evidence bundle says; this report was made from a folder without them.")
        return (Paragraph(note, "note"),)
    if not refused:
        return (Paragraph(_("The bundle of evidence holds no plan that was refused.")),)
    head = (_("Job"), _("Institution"), _("kind"), _("reason"))
    rows, left_out = shortened(tuple((one.job, one.institution, one.error, one.reason) for one in refused), _)
    return (Table(_("Plans that were refused, with signed answers"), head, rows, widths=(18, 18, 20, 44)), *left_out)


def _named(caption: str, rows: Iterable[tuple[str, str]]) -> Table:
    return Table(caption, ("", ""), tuple(rows), widths=(26, 74))


def shortened(rows: Rows, _: Words, most: int = MOST_ROWS) -> tuple[Rows, tuple[Paragraph, ...]]:
    """Return the first and last rows of a table longer than `most`, and what to say of the others."""
    if len(rows) <= most:
        return rows, ()
    half = most // 2
    text = _("{count} rows in the middle are left out here; the evidence folder holds them.")
    gap = ("…",) * len(rows[0])
    return (*rows[:half], gap, *rows[-half:]), (Paragraph(text.format(count=len(rows) - 2 * half), "note"),)
