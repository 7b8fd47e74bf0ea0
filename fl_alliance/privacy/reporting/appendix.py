"""The same facts under other people's names: the DP Deployments Registry's fields, and the points of NIST SP 800-226.

Field names: the template of the registry's data, `tests/good_deployments/template.yaml` in
github.com/opendp/deployments-registry-data, commit 057e5d8 (2026). Points: the differential privacy pyramid and the
sections of NIST Special Publication 800-226, Guidelines for Evaluating Differential Privacy Guarantees (March 2025), as
secondary sources tell them; of NIST's own words only the announcements were read (csrc.nist.gov/pubs/sp/800/226/ipd,
and nist.gov's news of December 2023, which shows the pyramid). The report says so.
"""

from __future__ import annotations

from fl_alliance.privacy.reporting.document import Paragraph, Section, Table
from fl_alliance.privacy.reporting.facts import Facts
from fl_alliance.privacy.reporting.words import Words
from fl_alliance.protocol.ids import decimal_text

Rows = list[tuple[str, str]]


def appendix(facts: Facts, _: Words) -> tuple[Section, Section]:
    """Return both mappings."""
    registry = [*_basic(facts, _), *_privacy(facts, _), *_deployment(facts, _), *_implementation(facts, _)]
    words = _(
        "What this report says, under the field names of the Differential Privacy Deployments Registry (OpenDP and "
        "NIST). A dash: this report does not know it; the institution fills it in if it registers the release."
    )
    points = _(
        "What this report says to each point of NIST Special Publication 800-226 (March 2025), from the top of its "
        "pyramid to the bottom."
    )
    rests = _(
        "The publication itself (doi.org/10.6028/NIST.SP.800-226) was not at hand where this list was made. That there "
        "is such a pyramid, with epsilon at its top, security in its middle and data collection exposure at its foot, "
        "NIST's own announcements say; names and order of the other points are as others tell of it. Who must comply "
        "compares them with the text."
    )
    return (
        Section(
            _("Appendix A: DP Deployments Registry"),
            (Paragraph(words), _table(_("Fields of the registry"), (_("Field"), _("Here")), registry, code={0})),
        ),
        Section(
            _("Appendix B: NIST SP 800-226"),
            (
                Paragraph(points),
                _table(_("Points of NIST SP 800-226"), (_("Point"), _("Here")), _points(facts, _)),
                Paragraph(rests, "note"),
            ),
        ),
    )


def _table(caption: str, head: tuple[str, str], rows: Rows, code: set[int] | None = None) -> Table:
    return Table(caption, head, tuple(rows), code=frozenset(code or ()), widths=(38, 62))


def _basic(facts: Facts, _: Words) -> Rows:
    plan, report = facts.sources.plan, facts.sources.report
    described = _("LoRA adapter of a language model, fine-tuned by {count} institutions without sharing a record.")
    return [
        ("basic.name", f"{plan.alliance} / {plan.job}"),
        ("basic.data_curators", report.institution),
        ("basic.description", described.format(count=len(plan.members))),
        ("basic.intended_use", "—"),
        ("basic.data_product_type", "Machine learning model"),
        ("basic.data_product_region", "—"),
        ("basic.data_product_sector", "—"),
        ("basic.publication_date", "—"),
    ]


def _privacy(facts: Facts, _: Words) -> Rows:
    plan, report, costs = facts.sources.plan, facts.sources.report, facts.costs
    details = _("All records of one {unit}; add or remove ({relation}).")
    mu = "—" if facts.trade_off is None else decimal_text(facts.trade_off.mu)
    both = _("PLD {pld}, RDP {rdp}; Gaussian DP mu {mu}, up to delta; with all jobs on the data set {total} (PLD).")
    return [
        ("dp_variant.variant_name", "Approximate DP"),
        ("dp_variant.data_domain", _("Text records of the institution's data set {name}.").format(name=report.dataset)),
        ("dp_variant.unprotected_quantities", _("The declared numbers of units, the plan, and the times of messages.")),
        ("privacy_loss.privacy_unit", report.unit),
        ("privacy_loss.privacy_unit_details", details.format(unit=report.unit, relation=report.relation)),
        (
            "privacy_loss.number_of_privacy_units",
            _("{count} (declared; the true number is not told)").format(count=plan.declared_units(report.institution)),
        ),
        ("privacy_loss.privacy_parameters.epsilon", decimal_text(costs.job_pld)),
        ("privacy_loss.privacy_parameters.delta", report.delta),
        ("privacy_loss.privacy_parameters.rho", "—"),
        (
            "privacy_loss.privacy_parameters_details",
            both.format(
                pld=decimal_text(costs.job_pld),
                rdp=decimal_text(costs.job_rdp),
                mu=mu,
                total=decimal_text(costs.dataset_pld),
            ),
        ),
    ]


