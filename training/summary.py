"""What an evaluation found: numbers at equal violations as JSON, as tables for people, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from training.frontier import (
    LEVELS,
    Outcomes,
    bootstrap,
    gap_closed,
    nearest_setting,
    one_knob,
    pareto,
    per_window_costs,
    violation_at,
)

REFERENCES = ("hpa-70%-300s", "hpa-50%-300s", "hpa-30%-300s")
"""HPA settings whose cost the others are given, in the comparison at equal cost."""


def summarise(families: Sequence[Outcomes], baseline: str, bound: str) -> dict[str, Any]:
    """What an evaluation says of its contestants, in plain types; `baseline`, `bound`: families' names."""
    by_name = {one.family: one for one in families}
    return {
        "levels": {f"{level:.1%}": _level(by_name, baseline, bound, level) for level in LEVELS},
        "at_equal_cost": _equal_cost(by_name, baseline),
        "families": {one.family: _family(one) for one in families},
    }


def card(report: dict[str, Any], family: str) -> dict[str, Any]:
    """What an artifact says of its own evaluation: its cost, the contestants', and how it was found."""
    levels = {
        level: {name: content[name]["cost"] for name in content}
        | {"gap_closed": content[family]["gap_closed"]}
        for level, content in report["levels"].items()
    }
    return {
        "command": report["command"],
        "windows": len(report["protocol"]["windows"]),
        "cost_over_ideal_at_mean_violation": levels,
        "at_equal_cost": report["at_equal_cost"],
    }


def table(summary: dict[str, Any]) -> Table:
    """The summary as a rich table: cost at equal violations and, in brackets, the share of the gap closed."""
    made = Table(title="cost / fluid ideal at equal SLO violations (one setting for all windows)")
    made.add_column("policy")
    for level in summary["levels"]:
        made.add_column(f"at {level}", justify="right")
    made.add_column("flaps/h", justify="right")
    for family in summary["families"]:
        contents = [content[family] for content in summary["levels"].values()]
        flaps = f"{contents[-1]['flaps_per_hour']:.1f}"
        made.add_row(family, *(_cell(content) for content in contents), flaps)
    made.caption = "in brackets: share of the way from the HPA to the clairvoyant"
    return made


def equal_cost_table(summary: dict[str, Any]) -> Table | None:
    """Violations for what some HPA settings cost, if the HPA took part."""
    contents = summary["at_equal_cost"]
    if not contents:
        return None
    made = Table(title="violations at equal cost: mean (median) over windows")
    made.add_column("policy")
    for setting, content in contents.items():
        made.add_column(f"{setting}, {content['cost']:.2f} x ideal", justify="right")
    for family in summary["families"]:
        made.add_row(family, *(_violations(content["families"][family]) for content in contents.values()))
    return made


def plot_frontiers(families: Sequence[Outcomes], folder: Path) -> Path:
    """Pareto plot: cost over mean and over median violations, one curve a family; returns the PNG's path."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True)
    for axis, statistic in zip(axes, ("mean_violation", "median_violation"), strict=True):
        for colour, family in enumerate(families):
            violation = 100 * np.maximum(getattr(family, statistic), 1e-5)
            cost = family.mean_cost
            front = pareto(cost, violation)
            axis.plot(violation, cost, ".", color=f"C{colour}", alpha=0.3, markersize=4)
            axis.plot(
                violation[front], cost[front], "o-", color=f"C{colour}", label=family.family, markersize=4
            )
        axis.set(
            xscale="log", yscale="log", xlabel=f"{statistic.replace('_', ' ')} over windows, % of requests"
        )
        ticks = [1, 1.2, 1.5, 2, 3, 4, 6, 10]
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    for level in LEVELS:
        axes[0].axvline(100 * level, color="0.6", linestyle=":", linewidth=1)
    axes[0].set_ylabel("cost / fluid ideal (geometric mean)")
    axes[0].legend()
    figure.tight_layout()
    path = folder / "pareto.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _level(by_name: dict[str, Outcomes], baseline: str, bound: str, level: float) -> dict[str, Any]:
    costs = {name: one_knob(family, level) for name, family in by_name.items()}
    nan = float("nan")
    found = {}
    for name, family in by_name.items():
        setting = nearest_setting(family, level)
        tuned = per_window_costs(family, level)
        reached = np.isfinite(tuned)
        found[name] = {
            "cost": _plain(costs[name]),
            "gap_closed": _plain(gap_closed(costs[name], costs.get(baseline, nan), costs.get(bound, nan))),
            "over_baseline": _spread(family, by_name.get(baseline), costs, level),
            "setting": family.settings[setting],
            "median_violation": float(family.median_violation[setting]),
            "flaps_per_hour": float(family.flaps_per_hour[setting].mean()),
            "tuned_per_window": {
                "cost": _plain(float(np.exp(np.log(tuned[reached]).mean()))) if reached.any() else None,
                "windows_reached": int(reached.sum()),
                "windows": len(tuned),
            },
        }
    return found


def _spread(family: Outcomes, baseline: Outcomes | None, costs: dict[str, float], level: float) -> Any:
    if baseline is None or baseline.family == family.family:
        return None
    low, high = bootstrap(family, baseline, level)
    ratio = costs[family.family] / costs[baseline.family]
    return {"ratio": _plain(ratio), "low": _plain(low), "high": _plain(high)}


def _equal_cost(by_name: dict[str, Outcomes], baseline: str) -> dict[str, Any]:
    base = by_name.get(baseline)
    found: dict[str, Any] = {}
    for reference in REFERENCES:
        if base is None or reference not in base.settings:
            continue
        index = base.settings.index(reference)
        spend = float(base.mean_cost[index])
        families = {name: _safest_within(family, spend) for name, family in by_name.items()}
        families[baseline] = _at_setting(base, index)
        found[reference] = {"cost": spend, "families": families}
    return found


def _safest_within(family: Outcomes, spend: float) -> dict[str, Any]:
    """The safest setting that costs no more than `spend`."""
    affordable = np.flatnonzero(family.mean_cost <= spend)
    if len(affordable) == 0:
        return {"setting": None}
    safest = int(affordable[np.argmin(family.mean_violation[affordable])])
    interpolated = violation_at(family.mean_cost, family.mean_violation, spend)
    return _at_setting(family, safest) | {"interpolated_mean_violation": _plain(interpolated)}


def _at_setting(family: Outcomes, index: int) -> dict[str, Any]:
    return {
        "setting": family.settings[index],
        "cost": float(family.mean_cost[index]),
        "mean_violation": float(family.mean_violation[index]),
        "median_violation": float(family.median_violation[index]),
        "worst_violation": float(family.violation[index].max()),
        "flaps_per_hour": float(family.flaps_per_hour[index].mean()),
    }


def _family(one: Outcomes) -> dict[str, Any]:
    return {
        "settings": [_at_setting(one, index) for index in range(len(one.settings))],
        "windows": {"cost": one.cost.tolist(), "violation": one.violation.tolist()},
    }


def _cell(content: dict[str, Any]) -> str:
    if content["cost"] is None:
        return "not reached"
    gap = content["gap_closed"]
    return f"{content['cost']:.2f}" + (f" ({gap:.0%})" if gap is not None else "")


def _violations(content: dict[str, Any]) -> str:
    if content["setting"] is None:
        return "dearer"
    return f"{content['mean_violation']:.2%} ({content['median_violation']:.2%})"


def _plain(value: float) -> float | None:
    """NaN is not JSON."""
    return float(value) if np.isfinite(value) else None
