"""What monitoring shows of the counters: Prometheus' scrapes, windows and rates; compiled.

Samples fall every `scrape_interval_s` at `scrape_phase_s`, some get lost; a rate is the increase over the
samples in a left-open window of `window_s` that ends `metric_lag_s` ago, as a range selector takes them. With
`rate_extrapolation` it follows `extrapolatedRate` of Prometheus (promql/functions.go): the increase is
extended to the window's ends, but by half an average interval only where the end is further than 1.1 of one
from the samples, and never to before the counter was zero; then divided by the window.
"""

from __future__ import annotations

import numpy as np

from sim.compiled import counted, inner
from sim.physics.layout import (
    M_ARRIVED,
    M_DROPPED,
    M_IN_FLIGHT,
    M_PSLO,
    M_SERVED,
    M_TIME,
    M_USED,
    S_CLOCK,
    S_PENDING,
    S_READY,
    S_SCRAPES,
)
from sim.physics.params import P_EXTRAPOLATION, P_LAG, P_WINDOW, SCRAPES

EXTRAPOLATION_THRESHOLD = 1.1
"""In average intervals between samples; of Prometheus' source."""
_RING = SCRAPES - 1


@counted
def metrics_rows(rows, arrays, shown):  # type: ignore[no-untyped-def]
    """Fill `shown` float64 `[7, rows]`, in the order of ServiceMetrics; NaN where there is no data."""
    _show_each(rows, arrays.params, arrays.state, arrays.scrapes, shown)


@inner
def _show_each(rows, params, state, scrapes, shown):  # type: ignore[no-untyped-def]
    for k in range(len(rows)):
        i = rows[k]
        shown[:5, k] = np.nan
        shown[5, k] = state[i, S_READY]
        shown[6, k] = state[i, S_READY] + state[i, S_PENDING]
        end_s = state[i, S_CLOCK] - params[i, P_LAG]
        start_s = end_s - params[i, P_WINDOW]
        newest = int(state[i, S_SCRAPES]) - 1
        oldest = max(newest - _RING, 0)
        while newest >= oldest and scrapes[i, newest & _RING, M_TIME] > end_s:
            newest -= 1
        if newest < oldest or scrapes[i, newest & _RING, M_TIME] <= start_s:
            continue
        last = newest & _RING
        shown[4, k] = scrapes[i, last, M_IN_FLIGHT]
        begin = newest
        while begin > oldest and scrapes[i, (begin - 1) & _RING, M_TIME] > start_s:
            begin -= 1
        if begin < newest:
            _show_rates(scrapes[i], begin & _RING, last, newest - begin, start_s, end_s, params, i, shown, k)
            shown[3, k] = shown[3, k] / state[i, S_READY] if state[i, S_READY] > 0.0 else np.nan


@inner
def _show_rates(ring, first, last, intervals, start_s, end_s, params, i, shown, k):  # type: ignore[no-untyped-def]
    arrived = ring[last, M_ARRIVED] - ring[first, M_ARRIVED]
    served = ring[last, M_SERVED] - ring[first, M_SERVED]
    dropped = ring[last, M_DROPPED] - ring[first, M_DROPPED]
    used = ring[last, M_USED] - ring[first, M_USED]
    span_s = ring[last, M_TIME] - ring[first, M_TIME]
    if params[i, P_EXTRAPOLATION] > 0.0:
        before_s, after_s = ring[first, M_TIME] - start_s, end_s - ring[last, M_TIME]
        average_s = span_s / intervals
        shown[0, k] = _rate(arrived, ring[first, M_ARRIVED], span_s, average_s, before_s, after_s)
        shown[3, k] = _rate(used, ring[first, M_USED], span_s, average_s, before_s, after_s)
    else:
        shown[0, k] = arrived / span_s
        shown[3, k] = used / span_s
    if served > 0.0:
        shown[1, k] = (ring[last, M_PSLO] - ring[first, M_PSLO]) / served
    if served + dropped > 0.0:
        shown[2, k] = dropped / (served + dropped)


@inner
def _rate(increase, first_value, span_s, average_s, before_s, after_s):  # type: ignore[no-untyped-def]
    """Prometheus' rate() of a counter that has risen by `increase` in `span_s` of a window that begins
    `before_s` before the first sample and ends `after_s` after the last."""
    window_s = before_s + span_s + after_s
    threshold_s = EXTRAPOLATION_THRESHOLD * average_s
    if before_s >= threshold_s:
        before_s = 0.5 * average_s
    if increase > 0.0:
        before_s = min(before_s, span_s * first_value / increase)
    if after_s >= threshold_s:
        after_s = 0.5 * average_s
    return increase * (before_s + span_s + after_s) / span_s / window_s
