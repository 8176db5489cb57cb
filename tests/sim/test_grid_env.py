"""rlscaler/SmartGrid-v0: faces, observation, reward, generated scenarios, guard, rules, rendering."""

import dataclasses
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sim.envs
from sim.envs.grid import SmartGridEnv, SmartGridVectorEnv
from sim.errors import ParameterError
from sim.grid.baselines import BASELINES, RecedingHorizon, self_consumption
from sim.grid.batch import TERMS, GridBatch, SmartGridConfig, cut_scenario
from sim.grid.features import observation_bounds, observation_names
from sim.grid.files import load_grid
from sim.grid.playing import bound, play
from sim.grid.scenarios import GridScenarioConfig, draw_scenario
from sim.grid.weather import draw_series

SHORT = SmartGridConfig(horizon_h=24)


def scenarios(count: int, config: SmartGridConfig = SHORT) -> list:
    return [
        draw_scenario(np.random.default_rng(seed), config.scenario, 1, 1, config.horizon_h)
        for seed in range(count)
    ]


def test_it_is_registered_and_passes_gymnasiums_checker():
    env = gymnasium.make(sim.envs.GRID_ENV_ID, config=SHORT)
    check_env(env.unwrapped, skip_render_check=True)
    envs = gymnasium.make_vec(sim.envs.GRID_ENV_ID, num_envs=3, config=SHORT)
    observations, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observations)


def test_a_lone_env_lives_as_its_place_in_a_vector_and_again_after_a_seed():
    envs, alone = SmartGridVectorEnv(3, SHORT), SmartGridEnv(SHORT)
    for _ in range(2):
        many, _ = envs.reset(seed=5)
        one, _ = alone.reset(seed=7)
        rng = np.random.default_rng(0)
        for _ in range(24):
            assert (many[2] == one).all()
            actions = rng.uniform(-1, 1, (3, 2)).astype(np.float32)
            many, rewards, _, cut, info = envs.step(actions)
            one, reward, _, ended, told = alone.step(actions[2])
            assert rewards[2] == reward
        assert ended
        assert cut.all()
        assert info["final_info"]["summary"][2] == told["summary"]


def test_the_vec_env_of_stable_baselines_gives_summaries():
    from sim.envs.grid_sb3 import SmartGridVecEnv

    venv = SmartGridVecEnv(2, SHORT, seed=1)
    venv.reset()
    for _ in range(24):
        _, _, dones, infos = venv.step(np.zeros((2, 2), dtype=np.float32))
    assert dones.all()
    assert infos[0]["TimeLimit.truncated"]
    assert {"saving", "bill", "unserved", "cycles_per_day"} <= set(infos[0]["summary"])


def test_observations_stay_in_their_ranges_in_every_family():
    batch = GridBatch(SmartGridConfig(2, 2, horizon_h=12), 64, 0)
    low, high = observation_bounds(2, 2)
    observations, rng = batch.reset(), np.random.default_rng(0)
    families = {scenario.family for scenario in batch.scenarios}
    for _ in range(12):
        assert np.isfinite(observations).all()
        assert (observations >= low).all()
        assert (observations <= high).all()
        observations = batch.step(rng.uniform(-1, 1, (64, 4))).observations
    assert families == {"home", "community", "microgrid", "island"}
    assert len(observation_names(2, 2)) == observations.shape[1]


def scaled(scenario, kilowatts: float, money: float):
    """The same scenario in another unit of power and another currency."""
    grid, series = scenario.grid, scenario.series

    def grown(part, **names):
        return dataclasses.replace(part, **{n: getattr(part, n) * f for n, f in names.items()})

    sources = tuple(
        dataclasses.replace(
            grown(one, max_kw=kilowatts, min_kw=kilowatts, cost_per_kwh=money),
            ramp_kw_per_h=None if one.ramp_kw_per_h is None else one.ramp_kw_per_h * kilowatts,
        )
        for one in grid.dispatchables
    )
    size = dict.fromkeys(("energy_kwh", "charge_kw", "discharge_kw"), kilowatts)
    penalties = ("unserved_per_kwh", "curtailment_per_kwh", "carbon_per_kg")
    return dataclasses.replace(
        scenario,
        grid=dataclasses.replace(
            grid,
            consumers=tuple(grown(one, peak_kw=kilowatts) for one in grid.consumers),
            dispatchables=sources,
            renewables=tuple(grown(one, peak_kw=kilowatts) for one in grid.renewables),
            storages=tuple(grown(one, **size, wear_per_kwh=money) for one in grid.storages),
            connection=grown(grid.connection, import_kw=kilowatts, export_kw=kilowatts),
            penalties=grown(grid.penalties, **dict.fromkeys(penalties, money)),
        ),
        series=dataclasses.replace(
            series,
            loads_kw=series.loads_kw * kilowatts,
            renewables_kw=series.renewables_kw * kilowatts,
            price=series.price * money,
        ),
    )


