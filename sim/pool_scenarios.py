"""One training episode with several pools behind a route, drawn at random.

`sim.envs.pools` calls `draw_pool_scenario` at every reset. The service, its traffic and its past are those of
`sim.scenario`; this adds what its pools are: on-demand and spot machines, zones, accelerators beside plain
machines, a canary beside the stable version; their prices, reclaims, grey failures, and the route.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

from controller.core import Pool, ServiceSpec
from controller.core.pools import guard_weights
from sim.errors import require
from sim.physics.params import ServiceParams, scalar
from sim.pools import WEIGHT_TOTAL, PoolParams, RouteParams, equal_weights
from sim.scenario import Scenario, ScenarioConfig, draw_scenario
from sim.workloads import DAY_S, HOUR_S

FloatArray = npt.NDArray[np.floating]
FAMILIES = ("spot", "zones", "accelerators", "canary", "anything")
KINDS = ("on-demand", "spot", "zone", "accelerator", "canary")
ABSENT = "absent"


def _service() -> ScenarioConfig:
    return ScenarioConfig(
        capacity_unknown_share=0.0,
        capacity_error=0.2,
        peak_replicas=(6.0, 200.0),
        histories_s=(0.0, HOUR_S, HOUR_S, 6 * HOUR_S, DAY_S),
    )


@dataclass(frozen=True)
class PoolScenarioConfig:
    """Ranges of the draw. Pairs are (lowest, highest); a pair of equal numbers fixes the value."""

    service: ScenarioConfig = field(default_factory=_service)
    """The service and its traffic. Capacities must be known: its `capacity_unknown_share` is 0."""
    families: tuple[tuple[str, float], ...] = (
        ("spot", 3.0),
        ("zones", 2.0),
        ("accelerators", 1.5),
        ("canary", 1.5),
        ("anything", 1.0),
    )
    """How often each family of sets is drawn: its name, and a weight."""
    min_pools: int = 2
    """Fewest pools of a set."""
    room: tuple[float, float] = (1.3, 3.0)
    """Joint capacity of all pools at their maxReplicas over the peak load, log-uniform."""
    spot_price: tuple[float, float] = (0.2, 0.6)
    """Price of a spot replica over an on-demand one."""
    spot_reclaims_per_hour: tuple[float, float] = (0.02, 0.5)
    """Reclaims of single spot replicas, log-uniform."""
    sweeps_per_hour: tuple[float, float] = (0.05, 1.0)
    """Sweeps of a spot pool (and, a tenth as often, losses of a zone), log-uniform."""
    sweep_share: tuple[float, float] = (0.3, 1.0)
    """Share of the replicas that a sweep takes."""
    notices_s: tuple[float, ...] = (0.0, 30.0, 120.0)
    """Seconds between telling and taking, drawn evenly."""
    shortage_s: tuple[float, float] = (0.0, 600.0)
    """Mean seconds after a sweep without new replicas."""
    accelerator_capacity: tuple[float, float] = (3.0, 10.0)
    """Capacity of an accelerator's replica over a plain one, log-uniform."""
    accelerator_price: tuple[float, float] = (0.5, 1.5)
    """Price of its capacity over a plain one's."""
    canary_max_weight: tuple[int, int] = (5, 30)
    """maxWeight of a canary."""
    grey_per_hour: tuple[float, float] = (0.0, 0.6)
    """Slowdowns and outages of a pool, together; a canary has three times as many."""
    slowdown_factor: tuple[float, float] = (1.5, 8.0)
    """How many times slower a slow pool is, log-uniform."""
    outage_error_share: tuple[float, float] = (0.05, 0.9)
    """Share of the requests that fail in an outage."""
    grey_s: tuple[float, float] = (60.0, 900.0)
    """Mean seconds of a grey failure, log-uniform."""
    propagation_s: tuple[float, float] = (1.0, 30.0)
    """Seconds until weights are in force, log-uniform."""
    propagation_spread: tuple[float, float] = (0.0, 0.5)
    """Log-normal sigma of it."""
    max_weight_steps: tuple[int, ...] = (10, 25, 50, 100)
    """Largest change of a weight in a tick, drawn evenly."""

    def __post_init__(self) -> None:
        require(self.min_pools >= 1, "min_pools", self.min_pools, "1 or more")
        for name, weight in self.families:
            require(name in FAMILIES, "families", name, f"one of {', '.join(FAMILIES)}")
            require(weight >= 0, "families", weight, "0 or more")
        total = sum(weight for _, weight in self.families)
        require(total > 0, "families", self.families, "at least one with a weight above 0")
        unknown = self.service.capacity_unknown_share
        require(unknown == 0, "service.capacity_unknown_share", unknown, "0: pools have known capacities")
        for name in ("notices_s", "max_weight_steps"):
            require(len(getattr(self, name)) > 0, name, getattr(self, name), "at least one value")
        for name in _LOG_RANGES:
            low, high = getattr(self, name)
            require(0 < low <= high, name, (low, high), "two positive numbers, ascending")
        for name in ("sweep_share", "outage_error_share", "shortage_s", "grey_per_hour", "canary_max_weight"):
            low, high = getattr(self, name)
            require(0 <= low <= high, name, (low, high), "two numbers from 0 on, ascending")
        low, high = self.canary_max_weight
        require(1 <= low <= high <= WEIGHT_TOTAL, "canary_max_weight", (low, high), "in 1..100")
        require(min(self.max_weight_steps) >= 1, "max_weight_steps", self.max_weight_steps, "1 or more")


