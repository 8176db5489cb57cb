"""N balancers in one batch: drawn episodes, decisions, rewards, observations, and the twin that plays them.

`WebBatch` is what both faces share; `TwinBatch` plays it on simulated servers, `sim.webbalancing.real` on
real ones. `sim.webbalancing.environment` (Gymnasium) and `sim.webbalancing.sb3` are the faces for agents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sim.envs.vector import BatchStep
from sim.errors import require
from sim.webbalancing import book as notes
from sim.webbalancing.episodes import PHASES, Episode, Fault, draw_episode
from sim.webbalancing.errorslog import ErrorsLog
from sim.webbalancing.features import FLEET_SCHEMA, SERVER_SCHEMA, observe
from sim.webbalancing.layout import FloatArray, IntArray, make_book, make_truth
from sim.webbalancing.scoring import TIE, episode_figures, true_costs
from sim.webbalancing.twin import step_rows


@dataclass(frozen=True)
class WebConfig:
    """What `rlscaler/WebBalancing-v0` is made of."""

    face: str = "twin"
    """twin: simulated servers. real: HTTP servers, local processes that the environment starts."""
    servers: int = 4
    """How many there are."""
    batches: int = 200
    """Decisions of an episode."""
    phases: tuple[str, ...] = ("troubled",)
    """Phases of the curriculum, in order: equal, different, troubled (`sim.webbalancing.episodes`)."""
    episodes: tuple[int, ...] = (1,)
    """Episodes of each phase, over all environments; the last phase goes on."""
    begin_at: int = 0
    """Episodes that are behind: where a resumed run stands in the curriculum."""
    at_once: bool = True
    """twin: whether a batch's cost is its own decision's reward, known beforehand because requests are
    served first come, first served. Otherwise, and always on real servers, a reward is the cost of the
    requests that ended since the last decision. Over an episode both add up to the same."""
    work_over_s: float = 0.001
    """twin: what a request takes of its worker beyond its work, as HTTP servers do."""
    http_over_s: float = 0.002
    """twin: what it takes besides; `transfer` measures both."""
    addresses: tuple[str, ...] = ()
    """real: servers that run already, started with `--control`; none: local processes are started."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        require(self.face in ("twin", "real"), "face", self.face, "twin or real")
        require(self.servers >= 2, "servers", self.servers, "2 or more")
        require(self.batches >= 10, "batches", self.batches, "10 or more")
        for name in ("work_over_s", "http_over_s"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "in 0..1 s")
        for phase in self.phases:
            require(phase in PHASES, "phases", phase, f"of {', '.join(PHASES)}")
        fits = len(self.episodes) == len(self.phases) > 0 and min(self.episodes) >= 1
        require(fits, "episodes", self.episodes, f"a number of 1 or more for each of {self.phases}")
        require(
            not self.addresses or len(self.addresses) == self.servers,
            "addresses", self.addresses, f"as many as servers ({self.servers}), or none",
        )  # fmt: skip

    def phase(self, episode: int) -> str:
        """The phase of an episode, counted from 0 over the whole run."""
        for name, count in zip(self.phases, self.episodes, strict=True):
            if episode < count:
                return name
            episode -= count
        return self.phases[-1]


