"""What a user gets wrong, and what the RLScaler's conditions say about it."""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from typing import Any

import onnx
import pytest

from controller.core import OBSERVATION_SCHEMA
from controller.policies.artifact import METADATA_KEY
from tests.integration.harness import APPS, Namespace, OperatorProcess, Traffic, eventually, http_get

RATE = {"capacityPerReplica": "10", "targetUtilization": 50}


@pytest.mark.parametrize(
    ("ref", "reason", "words"),
    [
        pytest.param(
            {"kind": "Deployment", "name": "absent"}, "TargetNotFound", "Deployment", id="no such name"
        ),
        pytest.param(
            {"kind": "Deploymant", "name": "absent"}, "KindNotFound", "Deploymant", id="no such kind"
        ),
        pytest.param(
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "absent"},
            "NotScalable",
            "/scale",
            id="not scalable",
        ),
        pytest.param(
            {"apiVersion": "example.com/v1", "kind": "Widget", "name": "absent"},
            "KindNotFound",
            "Widget",
            id="no group",
        ),
    ],
)
def test_a_wrong_target_is_named(
    operator: OperatorProcess, shared_namespace: Namespace, ref: dict[str, str], reason: str, words: str
) -> None:
    ns, name = shared_namespace, f"wrong-{reason}-{ref['kind']}".lower()
    ns.rlscaler(name, scaleTargetRef=ref)
    found = ns.wait_condition(name, "AbleToScale", "False", reason)
    assert words in found["message"]
    if reason == "TargetNotFound":
        assert f"{ns.name}/absent" in found["message"]
    ns.wait_condition(name, "Ready", "False", reason)
    assert eventually(lambda: ns.events("TargetNotFound"))


def test_a_target_that_appears_later_is_taken_on(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    traffic.set(ns.name, "late", rate=20.0)
    ns.rlscaler("late", objective=RATE)
    ns.wait_condition("late", "AbleToScale", "False", "TargetNotFound")
    ns.deployment("late", replicas=4)
    ns.wait_condition("late", "Ready", "True")


def digest_of_something_else() -> dict[str, Any]:
    return {"configMap": {"name": "artifact"}, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("name", "artifact", "reason"),
    [
        pytest.param("no-builtin", {"builtin": "nonsense"}, "ArtifactNotFound", id="unknown builtin"),
        pytest.param("no-file", {"file": "absent.onnx"}, "ArtifactNotFound", id="no such file"),
        pytest.param("no-map", {"configMap": {"name": "absent"}}, "ArtifactNotFound", id="no such ConfigMap"),
        pytest.param(
            "no-key", {"configMap": {"name": "artifact", "key": "k"}}, "ArtifactNotFound", id="no such key"
        ),
        pytest.param("digest", digest_of_something_else(), "ArtifactDigestMismatch", id="wrong digest"),
        pytest.param(
            "garbage", {"configMap": {"name": "artifact"}}, "ArtifactInvalid", id="not an ONNX file"
        ),
    ],
)
def test_an_artifact_that_cannot_be_used_means_fallback(
    operator: OperatorProcess,
    shared_namespace: Namespace,
    traffic: Traffic,
    name: str,
    artifact: dict[str, Any],
    reason: str,
) -> None:
    ns = shared_namespace
    name = f"artifact-{name}"
    put_artifact(ns)
    traffic.set(ns.name, name, rate=48.0)
    ns.deployment(name, replicas=4)
    ns.rlscaler(name, policy={"type": "RL", "artifact": artifact}, objective=RATE)
    ns.wait_condition(name, "PolicyReady", "False", reason)
    ns.wait_condition(name, "Fallback", "True", "PolicyUnavailable")
    ns.wait_condition(name, "Ready", "False", reason)
    ns.wait_replicas(name, 9, 10, 11)


def narrow_artifact() -> bytes:
    """The built-in policy, which says that training saw start-up times of a minute alone."""
    model = onnx.load(str(files("controller.policies") / "builtin" / "default.onnx"))
    (about,) = [each for each in model.metadata_props if each.key == METADATA_KEY]
    low, high = OBSERVATION_SCHEMA.low.tolist(), OBSERVATION_SCHEMA.high.tolist()
    column = OBSERVATION_SCHEMA.names.index("start_up")
    low[column] = high[column] = 0.0
    about.value = json.dumps(json.loads(about.value) | {"observation_range": {"low": low, "high": high}})
    return model.SerializeToString()


def test_an_observation_outside_of_the_training_is_flagged_until_it_is_inside_again(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns, name = shared_namespace, "strange"
    content = {"policy.onnx": base64.b64encode(narrow_artifact()).decode()}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "narrow"}, "binaryData": content}
    ns.api.create(ns.path("/api/v1", "configmaps"), body)
    traffic.set(ns.name, name, rate=48.0)
    ns.deployment(name, replicas=10)
    policy = {"type": "RL", "artifact": {"configMap": {"name": "narrow"}}}
    ns.rlscaler(name, policy=policy, objective={**RATE, "startUpSeconds": 600})
    found = ns.wait_condition(name, "PolicyReady", "True", "OutOfDistribution")
    assert "training" in found["message"]
    series = f'rlscaler_out_of_distribution{{name="{name}",namespace="{ns.name}"}}'
    assert eventually(lambda: f"{series} 1.0" in http_get(f"{operator.url}/metrics")[1])
    assert ns.replicas(name) >= 10, "no scale-down"
    ns.patch_spec(name, objective={**RATE, "startUpSeconds": 60})
    ns.wait_condition(name, "PolicyReady", "True", "PolicyLoaded")
    assert eventually(lambda: f"{series} 0.0" in http_get(f"{operator.url}/metrics")[1])