_LOG_RANGES = (
    "room",
    "spot_price",
    "spot_reclaims_per_hour",
    "sweeps_per_hour",
    "accelerator_capacity",
    "accelerator_price",
    "slowdown_factor",
    "grey_s",
    "propagation_s",
)


@dataclass(frozen=True, slots=True)
class PoolScenario:
    """A drawn episode; arrays are `[P]`, absent pools last in none but some place.

    base: service, traffic, past and reference; its specification is that of the whole set, in replicas of
    the mean plain machine. pools: what a user has written about each. capacity_rps, start_up_s: what the user
    believes (requests/s, seconds). reclaim_risk: share of the replicas that the provider says to take in an
    hour, 0..1. kinds: of KINDS, or ABSENT.
    """

    base: Scenario
    family: str
    kinds: tuple[str, ...]
    present: npt.NDArray[np.bool_]
    service: ServiceParams
    params: PoolParams
    route: RouteParams
    pools: tuple[Pool, ...]
    capacity_rps: FloatArray
    start_up_s: FloatArray
    reclaim_risk: FloatArray
    replicas: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int64]
    max_weight_step: int


def draw_pool_scenario(
    rng: np.random.Generator, config: PoolScenarioConfig, pools: int, horizon_steps: int
) -> PoolScenario:
    """Draw an episode of `horizon_steps` control steps with at most `pools` pools."""
    base = draw_scenario(rng, config.service, horizon_steps)
    weights = np.array([weight for _, weight in config.families])
    family = config.families[int(rng.choice(len(weights), p=weights / weights.sum()))][0]
    kinds = _kinds(rng, family, int(rng.integers(min(config.min_pools, pools), pools + 1)), pools)
    present = np.array([kind != ABSENT for kind in kinds])
    drawn = [_draw_pool(rng, config, kind) for kind in kinds]
    column = {name: np.array([one[name] for one in drawn]) for name in drawn[0]}
    service = _service_params(base.params, column)
    capacity = np.asarray(service.capacity_rps, dtype=np.float64)
    known = capacity * scalar(base.spec.capacity_rps) / scalar(base.params.capacity_rps)
    error = config.service.capacity_error / 2
    known = known * rng.uniform(1 - error, 1 + error, pools)
    listed = _pool_specs(rng, config, base, kinds, column, capacity)
    replicas, weights_now = _start(rng, base, listed, capacity, present)
    hazard = column["reclaims_per_hour"] + column["sweeps_per_hour"] * column["sweep_share"]
    return PoolScenario(
        base=replace(base, spec=_set_spec(base.spec, listed, known)),
        family=family,
        kinds=kinds,
        present=present,
        service=service,
        params=PoolParams(**{name: column[name] for name in _POOL_COLUMNS}),
        route=RouteParams(
            propagation_s=_log_uniform(rng, config.propagation_s),
            propagation_spread=rng.uniform(*config.propagation_spread),
            **{name: scalar(getattr(base.params, name)) for name in _OF_THE_ROUTE},
        ),
        pools=listed,
        capacity_rps=known,
        start_up_s=base.spec.start_up_s * column["start_up"],
        reclaim_risk=1.0 - np.exp(-hazard),
        replicas=replicas,
        weights=weights_now,
        max_weight_step=int(rng.choice(config.max_weight_steps)),
    )


