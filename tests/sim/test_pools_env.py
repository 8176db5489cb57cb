from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import fields, replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from controller.core import OBSERVATION_SCHEMA, ActionPolicy, Engine, Samples
from sim.envs.pool_batch import PoolsBatch, PoolsConfig, action_of, capacity_of
from sim.envs.pool_features import POOL_SCHEMA, SET_SCHEMA, joined, split_observation
from sim.envs.pools import PoolsEnv, PoolsVectorEnv
from sim.envs.rewards import RewardWeights
from sim.errors import ParameterError
from sim.pool_baselines import BASELINES, cheapest_first, equal, ready_proportional
from sim.pool_scenarios import ABSENT, PoolScenarioConfig, draw_pool_scenario
from sim.scenario import ScenarioConfig
from sim.workloads import WorkloadMix

ENV_ID = "rlscaler/Pools-v0"
COLUMN = {name: place for place, name in enumerate(POOL_SCHEMA.names)}


@pytest.fixture(scope="module")
def short() -> PoolsConfig:
    """Episodes of 12 steps with little history: resets come often."""
    service = ScenarioConfig(
        histories_s=(0.0,), capacity_unknown_share=0.0, capacity_error=0.2, peak_replicas=(6.0, 60.0)
    )
    return PoolsConfig(horizon_steps=12, scenario=PoolScenarioConfig(service=service))


def test_the_environment_passes_gymnasiums_checker_without_a_warning():
    env = gymnasium.make(ENV_ID).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)


def test_choices_among_levels_pass_the_checker_too(short):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(PoolsEnv(replace(short, pools=2, levels=(-1.0, -0.3, 0.0, 0.5))), skip_render_check=True)


def test_registered_vector_environments_are_the_native_ones():
    env = gymnasium.make_vec(ENV_ID, num_envs=3)
    assert isinstance(env.unwrapped, PoolsVectorEnv)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


def test_the_docstring_lists_every_observation():
    for schema in (POOL_SCHEMA, SET_SCHEMA):
        for feature in schema.features:
            low, high = min(feature.low, 0), max(feature.high, 0)
            row = f"| {feature.name} | {low:g} | {high:g} | {feature.unit} | {feature.description} |"
            assert row in PoolsEnv.__doc__
    assert "{" not in PoolsEnv.__doc__.replace("{name", "")


@pytest.mark.parametrize("pools", [2, 3, 6])
def test_observations_and_rewards_stay_in_their_ranges_under_wild_actions(short, pools):
    env = PoolsVectorEnv(16, replace(short, pools=pools))
    observations, _ = env.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(40):
        assert env.observation_space.contains(observations)
        assert np.isfinite(observations).all()
        observations, rewards, terminated, _, _ = env.step(rng.uniform(-1, 1, (16, 2 * pools)))
        assert (rewards >= -3).all()
        assert (rewards <= 0).all()
        assert not terminated.any()


