"""The attacked alliance, whole: real institutions that answer signed requests, and the attacker coordinates them.

Machines, desks, signatures, masks, shares and ciphers are the package's own. Left out are training, the ledger and
files: an update is chosen by the test. `Wire` is what the attacker holds: the coordinator's signing key, every byte
that was sent, the blobs; and of the institutions that help it, everything. The rest of them it can only ask.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.log import members_entry, plan_entry, record_entry
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties.desk import InstitutionDesk
from fl_alliance.parties.institution import Institution
from fl_alliance.parties.job_journal import JobJournal
from fl_alliance.parties.log_book import LogBook
from fl_alliance.parties.mail import Address, read_answer, write_answer, write_request
from fl_alliance.parties.once import Once
from fl_alliance.parties.transparency import CoordinatorLog
from fl_alliance.parties.vault import Vault
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import AllianceMember, AllianceMembers, LedgerHead, RoundRecord, Upload
from fl_alliance.protocol.ids import BlobRef, blob_ref, digest_of
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.rounds import institution as machine
from fl_alliance.secagg import cipher, derive, masks, shares
from fl_alliance.secagg.frame import Kind
from fl_alliance.secagg.parameters import sum_parameters
from tests.attacks import lattice
from tests.attacks.alliance import Digits, Slots, rebuild
from tests.parties.pages import MemoryPages
from tests.rounds.real import CLIP, HERE, FixedTrainer, MemoryBlobs, NoAccounts, on_levels, real_plan

BITS = 16
A = TypeVar("A", bound=m.Answer)
Rows = tuple[shares.Lists, list[tuple[int, dict[str, bytes]]]]
"""What was revealed for a pair of lists: (place of the sender, name -> its share, of the kind that the lists say)."""


class Refused(Exception):
    """An institution said no; the text is its error and its reason."""


class Desk(InstitutionDesk):
    """A desk that keeps no evidence."""

    trainer: FixedTrainer

    def keep_messages(self, round_number: int, messages: Mapping[str, bytes]) -> None:
        pass

    def keep_record(self, round_number: int, envelope: bytes) -> None:
        pass

    def keep_log(self, files: Mapping[str, bytes]) -> None:
        pass

    def do(self, work: machine.Work, *, again: bool = False) -> object:
        if isinstance(work, machine.Keep):
            return (digest_of(b"report") if work.last else None), None
        return super().do(work, again=again)


class Wire:
    """`members` institutions; the first `helpers` of them help the attacker, the last one is its victim."""

    def __init__(self, folder: Path, members: int = 5, *, helpers: int = 1, dimension: int = 6000, **plan: Any) -> None:
        self.plan: TrainingPlan = real_plan(members, BITS, **plan)
        self.folder = folder
        self.names = list(self.plan.names)
        self.helpers, self.honest, self.victim = self.names[:helpers], self.names[helpers:], self.names[-1]
        self.parameters = sum_parameters(members=members, bits=BITS)
        self.dimension, self.slots = dimension, self.parameters.slots(dimension)
        self.identities = {name: IdentityKey.generate() for name in (*self.names, "coordinator")}
        keys = {name: identity.public for name, identity in self.identities.items()}
        self.address, self.blobs = Address("coordinator", "coordinator", keys), MemoryBlobs()
        root = IdentityKey.generate()
        self.members_envelope = sign_document(root, self._members())
        self.plan_envelope = self.signed(self.plan)
        self.log = CoordinatorLog(
            folder / "log",
            alliance=self.plan.alliance,
            identity=self.identities["coordinator"],
            blobs=self.blobs,
            clock=lambda: 0,
        )
        self.shown = b""
        self.desks = {name: self._desk(name, folder / name) for name in self.names}
        self.folder, self.root = folder, root
        self.pages = {name: MemoryPages() for name in self.names}
        self.institutions = {name: self._institution(name, root.public) for name in self.names}
        self.said: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
        """(kind, round) -> sender -> envelope, as it came."""
        self.round, self.stated = 0, BlobRef(digest=digest_of(b""), length=0)
        self.previous: str | None = None
        self.last_seen: str | None = None
        self.alliance_key: cipher.AllianceKey | None = None
        """The attacker's only with a helper, and otherwise for the test only."""
        self.digits: dict[str, Digits] = {}
        """The truth, for the test only."""
        self.train(np.random.default_rng(7).integers(0, 1 << BITS, (members, dimension)))

    def _members(self) -> AllianceMembers:
        identities = sorted(self.identities.items())
        return AllianceMembers(
            alliance=self.plan.alliance,
            serial=1,
            members=tuple(
                AllianceMember(
                    name=name, role="institution" if name in self.names else "coordinator", identity=key.public_text
                )
                for name, key in identities
            ),
        )

    def _desk(self, name: str, jobs: Path) -> Desk:
        trainer = FixedTrainer(np.zeros(self.dimension))
        desk = Desk(
            name=name,
            identity=self.identities[name],
            jobs=jobs,
            blobs=self.blobs,
            accounts=NoAccounts(),  # type: ignore[arg-type]
            trainer=lambda _: trainer,
            public_documents={},
            performance=HERE,
        )
        desk.trainer = trainer
        return desk

    def _institution(self, name: str, root: bytes) -> Institution:
        return Institution(
            name=name,
            alliance=self.plan.alliance,
            identity=self.identities[name],
            root=root,
            coordinator="coordinator",
            members=None,
            desk=lambda: self.desks[name],
            journal=JobJournal(self.pages[name], Vault(self.identities[name], "alliance")),
            log_book=LogBook(self.folder / name / "log", name=name, alliance=self.plan.alliance, blobs=self.blobs),
        )

    def restart(self, name: str) -> None:
        """Start a new process for `name`: of the old one only its pages and its folder are left."""
        trainer = self.desks[name].trainer
        self.desks[name] = self._desk(name, self.folder / name)
        self.desks[name].trainer.update = trainer.update
        self.institutions[name] = self._institution(name, self.root.public)

    def train(self, rows: Digits) -> None:
        """From now on these are the members' updates, shape (members, dimension)."""
        self.digits = {name: row.astype(np.uint64) for name, row in zip(self.names, rows, strict=True)}
        for name, row in self.digits.items():
            self.desks[name].trainer.update = on_levels(row.astype(np.int64), BITS)

    def signed(self, plan: TrainingPlan) -> bytes:
        return sign_document(self.identities["coordinator"], plan)

    # ---- asking

    @property
    def bound(self) -> dict[str, Any]:
        return {"alliance": self.plan.alliance, "job": self.plan.job, "round": self.round}

    def ask(self, name: str, request: m.Request) -> str:
        """Return the envelope of the answer, in base64 (Refused: it is a refusal)."""
        signed = write_request(self.address, self.identities["coordinator"], name, request)
        reply = self.institutions[name].handle(signed)
        _, answer = read_answer(self.address, reply)
        if isinstance(answer, m.Refusal):
            raise Refused(f"{answer.error}: {answer.reason}")
        text = base64.b64encode(reply).decode()
        self.said[answer.kind, answer.round][name] = text
        return text

    def ask_all(self, request: m.Request, names: Iterable[str] | None = None) -> dict[str, str]:
        return {name: self.ask(name, request) for name in (self.names if names is None else sorted(names))}

    def ask_each(self, request: m.Request, names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
        """Ask whatever others say. Return the answers by name, and the refusals."""
        answers, refusals = {}, []
        for name in sorted(names):
            try:
                answers[name] = self.ask(name, request)
            except Refused as refusal:
                refusals.append(str(refusal))
        return answers, refusals

    def sign(self, name: str, answer: m.Answer, identity: IdentityKey | None = None) -> str:
        """Return the envelope of an answer of `name`, which helps, or (NotAuthentic) signed with another identity."""
        address = Address(name, "coordinator", {})
        return base64.b64encode(write_answer(address, identity or self.identities[name], answer)).decode()

    def answer(self, kind: type[A], name: str) -> A:
        """Return what `name` said in this round."""
        envelope = self.said[str(kind.model_fields["kind"].default), self.round][name]
        _, answer = read_answer(self.address, base64.b64decode(envelope))
        assert isinstance(answer, kind)
        return answer

    # ---- the steps of a job

    def start(self) -> None:
        """Everybody accepts and gets the alliance key."""
        wrapped = self.wrapped_keys()
        self.ask_all(self.key_delivery(wrapped))
        self.alliance_key = self.desks[self.names[0]]._key

    def wrapped_keys(self) -> str:
        """Everybody accepts; return the key maker's envelope."""
        accepted = self.ask_all(self.proposal())
        return self.ask(self.names[0], m.KeyRequest(**self.bound, acceptances=relay(accepted)))

    def key_delivery(self, wrapped: str) -> m.KeyDelivery:
        accepted = relay(self.said["acceptance", 0])
        return m.KeyDelivery(**self.bound, acceptances=accepted, wrapped_keys=wrapped)

    def info(self, purpose: str, whose: str) -> str:
        """Return what the alliance key and its content key are bound to (SPEC, section 6)."""
        plan, digest = self.plan, digest_of(self.plan_envelope)
        return f"fl-alliance/1|{purpose}|{plan.alliance}|{plan.job}|{digest}|{whose}"

    def proposal(self) -> m.Proposal:
        plan, members = (base64.b64encode(data).decode() for data in (self.plan_envelope, self.members_envelope))
        return m.Proposal(
            **self.bound, plan=plan, members=members, last_seen=self.last_seen, checkpoint=self.checkpoint()
        )

    def checkpoint(self) -> str:
        """Log plan and list of members as they are now; return the log's checkpoint."""
        self.log.add(members_entry(self.members_envelope), plan_entry(self.plan.job, self.plan_envelope))
        self.shown = self.log.checkpoint()
        return base64.b64encode(self.shown).decode()

    def upload(self, number: int = 1, names: Iterable[str] | None = None, previous: str | None = None) -> None:
        """A round up to the uploads of `names`."""
        self.round = number
        keys = self.ask_all(m.RoundOpening(**self.bound, previous_record=previous), names)
        self.roster = m.KeyRoster(**self.bound, round_keys=relay(keys))
        dealt = self.ask_all(self.roster, names)
        self.dealers = sorted(dealt)
        self.ask_all(m.ShareDelivery(**self.bound, sealed_shares=relay(dealt)), names)

    def list_of(self, names: Collection[str], total: bytes | None = None, **replayed: str) -> m.SurvivorList:
        """Return the list of these uploads with their sum, or with `total`. `replayed`: other envelopes, by name."""
        updates = {name: self.said["sealed-update", self.round][name] for name in names} | replayed
        data = self.sum_of(updates.values()) if total is None else total
        self.stated = blob_ref(data)
        self.blobs.put(self.stated, [data])
        return m.SurvivorList(**self.bound, sealed_updates=relay(updates), sum=self.stated)

    def sum_of(self, envelopes: Iterable[str]) -> bytes:
        answers = [read_answer(self.address, base64.b64decode(text))[1] for text in envelopes]
        uploads = [self.blob(a.upload) for a in answers if isinstance(a, m.SealedUpdate)]
        return cipher.add(uploads, parameters=self.parameters, slots=self.slots, count=len(uploads))

    def blob(self, ref: BlobRef) -> bytes:
        return b"".join(self.blobs.read(ref))

    def confirm(self, shown: m.SurvivorList, to: Iterable[str], helpers: Iterable[str] = ()) -> m.Confirmations:
        """Show a list to members and have helpers sign that they saw it: as many lists as the attacker likes."""
        confirmed = self.ask_all(shown, to)
        claim = m.SurvivorsConfirmed(**self.bound, survivors_digest=digest_of(encode(shown)))
        confirmed |= {name: self.sign(name, claim) for name in helpers}
        return m.Confirmations(**self.bound, confirmed=relay(confirmed))

    def open(self, shown: m.SurvivorList, names: Iterable[str]) -> dict[str, str]:
        """Let everybody follow the protocol from the list to the votes; return the votes."""
        to = sorted(names)
        revealed = self.ask_all(self.confirm(shown, to), to)
        checks = self.ask_all(m.RevealDelivery(**self.bound, revealed_shares=relay(revealed)), to)
        return self.ask_all(m.SumChecks(**self.bound, sum_checked=relay(checks)), to)

    def release(self, votes: Mapping[str, str]) -> str:
        """Let the voters keep the round's record; return its digest."""
        updates = {name: self.answer(m.SealedUpdate, name) for name in sorted(votes)}
        record = RoundRecord(
            **self.bound,
            plan_digest=digest_of(self.plan_envelope),
            roster_digest=digest_of(encode(self.roster)),
            members=tuple(self.dealers),
            uploads=tuple(Upload(member=n, digest=u.upload.digest, length=u.upload.length) for n, u in updates.items()),
            sum_digest=self.stated.digest,
            sum_length=self.stated.length,
            adapter_digest=self.answer(m.AdapterVote, next(iter(votes))).adapter_digest,
            ledger_heads=tuple(LedgerHead(member=n, head=u.ledger_head) for n, u in updates.items()),
            votes=tuple(sorted(votes)),
            previous_record=self.previous,
            time=0,
        )
        envelope = sign_document(self.identities["coordinator"], record)
        self.log.add(record_entry(self.plan.job, self.round, envelope))
        release = m.Release(
            **self.bound,
            record=base64.b64encode(envelope).decode(),
            votes=relay(votes),
            checkpoint=self.checkpoint(),
        )
        self.ask_all(release, votes)
        self.previous = digest_of(envelope)
        return self.previous

    # ---- what helpers know

    @property
    def publics(self) -> dict[str, masks.RoundPublic]:
        raw = base64.b64decode
        keys = {name: self.answer(m.RoundKeys, name) for name in self.dealers}
        return {n: masks.RoundPublic(mask=raw(k.mask_key), channel=raw(k.channel_key)) for n, k in keys.items()}

    @property
    def context(self) -> masks.RoundContext:
        return masks.RoundContext(self.plan.alliance, self.plan.job, self.round, digest_of(encode(self.roster)))

    @property
    def group_secret(self) -> bytes:
        """The alliance key, which a helper gives away."""
        assert self.helpers
        assert self.alliance_key is not None
        return self.alliance_key.to_bytes()

    def decrypted(self, name: str) -> Slots:
        """Return the upload of `name`, opened with the alliance key; the masks are inside."""
        key = lattice.key_from_bytes(self.group_secret, self.parameters)
        upload = self.blob(self.answer(m.SealedUpdate, name).upload)
        return lattice.decrypt(Kind.UPLOAD, upload, key, self.parameters, self.slots)

    def opened_by_helper(self, members: int) -> Digits:
        """Return the sum of the last round that a helper opened, in digits: the mean it applied, times `members`."""
        mean = self.desks[self.helpers[0]].trainer.means[-1]
        top = (1 << BITS) - 1
        twice = np.rint(mean * members * top / CLIP) + members * top
        return (twice.astype(np.int64) // 2).astype(np.uint64)

    def rows(self, answers: Collection[str], survivors: Collection[str]) -> Rows:
        """Open what these members have just revealed for this list of survivors, with the alliance key."""
        lists, found = self.lists(survivors), []
        for sender in answers:
            data = base64.b64decode(self.answer(m.RevealedShares, sender).sealed)
            key = derive.key_for("revealed-shares", self.group_secret, self.context, sender, lists.digest)
            body = ChaCha20Poly1305(key).decrypt(data[:12], data[12:], None)
            parts = [body[at : at + 16] for at in range(2, len(body), 16)]
            found.append((int.from_bytes(body[:2], "big"), dict(zip(lists.names, parts, strict=True))))
        return lists, found

    def seeds_of(self, name: str, *revealed: Rows) -> tuple[bytes | None, bytes | None]:
        """Return self seed and mask seed of `name`, each if the revealed shares and the helpers' own are enough."""
        pairs = [self.desks[helper]._pairs[name] for helper in self.helpers]
        selfs = [(pair.index, pair.self_share) for pair in pairs]
        others = [(pair.index, pair.mask_share) for pair in pairs]
        for lists, rows in revealed:
            kind = selfs if name in lists.survivors else others
            kind += [(index, row[name]) for index, row in rows]
        return self._rebuilt(selfs), self._rebuilt(others)

    def _rebuilt(self, held: list[tuple[int, bytes]]) -> bytes | None:
        return rebuild(held[: self.plan.threshold]) if len(held) >= self.plan.threshold else None

    def lists(self, survivors: Collection[str]) -> shares.Lists:
        return shares.Lists.of(dealers=self.dealers, survivors=survivors)

    def sum_in(self, names: Collection[str]) -> Digits:
        return np.sum([self.digits[name] for name in names], 0, dtype=np.uint64)


def relay(envelopes: Mapping[str, str]) -> tuple[str, ...]:
    """Return envelopes as a request relays them, sorted by sender."""
    return tuple(envelopes[name] for name in sorted(envelopes))


def switch_notes_off(patch: pytest.MonkeyPatch) -> None:
    """Hook: a house keeps no note of what left it in a round."""
    patch.setattr(Once, "note", lambda *_: None)
