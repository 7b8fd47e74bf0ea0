"""The soak's driver: it proposes jobs, kills processes and starts them again, and says what went wrong.

What must hold: each job is finished with the adapters of the job without faults, or is aborted with a reason; each
ledger verifies and has an entry for each update that was ever uploaded; no process ends by itself; memory stays flat.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties import setup, wiring
from fl_alliance.parties.config import CoordinatorConfig, load
from fl_alliance.parties.demo import settings as demo
from fl_alliance.parties.demo import stage
from fl_alliance.parties.job_queue import JobQueue
from fl_alliance.parties.setup import COORDINATOR
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.documents import RoundRecord
from fl_alliance.protocol.envelope import Envelope
from fl_alliance.protocol.ids import digest_of
from fl_alliance.store.ledger_file import LedgerFile
from tests.parties.conftest import SITES, settings, write_records
from tests.parties.processes import ROOT, Party, journal
from tests.soak.proxy import Proxy

PARTIES = (COORDINATOR, *SITES)
FIRST_ENTRY, ENTRIES = 3, 24
"""Between these entries of a job's journal somebody is killed where kills go by entries; one round has some 35."""
PHASE_SECONDS = 600
"""Long: who was killed says so itself once it is back, and a busy machine is slow."""
PATIENCE_SECONDS = 3600.0
"""A job that takes longer hangs: every phase of it has a deadline."""
GROWTH = 1.25
"""Most memory of a party in the last third of the soak, over that until the end of the first."""
LONG_SECONDS = 600.0
"""A shorter soak says nothing about growing memory."""


