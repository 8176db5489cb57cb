"""Episodes for the twin: services, their traffic, and every feature that no action can change.

Those features are made by core itself (`controller.core.observation.features`) for whole batches of steps, so
they cannot differ from what the operator sees. `learner` draws from a `Pool` of episodes; `judge` makes
episodes of evaluation windows.
"""

from __future__ import annotations

import dataclasses
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
from sim.workloads import sample_workload
from training.analytic.counts import FEWEST, NODE_S, coarse_workload, function_workload
from training.recordings import Recordings

FloatArray = npt.NDArray[np.floating]
SYNC_PERIODS_S = (5, 10, 15, 30, 60)
"""Step lengths that episodes can have: an hour, ten minutes and a minute are whole numbers of them."""
SUB_STEPS = 3
START_UP_SLOTS = 72
"""Thirds of a step that the twin knows pending replicas for."""
LONGEST_START_UP_STEPS = 18.0
"""Mean start-up time that fits into those slots with its spread: 90 s for services that decide every 5 s."""
DAY_NODES = round(obs.DAY_S / NODE_S)
PAST_NODES = DAY_NODES + 80
MINUTE_NODES = round(obs.COARSE_STEP_S / NODE_S)
SCRAPE_S = 15.0
RATE_SPAN_S = 45.0
"""Rates over 60 s scraped every 15 s span three scrape intervals."""
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
    "drain_s",
    "idle",
    "min_replicas",
    "max_replicas",
    "window_s",
    "target",
    "lag_s",
    "step_s",
    "mean_load",
    "usual_cost",
    "first_replicas",
    "knows_latency",
    "knows_in_flight",
    "knows_errors",
    "knows_utilisation",
    "knows_ready",
)
"""Per-service numbers. believed: stated over true capacity. capacity: of a replica, requests/s. knows_: 1
where metrics show it, else 0."""
SIGNALS = tuple(name for name in CONSTANTS if name.startswith("knows_"))


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
    recordings: Recordings | None = None,
    missing: float = 0.0,
    function_share: float = 0.0,
) -> Episode:
    """A random service with a day of past and `steps` control steps to come.

    coarse_share, function_share: of episodes with such traffic (the former of those that are left).
    recordings: traffic is cut from them in their share of episodes. missing: share of services without a
    latency; each other signal is missing half as often.
    """
    period_s = int(rng.choice(scenario.sync_periods_s))
    low, high = scenario.start_up_s
    longest = min(high, LONGEST_START_UP_STEPS * period_s)
    params = draw_params(rng, dataclasses.replace(scenario, start_up_s=(min(low, longest), longest)))
    peak = math.exp(rng.uniform(*np.log(scenario.peak_replicas)))
    spec = draw_spec(rng, scenario, params, peak, period_s)
    duration_s = PAST_NODES * NODE_S + steps * period_s
    if recordings is not None and rng.random() < recordings.share:
        shape = recordings.sample(rng, duration_s, NODE_S)
    elif rng.random() < function_share:
        shape = function_workload(rng, duration_s)
    elif rng.random() < coarse_share:
        shape = coarse_workload(rng, duration_s, scenario.mix, FEWEST)
    else:
        shape = sample_workload(rng, duration_s, NODE_S, scenario.mix)
    known = round(float(rng.choice(scenario.histories_s)) / NODE_S)
    extra_s = SCRAPE_S * (rng.random() < extra_lag)
    start_s = obs.DAY_S + obs.DAY_REFRESH_S * float(rng.integers(0, 7 * 144))
    fullness = rng.uniform(0.4, 0.95)
    plain = bool(rng.random() < 0.5)
    episode = _episode(rng, shape * peak, params, spec, steps, start_s, known, extra_s, fullness, plain)
    for name in SIGNALS:
        share = missing if name == "knows_latency" else 0.5 * missing
        # without utilisation a capacity that nobody stated stays unknown, and no policy is asked
        needed = name == "knows_utilisation" and math.isnan(spec.capacity_rps)
        if rng.random() < share and not needed:
            episode.constants[CONSTANTS.index(name)] = 0.0
    return episode


