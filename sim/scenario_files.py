"""Scenario files: a service (or pools behind a route), its traffic and replicas, run in either fidelity.

`load_scenario` reads and checks a YAML file, `run_fluid` and `run_requests` run it; both see the same
requests in each second, the same start-up times and capacities. Called by `training/fidelity.py`, which
compares the two, and by tests. docs/fidelity.md says how to write such a file; `sim/scenarios` has those that
are published.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core import Engine, ServiceSpec
from sim.baselines import Setting, forecast, hpa
from sim.documents import documents_in, read_document
from sim.errors import ParameterError, SimulationError
from sim.latency import BALANCERS
from sim.physics import Interval, ServiceParams, ServicePhysics, scalar, service_seeds, to_samples
from sim.pools import PoolParams, PoolsPhysics, RouteParams
from sim.requests import RequestSimulator
from sim.requests.draws import bucket_edges_s, percentile_ms
from sim.workloads import Workload, workload_from

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.integer[Any]]

SCENARIOS = Path(__file__).with_name("scenarios")
DAY_S = 86400.0
_DERIVED = ("burstiness", "pooling", "balancer", "proxies")
_SERVICE = tuple(item.name for item in fields(ServiceParams) if item.name not in _DERIVED)


class ScenarioError(SimulationError):
    """A scenario file that cannot be used; names the file, the field, its value and what is allowed."""


@dataclass(frozen=True)
class ScalingPlan:
    """What decides on replicas in closed loop: `kind` HPA or Forecast, with what its specification says."""

    kind: str
    target_utilisation: float = 0.7
    scale_down_window_s: int = 300
    min_replicas: int = 1
    max_replicas: int = 100
    preference: float = 50.0


@dataclass(frozen=True)
class PoolPlan:
    """One pool: what its service has of its own, its replicas over time, and how they are taken back (fields
    of `sim.pools.PoolParams`)."""

    name: str
    params: ServiceParams
    replicas: tuple[tuple[int, int], ...]
    reclaims_per_hour: float = 0.0
    sweeps_per_hour: float = 0.0
    sweep_share: float = 1.0
    notice_s: float = 120.0


@dataclass(frozen=True)
class FidelityScenario:
    """A checked scenario file.

    pools: one for a plain service. weights: (from second, share of each pool), as asked for; they are in
    force `propagation_s` later. replicas of a pool: (from second, count). Seconds begin after the warm-up, in
    which the first of everything holds and nothing is counted.
    """

    name: str
    description: str
    balancer: str
    proxies: int
    workload: Workload
    duration_s: int
    pools: tuple[PoolPlan, ...]
    weights: tuple[tuple[int, tuple[float, ...]], ...]
    warm_up_s: int = 120
    sync_period_s: int = 15
    propagation_s: int = 5
    seed: int = 1
    policy: ScalingPlan | None = None
    expected_difference: str = ""
    workload_mapping: Mapping[str, Any] = field(default_factory=dict)

    def rates(self) -> FloatArray:
        """Requests/s in each second of the whole run, `[warm_up_s + duration_s + 1]`."""
        times = np.arange(self.duration_s + 1, dtype=np.float64)
        rates = np.asarray(self.workload.rates(times, np.random.default_rng(self.seed)), dtype=np.float64)
        return np.concatenate([np.full(self.warm_up_s, rates[0]), rates])

    def shares(self) -> FloatArray:
        """Share of the requests that each pool gets in each second of the whole run, `[seconds + 1, P]`."""
        total = self.warm_up_s + self.duration_s + 1
        table = np.empty((total, len(self.pools)))
        for begin, weights in self.weights:
            start = 0 if begin == 0 else self.warm_up_s + begin + self.propagation_s
            table[start:] = np.asarray(weights) / sum(weights)
        return table


@dataclass(frozen=True)
class Outcome:
    """What one run of a scenario gave, after the warm-up, over all pools.

    Latencies (ms) of the requests that were answered, shares of attempts, replica-hours billed.
    timeline: arrays `[steps]` of each sync period: requests_per_s, ready, desired, p95_ms, violation_share.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    violation_share: float
    dropped_share: float
    retry_share: float
    replica_hours: float
    arrived: float
    served: float
    timeline: dict[str, FloatArray]


