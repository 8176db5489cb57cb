"""What happens in an episode, drawn beforehand: servers, batches of requests, the size of each, a fault.

Both faces of the environment play the same `Episode`, so policies meet the same requests in the twin and on
real servers. `sim.webbalancing.batch` and `sim.webbalancing.real` are the callers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.errors import require

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
NONE, SLOW, FAILING, DOWN = range(4)
FAULTS = ("none", "slow", "failing", "down")
ERROR_WORK = 0.1
"""Share of the work that a failing server does before it answers an error."""
CROWDED_SHARE = 0.4
"""Share of the batches that come in a burst, where there are bursts."""
CROWD_BATCHES = 15.0
"""Mean length of a burst in batches."""


@dataclass(frozen=True)
class Scenario:
    """From what an episode is drawn; ranges are (least, most)."""

    load: tuple[float, float] = (0.45, 0.7)
    """Work that comes over what the servers can do."""
    workers: tuple[int, int] = (1, 8)
    """Requests that a server works on at once, drawn log-uniformly."""
    service_s: tuple[float, float] = (0.06, 0.16)
    """Mean time that a request takes when it is worked on, of each server, drawn log-uniformly."""
    variation: tuple[float, float] = (0.2, 1.5)
    """Squared coefficient of variation of the requests' sizes (gamma, mean 1)."""
    batch: float = 4.0
    """Mean requests of a batch (geometric)."""
    most_in_batch: int = 12
    """A batch has no more requests than this."""
    burst: tuple[float, float] = (1.5, 3.0)
    """Rate within a burst over the mean rate; 1: a Poisson process of batches."""
    faults: float = 0.85
    """Share of the episodes in which a server is slow, failing or down for a while."""

    def __post_init__(self) -> None:
        """Refuse ranges that are none."""
        least = {"load": 0.01, "workers": 1, "service_s": 1e-4, "variation": 0.0, "burst": 1.0}
        for name, lowest in least.items():
            low, high = getattr(self, name)
            require(lowest <= low <= high, name, (low, high), f"rising, from {lowest:g} on")
        require(self.burst[1] <= 1 / CROWDED_SHARE + 2, "burst", self.burst, "at most 4.5")
        require(self.batch >= 1, "batch", self.batch, "1 or more")
        require(self.most_in_batch >= self.batch, "most_in_batch", self.most_in_batch, "batch or more")
        require(0 <= self.faults <= 1, "faults", self.faults, "in 0..1")


PHASES: dict[str, Scenario] = {
    "equal": Scenario(workers=(4, 4), service_s=(0.1, 0.1), burst=(1.0, 1.0), faults=0.0),
    "different": Scenario(burst=(1.0, 1.0), faults=0.0),
    "troubled": Scenario(),
}
"""The curriculum: equal servers under a steady load, servers of different capacity, then bursts and a server
that is slow, failing or down."""


@dataclass(frozen=True)
class Fault:
    """What befalls one server from `begin_s` to `end_s`, seconds of the episode."""

    kind: int = NONE
    server: int = -1
    begin_s: float = np.inf
    end_s: float = np.inf
    speed: float = 1.0
    """Of a slow server, over its usual speed."""
    error_share: float = 0.0
    """Of a failing server: share of the requests that it answers with an error, a tenth of the work done."""


@dataclass(frozen=True)
class Episode:
    """One drawn episode of S servers and B decisions.

    workers int `[S]`; service_s float `[S]`; arrive_s float `[B + 1]`: when batches come (the last is seen,
    not decided on); counts int `[B + 1]`: requests of each; sizes, luck float `[R]`: work of each request
    over the mean, and a uniform number that decides whether a failing server fails it.
    """

    workers: IntArray
    service_s: FloatArray
    arrive_s: FloatArray
    counts: IntArray
    sizes: FloatArray
    luck: FloatArray
    fault: Fault
    load: float
    phase: str

    @property
    def reference_s(self) -> float:
        """Mean service time over the servers' capacity: what times are measured by."""
        capacity = self.workers / self.service_s
        return float(self.workers.sum() / capacity.sum())

    @property
    def decisions(self) -> int:
        """Batches that are decided on."""
        return len(self.arrive_s) - 1


def draw_episode(rng: np.random.Generator, phase: str, servers: int, batches: int) -> Episode:
    """An episode of `batches` decisions on `servers` servers, as that phase of the curriculum has them."""
    scenario = PHASES[phase]
    workers = np.maximum(1, np.rint(_log_uniform(rng, scenario.workers, servers))).astype(np.int64)
    service_s = _log_uniform(rng, scenario.service_s, servers)
    load = float(rng.uniform(*scenario.load))
    counts = np.minimum(rng.geometric(1.0 / scenario.batch, batches + 1), scenario.most_in_batch)
    gap_s = counts.mean() / (load * float((workers / service_s).sum()))
    arrive_s = np.cumsum(rng.exponential(gap_s, batches + 1) * _paces(rng, scenario, batches + 1))
    sizes = _sizes(rng, float(rng.uniform(*scenario.variation)), int(counts.sum()))
    return Episode(
        workers=workers,
        service_s=service_s,
        arrive_s=arrive_s - arrive_s[0],
        counts=counts.astype(np.int64),
        sizes=sizes,
        luck=rng.random(len(sizes)),
        fault=_fault(rng, scenario, servers, float(arrive_s[-1] - arrive_s[0])),
        load=load,
        phase=phase,
    )


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float], count: int) -> FloatArray:
    low, high = np.log(bounds[0]), np.log(bounds[1])
    return np.exp(rng.uniform(low, high, count))


def _sizes(rng: np.random.Generator, variation: float, count: int) -> FloatArray:
    if variation <= 0:
        return np.ones(count)
    return np.asarray(rng.gamma(1.0 / variation, variation, count))


def _paces(rng: np.random.Generator, scenario: Scenario, count: int) -> FloatArray:
    """Gaps over the mean gap: short within bursts, long between them, 1 in the mean; float `[count]`."""
    burst = float(rng.uniform(*scenario.burst))
    if burst <= 1.0:
        return np.ones(count)
    quiet = (1.0 - CROWDED_SHARE / burst) / (1.0 - CROWDED_SHARE)
    leave = 1.0 / CROWD_BATCHES
    enter = leave * CROWDED_SHARE / (1.0 - CROWDED_SHARE)
    crowded, moves, paces = bool(rng.random() < CROWDED_SHARE), rng.random(count), np.empty(count)
    for place, move in enumerate(moves):
        paces[place] = 1.0 / burst if crowded else quiet
        crowded = move >= leave if crowded else move < enter
    return paces


def _fault(rng: np.random.Generator, scenario: Scenario, servers: int, span_s: float) -> Fault:
    if rng.random() >= scenario.faults:
        return Fault()
    begin = rng.uniform(0.15, 0.45) * span_s
    end = begin + rng.uniform(0.25, 0.5) * span_s
    kind, server = int(rng.integers(SLOW, DOWN + 1)), int(rng.integers(servers))
    speed, share = float(rng.uniform(0.1, 0.35)), float(rng.uniform(0.4, 1.0))
    return Fault(kind, server, begin, end, speed if kind == SLOW else 1.0, share if kind == FAILING else 0.0)
