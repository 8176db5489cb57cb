"""The grid's physics, its files, and the linear program that is exact for them."""

import dataclasses
import json

import numpy as np
import pytest

from sim.errors import ParameterError, TraceError
from sim.grid import (
    Connection,
    Consumer,
    Dispatchable,
    Grid,
    GridPhysics,
    GridSeries,
    Penalties,
    Renewable,
    Storage,
)
from sim.grid.drawing import served
from sim.grid.files import GridError, grid_files, load_grid, parse_grid, save_grid
from sim.grid.parts import export_price
from sim.grid.planning import Planner, execute, perfect_foresight
from sim.grid.series import fit_series, load_series, resampled, save_series

HOURS = 72


def a_grid(rng: np.random.Generator, storages: int = 2) -> Grid:
    pick = lambda *values: float(rng.choice(values))  # noqa: E731
    return Grid(
        "random",
        (Consumer("one", 6.0), Consumer("two", 4.0)),
        (
            Dispatchable("slow", 5.0, 0.3, min_kw=pick(0, 1), ramp_kw_per_h=2.0, carbon_kg_per_kwh=0.5),
            Dispatchable("fast", 2.0, 0.1),
        ),
        (Renewable("sun", "solar", 5.0), Renewable("air", "wind", 5.0)),
        tuple(
            Storage(f"store {place}", 10.0, 4.0, 3.0, 0.9, 0.95, 0.01, wear_per_kwh=0.01)
            for place in range(storages)
        ),
        Connection(pick(0, 3, 20), pick(0, 2, 20), pick(0, 0.5, 1)),
        Penalties(10.0, pick(0, 0.01), pick(0, 0.1)),
    )


def a_series(rng: np.random.Generator, grid: Grid, spread: float = 0.05) -> GridSeries:
    return GridSeries(
        rng.uniform(0, 5, (len(grid.consumers), HOURS)),
        rng.uniform(0, 5, (len(grid.renewables), HOURS)),
        rng.normal(0.2, spread, HOURS),
        rng.uniform(0, 0.5, HOURS),
    )


def stored_change(physics: GridPhysics, before: np.ndarray, flows, grid: Grid) -> np.ndarray:
    keep = np.array([1.0 - one.self_discharge_per_h for one in grid.storages])
    power = flows.storage_kw[0]
    into = np.array([one.charge_efficiency for one in grid.storages])
    out = np.array([one.discharge_efficiency for one in grid.storages])
    return keep * before + np.where(power > 0, power * into, power / out)


@pytest.mark.parametrize("seed", range(6))
def test_energy_is_conserved_and_limits_hold_whatever_is_asked(seed):
    rng = np.random.default_rng(seed)
    grid = a_grid(rng)
    series = a_series(rng, grid, 0.4)
    physics = GridPhysics.of(grid, series)
    level = np.array([one.min_kw for one in grid.dispatchables])
    for step in range(HOURS):
        before = physics.energy_kwh[0]
        happened = physics.advance(rng.uniform(-1.5, 1.5, (1, 4)))
        flow = {name: float(values[0]) for name, values in happened.flows.items()}
        given = flow["solar"] + flow["wind"] + flow["dispatched"] + flow["discharge"] + flow["imported"]
        taken = flow["load"] + flow["charge"] + flow["exported"] + flow["curtailed"]
        assert given + flow["unserved"] == pytest.approx(taken, abs=1e-12)
        assert min(flow.values()) >= 0.0
        assert flow["imported"] <= grid.connection.import_kw + 1e-12
        assert flow["exported"] <= grid.connection.export_kw + 1e-12
        assert flow["unserved"] <= flow["load"] + 1e-12
        assert flow["load"] == pytest.approx(series.loads_kw[:, step].sum())
        expected = stored_change(physics, before, happened, grid)
        assert physics.energy_kwh[0] == pytest.approx(expected, abs=1e-12)
        assert (physics.energy_kwh >= 0).all()
        assert (physics.energy_kwh <= 10.0).all()
        dispatched = happened.dispatched_kw[0]
        assert abs(dispatched[0] - level[0]) <= 2.0 + 1e-12
        assert (dispatched >= [one.min_kw for one in grid.dispatchables]).all()
        level = dispatched


def test_each_cost_is_its_flow_at_its_price():
    grid = dataclasses.replace(a_grid(np.random.default_rng(1)), connection=Connection(3.0, 2.0, 0.5))
    grid = dataclasses.replace(grid, penalties=Penalties(10.0, 0.01, 0.1))
    series = a_series(np.random.default_rng(2), grid)
    physics, rng = GridPhysics.of(grid, series), np.random.default_rng(3)
    for step in range(HOURS):
        happened = physics.advance(rng.uniform(-1, 1, (1, 4)))
        flow = {name: float(values[0]) for name, values in happened.flows.items()}
        cost = {name: float(values[0]) for name, values in happened.costs.items()}
        price, carbon = series.price[step], series.carbon[step]
        slow, fast = happened.dispatched_kw[0]
        assert cost["imports"] == pytest.approx(flow["imported"] * price)
        assert cost["exports"] == pytest.approx(-flow["exported"] * export_price(price, 0.5))
        assert cost["fuel"] == pytest.approx(0.3 * slow + 0.1 * fast)
        assert cost["wear"] == pytest.approx(0.01 * flow["discharge"])
        assert cost["carbon"] == pytest.approx(0.1 * (carbon * flow["imported"] + 0.5 * slow))
        assert cost["unserved"] == pytest.approx(10.0 * flow["unserved"])
        assert cost["curtailment"] == pytest.approx(0.01 * flow["curtailed"])
        assert happened.cost[0] == pytest.approx(sum(cost.values()))


