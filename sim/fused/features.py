"""The feature matrix in compiled code: the twin of `controller.core.observation` on the fused engine's
state."""

from __future__ import annotations

import math

import numpy as np

from controller.core import observation as obs
from controller.core.viewing import SEASON_BINS
from sim.compiled import inlined, inner
from sim.fused.histories import COARSE_SLOTS, COARSE_STEP_S, close_coarse
from sim.fused.layout import (
    C_CAPACITY,
    C_COARSE_BIN,
    C_COARSE_LEAD,
    C_CURRENT,
    C_DAY_BUCKET,
    C_DAY_MOVES,
    C_DAY_PIVOT,
    C_DOWN_WINDOW,
    C_ERRORS,
    C_FINE_BIN,
    C_IN_FLIGHT,
    C_LATENCY,
    C_LEAD,
    C_LOAD,
    C_LOG_MAX,
    C_LOG_MIN,
    C_LOG_RATE,
    C_LOG_START_UP,
    C_LOG_SYNC,
    C_NOW,
    C_PREFERENCE,
    C_RATE,
    C_READY,
    C_SINCE_DOWN,
    C_SINCE_UP,
    C_SLO,
    C_UTILISATION,
    C_VIOLATION,
    COARSE_RING,
    K_KNOWN,
    K_PEAK,
    K_SHORT_KNOWN,
    K_SHORT_SQUARE,
    K_SHORT_SUM,
    K_SQUARE,
    K_SUM,
    LOG_ONE,
    LOG_UNKNOWN,
    WINDOW,
)
from sim.fused.reading import uncertainty
from sim.fused.window import MASK, NOTHING, PEAKS, follow, quantile, rise

_AT = obs.COLUMN
SIZE = obs.OBSERVATION_SCHEMA.size
LOW, HIGH = obs.OBSERVATION_SCHEMA.low, obs.OBSERVATION_SCHEMA.high
LOG_MIN_LOAD = float(np.log(np.float64(np.float32(obs.MIN_LOAD))))
MIN_LOAD, MIN_MOVES = obs.MIN_LOAD, obs.MIN_MOVES
LAGS = np.array([round(lag / obs.FINE_STEP_S) for lag in obs.LAGS_S])
MOVE_QUANTILES = np.array(obs.MOVE_QUANTILES)
DAY_QUANTILES = np.array(obs.DAY_MOVE_QUANTILES)
HOUR_S, DAY_S, DAY_REFRESH_S = obs.HOUR_S, obs.DAY_S, obs.DAY_REFRESH_S
DAY_SPARE = 40
"""Rises below the lowest quantile that a selection keeps for the next one, ten bins later."""
DAY_BINS = round(obs.DAY_S / obs.COARSE_STEP_S)
LOG_HALF = math.log(0.5)
MOST_LEAD, MOST_COARSE_LEAD = WINDOW, 60
_BEFORE_DAY_S = DAY_S - (SEASON_BINS - 1) * COARSE_STEP_S

F_CHANGE, F_MAX = _AT[f"load_change_{obs.LAGS_S[0]}s"], _AT[f"load_max_{obs.MAXIMA_S[0]}s"]
F_SHORT, F_LONG = _AT["variability_600s"], _AT["variability_3600s"]
F_MOVES = _AT[f"move_q{obs.MOVE_QUANTILES[0] * 1000:.0f}_1h"]
F_DAY_MOVES = _AT[f"move_q{obs.DAY_MOVE_QUANTILES[0] * 1000:.0f}_1d"]
F_SEASON_1H, F_SEASON_1H_KNOWN = _AT["season_1h"], _AT["season_1h_known"]
F_SEASON_1D, F_SEASON_1D_KNOWN = _AT["season_1d"], _AT["season_1d_known"]
F_PROVISIONED, F_READY, F_PENDING = _AT["provisioned_over_load"], _AT["ready_over_load"], _AT["pending_share"]
F_TO_MAX, F_TO_MIN, F_GRAIN = _AT["headroom_to_max"], _AT["headroom_to_min"], _AT["granularity"]
F_SHOT, F_LATENCY, F_LATENCY_KNOWN = _AT["shot_noise"], _AT["latency_over_slo"], _AT["latency_known"]
F_VIOLATION, F_ERRORS, F_UTILISATION = _AT["violation_recent"], _AT["error_ratio"], _AT["utilisation"]
F_CHECK, F_BACKLOG, F_UNCERTAINTY = _AT["capacity_check"], _AT["backlog"], _AT["capacity_uncertainty"]
F_START_UP, F_SYNC, F_WINDOW = _AT["start_up"], _AT["sync_period"], _AT["scale_down_window"]
F_SINCE_UP, F_SINCE_DOWN, F_PREFERENCE = _AT["since_scale_up"], _AT["since_scale_down"], _AT["preference"]
F_HOUR, F_DAY = _AT["hour_sin"], _AT["day_sin"]


