"""Histories of request rates in compiled code: the twin of `controller.core.history` for one row at a time.

A bin holds the mean of the readings that fell into it; bins that a reading covers are filled with it, others
are unknown. Beside each rate its logarithm is kept, as an integer.
"""

from __future__ import annotations

import math

import numpy as np

from controller.core import observation as obs
from sim.compiled import inlined, inner
from sim.fused.layout import (
    BEGINNING,
    C_COARSE_BIN,
    C_COARSE_COUNT,
    C_FINE_BIN,
    C_FINE_COUNT,
    COARSE_RING,
    FINE_RING,
    K_BIN,
    LOG_ONE,
    LOG_UNKNOWN,
    LOG_ZERO,
    SETTINGS,
)

FIRST_MEMORY = len(SETTINGS)
FINE_STEP_S, COARSE_STEP_S = obs.FINE_STEP_S, obs.COARSE_STEP_S
FINE_SLOTS, COARSE_SLOTS = obs.FINE_SLOTS, obs.COARSE_SLOTS


@inlined
def to_units(log_rate):  # type: ignore[no-untyped-def]
    """A natural logarithm of a rate in the integers' unit; NaN is unknown, -inf a rate of 0."""
    if math.isnan(log_rate):
        return LOG_UNKNOWN
    if log_rate < -1000.0:
        return LOG_ZERO
    return int(np.rint(log_rate * LOG_ONE))


@inlined
def log_of(rate):  # type: ignore[no-untyped-def]
    """Natural logarithm; NaN stays NaN."""
    return math.log(rate) if rate > 0.0 else (-math.inf if rate == 0.0 else math.nan)


@inlined
def forget_histories(row, engine):  # type: ignore[no-untyped-def]
    """Both histories of a row as if nothing had been read."""
    engine.fine_rate[row] = np.nan
    engine.fine_log[row] = LOG_UNKNOWN
    engine.coarse_rate[row] = np.nan
    engine.coarse_log[row] = LOG_UNKNOWN
    engine.table[row, C_FINE_BIN] = -1.0
    engine.table[row, C_FINE_COUNT] = 0.0
    engine.table[row, C_COARSE_BIN] = -1.0
    engine.table[row, C_COARSE_COUNT] = 0.0
    engine.moves[row, K_BIN] = -1


@inlined
def write_fine(row, now_s, rate, log_rate, covers_s, engine):  # type: ignore[no-untyped-def]
    """Add a reading that stands for the `covers_s` seconds before now to the 15-s bins."""
    table, rates, logs = engine.table, engine.fine_rate, engine.fine_log
    bin_now, newest = math.floor(now_s / FINE_STEP_S), int(table[row, C_FINE_BIN])
    slot = bin_now % FINE_RING
    units = to_units(log_rate)
    if bin_now > newest:
        if newest >= 0:
            for back in range(1, min(bin_now - newest, FINE_SLOTS)):
                covered = back * FINE_STEP_S < covers_s
                skipped = (bin_now - back) % FINE_RING
                rates[row, skipped] = rate if covered else math.nan
                logs[row, skipped] = units if covered else LOG_UNKNOWN
        rates[row, slot], logs[row, slot] = rate, units
        table[row, C_FINE_COUNT] = 0.0 if math.isnan(rate) else 1.0
        table[row, C_FINE_BIN] = bin_now
    elif not math.isnan(rate):
        count, old = table[row, C_FINE_COUNT], float(rates[row, slot])
        mean = old + (rate - old) / (count + 1.0) if count > 0.0 else rate
        rates[row, slot] = mean
        logs[row, slot] = to_units(log_of(float(rates[row, slot])))
        table[row, C_FINE_COUNT] = count + 1.0


@inlined
def write_coarse(row, now_s, rate, log_rate, covers_s, engine):  # type: ignore[no-untyped-def]
    """The same to the 60-s bins; the newest bin's logarithm is left until `close_coarse`."""
    table, rates, logs = engine.table, engine.coarse_rate, engine.coarse_log
    bin_now, newest = math.floor(now_s / COARSE_STEP_S), int(table[row, C_COARSE_BIN])
    slot = bin_now % COARSE_RING
    if bin_now > newest:
        if newest >= 0:
            close_coarse(row, engine)
            units = to_units(log_rate)
            for back in range(1, min(bin_now - newest, COARSE_SLOTS)):
                covered = back * COARSE_STEP_S < covers_s
                skipped = (bin_now - back) % COARSE_RING
                rates[row, skipped] = rate if covered else math.nan
                logs[row, skipped] = units if covered else LOG_UNKNOWN
        rates[row, slot] = rate
        table[row, C_COARSE_COUNT] = 0.0 if math.isnan(rate) else 1.0
        table[row, C_COARSE_BIN] = bin_now
    elif not math.isnan(rate):
        count, old = table[row, C_COARSE_COUNT], float(rates[row, slot])
        rates[row, slot] = old + (rate - old) / (count + 1.0) if count > 0.0 else rate
        table[row, C_COARSE_COUNT] = count + 1.0


