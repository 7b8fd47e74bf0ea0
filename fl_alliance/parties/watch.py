"""Who looks on while a party works: metrics now, nobody by default. A watch decides nothing and may not raise."""

from __future__ import annotations

from typing import Protocol

from fl_alliance.protocol import messages as m
from fl_alliance.rounds import coordinator, institution


class CoordinatorWatch(Protocol):
    """Is told what the coordinator's shell did, after it is in the journal."""

    def happened(self, state: coordinator.State, event: coordinator.Event) -> None:
        """Take note of an event and of the state that it led to."""

    def dropped(self, why: str) -> None:
        """Take note of a reply that was none: `why` is the name of an error, or "no-reply"."""


class InstitutionWatch(Protocol):
    """Is told what the institution's shell did."""

    def answered(self, request: m.Request, answer: m.Answer) -> None:
        """Take note of an answer that was just signed."""

    def worked(self, work: institution.Work, seconds: float) -> None:
        """Take note of a piece of work that succeeded, and how long it took."""


class Nobody:
    """Looks away: both protocols."""

    def happened(self, state: coordinator.State, event: coordinator.Event) -> None:
        """Do nothing."""

    def dropped(self, why: str) -> None:
        """Do nothing."""

    def answered(self, request: m.Request, answer: m.Answer) -> None:
        """Do nothing."""

    def worked(self, work: institution.Work, seconds: float) -> None:
        """Do nothing."""


NOBODY = Nobody()