def scenario_files(folder: Path = SCENARIOS) -> list[Path]:
    """The published scenarios, by name."""
    return documents_in(folder)


def load_scenario(path: str | Path) -> FidelityScenario:
    """Read and check a file; a bare name is one of the published. Raises ScenarioError."""
    file, document = read_document(path, SCENARIOS, "published scenarios", ScenarioError)
    try:
        return parse_scenario(document, file.stem)
    except ParameterError as error:
        raise ScenarioError(f"{file}: {error}") from None


def parse_scenario(document: Any, name: str) -> FidelityScenario:
    """Check what a file holds. Raises ParameterError that names the field, its value and what is allowed."""
    known = (
        "description", "service", "balancer", "proxies", "workload", "duration_s", "warm_up_s",
        "sync_period_s", "seed", "replicas", "policy", "pools", "weights", "propagation_s",
        "expected_difference",
    )  # fmt: skip
    top = _mapping(document, "the file", known)
    for needed in ("description", "service", "workload", "duration_s"):
        if needed not in top:
            raise ParameterError(needed, None, "given")
    sync_s = _whole(top.get("sync_period_s", 15), "sync_period_s", 1, 600)
    duration_s = _whole(top["duration_s"], "duration_s", 2 * sync_s, 7 * 86400, sync_s)
    warm_up_s = _whole(top.get("warm_up_s", 120), "warm_up_s", 0, 86400, sync_s)
    balancer = _one_of(top.get("balancer", "central"), "balancer", BALANCERS[1:])
    proxies = _whole(top.get("proxies", 1), "proxies", 1, 1000)
    base = _mapping(top["service"], "service", _SERVICE)
    policy = _policy(top["policy"]) if "policy" in top else None
    if "pools" in top:
        pools = _pools(top, base, balancer, proxies, sync_s, duration_s)
        weights = _weights(top, [pool.name for pool in pools], sync_s, duration_s)
        if policy is not None:
            raise ParameterError("policy", policy.kind, "absent where there are pools: give them replicas")
    else:
        for other in ("weights", "propagation_s"):
            if other in top:
                raise ParameterError(other, top[other], "absent where there are no pools")
        counts = _schedule(top.get("replicas"), "replicas", sync_s, duration_s)
        pools = (PoolPlan("all", _service(base, "service", balancer, proxies), counts),)
        weights = ((0, (1.0,)),)
    return FidelityScenario(
        name=name,
        description=_text(top["description"], "description"),
        balancer=balancer,
        proxies=proxies,
        workload=workload_from(top["workload"]),
        duration_s=duration_s,
        pools=pools,
        weights=weights,
        warm_up_s=warm_up_s,
        sync_period_s=sync_s,
        propagation_s=_whole(top.get("propagation_s", 5), "propagation_s", 0, 600),
        seed=_whole(top.get("seed", 1), "seed", 0, 2**31),
        policy=policy,
        expected_difference=_text(top.get("expected_difference", ""), "expected_difference"),
        workload_mapping=top["workload"],
    )


def run_fluid(scenario: FidelityScenario, seed: int | None = None) -> Outcome:
    """The scenario as a fluid; deterministic by `seed` (default: the file's)."""
    bounds, chosen = _bounds_ms(scenario), scenario.seed if seed is None else seed
    simulator: ServicePhysics | _FluidPools
    if len(scenario.pools) > 1:
        simulator = _FluidPools(scenario, chosen, bounds)
        services = simulator.pools.services
    else:
        services = ServicePhysics(_stacked(scenario), 1, chosen, _first_counts(scenario), bounds)
        services.set_rates(scenario.rates(), 1.0)
        simulator = services

    def latencies() -> FloatArray:
        served = services.read("served").sum()
        below = services.histogram.sum(axis=0)
        return np.diff(np.concatenate([[0.0], np.minimum(below, served), [served]]))

    edges_s = np.concatenate([[0.0], bounds, [_longest_ms(scenario)]]) / 1000.0
    return _run(scenario, simulator, latencies, edges_s, lambda: services.read("replica_s").sum())


