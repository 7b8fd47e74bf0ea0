"""The coordinator as its admin starts it, but that it asks again after two seconds and not after ninety.

    python -m tests.soak.coordinator coordinator serve HOME

A request that goes down with a process or a connection is sent again then, and a soak has time for more of them.
"""

from __future__ import annotations

import functools

from fl_alliance import cli
from fl_alliance.parties import wiring

if __name__ == "__main__":
    wiring.coordinator = functools.partial(wiring.coordinator, ask_again=2.0)  # type: ignore[assignment]
    cli.main()
