"""Fuzz one parser or all of them, and print a table.

    python -m tests.fuzz --inputs 1000000 [--parser NAME] [--seed S]

Exit status 1 when any input gave something else than acceptance or a named error; the input is printed in hex.
"""

from __future__ import annotations

import argparse
import sys

from tests.fuzz.parsers import all_parsers
from tests.fuzz.run import HEADING, fuzz


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.fuzz")
    options.add_argument("--inputs", type=int, default=1_000_000, help="for each parser")
    options.add_argument("--parser", action="append", help="a name of the table, or its beginning; may be repeated")
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    bad = 0
    with all_parsers() as parsers:
        wanted = [p for name, p in parsers.items() if not given.parser or name.startswith(tuple(given.parser))]
        if not wanted:
            sys.exit(f"no such parser; there are: {', '.join(parsers)}")
        print(HEADING)
        for parser in wanted:
            found = fuzz(parser, given.inputs, given.seed)
            print(found.line, *found.bad, sep="\n    ", flush=True)
            bad += len(found.bad)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
