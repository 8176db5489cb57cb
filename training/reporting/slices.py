"""What a policy does as its observation varies: slices through the median of the observations it met.

Each slice moves a few features together, as the quantity that they describe would, and leaves the others at
their medians. The answer is shown in replicas: the edges of the band in which nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from controller.core.observation import COLUMN, LAGS_S, MAXIMA_S, MIN_LOAD, OBSERVATION_SCHEMA
from controller.core.samples import FloatArray
from controller.policies.onnx_policy import OnnxPolicy
from sim.physics import scalar
from sim.replay import Protocol
from training.reporting.theme import WIDTH_IN, inline, styled
from training.reporting.witness import Seen, edges

POINTS = 81
PREFERENCES = ((10.0, "C2"), (50.0, "C0"), (90.0, "C3"))
TREND_S = 900.0
"""A trend has gone on for so long."""
STRONGEST = 12
FLAGS = tuple(name for name in OBSERVATION_SCHEMA.names if name.endswith("_known"))
RISES = tuple(name for name in OBSERVATION_SCHEMA.names if name.startswith(("move_q", "variability")))


@dataclass(frozen=True)
class Base:
    """The median of what was met. features `[F]`; load and replicas asked for at it, in replicas."""

    features: FloatArray
    load: float
    current: float
    low: FloatArray
    high: FloatArray
    """10 and 90 % quantiles of each feature, `[F]`."""


@dataclass(frozen=True)
class Slice:
    """One quantity: values `[V]` as shown, observations `[V, F]`, load `[V]` in replicas, what moves."""

    name: str
    label: str
    values: FloatArray
    observations: FloatArray
    load: FloatArray
    note: str
    ratio: bool = False
    """Whether the axis is logarithmic."""


def median_of(seen: Seen) -> Base:
    """The base of all slices."""
    known = np.isfinite(seen.load)
    low, middle, high = np.quantile(seen.features[known], (0.1, 0.5, 0.9), axis=0)
    load = float(np.median(seen.load[known]))
    return Base(middle.astype(np.float32), load, float(np.median(seen.current[known])), low, high)


def slices_of(base: Base, protocol: Protocol) -> list[Slice]:
    """Load, trend, backlog, the service's own history, preference."""
    makers: Sequence[Callable[[Base, Protocol], Slice]] = (_load, _trend, _backlog, _history, _preference)
    return [make(base, protocol) for make in makers]


def with_preference(observations: FloatArray, preference: float) -> FloatArray:
    """The same observations at another preference (0..100)."""
    moved = np.array(observations)
    moved[:, COLUMN["preference"]] = preference / 100.0
    return moved


def _load(base: Base, protocol: Protocol) -> Slice:
    top = min(float(protocol.max_replicas), 6.0 * base.load)
    load = np.geomspace(max(0.5, base.load / 6.0), max(top, 1.0), POINTS)
    rows = _rows(base, POINTS)
    over = np.log(max(base.current, 0.5) / np.maximum(load, MIN_LOAD))
    requests = load * scalar(protocol.params.capacity_rps) * 60.0
    moved = {
        "provisioned_over_load": over,
        "ready_over_load": over,
        "granularity": 1.0 / (1.0 + load),
        "shot_noise": 1.0 / np.sqrt(np.maximum(requests, 1.0)),
        "utilisation": np.minimum(load / max(base.current, 1.0), 1.0),
    }
    note = f"a steady load at another level, with {base.current:.0f} replicas asked for and ready"
    return Slice("load", "load, replicas", load, _moved(rows, moved), load, note, True)


def _trend(base: Base, protocol: Protocol) -> Slice:
    change = np.linspace(-0.5, 1.0, POINTS)
    slope = np.log1p(change) / 300.0
    rows = _rows(base, POINTS)
    moved: dict[str, FloatArray] = {}
    for lag in LAGS_S:
        name = f"load_change_{lag}s"
        moved[name] = base.features[COLUMN[name]] + slope * min(lag, TREND_S)
    for span in MAXIMA_S:
        name = f"load_max_{span}s"
        moved[name] = np.maximum(base.features[COLUMN[name]] - slope * min(span, TREND_S), 0.0)
    note = f"the load of the last {TREND_S / 60:.0f} minutes rose or fell steadily to what it is now"
    observations = _moved(rows, moved)
    return Slice("trend", "change in 5 min, %", 100 * change, observations, _at(base), note)


def _backlog(base: Base, protocol: Protocol) -> Slice:
    seconds = np.linspace(0.0, 20.0, POINTS)
    observations = _moved(_rows(base, POINTS), {"backlog": np.log1p(seconds)})
    note = "requests in flight, over what the ready replicas serve in a second; nothing else moves"
    return Slice("backlog", "backlog, s", seconds, observations, _at(base), note)


def _history(base: Base, protocol: Protocol) -> Slice:
    usual = max(float(base.features[COLUMN["move_q995_1h"]]), 0.05)
    rise = np.geomspace(1.0, 8.0, POINTS)
    factor = np.log(rise) / usual
    moved = {name: base.features[COLUMN[name]] * factor for name in RISES}
    note = "all quantiles of the service's rises over a start-up time grow together"
    observations = _moved(_rows(base, POINTS), moved)
    label = "99.5 % quantile of rises in an hour, times"
    return Slice("history", label, rise, observations, _at(base), note, True)


def _preference(base: Base, protocol: Protocol) -> Slice:
    values = np.linspace(0.0, 100.0, POINTS)
    observations = _moved(_rows(base, POINTS), {"preference": values / 100.0})
    return Slice("preference", "preference", values, observations, _at(base), "from cheap to safe")