_OF_THE_ROUTE = ("poisson", "arrival_dispersion", "retry_share", "retry_after_s")
_POOL_COLUMNS = tuple(item.name for item in fields(PoolParams))


def _kinds(rng: np.random.Generator, family: str, count: int, pools: int) -> tuple[str, ...]:
    """Kinds of the pools in random order; a set always has one that is neither spot nor canary."""
    first = {"zones": "zone"}.get(family, "on-demand")
    others = {
        "spot": ("spot", "spot", "on-demand"),
        "zones": ("zone",),
        "accelerators": ("accelerator", "accelerator", "on-demand"),
        "canary": ("canary",),
        "anything": KINDS,
    }[family]
    drawn = [first] + [str(rng.choice(others)) for _ in range(count - 1)]
    if family in ("spot", "accelerators", "canary") and count > 1:
        drawn[1] = others[0]
    slots = drawn + [ABSENT] * (pools - count)
    return tuple(slots[place] for place in rng.permutation(pools))


def _draw_pool(rng: np.random.Generator, config: PoolScenarioConfig, kind: str) -> dict[str, float]:
    """Factors on the plain machine's constants, and the columns of PoolParams."""
    grey = rng.uniform(*config.grey_per_hour) * (3.0 if kind == "canary" else 1.0)
    slow = rng.random()
    pool = {
        "capacity": rng.uniform(0.9, 1.1),
        "start_up": rng.uniform(0.8, 1.25),
        "base_latency": rng.uniform(0.9, 1.1),
        "cost_per_replica": rng.uniform(0.9, 1.1),
        "reclaims_per_hour": 0.0,
        "sweeps_per_hour": 0.0,
        "sweep_share": rng.uniform(*config.sweep_share),
        "notice_s": float(rng.choice(config.notices_s)),
        "shortage_s": rng.uniform(*config.shortage_s),
        "slowdowns_per_hour": grey * slow,
        "slowdown_factor": _log_uniform(rng, config.slowdown_factor),
        "slowdown_s": _log_uniform(rng, config.grey_s),
        "outages_per_hour": grey * (1.0 - slow),
        "outage_error_share": rng.uniform(*config.outage_error_share),
        "outage_s": _log_uniform(rng, config.grey_s),
    }
    if kind == "spot":
        pool["cost_per_replica"] *= _log_uniform(rng, config.spot_price)
        pool["reclaims_per_hour"] = _log_uniform(rng, config.spot_reclaims_per_hour)
        pool["sweeps_per_hour"] = _log_uniform(rng, config.sweeps_per_hour)
    elif kind == "zone":
        pool["sweeps_per_hour"] = 0.1 * _log_uniform(rng, config.sweeps_per_hour)
        pool["notice_s"] = 0.0
    elif kind == "accelerator":
        pool["capacity"] *= _log_uniform(rng, config.accelerator_capacity)
        pool["cost_per_replica"] *= pool["capacity"] * _log_uniform(rng, config.accelerator_price)
        pool["base_latency"] *= rng.uniform(0.3, 0.9)
        pool["start_up"] *= rng.uniform(1.0, 2.0)
    elif kind == "canary":
        pool["capacity"] *= rng.uniform(0.8, 1.1)
    elif kind == ABSENT:
        pool |= dict.fromkeys(("slowdowns_per_hour", "outages_per_hour"), 0.0)
    return pool


