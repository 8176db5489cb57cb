"""Compare the fluid with the request level: `python training/fidelity.py --seeds 3` (docs/fidelity.md)."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    # a script's own folder on sys.path would shadow installed modules; the checkout's root is what is meant
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from sim.latency import BALANCERS, POOLED, balanced_wait, wait_decay_per_s, wait_exponent
from sim.physics import ServiceParams
from sim.requests import RequestSimulator
from sim.requests.draws import percentile_ms
from sim.scenario_files import (
    FidelityScenario,
    Outcome,
    load_scenario,
    run_fluid,
    run_requests,
    scenario_files,
)

P95_TOLERANCE = 0.15
"""Largest relative difference of p95 that counts as agreement."""
VIOLATION_TOLERANCE = 0.005
"""Largest difference of the violation share that does (half a percentage point)."""
_FIGURES = ("p50_ms", "p95_ms", "p99_ms", "violation_share", "dropped_share", "retry_share", "replica_hours")


@dataclass(frozen=True)
class Row:
    """One scenario in both fidelities: means over seeds, and half the range between them."""

    scenario: str
    seeds: tuple[int, ...]
    fluid: dict[str, float]
    requests: dict[str, float]
    spread: dict[str, float]
    attempts: float
    expected_difference: str

    @property
    def p95_difference(self) -> float:
        """Fluid over requests, less one."""
        return self.fluid["p95_ms"] / self.requests["p95_ms"] - 1.0

    @property
    def violation_difference(self) -> float:
        """Fluid less requests, as a share."""
        return self.fluid["violation_share"] - self.requests["violation_share"]

    @property
    def agrees(self) -> bool:
        """Whether both bars hold."""
        return (
            abs(self.p95_difference) <= P95_TOLERANCE
            and abs(self.violation_difference) <= VIOLATION_TOLERANCE
        )

    @property
    def verdict(self) -> str:
        """agrees, differs as explained, or DIFFERS."""
        if self.agrees:
            return "agrees"
        return "differs as explained" if self.expected_difference else "DIFFERS"


def compare_scenario(
    scenario: FidelityScenario, seeds: int = 1, done: Callable[[], None] = lambda: None
) -> tuple[Row, Outcome, Outcome]:
    """Run seeds from the file's on; the row, and both outcomes of the first. `done` follows each run."""
    numbers = tuple(range(scenario.seed, scenario.seed + seeds))
    fluid, requests = [], []
    for seed in numbers:
        fluid.append(run_fluid(scenario, seed))
        done()
        requests.append(run_requests(scenario, seed))
        done()
    row = Row(
        scenario=scenario.name,
        seeds=numbers,
        fluid=_means(fluid),
        requests=_means(requests),
        spread={name: _half_range(requests, name) for name in _FIGURES},
        attempts=sum(one.arrived for one in requests),
        expected_difference=scenario.expected_difference,
    )
    return row, fluid[0], requests[0]


