"""kill -9 at random instants of an institution's training rounds, and what its disk says afterwards.

    python -m tests.parties.ledger_kills --kills 200 [--fault NAME ...] [--seed S]

A child process serves rounds as an institution does: the shell, the gate of `rounds`, the desk's charge and training,
accounts, ledger, journal and blobs are the package's own. Left out are the other members, so a round begins where
their shares are open, and the model: an update is fresh random bytes. The child is killed at a random instant, the
next one starts on the same disk, goes on with the round that was cut off, and is asked again for it. The ledger is
written in small pieces, so that many kills leave a torn line.

After each kill: the ledger verifies; each round of which a record was read, an upload stored, a reply kept or an answer
delivered has its charge; no round has two uploads. With `--fault` the same with a planted fault, until it is found.
Exit status 1 when an honest house is found wrong, or a fault is not found.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import structlog
from numpy.typing import NDArray

from fl_alliance.errors import AllianceError
from fl_alliance.evidence.sign import sign_document
from fl_alliance.parties import mail
from fl_alliance.parties.accounts import Accounts
from fl_alliance.parties.desk import InstitutionDesk
from fl_alliance.parties.files import write_atomically
from fl_alliance.parties.institution import Institution
from fl_alliance.parties.job_journal import REQUEST, JobJournal
from fl_alliance.parties.log_book import LogBook
from fl_alliance.parties.vault import Vault
from fl_alliance.privacy.accountant import RdpAccountant
from fl_alliance.privacy.events import event_of
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.envelope import Envelope
from fl_alliance.protocol.ids import BlobRef, blob_ref, digest_of
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.rounds import institution as machine
from fl_alliance.store import disk, ledger_file
from fl_alliance.store.blobs import FolderBlobs
from fl_alliance.store.journal import SqlJournal
from fl_alliance.store.ledger_file import LedgerFile
from tests.evidence.alliance import key_of, members_of, plan_of, policy_of
from tests.parties.processes import replies

ME, OFFICE = "lagos", "office"
KEY, KEYS = key_of(ME), {name: key_of(name).public for name in (ME, OFFICE)}
PHASES = ("asked", "charge", "train", "seal", "sign and keep the reply", "deliver")
FAULTS = ("release before the charge", "read before the charge", "torn line not cut off")
LIVES, ROUNDS, PIECE = 10, 3, 48
"""Kills of one house (a long chain is slow to verify), rounds in which a kill falls, bytes in one write."""
Round = tuple[str, int]


@dataclass(frozen=True)
class House:
    """One institution's folder, and beside it what reached the coordinator."""

    home: Path
    fault: str | None

    @property
    def ledger(self) -> LedgerFile:
        return LedgerFile(self.home / "ledger.jsonl", public_key=KEY.public, institution=ME, dataset="cases")

    @property
    def accounts(self) -> Accounts:
        return Accounts(
            identity=KEY,
            policy=self.home / "policy.dsse.json",
            approvals=self.home / "approvals",
            ledger=self.ledger,
            dataset_digest=lambda: digest_of((self.home / "cases.jsonl").read_bytes()),
            accountant=RdpAccountant(),
        )

    def furnish(self) -> None:
        caps = dict.fromkeys(("epsilon_per_job", "epsilon_per_year", "epsilon_per_dataset"), "100000")
        write_atomically(self.home / "policy.dsse.json", sign_document(KEY, policy_of(**caps)))
        (self.home / "cases.jsonl").write_text("a record\n" * 100)


def plan_for(job: str) -> TrainingPlan:
    return plan_of(job=job)


# ---- the child


