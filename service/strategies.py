"""Who chooses the server: the heuristics of `sim.scheduling`, and the learned scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.errors import FieldError, ServiceError
from service.kernels import rate_servers
from service.learned import LearnedScheduler, shipped_artifact
from sim.scheduling import HEURISTICS
from sim.scheduling.heuristics import choose
from sim.scheduling.live import LiveCluster

LEARNED = "learned"
LEARNED_DESCRIPTION = "a trained policy (MaskablePPO) that scores every server, and holding the job back"
MEANINGS = {
    "round-robin": "places after the one whose turn it is; the lowest is next",
    "random": "probability; one is drawn",
    "first-fit": "place in the list; the lowest with room wins",
    "least-loaded": "share of cpu or memory taken, whichever is larger; the lowest wins",
    "best-fit": "cpu and memory left with the job on it, in largest servers; the lowest wins",
    "shortest-expected-delay": "seconds until the job is expected to have ended; the lowest wins",
    "power-of-two": "share of cpu or memory taken; the lower of two drawn wins",
    "keep-room": "cpu and memory left with the job on it, in largest servers; the lowest wins",
    LEARNED: "probability; the highest wins",
}
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """A decision on the offered job. choice: a server 0..S-1, S to hold, S + 1 to reject."""

    choice: int
    scores: Floats = field(default_factory=lambda: np.empty(0))
    """Of each server `[S]`, as MEANINGS says; NaN: none. Empty where nobody asked for them."""
    able: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    """Which servers have room `[S]`."""
    hold: float = 0.0
    """How much a learned scheduler would rather hold the job, as a probability."""


class Strategy(Protocol):
    """Chooses for the job that a cluster offers."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    def choose(self, cluster: LiveCluster, explain: bool) -> Choice:
        """The decision; with scores if `explain`."""
        ...


class Heuristic:
    """One of HEURISTICS."""

    def __init__(self, name: str) -> None:
        self.name, self.description = name, HEURISTICS[name]
        self._code = list(HEURISTICS).index(name)

    def choose(self, cluster: LiveCluster, explain: bool) -> Choice:
        if not explain:
            return Choice(int(choose(self._code, cluster.arrays)[0]))
        scores, able = np.empty(len(cluster)), np.empty(len(cluster), dtype=np.bool_)
        # first: round robin's turn moves on with its choice
        rate_servers(self._code, cluster.arrays, scores, able)
        return Choice(int(choose(self._code, cluster.arrays)[0]), scores, able)


class Learned:
    """A trained policy."""

    name, description = LEARNED, LEARNED_DESCRIPTION

    def __init__(self, scheduler: LearnedScheduler) -> None:
        self.most = scheduler.most
        self._scheduler = scheduler

    def choose(self, cluster: LiveCluster, explain: bool) -> Choice:
        choice, chances, allowed = self._scheduler.choose(cluster.arrays)
        servers = len(cluster)
        scores = np.where(allowed[:servers], chances[:servers], np.nan)
        return Choice(choice, scores, allowed[:servers], float(chances[servers]))


def strategies(servers: int, policy_file: Path | None = None) -> Mapping[str, Strategy]:
    """All that can be used with so many servers, by name, the learned one first.

    policy_file: an artifact instead of the one that is shipped. Raises ServiceError where it cannot be used.
    """
    found: dict[str, Strategy] = {}
    path = policy_file or shipped_artifact()
    if path is not None:
        learned = Learned(LearnedScheduler(path))
        if servers <= learned.most:
            found[LEARNED] = learned
        elif policy_file is not None:
            raise ServiceError(
                f"--policy-file: {str(path)!r} is not allowed with {servers} servers, its graph holds "
                f"{learned.most}"
            )
    return found | {name: Heuristic(name) for name in HEURISTICS}


def named(known: Mapping[str, Strategy], name: str, field_name: str = "strategy") -> Strategy:
    """The strategy of this name. Raises FieldError."""
    if name not in known:
        raise FieldError(field_name, name, f"one of {', '.join(known)}")
    return known[name]
