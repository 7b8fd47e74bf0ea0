"""The simulated alliance: folders, keys, policies, a wire with faults, and members that go away."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fl_alliance.errors import LinkFailed
from fl_alliance.parties import wiring
from fl_alliance.parties.demo import stage
from fl_alliance.parties.setup import COORDINATOR
from fl_alliance.parties.simulate.meter import Clock, Meter, MeteredBlobs, MeteredLink, Phase, phase_of
from fl_alliance.parties.simulate.settings import SimulationSettings, plan_of
from fl_alliance.parties.simulate.stand_in import Draws, StandIn
from fl_alliance.protocol.documents import InstitutionPolicy, Partner
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import TrainingPlan
from fl_alliance.protocol.sizes import require_sendable
from fl_alliance.rounds import coordinator as machine
from fl_alliance.store.blobs import FolderBlobs
from fl_alliance.transport.local import Handler, LocalHub, RandomFaults

ASK_AGAIN_SECONDS = 30.0
Tell = Callable[[str], None]


class Departures:
    """Who goes away in which phase: before the request reaches it, or after its work, with the answer unsent."""

    def __init__(self, settings: SimulationSettings) -> None:
        self._drop, self._seed = settings.drop, settings.seed
        self._gone: set[str] = set()
        self._leaving: dict[Phase, frozenset[str]] = {}

    def leaves(self, member: str, phase: Phase, names: Sequence[str]) -> bool:
        """Say whether `member` goes away in this phase; before the first round nobody does."""
        if not (self._drop and phase[0]):
            return False
        if phase not in self._leaving:
            here = [name for name in names if name not in self._gone]
            self._leaving[phase] = frozenset(self._drawn(phase, here))
            self._gone |= self._leaving[phase]
        return member in self._leaving[phase]

    def works_first(self, member: str, phase: Phase) -> bool:
        """Say whether it does what it was asked before it goes."""
        return _drawn(self._seed, f"{phase}|{member}").random() < 0.5

    def _drawn(self, phase: Phase, here: list[str]) -> list[str]:
        draw = _drawn(self._seed, str(phase))
        if self._drop >= 1:
            return draw.sample(here, min(int(self._drop), len(here)))
        return [name for name in here if draw.random() < self._drop]


class Simulation:
    """One job of a simulated alliance in `folder`, which must be new."""

    def __init__(self, settings: SimulationSettings, folder: Path, *, tell: Tell = lambda _: None) -> None:
        """Make keys, folders, policies and the signed plan.

        Raises:
            BadPlan: the settings make no plan, or its messages would be too long for so many members.
        """
        self.settings, self.folder, self._tell = settings, folder, tell
        self.plan = plan_of(settings)
        require_sendable(self.plan)
        self.draws = Draws(self.plan, settings.parameters)
        self.meter, self.clock = Meter(), Clock()
        stage.found(folder, self.plan.alliance, _configurations(self.plan), self._policies, port=9443)
        wiring.propose(folder / COORDINATOR, self.plan)
        self._blobs = FolderBlobs(folder / COORDINATOR / "blobs")
        self._hub = LocalHub(self.plan.names, self._blobs, _faults(settings))
        self._departures, self._phase = Departures(settings), (0, "")
        for name in self.plan.names:
            self._hub.attach(name, self._seat(name))

    def run(self) -> machine.State:
        """Run the job to its end."""
        shell = wiring.coordinator(
            self.folder / COORDINATOR,
            self.plan.job,
            MeteredLink(self._hub.coordinator_link(), self.meter, self.clock),
            self._blobs,
            tell=lambda _: self._show(phase_of(shell.state)),
            ask_again=ASK_AGAIN_SECONDS,
            clock=self.clock,
            between=_drawn(self.settings.seed, "waits").uniform,
        )
        self.meter.phase = lambda: phase_of(shell.state)
        self.meter.start()
        return shell.run()

    def _show(self, phase: Phase) -> None:
        if phase != self._phase:
            self._phase = phase
            self._tell(f"round {phase[0]}/{self.plan.rounds}: {phase[1]}")

    def _seat(self, name: str) -> Handler:
        """Return an institution's handler, which works on the meter and may go away."""
        link = self._hub.institution_link(name)
        link.blobs = MeteredBlobs(self._blobs, name, self.meter)
        handler = wiring.institution_with(
            self.folder / name,
            link,
            trainer=lambda _: StandIn(name, self.draws, self.settings.parameters),
            records_digest=lambda: digest_of(f"no records of {name}".encode()),
        )

        def answer(request: bytes) -> bytes:
            phase = self.meter.phase()
            leaves = self._departures.leaves(name, phase, self.plan.names)
            if leaves:
                self._hub.offline.add(name)
            with self.meter.member(name):
                reply = handler(request) if not leaves or self._departures.works_first(name, phase) else b""
            if leaves:
                raise LinkFailed(f"{name} is gone")
            return reply

        return answer

    def _policies(self, partners: Sequence[Partner]) -> Mapping[str, InstitutionPolicy]:
        privacy = self.plan.privacy
        return {
            name: InstitutionPolicy(
                institution=name,
                dataset=_dataset(name),
                epsilon_per_job=privacy.epsilon_cap,
                epsilon_per_dataset=privacy.epsilon_cap,
                epsilon_per_year=privacy.epsilon_cap,
                delta_max=privacy.delta,
                allowed_units=(privacy.unit,),
                minimum_members=self.plan.minimum_members,
                partners=stage.others(partners, name),
            )
            for name in self.plan.names
        }


def _configurations(plan: TrainingPlan) -> dict[str, str]:
    """Return an `institution.toml` for each; ciphers in this process, for a worker of each member would be hundreds."""
    found = {}
    for name in plan.names:
        table: dict[str, str | int] = {"name": name, "alliance": plan.alliance, "coordinator": "127.0.0.1:9443"}
        data: dict[str, str | int] = {"name": _dataset(name), "path": "none", "unit_column": "none"}
        table |= {"model_folder": "none", "cipher_processes": 0}
        found[name] = f"{stage.toml(table)}\n[data]\n{stage.toml(data)}"
    return found


def _drawn(seed: int, what: str) -> random.Random:
    return random.Random(f"{seed}|{what}")  # noqa: S311  # faults to test with, nothing secret


def _dataset(name: str) -> str:
    return f"{name}-records"


def _faults(settings: SimulationSettings) -> RandomFaults:
    return RandomFaults(
        seed=settings.seed, lose=settings.lose, duplicate=settings.duplicate, delay=settings.delay, longest_delay=40
    )
