"""What is observed of a grid: features of the site, of each dispatchable source and of each storage.

Powers are over the site's peak load, prices over the mean import price of the week before the episode, so a
policy knows neither kilowatts nor currency. Called by `sim.grid.batch`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from controller.core import Feature, ObservationSchema
from sim.compiled import counted, inner
from sim.grid.kernels import sold_at
from sim.grid.layout import (
    ANY_RAMP,
    D_CARBON,
    D_COST,
    D_MAX,
    D_MIN,
    D_PRESENT,
    D_RAMP,
    G_CARBON,
    G_CURTAIL,
    G_EXPORT,
    G_IMPORT,
    G_PEAK,
    G_SHARE,
    G_STEP_H,
    G_UNSERVED,
    S_CHARGE,
    S_DISCHARGE,
    S_ENERGY,
    S_IN,
    S_KEEP,
    S_OUT,
    S_PRESENT,
    S_WEAR,
)
from sim.grid.scenarios import AHEAD_H
from sim.grid.series import CARBON, LOAD, PRICE, SOLAR, WIND

FloatArray = npt.NDArray[np.floating]
LOOK_BACK_H = 24
STATIC = ("mean_price", "mean_load", "mean_weather", "start_h")
"""What is known of a site since before the episode: means of the history, and the clock at step 0."""
K_PRICE, K_LOAD, K_WEATHER, K_START = range(len(STATIC))
SITE = 19
"""Features of the site before its hours."""


def _site_schema() -> ObservationSchema:
    load, price, back = "peak load", "mean price", range(1, LOOK_BACK_H + 1)
    return ObservationSchema(
        "grid/v1/site",
        (
            Feature("load", 0, 2, load, "what consumers want in the step that begins"),
            Feature("solar", 0, 4, load, "what the sun offers in it"),
            Feature("wind", 0, 4, load, "what the wind offers in it"),
            Feature("net", -4, 2, load, "load less sun and wind"),
            Feature("import_room", 0, 2, load, "most that can be imported"),
            Feature("export_room", 0, 2, load, "most that can be exported"),
            Feature("price", -3, 8, price, "import price now, emissions included"),
            Feature("sold_at", -3, 8, price, "what an exported kWh earns"),
            Feature("export_share", 0, 1, "share", "price of exports over that of imports"),
            Feature("unserved", 0, 4, "log10 ratio", "price of unserved energy over the mean price"),
            Feature("curtailment", 0, 4, price, "price of curtailed energy"),
            Feature("clock_sin", -1, 1, "", "sine of the time of day"),
            Feature("clock_cos", -1, 1, "", "cosine of it"),
            Feature("mean_load", 0, 1, load, "mean load of the week before the episode"),
            Feature("mean_weather", 0, 4, "mean load", "mean sun and wind of that week"),
            Feature("step", 0, 1, "h", "length of a step"),
            Feature(
                "price_rank", 0, 1, "share", "known hours (a day back, half a day ahead) cheaper than now"
            ),
            Feature("dearest_ahead", -3, 8, price, "highest price of the coming 12 h, less the one now"),
            Feature("cheapest_ahead", -8, 3, price, "lowest price of the coming 12 h, less the one now"),
            *(Feature(f"net_{hour}h_ago", -4, 2, load, f"net load {hour} h ago") for hour in back),
            *(Feature(f"weather_{hour}h_ago", 0, 4, load, f"sun and wind {hour} h ago") for hour in back),
            *(Feature(f"price_{hour}h_ago", -3, 8, price, f"import price {hour} h ago") for hour in back),
            *(
                Feature(f"price_in_{hour}h", -3, 8, price, f"import price in {hour} h, as published")
                for hour in range(1, AHEAD_H + 1)
            ),
        ),
    )


SITE_SCHEMA = _site_schema()
SOURCE_SCHEMA = ObservationSchema(
    "grid/v1/dispatchable",
    (
        Feature("present", 0, 1, "flag", "whether there is such a source; if not, all its values are 0"),
        Feature("max_power", 0, 2, "peak load", "its largest level"),
        Feature("min_power", 0, 2, "peak load", "its least level"),
        Feature("cost", 0, 8, "mean price", "its kWh, emissions included"),
        Feature("cost_over_price", -8, 8, "mean price", "the same less the import price now"),
        Feature("level", 0, 1, "largest level", "how it ran in the step before"),
        Feature("ramp", 0, 1, "largest level", "how much its level can change in a step"),
        Feature("covering", -1, 1, "action", "the action that would cover the net load, if it can"),
        Feature("relieving", -1, 1, "action", "the action that would cover what the line cannot"),
    ),
)
STORAGE_SCHEMA = ObservationSchema(
    "grid/v1/storage",
    (
        Feature("present", 0, 1, "flag", "whether there is such a storage; if not, all its values are 0"),
        Feature("hours", 0, 5, "ln(1+h)", "its capacity over the mean load"),
        Feature("charge_power", 0, 4, "peak load", "most power that it takes"),
        Feature("discharge_power", 0, 4, "peak load", "most power that it gives"),
        Feature("stored", 0, 1, "share", "stored energy over capacity"),
        Feature("charge_efficiency", 0, 1, "share", "stored of 1 kWh taken"),
        Feature("discharge_efficiency", 0, 1, "share", "given of 1 kWh stored"),
        Feature("fading", 0, 1, "share", "lost of the stored energy in a day"),
        Feature("wear", 0, 4, "mean price", "cost of a kWh discharged"),
        Feature("charge_room", 0, 1, "action", "the action above which it charges no faster"),
        Feature("discharge_room", 0, 1, "action", "minus the action below which it discharges no faster"),
        Feature("balancing", -1, 1, "action", "the action that would bring the exchange to 0, if it can"),
        Feature("surplus_ahead", 0, 4, "capacity", "surplus of the hours of yesterday that come next, 12 h"),
        Feature("deficit_ahead", 0, 4, "capacity", "deficit of those hours"),
        Feature("dearer_need", 0, 4, "capacity", "deficit of those hours whose price is above that of now"),
        Feature("buying_gains", -4, 8, "mean price", "a kWh bought now, sold at the highest price of 12 h"),
        Feature("selling_gains", -8, 4, "mean price", "a kWh sold now, bought again at the lowest of 12 h"),
    ),
)


_SOURCE, _STORAGE = SOURCE_SCHEMA.size, STORAGE_SCHEMA.size


def observation_size(dispatchables: int, storages: int) -> int:
    """Numbers in an observation."""
    return SITE_SCHEMA.size + dispatchables * SOURCE_SCHEMA.size + storages * STORAGE_SCHEMA.size


def observation_names(dispatchables: int, storages: int) -> tuple[str, ...]:
    """Their names, in order."""
    sources = [f"dispatchable{d}_{name}" for d in range(dispatchables) for name in SOURCE_SCHEMA.names]
    stores = [f"storage{s}_{name}" for s in range(storages) for name in STORAGE_SCHEMA.names]
    return (*SITE_SCHEMA.names, *sources, *stores)


def observation_bounds(dispatchables: int, storages: int) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest observation, float32 `[F]`; 0 stands for absent, so both include it."""
    schemas = (SITE_SCHEMA, *([SOURCE_SCHEMA] * dispatchables), *([STORAGE_SCHEMA] * storages))
    low = np.concatenate([schema.low for schema in schemas])
    high = np.concatenate([schema.high for schema in schemas])
    return np.minimum(low, 0.0).astype(np.float32), np.maximum(high, 0.0).astype(np.float32)