def bounds(config: WebConfig) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Least and most of every number of an observation, float32 `[S * 13 + 3]` each."""
    low = np.concatenate([np.tile(SERVER_SCHEMA.low, config.servers), FLEET_SCHEMA.low])
    high = np.concatenate([np.tile(SERVER_SCHEMA.high, config.servers), FLEET_SCHEMA.high])
    return low, high


class WebBatch(ABC):
    """N balancers, each before its own servers. given: episodes to play in turn instead of drawn ones (row
    i: i, i + N, ...). With a curriculum all rows are in the phase that the batch as a whole is in."""

    def __init__(
        self,
        config: WebConfig | None = None,
        num_envs: int = 1,
        seed: int = 0,
        autoreset: bool = True,
        given: Sequence[Episode] | None = None,
    ) -> None:
        self.config = config or WebConfig()
        self.num_envs, self.autoreset, self._given = num_envs, autoreset, given
        most = [PHASES[phase] for phase in self.config.phases]
        requests = max(one.most_in_batch for one in most) * (self.config.batches + 1)
        workers = max(one.workers[1] for one in most)
        if given:
            self.config = replace(self.config, batches=given[0].decisions, servers=len(given[0].workers))
            _same_shape(given)
            requests = max(len(one.sizes) for one in given)
            workers = max(int(one.workers.max()) for one in given)
        servers, batches = self.config.servers, self.config.batches
        self.book = make_book(num_envs, servers, requests)
        self.truth = make_truth(num_envs, servers, batches, requests, workers)
        self.truth.work_over_s[:] = self.config.work_over_s
        self.truth.http_over_s[:] = self.config.http_over_s
        self.playing: list[Episode | None] = [None] * num_envs
        self.low, self.high = bounds(self.config)
        self.observations = np.zeros((num_envs, len(self.low)), dtype=np.float32)
        self.final = np.zeros(num_envs, dtype=np.bool_)
        self._costs = np.zeros((num_envs, servers))
        self._sums = np.zeros((num_envs, 2))
        self._situation: dict[str, FloatArray] = {}
        self.errors = ErrorsLog()
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """New generators; the next `reset` starts all over."""
        self._rngs = [np.random.default_rng(seed + index) for index in range(self.num_envs)]
        self._played = np.zeros(self.num_envs, dtype=np.int64)

    def reset(self) -> npt.NDArray[np.floating]:
        """New episodes everywhere; observations float32 `[N, S * 13 + 3]`."""
        self._begin(np.arange(self.num_envs))
        return self.observations.copy()

    def step(self, choices: npt.ArrayLike, /) -> BatchStep:
        """Send each row's batch to a server, int `[N]` of 0..S-1, and go on to when the next one comes."""
        actions = np.asarray(choices, dtype=np.int64)
        outside = (actions < 0) | (actions >= self.config.servers)
        if outside.any():
            require(False, "action", int(actions[outside][0]), f"a server in 0..{self.config.servers - 1}")
        true_costs(self.book, self.truth, self._costs)
        chosen = self._costs[np.arange(self.num_envs), actions]
        right = (chosen <= TIE * self._costs.min(axis=1)).astype(np.float64)
        costs = self.play(actions)
        scale = notes.WORST * np.array([one.counts[:-1].mean() for one in self.playing if one])
        rewards = -costs / scale
        self._sums += np.stack([rewards, right], axis=1)
        self._situation = self._describe(right)
        done, truncated = np.flatnonzero(self.final), self.final.copy()
        observations = self.observations.copy()
        final, summaries = observations[done], [self.summary(int(row)) for row in done]
        if len(done) and self.autoreset:
            self._begin(done)
            observations[done] = self.observations[done]
        return BatchStep(observations, rewards, truncated, {"accurate": right}, final, summaries)

    @abstractmethod
    def play(self, actions: IntArray) -> FloatArray:
        """Send the batches and wait for the next; costs `[N]`. Writes `observations` and `final`."""

    @abstractmethod
    def prepare(self, row: int, episode: Episode) -> None:
        """Ready the servers of a row for an episode."""

    def situation(self) -> dict[str, FloatArray]:
        """The last step in plain numbers."""
        return self._situation

    def true_costs(self) -> FloatArray:
        """Expected cost of each row's batch on every server by the state that it is in, `[N, S]`."""
        true_costs(self.book, self.truth, self._costs)
        return self._costs.copy()

    def summary(self, row: int) -> dict[str, float]:
        """A row's episode so far: its return, and how well it was balanced."""
        steps, episode = float(self.book.step[row]), self.playing[row]
        assert episode is not None
        total, right = self._sums[row].tolist()
        sent = int(self.truth.first[row, self.book.step[row]])
        return {
            "return": total,
            "steps": steps,
            "accuracy": right / max(steps, 1.0),
            **episode_figures(self.book, row, sent),
            "phase": float(list(PHASES).index(episode.phase)),
            "logged": float(self.errors.total),
        }

    def log_errors_to(self, path: Path) -> None:
        """Write what goes wrong with real servers into this file. The twin's stays empty."""
        self.errors.write_to(path)

    def close(self) -> None:  # noqa: B027
        """Let go of what the servers hold."""

    def _begin(self, rows: IntArray) -> None:
        for row in rows:
            episode = self._next(int(row))
            self.playing[row] = episode
            self._load(int(row), episode)
            notes.begin(self.book, int(row))
            self.prepare(int(row), episode)
            notes.note_arrival(self.book, int(row), 0.0, int(episode.counts[0]))
            observe(self.book, int(row), self.low, self.high, self.observations[row])
        self._sums[rows] = 0.0

    def _next(self, row: int) -> Episode:
        count = int(self._played[row])
        self._played[row] += 1
        if self._given is not None:
            return self._given[(row + count * self.num_envs) % len(self._given)]
        phase = self.config.phase(self.config.begin_at + count * self.num_envs)
        return draw_episode(self._rngs[row], phase, self.config.servers, self.config.batches)

    def _load(self, row: int, episode: Episode) -> None:
        book, truth, fault = self.book, self.truth, episode.fault
        book.workers[row], book.service_s[row] = episode.workers, episode.service_s
        book.reference_s[row] = episode.reference_s
        truth.arrive_s[row], truth.counts[row] = episode.arrive_s, episode.counts
        truth.first[row] = np.concatenate([[0], np.cumsum(episode.counts)[:-1]])
        truth.sizes[row, : len(episode.sizes)] = episode.sizes
        truth.luck[row, : len(episode.luck)] = episode.luck
        self._load_fault(row, fault)
        truth.free[row], truth.inside[row], truth.done[row], truth.done_s[row] = 0.0, 0, 0, 0.0
        truth.next_scrape[row], truth.heap_size[row] = notes.SCRAPE_S, 0

    def _load_fault(self, row: int, fault: Fault) -> None:
        truth = self.truth
        truth.fault_kind[row], truth.fault_server[row] = fault.kind, fault.server
        truth.fault_begin[row], truth.fault_end[row] = fault.begin_s, fault.end_s
        truth.fault_speed[row], truth.fault_share[row] = fault.speed, fault.error_share

    def _describe(self, right: FloatArray) -> dict[str, FloatArray]:
        book = self.book
        return {
            "time_s": book.now.copy(),
            "in_flight": book.in_flight.astype(np.float64),
            "latency_s": np.nan_to_num(book.latency_s),
            "errors": book.errors.copy(),
            "utilisation": book.busy.copy(),
            "share": book.recent.copy(),
        }


class TwinBatch(WebBatch):
    """N balancers before simulated servers."""

    def play(self, actions: IntArray) -> FloatArray:
        """One pass of the compiled kernel over all rows."""
        costs = np.zeros(self.num_envs)
        step_rows(
            self.book, self.truth, actions, self.config.at_once, costs, self.low, self.high,
            self.observations, self.final,
        )  # fmt: skip
        return costs

    def prepare(self, row: int, episode: Episode) -> None:
        """Nothing: `_load` has set the arrays."""


def make_batch(
    config: WebConfig,
    num_envs: int = 1,
    seed: int = 0,
    autoreset: bool = True,
    given: Sequence[Episode] | None = None,
) -> WebBatch:
    """The batch of the configuration's face. Real servers have one balancer."""
    if config.face == "twin":
        return TwinBatch(config, num_envs, seed, autoreset, given)
    require(num_envs == 1, "num_envs", num_envs, "1 with face: real")
    from sim.webbalancing.real import RealBatch

    return RealBatch(config, seed, autoreset, given)


def _same_shape(given: Sequence[Episode]) -> None:
    shapes = {(len(one.workers), one.decisions) for one in given}
    require(len(shapes) == 1, "given", sorted(shapes), "episodes of as many servers and batches each")
