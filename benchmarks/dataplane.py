"""The operator's weights on real requests: the tables in docs/dataplane.md.

python -m benchmarks.dataplane [--rounds 3] [--rules Ready Ready+ejection ...] [--default-times]

One operator, one Prometheus and one Envoy serve a set of three pools for each rule at the same time, with the
same arrivals, so that what else the machine does is the same for all. A round: everything well, the spot pool
five times slower, well again, the spot pool failing 30 % of its requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.progress import Progress

from controller.core.weighing import WEIGHINGS
from sim.demo.operator import OperatorProcess
from sim.errors import SimulationError
from sim.twin.dataplane import Clients, Envoy, PoolServer
from sim.twin.dataplane.clients import split
from sim.twin.dataplane.figures import Figures, deserved_share, figures, seconds_to_lose, swings
from sim.twin.dataplane.plan import DEFAULT_TIMES, EJECTION, SLO_MS, SetPlan, Times
from sim.twin.dataplane.twin import EnvoyTwin

RULES = tuple(name + ejection for name in WEIGHINGS for ejection in ("", EJECTION))
SICK, SLOWER, FAILS = "spot", 5.0, 0.3
RATE_RPS = 8.0
SPLITS = ((75, 25), (50, 30, 20), (90, 9, 1))
BURST = 6000
TOO_SLOW = 2.0
"""Times the service time, above which the median of healthy pools says that the machine is too busy."""
PHASES = {"well": 4, "slow": 10, "well again": 14, "failing": 10}
"""How long each is, in sync periods."""


@dataclass
class Phase:
    """What became of one set in one phase. settled: its requests after three sync periods."""

    whole: Figures
    settled: Figures
    lost_s: float
    swings: int


@dataclass
class Result:
    """Phases by rule and name, a list of rounds each."""

    phases: dict[str, dict[str, list[Phase]]] = field(default_factory=dict)

    def add(self, rule: str, name: str, phase: Phase) -> None:
        self.phases.setdefault(rule, {}).setdefault(name, []).append(phase)


async def measure_splits(directory: Path, seed: int) -> list[tuple[tuple[int, ...], float]]:
    """Largest distance, in points, between the weights and the requests' split, for each of SPLITS."""
    found = []
    async with PoolServer("a", 0.0, 64) as a, PoolServer("b", 0.0, 64) as b, PoolServer("c", 0.0, 64) as c:
        ports = {server.name: server.port for server in (a, b, c)}
        async with (
            Envoy(directory, ports, {"web": dict.fromkeys(ports, 1)}) as envoy,
            Clients(envoy.listen, "web", seed=seed) as clients,
        ):
            for weights in SPLITS:
                envoy.apply({"web": dict(zip(ports, weights, strict=False))})
                await asyncio.sleep(0.5)
                began_s = time.monotonic()
                await clients.burst(BURST)
                shares = split(clients.between(began_s), ports)
                off = [100 * shares[p] - w for p, w in zip(ports, weights, strict=False)]
                found.append((weights, max(abs(each) for each in off)))
    return found


async def play(directory: Path, sets: list[SetPlan], seed: int, result: Result, tick: object) -> None:
    """One round of all rules."""
    async with EnvoyTwin(directory, sets, start_up_s=1.0, seed=seed) as twin:
        operator = OperatorProcess(twin, directory / "operator.log")
        await operator.start()
        try:
            await operator.until_ready()
            times = sets[0].times
            await asyncio.sleep(times.window_s + times.sync_s)
            for name, syncs in PHASES.items():
                _make(twin, name)
                began_s = time.monotonic()
                await asyncio.sleep(syncs * times.sync_s)
                for plan in sets:
                    result.add(plan.rule, name, _phase(twin, plan, began_s))
                if name == "well":
                    _check_speed(result, sets)
                tick()  # type: ignore[operator]
        finally:
            await operator.child.stop()


def _check_speed(result: Result, sets: list[SetPlan]) -> None:
    """Raises SimulationError where what is measured would be the machine."""
    usual_ms = 1000 * sets[0].pools[0].service_s
    found_ms = max(result.phases[plan.rule]["well"][-1].whole.p50_ms for plan in sets)
    if not found_ms < TOO_SLOW * usual_ms:
        raise SimulationError(
            f"with all pools well the median is {found_ms:.0f} ms instead of {usual_ms:.0f} ms: this machine "
            f"is too busy for {len(sets)} sets of {sets[0].rate_rps:g} requests/s; lower --rate or use fewer "
            "--rules"
        )


def _make(twin: EnvoyTwin, phase: str) -> None:
    for plan in twin.sets:
        server, usual_s = twin.server(plan, SICK), plan.pools[-1].service_s
        server.service_s = usual_s * (SLOWER if phase == "slow" else 1.0)
        server.error_share = FAILS if phase == "failing" else 0.0