@dataclass
class Found:
    """What a soak saw."""

    finished: int = 0
    aborted: Counter[str] = field(default_factory=Counter)
    """By reason."""
    kills: Counter[str] = field(default_factory=Counter)
    network: Counter[str] = field(default_factory=Counter)
    uploads: int = 0
    entries: int = 0
    memory: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By party: most bytes until the end of the first third of the time with faults, and in the last third."""
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        memory = (f"{name} {a >> 20} to {b >> 20} MB" for name, (a, b) in self.memory.items())
        return [
            f"jobs     {self.finished} finished with the same adapters, {self.aborted.total()} aborted by name",
            *(f"         {count} x {reason}" for reason, count in self.aborted.most_common(12)),
            f"kills    {dict(self.kills)}",
            f"network  {dict(self.network)}",
            f"ledgers  {self.entries} entries, {self.uploads} uploads",
            f"memory   {', '.join(memory)} (most in the first and the last third)",
            *(f"PROBLEM  {problem}" for problem in self.problems),
        ]


class Soak:
    """An alliance below `folder`, its processes, and who does them harm."""

    def __init__(
        self, folder: Path, *, seed: int, kill_every: float | None, tell: Callable[[str], None], rounds: int = 2
    ) -> None:
        """`kill_every`: seconds on average; None: once in each job, at an entry of its journal, on any machine."""
        self.found = Found()
        self._folder, self._tell, self._kill_every = folder / "alliance", tell, kill_every
        self._draw = random.Random(f"{seed}|kills")
        self._right: dict[int, str] = {}
        """The adapter of each round, as a job without faults gave it."""
        self._samples: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self._parties: dict[str, Party] = {}
        self._next_kill = self._next_sample = 0.0
        self._kill_at = 0
        write_records(folder / "data")
        chosen = settings(
            ROOT / "deploy/demo/model",
            folder / "data",
            rounds=rounds,
            quorum=2,
            phase_seconds=PHASE_SECONDS,
            privacy=cheap(),
        )
        self._plan = stage.prepare(chosen, folder, self._folder, threads=1)
        port = load(CoordinatorConfig, self._home / "coordinator.toml").port
        self._proxy = Proxy(port, seed)
        self._port = port

    @property
    def _home(self) -> Path:
        return self._folder / COORDINATOR

    def run(self, seconds: float, *, least_kills: int = 1) -> Found:
        """Run a job without faults, then jobs with faults until the time is over and enough was killed.

        The last job is waited for.
        """
        with ExitStack() as stack:
            stack.enter_context(self._proxy)
            stack.callback(lambda: [party.kill() for party in self._parties.values()])
            for name in SITES:
                path = self._folder / name / "institution.toml"
                path.write_text(path.read_text().replace(f":{self._port}", f":{self._proxy.port}"))
            for name in PARTIES:
                self._start(name)
            self._job(self._plan.job, faults=False)
            began = time.monotonic()
            number = 1
            while not self.found.problems and (
                time.monotonic() < began + seconds or self.found.kills.total() < least_kills
            ):
                number += 1
                self._job(f"job-{number}", faults=True)
            self._check_ledgers()
            self._check_memory(began)
        self.found.network = self._proxy.seen
        return self.found

    # ---- processes

    def _start(self, name: str) -> None:
        if name == COORDINATOR:
            words, entry = ("coordinator", "serve", str(self._home)), "tests.soak.coordinator"
        else:
            words, entry = ("institution", "run", str(self._folder / name)), "tests.soak.member"
        self._parties[name] = Party(self._folder, name, *words, entry=entry)

    def _mind_the_parties(self, job: str, faults: bool) -> None:
        now = time.monotonic()
        for name, party in self._parties.items():
            if not party.running():
                self.found.problems.append(f"{name} ended by itself: {party.log[-1500:]}")
                self._start(name)
        if now > self._next_sample:
            self._next_sample = now + 1.0
            for name, party in self._parties.items():
                self._samples[name].append((now, resident(party.pid)))
        if faults and self._is_due(now, job):
            name = self._draw.choice(PARTIES)
            self._parties[name].kill()
            self.found.kills[name] += 1
            self._tell(f"kill -9 {name}")
            self._start(name)

    def _is_due(self, now: float, job: str) -> bool:
        """Say whether a process is to be killed now, and draw when the next one is."""
        if self._kill_every is None:
            if not self._kill_at or len(journal(self._home, job)) < self._kill_at:
                return False
            self._kill_at = 0
            return True
        due = 0 < self._next_kill < now
        if due or not self._next_kill:
            self._next_kill = now + self._draw.expovariate(1 / self._kill_every)
        return due

    # ---- jobs

    def _job(self, job: str, *, faults: bool) -> None:
        self._proxy.faulty = faults
        self._kill_at = self._draw.randint(FIRST_ENTRY, ENTRIES)
        if job != self._plan.job:
            wiring.propose(self._home, self._plan.model_copy(update={"job": job}))
        end = time.monotonic() + PATIENCE_SECONDS
        with wiring.open_journal(self._home) as orders:
            while (queued := JobQueue(orders).job(job)) is None or not queued.over:
                if time.monotonic() > end:
                    self.found.problems.append(f"{job} hangs: {self._parties[COORDINATOR].log[-500:]}")
                    wiring.cancel_job(self._home, job, "it hangs")
                    end += PATIENCE_SECONDS
                self._mind_the_parties(job, faults)
                time.sleep(0.05)
        self._tell(f"{job}: {queued.outcome} {queued.reason}")
        if queued.outcome == "finished":
            self.found.finished += 1
        else:
            self.found.aborted[queued.reason] += 1
            if not queued.reason:
                self.found.problems.append(f"{job} was aborted without a reason")
        self._check_adapters(job, finished=queued.outcome == "finished", first=not faults)

    def _check_adapters(self, job: str, *, finished: bool, first: bool) -> None:
        """Each record names the adapter of that round; who has one has the same bytes."""
        records = sorted((self._home / "jobs" / job).glob("record-*.dsse.json"))
        seen = {record.round: record.adapter_digest for record in (read_record(path) for path in records)}
        if first:
            self._right = seen
            if not finished:
                raise AssertionError(f"the job without faults was aborted: {self._parties[COORDINATOR].log[-1000:]}")
        if finished and len(seen) != self._plan.rounds:
            self.found.problems.append(f"{job} is finished with {len(seen)} of {self._plan.rounds} records")
        for number, digest in seen.items():
            if self._right.get(number) != digest:
                self.found.problems.append(f"{job}, round {number}: adapter {digest}, not {self._right.get(number)}")
        holders = [name for name in SITES if (self._adapter(name, job)).exists()]
        if finished and not holders:
            self.found.problems.append(f"{job} is finished and nobody has the adapter")
        right = {digest_of(self._adapter(name, self._plan.job).read_bytes()) for name in SITES}
        for name in holders if finished else []:
            if {digest_of(self._adapter(name, job).read_bytes())} != right:
                self.found.problems.append(f"{job}: {name} has another adapter than it had without faults")

    def _adapter(self, name: str, job: str) -> Path:
        return self._folder / name / "jobs" / job / "adapter" / "adapter_model.safetensors"

    # ---- ledgers and memory

    def _check_ledgers(self) -> None:
        """One upload at most of each member and round, and an entry for each.

        Blobs are uploads or sums. Who was killed while it sealed an update seals it again: one vector, one blob more.
        """
        charged: set[tuple[str, str, int]] = set()
        for name in SITES:
            key = IdentityKey.load(setup.Keys(self._folder / name).identity).public
            path = self._folder / name / "ledger.jsonl"
            entries = LedgerFile(path, public_key=key, institution=name, dataset=f"{name}-records").read().entries
            charged |= {(name, entry.job, entry.round) for entry in entries}
            self.found.entries += len(entries)
        uploads: dict[tuple[str, str, int], set[str]] = defaultdict(set)
        sums = 0
        for job in (path.name for path in (self._home / "jobs").iterdir()):
            events = journal(self._home, job)
            sums += sum(kind == "sum-added" for kind, _ in events)
            for kind, body in events:
                if kind == "answered" and isinstance(answer := answer_in(body), m.SealedUpdate):
                    uploads[sender_of(body), job, answer.round].add(answer.upload.digest)
        blobs = sum(path.is_file() for path in (self._home / "blobs").rglob("sha256*"))
        self.found.uploads = len(uploads)
        for key, digests in uploads.items():
            if key not in charged:
                self.found.problems.append(f"{key}: an upload and no entry in the ledger")
            if len(digests) > 1:
                self.found.problems.append(f"{key}: {len(digests)} uploads of one round")
        if blobs - sums > self.found.entries + self.found.kills.total():
            self.found.problems.append(f"{blobs - sums} uploads in the store, {self.found.entries} entries")

    def _check_memory(self, began: float) -> None:
        now = time.monotonic()
        third = (now - began) / 3
        for name, samples in self._samples.items():
            first = max((size for at, size in samples if at < began + third), default=0)
            last = max((size for at, size in samples if at > now - third), default=0)
            self.found.memory[name] = (first, last)
            if now - began >= LONG_SECONDS and last > GROWTH * first:
                self.found.problems.append(f"{name}: memory grew from {first >> 20} to {last >> 20} MB")


def cheap() -> demo.PrivacySettings:
    """So much noise that hundreds of jobs stay below the cap."""
    return demo.PrivacySettings(
        unit="patient",
        clip_norm="1",
        noise_multiplier="200",
        sampling_rate="0.5",
        steps_per_round=2,
        records_per_unit=2,
        delta="0.00001",
    )


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0


def read_record(path: Path) -> RoundRecord:
    return peek_document(path.read_bytes(), RoundRecord)


def answer_in(envelope: bytes) -> m.Answer:
    return decode(m.ANSWER, decode(Envelope, envelope).body)


def sender_of(envelope: bytes) -> str:
    return decode(Envelope, envelope).payload_type.split("|")[2]
