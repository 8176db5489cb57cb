from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from sim.envs.scheduling import SchedulingEnv, SchedulingVectorEnv
from sim.envs.scheduling_batch import TERMS, SchedulingBatch, SchedulingConfig, SchedulingWeights
from sim.errors import ParameterError
from sim.scheduling import SchedulingParams, Servers, Workload
from sim.scheduling.features import CLUSTER_FEATURES, CLUSTER_SCHEMA, SERVER_FEATURES, SERVER_SCHEMA
from sim.scheduling.workloads import SchedulingScenario, draw_episode

ENV_ID = "rlscaler/Scheduling-v0"
CLUSTER = {name: place for place, name in enumerate(CLUSTER_SCHEMA.names)}
SERVER = {name: place for place, name in enumerate(SERVER_SCHEMA.names)}


@pytest.fixture(scope="module")
def short() -> SchedulingConfig:
    """Episodes of 40 jobs on up to 6 servers."""
    return SchedulingConfig(servers=6, jobs=40, scenario=SchedulingScenario(servers=(3, 6)))


def played(config: SchedulingConfig, steps: int, seed: int = 0, wild: bool = False) -> list:
    """What a batch of 8 returns under a heuristic, or under random choices whether allowed or not."""
    batch, rng, found = SchedulingBatch(config, 8, seed), np.random.default_rng(seed), []
    batch.reset()
    for _ in range(steps):
        choices = rng.integers(0, config.servers + 2, 8) if wild else batch.choose("best-fit")
        found.append(batch.step(choices))
    return found


def test_the_environment_passes_gymnasiums_checker_without_a_warning():
    env = gymnasium.make(ENV_ID).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)


def test_registered_vector_environments_are_the_native_ones():
    env = gymnasium.make_vec(ENV_ID, num_envs=3)
    assert isinstance(env.unwrapped, SchedulingVectorEnv)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


def test_the_docstring_lists_every_observation():
    for schema in (SERVER_SCHEMA, CLUSTER_SCHEMA):
        for feature in schema.features:
            low, high = min(feature.low, 0), max(feature.high, 0)
            row = f"| {feature.name} | {low:g} | {high:g} | {feature.unit} | {feature.description} |"
            assert row in SchedulingEnv.__doc__


def test_observations_and_rewards_stay_in_their_ranges_under_wild_actions(short):
    overloaded = replace(short, params=SchedulingParams(overcommit=3.0, reject_freely=True, queue_limit=5))
    for config in (short, overloaded):
        space = SchedulingVectorEnv(8, config).observation_space
        for result in played(config, 150, wild=True):
            assert space.contains(result.observations)
            assert np.isfinite(result.rewards).all()
            assert (np.abs(result.rewards) <= config.weights.worst).all()


def test_the_same_seed_gives_the_same_life_and_another_a_different_one(short):
    first, again, other = (played(short, 60, seed, wild=True) for seed in (3, 3, 4))
    for one, same in zip(first, again, strict=True):
        assert np.array_equal(one.observations, same.observations)
        assert np.array_equal(one.rewards, same.rewards)
    assert not np.array_equal(first[-1].observations, other[-1].observations)


def test_a_lone_environment_lives_as_one_of_a_batch(short):
    batch = SchedulingBatch(short, 3, 10)
    env = SchedulingEnv(short)
    together, (alone, _) = batch.reset(), env.reset(seed=12)
    for _ in range(30):
        assert np.array_equal(together[2], alone)
        choices = batch.choose("least-loaded")
        result = batch.step(choices)
        alone, reward, *_ = env.step(int(choices[2]))
        assert reward == result.rewards[2]
        together = result.observations


def test_an_episode_ends_when_all_jobs_are_done_or_when_the_last_has_come(short):
    for drain in (True, False):
        ended = [one for one in played(replace(short, drain=drain), 200) if one.ended.any()]
        assert ended
        for one in ended:
            assert np.array_equal(one.terminated if drain else one.truncated, one.ended)
            assert len(one.episodes) == one.ended.sum()