def _service_params(params: ServiceParams, column: dict[str, FloatArray]) -> ServiceParams:
    """The service's constants, with each pool's own capacity, start-up time and latency `[P]`."""
    capacity = scalar(params.capacity_rps) * column["capacity"]
    base_ms = np.maximum(scalar(params.base_latency_ms) * column["base_latency"], 500.0 / capacity)
    return replace(
        params,
        capacity_rps=capacity,
        start_up_s=scalar(params.start_up_s) * column["start_up"],
        base_latency_ms=base_ms,
        slo_latency_ms=max(scalar(params.slo_latency_ms), 1.5 * float(base_ms.max())),
        retry_share=0.0,
    )


def _pool_specs(
    rng: np.random.Generator,
    config: PoolScenarioConfig,
    base: Scenario,
    kinds: tuple[str, ...],
    column: dict[str, FloatArray],
    capacity: FloatArray,
) -> tuple[Pool, ...]:
    """Bounds: shares of the room are random, and the pool that always stays can carry weight up to 100."""
    peak_rps = float(base.rates_rps.max())
    present = np.array([kind != ABSENT for kind in kinds])
    shares = np.where(present, rng.uniform(0.5, 1.5, len(kinds)), 0.0)
    shares *= np.where(np.array(kinds) == "canary", 0.3, 1.0)
    room_rps = peak_rps * _log_uniform(rng, config.room) * shares / shares.sum()
    listed = []
    for place, kind in enumerate(kinds):
        if kind == ABSENT:
            listed.append(Pool(f"{ABSENT}-{place}", 0, 0))
            continue
        steady = kind in ("on-demand", "zone")
        least = 1 if steady or rng.random() < 0.3 else 0
        limit = rng.integers(config.canary_max_weight[0], config.canary_max_weight[1] + 1)
        listed.append(
            Pool(
                name=f"{kind}-{place}",
                min_replicas=least,
                max_replicas=max(math.ceil(room_rps[place] / capacity[place]), least, 2),
                cost_per_replica=float(column["cost_per_replica"][place]),
                min_weight=int(rng.choice((0, 0, 5, 10))) if steady else 0,
                max_weight=int(limit) if kind == "canary" else WEIGHT_TOTAL,
            )
        )
    return tuple(listed)


def _start(
    rng: np.random.Generator,
    base: Scenario,
    pools: tuple[Pool, ...],
    capacity: FloatArray,
    present: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First replicas (at a random utilisation) and weights: a random split inside the pools' bands."""
    asked = np.where(present, rng.dirichlet(np.full(len(pools), 2.0)), 0.0)
    low = np.array([pool.min_weight for pool in pools])
    high = np.array([pool.max_weight for pool in pools])
    first = equal_weights(present[None])
    weights = guard_weights(asked[None], first, present[None].astype(np.int64), low[None], high[None])[0]
    warm = min(round(base.warm_up_s / base.rate_period_s), len(base.rates_rps) - 1)
    needed = base.rates_rps[warm] * weights / WEIGHT_TOTAL / capacity / rng.uniform(0.35, 0.95)
    least = np.where(weights > 0, 1, 0)
    floors = np.array([max(pool.min_replicas, one) for pool, one in zip(pools, least, strict=True)])
    replicas = np.clip(np.ceil(needed), floors, [pool.max_replicas for pool in pools])
    return replicas.astype(np.int64), weights


def _set_spec(spec: ServiceSpec, pools: tuple[Pool, ...], known_rps: FloatArray) -> ServiceSpec:
    """The whole set as one service, for the observation: bounds in replicas of the plain machine."""
    ratio = known_rps / spec.capacity_rps
    least = sum(pool.min_replicas * share for pool, share in zip(pools, ratio, strict=True))
    most = sum(pool.max_replicas * share for pool, share in zip(pools, ratio, strict=True))
    return replace(
        spec, min_replicas=max(1, round(least)), max_replicas=max(2, round(least) + 1, round(most))
    )


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1]))))