@inlined
def close_coarse(row, engine):  # type: ignore[no-untyped-def]
    """Take the logarithm of the newest 60-s bin."""
    slot = int(engine.table[row, C_COARSE_BIN]) % COARSE_RING
    engine.coarse_log[row, slot] = to_units(log_of(float(engine.coarse_rate[row, slot])))


@inner
def log_rows(rows, engine):  # type: ignore[no-untyped-def]
    """Logarithms of whole histories whose rates were just put in place."""
    for k in range(len(rows)):
        row = rows[k]
        for slot in range(FINE_RING):
            engine.fine_log[row, slot] = to_units(log_of(float(engine.fine_rate[row, slot])))
        for slot in range(COARSE_RING):
            engine.coarse_log[row, slot] = to_units(log_of(float(engine.coarse_rate[row, slot])))
        engine.moves[row, K_BIN] = -1


@inner
def load_rows(rows, now_s, capacity, ago_s, fine, engine, loads):  # type: ignore[no-untyped-def]
    """Loads in replicas of the bins that end `ago_s` before now, oldest first, float32 `[rows, bins]`."""
    bins = loads.shape[1]
    for k in range(len(rows)):
        row, scale = rows[k], np.float32(capacity[k])
        if fine:
            end, newest = (
                math.floor((now_s[k] - ago_s) / FINE_STEP_S),
                int(engine.table[row, C_FINE_BIN]),
            )
        else:
            end = math.floor((now_s[k] - ago_s) / COARSE_STEP_S)
            newest = int(engine.table[row, C_COARSE_BIN])
        slots = FINE_SLOTS if fine else COARSE_SLOTS
        for b in range(bins):
            wanted = end - bins + 1 + b
            if wanted > newest or wanted <= newest - slots:
                loads[k, b] = np.float32(np.nan)
            elif fine:
                loads[k, b] = engine.fine_rate[row, wanted % FINE_RING] / scale
            else:
                loads[k, b] = engine.coarse_rate[row, wanted % COARSE_RING] / scale


@inner
def reset_rows(rows, engine):  # type: ignore[no-untyped-def]
    """Forget histories, events and estimates of these rows; settings stay."""
    for k in range(len(rows)):
        row = rows[k]
        for column in range(len(BEGINNING)):
            engine.table[row, FIRST_MEMORY + column] = BEGINNING[column]
        forget_histories(row, engine)
        engine.recommendations[row, :, 0] = -np.inf
        engine.ups[row, :, 0] = -np.inf
        engine.downs[row, :, 0] = -np.inf


@inner
def backfill_row(row, times_s, rates, count, covers_s, engine):  # type: ignore[no-untyped-def]
    """`History.backfill` of a row whose histories are empty: `count` (1 or more) rates at ascending times."""
    table = engine.table
    newest = _fill(times_s, rates, count, covers_s, FINE_STEP_S, FINE_SLOTS, engine.fine_rate[row])
    table[row, C_FINE_BIN], table[row, C_FINE_COUNT] = newest, 1.0
    newest = _fill(times_s, rates, count, covers_s, COARSE_STEP_S, COARSE_SLOTS, engine.coarse_rate[row])
    table[row, C_COARSE_BIN], table[row, C_COARSE_COUNT] = newest, 1.0
    _take_logs(engine.fine_rate[row], engine.fine_log[row])
    _take_logs(engine.coarse_rate[row], engine.coarse_log[row])
    engine.moves[row, K_BIN] = -1


@inlined
def _take_logs(rates, logs):  # type: ignore[no-untyped-def]
    for slot in range(len(rates)):
        logs[slot] = to_units(log_of(float(rates[slot])))


@inner
def _fill(times_s, rates, count, covers_s, step_s, slots, ring):  # type: ignore[no-untyped-def]
    """Means of each bin's samples; bins between that the later of two covers get its mean. The newest bin."""
    newest = math.floor(times_s[count - 1] / step_s)
    place, before, size = 0, -1, len(ring)
    while math.floor(times_s[place] / step_s) <= newest - slots:
        place += 1
    while place < count:
        here, total, known = math.floor(times_s[place] / step_s), 0.0, 0
        while place < count and math.floor(times_s[place] / step_s) == here:
            if not math.isnan(rates[place]):
                total += rates[place]
                known += 1
            place += 1
        mean = total / known if known > 0 else math.nan
        if before >= 0:
            for between in range(before + 1, here):
                covered = (here - between) * step_s < max(covers_s, step_s)
                ring[between % size] = mean if covered else math.nan
        ring[here % size] = mean
        before = here
    return newest
