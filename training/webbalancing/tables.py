"""Tables of an evaluation and of a transfer, for the console and for documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.tables import make_table

HEADER = (
    "policy", "cost [95 %]", "over the first", "accuracy", "Gini", "errors", "mean, ms", "p50, ms", "p99, ms",
)  # fmt: skip


def phase_table(report: Mapping[str, Any]) -> list[str]:
    """Markdown lines of one phase: a row a policy, costs with intervals."""
    return make_table(HEADER, [_row(name, one) for name, one in report.items()])


def _row(name: str, one: Mapping[str, Any]) -> list[str]:
    low, high = one["interval"]
    spread = f" ± {one['between_seeds']:.2f}" if "between_seeds" in one else ""
    over = one.get("trial_over")
    ratio = "" if over is None else (
        f"{over['ratio']:.2f} [{over['interval'][0]:.2f}, {over['interval'][1]:.2f}]"
    )  # fmt: skip
    return [
        f"`{name}`" + (f" ({one['seeds']} seeds)" if one["seeds"] > 1 else ""),
        f"{one['cost']:.2f}{spread} [{low:.2f}, {high:.2f}]",
        ratio,
        f"{one['accuracy']:.0%}",
        f"{one['gini']:.2f}",
        f"{one['errors']:.1%}",
        f"{one['latency_ms']:.0f}",
        f"{one['p50_ms']:.0f}",
        f"{one['p99_ms']:.0f}",
    ]


def evaluation_tables(report: Mapping[str, Any]) -> str:
    """Every phase under its name. `over the first`: the first row's cost over this one's, paired."""
    lines: list[str] = [f"`{report['command']}`", ""]
    for phase, found in report["phases"].items():
        lines += [f"### {phase}", "", *phase_table(found), ""]
    return "\n".join(lines).rstrip() + "\n"


def transfer_tables(report: Mapping[str, Any]) -> str:
    """The same episodes on real servers and in the twin."""
    lines = [f"`{report['command']}`", "", _measured(report), ""]
    for face in ("real", "twin"):
        lines += [f"### {face}", "", *phase_table(report[face]), ""]
    return "\n".join(lines).rstrip() + "\n"


def validation_table(report: Mapping[str, Any]) -> str:
    """Mean latency by load, real over twin."""
    rows = [
        [
            f"{one['load']:.2f}", f"{one['requests']}", f"{one['real_ms']:.1f}", f"{one['twin_ms']:.1f}",
            f"{one['real_ms'] / one['twin_ms']:.3f}",
            f"{1000 * one['work_over_s']:.1f} / {1000 * one['http_over_s']:.1f}",
        ]
        for one in report["loads"]
    ]  # fmt: skip
    header = ("load", "requests", "real, ms", "twin, ms", "real / twin", "overheads in / out, ms")
    return "\n".join([f"`{report['command']}`", "", *make_table(header, rows)]) + "\n"


def _measured(report: Mapping[str, Any]) -> str:
    logged = ", ".join(f"{count} {kind}" for kind, count in sorted(report["logged"].items())) or "none"
    return (
        f"Episodes of each policy: {report['episodes']}. Batches were {report['late_ms']:.1f} ms late in the "
        "mean; the twin "
        f"was given the machine's overheads ({1000 * report['work_over_s']:.1f} ms of a worker's time, "
        f"{1000 * report['http_over_s']:.1f} ms besides). Errors logged: {logged}."
    )