@counted
def observe(rows, arrays, static, low, high, observations):  # type: ignore[no-untyped-def]
    """Write the observations of grids `rows` into float32 `[N, F]`, clipped to the schema's ranges."""
    sources, stores = arrays.level.shape[1], arrays.energy.shape[1]
    for k in range(len(rows)):
        i = rows[k]
        seen = observations[i]
        per_hour = round(1.0 / arrays.grid[i, G_STEP_H])
        ahead = _see_hours(i, arrays, static[i], per_hour, seen)
        _see_site(i, arrays, static[i], ahead, seen)
        place = SITE + 3 * LOOK_BACK_H + AHEAD_H
        for d in range(sources):
            _see_source(i, d, arrays, static[i], seen[place + d * _SOURCE : place + (d + 1) * _SOURCE])
        place += sources * _SOURCE
        for s in range(stores):
            _see_storage(
                i, s, arrays, static[i], ahead, seen[place + s * _STORAGE : place + (s + 1) * _STORAGE]
            )
            seen[place + s * _STORAGE + 14] = _dearer_need(i, s, arrays, seen)
        for column in range(len(low)):
            seen[column] = min(max(seen[column], low[column]), high[column])


@inner
def _paid(i, arrays, step):  # type: ignore[no-untyped-def]
    now = arrays.series[i, min(max(step, 0), arrays.series.shape[1] - 1)]
    return now[PRICE] + arrays.grid[i, G_CARBON] * now[CARBON]


