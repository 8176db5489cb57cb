"""Generated jobs and clusters: what schedulers are trained on. `sim.envs.scheduling_batch` is the caller.

Every draw mixes what recordings of clusters show, wider than any one of them: durations with tails from
light to very heavy (log-normal, bounded Pareto, short jobs with a few long ones), demands from a sliver of a
machine to all of it, arrivals one by one, in bursts of like jobs, with day waves and quiet spells, loads
from half to slightly more than all that the cluster can do, estimates from exact to wrong by a factor of
three, and servers that are alike, of two kinds, or all different. No recording is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.errors import require
from sim.scheduling.layout import FloatArray
from sim.scheduling.params import Servers, Workload

DURATIONS = ("log-normal", "pareto", "two kinds", "weibull")
DEMANDS = ("small", "mixed", "flavours", "whole machines")
ARRIVALS = ("poisson", "gamma", "bursts", "waves", "on and off")
CLUSTERS = ("alike", "two kinds", "different")
FLAVOURS = 2.0 ** -np.arange(7)
LONGEST_OVER_SPAN = 0.5
"""No job runs longer than this share of the time in which jobs arrive: it would be all there is."""


@dataclass(frozen=True)
class SchedulingScenario:
    """From what an episode's jobs and servers are drawn; ranges are (least, most)."""

    servers: tuple[int, int] = (4, 16)
    """Servers of a cluster."""
    load: tuple[float, float] = (0.5, 1.05)
    """Work submitted a second over what the cluster can do."""
    typical_s: tuple[float, float] = (5.0, 5000.0)
    """Median duration, drawn log-uniformly."""
    spread: tuple[float, float] = (0.4, 2.6)
    """Deviation of the durations' logarithm, or what is like it."""
    estimate_error: tuple[float, float] = (0.0, 1.0)
    """Log-normal sigma of estimates."""
    durations: tuple[str, ...] = DURATIONS
    """Families of durations to draw from."""
    demands: tuple[str, ...] = DEMANDS
    """Families of demands."""
    arrivals: tuple[str, ...] = ARRIVALS
    """Families of arrivals."""
    clusters: tuple[str, ...] = CLUSTERS
    """Kinds of clusters."""

    def __post_init__(self) -> None:
        """Refuse ranges that are none, and families that there are not."""
        least = {"servers": 1, "load": 0.01, "typical_s": 1e-3, "spread": 0.0, "estimate_error": 0.0}
        for name, lowest in least.items():
            low, high = getattr(self, name)
            require(lowest <= low <= high, name, (low, high), f"rising, from {lowest:g} on")
        for name, known in (
            ("durations", DURATIONS), ("demands", DEMANDS), ("arrivals", ARRIVALS), ("clusters", CLUSTERS),
        ):  # fmt: skip
            chosen = getattr(self, name)
            require(bool(chosen) and set(chosen) <= set(known), name, chosen, f"of {', '.join(known)}")


def draw_episode(
    rng: np.random.Generator, scenario: SchedulingScenario, jobs: int
) -> tuple[Servers, Workload]:
    """Servers and `jobs` jobs."""
    servers = draw_servers(rng, scenario)
    batches = draw_batches(rng, scenario, jobs)
    duration = _durations(rng, scenario, batches)
    cpu, memory = _demands(rng, scenario, duration, batches)
    submit = _arrivals(rng, scenario, batches)
    error, load = rng.uniform(*scenario.estimate_error), rng.uniform(*scenario.load)
    workload = Workload(submit, duration, cpu, memory).at_load(load, servers)
    longest = LONGEST_OVER_SPAN * max(float(workload.submit_s[-1]), 1e-6)
    cut = Workload(workload.submit_s, np.minimum(duration, longest), cpu, memory)
    return servers, cut.at_load(load, servers).estimated(error, rng)


def draw_servers(rng: np.random.Generator, scenario: SchedulingScenario) -> Servers:
    """A cluster: its fastest server has speed 1, its largest all of a machine."""
    low, high = scenario.servers
    count = int(np.rint(np.exp(rng.uniform(np.log(low), np.log(high)))))
    kind = rng.choice(scenario.clusters)
    size, speed = np.ones(count), np.ones(count)
    if kind == "two kinds":
        second = rng.random(count) < rng.uniform(0.2, 0.8)
        speed[second] = rng.uniform(0.3, 1.0)
        size[second] = rng.choice([0.5, 1.0])
    elif kind == "different":
        speed = np.exp(rng.uniform(0.0, 0.6) * rng.standard_normal(count))
        size = rng.choice([0.5, 0.75, 1.0], count)
    size[rng.integers(count)] = 1.0
    return Servers(size, size.copy(), speed / speed.max())


