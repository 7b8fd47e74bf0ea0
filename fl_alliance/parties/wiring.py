"""The one place that names concrete classes: what a coordinator and an institution are made of."""

from __future__ import annotations

import contextlib
import functools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fl_alliance.errors import AllianceError, BadConfig, BadPlan
from fl_alliance.evidence.keys import AllianceRoot, IdentityKey, public_key_of
from fl_alliance.evidence.sign import open_document, sign_document
from fl_alliance.parties import setup
from fl_alliance.parties.accounts import Accounts
from fl_alliance.parties.adder import UploadAdder
from fl_alliance.parties.approvals import sign_approval
from fl_alliance.parties.config import CoordinatorConfig, InstitutionConfig, database_url, load
from fl_alliance.parties.coordinator import Coordinator, state_after
from fl_alliance.parties.files import only_process, read_file, write_atomically
from fl_alliance.parties.heads import SeenHeads
from fl_alliance.parties.house_plans import HousePlans
from fl_alliance.parties.job_queue import JobQueue, Queued
from fl_alliance.parties.job_status import JobStatus, status_of
from fl_alliance.parties.log_book import LogBook
from fl_alliance.parties.mail import Address
from fl_alliance.parties.monitoring import watched_coordinator, watched_institution
from fl_alliance.parties.proposals import Proposals
from fl_alliance.parties.refusals import keeping_refusals
from fl_alliance.parties.roster import roster_of
from fl_alliance.parties.service import CoordinatorService, Stop, note_the_end
from fl_alliance.parties.transparency import CoordinatorLog
from fl_alliance.parties.watch import NOBODY, CoordinatorWatch, InstitutionWatch
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.documents import AllianceMembers, InstitutionPolicy
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.protocol.ports import Blobs, CoordinatorLink, InstitutionLink
from fl_alliance.protocol.sizes import require_sendable
from fl_alliance.rounds import coordinator as machine
from fl_alliance.secagg.worker import Performance
from fl_alliance.store.blobs import FolderBlobs
from fl_alliance.store.journal import Journal, SqlJournal
from fl_alliance.store.ledger_file import LedgerFile

if TYPE_CHECKING:
    from fl_alliance.parties.desk import Trainer
    from fl_alliance.transport.flower.tls import TlsFiles

Tell = Callable[[str], None]


# ---- coordinator


def propose(home: Path, plan: TrainingPlan) -> Path:
    """Sign `plan` as a job of the coordinator in `home` and queue it; return where it is kept.

    Raises:
        BadPlan: a member is not admitted, another alliance is named, the job has another plan already, or its messages
            would be too long for so many members.
    """
    config = load(CoordinatorConfig, home / "coordinator.toml")
    if plan.alliance != config.alliance:
        raise BadPlan(f"alliance: {plan.alliance!r}, this coordinator's is {config.alliance!r}")
    strangers = sorted(set(plan.names) - {request.name for request in setup.admitted(home)})
    if strangers:
        raise BadPlan(f"members: {', '.join(strangers)} must be admitted to alliance {config.alliance} first")
    require_sendable(plan)
    path = home / "jobs" / plan.job / "plan.dsse.json"
    envelope = sign_document(IdentityKey.load(setup.Keys(home).identity), plan)
    if path.exists() and path.read_bytes() != envelope:
        raise BadPlan(f"job: {plan.job!r} has another plan already, choose another name")
    write_atomically(path, envelope)
    with open_journal(home) as journal:
        JobQueue(journal).proposed(plan.job)
    return path


def cancel_job(home: Path, job: str, reason: str) -> None:
    """Order that a job of the coordinator in `home` ends; who runs it, now or later, obeys.

    Raises:
        BadConfig: `home` is no coordinator's folder, or the reason is empty or too long.
        OutOfOrder: there is no such job, or it is over.
    """
    load(CoordinatorConfig, home / "coordinator.toml")
    if not 0 < len(reason) <= 400:
        raise BadConfig(f"reason: {len(reason)} characters, must be 1 to 400")
    with open_journal(home) as journal:
        JobQueue(journal).cancel(job, reason)


