"""Any policy over any trace: engine, guard and physics as in the environments, without an agent.

`replay` runs every setting on every window in one batch, with the same arrivals for all (common random
numbers). A setting is a policy under a specification (`sim.baselines.Setting`), or `Foresight`: the
clairvoyant plan at one price of violations, executed by the same physics. `Protocol` is the comparison that
the project's figures come from: one-day windows of recorded traffic, scaled to a peak of 60 replicas,
start-up 60 s, decisions every 15 s. Called by `training/evaluate.py`, tests and benchmarks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from typing import Protocol as Interface

import numpy as np
import numpy.typing as npt

from controller.core import Engine, ServiceSpec
from sim.baselines import Setting
from sim.clairvoyant import Plan, Problem, make_plan
from sim.compiled import counted
from sim.errors import TraceError, require
from sim.physics import Interval, ServiceParams, ServicePhysics, scalar, to_samples
from sim.traces import Trace, load_trace

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
EngineName = Literal["fused", "core"]
DAY_S = 86400.0
WORST_SPAN_S = 300.0
"""`worst_violation` is the worst share of violating requests in any such span."""
HISTORY_STEP_S = 15.0
MOST_MISSING = 0.5
"""A window of which the recording lacks more than this share is left out; other gaps are interpolated."""
LATENCY_BOUNDS = 32
PENALTIES = tuple(float(penalty) for penalty in np.round(np.geomspace(60.0, 30_000.0, 14), 1))
"""Prices of violations that trace the clairvoyant's frontier from a few percent to nearly none."""
TIMELINE = ("requests_per_s", "desired", "ready", "p95_ms", "p99_ms", "violation_share", "recommended")


@dataclass(frozen=True)
class Protocol:
    """How traces become a service's load, and the service itself."""

    window_s: float = DAY_S
    """Length of a window; shorter traces are used whole if they reach `shortest_s`."""
    shortest_s: float = 1800.0
    """Traces below this length are left out."""
    windows_per_trace: int = 3
    """At most so many windows of a trace: its busiest, then others evenly over its length."""
    peak_replicas: float = 60.0
    """Load at each window's peak, in replicas."""
    max_replicas: int = 120
    """maxReplicas of every setting."""
    min_replicas: int = 1
    """minReplicas of every setting."""
    sync_period_s: int = 15
    """Between two decisions."""
    warm_up_s: int = 600
    """Simulated before the window at its first rate, at a comfortable size; not counted."""
    history: bool = True
    """Whether histories are backfilled with what the trace shows before the window (up to a day)."""
    params: ServiceParams = field(default_factory=lambda: ServiceParams(capacity_rps=25.0, start_up_s=60.0))
    """The service: 25 requests/s a replica, p95 objective 250 ms over 40 ms without waiting."""
    stated_capacity: float = 1.0
    """What the specification says of the capacity, over the true one; NaN: nothing, it is to be estimated."""
    stated_start_up: float = 1.0
    """What the specification says of the start-up time, over the true one."""

    def __post_init__(self) -> None:
        require(not self.stated_capacity <= 0, "stated_capacity", self.stated_capacity, "above 0, or NaN")
        require(self.stated_start_up > 0, "stated_start_up", self.stated_start_up, "above 0")

    def spec(self, preference: float = 50.0) -> ServiceSpec:
        """What a user would write about that service; correctly, unless the protocol says otherwise."""
        return ServiceSpec(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            sync_period_s=float(self.sync_period_s),
            slo_latency_ms=scalar(self.params.slo_latency_ms),
            slo_percentile=scalar(self.params.slo_percentile),
            preference=preference,
            capacity_rps=scalar(self.params.capacity_rps) * self.stated_capacity,
            start_up_s=scalar(self.params.start_up_s) * self.stated_start_up,
        )