@inner
def feature_rows(rows, engine, matrix, valid):  # type: ignore[no-untyped-def]
    """Features float32 `[N, F]` of the last reading, and their mask bool `[N, F]` (or `[0, F]`: not
    wanted)."""
    for k in range(len(rows)):
        row = rows[k]
        now, raw = engine.table[row], matrix[k]
        log_capacity = math.log(now[C_CAPACITY])
        log_now = max(now[C_LOG_RATE] - log_capacity, LOG_MIN_LOAD)
        if math.isnan(now[C_LOAD]):
            log_now = math.nan
        _levels(now, log_now, raw)
        _shape(row, now, log_now, log_capacity, raw, engine)
        _health(now, log_capacity, raw)
        _settings(now, raw)
        if len(valid) > 0:
            for column in range(SIZE):
                valid[k, column] = abs(raw[column]) < np.float32(np.inf)
        for column in range(SIZE):
            value = raw[column]
            shown = min(max(value, LOW[column]), HIGH[column])
            raw[column] = shown if abs(value) < np.float32(np.inf) else np.float32(0.0)


@inlined
def _levels(now, log_now, raw):  # type: ignore[no-untyped-def]
    provisioned, ready = max(float(math.trunc(now[C_CURRENT])), 0.0), now[C_READY]
    at_least_one = max(provisioned, 1.0)
    log_provisioned = math.log(at_least_one)
    raw[F_PROVISIONED] = (log_provisioned if provisioned > 0.0 else LOG_HALF) - log_now
    raw[F_READY] = (log_provisioned if ready == at_least_one else math.log(max(ready, 0.5))) - log_now
    raw[F_PENDING] = (provisioned - ready) / at_least_one
    raw[F_TO_MAX], raw[F_TO_MIN] = now[C_LOG_MAX] - log_provisioned, log_provisioned - now[C_LOG_MIN]
    raw[F_GRAIN] = 1.0 / (1.0 + now[C_LOAD])
    raw[F_SHOT] = 1.0 / math.sqrt(max(now[C_RATE] * 60.0, 1.0)) if now[C_RATE] >= 0.0 else math.nan


@inlined
def _over_floor(units, log_capacity):  # type: ignore[no-untyped-def]
    """Log load of a bin's integer logarithm."""
    if units == LOG_UNKNOWN:
        return math.nan
    return max(units / LOG_ONE - log_capacity, LOG_MIN_LOAD)


