"""One institution in a process of its own: `python -m tests.transport.member_process <json settings>`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from fl_alliance.transport.flower.institution import FlowerInstitutionLink
from fl_alliance.transport.flower.tls import TlsFiles


def handler(request: bytes) -> bytes:
    """What every institution of these tests answers."""
    if request == b"boom":
        raise ValueError("the text of this is private")
    if request == b"pid":
        return str(os.getpid()).encode()
    if request.startswith(b"sleep "):
        time.sleep(float(request[6:]))
    return request[::-1]


def main(settings: dict[str, str]) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    tls = TlsFiles(ca=Path(settings["ca"]), certificate=Path(settings["certificate"]), key=Path(settings["key"]))
    link = FlowerInstitutionLink(
        address=settings["address"], tls=tls, node_key=Path(settings["node_key"]), state=Path(settings["state"])
    )
    link.serve(handler, keep_going=lambda: not stopped)
    link.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
