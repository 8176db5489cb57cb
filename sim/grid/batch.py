"""The batched smart-grid environment: N grids, each with a week to get through as cheaply as it can.

`SmartGridEnv`, `SmartGridVectorEnv` (`sim.envs.grid`) and `SmartGridVecEnv` (`sim.envs.grid_sb3`) are thin
faces of this class; formula policies and evaluations drive it directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sim.envs.vector import BatchStep
from sim.errors import ParameterError, require
from sim.grid.features import (
    K_LOAD,
    K_PRICE,
    K_START,
    K_WEATHER,
    STATIC,
    observation_bounds,
    observation_size,
    observe,
)
from sim.grid.guard import guarded
from sim.grid.layout import (
    COSTS,
    G_CARBON,
    S_OUT,
)
from sim.grid.parts import Grid
from sim.grid.physics import GridFlows, GridPhysics
from sim.grid.scenarios import (
    AHEAD_H,
    HISTORY_H,
    GridScenario,
    GridScenarioConfig,
    draw_scenario,
    with_series,
)
from sim.grid.series import CARBON, LOAD, PRICE, SOLAR, WIND, GridSeries
from sim.grid.weather import TARIFFS

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
TERMS = (*COSTS, "stock", "reference")
_SUMS = (
    "return",
    "cost",
    "stock",
    "reference",
    "load",
    "unserved",
    "weather",
    "curtailed",
    "local",
    "cycled",
)


@dataclass(frozen=True)
class GridReward:
    """Weights of the reward's terms: costs and `stock` count against it, `reference` for it."""

    imports: float = 1.0
    exports: float = 1.0
    fuel: float = 1.0
    wear: float = 1.0
    carbon: float = 1.0
    unserved: float = 1.0
    curtailment: float = 1.0
    stock: float = 1.0
    """Worth of the energy that left the storages, at the mean price: what is stored is not lost."""
    reference: float = 1.0
    """What the step would have cost without storages: nothing that one does changes it, so it only takes the
    weather out of the reward. 0: the plain bill."""
    lowest: float = -20.0
    """A step's reward is at least so much: an hour in the dark is dear, and there are grids where some are
    certain."""

    def total(self, terms: Mapping[str, FloatArray]) -> FloatArray:
        """The reward `[N]`."""
        spent = sum(getattr(self, name) * terms[name] for name in (*COSTS, "stock"))
        return np.asarray(np.maximum(self.reference * terms["reference"] - spent, self.lowest))


@dataclass(frozen=True)
class SmartGridConfig:
    """Settings of the smart-grid environments."""

    dispatchables: int = 1
    """Most dispatchable sources of a grid; absent ones are 0 in the observation, their actions are
    ignored."""
    storages: int = 1
    """Most storages of a grid; likewise."""
    horizon_h: int = 168
    """Hours of an episode; it is then truncated, never terminated."""
    scenario: GridScenarioConfig = field(default_factory=GridScenarioConfig)
    """What grids and weeks episodes are drawn from, unless there is a `grid`."""
    grid: Grid | None = None
    """Always this grid; weather, loads and prices are drawn, unless there is a `series`."""
    series: GridSeries | None = None
    """Always a random week of this series, with the `grid`."""
    reward: GridReward = field(default_factory=GridReward)
    """How the reward is made."""
    guard: bool = True
    """Whether sources and storages with power left come to help before anybody goes without; see
    `sim.grid.guard`."""
    stagger: bool = False
    """Cut the first episodes at random lengths, so that a batch's resets spread over time."""

    def __post_init__(self) -> None:
        for name in ("dispatchables", "storages"):
            require(0 <= getattr(self, name) <= 64, name, getattr(self, name), "in 0..64")
        require(
            self.dispatchables + self.storages >= 1, "storages", self.storages, "1 or more: nothing to decide"
        )
        require(self.horizon_h >= 1, "horizon_h", self.horizon_h, "1 or more")
        if self.series is not None:
            require(self.grid is not None, "series", self.series.name, "given together with a grid")
        if self.grid is None:
            return
        for name in ("dispatchables", "storages"):
            count = len(getattr(self.grid, name))
            require(
                count <= getattr(self, name), name, getattr(self, name), f"{count} or more, as the grid has"
            )
        if self.series is not None:
            self.series.check(self.grid)
            needed = (HISTORY_H + self.horizon_h + AHEAD_H) * self.grid.steps_per_hour + 1
            least = f"{needed} steps or more: a week before, {self.horizon_h} h, and {AHEAD_H} h after"
            require(self.series.steps >= needed, "series", self.series.steps, least)

    @classmethod
    def of(cls, grid: Grid, series: GridSeries | None = None, horizon_h: int = 168) -> SmartGridConfig:
        """For one grid, with as many slots as it needs."""
        count = len(grid.dispatchables), len(grid.storages)
        return cls(*count, horizon_h=horizon_h, grid=grid, series=series)

    @property
    def observation_size(self) -> int:
        """Numbers in an observation."""
        return observation_size(self.dispatchables, self.storages)

    @property
    def actions(self) -> int:
        """Numbers in an action."""
        return self.dispatchables + self.storages