def window_episode(window: Window, protocol: Protocol, steps: int, seed: int) -> Episode:
    """An evaluation window as `sim.replay` would play it."""
    nodes = np.empty(PAST_NODES + math.ceil(steps * protocol.sync_period_s / NODE_S) + 1)
    times = (np.arange(len(nodes)) - PAST_NODES) * NODE_S
    nodes[PAST_NODES:] = window.trace.at(times[PAST_NODES:] + window.trace.times_s[0])
    known = round(protocol.warm_up_s / NODE_S)
    nodes[:PAST_NODES] = nodes[PAST_NODES]
    if protocol.history and window.history is not None:
        known = round(-window.history.times_s[0] / NODE_S)
        nodes[:PAST_NODES] = window.history.at(times[:PAST_NODES])
    load = nodes / scalar(protocol.params.capacity_rps)
    rng = np.random.default_rng(seed)
    return _episode(rng, load, protocol.params, protocol.spec(), steps, 2 * obs.DAY_S, known, 0.0, 0.6, True)


def _episode(
    rng: np.random.Generator,
    nodes: FloatArray,
    params: ServiceParams,
    spec: ServiceSpec,
    steps: int,
    start_s: float,
    known_nodes: int,
    extra_lag_s: float,
    fullness: float,
    plain_past: bool,
) -> Episode:
    """An episode of this traffic; nodes: true load in replicas every 15 s, PAST_NODES and those to come.

    fullness: load over the first replicas. plain_past: the backfilled history is the rates themselves, as in
    `sim.replay`, not what metrics showed.
    """
    capacity, period_s = scalar(params.capacity_rps), spec.sync_period_s
    sub_s = period_s / SUB_STEPS
    past, own = nodes[:PAST_NODES], nodes[PAST_NODES:]
    middles = (np.arange(SUB_STEPS * steps) + 0.5) * sub_s
    rates = np.interp(middles, np.arange(len(own)) * NODE_S, own)
    by_chance = scalar(params.poisson) > 0
    arrivals = _by_chance(rng, rates, capacity * sub_s) if by_chance else rates
    came = _by_chance(rng, past, capacity * NODE_S) if by_chance else past
    unknown = math.isnan(spec.capacity_rps)
    believed, uncertainty = _estimated(rng) if unknown else (spec.capacity_rps / capacity, 0.0)
    phase_s = scalar(params.scrape_phase_s)
    before, seen = _observed(came, arrivals, sub_s, steps, phase_s, extra_lag_s)
    before, seen = (past if plain_past else before) / believed, seen / believed
    before[: max(PAST_NODES - max(known_nodes, 8), 0)] = np.nan
    given = _given(before, seen, capacity * believed, spec, start_s, uncertainty)
    constants = {
        "believed": believed,
        "capacity": capacity,
        "base_s": scalar(params.base_latency_ms) / 1000.0,
        "slo_s": scalar(params.slo_latency_ms) / 1000.0,
        "percentile_log": -math.log(1.0 - scalar(params.slo_percentile) / 100.0),
        "timeout_s": scalar(params.timeout_s),
        "burstiness": scalar(params.burstiness),
        "drain_s": scalar(params.drain_s),
        "idle": scalar(params.idle_utilisation),
        "min_replicas": spec.min_replicas,
        "max_replicas": spec.max_replicas,
        "window_s": spec.behavior.scale_down.stabilization_window_s,
        "target": spec.target_utilisation,
        # between two scrapes the newest grows old
        "lag_s": extra_lag_s + (phase_s if period_s >= SCRAPE_S else phase_s % 5.0 + 5.0),
        "step_s": period_s,
        "mean_load": max(float(nodes[-DAY_NODES:].mean()), float(own.mean()), 0.05),
        "usual_cost": _usual_cost(nodes[PAST_NODES - DAY_NODES :], params, spec),
        "first_replicas": np.clip(math.ceil(own[0] / fullness), max(spec.min_replicas, 1), spec.max_replicas),
        **dict.fromkeys(SIGNALS, 1.0),
    }
    return Episode(
        given=given,
        load=seen.astype(np.float32),
        rates=rates.reshape(steps, SUB_STEPS).astype(np.float32),
        arrivals=arrivals.reshape(steps, SUB_STEPS).astype(np.float32),
        start_up=_start_up_shares(params, sub_s),
        constants=np.array([constants[name] for name in CONSTANTS], dtype=np.float32),
    )


