"""One training episode's world, drawn at random: the service, its specification, its traffic and its past.

`draw_scenario` is called by the environments at every reset. All of it is deterministic by the generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from controller.core import Behavior, ScalingPolicy, ScalingRules, ServiceSpec
from sim.errors import require
from sim.physics import ServiceParams, scalar
from sim.workloads import DAY_S, HOUR_S, WorkloadMix, sample_workload

FloatArray = npt.NDArray[np.floating[Any]]
HISTORY_STEP_S = 15.0
COARSE_HISTORY_STEP_S = 60.0
RECENT_S = 3660.0


@dataclass(frozen=True)
class ScenarioConfig:
    """Ranges of the draw. Pairs are (lowest, highest); a pair of equal numbers fixes the value."""

    sync_periods_s: tuple[int, ...] = (15,)
    """Seconds between two decisions, drawn evenly; whole, 5..60."""
    capacity_rps: tuple[float, float] = (1.0, 10_000.0)
    """Requests/s a replica, log-uniform."""
    capacity_error: float = 0.3
    """Largest relative error of the capacity in the specification, either way."""
    capacity_unknown_share: float = 0.15
    """Share of services whose specification has no capacity, so that it is estimated online."""
    capacity_spread: tuple[float, float] = (0.0, 0.2)
    """Deviation of a replica's capacity over the mean."""
    peak_replicas: tuple[float, float] = (2.0, 500.0)
    """Load at the workload's peak in replicas, log-uniform."""
    max_replicas_over_peak: tuple[float, float] = (1.3, 3.0)
    """maxReplicas over that peak."""
    min_replicas: int = 1
    """minReplicas."""
    start_up_s: tuple[float, float] = (5.0, 180.0)
    """Start-up time, log-uniform."""
    start_up_error: float = 0.3
    """Largest relative error of the start-up time in the specification."""
    start_up_spread: tuple[float, float] = (0.0, 0.3)
    """Log-normal sigma of start-up times."""
    base_latency_ms: tuple[float, float] = (5.0, 300.0)
    """Latency without waiting, log-uniform; never below 0.5 / capacity."""
    slo_over_base: tuple[float, float] = (2.5, 12.0)
    """Objective over that latency, log-uniform."""
    slo_percentiles: tuple[float, ...] = (95.0, 99.0)
    """Percentile of the latency objective, drawn evenly."""
    burstiness: tuple[float, float] = (0.5, 2.0)
    """(Ca^2 + Cs^2) / 2, log-uniform."""
    timeout_s: tuple[float, float] = (2.0, 30.0)
    """Clients' patience, log-uniform."""
    preference: tuple[float, float] = (0.0, 100.0)
    """objective.preference, uniform."""
    target_utilisation: tuple[float, float] = (0.5, 0.85)
    """objective.targetUtilization, uniform: the floor in danger aims at it."""
    scale_down_windows_s: tuple[int, ...] = (0, 60, 300)
    """behavior.scaleDown.stabilizationWindowSeconds, drawn evenly."""
    scrape_intervals_s: tuple[int, ...] = (15,)
    """Seconds between scrapes, drawn evenly."""
    windows_s: tuple[int, ...] = (60,)
    """Window of the rates in the metrics, drawn evenly."""
    scrape_loss: tuple[float, float] = (0.0, 0.02)
    """Probability of a lost scrape, uniform."""
    arrival_dispersion: tuple[float, float] = (1.0, 1.0)
    """Variance over mean of a second's arrivals, log-uniform."""
    pooling: tuple[float, float] = (0.5, 0.5)
    """How well the load balancer pools replicas, uniform."""
    service_cv2: tuple[float, float] = (0.0, 0.0)
    """Squared coefficient of variation of service times, uniform."""
    retry_share: tuple[float, float] = (0.0, 0.0)
    """Probability that a failed attempt comes again, uniform."""
    retry_after_s: tuple[float, float] = (1.0, 1.0)
    """Mean of the time until then, log-uniform."""
    readiness_period_s: tuple[float, float] = (0.0, 0.0)
    """How much later a replica is seen ready, at most; uniform."""
    cold_share: tuple[float, float] = (1.0, 1.0)
    """Share of its capacity that a replica begins with, uniform."""
    warming_s: tuple[float, float] = (60.0, 60.0)
    """Time constant with which the rest comes, log-uniform."""
    crashes_per_hour: tuple[float, float] = (0.0, 0.0)
    """Of a replica, uniform."""
    node_losses_per_hour: tuple[float, float] = (0.0, 0.0)
    """Of the service, uniform."""
    node_share: tuple[float, float] = (0.2, 0.2)
    """Share of the replicas that a lost node takes, uniform."""
    slow_per_hour: tuple[float, float] = (0.0, 0.0)
    """How often a replica becomes slow, uniform."""
    slow_share: tuple[float, float] = (0.3, 0.3)
    """What capacity it has then, uniform."""
    slow_s: tuple[float, float] = (120.0, 120.0)
    """Mean duration of that, log-uniform."""
    failing_per_hour: tuple[float, float] = (0.0, 0.0)
    """How often a replica begins to answer errors, uniform."""
    failing_s: tuple[float, float] = (60.0, 60.0)
    """Mean duration of that, log-uniform."""
    neighbour_per_hour: tuple[float, float] = (0.0, 0.0)
    """How often noisy neighbours take capacity, uniform."""
    neighbour_share: tuple[float, float] = (0.3, 0.3)
    """How much they take, uniform."""
    neighbour_s: tuple[float, float] = (120.0, 120.0)
    """Mean duration of that, log-uniform."""
    metric_lag_s: tuple[float, float] = (0.0, 0.0)
    """By how much the metrics lag, uniform."""
    rate_extrapolation: bool = False
    """Whether rates follow Prometheus' rule of extrapolation where scrapes are missing."""
    stress_share: float = 1.0
    """Share of services that have each of these, drawn for each apart; the others are spared it."""
    histories_s: tuple[float, ...] = (0.0, HOUR_S, HOUR_S, 6 * HOUR_S, DAY_S)
    """How much past the observation knows at the start, drawn evenly."""
    rate_period_s: float = 15.0
    """Resolution of generated rates; interpolated linearly in between."""
    mix: WorkloadMix = field(default_factory=WorkloadMix)
    """How often each family of workloads is drawn."""

    def __post_init__(self) -> None:
        for name in (
            "sync_periods_s",
            "scale_down_windows_s",
            "scrape_intervals_s",
            "windows_s",
            "histories_s",
        ):
            require(len(getattr(self, name)) > 0, name, getattr(self, name), "at least one value")
        for period in self.sync_periods_s:
            require(
                period == int(period) and 1 <= period <= 600, "sync_periods_s", period, "whole, in 1..600"
            )
        for name in _LOG_RANGES:
            low, high = getattr(self, name)
            require(0 < low <= high, name, (low, high), "two positive numbers, ascending")
        for name in (*_STRESSES, *_STRESS_SHAPES):
            low, high = getattr(self, name)
            require(low <= high, name, (low, high), "two numbers, ascending")
        require(0 <= self.stress_share <= 1, "stress_share", self.stress_share, "in 0..1")
        require(0 <= self.capacity_error < 1, "capacity_error", self.capacity_error, "in 0..1, 1 excluded")
        low, high = self.preference
        require(0 <= low <= high <= 100, "preference", self.preference, "in 0..100, ascending")
        require(self.min_replicas >= 1, "min_replicas", self.min_replicas, "1 or more")

    @classmethod
    def harsh(cls, **changes: Any) -> ScenarioConfig:
        """All that can go wrong switched on, each for half of the services; `changes` as in the constructor.

        The ranges are meant to be wide, not typical. Where they have a source: readiness probes run every
        10 s by Kubernetes' default; crashes and node losses are far more frequent than in production, so that
        an episode of an hour has some; a lag of 15 to 30 s is one or two scrapes, as federation adds.
        """
        stresses: dict[str, Any] = {
            "arrival_dispersion": (1.0, 20.0),
            "pooling": (0.3, 0.9),
            "service_cv2": (0.0, 2.0),
            "retry_share": (0.0, 0.8),
            "retry_after_s": (0.1, 10.0),
            "readiness_period_s": (0.0, 20.0),
            "cold_share": (0.2, 1.0),
            "warming_s": (10.0, 300.0),
            "crashes_per_hour": (0.0, 1.0),
            "node_losses_per_hour": (0.0, 1.0),
            "node_share": (0.05, 0.4),
            "slow_per_hour": (0.0, 1.0),
            "slow_share": (0.1, 0.7),
            "slow_s": (30.0, 600.0),
            "failing_per_hour": (0.0, 0.5),
            "failing_s": (15.0, 180.0),
            "neighbour_per_hour": (0.0, 4.0),
            "neighbour_share": (0.05, 0.5),
            "neighbour_s": (30.0, 600.0),
            "metric_lag_s": (0.0, 30.0),
            "rate_extrapolation": True,
            "scrape_loss": (0.0, 0.1),
            "stress_share": 0.5,
        }
        return cls(**{**stresses, **changes})


