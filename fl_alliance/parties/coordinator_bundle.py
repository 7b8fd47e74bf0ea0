"""The coordinator's own bundle: of each finished job what it signed, what it relayed, and its log.

    root.pub.json, members.dsse.json      the alliance's root, and the list of members as it is now
    jobs/JOB/root.pub.json  members.dsse.json  plan.dsse.json
    jobs/JOB/keys/messages/KIND.MEMBER.json
    jobs/JOB/rounds/0001/record.dsse.json  rounds/0001/messages/KIND.MEMBER.json  ...
    jobs/JOB/log/leaves  log/checkpoint-0000.dsse.json  log/receipt-0000.json  ...

Nothing is kept twice for it: the journal of the job is gone through again, and what it made the coordinator send is put
into files. They have the names and the bytes that they have at the institutions.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path

from fl_alliance.errors import BadConfig, StoreFailed
from fl_alliance.evidence.bundle import JOBS
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.log import plan_entry, receipt_of, record_entry
from fl_alliance.evidence.sign import peek_document
from fl_alliance.parties.audit_log import LEAVES, LOG, checkpoint_name, receipt_name
from fl_alliance.parties.auditor import MEMBERS, PLAN, ROOT
from fl_alliance.parties.bundles import Source, Wanted, write_bundle
from fl_alliance.parties.config import CoordinatorConfig, load
from fl_alliance.parties.coordinator import replayed
from fl_alliance.parties.files import read_file
from fl_alliance.parties.institution import relayed_envelopes
from fl_alliance.parties.job_queue import JobQueue
from fl_alliance.parties.mail import read_answer
from fl_alliance.parties.setup import COORDINATOR, Keys
from fl_alliance.parties.wiring import job_of, open_journal
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import EvidenceBundle, LogCheckpoint, RoundRecord
from fl_alliance.protocol.log import LogEntry
from fl_alliance.rounds import coordinator as machine
from fl_alliance.store.journal import Journal
from fl_alliance.store.log_file import LogFile


def coordinator_bundle(
    home: Path, out: Path, wanted: Wanted, *, clock: Callable[[], float] = time.time
) -> EvidenceBundle:
    """Write the evidence of the finished jobs that are `wanted` to `out`; the service may run meanwhile.

    Returns: what the bundle says of itself.

    Raises:
        BadConfig: no finished job is wanted, or a named one is none; names those that are.
        EvidenceRefused: too much for one file.
        StoreFailed: journal, log or a file can't be read or written.
    """
    config, keys = load(CoordinatorConfig, home / "coordinator.toml"), Keys(home)
    identity, log = IdentityKey.load(keys.identity), LogFile(home / "log" / "entries.jsonl")
    contents: dict[str, Source] = {ROOT: keys.root_public, MEMBERS: keys.members}
    with open_journal(home) as journal:
        queue = JobQueue(journal)
        begun = [queued.job for queued in queue.jobs() if queue.begun(queued.job)]
        finished = {job: files for job in begun if (files := _Job(home, job, journal, log).files())}
    wanted.require_known(finished)
    jobs = [job for job, files in sorted(finished.items()) if wanted.has(job, _ended(files))]
    if not jobs:
        raise BadConfig(f"since, until: no job ended then; finished here: {', '.join(sorted(finished)) or 'none'}")
    contents |= {f"{JOBS}/{job}/{name}": data for job in jobs for name, data in finished[job].items()}
    return write_bundle(
        out, contents, contents, wanted, identity=identity, moment=int(clock()),
        alliance=config.alliance, role="coordinator", party=COORDINATOR, jobs=jobs,
    )  # fmt: skip


def _ended(files: dict[str, bytes]) -> int:
    """Return the time of the last record."""
    last = max(name for name in files if name.endswith("/record.dsse.json"))
    return peek_document(files[last], RoundRecord).time


class _Job:
    """What one job left at the coordinator, put into files."""

    def __init__(self, home: Path, job: str, journal: Journal, log: LogFile) -> None:
        self._home, self._log = home, log
        self._events = journal.events(job)
        self._job, self._address = job_of(home, job)
        self._files: dict[str, bytes] = {}

    def files(self) -> dict[str, bytes]:
        """Return its files by name; none where it has not finished."""
        finished, number = False, 0
        for event, state, effects in replayed(self._job, self._address, self._events):
            finished = isinstance(state, machine.Finished)
            if event is None:
                self._shown(0, self._first_checkpoint(), plan_entry(self._job.plan.job, self._job.plan_envelope))
            if isinstance(event, machine.RecordSigned):
                number += 1
                self._files[f"rounds/{number:04d}/record.dsse.json"] = event.envelope
                self._shown(number, event.checkpoint, record_entry(self._job.plan.job, number, event.envelope))
            for effect in effects:
                if isinstance(effect, machine.Ask):
                    self._relayed(effect.request)
        if not finished:
            return {}
        root = read_file(Keys(self._home).root_public, "alliance root")
        return self._files | {ROOT: root, MEMBERS: self._job.members_envelope, PLAN: self._job.plan_envelope}

    def _relayed(self, request: m.Request) -> None:
        where = f"rounds/{request.round:04d}" if request.round else "keys"
        for envelope in relayed_envelopes(request):
            sender, answer = read_answer(self._address, envelope)
            self._files[f"{where}/messages/{answer.kind}.{sender}.json"] = envelope

    def _first_checkpoint(self) -> bytes:
        return base64.b64decode(json.loads(self._events[1][1])["checkpoint"])

    def _shown(self, number: int, shown: bytes, entry: LogEntry) -> None:
        """Put what the members were shown of the log into files, and where `entry` is in it."""
        earlier = self._files.get(f"{LOG}/{checkpoint_name(number - 1)}", shown)
        if (index := self._log.place(entry)) is None:
            raise StoreFailed(f"the log has no {entry.kind} {entry.digest}")
        receipt = receipt_of(self._log.tree, index, entry, shown=shown, earlier=earlier)
        size = peek_document(shown, LogCheckpoint).size
        self._files[f"{LOG}/{checkpoint_name(number)}"] = shown
        self._files[f"{LOG}/{receipt_name(number)}"] = encode(receipt)
        self._files[f"{LOG}/{LEAVES}"] = b"".join(self._log.tree.leaves(size))
