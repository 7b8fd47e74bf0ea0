"""Soak the alliance for a while, and print what was seen.

    python -m tests.soak --minutes 120 --seed 7

Exit status 1 if anything was wrong; the folder with all logs then stays.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.run import Soak


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.soak")
    options.add_argument("--minutes", type=float, default=120.0)
    options.add_argument("--seed", type=int, default=7, help="of kills and network faults")
    options.add_argument("--kill-every", type=float, default=20.0, help="seconds between two kills, on average")
    options.add_argument("--folder", type=Path, help="where to run; a new folder")
    given = options.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="fl-alliance-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:7.1f}  {line}", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # and the parties with it
    found = Soak(folder, seed=given.seed, kill_every=given.kill_every, tell=tell).run(60 * given.minutes)
    print("\n".join(found.lines()))
    if found.problems:
        sys.exit(f"something was wrong; everything is in {folder}")
    if given.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
