"""The institution's work: policy and ledger, keys, training, cipher, adapter, evidence.

Here the rooms are joined: `training` gives a noised float update, `secagg` makes it integers and ciphertext, `privacy`
says what it cost, `evidence` signs. Each step of the machine is one method. Secrets of a round are attributes of this
object; what a new process would need of them is given out by `changes` and taken back by `resume`.
"""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fl_alliance.errors import BadPlan, NotAuthentic, OutOfOrder, StoreFailed
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties.accounts import Accounts
from fl_alliance.parties.adder import signed_pieces
from fl_alliance.parties.audit_software import SOFTWARE
from fl_alliance.parties.files import sync_folder, write_atomically
from fl_alliance.parties.heads import heads_in_evidence
from fl_alliance.parties.once import Once
from fl_alliance.parties.release import ModelReleaser
from fl_alliance.parties.sbom import bill_of_materials
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.documents import AllianceMembers
from fl_alliance.protocol.evaluation import score_of
from fl_alliance.protocol.ids import BlobRef, blob_ref, digest_of
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.protocol.ports import Blobs
from fl_alliance.rounds import institution as machine
from fl_alliance.secagg import cipher, fixedpoint, keywrap, masks, packing, shares
from fl_alliance.secagg.parameters import SumParameters, sum_parameters
from fl_alliance.secagg.worker import ISOLATED, CipherWorker, Performance

Vector = NDArray[np.float64]
T = TypeVar("T")


class Trainer(Protocol):
    """A warm model with its adapter."""

    @property
    def vector(self) -> Vector:
        """The adapter's trained parameters, shape (d,)."""

    def train_round(self) -> Vector:
        """Read the records, take the plan's noised steps, return the update, shape (d,).

        Where the plan evaluates, (d + 1,): last the coordinate of the noised score of the adapter as it was before.
        """

    def apply(self, mean_update: Vector) -> None:
        """Move the adapter by the mean of the members' updates, shape (d,)."""

    def save(self, folder: Path) -> str:
        """Write the adapter as a PEFT folder; return its digest."""

    def state(self) -> bytes:
        """Return what `apply` has changed so far, all rounds together."""

    def restore(self, state: bytes) -> None:
        """Go back to what `state` gave, as after a restart."""


@dataclass(frozen=True)
class Home:
    """Where an institution keeps a job."""

    job: Path

    @property
    def evidence(self) -> Path:
        """What an auditor gets."""
        return self.job / "evidence"

    @property
    def adapter(self) -> Path:
        """The released adapter, a PEFT folder."""
        return self.job / "adapter"

    @property
    def best_adapter(self) -> Path:
        """The released adapter with the best private score so far; only where the plan evaluates."""
        return self.job / "best-adapter"

    def round(self, number: int) -> Path:
        """Evidence of one round."""
        return self.evidence / "rounds" / f"{number:04d}"