def _estimated(rng: np.random.Generator) -> tuple[float, float]:
    """(capacity that core estimates over the true one, how uncertain it is): settled, young, or that of a
    service without request rates, whose load is read off its utilisation."""
    kind = rng.random()
    if kind < 0.25:
        return 1.0, 1.0
    uncertainty = abs(0.06 * float(rng.standard_normal())) if kind < 0.75 else rng.uniform(0.05, 0.6)
    return float(np.clip(1.0 + (0.03 + 0.25 * uncertainty) * rng.standard_normal(), 0.6, 1.5)), uncertainty


def _by_chance(rng: np.random.Generator, load: FloatArray, requests: float) -> FloatArray:
    """Poisson arrivals as load; requests: what a load of 1 would send."""
    return np.asarray(rng.poisson(np.minimum(load * requests, 1e15)) / requests)


def _observed(
    past: FloatArray, arrivals: FloatArray, sub_s: float, steps: int, phase_s: float, extra_s: float
) -> tuple[FloatArray, FloatArray]:
    """(loads that metrics showed at each node of the past, and at each decision `[T]`)."""
    nodes, ends = np.arange(-len(past), 1) * NODE_S, (np.arange(len(arrivals)) + 1) * sub_s
    total = np.concatenate([[0.0], np.cumsum(past) * NODE_S])
    times, total = (
        np.concatenate([nodes, ends]),
        np.concatenate([total, total[-1] + np.cumsum(arrivals) * sub_s]),
    )

    def mean(at: FloatArray) -> FloatArray:
        newest = at - extra_s - np.mod(phase_s + at, SCRAPE_S)
        rise = np.interp(newest, times, total) - np.interp(newest - RATE_SPAN_S, times, total)
        return np.asarray(np.maximum(rise / RATE_SPAN_S, 0.0))

    return mean(nodes[:-1]), mean(np.arange(steps) * sub_s * SUB_STEPS)


def _given(
    past: FloatArray,
    seen: FloatArray,
    believed_rps: float,
    spec: ServiceSpec,
    start_s: float,
    uncertainty: float,
) -> FloatArray:
    """Core's features of the traffic, `[T, len(GIVEN_FEATURES)]`; past: loads in bins of 15 s."""
    steps, period_s = len(seen), spec.sync_period_s
    result = np.empty((steps, len(_GIVEN)), dtype=np.float32)
    seen32 = seen.astype(np.float32)
    bins, newest_bin, newest = _binned(seen32, period_s, obs.FINE_STEP_S)
    fine = np.concatenate([past.astype(np.float32), bins])
    windows = np.lib.stride_tricks.sliding_window_view(fine, obs.FINE_SLOTS)
    ends = len(past) + newest_bin - obs.FINE_SLOTS + 1
    now_s = start_s + np.arange(steps) * period_s
    lead_s = spec.start_up_s + period_s
    lead_bins = math.ceil(lead_s / obs.FINE_STEP_S)
    day_ago, day_moves = _coarse(past.astype(np.float32), seen32, period_s, lead_s)
    ahead = np.arange(17) <= lead_bins
    for first in range(0, steps, 512):
        part = slice(first, min(first + 512, steps))
        count = part.stop - part.start
        shown = windows[ends[part]]
        shown[:, -1] = newest[part]
        ones, unknown = np.ones(count), np.full(count, np.nan)
        matrix, _ = obs.features(
            obs.Inputs(
                now_s=now_s[part],
                load=seen[part],
                rate=seen[part] * believed_rps,
                provisioned=ones.astype(np.int64),
                ready=ones,
                min_replicas=ones.astype(np.int64),
                max_replicas=ones.astype(np.int64),
                fine=shown,
                season_1h=np.where(ahead, shown[:, 3:20], np.float32(np.nan)),
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
                sync_period_s=period_s * ones,
                scale_down_window_s=spec.behavior.scale_down.stabilization_window_s * ones,
                since_up_s=np.inf * ones,
                since_down_s=np.inf * ones,
                preference=ones,
            )
        )
        result[part] = matrix[:, _GIVEN]
    return result