@dataclass(frozen=True)
class Window:
    """A piece of a trace, scaled, from second 0; `history` is what came before, at negative times."""

    trace: Trace
    history: Trace | None = None
    source: str = ""
    """The trace that it was cut from; "" is the window itself."""
    start_s: float = 0.0
    """Where in that trace it begins."""

    @property
    def name(self) -> str:
        """The piece's name: the trace's, and where in it the piece begins."""
        return self.trace.name

    @property
    def digest(self) -> str:
        """sha256 (hex) of its numbers: two windows with one digest replay alike but for their arrivals."""
        parts = [self.trace] if self.history is None else [self.trace, self.history]
        content = hashlib.sha256()
        for part in parts:
            content.update(np.int64(len(part)).tobytes())
            content.update(np.ascontiguousarray(part.times_s).tobytes())
            content.update(np.ascontiguousarray(part.rate_rps).tobytes())
        return content.hexdigest()


@dataclass(frozen=True)
class LeftOut:
    """A trace, or a piece of one, that the protocol cannot use."""

    name: str
    reason: str


@dataclass(frozen=True)
class Foresight:
    """A setting that knows the whole window beforehand: the clairvoyant plan at one price of violations.

    penalty: what all requests violating would cost, in replicas all the time (see `sim.clairvoyant`).
    """

    penalty: float

    @property
    def name(self) -> str:
        """`clairvoyant-<penalty>`."""
        return f"clairvoyant-{self.penalty:g}"


@dataclass(frozen=True)
class ReplayResult:
    """Figures of S settings on W windows, float `[S, W]`.

    replica_hours: billed. cost: those over the ideal (load over capacity, integrated: no rounding, no
    start-up). violation: share of requests over the objective or timed out. dropped: share timed out.
    p95_ms: mean over requests of the 1-s p95. p99_ms: 99th percentile over all requests of the window,
    see `LatencyCounts` (requests that timed out count as the longest possible latency; NaN without
    requests). worst_violation: the worst five minutes' share.
    flaps_per_hour: changes of direction. max_replicas: most asked for. timeline: arrays `[S, W, steps]`
    by name (TIMELINE), if asked for; NaN after the end of shorter windows.
    """

    settings: tuple[str, ...]
    windows: tuple[str, ...]
    replica_hours: FloatArray
    ideal_replica_hours: FloatArray
    cost: FloatArray
    violation: FloatArray
    dropped: FloatArray
    p95_ms: FloatArray
    p99_ms: FloatArray
    worst_violation: FloatArray
    flaps_per_hour: FloatArray
    max_replicas: FloatArray
    timeline: dict[str, FloatArray]


def protocol_windows(traces: Sequence[Trace | str | Path], protocol: Protocol | None = None) -> list[Window]:
    """Windows of these traces (or CSV files) as the protocol has them, scaled.

    Traces that are too short, or without any request, are left out: `cut_windows` says which.
    """
    loaded = [trace if isinstance(trace, Trace) else load_trace(trace) for trace in traces]
    return cut_windows(loaded, protocol)[0]


def cut_windows(
    traces: Sequence[Trace], protocol: Protocol | None = None
) -> tuple[list[Window], list[LeftOut]]:
    """Windows as `protocol_windows`, and what could not be used with the reason."""
    rules = protocol or Protocol()
    windows: list[Window] = []
    left_out: list[LeftOut] = []
    for trace in traces:
        reason = _unusable(trace, rules)
        if reason:
            left_out.append(LeftOut(trace.name, reason))
            continue
        length = min(rules.window_s, trace.duration_s)
        for start in _starts(trace, length, rules.windows_per_trace):
            found = _cut(trace, start, length, rules)
            if isinstance(found, Window):
                windows.append(found)
            else:
                left_out.append(LeftOut(f"{trace.name}@{start:.0f}s", found))
    return windows, left_out