def test_the_terms_add_up_to_the_summary_and_the_weights_to_the_reward(short):
    config = replace(short, weights=SchedulingWeights(waiting=0.3, balance=0.2, overload=0.7))
    busy = SchedulingScenario(servers=(3, 6), load=(1.5, 1.5), demands=("whole machines",))
    config = replace(config, scenario=busy, params=SchedulingParams(order="size", overcommit=2.0))
    batch = SchedulingBatch(config, 1, 5)
    batch.reset()
    sums, rewards, steps = dict.fromkeys(TERMS, 0.0), 0.0, 0
    while True:
        result = batch.step(batch.choose("round-robin"))
        steps += 1
        rewards += float(result.rewards[0])
        for name in TERMS:
            sums[name] += float(result.terms[name][0])
        if result.ended[0]:
            break
    summary = result.episodes[0]
    assert summary["steps"] == steps
    assert summary["return"] == pytest.approx(rewards)
    for name in TERMS:
        assert summary[f"sum_{name}"] == pytest.approx(sums[name])
    assert summary["slowdown"] == pytest.approx(1.0 + sums["slowdown"] / config.jobs)
    assert sums["overload"] > 0


def test_the_slowdown_term_is_the_jobs_slowdown_beyond_running_alone(short):
    servers, workload = draw_episode(np.random.default_rng(4), short.scenario, 40)
    batch = SchedulingBatch(short, 1, episodes=[(servers, workload)], autoreset=False)
    batch.reset()
    total = 0.0
    while batch.physics.offered[0] >= 0:
        total += float(batch.step(batch.choose("best-fit")).terms["slowdown"][0])
    a = batch.physics.arrays
    flow = a.end_s[0] - workload.submit_s - workload.duration_s
    assert total == pytest.approx(float((flow / np.maximum(workload.duration_s, 10.0)).sum()))


def test_a_relative_reward_differs_by_what_the_reference_lost_and_is_nothing_for_the_reference(short):
    episodes = [draw_episode(np.random.default_rng(k), short.scenario, 40) for k in range(3)]
    returns = {}
    for relative in (False, True):
        config = replace(
            short, relative=relative, reference="best-fit", weights=SchedulingWeights(1, 0, 0, 0, 0, 1e9)
        )
        for heuristic in ("best-fit", "random"):
            batch = SchedulingBatch(config, 3, episodes=episodes, autoreset=False)
            batch.reset()
            total = np.zeros(3)
            while (batch.physics.offered >= 0).any():
                total += batch.step(batch.choose(heuristic)).rewards
            returns[relative, heuristic] = total
    assert np.allclose(returns[True, "best-fit"], 0.0, atol=1e-6)
    assert np.allclose(
        returns[True, "random"], returns[False, "random"] - returns[False, "best-fit"], rtol=1e-6, atol=1e-6
    )


def test_observations_do_not_depend_on_units_nor_on_servers_that_are_not_there(short):
    servers, workload = draw_episode(np.random.default_rng(8), short.scenario, 40)
    slow = Workload(
        workload.submit_s * 60,
        workload.duration_s * 60,
        workload.cpu,
        workload.memory,
        workload.estimate_s * 60,
    )
    wide = replace(short, servers=9)
    params = replace(short.params, bound_s=600.0)
    batches = [
        SchedulingBatch(short, 1, episodes=[(servers, workload)]),
        SchedulingBatch(replace(short, params=params), 1, episodes=[(servers, slow)]),
        SchedulingBatch(wide, 1, episodes=[(servers, workload)]),
    ]
    seen = [batch.reset() for batch in batches]
    for _ in range(30):
        assert np.allclose(seen[0], seen[1], atol=1e-3)
        cut = 6 * SERVER_FEATURES
        assert np.array_equal(seen[0][:, :cut], seen[2][:, :cut])
        assert np.array_equal(seen[0][:, cut:], seen[2][:, 9 * SERVER_FEATURES :])
        assert not seen[2][:, cut : 9 * SERVER_FEATURES].any()
        choice = batches[0].choose("best-fit")
        seen = [
            batch.step(np.where(choice == 6, batch.config.servers, choice)).observations for batch in batches
        ]


