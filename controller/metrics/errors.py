"""What can be wrong with how metrics are asked for; what can be wrong with the answers is an `Outcome`.

MetricsError (controller.errors)
  x  QueryTemplateError       unknown preset, signal or placeholder, or a query that is missing
  x  PrometheusConfigError    address, credentials or TLS material that no request could work with
"""

from __future__ import annotations

from controller.errors import MetricsError


class QueryTemplateError(MetricsError):
    """spec.metrics cannot be turned into PromQL; `field` is the part of spec.metrics to blame."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"metrics.{field}: {message}")
        self.field = field


class PrometheusConfigError(MetricsError):
    """The Prometheus connection is misconfigured; `field` is the part to blame."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"prometheus.{field}: {message}")
        self.field = field
