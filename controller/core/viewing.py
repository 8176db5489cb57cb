"""Making views: what a policy may ask of the engine's memory at one reading, answered when it asks.

`make_view` is called by `Engine.observe`; the three makers in a view read the memory as it is when they are
called, which is why a view is valid only until the next reading.
"""

from __future__ import annotations

import numpy as np

from controller.core import observation as obs
from controller.core.hpa import hpa_replicas
from controller.core.memory import Memory
from controller.core.samples import BoolArray, FloatArray, IntArray, Samples
from controller.core.view import MakeFeatures, MakeLoads, MakeSetting, View

SEASON_BINS = 17
BLOCK = 1024
"""Services whose features are made at once: their hour of loads, 1 MB, stays in the processor's cache."""


def make_view(memory: Memory, rows: IntArray, now_s: FloatArray, samples: Samples, rate: FloatArray) -> View:
    """The view of a reading that was just taken in: clean samples, rate float `[rows]`."""
    table = memory.table
    capacity = np.where(table.has_rate[rows], memory.capacity.capacity_rps(rows), 1.0)
    load = rate / capacity
    with np.errstate(invalid="ignore"):
        danger = samples.latency_ms > table.slo_latency_ms[rows]
    return View(
        rows=rows,
        now_s=now_s,
        current=samples.current.astype(np.int64),
        ready=samples.ready,
        load=load,
        hpa_replicas=_formula(memory, rows, samples, load),
        usable=np.isfinite(rate),
        failures=table.failures[rows].copy(),
        capacity_known=np.isfinite(capacity),
        slo_in_danger=danger,
        preference=table.preference[rows],
        target_utilisation=table.target_utilisation[rows],
        samples=samples,
        make_features=_feature_maker(memory, rows, now_s, samples, rate, load, capacity),
        make_loads=_load_maker(memory, rows, now_s, capacity),
        make_setting=setting_maker(memory, rows, capacity),
    )


