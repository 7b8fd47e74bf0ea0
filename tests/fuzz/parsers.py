"""Every parser that reads bytes of another party, with valid bytes to start from.

"By a liar" means that what is mutated is inside a valid signature or seal, as a member of the alliance can make it, so
that the parser behind the check sees it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, get_args

import numpy as np

from fl_alliance.evidence.bundle import MANIFEST, check_manifest, write_manifest
from fl_alliance.evidence.keys import public_key_of
from fl_alliance.evidence.log import check_receipt, members_entry, plan_entry
from fl_alliance.evidence.sign import peek_document, read_envelope, sign_document, sign_message
from fl_alliance.parties import institution, mail
from fl_alliance.parties.log_book import LogBook
from fl_alliance.parties.transparency import CoordinatorLog
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import LogCheckpoint, RoundRecord, Statement, statement_for
from fl_alliance.protocol.envelope import STATEMENT_TYPE
from fl_alliance.protocol.ids import blob_ref
from fl_alliance.protocol.log import LogPiece, LogReceipt
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.secagg import cipher, frame, keywrap, masks, shares
from fl_alliance.secagg.derive import key_for
from fl_alliance.secagg.frame import Kind
from fl_alliance.secagg.parameters import sum_parameters
from fl_alliance.secagg.worker import CipherWorker, Performance
from fl_alliance.store.blobs import FolderBlobs
from tests.evidence.alliance import key_of
from tests.protocol.examples import DOCUMENTS, ENVELOPE, MESSAGES
from tests.secagg.alliance import CONTEXT, Alliance

P = sum_parameters(members=1000, bits=8)
SLOTS = 20
OFFICE, ME = "office", "lima"
KEYS = {name: key_of(name) for name in (OFFICE, "berlin", "lagos", ME)}
PUBLICS = {name: key.public for name, key in KEYS.items()}
HOUSE = mail.Address(ME, OFFICE, PUBLICS)
COORDINATOR = mail.Address(OFFICE, OFFICE, PUBLICS)
REQUESTS = [message for message in MESSAGES.values() if isinstance(message, get_args(m.Request))]
ANSWERS = [message for message in MESSAGES.values() if isinstance(message, get_args(m.Answer))]


@dataclass(frozen=True)
class Parser:
    """`parse` gets mutations of `seeds`, of which it accepts each as it is."""

    name: str
    seeds: list[bytes]
    parse: Callable[[bytes], object]


@contextlib.contextmanager
def all_parsers() -> Iterator[dict[str, Parser]]:
    """Give every parser by name; workers and folders behind them go when the context ends."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        away = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        house = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        from tests.fuzz import evidence

        parsers = [*messages(), *documents(folder), *logs(away), *evidence.parsers(house), *sealed(), *ciphers(stack)]
        yield {parser.name: parser for parser in parsers}


# ---- messages


def messages() -> list[Parser]:
    requests, answers = [encode(message) for message in REQUESTS], [encode(message) for message in ANSWERS]
    asked = [mail.write_request(COORDINATOR, KEYS[OFFICE], ME, message) for message in REQUESTS]
    answered = [mail.write_answer(HOUSE, KEYS[ME], message) for message in ANSWERS]
    label_of = {True: mail._label(REQUESTS[0], OFFICE, ME), False: mail._label(ANSWERS[0], ME, OFFICE)}

    def signed(data: bytes, *, request: bool) -> bytes:
        return sign_message(KEYS[OFFICE if request else ME], label_of[request], data)

    def request(data: bytes) -> None:
        institution.relayed_envelopes(mail.read_request(HOUSE, data))

    return [
        Parser("request", requests, lambda data: institution.relayed_envelopes(decode(m.REQUEST, data))),
        Parser("answer", answers, lambda data: decode(m.ANSWER, data)),
        Parser("envelope", asked + answered, read_envelope),
        Parser("mail: request", asked, request),
        Parser("mail: answer", answered, lambda data: mail.read_answer(COORDINATOR, data)),
        Parser("mail: first proposal", asked[:1], institution._members_in),
        Parser("mail: request by a liar", requests[:1], lambda data: request(signed(data, request=True))),
        Parser(
            "mail: answer by a liar",
            answers[:1],
            lambda data: mail.read_answer(COORDINATOR, signed(data, request=False)),
        ),
    ]


# ---- documents and evidence