class GridBatch:
    """N independent grids; world i draws from its own generator, seeded `seed + i`.

    Finished episodes begin anew in the same step, unless `autoreset` is False. scenarios: play these instead,
    one a row, again and again (an evaluation's windows).
    """

    def __init__(
        self,
        config: SmartGridConfig | None = None,
        num_envs: int = 1,
        seed: int = 0,
        autoreset: bool = True,
        scenarios: Sequence[GridScenario] | None = None,
    ) -> None:
        require(num_envs >= 1, "num_envs", num_envs, "1 or more")
        if scenarios is not None and len(scenarios) != num_envs:
            raise ParameterError("scenarios", len(scenarios), f"{num_envs}, one a row")
        self.config = config or SmartGridConfig()
        self.num_envs, self.autoreset = num_envs, autoreset
        self.physics = GridPhysics(num_envs, self.config.dispatchables, self.config.storages)
        self.static = np.ones((num_envs, len(STATIC)))
        self.scenarios: list[GridScenario] = list(scenarios or [])
        self._given = scenarios is not None
        self._all = np.arange(num_envs)
        self._left, self._steps = np.zeros(num_envs, dtype=np.int64), np.zeros(num_envs, dtype=np.int64)
        self._sums = np.zeros((num_envs, len(_SUMS)))
        self._low, self._high = observation_bounds(self.config.dispatchables, self.config.storages)
        self.observations = np.zeros((num_envs, self.config.observation_size), dtype=np.float32)
        self.flows: GridFlows | None = None
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """New generators; the next `reset` starts all over."""
        self._rngs = [np.random.default_rng(seed + row) for row in range(self.num_envs)]
        self._first = np.ones(self.num_envs, dtype=np.bool_)

    def reset(self) -> FloatArray:
        """New episodes everywhere; observations float32 `[N, F]`."""
        self._begin(self._all)
        return self.observations.copy()

    def step(self, choices: npt.ArrayLike) -> BatchStep:
        """One step of every grid; choices `[N, D + S]` in -1..1, see `GridPhysics.advance`."""
        stored = self._worth()
        asked = np.asarray(choices, dtype=np.float64).reshape(self.num_envs, self.config.actions)
        flows = self.flows = self.physics.advance(
            guarded(self.physics, asked) if self.config.guard else asked
        )
        unit = self.unit
        stock = stored - self._worth()
        terms = {name: values / unit for name, values in flows.costs.items()}
        terms |= {"stock": stock / unit, "reference": flows.reference / unit}
        rewards = self.config.reward.total(terms)
        self._left -= 1
        self._steps += 1
        self._account(flows, rewards, stock)
        self._situation = self._describe(flows)
        truncated = self._left <= 0
        self._observe(self._all)
        observations = self.observations.copy()
        done = np.flatnonzero(truncated)
        final, episodes = observations[done], [self._summary(int(row)) for row in done]
        if len(done) and self.autoreset:
            self._begin(done)
            observations[done] = self.observations[done]
        return BatchStep(observations, rewards, truncated, terms, final, episodes)

    def situation(self) -> dict[str, FloatArray]:
        """The last step in plain numbers, kW and money, `[N]`, `[N, D]` or `[N, S]` each, before any
        reset."""
        return self._situation

    @property
    def unit(self) -> FloatArray:
        """Money that a reward of 1 stands for, `[N]`: a step of the history's mean load at its mean price."""
        hours = self.physics.arrays.grid[:, 0]
        return np.asarray(self.static[:, K_PRICE] * self.static[:, K_LOAD] * hours)

    @property
    def stock_value(self) -> FloatArray:
        """Worth of a stored kWh `[N, S]`: the history's mean price, less the losses of discharging."""
        return np.asarray(self.static[:, K_PRICE, None] * self.physics.arrays.storage[:, :, S_OUT])

    def _worth(self) -> FloatArray:
        return np.asarray((self.physics.arrays.energy * self.stock_value).sum(axis=1))

    def _begin(self, rows: IntArray) -> None:
        drawn = [self._draw(int(row)) for row in rows]
        tables = [scenario.series.table(scenario.grid) for scenario in drawn]
        self.physics.reset([int(row) for row in rows], [one.grid for one in drawn], tables)
        for row, scenario, table in zip(rows, drawn, tables, strict=True):
            self.static[row] = known_before(scenario, table)
            self.physics.arrays.clock[row] = scenario.start
            whole = self.config.horizon_h * scenario.grid.steps_per_hour
            cut = self.config.stagger and self._first[row]
            self._left[row] = int(self._rngs[row].integers(1, whole + 1)) if cut else whole
        if not self._given:
            self.scenarios = self.scenarios or [drawn[0]] * self.num_envs
            for row, scenario in zip(rows, drawn, strict=True):
                self.scenarios[row] = scenario
        self._first[rows] = False
        self._steps[rows], self._sums[rows] = 0, 0.0
        self._observe(rows)

    def _draw(self, row: int) -> GridScenario:
        if self._given:
            return self.scenarios[row]
        config, rng = self.config, self._rngs[row]
        if config.grid is None:
            return draw_scenario(
                rng, config.scenario, config.dispatchables, config.storages, config.horizon_h
            )
        if config.series is None:
            price = float(np.exp(rng.uniform(*np.log(config.scenario.mean_price))))
            price = min(price, config.grid.penalties.unserved_per_kwh / config.scenario.unserved[0])
            return with_series(rng, config.grid, str(rng.choice(TARIFFS)), price, config.horizon_h)
        return cut_scenario(config.grid, config.series, config.horizon_h, rng)

    def _observe(self, rows: IntArray) -> None:
        observe(rows, self.physics.arrays, self.static, self._low, self._high, self.observations)

    def _account(self, flows: GridFlows, rewards: FloatArray, stock: FloatArray) -> None:
        power, kept = flows.flows, self.physics.arrays.grid[:, 0]
        added = {
            "return": rewards,
            "cost": flows.cost,
            "stock": stock,
            "reference": flows.reference,
            "load": power["load"] * kept,
            "unserved": power["unserved"] * kept,
            "weather": (power["solar"] + power["wind"]) * kept,
            "curtailed": power["curtailed"] * kept,
            "local": (power["load"] - power["imported"] - power["unserved"]) * kept,
            "cycled": power["discharge"] * kept,
        }
        for column, name in enumerate(_SUMS):
            self._sums[:, column] += added[name]

    def _describe(self, flows: GridFlows) -> dict[str, FloatArray]:
        arrays = self.physics.arrays
        now = arrays.series[self._all, np.minimum(arrays.clock - 1, arrays.series.shape[1] - 1)]
        told = {f"{name}_kw": values for name, values in flows.flows.items()}
        return told | {
            "dispatchable_kw": flows.dispatched_kw,
            "storage_kw": flows.storage_kw,
            "stored_kwh": self.physics.energy_kwh,
            "charge_share": self.physics.charge_share,
            "price": now[:, PRICE] + arrays.grid[:, G_CARBON] * now[:, CARBON],
            "cost": flows.cost,
            "hour": (self.static[:, K_START] + (arrays.clock - 1) * arrays.grid[:, 0]) % 24.0,
        }

    def _summary(self, row: int) -> dict[str, float]:
        """What an episode came to. bill: its costs and stock over the unit, a step; saving: what it was below
        the reference's, likewise; the rest are shares."""
        now = dict(zip(_SUMS, self._sums[row].tolist(), strict=True))
        steps, unit = float(self._steps[row]), float(self.unit[row])
        spent = now["cost"] + now["stock"]
        load, capacity = max(now["load"], 1e-12), float(self.physics.arrays.storage[row, :, 1].sum())
        days = steps * float(self.physics.arrays.grid[row, 0]) / 24.0
        return {
            "return": now["return"],
            "steps": steps,
            "spent": spent,
            "reference": now["reference"],
            "bill": spent / unit / steps,
            "saving": (now["reference"] - spent) / unit / steps,
            "unserved": now["unserved"] / load,
            "curtailed": now["curtailed"] / max(now["weather"], 1e-12) if now["weather"] > 0 else 0.0,
            "autonomy": now["local"] / load,
            "cycles_per_day": now["cycled"] / capacity / days if capacity > 0 else 0.0,
        }


