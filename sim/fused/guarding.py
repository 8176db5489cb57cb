"""From an action to replicas in compiled code: the twin of `Engine.decide` and of the whole guard.

The order and meaning of every rule is that of `controller.core.guard` and `controller.core.behavior`.
"""

from __future__ import annotations

import math

import numpy as np

from controller.core import action as act
from controller.core.decision import CAPACITY_UNKNOWN, INVALID_ACTION, METRICS_UNAVAILABLE, POLICY_UNAVAILABLE
from controller.core.hpa import MAX_REPLICAS
from controller.core.observation import MIN_LOAD
from controller.core.table import FALLBACK_CODES
from sim.compiled import inlined, inner
from sim.fused.layout import (
    C_ABSENT,
    C_ACTIVATION,
    C_BUSY_UNTIL,
    C_CAPACITY,
    C_CURRENT,
    C_DOWN_DISABLED,
    C_DOWN_SELECT_MIN,
    C_DOWN_WINDOW,
    C_FAILURES,
    C_FALLBACK,
    C_FALLBACK_REPLICAS,
    C_HPA,
    C_LAST_DESIRED,
    C_LAST_DOWN,
    C_LAST_UP,
    C_LATENCY,
    C_LOAD,
    C_MAX,
    C_MIN,
    C_NEEDS_CAPACITY,
    C_NETWORK,
    C_NEXT_DOWN,
    C_NEXT_RECOMMENDATION,
    C_NEXT_UP,
    C_NOW,
    C_RATE,
    C_REQUEST_RATE,
    C_SLO,
    C_TARGET,
    C_THRESHOLD,
    C_UP_DISABLED,
    C_UP_SELECT_MIN,
    C_UP_WINDOW,
    DOWN,
    R_PERCENT,
    R_PERIOD,
    R_PRESENT,
    R_VALUE,
    UP,
)

SCHEMAS = {"relative-change/v1": 0, "hold-band/v1": 1}
"""Codes of the action schemas that `decode` knows."""
_HPA, _STATIC = FALLBACK_CODES["HPA"], FALLBACK_CODES["Static"]
NO_CHANGE_BELOW, MAX_LOG_HEADROOM = act.NO_CHANGE_BELOW, act.MAX_LOG_HEADROOM
LOWEST_LOAD = MIN_LOAD
D_RECOMMENDED, D_DESIRED, D_HPA, D_FALLBACK, D_CURRENT = range(5)
"""Rows of a matrix of decisions `[5, N]`."""


@inlined
def decode(schema, action, current, load):  # type: ignore[no-untyped-def]
    """Replicas that an action `[A]` of a schema's code stands for, as `controller.core.action` has them."""
    if schema == 0:
        change = action[0]
        if not math.isfinite(change):
            return math.nan
        if abs(change) < NO_CHANGE_BELOW:
            return current
        step = max(1.0, np.rint(abs(change) * current))
        return max(current + (step if change > 0.0 else -step), 0.0)
    low, high = action[0], action[1]
    if math.isnan(low) or math.isnan(high) or math.isnan(load):
        return math.nan
    low = min(max(low, -MAX_LOG_HEADROOM), MAX_LOG_HEADROOM)
    high = min(max(high, -MAX_LOG_HEADROOM), MAX_LOG_HEADROOM)
    base = max(load, LOWEST_LOAD)
    floor = np.ceil(base * math.exp(low))
    ceiling = np.ceil(base * math.exp(max(low, high)))
    return min(max(current, floor), ceiling)


@inner
def decode_rows(rows, schema, actions, engine, recommended):  # type: ignore[no-untyped-def]
    """Recommended replicas float `[N]` of actions `[N, A]` at the last reading."""
    for k in range(len(rows)):
        now = engine.table[rows[k]]
        recommended[k] = decode(schema, actions[k], float(math.trunc(now[C_CURRENT])), now[C_LOAD])


