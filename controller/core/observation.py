"""Observation: histories and readings of N services -> feature matrix `[N, F]` with validity masks.

Scale-free by construction: loads enter as logarithms of ratios, times as ratios to the lead time or
a fixed unit, so that 2 and 500 replicas, or 1 and 10,000 requests/s, look alike. A value that cannot
be known yet is 0 in the matrix and False in the mask. The layout is versioned: artifacts name the
version and the feature names that they were trained on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from controller.core.samples import BoolArray, FloatArray, IntArray

VERSION = "autoscale/v1"
FINE_STEP_S = 15.0
FINE_SLOTS = 244
COARSE_STEP_S = 60.0
COARSE_SLOTS = 1510
HOUR_S = 3600.0
DAY_S = 86400.0
MIN_LOAD = 0.05
LAGS_S = (15, 30, 45, 60, 90, 120, 180, 300, 450, 600, 900, 1800, 3600)
MAXIMA_S = (60, 120, 300, 600, 900, 1800, 3600)
MOVE_QUANTILES = (0.5, 0.9, 0.98, 0.995)
DAY_MOVE_QUANTILES = (0.9, 0.99, 0.999)
DAY_REFRESH_S = 600.0
MIN_MOVES = 20


@dataclass(frozen=True, slots=True)
class Feature:
    """One column: name, the range that it is clipped to, unit and meaning."""

    name: str
    low: float
    high: float
    unit: str
    description: str


@dataclass(frozen=True)
class ObservationSchema:
    """The columns of the feature matrix, in order, under one version."""

    version: str
    features: tuple[Feature, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Feature names in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def size(self) -> int:
        """Number of columns F."""
        return len(self.features)

    @property
    def low(self) -> FloatArray:
        """Lower clip of every column, float32 `[F]`."""
        return np.array([feature.low for feature in self.features], dtype=np.float32)

    @property
    def high(self) -> FloatArray:
        """Upper clip of every column, float32 `[F]`."""
        return np.array([feature.high for feature in self.features], dtype=np.float32)

    @property
    def digest(self) -> str:
        """sha256 over version, names and ranges: what an artifact must agree with."""
        text = "\n".join([self.version, *(f"{f.name} {f.low:g} {f.high:g}" for f in self.features)])
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _schema() -> ObservationSchema:
    log, share, ratio = "ln ratio", "share", "ratio"
    columns = [
        Feature("provisioned_over_load", -4, 9, log, "replicas asked for, over the load in replicas"),
        Feature("ready_over_load", -4, 9, log, "ready replicas over the load in replicas"),
        Feature("pending_share", -1, 1, share, "replicas asked for but not ready, over those asked for"),
        Feature("headroom_to_max", 0, 4, log, "maxReplicas over the replicas asked for"),
        Feature("headroom_to_min", 0, 4, log, "replicas asked for over minReplicas (at least 1)"),
        Feature("granularity", 0, 1, ratio, "1 / (1 + load in replicas)"),
        Feature("shot_noise", 0, 1, ratio, "1 / sqrt(requests in a minute)"),
    ]
    columns += [Feature(f"load_change_{s}s", -3, 3, log, f"load now over load {s} s ago") for s in LAGS_S]
    columns += [
        Feature(f"load_max_{s}s", 0, 9, log, f"largest load of {s} s over load now") for s in MAXIMA_S
    ]
    columns += [
        Feature("variability_600s", 0, 2, log, "deviation of load changes over the lead time, 10 min"),
        Feature("variability_3600s", 0, 2, log, "the same over an hour"),
    ]
    columns += [
        Feature(f"move_q{q * 1000:.0f}_1h", -1, 9, log, f"{q:.1%} quantile of rises over the lead time, 1 h")
        for q in MOVE_QUANTILES
    ]
    columns += [
        Feature(f"move_q{q * 1000:.0f}_1d", -1, 9, log, f"{q:.1%} quantile of rises over the lead time, 1 d")
        for q in DAY_MOVE_QUANTILES
    ]
    columns += [
        Feature("season_1h", -3, 9, log, "largest load an hour ago in the lead time to come, over now"),
        Feature("season_1h_known", 0, 1, "flag", "whether an hour of history is there"),
        Feature("season_1d", -3, 9, log, "largest load a day ago in the lead time to come, over now"),
        Feature("season_1d_known", 0, 1, "flag", "whether a day of history is there"),
        Feature("latency_over_slo", -3, 3, log, "latency at the objective's percentile over the objective"),
        Feature("latency_known", 0, 1, "flag", "whether latency and an objective are there"),
        Feature("violation_recent", 0, 1, share, "share of recent time over the objective, memory 300 s"),
        Feature("error_ratio", 0, 1, share, "square root of the error ratio"),
        Feature("utilisation", 0, 2, share, "utilisation of the ready replicas"),
        Feature("capacity_check", -2, 2, log, "utilisation x ready over load: above 0 where less is served"),
        Feature("backlog", 0, 4, "ln(1+s)", "requests in flight over what ready replicas serve in 1 s"),
        Feature("capacity_uncertainty", 0, 1, share, "relative deviation of the capacity estimate"),
        Feature("start_up", -3, 3, log, "start-up time over 60 s"),
        Feature("sync_period", -2, 2, log, "sync period over 15 s"),
        Feature("scale_down_window", 0, 12, ratio, "scale-down stabilisation window over 300 s"),
        Feature("since_scale_up", 0, 1, ratio, "exp(-age of the last scale-up / 300 s)"),
        Feature("since_scale_down", 0, 1, ratio, "exp(-age of the last scale-down / 300 s)"),
        Feature("hour_sin", -1, 1, "phase", "time in the hour"),
        Feature("hour_cos", -1, 1, "phase", "time in the hour"),
        Feature("day_sin", -1, 1, "phase", "time in the UTC day"),
        Feature("day_cos", -1, 1, "phase", "time in the UTC day"),
        Feature("preference", 0, 1, ratio, "objective.preference / 100"),
    ]
    return ObservationSchema(VERSION, tuple(columns))


OBSERVATION_SCHEMA = _schema()
COLUMN = {name: column for column, name in enumerate(OBSERVATION_SCHEMA.names)}


@dataclass(slots=True)
class Inputs:
    """What `features` needs of N services; arrays `[N]` unless said, replicas and seconds.

    load, provisioned, ready: replicas. fine: load of the last hour `[N, FINE_SLOTS]`, replicas, oldest
    first, the newest bin last. season_1h: hour-old bins `[N, S]` that follow the same time an hour ago,
    season_1d likewise `[N, S]` of the coarse history. day_moves: `[N, 3]` natural logarithms.
    """

    now_s: FloatArray
    load: FloatArray
    rate: FloatArray
    provisioned: IntArray
    ready: FloatArray
    min_replicas: IntArray
    max_replicas: IntArray
    fine: FloatArray
    season_1h: FloatArray
    season_1d: FloatArray
    day_moves: FloatArray
    lead_bins: IntArray
    latency_over_slo: FloatArray
    violation_recent: FloatArray
    error_ratio: FloatArray
    utilisation: FloatArray
    backlog_s: FloatArray
    capacity_uncertainty: FloatArray
    start_up_s: FloatArray
    sync_period_s: FloatArray
    scale_down_window_s: FloatArray
    since_up_s: FloatArray
    since_down_s: FloatArray
    preference: FloatArray


def features(inputs: Inputs) -> tuple[FloatArray, BoolArray]:
    """(matrix float32 `[N, F]` clipped to the schema, mask bool `[N, F]`: False where unknown)."""
    raw = np.full((len(inputs.load), OBSERVATION_SCHEMA.size), np.nan, dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        _levels(raw, inputs)
        _shape(raw, inputs)
        _health(raw, inputs)
        _settings(raw, inputs)
    valid = np.isfinite(raw)
    matrix = np.clip(np.where(valid, raw, np.float32(0.0)), OBSERVATION_SCHEMA.low, OBSERVATION_SCHEMA.high)
    return matrix.astype(np.float32, copy=False), valid


def log_load(load: FloatArray) -> FloatArray:
    """Natural logarithm of a load in replicas, floored where a replica is all but idle."""
    return np.log(np.maximum(load, np.float32(MIN_LOAD)))


def rises(logs: FloatArray, lead_bins: IntArray) -> FloatArray:
    """Log load `lead_bins` later minus now, for each bin of `logs` `[N, T]`; NaN where not yet known."""
    bins = logs.shape[1]
    if len(lead_bins) and np.all(lead_bins == lead_bins[0]):
        lead = min(int(lead_bins[0]), bins)
        result = np.full_like(logs, np.nan)
        result[:, : bins - lead] = logs[:, lead:] - logs[:, : bins - lead]
        return result
    later = np.arange(bins)[None, :] + lead_bins[:, None]
    moved = np.take_along_axis(logs, np.minimum(later, bins - 1), axis=1) - logs
    return np.where(later < bins, moved, np.float32(np.nan))


def row_quantiles(values: FloatArray, quantiles: tuple[float, ...], at_least: int = MIN_MOVES) -> FloatArray:
    """Lower empirical quantiles of each row without its NaNs: `[N, Q]`; NaN below `at_least` values."""
    ordered = np.sort(values, axis=1)
    known = np.sum(~np.isnan(ordered), axis=1)
    rank = (np.asarray(quantiles)[None, :] * np.maximum(known - 1, 0)[:, None]).round().astype(np.int64)
    picked = np.take_along_axis(ordered, rank, axis=1)
    return np.where((known >= at_least)[:, None], picked, np.nan)


def _levels(raw: FloatArray, inputs: Inputs) -> None:
    log_now = log_load(inputs.load)
    provisioned = np.maximum(inputs.provisioned, 0)
    raw[:, COLUMN["provisioned_over_load"]] = np.log(np.maximum(provisioned, 0.5)) - log_now
    raw[:, COLUMN["ready_over_load"]] = np.log(np.maximum(inputs.ready, 0.5)) - log_now
    pending = (provisioned - inputs.ready) / np.maximum(provisioned, 1)
    raw[:, COLUMN["pending_share"]] = pending
    raw[:, COLUMN["headroom_to_max"]] = np.log(inputs.max_replicas / np.maximum(provisioned, 1))
    raw[:, COLUMN["headroom_to_min"]] = np.log(
        np.maximum(provisioned, 1) / np.maximum(inputs.min_replicas, 1)
    )
    raw[:, COLUMN["granularity"]] = 1.0 / (1.0 + inputs.load)
    raw[:, COLUMN["shot_noise"]] = 1.0 / np.sqrt(np.maximum(inputs.rate * 60.0, 1.0))


def _shape(raw: FloatArray, inputs: Inputs) -> None:
    logs = log_load(inputs.fine)
    bins = logs.shape[1]
    now = log_load(inputs.load).astype(np.float32)
    back = [round(lag / FINE_STEP_S) for lag in LAGS_S]
    first = COLUMN[f"load_change_{LAGS_S[0]}s"]
    raw[:, first : first + len(back)] = now[:, None] - logs[:, [bins - 1 - b for b in back]]
    _maxima(raw, logs, now)
    moves = rises(logs[:, -241:], inputs.lead_bins)
    _spread(raw, moves)
    column = COLUMN[f"move_q{MOVE_QUANTILES[0] * 1000:.0f}_1h"]
    raw[:, column : column + len(MOVE_QUANTILES)] = row_quantiles(moves, MOVE_QUANTILES)
    column = COLUMN[f"move_q{DAY_MOVE_QUANTILES[0] * 1000:.0f}_1d"]
    raw[:, column : column + len(DAY_MOVE_QUANTILES)] = inputs.day_moves
    for name, season in (("season_1h", inputs.season_1h), ("season_1d", inputs.season_1d)):
        highest = np.fmax.reduce(season, axis=1)
        raw[:, COLUMN[name]] = log_load(highest) - now
        raw[:, COLUMN[name + "_known"]] = np.isfinite(highest)


def _maxima(raw: FloatArray, logs: FloatArray, now: FloatArray) -> None:
    first, bins = COLUMN[f"load_max_{MAXIMA_S[0]}s"], logs.shape[1]
    begins = [bins - 1 - round(span / FINE_STEP_S) for span in MAXIMA_S]
    highest = np.full(len(logs), np.nan, dtype=logs.dtype)
    for place, (begin, end) in enumerate(zip(begins, [bins, *begins[:-1]], strict=True)):
        highest = np.fmax(highest, np.fmax.reduce(logs[:, begin:end], axis=1))
        raw[:, first + place] = np.maximum(highest - now, 0.0)


def _spread(raw: FloatArray, moves: FloatArray) -> None:
    for span in (600, 3600):
        recent = moves[:, -round(span / FINE_STEP_S) - 1 :]
        known = ~np.isnan(recent)
        count = np.count_nonzero(known, axis=1)
        total = np.where(known, recent, np.float32(0.0)).sum(axis=1, dtype=np.float64)
        mean = (total / np.maximum(count, 1)).astype(np.float32)
        # about the mean: in float32 the difference of two means would leave a deviation where there is none
        apart = np.where(known, recent - mean[:, None], np.float32(0.0))
        square = np.einsum("ij,ij->i", apart, apart)
        deviation = np.sqrt(square / np.maximum(count, 1))
        raw[:, COLUMN[f"variability_{span}s"]] = np.where(count >= 3, deviation, np.nan)


def _health(raw: FloatArray, inputs: Inputs) -> None:
    raw[:, COLUMN["latency_over_slo"]] = np.log(np.maximum(inputs.latency_over_slo, 1e-3))
    raw[:, COLUMN["latency_known"]] = np.isfinite(inputs.latency_over_slo)
    raw[:, COLUMN["violation_recent"]] = inputs.violation_recent
    raw[:, COLUMN["error_ratio"]] = np.sqrt(inputs.error_ratio)
    raw[:, COLUMN["utilisation"]] = inputs.utilisation
    busy = (inputs.utilisation > 0.05) & (inputs.load > MIN_LOAD)
    used = np.where(busy, inputs.utilisation * inputs.ready, np.nan)
    raw[:, COLUMN["capacity_check"]] = np.log(used / inputs.load)
    raw[:, COLUMN["backlog"]] = np.log1p(inputs.backlog_s)
    raw[:, COLUMN["capacity_uncertainty"]] = inputs.capacity_uncertainty


def _settings(raw: FloatArray, inputs: Inputs) -> None:
    raw[:, COLUMN["start_up"]] = np.log(np.maximum(inputs.start_up_s, 1.0) / 60.0)
    raw[:, COLUMN["sync_period"]] = np.log(inputs.sync_period_s / 15.0)
    raw[:, COLUMN["scale_down_window"]] = inputs.scale_down_window_s / 300.0
    raw[:, COLUMN["since_scale_up"]] = np.exp(-np.maximum(inputs.since_up_s, 0.0) / 300.0)
    raw[:, COLUMN["since_scale_down"]] = np.exp(-np.maximum(inputs.since_down_s, 0.0) / 300.0)
    for name, period in (("hour", HOUR_S), ("day", DAY_S)):
        phase = 2.0 * np.pi * np.mod(inputs.now_s, period) / period
        raw[:, COLUMN[name + "_sin"]] = np.sin(phase)
        raw[:, COLUMN[name + "_cos"]] = np.cos(phase)
    raw[:, COLUMN["preference"]] = inputs.preference / 100.0
