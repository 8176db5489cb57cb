"""`rl-scaler trace ...`: what a recording is like, conversion to the project's CSV, generated traces.

The command line finds it through the entry point `rl_scaler.commands`. Importing this module costs nothing:
what a command needs is imported when it runs, and a missing extra is told by its name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.errors import RlScalerError

if TYPE_CHECKING:
    from sim.traceinfo import TraceInfo
    from sim.traces import Jobs, Trace


class CommandError(RlScalerError):
    """A command cannot be done as asked; the message is for the terminal."""


def add_trace_command(commands: Any) -> None:
    """Add `trace` to the sub-parsers of `rl-scaler`."""
    trace = commands.add_parser(
        "trace",
        help="describe, convert and generate traces of requests",
        description="Recordings of requests or jobs: describe and draw them, convert and generate them. "
        "docs/traces.md lists the formats and generators.",
    )
    verbs = trace.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_info(verbs)
    _add_convert(verbs)
    _add_generate(verbs)
    formats = verbs.add_parser("formats", help="list the formats, their options, and the generators")
    formats.set_defaults(run=_guarded(_formats))


def _add_info(verbs: Any) -> None:
    info = verbs.add_parser(
        "info",
        help="length, rates, burstiness, seasonality, and a drawing",
        description="Describes recordings and draws them in the terminal.",
    )
    info.add_argument(
        "files", nargs="+", metavar="FILE", help="a recording (packed or not), or a folder of its parts"
    )
    _reading(info)
    info.add_argument(
        "--plot", metavar="FILE.png", help="also draw it into this file ({name} is the trace's)"
    )
    info.add_argument("--json", action="store_true", help="print JSON, nothing else")
    info.add_argument("--no-chart", action="store_true", help="numbers only")
    info.set_defaults(run=_guarded(_info))


def _add_convert(verbs: Any) -> None:
    convert = verbs.add_parser(
        "convert",
        help="write a recording as the project's CSV",
        description="Reads any known format and writes timestamp_s,requests_per_s "
        "(or submit_s,duration_s,cpu,memory with --jobs).",
    )
    convert.add_argument("file", metavar="FILE")
    convert.add_argument("out", metavar="OUT.csv", help="gzipped if it ends in .gz")
    _reading(convert)
    convert.add_argument("--jobs", action="store_true", help="write jobs instead of rates")
    convert.add_argument("--resample", type=float, metavar="S", help="on a grid of S seconds, interpolated")
    convert.add_argument("--start", type=float, metavar="S", help="from this second of the trace on")
    convert.add_argument("--duration", type=float, metavar="S", help="so many seconds of it")
    convert.add_argument("--busiest", type=float, metavar="S", help="the S seconds with the most requests")
    convert.add_argument("--scale", type=float, metavar="X", help="every rate times X")
    convert.add_argument("--scale-to-peak", type=float, metavar="RPS", help="so that its highest rate is RPS")
    convert.set_defaults(run=_guarded(_convert))


def _add_generate(verbs: Any) -> None:
    generate = verbs.add_parser(
        "generate",
        help="write a generated trace",
        description="Writes rates of a generator: KIND is its name, or a YAML or JSON file that describes "
        "one (kind, fields, nested parts).",
    )
    generate.add_argument("kind", metavar="KIND", help="Diurnal, FlashCrowds, LlmInference ... or a file")
    generate.add_argument("out", metavar="OUT.csv", help="gzipped if it ends in .gz")
    generate.add_argument(
        "--param",
        "-p",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field of it; lists as [1, 2]",
    )
    generate.add_argument("--duration", type=float, default=86400.0, metavar="S", help="default a day")
    generate.add_argument(
        "--step", type=float, default=15.0, metavar="S", help="one rate every S seconds; default 15"
    )
    generate.add_argument(
        "--start", type=float, default=0.0, metavar="S", help="the generator's clock at the start"
    )
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument(
        "--scale-to-peak", type=float, metavar="RPS", help="so that its highest rate is RPS"
    )
    generate.add_argument(
        "--poisson", action="store_true", help="arrivals drawn round the rates, not the rates"
    )
    generate.set_defaults(run=_guarded(_generate))


def _reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", default="auto", metavar="NAME", help="default: told by the file's beginning"
    )
    parser.add_argument(
        "--bin", type=float, default=60.0, metavar="S", help="bins for single requests and jobs; default 60"
    )
    parser.add_argument(
        "--option",
        "-o",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the format (trace formats)",
    )
    parser.add_argument("--label", metavar="NAME=VALUE", help="Prometheus: the series with this label")
    parser.add_argument(
        "--sum", action="store_true", help="Prometheus: all series added; tables: all columns"
    )
    parser.add_argument("--column", metavar="NAME", help="tables: the column with the values")


def _guarded(work: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """`work`, with errors on purpose and missing extras as sentences."""

    def run(args: argparse.Namespace) -> int:
        from sim.errors import SimulationError

        try:
            return work(args)
        except SimulationError as error:
            raise CommandError(str(error)) from error
        except ModuleNotFoundError as error:
            needs = (
                f"'rl-scaler trace' needs {error.name}, which is not installed: pip install 'rl-scaler[sim]'"
            )
            raise CommandError(needs) from error

    return run


def _options(args: argparse.Namespace) -> dict[str, str]:
    options = {}
    for pair in args.option:
        name, equals, value = pair.partition("=")
        if not equals:
            raise CommandError(f"--option: {pair!r} is not allowed, must be NAME=VALUE")
        options[name] = value
    if args.label:
        options["label"] = args.label
    if args.column:
        options["column"] = args.column
    return options


def _read(path: str, args: argparse.Namespace) -> Trace | Jobs:
    from sim.loaders import LOADERS, Source, read, recognise

    options = _options(args)
    if args.sum:
        name = args.format
        if name == "auto":
            source = Source(path)
            name = recognise(source.head(), source).name
        taken = LOADERS[name].options if name in LOADERS else {}
        options.update({"combine": "sum"} if "combine" in taken else {"column": "sum"})
    return read(path, args.format, args.bin, None, options)


def _as_trace(found: Trace | Jobs, args: argparse.Namespace) -> Trace:
    from sim.traces import Jobs

    return found.arrivals(args.bin) if isinstance(found, Jobs) else found


def _info(args: argparse.Namespace) -> int:
    from sim.traceinfo import describe
    from sim.traces import Jobs

    several = len(args.files) > 1
    if args.plot and several and "{name}" not in args.plot:
        raise CommandError(f"--plot: {args.plot!r} is not allowed for several files, must contain {{name}}")
    described = []
    for path in args.files:
        found = _read(path, args)
        trace = _as_trace(found, args)
        info = describe(trace)
        jobs = found if isinstance(found, Jobs) else None
        described.append({**info.to_json(), "file": path} | ({"jobs": job_summary(jobs)} if jobs else {}))
        if not args.json:
            show(trace, info, jobs, with_chart=not args.no_chart)
        if args.plot:
            from sim.traceplot import plot

            target = args.plot.replace("{name}", trace.name)
            _written(target, partial(plot, trace, info, target), args.json)
    if args.json:
        print(json.dumps(described if several else described[0], indent=2))
    return 0


def job_summary(jobs: Jobs) -> dict[str, float | None]:
    """Count, and medians and 99th percentiles of duration, cpu and memory; None where nothing is known."""
    import numpy as np

    summary: dict[str, float | None] = {"count": len(jobs), "instances": int(jobs.copies.sum())}
    for name in ("duration_s", "cpu", "memory"):
        known = getattr(jobs, name)[~np.isnan(getattr(jobs, name))]
        for label, part in (("p50", 50), ("p99", 99)):
            summary[f"{name}_{label}"] = float(np.percentile(known, part)) if len(known) else None
    return summary


def show(
    trace: Trace, info: TraceInfo, jobs: Jobs | None = None, with_chart: bool = True, console: Any = None
) -> None:
    """Print the description and a drawing to the terminal (or `console`)."""
    from rich.columns import Columns
    from rich.console import Console
    from rich.markup import escape

    from sim.traceinfo import DAY_S, day_profile
    from sim.traceplot import MEAN_STYLE, chart, sparkline

    console = console or Console(highlight=False)
    console.print()
    console.rule(f"[bold]{escape(info.name)}", align="left", style="dim")
    if with_chart:
        console.print(chart(trace, console.width, colour=console.color_system is not None))
        console.print(f"{'':7}  {_legend(trace, console)}")
        if trace.duration_s >= DAY_S:
            _, quantiles = day_profile(trace, 48 if console.width >= 110 else 24)
            clock = "UTC" if trace.origin_s is not None else "of the recording"
            line = f"[{MEAN_STYLE}]{sparkline(quantiles[1])}[/]"
            console.print(f"[dim]{'a day':>7}  [/]{line}[dim]  median by hour, 0 to 24 h {clock}[/]")
    console.print()
    tables = _tables(info, jobs)
    if console.width >= 100:
        console.print(Columns(tables, padding=(0, 4)))
    else:
        for table in tables:
            console.print(table)
            console.print()
    for note in info.notes:
        console.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)


def _legend(trace: Trace, console: Any) -> str:
    """What the chart's marks mean."""
    from rich.markup import escape

    from sim.traceplot import LABEL_WIDTH, MEAN_STYLE, PEAK_STYLE, duration

    columns = console.width - LABEL_WIDTH - 2
    if len(trace) < columns:
        return f"[dim]{escape(trace.unit)}[/]"
    pale = "█" if console.color_system is not None else "░"
    column = duration(trace.duration_s / columns)
    unit = escape(trace.unit)
    mean, highest = f"[{MEAN_STYLE}]█[/] [dim]mean of {column}[/]", f"[{PEAK_STYLE}]{pale}[/] [dim]highest[/]"
    return f"[dim]{unit}:[/] {mean}  {highest}"


