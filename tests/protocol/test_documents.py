"""Rules inside documents and the plan, each by name, and the limits of everything that arrives."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
from annotated_types import Le, MaxLen
from pydantic import BaseModel, ValidationError

from fl_alliance.protocol import documents as d
from fl_alliance.protocol import limits
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.log import LogPiece, LogReceipt
from fl_alliance.protocol.plan import Member, TrainingPlan
from tests.protocol.examples import DOCUMENTS, PLAN, digest


def change(document: BaseModel, **changes: Any) -> BaseModel:
    """Make `document` anew with other fields; a dict changes fields inside a field."""
    fields = document.model_dump()
    for name, value in changes.items():
        fields[name] = fields[name] | value if isinstance(value, dict) else value
    return type(document).model_validate(fields)


def members(*units: int) -> list[dict[str, Any]]:
    return [{"name": f"clinic-{place:04}", "declared_units": count} for place, count in enumerate(units)]


def files(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "digest": digest(1)} for name in names]


SHARED_NOISE: dict[str, Any] = {
    "privacy": {"noise": "distributed", "steps_per_round": 1},
    "optimizer": {"name": "sgd", "learning_rate": "0.025", "momentum": "0", "noise_floor": None},
}
"""Of the example's three members two must add their parts: a coordinate of an update has noise of 0.000884."""

PLAN_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two members": ({"members": members(1000, 1000)}, "at least 3 items"),
    "members unsorted": ({"members": members(1000, 1000, 1000)[::-1]}, "members must be sorted by name"),
    "a member twice": ({"members": members(1000, 1000) + members(1000)[:1]}, "members must be sorted by name"),
    "nobody in a member": ({"members": members(1000, 1000, 0)}, "declared_units"),
    "threshold of half": (
        {"members": members(*[1000] * 4), "quorum": 3},
        "threshold 2 must be above half of 4 members",
    ),
    "threshold of one": ({"threshold": 1}, "threshold"),
    "threshold above all": ({"threshold": 4}, "threshold 4 must be above half of 3 members and at most all"),
    "quorum of half": (
        {"members": members(*[1000] * 6), "threshold": 4},
        "quorum 3 must be above half of 6 members",
    ),
    "quorum of one": ({"quorum": 1}, "quorum"),
    "quorum above all": ({"quorum": 4}, "quorum 4 must be above half of 3 members and at most all"),
    "no model": ({"model": []}, "at least 1 item"),
    "model files unsorted": ({"model": files("b", "a")}, "model files must be sorted by name"),
    "a model file twice": ({"model": files("a", "a")}, "model files must be sorted by name"),
    "model file outside its folder": ({"model": files("../a")}, "name"),
    "hidden model file": ({"model": files(".a")}, "name"),
    "targets unsorted": ({"adapter": {"targets": ["q_proj", "o_proj"]}}, "adapter targets must be sorted"),
    "a target twice": ({"adapter": {"targets": ["q_proj", "q_proj"]}}, "adapter targets must be sorted"),
    "rank 0": ({"adapter": {"rank": 0}}, "adapter.rank"),
    "no module": ({"adapter": {"modules": 0}}, "adapter.modules"),
    "a module too many": ({"adapter": {"modules": 100_001}}, "adapter.modules"),
    "no round": ({"rounds": 0}, "rounds"),
    "a round too many": ({"rounds": limits.MAX_ROUNDS + 1}, "rounds"),
    "clip 0": ({"privacy": {"clip_norm": "0"}}, "clip_norm 0 must be above 0"),
    "no noise": ({"privacy": {"noise_multiplier": "0"}}, "noise_multiplier 0 must be above 0"),
    "no sampling": ({"privacy": {"sampling_rate": "0"}}, "sampling_rate 0 must be above 0"),
    "sampling above 1": ({"privacy": {"sampling_rate": "1.01"}}, "sampling_rate 1.01 must be at most 1"),
    "delta 0": ({"privacy": {"delta": "0"}}, "delta 0 must be above 0"),
    "delta 1": ({"privacy": {"delta": "1"}}, "delta 1 must be below 1"),
    "no budget": ({"privacy": {"epsilon_cap": "0"}}, "epsilon_cap 0 must be above 0"),
    "no step": ({"privacy": {"steps_per_round": 0}}, "steps_per_round"),
    "no record of a unit": ({"privacy": {"records_per_unit": 0}}, "records_per_unit"),
    "a seed of the noise": ({"privacy": {"seed": 7}}, "Extra inputs"),
    "unknown width": ({"sum": {"bits": 10}}, "sum.bits"),
    "unknown cipher": ({"sum": {"cipher": "ckks"}}, "sum.cipher"),
    "unknown optimizer": ({"optimizer": {"name": "adamw"}}, "optimizer.name"),
    "nothing learnt": ({"optimizer": {"learning_rate": "0"}}, "learning_rate 0 must be above 0"),
    "momentum 1": ({"optimizer": {"momentum": "1"}}, "momentum 1 must be below 1"),
    "beta2 1": ({"optimizer": {"beta2": "1"}}, "beta2 1 must be below 1"),
    "sgd with momentum 1.5": ({"optimizer": {"name": "sgd", "momentum": "1.5"}}, "momentum 1.5 must be below 1"),
    "a floor of the noise for sgd": (
        {"optimizer": {"name": "sgd", "noise_floor": "0.1"}},
        "noise_floor 0.1 must be above 0, and only with adam, not sgd",
    ),
    "unknown clipping": ({"privacy": {"clipping": "none"}}, "privacy.clipping"),
    "a server that stands still": ({"server": {"learning_rate": "0"}}, "learning_rate 0 must be above 0"),
    "shared noise in many steps": (
        {"privacy": {"noise": "distributed"}},
        "steps_per_round 40 must be 1 with distributed noise",
    ),
    "shared noise through adam": (
        {"privacy": {"noise": "distributed", "steps_per_round": 1}},
        "optimizer must be sgd with momentum 0 with distributed noise, not adam",
    ),
    "shared noise cut by the fixed point": (
        {**SHARED_NOISE, "sum": {"coordinate_clip": "0.01"}},
        r"coordinate_clip 0.01 must be 0.0177 at least: it cuts noise",
    ),
    "shared noise lost in the fixed point": (
        {**SHARED_NOISE, "sum": {"coordinate_clip": "0.7", "bits": 12}},
        r"bits 12: a level is 0.000342, with distributed noise at most 0.000221",
    ),
    "text for a switch": ({"release_to_coordinator": "yes"}, "release_to_coordinator"),
}