def known_before(scenario: GridScenario, table: FloatArray) -> FloatArray:
    """Means of the history in the order of `STATIC`; of the whole table where there is no history."""
    past = table[: scenario.start] if scenario.start > 0 else table
    carbon_price = scenario.grid.penalties.carbon_per_kg
    price = float(np.mean(np.abs(past[:, PRICE] + carbon_price * past[:, CARBON])))
    known = np.empty(len(STATIC))
    known[K_PRICE] = max(price, 1e-6)
    known[K_LOAD] = max(float(past[:, LOAD].mean()), 1e-6 * scenario.grid.peak_kw)
    known[K_WEATHER] = float((past[:, SOLAR] + past[:, WIND]).mean())
    known[K_START] = scenario.series.start_h
    return known


def cut_scenario(
    grid: Grid,
    series: GridSeries,
    horizon_h: int,
    rng: np.random.Generator | None = None,
    start: int | None = None,
) -> GridScenario:
    """A week of a series with its history: that which begins at step `start`, or a random one."""
    per_hour = grid.steps_per_hour
    before, length = HISTORY_H * per_hour, (HISTORY_H + horizon_h + AHEAD_H) * per_hour + 1
    if start is None:
        assert rng is not None
        start = before + int(rng.integers(series.steps - length + 1))
    return GridScenario(grid, series.cut(start - before, length), before, grid.name)
