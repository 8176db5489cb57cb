"""How near candidates for the built-in policy come to what is asked of it, on traffic for choosing.

`python -m training.analytic.bars RUN_OR_ONNX...` replays them in the simulator (`sim.replay`, not the twin)
on generated windows, on windows in coarse bins and, with `--trace`, on recordings; HPA, forecast and
clairvoyant come from the cache of `training/evaluate.py`. `training.analytic.ablations` prints the same of
variants. The recordings of docs/evaluation.md are test data: never give them here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from sim.errors import TraceError
from sim.replay import Protocol, Window, cut_windows
from sim.traces import Trace, load_trace
from training.analytic.counts import NODE_S, coarse_workload
from training.commandline import count
from training.contestants import CLAIRVOYANT, DAY_S, HELD_OUT, HPA, Sweep, generated_windows, label_of
from training.errors import ConfigError
from training.frontier import (
    LEVELS,
    Outcomes,
    gap_closed,
    nearest_setting,
    one_knob,
    per_window_costs,
    violation_at,
)
from training.playing import Setup, play_all
from training.summary import Comparison, tuned

FORECAST = "Forecast"
SEED, WINDOWS = 5, 20
ARRIVALS = 5
EQUAL_COST = "hpa-70%-300s"
TUNED_AT = 0.005
PREFERENCES = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)


@dataclass(frozen=True)
class Bars:
    """A policy on the windows within the HPA's reach; costs over the ideal, NaN where not reached.

    cost, hpa, forecast, bound: at LEVELS with one setting for all windows. closed: share of the way from HPA
    to clairvoyant. tuned_closed: the same of geometric means with every dial turned for each window alone, at
    0.5 %. no_worse: share of windows on which the policy, so tuned, reaches 0.5 % and costs no more than the
    HPA. mean, median, hpa_mean, hpa_median: violations at the cost of an HPA at 70 %. flaps, hpa_flaps:
    changes of direction an hour of the cheapest setting that keeps 1 %.
    """

    windows: int
    cost: tuple[float, ...]
    hpa: tuple[float, ...]
    forecast: tuple[float, ...]
    bound: tuple[float, ...]
    closed: tuple[float, ...]
    tuned_closed: float
    no_worse: float
    mean: float
    hpa_mean: float
    median: float
    hpa_median: float
    flaps: float
    hpa_flaps: float


def bars_of(comparison: Comparison, name: str) -> Bars:
    """The figures of one policy; the comparison has HPA, forecast and clairvoyant too."""
    families = comparison.families
    own, hpa = families[name], families[HPA]
    cost, base, other, least = (
        tuple(one_knob(families[one], level) for level in LEVELS)
        for one in (name, HPA, FORECAST, CLAIRVOYANT)
    )
    mine, theirs = per_window_costs(own, TUNED_AT), per_window_costs(hpa, TUNED_AT)
    no_worse = np.isfinite(mine) & (np.isnan(theirs) | (mine <= theirs * (1 + 1e-4)))
    closed = tuned(comparison, name, TUNED_AT)["gap_closed"]
    at = hpa.settings.index(EQUAL_COST)
    return Bars(
        windows=len(comparison.windows),
        cost=cost,
        hpa=base,
        forecast=other,
        bound=least,
        closed=tuple(float(each) for each in gap_closed(cost, base, least)),
        tuned_closed=float("nan") if closed is None else float(closed),
        no_worse=float(no_worse.mean()),
        mean=violation_at(own.mean_cost, own.mean_violation, hpa.mean_cost[at]),
        hpa_mean=float(hpa.mean_violation[at]),
        median=violation_at(own.mean_cost, own.median_violation, hpa.mean_cost[at]),
        hpa_median=float(hpa.median_violation[at]),
        flaps=_flaps(own),
        hpa_flaps=_flaps(hpa),
    )


def _flaps(one: Outcomes) -> float:
    return float(one.flaps_per_hour[nearest_setting(one, LEVELS[-1])].mean())


def groups_of_windows(
    traces: Sequence[str], protocol: Protocol, wanted: int = WINDOWS
) -> dict[str, list[Window]]:
    """Windows by kind: `generated`, `coarse` and, if there are any, `recorded`."""
    groups = {
        "generated": generated_windows(wanted, SEED, protocol),
        "coarse": [_coarse(index, protocol) for index in range(wanted)],
    }
    if traces:
        windows, left_out = cut_windows([_trace(name) for name in traces], protocol)
        for each in left_out:
            print(f"left out: {each.name}: {each.reason}", file=sys.stderr)
        groups["recorded"] = windows
    return groups


def judge_all(
    artifacts: Sequence[Path], traces: Sequence[str], jobs: int, sweep: Sweep, wanted: int = WINDOWS
) -> dict[str, dict[str, Bars]]:
    """Bars by kind of windows and artifact; wanted: windows of each kind that is generated.

    Raises ConfigError for what cannot be read.
    """
    protocol = Protocol()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(base) / "rl-scaler" / "evaluation"
    setup = Setup(protocol, sweep, "fused", jobs, cache)
    names = [HPA, FORECAST, CLAIRVOYANT, *(str(path) for path in artifacts)]
    found = {}
    for kind, windows in groups_of_windows(traces, protocol, wanted).items():
        played = play_all(names, windows, [ARRIVALS], setup, lambda label, done: None)
        comparison = Comparison(
            dict(zip(names, played, strict=True)),
            tuple(window.name for window in windows),
            tuple(window.source or window.name for window in windows),
            HPA,
            CLAIRVOYANT,
        ).within_reach()
        if comparison is not None:
            found[kind] = {str(path): bars_of(comparison, str(path)) for path in artifacts}
    return found


def print_bars(found: dict[str, dict[str, Bars]], names: dict[str, str], console: Console) -> None:
    """One table for each kind of windows; names: what to call each artifact."""
    for kind, each in found.items():
        one = next(iter(each.values()))
        table = Table(title=f"{kind}: {one.windows} windows within the HPA's reach")
        for column in ("policy", "cost at 0.1 / 0.5 / 1 %", "gap closed", "tuned: closed", "no worse",
                       "at HPA-70 %: mean", "median", "flaps/h"):  # fmt: skip
            table.add_column(column, no_wrap=True)
        for name in ("hpa", "forecast", "bound"):
            table.add_row({"bound": CLAIRVOYANT}.get(name, name), _costs(getattr(one, name)))
        for path, bars in each.items():
            table.add_row(
                names[path],
                _costs(bars.cost),
                " / ".join(f"{100 * share:.1f}" for share in bars.closed) + " %",
                f"{bars.tuned_closed:.2f}",
                f"{100 * bars.no_worse:.1f} %",
                f"{_percent(bars.mean)} against {_percent(bars.hpa_mean)} %",
                f"{_percent(bars.median)} against {_percent(bars.hpa_median)} %",
                f"{bars.flaps:.1f} against {bars.hpa_flaps:.1f}",
            )
        console.print(table)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What `bars` and `ablations` have in common."""
    parser.add_argument(
        "--trace", nargs="*", default=[], help="recordings to judge on too: FILE, or FILE:COLUMN of a table"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument(
        "--windows", type=count, default=WINDOWS, help="generated, and in coarse bins; default: %(default)s"
    )
    parser.add_argument(
        "--scale-down-window",
        type=int,
        default=Sweep.scale_down_window_s,
        help="seconds, of all but the HPA; default: %(default)s",
    )
    parser.add_argument("--json", type=Path, help="every figure")


def sweep_of(args: argparse.Namespace) -> Sweep:
    """The dials that `add_options` asks for. Raises ConfigError."""
    return Sweep(preferences=PREFERENCES, scale_down_window_s=args.scale_down_window)


def save(found: dict[str, dict[str, Bars]], path: Path | None) -> None:
    """Every figure as JSON, if a path is given."""
    if path:
        plain = {kind: {name: asdict(bars) for name, bars in each.items()} for kind, each in found.items()}
        path.write_text(json.dumps(plain, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0 done, 2 for what cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m training.analytic.bars", description=__doc__)
    parser.add_argument("policies", nargs="+", type=Path, help="run folders or .onnx files")
    add_options(parser)
    args = parser.parse_args(argv)
    artifacts = [path / "policy.onnx" if path.is_dir() else path for path in args.policies]
    try:
        found = judge_all(artifacts, args.trace, args.jobs, sweep_of(args), args.windows)
    except (ConfigError, TraceError) as error:
        print(f"bars: {error}", file=sys.stderr)
        return 2
    print_bars(found, {str(path): label_of(str(path)) for path in artifacts}, Console(width=180))
    save(found, args.json)
    return 0


def _trace(name: str) -> Trace:
    path, _, column = name.rpartition(":")
    if path and not Path(name).exists():
        trace = load_trace(path, format="table", column=column, values="count")
        return Trace(trace.times_s, trace.rate_rps, column, trace.unit)
    return load_trace(name)


def _coarse(index: int, protocol: Protocol) -> Window:
    """A day after a day of history, as counts in coarse bins."""
    rng = np.random.default_rng([77, index])
    rates = coarse_workload(rng, DAY_S + protocol.window_s, HELD_OUT)
    times = np.arange(len(rates)) * NODE_S - DAY_S
    now = (times >= 0) & (times <= protocol.window_s)
    capacity = float(np.asarray(protocol.params.capacity_rps).reshape(-1)[0])
    scaled = rates * protocol.peak_replicas * capacity / float(rates[now].max())
    name = f"coarse-{index}"
    return Window(Trace(times[now], scaled[now], name), Trace(times[times < 0], scaled[times < 0]), name)


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.2f}"


def _costs(values: Sequence[float]) -> str:
    return " / ".join("–" if np.isnan(value) else f"{value:.2f}" for value in values)


if __name__ == "__main__":
    raise SystemExit(main())
