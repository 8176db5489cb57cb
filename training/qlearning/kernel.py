"""Episodes under a table, and what the table learns from them, compiled: `training.qlearning.learner` calls.

Choices, the operator's flow (guard, physics, metrics, observation) and updates are one loop, so that a
thousand episodes take a second. The physics and the observation are the simulator's own `step_rows`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.compiled import counted, inlined, inner
from sim.envs.kernel import I_CHURN, I_COST, I_SHARE, I_VIOLATION, N_PREFERENCE, step_rows
from sim.envs.rewards import T_CHURN, T_COST, T_SHARE, T_VIOLATION, step_reward
from sim.noise import uniform
from training.qlearning.states import state_of

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
STREAM_EXPLORE, STREAM_CHOICE, STREAM_COIN = 60, 61, 62


class Cut(NamedTuple):
    """How observations become states; see `training.qlearning.states`.

    columns, strides int64 `[D]`, over int64 `[D, O]`, edges float32 `[D, E]`. preference_edges float32
    `[P - 1]`: of the dial's axis, P = 1 without one; preference_stride: its rows of the table a bin, or 0.
    """

    columns: IntArray
    over: IntArray
    edges: FloatArray
    strides: IntArray
    preference_edges: FloatArray
    preference_stride: int


class Memory(NamedTuple):
    """What has been learned, and what happened in the rollout.

    values float64 `[B, S, A]`: B = 1 table, or 2 with double Q-learning. visits int64 `[B, S, A]`: updates.
    states int64 `[T + 1, N]`, with the dial at its first bin; dials int64 `[N]`: each service's own bin;
    chosen int64 `[T, N]`; rewards float64 `[T, N, P]`: at each bin of the dial.
    """

    values: FloatArray
    visits: IntArray
    states: IntArray
    dials: IntArray
    chosen: IntArray
    rewards: FloatArray


class Steps(NamedTuple):
    """Schedules of one rollout.

    learning_rate, decay, least_rate, gamma, trace: as in the settings; epsilon; seed: of all draws; first:
    number of the rollout's first choice in the run.
    """

    learning_rate: float
    decay: float
    least_rate: float
    gamma: float
    trace: float
    relabel: bool
    epsilon: float
    seed: int
    first: int


class Buffers(NamedTuple):
    """observations float32 `[N, F]` of now; info `[N, INFO]`, rewards `[N]`: of the step; term: room for its
    terms; low, high float32 `[F]`: the range of observations that choices were made at."""

    observations: FloatArray
    info: FloatArray
    rewards: FloatArray
    term: FloatArray
    low: FloatArray
    high: FloatArray


@counted
def play(batch, table, schema, hold, constants, cut, memory, steps, buffers):  # type: ignore[no-untyped-def]
    """Play T choices of `hold` control steps each with every service; fills states, chosen, rewards.

    batch: `sim.envs.kernel.State`; table float64 `[A, C]`: the choices' actions of `schema`; constants
    float64 `[P, 3, N]`: the reward's, at each bin of the dial.
    """
    rows, settings, episode = batch.rows, batch.settings, batch.episode
    memory.rewards[:] = 0.0
    _look(rows, episode, cut, memory, buffers, 0)
    for turn in range(len(memory.chosen)):
        _choose(rows, cut, memory, steps, turn)
        for _ in range(hold):
            step_rows(
                rows, memory.chosen[turn], buffers.info, table, schema, settings, batch.physics, batch.engine,
                episode, batch.work, buffers.observations, buffers.info, buffers.rewards,
            )  # fmt: skip
            _earn(rows, settings, constants, hold, memory, buffers, turn)
        _look(rows, episode, cut, memory, buffers, turn + 1)


@inner
def _look(rows, episode, cut, memory, buffers, turn):  # type: ignore[no-untyped-def]
    for k in range(len(rows)):
        dial, preference = 0, np.float32(episode[rows[k], N_PREFERENCE] / 100.0)
        for edge in range(len(cut.preference_edges)):
            dial += preference > cut.preference_edges[edge]
        state = state_of(buffers.observations[k], cut.columns, cut.over, cut.edges, cut.strides)
        for column in range(len(buffers.low)):
            value = buffers.observations[k, column]
            buffers.low[column] = min(buffers.low[column], value)
            buffers.high[column] = max(buffers.high[column], value)
        memory.dials[k] = dial
        memory.states[turn, k] = state - dial * cut.preference_stride


@inner
def _choose(rows, cut, memory, steps, turn):  # type: ignore[no-untyped-def]
    """Epsilon-greedy; of equal values the first, or by the mean of two tables."""
    actions = memory.values.shape[2]
    for k in range(len(rows)):
        place = (steps.first + turn) * len(rows) + k
        if uniform(steps.seed, place, STREAM_EXPLORE) < steps.epsilon:
            memory.chosen[turn, k] = int(uniform(steps.seed, place, STREAM_CHOICE) * actions)
        else:
            state = memory.states[turn, k] + memory.dials[k] * cut.preference_stride
            memory.chosen[turn, k] = _greedy(memory.values, state)


@inlined
def _greedy(values, state):  # type: ignore[no-untyped-def]
    best, found = -np.inf, 0
    for action in range(values.shape[2]):
        value = values[0, state, action]
        if values.shape[0] > 1:
            value += values[1, state, action]
        if value > best:
            best, found = value, action
    return found


@inner
def _earn(rows, settings, constants, hold, memory, buffers, turn):  # type: ignore[no-untyped-def]
    """The step's reward as it would be at each bin of the dial."""
    term = buffers.term
    for k in range(len(rows)):
        told = buffers.info[k]
        term[T_COST], term[T_VIOLATION] = told[I_COST], told[I_VIOLATION]
        term[T_SHARE], term[T_CHURN] = told[I_SHARE], told[I_CHURN]
        for dial in range(len(constants)):
            memory.rewards[turn, k, dial] += step_reward(settings, term, constants[dial, :, k]) / hold


