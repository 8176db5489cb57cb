"""RLScalers for the tests: a smallest one, a full one, and a way to change them by path."""

from __future__ import annotations

import copy
from typing import Any

Json = dict[str, Any]

WEB: Json = {"kind": "Deployment", "name": "web"}
SMALLEST: Json = {"scaleTargetRef": WEB, "maxReplicas": 10}

POOLS: Json = {
    "backends": [
        {
            "name": "on-demand",
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web-od"},
            "service": "web-od",
            "minReplicas": 2,
            "maxReplicas": 40,
            "costPerReplica": "1.0",
            "minWeight": 10,
        },
        {
            "name": "spot",
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web-spot"},
            "service": "web-spot",
            "minReplicas": 0,
            "maxReplicas": 60,
            "costPerReplica": "0.3",
            "maxWeight": 80,
        },
    ],
    "routes": [{"kind": "HTTPRoute", "name": "web", "rule": "main"}],
}

DESIGN: Json = {
    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
    "minReplicas": 2,
    "maxReplicas": 60,
    "syncPeriodSeconds": 15,
    "mode": "Active",
    "objective": {
        "slo": {"latency": {"percentile": 95, "milliseconds": 250}},
        "preference": 50,
        "capacityPerReplica": "25",
    },
    "metrics": {"preset": "envoy", "queries": {}, "prometheus": {}},
    "policy": {"type": "RL", "artifact": {"builtin": "default"}},
    "behavior": {},
    "fallback": {"failureThreshold": 3, "behavior": "HPA"},
    "schedules": [],
}
"""The specification as the design document shows it, with scaleTargetRef."""


def manifest(spec: Json) -> Json:
    return {
        "apiVersion": "rlscaler.dev/v1alpha1",
        "kind": "RLScaler",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": spec,
    }


def changed(spec: Json, path: str, value: Any) -> Json:
    """A copy of `spec` with the value at `a.b.0.c`; None removes it."""
    result = copy.deepcopy(spec)
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    node: Any = result
    for step in parents:
        node = node.setdefault(step, {}) if isinstance(node, dict) else node[step]
    if value is None:
        del node[last]
    elif isinstance(node, list) and last == len(node):
        node.append(value)
    else:
        node[last] = value
    return result
