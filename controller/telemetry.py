"""What the operator exposes of itself, for Prometheus: names, labels and help texts live here and in
`controller.objectseries` alone; docs/telemetry.md lists them.

Metrics are what we read from services; telemetry is what we say of ourselves. Every Telemetry has a
registry of its own, so that tests and embedded operators do not share counters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from controller import __version__
from controller.decisions import OUTCOMES, DecisionRecord
from controller.objectseries import ObjectSeries

FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TINY_S = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0)


BUDGET = ("namespace", "name")
LONGEST_START_S = 60.0


def process_began_s() -> float:
    """Unix seconds at which this process began, as /proc says; now, where there is none.

    Within the last minute at most: some sandboxes keep a clock of their own for /proc.
    """
    collected, now_s = CollectorRegistry(), time.time()
    ProcessCollector(registry=collected)
    said_s = collected.get_sample_value("process_start_time_seconds") or now_s
    return min(max(said_s, now_s - LONGEST_START_S), now_s)


class Telemetry:
    """The operator's own counters, histograms and gauges, and each RLScaler's series (`objects`).

    now: seconds by the clock that decides, for what is summed over time.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        # a series more for each counter and histogram, which nobody reads
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.objects = ObjectSeries(now)
        ProcessCollector(registry=self.registry)
        self._loop_metrics()
        self._decision_metrics()
        self._outside_metrics()
        self.managed = self._gauge("rlscaler_managed_objects", "RLScalers served.")
        self.leader = self._gauge(
            "rlscaler_leader", "1 while this operator decides; 0 while it stands by for another."
        )
        build = self._gauge("rlscaler_build_info", "1; the version in its label.", ("version",))
        build.labels(__version__).set(1)

    def _loop_metrics(self) -> None:
        self.reconciliations = self._counter(
            "rlscaler_reconciliations",
            "Turns of RLScalers, by what was done and what went wrong.",
            ("action", "error"),
        )
        self.duration = self._histogram(
            "rlscaler_reconciliation_duration_seconds",
            "Real seconds from a batch having been observed to its last write.",
        )
        self.lag = self._histogram(
            "rlscaler_tick_lag_seconds",
            "Real seconds between the time an RLScaler was due and its turn.",
        )
        self.delay = self._histogram(
            "rlscaler_decision_delay_seconds",
            "Real seconds between the time an RLScaler was due and its decision, its readings included.",
        )
        self.batch_cpu = self._histogram(
            "rlscaler_batch_cpu_seconds",
            "Processor seconds of this process from the start of a batch to its decisions.",
        )
        self.tick_errors = self._counter(
            "rlscaler_tick_errors", "Exceptions that the control loop did not expect, and survived."
        )

    def _decision_metrics(self) -> None:
        self.decisions = self._counter(
            "rlscaler_decisions",
            "Decisions, by outcome (ScaledUp, ScaledDown, NoChange, Held).",
            ("outcome",),
        )
        for outcome in OUTCOMES:
            self.decisions.labels(outcome)
        self.clamps = self._counter(
            "rlscaler_clamps",
            "Changes that the guard made to recommendations, by its rule and reason.",
            ("clamp", "reason"),
        )
        self.fallbacks = self._counter(
            "rlscaler_fallback_decisions", "Decisions made by spec.fallback, by why.", ("reason",)
        )
        self.inference = self._histogram(
            "rlscaler_policy_inference_seconds",
            "Seconds that observation, policies and guard took for one batch.",
            buckets=TINY_S,
        )

    def _outside_metrics(self) -> None:
        self.queries = self._counter(
            "rlscaler_metric_queries",
            "Signals read, by outcome (OK, NoData, PrometheusUnreachable, ...).",
            ("signal", "outcome"),
        )
        self.api_errors = self._counter(
            "rlscaler_api_errors",
            "Requests to the Kubernetes API that failed, by error class.",
            ("error",),
        )
        self.status_writes = self._counter(
            "rlscaler_status_writes", "Statuses of RLScalers that were written."
        )

        self.budget_limit = self._gauge(
            "rlscaler_budget_limit_replicas", "maxReplicas of an RLScalerBudget.", BUDGET
        )
        self.budget_used = self._gauge(
            "rlscaler_budget_used_replicas", "Replicas that the members of a budget have.", BUDGET
        )
        self.budget_demanded = self._gauge(
            "rlscaler_budget_demanded_replicas", "Replicas that they would have without it.", BUDGET
        )

    def budget(self, namespace: str, name: str, limit: int | None, used: int, demanded: int) -> None:
        """The series of a budget; without maxReplicas it has no limit in replicas."""
        self.budget_used.labels(namespace, name).set(used)
        self.budget_demanded.labels(namespace, name).set(demanded)
        if limit is not None:
            self.budget_limit.labels(namespace, name).set(limit)
        else:
            self.budget_limit.remove_by_labels({"namespace": namespace, "name": name})

    def forget_budget(self, namespace: str, name: str) -> None:
        """Drop the series of a deleted budget."""
        for gauge in (self.budget_limit, self.budget_used, self.budget_demanded):
            gauge.remove_by_labels({"namespace": namespace, "name": name})

    def decided(self, record: DecisionRecord) -> None:
        """Count a decision."""
        self.decisions.labels(record.outcome).inc()
        for clamp in record.clamps:
            self.clamps.labels(clamp.name, clamp.reason).inc()
        if record.fallback is not None:
            self.fallbacks.labels(record.fallback).inc()

    def forget(self, namespace: str, name: str) -> None:
        """Drop the series of a deleted RLScaler."""
        self.objects.forget(namespace, name)

    def pieces(self) -> Iterator[bytes]:
        """The exposition text, a piece at a time."""
        yield generate_latest(self.registry)
        for piece in self.objects.pieces():
            yield piece.encode()

    def render(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces())

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float] = FAST_S) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)