def put_artifact(ns: Namespace) -> None:
    path = ns.path("/api/v1", "configmaps")
    if any(item["metadata"]["name"] == "artifact" for item in ns.api.get(path)["items"]):
        return
    data = base64.b64encode(b"this is no ONNX file").decode()
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "artifact"}}
    ns.api.create(path, {**body, "binaryData": {"policy.onnx": data}})


@pytest.mark.parametrize(
    ("name", "metrics", "reason", "words"),
    [
        pytest.param(
            "bad-promql",
            {"preset": "custom", "queries": {"requestRate": "sum(rate(x[1m])"}},
            "BadQuery",
            "requestRate",
            id="PromQL that does not parse",
        ),
        pytest.param(
            "no-data", {"service": "nobody"}, "NoData", "requestRate", id="a service that nobody measures"
        ),
        pytest.param(
            "several",
            {
                "preset": "custom",
                "queries": {"requestRate": "vector(1) or label_replace(vector(2), 'a', 'b', '', '')"},
            },
            "SeveralSeries",
            "several",
            id="several series",
        ),
        pytest.param(
            "placeholder",
            {"preset": "custom", "queries": {"requestRate": "sum(x{a='{{nonsense}}'})"}},
            "InvalidSpec",
            "nonsense",
            id="an unknown placeholder",
        ),
        pytest.param(
            "refused",
            {"prometheus": {"address": "http://127.0.0.1:1"}},
            "PrometheusUnreachable",
            "127.0.0.1:1",
            id="an address where nobody listens",
        ),
        pytest.param(
            "secret",
            {"prometheus": {"address": "http://127.0.0.1:1", "auth": {"secretRef": {"name": "absent"}}}},
            "PrometheusSecretNotFound",
            "absent",
            id="a Secret that is not there",
        ),
    ],
)
def test_metrics_that_cannot_be_read_are_told_apart_and_never_scale_down(
    operator: OperatorProcess,
    shared_namespace: Namespace,
    name: str,
    metrics: dict[str, Any],
    reason: str,
    words: str,
) -> None:
    ns = shared_namespace
    name = f"metrics-{name}"
    ns.deployment(name, replicas=5)
    ns.rlscaler(name, metrics=metrics, objective=RATE)
    found = ns.wait_condition(name, "MetricsAvailable", "False", reason)
    assert words in found["message"]
    ns.wait_condition(name, "Fallback", "True", "MetricsUnavailable")
    assert ns.replicas(name) == 5


def test_an_hpa_on_the_same_target_is_a_conflict_until_it_is_gone(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    traffic.set(ns.name, "contested", rate=48.0)
    ns.deployment("contested", replicas=4)
    hpa = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "rival"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "contested"},
            "minReplicas": 4,
            "maxReplicas": 4,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
                }
            ],
        },
    }
    path = ns.path("/apis/autoscaling/v2", "horizontalpodautoscalers")
    ns.api.create(path, hpa)
    ns.rlscaler("contested", objective=RATE)
    found = ns.wait_condition("contested", "AbleToScale", "False", "ConflictingAutoscaler")
    assert "HorizontalPodAutoscaler rival" in found["message"]
    assert eventually(lambda: ns.events("ConflictingAutoscaler"))
    assert ns.replicas("contested") == 4

    ns.api.delete(f"{path}/rival")
    ns.wait_replicas("contested", 9, 10, 11)
    ns.wait_condition("contested", "AbleToScale", "True")


def test_of_two_rlscalers_on_one_target_the_younger_stands_back(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    traffic.set(ns.name, "shared", rate=20.0)
    ns.deployment("shared", replicas=4)
    target = {"kind": "Deployment", "name": "shared"}
    ns.rlscaler("shared", objective=RATE)
    ns.wait_condition("shared", "Ready", "True")
    eventually(lambda: ns.get("shared")["metadata"]["creationTimestamp"] < now_stamp())
    ns.rlscaler("shared-too", scaleTargetRef=target, minReplicas=9)
    found = ns.wait_condition("shared-too", "AbleToScale", "False", "ConflictingAutoscaler")
    assert "RLScaler shared " in found["message"]
    assert ns.replicas("shared") == 4
    assert ns.condition("shared", "AbleToScale")["status"] == "True"


def now_stamp() -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def test_statefulsets_scale_as_deployments_do(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    traffic.set(ns.name, "stateful", rate=20.0)
    labels = {"app": "stateful"}
    containers = [{"name": "app", "image": "registry.k8s.io/pause:3.9"}]
    body = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "stateful"},
        "spec": {
            "replicas": 3,
            "serviceName": "stateful",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }
    path = ns.path(APPS, "statefulsets")
    ns.api.create(path, body)
    ns.rlscaler("stateful", scaleTargetRef={"kind": "StatefulSet", "name": "stateful"}, minReplicas=4)
    eventually(lambda: ns.api.get(f"{path}/stateful")["spec"]["replicas"] == 4)
