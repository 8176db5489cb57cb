"""Episodes for the twin: services, their traffic, and every feature that no action can change.

Those features are made by core itself (`controller.core.observation.features`) for whole batches of steps, so
they cannot differ from what the operator sees. `learner` draws from a `Pool` of episodes; `judge` makes
episodes of evaluation windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from controller.core import OBSERVATION_SCHEMA, ServiceSpec
from controller.core import observation as obs
from sim.physics import ServiceParams, scalar
from sim.replay import Protocol, Window
from sim.scenario import ScenarioConfig, draw_params, draw_spec
from sim.workloads import WorkloadMix, sample_shape, sample_workload

FloatArray = npt.NDArray[np.floating]
STEP_S = 15.0
SUB_STEPS = 3
SUB_S = STEP_S / SUB_STEPS
START_UP_SLOTS = 72
HISTORY_STEPS = round(obs.DAY_S / STEP_S) + 80
DAY_STEPS = round(obs.DAY_S / STEP_S)
BUCKET_STEPS = round(obs.DAY_REFRESH_S / STEP_S)
RATE_WINDOW_STEPS = 3
"""Rates over 60 s scraped every 15 s span three scrape intervals."""
COARSE_BINS_S = (60.0, 60.0, 120.0, 300.0, 300.0, 600.0, 1800.0, 3600.0)
ACTION_FEATURES = (
    "provisioned_over_load",
    "ready_over_load",
    "pending_share",
    "headroom_to_max",
    "headroom_to_min",
    "granularity",
    "latency_over_slo",
    "latency_known",
    "violation_recent",
    "error_ratio",
    "utilisation",
    "capacity_check",
    "backlog",
    "since_scale_up",
    "since_scale_down",
    "preference",
)
"""Features that depend on what the policy did (or on its dial): the twin makes them."""
GIVEN_FEATURES = tuple(name for name in OBSERVATION_SCHEMA.names if name not in ACTION_FEATURES)
_GIVEN = [obs.COLUMN[name] for name in GIVEN_FEATURES]
CONSTANTS = (
    "believed",
    "capacity",
    "base_s",
    "slo_s",
    "percentile_log",
    "timeout_s",
    "burstiness",
    "drain_steps",
    "idle",
    "min_replicas",
    "max_replicas",
    "window_steps",
    "target",
    "lag_steps",
    "mean_load",
    "usual_cost",
    "first_replicas",
)
"""Per-service numbers. believed: stated over true capacity. capacity: of a replica, requests/s."""


@dataclass(frozen=True)
class Episode:
    """One service over T control steps.

    given: float32 `[T, len(GIVEN_FEATURES)]`. load: what metrics show, in replicas as believed, `[T]`.
    rates, arrivals: true load in replicas of each third of a step, without and with chance, `[T, 3]`.
    start_up: share of new replicas that begin to serve in each third from now on `[START_UP_SLOTS]`.
    constants: `[CONSTANTS]`.
    """

    given: FloatArray
    load: FloatArray
    rates: FloatArray
    arrivals: FloatArray
    start_up: FloatArray
    constants: FloatArray


class Pool:
    """Tensors of many episodes, `[P, T, ...]` and `[P, ...]`; rows are replaced as fresh ones are made."""

    def __init__(self, episodes: Sequence[Episode]) -> None:
        def stacked(name: str) -> torch.Tensor:
            return torch.from_numpy(np.stack([getattr(one, name) for one in episodes]).astype(np.float32))

        self.given, self.load = stacked("given"), stacked("load")
        self.rates, self.arrivals = stacked("rates"), stacked("arrivals")
        self.start_up, self.constants = stacked("start_up"), stacked("constants")

    def __len__(self) -> int:
        return len(self.load)

    @property
    def steps(self) -> int:
        """Control steps of every episode."""
        return int(self.load.shape[1])

    def replace(self, index: int, episode: Episode) -> None:
        """Put another episode into one place."""
        for name in ("given", "load", "rates", "arrivals", "start_up", "constants"):
            getattr(self, name)[index] = torch.from_numpy(
                np.asarray(getattr(episode, name), dtype=np.float32)
            )


def draw_episode(
    rng: np.random.Generator,
    scenario: ScenarioConfig,
    steps: int,
    coarse_share: float = 0.0,
    extra_lag: float = 0.0,
) -> Episode:
    """A random service with a day of past and `steps` steps to come. Control steps are 15 s."""
    params = draw_params(rng, scenario)
    peak = math.exp(rng.uniform(*np.log(scenario.peak_replicas)))
    spec = draw_spec(rng, scenario, params, peak, int(STEP_S))
    duration_s = (HISTORY_STEPS + steps) * STEP_S
    if rng.random() < coarse_share:
        shape = coarse_workload(rng, duration_s, scenario.mix)
    else:
        shape = sample_workload(rng, duration_s, STEP_S, scenario.mix)
    known = round(float(rng.choice(scenario.histories_s)) / STEP_S)
    lag = scalar(params.scrape_phase_s) / STEP_S + (rng.random() < extra_lag)
    start_s = obs.DAY_S + obs.DAY_REFRESH_S * float(rng.integers(0, 7 * 144))
    fullness = rng.uniform(0.4, 0.95)
    plain = bool(rng.random() < 0.5)
    return _episode(rng, shape * peak, params, spec, start_s, known, lag, fullness, plain)


def window_episode(window: Window, protocol: Protocol, steps: int, seed: int) -> Episode:
    """An evaluation window as `sim.replay` would play it."""
    period = protocol.sync_period_s
    rates = np.empty(HISTORY_STEPS + steps + 1)
    rates[HISTORY_STEPS:] = window.trace.at(np.arange(steps + 1) * period + window.trace.times_s[0])
    times = np.arange(-HISTORY_STEPS, 0) * STEP_S
    known = round(protocol.warm_up_s / STEP_S)
    rates[:HISTORY_STEPS] = rates[HISTORY_STEPS]
    if protocol.history and window.history is not None:
        known = round(-window.history.times_s[0] / STEP_S)
        rates[:HISTORY_STEPS] = window.history.at(times)
    load = rates / scalar(protocol.params.capacity_rps)
    rng = np.random.default_rng(seed)
    return _episode(rng, load, protocol.params, protocol.spec(), 2 * obs.DAY_S, known, 0.0, 0.6, True)


def coarse_workload(rng: np.random.Generator, duration_s: float, mix: WorkloadMix) -> FloatArray:
    """Traffic as recordings show it: counts a bin, drawn by chance, joined by straight lines; peak 1.

    Counts are negative binomial round a random shape, from a few a bin (much of it empty) to thousands.
    """
    bin_s = float(rng.choice(COARSE_BINS_S))
    times = rng.uniform(0.0, 7 * obs.DAY_S) + np.arange(math.ceil(duration_s / bin_s) + 2) * bin_s
    shape = np.maximum(sample_shape(rng, mix).rates(times, rng), 0.0)
    shape = shape / max(float(shape.mean()), 1e-9)
    mean_count = math.exp(rng.uniform(math.log(0.5), math.log(3000.0)))
    clumping = math.exp(rng.uniform(math.log(0.01), math.log(1.0)))
    intensity = shape * mean_count * rng.gamma(1.0 / clumping, clumping, len(shape))
    counts = rng.poisson(np.minimum(intensity, 1e12)).astype(np.float64)
    fine = np.interp(np.arange(math.ceil(duration_s / STEP_S) + 1) * STEP_S, times - times[0], counts)
    peak = float(fine.max())
    return fine / peak if peak > 0 else np.full(len(fine), 0.5)


def _episode(
    rng: np.random.Generator,
    nodes: FloatArray,
    params: ServiceParams,
    spec: ServiceSpec,
    start_s: float,
    known_steps: int,
    lag_steps: float,
    fullness: float,
    plain_past: bool,
) -> Episode:
    """An episode of this traffic; nodes: true load in replicas every 15 s, `[HISTORY_STEPS + T + 1]`.

    fullness: load over the first replicas. plain_past: the backfilled history is the rates themselves, as in
    `sim.replay`, not what metrics showed.
    """
    capacity = scalar(params.capacity_rps)
    steps = len(nodes) - 1 - HISTORY_STEPS
    share = (np.arange(SUB_STEPS) + 0.5) / SUB_STEPS
    rates = nodes[:-1, None] + np.diff(nodes)[:, None] * share
    counts = rng.poisson(np.minimum(rates * capacity * SUB_S, 1e15)) / (capacity * SUB_S)
    arrivals = counts if scalar(params.poisson) > 0 else rates
    unknown = math.isnan(spec.capacity_rps)
    believed = 1.0 + 0.04 * float(rng.standard_normal()) if unknown else spec.capacity_rps / capacity
    seen = _observed(arrivals.mean(axis=1), lag_steps) / believed
    if plain_past:
        seen[:HISTORY_STEPS] = nodes[:HISTORY_STEPS] / believed
    seen[: max(HISTORY_STEPS - max(known_steps, 8), 0)] = np.nan
    uncertainty = abs(0.06 * float(rng.standard_normal())) if unknown else 0.0
    given = _given(seen, steps, capacity * believed, spec, start_s, uncertainty)
    own = nodes[HISTORY_STEPS:]
    constants = {
        "believed": believed,
        "capacity": capacity,
        "base_s": scalar(params.base_latency_ms) / 1000.0,
        "slo_s": scalar(params.slo_latency_ms) / 1000.0,
        "percentile_log": -math.log(1.0 - scalar(params.slo_percentile) / 100.0),
        "timeout_s": scalar(params.timeout_s),
        "burstiness": scalar(params.burstiness),
        "drain_steps": scalar(params.drain_s) / STEP_S,
        "idle": scalar(params.idle_utilisation),
        "min_replicas": spec.min_replicas,
        "max_replicas": spec.max_replicas,
        "window_steps": spec.behavior.scale_down.stabilization_window_s / STEP_S,
        "target": spec.target_utilisation,
        "lag_steps": lag_steps,
        "mean_load": max(float(nodes[-DAY_STEPS:].mean()), float(own.mean()), 0.05),
        "usual_cost": _usual_cost(nodes[HISTORY_STEPS - DAY_STEPS :], params, spec),
        "first_replicas": np.clip(math.ceil(own[0] / fullness), max(spec.min_replicas, 1), spec.max_replicas),
    }
    return Episode(
        given=given,
        load=seen[HISTORY_STEPS : HISTORY_STEPS + steps].astype(np.float32),
        rates=rates[HISTORY_STEPS:].astype(np.float32),
        arrivals=arrivals[HISTORY_STEPS:].astype(np.float32),
        start_up=_start_up_shares(params),
        constants=np.array([constants[name] for name in CONSTANTS], dtype=np.float32),
    )


def _observed(arrivals: FloatArray, lag_steps: float) -> FloatArray:
    """What metrics show at each decision: the mean of the last three steps, `lag_steps` late; `[K]`."""
    total = np.concatenate([np.full(RATE_WINDOW_STEPS, arrivals[0]), arrivals])
    sums = np.concatenate([[0.0], np.cumsum(total)])
    mean = (sums[RATE_WINDOW_STEPS:] - sums[:-RATE_WINDOW_STEPS])[: len(arrivals)] / RATE_WINDOW_STEPS
    mean = np.maximum(mean, 0.0)
    whole, part = int(lag_steps), lag_steps - int(lag_steps)
    late = np.concatenate([np.full(whole + 1, mean[0]), mean])
    return (1 - part) * late[1 : len(mean) + 1] + part * late[: len(mean)]


def _given(
    seen: FloatArray, steps: int, believed_rps: float, spec: ServiceSpec, start_s: float, uncertainty: float
) -> FloatArray:
    """Core's features of the traffic, `[T, len(GIVEN_FEATURES)]`."""
    result = np.empty((steps, len(_GIVEN)), dtype=np.float32)
    seen32 = seen.astype(np.float32)
    fine = np.lib.stride_tricks.sliding_window_view(seen32, obs.FINE_SLOTS)
    fine = fine[HISTORY_STEPS - obs.FINE_SLOTS + 1 :][:steps]
    now_s = start_s + np.arange(steps) * STEP_S
    lead_s = spec.start_up_s + spec.sync_period_s
    lead_bins = math.ceil(lead_s / obs.FINE_STEP_S)
    day_ago, day_moves = _coarse(seen32, steps, lead_s)
    block = 512
    for first in range(0, steps, block):
        part = slice(first, min(first + block, steps))
        count = part.stop - part.start
        load = seen[HISTORY_STEPS : HISTORY_STEPS + steps][part]
        ahead = np.arange(17) <= lead_bins
        ones, unknown = np.ones(count), np.full(count, np.nan)
        matrix, _ = obs.features(
            obs.Inputs(
                now_s=now_s[part],
                load=load,
                rate=load * believed_rps,
                provisioned=ones.astype(np.int64),
                ready=ones,
                min_replicas=ones.astype(np.int64),
                max_replicas=ones.astype(np.int64),
                fine=fine[part],
                season_1h=np.where(ahead, fine[part][:, 3:20], np.float32(np.nan)),
                season_1d=day_ago[part],
                day_moves=day_moves[part],
                lead_bins=np.full(count, min(lead_bins, 240)),
                latency_over_slo=unknown,
                violation_recent=unknown,
                error_ratio=unknown,
                utilisation=unknown,
                backlog_s=unknown,
                capacity_uncertainty=uncertainty * ones,
                start_up_s=spec.start_up_s * ones,
                sync_period_s=spec.sync_period_s * ones,
                scale_down_window_s=spec.behavior.scale_down.stabilization_window_s * ones,
                since_up_s=np.inf * ones,
                since_down_s=np.inf * ones,
                preference=ones,
            )
        )
        result[part] = matrix[:, _GIVEN]
    return result


