from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import combinations

import gymnasium
import numba as nb
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import sim.envs
from controller.core import OBSERVATION_SCHEMA, ActionPolicy, Engine
from sim.envs import AutoscaleBatch, AutoscaleConfig, AutoscaleEnv, AutoscaleVectorEnv, RewardWeights, kernel
from sim.envs.batch import RELATIVE_CHANGES
from sim.errors import ParameterError
from sim.scenario import ScenarioConfig, draw_scenario

UP, HOLD, DOWN = 7, 4, 1


def test_the_environment_passes_gymnasiums_checker_without_a_warning():
    env = gymnasium.make(sim.envs.ENV_ID).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)


@pytest.mark.parametrize("schema", ["relative-change/v1", "hold-band/v1"])
def test_continuous_actions_pass_the_checker_too(schema, short):
    config = replace(short, action_schema=schema, action_table=None)
    with warnings.catch_warnings():
        # the checker would have boxes symmetric and normalised; ours are in the action schema's own units
        warnings.filterwarnings("ignore", message=".*normaliz.*|.*symmetric.*")
        check_env(AutoscaleEnv(config), skip_render_check=True)


def test_registered_vector_environments_are_the_native_ones():
    env = gymnasium.make_vec(sim.envs.ENV_ID, num_envs=3)
    assert isinstance(env.unwrapped, AutoscaleVectorEnv)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


def test_the_docstring_lists_every_observation():
    for feature in OBSERVATION_SCHEMA.features:
        assert f"| {feature.name} | {feature.low:g} | {feature.high:g} |" in AutoscaleEnv.__doc__
    assert f"shape ({OBSERVATION_SCHEMA.size},)" in AutoscaleEnv.__doc__
    assert "{" not in AutoscaleEnv.__doc__


def test_observations_stay_in_the_space_under_wild_actions(short):
    env = AutoscaleVectorEnv(16, short)
    observations, _ = env.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(60):
        assert env.observation_space.contains(observations)
        assert np.isfinite(observations).all()
        observations, rewards, terminated, _, _ = env.step(rng.integers(10, size=16))
        assert np.isfinite(rewards).all()
        assert (rewards <= 0).all()
        assert not terminated.any()


