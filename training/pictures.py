"""An evaluation in pictures: frontiers, intervals and timelines as PNG. `comparison.py` is the caller."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sim.physics import scalar
from sim.replay import ReplayResult, Window, replay
from training.contestants import FORMULAS, contestant
from training.frontier import LEVELS, FloatArray, nearest_setting, pareto
from training.playing import Setup
from training.summary import Comparison

Report = Mapping[str, Any]
LEAST_SHOWN = 1e-5
"""Violations below it are drawn at the left edge."""
COST_TICKS = (1, 1.2, 1.5, 2, 3, 4, 6, 8, 12, 20, 40, 100, 300, 1000)
VIOLATION_TICKS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
OTHERS = ("C0", "C2", "C1", "C4", "C5", "C6", "C9", "C8", "C7")
TIMELINES = 3
ZOOM_S = 2 * 3600.0
SMOOTH_S = 300.0


@dataclass(frozen=True)
class Look:
    """How a policy is drawn everywhere."""

    colour: str
    width: float = 1.3
    line: Literal["-", "--"] = "-"
    order: int = 2


def plot_comparison(
    report: Report,
    comparison: Comparison,
    windows: Sequence[Window],
    policies: Sequence[str],
    setup: Setup,
    folder: Path,
) -> list[Path]:
    """Every picture of an evaluation, written into `folder`; their paths.

    policies: names as on the command line, for the replays that timelines need.
    """
    looks = looks_of(list(comparison.families))
    paths = [plot_frontiers(comparison, looks, folder / "pareto.png")]
    paths.append(plot_traces(comparison, looks, folder / "pareto-traces.png"))
    if comparison.baseline in comparison.families:
        paths.append(plot_intervals(report, looks, folder / "intervals.png"))
        paths += plot_timelines(comparison, windows, policies, setup, looks, folder)
    return paths


def looks_of(names: Sequence[str]) -> dict[str, Look]:
    """The HPA dark, the clairvoyant dashed, learned policies red and thick, the others in colours."""
    looks: dict[str, Look] = {}
    reds, colours = iter(("C3", "#ff9896", "#8c1a1a", "#e377c2") * 4), iter(OTHERS * 4)
    for name in names:
        if name == "HPA":
            looks[name] = Look("0.2", 2.2, order=3)
        elif name == "clairvoyant":
            looks[name] = Look("0.45", 1.6, "--")
        elif name in FORMULAS:
            looks[name] = Look(next(colours))
        else:
            looks[name] = Look(next(reds), 2.4, order=4)
    return looks


def plot_frontiers(comparison: Comparison, looks: Mapping[str, Look], path: Path) -> Path:
    """Cost over mean and over median violations, one setting for all windows, one curve a policy."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5.2), sharey=True)
    for axis, statistic in zip(axes, ("mean_violation", "median_violation"), strict=True):
        for name, one in comparison.families.items():
            _frontier(axis, one.mean_cost, getattr(one, statistic), looks[name], points=True)
        _violation_axis(axis, f"{statistic.replace('_', ' ')} over windows, % of requests")
        _levels(axis)
    _cost_axis(axes[0])
    axes[0].set_ylabel("cost over the fluid ideal, geometric mean")
    count = len(comparison.windows)
    axes[0].set_title(f"mean over {count} windows", fontsize=10, pad=16)
    axes[1].set_title(f"median over {count} windows", fontsize=10, pad=16)
    return _finish(figure, looks, path)


def plot_traces(comparison: Comparison, looks: Mapping[str, Look], path: Path) -> Path:
    """The same for each trace, over its own windows, as small multiples."""
    traces = list(dict.fromkeys(comparison.traces))
    columns = min(5, len(traces))
    rows = math.ceil(len(traces) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.0 * columns + 1.5, 2.5 * rows + 0.8), squeeze=False)
    for index, (axis, trace) in enumerate(zip(axes.flat, traces, strict=False)):
        part = comparison.of_trace(trace)
        for name, one in part.families.items():
            _frontier(axis, one.mean_cost, one.mean_violation, looks[name], points=False)
        _violation_axis(axis, "mean violation, %" if index + columns >= len(traces) else "")
        _cost_axis(axis)
        _levels(axis, labels=False)
        axis.set_title(f"{trace.removeprefix('rps_')} ({len(part.windows)})", fontsize=8)
        axis.tick_params(labelsize=7)
        if index % columns == 0:
            axis.set_ylabel("cost / ideal", fontsize=8)
    for axis in axes.flat[len(traces) :]:
        axis.set_visible(False)
    return _finish(figure, looks, path)