def _tables(info: TraceInfo, jobs: Jobs | None) -> list[Any]:
    from sim.traceplot import duration, short

    unit = info.unit
    gaps = f"{info.gaps} ({duration(info.gap_s)})" if info.gaps else "none"
    tables = [
        _table(
            "Level",
            [
                ("length", duration(info.length_s)),
                ("bins", f"{info.bins:,} of {duration(info.bin_s)}"),
                ("mean", f"{short(info.mean)} {unit}"),
                ("p50 / p95 / p99", f"{short(info.p50)} / {short(info.p95)} / {short(info.p99)}"),
                ("peak", f"{short(info.highest)}, {short(info.peak_to_mean)} x mean"),
                ("idle bins", f"{info.idle_share:.1%}"),
                ("gaps", gaps),
            ],
        ),
        _table("Burstiness", _burst_rows(info)),
        _table("Seasons and rises", _season_rows(info)),
    ]
    if jobs is not None:
        tables.append(_table("Jobs", _job_rows(job_summary(jobs))))
    return tables


def _burst_rows(info: TraceInfo) -> list[tuple[str, str]]:
    from sim.traceplot import duration, short

    rows = [
        (f"variance/mean {duration(d.scale_s)}", f"{short(d.index)} (Allan {short(d.allan)})")
        for d in info.dispersions
    ]
    low, high = info.hurst_scales_s
    drift = ", drifts" if info.hurst > 1 else ""
    known = f"{info.hurst:.2f}{drift} ({duration(low)} to {duration(high)})"
    return [
        *rows[:5],
        ("Hurst", known if info.hurst == info.hurst else "too short or coarse"),
        ("autocorrelation, 1 bin", short(info.autocorrelation)),
    ]