def documents(folder: Path) -> list[Parser]:
    statements = [encode(statement_for(document)) for document in DOCUMENTS.values()]
    record, plan = DOCUMENTS["round-record"], DOCUMENTS["training-plan"]
    assert isinstance(record, RoundRecord)
    assert isinstance(plan, TrainingPlan)
    (folder / "report.html").write_bytes(b"report")
    manifest = write_manifest(folder, KEYS[ME], institution=ME)
    inside = read_envelope(manifest).body

    def check(data: bytes) -> None:
        (folder / MANIFEST).write_bytes(data)
        check_manifest(folder)

    def signed(data: bytes) -> bytes:
        return sign_message(KEYS[ME], STATEMENT_TYPE, data)

    def peek(data: bytes) -> None:
        peek_document(data, RoundRecord)

    return [
        Parser("statement", statements, lambda data: decode(Statement, data)),
        Parser("document: peek", [signed(encode(statement_for(record)))], peek),
        Parser("document: by a liar", [encode(statement_for(record))], lambda data: peek(signed(data))),
        Parser("manifest", [manifest], check),
        Parser("manifest by a liar", [inside], lambda data: check(signed(data))),
        Parser("public key", [KEYS[ME].public_text.encode()], lambda data: public_key_of(data.decode("latin-1"))),
        Parser("envelope of the specification", [encode(e) for e in ENVELOPE.values()], _one_signature),
    ]


def logs(folder: Path) -> list[Parser]:
    """The coordinator's log: what institutions fetch and auditors read."""
    blobs, office = FolderBlobs(folder / "blobs"), KEYS[OFFICE]
    log = CoordinatorLog(folder / OFFICE, alliance="clinics", identity=office, blobs=blobs, clock=lambda: 1.8e9)
    entry = plan_entry("nouns-7", b"plan")
    log.add(members_entry(b"members"), entry)
    shown = log.checkpoint()
    book = LogBook(folder / ME, name=ME, alliance="clinics", blobs=blobs)
    book.visit(shown, office.public, [entry])
    checkpoint = peek_document(shown, LogCheckpoint)
    piece = b"".join(blobs.read(checkpoint.newest))

    def visited(data: bytes) -> None:
        blobs.put(ref := blob_ref(data), [data])
        lie = sign_document(office, checkpoint.model_copy(update={"newest": ref}))
        with tempfile.TemporaryDirectory() as away:
            LogBook(Path(away), name=ME, alliance="clinics", blobs=blobs).visit(lie, office.public, [entry])
        blobs.path(ref).unlink()

    def checked(data: bytes) -> None:
        check_receipt(decode(LogReceipt, data), alliance="clinics", public_key=office.public)

    statement = encode(statement_for(checkpoint))
    return [
        Parser("log: piece", [piece], lambda data: decode(LogPiece, data)),
        Parser("log: piece by a liar", [piece], visited),
        Parser("log: receipt", [book.evidence(0, shown, entry)["receipt-0000.json"]], checked),
        Parser(
            "log: checkpoint by a liar",
            [statement],
            lambda data: book.visit(sign_message(office, STATEMENT_TYPE, data), office.public, [entry]),
        ),
    ]


def _one_signature(data: bytes) -> object:
    return decode(type(next(iter(ENVELOPE.values()))), data)


# ---- keys and shares


def sealed() -> list[Parser]:
    house = Alliance(3)
    sender, me = house.names[0], house.names[1]
    dealt = shares.deal_shares(threshold=2, **house.session(sender))[me]
    channel = shares._key("share", house.secrets[sender], sender, sender, me, house.publics, CONTEXT)
    lists = shares.Lists.of(dealers=house.names, survivors=house.names)
    secret = house.key.to_bytes()
    revealed = {}
    all_dealt = house.deal()
    for name in house.names:
        pairs = shares.open_shares(house.dealt_to(name, all_dealt), **house.session(name))
        revealed[name] = shares.reveal_shares(pairs, lists, me=name, group_secret=secret, context=CONTEXT)
    revealing = key_for("revealed-shares", secret, CONTEXT, sender, lists.digest)
    private, public = keywrap.generate_wrap_key()
    content_key, sealed_key = keywrap.seal_key(b"k" * 100, "i")

    def opened(data: bytes) -> object:
        return shares.open_shares({sender: data}, **house.session(me))

    def recovered(data: bytes) -> object:
        return shares.recover_seeds(
            {**revealed, sender: data},
            lists,
            threshold=3,
            group_secret=secret,
            publics=house.publics,
            context=CONTEXT,
        )

    return [
        Parser("shares: open", [dealt], opened),
        Parser(
            "shares: open, by a liar", [shares._open(channel, dealt, "")], lambda d: opened(shares._seal(channel, d))
        ),
        Parser("shares: recover", [revealed[sender]], recovered),
        Parser(
            "shares: recover, by a liar",
            [shares._open(revealing, revealed[sender], "")],
            lambda data: recovered(shares._seal(revealing, data)),
        ),
        Parser(
            "alliance key: unwrap",
            [keywrap.wrap_key(content_key, public, "i")],
            lambda data: keywrap.unwrap_key(data, private, "i"),
        ),
        Parser("alliance key: open", [sealed_key], lambda data: keywrap.open_key(data, content_key, "i")),
        Parser("alliance key: content key", [content_key], lambda data: keywrap.open_key(sealed_key, data, "i")),
        Parser("round keys", [bytes(32)], lambda data: masks.RoundPublic(mask=data, channel=data)),
    ]