_LOG_RANGES = (
    "capacity_rps",
    "peak_replicas",
    "max_replicas_over_peak",
    "start_up_s",
    "base_latency_ms",
    "slo_over_base",
    "burstiness",
    "timeout_s",
    "target_utilisation",
)


_STRESSES = {
    "arrival_dispersion": 1.0,
    "pooling": 0.5,
    "service_cv2": 0.0,
    "retry_share": 0.0,
    "readiness_period_s": 0.0,
    "cold_share": 1.0,
    "crashes_per_hour": 0.0,
    "node_losses_per_hour": 0.0,
    "slow_per_hour": 0.0,
    "failing_per_hour": 0.0,
    "neighbour_per_hour": 0.0,
    "metric_lag_s": 0.0,
}
"""What can trouble a service, and the value at which it doesn't."""
_STRESS_SHAPES = ("retry_after_s", "warming_s", "node_share", "slow_share", "slow_s", "failing_s",
                  "neighbour_share", "neighbour_s")  # fmt: skip
_LOG_STRESSES = ("arrival_dispersion", "retry_after_s", "warming_s", "slow_s", "failing_s", "neighbour_s")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a plain reactive rule would do on this workload; the rewards are measured in it.

    ideal_replicas: mean load in replicas, at least minReplicas at any time. requests_per_s: mean.
    cost: of keeping a headroom over the last five minutes' maximum, over the ideal. violation: share of
    requests above what that gives after the start-up time.
    """

    ideal_replicas: float
    requests_per_s: float
    cost: float
    violation: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """A drawn episode. `rates_rps` `[K]`, one every `rate_period_s`, begin `warm_up_s` before `start_s`.

    history: (times_s `[H]`, rates `[H]` requests/s as metrics showed them), on the clock of `start_s`.
    """

    spec: ServiceSpec
    params: ServiceParams
    start_s: float
    warm_up_s: int
    rates_rps: FloatArray
    rate_period_s: float
    history: tuple[FloatArray, FloatArray]
    replicas: int
    noise_seed: int
    reference: Reference


def draw_scenario(rng: np.random.Generator, config: ScenarioConfig, horizon_steps: int) -> Scenario:
    """Draw an episode of `horizon_steps` control steps."""
    sync_s = int(rng.choice(config.sync_periods_s))
    params = draw_params(rng, config)
    peak = _log_uniform(rng, config.peak_replicas)
    spec = draw_spec(rng, config, params, peak, sync_s)
    warm_up_s = _warm_up_s(params)
    period_s = config.rate_period_s
    past = math.ceil(float(rng.choice(config.histories_s)) / period_s)
    duration_s = past * period_s + warm_up_s + horizon_steps * sync_s
    rates = sample_workload(rng, duration_s, period_s, config.mix) * peak * scalar(params.capacity_rps)
    start_s = DAY_S + 60.0 * float(rng.integers(0, 7 * 24 * 60))
    return Scenario(
        spec=spec,
        params=params,
        start_s=start_s,
        warm_up_s=warm_up_s,
        rates_rps=rates[past:],
        rate_period_s=period_s,
        history=_history(rng, rates[: past + 1], period_s, start_s - warm_up_s),
        replicas=_first_replicas(rng, spec, params, rates[past + round(warm_up_s / period_s)]),
        noise_seed=int(rng.integers(1, 2**63 - 1)),
        reference=_reference(rates[past:], period_s, params, spec),
    )


def draw_params(rng: np.random.Generator, config: ScenarioConfig) -> ServiceParams:
    """Draw a service."""
    capacity = _log_uniform(rng, config.capacity_rps)
    base_ms = max(_log_uniform(rng, config.base_latency_ms), 500.0 / capacity)
    interval_s = int(rng.choice(config.scrape_intervals_s))
    return ServiceParams(
        capacity_rps=capacity,
        start_up_s=_log_uniform(rng, config.start_up_s),
        start_up_spread=rng.uniform(*config.start_up_spread),
        capacity_spread=rng.uniform(*config.capacity_spread),
        base_latency_ms=base_ms,
        slo_latency_ms=base_ms * _log_uniform(rng, config.slo_over_base),
        slo_percentile=float(rng.choice(config.slo_percentiles)),
        timeout_s=_log_uniform(rng, config.timeout_s),
        burstiness=_log_uniform(rng, config.burstiness),
        scrape_interval_s=interval_s,
        scrape_phase_s=int(rng.integers(interval_s)),
        scrape_loss=rng.uniform(*config.scrape_loss),
        window_s=max(int(rng.choice(config.windows_s)), 2 * interval_s + 1),
        rate_extrapolation=float(config.rate_extrapolation),
        **_draw_stresses(rng, config),
    )


def _draw_stresses(rng: np.random.Generator, config: ScenarioConfig) -> dict[str, float]:
    """What troubles a service. A range of one value takes nothing from `rng`: presets that leave all of this
    alone draw the same scenarios as ever."""
    drawn = {}
    for name in (*_STRESSES, *_STRESS_SHAPES):
        low, high = getattr(config, name)
        if low == high:
            drawn[name] = low
        elif name in _STRESSES and config.stress_share < 1.0 and rng.random() >= config.stress_share:
            drawn[name] = _STRESSES[name]
        else:
            drawn[name] = _log_uniform(rng, (low, high)) if name in _LOG_STRESSES else rng.uniform(low, high)
    return drawn


def draw_spec(
    rng: np.random.Generator, config: ScenarioConfig, params: ServiceParams, peak: float, sync_s: int
) -> ServiceSpec:
    """Draw what a user would have written about that service: nearly right."""
    error = config.capacity_error
    capacity = scalar(params.capacity_rps) * rng.uniform(1 - error, 1 + error)
    start_up_s = scalar(params.start_up_s)
    unknown = rng.random() < config.capacity_unknown_share
    window_s = int(rng.choice(config.scale_down_windows_s))
    rules = ScalingRules(window_s, "Max", (ScalingPolicy("Percent", 100, 15),))
    return ServiceSpec(
        min_replicas=config.min_replicas,
        max_replicas=max(
            math.ceil(peak * _log_uniform(rng, config.max_replicas_over_peak)), config.min_replicas + 1
        ),
        sync_period_s=float(sync_s),
        slo_latency_ms=scalar(params.slo_latency_ms),
        slo_percentile=scalar(params.slo_percentile),
        preference=rng.uniform(*config.preference),
        capacity_rps=math.nan if unknown else capacity,
        start_up_s=start_up_s * rng.uniform(1 - config.start_up_error, 1 + config.start_up_error),
        target_utilisation=_log_uniform(rng, config.target_utilisation),
        behavior=Behavior(scale_down=rules),
    )


def _warm_up_s(params: ServiceParams) -> int:
    """Whole minutes in which the metrics' window fills up."""
    return math.ceil((scalar(params.window_s) + scalar(params.scrape_interval_s)) / 60.0) * 60


