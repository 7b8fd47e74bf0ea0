"""The end of a report: what was found by trying, what the guarantee rests on and does not cover, how to check it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

from fl_alliance.privacy.report import shared_noise
from fl_alliance.privacy.reporting.document import Bullets, Paragraph, Section, Table
from fl_alliance.privacy.reporting.facts import Facts
from fl_alliance.privacy.reporting.figures import Kind, printed_by
from fl_alliance.privacy.reporting.words import Words
from fl_alliance.protocol.ids import decimal_text
from fl_alliance.protocol.plan import TrainingPlan


def empirical(facts: Facts, _: Words) -> Section:
    """Return what a run with canaries showed, or that there was none."""
    title, found = _("Empirical lower bound"), facts.sources.empirical
    if found is None:
        none = _(
            "No result of an audit with canaries was given for this report. The numbers above are proved upper bounds "
            "and do not need one; such an audit looks for mistakes in the program."
        )
        return Section(title, (Paragraph(none),))
    verdict = (
        _("It refutes the claimed epsilon: something in the program is wrong.")
        if found.refuted
        else _("It does not refute the claimed epsilon.")
    )
    text = _(
        "Made-up units (canaries: {canaries}), each in or out by a fair coin, were trained on with this plan. Of "
        "{made} guesses who was in, {right} were right. So epsilon is at least {bound} ({percent} per cent confidence, "
        "delta {delta}); the accountant says at most {claimed}."
    ).format(
        canaries=found.canaries,
        made=found.made,
        right=found.right,
        bound=found.bound,
        percent=decimal_text(Decimal(found.confidence) * 100),
        delta=found.delta,
        claimed=found.claimed,
    )
    limits = _(
        "This audit can show at most {ceiling}. A lower bound can refute a claim; it proves none: another attacker, or "
        "more canaries, may find more. Nobody signs the guesses; both bounds were computed again from them."
    )
    return Section(
        title, (Paragraph(text), Paragraph(verdict), Paragraph(limits.format(ceiling=found.ceiling), "note"))
    )


def assumptions(plans: Sequence[TrainingPlan], _: Words) -> Section:
    """Return what must be true in the world for the guarantees of all `plans` to hold."""
    items = (
        _("The institution's program did what it charged: it sampled by chance, clipped, and added this noise."),
        _("The noise came from the operating system's random generator, and nobody else knows it."),
        _(
            "Every record names the {unit} that it is about. What one {unit}'s record says of another is protected "
            "only as the first one's."
        ).format(unit=_units(plans)),
        _("The number of units in the formulas is one that the institution declared; the true one is not used."),
        _("Every use of the data set whose result leaves the house is in this ledger."),
        *_by_plan(plans, lambda plan: _trusted(plan, _)),
    )
    return Section(_("Assumptions"), (Bullets(items),))


def _trusted(plan: TrainingPlan, _: Words) -> str:
    if plan.privacy.noise == "distributed":
        return shared_noise(plan, _)
    return _(
        "Nothing is assumed of the coordinator, of the other members or of the encryption: each institution adds all "
        "of its noise before it encrypts."
    )


def coverage(plans: Sequence[TrainingPlan], _: Words) -> tuple[Section, Section]:
    """Return what the guarantees of `plans` cover, and what they do not."""
    covered = (
        _(
            "Anyone who holds the adapter, every message of the job, or both, whatever else they know about the other "
            "people in the data."
        ),
        *_by_plan(plans, lambda plan: _others(plan, _)),
        _("All records of one {unit} together, over all rounds and all jobs that this ledger names.").format(
            unit=_units(plans)
        ),
    )
    return (
        Section(_("What this covers"), (Bullets(covered),)),
        Section(_("What this does not cover"), (Bullets(_not_covered(_units(plans), _)),)),
    )


def _others(plan: TrainingPlan, _: Words) -> str:
    if plan.privacy.noise == "distributed":
        return _(
            "The coordinator together with at most {count} other members, for what is opened. Not the case that the "
            "encryption of a single update is broken: it holds only a part of the noise."
        ).format(count=plan.threshold - 1)
    return _(
        "The coordinator and all other members together, also if the encryption were broken: each institution adds "
        "its own noise before it encrypts."
    )


def _units(plans: Sequence[TrainingPlan]) -> str:
    return " / ".join(sorted({plan.privacy.unit for plan in plans}))


def _by_plan(plans: Sequence[TrainingPlan], text_of: Callable[[TrainingPlan], str]) -> tuple[str, ...]:
    """Return what is to be said of each plan: once if it is the same of all, else behind the jobs' names."""
    jobs: dict[str, list[str]] = {}
    for plan in plans:
        jobs.setdefault(text_of(plan), []).append(plan.job)
    return tuple(jobs) if len(jobs) == 1 else tuple(f"{', '.join(names)}: {text}" for text, names in jobs.items())


def _not_covered(unit: str, _: Words) -> tuple[str, ...]:
    return (
        _(
            "What can be learnt about people in general. A model may teach that a treatment helps; this is the "
            "purpose, and it would be learnt without any one {unit}."
        ).format(unit=unit),
        _(
            "Several units (each one {unit}) together: the protection weakens with the size of the group. Families or "
            "classes are not one unit here."
        ).format(unit=unit),
        _(
            "The same person in the data of several institutions: each institution's guarantee is for its own data; "
            "their costs add up."
        ),
        _("Other uses of the data outside this ledger, and access to the institution's own computers."),
        _("Records that were assigned to the wrong unit ({unit}).").format(unit=unit),
        _(
            "Whether the institution's software ran as described. The evidence shows what was signed and when; it "
            "cannot show what was not written down."
        ),
    )


def how_to_check(facts: Facts, kind: Kind | None, _: Words) -> Section:
    """Return which files this rests on, and the commands that verify them, and this very file against them."""
    report = facts.sources.report
    text = _(
        "The evidence of the job (its folder, or a bundle with it) holds everything that is needed. The first command "
        "verifies every signature and recomputes both numbers; the second one prints this report anew and compares it "
        "with this file, word for word and number for number. Neither needs the internet."
    )
    rows = (
        (_("Evidence"), "fl-alliance audit verify EVIDENCE --root FINGERPRINT"),
        (_("This file"), "fl-alliance audit printed FILE --evidence EVIDENCE --root FINGERPRINT"),
        (_("Printed by"), printed_by(kind)),
        (_("Signed report"), facts.sources.report_digest),
        (_("Ledger head"), report.ledger_head),
        (_("Entries"), str(report.entries)),
        (_("Plan"), report.plan_digest),
        (_("Policy"), report.policy_digest),
        (_("Adapter"), report.adapter_digest),
    )
    table = Table(_("Digests of what was signed"), ("", ""), rows, code=frozenset({1}), widths=(16, 84))
    return Section(_("How to check it"), (Paragraph(text), table))