@pytest.mark.parametrize("name", PLAN_REFUSED)
def test_refused_plan(name: str) -> None:
    changes, reason = PLAN_REFUSED[name]
    with pytest.raises(ValidationError, match=reason):
        change(PLAN, **changes)


def test_shared_noise_with_room_and_fine_levels_is_a_plan() -> None:
    plan = change(PLAN, **SHARED_NOISE, sum={"coordinate_clip": "0.05", "bits": 12})
    assert plan.noise_parts == 2
    assert plan.normaliser("berlin") == plan.normaliser("lima") == 0.01 * 2500
    assert plan.update_noise == pytest.approx(0.025 * 1.25 / 2**0.5 / 25)
    local = change(PLAN)
    assert (local.noise_parts, local.member_noise, local.normaliser("lima")) == (1, 1.25, 40)


@pytest.mark.parametrize(
    ("threshold", "minimum", "parts"), [(3, 3, 1), (3, 4, 2), (3, 5, 3), (4, 3, 1), (5, 3, 1), (4, 5, 2)]
)
def test_colluders_and_dropouts_are_taken_off_the_parts_of_a_shared_noise(
    threshold: int, minimum: int, parts: int
) -> None:
    """n - t + 1 where all must stay; fewer where a coordinator can leave honest members out."""
    changes = {**SHARED_NOISE, "sum": {"coordinate_clip": "0.1", "bits": 20}}
    plan = change(PLAN, **changes, members=members(*[2500] * 5), threshold=threshold, minimum_members=minimum, quorum=3)
    assert plan.noise_parts == parts