def test_the_same_seed_gives_the_same_life_and_another_a_different_one(short):
    def life(seed: int) -> list[np.ndarray]:
        env, rng = PoolsEnv(short), np.random.default_rng(3)
        seen = [env.reset(seed=seed)[0]]
        return seen + [env.step(rng.uniform(-1, 1, 6).astype(np.float32))[0] for _ in range(8)]

    assert all(np.array_equal(a, b) for a, b in zip(life(3), life(3), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(life(3), life(4), strict=True))


def test_single_and_vector_environments_give_the_same_transitions(short):
    vector = PoolsVectorEnv(3, short)
    observations, _ = vector.reset(seed=20)
    singles = [PoolsEnv(short) for _ in range(3)]
    for index, single in enumerate(singles):
        assert np.array_equal(single.reset(seed=20 + index)[0], observations[index])
    rng = np.random.default_rng(1)
    ends = 0
    for _ in range(30):
        actions = rng.uniform(-1, 1, (3, 6)).astype(np.float32)
        observations, rewards, _, truncated, info = vector.step(actions)
        for index, single in enumerate(singles):
            seen, reward, _, cut, single_info = single.step(actions[index])
            assert cut == truncated[index]
            assert reward == rewards[index]
            assert single_info["cost"] == info["cost"][index]
            if cut:
                ends += 1
                assert np.array_equal(seen, info["final_obs"][index])
                assert single_info["summary"] == info["final_info"]["summary"][index]
                seen, _ = single.reset()
            assert np.array_equal(seen, observations[index])
    assert ends == 6


def test_stable_baselines_gets_the_same_batch_with_its_own_endings(short):
    from sim.envs.pools_sb3 import PoolsVecEnv

    native, vector = PoolsVectorEnv(5, short), PoolsVecEnv(5, short, seed=9)
    observations, _ = native.reset(seed=9)
    assert np.array_equal(vector.reset(), observations)
    rng = np.random.default_rng(0)
    for _ in range(14):
        actions = rng.uniform(-1, 1, (5, 6))
        expected, rewards, _, truncated, info = native.step(actions)
        seen, got, dones, infos = vector.step(actions)
        assert np.array_equal(seen, expected)
        assert np.allclose(got, rewards)
        assert np.array_equal(dones, truncated)
        for row in np.flatnonzero(dones):
            assert infos[row]["TimeLimit.truncated"] is True
            assert np.array_equal(infos[row]["terminal_observation"], info["final_obs"][row])
            assert infos[row]["episode"]["l"] == 12


def test_a_network_can_learn_in_it(short):
    from stable_baselines3 import PPO

    from sim.envs.pools_sb3 import PoolsVecEnv

    model = PPO("MlpPolicy", PoolsVecEnv(8, short), n_steps=16, batch_size=64, n_epochs=1, device="cpu")
    model.learn(256)
    assert model.num_timesteps == 256


def test_capacities_decode_as_documented_and_back():
    assert capacity_of(np.array([-1.0, 0.0, 1.0])) == pytest.approx([0.0, 0.7297, 4.0], abs=1e-3)
    assert (np.diff(capacity_of(np.linspace(-1, 1, 50))) > 0).all()
    wanted = np.array([[0.0, 0.5, 3.9], [1.0, 1.0, 0.1]])
    shares = np.array([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]])
    actions = action_of(wanted, shares).reshape(2, 3, 2)
    assert capacity_of(actions[:, :, 0]) == pytest.approx(wanted)
    decoded = (actions[:, :, 1] + 1) / 2
    assert decoded / decoded.sum(axis=1, keepdims=True) == pytest.approx(shares)
    assert np.abs(actions).max() <= 1


def play(config, seed, policy, sets=1, steps=None):
    batch = PoolsBatch(config, sets, seed)
    batch.reset()
    return batch, [batch.step(policy(batch)) for _ in range(steps or config.horizon_steps)]


def test_replicas_and_weights_keep_their_bounds_whatever_is_asked(short):
    config = replace(short, pools=4)
    batch = PoolsBatch(config, 32, seed=5)
    batch.reset()
    rng = np.random.default_rng(0)
    for _ in range(11):
        before, ready = batch.physics.weights_asked, batch.physics.ready
        batch.step(rng.uniform(-1, 1, (32, 8)))
        settings = batch.settings
        replicas, weights = batch.physics.replicas, batch.physics.weights_asked
        assert (replicas >= settings.min_replicas).all()
        assert (replicas <= settings.max_replicas).all()
        assert (weights.sum(axis=1) == 100).all()
        anybody = ready.any(axis=1)
        assert (weights[anybody] == np.where(ready > 0, weights, 0)[anybody]).all()
        calm = ready.astype(bool) | ~settings.present
        quiet = calm.all(axis=1) & (before <= settings.max_weight).all(axis=1)
        quiet &= (before >= settings.min_weight * settings.present).all(axis=1)
        moved = np.abs(weights - before).max(axis=1)
        assert (moved[quiet] <= settings.max_step[quiet]).all()
        assert (weights <= settings.max_weight)[quiet].all()