def one_step(load, sun, price, actions, connection, storage=True, curtailment=0.0):
    grid = Grid(
        "one",
        (Consumer("load", 10.0),),
        (),
        (Renewable("sun", "solar", 10.0),),
        (Storage("store", 10.0, 5.0, 5.0, 1.0, 1.0),) if storage else (),
        connection,
        Penalties(10.0, curtailment),
    )
    series = GridSeries(np.array([[load]]), np.array([[sun]]), np.array([price]), np.zeros(1))
    happened = GridPhysics.of(grid, series).advance([actions])
    return {name: float(values[0]) for name, values in happened.flows.items()}


def test_what_cannot_be_carried_is_not_charged_before_it_is_unserved():
    flow = one_step(4.0, 1.0, 0.2, [1.0], Connection(4.0, 0.0))
    assert (flow["charge"], flow["unserved"], flow["imported"]) == (1.0, 0.0, 4.0)
    flow = one_step(7.0, 1.0, 0.2, [1.0], Connection(4.0, 0.0))
    assert (flow["charge"], flow["unserved"]) == (0.0, 2.0)


def test_nothing_is_exported_where_that_costs_more_than_curtailing():
    assert one_step(1.0, 5.0, -0.2, [0.0], Connection(0.0, 9.0))["exported"] == 0.0
    assert one_step(1.0, 5.0, -0.2, [0.0], Connection(0.0, 9.0), curtailment=0.3)["exported"] == 4.0


def test_local_power_gives_way_where_somebody_pays_for_imports():
    flow = one_step(3.0, 5.0, -0.2, [0.0], Connection(2.0, 9.0))
    assert (flow["imported"], flow["curtailed"], flow["unserved"]) == (2.0, 4.0, 0.0)