def run_requests(scenario: FidelityScenario, seed: int | None = None) -> Outcome:
    """The scenario request by request; deterministic by `seed` (default: the file's)."""
    several = len(scenario.pools) > 1
    chosen: int | IntArray = scenario.seed if seed is None else seed
    if several:
        # the seeds of the fluid's pools, so that the same replicas are taken back at the same time
        fluid = PoolsPhysics(1, len(scenario.pools), seed=chosen)
        chosen = fluid.services.arrays.seeds
    simulator = RequestSimulator(
        _stacked(scenario),
        len(scenario.pools),
        chosen,
        _first_counts(scenario),
        pools=_pool_params(scenario) if several else None,
    )
    simulator.set_rates(scenario.rates(), 1.0)
    if several:
        simulator.set_weights(scenario.shares())
    return _run(
        scenario,
        simulator,
        lambda: simulator.histogram.sum(axis=0),
        simulator.edges_s,
        lambda: simulator.total("replica_s").sum(),
    )


class _FluidPools:
    """`PoolsPhysics` of one set, driven as a `ServicePhysics` whose rows are its pools."""

    def __init__(self, scenario: FidelityScenario, seed: int, bounds_ms: FloatArray) -> None:
        self._scenario = scenario
        stacked = _stacked(scenario)
        retries = {
            "retry_share": float(np.max(stacked.retry_share)),
            "retry_after_s": float(np.max(stacked.retry_after_s)),
        }
        self.pools = PoolsPhysics(1, len(scenario.pools), le_ms=bounds_ms)
        self.pools.reset(
            None,
            replace(stacked, retry_share=0.0),
            _pool_params(scenario),
            RouteParams(propagation_s=scenario.propagation_s, **retries),
            service_seeds(seed, 1),
            _first_counts(scenario)[None, :],
            _percents(scenario.weights[0][1])[None, :],
        )
        self.pools.set_rates(scenario.rates(), 1.0)
        self._clock_s = 0

    def scale(self, rows: IntArray | None, replicas: IntArray) -> None:
        """Ask for replicas `[P]`."""
        self.pools.scale(rows, replicas)

    def advance(self, *, seconds: int) -> Interval:
        """Let a stretch pass at whose start weights may change."""
        now = self._clock_s - self._scenario.warm_up_s
        for begin, weights in self._scenario.weights:
            if begin == now and begin > 0:
                self.pools.route(None, _percents(weights))
        passed = self.pools.advance(seconds=seconds)
        self._clock_s += seconds
        shown = {name: getattr(passed, name)[0] for name in _OF_POOLS}
        return Interval(
            seconds=np.full(len(self._scenario.pools), float(seconds)), offered=passed.offered, **shown
        )

    @property
    def ready(self) -> IntArray:
        """Ready replicas, `[P]`."""
        return np.asarray(self.pools.ready[0])


_OF_POOLS = (
    "arrived", "served", "dropped", "violating", "replica_s", "p50_ms", "p95_ms", "p99_ms",
)  # fmt: skip


def _pool_params(scenario: FidelityScenario) -> PoolParams:
    names = ("reclaims_per_hour", "sweeps_per_hour", "sweep_share", "notice_s")
    return PoolParams(
        **{name: np.array([float(getattr(pool, name)) for pool in scenario.pools]) for name in names}
    )


def _percents(weights: Sequence[float]) -> IntArray:
    """Whole weights that sum to 100; the file's have been checked to be."""
    return np.round(100.0 * np.asarray(weights) / sum(weights)).astype(np.int64)