def test_an_unused_pool_can_be_given_up_and_a_used_one_cannot(short):
    families = (("spot", 1.0),)
    config = replace(
        short, horizon_steps=40, scenario=replace(short.scenario, families=families, min_pools=3)
    )
    batch = PoolsBatch(config, 24, seed=2)
    batch.reset()
    spot = np.array([[kind == "spot" for kind in scenario.kinds] for scenario in batch.scenarios])
    free = spot & (batch.settings.min_replicas == 0)
    assert free.sum() > 5
    nothing = action_of(np.where(spot, 0.0, 2.5), np.ones((24, 3)))
    for _ in range(8):
        batch.step(nothing)
    used = (batch.physics.weights_asked > 0) | (batch.physics.weights > 0)
    assert (batch.physics.replicas[used] >= 1).all(), "they still get traffic"
    for _ in range(31):
        batch.step(action_of(np.where(spot, 0.0, 2.5), np.where(spot, 0.0, 1.0)))
    assert (batch.physics.replicas[free] == 0).mean() > 0.9
    assert (batch.physics.weights_asked[free] == 0).mean() > 0.9


def test_actions_move_cost_violations_and_traffic_the_way_they_should(short):
    config = replace(short, horizon_steps=60)

    def mean_terms(capacity: float) -> dict[str, float]:
        def policy(batch):
            return equal(batch.view(), capacity)

        _, steps = play(config, 100, policy, sets=32, steps=59)
        return {name: float(np.mean([step.terms[name] for step in steps[5:]])) for name in steps[0].terms}

    generous, lean = mean_terms(3.0), mean_terms(0.6)
    assert generous["cost"] > 1.3 * lean["cost"]
    assert generous["violation_share"] < lean["violation_share"]


def test_every_number_of_an_action_matters(short):
    config = replace(short, horizon_steps=30, scenario=replace(short.scenario, min_pools=3))

    def life(actions: np.ndarray) -> np.ndarray:
        _, steps = play(config, 7, lambda batch: actions, sets=16, steps=29)
        return np.array([step.rewards for step in steps])

    plain = np.tile([-0.6, 0.0], (16, 3))
    lived = life(plain)
    for place in range(6):
        changed = plain.copy()
        changed[:, place] = 0.8
        differs = (life(changed) != lived).any(axis=0)
        assert differs.mean() > 0.8, place


def test_the_set_is_observed_as_the_operators_engine_would(short):
    batch, everybody = PoolsBatch(replace(short, horizon_steps=30), 12, seed=4), np.arange(12)
    observations = batch.reset()
    specs = [scenario.base.spec for scenario in batch.scenarios]
    engine = Engine(specs, ActionPolicy())
    for row, scenario in enumerate(batch.scenarios):
        times, rates = scenario.base.history
        if len(times):
            engine.backfill(times, rates[:, None], np.array([row]))
    for _ in range(29):
        units = np.array([spec.capacity_rps for spec in specs])
        shown = joined(batch.physics.metrics(), batch.settings.capacity_rps, units)
        view = engine.observe(batch.now_s, Samples(*shown), everybody)
        _, of_set = split_observation(observations, 3)
        assert np.allclose(of_set[:, : OBSERVATION_SCHEMA.size], view.features, atol=1e-4)
        observations = batch.step(equal(batch.view(), 1.5)).observations


def test_the_reward_is_made_of_the_terms_in_info(short):
    weights = RewardWeights("weighted", normalise=False, violation_exponent=(1.0, 1.0))
    env = PoolsEnv(replace(short, reward=weights))
    env.reset(seed=5)
    rng = np.random.default_rng(0)
    for _ in range(6):
        _, reward, _, _, info = env.step(rng.uniform(-1, 1, 6).astype(np.float32))
        churn = 0.05 * info["churn"] + 0.05 * info["route_churn"]
        assert reward == pytest.approx(-(info["cost"] + 10 * min(info["violation"], 5) + churn))
        assert info["weights"].sum() == 100
        assert info["ready_replicas"].shape == (3,)


def test_a_summary_tells_what_the_episode_came_to(short):
    env = PoolsEnv(short)
    env.reset(seed=2)
    rewards, costs = [], []
    for _ in range(short.horizon_steps):
        _, reward, _, cut, info = env.step(np.zeros(6, dtype=np.float32))
        rewards.append(reward)
        costs.append(info["cost"])
    summary = info["summary"]
    assert cut
    assert summary["return"] == pytest.approx(sum(rewards))
    assert summary["cost"] == pytest.approx(np.mean(costs))
    assert 0 <= summary["dropped"] <= summary["violation"] <= 1
    assert summary["steps"] == short.horizon_steps