def _season_rows(info: TraceInfo) -> list[tuple[str, str]]:
    from sim.traceplot import duration, short

    rows = []
    for name, season in info.seasons.items():
        known = season.strength == season.strength
        rows.append((name, f"{season.strength:.0%} of variance" if known else "too short or coarse"))
    rows.append(
        ("best period", duration(info.best_period_s) if info.best_period_s == info.best_period_s else "none")
    )
    for within in (60.0, 300.0):
        rise = next((r for r in info.rises if r.within_s == within), None)
        told = (
            "bins too coarse"
            if rise is None
            else f"+{short(rise.by)} from {short(rise.start)} at {duration(rise.at_s)}"
        )
        rows.append((f"largest rise, {duration(within)}", told))
    return rows


def _job_rows(summary: dict[str, float | None]) -> list[tuple[str, str]]:
    from sim.traceplot import short

    def both(name: str) -> str:
        values = [summary[f"{name}_p50"], summary[f"{name}_p99"]]
        return " / ".join("unknown" if value is None else short(value) for value in values)

    return [
        ("jobs", f"{summary['count']:,}"),
        ("instances", f"{summary['instances']:,}"),
        ("duration p50 / p99", f"{both('duration_s')} s"),
        ("cpu p50 / p99", f"{both('cpu')} machines"),
        ("memory p50 / p99", f"{both('memory')} machines"),
    ]


