"""A steady service costs no writes, and no more reads than its sync period asks for."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import Any

import pytest

from tests.conftest import OperatorFactory
from tests.integration.harness import (
    OBJECTIVE,
    RLSCALERS,
    SETTLED_REAL_S,
    TIME_SCALE,
    Namespace,
    OperatorProcess,
    Prometheus,
    Traffic,
    eventually,
)

PERIODS = 10
STEADY_PERIODS = 20
TRIES = 4
SETTLING_PERIODS = 14
"""Until the rate is in the window, and what was only thought on the way has been written."""
WRITES = ("POST", "PUT", "PATCH", "DELETE")


CASES: dict[str, dict[str, Any]] = {
    "active": {},
    "by the formula": {"policy": {"type": "HPA"}},
    "by the network": {"policy": {"type": "RL"}},
    "with a schedule": {
        "schedules": [{"start": "0 0 * * *", "end": "59 23 * * *", "timezone": "UTC", "minReplicas": 3}]
    },
    "with limits": {"limits": {"changesPerHour": 6, "maxStep": 4, "minStep": 2}},
    "held at its bounds": {"maxReplicas": 5},
    "without metrics": {"metrics": {"service": "nobody"}},
    "without a target": {"scaleTargetRef": {"kind": "Deployment", "name": "absent"}},
    "with an unknown artifact": {"policy": {"type": "RL", "artifact": {"builtin": "nonsense"}}},
    "paused": {"mode": "Paused"},
    "in shadow": {"mode": "Shadow"},
}


def test_nothing_is_written_while_nothing_changes(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    mark = uuid.uuid4().hex[:4]
    names = {f"steady-{case.replace(' ', '-')}-{mark}": spec for case, spec in CASES.items()}
    for name in names:
        traffic.set(ns.name, name, rate=38.0)
        ns.deployment(name, replicas=8)
    time.sleep(SETTLED_REAL_S)
    for name, spec in names.items():
        metrics = {"windowSeconds": 60, **spec.get("metrics", {})}
        ns.rlscaler(name, objective=OBJECTIVE, **{**spec, "metrics": metrics})
    eventually(lambda: all(len(ns.status(name)["conditions"]) >= 2 for name in names))
    decided(operator, ns, names, SETTLING_PERIODS)
    for _ in range(TRIES):
        before, events, since = {name: ns.get(name) for name in names}, len(all_events(ns)), time.monotonic()
        seen = decided(operator, ns, names, STEADY_PERIODS)
        after, writes = {name: ns.get(name) for name in names}, written(ns, since)
        if all(map(nothing_changed, seen.values())):
            break
    else:
        pytest.fail(f"no {STEADY_PERIODS} periods in which nothing changed")
    assert writes == []
    assert {name: after[name]["status"] for name in names if after[name] != before[name]} == {}
    assert len(all_events(ns)) == events


def decided(
    operator: OperatorProcess, ns: Namespace, names: Iterable[str], periods: int
) -> dict[str, list[dict[str, Any]]]:
    """So many new decisions for each name that has decisions; a busy machine takes its time for them."""
    begun = {name: {d["time"] for d in operator.decisions(ns.name, name)} for name in names}
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name, known in begun.items() if known}

    def enough() -> bool:
        for name, new in found.items():
            new |= {d["time"]: d for d in operator.decisions(ns.name, name) if d["time"] not in begun[name]}
        return all(len(new) >= periods for new in found.values())

    eventually(enough, timeout_s=30.0 + 4.0 * periods * 15 / TIME_SCALE, every_s=0.3)
    return {name: list(new.values()) for name, new in found.items()}


def nothing_changed(decisions: list[dict[str, Any]]) -> bool:
    """Whether the world stood still, as far as can be seen: the same outcomes of readings, the same wish."""
    seen = {
        (
            d["metrics"],
            d["fallback"],
            d["recommendedReplicas"],
            tuple(sorted((name, each["outcome"]) for name, each in d["readings"].items())),
            tuple(clamp["name"] for clamp in d["clamps"]),
        )
        for d in decisions
    }
    return len(seen) == 1


def written(ns: Namespace, since: float) -> list[str]:
    """The operator's write requests since then; a real API server does not tell."""
    if ns.cluster.twin is None:
        return []
    return [
        f"{entry.method} {entry.path}"
        for entry in list(ns.cluster.twin.cluster.log)
        if entry.time > since
        and entry.method in WRITES
        and f"/namespaces/{ns.name}/" in entry.path
        and "/steady-" in entry.path
        and "rl-scaler" in entry.user_agent
    ]