class InstitutionDesk:
    """Does the work of one job."""

    def __init__(
        self,
        *,
        name: str,
        identity: IdentityKey,
        jobs: Path,
        blobs: Blobs,
        accounts: Accounts,
        trainer: Callable[[TrainingPlan], Trainer],
        public_documents: Mapping[str, bytes],
        performance: Performance = ISOLATED,
        releaser: ModelReleaser | None = None,
    ) -> None:
        self._performance, self._releaser = performance, releaser
        self._ciphers: CipherWorker | None = None
        self._name, self._identity, self._jobs, self._blobs = name, identity, jobs, blobs
        self._accounts, self._new_trainer, self._public = accounts, trainer, public_documents
        self._plan: TrainingPlan | None = None
        self._members: AllianceMembers | None = None
        self._trainer: Trainer | None = None
        self._wrap_private: bytes | None = None
        self._key: cipher.AllianceKey | None = None
        self._key_bytes: bytes | None = None
        self._secrets: masks.RoundSecrets | None = None
        self._publics: dict[str, masks.RoundPublic] = {}
        self._pairs: dict[str, shares.SharePair] = {}
        self._context: masks.RoundContext | None = None
        self._update: NDArray[np.uint64] | None = None
        """Packed integers: the update with its noise, rounded at random once."""
        self._trained = b""
        """State of the adapter, for a model that is not loaded yet."""
        self._changed: dict[str, bytes | None] = {}
        self._total = b""
        self._digest = ""
        self._best: Decimal | None = None

    # ---- what the shell hands in

    def require_new(self, job: str) -> None:
        """Refuse a job of a name that left evidence here (OutOfOrder)."""
        if Home(self._jobs / job).evidence.exists():
            raise OutOfOrder(f"job {job} has already been here: give the new plan another job name")

    def begin(self, plan: TrainingPlan, documents: Mapping[str, bytes]) -> None:
        """Take note of the job and keep its signed documents as evidence."""
        self._plan = plan
        for name, data in {**self._public, **documents}.items():
            write_atomically(self.home.evidence / name, data)
        self._digest = digest_of(documents["plan.dsse.json"])
        self._members = peek_document(documents["members.dsse.json"], AllianceMembers)  # the shell has verified it

    def keep_messages(self, round_number: int, messages: Mapping[str, bytes]) -> None:
        """Keep relayed envelopes as evidence."""
        folder = self.home.round(round_number) if round_number else self.home.evidence / "keys"
        for name, envelope in messages.items():
            write_atomically(folder / "messages" / name, envelope)

    def keep_record(self, round_number: int, envelope: bytes) -> None:
        """Keep a record as evidence."""
        write_atomically(self.home.round(round_number) / "record.dsse.json", envelope)

    def keep_log(self, files: Mapping[str, bytes]) -> None:
        """Keep what shows that plan or record is in the transparency log."""
        for name, data in files.items():
            write_atomically(self.home.evidence / "log" / name, data)

    def forget(self) -> None:
        """Forget the secrets and updates of the job."""
        self._wrap_private = self._key = self._key_bytes = self._secrets = self._update = self._context = None
        self._publics, self._pairs, self._total, self._trainer = {}, {}, b"", None
        if self._ciphers is not None:
            self._ciphers.close()
        self._trained, self._changed = b"", {}

    def do(self, work: machine.Work, *, again: bool = False) -> object:
        """Do one piece of work; only a charge minds whether it may have been done before."""
        self._again = again
        return _METHODS[type(work)](self, work)

    # ---- what another process needs to go on

    def changes(self) -> dict[str, bytes | None]:
        """Return what is to be remembered since the last call, by name; None: no longer."""
        changed, self._changed = self._changed, {}
        return changed

    def resume(self, plan: TrainingPlan, documents: Mapping[str, bytes], memory: Mapping[str, bytes]) -> None:
        """Take up the job; model and cipher are loaded when they are needed."""
        self.begin(plan, documents)
        self._wrap_private = memory.get("wrap-key")
        self._key_bytes = memory.get("alliance-key")
        if "round-secrets" in memory:
            self._secrets = masks.RoundSecrets.from_bytes(memory["round-secrets"])
        if "roster" in memory:
            self._take_roster(json.loads(memory["roster"]))
        if "shares" in memory:
            self._pairs = shares.pairs_from_bytes(memory["shares"])
        if "update" in memory:
            self._update = np.frombuffer(memory["update"], np.dtype("<u8")).astype(np.uint64)
        self._trained = memory.get("adapter", b"")
        if "best-score" in memory:
            self._best = Decimal(memory["best-score"].decode())
        self._accounts.restore(memory.get("accounts", b""))

    def _remember(self, name: str, secret: bytes | None) -> None:
        self._changed[name] = secret

    # ---- the job's parts

    @property
    def plan(self) -> TrainingPlan:
        """The plan of the job."""
        return _there(self._plan, "plan")

    @property
    def home(self) -> Home:
        """The folder of the job."""
        return Home(self._jobs / self.plan.job)

    @property
    def _parameters(self) -> SumParameters:
        return sum_parameters(members=len(self.plan.members), bits=self.plan.sum.bits)

    @property
    def _worker(self) -> CipherWorker:
        if self._ciphers is None:
            self._ciphers = CipherWorker(self._parameters, self._performance)
        return self._ciphers

    @property
    def _model(self) -> Trainer:
        if self._trainer is None:
            self._trainer = self._new_trainer(self.plan)
            if self._trained:
                self._trainer.restore(self._trained)
        return self._trainer

    @property
    def _alliance_key(self) -> cipher.AllianceKey:
        if self._key is None:
            self._key = self._worker.load_key(_there(self._key_bytes, "alliance key"))
        return self._key

    @property
    def _slots(self) -> int:
        return self._parameters.slots(self._coordinates)

    @property
    def _coordinates(self) -> int:
        return len(self._model.vector) + (self.plan.evaluation is not None)

    # ---- before the first round

    def _consider(self, work: machine.Consider) -> tuple[str, str]:
        """Ledger and policy first, then data and model: nothing is loaded for a plan that these forbid."""
        parameters = self._parameters
        if parameters.members != len(work.plan.members):
            raise BadPlan(f"members: {len(work.plan.members)} can't be summed exactly")
        seen = {*heads_in_evidence(self._jobs, self._name), *([work.seen_head] if work.seen_head else [])}
        head = self._accounts.approve(work.plan, self._digest, _there(self._members, "list of members"), seen)
        self._trainer = self._new_trainer(work.plan)
        self._wrap_private, public = keywrap.generate_wrap_key()
        self._remember("accounts", self._accounts.state())
        self._remember("wrap-key", self._wrap_private)
        return _text(public), head

    def _make_alliance_key(self, work: machine.MakeAllianceKey) -> tuple[str, str, tuple[m.ToMember, ...]]:
        key = cipher.AllianceKey.generate(self._parameters)
        fingerprint = key.fingerprint()
        content_key, sealed = keywrap.seal_key(key.to_bytes(), self._info("alliance-key", fingerprint))
        wrapped = {
            name: keywrap.wrap_key(content_key, _raw(a.wrap_key), self._info("content-key", name))
            for name, a in work.acceptances.items()
        }
        return fingerprint, _text(sealed), _to_members(wrapped)

    def _take_alliance_key(self, work: machine.TakeAllianceKey) -> str:
        """The fingerprint comes first: all who take the key of one signed message have the same, whoever sealed it."""
        mine, stated = _mine(work.keys.wrapped, self._name), work.keys.key_fingerprint
        private = _there(self._wrap_private, "wrap key")
        content_key = keywrap.unwrap_key(mine, private, self._info("content-key", self._name))
        data = keywrap.open_key(_raw(work.keys.sealed_key), content_key, self._info("alliance-key", stated))
        if (fingerprint := cipher.AllianceKey(data).fingerprint()) != stated:
            raise NotAuthentic(f"the key's fingerprint is {fingerprint}, not {stated}")
        self._key, self._key_bytes, self._wrap_private = self._worker.load_key(data), data, None
        self._remember("alliance-key", data)
        self._remember("wrap-key", None)
        return stated

    def _info(self, purpose: str, whose: str) -> str:
        return f"fl-alliance/1|{purpose}|{self.plan.alliance}|{self.plan.job}|{self._digest}|{whose}"

    # ---- a round

    def _make_round_keys(self, _: machine.MakeRoundKeys) -> tuple[str, str]:
        self._secrets = masks.RoundSecrets.generate()
        self._remember("round-secrets", self._secrets.to_bytes())
        public = self._secrets.public
        return _text(public.mask), _text(public.channel)

    def _deal_shares(self, work: machine.DealShares) -> tuple[m.ToMember, ...]:
        keys = {name: [keys.mask_key, keys.channel_key] for name, keys in work.roster.items()}
        roster = {"round": work.round, "digest": work.roster_digest, "keys": keys}
        self._take_roster(roster)
        own = _there(self._secrets, "round keys")
        if self._publics[self._name] != own.public:
            raise NotAuthentic("the roster names other round keys as mine")
        self._remember("roster", json.dumps(roster).encode())
        dealt = shares.deal_shares(threshold=self.plan.threshold, **self._session())
        return _to_members(dealt)

    def _take_roster(self, roster: Mapping[str, Any]) -> None:
        """Take the round keys of all, {name: [mask key, channel key]} in base64, and what binds masks to the round."""
        self._publics = {
            name: masks.RoundPublic(mask=_raw(mask), channel=_raw(channel))
            for name, (mask, channel) in roster["keys"].items()
        }
        self._context = masks.RoundContext(
            alliance=self.plan.alliance, job=self.plan.job, round=roster["round"], roster_digest=roster["digest"]
        )

    def _open_shares(self, work: machine.OpenShares) -> None:
        sealed = {sender: _mine(answer.shares, self._name) for sender, answer in work.dealt.items()}
        self._pairs = shares.open_shares(sealed, **self._session())
        self._remember("shares", shares.pairs_to_bytes(self._pairs))

    def _charge(self, work: machine.Charge) -> str:
        head = self._accounts.charge(self.plan, self._digest, work.round, again=self._again)
        self._remember("accounts", self._accounts.state())
        return head

    def _train(self, _: machine.Train) -> Any:
        """Train. The file was read after it was charged by its digest: an update of another file goes no further.

        It is rounded here, and once: two roundings under the same masks would differ by what the masks hide.
        """
        plan = self.plan
        update = self._model.train_round()
        self._accounts.require_charged_records()
        digits = fixedpoint.quantise(update, clip=float(plan.sum.coordinate_clip), bits=plan.sum.bits)
        self._update = packing.pack(digits, self._parameters)
        self._remember("update", self._update.astype(np.dtype("<u8")).tobytes())
        return None

    def _seal(self, work: machine.Seal) -> BlobRef:
        """Mask, encrypt, upload. Done again it is the same vector under the same masks, encrypted anew."""
        towards = {**self._session(), "publics": {name: self._publics[name] for name in work.dealers}}
        slots, bits = _there(self._update, "update"), self._parameters.modulus_bits
        self._once.note("update", work.round, digest_of(json.dumps(work.dealers).encode() + slots.tobytes()))
        masked = masks.add_masks(slots, modulus_bits=bits, **towards)
        upload = self._worker.seal(masked, key=self._alliance_key)
        self._update = None
        self._remember("update", None)
        self._worker.get_ready(2)  # to add again and to open, while the others' updates are on their way
        ref = blob_ref(upload)
        self._blobs.put(ref, [upload])
        return ref

    def _reveal_shares(self, work: machine.RevealShares) -> str:
        """Give one kind of share for each dealer, once: the shares are forgotten with this answer."""
        lists = shares.Lists.of(dealers=work.dealers, survivors=work.survivors)
        self._once.note("list", work.round, digest_of(json.dumps([work.dealers, work.survivors]).encode()))
        pairs, self._pairs = self._pairs, {}
        self._remember("shares", None)
        return _text(
            shares.reveal_shares(
                pairs, lists, me=self._name, group_secret=self._group_secret, context=_there(self._context, "round")
            )
        )

    def _add_again(self, work: machine.AddAgain) -> BlobRef:
        with self._worker.running_sum(self._slots) as total:
            for name, ref in sorted(work.uploads.items()):
                total.take(signed_pieces(self._blobs, ref), f"the upload of {name}")
            self._total = total.to_bytes()
        return blob_ref(self._total)

    def _open_sum(self, work: machine.OpenSum) -> tuple[str, str | None]:
        """Decrypt, take off what is left of the masks, unpack, dequantise, apply the plain mean; read the score."""
        plan, parameters = self.plan, self._parameters
        total = self._unmasked(work)
        digits = packing.unpack(total, parameters, self._coordinates)
        added = fixedpoint.dequantise_sum(
            digits, clip=float(plan.sum.coordinate_clip), bits=plan.sum.bits, members=len(work.survivors)
        )
        mean, size = added / len(work.survivors), len(self._model.vector)
        score = None if plan.evaluation is None else score_of(float(mean[size]), plan)
        self._model.apply(mean[:size])
        shutil.rmtree(self._candidate, ignore_errors=True)  # of a process that was killed right here
        self._total, self._secrets = b"", None
        self._remember("adapter", self._model.state())
        self._remember("round-secrets", None)
        digest = self._model.save(self._candidate)
        if self._candidate.exists():  # a stand-in may keep no files
            sync_folder(self._candidate)  # before the journal says that it is there
        return digest, score

    def _unmasked(self, work: machine.OpenSum) -> NDArray[np.uint64]:
        context, bits = _there(self._context, "round"), self._parameters.modulus_bits
        seeds = shares.recover_seeds(
            {sender: _raw(answer.sealed) for sender, answer in work.revealed.items()},
            shares.Lists.of(dealers=work.dealers, survivors=work.survivors),
            threshold=self.plan.threshold,
            group_secret=self._group_secret,
            publics=self._publics,
            context=context,
        )
        data = self._total or b"".join(signed_pieces(self._blobs, work.sum))
        total = self._worker.open_sum(data, key=self._alliance_key, slots=self._slots)
        total = masks.remove_self_masks(total, self_seeds=seeds.selfs, context=context, modulus_bits=bits)
        return masks.remove_pairwise_masks(
            total,
            mask_seeds=seeds.masks,
            survivors=work.survivors,
            publics=self._publics,
            context=context,
            modulus_bits=bits,
        )

    @property
    def _group_secret(self) -> bytes:
        """What every institution of the job has and the coordinator has not."""
        return _there(self._key_bytes, "alliance key")

    @property
    def _once(self) -> Once:
        return Once(self.home.job / "left")

    @property
    def _candidate(self) -> Path:
        return self.home.job / "candidate"

    def _keep(self, work: machine.Keep) -> tuple[str | None, BlobRef | None]:
        """Release the adapter that the quorum signed; after the last round write the report, card and signatures."""
        moved = not self._candidate.exists()  # by a process that was killed then
        self._keep_best(work.record.score, copied=moved)
        if not moved:
            _replace_folder(self._candidate, self.home.adapter)
        _clear_replaced(self.home.adapter)
        if not work.last:
            return None, None
        bill = bill_of_materials(self.plan, moment=work.record.time)
        write_atomically(self.home.evidence / SOFTWARE, bill)
        report = self._accounts.report(self.plan, self._digest, self.home.evidence, work.record)
        if self._releaser is not None:  # a stand-in's adapter is no model
            self._releaser.write(self.home.adapter, self.plan, self._digest, self.home.evidence, work.record)
        adapter = None
        if self.plan.release_to_coordinator:
            data = (self.home.adapter / "adapter_model.safetensors").read_bytes()
            adapter = blob_ref(data)
            self._blobs.put(adapter, [data])
        return report, adapter

    def _keep_best(self, score: str | None, *, copied: bool) -> None:
        """Copy the adapter with which the round began, if none before it has a better score; or that is done."""
        if score is None or (self._best is not None and Decimal(score) >= self._best):
            return
        self._best = Decimal(score)
        self._remember("best-score", score.encode())
        if not copied and self.home.adapter.exists():  # not in round 1: that score is the base's
            half = self.home.job / "best-half"
            _copy_folder(self.home.adapter, half)
            _replace_folder(half, self.home.best_adapter)
            _clear_replaced(self.home.best_adapter)

    def _session(self) -> dict[str, Any]:
        """What every local step of the masking protocol needs."""
        return {
            "secrets": _there(self._secrets, "round keys"),
            "me": self._name,
            "publics": self._publics,
            "context": _there(self._context, "round"),
        }


