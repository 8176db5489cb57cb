"""Pools that share one traffic: replicas of each, and HTTPRoute weights that are patched and nothing else."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from tests.integration.harness import (
    OBJECTIVE,
    RLSCALERS,
    TIME_SCALE,
    Namespace,
    OperatorProcess,
    Traffic,
    eventually,
)

GATEWAY = "/apis/gateway.networking.k8s.io/v1"


@pytest.fixture(autouse=True)
def _gateway_api(shared_namespace: Namespace) -> None:
    if not shared_namespace.cluster.serves("gateway.networking.k8s.io/v1"):
        pytest.skip("the cluster has no Gateway API")


def route_spec(name: str) -> dict[str, Any]:
    """Our two services beside a foreign one, with filters and matches that must survive."""
    return {
        "parentRefs": [{"name": "public"}],
        "hostnames": ["shop.example.com"],
        "rules": [
            {
                "name": "main",
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "filters": [
                    {
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {"set": [{"name": "x-kept", "value": "yes"}]},
                    }
                ],
                "backendRefs": [
                    {"name": f"{name}-od", "port": 80, "weight": 50},
                    {"name": "foreign", "port": 8080, "weight": 20},
                    {"name": f"{name}-spot", "port": 80, "weight": 30},
                ],
            },
            {
                "name": "other",
                "matches": [{"path": {"type": "PathPrefix", "value": "/admin"}}],
                "backendRefs": [{"name": "foreign", "port": 8080}],
            },
        ],
    }


def pools(name: str) -> list[dict[str, Any]]:
    return [
        {
            "name": "on-demand",
            "scaleTargetRef": {"kind": "Deployment", "name": f"{name}-od"},
            "minReplicas": 2,
            "maxReplicas": 10,
            "minWeight": 10,
        },
        {
            "name": "spot",
            "scaleTargetRef": {"kind": "Deployment", "name": f"{name}-spot"},
            "maxReplicas": 10,
            "costPerReplica": "0.3",
            "maxWeight": 80,
        },
    ]


def make(ns: Namespace, traffic: Traffic, name: str, spec: dict[str, Any], **more: Any) -> None:
    traffic.set(ns.name, name, rate=48.0)
    for service in (f"{name}-od", f"{name}-spot", "foreign"):
        ensure_service(ns, service)
    ns.deployment(f"{name}-od", replicas=2)
    ns.deployment(f"{name}-spot", replicas=1)
    body = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": spec,
    }
    ns.api.create(ns.path(GATEWAY, "httproutes"), body)
    ns.rlscaler(
        name,
        scaleTargetRef=None,
        maxReplicas=None,
        backends=pools(name),
        routes=[{"kind": "HTTPRoute", "name": name, **more}],
        metrics={"service": name},
        objective=OBJECTIVE,
    )


def ensure_service(ns: Namespace, name: str) -> None:
    path = ns.path("/api/v1", "services")
    if not any(item["metadata"]["name"] == name for item in ns.api.get(path)["items"]):
        spec = {"ports": [{"port": 80}]}
        ns.api.create(path, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})


def weights(ns: Namespace, name: str, rule: int = 0) -> dict[str, int]:
    spec = ns.api.get(ns.path(GATEWAY, "httproutes", name))["spec"]
    return {ref["name"]: ref.get("weight", 1) for ref in spec["rules"][rule]["backendRefs"]}


def test_only_our_weights_change_and_the_rest_of_the_route_stays_as_it_is(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    make(ns, traffic, "shop", route_spec("shop"), rule="main")
    stored = ns.api.get(ns.path(GATEWAY, "httproutes", "shop"))["spec"]
    ns.wait_replicas("shop-od", 2, 3)
    eventually(lambda: ns.replicas("shop-od") + ns.replicas("shop-spot") in (9, 10, 11))
    eventually(lambda: weights(ns, "shop")["shop-spot"] > weights(ns, "shop")["shop-od"])
    time.sleep(2 * 15 / TIME_SCALE)

    now = ns.api.get(ns.path(GATEWAY, "httproutes", "shop"))["spec"]
    found = weights(ns, "shop")
    assert found["foreign"] == 20
    assert found["shop-od"] + found["shop-spot"] == 80, "ours share what they had beside the foreign one"
    expected = copy.deepcopy(stored)
    for ref in expected["rules"][0]["backendRefs"]:
        ref["weight"] = found[ref["name"]]
    assert now == expected
    status = eventually(lambda: s if len((s := ns.status("shop")).get("backends", [])) == 2 else None)
    assert {pool["name"] for pool in status["backends"]} == {"on-demand", "spot"}
    assert eventually(lambda: ns.events("WeightsChanged"))


def test_no_pool_is_given_traffic_before_it_has_a_ready_replica(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns, name = shared_namespace, "fresh"
    traffic.set(ns.name, name, rate=9.0)
    make_route = {
        "parentRefs": [{"name": "public"}],
        "rules": [
            {
                "backendRefs": [
                    {"name": f"{name}-od", "port": 80},
                    {"name": f"{name}-spot", "port": 80, "weight": 1},
                ]
            }
        ],
    }
    for service in (f"{name}-od", f"{name}-spot"):
        ensure_service(ns, service)
    ns.deployment(f"{name}-od", replicas=2)
    ns.deployment(f"{name}-spot", replicas=0)
    body = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name}}
    ns.api.create(ns.path(GATEWAY, "httproutes"), {**body, "spec": make_route})
    ns.rlscaler(
        name,
        scaleTargetRef=None,
        maxReplicas=None,
        backends=pools(name),
        routes=[{"kind": "HTTPRoute", "name": name}],
        metrics={"service": name},
        objective=OBJECTIVE,
    )
    eventually(lambda: weights(ns, name) == {f"{name}-od": 100, f"{name}-spot": 0})


@pytest.mark.parametrize(
    ("name", "change", "more", "reason"),
    [
        pytest.param("no-rule", {}, {"rule": "nonsense"}, "RuleNotFound", id="no such rule"),
        pytest.param(
            "no-ref", {"rule": 1}, {"rule": "other"}, "BackendNotInRoute", id="a rule without our services"
        ),
    ],
)
def test_a_route_that_does_not_fit_is_told_and_left_alone(
    operator: OperatorProcess,
    shared_namespace: Namespace,
    traffic: Traffic,
    name: str,
    change: dict[str, Any],
    more: dict[str, Any],
    reason: str,
) -> None:
    ns = shared_namespace
    make(ns, traffic, name, route_spec(name), **more)
    ns.wait_condition(name, "RoutesSynced", "False", reason)
    assert weights(ns, name) == {f"{name}-od": 50, "foreign": 20, f"{name}-spot": 30}
    ns.wait_condition(name, "Ready", "False", reason)


def test_a_missing_route_is_named(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    make(ns, traffic, "unrouted", route_spec("unrouted"))
    ns.api.delete(ns.path(GATEWAY, "httproutes", "unrouted"))
    found = ns.wait_condition("unrouted", "RoutesSynced", "False", "RouteNotFound")
    assert f"{ns.name}/unrouted" in found["message"]


def original(ns: Namespace, name: str) -> bool:
    """Whether the weights are those of `route_spec`, and no snapshot is left."""
    route = ns.api.get(ns.path(GATEWAY, "httproutes", name))
    left = "rlscaler.dev/original-weights" in (route["metadata"].get("annotations") or {})
    return not left and weights(ns, name) == {f"{name}-od": 50, "foreign": 20, f"{name}-spot": 30}


def weighed(ns: Namespace, name: str) -> bool:
    return not original(ns, name) and weights(ns, name)[f"{name}-od"] != 50


def test_deleting_the_rlscaler_puts_the_weights_of_before_back(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    make(ns, traffic, "leaving", route_spec("leaving"), rule="main")
    eventually(lambda: weighed(ns, "leaving"))
    replicas = eventually(lambda: ns.replicas("leaving-od"))
    ns.api.delete(ns.path(RLSCALERS, "rlscalers", "leaving"))
    eventually(lambda: original(ns, "leaving"))
    assert ns.replicas("leaving-od") >= min(replicas, 2), "replicas stay"


def test_a_pause_puts_weights_back_where_it_is_asked_to_and_the_end_of_it_sets_them_again(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    make(ns, traffic, "resting", route_spec("resting"), rule="main", restoreOnPause=True)
    eventually(lambda: weighed(ns, "resting"))
    ns.patch_spec("resting", mode="Paused")
    eventually(lambda: original(ns, "resting"))
    ns.patch_spec("resting", mode="Active")
    eventually(lambda: weighed(ns, "resting"))


def test_a_tool_that_keeps_reverting_the_weights_is_named_and_left_to_it(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns, name = shared_namespace, "git"
    make(ns, traffic, name, route_spec(name), rule="main")

    def contested() -> bool:
        if weighed(ns, name):
            ns.api.patch(ns.path(GATEWAY, "httproutes", name), {"spec": route_spec(name)})
        return ns.condition(name, "RoutesSynced").get("reason") == "Contested"

    eventually(contested, timeout_s=60)
    time.sleep(3 * 15 / TIME_SCALE)
    assert weights(ns, name) == {f"{name}-od": 50, "foreign": 20, f"{name}-spot": 30}, "the tool has its way"
    assert "keeps changing" in ns.condition(name, "RoutesSynced")["message"]


def test_a_pool_that_turns_slow_loses_its_traffic_and_gets_it_back_slowly(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns, name = shared_namespace, "grey"
    for pool in ("od", "spot"):
        traffic.set(ns.name, f"{name}-{pool}", rate=10.0, latency_ms=50.0)
    make(ns, traffic, name, route_spec(name), rule="main")
    traffic.set(ns.name, name, rate=20.0)
    routing = {"policy": "Ready", "ejection": {"baseSeconds": 30, "recoverySeconds": 120}}
    for pool in ("od", "spot"):
        ns.api.patch(ns.path("/apis/apps/v1", "deployments", f"{name}-{pool}"), {"spec": {"replicas": 4}})
    held = [{**pool, "minReplicas": 4, "maxReplicas": 4} for pool in pools(name)]
    ns.patch_spec(name, routing=routing, backends=held)
    eventually(lambda: weights(ns, name)[f"{name}-spot"] in range(30, 51))

    traffic.set(ns.name, f"{name}-spot", rate=10.0, latency_ms=900.0)
    eventually(lambda: weights(ns, name)[f"{name}-spot"] <= 4)
    assert weights(ns, name)[f"{name}-od"] >= 76

    traffic.set(ns.name, f"{name}-spot", rate=10.0, latency_ms=50.0)
    seen = []
    eventually(lambda: seen.append(weights(ns, name)[f"{name}-spot"]) or seen[-1] >= 40)
    assert seen == sorted(seen), "it only gains"
    assert len(set(seen)) > 3, "and by steps"
