"""What an evaluation found, in plain types: the numbers of its JSON report.

`summarise` reads every figure off the frontiers of `training.frontier`, for all windows together, for those
that the baseline can serve at all, and for each trace. The report's layout is `evaluation.schema.json`; what
the figures mean is in docs/evaluation.md. `comparison.py` is the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.frontier import (
    LEVELS,
    Draws,
    FloatArray,
    Interval,
    Outcomes,
    bracket,
    draw,
    gap_closed,
    gap_interval,
    interval,
    nearest_setting,
    one_knob,
    one_knob_at_median,
    per_window_costs,
    ratio_interval,
    violation_at,
    violations_at,
)

REFERENCES = ("hpa-70%-300s", "hpa-50%-300s", "hpa-30%-300s")
"""HPA settings whose cost the others are given, in the comparison at equal cost."""
COARSE = 1.5
"""A cost that is read between two settings whose costs differ by more than this factor is marked."""
REACHABLE = LEVELS[-1]
"""A window that the baseline brings to this violation, tuned for it alone, counts as within its reach."""


@dataclass(frozen=True)
class Comparison:
    """Everybody's outcomes on the same windows and arrivals.

    families: by name, in the order of tables. traces: for each window, the trace that it is cut from.
    baseline, bound: names of the families that shares of the gap are measured between.
    """

    families: dict[str, Outcomes]
    windows: tuple[str, ...]
    traces: tuple[str, ...]
    baseline: str
    bound: str

    @property
    def seeds(self) -> int:
        """Arrival seeds K."""
        return next(iter(self.families.values())).shape[2]

    def part(self, index: Sequence[int]) -> Comparison:
        """The same for some of the windows."""
        return Comparison(
            {name: one.windows(index) for name, one in self.families.items()},
            tuple(self.windows[w] for w in index),
            tuple(self.traces[w] for w in index),
            self.baseline,
            self.bound,
        )

    def of_trace(self, trace: str) -> Comparison:
        """The windows of one trace."""
        return self.part([w for w, name in enumerate(self.traces) if name == trace])

    def within_reach(self) -> Comparison | None:
        """The windows within the baseline's reach; None without a baseline or any such window."""
        if self.baseline not in self.families:
            return None
        costs = per_window_costs(self.families[self.baseline], REACHABLE)
        index = np.flatnonzero(np.isfinite(costs)).tolist()
        return self.part(index) if index else None


def summarise(comparison: Comparison) -> dict[str, Any]:
    """`groups`, `traces` and `policies` of the report."""
    groups = {"all": group(comparison)}
    reached = comparison.within_reach()
    if reached is not None:
        groups["within_reach"] = group(reached)
    return {
        "groups": groups,
        "traces": {trace: group(comparison.of_trace(trace)) for trace in dict.fromkeys(comparison.traces)},
        "policies": {name: _policy(one) for name, one in comparison.families.items()},
    }


def group(comparison: Comparison) -> dict[str, Any]:
    """All figures over the windows of a comparison."""
    seeds = comparison.seeds
    codes = _codes(comparison.traces)
    draws = [draw(codes, seeds)]
    if seeds > 1 and draws[0].over != "seeds":
        draws.append(draw(codes, seeds, over="seeds"))
    drawn = [_DrawnCosts(each, comparison.families) for each in draws]
    levels = {
        level_name(level): {name: _at_level(comparison, name, level, drawn) for name in comparison.families}
        for level in LEVELS
    }
    return {
        "windows": list(comparison.windows),
        "intervals_over": [each.over for each in draws],
        "levels": levels,
        "at_equal_cost": _equal_cost(comparison, draws[0]),
    }


