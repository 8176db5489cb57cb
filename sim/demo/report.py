"""How the demo ends: a table for the terminal, results.json and a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from sim.demo.objects import HPA, LABELS, RL
from sim.demo.plan import SLO_MS, Plan
from sim.demo.state import NAMES, DemoState
from sim.twin.errors import Json


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


FIGURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("replica_hours", "cost, replica-hours", lambda v: f"{v:.1f}"),
    ("cost_over_ideal", "cost / ideal", lambda v: f"{v:.2f}"),
    ("violation", "SLO violations", _percent),
    ("p95_ms", "p95 latency", lambda v: f"{v:.0f} ms"),
    ("dropped", "dropped", _percent),
    ("max_replicas", "most replicas", lambda v: f"{v:.0f}"),
    ("changes_per_hour", "changes an hour", lambda v: f"{v:.1f}"),
    ("flaps_per_hour", "flaps an hour", lambda v: f"{v:.1f}"),
)
NOTES = (
    "cost counts every pod from its creation; ideal is load over capacity, without rounding or start-up.\n"
    f"SLO violations: share of requests above {SLO_MS:.0f} ms or timed out. Flaps: changes of direction."
)


def table(figures: dict[str, Json]) -> Table:
    """RL against HPA."""
    result = Table()
    result.add_column("")
    for name in NAMES:
        result.add_column(LABELS[name], justify="right")
    result.add_column("RL against HPA", justify="right")
    for key, label, show in FIGURES:
        rl, hpa = figures[RL][key], figures[HPA][key]
        change = _points(rl, hpa) if show is _percent else _change(rl, hpa)
        result.add_row(label, _shown(show, rl), _shown(show, hpa), change)
    return result


def _shown(show: Callable[[float], str], value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else show(value)


def _points(ours: float, theirs: float) -> str:
    """Shares differ by percentage points: the ratio of two tiny ones says nothing."""
    points = 100 * (ours - theirs)
    return "=" if abs(points) < 0.005 else f"{points:+.2f} points"


def _change(ours: float, theirs: float) -> str:
    if not theirs or math.isnan(theirs) or math.isnan(ours):
        return "=" if ours == theirs else ""
    change = ours / theirs - 1
    return "=" if abs(change) < 0.005 else f"{100 * change:+.0f} %"


def title(plan: Plan, seconds: float) -> str:
    return f"RL against HPA: {plan.name}, {seconds / 3600:.2g} h from {_clock(plan.start_s)}"


def _clock(seconds: float) -> str:
    day = f"day {int(seconds // 86400) + 1}, " if seconds >= 86400 else ""
    return f"{day}{int(seconds % 86400 // 3600)}:{int(seconds % 3600 // 60):02d} h"


def write(state: DemoState, directory: Path) -> list[Path]:
    """results.json and demo.png."""
    directory.mkdir(parents=True, exist_ok=True)
    results, plot = directory / "results.json", directory / "demo.png"
    results.write_text(json.dumps(_results(state), indent=1, allow_nan=False) + "\n")
    draw(state, plot)
    return [results, plot]


def _results(state: DemoState) -> Json:
    plan = state.plan
    shot = state.snapshot()
    columns = ["seconds", "load_replicas", "ready", "existing", "desired", "p95_ms", "violating_share"]
    return {
        "trace": plan.name,
        "window": {"start_s": plan.start_s, "duration_s": plan.duration_s, "warm_up_s": plan.warm_up_s},
        "time_scale": plan.time_scale,
        "completed_s": min(max(0.0, state.elapsed_s), plan.duration_s),
        "restarts": state.facts.get("restarts", {}),
        "figures": {s["name"]: s["figures"] for s in shot["services"]},
        "policies": {s["name"]: s["policy"] for s in shot["services"]},
        "columns": columns,
        "series": {s["name"]: s["rows"] for s in shot["services"]},
    }


_COLOURS = {RL: "#0072b2", HPA: "#d55e00"}


def draw(state: DemoState, path: Path) -> None:
    """Replicas over the load, latency under the objective, and violations as they add up."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axes = plt.subplots(
        3, 1, figsize=(10, 8), sharex=True, height_ratios=(3, 2, 1.4), layout="constrained"
    )
    for index, name in enumerate(NAMES):
        _draw_service(axes, state.rows(index), name)
    hours, load = _columns(state.rows(0))[:2]
    axes[0].fill_between(hours, load, color="0.85", label="load / capacity", step="mid", lw=0)
    axes[0].set_ylabel("replicas ready")
    axes[0].set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    axes[1].axhline(SLO_MS, color="0.3", lw=1, ls="--")
    axes[1].annotate(
        f"objective {SLO_MS:.0f} ms", (0.005, SLO_MS), xycoords=("axes fraction", "data"), va="bottom"
    )
    axes[1].set_yscale("log")
    axes[1].yaxis.set_major_formatter("{x:.0f}")
    axes[1].yaxis.set_minor_formatter(NullFormatter())
    axes[1].set_ylabel("p95, ms")
    axes[2].set_ylabel("requests late, %")
    axes[2].set_xlabel("hours")
    axes[0].set_title(f"{state.plan.name}: the operator in the twin", loc="left")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(0, max(0.01, hours[-1] if hours else 0.01))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _columns(rows: list[list[float | None]]) -> list[list[float]]:
    kept = [[math.nan if v is None else v for v in row] for row in rows if (row[0] or 0) > 0]
    columns = [list(c) for c in zip(*kept, strict=True)] or [[] for _ in range(7)]
    return [[t / 3600 for t in columns[0]], *columns[1:]]


def _draw_service(axes: Any, rows: list[list[float | None]], name: str) -> None:
    hours, _, ready, _, _, p95, share = _columns(rows)
    colour = _COLOURS[name]
    axes[0].step(hours, ready, where="post", color=colour, lw=1.8, label=LABELS[name])
    axes[1].plot(hours, p95, color=colour, lw=1.2)
    axes[2].plot(hours, [100 * s for s in share], color=colour, lw=1.0)
