"""A whole alliance on one machine, with faults: a load and fault test of the protocol, without a model or a record.

Real are the coordinator's and the institutions' shells, machines and desks, keys and signatures, policies, ledgers,
shares, masks and ciphers, journals and evidence, each party in a folder of its own. A stand-in gives each update: a
vector of noise. The wire is in this process, and time passes only while nothing is under way: who waits for a member
that is gone waits without waiting. No figure of privacy comes out of it (docs/decisions/0015-simulation.md).
"""

from __future__ import annotations

from pathlib import Path

from fl_alliance.errors import BadConfig
from fl_alliance.parties.simulate.alliance import Simulation, Tell
from fl_alliance.parties.simulate.outcome import Compared, Outcome, outcome_of, require_right
from fl_alliance.parties.simulate.settings import SimulationSettings

__all__ = ["Compared", "Outcome", "Simulation", "SimulationSettings", "outcome_of", "require_right", "run_simulation"]


def run_simulation(settings: SimulationSettings, folder: Path, *, tell: Tell = lambda _: None) -> Outcome:
    """Run one job of an alliance whose folders are made in `folder`; return what it took and what came of it.

    Raises:
        BadConfig: `folder` is there already.
        BadPlan: the settings make no plan, or its messages would be too long for so many members.
        EvidenceRefused: the auditor refuses the evidence of a survivor.
    """
    if folder.exists():
        raise BadConfig(f"folder: {folder} is there already, name a new one")
    simulation = Simulation(settings, folder, tell=tell)
    return outcome_of(simulation, simulation.run())