@inner
def conclude_rows(rows, recommended, unfamiliar, record, engine, decided):  # type: ignore[no-untyped-def]
    """Guard recommendations float `[N]` (NaN: nothing said); fills decisions `[5, N]`, rows D_*."""
    for k in range(len(rows)):
        row = rows[k]
        now = engine.table[row]
        chosen, code = _with_fallback(now, recommended[k])
        current = float(math.trunc(now[C_CURRENT]))
        desired = _guard(row, now, current, chosen, unfamiliar[k], engine)
        now[C_LAST_DESIRED] = desired
        if record:
            record_change(row, now[C_NOW], current, desired, engine)
        formula = now[C_HPA]
        decided[D_RECOMMENDED, k], decided[D_DESIRED, k] = chosen, desired
        decided[D_HPA, k] = formula if math.isnan(formula) else min(max(formula, now[C_MIN]), now[C_MAX])
        decided[D_FALLBACK, k], decided[D_CURRENT, k] = code, current


@inner
def record_change(row, now_s, before, after, engine):  # type: ignore[no-untyped-def]
    """Remember a scale that took place, for the rate rules."""
    table = engine.table
    if after > before:
        _append(engine.ups[row], table[row], C_NEXT_UP, now_s, after - before)
        table[row, C_LAST_UP] = now_s
    elif after < before:
        _append(engine.downs[row], table[row], C_NEXT_DOWN, now_s, before - after)
        table[row, C_LAST_DOWN] = now_s


@inlined
def _append(ring, now, column, time_s, value):  # type: ignore[no-untyped-def]
    slot = int(now[column])
    ring[slot, 0], ring[slot, 1] = time_s, value
    now[column] = slot + 1 if slot + 1 < len(ring) else 0


@inlined
def _with_fallback(now, recommended):  # type: ignore[no-untyped-def]
    """What the policy said, or what stands in for it, and why."""
    usable = math.isfinite(now[C_RATE])
    code, network = 0, now[C_NETWORK] > 0.0
    if network and not math.isfinite(recommended):
        code = INVALID_ACTION
    if network and now[C_NEEDS_CAPACITY] > 0.0 and not math.isfinite(now[C_CAPACITY]):
        code = CAPACITY_UNKNOWN
    if now[C_ABSENT] > 0.0:
        code = POLICY_UNAVAILABLE
    if not usable:
        if now[C_FAILURES] < now[C_THRESHOLD]:
            return math.nan, 0
        code = METRICS_UNAVAILABLE
    if code == 0:
        return recommended, code
    if now[C_FALLBACK] == _HPA:
        return now[C_HPA], code
    if now[C_FALLBACK] == _STATIC:
        return max(now[C_FALLBACK_REPLICAS], 0.0 if usable else float(math.trunc(now[C_CURRENT]))), code
    return math.nan, code


@inlined
def _guard(row, now, current, chosen, unfamiliar, engine):  # type: ignore[no-untyped-def]
    said, usable = math.isfinite(chosen), math.isfinite(now[C_RATE])
    least, most = now[C_MIN], now[C_MAX]
    desired = float(math.trunc(min(max(chosen, 0.0), float(MAX_REPLICAS)))) if said else current
    desired = _floors(now, current, desired, usable, unfamiliar)
    asleep = False
    if least == 0.0 and usable:
        asleep = current > 0.0 and now[C_NOW] >= now[C_BUSY_UNTIL] and not unfamiliar
        desired = 0.0 if asleep else _activation(now, current, desired)
    # floors speak where nobody else does, and are damped like anybody
    if (said or desired != current) and least <= current <= most and not (current == 0.0 and least > 0.0):
        stable = _stabilize(row, now, current, desired, engine)
        # the cooldown was the window
        desired = _limit(row, now, current, desired if asleep else stable, engine)
    if current == 0.0 and least > 0.0:
        return 0.0
    if current > most:
        return most
    if current < least:
        return least
    return min(max(desired, least), most)


@inlined
def _floors(now, current, desired, usable, unfamiliar):  # type: ignore[no-untyped-def]
    formula = now[C_HPA] if math.isfinite(now[C_HPA]) else 0.0
    if now[C_LATENCY] > now[C_SLO]:
        desired = max(desired, formula)
    if unfamiliar and usable:
        desired = max(desired, current, formula)
    return desired if usable else max(desired, current)


