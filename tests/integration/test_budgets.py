"""A budget over real parts: three RLScalers share it by priority, nobody is raised beyond it, all is said."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from tests.conftest import OperatorFactory
from tests.integration.harness import (
    RLSCALERS,
    ApiError,
    Namespace,
    OperatorProcess,
    Prometheus,
    eventually,
    http_get,
)


def budget(ns: Namespace, name: str, team: str | None = None, **limits: Any) -> None:
    selector = {"matchLabels": {"team": team or name}}
    body = {
        "apiVersion": "rlscaler.dev/v1alpha1",
        "kind": "RLScalerBudget",
        "metadata": {"name": name},
        "spec": {"selector": selector, **limits},
    }
    ns.api.create(ns.path(RLSCALERS, "rlscalerbudgets"), body)


def budget_status(ns: Namespace, name: str) -> dict[str, Any]:
    return dict(ns.api.get(ns.path(RLSCALERS, "rlscalerbudgets", name)).get("status") or {})


def condition(ns: Namespace, name: str, kind: str) -> dict[str, Any]:
    found = [c for c in budget_status(ns, name).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


def wait_condition(ns: Namespace, name: str, kind: str, status: str, reason: str = "") -> dict[str, Any]:
    def check() -> dict[str, Any]:
        found = condition(ns, name, kind)
        assert found.get("status") == status, found
        assert reason in ("", found.get("reason")), found
        return found

    return eventually(check, timeout_s=30)


def join(ns: Namespace, name: str, team: str) -> None:
    ns.api.patch(ns.path(RLSCALERS, "rlscalers", name), {"metadata": {"labels": {"team": team}}})


def wishing(replicas: int) -> dict[str, Any]:
    """A spec that asks for so many replicas, however busy the machine: no metrics, a static fallback."""
    fallback = {"behavior": "Static", "replicas": replicas, "failureThreshold": 1}
    return {"metrics": {"service": "nobody"}, "fallback": fallback}


def members(ns: Namespace, team: str, wanted: dict[str, tuple[int, int, int]], **spec: Any) -> dict[str, str]:
    """RLScalers of one team with their Deployments: (asks for, has, priority) by short name -> full names."""
    names = {short: f"{team}-{short}" for short in wanted}
    for short, (asks, has, priority) in wanted.items():
        ns.deployment(names[short], replicas=has)
        ns.rlscaler(names[short], {"team": team}, priority=priority, **{**wishing(asks), **spec})
    return names


def wish(ns: Namespace, name: str, replicas: int) -> None:
    ns.patch_spec(name, fallback={"replicas": replicas})


def settled(ns: Namespace, names: dict[str, str], total: int) -> bool:
    """Whether all is used, and each is told what it has or nothing."""
    have = {name: ns.replicas(name) for name in names.values()}
    told = {name: ns.status(name).get("budget", {}) for name in have}
    assert sum(have.values()) == total, have
    assert all(told[name].get("cap", have[name]) == have[name] for name in have), (have, told)
    return True


class Watcher(threading.Thread):
    """Notes the most replicas that some Deployments have had together."""

    def __init__(self, ns: Namespace, names: list[str]) -> None:
        super().__init__(daemon=True)
        self._ns, self._names, self.over = ns, set(names), threading.Event()
        self.most = 0

    def run(self) -> None:
        while not self.over.wait(0.05):
            try:
                items = self._ns.api.get(self._ns.path("/apis/apps/v1", "deployments"))["items"]
            except ApiError:
                continue
            mine = [item for item in items if item["metadata"]["name"] in self._names]
            self.most = max(self.most, sum(item["spec"]["replicas"] for item in mine))


@contextmanager
def watched(ns: Namespace, names: dict[str, str]) -> Iterator[Watcher]:
    watcher = Watcher(ns, list(names.values()))
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.over.set()
        watcher.join()


def shows(operator: OperatorProcess, line: str) -> bool:
    return line in http_get(f"{operator.url}/metrics")[1]


def test_a_shortage_is_shared_by_priority_and_ends_with_the_budget(
    operator: OperatorProcess, shared_namespace: Namespace
) -> None:
    """Wishes of 2, 6 and 8 in a budget of 18, then 10 by the first; then a smaller budget, then none."""
    ns = shared_namespace
    budget(ns, "shop", maxReplicas=18)
    wait_condition(ns, "shop", "Ready", "True", "NoMembers")
    names = members(ns, "shop", {"high": (2, 2, 10), "middle": (6, 6, 0), "low": (8, 6, -10)})
    with watched(ns, names) as watcher:
        ns.wait_replicas(names["low"], 8, timeout_s=60)
        wait_condition(ns, "shop", "Exhausted", "False")
        wish(ns, names["high"], 10)
        for short, replicas in (("high", 10), ("middle", 6), ("low", 2)):
            ns.wait_replicas(names[short], replicas, timeout_s=60)
        eventually(lambda: settled(ns, names, 18), timeout_s=60)
    assert watcher.most == 18

    said = wait_condition(ns, "shop", "Exhausted", "True", "Shortage")["message"]
    assert said.startswith(f"RLScalerBudget shop (maxReplicas 18) is exhausted: {names['low']} gets 2 of ")
    told = ns.status(names["low"])["budget"]
    assert (told["name"], told["cap"]) == ("shop", 2)
    assert "RLScalerBudget shop (maxReplicas 18) is exhausted" in told["message"]
    assert ns.status(names["high"])["budget"] == {"name": "shop"}
    clamp = ns.status(names["low"])["lastDecision"]["clamps"][-1]
    assert (clamp["name"], clamp["reason"], clamp["after"]) == ("Budget", "BudgetExhausted", 2)
    assert "RLScalerBudget shop" in clamp["message"]
    for kind in ("RLScaler", "RLScalerBudget"):
        eventually(partial(told_of, ns, kind, "BudgetExhausted"), timeout_s=30)
    numbers = eventually(
        lambda: s if (s := budget_status(ns, "shop"))["currentReplicas"] == 18 else None, timeout_s=60
    )
    assert numbers["members"] == 3
    assert numbers["demandedReplicas"] > numbers["grantedReplicas"] == 18
    assert numbers["currentCost"] == "18"
    label = f'name="shop",namespace="{ns.name}"'
    for gauge in ("limit", "used"):
        line = f"rlscaler_budget_{gauge}_replicas{{{label}}} 18.0"
        eventually(partial(shows, operator, line), timeout_s=30)

    ns.api.patch(ns.path(RLSCALERS, "rlscalerbudgets", "shop"), {"spec": {"maxReplicas": 13}})
    for short, replicas in (("high", 10), ("middle", 2), ("low", 1)):
        ns.wait_replicas(names[short], replicas, timeout_s=60)

    ns.api.delete(ns.path(RLSCALERS, "rlscalerbudgets", "shop"))
    for short, replicas in (("high", 10), ("middle", 6), ("low", 8)):
        ns.wait_replicas(names[short], replicas, timeout_s=60)
    eventually(lambda: not any("budget" in ns.status(name) for name in names.values()), timeout_s=60)
    assert "rlscaler_budget_used_replicas{" not in http_get(f"{operator.url}/metrics")[1]
    eventually(partial(told_of, ns, "RLScaler", "BudgetRelieved"), timeout_s=30)


def told_of(ns: Namespace, kind: str, reason: str) -> bool:
    return kind in {event["involvedObject"]["kind"] for event in ns.events(reason)}


def told_nothing(ns: Namespace, name: str, budget: str) -> bool:
    return bool(ns.status(name).get("budget") == {"name": budget})


def test_what_one_releases_goes_to_the_others(operator: OperatorProcess, shared_namespace: Namespace) -> None:
    ns = shared_namespace
    budget(ns, "release", maxReplicas=12)
    names = members(ns, "release", {"a": (9, 8, 5), "b": (9, 1, 0), "c": (9, 1, 0)})
    for short, replicas in (("a", 9), ("b", 2), ("c", 1)):
        ns.wait_replicas(names[short], replicas, timeout_s=60)
    ns.patch_spec(names["a"], maxReplicas=4)
    for short in names:
        ns.wait_replicas(names[short], 4, timeout_s=60)
    ns.api.delete(ns.path(RLSCALERS, "rlscalers", names["a"]))
    for short in ("b", "c"):
        ns.wait_replicas(names[short], 6, timeout_s=60)
    assert ns.replicas(names["a"]) == 4


def test_a_shadow_and_a_paused_one_count_but_are_left_alone(
    operator: OperatorProcess, shared_namespace: Namespace
) -> None:
    ns = shared_namespace
    budget(ns, "mixed", maxReplicas=12)
    names = members(ns, "mixed", {"active": (8, 2, 0)})
    names |= members(ns, "mixed", {"shadow": (9, 5, 9)}, mode="Shadow")
    names |= members(ns, "mixed", {"paused": (9, 4, 9)}, mode="Paused")
    ns.wait_replicas(names["active"], 3, timeout_s=60)
    for short in ("shadow", "paused"):
        eventually(partial(told_nothing, ns, names[short], "mixed"), timeout_s=60)
    assert ns.replicas(names["shadow"]) == 5
    assert ns.replicas(names["paused"]) == 4
    join(ns, names["shadow"], "nobody")
    ns.wait_replicas(names["active"], 8, timeout_s=60)
    eventually(lambda: "budget" not in ns.status(names["shadow"]), timeout_s=60)


def test_a_budget_of_cost_counts_what_each_replica_costs(
    operator: OperatorProcess, shared_namespace: Namespace
) -> None:
    ns = shared_namespace
    budget(ns, "money", maxCost="10.5")
    names = members(ns, "money", {"gpu": (8, 1, 5)}, costPerReplica="2.5")
    names |= members(ns, "money", {"web": (8, 1, 0)}, costPerReplica="500m")
    ns.wait_replicas(names["gpu"], 4, timeout_s=60)
    ns.wait_replicas(names["web"], 1, timeout_s=60)
    eventually(lambda: budget_status(ns, "money").get("currentCost") == "10.5", timeout_s=60)
    told = wait_condition(ns, "money", "Exhausted", "True")["message"]
    assert "(maxCost 10.5)" in told
    assert f"{names['gpu']} gets 4 of " in told


def test_minimums_that_do_not_fit_are_kept_and_said(
    operator: OperatorProcess, shared_namespace: Namespace
) -> None:
    ns = shared_namespace
    budget(ns, "tight", maxReplicas=5)
    names = members(ns, "tight", {"a": (8, 4, 0), "b": (3, 3, 0)}, minReplicas=3)
    ns.wait_replicas(names["a"], 3, timeout_s=60)
    ready = wait_condition(ns, "tight", "Ready", "False", "MinimumsTooLarge")
    assert "6 replicas, more than RLScalerBudget tight (maxReplicas 5)" in ready["message"]
    assert ns.replicas(names["b"]) == 3


def test_a_steady_budget_costs_no_writes(operator: OperatorProcess, shared_namespace: Namespace) -> None:
    ns = shared_namespace
    budget(ns, "calm", maxReplicas=9)
    names = members(ns, "calm", {"a": (8, 4, 0), "b": (8, 4, 0)})
    for name, replicas in ((names["a"], 5), (names["b"], 4)):
        ns.wait_replicas(name, replicas, timeout_s=60)
    wait_condition(ns, "calm", "Exhausted", "True")
    path = ns.path(RLSCALERS, "rlscalerbudgets", "calm")

    def turns(count: int) -> None:
        seen = [len(operator.decisions(ns.name, name)) for name in names.values()]
        eventually(
            lambda: all(
                len(operator.decisions(ns.name, name)) >= before + count
                for name, before in zip(names.values(), seen, strict=True)
            ),
            timeout_s=60,
        )

    turns(8)
    before = ns.api.get(path), [ns.get(name) for name in names.values()]
    turns(8)
    assert (ns.api.get(path), [ns.get(name) for name in names.values()]) == before


def test_a_restarted_operator_raises_nobody_before_everybody_is_known(
    namespace: Namespace, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    """The other member's first turn is an hour away: it is read out of turn, the budget kept meanwhile."""
    ns = namespace
    budget(ns, "restart", maxReplicas=10)
    names = members(ns, "restart", {"slow": (6, 6, 5)}, syncPeriodSeconds=3600)
    names |= members(ns, "restart", {"quick": (8, 2, 0)})
    with watched(ns, names) as watcher:
        operator = make_operator(prometheus)
        ns.wait_replicas(names["quick"], 4, timeout_s=60)
    assert watcher.most == 10
    operator.kill()
    ns.set_replicas(names["slow"], 7)
    with watched(ns, names) as watcher:
        operator = make_operator(prometheus)
        ns.wait_replicas(names["quick"], 3, timeout_s=60)
    assert watcher.most == 11, "what somebody else has set, and not one more"
    assert operator.errors() == []


@pytest.mark.twin_only
def test_without_the_custom_resource_definition_everything_else_works(
    namespace: Namespace, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    kept = ns.api.get(f"{crds}/rlscalerbudgets.rlscaler.dev")
    ns.api.delete(f"{crds}/rlscalerbudgets.rlscaler.dev")
    try:
        operator = make_operator(prometheus, RLSCALER_RESYNC_SECONDS="1")
        names = members(ns, "plain", {"web": (8, 2, 0)})
        ns.wait_replicas(names["web"], 8, timeout_s=60)
        assert operator.log.read_text().count("RLScalerBudgets cannot be listed, so there are none") == 1
    finally:
        body = {key: kept[key] for key in ("apiVersion", "kind", "spec")}
        ns.api.create(crds, {**body, "metadata": {"name": kept["metadata"]["name"]}})
    budget(ns, "plain", maxReplicas=5)
    ns.wait_replicas(names["web"], 5, timeout_s=60)
    assert operator.errors() == []