@counted
def learn(cut, memory, steps):  # type: ignore[no-untyped-def]
    """Update the table from the last rollout, backwards, by Watkins' Q(lambda); the mean |error| of it.

    The return of a choice is r + gamma ((1 - trace) max Q(s', .) + trace R') with R' the return of the next
    one, where that was greedy; else r + gamma max Q(s', .). trace = 0 is Q-learning on experience that is
    replayed backwards (Lin 1992). An episode's end is a cut by time, so the value there counts.
    """
    turns, services, dials = memory.rewards.shape
    total, count = 0.0, 0
    for k in range(services):
        for dial in range(dials):
            if not steps.relabel and dial != memory.dials[k]:
                continue
            shift, later, table = dial * cut.preference_stride, np.nan, 0
            for back in range(turns):
                turn = turns - 1 - back
                if memory.values.shape[0] > 1:
                    place = ((steps.first + turn) * services + k) * dials + dial
                    table = int(uniform(steps.seed, place, STREAM_COIN) * 2.0)
                after = memory.states[turn + 1, k] + shift
                ahead = _value(memory.values, table, after)
                if back > 0 and _greedy(memory.values, after) == memory.chosen[turn + 1, k]:
                    ahead += steps.trace * (later - ahead)
                later = memory.rewards[turn, k, dial] + steps.gamma * ahead
                state, action = memory.states[turn, k] + shift, memory.chosen[turn, k]
                error = later - memory.values[table, state, action]
                rate = _rate(memory.visits[table, state, action], steps)
                memory.values[table, state, action] += rate * error
                memory.visits[table, state, action] += 1
                total += abs(error)
                count += 1
    return total / max(count, 1)


@inlined
def _value(values, table, state):  # type: ignore[no-untyped-def]
    """Of the best choice; with two tables, of the one's best choice in the other."""
    best, found = -np.inf, 0
    for action in range(values.shape[2]):
        if values[table, state, action] > best:
            best, found = values[table, state, action], action
    return best if values.shape[0] == 1 else values[1 - table, state, found]


@inlined
def _rate(visits, steps):  # type: ignore[no-untyped-def]
    return max(steps.learning_rate / (1.0 + visits) ** steps.decay, steps.least_rate)