def _run(
    scenario: FidelityScenario,
    simulator: ServicePhysics | RequestSimulator | _FluidPools,
    latencies: Callable[[], FloatArray],
    edges_s: FloatArray,
    billed_s: Callable[[], float],
) -> Outcome:
    period = scenario.sync_period_s
    decide = _decider(scenario, simulator)
    simulator.advance(seconds=scenario.warm_up_s)
    before, billed_before_s = latencies(), billed_s()
    sums = np.zeros(len(_SUMMED))
    kept: dict[str, list[float]] = {name: [] for name in TIMELINE}
    for step in range(scenario.duration_s // period):
        asked = decide(step)
        simulator.scale(None, asked)
        interval = simulator.advance(seconds=period)
        gained = [float(getattr(interval, name).sum()) for name in _SUMMED]
        sums += gained
        arrived, violating = gained[0], gained[3]
        shown = (
            arrived / period,
            float(simulator.ready.sum()),
            float(np.sum(asked)),
            _joint_p95(interval),
            # single requests are booked as violating when that is known, some seconds after they came
            min(violating / max(arrived, 1e-9), 1.0),
        )
        for name, value in zip(TIMELINE, shown, strict=True):
            kept[name].append(value)
    arrived, served, dropped, violating, offered = sums
    p50, p95, p99 = percentile_ms(latencies() - before, (50.0, 95.0, 99.0), edges_s)
    return Outcome(
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        violation_share=float(violating / max(arrived, 1e-9)),
        dropped_share=float(dropped / max(arrived, 1e-9)),
        retry_share=float(1.0 - offered / max(arrived, 1e-9)),
        replica_hours=float((billed_s() - billed_before_s) / 3600.0),
        arrived=float(arrived),
        served=float(served),
        timeline={name: np.array(values) for name, values in kept.items()},
    )


TIMELINE = ("requests_per_s", "ready", "desired", "p95_ms", "violation_share")
_SUMMED = ("arrived", "served", "dropped", "violating", "offered")


def _joint_p95(interval: Interval) -> float:
    """Over pools: their mean, by requests served; NaN where none were."""
    weights = np.where(np.isfinite(interval.p95_ms), interval.served, 0.0)
    if weights.sum() <= 0:
        return math.nan
    return float(np.sum(np.nan_to_num(interval.p95_ms) * weights) / weights.sum())


def _decider(
    scenario: FidelityScenario, simulator: ServicePhysics | RequestSimulator | _FluidPools
) -> Callable[[int], IntArray]:
    """What gives the replicas to ask for in a step, `[P]`."""
    if scenario.policy is None:
        return lambda step: np.array([_at(pool.replicas, step, scenario) for pool in scenario.pools])
    assert not isinstance(simulator, _FluidPools), "a scenario with pools has no policy"
    engine = _engine(scenario)

    def decide(step: int) -> IntArray:
        now_s = 2 * DAY_S + step * scenario.sync_period_s
        decisions = engine.step(now_s, to_samples(simulator.metrics()))
        return np.asarray(decisions.desired_replicas)

    return decide


def _engine(scenario: FidelityScenario) -> Engine:
    plan, params = scenario.policy, scenario.pools[0].params
    assert plan is not None
    spec = ServiceSpec(
        min_replicas=plan.min_replicas,
        max_replicas=plan.max_replicas,
        sync_period_s=float(scenario.sync_period_s),
        slo_latency_ms=scalar(params.slo_latency_ms),
        slo_percentile=scalar(params.slo_percentile),
        preference=plan.preference,
        capacity_rps=scalar(params.capacity_rps),
        start_up_s=scalar(params.start_up_s),
    )
    setting: Setting
    if plan.kind == "HPA":
        setting = hpa(spec, plan.target_utilisation, plan.scale_down_window_s)
    else:
        setting = forecast(spec, plan.preference, plan.target_utilisation)
    return Engine([setting.spec], [setting.policy])


def _at(replicas: tuple[tuple[int, int], ...], step: int, scenario: FidelityScenario) -> int:
    now = step * scenario.sync_period_s
    return [count for begin, count in replicas if begin <= now][-1]


def _first_counts(scenario: FidelityScenario) -> IntArray:
    return np.array([pool.replicas[0][1] for pool in scenario.pools])


def _stacked(scenario: FidelityScenario) -> ServiceParams:
    """The pools' constants as arrays `[P]`."""
    names = [item.name for item in fields(ServiceParams)]
    return ServiceParams(
        **{name: np.array([scalar(getattr(pool.params, name)) for pool in scenario.pools]) for name in names}
    )


def _longest_ms(scenario: FidelityScenario) -> float:
    """No request that the fluid serves takes longer."""
    each = [scalar(pool.params.base_latency_ms) for pool in scenario.pools]
    patience = [1000.0 * scalar(pool.params.timeout_s) for pool in scenario.pools]
    return min(one + other for one, other in zip(each, patience, strict=True))


def _bounds_ms(scenario: FidelityScenario) -> FloatArray:
    """Edges of the request level's buckets, as far as the fluid needs them."""
    edges = 1000.0 * bucket_edges_s()
    least = min(scalar(pool.params.base_latency_ms) for pool in scenario.pools)
    return np.asarray(edges[(edges > 0.02 * least) & (edges < _longest_ms(scenario))])


def _service(
    given: Mapping[str, Any], where: str, balancer: str, proxies: int, base: ServiceParams | None = None
) -> ServiceParams:
    for name, value in given.items():
        _number(value, f"{where}.{name}")
    params = replace(base or ServiceParams(), **{name: float(value) for name, value in given.items()})
    params = replace(
        params,
        balancer=float(BALANCERS.index(balancer)),
        proxies=float(proxies),
        # of arrivals and service times within a second, which are Poisson and gamma
        burstiness=0.5 * (1.0 + scalar(params.service_cv2)),
    )
    try:
        params.matrix(1)
    except ParameterError as error:
        raise ParameterError(*_moved(error, where)) from None
    shortest = 1000.0 / scalar(params.capacity_rps)
    if scalar(params.base_latency_ms) < shortest * (1 - 1e-9):
        raise ParameterError(
            f"{where}.base_latency_ms",
            scalar(params.base_latency_ms),
            f"at least 1000 / capacity_rps ({shortest:g}): one worker needs that for a request",
        )
    return params


def _moved(error: ParameterError, where: str) -> tuple[str, Any, str]:
    """The same error, its field named from the top of the file."""
    value, _, allowed = str(error).removeprefix(f"{error.name}: ").partition(" is not allowed, must be ")
    return f"{where}.{error.name}", _Shown(value), allowed


class _Shown(str):
    """A text that is shown as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _policy(given: Any) -> ScalingPlan:
    known = tuple(item.name for item in fields(ScalingPlan))
    mapping = _mapping(given, "policy", known)
    if "kind" not in mapping:
        raise ParameterError("policy.kind", None, "given: HPA or Forecast")
    values: dict[str, Any] = {"kind": _one_of(mapping["kind"], "policy.kind", ("HPA", "Forecast"))}
    for name in ("scale_down_window_s", "min_replicas", "max_replicas"):
        if name in mapping:
            values[name] = _whole(mapping[name], f"policy.{name}", 0, 100_000)
    for name in ("target_utilisation", "preference"):
        if name in mapping:
            values[name] = float(_number(mapping[name], f"policy.{name}"))
    plan = ScalingPlan(**values)
    if not 0 < plan.target_utilisation <= 1:
        raise ParameterError(
            "policy.target_utilisation", plan.target_utilisation, "greater than 0 and at most 1"
        )
    if not 0 <= plan.preference <= 100:
        raise ParameterError("policy.preference", plan.preference, "in 0..100")
    if not 1 <= plan.min_replicas <= plan.max_replicas:
        raise ParameterError(
            "policy.min_replicas", plan.min_replicas, f"in 1..max_replicas ({plan.max_replicas})"
        )
    return plan


def _pools(
    top: Mapping[str, Any],
    base: Mapping[str, Any],
    balancer: str,
    proxies: int,
    sync_s: int,
    duration_s: int,
) -> tuple[PoolPlan, ...]:
    if "replicas" in top:
        raise ParameterError("replicas", top["replicas"], "with each pool where there are pools")
    listed = top["pools"]
    if not isinstance(listed, Sequence) or isinstance(listed, str) or len(listed) < 2:
        raise ParameterError("pools", listed, "a list of at least two pools")
    common = _service(base, "service", balancer, proxies)
    found: list[PoolPlan] = []
    for index, each in enumerate(listed):
        where = f"pools[{index}]"
        mapping = _mapping(each, where, ("name", "replicas", "service", *_RECLAIMED))
        name = _text(mapping.get("name", ""), f"{where}.name")
        if not name or name in [pool.name for pool in found]:
            raise ParameterError(f"{where}.name", name, "given, and unique")
        own = _mapping(mapping.get("service", {}), f"{where}.service", _SERVICE)
        params = _service(own, f"{where}.service", balancer, proxies, common)
        counts = _schedule(mapping.get("replicas"), f"{where}.replicas", sync_s, duration_s)
        taken = {key: float(_number(mapping[key], f"{where}.{key}")) for key in _RECLAIMED if key in mapping}
        try:
            PoolParams(**taken).matrix(1, 1)
        except ParameterError as error:
            raise ParameterError(*_moved(error, where)) from None
        if scalar(params.arrival_dispersion) != 1.0:
            raise ParameterError(
                f"{where}.service.arrival_dispersion",
                scalar(params.arrival_dispersion),
                "1: a route's arrivals are Poisson",
            )
        found.append(PoolPlan(name, params, counts, **taken))
    return tuple(found)


_RECLAIMED = ("reclaims_per_hour", "sweeps_per_hour", "sweep_share", "notice_s")


def _weights(
    top: Mapping[str, Any], names: Sequence[str], sync_s: int, duration_s: int
) -> tuple[tuple[int, tuple[float, ...]], ...]:
    listed = top.get("weights")
    if isinstance(listed, Mapping):
        listed = [{"at_s": 0, "shares": listed}]
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise ParameterError("weights", listed, "a mapping of pools to weights, or a list of {at_s, shares}")
    result = []
    for index, each in enumerate(listed):
        where = f"weights[{index}]"
        mapping = _mapping(each, where, ("at_s", "shares"))
        at_s = _whole(mapping.get("at_s"), f"{where}.at_s", 0, duration_s, sync_s)
        shares = _mapping(mapping.get("shares"), f"{where}.shares", names)
        values = tuple(float(_number(shares.get(name, 0), f"{where}.shares.{name}")) for name in names)
        if min(values) < 0 or sum(values) <= 0:
            raise ParameterError(f"{where}.shares", dict(shares), "0 or more, and above 0 for at least one")
        if np.abs(100.0 * np.asarray(values) / sum(values) % 1.0 - 0.5).min() < 0.5 - 1e-6:
            raise ParameterError(f"{where}.shares", dict(shares), "whole percents of their sum")
        result.append((at_s, values))
    _ascending([at_s for at_s, _ in result], "weights")
    return tuple(result)


def _schedule(given: Any, where: str, sync_s: int, duration_s: int) -> tuple[tuple[int, int], ...]:
    if isinstance(given, int) and not isinstance(given, bool):
        return ((0, _whole(given, where, 0, 100_000)),)
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise ParameterError(where, given, "a whole number, or a list of {at_s, count}")
    found = []
    for index, each in enumerate(given):
        place = f"{where}[{index}]"
        mapping = _mapping(each, place, ("at_s", "count"))
        at_s = _whole(mapping.get("at_s"), f"{place}.at_s", 0, duration_s, sync_s)
        found.append((at_s, _whole(mapping.get("count"), f"{place}.count", 0, 100_000)))
    _ascending([at_s for at_s, _ in found], where)
    return tuple(found)


def _ascending(moments: Sequence[int], where: str) -> None:
    if moments[0] != 0 or any(b <= a for a, b in itertools.pairwise(moments)):
        raise ParameterError(f"{where}.at_s", list(moments), "ascending, from 0")


def _mapping(value: Any, where: str, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ParameterError(where, value, "a mapping")
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1, 0.5)
            meant = f"; the nearest is {near[0]}" if near else ""
            place = str(name) if where == "the file" else f"{where}.{name}"
            raise ParameterError(place, value[name], f"absent{meant}; known are {', '.join(known)}")
    return value


def _one_of(value: Any, where: str, known: Sequence[str]) -> str:
    if value not in known:
        near = difflib.get_close_matches(str(value), known, 1, 0.5)
        meant = f"; the nearest is {near[0]}" if near else ""
        raise ParameterError(where, value, f"one of {', '.join(known)}{meant}")
    return str(value)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ParameterError(where, value, "a number")
    return value


def _whole(value: Any, where: str, least: int, most: int, step: int = 1) -> int:
    multiple = f", a multiple of {step} (sync_period_s)" if step > 1 else ""
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not least <= value <= most
        or (step > 1 and value % step)
    ):
        raise ParameterError(where, value, f"a whole number in {least}..{most}{multiple}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ParameterError(where, value, "text")
    return " ".join(value.split())