def test_neither_kilowatts_nor_currency_are_observed():
    known = scenarios(12)
    other = [scaled(one, 1000.0, 7.0) for one in known]
    plain, big = (GridBatch(SHORT, 12, scenarios=each) for each in (known, other))
    seen, same = plain.reset(), big.reset()
    rng = np.random.default_rng(0)
    for _ in range(10):
        assert seen == pytest.approx(same, abs=2e-4)
        actions = rng.uniform(-1, 1, (12, 2))
        here, there = plain.step(actions), big.step(actions)
        assert here.rewards == pytest.approx(there.rewards, rel=1e-6, abs=1e-9)
        seen, same = here.observations, there.observations


def test_what_comes_later_is_not_observed_but_published_prices_are():
    one = scenarios(1)[0]
    now = one.start
    loads, price = one.series.loads_kw.copy(), one.series.price.copy()
    loads[:, now + 1 :] *= 0.5
    price[now + 14 :] *= 3.0
    later = dataclasses.replace(one, series=dataclasses.replace(one.series, loads_kw=loads, price=price))
    same = [GridBatch(SHORT, 1, scenarios=[each]).reset() for each in (one, later)]
    assert (same[0] == same[1]).all()
    price[now + 12] *= 3.0
    sooner = dataclasses.replace(one, series=dataclasses.replace(one.series, price=price))
    changed = np.flatnonzero(GridBatch(SHORT, 1, scenarios=[sooner]).reset()[0] != same[0][0])
    names = [observation_names(1, 1)[place] for place in changed]
    assert "price_in_12h" in names
    assert all("price" in name or "ahead" in name or "gains" in name or "need" in name for name in names)


def test_terms_add_up_to_the_reward_and_the_return_to_the_summary():
    batch = GridBatch(SHORT, 16, 3, autoreset=False)
    batch.reset()
    rng, total = np.random.default_rng(0), np.zeros(16)
    for _ in range(24):
        result = batch.step(rng.uniform(-1, 1, (16, 2)))
        spent = sum(result.terms[name] for name in TERMS if name != "reference")
        assert result.rewards == pytest.approx(np.maximum(result.terms["reference"] - spent, -20.0))
        total += result.rewards
    for row, summary in enumerate(result.episodes):
        assert summary["return"] == pytest.approx(total[row])
        if total[row] > -20.0:
            assert summary["saving"] * 24 == pytest.approx(total[row], abs=1e-9)


def test_nobody_goes_without_while_somebody_has_power_left():
    known = scenarios(60)
    config = dataclasses.replace(SHORT, guard=True)
    rng = np.random.default_rng(0)
    batch = GridBatch(config, 60, scenarios=known, autoreset=False)
    batch.reset()
    for _ in range(24):
        before, level = batch.physics.energy_kwh, batch.physics.arrays.level.copy()
        batch.step(rng.uniform(-1, 1, (60, 2)))
        flows = batch.flows
        for row in np.flatnonzero(flows.flows["unserved"] > 1e-9):
            grid = known[row].grid
            for place, source in enumerate(grid.dispatchables):
                ramp = np.inf if source.ramp_kw_per_h is None else source.ramp_kw_per_h
                most = min(source.max_kw, level[row, place] + ramp)
                assert flows.dispatched_kw[row, place] == pytest.approx(most)
            for place, store in enumerate(grid.storages):
                kept = before[row, place] * (1 - store.self_discharge_per_h) * store.discharge_efficiency
                assert -flows.storage_kw[row, place] == pytest.approx(min(store.discharge_kw, kept), abs=1e-9)


