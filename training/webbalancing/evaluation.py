"""Policies on the same episodes, without exploration: figures with paired intervals.

`training/web_balancing.py evaluate` and `transfer`, and a run's card, are the callers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sim.webbalancing.batch import TwinBatch, WebBatch, WebConfig
from sim.webbalancing.episodes import PHASES, Episode, draw_episode
from sim.webbalancing.layout import FloatArray
from sim.webbalancing.policies import POLICIES, Policy
from training.frontier import draw, interval
from training.webbalancing.contestants import LEARNED, Contestant, contestants

MEASURES = ("cost", "accuracy", "gini", "errors", "latency_ms", "p50_ms", "p99_ms", "return")
HELD_OUT = 1_000_003
"""Seed of episodes that training never draws."""
Summaries = list[dict[str, float]]
Tell = Callable[[str], None]


def held_out(phase: str, count: int, config: WebConfig, seed: int = 0) -> list[Episode]:
    """The episodes of a phase that everybody is evaluated on."""
    place = list(PHASES).index(phase)
    return [
        draw_episode(
            np.random.default_rng([HELD_OUT, seed, place, one]), phase, config.servers, config.batches
        )
        for one in range(count)
    ]


def play(policy: Policy, batch: WebBatch, episodes: int) -> Summaries:
    """Play that many episodes of a batch to their ends, one after the other if it has one row."""
    found: Summaries = []
    policy.begin(batch.num_envs)
    batch.reset()
    while len(found) < episodes:
        found += batch.step(policy.choose(batch)).episodes
        if batch.final.any() and batch.num_envs == 1:
            policy.begin(1)
    return found


def play_twin(policy: Policy, episodes: Sequence[Episode], config: WebConfig) -> Summaries:
    """All episodes side by side in the twin."""
    batch = TwinBatch(replace(config, face="twin"), len(episodes), autoreset=False, given=episodes)
    return play(policy, batch, len(episodes))


def evaluate(
    compared: Sequence[Contestant],
    phases: Sequence[str],
    episodes: int,
    config: WebConfig,
    seed: int = 0,
    tell: Tell = lambda text: None,
) -> dict[str, Any]:
    """Every contestant on every phase's held-out episodes in the twin, as `summarise` says, by phase."""
    found = {}
    for phase in phases:
        drawn = held_out(phase, episodes, config, seed)
        played = {}
        for one in compared:
            played[one.name] = [play_twin(policy, drawn, config) for policy in one.policies]
            tell(f"{phase}: {one.name}")
        found[phase] = summarise(played)
    return found


def summarise(played: Mapping[str, Sequence[Summaries]]) -> dict[str, Any]:
    """By contestant, from each training seed's episodes `[K][E]`: means, 95 % intervals of the cost
    (bootstrap over episodes), spread between seeds, and the first contestant's cost over each other's."""
    names = list(played)
    costs = {name: _values(played[name], "cost") for name in names}
    draws = draw(np.zeros(len(costs[names[0]]), dtype=int), 1, over="windows").weights[:, :, 0]
    trial, report = names[0], {}
    for name in names:
        content: dict[str, Any] = {
            measure: float(np.nanmean(_values(played[name], measure))) for measure in MEASURES
        }
        bounds = interval(draws @ costs[name])
        content |= {"episodes": len(costs[name]), "seeds": len(played[name])}
        content["interval"] = [bounds.low, bounds.high]
        if len(played[name]) > 1:
            means = [float(np.mean([one["cost"] for one in seed])) for seed in played[name]]
            content["by_seed"], content["between_seeds"] = means, float(np.std(means, ddof=1))
        if name != trial:
            ratio = interval((draws @ costs[trial]) / (draws @ costs[name]))
            over = float(costs[trial].mean() / costs[name].mean())
            content["trial_over"] = {"ratio": over, "interval": [ratio.low, ratio.high]}
        report[name] = content
    return report


def card(artifact: Path, config: WebConfig, episodes: int = 50) -> dict[str, Any]:
    """A run's evaluation for its card: costs on held-out episodes of each phase, and the formulas'."""
    names = [name for name in POLICIES if name not in ("random", "round-robin")]
    compared = contestants([artifact], names, config.servers)
    plain = WebConfig(servers=config.servers, batches=config.batches)
    report = evaluate(compared, list(PHASES), episodes, plain)
    return {
        "episodes": episodes,
        "mean_cost": {
            phase: {name: one["cost"] for name, one in found.items()} for phase, found in report.items()
        },
        "policy_over": {
            phase: {name: one["trial_over"] for name, one in found.items() if name != LEARNED}
            for phase, found in report.items()
        },
    }


def _values(seeds: Sequence[Summaries], measure: str) -> FloatArray:
    """A measure of each episode, the mean over training seeds, `[E]`."""
    return np.asarray(np.mean([[one[measure] for one in seed] for seed in seeds], axis=0))