def run_coordinator(
    home: Path, job: str, *, tell: Tell = lambda _: None, stopping: Callable[[], bool] = lambda: False
) -> machine.State:
    """Run one job of the coordinator in `home` over Flower, or go on with it, until `stopping`; return its last state.

    Raises:
        BadConfig: a file is missing or wrong, or another process runs a job of this folder.
    """
    config = load(CoordinatorConfig, home / "coordinator.toml")
    plan = home / "jobs" / job / "plan.dsse.json"
    read_file(plan, "plan, which `coordinator propose` signs")  # before anything listens
    blobs = blobs_of(home, config)
    with only_process(home), open_journal(home, serves=True) as journal, coordinator_link(home, config, blobs) as link:
        tell(f"listening on {config.host}:{config.port}, mutual TLS")
        with watched_coordinator(home, config, link, journal) as watch:
            shell = coordinator(home, job, link, blobs, journal=journal, tell=tell, watch=watch, stopping=stopping)
            state = shell.run()
        note_the_end(JobQueue(journal), job, state)
        return state


def serve_coordinator(home: Path, *, stop: Stop, tell: Tell = lambda _: None) -> None:
    """Run the queued jobs of the coordinator in `home` over Flower, one after the other, until `stop` is set.

    Raises:
        BadConfig: a file is missing or wrong, or another process serves this folder.
    """
    config = load(CoordinatorConfig, home / "coordinator.toml")
    blobs = blobs_of(home, config)
    with only_process(home), open_journal(home, serves=True) as journal, coordinator_link(home, config, blobs) as link:
        tell(f"listening on {config.host}:{config.port}, mutual TLS")
        with watched_coordinator(home, config, link, journal) as watch:
            service(home, link, blobs, journal, stop=stop, tell=tell, watch=watch).run()


def service(
    home: Path,
    link: CoordinatorLink,
    blobs: Blobs,
    journal: Journal,
    *,
    stop: Stop,
    tell: Tell = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    watch: CoordinatorWatch = NOBODY,
) -> CoordinatorService:
    """Return the service of the coordinator in `home` over any link."""

    def begin(job: str) -> Coordinator:
        return coordinator(
            home, job, link, blobs, journal=journal, tell=tell, clock=clock, watch=watch, stopping=stop.is_set
        )

    return CoordinatorService(queue=JobQueue(journal), link=link, coordinator=begin, stop=stop, tell=tell)


@contextlib.contextmanager
def open_journal(home: Path, *, serves: bool = False) -> Iterator[Journal]:
    """Open the coordinator's journal, and close it at the end; the service, which `serves`, may run meanwhile."""
    journal = journal_of(home, load(CoordinatorConfig, home / "coordinator.toml"), serves=serves)
    try:
        yield journal
    finally:
        journal.close()


def blobs_of(home: Path, config: CoordinatorConfig) -> Blobs:
    """Return the coordinator's blob store; a folder is used as one, for what is there must outlive a power cut.

    Raises:
        BadConfig: the package for this kind of store is not installed.
        StoreFailed: the folder can't be made.
    """
    if config.blobs is None:
        return FolderBlobs(home / "blobs")
    if config.blobs.startswith("file://"):
        return FolderBlobs(Path(config.blobs.removeprefix("file://")))
    from fl_alliance.store.remote_blobs import FsspecBlobs

    return FsspecBlobs(config.blobs)


def journal_of(home: Path, config: CoordinatorConfig | InstitutionConfig, *, serves: bool = False) -> SqlJournal:
    """Open a party's journal: in the database that its configuration names, else in a file of its folder.

    Raises:
        BadConfig: the database's URL is wrong.
        StoreTaken: another process serves it, and this one would.
        StoreFailed: it can't be used.
    """
    return SqlJournal(database_url(config) or home / "journal.db", serves=serves)