@inner
def _see_hours(i, arrays, static, per_hour, seen):  # type: ignore[no-untyped-def]
    """Hourly means back and ahead; (cheaper hours, lowest, highest price ahead, surplus, deficit in kWh)."""
    peak, price, clock = arrays.grid[i, G_PEAK], static[K_PRICE], arrays.clock[i]
    current, cheaper, lowest, highest = _paid(i, arrays, clock), 0.0, 1e300, -1e300
    surplus, deficit = 0.0, 0.0
    for hour in range(1, LOOK_BACK_H + 1):
        net, weather, paid = 0.0, 0.0, 0.0
        for part in range(per_hour):
            step = max(clock - hour * per_hour + part, 0)
            offered = arrays.series[i, step, SOLAR] + arrays.series[i, step, WIND]
            net += (arrays.series[i, step, LOAD] - offered) / per_hour
            weather += offered / per_hour
            paid += _paid(i, arrays, step) / per_hour
        seen[SITE + hour - 1] = net / peak
        seen[SITE + LOOK_BACK_H + hour - 1] = weather / peak
        seen[SITE + 2 * LOOK_BACK_H + hour - 1] = paid / price
        cheaper += paid < current
        if 12 <= hour < 24:
            surplus += max(-net, 0.0)
            deficit += max(net, 0.0)
    for hour in range(1, AHEAD_H + 1):
        paid = 0.0
        for part in range(per_hour):
            paid += _paid(i, arrays, clock + hour * per_hour + part) / per_hour
        seen[SITE + 3 * LOOK_BACK_H + hour - 1] = paid / price
        cheaper += paid < current
        lowest, highest = min(lowest, paid), max(highest, paid)
    return cheaper / (LOOK_BACK_H + AHEAD_H), lowest, highest, surplus, deficit


@inner
def _see_site(i, arrays, static, ahead, seen):  # type: ignore[no-untyped-def]
    grid, clock = arrays.grid[i], arrays.clock[i]
    now, peak, price = arrays.series[i, min(clock, arrays.series.shape[1] - 1)], grid[G_PEAK], static[K_PRICE]
    paid = now[PRICE] + grid[G_CARBON] * now[CARBON]
    angle = 2.0 * math.pi * (static[K_START] + clock * grid[G_STEP_H]) / 24.0
    seen[0], seen[1], seen[2] = now[LOAD] / peak, now[SOLAR] / peak, now[WIND] / peak
    seen[3] = (now[LOAD] - now[SOLAR] - now[WIND]) / peak
    seen[4], seen[5] = grid[G_IMPORT] / peak, grid[G_EXPORT] / peak
    seen[6], seen[7] = paid / price, sold_at(now[PRICE], grid[G_SHARE]) / price
    seen[8], seen[9] = grid[G_SHARE], math.log10(max(grid[G_UNSERVED] / price, 1.0))
    seen[10], seen[11], seen[12] = grid[G_CURTAIL] / price, math.sin(angle), math.cos(angle)
    seen[13], seen[14] = static[K_LOAD] / peak, static[K_WEATHER] / static[K_LOAD]
    seen[15], seen[16] = grid[G_STEP_H], ahead[0]
    seen[17], seen[18] = (ahead[2] - paid) / price, (ahead[1] - paid) / price