_METHODS: dict[type[machine.Work], Callable[[InstitutionDesk, Any], object]] = {
    machine.Consider: InstitutionDesk._consider,
    machine.MakeAllianceKey: InstitutionDesk._make_alliance_key,
    machine.TakeAllianceKey: InstitutionDesk._take_alliance_key,
    machine.MakeRoundKeys: InstitutionDesk._make_round_keys,
    machine.DealShares: InstitutionDesk._deal_shares,
    machine.OpenShares: InstitutionDesk._open_shares,
    machine.Charge: InstitutionDesk._charge,
    machine.Train: InstitutionDesk._train,
    machine.Seal: InstitutionDesk._seal,
    machine.RevealShares: InstitutionDesk._reveal_shares,
    machine.AddAgain: InstitutionDesk._add_again,
    machine.OpenSum: InstitutionDesk._open_sum,
    machine.Keep: InstitutionDesk._keep,
}


def _copy_folder(folder: Path, copy: Path) -> None:
    """Copy a folder; what a killed process left at `copy` goes first (StoreFailed: the disk refuses)."""
    shutil.rmtree(copy, ignore_errors=True)
    try:
        shutil.copytree(folder, copy)
        sync_folder(copy)
    except (OSError, shutil.Error) as error:
        raise StoreFailed(f"{folder.name} can't be copied in {folder.parent}: {type(error).__name__}") from None


