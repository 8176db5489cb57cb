"""Where the episodes of the autoscaling environments come from, fast enough for millions of steps a second.

An episode is a service (constants and specification), a stretch of traffic with its past, and noise. Drawing
all that anew with `sim.workloads` and `sim.scenario` takes milliseconds, as long as thousands of steps. So
two banks are drawn by those modules, once in a process for each configuration, and an episode takes from
them:

* `Traffic`: SHAPES traffics, each longer by SPARE_S at least than an episode and its past. An episode takes
  a random stretch of one of them, or (MIXED_SHARE of them) of two, added at a random ratio; it is scaled to
  the peak that its service was drawn for, and both arrivals and metrics add noise of their own.
* `Services`: SERVICES services with their specifications, all fields of `ScenarioConfig` but those drawn
  anew for every episode: preference, replicas at the start, start time, length of the known past.

What is shared, then: the constants of services, and the shapes that stretches are cut from, are the same for
every seed. With thousands of stretches a shape, tens of thousands of pairs and every service under any of
them (loads enter observations as ratios), an agent does not see an episode twice.

Everything that an episode takes is a function of its service's seed and of the episode's number: a service
of a batch lives as a lone one with its seed. Bank entries are made when first taken, each by a generator of
its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core import ServiceSpec
from sim.compiled import inlined, inner
from sim.fused.engine import rule_matrix, setting_columns
from sim.fused.layout import SETTINGS, FloatArray, IntArray
from sim.noise import uniform
from sim.physics import FIELDS, ServiceParams, scalar
from sim.scenario import ScenarioConfig, draw_params, draw_spec
from sim.workloads import DAY_S, WorkloadMix, sample_workload

SHAPES = 256
SERVICES = 2048
MIXED_SHARE = 1.0 / 3.0
"""Share of the episodes whose traffic is the sum of two."""
MOST_MIXED = 0.5
"""Largest share of the second traffic in such a sum, of their peaks."""
SPARE_S = 1.5 * DAY_S
"""Least length of a shape beyond what an episode needs: where its stretch may begin. Shapes have whole
days."""
RATE_RULES = 2
_TRAFFIC_SEED, _SERVICE_SEED = 20_260_101, 20_260_102

PLAN = (
    "service", "shape", "second_shape", "second_share", "offset", "second_offset", "history", "start_s",
    "preference", "headroom", "noise_seed", "first_length", "first", "warm_up", "nodes",
)  # fmt: skip
"""Columns of an episode's plan. offset, second_offset, history, warm_up, nodes: bins of `rate_period_s`.
history: of the known past; nodes: of the rates from the warm-up on. first: bin of a stretch that the rates
begin at. headroom: load over replicas at the start. first_length: share of the horizon, for batches that
stagger."""
(E_SERVICE, E_SHAPE, E_SECOND, E_SECOND_SHARE, E_OFFSET, E_SECOND_OFFSET, E_HISTORY, E_START, E_PREFERENCE,
 E_HEADROOM, E_NOISE_SEED, E_FIRST_LENGTH, E_FIRST, E_WARM_UP, E_NODES) = range(len(PLAN))  # fmt: skip
_DRAWS = 13


@dataclass
class Traffic:
    """Shapes of traffic, float32 `[SHAPES, bins]`, each with a peak of 1, and which of them are there yet."""

    mix: WorkloadMix
    period_s: float
    bins: int

    def __post_init__(self) -> None:
        self.shapes = np.zeros((SHAPES, self.bins), dtype=np.float32)
        self._there = np.zeros(SHAPES, dtype=np.bool_)

    def prepare(self, wanted: IntArray) -> None:
        """Make the shapes that are not there yet."""
        for index in np.unique(wanted[~self._there[wanted]]):
            rng = np.random.default_rng([_TRAFFIC_SEED, int(index)])
            drawn = sample_workload(rng, (self.bins - 1) * self.period_s, self.period_s, self.mix)
            self.shapes[index] = drawn[: self.bins]
            self._there[index] = True


class Services:
    """Services and their specifications as rows of the physics' and the engine's tables."""

    def __init__(self, config: ScenarioConfig) -> None:
        self.config = config
        self.params = np.zeros((SERVICES, len(FIELDS)))
        self.settings = np.zeros((SERVICES, len(SETTINGS)))
        self.rules = np.zeros((SERVICES, 2, RATE_RULES, 4))
        self.peak_rps = np.zeros(SERVICES)
        self.specs: list[ServiceSpec | None] = [None] * SERVICES
        self._there = np.zeros(SERVICES, dtype=np.bool_)

    def prepare(self, wanted: IntArray) -> None:
        """Draw the services that are not there yet."""
        for index in np.unique(wanted[~self._there[wanted]]):
            self._draw(int(index), np.random.default_rng([_SERVICE_SEED, int(index)]))
            self._there[index] = True

    def _draw(self, index: int, rng: np.random.Generator) -> None:
        config = self.config
        sync_s = int(rng.choice(config.sync_periods_s))
        params = draw_params(rng, config)
        low, high = (math.log(bound) for bound in config.peak_replicas)
        peak = math.exp(rng.uniform(low, high))
        spec = draw_spec(rng, config, params, peak, sync_s)
        self.specs[index] = spec
        self.params[index] = params.matrix(1)[0]
        # a network as far as the guard is concerned: its fallbacks are those that it has when serving
        self.settings[index] = setting_columns(spec, {"network": 1.0, "needs_capacity": 1.0, "absent": 0.0})
        self.rules[index] = rule_matrix(spec, RATE_RULES)
        self.peak_rps[index] = peak * scalar(params.capacity_rps)


class Episodes:
    """The two banks of a configuration, and the plans of episodes."""

    def __init__(self, config: ScenarioConfig, horizon_steps: int) -> None:
        self.config, self.horizon_steps = config, horizon_steps
        period_s = config.rate_period_s
        warm_up = math.ceil(longest_warm_up_s(config) / period_s)
        past = max(math.ceil(length / period_s) for length in config.histories_s)
        ahead = math.ceil(horizon_steps * max(config.sync_periods_s) / period_s)
        self.rate_nodes = warm_up + ahead + 3
        """Rates from the warm-up on, a row's slots in the physics' rate table."""
        self.needed = past + self.rate_nodes
        days = math.ceil((self.needed * period_s + SPARE_S) / DAY_S)
        bins = math.ceil(days * DAY_S / period_s)
        self.traffic: Traffic = _shared(
            ("traffic", repr(config.mix), period_s, bins), lambda: Traffic(config.mix, period_s, bins)
        )
        self.services: Services = _shared(("services", repr(config)), lambda: Services(config))
        self._histories = np.array(
            [math.ceil(length / period_s) for length in config.histories_s], dtype=np.float64
        )
        self._ranges = np.array([*config.preference, bins, self.needed], dtype=np.float64)

    def fill(self) -> None:
        """Make every entry of both banks: a second or two, once in a process, for who begins many
        episodes."""
        self.services.prepare(np.arange(SERVICES))
        self.traffic.prepare(np.arange(SHAPES))

    def plan(self, seeds: npt.NDArray[np.uint64], numbers: IntArray) -> FloatArray:
        """Plans float64 `[N, PLAN]` of the episodes with these numbers in these services' lives."""
        plans = np.empty((len(seeds), len(PLAN)))
        plan_rows(seeds, np.asarray(numbers, dtype=np.int64), self._histories, self._ranges, plans)
        chosen = plans[:, [E_SERVICE, E_SHAPE, E_SECOND]].astype(np.int64)
        self.services.prepare(chosen[:, 0])
        self.traffic.prepare(chosen[:, 1:].ravel())
        self._lay_out(plans, chosen[:, 0])
        return plans

    def _lay_out(self, plans: FloatArray, services: IntArray) -> None:
        """What depends on the service: the warm-up, and how many rates it needs."""
        params, period_s = self.services.params[services], self.config.rate_period_s
        warm_up_s = np.ceil((params[:, _WINDOW] + params[:, _SCRAPE] + params[:, _LAG]) / 60.0) * 60.0
        plans[:, E_WARM_UP] = np.round(warm_up_s / period_s)
        sync_s = self.services.settings[services, SETTINGS.index("sync_period_s")]
        ahead = np.ceil(self.horizon_steps * sync_s / period_s)
        plans[:, E_NODES] = np.minimum(plans[:, E_WARM_UP] + ahead + 1, self.rate_nodes)

    def spec(self, plan: FloatArray) -> ServiceSpec:
        """The specification of a planned episode."""
        spec: ServiceSpec | None = self.services.specs[int(plan[E_SERVICE])]
        assert spec is not None
        return replace(spec, preference=float(plan[E_PREFERENCE]))

    def params(self, plan: FloatArray) -> ServiceParams:
        """The constants of a planned episode's service."""
        row = self.services.params[int(plan[E_SERVICE])]
        return ServiceParams(**dict(zip(FIELDS, row.tolist(), strict=True)))