def _coarse(seen: FloatArray, steps: int, lead_s: float) -> tuple[FloatArray, FloatArray]:
    """(season of a day ago `[T, 17]`, day's rises `[T, Q]`) as the engine reads them off its minute bins.

    The first decision falls on a ten-minute boundary.
    """
    offset = HISTORY_STEPS % 4
    whole = (len(seen) - offset) // 4
    with np.errstate(invalid="ignore"):
        minutes = seen[offset : offset + 4 * whole].reshape(whole, 4).mean(axis=1)
    first = (HISTORY_STEPS - offset) // 4
    lead = math.ceil(lead_s / obs.COARSE_STEP_S)
    now = first + np.arange(steps) // 4
    day = round(obs.DAY_S / obs.COARSE_STEP_S)
    ahead = np.arange(17)
    index = now[:, None] - day + ahead
    season = np.where((ahead <= lead) & (index >= 0), minutes[np.maximum(index, 0)], np.float32(np.nan))
    buckets = range(0, steps, BUCKET_STEPS)
    windows = np.stack(
        [_day_window(minutes, float(seen[HISTORY_STEPS + b]), first + b // 4, day) for b in buckets]
    )
    moves = obs.rises(obs.log_load(windows), np.full(len(buckets), min(lead, 60)))
    quantiles = obs.row_quantiles(moves, obs.DAY_MOVE_QUANTILES)
    return season.astype(np.float32), np.repeat(quantiles, BUCKET_STEPS, axis=0)[:steps]


def _day_window(minutes: FloatArray, newest: float, minute: int, day: int) -> FloatArray:
    """The minutes of a day; the newest has had one sample."""
    window = minutes[minute - day + 1 : minute + 1].copy()
    window[-1] = newest
    return np.concatenate([np.full(day - len(window), np.nan, dtype=np.float32), window])


def _usual_cost(nodes: FloatArray, params: ServiceParams, spec: ServiceSpec) -> float:
    """What 1.25 times the maximum of ten minutes would cost over the ideal."""
    width = 40
    padded = np.concatenate([np.full(width - 1, nodes[0]), nodes])
    kept = np.lib.stride_tricks.sliding_window_view(padded, width).max(axis=1)
    kept = np.maximum(np.ceil(1.25 * kept), spec.min_replicas)
    return float(kept.mean() / max(float(nodes.mean()), 0.05))


def _start_up_shares(params: ServiceParams) -> FloatArray:
    """Log-normal start-up times in thirds of a step: the share that begins to serve in each."""
    edges = (np.arange(START_UP_SLOTS) + 0.5) * SUB_S
    spread = max(scalar(params.start_up_spread), 1e-3)
    z = np.log(np.maximum(edges, 1e-6) / max(scalar(params.start_up_s), 1e-3)) / spread
    below = 0.5 * (1.0 + np.vectorize(math.erf)(z / math.sqrt(2.0)))
    below[-1] = 1.0
    return np.asarray(np.diff(below, prepend=0.0), dtype=np.float32)
