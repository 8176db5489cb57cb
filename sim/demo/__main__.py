"""`python -m sim.demo [--trace file.csv] [--data-plane envoy]`, which is what `make demo` runs."""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sim.demo import poolsplan
from sim.demo.plan import DURATION_S, PEAK_REPLICAS, make_plan, parse_duration
from sim.demo.poolsplan import make_pools_plan
from sim.errors import SimulationError
from sim.twin.dataplane.plan import RULES
from sim.twin.dataplane.proxy import find_envoy


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sim.demo",
        description="The real operator against a cluster twin with a real Prometheus: the learned policy and "
        "the HPA side by side on one trace. Ends with a table.",
    )
    add = parser.add_argument
    add("--trace", type=Path, help="CSV or .csv.gz: timestamp_s,requests_per_s (default: a generated day)")
    add(
        "--duration",
        type=_duration,
        help="of the trace, such as 3h (default: 150m); with envoy, real time (3m)",
    )
    add(
        "--data-plane",
        choices=("simulated", "envoy"),
        default="simulated",
        help="envoy: real requests to pools",
    )
    add("--rules", nargs="+", default=RULES, help="with envoy: spec.routing policies, such as Ready+ejection")
    add("--start", type=_duration, help="where in the trace to begin (default: where it changes most)")
    add("--peak-replicas", type=_within(1, 400), default=PEAK_REPLICAS, help="that the window's peak needs")
    add("--preference", type=_within(0, 100), default=50, help="0 cheapest .. 100 safest (default: 50)")
    add(
        "--time-scale", type=_within(1, 240), default=60.0, help="control seconds in a real one (default: 60)"
    )
    add("--out", type=Path, default=Path("demo-output"), help="for results (default: demo-output)")
    add("--page-port", type=_within(0, 65535), default=0, help="on 127.0.0.1 (default: a free one)")
    add("--keep", action="store_true", help="keep page and cluster up at the end, until Ctrl-C")
    return parser.parse_args(argv)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _within(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed, must be in {low:g}..{high:g}")
        return value

    return parse


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    try:
        asyncio.run(_pools(args) if args.data_plane == "envoy" else _trace(args))
    except SimulationError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


async def _trace(args: argparse.Namespace) -> None:
    duration_s = DURATION_S if args.duration is None else args.duration
    plan = make_plan(args.trace, duration_s, args.time_scale, args.start, args.peak_replicas)
    from sim.demo.run import Demo  # after the cheap checks: this compiles and imports for a second or two

    numbers = {"preference": round(args.preference), "page_port": round(args.page_port)}
    await Demo(plan, args.out, keep=args.keep, **numbers).run()


async def _pools(args: argparse.Namespace) -> None:
    from sim.demo.poolsrun import PoolsDemo

    plan = make_pools_plan(args.rules, poolsplan.DURATION_S if args.duration is None else args.duration)
    find_envoy()
    await PoolsDemo(plan, args.out, page_port=round(args.page_port), keep=args.keep).run()


if __name__ == "__main__":
    sys.exit(main())