def _first_replicas(
    rng: np.random.Generator, spec: ServiceSpec, params: ServiceParams, rate_rps: float
) -> int:
    wanted = math.ceil(rate_rps / scalar(params.capacity_rps) / rng.uniform(0.35, 0.95))
    return min(max(wanted, spec.min_replicas), spec.max_replicas)


def _reference(rates_rps: FloatArray, period_s: float, params: ServiceParams, spec: ServiceSpec) -> Reference:
    lead_s = scalar(params.start_up_s) + spec.sync_period_s + 0.5 * scalar(params.window_s)
    return reactive_reference(rates_rps, scalar(params.capacity_rps), period_s, lead_s, spec.min_replicas)


def reactive_reference(
    rates_rps: FloatArray, capacity_rps: float, period_s: float, lead_s: float, min_replicas: int
) -> Reference:
    """What 1.25 times the maximum of five minutes, `lead_s` late, costs and misses; rates `[K]`."""
    load = rates_rps / capacity_rps
    ideal = float(np.maximum(load, min_replicas).mean())
    kept = np.maximum(1.25 * _trailing_max(load, max(1, round(300.0 / period_s))), min_replicas)
    late = max(1, math.ceil(lead_s / period_s))
    given = np.concatenate([np.full(late, kept[0]), kept[:-late]])[: len(load)]
    over = np.where(load > given, load, 0.0).sum() / max(float(load.sum()), 1e-9)
    return Reference(ideal, max(float(rates_rps.mean()), 1e-6), float(given.mean()) / ideal, float(over))


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1]))))


def _history(
    rng: np.random.Generator, rates: FloatArray, period_s: float, end_s: float
) -> tuple[FloatArray, FloatArray]:
    """Past rates with a minute's shot noise: every 15 s of the last hour, each minute before."""
    times = end_s - np.arange(len(rates) - 1, -1, -1) * period_s
    recent = times > end_s - RECENT_S
    coarse = np.mod(np.arange(len(rates)), max(1, round(COARSE_HISTORY_STEP_S / period_s))) == 0
    kept = recent | coarse
    kept[-1] = False  # the warm-up continues from here
    seen = rng.poisson(np.minimum(rates[kept] * 60.0, 1e15)) / 60.0
    return times[kept], seen


@nb.njit(cache=True)
def _trailing_max(values, width):  # type: ignore[no-untyped-def]
    result = np.empty_like(values)
    for index in range(len(values)):
        best = values[index]
        for back in range(1, min(width, index + 1)):
            best = max(best, values[index - back])
        result[index] = best
    return result