def markdown(rows: Sequence[Row]) -> str:
    """The table, fluid / requests in each column, and the explanations under it."""
    lines = [
        "| scenario | p50 ms | p95 ms | p95 differs by | p99 ms | violating % | by points | dropped % "
        "| replica-hours | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.scenario,
            _pair(row, "p50_ms", 1, 0),
            f"{_pair(row, 'p95_ms', 1, 0)} ± {row.spread['p95_ms']:,.0f}",
            f"{100 * row.p95_difference:+.1f} %",
            _pair(row, "p99_ms", 1, 0),
            f"{_pair(row, 'violation_share', 100, 2)} ± {100 * row.spread['violation_share']:.2f}",
            f"{100 * row.violation_difference:+.2f}",
            _pair(row, "dropped_share", 100, 2),
            _pair(row, "replica_hours", 1, 2),
            row.verdict,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    explained = [row for row in rows if row.expected_difference]
    if explained:
        lines += ["", "Expected differences:", ""]
        lines += [f"- **{row.scenario}**: {row.expected_difference}" for row in explained]
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="fidelity.py",
        description="Run scenario files as a fluid and request by request, and compare the two.",
        epilog="Ends with 1 if a scenario without an expected_difference is off by more than 15 % in p95 or "
        "half a percentage point in violations.",
    )
    parser.add_argument(
        "--scenarios", nargs="+", metavar="FILE", help="scenario files or names; default: all published"
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each, from the file's seed; default: 3")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every number here")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write a timeline of each scenario here")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="instead: measure waits on a grid and compare the formulas of sim/latency.py with them",
    )
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="a bar; default: by the terminal"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line: 0 agreement, 1 an unexplained difference, 2 input that cannot be used."""
    args = build_parser().parse_args(argv)
    from sim.errors import SimulationError

    try:
        if args.seeds < 1:
            raise SimulationError(f"--seeds: {args.seeds} is not allowed, must be 1 or more")
        return _calibrate(args) if args.calibrate else _compare(args)
    except SimulationError as error:
        print(f"fidelity.py: {error}", file=sys.stderr)
        return 2


def _compare(args: argparse.Namespace) -> int:
    scenarios = [load_scenario(each) for each in args.scenarios or scenario_files()]
    rows = []
    with _bar("scenarios", 2 * args.seeds * len(scenarios), args.progress) as done:
        for scenario in scenarios:
            row, fluid, requests = compare_scenario(scenario, args.seeds, done)
            rows.append(row)
            if args.plot:
                _plot(scenario, fluid, requests, args.plot)
    print(markdown(rows))
    off = [row.scenario for row in rows if row.verdict == "DIFFERS"]
    agreeing = sum(row.agrees for row in rows)
    print(f"\n{agreeing} of {len(rows)} agree, {len(rows) - agreeing - len(off)} differ as explained.")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        report = [
            {
                **asdict(row),
                "p95_difference": row.p95_difference,
                "violation_difference": row.violation_difference,
                "verdict": row.verdict,
            }
            for row in rows
        ]
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    if off:
        print(f"Unexplained: {', '.join(off)}", file=sys.stderr)
    return 1 if off else 0


def _means(outcomes: Sequence[Outcome]) -> dict[str, float]:
    return {name: float(np.mean([getattr(one, name) for one in outcomes])) for name in _FIGURES}


def _half_range(outcomes: Sequence[Outcome], name: str) -> float:
    values = [getattr(one, name) for one in outcomes]
    return float(0.5 * (max(values) - min(values)))


def _pair(row: Row, name: str, factor: float, digits: int) -> str:
    return f"{factor * row.fluid[name]:,.{digits}f} / {factor * row.requests[name]:,.{digits}f}"


@contextmanager
def _bar(label: str, total: int, wanted: bool | None) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = sys.stderr.isatty() if wanted is None else wanted
    columns = (
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:
        task = progress.add_task(label, total=total)
        yield lambda: progress.advance(task)


def _plot(scenario: FidelityScenario, fluid: Outcome, requests: Outcome, folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    minutes = np.arange(len(fluid.timeline["ready"])) * scenario.sync_period_s / 60.0
    panels = (
        ("p95_ms", "p95 latency, ms", 1.0),
        ("violation_share", "violating, %", 100.0),
        ("ready", "ready replicas", 1.0),
        ("requests_per_s", "requests/s", 1.0),
    )
    figure, axes = plt.subplots(len(panels), 1, figsize=(9, 9), sharex=True)
    for axis, (name, label, factor) in zip(axes, panels, strict=True):
        axis.plot(minutes, factor * requests.timeline[name], color="0.55", linewidth=2.2, label="requests")
        axis.plot(minutes, factor * fluid.timeline[name], color="tab:blue", linewidth=1.0, label="fluid")
        axis.set_ylabel(label)
    axes[0].set_yscale("log")
    axes[0].legend(loc="upper right")
    axes[0].set_title(scenario.name)
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{scenario.name}.png", dpi=110)
    plt.close(figure)


@dataclass(frozen=True)
class GridPoint:
    """A steady state to measure: c replicas of k workers at rho; latencies are in service times."""

    balancer: str
    proxies: int
    replicas: int
    workers: int
    rho: float
    cv2: float


def calibration_grid() -> list[GridPoint]:
    """Three to forty replicas, one to eight workers, 60 to 90 % busy, constant and exponential service."""
    found = []
    for balancer in BALANCERS[1:]:
        for proxies in (1,) if balancer in ("central", "random") else (1, 4, 16):
            found += [
                GridPoint(balancer, proxies, replicas, workers, rho, cv2)
                for replicas in (3, 10, 40)
                for workers in (1, 2, 8)
                for rho in (0.6, 0.75, 0.9)
                for cv2 in (0.0, 1.0)
            ]
    return found


def measure(point: GridPoint, attempts: int = 250_000, seed: int = 1) -> tuple[float, float]:
    """p95 and p99 of the latency over the service time, from so many requests, request by request."""
    capacity = 100.0 * point.workers
    params = ServiceParams(
        capacity_rps=capacity,
        base_latency_ms=10.0,
        capacity_spread=0.0,
        timeout_s=3600.0,
        slo_latency_ms=1e9,
        service_cv2=point.cv2,
    )
    rate = capacity * point.replicas * point.rho
    seconds = max(30, int(attempts / rate))
    simulator = RequestSimulator(params, 1, seed, point.replicas, point.balancer, point.proxies)
    simulator.advance(seconds=seconds // 5, rate_rps=rate)
    before = simulator.histogram[0]
    simulator.advance(seconds=seconds, rate_rps=rate)
    p95, p99 = percentile_ms(simulator.histogram[0] - before, (95.0, 99.0), simulator.edges_s)
    return float(p95) / 10.0, float(p99) / 10.0


def predict(point: GridPoint, formula: str, factor: float = 1.0) -> tuple[float, float]:
    """The same by the formula of that balancer; `factor` multiplies its imbalance."""
    burstiness = 0.5 * (1.0 + point.cv2)
    code = BALANCERS.index(formula)
    if code == POOLED:
        exponent = wait_exponent(float(point.replicas))
        decay = wait_decay_per_s(float(point.replicas), point.rho, 0.5, 1.0, 1.0)
    else:
        workers, replicas = float(point.workers), float(point.replicas)
        exponent, idle, imbalance = balanced_wait(
            replicas, float(code), float(point.proxies), workers, burstiness, 1.0
        )
        decay = idle * (1.0 - point.rho) / (1.0 + factor * imbalance * (1.0 - point.rho))
    waits = point.rho**exponent
    return _latency_at(0.05, waits, decay, point.cv2), _latency_at(0.01, waits, decay, point.cv2)


def _latency_at(share: float, waits: float, decay: float, cv2: float) -> float:
    """Where the tail of wait plus service, constant or exponential of mean 1, falls to `share`."""
    if cv2 == 0.0:
        return 1.0 + max(0.0, math.log(waits / share) / decay)
    low, high = 0.0, 1000.0
    gap = decay - 1.0 if abs(decay - 1.0) > 1e-6 else 1e-6
    for _ in range(60):
        middle = 0.5 * (low + high)
        both = (decay * math.exp(-middle) - math.exp(-decay * middle)) / gap
        tail = (1.0 - waits) * math.exp(-middle) + waits * both
        low, high = (middle, high) if tail > share else (low, middle)
    return low


def _calibrate(args: argparse.Namespace) -> int:
    points = calibration_grid()
    measured = []
    with _bar("grid", len(points), args.progress) as done:
        for point in points:
            measured.append(measure(point))
            done()
    print("Formulas of sim/latency.py against the request level, latency percentiles in a steady state:\n")
    print("| balancer | proxies | p95 within 15 % | p95 error | p99 error | imbalance best times |")
    print("|---|---|---|---|---|---|")
    report: list[dict[str, Any]] = []
    for balancer, proxies in dict.fromkeys((point.balancer, point.proxies) for point in points):
        chosen = [
            (point, found)
            for point, found in zip(points, measured, strict=True)
            if (point.balancer, point.proxies) == (balancer, proxies)
        ]
        errors = _errors(chosen, balancer, 1.0)
        factors = np.arange(0.5, 2.05, 0.1)
        best = min(factors, key=lambda one: float(np.mean(_errors(chosen, balancer, float(one)) ** 2)))
        apart = BALANCERS.index(balancer) not in (1, 5) and not (balancer == "round-robin" and proxies == 1)
        within = float(np.mean(np.abs(errors[:, 0]) <= P95_TOLERANCE))
        p95, p99 = np.mean(np.abs(errors), axis=0)
        shown = f"{best:.1f}" if apart else "-"
        percents = f"{100 * within:.0f} % | {100 * p95:.1f} % | {100 * p99:.1f} %"
        print(f"| {balancer} | {proxies} | {percents} | {shown} |")
        report.append(
            {"balancer": balancer, "proxies": proxies, "within": within, "p95": p95, "p99": p99, "best": best}
        )
    print("\nThe default (`pooled`) against each, one worker a replica, constant service:\n")
    print("| balancer | proxies | mean of p95 pooled / measured | mean error |")
    print("|---|---|---|---|")
    for balancer, proxies in dict.fromkeys((point.balancer, point.proxies) for point in points):
        ratios = np.array(
            [
                predict(point, "pooled")[0] / found[0]
                for point, found in zip(points, measured, strict=True)
                if (point.balancer, point.proxies, point.workers, point.cv2) == (balancer, proxies, 1, 0.0)
            ]
        )
        error = float(np.mean(np.abs(ratios - 1.0)))
        print(f"| {balancer} | {proxies} | {np.mean(ratios):.2f} | {100 * error:.0f} % |")
        report.append({"pooled_against": balancer, "proxies": proxies, "ratio": float(np.mean(ratios))})
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1, default=float) + "\n")
    return 0


def _errors(
    chosen: Sequence[tuple[GridPoint, tuple[float, float]]], formula: str, factor: float
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Relative errors of p95 and p99, `[points, 2]`."""
    ratios = [np.array(predict(point, formula, factor)) / np.array(found) for point, found in chosen]
    return np.array(ratios) - 1.0


if __name__ == "__main__":
    sys.exit(main())
