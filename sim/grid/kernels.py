"""The compiled step of N grids: sources and storages do as asked within their limits, the rest is settled.

`sim.grid.physics` is the caller of `advance_rows`; `sim.grid` says what is simulated.
"""

from __future__ import annotations

from sim.compiled import counted, inner
from sim.grid.layout import (
    C_CARBON,
    C_CURTAIL,
    C_EXPORTS,
    C_FUEL,
    C_IMPORTS,
    C_UNSERVED,
    C_WEAR,
    D_CARBON,
    D_COST,
    D_MAX,
    D_MIN,
    D_PRESENT,
    D_RAMP,
    F_CHARGE,
    F_CURTAILED,
    F_DISCHARGE,
    F_DISPATCHED,
    F_EXPORT,
    F_IMPORT,
    F_LOAD,
    F_SOLAR,
    F_UNSERVED,
    F_WIND,
    G_CARBON,
    G_CURTAIL,
    G_EXPORT,
    G_IMPORT,
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
from sim.grid.series import CARBON, LOAD, PRICE, SOLAR, WIND


@counted
def advance_rows(rows, actions, arrays, flows, power, costs, reference):  # type: ignore[no-untyped-def]
    """One step of grids `rows`. actions float `[rows, D + S]` in -1..1. Written: flows `[rows, F_*]` kW,
    power `[rows, D + S]` kW (storages: charging above 0), costs `[rows, C_*]` and reference `[rows]` in
    money."""
    for k in range(len(rows)):
        i = rows[k]
        now = arrays.series[i, arrays.clock[i]]
        grid = arrays.grid[i]
        flow, cost = flows[k], costs[k]
        flow[:], cost[:] = 0.0, 0.0
        flow[F_LOAD], flow[F_SOLAR], flow[F_WIND] = now[LOAD], now[SOLAR], now[WIND]
        _dispatch(i, actions[k], arrays, now[CARBON], flow, power[k], cost)
        _store(i, actions[k], arrays, flow, power[k])
        paid = now[PRICE] + grid[G_CARBON] * now[CARBON]
        earned = sold_at(now[PRICE], grid[G_SHARE])
        _settle(grid, paid, earned, flow)
        _charge_less(i, arrays, flow, power[k])
        cost[C_WEAR] = _keep_energy(i, arrays, power[k])
        _bill(grid, now[PRICE], earned, now[CARBON], flow, cost)
        reference[k] = _without_storage(i, arrays, now, paid, earned)
        arrays.clock[i] += 1


@inner
def sold_at(price, share):  # type: ignore[no-untyped-def]
    """What a kWh exported earns (`sim.grid.parts.export_price`)."""
    return price - (1.0 - share) * abs(price)


@inner
def _dispatch(i, actions, arrays, carbon, flow, power, cost):  # type: ignore[no-untyped-def]
    for d in range(arrays.level.shape[1]):
        source = arrays.dispatchable[i, d]
        if source[D_PRESENT] == 0.0:
            power[d] = 0.0
            continue
        asked = min(max(actions[d], -1.0), 1.0)
        wanted = source[D_MIN] + (asked + 1.0) / 2.0 * (source[D_MAX] - source[D_MIN])
        before, ramp = arrays.level[i, d], source[D_RAMP]
        level = min(max(wanted, before - ramp), before + ramp)
        arrays.level[i, d] = power[d] = level
        flow[F_DISPATCHED] += level
        hours = arrays.grid[i, G_STEP_H]
        cost[C_FUEL] += level * hours * source[D_COST]
        cost[C_CARBON] += level * hours * source[D_CARBON] * arrays.grid[i, G_CARBON]


@inner
def _store(i, actions, arrays, flow, power):  # type: ignore[no-untyped-def]
    """What storages take or give, kW on the bus, within their powers and their energy."""
    first, hours = arrays.level.shape[1], arrays.grid[i, G_STEP_H]
    for s in range(arrays.energy.shape[1]):
        storage = arrays.storage[i, s]
        power[first + s] = 0.0
        if storage[S_PRESENT] == 0.0:
            continue
        asked = min(max(actions[first + s], -1.0), 1.0)
        kept = storage[S_KEEP] * arrays.energy[i, s]
        if asked > 0.0:
            room = max(storage[S_ENERGY] - kept, 0.0) / (storage[S_IN] * hours)
            power[first + s] = min(asked * storage[S_CHARGE], room)
            flow[F_CHARGE] += power[first + s]
        else:
            there = kept * storage[S_OUT] / hours
            power[first + s] = -min(-asked * storage[S_DISCHARGE], there)
            flow[F_DISCHARGE] -= power[first + s]


@inner
def _settle(grid, paid, earned, flow):  # type: ignore[no-untyped-def]
    """The cheapest use of the connection; what cannot be charged is taken off `flow[F_CHARGE]`."""
    wanted = flow[F_LOAD] + flow[F_CHARGE]
    local = flow[F_DISPATCHED] + flow[F_DISCHARGE] + flow[F_SOLAR] + flow[F_WIND]
    if paid < -grid[G_CURTAIL]:
        imported = min(wanted, grid[G_IMPORT])
        used = min(local, wanted - imported)
    else:
        used = min(local, wanted)
        imported = min(wanted - used, grid[G_IMPORT])
    short, surplus = wanted - used - imported, local - used
    exported = min(surplus, grid[G_EXPORT]) if earned >= -grid[G_CURTAIL] else 0.0
    uncharged = min(short, flow[F_CHARGE])
    flow[F_IMPORT], flow[F_EXPORT] = imported, exported
    flow[F_CURTAILED], flow[F_UNSERVED] = surplus - exported, short - uncharged
    flow[F_CHARGE] -= uncharged


@inner
def _charge_less(i, arrays, flow, power):  # type: ignore[no-untyped-def]
    """Spread over the storages what was left to charge with."""
    first, asked = arrays.level.shape[1], 0.0
    for s in range(arrays.energy.shape[1]):
        asked += max(power[first + s], 0.0)
    if asked > flow[F_CHARGE]:
        for s in range(arrays.energy.shape[1]):
            if power[first + s] > 0.0:
                power[first + s] *= flow[F_CHARGE] / asked


@inner
def _keep_energy(i, arrays, power):  # type: ignore[no-untyped-def]
    """Move the stored energy; the cost of wear."""
    first, hours, wear = arrays.level.shape[1], arrays.grid[i, G_STEP_H], 0.0
    for s in range(arrays.energy.shape[1]):
        storage = arrays.storage[i, s]
        if storage[S_PRESENT] == 0.0:
            continue
        bus = power[first + s] * hours
        moved = bus * storage[S_IN] if bus > 0.0 else bus / storage[S_OUT]
        kept = storage[S_KEEP] * arrays.energy[i, s]
        arrays.energy[i, s] = min(max(kept + moved, 0.0), storage[S_ENERGY])
        wear += max(-bus, 0.0) * storage[S_WEAR]
    return wear


@inner
def _bill(grid, price, earned, carbon, flow, cost):  # type: ignore[no-untyped-def]
    hours = grid[G_STEP_H]
    cost[C_IMPORTS] = flow[F_IMPORT] * hours * price
    cost[C_EXPORTS] = -flow[F_EXPORT] * hours * earned
    cost[C_CARBON] += flow[F_IMPORT] * hours * carbon * grid[G_CARBON]
    cost[C_UNSERVED] = flow[F_UNSERVED] * hours * grid[G_UNSERVED]
    cost[C_CURTAIL] = flow[F_CURTAILED] * hours * grid[G_CURTAIL]


@inner
def _without_storage(i, arrays, now, paid, earned):  # type: ignore[no-untyped-def]
    """What the step would cost without storages, dispatchables in the order of their cost and free to
    ramp."""
    grid = arrays.grid[i]
    hours, cost, local = grid[G_STEP_H], 0.0, now[SOLAR] + now[WIND]
    for d in range(arrays.level.shape[1]):
        source = arrays.dispatchable[i, d]
        local += source[D_MIN]
        cost += source[D_MIN] * (source[D_COST] + grid[G_CARBON] * source[D_CARBON])
    used_cost = -1e300
    for _ in range(arrays.level.shape[1]):
        best, best_cost = -1, 1e300
        for d in range(arrays.level.shape[1]):
            source = arrays.dispatchable[i, d]
            rate = source[D_COST] + grid[G_CARBON] * source[D_CARBON] + 1e-9 * d
            if source[D_PRESENT] > 0.0 and used_cost < rate < best_cost:
                best, best_cost = d, rate
        if best < 0:
            break
        used_cost = best_cost
        missing = now[LOAD] - local
        if best_cost >= paid:
            missing -= grid[G_IMPORT]
        source = arrays.dispatchable[i, best]
        more = min(max(missing, 0.0), source[D_MAX] - source[D_MIN])
        local += more
        cost += more * best_cost
    missing, surplus = max(now[LOAD] - local, 0.0), max(local - now[LOAD], 0.0)
    imported = min(missing, grid[G_IMPORT])
    exported = min(surplus, grid[G_EXPORT]) if earned >= -grid[G_CURTAIL] else 0.0
    cost += imported * paid - exported * earned + (missing - imported) * grid[G_UNSERVED]
    return hours * (cost + (surplus - exported) * grid[G_CURTAIL])
