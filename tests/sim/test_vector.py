from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from sim.envs import PoolsConfig, PoolsEnv, PoolsVectorEnv
from sim.envs.vector import Batch, BatchEnv, BatchStep, BatchVectorEnv, feature_table, filled_in
from sim.pool_scenarios import PoolScenarioConfig
from sim.scenario import ScenarioConfig

SPACE, ACTIONS = spaces.Box(-1e9, 1e9, (2,), dtype=np.float32), spaces.Discrete(3)


class Walks:
    """N walkers on a line, who fall off it at 4 and are called back after 6 steps. Action 2 only from 0."""

    def __init__(self, num_envs: int, seed: int, autoreset: bool = True) -> None:
        self.num_envs, self.autoreset = num_envs, autoreset
        self.seed(seed)

    def seed(self, seed: int) -> None:
        self._rngs = [np.random.default_rng(seed + row) for row in range(self.num_envs)]
        self.place, self.steps = np.zeros(self.num_envs), np.zeros(self.num_envs)

    def reset(self) -> np.ndarray:
        return self._begin(np.arange(self.num_envs))

    def step(self, choices: np.ndarray) -> BatchStep:
        self.place += np.asarray(choices, dtype=float).reshape(self.num_envs)
        self.steps += 1
        terminated = self.place >= 4
        truncated = (self.steps >= 6) & ~terminated
        self._before = self.place.copy()
        observations, done = self._seen(), np.flatnonzero(terminated | truncated)
        final = observations[done]
        episodes = [{"return": float(self.place[row]), "steps": float(self.steps[row])} for row in done]
        terms, rewards = {"place": self.place.copy()}, self.place.copy()
        if len(done) and self.autoreset:
            observations = self._begin(done)
        return BatchStep(observations, rewards, truncated, terms, final, episodes, terminated)

    def situation(self) -> dict[str, np.ndarray]:
        return {"twice": 2 * self._before, "pair": np.stack([self._before, -self._before], axis=1)}

    def action_masks(self) -> np.ndarray:
        return np.stack([np.ones(self.num_envs, bool), np.ones(self.num_envs, bool), self.place < 1], axis=1)

    def _begin(self, rows: np.ndarray) -> np.ndarray:
        self.place[rows] = [self._rngs[row].uniform(0, 0.5) for row in rows]
        self.steps[rows] = 0
        return self._seen()

    def _seen(self) -> np.ndarray:
        return np.stack([self.place, self.steps], axis=1).astype(np.float32)


class WalkEnv(BatchEnv):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(lambda seed: Walks(1, seed, autoreset=False), SPACE, ACTIONS, render_mode)

    def frame_of(self, info, action):
        return info["place"], action

    def draw_ansi(self, frames):
        return " ".join(f"{action}" for _, action in frames)


def vector(num_envs: int) -> BatchVectorEnv:
    return BatchVectorEnv(lambda seed: Walks(num_envs, seed), num_envs, SPACE, ACTIONS)


def test_an_episode_that_is_over_is_told_from_one_that_is_cut():
    env = vector(2)
    env.reset(seed=3)
    for _ in range(3):
        _, _, terminated, truncated, info = env.step(np.array([1, 0]))
        assert not terminated.any()
        assert "final_obs" not in info
    last = env.step(np.array([1, 0]))
    assert last[2].tolist() == [True, False]
    assert last[3].tolist() == [False, False]
    assert last[4]["final_obs"][0][0] >= 4
    assert last[4]["final_obs"][1] is None
    assert last[4]["final_info"]["_summary"].tolist() == [True, False]
    assert last[0][0][1] == 0, "the next episode's first observation"
    env.step(np.array([0, 0]))
    *_, terminated, truncated, info = env.step(np.array([0, 0]))
    assert terminated.tolist() == [False, False]
    assert truncated.tolist() == [False, True]
    assert info["final_info"]["summary"][1]["steps"] == 6


def test_a_lone_world_keeps_its_last_observation_and_tells_its_situation():
    env = WalkEnv("ansi")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    assert env.render() is None
    first, _ = env.reset(seed=5)
    assert np.array_equal(first, vector(1).reset(seed=5)[0][0])
    with pytest.raises(ValueError, match="action: 7 is not in Discrete"):
        env.step(7)
    for action in (1, 1, 2):
        observation, reward, terminated, truncated, info = env.step(action)
    assert (terminated, truncated) == (True, False)
    assert observation[0] == pytest.approx(reward)
    assert info["twice"] == pytest.approx(2 * info["place"])
    assert info["pair"].shape == (2,)
    assert info["summary"]["steps"] == 3
    assert env.render() == "1 1 2"
    env.reset()
    assert env.render() == ""


def test_seeding_anew_starts_the_same_lives_over():
    env = vector(3)
    first, _ = env.reset(seed=1)
    env.step(np.array([1, 1, 1]))
    assert np.array_equal(env.reset(seed=1)[0], first)
    assert not np.array_equal(env.reset()[0], first)
    assert env.reset(seed=2)[0][0].tolist() == first[1].tolist()
    with pytest.raises(ValueError, match=r"seed: a list \(\[1, 2\]\) is not allowed"):
        env.reset(seed=[1, 2])


def test_stable_baselines_learns_whether_an_episode_was_cut_and_what_each_world_may_do():
    sb3 = pytest.importorskip("sim.envs.sb3")
    env = sb3.BatchVecEnv(Walks(2, 0), SPACE, ACTIONS)
    env.reset()
    for _ in range(3):
        assert env.step(np.array([1, 0]))[3] == [{}, {}]
    masks = env.env_method("action_masks")
    assert [mask.tolist() for mask in masks] == [[True, True, False], [True, True, True]]
    assert env.has_attr("action_masks")
    _, _, dones, infos = env.step(np.array([1, 0]))
    assert dones.tolist() == [True, False]
    assert infos[0]["TimeLimit.truncated"] is False
    assert infos[0]["episode"]["l"] == 4
    env.step(np.array([0, 0]))
    assert env.step(np.array([0, 0]))[3][1]["TimeLimit.truncated"] is True


@pytest.mark.parametrize("make", [PoolsEnv, lambda config: PoolsVectorEnv(3, config)], ids=["one", "three"])
def test_pools_that_are_seeded_anew_live_as_new_ones_do(make):
    service = ScenarioConfig(histories_s=(0.0,), capacity_unknown_share=0.0, peak_replicas=(6.0, 60.0))
    config = PoolsConfig(horizon_steps=8, scenario=PoolScenarioConfig(service=service))

    def life(env) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        seen = [env.reset(seed=9)[0]]
        for _ in range(10):
            actions = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            observation, *_, info = env.step(actions)
            seen.append(env.reset()[0] if "summary" in info else observation)
        return seen

    used, fresh = make(config), make(config)
    used.reset(seed=4)
    for _ in range(11):
        used.step(np.full(used.action_space.shape, 0.3, dtype=np.float32))
    assert all(np.array_equal(a, b) for a, b in zip(life(used), life(fresh), strict=True))


def test_docstrings_take_their_tables_from_the_schema():
    class One:
        name, low, high, unit, description = "load", 1.0, 3.0, "ratio", "how much"

    table = feature_table([One()])
    assert table.splitlines()[-1].strip() == "| 0 | load | 0 | 3 | ratio | how much |"
    assert filled_in("a {b} c {d}", {"b": "1"}) == "a 1 c {d}"
    assert filled_in(None, {"b": "1"}) == ""


def test_the_walkers_are_a_batch():
    batch: Batch = Walks(1, 0)
    assert batch.num_envs == 1