def test_the_reference_is_what_running_without_storages_costs():
    rng = np.random.default_rng(5)
    grid = dataclasses.replace(a_grid(rng, 0), dispatchables=(Dispatchable("fast", 2.0, 0.1),))
    series = a_series(rng, grid)
    reference, spent = GridPhysics.of(grid, series), GridPhysics.of(grid, series)
    for step in range(HOURS):
        table = series.table(grid)[step]
        missing = table[0] - table[1] - table[2]
        paid = table[3] + grid.penalties.carbon_per_kg * table[4]
        wanted = missing if paid > 0.1 else missing - grid.connection.import_kw
        level = np.clip(wanted, 0.0, 2.0)
        expected = spent.advance([[level - 1.0]]).cost[0]
        assert reference.advance([[0.0]]).reference[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_executing_the_programs_plan_costs_what_the_program_says(seed):
    rng = np.random.default_rng(seed)
    grid = a_grid(rng, 1)
    series = a_series(rng, grid, 0.05 if seed < 6 else 0.3)
    plan = perfect_foresight(grid, series, 0.1)
    spent = execute(grid, series, plan, 0.1)
    assert spent == pytest.approx(plan.objective, abs=1e-6, rel=1e-6)


def test_burning_energy_where_that_pays_needs_binaries_and_is_still_exact():
    """A storage that charged and discharged at once would be paid for what it wastes."""
    grid = Grid(
        "burner",
        (Consumer("load", 1.0),),
        storages=(Storage("store", 4.0, 2.0, 2.0, 0.5, 0.5),),
        connection=Connection(5.0, 0.0),
    )
    steps = 6
    series = GridSeries(np.zeros((1, steps)), np.zeros((0, steps)), np.full(steps, -1.0), np.zeros(steps))
    plan = perfect_foresight(grid, series)
    assert plan.binaries
    assert execute(grid, series, plan) == pytest.approx(plan.objective, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_no_random_play_beats_perfect_foresight(seed):
    rng = np.random.default_rng(seed)
    grid = a_grid(rng, 1)
    series = a_series(rng, grid)
    best = perfect_foresight(grid, series).objective
    physics = GridPhysics.of(grid, series)
    spent = sum(float(physics.advance(rng.uniform(-1, 1, (1, 3))).cost[0]) for _ in range(HOURS))
    assert spent >= best - 1e-9


def test_a_known_answer_buy_cheap_and_use_dear():
    grid = Grid(
        "known",
        (Consumer("load", 1.0),),
        storages=(Storage("store", 1.0, 1.0, 1.0, 0.8, 1.0, initial=0.0),),
        connection=Connection(9.0, 9.0, 0.0),
    )
    series = GridSeries(np.array([[0.0, 1.0]]), np.zeros((0, 2)), np.array([0.1, 1.0]), np.zeros(2))
    plan = perfect_foresight(grid, series)
    # 1 kWh bought at 0.1 stores 0.8, which saves 0.8 of the dear hour
    assert plan.objective == pytest.approx(0.1 + 0.2)
    assert plan.storage_kw[:, 0] == pytest.approx([1.0, -0.8])
    again = Planner(grid, 2).solve(series.table(grid), np.zeros(1), np.zeros(0))
    assert again.objective == pytest.approx(0.3)


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_a_saved_grid_loads_equal(tmp_path, ending):
    for file in grid_files():
        grid = load_grid(file)
        save_grid(grid, tmp_path / f"grid.{ending}")
        assert load_grid(tmp_path / f"grid.{ending}") == grid


BAD = {
    "a missing field": ({"consumers": [{"peak_kw": 1}]}, "consumers[0].name: None"),
    "a typo": ({"consumers": [{"name": "a", "peak_kw": 1}], "storage": []}, "nearest: storages"),
    "a text for a number": (
        {"consumers": [{"name": "a", "peak_kw": "much"}]},
        "consumers[0].peak_kw: 'much'",
    ),
    "a value outside": (
        {
            "consumers": [{"name": "a", "peak_kw": 1}],
            "storages": [
                {"name": "b", "energy_kwh": 1, "charge_kw": 1, "discharge_kw": 1, "charge_efficiency": 2}
            ],
        },
        "storages[0].charge_efficiency: 2.0",
    ),
    "nobody to serve": ({"consumers": []}, "consumers: ()"),
    "two of one name": (
        {"consumers": [{"name": "a", "peak_kw": 1}, {"name": "a", "peak_kw": 2}]},
        "given to one part",
    ),
    "no mapping": ([1], "must be a mapping"),
    "an uneven step": ({"consumers": [{"name": "a", "peak_kw": 1}], "step_s": 700}, "step_s: 700"),
}


@pytest.mark.parametrize(("document", "said"), BAD.values(), ids=BAD)
def test_a_bad_grid_is_refused_by_the_place_and_the_value(document, said):
    with pytest.raises(GridError) as error:
        parse_grid(document)
    assert said in str(error.value)


def test_a_bad_file_is_named(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(GridError, match=r"bad\.json: is no JSON"):
        load_grid(tmp_path / "bad.json")
    with pytest.raises(GridError, match="grids that ship: datacentre, home, island, village"):
        load_grid("nowhere")


def test_a_saved_series_loads_with_its_sums(tmp_path):
    grid = a_grid(np.random.default_rng(0))
    series = a_series(np.random.default_rng(1), grid)
    save_series(series, grid, tmp_path / "week.csv")
    again = fit_series(grid, load_series(tmp_path / "week.csv"))
    assert again.table(grid) == pytest.approx(series.table(grid), rel=1e-8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,demand_kw\n0,1\n", "timestamp_s"),
        ("timestamp_s,load\n0,1\n", "demand_kw"),
        ("timestamp_s,demand_kw\n0,1\n3600,x\n", "demand_kw 'x'"),
        ("timestamp_s,demand_kw\n0,1\n3600,2\n9000,2\n", "after 3600 s comes 9000 s"),
        ("timestamp_s,demand_kw\n0,1\n3600,-2\n", "is negative"),
        ("timestamp_s,demand_kw\n0,1\n", "2 or more"),
    ],
)
def test_a_bad_recording_is_refused_with_the_reason(tmp_path, text, said):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(TraceError) as error:
        load_series(tmp_path / "bad.csv")
    assert said in str(error.value)


def test_another_step_keeps_the_energy():
    values = np.arange(12.0)
    assert resampled(values, 1800, 3600).sum() * 2 == pytest.approx(values.sum())
    assert resampled(values, 3600, 1800).sum() == pytest.approx(2 * values.sum())


def test_a_price_above_that_of_unserved_energy_is_refused():
    grid = a_grid(np.random.default_rng(0))
    series = dataclasses.replace(a_series(np.random.default_rng(0), grid), price=np.full(HOURS, 11.0))
    with pytest.raises(ParameterError, match="unserved_per_kwh"):
        series.table(grid)


def test_the_last_consumer_goes_without_first():
    assert served(np.array([3.0, 2.0, 1.0]), 2.5) == (3.0, 0.5, 0.0)


def test_bad_actions_are_refused():
    grid = a_grid(np.random.default_rng(0))
    physics = GridPhysics.of(grid, a_series(np.random.default_rng(0), grid))
    with pytest.raises(ParameterError, match="actions"):
        physics.advance([[0.0]])
    with pytest.raises(ParameterError, match="finite"):
        physics.advance([[np.nan, 0.0, 0.0, 0.0]])
    assert json.dumps(dataclasses.asdict(grid))
