"""What a learned policy has to beat in `rlscaler/SmartGrid-v0`: rules, and a plan made anew at every step.

Each policy maps a `GridBatch` to actions `[N, D + S]` from what the environment shows at that step: load,
weather and price now, their past, import prices 12 h ahead. `sim.grid.planning.perfect_foresight` is the
bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.grid.batch import GridBatch
from sim.grid.features import LOOK_BACK_H
from sim.grid.layout import (
    D_CARBON,
    D_COST,
    D_MAX,
    D_MIN,
    D_PRESENT,
    G_CARBON,
    G_EXPORT,
    G_IMPORT,
    G_SHARE,
    S_CHARGE,
    S_DISCHARGE,
    S_ENERGY,
    S_IN,
    S_KEEP,
    S_OUT,
    S_WEAR,
)
from sim.grid.parts import export_price
from sim.grid.planning import Planner
from sim.grid.scenarios import AHEAD_H
from sim.grid.series import CARBON, LOAD, PRICE, SOLAR, WIND

FloatArray = npt.NDArray[np.floating]
GridPolicy = Callable[[GridBatch], FloatArray]


@dataclass(frozen=True, slots=True)
class _View:
    """The step that begins, `[N]` each: net load and prices; what storages can take and give, `[N, S]` kW."""

    net_kw: FloatArray
    paid: FloatArray
    sold: FloatArray
    take_kw: FloatArray
    give_kw: FloatArray

    @staticmethod
    def of(batch: GridBatch) -> _View:
        arrays = batch.physics.arrays
        now = arrays.series[np.arange(batch.num_envs), arrays.clock]
        store, hours = arrays.storage, arrays.grid[:, :1]
        kept = store[:, :, S_KEEP] * arrays.energy
        with np.errstate(invalid="ignore", divide="ignore"):
            room = np.maximum(store[:, :, S_ENERGY] - kept, 0.0) / (store[:, :, S_IN] * hours)
        return _View(
            now[:, LOAD] - now[:, SOLAR] - now[:, WIND],
            now[:, PRICE] + arrays.grid[:, G_CARBON] * now[:, CARBON],
            export_price(now[:, PRICE], arrays.grid[:, G_SHARE]),
            np.minimum(store[:, :, S_CHARGE], np.nan_to_num(room)),
            np.minimum(store[:, :, S_DISCHARGE], kept * store[:, :, S_OUT] / hours),
        )


def idle(batch: GridBatch) -> FloatArray:
    """Storages do nothing; dispatchables run in the order of their cost where that is cheaper than importing,
    or where the line is full."""
    view = _View.of(batch)
    return _actions(batch, view, np.zeros_like(view.take_kw))


def self_consumption(batch: GridBatch) -> FloatArray:
    """Storages take every surplus and cover every deficit; dispatchables as with `idle`, for what is left."""
    view = _View.of(batch)
    return _actions(batch, view, _balancing(view))


@dataclass(frozen=True, slots=True)
class TimeOfUse:
    """Self-consumption, but where the day's prices differ enough to pay for a storage's losses: fill it from
    the line in cheap hours, keep it in those between, and empty it in dear ones.

    cheap, dear: quantiles of the known prices (a day back, half a day ahead). fill: how full the line may
    make it. The defaults were the best of 27 on 256 generated weeks.
    """

    cheap: float = 0.1
    dear: float = 0.75
    fill: float = 1.0

    def __call__(self, batch: GridBatch) -> FloatArray:
        """Actions for all rows."""
        view, arrays = _View.of(batch), batch.physics.arrays
        known = known_prices(batch)
        low, high = np.quantile(known, [self.cheap, self.dear], axis=1)
        store = arrays.storage
        gained = (
            high[:, None] * store[:, :, S_IN] * store[:, :, S_OUT] - store[:, :, S_WEAR] * store[:, :, S_IN]
        )
        pays = gained > low[:, None] * 1.001
        power = _balancing(view)
        cheap = pays & (view.paid <= low + 1e-12)[:, None]
        between = pays & ~cheap & (view.paid < high - 1e-12)[:, None]
        power = np.where(between, np.maximum(power, 0.0), power)
        target = np.maximum(self.fill * store[:, :, S_ENERGY] - arrays.energy, 0.0)
        filling = np.minimum(view.take_kw, target / np.maximum(store[:, :, S_IN], 1e-12) / arrays.grid[:, :1])
        spare = np.maximum(arrays.grid[:, G_IMPORT] - view.net_kw, 0.0)[:, None] / max(1, power.shape[1])
        power = np.where(cheap, np.maximum(np.minimum(filling, spare), np.maximum(power, 0.0)), power)
        return _actions(batch, view, power)


class RecedingHorizon:
    """The linear program over the coming day, solved at every step; its first step is done.

    Load, sun and wind are forecast as the mean of that hour over the past `days` days, with the gap between
    forecast and truth now fading over `fade_h`; prices as published for 12 h, then as a day before. What is
    stored at the end is worth the mean price.
    """

    def __init__(self, horizon_h: int = 24, days: int = 1, fade_h: float = 0.0) -> None:
        self.horizon_h, self.days, self.fade_h = horizon_h, days, fade_h
        self._planners: dict[int, Planner] = {}
        self._grids: list[object] = []

    def __call__(self, batch: GridBatch) -> FloatArray:
        """Actions for all rows."""
        arrays, values = batch.physics.arrays, batch.stock_value
        actions = np.zeros((batch.num_envs, batch.config.actions))
        for row, scenario in enumerate(batch.scenarios):
            grid = scenario.grid
            planner = self._planner(row, grid)
            sources, stores = len(grid.dispatchables), len(grid.storages)
            plan = planner.solve(
                self.forecast(arrays.series[row], int(arrays.clock[row]), planner.steps, grid.steps_per_hour),
                arrays.energy[row, :stores],
                arrays.level[row, :sources],
                values[row, :stores],
            )
            actions[row, :sources] = plan.actions[0, :sources]
            first = batch.config.dispatchables
            actions[row, first : first + stores] = plan.actions[0, sources:]
        return actions

    def forecast(self, series: FloatArray, clock: int, steps: int, per_hour: int) -> FloatArray:
        """The coming steps `[steps, 5]` from what is known at step `clock`."""
        day, ahead = 24 * per_hour, np.arange(1, steps)
        table = np.empty((steps, 5))
        table[0] = series[clock]
        back = [
            series[np.maximum(clock + np.arange(steps) - days * day, 0)] for days in range(1, self.days + 1)
        ]
        usual = np.mean(back, axis=0)
        gap = table[0] - usual[0]
        fading = np.exp(-ahead / per_hour / self.fade_h) if self.fade_h > 0 else np.zeros(len(ahead))
        table[1:] = usual[1:] + gap * fading[:, None]
        table[:, [LOAD, SOLAR, WIND]] = np.maximum(table[:, [LOAD, SOLAR, WIND]], 0.0)
        dark = usual[:, SOLAR] <= 0.0
        table[dark, SOLAR] = np.where(np.arange(steps)[dark] == 0, table[dark, SOLAR], 0.0)
        for column in (PRICE, CARBON):
            table[1:, column] = back[0][1:, column]
            known = min(steps, AHEAD_H * per_hour + 1)
            table[:known, column] = series[clock : clock + known, column]
        return table

    def _planner(self, row: int, grid) -> Planner:  # type: ignore[no-untyped-def]
        if len(self._grids) <= row:
            self._grids += [None] * (row + 1 - len(self._grids))
        if self._grids[row] is not grid:
            same = next((place for place, one in enumerate(self._grids) if one == grid), None)
            known = self._planners.get(same) if same is not None else None
            self._planners[row] = known or Planner(grid, self.horizon_h * grid.steps_per_hour)
            self._grids[row] = grid
        return self._planners[row]


BASELINES: dict[str, GridPolicy] = {
    "no storage": idle,
    "self-consumption": self_consumption,
    "time of use": TimeOfUse(),
}
"""The rules; `RecedingHorizon()` is made anew for each batch, as it keeps programs."""


def known_prices(batch: GridBatch) -> FloatArray:
    """Import prices a day back, now and 12 h ahead, emissions included, hourly, `[N, 37]`."""
    arrays = batch.physics.arrays
    per_hour = np.rint(1.0 / arrays.grid[:, 0]).astype(np.int64)
    hours = np.arange(-LOOK_BACK_H, AHEAD_H + 1)
    places = np.clip(arrays.clock[:, None] + hours * per_hour[:, None], 0, arrays.series.shape[1] - 1)
    seen = arrays.series[np.arange(batch.num_envs)[:, None], places]
    return np.asarray(seen[:, :, PRICE] + arrays.grid[:, G_CARBON, None] * seen[:, :, CARBON])


def _balancing(view: _View) -> FloatArray:
    """Powers `[N, S]` that bring the exchange as near to 0 as storages can, the first ones first."""
    power = np.zeros_like(view.take_kw)
    left = view.net_kw.copy()
    for place in range(power.shape[1]):
        moved = np.where(
            left < 0, np.minimum(-left, view.take_kw[:, place]), -np.minimum(left, view.give_kw[:, place])
        )
        power[:, place] = moved
        left = left + moved
    return power


def _actions(batch: GridBatch, view: _View, power_kw: FloatArray) -> FloatArray:
    """Actions for storage powers, dispatchables in the order of their cost for what is then missing."""
    arrays = batch.physics.arrays
    sources, store = arrays.dispatchable, arrays.storage
    cost = sources[:, :, D_COST] + arrays.grid[:, G_CARBON, None] * sources[:, :, D_CARBON]
    levels = sources[:, :, D_MIN].copy()
    missing = view.net_kw + power_kw.sum(axis=1) - levels.sum(axis=1)
    rows = np.arange(batch.num_envs)
    order = np.argsort(np.where(sources[:, :, D_PRESENT] > 0, cost, np.inf), axis=1, kind="stable")
    for place in range(levels.shape[1]):
        one = order[:, place]
        rate, span = cost[rows, one], sources[rows, one, D_MAX] - sources[rows, one, D_MIN]
        wanted = np.where(rate < view.paid, missing, missing - arrays.grid[:, G_IMPORT])
        wanted = np.where(rate < view.sold, missing + arrays.grid[:, G_EXPORT], wanted)
        more = np.clip(wanted, 0.0, span)
        levels[rows, one] += more
        missing = missing - more
    span = sources[:, :, D_MAX] - sources[:, :, D_MIN]
    asked = 2.0 * (levels - sources[:, :, D_MIN]) / np.maximum(span, 1e-12) - 1.0
    limit = np.where(power_kw > 0, store[:, :, S_CHARGE], store[:, :, S_DISCHARGE])
    powers = power_kw / np.maximum(limit, 1e-12)
    return np.asarray(np.clip(np.concatenate([asked, powers], axis=1), -1.0, 1.0))