@contextlib.contextmanager
def coordinator_link(home: Path, config: CoordinatorConfig, blobs: Blobs) -> Iterator[CoordinatorLink]:
    """Listen for the admitted members over Flower, keep the join door open, and close both at the end."""
    from fl_alliance.parties.door import open_to_members
    from fl_alliance.transport.flower.coordinator import IN_MEMORY, FlowerCoordinatorLink

    setup.renew_server_certificate(home)
    members = roster_of(home)
    link = FlowerCoordinatorLink(
        host=config.host,
        port=config.port,
        database=IN_MEMORY,
        tls=tls_files(setup.Keys(home)),
        nodes=members.nodes,
        revoked=members.revoked,
        blobs=blobs,
        home=home / "flower",
    )
    try:
        with open_to_members(home, link):
            yield link
    finally:
        link.close()


def coordinator(
    home: Path,
    job: str,
    link: CoordinatorLink,
    blobs: Blobs,
    *,
    journal: Journal | None = None,
    tell: Tell = lambda _: None,
    ask_again: float = 90.0,
    clock: Callable[[], float] = time.monotonic,
    between: Callable[[float, float], float] = random.uniform,
    watch: CoordinatorWatch = NOBODY,
    stopping: Callable[[], bool] = lambda: False,
) -> Coordinator:
    """Return the shell of one job over any link."""
    config = load(CoordinatorConfig, home / "coordinator.toml")
    begun, address = job_of(home, job)
    events = journal or journal_of(home, config)
    identity = IdentityKey.load(setup.Keys(home).identity)
    return Coordinator(
        identity=identity,
        address=address,
        job=begun,
        journal=events,
        link=link,
        blobs=blobs,
        adder=UploadAdder(begun.plan, blobs, Performance(processes=config.cipher_processes)),
        folder=home / "jobs" / job,
        heads=SeenHeads(home / "heads"),
        transparency=CoordinatorLog(
            home / "log", alliance=config.alliance, identity=identity, blobs=blobs, clock=time.time
        ),
        tell=tell,
        ask_again_seconds=ask_again,
        clock=clock,
        between=between,
        watch=watch,
        cancelled=lambda: JobQueue(events).cancelled(job),
        stopping=stopping,
    )


def job_of(home: Path, job: str) -> tuple[machine.Job, Address]:
    """Return a job that the coordinator in `home` signed; its list of members is that of its begin, also later."""
    keys = setup.Keys(home)
    members = _members_of_job(keys, home / "jobs" / job)
    root = decode(AllianceRoot, read_file(keys.root_public, "alliance root")).public
    envelope = read_file(home / "jobs" / job / "plan.dsse.json", "plan of the job")
    plan = open_document(envelope, TrainingPlan, public_key=IdentityKey.load(keys.identity).public)
    people = open_document(members, AllianceMembers, public_key=root)
    return machine.Job(plan, envelope, members), Address(setup.COORDINATOR, setup.COORDINATOR, keys_of(people))


def job_statuses(home: Path) -> list[JobStatus]:
    """Return every job of the coordinator in `home`, in the order of the queue; the service may run meanwhile."""
    with open_journal(home) as journal:
        return [_status(home, queued, journal) for queued in JobQueue(journal).jobs()]


def _status(home: Path, queued: Queued, journal: Journal) -> JobStatus:
    """Return where a job is by its journal; of one that can't be replayed what the service will note."""
    events = [] if queued.over else journal.events(queued.job)
    try:
        return status_of(queued, state_after(*job_of(home, queued.job), events) if events else None)
    except AllianceError as error:
        return JobStatus(queued.job, "aborted", reason=f"can't be run: {type(error).__name__}: {error}")


def _members_of_job(keys: setup.Keys, folder: Path) -> bytes:
    """Return the list of members with which the job began: who joins or leaves later is not in it, or still."""
    path = folder / "members.dsse.json"
    if not path.exists():
        write_atomically(path, read_file(keys.members, "list of members"))
    return path.read_bytes()


