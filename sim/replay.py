"""Any policy over any trace: engine, guard and physics as in the environments, without an agent.

`replay` runs every setting on every trace in one batch, with the same arrivals for all (common random
numbers); `replay_clairvoyant` executes the bound. `Protocol` is the comparison that the project's figures
come from: one-day windows of recorded traffic, scaled to a peak of 60 replicas, start-up 60 s, decisions
every 15 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core import Engine, ServiceSpec
from sim.baselines import Setting
from sim.clairvoyant import Plan, Problem, make_plan
from sim.envs.batch import to_samples
from sim.errors import require
from sim.physics import ServiceParams, ServicePhysics, scalar
from sim.traces import Trace, load_trace

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
DAY_S = 86400.0
PENALTIES = tuple(float(penalty) for penalty in np.round(np.geomspace(60.0, 30_000.0, 14), 1))
"""Prices of violations that trace the clairvoyant's frontier from a few percent to nearly none."""
TIMELINE = ("requests_per_s", "desired", "ready", "p95_ms", "violation_share", "recommended")


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

    def spec(self, preference: float = 50.0) -> ServiceSpec:
        """What a user would write about that service, correctly."""
        return ServiceSpec(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            sync_period_s=float(self.sync_period_s),
            slo_latency_ms=scalar(self.params.slo_latency_ms),
            slo_percentile=scalar(self.params.slo_percentile),
            preference=preference,
            capacity_rps=scalar(self.params.capacity_rps),
            start_up_s=scalar(self.params.start_up_s),
        )


@dataclass(frozen=True)
class Window:
    """A piece of a trace, scaled, from second 0; `history` is what came before, at negative times."""

    trace: Trace
    history: Trace | None = None

    @property
    def name(self) -> str:
        """The trace's name."""
        return self.trace.name


