"""One reading of each service, taken in: the compiled twin of `Engine.observe` and `CapacityEstimator`."""

from __future__ import annotations

import math

from controller.core import capacity as cap
from controller.core.hpa import MAX_REPLICAS
from controller.core.reading import MAX_ELAPSED_PERIODS, VIOLATION_MEMORY_S
from controller.core.samples import LARGEST, Outcome
from sim.compiled import inlined, inner
from sim.fused.histories import forget_histories, log_of, write_coarse, write_fine
from sim.fused.layout import (
    C_ACTIVATION,
    C_BUSY_UNTIL,
    C_CAPACITY,
    C_CORRECTION,
    C_CURRENT,
    C_DOWN_TOLERANCE,
    C_ERRORS,
    C_FAILURES,
    C_GIVEN,
    C_HAS_RATE,
    C_HPA,
    C_IDLE_AFTER,
    C_IN_FLIGHT,
    C_LAST_DESIRED,
    C_LAST_DOWN,
    C_LAST_SEEN,
    C_LAST_UP,
    C_LATENCY,
    C_LOAD,
    C_LOG_RATE,
    C_MEAN,
    C_MIN,
    C_NOW,
    C_OUTCOME,
    C_RATE,
    C_READY,
    C_REQUEST_RATE,
    C_SINCE_DOWN,
    C_SINCE_UP,
    C_SLO,
    C_SYNC,
    C_TARGET,
    C_UP_TOLERANCE,
    C_UTILISATION,
    C_VARIANCE,
    C_VIOLATION,
)

LEAST_USED, MOST_USED = cap.UNSATURATED
LEAST_CORRECTION, MOST_CORRECTION = cap.CORRECTION_RANGE
LEAST_DOUBTFUL, MOST_DOUBTFUL = cap.DOUBTFUL_LOAD
MEMORY_S, UNKNOWN_UNCERTAINTY = cap.MEMORY_S, cap.UNKNOWN_UNCERTAINTY
DOWN_PER_MINUTE, UP_PER_MINUTE = cap.CORRECTION_DOWN_PER_MINUTE, cap.CORRECTION_UP_PER_MINUTE
OK, MISSING, NEGATIVE, NOT_A_NUMBER = (
    int(each) for each in (Outcome.OK, Outcome.MISSING, Outcome.NEGATIVE, Outcome.NAN)
)
(V_RATE, V_LATENCY, V_ERRORS, V_UTILISATION, V_IN_FLIGHT, V_READY, V_CURRENT) = range(7)
"""Rows of a matrix of signals `[7, N]`, as `sim.physics.metrics_rows` fills it."""


@inner
def observe_rows(rows, now_s, signals, outcomes, engine):  # type: ignore[no-untyped-def]
    """Take in one reading of each row: times `[N]`, signals `[7, N]` (NaN missing), outcomes int8 `[N]`."""
    for k in range(len(rows)):
        row = rows[k]
        now = engine.table[row]
        _clean(now, signals, k, int(outcomes[k]))
        elapsed = min(max(now_s[k] - now[C_LAST_SEEN], 0.0), MAX_ELAPSED_PERIODS * now[C_SYNC])
        now[C_NOW] = now_s[k]
        now[C_LAST_SEEN] = now_s[k]
        if math.isfinite(now[C_REQUEST_RATE]) and now[C_HAS_RATE] == 0.0:
            forget_histories(row, engine)
            now[C_HAS_RATE] = 1.0
        rate = now[C_REQUEST_RATE] if now[C_HAS_RATE] > 0.0 else now[C_UTILISATION] * now[C_READY]
        now[C_RATE] = rate
        now[C_LOG_RATE] = log_of(rate)
        _remember(row, now, engine)
        _estimate(now, elapsed)
        _correct(now, elapsed)
        if math.isfinite(now[C_LATENCY]) and math.isfinite(now[C_SLO]):
            weight = 1.0 - math.exp(-elapsed / VIOLATION_MEMORY_S)
            over = 1.0 if now[C_LATENCY] > now[C_SLO] else 0.0
            now[C_VIOLATION] += weight * (over - now[C_VIOLATION])
        now[C_CAPACITY] = _believed(now) * now[C_CORRECTION] if now[C_HAS_RATE] > 0.0 else 1.0
        now[C_LOAD] = rate / now[C_CAPACITY]
        now[C_HPA] = _formula(now)
        now[C_SINCE_UP] = now_s[k] - now[C_LAST_UP]
        now[C_SINCE_DOWN] = now_s[k] - now[C_LAST_DOWN]


@inlined
def _possible(value):  # type: ignore[no-untyped-def]
    return value if 0.0 <= value <= LARGEST else math.nan