def replay(
    windows: Sequence[Window | Trace],
    settings: Sequence[Setting | Foresight],
    protocol: Protocol | None = None,
    seed: int | Sequence[int] = 0,
    timeline: bool = False,
    engine: EngineName = "fused",
) -> ReplayResult:
    """Every setting on every window, in one batch of S x W services.

    Traces are taken as they are, in requests/s (`protocol_windows` scales). seed: one for all windows or one
    for each; with a window's name it decides its arrivals, whatever else is in the batch and under every
    setting. engine: who runs the settings' policies and guard, `sim.fused` or `controller.core`; both
    decide the same.
    """
    require(
        len(windows) > 0 and len(settings) > 0,
        "windows, settings",
        (len(windows), len(settings)),
        "not empty",
    )
    rules = protocol or Protocol()
    _check_periods(settings, rules)
    run = _Run([_window(each) for each in windows], len(settings), rules, seed, timeline)
    pilots = _pilots(run, settings, engine)
    for step in range(run.steps):
        running = run.running(step)
        for pilot in pilots:
            index = np.flatnonzero(running[pilot.rows])
            rows = pilot.rows[index]
            desired, recommended = pilot.decide(step, index, rows)
            run.advance(step, rows, desired, recommended)
    return run.result([setting.name for setting in settings])


def replay_clairvoyant(
    windows: Sequence[Window | Trace],
    penalties: Sequence[float] = PENALTIES,
    protocol: Protocol | None = None,
    seed: int | Sequence[int] = 0,
    timeline: bool = False,
) -> ReplayResult:
    """`replay` of the clairvoyant plan at each of these penalties."""
    return replay(windows, [Foresight(penalty) for penalty in penalties], protocol, seed, timeline)


class _Pilot(Interface):
    """Who decides for some rows of a run, step by step."""

    rows: IntArray

    def decide(self, step: int, index: IntArray, rows: IntArray) -> tuple[IntArray, FloatArray]:
        """Desired and recommended replicas of the pilot's rows at `index` (`rows` in the run)."""
        ...


class _EnginePilot:
    """Settings' policies behind the guard, told what the metrics show."""

    def __init__(self, run: _Run, rows: IntArray, settings: Sequence[Setting], engine: EngineName) -> None:
        self.rows, self._run = rows, run
        each = len(run.windows)
        make = Engine if engine == "core" else _fused_engine()
        self._engine = make(
            [setting.spec for setting in settings for _ in range(each)],
            [setting.policy for setting in settings for _ in range(each)],
        )
        run.backfill(self._engine, rows)

    def decide(self, step: int, index: IntArray, rows: IntArray) -> tuple[IntArray, FloatArray]:
        samples = to_samples(self._run.physics.metrics(rows))
        decisions = self._engine.step(self._run.now_s(step), samples, index)
        return decisions.desired_replicas, decisions.recommended_replicas


class _PlanPilot:
    """Clairvoyant plans, carried out."""

    def __init__(self, run: _Run, rows: IntArray, foresights: Sequence[Foresight]) -> None:
        self.rows = rows
        problems = [run.problem(each) for each in range(len(run.windows))]
        shares = [problem.violations() for problem in problems]
        plans: list[Plan] = [
            make_plan(problem, foresight.penalty, share)
            for foresight in foresights
            for problem, share in zip(problems, shares, strict=True)
        ]
        self._desired = np.zeros((len(plans), run.steps), dtype=np.int64)
        for row, plan in enumerate(plans):
            self._desired[row, : len(plan.desired)] = plan.desired
        run.physics.place(rows, self._desired[:, 0])

    def decide(self, step: int, index: IntArray, rows: IntArray) -> tuple[IntArray, FloatArray]:
        desired = self._desired[index, step]
        return desired, desired.astype(np.float64)