def draw_batches(rng: np.random.Generator, scenario: SchedulingScenario, jobs: int) -> np.ndarray:
    """To which burst each job belongs, int `[J]`, rising; bursts of one where the family has none."""
    if rng.random() < 0.5:
        return np.arange(jobs)
    sizes = rng.geometric(1.0 / rng.uniform(1.5, 20.0), jobs)
    return np.repeat(np.arange(jobs), sizes)[:jobs]


def _durations(rng: np.random.Generator, scenario: SchedulingScenario, batches: np.ndarray) -> FloatArray:
    """Seconds, alike within a burst as far as a draw says."""
    jobs, kind = len(batches), rng.choice(scenario.durations)
    spread = rng.uniform(*scenario.spread)
    shared = rng.random()
    own, common = rng.standard_normal(jobs), rng.standard_normal(jobs)[batches]
    z = np.sqrt(shared) * common + np.sqrt(1.0 - shared) * own
    if kind == "log-normal":
        logs = spread * z
    elif kind == "weibull":
        logs = spread * np.log(-np.log(_upper(z)))
    elif kind == "pareto":
        logs = np.minimum(-np.log(_upper(z)) * max(0.6 * spread, 0.3), 9.0)
    else:
        long = _upper(z) < rng.uniform(0.01, 0.2)
        logs = 0.4 * spread * own + np.where(long, rng.uniform(1.5, 6.0), 0.0)
    low, high = np.log(scenario.typical_s)
    return np.asarray(np.maximum(np.exp(rng.uniform(low, high) + logs), 0.5))


def _upper(z: FloatArray) -> FloatArray:
    """Share of the standard normal above each z, within 1e-6..1 - 1e-6 (a logistic stand-in)."""
    return np.asarray(np.clip(1.0 / (1.0 + np.exp(1.702 * z)), 1e-6, 1.0 - 1e-6))


def _demands(
    rng: np.random.Generator, scenario: SchedulingScenario, duration: FloatArray, batches: np.ndarray
) -> tuple[FloatArray, FloatArray]:
    """Cpu and memory; the same within a burst, sometimes larger for longer jobs."""
    jobs, kind = len(duration), rng.choice(scenario.demands)
    if kind == "whole machines":
        return np.ones(jobs), np.zeros(jobs)
    if kind == "flavours":
        weights = rng.dirichlet(np.full(len(FLAVOURS), 0.7))
        cpu = rng.choice(FLAVOURS, jobs, p=weights)[batches]
    else:
        low = -5.0 if kind == "small" else -4.0
        high = -2.0 if kind == "small" else 0.0
        logs = np.log(duration)
        z = (logs - logs.mean()) / max(float(logs.std()), 1e-6)
        linked = rng.uniform(0.0, 0.6)
        place = linked * _upper(-z) + (1.0 - linked) * rng.random(jobs)[batches]
        cpu = np.exp(low + (high - low) * place)
    if rng.random() < 0.3:
        return cpu, np.zeros(jobs)
    spread = rng.uniform(0.0, 0.8)
    memory = cpu * np.exp(spread * rng.standard_normal(jobs)[batches])
    return cpu, np.clip(memory, 1e-4, 1.0)


def _arrivals(rng: np.random.Generator, scenario: SchedulingScenario, batches: np.ndarray) -> FloatArray:
    """Seconds, in any unit: the load sets the scale."""
    count, kind = int(batches[-1]) + 1, rng.choice(scenario.arrivals)
    gaps = rng.exponential(1.0, count)
    if kind == "gamma":
        shape = np.exp(rng.uniform(np.log(0.05), 0.0))
        gaps = rng.gamma(shape, 1.0 / shape, count)
    elif kind == "bursts":
        gaps *= np.where(rng.random(count) < rng.uniform(0.5, 0.95), rng.uniform(0.01, 0.3), 1.0)
    elif kind == "waves":
        turns = rng.uniform(0.5, 4.0) * 2.0 * np.pi * np.arange(count) / count
        gaps *= np.exp(rng.uniform(0.2, 1.2) * np.sin(turns + rng.uniform(0.0, 6.3)))
    elif kind == "on and off":
        flips = np.cumsum(rng.random(count) < rng.uniform(0.002, 0.05)) % 2
        gaps *= np.where(flips == 1, rng.uniform(0.05, 0.5), 1.0)
    # NaN-free even if all gaps were 0, and nobody at the same moment but within a burst
    return np.asarray(np.cumsum(gaps + 1e-9)[batches])
