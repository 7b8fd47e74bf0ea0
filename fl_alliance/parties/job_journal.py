"""What an institution keeps of the job under way, so that a new process goes on where the last one was killed.

    request   an authentic request that the machine took, as it came
    done      what a piece of work gave, as JSON
    failed    error and reason of work that raised a named error
    broken    work that raised what nobody foresaw: the job ended here, unsigned

The machine folded over these events is where the job stands; what its work remembers beside them (keys, shares, an
update that is not sealed yet) is kept with them, sealed. An event, what it changed in memory and the reply that follows
from it are written together or not at all. With the first event of a job those of the jobs before go, and their
replies: what a job leaves for others to see is its evidence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from pydantic import TypeAdapter, ValidationError

from fl_alliance.errors import StoreFailed
from fl_alliance.parties.vault import Vault
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.ids import BlobRef
from fl_alliance.rounds import institution as machine

REQUEST: Final = "request"
DONE: Final = "done"
FAILED: Final = "failed"
BROKEN: Final = "broken"

_NOTHING: Final = TypeAdapter(None)
_TEXT: Final = TypeAdapter(str)
_PAIR: Final = TypeAdapter(tuple[str, str])
_BLOB: Final = TypeAdapter(BlobRef)
_SEALED: Final = TypeAdapter(tuple[m.ToMember, ...])
_RESULTS: Final[Mapping[type[machine.Work], TypeAdapter[Any]]] = {
    machine.Consider: _PAIR,
    machine.MakeAllianceKey: TypeAdapter(tuple[str, str, tuple[m.ToMember, ...]]),
    machine.TakeAllianceKey: _TEXT,
    machine.MakeRoundKeys: _PAIR,
    machine.DealShares: _SEALED,
    machine.OpenShares: _NOTHING,
    machine.Charge: _TEXT,
    machine.Train: _NOTHING,
    machine.Seal: _BLOB,
    machine.RevealShares: _TEXT,
    machine.AddAgain: _BLOB,
    machine.OpenSum: TypeAdapter(tuple[str, str | None]),
    machine.Keep: TypeAdapter(tuple[str | None, BlobRef | None]),
}

Row = tuple[str, bytes]
"""Kind and body of an event."""


class Pages(Protocol):
    """Where events, secrets and replies are kept; each method raises `StoreFailed` where it can't."""

    def reply(self, request: str) -> bytes | None:
        """Return the reply that was given to the request with this digest."""

    def current(self) -> str | None:
        """Return the job that `advance` wrote last."""

    def events(self, job: str) -> list[Row]:
        """Return the events of `job`, oldest first."""

    def memory(self, job: str) -> dict[str, tuple[bytes, ...]]:
        """Return what is remembered for `job`, in its pieces, by name."""

    def advance(
        self,
        job: str,
        kind: str,
        body: bytes,
        *,
        remember: Mapping[str, Sequence[bytes] | None],
        forget: bool = False,
        begins: bool = False,
        reply: tuple[str, bytes] | None = None,
    ) -> None:
        """Write all of it durably, or nothing: an event, memory, and the reply to the request with a digest.

        Of memory, all jobs' goes first if `forget`, and if `begins` their events and replies too; then a name gets its
        new body, in pieces, or is removed for None.
        """


class JobJournal:
    """Events of one institution, and its sealed memory of the job under way."""

    def __init__(self, pages: Pages, vault: Vault) -> None:
        self._pages, self._vault = pages, vault

    def reply(self, request: str) -> bytes | None:
        """Return the reply that was given to the request with this digest (StoreFailed)."""
        return self._pages.reply(request)

    def current(self) -> str | None:
        """Return the job that `advance` wrote last (StoreFailed)."""
        return self._pages.current()

    def events(self, job: str) -> list[Row]:
        """Return the events of `job`, oldest first (StoreFailed)."""
        return self._pages.events(job)

    def memory(self, job: str) -> dict[str, bytes]:
        """Return what the work of `job` remembered, by name (StoreFailed: also where it was not sealed here)."""
        return {name: self._vault.open(job, name, sealed) for name, sealed in self._pages.memory(job).items()}

    def advance(
        self,
        job: str,
        event: Row,
        *,
        remember: Mapping[str, bytes | None],
        forget: bool,
        reply: tuple[str, bytes] | None,
        begins: bool = False,
    ) -> None:
        """Write an event, what it changed in memory and the reply that follows, together (StoreFailed: nothing).

        `begins`: with it a job begins, and nothing of the jobs before is kept.
        """
        sealed = {
            name: None if secret is None else self._vault.seal(job, name, secret) for name, secret in remember.items()
        }
        self._pages.advance(job, *event, remember=sealed, forget=forget, begins=begins, reply=reply)


def row_of(work: machine.Work, event: machine.Done | machine.Failed) -> Row:
    """Return how `work` ended, as an event."""
    if isinstance(event, machine.Failed):
        return FAILED, json.dumps([event.error, event.reason]).encode()
    return DONE, _RESULTS[type(work)].dump_json(event.result)


def event_of(work: machine.Work, kind: str, body: bytes) -> machine.Done | machine.Failed:
    """Return the event that `row_of` wrote.

    Raises:
        StoreFailed: it is none of `work`.
    """
    try:
        if kind == FAILED:
            error, reason = json.loads(body)
            return machine.Failed(error, reason)
        if kind == DONE:
            return machine.Done(_RESULTS[type(work)].validate_json(body))
    except (ValidationError, ValueError) as error:
        raise StoreFailed(f"journal: {kind} of {type(work).__name__} can't be read ({type(error).__name__})") from None
    raise StoreFailed(f"journal: {kind!r} while {type(work).__name__} was under way")