@pytest.mark.parametrize("count", [3, 4, 5, 20, 1000])
def test_threshold_and_quorum_begin_above_half_and_end_at_all(count: int) -> None:
    """With half of the members, two groups could open two sums of one round."""
    plan = {"members": members(*[1000] * count)}
    for value in (count // 2 + 1, count):
        assert change(PLAN, **plan, threshold=value, quorum=value)
    for name, value in itertools.product(("threshold", "quorum"), (count // 2, count + 1)):
        with pytest.raises(ValidationError, match=name):
            change(PLAN, **(plan | {"threshold": count, "quorum": count, name: value}))


@pytest.mark.parametrize(
    ("units", "most", "above"),
    [
        ((1000, 2500, 4000), "0.0001", "0.000100000000000001"),
        ((4000, 4000, 7), "0.014285714285714285", "0.014285714285714286"),
        ((10**9, 10**9, 10**9), "0.0000000001", "0.000000000100000001"),
    ],
)
def test_delta_is_at_most_a_tenth_of_one_of_the_smallest_declared_cohort(
    units: tuple[int, ...], most: str, above: str
) -> None:
    assert change(PLAN, members=members(*units), privacy={"delta": most})
    with pytest.raises(ValidationError, match=rf"delta {above} is above 1 / \(10 \* {min(units)} declared units\)"):
        change(PLAN, members=members(*units), privacy={"delta": above})


def test_a_plan_knows_its_members() -> None:
    assert PLAN.names == ("berlin", "lagos", "lima")
    assert PLAN.declared_units("lagos") == 2500
    with pytest.raises(KeyError):
        PLAN.declared_units("oslo")


RECORD = DOCUMENTS["round-record"].model_dump()
PARTIES = DOCUMENTS["alliance-members"].model_dump()["members"]
APPROVERS = DOCUMENTS["institution-policy"].model_dump()["approvers"]

DOCUMENT_REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "parties unsorted": ("alliance-members", {"members": PARTIES[::-1]}, "members must be sorted"),
    "one key for two parties": (
        "alliance-members",
        {"members": [PARTIES[0], PARTIES[1] | {"identity": PARTIES[0]["identity"]}, PARTIES[2]]},
        "same identity key",
    ),
    "one key in two spellings": (
        "alliance-members",
        {"members": [PARTIES[0], PARTIES[1] | {"identity": PARTIES[0]["identity"][:-2] + "F="}, PARTIES[2]]},
        "stand for nothing",
    ),
    "no coordinator": ("alliance-members", {"members": PARTIES[:2]}, "exactly one member must be the coordinator"),
    "two coordinators": (
        "alliance-members",
        {"members": [PARTIES[0] | {"role": "coordinator"}, *PARTIES[1:]]},
        "exactly one member must be the coordinator",
    ),
    "approvers unsorted": ("institution-policy", {"approvers": APPROVERS[::-1]}, "approvers must be sorted"),
    "one key for two approvers": (
        "institution-policy",
        {"approvers": [APPROVERS[0], APPROVERS[1] | {"key": APPROVERS[0]["key"]}]},
        "two approvers have the same key",
    ),
    "more approvals than approvers": ("institution-policy", {"approvals_needed": 3}, "there are 2 approvers"),
    "members unsorted": ("round-record", {"members": RECORD["members"][::-1]}, "members must be sorted"),
    "uploads unsorted": ("round-record", {"uploads": RECORD["uploads"][::-1]}, "uploads must be sorted"),
    "an upload twice": ("round-record", {"uploads": RECORD["uploads"] + RECORD["uploads"][-1:]}, "uploads must be"),
    "votes unsorted": ("round-record", {"votes": RECORD["votes"][::-1]}, "votes must be sorted"),
    "a vote twice": ("round-record", {"votes": ["lima", "lima"]}, "votes must be sorted"),
    "a stranger votes": ("round-record", {"votes": ["berlin", "oslo"]}, "oslo uploaded or voted and is not a member"),
    "a stranger uploads": (
        "round-record",
        {
            "uploads": [*RECORD["uploads"], RECORD["uploads"][0] | {"member": "oslo"}],
            "ledger_heads": [*RECORD["ledger_heads"], RECORD["ledger_heads"][0] | {"member": "oslo"}],
        },
        "oslo uploaded or voted",
    ),
    "an upload that nobody charged": (
        "round-record",
        {"ledger_heads": RECORD["ledger_heads"][:2]},
        "ledger_heads must name the members of uploads",
    ),
    "ledger heads in another order": (
        "round-record",
        {"ledger_heads": RECORD["ledger_heads"][::-1]},
        "ledger_heads must name the members of uploads",
    ),
    "no record before round 3": ("round-record", {"previous_record": None}, "null in round 1 and only there"),
    "a record before round 1": ("round-record", {"round": 1}, "null in round 1 and only there"),
    "round 0": ("round-record", {"round": 0}, "round"),
    "files unsorted": (
        "evidence-manifest",
        {"files": DOCUMENTS["evidence-manifest"].model_dump()["files"][::-1]},
        "files must be sorted",
    ),
    "bundled files unsorted": (
        "evidence-bundle",
        {"files": DOCUMENTS["evidence-bundle"].model_dump()["files"][::-1]},
        "files must be sorted",
    ),
    "a job twice in a bundle": ("evidence-bundle", {"jobs": ("nouns-7", "nouns-7")}, "jobs must be sorted"),
    "a bundle of nobody's role": ("evidence-bundle", {"role": "auditor"}, "role"),
    "printed from the same report twice": (
        "printed-report",
        {"reports": DOCUMENTS["printed-report"].model_dump()["reports"][:1] * 2},
        "reports must be sorted",
    ),
    "printed in no language": ("printed-report", {"language": "../de"}, "language"),
    "printed as a picture": ("printed-report", {"form": "png"}, "form"),
    "released files unsorted": (
        "model-provenance",
        {"files": DOCUMENTS["model-provenance"].model_dump()["files"][::-1]},
        "files must be sorted",
    ),
    "software unsorted": (
        "model-provenance",
        {"software": DOCUMENTS["model-provenance"].model_dump()["software"][::-1]},
        "software must be sorted",
    ),
    "a report of another job": ("model-provenance", {"report": {"job": "other"}}, "report.job is other, the plan's is"),
    "a report of another alliance": ("model-provenance", {"report": {"alliance": "other"}}, "report.alliance is other"),
    "a report of another plan": ("model-provenance", {"plan_digest": digest(99)}, "report.plan_digest is"),
    "a version that is a path": (
        "model-provenance",
        {"software": [{"name": "torch", "version": "/usr/lib"}]},
        "software.0.version",
    ),
    "no unit allowed": ("institution-policy", {"allowed_units": []}, "allowed_units"),
    "an empty unit": ("institution-policy", {"allowed_units": [""]}, "allowed_units"),
    "a charge of nothing": (
        "charge",
        {"event": {"noise_multiplier": "1", "sampling_rate": "0.1", "steps": 0}},
        "event.steps",
    ),
    "an unknown mechanism": ("charge", {"event": {"mechanism": "laplace"}}, "event.mechanism"),
    "charge number 0": ("charge", {"sequence": 0}, "sequence"),
    "another relation": ("privacy-report", {"relation": "replace-one-unit"}, "relation"),
}


@pytest.mark.parametrize("name", DOCUMENT_REFUSED)
def test_refused_document(name: str) -> None:
    kind, changes, reason = DOCUMENT_REFUSED[name]
    with pytest.raises(ValidationError, match=reason):
        change(DOCUMENTS[kind], **changes)


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../b", "a//b", "a/", ".x", "a/.x", "A", "a\\b", "a\n", "", "a" * 301, "é"]
)
def test_a_manifest_names_no_file_outside_its_folder(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        d.ManifestFile(name=name, digest=digest(1), length=0)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (
            "predicateType",
            d.predicate_type(DOCUMENTS["charge"]),
            "predicateType .*charge/v1' must be .*training-plan/v1'",
        ),
        ("subject", d.subjects_of(PLAN)[:1], "subject is not what the predicate is about"),
        ("subject", d.subjects_of(PLAN)[::-1], "subject is not what the predicate is about"),
        ("_type", "https://in-toto.io/Statement/v0.1", "_type"),
    ],
)
def test_a_statement_is_about_its_predicate(field: str, value: Any, reason: str) -> None:
    fields = d.statement_for(PLAN).model_dump(by_alias=True)
    assert d.Statement.model_validate(fields)
    with pytest.raises(ValidationError, match=reason):
        d.Statement.model_validate(fields | {field: value})


