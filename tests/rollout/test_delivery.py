"""Progressive delivery by the operator as users run it: a twin's API server, a real Prometheus, several kinds
of routes, and traffic that goes where the route sends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.conftest import OperatorFactory
from tests.integration.harness import (
    TIME_SCALE,
    Namespace,
    OperatorProcess,
    Prometheus,
    eventually,
    http_get,
)
from tests.rollout.world import GATEWAY, PERIOD_S, FailingTraffic, Gateways, Shop

MakeShop = Callable[..., Shop]
ANNOTATION = "rlscaler.dev/canary"
LONG_S = 60.0


@pytest.fixture(autouse=True)
def _gateway_api(shared_namespace: Namespace) -> None:
    if not shared_namespace.cluster.serves("gateway.networking.k8s.io/v1"):
        pytest.skip("the cluster has no Gateway API")


def phase(shop: Shop, wanted: str) -> bool:
    found = shop.status()
    assert found.get("phase") == wanted, (found, shop.ns.status(shop.name).get("conditions"))
    return True


def periods(count: float) -> float:
    """Real seconds of so many sync periods."""
    return count * PERIOD_S / TIME_SCALE


def test_a_good_version_gets_its_weight_step_by_step_in_every_kind_of_route(
    operator: OperatorProcess, shared_namespace: Namespace, gateways: Gateways, shop: MakeShop
) -> None:
    ns, name = shared_namespace, "good"
    made = Shop(ns, FailingTraffic(), name)
    made.virtual_service()
    made.ingress()
    kinds = ("HTTPRoute", "VirtualService", "Ingress")
    routes = [{"kind": kind, "name": name, "maxStep": 8} for kind in kinds]
    made = shop(ns, name, routes=routes, before=50)
    eventually(lambda: phase(made, "Succeeded"), timeout_s=LONG_S)
    eventually(lambda: (made.weight(), made.mesh_weight(), made.nginx_weight()) == (30, 30, 30))

    seen = gateways.seen[name]
    weights = [weight for weight, _, _ in seen[next(i for i, s in enumerate(seen) if s[0] == 0) :]]
    assert {0, 10, 20, 30} <= set(weights)
    assert max(weights) == 30
    ups = [b - a for a, b in pairwise(weights) if b > a]
    assert max(ups) <= 8, "maxStep holds on the way up"
    assert all(ready >= 1 for weight, ready, _ in seen if weight > 0 and weight != 50)
    condition = ns.condition(name, "CanarySucceeded")
    assert (condition["status"], condition["reason"]) == ("True", "Succeeded")
    for reason, count in (("CanaryProgressing", 1), ("CanaryStepped", 1), ("CanarySucceeded", 1)):
        assert len(ns.events(reason)) >= count, reason
    exposition = http_get(f"{operator.url}/metrics")[1]
    assert f'rlscaler_rollout_weight{{name="{name}",namespace="{ns.name}"}} 30.0' in exposition
    assert f'name="{name}",namespace="{ns.name}",phase="Succeeded"}} 1.0' in exposition
    explained = http_get(f"{operator.url}/v1/explain/{ns.name}/{name}")[1]
    assert "canary in pool canary (Succeeded, weight 30)" in explained

    made.release("3.10")
    eventually(lambda: phase(made, "Progressing"), timeout_s=LONG_S)
    assert len([s for s in gateways.seen[name] if s[2] == 0]) >= 1, "another version begins from nothing"


def test_a_version_that_fails_is_back_at_nothing_at_once_whatever_the_step_and_its_replicas_go(
    operator: OperatorProcess,
    shared_namespace: Namespace,
    traffic: FailingTraffic,
    gateways: Gateways,
    shop: MakeShop,
) -> None:
    ns, name = shared_namespace, "bad"
    made = shop(ns, name, routes=[{"kind": "HTTPRoute", "name": name, "maxStep": 4}])
    eventually(lambda: made.weight() >= 10 and made.status()["weight"] >= 10, timeout_s=LONG_S)
    stable, _ = made.replicas()
    traffic.fail(ns.name, made.canary, 0.2)
    eventually(lambda: phase(made, "Failed"), timeout_s=LONG_S)
    eventually(lambda: made.weight() == 0)
    seen = gateways.seen[name]
    fallen = eventually(lambda: [(a[0], b[0]) for a, b in pairwise(list(seen)) if b[0] < a[0]])
    assert fallen[0][1] == 0
    assert fallen[0][0] >= 8, "in one go, though maxStep is 4"
    assert stable >= 8, "the others had kept what all of the load needs"
    eventually(lambda: made.replicas()[1] == 0)
    assert made.replicas()[0] >= 8
    status = made.status()
    assert (status["weight"], status["failedChecks"]) == (0, 1)
    assert "error ratio" in status["message"]
    assert ns.condition(name, "CanarySucceeded")["reason"] == "Failed"
    assert ns.condition(name, "Ready")["status"] == "True", "the service itself is well"
    assert eventually(lambda: ns.events("CanaryFailed"))[0]["type"] == "Warning"

    time.sleep(periods(4))
    assert phase(made, "Failed")
    assert made.weight() == 0
    traffic.fail(ns.name, made.canary, 0.0)
    ns.annotate(name, ANNOTATION, "restart")
    eventually(lambda: phase(made, "Progressing"), timeout_s=LONG_S)
    eventually(lambda: made.weight() >= 10, timeout_s=LONG_S)


def test_a_version_that_is_slow_goes_back_as_well(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: FailingTraffic, shop: MakeShop
) -> None:
    ns = shared_namespace
    made = shop(ns, "slow")
    traffic.set(ns.name, made.canary, 0.0, latency_ms=900.0)
    eventually(lambda: phase(made, "Failed"), timeout_s=LONG_S)
    eventually(lambda: made.weight() == 0)
    assert "latency" in made.status()["message"]


def test_a_version_of_which_nothing_is_known_gets_no_more_and_then_nothing(
    operator: OperatorProcess,
    shared_namespace: Namespace,
    gateways: Gateways,
    traffic: FailingTraffic,
    shop: MakeShop,
) -> None:
    ns, name = shared_namespace, "dark"
    made = shop(ns, name, analysis={"missingThreshold": 3})
    eventually(lambda: made.weight() >= 10, timeout_s=LONG_S)
    gateways.shops.clear()  # or its series would come back
    traffic.drop(ns.name, made.canary)
    before = made.weight()
    while made.status().get("phase") != "Failed":
        assert made.weight() <= max(before, made.status()["weight"])
        time.sleep(0.1)
    eventually(lambda: made.weight() == 0)
    assert "checks in a row" in made.status()["message"]


def test_a_pause_holds_it_and_a_deletion_puts_the_weights_of_before_back(
    operator: OperatorProcess, shared_namespace: Namespace, shop: MakeShop
) -> None:
    ns, name = shared_namespace, "held"
    made = shop(ns, name, before=5)
    eventually(lambda: made.weight() >= 10, timeout_s=LONG_S)
    ns.annotate(name, ANNOTATION, "pause")
    eventually(lambda: phase(made, "Paused"), timeout_s=LONG_S)
    held = eventually(lambda: made.status()["weight"])
    eventually(lambda: made.weight() == held)
    time.sleep(periods(5))
    assert made.weight() == held
    ns.annotate(name, ANNOTATION, None)
    eventually(lambda: made.weight() > held, timeout_s=LONG_S)
    made.delete()
    eventually(lambda: made.weight() == 5, timeout_s=LONG_S)


def test_in_shadow_it_is_recorded_and_nothing_is_touched(
    operator: OperatorProcess, shared_namespace: Namespace, shop: MakeShop
) -> None:
    ns, name = shared_namespace, "shade"
    made = shop(ns, name, mode="Shadow")
    eventually(lambda: phase(made, "Progressing"), timeout_s=LONG_S)
    path = ns.path(GATEWAY, "httproutes", name)
    version = ns.api.get(path)["metadata"]["resourceVersion"]
    time.sleep(periods(6))
    assert ns.api.get(path)["metadata"]["resourceVersion"] == version
    assert made.replicas() == (8, 0)
    pools = {pool["name"]: pool for pool in ns.status(name)["backends"]}
    assert pools["canary"]["desiredReplicas"] >= 1, "what it would have run"
    assert made.status()["weight"] == 0
    assert "mode Shadow" in made.status()["message"]


def test_a_killed_operator_goes_on_where_it_was_or_where_the_routes_are_if_they_have_less(
    make_operator: OperatorFactory,
    namespace: Namespace,
    prometheus: Prometheus,
    gateways: Gateways,
    shop: MakeShop,
) -> None:
    """The second shop is one that was rolled back by a turn whose status was never written."""
    ns, first = namespace, make_operator(prometheus)
    made = shop(ns, "again", canary={"intervalSeconds": 30})
    lost = shop(ns, "lost", canary={"intervalSeconds": 30})
    eventually(lambda: min(made.weight(), made.status()["weight"]) >= 10, timeout_s=LONG_S)
    eventually(lambda: min(lost.weight(), lost.status()["weight"]) >= 10, timeout_s=LONG_S)
    ns.annotate("lost", ANNOTATION, "pause")
    eventually(lambda: phase(lost, "Paused"), timeout_s=LONG_S)
    first.kill()
    before, mark = made.status(), len(gateways.seen["again"])
    path = ns.path(GATEWAY, "httproutes", "lost")
    rules = ns.api.get(path)["spec"]["rules"]
    for ref in rules[0]["backendRefs"]:
        ref["weight"] = 0 if ref["name"] == lost.canary else 100
    ns.api.patch(path, {"spec": {"rules": rules}})

    make_operator(prometheus)
    eventually(lambda: lost.status()["weight"] == 0 and lost.weight() == 0, timeout_s=LONG_S)
    eventually(lambda: phase(made, "Succeeded"), timeout_s=LONG_S)
    weights = [weight for weight, _, _ in gateways.seen["again"][mark:]]
    assert min(weights, default=30) >= before["weight"], "never back to the beginning"
    assert sorted(weights) == weights
    assert made.status()["revision"] == before["revision"]
    assert lost.weight() == 0
