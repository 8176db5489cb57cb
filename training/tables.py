"""An evaluation's report as tables: for the console, and as Markdown for documents. `comparison.py` calls it.

Both are made from the report alone, so they can be made again from a JSON file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

NOT_REACHED = "–"
Report = Mapping[str, Any]
SETTING_HEADER = (
    "policy",
    "setting",
    "cost",
    "violations: mean",
    "median",
    "worst window",
    "worst 5 min: mean",
    "median",
    "p99, ms: median",
    "flaps/h",
)


def console_tables(report: Report, console: Console) -> None:
    """What a person at a terminal wants to see: costs at equal violations, and violations at equal cost."""
    console.print(_extent(report))
    for left in report["left_out"]:
        console.print(f"left out: {left['name']}: {left['reason']}", markup=False, soft_wrap=True)
    for trace, unit in _other_units(report):
        console.print(f"not a request rate, but used as one: {trace}, {unit}", markup=False, soft_wrap=True)
    for title, group in _groups(report):
        console.print(_costs(group, title))
    everything = report["groups"]["all"]
    if everything["at_equal_cost"]:
        console.print(_equal_costs(everything))


def markdown(report: Report) -> str:
    """The whole report as Markdown, from the figures over all windows to each trace's."""
    protocol = report["protocol"]
    lines = [
        f"`{report['command']}`",
        "",
        f"{_extent(report)}; peak {protocol['peak_replicas']:g} replicas, "
        f"start-up {protocol['start_up_s']:g} s, a decision every {protocol['sync_period_s']:g} s. "
        f"Intervals: {protocol['confidence']:.0%} of {protocol['bootstrap_rounds']} draws. "
        f"{NOT_REACHED}: not reached at any setting. "
        "~: read between settings whose costs differ by more than half.",
        "",
        *_exceptions(report),
    ]
    for title, group in _groups(report):
        lines += [f"### {title}", "", *_group(report, group)]
    return "\n".join([*lines, *_per_trace(report)]).rstrip() + "\n"


def _extent(report: Report) -> str:
    seeds = report["protocol"]["seeds"]
    named = f"arrival seed {seeds[0]}" if len(seeds) == 1 else f"arrival seeds {seeds[0]} to {seeds[-1]}"
    return f"{len(report['windows'])} windows of {len(report['traces'])} traces, {named}"


def _groups(report: Report) -> list[tuple[str, Report]]:
    """The groups worth showing: the second only where it is not the first again."""
    everything, reached = report["groups"]["all"], report["groups"].get("within_reach")
    count = len(everything["windows"])
    found = [(f"All windows ({count})", everything)]
    if reached is not None and len(reached["windows"]) < count:
        found.append((f"Windows within the HPA's reach ({len(reached['windows'])} of {count})", reached))
    return found


def _group(report: Report, group: Report) -> list[str]:
    levels = group["levels"]
    strictest, laxest = next(iter(levels)), list(levels)[-1]
    over = group["intervals_over"][0]
    lines = [
        "Cost over the fluid ideal at equal mean violation, one setting for all windows "
        f"[interval over {over}] (share of the way from the HPA to the clairvoyant):",
        "",
        *_by_level(group, _cost_cell),
        "",
        f"The cheapest setting tried that keeps {laxest} in the mean (italics: none does, so the safest), "
        "as it is, nothing interpolated:",
        "",
        *make_table(SETTING_HEADER, (_setting_row(*item) for item in levels[laxest].items())),
        "",
        "The same at a *median* violation, one setting for all windows:",
        "",
        *_by_level(group, lambda content: _number(content["cost_at_median_violation"])),
        "",
        "Every dial turned for each window alone: cost (windows reached), and over the HPA's on the windows "
        "that both reach:",
        "",
        *_by_level(group, _tuned_cell),
        "",
    ]
    never = levels[strictest].get(report["protocol"]["bound"])
    if never is not None and never["tuned_per_window"]["not_reached"]:
        names = ", ".join(never["tuned_per_window"]["not_reached"])
        lines += [f"Not even the clairvoyant reaches {strictest} on: {names}.", ""]
    return lines + _at_equal_cost(group)


def _by_level(group: Report, cell: Any) -> list[str]:
    levels = group["levels"]
    rows = ([name, *(cell(levels[level][name]) for level in levels)] for name in next(iter(levels.values())))
    return make_table(["policy", *(f"at {level}" for level in levels)], rows)


def _at_equal_cost(group: Report) -> list[str]:
    contents = group["at_equal_cost"]
    if not contents:
        return []
    names = next(iter(group["levels"].values()))
    rows = [
        [name, *(_violation_cell(content["policies"][name]) for content in contents.values())]
        for name in names
    ]
    own = (_violation_cell(content["policies"][name]) for name, content in contents.items())
    return [
        "Violations for what an HPA setting costs, mean (median): the safest setting that costs no more:",
        "",
        *make_table(["policy", *(f"{n}: {content['cost']:.2f}" for n, content in contents.items())], rows),
        _row(["that setting itself", *own]),
        "",
    ]