@dataclass(frozen=True)
class ReplayResult:
    """Figures of S settings on W windows, float `[S, W]`.

    replica_hours: billed. cost: those over the ideal (load over capacity, integrated: no rounding, no
    start-up). violation: share of requests over the objective or timed out. dropped: share timed out.
    p95_ms: mean over requests of the 1-s p95. worst_violation: the worst five minutes' share.
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
    worst_violation: FloatArray
    flaps_per_hour: FloatArray
    max_replicas: FloatArray
    timeline: dict[str, FloatArray]


def protocol_windows(traces: Sequence[Trace | str | Path], protocol: Protocol | None = None) -> list[Window]:
    """Windows of these traces (or files) as the protocol has them, scaled.

    Traces that are too short, or without any request, are left out.
    """
    rules = protocol or Protocol()
    loaded = [trace if isinstance(trace, Trace) else load_trace(trace) for trace in traces]
    return [window for trace in loaded for window in _windows_of(trace, rules)]


def replay(
    windows: Sequence[Window | Trace],
    settings: Sequence[Setting],
    protocol: Protocol | None = None,
    seed: int = 0,
    timeline: bool = False,
) -> ReplayResult:
    """Every setting on every window, in one batch of S x W services.

    Traces are taken as they are, in requests/s (`protocol_windows` scales). The same seed gives a window
    the same arrivals under every setting.
    """
    require(
        len(windows) > 0 and len(settings) > 0,
        "windows, settings",
        (len(windows), len(settings)),
        "not empty",
    )
    rules = protocol or Protocol()
    for setting in settings:
        period_s = setting.spec.sync_period_s
        require(
            period_s == rules.sync_period_s,
            f"{setting.name}: sync_period_s",
            period_s,
            f"{rules.sync_period_s}",
        )
    run = _Run([_window(each) for each in windows], len(settings), rules, seed, timeline)
    engine = Engine(
        [setting.spec for setting in settings for _ in windows],
        [setting.policy for setting in settings for _ in windows],
    )
    run.backfill(engine)
    for step in range(run.steps):
        rows = run.running(step)
        shown = run.physics.metrics(rows)
        decisions = engine.step(run.now_s(step), to_samples(shown), rows)
        run.advance(step, rows, decisions.desired_replicas, decisions.recommended_replicas)
    return run.result([setting.name for setting in settings])


def replay_clairvoyant(
    windows: Sequence[Window | Trace],
    penalties: Sequence[float] = PENALTIES,
    protocol: Protocol | None = None,
    seed: int = 0,
    timeline: bool = False,
) -> ReplayResult:
    """The clairvoyant plan at each penalty (see `sim.clairvoyant`) executed on every window."""
    require(
        len(windows) > 0 and len(penalties) > 0,
        "windows, penalties",
        (len(windows), len(penalties)),
        "not empty",
    )
    rules = protocol or Protocol()
    run = _Run([_window(each) for each in windows], len(penalties), rules, seed, timeline)
    plans = _plans(run, penalties, rules)
    run.place(np.array([plan.desired[0] for plan in plans]))
    for step in range(run.steps):
        rows = run.running(step)
        desired = np.array([plans[row].desired[step] for row in rows])
        run.advance(step, rows, desired, desired.astype(np.float64))
    return run.result([f"clairvoyant-{penalty:g}" for penalty in penalties])


def _plans(run: _Run, penalties: Sequence[float], rules: Protocol) -> list[Plan]:
    problems = [
        Problem(
            run.rates_in_steps(each),
            rules.params,
            rules.sync_period_s,
            rules.min_replicas,
            rules.max_replicas,
        )
        for each in range(len(run.windows))
    ]
    shares = [problem.violations() for problem in problems]
    return [
        make_plan(problem, penalty, share)
        for penalty in penalties
        for problem, share in zip(problems, shares, strict=True)
    ]


class _Run:
    """Physics and book-keeping of S x W services; row = setting * W + window."""

    def __init__(
        self, windows: list[Window], settings: int, rules: Protocol, seed: int, timeline: bool
    ) -> None:
        self.windows, self.rules, self.count = windows, rules, settings
        self.window_of = np.tile(np.arange(len(windows)), settings)
        self._steps_of = np.array([int(window.trace.duration_s // rules.sync_period_s) for window in windows])
        require(
            bool((self._steps_of > 0).all()), "windows", self._steps_of.min(), "longer than a sync period"
        )
        self.steps = int(self._steps_of.max())
        self._capacity = scalar(rules.params.capacity_rps)
        self._rates = self._table()
        seeds = np.random.SeedSequence(seed).generate_state(len(windows), np.uint64)
        first = self._rates[self.window_of, 0] / self._capacity
        replicas = np.clip(np.ceil(first / 0.6), max(rules.min_replicas, 1), rules.max_replicas).astype(
            np.int64
        )
        rows = len(self.window_of)
        self.physics = ServicePhysics(rules.params, rows, seeds[self.window_of], replicas)
        self.physics.set_rates(self._rates, 1.0 * rules.sync_period_s, self.window_of)
        self.physics.advance(None, rules.warm_up_s)
        self._sums = np.zeros((7, rows))
        self._worst_share, self._most_replicas = np.zeros(rows), np.zeros(rows)
        self._direction = np.zeros(rows, dtype=np.int64)
        self._recent = np.zeros((2, max(1, round(300 / rules.sync_period_s)), rows))
        self._kept = {name: np.full((rows, self.steps), np.nan) for name in TIMELINE} if timeline else {}

    def now_s(self, step: int) -> float:
        """Control time: a day into the clock, so that there is room for a past."""
        return 2 * DAY_S + step * self.rules.sync_period_s

    def running(self, step: int) -> IntArray:
        """Rows whose window is not over."""
        return np.flatnonzero(self._steps_of[self.window_of] > step)

    def place(self, replicas: IntArray) -> None:
        """Begin with these replicas ready."""
        self.physics.place(None, replicas)

    def rates_in_steps(self, window: int) -> FloatArray:
        """Rates in each control step of a window at its start, middle and end, `[T, 3]`."""
        start = round(self.rules.warm_up_s / self.rules.sync_period_s)
        nodes = self._rates[window, start : start + self._steps_of[window] + 1].astype(np.float64)
        return np.stack([nodes[:-1], 0.5 * (nodes[:-1] + nodes[1:]), nodes[1:]], axis=1)

    def backfill(self, engine: Engine) -> None:
        """Show the engine what came before each window, and the warm-up."""
        for index, window in enumerate(self.windows):
            rows = np.flatnonzero(self.window_of == index)
            warm_s = np.arange(-self.rules.warm_up_s, 0, 15.0)
            times, rates = warm_s, np.full(len(warm_s), self._rates[index, 0])
            if self.rules.history and window.history is not None:
                times = np.arange(window.history.times_s[0], 0.0, 15.0)
                rates = window.history.at(times)
            engine.backfill(self.now_s(0) + times, np.repeat(rates[:, None], len(rows), axis=1), rows)

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
        self._most_replicas[rows] = np.maximum(self._most_replicas[rows], desired)
        if self._kept:
            shown = (
                interval.arrived / interval.seconds,
                desired,
                self.physics.ready[rows],
                interval.p95_ms,
                interval.violation_share,
                recommended,
            )
            for name, values in zip(TIMELINE, shown, strict=True):
                self._kept[name][rows, step] = values

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
            "violation": violating / np.maximum(arrived, 1e-9),
            "dropped": dropped / np.maximum(arrived, 1e-9),
            "p95_ms": late_ms / np.maximum(served, 1e-9),
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

    def _table(self) -> npt.NDArray[np.float32]:
        """Rates `[W, nodes]` every sync period; the warm-up repeats the first one."""
        period, warm = self.rules.sync_period_s, round(self.rules.warm_up_s / self.rules.sync_period_s)
        table = np.empty((len(self.windows), warm + self.steps + 1), dtype=np.float32)
        for index, window in enumerate(self.windows):
            nodes = window.trace.at(np.arange(self.steps + 1) * period + window.trace.times_s[0])
            table[index, :warm] = nodes[0]
            table[index, warm:] = nodes
        return table

    def _ideal_hours(self, window: int) -> float:
        rates = self.rates_in_steps(window)
        seconds = float(rates.mean(axis=1).sum()) / self._capacity * self.rules.sync_period_s
        return max(seconds / 3600.0, 1e-9)

    def _worst(self, step: int, rows: IntArray, violating: FloatArray, arrived: FloatArray) -> None:
        slot = step % self._recent.shape[1]
        self._recent[0, slot, rows], self._recent[1, slot, rows] = violating, arrived
        late, all_of = self._recent[:, :, rows].sum(axis=1)
        share = late / np.maximum(all_of, 1e-9)
        self._worst_share[rows] = np.maximum(self._worst_share[rows], share)


def _window(each: Window | Trace) -> Window:
    return each if isinstance(each, Window) else Window(each)


def _windows_of(trace: Trace, rules: Protocol) -> list[Window]:
    if trace.duration_s < rules.shortest_s or trace.rate_rps.max() <= 0:
        return []
    length = min(rules.window_s, trace.duration_s)
    starts = [trace.busiest_start_s(length)]
    others = np.linspace(
        trace.times_s[0], trace.times_s[0] + trace.duration_s - length, rules.windows_per_trace
    )
    starts += [float(start) for start in others if all(abs(start - taken) >= length for taken in starts)]
    found = (_cut(trace, start, length, rules) for start in starts[: rules.windows_per_trace])
    return [window for window in found if window is not None]


def _cut(trace: Trace, start_s: float, length_s: float, rules: Protocol) -> Window | None:
    piece = trace.window(start_s, length_s)
    peak = float(piece.rate_rps.max())
    if peak <= 0:
        return None
    factor = rules.peak_replicas * scalar(rules.params.capacity_rps) / peak
    before = (trace.times_s >= start_s - DAY_S) & (trace.times_s < start_s)
    history = None
    if before.sum() >= 2:
        history = Trace(trace.times_s[before] - start_s, trace.rate_rps[before] * factor, trace.name)
    return Window(piece.scale(factor), history)
