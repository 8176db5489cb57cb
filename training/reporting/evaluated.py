"""Sections about a policy in replays: its frontier and its timelines. `training.reporting.build` asks.

The replays are those of `evaluate.py`, with its cache: what has been evaluated there is not computed again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from controller.policies.onnx_policy import OnnxPolicy
from sim.replay import ReplayResult
from training.comparison import Measured
from training.contestants import contestant, label_of
from training.frontier import LEVELS, Outcomes
from training.pictures import draw_timeline, looks_of, plot_frontiers, settings_at, telling_replays
from training.reporting.markup import Section, code, figure, folded, paragraph, table, text
from training.reporting.theme import WIDTH_IN, inline, styled, themed
from training.reporting.witness import Seen, replay_watched
from training.summary import Comparison, level_name

NOT_REACHED = "not reached"
SPARSE_MOMENTS = 50_000
"""About so many observations are kept for the medians of the slices."""


@dataclass(frozen=True)
class Evaluated:
    """A policy, its evaluation, and the setting of its dial that is looked into."""

    name: str
    """What the policy is called on the page."""
    policy: OnnxPolicy
    artifact: str
    """As the command line has it."""
    measured: Measured
    chosen: Mapping[str, int]
    """Each family's setting for LEVELS[-1]."""

    @property
    def label(self) -> str:
        """The policy's family in the comparison."""
        return label_of(self.artifact)

    @property
    def rivals(self) -> list[str]:
        """The HPA and the clairvoyant, as far as they take part."""
        comparison = self.measured.comparison
        return [name for name in (comparison.baseline, comparison.bound) if name in comparison.families]

    def shown(self, name: str) -> str:
        """A family, a setting or a title with the policy's name instead of its run's."""
        return name.replace(self.label, self.name)

    def setting(self, name: str) -> Any:
        """The chosen setting of a family, ready to be replayed."""
        setup = self.measured.setup
        wanted = self.artifact if name == self.label else name
        return contestant(wanted, setup.sweep, setup.protocol).settings[self.chosen[name]]

    def outcomes(self, name: str) -> Outcomes:
        """A family's figures."""
        return self.measured.comparison.families[name]

    @cached_property
    def comparison(self) -> Comparison:
        """Everybody's outcomes under the names that are shown."""
        families = self.measured.comparison.families
        return replace(
            self.measured.comparison, families={self.shown(name): one for name, one in families.items()}
        )

    @cached_property
    def overall(self) -> tuple[ReplayResult, Seen]:
        """The chosen setting on all windows, with its timeline, and some of what the policy saw."""
        measured, setting = self.measured, self.setting(self.label)
        steps = sum(window.trace.duration_s for window in measured.windows) / setting.spec.sync_period_s
        every = max(1, round(steps / SPARSE_MOMENTS))
        return replay_watched(self.policy, setting, measured.windows, measured.setup, every)


def evaluated(name: str, policy: OnnxPolicy, artifact: str, measured: Measured) -> Evaluated:
    """Choose the settings at which policies are compared in detail."""
    families = list(measured.comparison.families)
    # a policy that is called as somebody it is compared with would be mistaken for it
    shown = f"{name} (this run)" if name in families else name
    chosen = settings_at(measured.comparison, LEVELS[-1], families)
    return Evaluated(shown, policy, artifact, measured, chosen)


def key_figures(about: Evaluated) -> list[tuple[str, str]]:
    """(number, what it is) for the top of the page."""
    group, protocol = group_of(about), about.measured.report["protocol"]
    found = []
    for level in group["levels"]:
        one = group["levels"][level][about.label]
        gap = one["gap_closed"]
        closed = f", {gap:.0%} of the way from {protocol['baseline']} to {protocol['bound']}" if gap else ""
        number = NOT_REACHED if one["cost"] is None else f"{one['cost']:.2f}"
        found.append((number, f"cost over ideal at {level} mean violations{closed}"))
    at = group["levels"][level_name(LEVELS[-1])][about.label]["setting"]
    found.append(
        (f"{at['flaps_per_hour']:.1f}", f"changes of direction an hour at {about.shown(at['name'])}")
    )
    return found