@inlined
def _clean(now, signals, k, outcome):  # type: ignore[no-untyped-def]
    """Impossible values become missing, with their own outcome; replicas default to what was last desired."""
    if signals[V_RATE, k] < 0.0:
        outcome = NEGATIVE
    elif signals[V_RATE, k] > LARGEST:
        outcome = NOT_A_NUMBER
    now[C_REQUEST_RATE] = _possible(signals[V_RATE, k])
    now[C_LATENCY] = _possible(signals[V_LATENCY, k])
    now[C_ERRORS] = _possible(signals[V_ERRORS, k])
    now[C_UTILISATION] = _possible(signals[V_UTILISATION, k])
    now[C_IN_FLIGHT] = _possible(signals[V_IN_FLIGHT, k])
    if math.isnan(now[C_REQUEST_RATE]) and math.isnan(now[C_UTILISATION]) and outcome == OK:
        outcome = MISSING
    now[C_OUTCOME] = outcome
    current, ready = _possible(signals[V_CURRENT, k]), _possible(signals[V_READY, k])
    if math.isnan(current):
        current = now[C_LAST_DESIRED] if now[C_LAST_DESIRED] >= 0.0 else max(now[C_MIN], 1.0)
    now[C_CURRENT] = current
    now[C_READY] = current if math.isnan(ready) else ready


@inlined
def _remember(row, now, engine):  # type: ignore[no-untyped-def]
    rate, now_s = now[C_RATE], now[C_NOW]
    missing = math.isnan(rate)
    now[C_FAILURES] = now[C_FAILURES] + 1.0 if missing else 0.0
    write_fine(row, now_s, rate, now[C_LOG_RATE], now[C_SYNC], engine)
    write_coarse(row, now_s, rate, now[C_LOG_RATE], now[C_SYNC], engine)
    threshold = now[C_ACTIVATION] if now[C_HAS_RATE] > 0.0 else 0.0
    if missing or rate > threshold or math.isinf(now[C_BUSY_UNTIL]):
        now[C_BUSY_UNTIL] = now_s + now[C_IDLE_AFTER]


@inlined
def _believed(now):  # type: ignore[no-untyped-def]
    return now[C_MEAN] if math.isnan(now[C_GIVEN]) else now[C_GIVEN]


@inlined
def uncertainty(now):  # type: ignore[no-untyped-def]
    """Relative deviation of the capacity's estimate, 0..1; 0 where it was given, 1 while unknown."""
    if not math.isnan(now[C_GIVEN]):
        return 0.0
    relative = math.sqrt(now[C_VARIANCE]) / now[C_MEAN]
    return UNKNOWN_UNCERTAINTY if math.isnan(relative) else min(relative, 1.0)


@inlined
def _estimate(now, elapsed):  # type: ignore[no-untyped-def]
    used = now[C_UTILISATION]
    seen = now[C_REQUEST_RATE] / (used * now[C_READY])
    if not (LEAST_USED < used < MOST_USED and math.isfinite(seen) and seen > 0.0):
        return
    if math.isnan(now[C_MEAN]):
        now[C_MEAN] = seen
        now[C_VARIANCE] = (0.5 * seen) ** 2
    weight = max(1.0 - math.exp(-elapsed / MEMORY_S), 0.2 * min(uncertainty(now), 1.0))
    error = seen - now[C_MEAN]
    now[C_MEAN] += weight * error
    now[C_VARIANCE] = (1.0 - weight) * (now[C_VARIANCE] + weight * error**2)


@inlined
def _correct(now, elapsed):  # type: ignore[no-untyped-def]
    latency, slo = now[C_LATENCY], now[C_SLO]
    factor = 1.0
    if latency < 0.8 * slo:
        if now[C_CORRECTION] < MOST_CORRECTION:
            factor = math.exp(UP_PER_MINUTE * (elapsed / 60.0))
    elif latency > slo and now[C_READY] >= now[C_CURRENT]:
        load = now[C_REQUEST_RATE] / (now[C_READY] * (_believed(now) * now[C_CORRECTION]))
        if LEAST_DOUBTFUL < load < MOST_DOUBTFUL:
            factor = math.exp(-DOWN_PER_MINUTE * (elapsed / 60.0))
    now[C_CORRECTION] = min(max(now[C_CORRECTION] * factor, LEAST_CORRECTION), MOST_CORRECTION)


@inlined
def _formula(now):  # type: ignore[no-untyped-def]
    """The HPA's replicas, as `controller.core.hpa.hpa_replicas` has it for ready pods that all report."""
    current, ready = math.trunc(now[C_CURRENT]), math.trunc(min(now[C_READY], now[C_CURRENT]))
    used = now[C_UTILISATION]
    if not math.isfinite(used):
        used = now[C_LOAD] / now[C_READY] if now[C_READY] > 0.0 else math.nan
    usage = used / now[C_TARGET]
    if not math.isfinite(usage) or ready <= 0.0:
        return math.nan
    unready = max(current - ready, 0.0)
    counted, ratio = ready, usage
    if usage > 1.0 and unready > 0.0:
        counted = ready + unready
        ratio = usage * ready / max(counted, 1.0)
    proposed = math.ceil(ratio * counted)
    held = 1.0 - now[C_DOWN_TOLERANCE] <= ratio <= 1.0 + now[C_UP_TOLERANCE]
    if counted > ready:
        held = held or ratio < 1.0 or (ratio > 1.0 and proposed < current)
    return min(current if held else float(proposed), float(MAX_REPLICAS))