def _deployment(facts: Facts, _: Words) -> Rows:
    plan = facts.sources.plan
    shared = plan.privacy.noise == "distributed"
    model = (
        _("Noise is shared by the members; only encrypted sums are opened (distributed model).")
        if shared
        else _("Each institution is the curator of its own data and adds all of its noise.")
    )
    trust = (
        _("The institution's own program, and that at most {count} members leave their noise out.").format(
            count=plan.threshold - 1
        )
        if shared
        else _("The institution's own program; nobody else.")
    )
    actors = _(
        "Institutions {names}; a coordinator that sees neither an update nor, by itself, a sum; an auditor offline."
    )
    releases = _("At most {rounds} sums in this job; jobs on this data set so far: {jobs}.")
    return [
        ("deployment_model.model_name", "—" if shared else "Central"),
        ("deployment_model.model_name_details", model),
        ("deployment_model.trust_assumptions", trust),
        ("deployment_model.actors", actors.format(names=", ".join(plan.names))),
        ("deployment_model.release_type", "Many releases"),
        ("deployment_model.release_type_details", releases.format(rounds=plan.rounds, jobs=len(facts.jobs))),
        ("deployment_model.data_source_type", "Static"),
        (
            "deployment_model.data_source_type_details",
            _("A changed data file is refused; the ledger names its digest."),
        ),
        ("deployment_model.access_type", "Non-interactive"),
        ("deployment_model.access_type_details", _("Nobody asks questions of the data; the plan is fixed before.")),
    ]


def _implementation(facts: Facts, _: Words) -> Rows:
    plan = facts.sources.plan
    mechanism = _(
        "Poisson-sampled Gaussian mechanism (DP-SGD): noise multiplier {noise}, rate {rate}, clip norm {clip}."
    )
    compose = _(
        "Every charge of the ledger, by two accountants; caps by job, 365 days and data set; nothing is refunded."
    )
    tuning = _("None on the records: the plan is fixed before a record is read. Tuning by jobs is charged as jobs.")
    return [
        ("implementation.preprocessing_and_hyperparameter_tuning", tuning),
        (
            "implementation.mechanisms",
            mechanism.format(
                noise=plan.privacy.noise_multiplier, rate=plan.privacy.sampling_rate, clip=plan.privacy.clip_norm
            ),
        ),
        ("implementation.composition", compose),
        ("implementation.post_processing", _("Fixed point, sum, mean, server optimizer: none reads a record.")),
        ("implementation.justification", "—"),
        ("implementation.utility", "—"),
        ("implementation.additional_information", _("Signed evidence, verified offline; see the digests above.")),
        ("administrative.evidence_sources", "—"),
        ("administrative.status", "Draft"),
        ("administrative.registry_authors", "—"),
        ("administrative.tier", "—"),
    ]


def _points(facts: Facts, _: Words) -> Rows:
    return [*_top(facts, _), *_middle(facts, _), *_bottom(facts, _)]


def _top(facts: Facts, _: Words) -> Rows:
    report, costs = facts.sources.report, facts.costs
    parameters = _(
        "epsilon {epsilon} at delta {delta} for this job; {total} with all jobs. No conversion: PLD directly."
    )
    unit = _(
        "User level: all records of one {unit}. Unbounded: add or remove, so the number of units is protected too."
    )
    return [
        (
            _("Section 2: privacy parameters"),
            parameters.format(
                epsilon=decimal_text(costs.job_pld), delta=report.delta, total=decimal_text(costs.dataset_pld)
            ),
        ),
        (
            _("Section 2: variants of differential privacy"),
            _("Approximate DP; Gaussian DP and the trade-off curve beside it."),
        ),
        (_("Section 2: unit of privacy"), unit.format(unit=report.unit)),
        (
            _("Section 2: bounding contributions"),
            _("At most {count} records of a unit in a step; the unit's summed gradient is clipped.").format(
                count=facts.sources.plan.privacy.records_per_unit
            ),
        ),
        (
            _("Section 2: mixing with other data releases"),
            _("Not covered: what the institution publishes of the same data by other ways."),
        ),
        (
            _("Section 2: auditing and empirical measures"),
            _("See “Empirical lower bound”.") if facts.sources.empirical else _("None given for this report."),
        ),
    ]


def _middle(facts: Facts, _: Words) -> Rows:
    scores = facts.sources.plan.evaluation is not None
    return [
        (
            _("Section 3: algorithms and correctness"),
            _("DP-SGD by Opacus, accounting by dp-accounting: kept libraries; the event is derived from the plan."),
        ),
        (
            _("Section 3: utility"),
            _("Scores on units that are held out, under noise of their own.")
            if scores
            else _("Not measured in this job."),
        ),
        (
            _("Section 3: bias"),
            _("Not measured. Noise and clipping cost small groups more; who uses the adapter must test it for them."),
        ),
        (
            _("Section 3: machine learning"),
            _("A model trained on public data is fine-tuned; only the adapter is trained on the records."),
        ),
    ]


def _bottom(facts: Facts, _: Words) -> Rows:
    shared = facts.sources.plan.privacy.noise == "distributed"
    return [
        (_("Section 4: query models"), _("Data release: what is computed is fixed and charged before it begins.")),
        (
            _("Section 4: trust models"),
            _("The members share one noise: see “Assumptions”.")
            if shared
            else _("Central in each house; nobody outside it is trusted. Secure aggregation is a second lock."),
        ),
        (
            _("Section 4: mechanism implementation challenges"),
            _(
                "Noise from the operating system's generator, four draws combined against floating-point attacks. "
                "How long a step takes is not hidden."
            ),
        ),
        (
            _("Section 4: data security and access control"),
            _("Records stay in the institution's house; who may enter it is not this report's matter."),
        ),
        (
            _("Section 4: data collection exposure"),
            _("Not this report's matter: which records the institution collects, and for how long it keeps them."),
        ),
    ]
