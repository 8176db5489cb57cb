"""From what Prometheus answered to a value or the reason why there is none. Pure; prometheus.py calls it.

Shapes are those of the HTTP API: https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from controller.core.samples import FloatArray, Outcome
from controller.metrics.source import RATE_SIGNALS, QuerySet, SignalReading


class Answer(NamedTuple):
    """One query's outcome; `value` is raw and NaN unless OK, `time_s` the evaluation's Unix time."""

    value: float
    outcome: Outcome
    message: str = ""
    time_s: float = math.nan


def failed(outcome: Outcome, message: str) -> Answer:
    """An answer without a value."""
    return Answer(math.nan, outcome, message)


def judge_instant(result: Any) -> Answer:
    """`data.result` of an instant query: a vector of one series or a scalar is a value."""
    if not isinstance(result, list):
        return failed(Outcome.HTTP_ERROR, "not Prometheus's answer: no list under data.result")
    if len(result) == 2 and not isinstance(result[0], Mapping):
        return _judge_sample(result)
    if not result:
        return failed(Outcome.EMPTY, "the query gave no series")
    if len(result) > 1:
        return failed(Outcome.SEVERAL, f"the query gave several series; aggregate them: {_differing(result)}")
    if "values" in result[0]:
        return failed(Outcome.BAD_QUERY, "the query gave a range vector; wrap it in rate() or *_over_time()")
    if "value" not in result[0]:
        return failed(Outcome.BAD_QUERY, "the query gave a native histogram; wrap it in histogram_quantile()")
    return _judge_sample(result[0]["value"])


def _judge_sample(sample: Any) -> Answer:
    try:
        time_s, value = float(sample[0]), float(sample[1])
    except (TypeError, ValueError, IndexError, KeyError):
        return failed(Outcome.BAD_QUERY, f"the query gave {sample!r}, which is not a number")
    return judge_value(value, time_s)


def judge_value(value: float, time_s: float) -> Answer:
    """One number that a query gave."""
    if not math.isfinite(value):
        shown = "NaN" if math.isnan(value) else f"{'+' if value > 0 else '-'}Inf"
        return Answer(math.nan, Outcome.NAN, f"the query gave {shown}", time_s)
    if value < 0:
        return Answer(math.nan, Outcome.NEGATIVE, f"the query gave {value:g}, which is below zero", time_s)
    return Answer(value, Outcome.OK, "", time_s)


def _differing(result: list[Any]) -> str:
    first, second = (dict(series.get("metric", {})) for series in result[:2])
    labels = sorted(name for name in first | second if first.get(name) != second.get(name))
    return "they differ in " + ", ".join(labels[:5]) if labels else f"{len(result)} of them"


def judge_status(status: int, body: bytes) -> Answer:
    """An HTTP answer other than 200."""
    kind, text = _api_error(body)
    if status in (400, 422) and kind in ("bad_data", "execution"):
        return failed(Outcome.BAD_QUERY, f"Prometheus refused the query: {text}")
    if status == 503 and kind in ("timeout", "canceled"):
        return failed(Outcome.SLOW, f"Prometheus gave up: {text}")
    hint = {401: " (credentials missing or wrong)", 403: " (credentials may not query)"}.get(status, "")
    return failed(Outcome.HTTP_ERROR, f"HTTP {status}{hint}" + (f": {text}" if text else ""))


def _api_error(body: bytes) -> tuple[str, str]:
    try:
        parsed = json.loads(body)
        return str(parsed["errorType"]), str(parsed["error"])[:500]
    except (ValueError, TypeError, KeyError):
        return "", body[:200].decode(errors="replace").strip()


def judge_range(result: Any, times_s: FloatArray, step_s: float) -> tuple[FloatArray, Answer]:
    """`data.result` of a range query on the grid `times_s` `[T]`: values `[T]`, NaN where there is none."""
    values = np.full(times_s.shape, np.nan)
    if not isinstance(result, list) or (result and not isinstance(result[0], Mapping)):
        return values, failed(Outcome.HTTP_ERROR, "not Prometheus's answer: no series under data.result")
    if not result:
        return values, failed(Outcome.EMPTY, "the query gave no series in the range")
    if len(result) > 1:
        return values, judge_instant(result)
    return judge_points(result[0], times_s, step_s)


def judge_points(series: Mapping[str, Any], times_s: FloatArray, step_s: float) -> tuple[FloatArray, Answer]:
    """One series of a range query on the grid `times_s` `[T]`."""
    values = np.full(times_s.shape, np.nan)
    points = series.get("values", ())
    samples = np.empty((len(points), 2))
    try:
        samples[:, 0] = [point[0] for point in points]
        samples[:, 1] = [float(point[1]) for point in points]
    except (TypeError, ValueError, IndexError, KeyError):
        return values, failed(Outcome.BAD_QUERY, "the query gave points that are not numbers")
    index = np.rint((samples[:, 0] - times_s[0]) / step_s).astype(np.int64)
    inside = (index >= 0) & (index < len(values))
    good = inside & np.isfinite(samples[:, 1]) & (samples[:, 1] >= 0)
    values[index[good]] = samples[good, 1]
    return values, Answer(
        math.nan, Outcome.OK if good.any() else Outcome.NAN, "" if good.any() else "only NaN"
    )


def make_readings(queries: Mapping[str, str], answers: Mapping[str, Answer]) -> dict[str, SignalReading]:
    """Readings by signal from answers by query text: staleness, time scale and idle services applied."""
    rules = queries if isinstance(queries, QuerySet) else QuerySet(queries)
    readings = {
        signal: _reading(signal, answers[text], answers.get(rules.freshness.get(signal, "")), rules)
        for signal, text in queries.items()
    }
    return _without_traffic(readings)


def _reading(signal: str, answer: Answer, age: Answer | None, rules: QuerySet) -> SignalReading:
    if answer.outcome is not Outcome.OK:
        return SignalReading(math.nan, answer.outcome, answer.message, answer.time_s)
    stale = _staleness(age, rules.max_age_s) if age is not None else None
    if stale is not None:
        return SignalReading(math.nan, stale.outcome, stale.message, answer.time_s)
    scale = rules.time_scale if signal in RATE_SIGNALS else 1.0
    sampled_s = answer.time_s - age.value if age is not None and age.outcome is Outcome.OK else answer.time_s
    return SignalReading(answer.value / scale, Outcome.OK, "", sampled_s)


def _staleness(age: Answer, max_age_s: float) -> Answer | None:
    if age.outcome is Outcome.EMPTY:
        return failed(Outcome.STALE, "no current sample: the last scrape failed or the series have ended")
    if age.outcome is Outcome.OK and age.value > max_age_s:
        return failed(
            Outcome.STALE, f"the newest sample is {age.value:.3g} s old, the limit {max_age_s:.3g} s"
        )
    unknown = age.outcome in (Outcome.SLOW, Outcome.HTTP_ERROR)
    return failed(age.outcome, f"the samples' age could not be read: {age.message}") if unknown else None


_PER_REQUEST = ("latency", "errorRatio")


def _without_traffic(readings: dict[str, SignalReading]) -> dict[str, SignalReading]:
    """A service without requests has no latency: missing, which is no fault of the query."""
    rate = readings.get("requestRate")
    if rate is None or rate.outcome is not Outcome.OK or rate.value > 0:
        return readings
    idle = {
        signal: SignalReading(math.nan, Outcome.MISSING, "no requests in the window", rate.timestamp_s)
        for signal in _PER_REQUEST
        if signal in readings and readings[signal].outcome in (Outcome.NAN, Outcome.EMPTY)
    }
    return readings | idle
