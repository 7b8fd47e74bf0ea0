"""What a coordinator may try with its log, against one institution's book; and what a crash may do to either."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_alliance.errors import LogForked, MalformedMessage, NotAuthentic, NotInLog, StoreFailed
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.log import record_entry, root_digest
from fl_alliance.evidence.sign import open_document, sign_document
from fl_alliance.parties.log_book import LogBook
from fl_alliance.parties.transparency import CoordinatorLog
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import LogCheckpoint
from fl_alliance.protocol.ids import blob_ref, digest_of
from fl_alliance.protocol.log import LogEntry, LogPiece
from fl_alliance.store.blobs import FolderBlobs
from tests.evidence.alliance import key_of, policy_of

OFFICE = key_of("office")


def record(number: int, what: str = "record") -> LogEntry:
    return record_entry("job-1", number, f"{what} {number}".encode())


def head(member: str, number: int) -> LogEntry:
    digest = digest_of(f"{member} {number}".encode())
    return LogEntry(kind="ledger-head", job="job-1", round=number, member=member, digest=digest)


class House:
    """A coordinator's log and lagos' book of it, both in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = FolderBlobs(folder / "blobs")
        self.log = self.log_in("office")
        self.book = self.new_book()

    def log_in(self, name: str, *, alliance: str = "clinics", identity: IdentityKey = OFFICE) -> CoordinatorLog:
        return CoordinatorLog(
            self.folder / name, alliance=alliance, identity=identity, blobs=self.blobs, clock=lambda: 1_800_000_000
        )

    def new_book(self) -> LogBook:
        return LogBook(self.folder / "lagos", name="lagos", alliance="clinics", blobs=self.blobs)

    def visit(self, log: CoordinatorLog | None = None, *required: LogEntry) -> bytes:
        shown = (log or self.log).checkpoint()
        self.book.visit(shown, OFFICE.public, required)
        return shown

    def other(self, *entries: LogEntry) -> CoordinatorLog:
        """Another history, signed by the same coordinator."""
        log = self.log_in("other")
        log.add(*entries)
        return log

    @property
    def copied(self) -> bytes:
        return (self.folder / "lagos" / "entries.jsonl").read_bytes()


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.log.add(*(record(number) for number in range(1, 6)))
    house.visit()
    return house