def keys_of(people: AllianceMembers) -> dict[str, bytes]:
    """Return the raw public keys by name."""
    return {member.name: public_key_of(member.identity) for member in people.members}


# ---- institution


def sign_policy(home: Path, policy: InstitutionPolicy) -> Path:
    """Sign the institution's own policy; return where it is kept.

    Raises:
        BadConfig: it is another institution's, or for another data set than `institution.toml` names.
    """
    if (home / "institution.toml").exists():
        require_own_policy(policy, load(InstitutionConfig, home / "institution.toml"))
    path = home / "policy.dsse.json"
    write_atomically(path, sign_document(IdentityKey.load(setup.Keys(home).identity), policy))
    return path


def house_plans(home: Path) -> HousePlans:
    """Return the plans that were proposed to the institution in `home`, with its policy and its ledger.

    Raises:
        BadConfig: there is no policy; NotAuthentic: it is not signed by this institution; LedgerBroken: the ledger.
    """
    identity = IdentityKey.load(setup.Keys(home).identity)
    policy = own_policy(home, identity)
    path, ledger = home / "institution.toml", Path("ledger.jsonl")
    if path.exists():
        ledger = load(InstitutionConfig, path).data.ledger
    owner = {"institution": policy.institution, "dataset": policy.dataset}
    return HousePlans(home, policy, LedgerFile(home / ledger, public_key=identity.public, **owner).read())


def own_policy(home: Path, identity: IdentityKey) -> InstitutionPolicy:
    """Return the institution's signed policy (BadConfig: it is not there)."""
    signed = read_file(home / "policy.dsse.json", "policy, which `institution sign-policy` signs")
    return open_document(signed, InstitutionPolicy, public_key=identity.public)


def approve_plan(home: Path, envelope: bytes, *, person: str, key: Path) -> Path:
    """Sign a plan's envelope as `person`; return where the approval is kept.

    Raises:
        PolicyRefused: the policy in `home` does not know the person with this key.
    """
    policy = own_policy(home, IdentityKey.load(setup.Keys(home).identity))
    return sign_approval(home / "approvals", envelope, policy, person=person, key=IdentityKey.load(key))


def require_own_policy(policy: InstitutionPolicy, config: InstitutionConfig) -> None:
    """Return if `policy` is for the configured institution and data set (BadConfig: names the field)."""
    for field, said, right in (
        ("institution", policy.institution, config.name),
        ("dataset", policy.dataset, config.data.name),
    ):
        if said != right:
            raise BadConfig(f"policy: {field} is {said!r}, institution.toml says {right!r}")


def tls_files(keys: setup.Keys) -> TlsFiles:
    """Return the files of a party's mutual TLS."""
    from fl_alliance.transport.flower.tls import TlsFiles

    return TlsFiles(ca=keys.tls_root, certificate=keys.tls_certificate, key=keys.tls_key)


def run_institution(home: Path, *, keep_going: Callable[[], bool], tell: Tell = lambda _: None) -> None:
    """Serve the institution in `home` over Flower, until `keep_going` says no.

    Raises:
        BadConfig: a file is missing or wrong, or another process serves this folder.
    """
    from fl_alliance.training.process import prepare_process
    from fl_alliance.transport.flower.institution import FlowerInstitutionLink

    prepare_process()
    config = load(InstitutionConfig, home / "institution.toml")
    keys = setup.Keys(home)
    read_file(keys.root_public, "alliance root, which `institution join` pins")  # before anything is called
    read_file(home / "policy.dsse.json", "policy, which `institution sign-policy` signs")
    tls_files(keys).require_valid()
    if keys.next.request.exists():
        raise BadConfig(f"{home}: new keys are made and not signed yet, run `institution rotate` again")
    with only_process(home):
        link = FlowerInstitutionLink(
            address=config.coordinator,
            tls=tls_files(keys),
            node_key=keys.node_key,
            state=home / "flower",
        )
        ledger = ledger_file(home, config, IdentityKey.load(keys.identity))
        with watched_institution(home, config, ledger, link.heard_seconds, link.retries) as watch:
            handler = institution(home, link, serves=True, tell=tell, watch=watch)
            tell(f"{config.name}: calling {config.coordinator}, mutual TLS, nothing here listens beyond loopback")
            link.serve(handler, keep_going=keep_going)


