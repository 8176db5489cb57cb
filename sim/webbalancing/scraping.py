"""A server's `/metrics` as the balancer's book wants them. `sim.webbalancing.real` is the caller."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

NAMES = (
    "web_workers", "web_busy_workers", "web_queue", "web_service_seconds_sum", "web_service_seconds_count",
    "web_request_duration_seconds_sum", "web_request_duration_seconds_count",
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """One scrape: busy workers over workers, requests waiting, and counters since the server started."""

    busy: float
    queue: float
    service_s: float
    """Work of requests that were answered."""
    count: float
    """How many."""
    duration_s: float
    """Wait and work of all requests."""
    requests: float
    """How many."""

    def since(self, before: Reading | None) -> tuple[float, float]:
        """(service seconds, answers) since another reading; since the start if the server began anew."""
        if before is None or self.count < before.count or self.service_s < before.service_s:
            return self.service_s, self.count
        return self.service_s - before.service_s, self.count - before.count


def read_metrics(text: str) -> Reading:
    """Prometheus text to a reading. Raises ValueError for what is malformed, missing or negative."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in NAMES:
                found[sample.name] = float(sample.value)
    for name in NAMES:
        if name not in found:
            raise ValueError(f"{name}: missing in /metrics")
        if not math.isfinite(found[name]) or found[name] < 0:
            raise ValueError(f"{name}: {found[name]} is not allowed, must be a number of 0 or more")
    workers, busy, queue, service_s, count, duration_s, requests = (found[name] for name in NAMES)
    return Reading(min(busy / max(workers, 1.0), 1.0), queue, service_s, count, duration_s, requests)
