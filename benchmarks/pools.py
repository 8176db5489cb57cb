"""Formula policies over the same random episodes of `rlscaler/Pools-v0`: the table in docs/pools.md.

python -m benchmarks.pools [--episodes 256] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
from dataclasses import fields, replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from sim.envs.pool_batch import PoolsBatch, PoolsConfig
from sim.pool_baselines import BASELINES
from sim.workloads import WorkloadMix

HEADROOMS = (1.5, 3.0)
STEPS = 240
"""Of 15 s: an hour."""
FloatArray = npt.NDArray[np.float64]


def config() -> PoolsConfig:
    """An hour of traffic without bursts, which drown the differences between policies."""
    names = (item.name for item in fields(WorkloadMix))
    calm = WorkloadMix(**{name: float(name == "smooth") for name in names})
    usual = PoolsConfig()
    service = replace(usual.scenario.service, mix=calm)
    return replace(usual, horizon_steps=STEPS, scenario=replace(usual.scenario, service=service))


def play(policy: str, headroom: float, episodes: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Violation shares and costs over the ideal of each episode, `[episodes]` each."""
    batch = PoolsBatch(config(), episodes, seed)
    batch.reset()
    decide = BASELINES[policy]()
    for _ in range(STEPS):
        result = batch.step(decide(batch.view(), headroom))
    summaries = result.episodes
    return tuple(np.array([each[name] for each in summaries]) for name in ("violation", "cost"))  # type: ignore[return-value]


def row(headroom: float, name: str, violation: FloatArray, cost: FloatArray, blind: FloatArray) -> str:
    """One line of the table; `blind` are the violations under equal weights."""
    cells = [
        f"{headroom:g}", name, f"{violation.mean():.1%}", f"{np.median(violation):.1%}", f"{cost.mean():.2f}"
    ]  # fmt: skip
    difference = violation - blind
    if name == "equal":
        cells += ["", ""]
    else:
        t = difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference)))
        cells += [f"{(difference < 0).mean():.0%} / {(difference > 0).mean():.0%}", f"{t:.1f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    lines = [
        "| headroom | policy | violations, mean | median | cost | better / worse | t of paired difference |",
        "|---|---|---|---|---|---|---|",
    ]
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("episodes", total=len(HEADROOMS) * len(BASELINES))
        for headroom in HEADROOMS:
            blind, _ = play("equal", headroom, args.episodes, args.seed)
            for name in BASELINES:
                violation, cost = play(name, headroom, args.episodes, args.seed)
                lines.append(row(headroom, name, violation, cost, blind))
                progress.advance(task)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
