"""A robustness test's report as tables: for the console, and as Markdown. `training.hardship` calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from training.equal_cost import DEAR, FAILS, HOLDS, OPEN
from training.summary import REFERENCES
from training.tables import NOT_REACHED, make_table

Report = Mapping[str, Any]
MARKS = {DEAR: "not comparable", HOLDS: "no more", OPEN: "not told apart", FAILS: "**more**"}
"""Verdicts as tables have them."""


def policies(report: Report) -> list[str]:
    """Names of those who are compared with the HPA, in order."""
    return list(next(iter(report["conditions"].values()))["policies"])


def markdown(report: Report) -> str:
    """The whole report: verdicts of all policies, then each policy's figures."""
    names = policies(report)
    lines = [f"`{report['command']}`", "", f"{_extent(report)}.", ""]
    lines += [f"- Left out: {each}." for each in report["left_out"]] + ([""] if report["left_out"] else [])
    lines += make_table(
        ["condition", *names], ([each, *_verdicts(report, each)] for each in report["conditions"])
    )
    for name in names:
        lines += ["", f"### {name}", "", *make_table(_header(), _rows(report, name))]
    return "\n".join(lines) + "\n"


def console_table(report: Report, console: Console) -> None:
    """Each policy's verdict under each condition."""
    console.print(_extent(report))
    for each in report["left_out"]:
        console.print(f"left out: {each}", markup=False, soft_wrap=True)
    made = Table(title="violations against the HPA's at equal cost, over all cost levels")
    made.add_column("condition")
    for name in policies(report):
        made.add_column(name)
    for each in report["conditions"]:
        made.add_row(each, *(cell.replace("**", "") for cell in _verdicts(report, each)))
    console.print(made)


def _extent(report: Report) -> str:
    protocol, over = report["protocol"], next(iter(report["conditions"].values()))["intervals_over"]
    windows = protocol["windows"]
    return (
        f"{len(windows)} windows of {len(set(windows))} traces, {protocol['hours']:g} h each, "
        f"{len(protocol['seeds'])} arrival seed(s); {protocol['confidence']:.0%} intervals over {over}"
    )


def _verdicts(report: Report, condition: str) -> list[str]:
    found = report["conditions"][condition]["policies"].values()
    return [_verdict(one) for one in found]


def _verdict(one: Report) -> str:
    """The verdict and, at the cost that decides it, the ratio of violations with its interval."""
    decisive = next(level for level in one["levels"] if level["setting"] == one["decided_at"])
    if decisive["ours"] is None:
        return f"{MARKS[one['verdict']]}: dearer at any setting"
    ratio = decisive["ours"] / max(decisive["theirs"], 1e-6)
    return f"{MARKS[one['verdict']]}: x {ratio:.2g} {_span(decisive['ratio'])}"


def _span(interval: Report) -> str:
    low, high = (NOT_REACHED if interval[end] is None else f"{interval[end]:.2g}" for end in ("low", "high"))
    return f"[{low}, {high}]"


def _header() -> list[str]:
    return ["condition", *(f"at {name}'s cost" for name in REFERENCES), "other levels", "verdict"]


def _rows(report: Report, name: str) -> list[list[str]]:
    rows = []
    for condition, content in report["conditions"].items():
        one = content["policies"][name]
        by_setting = {level["setting"]: level for level in one["levels"]}
        others = [level for setting, level in by_setting.items() if setting not in REFERENCES]
        held = sum(level["verdict"] == HOLDS for level in others)
        rows.append(
            [condition]
            + [_cell(by_setting.get(reference)) for reference in REFERENCES]
            + [f"{held} of {len(others)} no more", MARKS[one["verdict"]]]
        )
    return rows


def _cell(level: Report | None) -> str:
    """`mean (median) / the HPA's mean (median)` in percent, marked where more."""
    if level is None:
        return ""
    ours = _pair(level["ours"], level["our_median"])
    mark = {OPEN: " ~", FAILS: " **more**"}.get(level["verdict"], "")
    return f"{ours} / {_pair(level['theirs'], level['their_median'])}{mark}"


def _pair(mean: float | None, median: float | None) -> str:
    return f"{_percent(mean)} ({_percent(median)})"


def _percent(share: float | None) -> str:
    return NOT_REACHED if share is None else f"{100 * share:.2g}"


def rows_of(report: Report, name: str, setting: str) -> Sequence[tuple[str, Report | None]]:
    """(condition, the level at a setting's cost) for each condition; None where there is none."""
    found = []
    for condition, content in report["conditions"].items():
        known = {level["setting"]: level for level in content["policies"][name]["levels"]}
        found.append((condition, known.get(setting)))
    return found