@inner
def _see_source(i, d, arrays, static, seen):  # type: ignore[no-untyped-def]
    source, peak, price = arrays.dispatchable[i, d], arrays.grid[i, G_PEAK], static[K_PRICE]
    seen[:] = 0.0
    if source[D_PRESENT] == 0.0:
        return
    cost = source[D_COST] + arrays.grid[i, G_CARBON] * source[D_CARBON]
    largest = max(source[D_MAX], 1e-12)
    seen[0], seen[1], seen[2] = 1.0, source[D_MAX] / peak, source[D_MIN] / peak
    seen[3], seen[4] = cost / price, (cost - _paid(i, arrays, arrays.clock[i])) / price
    seen[5], seen[6] = arrays.level[i, d] / largest, min(source[D_RAMP], ANY_RAMP) / largest
    now = arrays.series[i, min(arrays.clock[i], arrays.series.shape[1] - 1)]
    above = now[LOAD] - now[SOLAR] - now[WIND] - source[D_MIN]
    span = max(source[D_MAX] - source[D_MIN], 1e-12)
    seen[7], seen[8] = 2.0 * above / span - 1.0, 2.0 * (above - arrays.grid[i, G_IMPORT]) / span - 1.0


@inner
def _see_storage(i, s, arrays, static, ahead, seen):  # type: ignore[no-untyped-def]
    storage, grid, price = arrays.storage[i, s], arrays.grid[i], static[K_PRICE]
    seen[:] = 0.0
    if storage[S_PRESENT] == 0.0:
        return
    now = arrays.series[i, min(arrays.clock[i], arrays.series.shape[1] - 1)]
    net = now[LOAD] - now[SOLAR] - now[WIND]
    energy, kept = storage[S_ENERGY], storage[S_KEEP] * arrays.energy[i, s]
    charge, discharge = max(storage[S_CHARGE], 1e-12), max(storage[S_DISCHARGE], 1e-12)
    hours = grid[G_STEP_H]
    seen[0], seen[1] = 1.0, math.log(1.0 + energy / static[K_LOAD])
    seen[2], seen[3] = charge / grid[G_PEAK], discharge / grid[G_PEAK]
    seen[4], seen[5], seen[6] = arrays.energy[i, s] / energy, storage[S_IN], storage[S_OUT]
    seen[7], seen[8] = 1.0 - storage[S_KEEP] ** (24.0 / hours), storage[S_WEAR] / price
    seen[9] = max(energy - kept, 0.0) / (storage[S_IN] * hours * charge)
    seen[10] = kept * storage[S_OUT] / (hours * discharge)
    seen[11] = -net / charge if net < 0.0 else -net / discharge
    seen[12], seen[13] = ahead[3] / energy, ahead[4] / energy
    paid, both = _paid(i, arrays, arrays.clock[i]), storage[S_IN] * storage[S_OUT]
    seen[15] = (ahead[2] * both - storage[S_WEAR] * both - paid) / price
    seen[16] = (paid - storage[S_WEAR] - ahead[1] / both) / price


@inner
def _dearer_need(i, s, arrays, seen):  # type: ignore[no-untyped-def]
    """Yesterday's deficits of the coming 12 hours that are dearer than now, over capacity."""
    storage, peak, need = arrays.storage[i, s], arrays.grid[i, G_PEAK], 0.0
    for hour in range(1, AHEAD_H + 1):
        deficit = seen[SITE + LOOK_BACK_H - hour - 1] * peak
        if seen[SITE + 3 * LOOK_BACK_H + hour - 1] > 1.02 * seen[6] and deficit > 0.0:
            need += min(deficit, storage[S_DISCHARGE])
    return need / max(storage[S_ENERGY] * storage[S_OUT], 1e-12)
