"""From the pools' own readings to shares, and what happens when there are none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from controller.actuation.weights import weigher
from controller.case import Case
from controller.core import HpaPolicy, Outcome, Pool
from controller.errors import MetricsError
from controller.metrics import SignalReading
from controller.policybook import Chosen
from controller.poolweights import PoolWeigher
from controller.registry import Registry
from tests.operator.bodies import rlscaler

NAMES = ("od", "spot")
SERVICES = tuple(f"web-{name}" for name in NAMES)
POOLS = [Pool("od", max_replicas=10), Pool("spot", max_replicas=10)]
GOOD = {"requestRate": 10.0, "latency": 50.0, "errorRatio": 0.0, "cpuUtilization": 0.25, "inFlight": 1.0}
SLOW = {**GOOD, "latency": 900.0}


class Source:
    """Answers for each pool by its service's name in the query; `values` may be changed between turns."""

    def __init__(self, **values: dict[str, float]) -> None:
        self.values = values
        self.asked = 0

    async def read(self, queries: Any, now: float | None = None) -> dict[str, SignalReading]:
        self.asked += len(queries)
        pool = next(name for name in NAMES if f'"web-{name}"' in queries["requestRate"])
        known = self.values.get(pool, {})
        missing = SignalReading(float("nan"), Outcome.EMPTY, "nothing")
        return {
            name: SignalReading(known[name], Outcome.OK) if name in known else missing for name in queries
        }


class Turns:
    """One RLScaler's turns, 15 s apart."""

    def __init__(self, source: Source, **spec: Any) -> None:
        backends = [
            {"name": name, "scaleTargetRef": {"kind": "Deployment", "name": f"web-{name}"}, "maxReplicas": 10}
            for name in NAMES
        ]
        body = rlscaler(
            "web",
            scaleTargetRef=None,
            maxReplicas=None,
            backends=backends,
            routes=[{"kind": "HTTPRoute", "name": "web"}],
            objective={"capacityPerReplica": "10"},
            **spec,
        )
        self.entry = Registry().apply(body).entry
        assert self.entry.trouble is None
        self.source = source
        self.now_s = 0.0
        self.weigher = PoolWeigher(1.0, lambda: self.now_s)

    async def turn(self, current: tuple[int, int] = (50, 50), ready: tuple[int, int] = (4, 4)) -> list[int]:
        self.now_s += 15.0
        case: Any = Case(self.entry, 1)
        case.work = SimpleNamespace(feed=SimpleNamespace(source=self.source), chosen=Chosen(HpaPolicy()))
        case.targets = tuple(SimpleNamespace(ready=count) for count in ready)
        ask = await self.weigher.ask(case, float("nan"))
        weigh = weigher(SERVICES, POOLS, ready, None, ask)
        assert weigh is not None
        found = weigh(100, dict(zip(SERVICES, current, strict=True)))
        return [found[service] for service in SERVICES]


async def test_without_routing_nothing_is_asked_and_ready_replicas_decide() -> None:
    turns = Turns(Source(od=GOOD, spot=GOOD))
    assert await turns.turn(ready=(3, 1)) == [75, 25]
    assert turns.source.asked == 0


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("Ready", [75, 25]), ("Equal", [50, 50]), ("Capacity", [50, 50]), ("ExpectedDelay", [75, 25])],
)
async def test_each_policy_has_its_shares(policy: str, expected: list[int]) -> None:
    # of 20 req/s each pool gets 10: with 3 and 1 replicas of 10 req/s they are busy by 1/3 and 1
    source = Source(od={**GOOD, "cpuUtilization": 1 / 3}, spot={**GOOD, "cpuUtilization": 1.0})
    assert await Turns(source, routing={"policy": policy}).turn(ready=(3, 1)) == expected


async def test_a_sick_pool_is_out_and_comes_back_by_steps() -> None:
    source = Source(od=GOOD, spot=SLOW)
    turns = Turns(source, routing={"ejection": {"baseSeconds": 30, "recoverySeconds": 60}})
    first = await turns.turn()
    assert first == [95, 5]
    assert turns.entry.spec is not None
    assert turns.weigher.ejected("uid-web", turns.entry.spec) == ["spot"]
    source.values["spot"] = GOOD
    later = [(await turns.turn())[1] for _ in range(8)]
    assert later == sorted(later)
    assert later[-1] == 50
    assert len(set(later)) >= 4


async def test_the_latency_gradient_gives_a_pool_back_that_was_out() -> None:
    source = Source(od=GOOD, spot=SLOW)
    routing = {"policy": "LatencyGradient", "ejection": {"baseSeconds": 30, "recoverySeconds": 60}}
    turns = Turns(source, routing=routing)
    weights = await turns.turn()
    for _ in range(4):
        weights = await turns.turn((weights[0], weights[1]))
    assert weights[1] <= 5
    source.values["spot"] = GOOD
    back = []
    for _ in range(12):
        weights = await turns.turn((weights[0], weights[1]))
        back.append(weights[1])
    assert back == sorted(back)
    assert back[-1] >= 40


async def test_weights_are_held_while_no_pool_can_be_read() -> None:
    turns = Turns(Source(), routing={"policy": "Equal"})
    assert await turns.turn(current=(80, 20)) == [80, 20]
    assert await turns.turn(current=(80, 20), ready=(4, 0)) == [100, 0], "but nobody waits for nobody"


async def test_queries_about_all_pools_are_not_taken_for_one_of_them() -> None:
    spec = {"preset": "custom", "queries": {"requestRate": "sum(rate(all[1m]))"}}
    with pytest.raises(MetricsError, match="requestRate"):
        await Turns(Source(od=GOOD, spot=GOOD), routing={}, metrics=spec).turn()
