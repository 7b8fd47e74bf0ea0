"""`job_journal.Pages` in dictionaries, with a way to die at any write: before it, or just after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from fl_alliance.parties.job_journal import Row


class MemoryPages:
    """Everything an institution's database holds. `dies` is called with the number of the write, before and after."""

    def __init__(self, dies: Callable[[int, str], None] = lambda number, when: None) -> None:
        self.dies = dies
        self.writes = 0
        self._events: dict[str, list[Row]] = defaultdict(list)
        self._memory: dict[str, dict[str, tuple[bytes, ...]]] = defaultdict(dict)
        self._replies: dict[str, bytes] = {}
        self._last: str | None = None

    def reply(self, request: str) -> bytes | None:
        return self._replies.get(request)

    def current(self) -> str | None:
        return self._last

    def events(self, job: str) -> list[Row]:
        return list(self._events[job])

    def memory(self, job: str) -> dict[str, tuple[bytes, ...]]:
        return dict(self._memory[job])

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
        self.writes += 1
        self.dies(self.writes, "before")
        if begins:
            self._events.clear()
            self._replies.clear()
        if forget or begins:
            self._memory.clear()
        for name, pieces in remember.items():
            self._memory[job].pop(name, None)
            if pieces is not None:
                self._memory[job][name] = tuple(pieces)
        self._events[job].append((kind, body))
        self._last = job
        if reply is not None:
            assert reply[0] not in self._replies
            self._replies[reply[0]] = reply[1]
        self.dies(self.writes, "after")
