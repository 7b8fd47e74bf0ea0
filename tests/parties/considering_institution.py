"""An institution that is asked once, and ends with status 3 as soon as its data file was opened.

    python -m tests.parties.considering_institution HOME REQUEST DATA

Prints the answer's kind and, of a refusal, error and reason. The trainer, which comes after the decision, is left out
with the seconds that torch takes to load.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

from fl_alliance.parties import wiring
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode
from fl_alliance.protocol.envelope import Envelope
from fl_alliance.store.blobs import FolderBlobs
from fl_alliance.transport.local import LocalHub


def main() -> None:
    home, request, data = (Path(argument) for argument in sys.argv[1:])
    trainer = ModuleType("fl_alliance.parties.trainer")
    trainer.QwenTrainer = None  # type: ignore[attr-defined]
    sys.modules[trainer.__name__] = trainer
    link = LocalHub([home.name], FolderBlobs(home.parent / "coordinator" / "blobs")).institution_link(home.name)
    handle, asked = wiring.institution(home, link), request.read_bytes()

    opened: list[bool] = []

    def opener(event: str, arguments: tuple[object, ...]) -> None:
        """End with the first event after the data file was opened: by then the kernel has heard of it too."""
        if opened:
            os._exit(3)
        if event == "open" and arguments[0] in (str(data), os.fsencode(data)):
            opened.append(True)

    sys.addaudithook(opener)
    answer = decode(m.ANSWER, decode(Envelope, handle(asked)).body)
    print(answer.kind, f"{answer.error}: {answer.reason}" if isinstance(answer, m.Refusal) else "")


if __name__ == "__main__":
    main()
