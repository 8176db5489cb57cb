"""A turn that changes nothing is told and counted exactly as any other, and asks nothing of anybody."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from controller.case import Case, facts_of
from controller.core import HpaPolicy
from controller.status import fingerprint
from controller.telemetry import Telemetry
from controller.turn import Reconciler
from tests.telling.test_explain import Bench

TURNS = 40


class Nobody:
    """Whoever is asked for anything fails the test."""

    fence_s = None

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for in a steady turn")


def bench_and_reconciler() -> tuple[Bench, Reconciler, Telemetry]:
    bench = Bench(HpaPolicy(), policy={"type": "HPA"}, maxReplicas=4)
    telemetry = Telemetry(bench.clock.now)
    preparer = SimpleNamespace(engine=bench.engine)
    actuator: Any = SimpleNamespace(scaler=Nobody(), routes=Nobody())
    nobody: Any = Nobody()
    reconciler = Reconciler(
        nobody, preparer, actuator, lambda entry: None, nobody, telemetry, bench.clock, nobody
    )  # type: ignore[arg-type]
    return bench, reconciler, telemetry


async def test_steady_turns_are_counted_by_action_outcome_and_clamp_and_recorded() -> None:
    bench, reconciler, telemetry = bench_and_reconciler()
    bench.decide(rate=60.0, current=4)
    over: list[Case] = []
    for _ in range(TURNS):
        case = bench.case(rate=60.0, current=4)
        bench.entry.published = fingerprint(facts_of(case))
        await reconciler.conclude([case], over.append)
    assert len(over) == TURNS
    value = telemetry.registry.get_sample_value
    assert value("rlscaler_reconciliations_total", {"action": "none", "error": "none"}) == TURNS
    assert value("rlscaler_decisions_total", {"outcome": "Held"}) == TURNS
    bounded = {"clamp": "Bounds", "reason": "TooManyReplicas"}
    assert value("rlscaler_clamps_total", bounded) == TURNS
    assert value("rlscaler_status_writes_total") == 0
    assert telemetry.objects.value("rlscaler_desired_replicas", "shop", "web") == 4
    last = reconciler.log.last("shop", "web")
    assert last is not None
    assert telemetry.objects.value("rlscaler_last_decision_timestamp_seconds", "shop", "web") == last.time_s
    assert len(reconciler.log.find(lambda record: True, 1000)) == TURNS


async def test_a_turn_that_fails_to_be_steady_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, reconciler, telemetry = bench_and_reconciler()
    bench.decide(rate=60.0, current=4)
    case = bench.case(rate=60.0, current=4)
    bench.entry.published = fingerprint(facts_of(case))

    def broken(*args: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(reconciler.log, "add", broken)
    await reconciler.conclude([case], lambda done: None)
    labels = [{"action": "none", "error": error} for error in ("none", "internal")]
    counts = [telemetry.registry.get_sample_value("rlscaler_reconciliations_total", one) for one in labels]
    assert sum(count or 0 for count in counts) == 1
