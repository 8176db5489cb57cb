"""The two RLScalers of the demo: alike but for the policy."""

from __future__ import annotations

import yaml

from sim.demo.plan import CAPACITY_RPS, MAX_REPLICAS, MIN_REPLICAS, SLO_MS, START_UP_S, SYNC_PERIOD_S

RL, HPA = "web", "web-hpa"
LABELS = {RL: "RL policy", HPA: "HPA, 70 %"}


def rlscaler_yaml(name: str, preference: int, max_replicas: int = MAX_REPLICAS) -> str:
    """The RLScaler of one of the two workloads."""
    policy = {"type": "RL", "artifact": {"builtin": "default"}} if name == RL else {"type": "HPA"}
    objective = {
        "slo": {"latency": {"percentile": 95, "milliseconds": round(SLO_MS)}},
        "preference": preference,
        "capacityPerReplica": f"{CAPACITY_RPS:g}",
        "targetUtilization": 70,
        "startUpSeconds": round(START_UP_S),
    }
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": MIN_REPLICAS,
        "maxReplicas": max_replicas,
        "syncPeriodSeconds": SYNC_PERIOD_S,
        "objective": objective,
        "metrics": {"preset": "envoy"},
        "policy": policy,
    }
    header = {"apiVersion": "rlscaler.dev/v1alpha1", "kind": "RLScaler"}
    return yaml.safe_dump(header | {"metadata": {"name": name, "namespace": "default"}, "spec": spec})
