"""Taking in one reading of N services: what is remembered of it, before anybody decides.

Called by `Engine.observe`; the constants are shared with the compiled twin in `sim.fused`.
"""

from __future__ import annotations

import numpy as np

from controller.core.memory import Memory
from controller.core.samples import FloatArray, IntArray, Samples, reject_impossible

VIOLATION_MEMORY_S = 300.0
MAX_ELAPSED_PERIODS = 4.0


def take_in(
    memory: Memory, rows: IntArray, now_s: FloatArray, samples: Samples
) -> tuple[Samples, FloatArray]:
    """Remember a reading of these rows: (clean samples, rate `[rows]`).

    The rate is in requests/s, or in replicas in use (utilisation x ready) of services without request rates.
    """
    table = memory.table
    clean = reject_impossible(samples)
    longest_s = MAX_ELAPSED_PERIODS * table.sync_period_s[rows]
    memory.start_up.update(rows, now_s, clean.current, clean.ready, table.last_up_s[rows], longest_s)
    clean = _with_replicas(memory, rows, clean)
    elapsed = np.clip(now_s - table.last_seen_s[rows], 0.0, longest_s)
    table.last_seen_s[rows] = now_s
    rate = _rate(memory, rows, clean)
    _remember(memory, rows, now_s, rate)
    memory.capacity.update(rows, clean, table.slo_latency_ms[rows], elapsed)
    _watch_objective(memory, rows, clean, elapsed)
    return clean, rate


def backfill(memory: Memory, rows: IntArray, times_s: FloatArray, rates: FloatArray) -> None:
    """Histories of before: rates `[T, rows]` at ascending times `[T]`; NaN missing."""
    table = memory.table
    covers_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else memory.fine.step_s
    memory.fine.backfill(rows, times_s, rates, 2.0 * covers_s)
    memory.coarse.backfill(rows, times_s, rates, 2.0 * covers_s)
    table.has_rate[rows] = np.isfinite(rates).any(axis=0) if len(times_s) else False
    table.day_bucket[rows] = np.nan


def _with_replicas(memory: Memory, rows: IntArray, samples: Samples) -> Samples:
    """Current defaults to what was last desired, ready to current."""
    table = memory.table
    last = table.last_desired[rows]
    known = np.where(last >= 0, last, np.maximum(table.min_replicas[rows], 1))
    samples.current = np.where(np.isnan(samples.current), known, samples.current)
    samples.ready = np.where(np.isnan(samples.ready), samples.current, samples.ready)
    return samples


def _rate(memory: Memory, rows: IntArray, samples: Samples) -> FloatArray:
    table = memory.table
    seen = np.isfinite(samples.request_rate)
    switched = rows[seen & ~table.has_rate[rows]]
    memory.fine.reset(switched)
    memory.coarse.reset(switched)
    table.has_rate[rows] |= seen
    with_rate = table.has_rate[rows]
    return np.where(with_rate, samples.request_rate, samples.utilisation * samples.ready)


def _remember(memory: Memory, rows: IntArray, now_s: FloatArray, rate: FloatArray) -> None:
    table = memory.table
    missing = np.isnan(rate)
    table.failures[rows] = np.where(missing, table.failures[rows] + 1, 0)
    covers = table.sync_period_s[rows]
    memory.fine.write(rows, now_s, rate, covers)
    memory.coarse.write(rows, now_s, rate, covers)
    # the threshold is in requests/s: it has no meaning for a service without request rates
    threshold = np.where(table.has_rate[rows], table.activation_rps[rows], 0.0)
    busy = missing | (rate > threshold) | np.isinf(table.busy_until_s[rows])
    table.busy_until_s[rows] = np.where(busy, now_s + table.idle_after_s[rows], table.busy_until_s[rows])


def _watch_objective(memory: Memory, rows: IntArray, samples: Samples, elapsed: FloatArray) -> None:
    table = memory.table
    known = np.isfinite(samples.latency_ms) & np.isfinite(table.slo_latency_ms[rows])
    with np.errstate(invalid="ignore"):
        over = samples.latency_ms > table.slo_latency_ms[rows]
    weight = np.where(known, 1.0 - np.exp(-elapsed / VIOLATION_MEMORY_S), 0.0)
    table.violation[rows] += weight * (over - table.violation[rows])
