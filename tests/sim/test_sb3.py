from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.envs import AutoscaleConfig, AutoscaleEnv, AutoscaleVectorEnv

sb3 = pytest.importorskip("stable_baselines3")
from stable_baselines3.common.env_checker import check_env  # noqa: E402
from stable_baselines3.common.vec_env import VecMonitor  # noqa: E402

from sim.envs.sb3 import AutoscaleVecEnv  # noqa: E402


def test_transitions_are_those_of_the_vector_environment(short):
    native, vector = AutoscaleVecEnv(3, short, seed=7), AutoscaleVectorEnv(3, short)
    assert np.array_equal(native.reset(), vector.reset(seed=7)[0])
    rng = np.random.default_rng(0)
    for _ in range(30):
        actions = rng.integers(10, size=3)
        observations, rewards, dones, infos = native.step(actions)
        expected = vector.step(actions)
        assert np.array_equal(observations, expected[0])
        assert np.allclose(rewards, expected[1])
        assert np.array_equal(dones, expected[3])
        for index in np.flatnonzero(dones):
            assert np.array_equal(infos[index]["terminal_observation"], expected[4]["final_obs"][index])


def test_an_episode_ends_with_its_last_observation_marked_as_a_time_limit(short):
    env = AutoscaleVecEnv(2, short, seed=1)
    env.reset()
    for step in range(short.horizon_steps):
        before = env.batch.observations
        observations, _, dones, infos = env.step(np.array([7, 1]))
        if step < short.horizon_steps - 1:
            assert not dones.any()
            assert infos == [{}, {}]
    assert dones.all()
    for index, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        assert not np.array_equal(info["terminal_observation"], observations[index])
        assert not np.array_equal(info["terminal_observation"], before[index])
        assert info["episode"]["l"] == short.horizon_steps
        assert info["episode"]["r"] == pytest.approx(info["summary"]["return"])


def test_the_lone_environment_passes_stable_baselines_checker(short):
    check_env(AutoscaleEnv(short), warn=False)


def test_seeding_again_starts_the_same_lives(short):
    env = AutoscaleVecEnv(3, short, seed=1)
    first = env.reset()
    env.step(np.zeros(3, dtype=int))
    assert env.seed(1) == [1, 2, 3]
    assert np.array_equal(env.reset(), first)
    env.seed(50)
    assert not np.array_equal(env.reset(), first)


def test_monitors_and_attributes_work(short):
    env = VecMonitor(AutoscaleVecEnv(2, short))
    assert env.get_attr("num_envs") == [2, 2]
    assert env.env_is_wrapped(VecMonitor) == [False, False]
    env.reset()
    for _ in range(short.horizon_steps):
        _, _, _, infos = env.step(np.array([4, 4]))
    assert infos[0]["episode"]["l"] == short.horizon_steps


@pytest.mark.parametrize(
    ("action", "algorithm"),
    [(AutoscaleConfig().action_table, "PPO"), (None, "SAC")],
    ids=["discrete with PPO", "continuous with SAC"],
)
def test_stable_baselines_trains_on_it(short, action, algorithm):
    env = AutoscaleVecEnv(4, replace(short, action_table=action))
    settings = (
        {"n_steps": 16, "batch_size": 32, "n_epochs": 1} if algorithm == "PPO" else {"learning_starts": 40}
    )
    model = getattr(sb3, algorithm)("MlpPolicy", env, device="cpu", seed=0, **settings)
    model.learn(128)
    assert model.num_timesteps == 128
    assert len(model.ep_info_buffer) > 0
