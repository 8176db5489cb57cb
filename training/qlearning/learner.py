"""Tabular Q-learning over the simulator's batch: rounds of whole episodes. `training.qlearning.run` calls.

A round is one episode of every service of the batch, in rollouts of `qlearning.rollout` choices each, with
an update of the table after every one. All draws are functions of the seed and of the episode's number, so
that equal seeds give equal tables and a resumed run continues with the episodes it has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core import OBSERVATION_SCHEMA
from sim.envs import kernel as batch_kernel
from sim.envs.batch import AutoscaleBatch, AutoscaleConfig
from sim.envs.rewards import TERM_ROWS
from training.actions import TableHead, make_head
from training.config import Preset
from training.environment import environment_config, use_recordings
from training.errors import ConfigError
from training.qlearning.kernel import Buffers, Cut, Memory, Steps, learn, play
from training.qlearning.states import PREFERENCE, States
from training.qlearning.table import Table

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
SUMMARIES = ("return", "cost", "violation", "dropped", "churn", "flaps_per_hour", "preference")
"""What is kept of every episode, of `info["summary"]`."""
EPISODE_COLUMNS = (*SUMMARIES, "exploration_rate", "steps")


@dataclass(frozen=True)
class Round:
    """What one round came to. summaries: of its episodes; reward: mean of a control step; td_error: mean
    |error| of the updates."""

    summaries: list[dict[str, float]]
    reward: float
    exploration_rate: float
    td_error: float


class TableBatch(AutoscaleBatch):
    """The simulator's batch, whose arrays the compiled episodes work on."""

    def compiled(self) -> batch_kernel.State:
        """The arrays, as `step_rows` takes them."""
        self._bind()
        return self._state

    @property
    def actions(self) -> tuple[FloatArray, int]:
        """(the choices' actions float64 `[A, C]`, the code of their schema)."""
        return self._table, self._schema

    def constants(self, preferences: FloatArray) -> FloatArray:
        """The reward's constants of the running episodes, as if at these preferences: `[P, 3, N]`."""
        begun = self._episode
        cost, violation = begun[:, batch_kernel.N_COST], begun[:, batch_kernel.N_VIOLATION]
        return np.stack(
            [
                self.config.reward.constants(np.full(self.num_envs, level), cost, violation)
                for level in preferences
            ]
        )

    def skip(self, episodes: int) -> None:
        """Go on with the lives as if so many episodes had been begun."""
        self._number[:] = episodes


