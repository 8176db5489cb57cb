"""One operator with everything that can go wrong around it, and the record of what it did.

A `Rig` stands in one namespace: the operator talks to the API server through `api` and to Prometheus through
`prometheus` (there may be more of them), and `verify` judges all that was recorded by
`tests.faults.invariants`.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from tests.faults import invariants
from tests.faults.apiproxy import ApiProxy
from tests.faults.history import Watcher
from tests.faults.invariants import Evidence, Interval
from tests.faults.launcher import Operator, Runner
from tests.faults.promproxy import PrometheusProxy
from tests.faults.relay import LoopThread
from tests.faults.scripted import ScriptedPrometheus
from tests.faults.traffic import TIME_SCALE, UnsteadyTraffic
from tests.integration.harness import (
    OBJECTIVE,
    ROOT,
    Json,
    Namespace,
    Prometheus,
    eventually,
    http_get,
)

PERIOD_S = 30.0
SCRAPE_S = 0.5
SCRAPES = 8
WINDOW_S = int(SCRAPES * SCRAPE_S * TIME_SCALE)
"""Control seconds of rate()."""
PATIENCE_REAL_S = 60.0
EAGER = {"scaleDown": {"stabilizationWindowSeconds": 0}}
"""Scales down at once wherever it believes in a low load: what tempts it shows soon."""
CAREFUL = {
    "scaleUp": {"policies": [{"type": "Pods", "value": 3, "periodSeconds": 30}]},
    "scaleDown": {
        "stabilizationWindowSeconds": 120,
        "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}],
    },
}


def tolerant(behavior: Json) -> Json:
    """The same, but deaf to what missed scrapes on a busy machine do to a rate."""
    directions = ("scaleUp", "scaleDown")
    return {name: {**behavior.get(name, {}), "tolerance": "0.3"} for name in directions}


def control(seconds: float) -> float:
    """Real seconds that so many control seconds take."""
    return seconds / TIME_SCALE


@dataclass
class Span:
    """Something that goes on from a Unix time until it is ended."""

    began: float
    ended: float = math.inf

    @property
    def interval(self) -> Interval:
        return self.began, self.ended

    def end(self, grace_s: float = 0.0) -> None:
        self.ended = time.time() + grace_s


class Rig:
    """The operator of one namespace between its faulty neighbours."""

    def __init__(
        self,
        ns: Namespace,
        thread: LoopThread,
        runner: Runner,
        traffic: UnsteadyTraffic,
        prometheus: Prometheus | None,
        directory: Path,
        **env: str,
    ) -> None:
        """prometheus: a real one; a scripted one without."""
        self.ns, self.traffic, self.thread = ns, traffic, thread
        self._directory = directory
        self._upstream = ScriptedPrometheus(traffic) if prometheus is None else prometheus.address
        self.api = ApiProxy(thread, ns.api, directory, ns.name)
        self.prometheus = PrometheusProxy(thread, self._upstream)
        self._more: list[PrometheusProxy] = []
        self.watcher = Watcher(thread, ns.api, ns.name)
        settings = {
            "RLSCALER_TIME_SCALE": f"{TIME_SCALE:g}",
            "RLSCALER_PROMETHEUS_TIMEOUT": "2",
            "RLSCALER_API_TIMEOUT": "10",
            "RLSCALER_RESYNC_SECONDS": "3",
            "RLSCALER_POLICY_DIR": str(directory),
            "OMP_NUM_THREADS": "1",
        }
        self.operator: Operator = runner.operator(
            self.api.kubeconfig, ns.name, self.prometheus.address, **(settings | env)
        )
        self._lock = threading.Lock()
        self.restarts: list[float] = []
        self._excused: dict[str, list[Span]] = {}
        self._blind: dict[str, list[Span]] = {}
        self._forgotten: dict[str, list[float]] = {}
        self._schema, self._judged = status_schema(), 0
        self._misfits: list[invariants.Violation] = []
        self._crowd = 1.0
        self._not_yet = self.begin_excuse()

    def another_prometheus(self) -> PrometheusProxy:
        """A proxy of its own for some services (`prometheus=` of `service`)."""
        proxy = PrometheusProxy(self.thread, self._upstream)
        self._more.append(proxy)
        return proxy

    # Services

    def service(
        self, name: str, rate: float, replicas: int, prometheus: PrometheusProxy | None = None, **spec: Any
    ) -> None:
        """A Deployment under load and its RLScaler; one replica for every five requests/s.

        Where the operator is running, the load is there for a window before the RLScaler is.
        """
        self.traffic.set(self.ns.name, name, rate=rate)
        self.ns.deployment(name, replicas=replicas)
        if self.operator.running:
            self.settle()
        self.rlscaler(name, prometheus, **spec)

    def rlscaler(self, name: str, prometheus: PrometheusProxy | None = None, **spec: Any) -> Json:
        """The RLScaler of a service."""
        off = dict.fromkeys(("cpuUtilization", "latency", "errorRatio", "inFlight"), "")
        metrics: Json = {"windowSeconds": WINDOW_S, "queries": off}
        if prometheus is not None:
            metrics["prometheus"] = {"address": prometheus.address}
        given = {"objective": OBJECTIVE, "maxReplicas": 20, "behavior": EAGER, "metrics": metrics}
        return self.ns.rlscaler(name, **{"syncPeriodSeconds": int(PERIOD_S), **given, **spec})

    def wait_condition(self, name: str, kind: str, status: str, reason: str = "") -> Json:
        """As Namespace.wait_condition, with patience for a busy machine."""

        def check() -> Json:
            found = self.ns.condition(name, kind)
            assert (found.get("status"), reason or found.get("reason")) == (status, found.get("reason")), (
                found
            )
            return found

        return eventually(check, timeout_s=PATIENCE_REAL_S)

    def rate(self, name: str, rate: float) -> None:
        """Requests/s of a service from now on."""
        self.traffic.set(self.ns.name, name, rate=rate)

    def settle(self) -> None:
        """Until Prometheus has a window full of samples of every service."""
        if isinstance(self._upstream, ScriptedPrometheus):
            return
        counted = "count_over_time(envoy_cluster_upstream_rq_total"
        query = f'min({counted}{{namespace="{self.ns.name}"}}[{WINDOW_S / TIME_SCALE:g}s]))'
        url = f"{self._upstream}/api/v1/query?{urlencode({'query': query})}"

        def full() -> bool:
            result = json.loads(http_get(url)[1])["data"]["result"]
            return bool(result) and float(result[0]["value"][1]) >= SCRAPES - 1

        time.sleep(2 * SCRAPE_S)
        eventually(full, timeout_s=PATIENCE_REAL_S)

    # The operator

    def start(self, wait: bool = True, **given: Any) -> None:
        """Start the operator, again if it has ended; nothing is due before."""
        began = time.time()
        self.operator.start(wait=wait, **given)
        self.restarts.append(began)
        if len(self.restarts) == 1:
            self._not_yet.end(control(10 * PERIOD_S))

    def restart(self, **given: Any) -> None:
        """kill -9, and start."""
        with self.excuse():
            self.operator.kill()
            self.start(**given)

    def decided(self, name: str, since: float = 0.0) -> list[Json]:
        """Decisions about a service after a Unix time, oldest first."""
        found = self.operator.decisions(name)
        return [item for item in found if item["at"] > since]

    def wait_decided(self, name: str, since: float, times: int = 2) -> list[Json]:
        """The decisions about a service since a Unix time, once there are so many."""

        def check() -> list[Json]:
            found = self.decided(name, since)
            assert len(found) >= times, (name, len(found), self.ns.status(name).get("conditions"))
            return found

        return eventually(check, timeout_s=PATIENCE_REAL_S)

    def decisions_go_on(self, *names: str) -> None:
        """Some decisions from now on for each."""
        since = time.time()
        for name in names:
            self.wait_decided(name, since)

    # What excuses what

    @contextmanager
    def excuse(self, *names: str) -> Iterator[None]:
        """No decision is due for these (none: for all) meanwhile, nor in the first periods after it."""
        spans = [self.begin_excuse(name) for name in names or ("",)]
        yield
        for span in spans:
            span.end(control(10 * PERIOD_S))

    def begin_excuse(self, name: str = "") -> Span:
        """No decision is due for one ("": for all) until the span ends."""
        return self._begin(self._excused, name)

    def begin_blind(self, name: str) -> Span:
        """The load of a service cannot be known until the span ends."""
        return self._begin(self._blind, name)

    def _begin(self, spans: dict[str, list[Span]], name: str) -> Span:
        span = Span(time.time())
        with self._lock:
            spans.setdefault(name, []).append(span)
        return span

    def overwrite_status(self, name: str, status: Json) -> None:
        """Somebody else writes to the status."""
        with self._lock:
            self._forgotten.setdefault(name, []).append(time.time())
        path = self.ns.path("/apis/rlscaler.dev/v1alpha1", "rlscalers", name, "status")
        self.ns.api.patch(path, {"status": status})

    # Judgement

    def evidence(self) -> Evidence:
        with self._lock:
            excused = {name: [span.interval for span in spans] for name, spans in self._excused.items()}
            blind = {name: [span.interval for span in spans] for name, spans in self._blind.items()}
            forgotten = {name: tuple(times) for name, times in self._forgotten.items()}
        return Evidence(
            self.watcher.history,
            list(self.api.exchanges),
            list(self.api.deliveries),
            self.operator.decisions(),
            TIME_SCALE,
            PERIOD_S,
            blind,
            excused,
            forgotten,
            tuple(self.restarts),
        )

    def violations(self) -> list[invariants.Violation]:
        evidence = self.evidence()
        fresh = evidence.exchanges[self._judged :]
        self._misfits += invariants.unknown_fields(fresh, self._schema)
        self._judged += len(fresh)
        self._crowd = max(self._crowd, os.getloadavg()[0] / (os.cpu_count() or 1))
        return invariants.check(evidence, time.time(), self._crowd) + self._misfits

    def verify(self) -> None:
        """No invariant was broken, and the operator has met nothing that it did not expect."""
        found = self.violations()
        shown = "\n".join(self.watcher.history.shown(v.name) for v in found[:3])
        assert not found, "\n".join(map(str, found[:10])) + "\n" + shown
        assert self.operator.errors() == []

    def close(self) -> None:
        self.operator.close()
        self.watcher.close()
        for proxy in (self.api, self.prometheus, *self._more):
            proxy.close()


def status_schema() -> Json:
    """The CRD's schema of an RLScaler's status."""
    crd = yaml.safe_load((ROOT / "charts" / "crds" / "rlscalers.yaml").read_text())
    schema: Json = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return schema