class SlowDisk:
    """The module `os`, whose writes take a few bytes each, and their time."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, handle: int, data: bytes) -> int:
        time.sleep(0.0005)
        return os.write(handle, data[:PIECE])


class Records:
    """`desk.Trainer`: notes durably that records are read, reads them, and gives an update that never comes twice."""

    vector = np.zeros(4)

    def state(self) -> bytes:
        return b""

    def __init__(self, home: Path) -> None:
        self._home, self.round = home, ("", 0)

    def train_round(self) -> NDArray[np.float64]:
        with (self._home / "reads").open("a") as file:
            file.write(json.dumps(self.round) + "\n")
            file.flush()
            os.fsync(file.fileno())
        (self._home / "cases.jsonl").read_bytes()
        digits = np.frombuffer(os.urandom(8), np.uint16).astype(np.float64)
        return (2 * digits / (2**16 - 1) - 1) * float(plan_for("any").sum.coordinate_clip)


class Desk(InstitutionDesk):
    """The desk in rounds: it charges and trains, and seals without a cipher."""

    def take(self, job: str, house: House, mark: mmap.mmap) -> None:
        self._plan, self._digest = plan_for(job), digest_of(job.encode())
        self.house, self.mark, self.records = house, mark, Records(house.home)
        self._trainer = self.records  # type: ignore[assignment]

    def resume(self, plan: TrainingPlan, documents: Mapping[str, bytes], memory: Mapping[str, bytes]) -> None:
        """Take back an update that was not sealed yet; the plan comes with `take`."""
        if "update" in memory:
            self._update = np.frombuffer(memory["update"], np.uint64)
        self._accounts.restore(memory.get("accounts", b""))

    def do(self, work: machine.Work, *, again: bool = False) -> object:
        match work:
            case machine.OpenShares():
                return None
            case machine.Charge() if self.house.fault == FAULTS[0]:
                self.accounts_due = work
                return digest_of(b"a charge that is still to come")
            case machine.Charge():
                self.mark[0] = 1
                self.records.round = (self.plan.job, work.round)
                if self.house.fault == FAULTS[1]:
                    self.records.train_round()
                return super().do(work, again=again)
            case machine.Train():
                self.mark[0] = 2
                self.records.round = (self.plan.job, work.round)
                return super().do(work) if self.house.fault != FAULTS[0] else self._train_uncharged()
            case machine.Seal():
                self.mark[0] = 3
                return self._store(work.round)
        raise AssertionError(work)

    def _train_uncharged(self) -> None:
        self._update = self.records.train_round().view(np.uint64)

    def _store(self, number: int) -> BlobRef:
        assert self._update is not None
        data = json.dumps([self.plan.job, number, self._update.tolist()]).encode()
        ref = blob_ref(data)
        self._blobs.put(ref, [data])
        self._remember("update", None)
        self.mark[0] = 4
        return ref

    def settle(self) -> None:
        """With the fault: charge what was released already."""
        if (due := self.__dict__.pop("accounts_due", None)) is not None:
            super().do(due)


class Shell(Institution):
    """The shell, from the instant at which a round's shares are open."""

    desk: Desk

    def handle(self, request: bytes) -> bytes:
        if (stored := self._journal.reply(digest_of(request))) is not None:
            return stored
        if isinstance(self.state, machine.Working) and digest_of(request) == self._asked:
            return self._go_on(again=True)[1]
        working = self._opened(request)
        self._asked = digest_of(request)
        self._advance(working.seat.plan.job, (REQUEST, request), working, (working.work,))
        return self._go_on()[1]

    def _replay(self, kind: str, body: bytes) -> None:
        if kind == REQUEST:
            self._asked, self.state = digest_of(body), self._opened(body)
        else:
            super()._replay(kind, body)

    def _opened(self, request: bytes) -> machine.Working:
        message = mail.read_request(mail.Address(ME, OFFICE, KEYS), request)
        digest = digest_of(b"who is in the round")
        seat = machine.Seat(ME, plan_for(message.job), digest_of(message.job.encode()), round=message.round)
        memory = machine.Memory(roster_digest=digest, dealers_digest=digest)
        return machine.Working(seat, memory, message, machine.OpenShares(message.round, {}))


def open_house(house: House) -> Shell:
    desk = Desk(
        name=ME, identity=KEY, jobs=house.home / "jobs", blobs=FolderBlobs(house.home / "blobs"),
        accounts=house.accounts, trainer=lambda _: Records(house.home), public_documents={},
    )  # fmt: skip
    root = key_of("root")
    shell = Shell(
        name=ME, alliance="clinics", identity=KEY, root=root.public, coordinator=OFFICE,
        members=sign_document(root, members_of()), desk=lambda: desk,
        journal=JobJournal(SqlJournal(house.home / "journal.db"), Vault(KEY, "alliance")),
        log_book=LogBook(house.home / "log", name=ME, alliance="clinics", blobs=FolderBlobs(house.home / "blobs")),
    )  # fmt: skip
    shell.desk = desk
    return shell


def live(house: House, life: int, mark: mmap.mmap, ready: int) -> NoReturn:
    """Serve the round that the last life left open, then rounds of a new job, until killed."""
    disk.os = SlowDisk()  # type: ignore[assignment]
    if house.fault == FAULTS[2]:
        ledger_file._whole_lines = lambda data: (tuple(data.split(b"\n")[:-1]), len(data))  # type: ignore[assignment]
    shell, office = open_house(house), mail.Address(OFFICE, OFFICE, KEYS)
    os.write(ready, b"!")
    for job, number in rounds_to_serve(house, life):
        mark[0] = 0
        shell.desk.take(job, house, mark)
        opening = m.RoundOpening(alliance="clinics", job=job, round=number, previous_record=None)
        reply = shell.handle(mail.write_request(office, key_of(OFFICE), ME, opening))
        mark[0] = 5
        write_atomically(house.home / "inbox" / f"{job}.{number:04d}", reply)
        shell.desk.settle()
    raise AssertionError("a job has rounds without end")


def rounds_to_serve(house: House, life: int) -> Iterator[Round]:
    last, job = f"job-{life - 1}", f"job-{life}"
    if life:
        yield last, len(list((house.home / "inbox").glob(f"{last}.*"))) + 1
    yield from ((job, number) for number in itertools.count(1))


