"""What the operator may do, verb by verb, and why. Each case names the code that needs the right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controller.rivals import RIVALS
from tests.charts.conftest import CHART, Json, Render, only, values_of

NEEDED = {
    "watch RLScalers": ("rlscaler.dev", "rlscalers", {"get", "list", "watch"}),
    "write their status and nothing else of them": ("rlscaler.dev", "rlscalers/status", {"patch"}),
    "watch budgets": ("rlscaler.dev", "rlscalerbudgets", {"list", "watch"}),
    "write the budgets' status and nothing else of them": (
        "rlscaler.dev",
        "rlscalerbudgets/status",
        {"patch"},
    ),
    "read a Deployment's replicas": ("apps", "deployments", {"get", "list", "watch"}),
    "scale a Deployment": ("apps", "deployments/scale", {"patch"}),
    "read a StatefulSet's replicas": ("apps", "statefulsets", {"get", "list", "watch"}),
    "scale a StatefulSet": ("apps", "statefulsets/scale", {"patch"}),
    "read a ReplicaSet's replicas": ("apps", "replicasets", {"get", "list", "watch"}),
    "scale a ReplicaSet": ("apps", "replicasets/scale", {"patch"}),
    "weigh HTTPRoutes": ("gateway.networking.k8s.io", "httproutes", {"get", "list", "patch"}),
    "weigh GRPCRoutes": ("gateway.networking.k8s.io", "grpcroutes", {"get", "list", "patch"}),
    "notice HPAs on the same target": ("autoscaling", "horizontalpodautoscalers", {"list", "watch"}),
    "notice KEDA's ScaledObjects on the same target": ("keda.sh", "scaledobjects", {"list", "watch"}),
    "read policy artifacts": ("", "configmaps", {"get"}),
    "say what happened": ("", "events", {"create", "patch"}),
}


def granted(rules: list[Json]) -> dict[tuple[str, str], set[str]]:
    """(API group, resource) -> verbs."""
    found: dict[tuple[str, str], set[str]] = {}
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


@pytest.mark.parametrize(("group", "resource", "verbs"), NEEDED.values(), ids=NEEDED)
def test_the_operator_may(render: Render, group: str, resource: str, verbs: set[str]) -> None:
    assert granted(only(render(), "ClusterRole")["rules"])[group, resource] == verbs


def test_and_nothing_else(render: Render) -> None:
    allowed = granted(only(render(), "ClusterRole")["rules"])
    assert allowed == {(group, resource): verbs for group, resource, verbs in NEEDED.values()}


def test_leader_election_may_use_its_lease_and_nothing_else(render: Render) -> None:
    objects = render({"leaderElection": {"enabled": True}, "replicaCount": 2, "shard": "shard=a"})
    role = only(objects, "Role")
    assert granted(role["rules"]) == {("coordination.k8s.io", "leases"): {"get", "create", "update", "patch"}}
    deployment = only(objects, "Deployment")
    assert deployment["spec"]["replicas"] == 2
    env = {
        one["name"]: one.get("value")
        for one in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert env["RLSCALER_LEADER_ELECTION"] == "true"
    assert env["RLSCALER_LEASE_NAMESPACE"] == role["metadata"]["namespace"]
    assert env["RLSCALER_SHARD"] == "shard=a"


def test_without_leader_election_there_is_no_lease(render: Render) -> None:
    assert not [item for item in render() if item["kind"] == "Role"]


def test_no_wildcards_anywhere(render: Render) -> None:
    for name in ("defaults", "everything"):
        assert "*" not in str(only(render(values_of(name)), "ClusterRole")["rules"])


def test_every_rule_says_why() -> None:
    template = (CHART / "templates" / "_helpers.tpl").read_text()
    rules = template.split('define "rl-scaler.rules"')[1]
    why = re.findall(r"# (.+)\n(?:- apiGroups)", rules)
    assert len(why) + 1 == len(re.findall(r"- apiGroups", rules)), (
        "the extra targets' two rules share a comment"
    )


def test_without_write_there_is_no_verb_that_changes_a_workload_or_route(render: Render) -> None:
    values = {
        "rbac": {"write": False, "extraScaleTargets": [{"apiGroups": ["x.io"], "resources": ["things"]}]}
    }
    allowed = granted(only(render(values), "ClusterRole")["rules"])
    writable = {
        resource for resource, verbs in allowed.items() if verbs & {"patch", "update", "create", "delete"}
    }
    assert writable == {
        ("rlscaler.dev", "rlscalers/status"),
        ("rlscaler.dev", "rlscalerbudgets/status"),
        ("", "events"),
    }
    assert allowed["x.io", "things/scale"] == {"get"}


def test_secrets_are_out_of_reach_unless_asked_for(render: Render) -> None:
    assert ("", "secrets") not in granted(only(render(), "ClusterRole")["rules"])
    named = [item for item in render(values_of("namespaced")) if item["kind"] == "Role"]
    (rule,) = [rule for rule in named[0]["rules"] if rule["resources"] == ["secrets"]]
    assert rule == {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["prometheus"],
        "verbs": ["get"],
    }


def test_routes_and_config_maps_can_be_left_out(render: Render) -> None:
    allowed = granted(only(render({"rbac": {"routes": [], "configMaps": False}}), "ClusterRole")["rules"])
    routes = {("gateway.networking.k8s.io", kind) for kind in ("httproutes", "grpcroutes")}
    assert not {*routes, ("", "configmaps")} & allowed.keys()


def test_every_kind_of_route_can_be_weighed(render: Render) -> None:
    kinds = {
        "VirtualService": ("networking.istio.io", "virtualservices"),
        "TraefikService": ("traefik.io", "traefikservices"),
        "Ingress": ("networking.k8s.io", "ingresses"),
    }
    allowed = granted(only(render({"rbac": {"routes": list(kinds)}}), "ClusterRole")["rules"])
    for right in kinds.values():
        assert allowed[right] == {"get", "list", "patch"}


def test_other_kinds_can_be_scaled(render: Render) -> None:
    allowed = granted(only(render(values_of("everything")), "ClusterRole")["rules"])
    assert allowed["argoproj.io", "rollouts"] == {"get"}
    assert allowed["argoproj.io", "rollouts/scale"] == {"get", "patch"}


def test_with_namespaces_there_is_nothing_cluster_wide(render: Render) -> None:
    objects = render(values_of("namespaced"))
    assert not [item for item in objects if item["kind"].startswith("Cluster")]
    roles = {item["metadata"]["namespace"]: item for item in objects if item["kind"] == "Role"}
    bindings = {item["metadata"]["namespace"]: item for item in objects if item["kind"] == "RoleBinding"}
    assert roles.keys() == bindings.keys() == {"shop", "checkout"}
    for binding in bindings.values():
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": "rl-scaler", "namespace": "autoscaling"}
        ]


def test_no_roles_when_somebody_else_makes_them(render: Render) -> None:
    kinds = {item["kind"] for item in render({"rbac": {"create": False}})}
    assert kinds == {"Deployment", "ServiceAccount", "Service"}


def test_the_operator_does_not_ask_for_what_it_may_not_do() -> None:
    """The calls in the source, against the rights above: whoever adds a call meets this test."""
    source = "\n".join(path.read_text() for path in (CHART.parent / "controller").rglob("*.py"))
    calls = set(
        re.findall(r"[kK]ube\.(get|list_all|pages|create|merge_patch|json_patch)\(\s*([A-Z_]{4,})?", source)
    )
    constants = {(verb, constant) for verb, constant in calls if constant}
    assert constants == {
        ("merge_patch", "RLSCALERS"),  # its status
        ("pages", "RLSCALERS"),
        ("list_all", "RLSCALER_BUDGETS"),
        ("merge_patch", "RLSCALER_BUDGETS"),  # its status
        ("get", "RLSCALERS"),  # is one really deleted whose weights are in a route
        ("json_patch", "LEASES"),
        ("create", "EVENTS"),
        ("merge_patch", "EVENTS"),
        ("get", "CONFIG_MAPS"),
        ("get", "SECRETS"),
    }
    assert not re.search(r"\.(delete|replace|deletecollection)\(", _kube_source())


def test_the_operator_may_look_for_every_other_autoscaler_that_it_knows() -> None:
    allowed = {(group, resource): verbs for group, resource, verbs in NEEDED.values()}
    for kind in RIVALS:
        assert allowed[kind.group_version.partition("/")[0], kind.plural] == {"list", "watch"}


def _kube_source() -> str:
    return Path(CHART.parent / "controller" / "kube.py").read_text()