def plot_intervals(report: Report, looks: Mapping[str, Look], path: Path) -> Path:
    """Cost over the best-tuned HPA's at each level, with its interval; arrows where an end is not reached."""
    group = report["groups"].get("within_reach") or report["groups"]["all"]
    baseline = report["protocol"]["baseline"]
    names = [name for name in looks if name != baseline]
    figure, axes = plt.subplots(
        1, len(LEVELS), figsize=(12, 1.2 + 0.36 * len(names)), sharey=True, sharex=True
    )
    for axis, (level, contents) in zip(axes, group["levels"].items(), strict=True):
        for row, name in enumerate(names):
            _ratio(axis, row, contents[name]["over_baseline"], looks[name])
        reached = contents[baseline]["cost"] is not None
        axis.set_title(f"at {level}" if reached else f"at {level}: the HPA does not reach it", fontsize=10)
        axis.axvline(1.0, color="0.2", linewidth=1)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator([0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0]))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlim(0.18, 2.3)
        axis.set_xlabel("cost / cost of the best-tuned HPA")
        axis.grid(alpha=0.3)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    count, over = len(group["windows"]), group["intervals_over"][0]
    figure.suptitle(
        f"one setting for all {count} windows; {report['protocol']['confidence']:.0%} interval over {over} "
        "(to the left edge: in some draws the HPA does not reach it; to the right: the policy)",
        fontsize=10,
    )
    return _save(figure, path)


def plot_timelines(
    comparison: Comparison,
    windows: Sequence[Window],
    policies: Sequence[str],
    setup: Setup,
    looks: Mapping[str, Look],
    folder: Path,
) -> list[Path]:
    """Load, replicas, latency and violations of the most telling windows, at settings of equal violation."""
    paths = []
    for number, (title, names, result) in enumerate(
        telling_replays(comparison, windows, policies, setup), start=1
    ):
        path = folder / f"timeline-{number}.png"
        figure = draw_timeline(result, names, title, setup, looks)
        figure.savefig(path, dpi=110)
        plt.close(figure)
        paths.append(path)
    return paths


def telling_replays(
    comparison: Comparison, windows: Sequence[Window], policies: Sequence[str], setup: Setup
) -> Iterator[tuple[str, list[str], ReplayResult]]:
    """(title, policies shown, their replay with its timeline) of the most telling windows."""
    shown = shown_in_timelines(comparison)
    chosen = settings_at(comparison, LEVELS[-1], shown)
    contestants = {one.name: one for one in (contestant(n, setup.sweep, setup.protocol) for n in policies)}
    settings = [contestants[name].settings[chosen[name]] for name in shown]
    for index, why in telling(comparison, chosen, shown):
        result = replay([windows[index]], settings, setup.protocol, setup.seed, True, setup.engine)
        yield f"{windows[index].name}: {why}", shown, result


def settings_at(comparison: Comparison, level: float, names: Sequence[str]) -> dict[str, int]:
    """Each family's setting for a mean violation over the windows within the baseline's reach."""
    reachable = comparison.within_reach() or comparison
    return {name: nearest_setting(reachable.families[name], level) for name in names}