def _phase(twin: EnvoyTwin, plan: SetPlan, began_s: float) -> Phase:
    service, clients = f"{plan.name}-{SICK}", twin.clients[plan.name]
    series = twin.gateway.series(plan.name, service, began_s)
    settled_s = began_s + 3 * plan.times.sync_s
    capacities = [pool.replicas * pool.capacity_rps for pool in plan.pools]
    deserved = deserved_share(capacities, len(capacities) - 1, SLOWER)
    return Phase(
        figures(clients.between(began_s), service, SLO_MS),
        figures(clients.between(settled_s), service, SLO_MS),
        seconds_to_lose(series, began_s, series[0][1] / 100 if series else 0.0, deserved),
        swings(series),
    )


def table(result: Result, name: str, times: Times) -> list[str]:
    """The lines of one phase's table; ± is half the range of the rounds."""
    syncs = [phase.lost_s / times.sync_s for rule in result.phases for phase in result.phases[rule][name]]
    head = [
        "routing",
        "p99 ms",
        "errors %",
        "late %",
        "after 3 syncs: p99 ms",
        "errors %",
        f"share of {SICK} %",
    ]
    sick = np.isfinite(syncs).any()
    lines = [_row([*head, "lost after, sync periods"] if sick else head)]
    lines.append("|" + "---|" * (len(head) + sick))
    for rule, by_name in result.phases.items():
        rounds = by_name[name]
        whole, settled = [each.whole for each in rounds], [each.settled for each in rounds]
        cells = [rule.replace(EJECTION, " + ejection")]
        cells += [_spread([each.p99_ms for each in whole], 0)]
        cells += [_spread([100 * each.error_ratio for each in whole], 2)]
        cells += [_spread([100 * each.late for each in whole], 1)]
        cells += [_spread([each.p99_ms for each in settled], 0)]
        cells += [_spread([100 * each.error_ratio for each in settled], 2)]
        cells += [_spread([100 * each.share for each in settled], 1)]
        if sick:
            lost = [each.lost_s / times.sync_s for each in rounds]
            cells.append("never" if not np.isfinite(lost).all() else _spread(lost, 1))
        lines.append(_row(cells))
    return lines


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(values: list[float], digits: int) -> str:
    middle, half = float(np.mean(values)), float(np.ptp(values)) / 2
    return f"{middle:,.{digits}f} ± {half:,.{digits}f}"


async def _run(args: argparse.Namespace) -> None:
    times = DEFAULT_TIMES if args.default_times else Times()
    sets = [SetPlan(rule, args.rate, times=times) for rule in args.rules]
    result, splits = Result(), []
    with (
        tempfile.TemporaryDirectory(prefix="dataplane-") as folder,
        Progress(console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("phases", total=args.rounds * len(PHASES))
        for seed in range(args.seed, args.seed + args.rounds):
            if args.splits:
                splits.append(await measure_splits(Path(folder) / f"split{seed}", seed))
            await play(Path(folder) / f"round{seed}", sets, seed, result, lambda: progress.advance(task))
    _tell(args, result, splits, times)


def _tell(
    args: argparse.Namespace, result: Result, splits: list[list[tuple[tuple[int, ...], float]]], times: Times
) -> None:
    if splits:
        _tell_splits(splits)
    for name in PHASES:
        print(f"\n{name}:\n")
        print("\n".join(table(result, name, times)))
    turned = {rule: [p.swings for p in by_name["well again"]] for rule, by_name in result.phases.items()}
    print(f"\nchanges of direction while well again: {json.dumps(turned)}")
    if args.json:
        args.json.write_text(json.dumps(asdict(result), indent=1) + "\n")


def _tell_splits(splits: list[list[tuple[tuple[int, ...], float]]]) -> None:
    print(f"| weights | largest distance of the split, points ({BURST} requests a round) |\n|---|---|")
    for index, weights in enumerate(SPLITS):
        off = [each[index][1] for each in splits]
        print(_row([" / ".join(map(str, weights)), ", ".join(f"{each:.2f}" for each in off)]))


def main() -> int:
    """Play and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=RATE_RPS, help="requests/s of each set")
    parser.add_argument(
        "--rules",
        nargs="+",
        default=list(RULES),
        help="spec.routing policies, +ejection; Policy: the learned one",
    )
    parser.add_argument(
        "--default-times", action="store_true", help="sync 15 s, window 60 s, scrape 15 s: five times as long"
    )
    parser.add_argument("--no-splits", dest="splits", action="store_false", help="leave out the first table")
    parser.add_argument("--json", type=Path, help="for every phase of every round")
    try:
        asyncio.run(_run(parser.parse_args()))
    except SimulationError as error:
        print(f"benchmarks.dataplane: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
