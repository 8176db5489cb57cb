"""What a user sees of RLScalers through kubectl."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.integration.harness import Namespace, OperatorProcess, Traffic, eventually


def manifest(name: str, **spec: object) -> str:
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": name}, "maxReplicas": 10, **spec}
    spec = {key: value for key, value in spec.items() if value is not None}
    head = {"apiVersion": "rlscaler.dev/v1alpha1", "kind": "RLScaler", "metadata": {"name": name}}
    return yaml.safe_dump({**head, "spec": spec})


def test_get_rls_prints_target_bounds_replicas_mode_and_readiness(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    traffic.set(ns.name, "shown", rate=20.0)
    ns.deployment("shown", replicas=4)
    objective = {"capacityPerReplica": "10", "targetUtilization": 50}
    text = manifest("shown", policy={"type": "HPA"}, objective=objective, minReplicas=2)
    applied = ns.cluster.kubectl("-n", ns.name, "apply", "-f", "-", stdin=text)
    assert applied.returncode == 0, applied.stderr
    ns.wait_condition("shown", "Ready", "True")

    shown = ns.cluster.kubectl("-n", ns.name, "get", "rls", "shown")
    head, row = shown.stdout.splitlines()
    columns = ["NAME", "TARGET", "MIN", "MAX", "CURRENT", "DESIRED", "MODE", "READY", "REASON", "AGE"]
    assert head.split() == columns
    assert row.split()[:8] == ["shown", "Deployment/shown", "2", "10", "4", "4", "Active", "True"]

    described = ns.cluster.kubectl("-n", ns.name, "describe", "rls", "shown")
    assert "Conditions:" in described.stdout
    waited = ns.cluster.kubectl("-n", ns.name, "wait", "rls/shown", "--for=condition=Ready", "--timeout=10s")
    assert waited.returncode == 0, waited.stderr


TARGET = {"kind": "Deployment", "name": "same"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param({"minReplicas": 5, "maxReplicas": 2}, ["minReplicas", "maxReplicas"], id="min > max"),
        pytest.param({"metrics": {"preset": "nonsense"}}, ["preset", "envoy"], id="unknown preset"),
        pytest.param(
            {"scaleTargetRef": None}, ["scaleTargetRef", "backends"], id="neither target nor backends"
        ),
        pytest.param({"mode": "Sleepy"}, ["mode", "Shadow"], id="unknown mode"),
        pytest.param({"objective": {"preference": 101}}, ["preference", "100"], id="preference out of range"),
        pytest.param(
            {
                "scaleTargetRef": None,
                "maxReplicas": None,
                "backends": [{"name": n, "scaleTargetRef": TARGET, "maxReplicas": 2} for n in ("a", "b")],
            },
            ["scaleTargetRef"],
            id="two pools with one target",
        ),
    ],
)
def test_apply_refuses_a_wrong_spec_and_says_why(
    namespace: Namespace, spec: dict[str, Any], words: list[str]
) -> None:
    text = manifest("wrong", **spec)
    applied = namespace.cluster.kubectl("-n", namespace.name, "apply", "-f", "-", stdin=text)
    assert applied.returncode != 0
    for word in words:
        assert word in applied.stderr


def test_editing_an_unserved_field_changes_nothing(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    """Labels are not the spec: no turn out of turn, no write."""
    ns = shared_namespace
    traffic.set(ns.name, "labelled", rate=20.0)
    ns.deployment("labelled", replicas=4)
    ns.rlscaler(
        "labelled", objective={"capacityPerReplica": "10", "targetUtilization": 50}, syncPeriodSeconds=300
    )
    eventually(lambda: operator.decisions(ns.name, "labelled"))
    made = len(operator.decisions(ns.name, "labelled"))
    done = ns.cluster.kubectl("-n", ns.name, "label", "rls", "labelled", "team=shop")
    assert done.returncode == 0, done.stderr
    assert len(operator.decisions(ns.name, "labelled")) == made
