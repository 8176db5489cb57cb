"""Schedulers on the same jobs: every policy on every window, load and seed, and the report of it.

`training/scheduling.py` is the command. Windows of a recording keep its jobs, their order and the pattern of
their arrivals; the clock of the arrivals alone is stretched, so that the window's work is `load` of what the
cluster can do. All policies see the same estimates, wrong by the same factors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.envs.scheduling_batch import Episode, SchedulingBatch, SchedulingConfig
from sim.scheduling import SchedulingParams, Servers, Workload
from sim.scheduling.physics import Outcome
from sim.scheduling.workloads import SchedulingScenario
from training.errors import ConfigError
from training.frontier import draw, interval
from training.schedulers.contestants import Contestant

FloatArray = npt.NDArray[np.floating[Any]]
CLUSTERS = ("alike", "mixed")
MEASURES = ("slowdown", "median_slowdown", "p99_slowdown", "wait_s", "imbalance", "utilisation", "rejected")
BASELINES = ("least-loaded", "best-fit")
LEAST_DECISIONS = 1000


@dataclass(frozen=True)
class Protocol:
    """What all policies are put through."""

    servers: int = 16
    """Servers of the cluster."""
    cluster: str = "alike"
    """alike: equal whole machines. mixed: every other one at half the speed."""
    load: float = 0.9
    """Work submitted a second over what the cluster can do."""
    estimate_error: float = 0.5
    """Log-normal sigma of the estimates of durations."""
    windows: int = 10
    """Windows of each recording."""
    jobs: int = 1500
    """Jobs of a window."""
    seeds: int = 3
    """Draws of the estimates' errors, and of policies that draw."""
    copies: int = 1
    """Instances of a job that count, at most."""
    overcommit: float = 1.0
    """Cpu placed on a server, over what it has."""

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if self.cluster not in CLUSTERS:
            raise ConfigError(f"cluster: {self.cluster!r} is not one of {', '.join(CLUSTERS)}")
        for name in ("servers", "windows", "seeds", "copies"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} is not allowed, must be 1 or more")
        if self.jobs < 10:
            raise ConfigError(f"jobs: {self.jobs} is not allowed, must be 10 or more")
        if not 0 < self.load <= 2:
            raise ConfigError(f"load: {self.load} is not allowed, must be above 0, at most 2")

    def make_servers(self) -> Servers:
        """The cluster."""
        speed = np.ones(self.servers)
        if self.cluster == "mixed":
            speed[1::2] = 0.5
        return Servers(np.ones(self.servers), np.ones(self.servers), speed)

    def episode(self, window: Workload, seed: int) -> Episode:
        """A window at the protocol's load, with a seed's estimates."""
        servers = self.make_servers()
        # the window's name keeps windows' errors apart, the seed those of one window
        entropy = [seed, *window.name.encode()]
        rng = np.random.default_rng(np.random.SeedSequence(entropy))
        return servers, window.at_load(self.load, servers).estimated(self.estimate_error, rng)


@dataclass(frozen=True)
class Played:
    """One policy's figures, float `[W, K]` of windows and seeds, by the names of MEASURES."""

    figures: Mapping[str, FloatArray]


def play(
    contestant: Contestant,
    protocol: Protocol,
    windows: Sequence[Workload],
    advanced: Callable[[int], None] | None = None,
) -> Played:
    """Every window with every seed, all side by side, to the end. advanced: is called with jobs done."""
    episodes = [protocol.episode(window, seed) for window in windows for seed in range(protocol.seeds)]
    batch = played_batch(contestant, protocol, episodes, advanced)
    found = [measures(batch.physics.outcome(row)) for row in range(len(episodes))]
    shape = (len(windows), protocol.seeds)
    return Played({name: np.array([one[name] for one in found]).reshape(shape) for name in MEASURES})


def played_batch(
    contestant: Contestant,
    protocol: Protocol,
    episodes: Sequence[Episode],
    advanced: Callable[[int], None] | None = None,
    each: Callable[[SchedulingBatch], None] | None = None,
) -> SchedulingBatch:
    """The batch after a policy has scheduled all; each: is called after every round of decisions."""
    params = SchedulingParams(order=contestant.order, overcommit=protocol.overcommit)
    scenario = SchedulingScenario(servers=(protocol.servers, protocol.servers))
    config = SchedulingConfig(servers=protocol.servers, params=params, scenario=scenario)
    batch = SchedulingBatch(config, len(episodes), autoreset=False, episodes=episodes)
    observations, done = batch.reset(), 0
    if contestant.heuristic and each is None:
        batch.physics.run(contestant.heuristic)
        if advanced:
            advanced(sum(len(jobs) for _, jobs in episodes))
        return batch
    while bool((batch.physics.offered >= 0).any()):
        observations = batch.step(contestant.choose(batch, observations)).observations
        finished = int(batch.physics.counts()["finished"].sum())
        if advanced and finished - done >= LEAST_DECISIONS:
            advanced(finished - done)
            done = finished
        if each:
            each(batch)
    return batch


def measures(outcome: Outcome) -> dict[str, float]:
    """The figures of one episode. A rejected job has no slowdown; `rejected` is their share."""
    slowdown, wait = outcome.slowdown[~outcome.rejected], outcome.wait_s[~outcome.rejected]
    return {
        "slowdown": float(slowdown.mean()),
        "median_slowdown": float(np.median(slowdown)),
        "p99_slowdown": float(np.quantile(slowdown, 0.99)),
        "wait_s": float(wait.mean()),
        "imbalance": outcome.imbalance,
        "utilisation": outcome.utilisation,
        "rejected": float(outcome.rejected.mean()),
    }


def summarise(played: Mapping[str, Played], trial: str) -> dict[str, Any]:
    """Means over windows and seeds with paired bootstrap intervals, of one recording; trial: who is compared.

    `over`: mean slowdown of `trial` over that of each other one, with the interval of that ratio.
    """
    shape = next(iter(played.values())).figures["slowdown"].shape
    draws = draw(np.zeros(shape[0], dtype=int), shape[1])
    drawn = {
        name: np.einsum("bwk,wk->b", draws.weights, one.figures["slowdown"]) for name, one in played.items()
    }
    report: dict[str, Any] = {"intervals_over": draws.over, "policies": {}}
    for name, one in played.items():
        found = {measure: float(values.mean()) for measure, values in one.figures.items()}
        between = interval(drawn[name])
        content: dict[str, Any] = found | {"interval": [between.low, between.high]}
        content["windows"] = one.figures["slowdown"].mean(axis=1).tolist()
        content["over_seeds"] = float(one.figures["slowdown"].mean(axis=0).std())
        if trial in played and name != trial:
            ratio = interval(drawn[trial] / drawn[name])
            ours = float(played[trial].figures["slowdown"].mean())
            content["trial_over"] = {"ratio": ours / found["slowdown"], "interval": [ratio.low, ratio.high]}
        report["policies"][name] = content
    return report


def beaten(report: Mapping[str, Any], name: str) -> bool | None:
    """Whether the trial is better than a policy by its whole interval; None if they were not compared."""
    content = report["policies"].get(name, {}).get("trial_over")
    return None if content is None else bool(content["interval"][1] < 1.0)
