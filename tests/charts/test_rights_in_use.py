"""The running operator's requests against the chart's role: it asks for nothing that it may not do."""

from __future__ import annotations

import re

import pytest

from tests.charts.conftest import Render, only
from tests.charts.test_rbac import granted
from tests.integration.harness import Cluster, Namespace, OperatorProcess, Traffic, eventually

pytestmark = pytest.mark.twin_only

VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
RESOURCE = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)(?:/namespaces/[^/]+)?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+)(?:/(?P<sub>[a-z]+))?)?$"
)


def right(method: str, path: str, params: dict[str, str]) -> tuple[str, str, str] | None:
    """(API group, resource, verb) that a request needs; None for discovery, which everybody may do."""
    found = RESOURCE.match(path)
    if found is None:
        return None
    resource = found["plural"] + (f"/{found['sub']}" if found["sub"] else "")
    verb = VERBS[method]
    if verb == "get" and not found["name"]:
        verb = "watch" if params.get("watch") in ("true", "1") else "list"
    return found["group"] or "", resource, verb


@pytest.mark.parametrize(
    ("method", "path", "params", "needed"),
    [
        ("GET", "/apis/apps/v1/namespaces/a/deployments/web", {}, ("apps", "deployments", "get")),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/a/deployments/web/scale",
            {},
            ("apps", "deployments/scale", "patch"),
        ),
        ("GET", "/api/v1/secrets", {}, ("", "secrets", "list")),
        ("GET", "/apis/x.io/v1/things", {"watch": "true"}, ("x.io", "things", "watch")),
        ("GET", "/apis/apps/v1", {}, None),
        ("GET", "/version", {}, None),
    ],
)
def test_requests_are_told_apart(
    method: str, path: str, params: dict[str, str], needed: tuple[str, str, str] | None
) -> None:
    assert right(method, path, params) == needed


def test_a_working_operator_uses_only_the_rights_of_the_chart(
    render: Render, cluster: Cluster, operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    traffic.set(ns.name, "busy", rate=100.0)
    ns.deployment("busy", replicas=2)
    ns.rlscaler("busy", policy={"type": "HPA"}, objective={"capacityPerReplica": "10"}, syncPeriodSeconds=15)
    eventually(lambda: ns.replicas("busy") > 2)
    events = ns.path("/api/v1", "events")
    eventually(lambda: cluster.api.get(events)["items"])
    budgets = ns.path("/apis/rlscaler.dev/v1alpha1", "rlscalerbudgets")
    budget = {"kind": "RLScalerBudget", "apiVersion": "rlscaler.dev/v1alpha1", "metadata": {"name": "all"}}
    cluster.api.create(budgets, {**budget, "spec": {"selector": {}, "maxReplicas": 40}})
    eventually(lambda: cluster.api.get(f"{budgets}/all").get("status", {}).get("members") == 1)

    ours = [entry for entry in cluster.twin.cluster.log if entry.user_agent.startswith(("kopf", "rl-scaler"))]
    used = {needed for entry in ours if (needed := right(entry.method, entry.path, entry.params))}
    allowed = granted(only(render(), "ClusterRole")["rules"])
    assert {need for need in used if need[2] not in allowed.get(need[:2], ())} == set()
    assert used >= {
        ("rlscaler.dev", "rlscalers", "list"),
        ("rlscaler.dev", "rlscalers/status", "patch"),
        ("rlscaler.dev", "rlscalerbudgets", "list"),
        ("rlscaler.dev", "rlscalerbudgets/status", "patch"),
        ("apps", "deployments", "get"),
        ("apps", "deployments/scale", "patch"),
        ("autoscaling", "horizontalpodautoscalers", "list"),
        ("keda.sh", "scaledobjects", "list"),
        ("", "events", "create"),
    }