def telling(comparison: Comparison, chosen: Mapping[str, int], shown: Sequence[str]) -> list[tuple[int, str]]:
    """Windows that tell most of the first policy shown against the HPA, at the settings chosen, and why.

    Where it saves most, and where its violations exceed and fall short of the HPA's most: each window once.
    """
    main, base = comparison.families[shown[0]], comparison.families[comparison.baseline]
    ours, theirs = chosen[shown[0]], chosen[comparison.baseline]
    saved = np.log(main.window_cost[ours] / base.window_cost[theirs])
    late = main.window_violation[ours] - base.window_violation[theirs]
    orders = (
        (np.argsort(saved), f"largest saving of {shown[0]} against the HPA"),
        (np.argsort(-late), f"most violations of {shown[0]} over the HPA's"),
        (np.argsort(late), f"fewest violations of {shown[0]} against the HPA's"),
    )
    found: list[tuple[int, str]] = []
    for order, why in orders[:TIMELINES]:
        taken = {index for index, _ in found}
        free = [int(index) for index in order if int(index) not in taken]
        if free:
            found.append((free[0], why))
    return found


def shown_in_timelines(comparison: Comparison) -> list[str]:
    """Learned policies (at most two; without any the first formula but the HPA), the HPA, the clairvoyant."""
    names = list(comparison.families)
    learned = [name for name in names if name not in FORMULAS][:2]
    others = [name for name in names if name not in (comparison.baseline, comparison.bound)]
    first = learned or others[:1]
    return [*first, *(n for n in (comparison.baseline, comparison.bound) if n in names)]


def draw_timeline(
    result: ReplayResult,
    names: Sequence[str],
    title: str,
    setup: Setup,
    looks: Mapping[str, Look],
    size: tuple[float, float] = (14, 7.5),
) -> Figure:
    """Replicas, p95 latency and violations of one window: all of it, and its worst two hours.

    result: of one window, a setting for each of `names`, with its timeline. size: inches.
    """
    period = setup.protocol.sync_period_s
    hours = np.arange(result.timeline["ready"].shape[2]) * period / 3600.0
    figure, axes = plt.subplots(
        3, 2, figsize=size, sharex="col", gridspec_kw={"height_ratios": [2, 1, 1]}, squeeze=False
    )
    smooth = max(1, round(SMOOTH_S / period))
    violations = np.stack([_smoothed(series, smooth) for series in result.timeline["violation_share"][:, 0]])
    start, end = _zoom(violations, hours)
    for column, (low, high) in enumerate([(hours[0], hours[-1]), (start, end)]):
        part = (hours >= low) & (hours <= high)
        _column(list(axes[:, column]), result, violations, names, hours, part, setup, looks)
        axes[2, column].set_xlabel("hours")
    for axis in axes[:, 0]:
        axis.axvspan(start, end, color="C0", alpha=0.07, linewidth=0)
    axes[0, 0].set_ylabel("replicas")
    axes[1, 0].set_ylabel("p95 latency, ms")
    axes[2, 0].set_ylabel("violating requests, %\n(5-min mean)")
    axes[0, 0].set_title(title, fontsize=10, loc="left")
    axes[0, 1].set_title(f"the shaded {end - start:.1f} hours", fontsize=10, loc="left")
    labels = [
        f"{setting}: cost {result.cost[row, 0]:.2f}, violations {result.violation[row, 0]:.2%}"
        for row, setting in enumerate(result.settings)
    ]
    handles = [Line2D([], [], color=looks[n].colour, linestyle=looks[n].line, linewidth=2) for n in names]
    handles.append(Line2D([], [], color="0.75", linewidth=6))
    figure.legend(
        handles, [*labels, "load in replicas"], loc="lower center", ncol=2, fontsize=9, frameon=False
    )
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    return figure