def test_the_same_seed_gives_the_same_life_and_another_a_different_one(short):
    def life(seed: int) -> list[np.ndarray]:
        env = AutoscaleEnv(short)
        seen = [env.reset(seed=seed)[0]]
        seen += [env.step(action)[0] for action in (UP, HOLD, DOWN, UP, 9, 0)]
        return seen

    assert all(np.array_equal(a, b) for a, b in zip(life(3), life(3), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(life(3), life(4), strict=True))


def test_single_and_vector_environments_give_the_same_transitions(short):
    vector = AutoscaleVectorEnv(3, short)
    observations, _ = vector.reset(seed=20)
    singles = [AutoscaleEnv(short) for _ in range(3)]
    for index, single in enumerate(singles):
        assert np.array_equal(single.reset(seed=20 + index)[0], observations[index])
    rng = np.random.default_rng(1)
    ends = 0
    for _ in range(40):
        actions = rng.integers(10, size=3)
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
    assert ends == 9


class Scripted(ActionPolicy):
    """Acts on the features it is shown: more where the load rises, less where there is plenty."""

    name = "scripted"

    def __init__(self, schema: str) -> None:
        self.action_schema = schema

    def act(self, features: np.ndarray) -> np.ndarray:
        headroom = features[:, OBSERVATION_SCHEMA.names.index("ready_over_load")]
        if self.action_schema == "hold-band/v1":
            low = np.where(headroom < 0.3, 0.5, 0.2)
            return np.stack([low, low + 0.4], axis=1)
        return np.where(headroom < 0.3, 0.4, np.where(headroom > 1.0, -0.2, 0.0))[:, None]


@pytest.mark.parametrize("schema", ["relative-change/v1", "hold-band/v1"])
def test_an_environment_sees_and_decides_what_the_engine_does_for_the_same_policy(short, schema):
    unknown = ScenarioConfig(
        capacity_unknown_share=0.4, scrape_loss=(0.0, 0.7), histories_s=(0.0, 3600.0, 90000.0)
    )
    config = replace(short, action_table=None, action_schema=schema, scenario=unknown)
    batch, everybody = AutoscaleBatch(config, 96, seed=8), np.arange(96)
    batch.reset()
    policy = Scripted(schema)
    twin = Engine([batch.spec(row) for row in everybody], policy)
    for row in everybody:
        times, rates = batch.history(row)
        if len(times):
            twin.backfill(times, rates[:, None], np.array([row]))
    changed, fallbacks = 0, set()
    for _ in range(config.horizon_steps - 1):
        view = twin.observe(batch.now_s, batch.samples(everybody))
        assert np.allclose(view.features, batch.observations, atol=1e-5)
        decided = twin.decide(view, policy.act(batch.observations), schema)
        batch.step(policy.act(batch.observations))
        assert np.array_equal(decided.desired_replicas, batch.decisions.desired_replicas)
        assert np.array_equal(decided.fallback, batch.decisions.fallback)
        changed += int(np.any(decided.desired_replicas != decided.current_replicas))
        fallbacks |= set(decided.fallback.tolist())
    assert changed > 3
    assert len(fallbacks) > 2, "missing metrics and unknown capacities must have been among them"


def test_episodes_are_truncated_at_the_horizon_and_never_terminated(short):
    env = AutoscaleEnv(short)
    env.reset(seed=0)
    ends = [env.step(HOLD)[2:4] for _ in range(short.horizon_steps)]
    assert ends == [(False, False)] * (short.horizon_steps - 1) + [(False, True)]


def test_staggered_batches_spread_their_resets(short):
    batch = AutoscaleBatch(replace(short, stagger=True), 64, seed=0)
    batch.reset()
    ends = [int(batch.step(np.full(64, HOLD)).truncated.sum()) for _ in range(24)]
    assert max(ends) < 20
    assert sum(ends) == pytest.approx(128, abs=10)


def test_actions_move_cost_and_violations_the_way_they_should():
    config = AutoscaleConfig(horizon_steps=120, scenario=ScenarioConfig(histories_s=(0.0,)))

    def mean_terms(action: int) -> dict[str, float]:
        batch = AutoscaleBatch(config, 48, seed=100)
        batch.reset()
        steps = [batch.step(np.full(48, action)).terms for _ in range(100)]
        return {name: float(np.mean([step[name] for step in steps])) for name in steps[0]}

    generous, lean, calm = mean_terms(UP), mean_terms(DOWN), mean_terms(HOLD)
    assert generous["cost"] > 1.5 * calm["cost"] > lean["cost"]
    assert generous["violation"] < calm["violation"] < lean["violation"]
    assert calm["churn"] < generous["churn"]


def test_the_preference_weighs_violations(short):
    weights = RewardWeights(kind="weighted")
    assert weights.violation(np.array([0.0, 100.0])) == pytest.approx([10**0.5, 1000.0])
    terms = {"cost": np.ones(2), "violation": np.full(2, 0.1), "churn": np.zeros(2)}
    lax, strict = weights.total(terms, np.stack([weights.violation([0.0, 100.0]), np.ones(2), np.ones(2)]))
    assert lax == pytest.approx(-(1 + 0.1 * 10**0.5))
    assert strict == pytest.approx(-101.0)


def test_the_reward_is_made_of_the_terms_in_info(short):
    config = replace(short, reward=RewardWeights("weighted", normalise=False, violation_exponent=(1.0, 1.0)))
    env = AutoscaleEnv(config)
    env.reset(seed=5)
    for action in (UP, UP, DOWN, HOLD):
        _, reward, _, _, info = env.step(action)
        late = min(info["violation"], 5.0)
        assert reward == pytest.approx(-(info["cost"] + 10 * late + 0.05 * info["churn"]))


def test_a_summary_tells_what_the_episode_came_to(short):
    env = AutoscaleEnv(short)
    env.reset(seed=2)
    rewards, costs = [], []
    for _ in range(short.horizon_steps):
        _, reward, _, _, info = env.step(HOLD)
        rewards.append(reward)
        costs.append(info["cost"])
    summary = info["summary"]
    assert summary["return"] == pytest.approx(sum(rewards))
    assert summary["cost"] == pytest.approx(np.mean(costs))
    assert 0 <= summary["violation"] <= 1
    assert summary["steps"] == short.horizon_steps


def test_a_thousand_resets_leave_nothing_behind(short):
    config = replace(short, horizon_steps=1)
    batch, hold = AutoscaleBatch(config, 20, seed=0), np.full(20, HOLD)
    batch.episodes.fill()
    batch.reset()

    def live_through(resets: int) -> tuple[int, int]:
        for _ in range(resets // 20):
            batch.step(hold)
        gc.collect()
        arrays = (*batch.physics.arrays, *batch.engine.arrays)
        return sum(array.nbytes for array in arrays), len(gc.get_objects())

    live_through(200)
    first, second = live_through(400), live_through(400)
    assert first[0] == second[0]
    # one object a reset would be 400; other threads of the test process come and go
    assert second[1] - first[1] < 200
    fresh = AutoscaleBatch(config, 20, seed=0)
    for _ in range(51):
        fresh.reset()
    assert np.array_equal(fresh.observations, batch.observations)
    assert np.array_equal(fresh.step(hold).rewards, batch.step(hold).rewards)


def test_every_action_matters_and_the_traffic_stays_the_same():
    lives, choices = 40, len(RELATIVE_CHANGES)
    scenario = ScenarioConfig(histories_s=(0.0,), peak_replicas=(20.0, 300.0), scale_down_windows_s=(0,))
    batch = AutoscaleBatch(AutoscaleConfig(scenario=scenario, clones=choices), lives * choices, seed=3)
    batch.reset()
    requests, costs = [], np.zeros(lives * choices)
    for step in range(24):
        chosen = np.tile(np.arange(choices), lives) if step == 3 else np.full(lives * choices, HOLD)
        told = batch.step(chosen)
        costs += told.terms["cost"]
        requests.append(batch.situation()["requests_per_s"].reshape(lives, choices))
    assert all(np.ptp(each, axis=1).max() == 0 for each in requests)
    paid, seen = costs.reshape(lives, choices), batch.observations.reshape(lives, choices, -1)
    for one, other in combinations(range(choices), 2):
        assert np.any(paid[:, one] != paid[:, other]), (one, other)
        assert np.any(seen[:, one] != seen[:, other]), (one, other)


def test_everything_that_can_go_wrong_may_go_wrong_at_once(short):
    config = replace(short, horizon_steps=60, scenario=ScenarioConfig.harsh())
    batch, rng = AutoscaleBatch(config, 64, seed=0), np.random.default_rng(0)
    batch.reset()
    for _ in range(80):
        result = batch.step(rng.integers(10, size=64))
        assert np.isfinite(result.observations).all()
        assert np.isfinite(result.rewards).all()


def test_episodes_of_a_life_and_of_its_neighbours_differ(short):
    batch = AutoscaleBatch(short, 200, seed=0)
    lives = np.stack([batch.reset() for _ in range(5)]).reshape(1000, -1)
    assert len(np.unique(lives, axis=0)) == 1000


def test_rendering_gives_an_image_and_lines_for_a_terminal(short):
    image = AutoscaleEnv(short, render_mode="rgb_array")
    text = AutoscaleEnv(short, render_mode="ansi")
    assert AutoscaleEnv(short).render() is None
    for env in (image, text):
        env.reset(seed=1)
        assert env.render() is not None
        for _ in range(5):
            env.step(UP)
    picture = image.render()
    assert picture.dtype == np.uint8
    assert picture.shape == (400, 640, 3)
    assert picture.std() > 0
    lines = text.render().splitlines()
    assert [line.split()[0] for line in lines] == ["load", "replicas", "p95", "late", "action"]
    assert "requests/s" in lines[0]
    assert "ready of" in lines[1]
    assert "ms allowed" in lines[2]
    assert "asked for" in lines[4]


def test_scenarios_cover_the_ranges_asked_for():
    config = ScenarioConfig(sync_periods_s=(5, 15, 60))
    rng = np.random.default_rng(0)
    drawn = [draw_scenario(rng, config, 8) for _ in range(300)]
    assert {scenario.spec.sync_period_s for scenario in drawn} == {5.0, 15.0, 60.0}
    assert {scenario.spec.behavior.scale_down.stabilization_window_s for scenario in drawn} == {0, 60, 300}
    capacity = np.array([float(scenario.params.capacity_rps) for scenario in drawn])
    assert capacity.min() < 3
    assert capacity.max() > 3000
    given = np.array([scenario.spec.capacity_rps for scenario in drawn])
    error = (given / capacity - 1)[np.isfinite(given)]
    assert error.min() < -0.25
    assert error.max() > 0.25
    assert np.abs(error).max() <= 0.3
    assert 0.05 < np.isnan(given).mean() < 0.3
    assert np.ptp([scenario.spec.preference for scenario in drawn]) > 90


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoscaleConfig(horizon_steps=0), "horizon_steps: 0"),
        (lambda: AutoscaleConfig(action_schema="jump/v9"), "action_schema: 'jump/v9'"),
        (lambda: AutoscaleConfig(action_table=((0.0, 1.0), (1.0, 2.0))), "rows of 1 numbers"),
        (lambda: AutoscaleBatch(num_envs=0), "num_envs: 0"),
        (lambda: ScenarioConfig(sync_periods_s=()), "sync_periods_s"),
        (lambda: ScenarioConfig(capacity_rps=(5.0, 1.0)), "two positive numbers, ascending"),
        (lambda: ScenarioConfig(preference=(0.0, 130.0)), "preference"),
    ],
    ids=["horizon", "schema", "table", "size", "empty", "range", "preference"],
)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


