"""What the operator exposes of itself, for Prometheus: names, labels and help texts live here alone.

Metrics are what we read from services; telemetry is what we say of ourselves. Every Telemetry has a
registry of its own, so that tests and embedded operators do not share counters.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TINY_S = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0)
OBJECT = ("namespace", "name")


class Telemetry:
    """The operator's own counters, histograms and gauges."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciliations = Counter(
            "rlscaler_reconciliations",
            "Decisions carried through for an RLScaler, by what was done and what went wrong.",
            ("action", "error"),
            registry=self.registry,
        )
        self.duration = Histogram(
            "rlscaler_reconciliation_duration_seconds",
            "Real seconds from a batch being due to its last write.",
            buckets=FAST_S,
            registry=self.registry,
        )
        self.lag = Histogram(
            "rlscaler_tick_lag_seconds",
            "Real seconds between the time an RLScaler was due and its turn.",
            buckets=FAST_S,
            registry=self.registry,
        )
        self.delay = Histogram(
            "rlscaler_decision_delay_seconds",
            "Real seconds between the time an RLScaler was due and its decision, its readings included.",
            buckets=FAST_S,
            registry=self.registry,
        )
        self.batch_cpu = Histogram(
            "rlscaler_batch_cpu_seconds",
            "Processor seconds of this process from the start of a batch to its decisions.",
            buckets=FAST_S,
            registry=self.registry,
        )
        self.queries = Counter(
            "rlscaler_metric_queries",
            "Signals read, by outcome (OK, NoData, PrometheusUnreachable, ...).",
            ("signal", "outcome"),
            registry=self.registry,
        )
        self.inference = Histogram(
            "rlscaler_policy_inference_seconds",
            "Seconds that observation, policies and guard took for one batch.",
            buckets=TINY_S,
            registry=self.registry,
        )
        self.api_errors = Counter(
            "rlscaler_api_errors",
            "Requests to the Kubernetes API that failed, by error class.",
            ("error",),
            registry=self.registry,
        )
        self.tick_errors = Counter(
            "rlscaler_tick_errors",
            "Exceptions that the control loop did not expect, and survived.",
            registry=self.registry,
        )
        self.current = self._gauge("rlscaler_current_replicas", "Replicas of the target as last read.")
        self.desired = self._gauge("rlscaler_desired_replicas", "Replicas after the guard.")
        self.recommended = self._gauge("rlscaler_recommended_replicas", "Replicas that the policy asked for.")
        self.fallback = self._gauge("rlscaler_fallback", "1 while an RLScaler runs on its fallback.")
        self.unfamiliar = self._gauge(
            "rlscaler_out_of_distribution", "1 while the policy sees what it never saw in training."
        )
        self.managed = Gauge("rlscaler_managed_objects", "RLScalers served.", registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, OBJECT, registry=self.registry)

    def forget(self, namespace: str, name: str) -> None:
        """Drop the series of a deleted RLScaler."""
        for gauge in (self.current, self.desired, self.recommended, self.fallback, self.unfamiliar):
            gauge.remove_by_labels({"namespace": namespace, "name": name})

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