def _pilots(run: _Run, settings: Sequence[Setting | Foresight], engine: EngineName) -> list[_Pilot]:
    each = len(run.windows)
    blocks = np.arange(len(settings) * each).reshape(len(settings), each)
    planned = [index for index, setting in enumerate(settings) if isinstance(setting, Foresight)]
    asked = [index for index in range(len(settings)) if index not in set(planned)]
    pilots: list[_Pilot] = []
    if asked:
        chosen = [setting for setting in settings if isinstance(setting, Setting)]
        pilots.append(_EnginePilot(run, blocks[asked].ravel(), chosen, engine))
    if planned:
        foresights = [setting for setting in settings if isinstance(setting, Foresight)]
        pilots.append(_PlanPilot(run, blocks[planned].ravel(), foresights))
    return pilots


def _fused_engine() -> Any:
    from sim.fused import FusedEngine

    return FusedEngine


class _Run:
    """Physics and book-keeping of S x W services; row = setting * W + window."""

    def __init__(
        self,
        windows: list[Window],
        settings: int,
        rules: Protocol,
        seed: int | Sequence[int],
        timeline: bool,
    ) -> None:
        self.windows, self.rules, self.count = windows, rules, settings
        self.window_of = np.tile(np.arange(len(windows)), settings)
        self._steps_of = np.array([int(window.trace.duration_s // rules.sync_period_s) for window in windows])
        require(
            bool((self._steps_of > 0).all()), "windows", self._steps_of.min(), "longer than a sync period"
        )
        self.steps = int(self._steps_of.max())
        self._capacity = scalar(rules.params.capacity_rps)
        # slow control must not smooth the traffic
        coarse = rules.sync_period_s % HISTORY_STEP_S == 0
        self._rate_period_s = HISTORY_STEP_S if coarse else float(rules.sync_period_s)
        self._rates = self._table()
        self.physics = self._service(_window_seeds(windows, seed))
        self.physics.set_rates(self._rates, self._rate_period_s, self.window_of)
        self.physics.advance(None, rules.warm_up_s)
        rows = len(self.window_of)
        self._latencies = LatencyCounts(rules.params, rows)
        self._sums = np.zeros((7, rows))
        self._worst_share, self._most_replicas = np.zeros(rows), np.zeros(rows)
        self._direction = np.zeros(rows, dtype=np.int64)
        self._recent = np.zeros((2, max(1, round(WORST_SPAN_S / rules.sync_period_s)), rows))
        self._kept = {name: np.full((rows, self.steps), np.nan) for name in TIMELINE} if timeline else {}

    def now_s(self, step: int) -> float:
        """Control time: two days into the clock, so that there is room for a past."""
        return 2 * DAY_S + step * self.rules.sync_period_s

    def running(self, step: int) -> npt.NDArray[np.bool_]:
        """Which rows' windows are not over, bool `[rows]`."""
        return np.asarray(self._steps_of[self.window_of] > step)

    def rates_in_steps(self, window: int) -> FloatArray:
        """Rates in each control step of a window at its start, middle and end, `[T, 3]`."""
        nodes, period_s = self._nodes(window), self.rules.sync_period_s
        times = np.arange(len(nodes)) * self._rate_period_s
        starts = np.arange(self._steps_of[window]) * period_s
        return np.asarray(np.interp(starts[:, None] + np.array([0.0, 0.5, 1.0]) * period_s, times, nodes))

    def problem(self, window: int) -> Problem:
        """What the clairvoyant has to solve for a window."""
        rules = self.rules
        return Problem(
            self.rates_in_steps(window),
            rules.params,
            rules.sync_period_s,
            rules.min_replicas,
            rules.max_replicas,
        )

    def backfill(self, engine: Any, rows: IntArray) -> None:
        """Show an engine, whose services are `rows` in order, what came before each window."""
        for index, window in enumerate(self.windows):
            mine = np.flatnonzero(self.window_of[rows] == index)
            warm_s = np.arange(-self.rules.warm_up_s, 0, HISTORY_STEP_S)
            times, rates = warm_s, np.full(len(warm_s), self._rates[index, 0])
            if self.rules.history and window.history is not None:
                times = np.arange(window.history.times_s[0], 0.0, HISTORY_STEP_S)
                rates = window.history.at(times)
            engine.backfill(self.now_s(0) + times, np.repeat(rates[:, None], len(mine), axis=1), mine)

    def advance(self, step: int, rows: IntArray, desired: IntArray, recommended: FloatArray) -> None:
        """Carry a decision out and let a sync period pass."""
        before = self.physics.replicas[rows]
        self.physics.scale(rows, desired)
        interval = self.physics.advance(rows, self.rules.sync_period_s)
        direction = np.sign(desired - before)
        flaps = (direction * self._direction[rows]) < 0
        self._direction[rows] = np.where(direction != 0, direction, self._direction[rows])
        late_ms = np.nan_to_num(interval.p95_ms) * interval.served
        gained = (
            interval.replica_s,
            interval.violating,
            interval.dropped,
            interval.arrived,
            interval.served,
            late_ms,
            flaps,
        )
        self._sums[:, rows] += np.stack(gained)
        self._worst(step, rows, interval.violating, interval.arrived)
        self._latencies.add(rows, interval)
        self._most_replicas[rows] = np.maximum(self._most_replicas[rows], desired)
        if self._kept:
            self._keep(step, rows, desired, recommended, interval)

    def result(self, settings: list[str]) -> ReplayResult:
        """Sums to figures."""
        replica_s, violating, dropped, arrived, served, late_ms, flaps = self._sums
        hours = self._steps_of[self.window_of] * self.rules.sync_period_s / 3600.0
        ideal_hours = np.array([self._ideal_hours(index) for index in range(len(self.windows))])[
            self.window_of
        ]
        figures = {
            "replica_hours": replica_s / 3600.0,
            "ideal_replica_hours": ideal_hours,
            "cost": replica_s / 3600.0 / ideal_hours,
            "violation": np.minimum(violating / np.maximum(arrived, 1e-9), 1.0),
            "dropped": np.minimum(dropped / np.maximum(arrived, 1e-9), 1.0),
            "p95_ms": late_ms / np.maximum(served, 1e-9),
            "p99_ms": self._latencies.percentile(0.99, served + dropped),
            "worst_violation": self._worst_share,
            "flaps_per_hour": flaps / hours,
            "max_replicas": self._most_replicas,
        }
        shape = (self.count, len(self.windows))
        return ReplayResult(
            settings=tuple(settings),
            windows=tuple(window.name for window in self.windows),
            timeline={name: values.reshape(*shape, self.steps) for name, values in self._kept.items()},
            **{name: np.asarray(values, dtype=np.float64).reshape(shape) for name, values in figures.items()},
        )

    def _service(self, seeds: npt.NDArray[np.uint64]) -> ServicePhysics:
        rules = self.rules
        first = self._rates[self.window_of, 0] / self._capacity
        replicas = np.clip(np.ceil(first / 0.6), max(rules.min_replicas, 1), rules.max_replicas)
        rows = len(self.window_of)
        return ServicePhysics(rules.params, rows, seeds[self.window_of], replicas.astype(np.int64))

    def _table(self) -> npt.NDArray[np.float32]:
        """Rates `[W, nodes]`, one every `_rate_period_s`; the warm-up repeats the first one."""
        period, length_s = self._rate_period_s, self.steps * self.rules.sync_period_s
        warm, count = round(self.rules.warm_up_s / period), round(length_s / period) + 1
        table = np.empty((len(self.windows), warm + count), dtype=np.float32)
        for index, window in enumerate(self.windows):
            nodes = window.trace.at(np.arange(count) * period + window.trace.times_s[0])
            table[index, :warm] = nodes[0]
            table[index, warm:] = nodes
        return table

    def _nodes(self, window: int) -> FloatArray:
        """A window's rates without its warm-up, one every `_rate_period_s`."""
        start = round(self.rules.warm_up_s / self._rate_period_s)
        length = round(self._steps_of[window] * self.rules.sync_period_s / self._rate_period_s)
        return self._rates[window, start : start + length + 1].astype(np.float64)

    def _ideal_hours(self, window: int) -> float:
        nodes = self._nodes(window)
        requests = 0.5 * float((nodes[:-1] + nodes[1:]).sum()) * self._rate_period_s
        return max(requests / self._capacity / 3600.0, 1e-9)

    def _worst(self, step: int, rows: IntArray, violating: FloatArray, arrived: FloatArray) -> None:
        slots = self._recent.shape[1]
        self._recent[0, step % slots, rows], self._recent[1, step % slots, rows] = violating, arrived
        # before five minutes are full only a window that ends here may count
        whole = (step + 1 >= slots) | (self._steps_of[self.window_of[rows]] == step + 1)
        late, all_of = self._recent[:, :, rows].sum(axis=1)
        share = np.where(whole, np.minimum(late / np.maximum(all_of, 1e-9), 1.0), 0.0)
        self._worst_share[rows] = np.maximum(self._worst_share[rows], share)

    def _keep(
        self, step: int, rows: IntArray, desired: IntArray, recommended: FloatArray, interval: Interval
    ) -> None:
        shown = (
            interval.arrived / interval.seconds,
            desired,
            self.physics.ready[rows],
            interval.p95_ms,
            interval.p99_ms,
            interval.violation_share,
            recommended,
        )
        for name, values in zip(TIMELINE, shown, strict=True):
            self._kept[name][rows, step] = values


class LatencyCounts:
    """How many requests of each row were served within LATENCY_BOUNDS latencies, from intervals' percentiles.

    An interval's distribution is taken from its p50, p95 and p99 (means of the 1-s ones): between them, and
    beyond p99 as between p95 and p99, the logarithm of the share above falls linearly, as the tail of the
    wait does. Bounds lie evenly in logarithms from hardly any wait to the longest latency there is, 20 %
    apart at the defaults, and between two bounds a percentile is interpolated.
    """

    def __init__(self, params: ServiceParams, rows: int) -> None:
        base = scalar(params.base_latency_ms)
        longest = base + 1000.0 * scalar(params.timeout_s)
        self.bounds_ms = np.geomspace(base * 1.02, longest * (1 + 1e-9), LATENCY_BOUNDS)
        self._counts = np.zeros((rows, LATENCY_BOUNDS))

    def add(self, rows: IntArray, interval: Interval) -> None:
        """Count an interval of these rows."""
        percentiles = (interval.p50_ms, interval.p95_ms, interval.p99_ms)
        _count_latencies(rows, *percentiles, interval.served, self.bounds_ms, self._counts)

    def percentile(self, quantile: float, total: FloatArray) -> FloatArray:
        """Latency (ms) at a quantile (0..1), `[rows]`; total: requests, those that timed out included."""
        return percentile_of_counts(self.bounds_ms, self._counts, total, quantile)


@counted
def _count_latencies(rows, p50_ms, p95_ms, p99_ms, served, bounds_ms, counts):  # type: ignore[no-untyped-def]
    for k in range(len(rows)):
        if served[k] <= 0.0:
            continue
        for b in range(len(bounds_ms)):
            bound, above = bounds_ms[b], 0.0
            if bound < p50_ms[k]:
                above = 1.0
            elif bound < p95_ms[k]:
                above = 0.5 * 0.1 ** ((bound - p50_ms[k]) / (p95_ms[k] - p50_ms[k]))
            elif p99_ms[k] > p95_ms[k]:
                above = 0.05 * 0.2 ** ((bound - p95_ms[k]) / (p99_ms[k] - p95_ms[k]))
            counts[rows[k], b] += served[k] * (1.0 - above)


def percentile_of_counts(
    bounds_ms: FloatArray, counts: FloatArray, total: FloatArray, quantile: float
) -> FloatArray:
    """Latency (ms) at a quantile (0..1) of cumulative bucket counts `[rows, bounds]`, `[rows]`.

    Interpolated in the logarithm of latency inside the bucket; below the first bound it is that bound, above
    the last one the last. total `[rows]`: all requests, those above the last bound included. NaN where there
    were none.
    """
    wanted = quantile * total
    above = counts >= wanted[:, None] - 1e-9
    bucket = np.where(above.any(axis=1), above.argmax(axis=1), len(bounds_ms) - 1)
    below = np.maximum(bucket - 1, 0)
    row = np.arange(len(counts))
    low, high = counts[row, below], counts[row, bucket]
    share = np.clip((wanted - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
    share = np.where(bucket == 0, 1.0, share)
    logs = np.log(bounds_ms)
    found = np.exp(logs[below] + share * (logs[bucket] - logs[below]))
    return np.asarray(np.where(total > 0, found, np.nan))


def _window_seeds(windows: Sequence[Window], seed: int | Sequence[int]) -> npt.NDArray[np.uint64]:
    """A seed for each window from the number given and its name: the same in any batch."""
    given = [seed] * len(windows) if isinstance(seed, int | np.integer) else list(seed)
    require(len(given) == len(windows), "seed", len(given), f"one number, or one for {len(windows)} windows")
    result = np.empty(len(windows), dtype=np.uint64)
    for index, (window, number) in enumerate(zip(windows, given, strict=True)):
        name = np.frombuffer(hashlib.sha256(window.name.encode()).digest(), dtype=np.uint32)
        result[index] = np.random.SeedSequence([int(number), *name.tolist()]).generate_state(1, np.uint64)[0]
    return result


def _check_periods(settings: Sequence[Setting | Foresight], rules: Protocol) -> None:
    for setting in settings:
        if isinstance(setting, Setting):
            period_s = setting.spec.sync_period_s
            allowed = f"{rules.sync_period_s}"
            require(period_s == rules.sync_period_s, f"{setting.name}: sync_period_s", period_s, allowed)


def _window(each: Window | Trace) -> Window:
    return each if isinstance(each, Window) else Window(each)


def _unusable(trace: Trace, rules: Protocol) -> str:
    """Why a trace cannot take part; "" if it can."""
    if trace.duration_s < rules.shortest_s:
        return f"too short: {trace.duration_s / 60:.1f} min, at least {rules.shortest_s / 60:g} are needed"
    if trace.rate_rps.max() <= 0:
        return "no requests at all"
    return ""


def _starts(trace: Trace, length_s: float, most: int) -> list[float]:
    """Where windows begin: the busiest one, then others evenly over the trace that do not overlap it."""
    starts = [trace.busiest_start_s(length_s)]
    first = trace.times_s[0]
    others = np.linspace(first, first + trace.duration_s - length_s, most)
    starts += [float(start) for start in others if all(abs(start - taken) >= length_s for taken in starts)]
    return starts[:most]


def _cut(trace: Trace, start_s: float, length_s: float, rules: Protocol) -> Window | str:
    """The window from there on, or why there is none."""
    try:
        piece = trace.window(start_s, length_s)
    except TraceError as error:
        return str(error)
    missing_s = sum(end - start for start, end in piece.gaps) + length_s - piece.duration_s
    if missing_s > MOST_MISSING * length_s:
        return f"the recording has no data for {missing_s / length_s:.0%} of this window"
    peak = float(piece.rate_rps.max())
    if peak <= 0:
        return "no requests in this window"
    factor = rules.peak_replicas * scalar(rules.params.capacity_rps) / peak
    before = (trace.times_s >= start_s - DAY_S) & (trace.times_s < start_s)
    history = None
    if before.sum() >= 2:
        history = Trace(trace.times_s[before] - start_s, trace.rate_rps[before] * factor, trace.name)
    return Window(piece.scale(factor), history, trace.name, start_s)