def test_the_digest_of_a_model_is_of_names_and_digests() -> None:
    seen = {d.model_digest(PLAN.model), d.model_digest(PLAN.model[:1])}
    renamed = (PLAN.model[0].model_copy(update={"name": "a"}), PLAN.model[1])
    changed = (PLAN.model[0].model_copy(update={"digest": digest(99)}), PLAN.model[1])
    assert len(seen | {d.model_digest(renamed), d.model_digest(changed)}) == 4
    one = b'{"files":[{"digest":"sha256:' + b"0e" * 32 + b'","name":"config.json"}]}'
    assert d.model_digest(PLAN.model[:1]) == digest_of(one)


def test_two_ledgers_never_begin_alike() -> None:
    names = ["a", "b", "a-b", "ab"]
    assert len({d.ledger_genesis(*pair) for pair in itertools.product(names, names)}) == 16
    assert d.ledger_genesis("lagos", "cases") == digest_of(b"fl-alliance ledger genesis|lagos|cases")


# ---- limits


def test_limits_are_the_stated_ones() -> None:
    """Part of the format: an alliance whose members differ here refuse one another's messages."""
    stated = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert stated == {
        "MAX_MESSAGE_BYTES": 8 << 20,
        "SEALED_KEY_BYTES": 33_000,
        "WRAPPED_KEY_BYTES": 80,
        "SEALED_SHARES_BYTES": 62,
        "MAX_BLOB_BYTES": 4 << 30,
        "MAX_BUNDLE_BYTES": (4 << 30) - 1,
        "MAX_BUNDLE_FILES": 1_000_000,
        "MAX_MANIFEST_BYTES": 512 << 20,
        "MAX_MEMBERS": 1000,
        "MIN_MEMBERS": 3,
        "MAX_ROUNDS": 10_000,
        "MAX_LOG": 1_000_000,
        "MAX_LOG_PIECE": 10_000,
        "MAX_NAME": 63,
    }


