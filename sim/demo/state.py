"""What the terminal and the page show: one snapshot of the run, as plain JSON.

Loads, latencies and violations come from the simulated services, which know the truth; replicas and decisions
from the objects in the cluster, which is what `kubectl` shows too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from sim.demo.objects import HPA, LABELS, RL
from sim.demo.plan import CAPACITY_RPS, SLO_MS, Plan
from sim.twin.emulator import TwinCluster
from sim.twin.errors import Json
from sim.twin.service import Sample, ServiceFleet
from sim.twin.twin import Twin

RLSCALERS = ("rlscaler.dev", "rlscalers")
NAMES = (RL, HPA)


@dataclass
class Totals:
    """Sums over the window so far."""

    arrived: float = 0.0
    violating: float = 0.0
    dropped: float = 0.0
    replica_s: float = 0.0
    ideal_s: float = 0.0
    seconds: float = 0.0
    changes: int = 0
    flaps: int = 0
    max_replicas: int = 0
    _desired: int | None = None
    _direction: int = 0

    def add(self, sample: Sample, period_s: float) -> None:
        self.arrived += sample.arrived
        self.violating += sample.violating
        self.dropped += sample.dropped
        self.replica_s += sample.replica_s
        self.ideal_s += sample.load_rps / CAPACITY_RPS * period_s
        self.seconds += period_s
        self.max_replicas = max(self.max_replicas, sample.desired)
        self._count_change(sample.desired)

    def _count_change(self, desired: int) -> None:
        before, self._desired = self._desired, desired
        if before is None or desired == before:
            return
        direction = 1 if desired > before else -1
        self.changes += 1
        self.flaps += self._direction * direction < 0
        self._direction = direction

    def figures(self, p95_ms: float) -> Json:
        """The numbers of the final table; shares are 0..1, rates are an hour."""
        hours = max(self.seconds / 3600, 1e-9)
        return {
            "replica_hours": self.replica_s / 3600,
            "cost_over_ideal": self.replica_s / max(self.ideal_s, 1e-9),
            "violation": self.violating / max(self.arrived, 1e-9),
            "p95_ms": p95_ms,
            "dropped": self.dropped / max(self.arrived, 1e-9),
            "max_replicas": self.max_replicas,
            "changes_per_hour": self.changes / hours,
            "flaps_per_hour": self.flaps / hours,
        }


@dataclass
class DemoState:
    """Follows a fleet; `update` after each sync period, `snapshot` for the views."""

    plan: Plan
    twin: Twin
    facts: Json = field(default_factory=dict)  # addresses, PIDs, notes; filled in by the runner
    totals: list[Totals] = field(default_factory=lambda: [Totals() for _ in NAMES])
    _taken: int = 0
    _histograms: list[Any] | None = None

    @property
    def fleet(self) -> ServiceFleet:
        return self.twin.fleet

    @property
    def elapsed_s(self) -> float:
        """Control seconds into the window; negative in the warm-up."""
        return self.fleet.clock_s - self.plan.warm_up_s

    @property
    def finished(self) -> bool:
        return self.elapsed_s >= self.plan.duration_s

    def update(self) -> None:
        """Takes in the samples that have come since."""
        while self._taken < len(self.fleet.samples[0]):
            index, self._taken = self._taken, self._taken + 1
            time_s = self.fleet.samples[0][index].time_s
            if time_s == self.plan.warm_up_s:
                self._histograms = [self.fleet.histogram(i) for i in range(len(NAMES))]
            if self.plan.warm_up_s < time_s <= self.plan.end_s:
                for row, totals in enumerate(self.totals):
                    totals.add(self.fleet.samples[row][index], self.fleet.period_s)

    def figures(self) -> dict[str, Json]:
        """The table's numbers by workload, over the window so far."""
        return {name: self.totals[i].figures(self._p95(i)) for i, name in enumerate(NAMES)}

    def _p95(self, index: int) -> float:
        since = self._histograms[index] if self._histograms else None
        return self.fleet.latency_quantile(index, 0.95, since)

    def rows(self, index: int, since: int = 0) -> list[list[float | None]]:
        """[seconds into the window, load, ready, existing, desired, p95 ms, violating share] a period."""
        return [_row(s, self.plan.warm_up_s) for s in self.fleet.samples[index][since:]]

    def snapshot(self, since: int = 0) -> Json:
        """All that a view needs; series from the `since`-th period on."""
        figures = self.figures()
        return {
            "elapsed_s": self.elapsed_s,
            "duration_s": self.plan.duration_s,
            "warm_up_s": self.plan.warm_up_s,
            "time_scale": self.plan.time_scale,
            "slo_ms": SLO_MS,
            "trace": self.plan.name,
            "facts": self.facts,
            "from": since,
            "services": [
                self._service(i, name, since) | {"figures": _finite(figures[name])}
                for i, name in enumerate(NAMES)
            ],
        }

    def _service(self, index: int, name: str, since: int) -> Json:
        return {
            "name": name,
            "label": LABELS[name],
            **shown_status(self.twin.cluster, name),
            "rows": self.rows(index, since),
        }


def shown_status(cluster: TwinCluster, name: str) -> Json:
    """What an RLScaler's status says: policy, message and outcome of the last decision, conditions."""
    status = (cluster.api.store.get(RLSCALERS, "default", name) or {}).get("status") or {}
    decision = status.get("lastDecision") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    return {
        "policy": (status.get("policy") or {}).get("name", ""),
        "message": decision.get("message", "no decision yet"),
        "outcome": decision.get("outcome", ""),
        "conditions": {k: _condition(conditions[k]) for k in _SHOWN if k in conditions},
    }


_SHOWN = ("Ready", "MetricsAvailable", "PolicyReady", "RoutesSynced", "Fallback")


def _condition(condition: Json) -> Json:
    return {key: condition.get(key, "") for key in ("status", "reason", "message")}


def _row(sample: Sample, warm_up_s: float) -> list[float | None]:
    share = sample.violating / sample.arrived if sample.arrived else 0.0
    p95 = None if math.isnan(sample.p95_ms) else round(sample.p95_ms, 1)
    load = round(float(sample.load_rps) / CAPACITY_RPS, 2)
    when = sample.time_s - warm_up_s
    return [when, load, sample.ready, sample.current, sample.desired, p95, round(share, 5)]


def _finite(figures: Json) -> Json:
    return {k: None if math.isnan(v) else v for k, v in figures.items()}
