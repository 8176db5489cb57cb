"""An operator with something to show: RLScalers with traffic that moves, in all kinds of states."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from tests.integration.harness import SETTLED_REAL_S, Namespace, Traffic

SLO = {"slo": {"latency": {"percentile": 95, "milliseconds": 250}}}
LEARNED = {"policy": {"type": "RL", "artifact": {"builtin": "default"}}}
TEN = {"capacityPerReplica": "10", "targetUtilization": 70}

WORKLOADS = {
    "checkout": (90.0, 12, {"objective": {**TEN, **SLO}, **LEARNED, "maxReplicas": 40}),
    "catalogue": (140.0, 18, {"objective": {**TEN, **SLO}, "maxReplicas": 40}),
    "search": (60.0, 8, {"objective": {**TEN, **SLO}, **LEARNED, "maxReplicas": 30, "mode": "Shadow"}),
    "recommendations": (80.0, 6, {"objective": {**TEN, **SLO}, "maxReplicas": 8}),
    "images": (30.0, 5, {"objective": TEN, "policy": {"type": "Forecast"}}),
    "reports": (8.0, 3, {"objective": {**TEN, **SLO}, "mode": "Paused"}),
}
"""By name: requests/s, replicas at the start, and what its spec says."""
LOST = "invoices"
"""One whose metrics are nowhere."""


def populate(ns: Namespace, traffic: Traffic) -> None:
    """Create all of it."""
    for name, (rate, replicas, _) in WORKLOADS.items():
        traffic.set(ns.name, name, rate=rate)
        ns.deployment(name, replicas=replicas)
    ns.deployment(LOST, replicas=3)
    time.sleep(SETTLED_REAL_S)
    for name, (_, _, spec) in WORKLOADS.items():
        ns.rlscaler(name, **spec)
    ns.rlscaler(LOST, objective=TEN, metrics={"service": "nobody"})


class Tide(threading.Thread):
    """Traffic that rises and falls, every `period_s` real seconds, until `stop`."""

    def __init__(
        self,
        ns: Namespace,
        traffic: Traffic,
        period_s: float = 30.0,
        names: tuple[str, ...] = tuple(WORKLOADS),
    ) -> None:
        super().__init__(daemon=True)
        self._set: Callable[..., None] = traffic.set
        self._namespace, self._period_s, self._names = ns.name, period_s, names
        self._over = threading.Event()

    def run(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(0.25):
            turn = 2 * math.pi * (time.monotonic() - begun) / self._period_s
            for number, name in enumerate(self._names):
                wave = math.sin(turn + number) + 0.3 * math.sin(3.1 * turn + 2 * number)
                latency_ms = 320.0 if name == "recommendations" else 60.0 + 40.0 * wave
                rate = WORKLOADS[name][0] * (1.0 + 0.45 * wave)
                self._set(self._namespace, name, rate=rate, latency_ms=latency_ms)

    def stop(self) -> None:
        self._over.set()
        self.join()