@inlined
def _shape(row, now, log_now, log_capacity, raw, engine):  # type: ignore[no-untyped-def]
    raw[F_CHANGE : F_CHANGE + len(LAGS)] = np.nan
    raw[F_MAX : F_DAY_MOVES + len(DAY_QUANTILES)] = np.nan
    if math.isnan(log_capacity):
        if now[C_DAY_BUCKET] != math.floor(now[C_NOW] / DAY_REFRESH_S):
            _no_day_moves(now)
        raw[F_SEASON_1H], raw[F_SEASON_1H_KNOWN] = np.nan, 0.0
        raw[F_SEASON_1D], raw[F_SEASON_1D_KNOWN] = np.nan, 0.0
        for each in range(len(DAY_QUANTILES)):
            raw[F_DAY_MOVES + each] = now[C_DAY_MOVES + each]
        return
    logs, newest = engine.fine_log[row], int(now[C_FINE_BIN])
    lead = int(now[C_LEAD])
    floor = int(np.rint((log_capacity + LOG_MIN_LOAD) * LOG_ONE))
    follow(row, min(lead, MOST_LEAD), floor, engine)
    for lag in range(len(LAGS)):
        raw[F_CHANGE + lag] = log_now - _over_floor(logs[(newest - LAGS[lag]) & MASK], log_capacity)
    moves, sums = engine.moves[row], engine.sums[row]
    for peak in range(PEAKS):
        highest = _over_floor(moves[K_PEAK + peak], log_capacity) - log_now
        raw[F_MAX + peak] = highest if math.isnan(highest) else max(highest, 0.0)
    raw[F_SHORT] = _deviation(moves[K_SHORT_KNOWN], sums[K_SHORT_SUM], sums[K_SHORT_SQUARE])
    raw[F_LONG] = _deviation(moves[K_KNOWN], sums[K_SUM], sums[K_SQUARE])
    if moves[K_KNOWN] >= MIN_MOVES:
        for each in range(len(MOVE_QUANTILES)):
            raw[F_MOVES + each] = quantile(moves, MOVE_QUANTILES[each])
    _day_moves(row, now, floor, engine)
    for each in range(len(DAY_QUANTILES)):
        raw[F_DAY_MOVES + each] = now[C_DAY_MOVES + each]
    highest = LOG_UNKNOWN
    for ahead in range(min(lead, SEASON_BINS - 1) + 1):
        highest = max(highest, logs[(newest - WINDOW + ahead) & MASK])
    raw[F_SEASON_1H] = _over_floor(highest, log_capacity) - log_now
    raw[F_SEASON_1H_KNOWN] = 0.0 if highest == LOG_UNKNOWN else 1.0
    highest = _day_ago(row, now, engine)
    raw[F_SEASON_1D] = _over_floor(highest, log_capacity) - log_now
    raw[F_SEASON_1D_KNOWN] = 0.0 if highest == LOG_UNKNOWN else 1.0


@inlined
def _deviation(known, total, squares):  # type: ignore[no-untyped-def]
    """Standard deviation of rises whose sums are in units."""
    if known < 3:
        return math.nan
    mean = total / known
    return math.sqrt(max(squares / known - mean * mean, 0.0)) / LOG_ONE


@inlined
def _day_ago(row, now, engine):  # type: ignore[no-untyped-def]
    """Highest logarithm of the bins that a day ago lay in the lead time to come."""
    newest = int(now[C_COARSE_BIN])
    first = math.floor((now[C_NOW] - _BEFORE_DAY_S) / COARSE_STEP_S) - SEASON_BINS + 1
    ahead = min(int(now[C_COARSE_LEAD]), SEASON_BINS - 1)
    first, last = max(first, newest - COARSE_SLOTS + 1), min(first + ahead, newest)
    highest, slot = LOG_UNKNOWN, first % COARSE_RING
    for _ in range(first, last + 1):
        highest = max(highest, engine.coarse_log[row, slot])
        slot = slot + 1 if slot + 1 < COARSE_RING else 0
    return highest


@inner
def _day_moves(row, now, floor, engine):  # type: ignore[no-untyped-def]
    """Quantiles of rises over a day, made anew every ten minutes."""
    bucket = math.floor(now[C_NOW] / DAY_REFRESH_S)
    if now[C_DAY_BUCKET] == bucket:
        return
    _no_day_moves(now)
    close_coarse(row, engine)
    lead = min(int(now[C_COARSE_LEAD]), MOST_COARSE_LEAD)
    newest, logs = int(now[C_COARSE_BIN]), engine.coarse_log[row]
    _day_rises((newest - DAY_BINS + 1) % COARSE_RING, lead, floor, logs, engine.scratch)
    found, count = engine.scratch, DAY_BINS - lead
    known, kept = _above_pivot(found, count, now[C_DAY_PIVOT])
    if known < MIN_MOVES:
        return
    least = int(np.rint(DAY_QUANTILES[0] * (known - 1)))
    if kept < known - least:
        # nothing to go by, or the traffic has changed: among all
        _day_rises((newest - DAY_BINS + 1) % COARSE_RING, lead, floor, logs, found)
        known, kept = _above_pivot(found, count, math.nan)
    below, begin = known - kept, max(least - (known - kept) - DAY_SPARE, 0)
    _select(found, 0, kept - 1, begin)
    now[C_DAY_PIVOT] = found[begin] - 1.0
    for each in range(len(DAY_QUANTILES)):
        rank = int(np.rint(DAY_QUANTILES[each] * (known - 1))) - below
        _select(found, begin, kept - 1, rank)
        now[C_DAY_MOVES + each] = found[rank] / LOG_ONE
        begin = rank