def frontier(about: Evaluated) -> Section:
    """Cost over violations, everybody on the same traffic."""
    measured = about.measured
    looks = looks_of(list(about.comparison.families))
    with styled(), tempfile.TemporaryDirectory() as folder:
        path = plot_frontiers(about.comparison, looks, Path(folder) / "frontier.svg")
        svg = themed(path.read_text(), "Frontier", "cost over the fluid ideal against violations")
    group = group_of(about)
    levels = list(group["levels"])
    names = list(measured.comparison.families)
    rows = [[about.shown(name), *(_cost(group["levels"][level][name]) for level in levels)] for name in names]
    count, everything = len(group["windows"]), len(measured.windows)
    over = "all windows" if count == everything else "windows that the HPA can bring to 1 %"
    body = [
        paragraph(
            f"One setting of each dial for all windows; cost is replica-hours over the fluid ideal. "
            f"{_traffic(about)}"
        ),
        figure(svg, "Left: mean violations, which hard windows dominate. Right: of the median window."),
        table(
            ["policy", *(f"at {level}" for level in levels)],
            rows,
            f"Cost at equal mean violations on {count} of {everything} windows ({over}); in brackets the "
            f"share of the way from {measured.comparison.baseline} to {measured.comparison.bound}",
            strong=[names.index(about.label)],
        ),
        _setting_table(about, group),
        folded("The command that repeats this evaluation", code(measured.report["command"])),
    ]
    return Section("frontier", "Frontier", "".join(body))


def timelines(about: Evaluated) -> Section:
    """The windows that tell most."""
    measured = about.measured
    looks = looks_of(list(about.comparison.families))
    policies = [about.artifact if name == about.label else name for name in measured.comparison.families]
    parts = [
        paragraph(
            f"Each policy at its cheapest setting that keeps {level_name(LEVELS[-1])} in the mean (or its "
            "safest). Left the whole window, right its worst two hours; grey is the load in replicas, dotted "
            "the objective."
        )
    ]
    told = telling_replays(measured.comparison, measured.windows, policies, measured.setup)
    for title, names, result in told:
        named = replace(result, settings=tuple(map(about.shown, result.settings)))
        size = (WIDTH_IN + 2, 6.6)
        shown = list(map(about.shown, names))
        with styled(), plt.rc_context({"path.simplify_threshold": 0.8}):
            drawn = draw_timeline(named, shown, "the whole window", measured.setup, looks, size)
            svg = inline(drawn, "Timeline", f"{about.shown(title)}: replicas, p95 latency and violations")
        parts.append(f"<h3>{text(about.shown(title))}</h3>{figure(svg)}")
    return Section("timelines", "Telling windows", "".join(parts))


def _setting_table(about: Evaluated, group: Mapping[str, Any]) -> str:
    names = list(about.measured.comparison.families)
    level = level_name(LEVELS[-1])
    rows = []
    for name in names:
        at = group["levels"][level][name]["setting"]
        rows.append(
            [
                about.shown(name),
                about.shown(at["name"]),
                f"{at['cost']:.2f}",
                f"{at['mean_violation']:.2%}",
                f"{at['median_violation']:.2%}",
                f"{at['median_worst_5_minutes']:.0%}",
                milliseconds(at["median_p99_ms"]),
                f"{at['flaps_per_hour']:.1f}",
            ]
        )
    return table(
        ["policy", "setting", "cost", "late: mean", "median", "worst 5 min", "p99", "flaps/h"],
        rows,
        f"The cheapest setting tried that keeps {level} in the mean, or the safest; nothing interpolated",
        numbers_from=2,
        strong=[names.index(about.label)],
    )


def group_of(about: Evaluated) -> Mapping[str, Any]:
    """The windows that the baseline can serve at all, as in docs/evaluation.md; else all."""
    groups: Mapping[str, Any] = about.measured.report["groups"]
    found: Mapping[str, Any] = groups.get("within_reach") or groups["all"]
    return found


def _traffic(about: Evaluated) -> str:
    report = about.measured.report
    protocol = report["protocol"]
    return (
        f"{len(report['windows'])} windows of {len(report['traces'])} traces, peak "
        f"{protocol['peak_replicas']:g} replicas, start-up {protocol['start_up_s']:g} s, a decision every "
        f"{protocol['sync_period_s']:g} s, objective p95 {protocol['slo_latency_ms']:g} ms."
    )


def _cost(found: Mapping[str, Any]) -> str:
    if found["cost"] is None:
        return NOT_REACHED
    gap = found["gap_closed"]
    return f"{found['cost']:.2f}" + (f" ({gap:.0%})" if gap is not None else "")


def milliseconds(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:,.0f} ms" if value < 10_000 else f"{value / 1000:.0f} s"
