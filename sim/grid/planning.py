"""The best that can be done with a grid when everything is known: a linear program (HiGHS, through scipy).

`perfect_foresight` is the bound that policies are measured against; `Planner` is also what the
receding-horizon policy of `sim.grid.baselines` solves again at every step, on forecasts. The program is the
physics of `sim.grid` itself: its plan, executed in `GridPhysics`, costs what the program says (tested to
1e-6).

One thing is not linear: a storage cannot charge and discharge at once. The program only wants to where
burning energy pays (somebody pays for imports, or curtailing is dear); if its plan executed as the physics
allow costs more than its objective, it is solved again with a binary for each storage and step (a
mixed-integer program).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array

from sim.errors import SimulationError, require
from sim.grid.parts import Grid, export_price
from sim.grid.physics import GridPhysics
from sim.grid.series import CARBON, LOAD, PRICE, SOLAR, WIND, GridSeries

FloatArray = npt.NDArray[np.floating[Any]]
TOLERANCE = 1e-7
MIP_GAP = 1e-9


class PlanError(SimulationError):
    """The program has no solution that the solver could find."""


@dataclass(frozen=True)
class Plan:
    """What to do: powers `[T, D]` and `[T, S]` (kW, charging above 0), the same as actions `[T, D + S]`, and
    what it costs; `stored_kwh` `[T, S]` at the ends of steps. binaries: whether the mixed program was
    needed."""

    dispatched_kw: FloatArray
    storage_kw: FloatArray
    stored_kwh: FloatArray
    actions: FloatArray
    objective: float
    binaries: bool = False


class Planner:
    """The program for `steps` steps of one grid; its matrix is made once."""

    def __init__(self, grid: Grid, steps: int) -> None:
        require(steps >= 1, "steps", steps, "1 or more")
        self.grid, self.steps = grid, steps
        self._sources, self._storages = len(grid.dispatchables), len(grid.storages)
        self._ramp = np.array(
            [np.inf if d.ramp_kw_per_h is None else d.ramp_kw_per_h * grid.step_h for d in grid.dispatchables]
        )
        self._keep = np.array([(1.0 - s.self_discharge_per_h) ** grid.step_h for s in grid.storages])
        block, place = steps, 0
        self._at: dict[str, slice] = {}
        sizes = {
            "dispatched": self._sources, "charge": self._storages, "discharge": self._storages,
            "stored": self._storages, "imported": 1, "exported": 1, "curtailed": 1, "unserved": 1,
            "charging": self._storages,
        }  # fmt: skip
        for name, count in sizes.items():
            self._at[name] = slice(place, place + count * block)
            place += count * block
        self._size = place
        self._matrix, self._mixed = self._constraints(False), self._constraints(True)

    def solve(
        self,
        table: FloatArray,
        energy_kwh: FloatArray,
        level_kw: FloatArray,
        stock_value: FloatArray | float = 0.0,
        binaries: bool = False,
    ) -> Plan:
        """The cheapest plan. table `[T, 5]` as `GridSeries.table` gives it; energy_kwh `[S]` stored and
        level_kw `[D]` before the first step; stock_value: worth of a kWh stored at the end, a number or
        `[S]`.

        Raises PlanError if the solver gives up.
        """
        require(len(table) == self.steps, "table", len(table), f"of {self.steps} steps")
        price, upper, lower, integral = self._prices(table, stock_value), *self._bounds(table, binaries)
        low, high = self._sides(table, np.asarray(energy_kwh), np.asarray(level_kw), binaries)
        found = milp(
            price,
            integrality=integral if binaries else None,
            bounds=Bounds(lower, upper),
            constraints=LinearConstraint(self._mixed if binaries else self._matrix, low, high),
            options={"mip_rel_gap": MIP_GAP} if binaries else None,
        )
        if found.x is None:
            raise PlanError(
                f"{self.grid.name}: the program of {self.steps} steps has no plan: {found.message}"
            )
        return self._plan(found.x, float(found.fun), np.asarray(energy_kwh), binaries)

    def _prices(self, table: FloatArray, stock_value: FloatArray | float) -> FloatArray:
        """What a unit of each variable costs."""
        grid, hours = self.grid, self.grid.step_h
        penalties, steps = grid.penalties, self.steps
        price = np.zeros(self._size)
        for place, source in enumerate(grid.dispatchables):
            rate = source.cost_per_kwh + penalties.carbon_per_kg * source.carbon_kg_per_kwh
            price[self._part("dispatched", place)] = rate * hours
        values = np.broadcast_to(np.asarray(stock_value, dtype=np.float64), (self._storages,))
        for place, storage in enumerate(grid.storages):
            price[self._part("discharge", place)] = storage.wear_per_kwh * hours
            price[self._part("stored", place).start + steps - 1] = -values[place]
        price[self._at["imported"]] = (table[:, PRICE] + penalties.carbon_per_kg * table[:, CARBON]) * hours
        price[self._at["exported"]] = -export_price(table[:, PRICE], grid.connection.export_share) * hours
        price[self._at["curtailed"]] = penalties.curtailment_per_kwh * hours
        price[self._at["unserved"]] = penalties.unserved_per_kwh * hours
        return price

    def _bounds(self, table: FloatArray, binaries: bool) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Upper and lower bounds, and which variables are whole numbers."""
        grid, upper, lower = self.grid, np.full(self._size, np.inf), np.zeros(self._size)
        for place, source in enumerate(grid.dispatchables):
            part = self._part("dispatched", place)
            lower[part], upper[part] = source.min_kw, source.max_kw
        for place, storage in enumerate(grid.storages):
            upper[self._part("charge", place)] = storage.charge_kw
            upper[self._part("discharge", place)] = storage.discharge_kw
            upper[self._part("stored", place)] = storage.energy_kwh
        upper[self._at["imported"]] = grid.connection.import_kw
        upper[self._at["exported"]] = grid.connection.export_kw
        upper[self._at["unserved"]] = table[:, LOAD]
        upper[self._at["charging"]] = 1.0 if binaries else 0.0
        integral = np.zeros(self._size)
        integral[self._at["charging"]] = 1.0
        return upper, lower, integral

    def _sides(
        self, table: FloatArray, energy_kwh: FloatArray, level_kw: FloatArray, binaries: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Lower and upper sides of the constraints, in the order of `_constraints`."""
        steps, weather = self.steps, table[:, SOLAR] + table[:, WIND]
        net = table[:, LOAD] - weather
        low, high = [net, np.full(steps, -np.inf)], [net, weather]
        for place in range(self._storages):
            first = np.zeros(steps)
            first[0] = self._keep[place] * energy_kwh[place]
            low.append(first)
            high.append(first)
        for place in range(self._sources):
            most = np.full(steps, self._ramp[place])
            least = -most
            most[0], least[0] = most[0] + level_kw[place], least[0] + level_kw[place]
            low.append(least)
            high.append(most)
        if binaries:
            for storage in self.grid.storages:
                low += [np.full(steps, -np.inf)] * 2
                high += [np.zeros(steps), np.full(steps, storage.discharge_kw)]
        return np.concatenate(low), np.concatenate(high)

    def _constraints(self, binaries: bool) -> csr_array:
        """Balance; curtailed at most local production; each storage's energy; each source's ramp; and, with
        binaries, charge or discharge."""
        steps, hours = self.steps, self.grid.step_h
        entries = _Entries(steps)
        given = [
            *(("dispatched", place, 1.0) for place in range(self._sources)),
            *(("discharge", place, 1.0) for place in range(self._storages)),
        ]
        taken = [("charge", place, -1.0) for place in range(self._storages)]
        line = [("imported", 0, 1.0), ("exported", 0, -1.0), ("curtailed", 0, -1.0), ("unserved", 0, 1.0)]
        entries.block([*line, *given, *taken], self._part)
        local = [(name, place, -1.0) for name, place, _ in given]
        entries.block([("curtailed", 0, 1.0), *local], self._part)
        for s, storage in enumerate(self.grid.storages):
            into, out = -storage.charge_efficiency * hours, hours / storage.discharge_efficiency
            entries.block([("stored", s, 1.0), ("charge", s, into), ("discharge", s, out)], self._part)
            entries.before(self._part("stored", s), -self._keep[s])
        for d in range(self._sources):
            entries.block([("dispatched", d, 1.0)], self._part)
            entries.before(self._part("dispatched", d), -1.0)
        if binaries:
            for s, storage in enumerate(self.grid.storages):
                entries.block([("charge", s, 1.0), ("charging", s, -storage.charge_kw)], self._part)
                entries.block([("discharge", s, 1.0), ("charging", s, storage.discharge_kw)], self._part)
        return entries.matrix(self._size)

    def _part(self, name: str, place: int = 0) -> slice:
        start = self._at[name].start + place * self.steps
        return slice(start, start + self.steps)

    def _plan(self, x: FloatArray, objective: float, energy_kwh: FloatArray, binaries: bool) -> Plan:
        grid, hours = self.grid, self.grid.step_h
        dispatched = x[self._at["dispatched"]].reshape(self._sources, self.steps).T
        stored = x[self._at["stored"]].reshape(self._storages, self.steps).T
        before = np.vstack([energy_kwh.reshape(1, -1), stored[:-1]])
        moved = stored - self._keep * before
        into = np.array([storage.charge_efficiency for storage in grid.storages])
        out = np.array([storage.discharge_efficiency for storage in grid.storages])
        power = np.where(moved > 0, moved / np.maximum(into, 1e-12), moved * out) / hours
        return Plan(dispatched, power, stored, self.actions(dispatched, power), objective, binaries)

    def actions(self, dispatched_kw: FloatArray, storage_kw: FloatArray) -> FloatArray:
        """Actions in -1..1 `[..., D + S]` for powers in kW."""
        least = np.array([source.min_kw for source in self.grid.dispatchables])
        span = np.array([source.max_kw for source in self.grid.dispatchables]) - least
        levels = 2.0 * (dispatched_kw - least) / np.maximum(span, 1e-12) - 1.0
        charge = np.array([storage.charge_kw for storage in self.grid.storages])
        discharge = np.array([storage.discharge_kw for storage in self.grid.storages])
        limit = np.where(storage_kw > 0, charge, discharge)
        powers = storage_kw / np.maximum(limit, 1e-12)
        return np.asarray(np.clip(np.concatenate([levels, powers], axis=-1), -1.0, 1.0))


class _Entries:
    """Coordinates of a sparse matrix, in blocks of one row a step."""

    def __init__(self, steps: int) -> None:
        self._steps, self._rows = steps, 0
        self._data: list[tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []

    def block(self, terms, part) -> None:  # type: ignore[no-untyped-def]
        """A new row a step: factors of variables of that same step."""
        rows = self._rows + np.arange(self._steps)
        for name, place, factor in terms:
            columns = part(name, place).start + np.arange(self._steps)
            self._data.append((np.full(self._steps, factor), rows, columns))
        self._rows += self._steps

    def before(self, part: slice, factor: float) -> None:
        """To the last block's rows from the second on: the variable of the step before."""
        rows = self._rows - self._steps + np.arange(1, self._steps)
        columns = part.start + np.arange(self._steps - 1)
        self._data.append((np.full(self._steps - 1, factor), rows, columns))

    def matrix(self, columns: int) -> csr_array:
        """All of it."""
        values, rows, places = (np.concatenate(each) for each in zip(*self._data, strict=True))
        return csr_array(coo_array((values, (rows, places)), shape=(self._rows, columns)))


def perfect_foresight(grid: Grid, series: GridSeries, stock_value: FloatArray | float = 0.0) -> Plan:
    """The cheapest that this grid can do over the whole series, from its initial state.

    objective: all costs of the steps less `stock_value` times what is stored at the end.
    """
    table = series.table(grid)
    planner = Planner(grid, len(table))
    energy = np.array([storage.initial * storage.energy_kwh for storage in grid.storages])
    level = np.array([source.min_kw for source in grid.dispatchables])
    plan = planner.solve(table, energy, level, stock_value)
    spent = execute(grid, series, plan, stock_value)
    if spent > plan.objective + TOLERANCE * max(1.0, abs(plan.objective)):
        plan = planner.solve(table, energy, level, stock_value, binaries=True)
    return plan


def execute(grid: Grid, series: GridSeries, plan: Plan, stock_value: FloatArray | float = 0.0) -> float:
    """What a plan costs in the physics, less the worth of what is stored at the end."""
    physics = GridPhysics.of(grid, series)
    spent = sum(float(physics.advance(actions[None]).cost[0]) for actions in plan.actions)
    left = physics.energy_kwh[0] * np.broadcast_to(
        np.asarray(stock_value, dtype=np.float64), physics.storages
    )
    return spent - float(left.sum())