def test_a_list_longer_than_the_largest_alliance_is_refused() -> None:
    job = {"alliance": "a", "job": "j", "round": 1}
    assert m.KeyRoster(**job, round_keys=("",) * limits.MAX_MEMBERS)
    with pytest.raises(ValidationError, match="at most 1000 items"):
        m.KeyRoster(**job, round_keys=("",) * (limits.MAX_MEMBERS + 1))
    with pytest.raises(ValidationError, match="at most 1000 items"):
        TrainingPlan.model_validate(PLAN.model_dump() | {"members": members(*[1000] * 1001)})


def test_every_list_and_every_number_that_travels_is_bounded() -> None:
    unbounded = []
    for model in _models(
        *get_args(m.Request), *get_args(m.Answer), *get_args(d.Document), d.Statement, LogPiece, LogReceipt
    ):
        for name, field in model.model_fields.items():
            bounds = [type(rule) for rule in field.metadata]
            if (_holds(field.annotation, tuple) and MaxLen not in bounds) or (
                field.annotation is int and Le not in bounds
            ):
                unbounded.append(f"{model.__name__}.{name}")
    assert unbounded == []


def _holds(annotation: Any, wanted: type) -> bool:
    return getattr(annotation, "__origin__", None) is wanted


def _models(*roots: type[BaseModel]) -> set[type[BaseModel]]:
    """Every model that is a field, or in a list that is a field, of `roots`."""
    found: set[type[BaseModel]] = set()
    todo = list(roots)
    while todo:
        model = todo.pop()
        if model not in found:
            found.add(model)
            todo += [kind for field in model.model_fields.values() for kind in _inside(field.annotation)]
    return found


def _inside(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _inside(part)]


def test_the_walk_over_models_reaches_the_deep_ones() -> None:
    assert {d.SampledGaussian, Member, m.ToMember, d.Sha256} <= _models(*get_args(m.Answer), d.Statement)
