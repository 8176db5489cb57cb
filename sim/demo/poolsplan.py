"""The demo of pools on real requests: which sets there are, and what breaks when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.errors import require
from sim.twin.dataplane.plan import RATE_RPS, RULES, SetPlan

DURATION_S = 180.0
SLOWER, FAILS = 5.0, 0.3
SICK = "spot"


@dataclass(frozen=True)
class Act:
    """One part of the demo. part: of its whole length. slower, fails: what the spot pool is meanwhile."""

    name: str
    part: float
    slower: float = 1.0
    fails: float = 0.0


ACTS = (
    Act("all is well", 0.14),
    Act(f"the {SICK} pool is {SLOWER:g} times slower", 0.22, slower=SLOWER),
    Act("it is well again", 0.30),
    Act(f"the {SICK} pool fails {FAILS:.0%} of its requests", 0.20, fails=FAILS),
    Act("and well again", 0.14),
)


@dataclass(frozen=True)
class PoolsPlan:
    """One demo: sets with the same traffic, in real time. duration_s: real seconds of all acts together."""

    sets: tuple[SetPlan, ...]
    duration_s: float

    def act(self, elapsed_s: float) -> int:
        """Which of ACTS it is; the first before the start, the last at the end."""
        end = 0.0
        for index, act in enumerate(ACTS):
            end += act.part * self.duration_s
            if elapsed_s < end:
                return index
        return len(ACTS) - 1


def make_pools_plan(rules: Sequence[str] = RULES, duration_s: float = DURATION_S) -> PoolsPlan:
    """Sets by rules such as `Ready` or `ExpectedDelay+ejection`, whose replicas follow the load.

    Raises:
        ParameterError: an unknown rule; a duration that is too short for anything to be seen.
    """
    require(10 <= duration_s <= 86_400, "duration", duration_s, "in 10..86400 s with --data-plane envoy")
    return PoolsPlan(tuple(SetPlan(rule, RATE_RPS, elastic=True) for rule in rules), duration_s)
