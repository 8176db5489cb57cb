"""Reading signals: PromQL presets, Prometheus with an outcome for all that can go wrong, and history."""

from controller.metrics.collect import load_reading, to_samples
from controller.metrics.config import PrometheusConfig, TlsConfig
from controller.metrics.errors import PrometheusConfigError, QueryTemplateError
from controller.metrics.history import History, read_histories, read_history
from controller.metrics.presets import PRESETS, QueryContext, render_queries
from controller.metrics.prometheus import PrometheusSource
from controller.metrics.source import SIGNALS, MetricsSource, QuerySet, RangeReading, SignalReading

__all__ = [
    "PRESETS",
    "SIGNALS",
    "History",
    "MetricsSource",
    "PrometheusConfig",
    "PrometheusConfigError",
    "PrometheusSource",
    "QueryContext",
    "QuerySet",
    "QueryTemplateError",
    "RangeReading",
    "SignalReading",
    "TlsConfig",
    "load_reading",
    "read_histories",
    "read_history",
    "render_queries",
    "to_samples",
]
