"""A plan that an institution refuses is kept with what was asked, bundled and verified; and no lie about it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fl_alliance.errors import StoreFailed
from fl_alliance.evidence.archive import Archive, archive_of
from fl_alliance.evidence.bundle import BUNDLE
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import peek_document, sign_document
from fl_alliance.parties import refusals as kept
from fl_alliance.parties.audit_inputs import audited
from fl_alliance.parties.bundles import Wanted, institution_bundle
from fl_alliance.parties.mail import Address, write_answer
from fl_alliance.parties.refusals import keeping_refusals
from fl_alliance.parties.simulate.alliance import Simulation
from fl_alliance.parties.simulate.settings import SimulationSettings
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.documents import EvidenceBundle, InstitutionPolicy, ManifestFile, Partner
from fl_alliance.protocol.envelope import Envelope
from fl_alliance.protocol.ids import digest_of
from fl_alliance.rounds import coordinator as machine

STRICT = "site-002"


class StrictHouse(Simulation):
    """One institution allows less than the plan costs."""

    def _policies(self, partners: Sequence[Partner]) -> Mapping[str, InstitutionPolicy]:
        policies = dict(super()._policies(partners))
        policies[STRICT] = policies[STRICT].model_copy(update={"epsilon_per_job": "0.0001"})
        return policies


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strict") / "alliance"
    state = StrictHouse(SimulationSettings(members=3, parameters=50), folder).run()
    assert isinstance(state, machine.Aborted)
    return folder


@pytest.fixture
def bundle(homes: Path, tmp_path: Path) -> Path:
    institution_bundle(homes / STRICT, tmp_path / "strict.zip", Wanted())
    return tmp_path / "strict.zip"


def files_of(bundle: Path) -> dict[str, bytes]:
    with Archive.open(bundle) as archive:
        return {name: archive.read(name) for name in archive.names}


def signed(homes: Path, out: Path, files: dict[str, bytes]) -> Path:
    key = IdentityKey.load(homes / STRICT / "keys" / "identity.key")
    listed = tuple(
        ManifestFile(name=name, digest=digest_of(data), length=len(data))
        for name, data in sorted(files.items())
        if name != BUNDLE
    )
    document = peek_document(files[BUNDLE], EvidenceBundle).model_copy(update={"files": listed})
    files = files | {BUNDLE: sign_document(key, document)}
    out.write_bytes(b"".join(archive_of(files, files.__getitem__)))
    return out


def refusal_of(place: Path) -> str:
    with audited([place], root=None) as audit:
        (line,) = audit.refusals
        assert audit.exit_code == 17
    return line


def test_a_refused_plan_is_in_the_bundle_with_the_question_and_the_answer(bundle: Path) -> None:
    with audited([bundle], root=None) as audit:
        (given,) = audit.inputs
    assert audit.holds
    assert given.bundle is not None
    assert given.bundle.jobs == ()
    assert given.standing is not None
    (refusal,) = given.standing.refusals
    assert (refusal.job, refusal.error) == ("job-1", "BudgetExceeded")
    assert given.steps[-1].line.startswith("(12) refused: job job-1, BudgetExceeded: epsilon_per_job")
    assert given.standing.ledger.entries == ()


def test_who_refused_nothing_and_finished_nothing_has_no_bundle(homes: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no job ended then"):
        institution_bundle(homes / "site-001", tmp_path / "none.zip", Wanted())


def test_another_reason_than_the_signed_one_is_refused(homes: Path, bundle: Path, tmp_path: Path) -> None:
    files = files_of(bundle)
    (name,) = [name for name in files if name.endswith("/refusal.json")]
    spoilt = files[name].replace(b'"payload":"ey', b'"payload":"ez')
    assert refusal_of(signed(homes, tmp_path / "lie.zip", files | {name: spoilt})).startswith(
        "step 12, refusals/job-1-"
    )


def test_an_answer_to_another_question_is_refused(homes: Path, bundle: Path, tmp_path: Path) -> None:
    files = files_of(bundle)
    (name,) = [name for name in files if name.endswith("/refusal.json")]
    said = decode(m.ANSWER, decode(Envelope, files[name]).body)
    other = said.model_copy(update={"request_digest": digest_of(b"another question")})
    key = IdentityKey.load(homes / STRICT / "keys" / "identity.key")
    envelope = write_answer(Address(STRICT, "coordinator", {}), key, other)
    found = refusal_of(signed(homes, tmp_path / "lie.zip", files | {name: envelope}))
    assert "request_digest is" in found


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda files, a, b: files.pop(a), "is missing"),
        (lambda files, a, b: files.pop(b), "is missing"),
        (lambda files, a, b: files.update({a: files[b]}), ""),
        (lambda files, a, b: files.update({b: files[a]}), ""),
        (lambda files, a, b: files.update({a: b"{}"}), ""),
        (lambda files, a, b: [files.update({f"refusals/x/{n[-13:]}": files.pop(n)}) for n in (a,)], "is missing"),
    ],
)
def test_a_refusal_that_is_not_whole_is_refused(
    homes: Path, bundle: Path, tmp_path: Path, change: Any, why: str
) -> None:
    files = files_of(bundle)
    (a,) = [name for name in files if name.endswith("/proposal.json")]
    (b,) = [name for name in files if name.endswith("/refusal.json")]
    change(files, a, b)
    found = refusal_of(signed(homes, tmp_path / "lie.zip", files))
    assert found.startswith("step 12, refusals/")
    assert why in found


def test_a_refusal_under_another_jobs_name_is_refused(homes: Path, bundle: Path, tmp_path: Path) -> None:
    files = {name.replace("/job-1-", "/job-9-"): data for name, data in files_of(bundle).items()}
    assert "folder is refusals/job-9-" in refusal_of(signed(homes, tmp_path / "lie.zip", files))


def test_no_refusal_is_answered_that_could_not_be_kept(
    homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: the coordinator asks again, and nothing was said that is not in the house's evidence."""
    (folder,) = (homes / STRICT / "refusals").iterdir()
    question, answer = ((folder / name).read_bytes() for name in ("proposal.json", "refusal.json"))
    handle = keeping_refusals(tmp_path, lambda _: answer)

    def full(*_: object, **__: object) -> None:
        raise StoreFailed("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(kept, "write_atomically", full)
        with pytest.raises(StoreFailed):
            handle(question)
    assert handle(question) == answer
    assert [path.name for path in (tmp_path / "refusals").iterdir()] == [folder.name]


def test_other_answers_are_not_kept(tmp_path: Path) -> None:
    key = IdentityKey.generate()
    bound = {"alliance": "a", "job": "j", "round": 0}
    accepted = m.KeyAccepted(**bound, key_fingerprint=digest_of(b"key"))
    reply = write_answer(Address("me", "office", {}), key, accepted)
    assert keeping_refusals(tmp_path, lambda _: reply)(reply) == reply
    assert not list(tmp_path.iterdir())