def _per_trace(report: Report) -> list[str]:
    """One table a level but for the strictest, which few traces reach."""
    lines = ["### Each trace", ""]
    for level in list(report["groups"]["all"]["levels"])[1:]:
        lines += [
            f"Cost at {level} mean violation over the trace's windows, one setting for them (bold: the "
            "cheapest but for the clairvoyant):",
            "",
            *make_table(
                ["trace", "windows", "hours", *report["policies"]],
                (_trace_row(report, trace, level) for trace in report["traces"]),
            ),
            "",
        ]
    return lines


def _trace_row(report: Report, trace: str, level: str) -> list[str]:
    group, bound = report["traces"][trace], report["protocol"]["bound"]
    hours = sum(window["hours"] for window in report["windows"] if window["trace"] == trace)
    found = group["levels"][level].items()
    known = [one["cost"] for name, one in found if one["cost"] is not None and name != bound]
    cells = []
    for name, content in found:
        best = content["cost"] is not None and name != bound and content["cost"] == min(known)
        cells.append(f"**{_read_cost(content)}**" if best else _read_cost(content))
    return [trace.removeprefix("rps_"), f"{len(group['windows'])}", f"{hours:.3g}", *cells]


def _exceptions(report: Report) -> list[str]:
    lines = [f"- Left out: {left['name']}: {left['reason']}." for left in report["left_out"]]
    lines += [
        f"- Shorter than a window, used whole: {window['trace']}, {window['hours']:.2g} h."
        for window in report["windows"]
        if window["shorter_than_asked"]
    ]
    lines += [
        f"- Not a request rate, but used as one: {trace}, {unit}." for trace, unit in _other_units(report)
    ]
    return [*lines, ""] if lines else []


def _other_units(report: Report) -> list[tuple[str, str]]:
    """Recordings of something else, whose course stands for a request rate's: (trace, unit)."""
    units = {window["trace"]: window["unit"] for window in report["windows"]}
    return [(trace, unit) for trace, unit in units.items() if unit != "requests/s"]


def _cost_cell(content: Report) -> str:
    if content["cost"] is None:
        return NOT_REACHED
    interval, gap = content["intervals"][0], content["gap_closed"]
    span = f"{_number(interval['low'])}, {_number(interval['high'])}"
    return f"{_read_cost(content)} [{span}]" + (f" ({gap:.0%})" if gap is not None else "")


def _read_cost(content: Report) -> str:
    """A cost, marked where it is read between settings that lie far apart."""
    return ("~" if content["coarse"] else "") + _number(content["cost"])


def _setting_row(name: str, content: Report) -> list[str]:
    one = content["setting"]
    return [
        name,
        one["name"] if content["cost"] is not None else f"*{one['name']}*",
        f"{one['cost']:.2f}",
        *(f"{one[key]:.2%}" for key in ("mean_violation", "median_violation", "worst_window_violation")),
        *(f"{one[key]:.1%}" for key in ("mean_worst_5_minutes", "median_worst_5_minutes")),
        NOT_REACHED if one["median_p99_ms"] is None else f"{one['median_p99_ms']:.0f}",
        f"{one['flaps_per_hour']:.1f}",
    ]


def _tuned_cell(content: Report) -> str:
    tuned = content["tuned_per_window"]
    cell = f"{_number(tuned['cost'])} ({tuned['windows_reached']} of {tuned['windows']})"
    against = tuned["against_baseline"]
    if against is None or against["ratio"] is None:
        return cell
    return f"{cell}, x {against['ratio']:.2f} on {against['windows_both']}"


def _violation_cell(content: Report) -> str:
    if content["name"] is None:
        return "dearer at any setting"
    return f"{content['mean_violation']:.2%} ({content['median_violation']:.2%})"


def _number(value: float | None) -> str:
    return NOT_REACHED if value is None else f"{value:.2f}"


def make_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [_row(header), _row(["---"] * len(header)), *(_row(row) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _costs(group: Report, title: str) -> Table:
    made = Table(title=f"{title}: cost / fluid ideal at equal mean violation, one setting for all")
    levels = group["levels"]
    made.add_column("policy")
    for level in levels:
        made.add_column(f"at {level}", justify="right")
    made.add_column("flaps/h", justify="right")
    laxest = list(levels.values())[-1]
    for name in laxest:
        cells = (escape(_cost_cell(content[name])) for content in levels.values())
        made.add_row(name, *cells, f"{laxest[name]['setting']['flaps_per_hour']:.1f}")
    made.caption = escape(
        f"[interval over {group['intervals_over'][0]}] (share of the way from the HPA to the clairvoyant); "
        f"{NOT_REACHED} not reached"
    )
    return made


def _equal_costs(group: Report) -> Table:
    contents = group["at_equal_cost"]
    made = Table(title="violations at equal cost: mean (median) over windows")
    made.add_column("policy")
    for setting, content in contents.items():
        made.add_column(f"{setting}, {content['cost']:.2f} x ideal", justify="right")
    for name in next(iter(group["levels"].values())):
        made.add_row(name, *(_violation_cell(content["policies"][name]) for content in contents.values()))
    return made