HISTORIES: dict[str, tuple[list[LogEntry], str]] = {
    "shrinks": ([record(n) for n in range(1, 4)], "the log has shrunk: 3 entries, 5 were seen"),
    "drops an entry": (
        [record(n) for n in (1, 2, 4, 5, 6, 7)],
        r"entry 2 is now the round-record of job job-1, round 4",
    ),
    "re-orders": ([record(n) for n in (2, 1, 3, 4, 5, 6)], "entry 0 is now the round-record of job job-1, round 2"),
    "rewrites an entry": ([record(1, "lie"), *(record(n) for n in range(2, 7))], "entry 0 is now"),
    "rewrites the last": ([*(record(n) for n in range(1, 5)), record(5, "lie")], "the log's 5 entries have root"),
    "puts one in between": ([record(n) for n in (1, 2, 9, 3, 4, 5, 6)], "entry 2 is now .* round 9"),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_another_history_is_refused_and_both_checkpoints_are_kept(house: House, name: str) -> None:
    entries, said = HISTORIES[name]
    seen, before = (house.folder / "lagos" / "checkpoint.dsse.json").read_bytes(), house.copied
    other = house.other(*entries)
    with pytest.raises(LogForked, match=said):
        house.visit(other)
    kept = {path.name: path.read_bytes() for path in (house.folder / "lagos" / "forks" / "0001").iterdir()}
    assert kept == {"seen.dsse.json": seen, "shown.dsse.json": other.checkpoint()}
    two = [open_document(data, LogCheckpoint, public_key=OFFICE.public) for data in kept.values()]
    assert two[0].root != two[1].root
    assert (house.copied, (house.folder / "lagos" / "checkpoint.dsse.json").read_bytes()) == (before, seen)
    house.log.add(record(6))
    house.visit(None, record(6))


def test_a_log_rewritten_after_a_restart_is_refused(house: House) -> None:
    path = house.folder / "office" / "entries.jsonl"
    path.write_bytes(path.read_bytes().replace(record(2).digest.encode(), record(2, "lie").digest.encode()))
    (house.folder / "office" / "newest.json").unlink()
    house.log, house.book = house.log_in("office"), house.new_book()
    house.log.add(record(6))
    with pytest.raises(LogForked, match="entry 1 is now"):
        house.visit()


FOREIGN: dict[str, tuple[Callable[[House], bytes], str]] = {
    "of another alliance": (
        lambda house: house.log_in("office", alliance="schools").checkpoint(),
        "a checkpoint of the log of alliance schools, expected clinics",
    ),
    "signed by another key": (
        lambda house: house.log_in("office", identity=key_of("lima")).checkpoint(),
        "signed with key",
    ),
    "another document of the coordinator": (
        lambda house: sign_document(OFFICE, policy_of()),
        "a institution-policy document, expected LogCheckpoint",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_checkpoint_is_refused_and_not_pinned(house: House, name: str) -> None:
    make, said = FOREIGN[name]
    before = (house.folder / "lagos" / "checkpoint.dsse.json").read_bytes()
    with pytest.raises(NotAuthentic, match=said):
        house.book.visit(make(house), OFFICE.public, ())
    assert (house.folder / "lagos" / "checkpoint.dsse.json").read_bytes() == before


def test_what_is_relied_on_must_be_in_the_log(house: House) -> None:
    with pytest.raises(NotInLog, match=r"the log of 5 entries lacks the round-record of job job-1, round 6 \(sha256:"):
        house.visit(None, record(6))


def test_the_answer_that_is_brought_back_must_be_the_newest_of_the_log(house: House) -> None:
    house.book.require_newest_head(None)
    house.log.add(head("lagos", 1), head("lagos", 2), head("lima", 3))
    house.visit()
    house.new_book().require_newest_head(head("lagos", 2).digest)
    for old in (None, head("lagos", 1).digest, head("lima", 3).digest):
        with pytest.raises(NotInLog, match="was brought back, the log's newest head of lagos: "):
            house.book.require_newest_head(old)


def checkpoint_of(house: House, size: int, root: str, piece: LogPiece) -> bytes:
    data = encode(piece)
    house.blobs.put(blob_ref(data), [data])
    document = LogCheckpoint(alliance="clinics", size=size, root=root, newest=blob_ref(data), time=0)
    return sign_document(OFFICE, document)


def test_pieces_that_do_not_fit_together_are_refused(house: House) -> None:
    first = LogPiece(first=0, previous=None, entries=(record(1),))
    house.blobs.put(blob_ref(encode(first)), [encode(first)])
    gap = LogPiece(first=8, previous=blob_ref(encode(first)), entries=(record(9),))
    with pytest.raises(MalformedMessage, match="a piece ends with entry 1, the next begins at 8"):
        house.book.visit(checkpoint_of(house, 9, digest_of(b"root"), gap), OFFICE.public, ())
    with pytest.raises(MalformedMessage, match="the newest piece ends with entry 9 of 7"):
        house.book.visit(checkpoint_of(house, 7, digest_of(b"root"), gap), OFFICE.public, ())


def test_a_piece_that_nobody_should_fetch_is_not_fetched(house: House) -> None:
    document = LogCheckpoint(alliance="clinics", size=9, root=digest_of(b""), newest=blob_ref(b"absent"), time=0)
    long = document.model_copy(update={"newest": blob_ref(b"absent").model_copy(update={"length": 9 << 20})})
    with pytest.raises(MalformedMessage, match="a piece of the log of 9437184 bytes, at most 8388608"):
        house.book.visit(sign_document(OFFICE, long), OFFICE.public, ())
    with pytest.raises(StoreFailed):
        house.book.visit(sign_document(OFFICE, document), OFFICE.public, ())


# ---- crashes, and any history


def test_entries_copied_by_a_process_that_died_before_it_pinned_are_copied_again(house: House) -> None:
    old = (house.folder / "lagos" / "checkpoint.dsse.json").read_bytes()
    house.log.add(record(6), record(7))
    house.visit()
    (house.folder / "lagos" / "checkpoint.dsse.json").write_bytes(old)
    with (house.folder / "lagos" / "entries.jsonl").open("ab") as file:
        file.write(b'{"torn":')
    house.book = house.new_book()
    house.visit(None, record(7))
    assert house.copied == (house.folder / "office" / "entries.jsonl").read_bytes()


def test_a_copy_that_is_not_what_was_pinned_is_no_copy(house: House) -> None:
    path = house.folder / "lagos" / "entries.jsonl"
    path.write_bytes(path.read_bytes().replace(record(2).digest.encode(), record(3).digest.encode()))
    with pytest.raises(StoreFailed, match="entries have root"):
        house.new_book()
    path.write_bytes(b"")
    with pytest.raises(StoreFailed, match=r"0 entries, checkpoint\.dsse\.json says 5"):
        house.new_book()


@pytest.mark.parametrize("lost", ["newest.json", "blobs"])
def test_a_coordinator_that_lost_its_pieces_publishes_them_again(house: House, lost: str) -> None:
    if lost == "blobs":
        shutil.rmtree(house.folder / "blobs")
        (house.folder / "blobs").mkdir()
    else:
        (house.folder / "office" / lost).unlink()
    house.log = house.log_in("office")
    house.log.add(record(5), record(6))
    house.visit(None, record(6))
    assert house.copied == (house.folder / "office" / "entries.jsonl").read_bytes()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), max_size=8))
def test_whatever_was_added_and_whoever_started_again_the_book_follows(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, bool, bool]]
) -> None:
    """`history`: how many entries are added, whether the institution visits, whether both start again."""
    house, number = House(tmp_path_factory.mktemp("house")), 0
    for more, visits, again in history:
        house.log.add(*(record(number + n) for n in range(more)))
        number += more
        if visits:
            shown = house.visit(None, *(record(n) for n in range(number)))
            document = open_document(shown, LogCheckpoint, public_key=OFFICE.public)
            assert document.root == root_digest(house.log._file.tree.root())
            assert house.copied == (house.folder / "office" / "entries.jsonl").read_bytes()
        if again:
            house.log, house.book = house.log_in("office"), house.new_book()