def _column(
    axes: Sequence[Axes],
    result: ReplayResult,
    violations: FloatArray,
    names: Sequence[str],
    hours: FloatArray,
    part: np.ndarray,
    setup: Setup,
    looks: Mapping[str, Look],
) -> None:
    capacity, slo = scalar(setup.protocol.params.capacity_rps), scalar(setup.protocol.params.slo_latency_ms)
    load = result.timeline["requests_per_s"][0, 0] / capacity
    axes[0].fill_between(hours[part], load[part], color="0.8", linewidth=0, step="post")
    for row, name in enumerate(names):
        look = looks[name]
        style: dict[str, Any] = {"color": look.colour, "linestyle": look.line, "linewidth": 1.3}
        axes[0].step(hours[part], result.timeline["ready"][row, 0][part], where="post", **style)
        axes[1].plot(hours[part], result.timeline["p95_ms"][row, 0][part], **style)
        axes[2].plot(hours[part], 100 * violations[row][part], **style)
    axes[1].axhline(slo, color="C3", linestyle=":", linewidth=1)
    axes[1].set_yscale("log")
    axes[1].yaxis.set_major_locator(FixedLocator([50, 100, 250, 1000, 5000]))
    axes[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[1].yaxis.set_minor_locator(NullLocator())
    axes[2].set_ylim(bottom=0)
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.margins(x=0)
    axes[0].set_ylim(bottom=0)


def _zoom(violations: FloatArray, hours: FloatArray) -> tuple[float, float]:
    """Two hours round the moment with the most violations of all policies but the bound."""
    total = np.nansum(violations[:-1] if len(violations) > 1 else violations, axis=0)
    middle = float(hours[int(np.argmax(total))])
    span = min(ZOOM_S / 3600.0, float(hours[-1] - hours[0]))
    start = min(max(middle - 0.4 * span, float(hours[0])), float(hours[-1]) - span)
    return start, start + span


def _smoothed(values: FloatArray, width: int) -> FloatArray:
    known = np.where(np.isnan(values), 0.0, values)
    sums = np.cumsum(np.concatenate([np.zeros(width), known]))
    return np.asarray((sums[width:] - sums[:-width]) / width)


def _frontier(axis: Axes, cost: FloatArray, violation: FloatArray, look: Look, points: bool) -> None:
    shown = 100 * np.maximum(violation, LEAST_SHOWN)
    front = pareto(cost, shown)
    if points:
        axis.plot(shown, cost, ".", color=look.colour, alpha=0.25, markersize=4, zorder=1)
    axis.plot(
        shown[front], cost[front], look.line, color=look.colour, linewidth=look.width, zorder=look.order,
        marker="o", markersize=2.0 * math.sqrt(look.width),
    )  # fmt: skip


def _ratio(axis: Axes, row: int, found: Report, look: Look) -> None:
    interval, ratio = found["intervals"][0], found["ratio"]
    if ratio is None:
        axis.text(0.2, row, "not reached", fontsize=8, color="0.4", va="center")
        return
    low = interval["low"] if interval["low"] is not None else 0.01
    high = interval["high"] if interval["high"] is not None else 100.0
    axis.plot([low, high], [row, row], color=look.colour, linewidth=2, alpha=0.5)
    axis.plot([ratio], [row], "o", color=look.colour, markersize=6)


def _levels(axis: Axes, labels: bool = True) -> None:
    for level in LEVELS:
        axis.axvline(100 * level, color="0.55", linestyle=":", linewidth=0.9, zorder=0)
        if labels:
            axis.annotate(
                f"{level:.1%}", (100 * level, 1.0), xycoords=("data", "axes fraction"), fontsize=7,
                ha="center", va="bottom", color="0.4",
            )  # fmt: skip


def _violation_axis(axis: Axes, label: str) -> None:
    axis.set_xscale("log")
    axis.set_xlim(100 * LEAST_SHOWN * 0.8, 100)
    axis.xaxis.set_major_locator(FixedLocator(VIOLATION_TICKS))
    names = [f"≤{VIOLATION_TICKS[0]:g}", *(f"{tick:g}" for tick in VIOLATION_TICKS[1:])]
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, at: names[at] if at < len(names) else ""))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel(label, fontsize=9)
    axis.grid(alpha=0.25)


def _cost_axis(axis: Axes) -> None:
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    ticks = [tick for tick in COST_TICKS if low <= tick <= high]
    axis.yaxis.set_major_locator(FixedLocator(ticks))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def _finish(figure: Figure, looks: Mapping[str, Look], path: Path) -> Path:
    handles = [
        Line2D([], [], color=look.colour, linestyle=look.line, linewidth=look.width, marker="o", markersize=4)
        for look in looks.values()
    ]
    figure.legend(handles, list(looks), loc="center right", fontsize=9, frameon=False)
    wide = figure.get_size_inches()[0]
    figure.tight_layout(rect=(0, 0, 1 - 1.5 / wide, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _save(figure: Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