def card(report: dict[str, Any], family: str) -> dict[str, Any]:
    """What an artifact says of its own evaluation: its cost, the contestants', and how it was found."""
    everything = report["groups"]["all"]
    levels = {
        level: {name: content[name]["cost"] for name in content}
        | {"gap_closed": content[family]["gap_closed"]}
        for level, content in everything["levels"].items()
    }
    return {
        "command": report["command"],
        "windows": len(report["windows"]),
        "cost_over_ideal_at_mean_violation": levels,
        "at_equal_cost": {
            reference: {
                "cost": content["cost"],
                "policies": {
                    name: {key: one[key] for key in ("mean_violation", "median_violation") if key in one}
                    for name, one in content["policies"].items()
                },
            }
            for reference, content in everything["at_equal_cost"].items()
        },
    }


def level_name(level: float) -> str:
    """A level as the report's keys have it: `0.5%`."""
    return f"{level:.1%}"


class _DrawnCosts:
    """One bootstrap's costs `[B]` of every policy at every level."""

    def __init__(self, draws: Draws, families: dict[str, Outcomes]) -> None:
        self._costs = {name: draws.costs(one, LEVELS) for name, one in families.items()}

    def at(self, name: str, level: float) -> FloatArray:
        return self._costs[name][LEVELS.index(level)]


def _at_level(
    comparison: Comparison, name: str, level: float, drawn: Sequence[_DrawnCosts]
) -> dict[str, Any]:
    """One policy at one violation; drawn: the bootstraps, the main one first."""
    baseline, least = comparison.baseline, comparison.bound
    one, base = comparison.families[name], comparison.families.get(baseline)
    bound = comparison.families.get(least)
    cost = one_knob(one, level)
    between = bracket(one.mean_cost, one.mean_violation, level)
    found: dict[str, Any] = {
        "cost": _plain(cost),
        "intervals": [_interval(interval(each.at(name, level))) for each in drawn],
        "read_between": [one.settings[s] for s in between],
        "coarse": len(between) == 2 and bool(one.mean_cost[between[0]] > COARSE * one.mean_cost[between[1]]),
        "cost_at_median_violation": _plain(one_knob_at_median(one, level)),
        "over_baseline": None,
        "gap_closed": None,
        "gap_closed_intervals": [],
        "setting": at_setting(one, nearest_setting(one, level)),
        "tuned_per_window": tuned(comparison, name, level),
    }
    if base is not None:
        found["over_baseline"] = {
            "ratio": _plain(cost / one_knob(base, level)),
            "intervals": [
                _interval(ratio_interval(each.at(name, level), each.at(baseline, level))) for each in drawn
            ],
        }
    if base is not None and bound is not None:
        share = gap_closed(cost, one_knob(base, level), one_knob(bound, level))
        found["gap_closed"] = _plain(share)
        found["gap_closed_intervals"] = [
            _interval(gap_interval(each.at(name, level), each.at(baseline, level), each.at(least, level)))
            for each in drawn
        ]
    return found


def tuned(comparison: Comparison, name: str, level: float) -> dict[str, Any]:
    """Figures with every dial turned for each window alone.

    cost: geometric mean over the windows that the policy reaches. The comparison with the baseline, and the
    gap closed, are over the windows that all who are compared reach; the others are counted.
    """
    ours = per_window_costs(comparison.families[name], level)
    reached = np.isfinite(ours)
    found: dict[str, Any] = {
        "cost": _geometric(ours[reached]),
        "windows_reached": int(reached.sum()),
        "windows": len(ours),
        "not_reached": [comparison.windows[w] for w in np.flatnonzero(~reached)],
        "against_baseline": None,
        "gap_closed": None,
    }
    if comparison.baseline not in comparison.families:
        return found
    base = per_window_costs(comparison.families[comparison.baseline], level)
    both = reached & np.isfinite(base)
    found["against_baseline"] = {
        "ratio": _geometric(ours[both] / base[both]),
        "windows_both": int(both.sum()),
        "windows_only_policy": int((reached & ~np.isfinite(base)).sum()),
        "windows_only_baseline": int((~reached & np.isfinite(base)).sum()),
        "windows_neither": int((~reached & ~np.isfinite(base)).sum()),
        "windows_cheaper": int((ours[both] < base[both]).sum()),
    }
    if comparison.bound in comparison.families:
        least = per_window_costs(comparison.families[comparison.bound], level)
        common = both & np.isfinite(least)
        if common.any():
            costs = (np.exp(np.log(each[common]).mean()) for each in (ours, base, least))
            found["gap_closed"] = _plain(gap_closed(*costs))
    return found