def test_absent_pools_are_masked_and_what_is_asked_of_them_is_ignored(short):
    config = replace(short, pools=5)
    one, other = PoolsBatch(config, 12, seed=3), PoolsBatch(config, 12, seed=3)
    first = one.reset()
    other.reset()
    of_pools, of_set = split_observation(first, 5)
    absent = np.array([[kind == ABSENT for kind in scenario.kinds] for scenario in one.scenarios])
    assert absent.any()
    assert (of_pools[absent] == 0).all()
    assert np.array_equal(of_pools[:, :, COLUMN["present"]] == 0, absent)
    assert of_set[:, -3] == pytest.approx(1 / (~absent).sum(axis=1))
    calm = np.zeros((12, 5, 2))
    loud = calm.copy()
    loud[absent] = 1.0
    for _ in range(5):
        a, b = one.step(calm.reshape(12, -1)), other.step(loud.reshape(12, -1))
        assert np.array_equal(a.observations, b.observations)
        assert np.array_equal(a.rewards, b.rewards)


def test_observations_say_where_the_traffic_goes_and_who_fails(short):
    config = replace(short, horizon_steps=60)
    batch = PoolsBatch(config, 64, seed=11)
    observations = batch.reset()
    shares, errors, slow = [], [], []
    for _ in range(59):
        of_pools, _ = split_observation(observations, 3)
        shown = batch.physics.metrics()
        steady = (shown.weights == shown.weights_asked).all(axis=1)
        shares.append(np.abs(of_pools[..., COLUMN["load_share"]] - shown.weights / 100)[steady].ravel())
        failing = batch.physics.failing("outage")
        errors.append((of_pools[..., COLUMN["error_ratio"]][failing & (shown.weights > 5)] > 0.05).mean()
                      if (failing & (shown.weights > 5)).any() else np.nan)  # fmt: skip
        slow.append(of_pools[..., COLUMN["latency_over_slo"]][batch.physics.failing("slowdown")])
        observations = batch.step(ready_proportional(batch.view(), 2.0)).observations
    assert np.mean(np.concatenate(shares)) < 0.1
    assert np.nanmean(errors) > 0.6
    assert np.concatenate(slow).mean() > np.log(0.3)


def calm(config, **changes):
    """The same on traffic without bursts, where what is missed is missed by the split."""
    mix = WorkloadMix(**{item.name: float(item.name == "smooth") for item in fields(WorkloadMix)})
    service = replace(config.scenario.service, mix=mix)
    return replace(config, scenario=replace(config.scenario, service=service, **changes))


def test_ready_proportional_weights_violate_less_than_equal_ones_in_the_same_episodes(short):
    """The environment rewards sense: 64 random episodes, the same capacity asked for in the same pools."""
    config = replace(calm(short), horizon_steps=100)

    def summaries(policy) -> dict[str, np.ndarray]:
        _, steps = play(config, 1000, lambda batch: policy(batch.view(), 3.0), sets=64)
        assert len(steps[-1].episodes) == 64
        names = ("violation", "return", "cost")
        return {name: np.array([summary[name] for summary in steps[-1].episodes]) for name in names}

    sensible, blind = summaries(ready_proportional), summaries(equal)
    fewer = blind["violation"] - sensible["violation"]
    assert sensible["violation"].mean() < 0.85 * blind["violation"].mean()
    assert fewer.mean() > 1.5 * fewer.std(ddof=1) / np.sqrt(64), "paired, on common random numbers"
    assert (fewer > 1e-4).sum() > 2 * (fewer < -1e-4).sum()
    assert sensible["return"].mean() > blind["return"].mean()
    assert sensible["cost"].mean() == pytest.approx(blind["cost"].mean(), rel=0.03)


def test_cheapest_first_buys_what_is_cheap(short):
    config = replace(calm(short, families=(("spot", 1.0),)), horizon_steps=60)

    def cost(policy) -> float:
        _, steps = play(config, 50, lambda batch: policy(batch.view(), 1.2), sets=48)
        return float(np.mean([summary["cost"] for summary in steps[-1].episodes]))

    assert cost(cheapest_first) < 0.9 * cost(equal)


def test_every_baseline_asks_for_actions_of_the_space(short):
    batch = PoolsBatch(replace(short, pools=4), 16, seed=1)
    batch.reset()
    for make in BASELINES.values():
        actions = make()(batch.view(), 1.5)
        assert actions.shape == (16, 8)
        assert np.isfinite(actions).all()
        assert np.abs(actions).max() <= 1
        batch.step(actions)