def test_features_say_what_they_are_called():
    servers = Servers(np.array([1.0, 0.5]), np.array([1.0, 1.0]), np.array([1.0, 0.5]))
    workload = Workload(
        np.array([0.0, 5.0]), np.array([100.0, 20.0]), np.array([0.5, 0.25]), np.array([0.25, 0.5])
    )
    config = SchedulingConfig(servers=3, scenario=SchedulingScenario(servers=(1, 3)))
    batch = SchedulingBatch(config, 1, episodes=[(servers, workload)])
    batch.reset()
    seen = batch.step([0]).observations[0]
    first, second = seen[:SERVER_FEATURES], seen[SERVER_FEATURES : 2 * SERVER_FEATURES]
    cluster = seen[3 * SERVER_FEATURES :]
    assert first[SERVER["cpu_taken"]] == 0.5
    assert first[SERVER["memory_after"]] == 0.25
    assert first[SERVER["outlasting"]] == 0.5
    assert first[SERVER["first_end"]] == pytest.approx(np.log(95 / 20), abs=1e-5)
    assert second[SERVER["speed"]] == pytest.approx(np.log(0.5))
    assert second[SERVER["size"]] == pytest.approx(np.log(0.5))
    assert second[SERVER["cpu_after"]] == 0.5
    assert second[SERVER["empty"]] == 1.0
    assert not seen[2 * SERVER_FEATURES : 3 * SERVER_FEATURES].any()
    assert cluster[CLUSTER["able"]] == 1.0
    assert cluster[CLUSTER["free_cpu"]] == pytest.approx(1.0 / 1.5)
    assert cluster[CLUSTER["outlasting"]] == pytest.approx(0.5 / 1.5)
    assert cluster[CLUSTER["servers"]] == pytest.approx(np.log(2))
    assert cluster[CLUSTER["may_hold"]] == 1.0
    assert len(cluster) == CLUSTER_FEATURES


def test_masks_are_in_the_info_and_hold_what_the_batch_says(short):
    env = SchedulingEnv(short)
    _, info = env.reset(seed=1)
    assert info["action_mask"].shape == (8,)
    for _ in range(20):
        mask = env.action_masks()
        assert mask.any()
        _, _, ended, _, info = env.step(int(np.flatnonzero(mask)[-1]))
        assert np.array_equal(info["action_mask"], env.action_masks())
        if ended:
            break
    vector = SchedulingVectorEnv(4, short)
    vector.reset(seed=0)
    *_, info = vector.step(np.zeros(4, dtype=int))
    assert info["action_mask"].shape == (4, 8)


def test_maskable_ppo_gets_each_clusters_own_mask(short):
    from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported

    from sim.envs.scheduling_sb3 import SchedulingVecEnv

    env = SchedulingVecEnv(5, short, seed=2)
    env.reset()
    assert is_masking_supported(env)
    assert np.array_equal(get_action_masks(env), env.batch.action_masks())


def test_pictures_show_the_servers_and_text_names_them(short):
    env = SchedulingEnv(short, render_mode="ansi")
    env.reset(seed=3)
    for _ in range(20):
        env.step(int(env.batch.choose("best-fit")[0]))
    text = env.render()
    assert "mean slowdown" in text
    assert "server 0" in text
    assert ("held" in text) or ("onto server" in text)
    image = SchedulingEnv(short, render_mode="rgb_array")
    image.reset(seed=3)
    blank = image.render()
    for _ in range(20):
        image.step(int(image.batch.choose("best-fit")[0]))
    drawn = image.render()
    assert drawn.dtype == np.uint8
    assert drawn.shape == (400, 640, 3)
    assert (drawn != blank).any()


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(
        ParameterError, match=r"servers: 4 is not allowed, must be scenario.servers' most \(16\)"
    ):
        SchedulingConfig(servers=4)
    with pytest.raises(ParameterError, match=r"weights.waiting: -1 is not allowed"):
        SchedulingWeights(waiting=-1)
    with pytest.raises(ParameterError, match=r"reference: 'x' is not allowed"):
        SchedulingConfig(reference="x")


def test_the_simulator_needs_no_stable_baselines():
    code = "import sys, sim.envs; sys.exit(any('stable_baselines3' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