def _binned(
    seen: FloatArray, period_s: float, bin_s: float
) -> tuple[FloatArray, npt.NDArray[np.int64], FloatArray]:
    """Samples every `period_s` seconds in bins as `controller.core.history` keeps them.

    Returns the bins `[K]` in the end, the newest bin at each sample `[T]`, and what was in it then `[T]`.
    """
    times = np.arange(len(seen)) * period_s
    newest_bin = (times // bin_s).astype(np.int64)
    if period_s >= bin_s:
        # a sample stands for the whole period before it
        source = np.ceil(np.arange(newest_bin[-1] + 1) * bin_s / period_s).astype(np.int64)
        return seen[source], newest_bin, seen
    first = np.searchsorted(newest_bin, newest_bin)
    total = np.concatenate([[0.0], np.cumsum(seen, dtype=np.float64)])
    upto = np.arange(len(seen)) + 1
    newest = ((total[upto] - total[first]) / (upto - first)).astype(np.float32)
    last = np.append(np.flatnonzero(np.diff(newest_bin)), len(seen) - 1)
    return newest[last], newest_bin, newest


def _coarse(
    past: FloatArray, seen: FloatArray, period_s: float, lead_s: float
) -> tuple[FloatArray, FloatArray]:
    """(season of a day ago `[T, 17]`, day's rises `[T, Q]`) as the engine reads them off its minute bins.

    The first decision falls on a ten-minute boundary.
    """
    steps = len(seen)
    with np.errstate(invalid="ignore"):
        before = past.reshape(-1, MINUTE_NODES).mean(axis=1)
    bins, newest_bin, newest = _binned(seen, period_s, obs.COARSE_STEP_S)
    minutes = np.concatenate([before, bins])
    now = len(before) + newest_bin
    lead = math.ceil(lead_s / obs.COARSE_STEP_S)
    day = round(obs.DAY_S / obs.COARSE_STEP_S)
    ahead = np.arange(17)
    index = now[:, None] - day + ahead
    season = np.where((ahead <= lead) & (index >= 0), minutes[np.maximum(index, 0)], np.float32(np.nan))
    every = round(obs.DAY_REFRESH_S / period_s)
    buckets = range(0, steps, every)
    windows = np.stack([_day_window(minutes, float(newest[b]), int(now[b]), day) for b in buckets])
    moves = obs.rises(obs.log_load(windows), np.full(len(buckets), min(lead, 60)))
    quantiles = obs.row_quantiles(moves, obs.DAY_MOVE_QUANTILES)
    return season.astype(np.float32), np.repeat(quantiles, every, axis=0)[:steps]


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


def _start_up_shares(params: ServiceParams, sub_s: float) -> FloatArray:
    """Log-normal start-up times in thirds of a step: the share that begins to serve in each."""
    edges = (np.arange(START_UP_SLOTS) + 0.5) * sub_s
    spread = max(scalar(params.start_up_spread), 1e-3)
    z = np.log(np.maximum(edges, 1e-6) / max(scalar(params.start_up_s), 1e-3)) / spread
    below = 0.5 * (1.0 + np.vectorize(math.erf)(z / math.sqrt(2.0)))
    below[-1] = 1.0
    return np.asarray(np.diff(below, prepend=0.0), dtype=np.float32)