# ---- ciphers, in workers


class Workers:
    """Workers that live from input to input, and new ones when one was lost or its sum is full."""

    def __init__(self) -> None:
        self.key = cipher.AllianceKey.generate(P)
        self._worker = CipherWorker(P, Performance(seconds=10.0))
        self._sum = self._worker.running_sum(SLOTS)
        self._keyed: Any = None

    def add(self, data: bytes) -> None:
        if self._sum.lost or self._sum.taken == P.members:
            self._sum.close()
            self._sum = self._worker.running_sum(SLOTS)
        self._sum.take(data)

    def open(self, data: bytes) -> None:
        def open_chunks(chunks: list[bytes]) -> Any:
            worker = self._with_key()
            worker.tell(chunks, b"o", foreign="the sum")
            parts = worker.answer(len(chunks), 1 << 20, foreign="the sum")
            return np.frombuffer(b"".join(parts), np.uint64)

        cipher.open_sum(data, key=self.key, parameters=P, slots=SLOTS, open_chunks=open_chunks)

    def load_key(self, data: bytes) -> None:
        self._with_key().request(b"k", data, foreign="the alliance key")

    def _with_key(self) -> Any:
        if self._keyed is None or not self._keyed.alive:
            self._keyed = self._worker._start()
            self._keyed.request(b"k", self.key.to_bytes())
        return self._keyed

    def close(self) -> None:
        self._sum.close()
        if self._keyed is not None:
            self._keyed.close()


def ciphers(stack: ExitStack) -> list[Parser]:
    workers = Workers()
    stack.callback(workers.close)
    slots = np.arange(SLOTS, dtype=np.uint64)
    uploads = [cipher.seal(slots + np.uint64(n), key=workers.key, parameters=P) for n in range(3)]
    total = cipher.add(uploads, parameters=P, slots=SLOTS, count=3)
    long = sum_parameters(members=3, bits=16)
    chunks = [_with_header(bytes(range(16, size))) for size in (16, 40, 200)]
    three = frame.write(Kind.UPLOAD, long, 9000, chunks)

    def framed(data: bytes) -> None:
        rng = Random(len(data))
        sizes = iter(lambda: rng.choice((1, 7, 29, 400)), 0)
        at, pieces = 0, []
        while at < len(data):
            size = next(sizes)
            pieces.append(data[at : at + size])
            at += size
        frame.slots_in(data)
        for _ in frame.split(Kind.UPLOAD, pieces, long, 9000):
            pass

    return [
        Parser("frame", [three], framed),
        Parser("cipher: upload", uploads, workers.add),
        Parser("cipher: inside an upload", [frame.read(Kind.UPLOAD, u, P, SLOTS)[0] for u in uploads],
               lambda data: workers.add(_reframed(Kind.UPLOAD, data))),
        Parser("cipher: inside a sum", frame.read(Kind.SUM, total, P, SLOTS),
               lambda data: workers.open(_reframed(Kind.SUM, data))),
        Parser("cipher: alliance key", [workers.key.to_bytes()], workers.load_key),
    ]  # fmt: skip


def _reframed(kind: Kind, chunk: bytes) -> bytes:
    """A frame that is right, around a chunk whose header is: SEAL gets to see the rest."""
    return frame.write(kind, P, SLOTS, [_with_header(chunk[16:])])


def _with_header(body: bytes) -> bytes:
    return bytes.fromhex("5ea1100403020000") + (16 + len(body)).to_bytes(8, "little") + body