def _formula(memory: Memory, rows: IntArray, samples: Samples, load: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        by_load = load / np.where(samples.ready > 0, samples.ready, np.nan)
    utilisation = np.where(np.isfinite(samples.utilisation), samples.utilisation, by_load)
    return hpa_replicas(
        samples.current.astype(np.int64),
        np.minimum(samples.ready, samples.current).astype(np.int64),
        utilisation / memory.table.target_utilisation[rows],
        memory.behavior.down.tolerance[rows],
        memory.behavior.up.tolerance[rows],
    )


def _feature_maker(
    memory: Memory,
    rows: IntArray,
    now: FloatArray,
    samples: Samples,
    rate: FloatArray,
    load: FloatArray,
    capacity: FloatArray,
) -> MakeFeatures:
    table = memory.table
    # taken now: features may be asked for after this very decision was recorded
    since_up, since_down = now - table.last_up_s[rows], now - table.last_down_s[rows]
    violation = table.violation[rows].copy()

    def make(index: IntArray) -> tuple[FloatArray, BoolArray]:
        picked, at, scale = rows[index], now[index], capacity[index].astype(np.float32)
        start_up_s = memory.start_up.seconds(picked)
        lead_s = start_up_s + table.sync_period_s[picked]
        fine = memory.fine.window(picked, at, obs.FINE_SLOTS) / scale[:, None]
        lead_bins = np.ceil(lead_s / obs.FINE_STEP_S).astype(np.int64)
        with np.errstate(invalid="ignore", divide="ignore"):
            backlog = samples.in_flight[index] / (samples.ready[index] * capacity[index])
            latency = samples.latency_ms[index] / table.slo_latency_ms[picked]
        inputs = obs.Inputs(
            now_s=at,
            load=load[index],
            rate=rate[index],
            provisioned=samples.current[index].astype(np.int64),
            ready=samples.ready[index],
            min_replicas=table.min_replicas[picked],
            max_replicas=table.max_replicas[picked],
            fine=fine,
            season_1h=_masked(fine[:, 3 : 3 + SEASON_BINS], lead_bins),
            season_1d=_day_ago(memory, picked, at, lead_s) / scale[:, None],
            day_moves=_day_moves(memory, picked, at, lead_s),
            lead_bins=np.minimum(lead_bins, 240),
            latency_over_slo=latency,
            violation_recent=violation[index],
            error_ratio=samples.error_ratio[index],
            utilisation=samples.utilisation[index],
            backlog_s=backlog,
            capacity_uncertainty=memory.capacity.uncertainty(picked),
            start_up_s=start_up_s,
            sync_period_s=table.sync_period_s[picked],
            scale_down_window_s=memory.behavior.down.window_s[picked],
            since_up_s=since_up[index],
            since_down_s=since_down[index],
            preference=table.preference[picked],
        )
        return obs.features(inputs)

    def make_in_blocks(index: IntArray) -> tuple[FloatArray, BoolArray]:
        if len(index) <= BLOCK:
            return make(index)
        parts = [make(index[begin : begin + BLOCK]) for begin in range(0, len(index), BLOCK)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    return make_in_blocks


def _load_maker(memory: Memory, rows: IntArray, now: FloatArray, capacity: FloatArray) -> MakeLoads:
    def make(index: IntArray, step_s: float, bins: int, ago_s: float) -> FloatArray:
        history = memory.fine if step_s == obs.FINE_STEP_S else memory.coarse
        scale = capacity[index].astype(np.float32)
        return history.window(rows[index], now[index], bins, ago_s) / scale[:, None]

    return make


def setting_maker(memory: Memory, rows: IntArray, capacity: FloatArray) -> MakeSetting:
    """Answers a view's questions for settings; capacity: requests/s a replica, float `[rows]`."""
    table, behavior = memory.table, memory.behavior

    def make(index: IntArray, name: str) -> FloatArray:
        picked = rows[index]
        if name == "capacity_rps":
            return np.where(table.has_rate[picked], capacity[index], np.nan)
        if name == "start_up_s":
            return memory.start_up.seconds(picked)
        if name == "tolerance_up":
            return behavior.up.tolerance[picked].copy()
        if name == "tolerance_down":
            return behavior.down.tolerance[picked].copy()
        return np.asarray(getattr(table, name)[picked], dtype=np.float64)

    return make


def _day_ago(memory: Memory, rows: IntArray, now: FloatArray, lead_s: FloatArray) -> FloatArray:
    ago_s = obs.DAY_S - (SEASON_BINS - 1) * obs.COARSE_STEP_S
    bins = memory.coarse.window(rows, now, SEASON_BINS, ago_s)
    return _masked(bins, np.ceil(lead_s / obs.COARSE_STEP_S).astype(np.int64))


def _day_moves(memory: Memory, rows: IntArray, now: FloatArray, lead_s: FloatArray) -> FloatArray:
    """Quantiles of rises over a day, made anew every ten minutes; ratios, so rates will do."""
    table = memory.table
    bucket = np.floor(now / obs.DAY_REFRESH_S)
    due = np.flatnonzero(bucket != table.day_bucket[rows])
    if len(due):
        window = memory.coarse.window(rows[due], now[due], round(obs.DAY_S / obs.COARSE_STEP_S))
        capacity = memory.capacity.capacity_rps(rows[due])
        scale = np.where(table.has_rate[rows[due]], capacity, 1.0).astype(np.float32)
        lead = np.ceil(lead_s[due] / obs.COARSE_STEP_S).astype(np.int64)
        moves = obs.rises(obs.log_load(window / scale[:, None]), np.minimum(lead, 60))
        table.day_moves[rows[due]] = obs.row_quantiles(moves, obs.DAY_MOVE_QUANTILES)
        table.day_bucket[rows[due]] = bucket[due]
    return table.day_moves[rows]


def _masked(bins: FloatArray, lead_bins: IntArray) -> FloatArray:
    ahead = np.arange(bins.shape[1])[None, :] <= lead_bins[:, None]
    return np.where(ahead, bins, np.float32(np.nan))
