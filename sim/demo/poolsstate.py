"""What the views of the pools demo show: one snapshot of the run, as plain JSON.

Latencies and errors are what clients saw, weights those in force in Envoy, replicas and decisions those of
the objects in the cluster.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sim.demo.poolsplan import ACTS, SICK, PoolsPlan
from sim.demo.state import shown_status
from sim.twin.dataplane.figures import Figures, figures
from sim.twin.dataplane.plan import SLO_MS, SetPlan
from sim.twin.dataplane.twin import EnvoyTwin
from sim.twin.errors import Json
from sim.twin.workloads import DEPLOYMENTS

ROW_S = 1.0
LOOK_BACK_S = 3.0
"""Latencies of a row are those of so many seconds before."""


@dataclass
class PoolsState:
    """Follows a twin from `begin` on; `update` a few times a second, `snapshot` for the views."""

    plan: PoolsPlan
    twin: EnvoyTwin
    facts: Json = field(default_factory=dict)  # addresses, PIDs, notes; filled in by the runner
    rows: dict[str, list[list[Any]]] = field(default_factory=dict)
    act_began_s: list[float] = field(default_factory=list)
    _began_s: float = math.inf

    def begin(self) -> None:
        """The first act begins now."""
        self._began_s = time.monotonic()
        self.rows = {plan.name: [] for plan in self.plan.sets}

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first act began; negative before."""
        return time.monotonic() - self._began_s if math.isfinite(self._began_s) else -1.0

    @property
    def finished(self) -> bool:
        return self.elapsed_s >= self.plan.duration_s

    def update(self) -> None:
        """Takes in the seconds that have passed since."""
        while self.rows and len(self.rows[self.plan.sets[0].name]) * ROW_S + ROW_S <= self.elapsed_s:
            for plan in self.plan.sets:
                rows = self.rows[plan.name]
                rows.append(self._row(plan, self._began_s + (len(rows) + 1) * ROW_S))

    def _row(self, plan: SetPlan, at_s: float) -> list[Any]:
        """[second, requests/s, p99 ms, error share, [weights], [shares], [ready], desired in all]."""
        found = self.twin.clients[plan.name].between(at_s - LOOK_BACK_S, at_s)
        shown = figures(found, f"{plan.name}-{SICK}", SLO_MS)
        by_pool = Counter(sample.pool for sample in found)
        weights = self.twin.gateway.weights(plan.name)
        ready, desired = zip(*(self._replicas(name) for name in plan.services), strict=True)
        return [
            round(at_s - self._began_s, 1),
            round(len(found) / LOOK_BACK_S, 1),
            _finite(shown.p99_ms, 1),
            _finite(shown.error_ratio, 4),
            [weights.get(name, 0) for name in plan.services],
            [round(by_pool[name] / max(len(found), 1), 3) for name in plan.services],
            list(ready),
            sum(desired),
        ]

    def _replicas(self, name: str) -> tuple[int, int]:
        found = self.twin.cluster.api.store.get(DEPLOYMENTS, "default", name) or {"spec": {}}
        return (found.get("status") or {}).get("readyReplicas", 0), found["spec"].get("replicas", 0)

    def acts(self, plan: SetPlan) -> list[Figures]:
        """What came of a set's requests in each act so far."""
        ends = [*self.act_began_s[1:], math.inf]
        clients, service = self.twin.clients[plan.name], f"{plan.name}-{SICK}"
        between = zip(self.act_began_s, ends, strict=False)
        return [figures(clients.between(since, until), service, SLO_MS) for since, until in between]

    def snapshot(self, since: int = 0) -> Json:
        """All that a view needs; rows from the `since`-th on."""
        return {
            "elapsed_s": self.elapsed_s,
            "duration_s": self.plan.duration_s,
            "slo_ms": SLO_MS,
            "act": ACTS[self.plan.act(self.elapsed_s)].name,
            "acts": [act.name for act in ACTS],
            "act_starts_s": [moment - self._began_s for moment in self.act_began_s],
            "facts": self.facts,
            "from": since,
            "services": [self._set(plan, since) for plan in self.plan.sets],
        }

    def _set(self, plan: SetPlan, since: int) -> Json:
        return {
            "name": plan.name,
            "label": plan.rule.replace("+", " + "),
            "pools": [pool.name for pool in plan.pools],
            **shown_status(self.twin.cluster, plan.name),
            "rows": self.rows.get(plan.name, [])[since:],
            "figures": [
                {
                    "requests": each.requests,
                    "p99_ms": _finite(each.p99_ms, 1),
                    "error_ratio": _finite(each.error_ratio, 4),
                    "late": _finite(each.late, 4),
                    "share": _finite(each.share, 4),
                }
                for each in self.acts(plan)
            ],
        }


def _finite(value: float, digits: int) -> float | None:
    return None if math.isnan(value) else round(value, digits)