class Learner:
    """A table, the batch that it learns on, and the counters between two rounds."""

    def __init__(self, preset: Preset, seed: int) -> None:
        self.preset, self.seed = preset, seed
        settings = preset.qlearning
        self.head = table_head(preset)
        config = table_config(preset, self.head)
        self.hold = preset.action.hold_ticks
        self.choices = config.horizon_steps // self.hold
        if config.horizon_steps % self.hold:
            raise ConfigError(
                f"action.hold_ticks: {self.hold} does not divide environment.horizon_steps = "
                f"{config.horizon_steps}"
            )
        self.batch = TableBatch(config, preset.num_envs, seed)
        use_recordings(preset, self.batch, seed)
        self.states = States(settings.state)
        self.table = Table.empty(self.states, self.head, settings.initial, settings.double)
        self.rounds = 0
        self._episodes: list[FloatArray] = []
        self._prepare()

    @property
    def steps_a_round(self) -> int:
        """Choices of one round, which is what `timesteps` counts."""
        return self.preset.num_envs * self.choices

    @property
    def steps(self) -> int:
        """Choices so far, over all services."""
        return self.rounds * self.steps_a_round

    @property
    def played(self) -> int:
        """Episodes so far."""
        return self.rounds * self.preset.num_envs

    @property
    def finished(self) -> bool:
        """Whether the preset's steps are done."""
        return self.rounds >= self.total_rounds

    @property
    def total_rounds(self) -> int:
        """Rounds of the whole run: its steps, rounded up."""
        return max(1, -(-self.preset.timesteps // self.steps_a_round))

    def _prepare(self) -> None:
        services, turns = self.preset.num_envs, min(self.preset.qlearning.rollout, self.choices)
        levels = self.states.levels()
        place = self.states.axis(PREFERENCE)
        edges = self.states.axes[place].edges if place is not None else ()
        stride = int(self.states.strides[place]) if place is not None else 0
        self._cut = Cut(
            self.states.columns,
            self.states.over,
            self.states.edges,
            self.states.strides,
            np.array(edges, dtype=np.float32),
            stride,
        )
        self._levels = levels
        self._memory = Memory(
            self.table.values,
            self.table.visits,
            np.zeros((turns + 1, services), dtype=np.int64),
            np.zeros(services, dtype=np.int64),
            np.zeros((turns, services), dtype=np.int64),
            np.zeros((turns, services, len(levels))),
        )
        self._buffers = Buffers(
            np.zeros_like(self.batch.observations),
            np.zeros((services, len(batch_kernel.INFO))),
            np.zeros(services),
            np.zeros(len(TERM_ROWS)),
            np.full(OBSERVATION_SCHEMA.size, np.inf, dtype=np.float32),
            np.full(OBSERVATION_SCHEMA.size, -np.inf, dtype=np.float32),
        )

    @property
    def epsilon(self) -> float:
        """Share of choices at random in the round to come."""
        settings = self.preset.qlearning
        until = max(settings.epsilon_until * self.total_rounds, 1e-9)
        share = min(self.rounds / until, 1.0)
        return settings.epsilon + (settings.final_epsilon - settings.epsilon) * share

    def round(self) -> Round:
        """One episode of every service."""
        epsilon = self.epsilon
        self.batch.skip(self.rounds)
        np.copyto(self._buffers.observations, self.batch.reset())
        constants = self.batch.constants(self._levels)
        state = self.batch.compiled()
        table, schema = self.batch.actions
        errors, turns = [], len(self._memory.chosen)
        for first in range(0, self.choices, turns):
            memory = self._part(min(turns, self.choices - first))
            steps = self._steps(epsilon, self.rounds * self.choices + first)
            play(state, table, schema, self.hold, constants, self._cut, memory, steps, self._buffers)
            errors.append(learn(self._cut, memory, steps))
        self.rounds += 1
        summaries = [self.batch.summary(row) for row in range(self.preset.num_envs)]
        self._remember(summaries, epsilon)
        reward = float(np.mean([one["return"] / one["steps"] for one in summaries]))
        return Round(summaries, reward, epsilon, float(np.mean(errors)))

    def _remember(self, summaries: list[dict[str, float]], epsilon: float) -> None:
        rows = [[one[name] for name in SUMMARIES] for one in summaries]
        shared = np.tile([epsilon, float(self.steps)], (len(rows), 1))
        self._episodes.append(np.hstack([np.array(rows), shared]))

    def episodes(self) -> dict[str, FloatArray]:
        """Every episode so far: arrays `[E]` by the names of EPISODE_COLUMNS (steps: of the run)."""
        whole = np.concatenate([np.zeros((0, len(EPISODE_COLUMNS))), *self._episodes])
        return dict(zip(EPISODE_COLUMNS, whole.T, strict=True))

    def _part(self, turns: int) -> Memory:
        """The memory of a rollout that is shorter at an episode's end."""
        memory = self._memory
        if turns == len(memory.chosen):
            return memory
        return memory._replace(
            states=memory.states[: turns + 1], chosen=memory.chosen[:turns], rewards=memory.rewards[:turns]
        )

    def _steps(self, epsilon: float, first: int) -> Steps:
        settings = self.preset.qlearning
        return Steps(
            settings.learning_rate,
            settings.learning_rate_decay,
            settings.final_learning_rate,
            settings.gamma,
            settings.trace,
            settings.relabel,
            epsilon,
            self.seed,
            first,
        )

    @property
    def seen(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest observation so far, float32 `[F]` each.

        Of features that no axis reads, the whole range: they never put the table on unknown ground.
        """
        columns, over = self.states.columns, self.states.over
        read = np.isin(np.arange(OBSERVATION_SCHEMA.size), [*columns, *over.ravel()])
        low = np.where(read, self._buffers.low, np.minimum(OBSERVATION_SCHEMA.low, 0.0))
        high = np.where(read, self._buffers.high, np.maximum(OBSERVATION_SCHEMA.high, 0.0))
        return low.astype(np.float32), high.astype(np.float32)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: arrays by name."""
        low, high = self._buffers.low, self._buffers.high
        kept = {"values": self.table.values, "visits": self.table.visits, "low": low, "high": high}
        return kept | {"episodes": np.concatenate(self._episodes), "rounds": np.int64(self.rounds)}

    def load(self, kept: Mapping[str, Any]) -> None:
        """Continue from a checkpoint. Raises ConfigError for a table of another shape."""
        self.table.load(kept)
        np.copyto(self._buffers.low, kept["low"])
        np.copyto(self._buffers.high, kept["high"])
        self.rounds = int(kept["rounds"])
        self._episodes = [kept["episodes"]]


def table_config(preset: Preset, head: TableHead) -> AutoscaleConfig:
    """The simulator's settings: choices are rows of the head's table, and all episodes begin at once."""
    rows = tuple(tuple(float(value) for value in row) for row in head.table)
    return replace(environment_config(preset, head), action_table=rows, stagger=False)


def table_head(preset: Preset) -> TableHead:
    """The choices: rows of a table of actions. Raises ConfigError for a head that is none."""
    head = make_head(preset.action)
    if not isinstance(head, TableHead):
        kind = preset.action.kind
        raise ConfigError(f"action.kind: {kind!r} is not allowed with algo: qlearning; discrete, band are")
    return head
