"""The pools policy and formulas over the same random episodes of `rlscaler/Pools-v0`; see docs/pools.md.

python -m benchmarks.pools [--part formulas frontier spot ablation] [--episodes 256] [--steps 240]

formulas: every formula at two headrooms. frontier: the policy over its dial against every formula over its
headroom, at equal cost. spot: spot and on-demand pools under the policy against on-demand alone with the HPA
at its best target, at equal violations. ablation: what each part of the policy buys. Episodes have seeds
above 2^40; those of training are below 2^32.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from benchmarks import pools_spot as spot
from benchmarks.pools_frontier import Estimate, Frontier, along, levels, samples
from sim.envs.pool_batch import PoolsConfig
from sim.pool_baselines import BASELINES
from sim.workloads import WorkloadMix
from training.poolsets.contestants import BUILTIN_POOLS, ablations
from training.poolsets.playing import Act, ArtifactDecider, Ejecting, Played, at_preference, play, play_batch

STEPS = 240
"""Of 15 s: an hour."""
FIRST_SEED = 2**40
HEADROOMS = (1.0, 1.4, 2.0, 2.8, 4.0)
SHOWN_HEADROOMS = (1.4, 2.8)
PREFERENCES = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)
PARTS = ("formulas", "frontier", "spot", "ablation")
SHARES = (0.1, 0.5, 0.9)
"""Where policies are compared: so far on the way from the lowest cost that both reach to the highest."""
VIOLATION_SHARES = (0.05, 0.2, 0.5, 0.9)
FloatArray = npt.NDArray[np.floating[Any]]


@dataclass
class Bench:
    """What all parts share: the environment, the episodes, the artifact, and the bar."""

    config: PoolsConfig
    episodes: int
    seed: int
    artifact: bytes
    advance: Callable[[], None]

    def formula(self, name: str, headroom: float, config: PoolsConfig | None = None) -> Played:
        """A formula at one headroom."""
        decide = BASELINES[name]()
        return self._play(lambda batch: decide(batch.view(), headroom), config)

    def policy(self, preference: float, config: PoolsConfig | None = None) -> Played:
        """The artifact at one place of its dial, ejection behind it."""
        return self.act(Ejecting(ArtifactDecider(self.artifact)), preference, config)

    def act(self, act: Act, preference: float, config: PoolsConfig | None = None) -> Played:
        """Any policy that sees the dial, at one place of it."""
        return self._play(act, at_preference(config or self.config, preference))

    def _play(self, act: Act, config: PoolsConfig | None) -> Played:
        played = play(config or self.config, act, self.episodes, self.seed)
        self.advance()
        return played


def config(traffic: str = "all", steps: int = STEPS) -> PoolsConfig:
    """`steps` control steps; traffic: all that `sim.workloads` generates, or `calm`: without bursts."""
    usual = replace(PoolsConfig(), horizon_steps=steps)
    if traffic == "all":
        return usual
    names = (item.name for item in fields(WorkloadMix))
    calm = WorkloadMix(**{name: float(name == "smooth") for name in names})
    service = replace(usual.scenario.service, mix=calm)
    return replace(usual, scenario=replace(usual.scenario, service=service))


def formulas(bench: Bench) -> list[str]:
    """The table of all formulas at two headrooms."""
    lines = [
        "| headroom | policy | violations, mean | median | cost | better / worse | t of paired difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for headroom in SHOWN_HEADROOMS:
        blind = None
        for name in BASELINES:
            played = bench.formula(name, headroom)
            violation, cost = played["violation"], played["cost"]
            blind = violation if blind is None else blind
            lines.append(_formula_row(headroom, name, violation, cost, violation - blind))
    return lines


def _formula_row(
    headroom: float, name: str, violation: FloatArray, cost: FloatArray, difference: FloatArray
) -> str:
    """One line of the table; difference: of the violations to those under equal weights."""
    cells = [
        f"{headroom:g}", name, f"{violation.mean():.1%}", f"{np.median(violation):.1%}", f"{cost.mean():.2f}"
    ]  # fmt: skip
    if not difference.any():
        cells += ["", ""]
    else:
        t = difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference)))
        cells += [f"{(difference < 0).mean():.0%} / {(difference > 0).mean():.0%}", f"{t:.1f}"]
    return f"| {' | '.join(cells)} |"


def frontier(bench: Bench) -> list[str]:
    """Policy and formulas at equal geometric-mean cost: differences of violations and of p99."""
    ours = Frontier.swept(PREFERENCES, bench.policy)
    theirs = {
        name: Frontier.swept(HEADROOMS, lambda headroom, name=name: bench.formula(name, headroom))  # type: ignore[misc]
        for name in BASELINES
    }
    return [*_dial_table(ours), "", *_differences(ours, theirs, samples(bench.episodes))]


def _dial_table(ours: Frontier) -> list[str]:
    lines = ["| preference | cost | violations, mean | median | p99 over SLO |", "|---|---|---|---|---|"]
    for place, preference in enumerate(ours.dial):
        violation = ours.violation[place]
        lines.append(
            f"| {preference:g} | {np.exp(ours.log_cost[place].mean()):.2f} | {violation.mean():.2%} "
            f"| {np.median(violation):.2%} | {ours.p99[place].mean():.2f} |"
        )
    return lines


def _differences(ours: Frontier, theirs: dict[str, Frontier], rows: npt.NDArray[np.int64]) -> list[str]:
    lines = [
        "| formula | cost | violations: formula | policy | policy less formula | p99 over SLO: "
        "formula | policy | policy less formula | wins |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in theirs.items():
        places = levels((ours, one), "log_cost", SHARES, rows)
        lines += [_difference_row(name, ours, one, level, rows) for level in places]
    return lines


def _difference_row(
    name: str, ours: Frontier, theirs: Frontier, level: FloatArray, rows: npt.NDArray[np.int64]
) -> str:
    cells, wins = [name, f"{np.exp(level[0]):.2f}"], []
    for figure, unit in (("violation", "+.2%"), ("p99", "+.2f")):
        own = along(ours, "log_cost", level, figure, rows)
        other = along(theirs, "log_cost", level, figure, rows)
        apart = Estimate.of(own - other)
        cells += [f"{other[0]:{unit[1:]}}", f"{own[0]:{unit[1:]}}", apart.shown(unit)]
        wins.append(_verdict(apart))
    return f"| {' | '.join(cells)} | {' / '.join(wins)} |"


def _verdict(apart: Estimate) -> str:
    if apart.high < 0.0:
        return "yes"
    return "no" if apart.low > 0.0 else "unclear"


def spot_saving(bench: Bench) -> list[str]:
    """Cost of spot and on-demand pools under the policy over that of on-demand alone with the tuned HPA."""
    sets = spot.spot_sets(bench.config)

    def hpa(target: float) -> Played:
        played = spot.play_hpa(sets, target, bench.episodes, bench.seed)
        bench.advance()
        return played

    def alone(preference: float) -> Played:
        batch = spot.OnDemandBatch(
            at_preference(sets, preference), bench.episodes, bench.seed, autoreset=False
        )
        played = play_batch(batch, Ejecting(ArtifactDecider(bench.artifact)))
        bench.advance()
        return played

    ours = Frontier.swept(PREFERENCES, lambda preference: bench.policy(preference, sets))
    single = Frontier.swept(PREFERENCES, alone)
    tuned = Frontier.swept(spot.TARGETS, hpa)
    return _savings(ours, single, tuned, samples(bench.episodes))


def _savings(ours: Frontier, single: Frontier, tuned: Frontier, rows: npt.NDArray[np.int64]) -> list[str]:
    lines = [
        "| violations | on-demand, HPA: cost | on-demand, policy: cost | spot + on-demand, policy: cost "
        "| policy less HPA |",
        "|---|---|---|---|---|",
    ]
    for level in levels((ours, tuned), "violation", VIOLATION_SHARES, rows):
        costs = [along(one, "violation", level, "log_cost", rows) for one in (tuned, single, ours)]
        saving = Estimate.of(np.expm1(costs[2] - costs[0]))
        cells = [f"{np.exp(cost[0]):.2f}" if np.isfinite(cost[0]) else "not reached" for cost in costs]
        lines.append(f"| {level[0]:.2%} | {' | '.join(cells)} | {saving.shown('+.0%')} |")
    return lines


def ablation(bench: Bench) -> list[str]:
    """The policy without one part each, at equal cost."""
    others = {
        name: Frontier.swept(PREFERENCES, lambda preference, make=make: bench.act(make(), preference))  # type: ignore[misc]
        for name, make in ablations(bench.artifact).items()
    }
    return _ablation_table(Frontier.swept(PREFERENCES, bench.policy), others, samples(bench.episodes))


def _ablation_table(ours: Frontier, others: dict[str, Frontier], rows: npt.NDArray[np.int64]) -> list[str]:
    lines = [
        "| policy | cost | violations | more than the policy | p99 over SLO | more than the policy |",
        "|---|---|---|---|---|---|",
    ]
    for name, other in others.items():
        for level in levels((ours, other), "log_cost", SHARES, rows):
            cells = [name, f"{np.exp(level[0]):.2f}"]
            for figure, unit in (("violation", "+.2%"), ("p99", "+.2f")):
                theirs = along(other, "log_cost", level, figure, rows)
                more = Estimate.of(theirs - along(ours, "log_cost", level, figure, rows))
                cells += [f"{theirs[0]:{unit[1:]}}", more.shown(unit)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


_PLAYS = {
    "formulas": len(SHOWN_HEADROOMS) * len(BASELINES),
    "frontier": len(PREFERENCES) + len(HEADROOMS) * len(BASELINES),
    "spot": 2 * len(PREFERENCES) + len(spot.TARGETS),
    "ablation": 4 * len(PREFERENCES),
}
_RUN = {"formulas": formulas, "frontier": frontier, "spot": spot_saving, "ablation": ablation}


def main(argv: Sequence[str] | None = None) -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--steps", type=int, default=STEPS, help="of an episode; 240 of 15 s are an hour")
    parser.add_argument("--seed", type=int, default=0, help="of the episodes, and of nothing else")
    parser.add_argument("--traffic", choices=("all", "calm"), default="all", help="calm: without bursts")
    parser.add_argument("--policy", type=Path, default=BUILTIN_POOLS, help="an artifact of kind pools")
    parser.add_argument("--json", type=Path, help="write the tables there, too")
    args = parser.parse_args(argv)
    written = {}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("policies", total=sum(_PLAYS[part] for part in args.part))
        for part in args.part:
            bench = Bench(
                config(args.traffic, args.steps),
                args.episodes,
                FIRST_SEED + 2**20 * args.seed,
                args.policy.read_bytes(),
                lambda: progress.advance(task),
            )
            written[part] = _RUN[part](bench)
            print(f"{part}:\n" + "\n".join(written[part]) + "\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