@inlined
def _activation(now, current, desired):  # type: ignore[no-untyped-def]
    """Scale to and from zero follows the traffic."""
    if current == 0.0:
        desired = 0.0
        if now[C_REQUEST_RATE] > now[C_ACTIVATION]:
            needed = np.ceil(now[C_LOAD] / now[C_TARGET])
            desired = min(max(needed, 1.0), float(MAX_REPLICAS)) if not math.isnan(needed) else 1.0
    if now[C_NOW] >= now[C_BUSY_UNTIL]:
        return desired
    return max(desired, 1.0) if current > 0.0 else desired


@inlined
def _stabilize(row, now, current, desired, engine):  # type: ignore[no-untyped-def]
    """Both stabilisation windows; the raw recommendation is recorded for later ones."""
    ring, slots = engine.recommendations[row], engine.recommendations.shape[1]
    now_s = now[C_NOW]
    newest = int(now[C_NEXT_RECOMMENDATION]) - 1
    if ring[newest if newest >= 0 else slots - 1, 0] == -math.inf:
        _append(ring, now, C_NEXT_RECOMMENDATION, now_s, current)
    up_since, down_since = now_s - now[C_UP_WINDOW], now_s - now[C_DOWN_WINDOW]
    since = min(up_since, down_since)
    lowest, highest = desired, desired
    slot = int(now[C_NEXT_RECOMMENDATION])
    # backwards from the newest: times never fall
    for _ in range(slots):
        slot = slot - 1 if slot > 0 else slots - 1
        time_s, value = ring[slot, 0], ring[slot, 1]
        if time_s <= since:
            break
        if time_s > up_since:
            lowest = min(lowest, value)
        if time_s > down_since:
            highest = max(highest, value)
    _append(ring, now, C_NEXT_RECOMMENDATION, now_s, desired)
    return min(max(current, lowest), highest)


@inlined
def _changes(ring, following, since):  # type: ignore[no-untyped-def]
    """Replicas changed after `since`; `following` is the slot after the newest event."""
    slots, total, slot = len(ring), 0.0, int(following)
    for _ in range(slots):
        slot = slot - 1 if slot > 0 else slots - 1
        if ring[slot, 0] <= since:
            break
        total += ring[slot, 1]
    return total


@inlined
def _limit(row, now, current, desired, engine):  # type: ignore[no-untyped-def]
    """The rate rules of `behavior`."""
    if desired > current:
        if now[C_UP_DISABLED] > 0.0:
            return current
        return min(desired, max(_edge(row, now, current, UP, now[C_UP_SELECT_MIN] > 0.0, engine), current))
    if desired < current:
        if now[C_DOWN_DISABLED] > 0.0:
            return current
        return max(
            desired, min(_edge(row, now, current, DOWN, now[C_DOWN_SELECT_MIN] > 0.0, engine), current)
        )
    return desired


@inlined
def _edge(row, now, current, direction, least_change, engine):  # type: ignore[no-untyped-def]
    """How far the rules of one direction let replicas go."""
    limit, begun = 0.0, False
    for each in range(engine.rules.shape[2]):
        rule = engine.rules[row, direction, each]
        if rule[R_PRESENT] == 0.0:
            continue
        since = now[C_NOW] - rule[R_PERIOD]
        start = current - _changes(engine.ups[row], now[C_NEXT_UP], since)
        start += _changes(engine.downs[row], now[C_NEXT_DOWN], since)
        proposal = _proposal(start, rule, direction)
        # the smaller change is the lower number going up, the higher one going down
        lower = least_change == (direction == UP)
        if not begun:
            limit = proposal
        elif lower:
            limit = min(limit, proposal)
        else:
            limit = max(limit, proposal)
        begun = True
    return limit


@inlined
def _proposal(start, rule, direction):  # type: ignore[no-untyped-def]
    if direction == UP:
        if rule[R_PERCENT] > 0.0:
            # rounded up, or a small service could never grow by a percentage
            return np.ceil(start * (1.0 + rule[R_VALUE] / 100.0))
        return start + rule[R_VALUE]
    if rule[R_PERCENT] > 0.0:
        return float(np.trunc(start * (1.0 - rule[R_VALUE] / 100.0)))
    return start - rule[R_VALUE]