def _replace_folder(new: Path, old: Path) -> None:
    """Put `new` in the place of `old`; killed in between, `new` is still where it was (StoreFailed)."""
    try:
        _move_folder(new, old)
    except OSError as error:
        raise StoreFailed(f"{old.name} can't be replaced in {old.parent}: {error.strerror}") from None


def _move_folder(new: Path, old: Path) -> None:
    away = old.with_name(f".{old.name}-{time.monotonic_ns()}")
    if old.exists():
        old.rename(away)
    new.rename(old)
    sync_folder(old.parent)


def _clear_replaced(folder: Path) -> None:
    """Remove what was in the place of `folder`, also before a process was killed."""
    for away in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(away, ignore_errors=True)


def _there(value: T | None, what: str) -> T:
    if value is None:
        raise OutOfOrder(f"there is no {what} now: the job is over or has not begun")
    return value


def _mine(to_members: tuple[m.ToMember, ...], me: str) -> bytes:
    return next(_raw(to.sealed) for to in to_members if to.member == me)


def _to_members(sealed: Mapping[str, bytes]) -> tuple[m.ToMember, ...]:
    return tuple(m.ToMember(member=name, sealed=_text(data)) for name, data in sorted(sealed.items()))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _raw(text: str) -> bytes:
    return base64.b64decode(text)