def service_seeds(seed: int, services: int, clones: int) -> npt.NDArray[np.uint64]:
    """Service i's own seed: a mixture of `seed + i // clones`, so that neighbouring seeds have nothing in
    common."""
    own = [np.random.SeedSequence(seed + index).generate_state(1, np.uint64)[0] >> np.uint64(1)
           for index in range(-(-services // clones))]  # fmt: skip
    return np.repeat(np.array(own, dtype=np.uint64), clones)[:services]


def longest_warm_up_s(config: ScenarioConfig) -> float:
    """Seconds in which any drawn service's metrics fill up."""
    interval_s = max(config.scrape_intervals_s)
    lag_s = float(np.max(getattr(config, "metric_lag_s", 0.0)))
    window_s = max(max(config.windows_s), 2 * interval_s + 1)
    return math.ceil((window_s + interval_s + lag_s) / 60.0) * 60.0


_WINDOW, _SCRAPE, _LAG = (FIELDS.index(name) for name in ("window_s", "scrape_interval_s", "metric_lag_s"))
_banks: dict[Any, Any] = {}


def _shared(key: Any, make: Any) -> Any:
    if key not in _banks:
        _banks[key] = make()
    return _banks[key]


@inlined
def _draw(seed, number, draw):  # type: ignore[no-untyped-def]
    return uniform(seed, number * _DRAWS + draw, _STREAM)


_STREAM = 40


@inner
def plan_rows(seeds, numbers, histories, ranges, plans):  # type: ignore[no-untyped-def]
    """Draw the plans `[N, PLAN]`; ranges: (lowest, highest preference, bins of a shape, bins needed)."""
    for k in range(len(seeds)):
        seed, number, plan = seeds[k], numbers[k], plans[k]
        plan[E_SERVICE] = math.floor(_draw(seed, number, 0) * SERVICES)
        plan[E_SHAPE] = math.floor(_draw(seed, number, 1) * SHAPES)
        plan[E_SECOND], plan[E_SECOND_SHARE] = plan[E_SHAPE], 0.0
        if _draw(seed, number, 2) < MIXED_SHARE:
            plan[E_SECOND] = math.floor(_draw(seed, number, 3) * SHAPES)
            plan[E_SECOND_SHARE] = MOST_MIXED * _draw(seed, number, 4)
        plan[E_HISTORY] = histories[int(_draw(seed, number, 5) * len(histories))]
        places = ranges[2] - ranges[3] + 1.0
        plan[E_OFFSET] = math.floor(_draw(seed, number, 6) * places)
        plan[E_SECOND_OFFSET] = math.floor(_draw(seed, number, 7) * places)
        plan[E_FIRST] = plan[E_HISTORY]
        # a day into the clock, so that there is room for a past; then any minute of a week
        plan[E_START] = DAY_S + 60.0 * math.floor(_draw(seed, number, 8) * 7 * 24 * 60)
        plan[E_PREFERENCE] = ranges[0] + (ranges[1] - ranges[0]) * _draw(seed, number, 9)
        plan[E_HEADROOM] = 0.35 + 0.6 * _draw(seed, number, 10)
        plan[E_NOISE_SEED] = math.floor(_draw(seed, number, 11) * 9007199254740992.0) + 1.0
        plan[E_FIRST_LENGTH] = _draw(seed, number, 12)