def all_events(ns: Namespace) -> list[dict[str, Any]]:
    items = ns.api.get(ns.path("/api/v1", "events"))["items"]
    return [item for item in items if item["involvedObject"]["kind"] == "RLScaler"]


@pytest.mark.twin_only
def test_a_turn_costs_one_read_of_the_target_and_nothing_else(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns, name = shared_namespace, "steady-reads"
    traffic.set(ns.name, name, rate=40.0)
    ns.deployment(name, replicas=8)
    ns.rlscaler(name, objective=OBJECTIVE, metrics={"windowSeconds": 60})
    ns.wait_condition(name, "Ready", "True")
    time.sleep(5)
    twin = ns.cluster.twin.cluster
    since = time.monotonic()
    time.sleep(PERIODS * 15 / TIME_SCALE)
    mine = [
        (entry.method, entry.path)
        for entry in list(twin.log)
        if entry.time > since and name in entry.path and "rl-scaler" in entry.user_agent
    ]
    reads = [path for method, path in mine if method == "GET" and path.endswith(f"/deployments/{name}")]
    assert PERIODS - 2 <= len(reads) <= PERIODS + 2
    assert len(mine) == len(reads)


@pytest.mark.twin_only
def test_with_watched_targets_a_turn_costs_no_request_and_changes_are_still_seen(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    operator = make_operator(prometheus, RLSCALER_WATCH_TARGETS_FROM="1")
    names = [f"watched-{number}" for number in range(4)]
    for name in names:
        traffic.set(ns.name, name, rate=40.0)
        ns.deployment(name, replicas=8)
    time.sleep(SETTLED_REAL_S)
    for name in names:
        ns.rlscaler(name, objective=OBJECTIVE, metrics={"windowSeconds": 60})
    for name in names:
        ns.wait_condition(name, "Ready", "True")
    time.sleep(5)
    made = len(operator.decisions(ns.name, names[0]))
    twin, since = ns.cluster.twin.cluster, time.monotonic()
    eventually(lambda: len(operator.decisions(ns.name, names[0])) >= made + PERIODS, timeout_s=60)
    asked = [
        (entry.method, entry.path)
        for entry in list(twin.log)
        if entry.time > since and f"/{ns.name}/" in entry.path and "rl-scaler" in entry.user_agent
    ]
    assert asked == []
    traffic.set(ns.name, names[0], rate=72.0)
    ns.wait_replicas(names[0], 14, 15, 16, timeout_s=40)
    assert operator.errors() == []


def test_an_operator_serves_its_shard_and_lets_go_of_what_leaves_it(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    operator = make_operator(prometheus, RLSCALER_SHARD="shard=a")
    for name in ("mine", "others"):
        traffic.set(ns.name, name, rate=40.0)
        ns.deployment(name, replicas=8)
    time.sleep(SETTLED_REAL_S)
    for name, shard in (("mine", "a"), ("others", "b")):
        ns.rlscaler(name, objective=OBJECTIVE, metrics={"windowSeconds": 60})
        label(ns, name, shard)
    eventually(lambda: operator.decisions(ns.name, "mine"), timeout_s=40)
    assert operator.decisions(ns.name, "others") == []
    label(ns, "mine", "b")
    label(ns, "others", "a")
    eventually(lambda: operator.decisions(ns.name, "others"), timeout_s=40)
    made = len(operator.decisions(ns.name, "mine"))
    time.sleep(3 * 15 / TIME_SCALE)
    assert len(operator.decisions(ns.name, "mine")) <= made + 1
    assert operator.errors() == []


def label(ns: Namespace, name: str, shard: str) -> None:
    ns.api.patch(ns.path(RLSCALERS, "rlscalers", name), {"metadata": {"labels": {"shard": shard}}})