def draw_slices(policy: OnnxPolicy, base: Base, found: Sequence[Slice], protocol: Protocol) -> str:
    """All slices in one SVG; those of other quantities at three preferences."""
    most = float(protocol.max_replicas)
    columns = 3
    rows = -(-len(found) // columns)
    with styled():
        figure, axes = plt.subplots(
            rows, columns, figsize=(WIDTH_IN, 2.7 * rows + 0.3), squeeze=False, layout="constrained"
        )
        for axis, one in zip(axes.flat, found, strict=False):
            _draw(axis, policy, base, one, most)
        for axis in list(axes.flat)[len(found) :]:
            axis.set_axis_off()
            if axis is axes.flat[len(found)]:
                _legend(axis, policy)
        names = ", ".join(one.name for one in found)
        return inline(figure, "Behaviour slices", f"replicas that the policy lets stand, over {names}")


def sentences(policy: OnnxPolicy, base: Base, found: Sequence[Slice]) -> list[tuple[str, str]]:
    """(slice, what it shows) in words made of its numbers."""
    return [(one.name, _sentence(policy, base, one)) for one in found]


def _sentence(policy: OnnxPolicy, base: Base, one: Slice) -> str:
    low = edges(policy, one.observations, one.load, base.current)[0]
    falls = np.diff(low) < 0
    rises = np.diff(low) > 0
    course = "stays" if not (falls.any() or rises.any()) else "rises" if not falls.any() else "falls"
    if falls.any() and rises.any():
        course = "rises and falls"
    note = one.note[0].upper() + one.note[1:]
    moved = f"{note}. From {one.values[0]:.3g} to {one.values[-1]:.3g} ({one.label})"
    ends = f"from {low[0]:.0f} to {low[-1]:.0f} replicas"
    if course == "stays":
        return f"{moved} the lower edge stays at {low[0]:.0f} replicas."
    between = f", between {low.min():.0f} and {low.max():.0f}" if course == "rises and falls" else ""
    return f"{moved} the lower edge {course} {ends}{between}."


def _draw(axis: Axes, policy: OnnxPolicy, base: Base, one: Slice, most: float) -> None:
    if one.name == "preference":
        lines: list[tuple[FloatArray, str]] = [(one.observations, "C0")]
    else:
        lines = [(with_preference(one.observations, value), colour) for value, colour in PREFERENCES]
    for observations, colour in lines:
        low, high = edges(policy, observations, one.load, base.current)
        axis.fill_between(one.values, low, high, color=colour, alpha=0.14, linewidth=0, step="mid")
        axis.step(one.values, low, color=colour, linewidth=1.6, where="mid")
        axis.step(one.values, high, color=colour, linewidth=0.7, where="mid")
    axis.plot(one.values, one.load, ":", color="0.4", linewidth=1.1)
    axis.set(title=one.name, xlabel=one.label)
    axis.margins(x=0)
    if one.ratio:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
    axis.axhline(most, color="0.4", linewidth=0.8)
    axis.set_yscale("log")
    lowest = min(float(np.min(line.get_ydata())) for line in axis.get_lines())
    axis.set_ylim(max(lowest, 0.5) / 1.2, most * 1.5)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def _legend(axis: Axes, policy: OnnxPolicy) -> None:
    band = policy.action_schema == "hold-band/v1"
    for value, colour in PREFERENCES:
        axis.plot([], [], color=colour, linewidth=1.6, label=f"preference {value:g}")
    what = "band in which nothing changes\n(thick: lower edge)" if band else "replicas recommended"
    axis.fill_between([], [], [], color="0.6", alpha=0.3, linewidth=0, label=what)
    axis.plot([], [], ":", color="0.4", label="the load itself")
    axis.plot([], [], color="0.4", linewidth=0.8, label="maxReplicas: the guard's limit")
    axis.legend(loc="center left", labelspacing=0.7)


@dataclass(frozen=True)
class Influence:
    """A feature's effect: the lower edge (replicas) at its 10 and at its 90 % quantile, others at medians."""

    name: str
    low: float
    high: float
    edge_at_low: float
    edge_at_high: float


def strongest(policy: OnnxPolicy, base: Base) -> list[Influence]:
    """The features that move the policy's answer most over the range that was met, one at a time."""
    names = [name for name in OBSERVATION_SCHEMA.names if name not in FLAGS]
    rows = np.repeat(base.features[None], 2 * len(names), axis=0)
    for index, name in enumerate(names):
        column = COLUMN[name]
        rows[2 * index, column], rows[2 * index + 1, column] = base.low[column], base.high[column]
    answers = edges(policy, rows, np.full(len(rows), base.load), base.current)[0].reshape(-1, 2)
    found = [
        Influence(name, float(base.low[COLUMN[name]]), float(base.high[COLUMN[name]]), float(a), float(b))
        for name, (a, b) in zip(names, answers, strict=True)
        if base.high[COLUMN[name]] > base.low[COLUMN[name]]
    ]
    return sorted(found, key=lambda one: -abs(one.edge_at_high - one.edge_at_low))[:STRONGEST]


def _rows(base: Base, count: int) -> FloatArray:
    return np.repeat(base.features[None].astype(np.float32), count, axis=0)


def _at(base: Base) -> FloatArray:
    return np.full(POINTS, base.load)


def _moved(rows: FloatArray, values: dict[str, FloatArray]) -> FloatArray:
    for name, column in values.items():
        rows[:, COLUMN[name]] = column
    return np.clip(rows, OBSERVATION_SCHEMA.low, OBSERVATION_SCHEMA.high)
