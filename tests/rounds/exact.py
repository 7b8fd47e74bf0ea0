"""Random rounds with real cryptography: `python -m tests.rounds.exact --rounds 10000 [--seed S] [--most 12]`.

Each round has 3 to 12 members, a bit width, a threshold, and members that vanish in random phases. The outcome is the
exact integer sum of the survivors at every institution that opened it, or an abort with a reason. Anything else ends
the program with an error that names the round's seed.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from dataclasses import dataclass

import numpy as np

from fl_alliance.protocol.limits import MIN_MEMBERS
from fl_alliance.rounds import coordinator as c
from tests.rounds.real import RealHouse, RealPlay, mean_of, names_of, on_levels, real_plan

PHASES = (
    "round-keys",
    "sealed-shares",
    "sealed-update",
    "survivors-confirmed",
    "revealed-shares",
    "sum-checked",
    "adapter-vote",
    "released",
)
WIDTHS = (8, 12, 16, 18, 20)


@dataclass(frozen=True)
class Vanishing:
    """A member that answers nothing from this phase on."""

    member: str
    phase: str


def play_and_check(members: int, bits: int, threshold: int, gone: tuple[Vanishing, ...], seed: int) -> c.State:
    """Play one round and check its outcome; return the last state."""
    draw = np.random.default_rng(seed)
    digits = draw.integers(0, 1 << bits, (members, int(draw.integers(1, 30))))
    plan = real_plan(members, bits, threshold=threshold, rounds=1)
    play = RealPlay(plan, on_levels(digits, bits))
    while True:
        if isinstance(play.state, c.Gathering) and play.state.progress.round == 1:
            awaited = c.kind_of(play.state.awaits)
            for one in gone:
                if one.phase == awaited:
                    play.vanish(one.member)
        if not play.honest_step():
            break
    _check(play, dict(zip(plan.names, digits, strict=True)), bits)
    return play.state


def _check(play: RealPlay, digits: dict[str, np.ndarray], bits: int) -> None:
    state = play.state
    if isinstance(state, c.Aborted):
        assert state.reason, "an abort without a reason"
        opened = [house for house in play.houses.values() if isinstance(house, RealHouse) and house.trainer.means]
        survivors = state.progress.phases.get("sealed-update", {})
    else:
        assert isinstance(state, c.Finished), state
        survivors = state.progress.phases["sealed-update"]
        opened = [h for h in play.houses.values() if isinstance(h, RealHouse) and h.trainer.means]
        assert len(opened) >= play.plan.quorum
    expected = mean_of([digits[name] for name in survivors], bits) if survivors else None
    for house in opened:
        assert len(house.trainer.means) == 1
        assert expected is not None
        assert np.array_equal(house.trainer.means[0], expected), (house.name, sorted(survivors))
    if len(survivors) and opened:
        assert len(survivors) >= play.plan.fewest


def main() -> None:
    """Play many random rounds and print how they ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=12)
    arguments = parser.parse_args()
    ends: Counter[str] = Counter()
    for number in range(arguments.rounds):
        coins = random.Random(f"{arguments.seed}/{number}")
        members = coins.randint(MIN_MEMBERS, arguments.most)
        threshold = coins.randint(members // 2 + 1, members)
        leaving = coins.sample(names_of(members), coins.choice((0, 1, 1, 2, coins.randint(0, members))) % (members + 1))
        gone = tuple(Vanishing(name, coins.choice(PHASES)) for name in leaving)
        bits = coins.choice(WIDTHS)
        try:
            state = play_and_check(members, bits, threshold, gone, number)
        except BaseException:
            print(f"seed {arguments.seed}, round {number}: {members} members, {bits} bits, {threshold=}, {gone=}")
            raise
        ends[type(state).__name__] += 1
        if number % 100 == 99:
            print(f"{number + 1} rounds: {dict(ends)}", flush=True)
    print(f"{arguments.rounds} rounds: {dict(ends)}; no third outcome")


if __name__ == "__main__":
    main()
