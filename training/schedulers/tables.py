"""A comparison of schedulers as tables: for the console, and as Markdown for documents. Made from the
report alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Report = Mapping[str, Any]
HEADER = (
    "policy", "mean slowdown", "{trial} / policy", "median", "p99", "mean wait, s", "cpu taken",
    "imbalance", "rejected",
)  # fmt: skip
SHOWN = (0, 1, 2, 5, 8)
"""Columns that fit on a terminal."""


def console_tables(report: Report, console: Console) -> None:
    """A table for each recording, and who was beaten on how many of them."""
    console.print(_extent(report), markup=False, soft_wrap=True)
    for name, found in report["recordings"].items():
        table = Table(title=name)
        header = _header(report)
        for place in SHOWN:
            table.add_column(header[place], justify="left" if place == 0 else "right")
        for policy, content in found["policies"].items():
            cells = _row(policy, content)
            table.add_row(*(escape(cells[place]) for place in SHOWN))
        console.print(table)
        for note in found["notes"]:
            console.print(f"  {note}", markup=False, soft_wrap=True)
    console.print(_verdict(report), markup=False, soft_wrap=True)


def markdown(report: Report) -> str:
    """The same as Markdown, a table of all recordings first."""
    lines = [
        f"`{report['command']}`",
        "",
        f"{_extent(report)}.",
        "",
        *_overview(report),
        "",
        _verdict(report),
        "",
    ]
    for name, found in report["recordings"].items():
        header = _header(report)
        lines += [f"### {name}", "", _line(header), _line(["---", *["---:"] * (len(header) - 1)])]
        lines += [_line(_row(policy, content)) for policy, content in found["policies"].items()]
        lines += ["", *(f"- {note}" for note in found["notes"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _overview(report: Report) -> list[str]:
    """Mean slowdowns: a row a policy, a column a recording."""
    recordings = report["recordings"]
    names = list(next(iter(recordings.values()))["policies"])
    lines = [_line(["mean slowdown", *recordings]), _line(["---", *["---:"] * len(recordings)])]
    rows = ([_slowdown(one["policies"][policy]) for one in recordings.values()] for policy in names)
    return lines + [_line([policy, *cells]) for policy, cells in zip(names, rows, strict=True)]


def _extent(report: Report) -> str:
    protocol = report["protocol"]
    return (
        f"{protocol['servers']} servers, {protocol['cluster']}, load {protocol['load']:g}, "
        f"{protocol['windows']} windows of {protocol['jobs']} jobs, {protocol['seeds']} seeds, "
        f"estimates' sigma {protocol['estimate_error']:g}"
    )


def _header(report: Report) -> list[str]:
    return [title.format(trial=report["trial"]) for title in HEADER]


def _row(policy: str, content: Report) -> list[str]:
    over = content.get("trial_over")
    low, high = over["interval"] if over else (0.0, 0.0)
    return [
        policy,
        _slowdown(content),
        f"{over['ratio']:.2f} [{low:.2f}, {high:.2f}]" if over else "",
        f"{content['median_slowdown']:.2f}",
        f"{content['p99_slowdown']:.1f}",
        f"{content['wait_s']:.0f}",
        f"{content['utilisation']:.0%}",
        f"{content['imbalance']:.2f}",
        f"{content['rejected']:.1%}",
    ]


def _slowdown(content: Report) -> str:
    low, high = content["interval"]
    return f"{content['slowdown']:.2f} [{low:.2f}, {high:.2f}]"


def _verdict(report: Report) -> str:
    total = len(report["recordings"])
    parts = [f"{other} on {len(names)} of {total}" for other, names in report["beaten_on"].items()]
    return f"{report['trial']} is better, by the whole interval, than: {'; '.join(parts)}" if parts else ""


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"