def ledger_file(home: Path, config: InstitutionConfig, identity: IdentityKey) -> LedgerFile:
    """Return the ledger of the institution's data set."""
    return LedgerFile(
        home / config.data.ledger, public_key=identity.public, institution=config.name, dataset=config.data.name
    )


def institution(
    home: Path,
    link: InstitutionLink,
    *,
    serves: bool = False,
    tell: Tell = lambda _: None,
    watch: InstitutionWatch = NOBODY,
) -> Callable[[bytes], bytes]:
    """Return the handler of one institution over any link: with its model, and the records that its file names.

    `serves`: see `journal_of`.
    """
    from fl_alliance.parties.trainer import QwenTrainer
    from fl_alliance.training.records import dataset_digest

    config = load(InstitutionConfig, home / "institution.toml")
    identity = IdentityKey.load(setup.Keys(home).identity)
    split = identity.derived_key(f"held-out units|{config.data.name}")

    def step(done: int, steps: int) -> None:
        tell(f"step {done}/{steps}")

    return institution_with(
        home,
        link,
        trainer=lambda plan: QwenTrainer(config, home, plan, split, step),
        records_digest=lambda: dataset_digest(home / config.data.path),
        releases=True,
        serves=serves,
        tell=tell,
        watch=watch,
    )


def institution_with(
    home: Path,
    link: InstitutionLink,
    *,
    trainer: Callable[[TrainingPlan], Trainer],
    records_digest: Callable[[], str],
    releases: bool = False,
    serves: bool = False,
    tell: Tell = lambda _: None,
    watch: InstitutionWatch = NOBODY,
) -> Callable[[bytes], bytes]:
    """Return the handler of the institution in `home`, around any trainer and its records; torch is not needed.

    `releases`: the trainer's adapter is a PEFT folder, and gets a model card, provenance and a model signature.
    """
    from fl_alliance.parties.desk import InstitutionDesk
    from fl_alliance.parties.institution import Desk, Institution
    from fl_alliance.parties.job_journal import JobJournal
    from fl_alliance.parties.release import ModelReleaser
    from fl_alliance.parties.vault import Vault

    config = load(InstitutionConfig, home / "institution.toml")
    keys = setup.Keys(home)
    identity = IdentityKey.load(keys.identity)
    root = read_file(keys.root_public, "alliance root")
    accounts = Accounts(
        identity=identity,
        policy=home / "policy.dsse.json",
        approvals=home / "approvals",
        ledger=ledger_file(home, config, identity),
        dataset_digest=records_digest,
    )

    def desk() -> Desk:
        return InstitutionDesk(
            name=config.name,
            identity=identity,
            jobs=home / "jobs",
            blobs=link.blobs,
            accounts=accounts,
            trainer=trainer,
            public_documents={"root.pub.json": root},
            performance=Performance(processes=config.cipher_processes),
            releaser=ModelReleaser(identity, keys.model) if releases else None,
        )

    shell = Institution(
        name=config.name,
        alliance=config.alliance,
        identity=identity,
        root=decode(AllianceRoot, root).public,
        coordinator=setup.COORDINATOR,
        members=keys.members.read_bytes() if keys.members.exists() else None,
        desk=desk,
        journal=JobJournal(journal_of(home, config, serves=serves), Vault(identity, config.alliance)),
        log_book=LogBook(home / "log", name=config.name, alliance=config.alliance, blobs=link.blobs),
        keep_members=functools.partial(write_atomically, keys.members),
        consider=Proposals(home / "proposals", approvals=home / "approvals", accounts=accounts, tell=tell).consider,
        tell=tell,
        watch=watch,
    )
    return keeping_refusals(home, shell.handle)