def test_without_the_guard_the_same_actions_leave_somebody_without():
    known = [one for one in scenarios(60) if one.family == "island"]
    asleep = lambda batch: np.full((batch.num_envs, 2), -1.0)  # noqa: E731
    dark = play(known, asleep, dataclasses.replace(SHORT, guard=False))
    lit = play(known, asleep, SHORT)
    assert np.mean([one["unserved"] for one in dark]) > np.mean([one["unserved"] for one in lit]) + 0.1


def test_nobody_beats_the_bound_and_the_planner_comes_nearest():
    known = scenarios(12)
    limits = np.array([bound(one, SHORT) for one in known])
    batch = GridBatch(SHORT, 12, scenarios=known)
    batch.reset()
    unit = batch.unit * 24
    over = {}
    for name, policy in {**BASELINES, "planner": RecedingHorizon()}.items():
        spent = np.array([one["spent"] for one in play(known, policy, SHORT)])
        assert (spent >= limits - 1e-6 * unit).all()
        over[name] = float(((spent - limits) / unit).mean())
    assert min(over, key=lambda name: over[name]) == "planner"
    assert over["self-consumption"] < over["no storage"]


def test_self_consumption_exchanges_nothing_that_it_could_store():
    grid = load_grid("home")
    series = draw_series(np.random.default_rng(0), grid, 400)
    batch = GridBatch(SmartGridConfig.of(grid, series, 48), 1, autoreset=False)
    batch.reset()
    for _ in range(48):
        batch.step(self_consumption(batch))
        flow = {name: float(values[0]) for name, values in batch.flows.flows.items()}
        full = batch.physics.charge_share[0, 0]
        assert flow["exported"] < 1e-9 or full == pytest.approx(1.0) or flow["charge"] == pytest.approx(5.0)
        assert (
            flow["imported"] < 1e-9 or full == pytest.approx(0.0) or flow["discharge"] == pytest.approx(5.0)
        )


def test_any_number_of_parts_and_shorter_steps_work():
    grid = dataclasses.replace(load_grid("village"), step_s=900)
    env = SmartGridEnv(SmartGridConfig.of(grid, horizon_h=3), render_mode="ansi")
    env.reset(seed=0)
    for step in range(12):
        _, _, _, truncated, info = env.step(env.action_space.sample())
        assert truncated == (step == 11)
    assert info["dispatchable_kw"].shape == (1,)
    assert info["storage_kw"].shape == (2,)
    text = env.render()
    assert all(part.name in text for part in grid.parts)


def test_an_image_shows_the_network():
    env = SmartGridEnv(SmartGridConfig.of(load_grid("island")), render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    for _ in range(3):
        env.step(env.action_space.sample())
    image = env.render()
    assert image.shape == (480, 640, 3)
    assert image.dtype == np.uint8
    assert (image != before).any()


def test_a_recording_gives_its_own_weeks():
    grid = load_grid("home")
    series = draw_series(np.random.default_rng(0), grid, 500)
    week = cut_scenario(grid, series, 24, start=200)
    assert (week.series.loads_kw[:, week.start] == series.loads_kw[:, 200]).all()
    batch = GridBatch(SmartGridConfig.of(grid, series, 24), 4, 0)
    batch.reset()
    for scenario in batch.scenarios:
        assert np.isin(scenario.series.price, series.price).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SmartGridConfig(dispatchables=0, storages=0), "nothing to decide"),
        (lambda: SmartGridConfig(grid=load_grid("village")), "2 or more, as the grid has"),
        (lambda: SmartGridConfig(horizon_h=0), "horizon_h: 0"),
        (lambda: GridScenarioConfig(efficiency=(0.9, 1.1)), "efficiency"),
        (lambda: GridScenarioConfig(unserved=(1.0, 2.0)), "unserved"),
        (lambda: GridBatch(SHORT, 2, scenarios=scenarios(1)), "one a row"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, said):
    with pytest.raises(ParameterError, match=said):
        make()


def test_the_simulator_needs_no_stable_baselines_for_it():
    code = "import sys, sim.envs, sim.envs.grid; sys.exit('stable_baselines3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
