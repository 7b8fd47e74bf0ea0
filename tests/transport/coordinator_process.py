"""A coordinator to be killed: asks one member for its pid, prints the answer, asks for a long job, and hangs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fl_alliance.transport.flower.coordinator import FlowerCoordinatorLink
from fl_alliance.transport.flower.tls import TlsFiles
from tests.transport.stores import FolderBlobs


def main(settings: dict[str, str]) -> None:
    home = Path(settings["home"])
    tls = TlsFiles(ca=Path(settings["ca"]), certificate=Path(settings["certificate"]), key=Path(settings["key"]))
    link = FlowerCoordinatorLink(
        host="127.0.0.1", port=int(settings["port"]), database=home / "flower.db", tls=tls,
        nodes={settings["member"]: settings["node"].encode()}, blobs=FolderBlobs(home / "blobs"), home=home,
    )  # fmt: skip
    link.ask(settings["member"], b"pid")
    while not (found := link.replies(60)):
        pass
    link.ask(settings["member"], b"sleep 2")
    sys.stdout.write(f"{(found[0].payload or b'').decode()}\n")
    sys.stdout.flush()
    link.replies(600)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