def _table(title: str, rows: list[tuple[str, str]]) -> Any:
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        show_header=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _convert(args: argparse.Namespace) -> int:
    from sim.traces import Jobs

    found = _read(args.file, args)
    if args.jobs:
        if not isinstance(found, Jobs):
            raise CommandError(f"--jobs: {args.file} holds rates, no jobs")
        _written(args.out, lambda: found.save(args.out))
        return 0
    trace = _as_trace(found, args)
    if args.start is not None or args.duration is not None:
        begin = trace.times_s[0] + (args.start or 0.0)
        trace = trace.window(begin, args.duration or trace.duration_s)
    if args.busiest is not None:
        trace = trace.busiest_window(args.busiest)
    if args.resample is not None:
        trace = trace.resample(args.resample)
    if args.scale is not None:
        trace = trace.scale(args.scale)
    if args.scale_to_peak is not None:
        trace = trace.scale_to_peak(args.scale_to_peak, 1.0)
    _written(args.out, lambda: trace.save(args.out))
    return 0


def _generate(args: argparse.Namespace) -> int:
    import numpy as np

    from sim.errors import require
    from sim.traces import Trace
    from sim.workloads import workload_from

    require(args.duration > 0, "--duration", args.duration, "greater than 0")
    require(0 < args.step <= args.duration / 2, "--step", args.step, f"in 0..{args.duration / 2:g}")
    workload = workload_from(_description(args))
    rng = np.random.default_rng(args.seed)
    times = np.arange(round(args.duration / args.step)) * args.step
    rates = workload.rates(times + args.start, rng)
    trace = Trace(times, rates, Path(args.kind).stem)
    if args.scale_to_peak is not None:
        trace = trace.scale_to_peak(args.scale_to_peak, 1.0)
    if args.poisson:
        trace = Trace(times, rng.poisson(trace.rate_rps * args.step) / args.step, trace.name)
    _written(args.out, lambda: trace.save(args.out))
    return 0


def _description(args: argparse.Namespace) -> dict[str, Any]:
    """KIND and its --param as a mapping: what `workload_from` takes."""
    import yaml

    described: Any = {"kind": args.kind}
    try:
        if Path(args.kind).suffix in (".yaml", ".yml", ".json"):
            described = yaml.safe_load(Path(args.kind).read_text())
        if isinstance(described, dict) and isinstance(described.get("workload"), dict):
            described = described["workload"]
        for pair in args.param:
            name, equals, value = pair.partition("=")
            if not equals:
                raise CommandError(f"--param: {pair!r} is not allowed, must be FIELD=VALUE")
            described[name.strip()] = _number(yaml.safe_load(value))
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise CommandError(f"{args.kind}: cannot be read: {error}") from error
    return described  # type: ignore[no-any-return]


def _number(value: Any) -> Any:
    """YAML 1.1 takes 1e3 for text; here it is a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _formats(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markup import escape

    from sim.loaders import LOADERS
    from sim.workloads import WORKLOADS

    console = Console(highlight=False)
    console.print("[bold]Formats[/] (--format NAME, --option NAME=VALUE)")
    for loader in LOADERS.values():
        console.print(f"  {loader.name:<22} {escape(loader.title)}", soft_wrap=True)
        for name, said in loader.options.items():
            console.print(f"  {'':<22} [dim]{name}: {escape(said)}[/]", soft_wrap=True)
    console.print("\n[bold]Generators[/] (rl-scaler trace generate NAME OUT.csv --param FIELD=VALUE)")
    for name, kind in WORKLOADS.items():
        console.print(f"  {name:<22} {escape((kind.__doc__ or '').splitlines()[0])}", soft_wrap=True)
    return 0


def _written(target: str, write: Callable[[], None], quiet: bool = False) -> None:
    try:
        write()
    except (OSError, ValueError) as error:
        raise CommandError(f"{target}: cannot be written: {error}") from error
    if not quiet:
        print(f"written: {target}", file=sys.stderr)