# ---- the parent


@dataclass
class Found:
    """What the kills of one house, or of many, left."""

    kills: int = 0
    charges: int = 0
    delivered: int = 0
    refused: int = 0
    torn: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        died = ", ".join(f"{name} {self.phases[name]}" for name in (*PHASES, *sorted(set(self.phases) - set(PHASES))))
        return (
            f"{self.kills} kills ({died}), {self.torn} torn lines, {self.charges} charges, {self.delivered} uploads "
            f"delivered, {self.refused} rounds refused; {self.problems[0] if self.problems else 'nothing wrong'}"
        )


class Child:
    """A process that serves rounds, from its first request on."""

    def __init__(self, house: House, life: int) -> None:
        self._mark = mmap.mmap(-1, 1)
        hear, ready = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                live(house, life, self._mark, ready)
            except BaseException as error:
                print(f"the child ended: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(1)
        self._pid = pid
        os.close(ready)
        os.read(hear, 1)
        os.close(hear)

    def kill(self) -> str:
        """kill -9; return the phase in which it died."""
        os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        return PHASES[self._mark[0]] if os.WIFSIGNALED(status) else "ended by itself"


def seconds_of_a_round() -> float:
    """Return how long a round takes on this machine now: kills are spread over some rounds of this length."""
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder), None)
        house.furnish()
        child, began = Child(house, 0), time.monotonic()
        while len(list((house.home / "inbox").glob("job-*"))) < ROUNDS:
            time.sleep(0.001)
        taken = time.monotonic() - began
        child.kill()
    return taken / ROUNDS


def released(home: Path) -> dict[Round, set[str]]:
    """Return every round of which something left the house or was ready to, with the uploads named for it."""
    found: dict[Round, set[str]] = {}
    answers = [path.read_bytes() for path in sorted((home / "inbox").glob("job-*"))]
    for data in (*answers, *(replies(home) if (home / "journal.db").exists() else [])):
        answer = decode(m.ANSWER, decode(Envelope, data).body)
        if isinstance(answer, m.SealedUpdate):
            found.setdefault((answer.job, answer.round), set()).add(answer.upload.digest)
    for path in (home / "blobs").glob("[!.]*"):
        job, number, _ = json.loads(data := path.read_bytes())
        found.setdefault((job, number), set()).add(digest_of(data))
    reads = (home / "reads").read_text().splitlines() if (home / "reads").exists() else []
    for line in reads:
        job, number = json.loads(line)
        found.setdefault((job, number), set())
    return found


def look(house: House, found: Found) -> None:
    """Compare what left with what was charged."""
    path = house.home / "ledger.jsonl"
    found.torn += path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    try:
        entries = house.ledger.read().entries
    except AllianceError as error:
        found.problems.append(f"{type(error).__name__}: {error}"[:160])
        return
    charged = {(entry.job, entry.round) for entry in entries}
    for at, uploads in released(house.home).items():
        if at not in charged:
            found.problems.append(f"round {at[1]} of {at[0]} was used and is not charged")
        if len(uploads) > 1:
            found.problems.append(f"round {at[1]} of {at[0]} has {len(uploads)} uploads")


def count(house: House, found: Found) -> None:
    found.charges += len(house.ledger.lines())
    for path in (house.home / "inbox").glob("job-*"):
        answer = decode(m.ANSWER, decode(Envelope, path.read_bytes()).body)
        found.delivered += isinstance(answer, m.SealedUpdate)
        found.refused += isinstance(answer, m.Refusal)


def kills(number: int, fault: str | None, seed: int) -> Found:
    """Kill `number` times; with a fault only until it is found."""
    found, draw, span = Found(), random.Random(seed), ROUNDS * seconds_of_a_round()
    while found.kills < number and not found.problems:
        with tempfile.TemporaryDirectory() as folder:
            house = House(Path(folder), fault)
            house.furnish()
            for life in range(min(LIVES, number - found.kills)):
                child = Child(house, life)
                time.sleep(draw.random() * span)
                found.phases[child.kill()] += 1
                found.kills += 1
                look(house, found)
                if found.problems:
                    break
            count(house, found)
    return found


def warm_up() -> None:
    """Let children find in memory what the accountant would work out anew in each."""
    plan = plan_for("job-0")
    event, delta = event_of(plan), plan.privacy.delta
    for charges in range(1, LIVES * ROUNDS):
        RdpAccountant().epsilon((event,) * charges, Decimal(delta))


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.parties.ledger_kills")
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--fault", action="append", default=[], choices=FAULTS)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    warm_up()
    wrong = 0
    for fault in (None, *given.fault):
        found = kills(given.kills, fault, given.seed)
        print(f"{fault or 'honest'}: {found}", flush=True)
        wrong += bool(found.problems) is (fault is None)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
