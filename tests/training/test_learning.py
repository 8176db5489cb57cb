"""A world with a known answer: the whole stack (head, statistics, algorithm) finds it in seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from controller.core import OBSERVATION_SCHEMA
from training.actions import HeadVecEnv, make_head
from training.algorithms import linear, make_model, one_thread
from training.config import Action, Network, Preset
from training.errors import ConfigError
from training.hyperparameters import A2c, Dqn, Ppo, RecurrentPpo
from training.networks import statistics

COLUMN = OBSERVATION_SCHEMA.names.index("load_change_300s")


class Mirror(VecEnv):
    """Replicas should double where the load rose and halve where it fell; the reward is minus the error."""

    def __init__(self, num_envs: int, horizon: int = 8) -> None:
        bounds = spaces.Box(-9, 9, (OBSERVATION_SCHEMA.size,), np.float32)
        super().__init__(num_envs, bounds, spaces.Box(-1, 1, (1,), np.float32))
        self._random = np.random.default_rng(0)
        self._horizon, self._step, self.ticks = horizon, 0, 0

    def reset(self):  # type: ignore[no-untyped-def]
        self._step = 0
        self._state = self._random.normal(size=self.num_envs)
        return self._observe()

    def step_async(self, actions):  # type: ignore[no-untyped-def]
        self._actions = np.asarray(actions)

    def step_wait(self):  # type: ignore[no-untyped-def]
        self._step += 1
        self.ticks += 1
        rewards = -np.abs(self._actions[:, 0] - np.where(self._state > 0, 1.0, -0.5))
        self._state = self._random.normal(size=self.num_envs)
        done = self._step >= self._horizon
        infos = [
            {"TimeLimit.truncated": True, "terminal_observation": row} if done else {}
            for row in self._observe()
        ]
        if done:
            self.reset()
        return self._observe(), rewards.astype(np.float32), np.full(self.num_envs, done), infos

    def _observe(self) -> np.ndarray:
        observations = np.zeros((self.num_envs, OBSERVATION_SCHEMA.size), dtype=np.float32)
        # small, and far from zero: only standardised can it be seen
        observations[:, COLUMN] = 2.0 + 0.05 * self._state
        return observations

    def close(self) -> None: ...

    def get_attr(self, attr_name, indices=None):  # type: ignore[no-untyped-def]
        return [None] * self.num_envs

    set_attr = env_method = env_is_wrapped = get_attr  # not used


SECTIONS: dict[str, Any] = {
    "ppo": {"ppo": Ppo(n_steps=32, batch_size=256, n_epochs=8, learning_rate=3e-3, gamma=0.0)},
    "a2c": {"a2c": A2c(n_steps=4, learning_rate=1e-2, gamma=0.0, use_rms_prop=False)},
    "dqn": {
        "dqn": Dqn(
            learning_rate=3e-3, learning_starts=512, batch_size=128, buffer_size=8192, gradient_steps=8,
            gamma=0.0, target_update_interval=500,
        )
    },
    "recurrent-ppo": {
        "recurrent_ppo": RecurrentPpo(
            n_steps=32, batch_size=256, n_epochs=6, learning_rate=5e-3, gamma=0.0, lstm_hidden_size=16
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("algo", list(SECTIONS))
def test_the_algorithm_finds_the_known_answer(algo: str) -> None:
    one_thread()
    preset = Preset(
        algo=algo,
        num_envs=32,
        action=Action(kind="discrete", changes=(-0.5, 0.0, 1.0)),
        network=Network(actor=(16,), critic=(16,)),
        **SECTIONS[algo],
    )
    head = make_head(preset.action)
    env = HeadVecEnv(Mirror(preset.num_envs), head)
    model = make_model(preset, env, seed=0)
    for features in statistics(model.policy):
        features.update(Mirror(512).reset())
    # A2C takes one step of its optimiser a rollout, and so needs more of them
    model.learn((36 if algo == "a2c" else 12) * 1024)
    test = Mirror(500)
    observations = test.reset()
    chosen, _ = model.predict(observations, deterministic=True)
    right = head.decode(chosen, observations)[:, 0] == np.where(test._state > 0, 1.0, -0.5)
    assert right.mean() > 0.9


def test_dqn_explores_in_each_environment_by_itself() -> None:
    preset = Preset(algo="dqn", num_envs=4, action=Action(kind="discrete", changes=(-0.5, 0.0, 1.0)))
    model = make_model(preset, HeadVecEnv(Mirror(4), make_head(preset.action)), seed=0)
    observations = np.repeat(Mirror(1).reset(), 400, axis=0)
    model.exploration_rate = 0.5
    np.random.seed(0)
    chosen, _ = model.predict(observations)
    greedy, _ = model.predict(observations, deterministic=True)
    # half of them explore, and a third of those by chance as the network would
    assert 0.25 < np.mean(chosen != greedy) < 0.42


def test_clones_are_for_algorithms_that_learn_from_whole_rollouts() -> None:
    preset = Preset(algo="dqn", num_envs=4, clones=2, action=Action(kind="discrete"))
    with pytest.raises(ConfigError, match="clones: 2 is not allowed with algo: dqn"):
        make_model(preset, HeadVecEnv(Mirror(4), make_head(preset.action)), seed=0)


@pytest.mark.parametrize("hold_ticks", [1, 4])
def test_a_choice_stands_for_its_ticks_and_earns_their_mean(hold_ticks: int) -> None:
    inner = Mirror(3)
    env = HeadVecEnv(inner, make_head(Action(kind="discrete", changes=(-0.5, 1.0))), hold_ticks)
    env.reset()
    _, rewards, dones, _ = env.step(np.array([0, 1, 1]))
    assert inner.ticks == hold_ticks
    assert not dones.any()
    possible = {-1.5 * wrong / hold_ticks for wrong in range(hold_ticks + 1)}
    assert all(min(abs(reward - one) for one in possible) < 1e-6 for reward in rewards)


def test_a_held_choice_ends_with_the_episode() -> None:
    inner = Mirror(2, horizon=8)
    env = HeadVecEnv(inner, make_head(Action(kind="discrete", changes=(-0.5, 1.0))), 4)
    env.reset()
    finished = [env.step(np.array([0, 1]))[2].all() for _ in range(4)]
    assert finished == [False, True, False, True]
    assert inner.ticks == 16


def test_the_learning_rate_falls_linearly_and_stays_in_bounds() -> None:
    rate = linear(1.0, 0.2)
    assert [rate(remaining) for remaining in (1.5, 1.0, 0.5, 0.0, -0.5)] == pytest.approx(
        [1.0, 1.0, 0.6, 0.2, 0.2]
    )
