"""What a data plane is made of: sets of pools, their traffic, and the objects that stand for them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import yaml

from controller.core.weighing import WEIGHINGS
from sim.errors import ParameterError, require
from sim.twin.twin import workload_yaml

EJECTION = "+ejection"
POLICY = "Policy"
SLO_MS = 240
RULES = ("Ready", "Ready" + EJECTION)
"""Sets of the demo and of `python -m sim.twin`, unless others are asked for."""
RATE_RPS = 40.0
"""To each of them."""


@dataclass(frozen=True)
class PoolPlan:
    """One pool. service_s: of a request in a slot; a replica has `slots`, and serves slots / service_s."""

    name: str
    replicas: int
    service_s: float = 0.08
    slots: int = 1
    price: float = 1.0

    @property
    def capacity_rps(self) -> float:
        """Requests/s that one replica serves."""
        return self.slots / self.service_s


POOLS = (PoolPlan("on-demand", 4), PoolPlan("zone-b", 3), PoolPlan("spot", 3, price=0.3))
"""125 requests/s together."""


@dataclass(frozen=True)
class Times:
    """How fast the control loop runs, real seconds: by default the operator's own (15 s between syncs, a
    window of 60 s, scrapes each 15 s, Envoy's histograms each 5 s) five times as fast."""

    sync_s: int = 3
    window_s: int = 12
    scrape_s: float = 3.0
    flush_s: float = 1.0
    base_s: int = 6
    recovery_s: int = 24


DEFAULT_TIMES = Times(sync_s=15, window_s=60, scrape_s=15.0, flush_s=5.0, base_s=30, recovery_s=120)
"""What users get who set nothing."""


@dataclass(frozen=True)
class SetPlan:
    """One route with its pools, and by what it is weighed. elastic: replicas follow the load, up to twice
    those of the plan; else they stay."""

    rule: str
    rate_rps: float
    pools: tuple[PoolPlan, ...] = POOLS
    elastic: bool = False
    times: Times = field(default_factory=Times)

    def __post_init__(self) -> None:
        allowed = (*WEIGHINGS, POLICY)
        if self.policy not in allowed:
            raise ParameterError("rule", self.rule, f"one of {', '.join(allowed)}, alone or with {EJECTION}")
        require(self.rate_rps >= 0, "rate_rps", self.rate_rps, "0 or more")

    @property
    def policy(self) -> str:
        return self.rule.removesuffix(EJECTION)

    @property
    def ejects(self) -> bool:
        return self.rule.endswith(EJECTION)

    @property
    def name(self) -> str:
        """Of its route and RLScaler."""
        return self.rule.replace("+", "-").lower()

    def service(self, pool: PoolPlan) -> str:
        """Name of a pool's Service and Deployment."""
        return f"{self.name}-{pool.name}"

    @property
    def services(self) -> list[str]:
        return [self.service(pool) for pool in self.pools]


def objects_yaml(plan: SetPlan) -> str:
    """Deployments, Services, the HTTPRoute with equal weights, and the RLScaler."""
    workloads = [workload_yaml(plan.service(pool), pool.replicas) for pool in plan.pools]
    meta = {"name": plan.name, "namespace": "default"}
    refs = [{"name": name, "port": 80, "weight": 100 // len(plan.pools)} for name in plan.services]
    refs[0]["weight"] = 100 - sum(int(ref["weight"]) for ref in refs[1:])  # type: ignore[call-overload]
    rules = [{"name": "main", "backendRefs": refs}]
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta}
    route |= {"spec": {"parentRefs": [{"name": "public"}], "rules": rules}}
    scaler = {"apiVersion": "rlscaler.dev/v1alpha1", "kind": "RLScaler", "metadata": meta}
    scaler |= {"spec": _spec(plan)}
    return "---\n".join([*workloads, yaml.safe_dump_all([route, scaler])])


def _spec(plan: SetPlan) -> dict[str, object]:
    times = plan.times
    clusters = f"{plan.name}-({'|'.join(pool.name for pool in plan.pools)})"
    total = (
        f'sum(rate(envoy_cluster_upstream_rq_total{{envoy_cluster_name=~"{clusters}"}}[{times.window_s}s]))'
    )
    learned = plan.policy == POLICY
    routing: dict[str, object] = {"policy": plan.policy}
    if plan.ejects:
        routing["ejection"] = {"baseSeconds": times.base_s, "recoverySeconds": times.recovery_s}
    return {
        "backends": [_backend(plan, pool) for pool in plan.pools],
        "routes": [{"kind": "HTTPRoute", "name": plan.name, "rule": "main"}],
        "routing": routing,
        "metrics": {"preset": "envoy", "windowSeconds": times.window_s, "queries": {"requestRate": total}},
        "objective": {
            "capacityPerReplica": f"{plan.pools[0].capacity_rps:g}",
            "targetUtilization": 50,
            "slo": {"latency": {"percentile": 95, "milliseconds": SLO_MS}},
        },
        "policy": {"type": "RL", "artifact": {"builtin": "pools"}} if learned else {"type": "HPA"},
        "syncPeriodSeconds": times.sync_s,
    }


def _backend(plan: SetPlan, pool: PoolPlan) -> dict[str, object]:
    most = 2 * pool.replicas if plan.elastic else pool.replicas
    return {
        "name": pool.name,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.service(pool)},
        "minReplicas": pool.replicas if not plan.elastic else max(1, math.ceil(pool.replicas / 2)),
        "maxReplicas": most,
        "costPerReplica": f"{pool.price:g}",
        "capacityPerReplica": f"{pool.capacity_rps:g}",
    }
