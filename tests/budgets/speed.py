"""How long budgets take in a batch: `python -m tests.budgets.speed`. Everybody is short, the slowest case."""

from __future__ import annotations

import time

from tests.budgets.world import World

SIZES = (10, 100, 1000, 10000)
REPEATS = 5


def milliseconds(members: int) -> float:
    """The fastest of some batches of a fifteenth of the members, as of a sync period of 15 s."""
    world = World()
    names = [f"m{number}" for number in range(members)]
    for number, name in enumerate(names):
        world.add(name, 3, priority=number % 3)
    world.budget("all", maxReplicas=5 * members, maxCost=str(6 * members))
    world.read()
    world.decide({name: 3 + number % 7 for number, name in enumerate(names)})
    batch = dict.fromkeys(names[: max(1, members // 15)], 6)
    found = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        world.decide(batch)
        found.append(time.perf_counter() - started)
    return 1000 * min(found)


if __name__ == "__main__":
    for members in SIZES:
        print(f"{members:6} members: {milliseconds(members):7.1f} ms a batch")
