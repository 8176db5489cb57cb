"""Clones live through the same traffic, and advantages against them forget what the traffic did."""

from __future__ import annotations

import numpy as np
import pytest

from training.actions import AnchoredHead
from training.clones import against_clones
from training.config import Action, Network, Preset
from training.environment import make_environment
from training.errors import ConfigError
from training.hyperparameters import Ppo


def preset(clones: int, horizon_steps: int = 16) -> Preset:
    return Preset(
        num_envs=8,
        clones=clones,
        action=Action(hold_ticks=2),
        network=Network(actor=(8,), critic=(8,)),
        ppo=Ppo(n_steps=8, batch_size=64),
        environment={"horizon_steps": horizon_steps, "scenario": {"histories_s": [0.0]}},
    )


def test_what_the_traffic_did_to_all_clones_alike_is_forgotten() -> None:
    generator = np.random.default_rng(0)
    own = generator.normal(size=(20, 12)).astype(np.float32)
    luck = np.repeat(generator.normal(scale=50.0, size=(20, 3)), 4, axis=1).astype(np.float32)
    assert against_clones(own + luck, 4) == pytest.approx(against_clones(own, 4), abs=1e-3)


def test_hard_traffic_does_not_drown_the_rest() -> None:
    generator = np.random.default_rng(1)
    own = generator.normal(size=(50, 8)).astype(np.float32)
    own[:, 4:] *= 100.0
    spread = against_clones(own, 4).reshape(50, 2, 4).std(axis=(0, 2))
    assert 0.02 < spread[0] < spread[1] < 1.5


def test_the_best_of_the_clones_is_the_only_one_above_zero() -> None:
    advantages = np.array([[1.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    better = against_clones(advantages, 4)[0] > 0
    assert better.tolist() == [True, False, False, False]


def test_clones_see_the_same_and_earn_the_same_until_they_act_apart() -> None:
    env = make_environment(preset(4), seed=4)
    seen = env.reset().reshape(2, 4, -1)
    assert np.array_equal(seen, np.repeat(seen[:, :1], 4, axis=1))
    assert not np.array_equal(seen[0, 0], seen[1, 0])
    alike = np.zeros((8, 3), dtype=np.int64)
    for _ in range(20):
        rewards = env.step(alike)[1]
    assert np.array_equal(rewards.reshape(2, 4), np.repeat(rewards.reshape(2, 4)[:, :1], 4, axis=1))
    apart = alike.copy()
    head = env.head
    assert isinstance(head, AnchoredHead)
    apart[::4] = [size - 1 for size in head.sizes]
    rewards = env.step(apart)[1].reshape(2, 4)
    assert (rewards[:, 0] != rewards[:, 1]).all()
    assert np.array_equal(rewards[:, 1], rewards[:, 3])


def test_a_rollout_of_clones_must_be_whole_episodes() -> None:
    with pytest.raises(ConfigError, match=r"16 ticks .* whole episodes of 24"):
        make_environment(preset(4, horizon_steps=24), seed=0)


def test_clones_must_divide_the_environments() -> None:
    with pytest.raises(ConfigError, match=r"clones: 3 does not divide num_envs = 8"):
        preset(3)