def at_setting(one: Outcomes, index: int) -> dict[str, Any]:
    """A setting's own figures over the windows: nothing interpolated."""
    worst, latency = one.worst_violation[index], one.p99_ms[index]
    return {
        "name": one.settings[index],
        "cost": float(one.mean_cost[index]),
        "mean_violation": float(one.mean_violation[index]),
        "median_violation": float(one.median_violation[index]),
        "worst_window_violation": float(one.window_violation[index].max()),
        "mean_worst_5_minutes": float(worst.mean()),
        "median_worst_5_minutes": float(np.median(worst)),
        "median_p99_ms": _plain(float(np.nanmedian(latency)) if np.isfinite(latency).any() else np.nan),
        "worst_p99_ms": _plain(float(np.nanmax(latency)) if np.isfinite(latency).any() else np.nan),
        "flaps_per_hour": float(one.flaps_per_hour[index].mean()),
    }


def _equal_cost(comparison: Comparison, draws: Draws) -> dict[str, Any]:
    """Violations for what some settings of the baseline cost."""
    base = comparison.families.get(comparison.baseline)
    found: dict[str, Any] = {}
    for reference in REFERENCES:
        if base is None or reference not in base.settings:
            continue
        index = base.settings.index(reference)
        spend = float(base.mean_cost[index])
        drawn_spend = draws.mean_cost(base)[:, index]
        policies = {}
        for name, one in comparison.families.items():
            policies[name] = _safest_within(one, spend)
            drawn = violations_at(draws.mean_cost(one), draws.mean_violation(one), drawn_spend)
            policies[name]["interval"] = _interval(interval(drawn))
        policies[reference] = at_setting(base, index)
        found[reference] = {"cost": spend, "policies": policies}
    return found


def _safest_within(one: Outcomes, spend: float) -> dict[str, Any]:
    """The safest setting that costs no more than `spend`, and the violation read off the frontier there."""
    # what a setting costs itself must not exclude it by its last bit
    affordable = np.flatnonzero(one.mean_cost <= spend * (1 + 1e-9))
    if len(affordable) == 0:
        return {"name": None}
    safest = int(affordable[np.argmin(one.mean_violation[affordable])])
    read = violation_at(one.mean_cost, one.mean_violation, spend * (1 + 1e-9))
    return at_setting(one, safest) | {"read_mean_violation": _plain(read)}


def _policy(one: Outcomes) -> dict[str, Any]:
    """Every setting, and every number of every window and seed."""
    return {
        "settings": [at_setting(one, index) for index in range(len(one.settings))],
        "cost": one.cost.tolist(),
        "violation": one.violation.tolist(),
        "worst_5_minutes": one.worst_violation.tolist(),
        "p99_ms": [[[_plain(v) for v in seeds] for seeds in windows] for windows in one.p99_ms],
        "flaps_per_hour": one.flaps_per_hour.tolist(),
    }


def _codes(names: Sequence[str]) -> list[int]:
    known = {name: code for code, name in enumerate(dict.fromkeys(names))}
    return [known[name] for name in names]


def _geometric(costs: FloatArray) -> float | None:
    return float(np.exp(np.log(costs).mean())) if len(costs) else None


def _interval(found: Interval) -> dict[str, Any]:
    return {"low": _plain(found.low), "high": _plain(found.high), "reached": found.reached}


def _plain(value: float) -> float | None:
    """NaN and infinity are not JSON."""
    return float(value) if np.isfinite(value) else None