def test_an_action_outside_the_space_is_refused(short):
    env = AutoscaleEnv(short)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action: 10 is not in Discrete"):
        env.step(10)


def test_compiled_code_finds_every_array_of_a_batch_under_its_own_name(short):
    """A swap of two alike fields would go unnoticed: shapes and types are the same."""
    batch = AutoscaleBatch(short, 3, seed=0)
    expected = {}
    for name, part in (
        ("physics", batch.physics.arrays),
        ("engine", batch.engine.arrays),
        ("work", batch._work),
    ):
        expected |= {f"{name}.{each}": getattr(part, each) for each in type(part)._fields}
    expected |= {"rows": batch._all, "table": batch._table}
    expected |= {"settings": batch._reward, "episode": batch._episode}
    space: dict[str, object] = {"read_state": kernel.read_state}
    seen = ", ".join(f"s.{path}.ctypes.data, s.{path}.size" for path in expected)
    exec(f"def probe(at):\n    s = read_state(at)\n    return [{seen}]", space)
    found = nb.njit(space["probe"])(kernel.addresses(batch._state))
    for place, (path, array) in enumerate(expected.items()):
        assert found[2 * place : 2 * place + 2] == [array.ctypes.data, array.size], path
    assert len(expected) == len(list(kernel._parts(batch._state)))


def test_an_array_that_compiled_code_would_misread_is_refused_by_name(short):
    batch = AutoscaleBatch(short, 2, seed=0)
    whole = batch._state
    for changed, message in (
        (whole._replace(table=whole.table.astype(np.float32)), "table: float32"),
        (whole._replace(engine=whole.engine._replace(sums=whole.engine.sums[0])), "engine.sums: int64"),
        (whole._replace(physics=whole.physics._replace(scrapes=whole.physics.scrapes.T)), "physics.scrapes"),
    ):
        with pytest.raises(TypeError, match=message):
            kernel.addresses(changed)


def test_the_simulator_needs_no_stable_baselines_no_torch_and_no_matplotlib():
    code = (
        "import sys, sim.envs, sim.replay; sim.envs.AutoscaleEnv().reset(seed=0); "
        "unwanted = ('stable_baselines3', 'torch', 'matplotlib', 'kopf'); "
        "print([name for name in unwanted if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