def test_staggered_batches_spread_their_resets(short):
    batch = PoolsBatch(replace(short, stagger=True), 64, seed=0)
    batch.reset()
    ends = [int(batch.step(np.zeros((64, 6))).truncated.sum()) for _ in range(24)]
    assert max(ends) < 24
    assert sum(ends) == pytest.approx(128, abs=14)


def test_scenarios_cover_what_the_configuration_says():
    rng = np.random.default_rng(0)
    config = PoolScenarioConfig(service=ScenarioConfig(capacity_unknown_share=0.0, histories_s=(0.0,)))
    drawn = [draw_pool_scenario(rng, config, 4, 8) for _ in range(150)]
    assert {scenario.family for scenario in drawn} == {"spot", "zones", "accelerators", "canary", "anything"}
    assert {int(scenario.present.sum()) for scenario in drawn} == {2, 3, 4}
    for scenario in drawn:
        kinds = np.array(scenario.kinds)
        assert set(kinds) & {"on-demand", "zone"}
        assert scenario.weights.sum() == 100
        assert (scenario.replicas[scenario.weights > 0] >= 1).all()
        assert (scenario.replicas[~scenario.present] == 0).all()
        price = np.asarray(scenario.params.cost_per_replica)
        assert (price[kinds == "spot"] < 0.75).all()
        assert (np.asarray(scenario.params.reclaims_per_hour)[kinds != "spot"] == 0).all()
        room = (
            sum(pool.max_replicas for pool in scenario.pools)
            * np.asarray(scenario.service.capacity_rps).max()
        )
        assert room > scenario.base.rates_rps.max()
        assert all(
            pool.max_weight <= 30
            for pool, kind in zip(scenario.pools, kinds, strict=True)
            if kind == "canary"
        )
    firsts = [scenario.kinds.index("canary") for scenario in drawn if scenario.family == "canary"]
    assert len(set(firsts)) > 1, "pools come in any order"


def test_rendering_gives_an_image_and_a_line_a_pool(short):
    image, text = PoolsEnv(short, render_mode="rgb_array"), PoolsEnv(short, render_mode="ansi")
    for env in (image, text):
        env.reset(seed=1)
        for _ in range(5):
            env.step(np.zeros(6, dtype=np.float32))
    picture = image.render()
    assert picture.dtype == np.uint8
    assert picture.shape == (400, 640, 3)
    assert picture.std() > 0
    lines = text.render().splitlines()
    assert len(lines) == 4
    assert "p95" in lines[0]
    assert all("replicas ready" in line for line in lines[1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PoolsConfig(pools=1), "pools: 1 is not allowed"),
        (lambda: PoolsConfig(horizon_steps=0), "horizon_steps: 0"),
        (lambda: PoolsConfig(levels=(0.0,)), "levels"),
        (lambda: PoolsConfig(levels=(0.0, 2.0)), "levels: .* numbers in -1..1"),
        (lambda: PoolsBatch(num_envs=0), "num_envs: 0"),
        (lambda: PoolScenarioConfig(families=(("clouds", 1.0),)), "families: 'clouds'"),
        (lambda: PoolScenarioConfig(room=(3.0, 1.0)), "room"),
        (lambda: PoolScenarioConfig(service=ScenarioConfig()), "service.capacity_unknown_share"),
        (lambda: PoolScenarioConfig(canary_max_weight=(0, 5)), "canary_max_weight"),
        (lambda: PoolScenarioConfig(max_weight_steps=()), "max_weight_steps"),
    ],
)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


def test_an_action_outside_the_space_is_refused(short):
    env = PoolsEnv(short)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(6, dtype=np.float32))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: .* is not in Box"):
        env.step(np.full(6, 2.0, dtype=np.float32))


def test_pools_need_no_stable_baselines_no_torch_and_no_matplotlib():
    code = (
        "import sys, sim.envs, sim.pool_baselines; from sim.envs.pools import PoolsEnv; "
        "unwanted = ('stable_baselines3', 'torch', 'matplotlib', 'kopf'); "
        "print([name for name in unwanted if name in sys.modules], sim.envs.POOLS_ENV_ID)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[] rlscaler/Pools-v0"
