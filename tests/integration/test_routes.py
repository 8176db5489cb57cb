"""Pools that share one traffic: replicas of each, and HTTPRoute weights that are patched and nothing else."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from tests.integration.harness import OBJECTIVE, TIME_SCALE, Namespace, OperatorProcess, Traffic, eventually

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