@inlined
def _no_day_moves(now):  # type: ignore[no-untyped-def]
    now[C_DAY_BUCKET] = math.floor(now[C_NOW] / DAY_REFRESH_S)
    now[C_DAY_MOVES : C_DAY_MOVES + len(DAY_QUANTILES)] = np.nan


@inner
def _day_rises(slot, lead, floor, logs, found):  # type: ignore[no-untyped-def]
    """Rises of the DAY_BINS bins from `slot` on, NOTHING where unknown."""
    count, place = DAY_BINS - lead, 0
    while place < count:
        later = slot + lead if slot + lead < COARSE_RING else slot + lead - COARSE_RING
        length = min(count - place, COARSE_RING - slot, COARSE_RING - later)
        for each in range(length):
            found[place + each] = rise(logs[slot + each], logs[later + each], floor)
        place += length
        slot = slot + length if slot + length < COARSE_RING else 0


@inner
def _above_pivot(found, count, pivot):  # type: ignore[no-untyped-def]
    """(how many are known, how many of them are above the pivot); the latter move to the front.

    The last selection's pivot lies a little below what is looked for, so that few are left to select among.
    """
    least = NOTHING if math.isnan(pivot) else int(pivot)
    known, kept = 0, 0
    for each in range(count):
        move = found[each]
        found[kept] = move
        known += move != NOTHING
        kept += move > least
    return known, kept


@inner
def _select(values, low, high, rank):  # type: ignore[no-untyped-def]
    """Hoare's selection: puts the value of `rank` where it belongs, none smaller after it in low..high."""
    while low < high:
        pivot = values[rank]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if j < rank:
            low = i
        if rank < i:
            high = j


@inlined
def _health(now, log_capacity, raw):  # type: ignore[no-untyped-def]
    ratio = now[C_LATENCY] / now[C_SLO]
    known = math.isfinite(ratio)
    raw[F_LATENCY] = math.log(max(ratio, 1e-3)) if known else math.nan
    raw[F_LATENCY_KNOWN] = 1.0 if known else 0.0
    raw[F_VIOLATION] = now[C_VIOLATION]
    raw[F_ERRORS] = math.sqrt(now[C_ERRORS]) if now[C_ERRORS] >= 0.0 else math.nan
    raw[F_UTILISATION] = now[C_UTILISATION]
    used = now[C_UTILISATION] * now[C_READY]
    busy = now[C_UTILISATION] > 0.05 and now[C_LOAD] > MIN_LOAD and used > 0.0
    raw[F_CHECK] = math.log(used / now[C_LOAD]) if busy else math.nan
    raw[F_BACKLOG] = math.log1p(now[C_IN_FLIGHT] / (now[C_READY] * now[C_CAPACITY]))
    raw[F_UNCERTAINTY] = uncertainty(now)


@inlined
def _settings(now, raw):  # type: ignore[no-untyped-def]
    raw[F_START_UP], raw[F_SYNC] = now[C_LOG_START_UP], now[C_LOG_SYNC]
    raw[F_WINDOW] = now[C_DOWN_WINDOW] / 300.0
    raw[F_SINCE_UP] = math.exp(-now[C_SINCE_UP] / 300.0)
    raw[F_SINCE_DOWN] = math.exp(-now[C_SINCE_DOWN] / 300.0)
    hour = 2.0 * math.pi * (now[C_NOW] / HOUR_S - math.floor(now[C_NOW] / HOUR_S))
    day = 2.0 * math.pi * (now[C_NOW] / DAY_S - math.floor(now[C_NOW] / DAY_S))
    raw[F_HOUR], raw[F_HOUR + 1] = math.sin(hour), math.cos(hour)
    raw[F_DAY], raw[F_DAY + 1] = math.sin(day), math.cos(day)
    raw[F_PREFERENCE] = now[C_PREFERENCE] / 100.0
