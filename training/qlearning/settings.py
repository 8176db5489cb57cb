"""Settings of `algo: qlearning`, a section of every preset; no numba here, so that `--help` stays fast."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from controller.core import OBSERVATION_SCHEMA
from training.errors import ConfigError

MOST_STATES = 2_000_000


@dataclass(frozen=True)
class Axis:
    """One axis of the table: a feature of the observation, cut into bins at its edges."""

    feature: str
    """A name of the observation schema."""
    edges: tuple[float, ...]
    """Ascending. A value belongs to the bin after the last edge that it is above."""
    label: str = ""
    """What the axis is called in pictures; empty: by its features."""
    names: tuple[str, ...] = ()
    """What the bins are called in pictures, lowest first: one more than edges. Empty: by their edges."""
    over: tuple[str, ...] = ()
    """Features whose largest, or 0 if that is more, is subtracted from it first: with `provisioned_over_load`
    and those of `load_` and `move_`, the headroom over a load that was or may come."""

    def __post_init__(self) -> None:
        """Refuse values that would fail later with a worse message."""
        where = f"qlearning.state.{self.feature}"
        known = OBSERVATION_SCHEMA.names
        for name in (self.feature, *self.over):
            if name not in known:
                raise ConfigError(f"qlearning.state: {name!r} is not one of {', '.join(known)}")
        ascending = all(low < high for low, high in itertools.pairwise(self.edges))
        if not self.edges or not ascending or not all(math.isfinite(edge) for edge in self.edges):
            raise ConfigError(f"{where}.edges: {self.edges} is not allowed; ascending numbers are")
        if self.names and len(self.names) != self.bins:
            raise ConfigError(f"{where}.names: {len(self.names)} names for {self.bins} bins")

    @property
    def title(self) -> str:
        """What is cut, in words."""
        return self.label or self.source

    @property
    def source(self) -> str:
        """What is cut, by its features."""
        return " less ".join([self.feature, *([f"max({', '.join(self.over)})"] if self.over else [])])

    @property
    def bins(self) -> int:
        """How many bins."""
        return len(self.edges) + 1

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each bin."""
        if self.names:
            return self.names
        logarithm = (
            OBSERVATION_SCHEMA.features[OBSERVATION_SCHEMA.names.index(self.feature)].unit == "ln ratio"
        )
        edges = [f"{math.exp(edge):.2f}" if logarithm else f"{edge:g}" for edge in self.edges]
        unit = " x" if logarithm else ""
        between = [f"{low} to {high}{unit}" for low, high in itertools.pairwise(edges)]
        return (f"up to {edges[0]}{unit}", *between, f"above {edges[-1]}{unit}")


DEFAULT_STATE = (
    Axis("utilisation", (0.4, 0.6, 0.75, 0.9), names=("idle", "low", "fair", "high", "full")),
    Axis("load_change_60s", (-0.1, 0.1), names=("falling", "steady", "rising")),
    Axis("pending_share", (0.02,), names=("none", "starting")),
    Axis("latency_over_slo", (-0.7, 0.0), names=("well below", "near", "over")),
    Axis("preference", (0.2, 0.4, 0.6, 0.8), names=("cheapest", "cheap", "middle", "safe", "safest")),
)


@dataclass(frozen=True)
class QLearning:
    """Hyperparameters of tabular Q-learning (Watkins 1989), and what its table looks like."""

    state: tuple[Axis, ...] = DEFAULT_STATE
    """The table's axes; a state is one bin of each."""
    gamma: float = 0.93
    """Discount a choice."""
    learning_rate: float = 0.5
    """Step of the first update of an entry; of the one after n, `learning_rate / (1 + n)^decay`."""
    learning_rate_decay: float = 0.6
    """How fast the step falls with an entry's updates; 0: it does not."""
    final_learning_rate: float = 0.01
    """Least step."""
    epsilon: float = 1.0
    """Share of choices at random at the start."""
    final_epsilon: float = 0.05
    """The same at the end."""
    epsilon_until: float = 0.8
    """Share of the run after which it stays there; in between it falls linearly."""
    initial: float = 0.0
    """What the table holds before it has learned; above what can be earned makes it curious."""
    rollout: int = 32
    """Choices of every service between two updates of the table."""
    trace: float = 0.0
    """Lambda of Watkins' Q(lambda): 0 looks one choice ahead, 1 until the first one that is not greedy."""
    double: bool = False
    """Double Q-learning (van Hasselt 2010): two tables, each judged by the other."""
    relabel: bool = True
    """Learn from every step for each bin of the axis `preference`: what the step would have earned there is
    known, and where it leads does not depend on it."""

    def __post_init__(self) -> None:
        """Refuse values that would fail later with a worse message."""
        sources = [axis.source for axis in self.state]
        _require(len(set(sources)) == len(sources) > 0, "state", sources, "one axis or more, each once")
        _require(self.states <= MOST_STATES, "state", f"{self.states} states", f"up to {MOST_STATES}")
        for name in ("gamma", "epsilon", "final_epsilon", "epsilon_until", "trace"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "in 0..1")
        for name in ("learning_rate", "final_learning_rate"):
            _require(0 < getattr(self, name) <= 1, name, getattr(self, name), "above 0, up to 1")
        _require(self.rollout >= 1, "rollout", self.rollout, "1 or more")
        _require(self.gamma < 1, "gamma", self.gamma, "below 1")
        _require(self.learning_rate_decay >= 0, "learning_rate_decay", self.learning_rate_decay, "0 or more")
        _require(math.isfinite(self.initial), "initial", self.initial, "a number")

    @property
    def states(self) -> int:
        """Rows of the table."""
        return math.prod(axis.bins for axis in self.state)


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"qlearning.{name}: {value} is not allowed; {allowed} is")
