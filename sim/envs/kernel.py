"""The autoscaling environment's step and its episodes' beginning, compiled: one pass over N services.

`AutoscaleBatch` calls both. A step is the operator's flow: action, guard, physics, metrics, observation;
then the reward. Services are worked on in blocks, so that what one of them needs stays in the processor's
cache.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt
from numba.np.arrayobj import populate_array

from controller.core import OBSERVATION_SCHEMA
from controller.core.samples import BoolArray
from sim.compiled import counted, inlined, inner
from sim.envs.episodes import (
    E_FIRST,
    E_HEADROOM,
    E_HISTORY,
    E_NODES,
    E_NOISE_SEED,
    E_OFFSET,
    E_PREFERENCE,
    E_SECOND,
    E_SECOND_OFFSET,
    E_SECOND_SHARE,
    E_SERVICE,
    E_SHAPE,
    E_START,
    E_WARM_UP,
)
from sim.envs.rewards import CONSTANT_ROWS, T_CHURN, T_COST, T_SHARE, T_VIOLATION, TERM_ROWS, step_reward
from sim.fused.features import feature_rows
from sim.fused.guarding import D_CURRENT, D_DESIRED, D_FALLBACK, D_HPA, D_RECOMMENDED, conclude_rows, decode
from sim.fused.histories import backfill_row
from sim.fused.histories import reset_rows as reset_engine_rows
from sim.fused.layout import (
    C_CURRENT,
    C_HAS_RATE,
    C_LOAD,
    C_MAX,
    C_MIN,
    C_PREFERENCE,
    C_SYNC,
    EngineArrays,
    FloatArray,
    IntArray,
    make_arrays,
)
from sim.fused.reading import observe_rows
from sim.noise import poisson, uniform
from sim.physics import advance_rows, metrics_rows, place_rows, scale_rows
from sim.physics import reset_rows as reset_physics_rows
from sim.physics.layout import (
    S_ARRIVED,
    S_DROPPED,
    S_P95,
    S_READY,
    S_REPLICA_S,
    S_SERVED,
    S_VIOLATING,
    PhysicsArrays,
    new_arrays,
)
from sim.physics.params import P_CAPACITY, P_START_UP, P_WINDOW
from sim.scenario import COARSE_HISTORY_STEP_S, RECENT_S

Array = npt.NDArray[Any]

BLOCK = 32
"""Services that are worked on at once."""
EPISODE = (
    "now_s", "sync_s", "left", "steps", "preference", "ideal_replicas", "requests_per_s", "direction",
    "reference_cost", "reference_violation", *CONSTANT_ROWS,
    "return", "cost", "violation", "churn", "violating", "dropped", "arrived", "flaps",
)  # fmt: skip
"""Columns of the running episodes. Constants: sync_s, preference, ideal_replicas, requests_per_s (means), the
reference's, the reward's. The last eight are sums since the episode's beginning."""
(N_NOW, N_SYNC, N_LEFT, N_STEPS, N_PREFERENCE, N_IDEAL, N_REQUESTS, N_DIRECTION, N_COST, N_VIOLATION) = range(
    10
)
N_CONSTANTS = 10
(N_SUM_RETURN, N_SUM_COST, N_SUM_VIOLATION, N_SUM_CHURN, N_SUM_VIOLATING, N_SUM_DROPPED, N_SUM_ARRIVED,
 N_SUM_FLAPS) = range(N_CONSTANTS + len(CONSTANT_ROWS), len(EPISODE))  # fmt: skip
INFO = (
    "cost", "violation", "violation_share", "churn", "desired_replicas", "recommended_replicas",
    "ready_replicas", "requests_per_s", "p95_ms", "current_replicas", "hpa_replicas", "fallback", "load",
)  # fmt: skip
"""Columns of what a step tells beside observation and reward."""
(I_COST, I_VIOLATION, I_SHARE, I_CHURN, I_DESIRED, I_RECOMMENDED, I_READY, I_REQUESTS, I_P95, I_CURRENT,
 I_HPA, I_FALLBACK, I_LOAD) = range(len(INFO))  # fmt: skip
_STREAM_HISTORY = 41
_MOST = 1e15
_FIRST_STATE, _STATES = S_ARRIVED, S_P95 - S_ARRIVED + 1


class Work(NamedTuple):
    """Room for a block of services: what the kernels hand one another."""

    recommended: FloatArray
    unfamiliar: BoolArray
    decided: FloatArray
    counts: IntArray
    spans: IntArray
    constant: FloatArray
    signals: FloatArray
    outcomes: IntArray
    before: FloatArray
    now_s: FloatArray
    term: FloatArray
    times: FloatArray
    seen: FloatArray
    no_mask: BoolArray


def make_work(longest: int) -> Work:
    """`longest`: rates or samples of history of an episode, at most."""
    return Work(
        recommended=np.zeros(BLOCK),
        unfamiliar=np.zeros(BLOCK, dtype=np.bool_),
        decided=np.zeros((5, BLOCK)),
        counts=np.zeros(BLOCK, dtype=np.int64),
        spans=np.zeros(BLOCK, dtype=np.int64),
        constant=np.full(BLOCK, -1.0),
        signals=np.zeros((7, BLOCK)),
        outcomes=np.zeros(BLOCK, dtype=np.int8),
        before=np.zeros((BLOCK, _STATES)),
        now_s=np.zeros(BLOCK),
        term=np.zeros(len(TERM_ROWS)),
        times=np.zeros(longest),
        seen=np.zeros(longest),
        no_mask=np.zeros((0, OBSERVATION_SCHEMA.size), dtype=np.bool_),
    )


class State(NamedTuple):
    """All that a batch holds between two steps."""

    rows: IntArray
    table: FloatArray
    settings: FloatArray
    episode: FloatArray
    physics: PhysicsArrays
    engine: EngineArrays
    work: Work


def _parts(state: Any, above: str = "") -> Iterator[tuple[str, Array]]:
    """Every array of a NamedTuple with its name, in order; those of NamedTuples in it too."""
    for name, part in state._asdict().items():
        if isinstance(part, tuple):
            yield from _parts(part, f"{above}{name}.")
        else:
            yield above + name, part


_EXAMPLE = State(
    rows=np.zeros(1, dtype=np.int64),
    table=np.zeros((1, 1)),
    settings=np.zeros(1),
    episode=np.zeros((1, len(EPISODE))),
    physics=new_arrays(1, np.ones(1)),
    engine=make_arrays(1, 1, 1, 1),
    work=make_work(2),
)
"""A state of one service: what compiled code knows of names, order, types and dimensions is taken from it."""
_WIDTH = 5


def addresses(state: State) -> IntArray:
    """Where the arrays of a state are, int64 `[arrays, 5]`: address, then the shape.

    For `step_state`: numba takes 0.1 us for each array that it is given, as much as a tenth of a step. Raises
    TypeError for an array of another type, number of dimensions or order in memory than compiled code takes.
    """
    expected = list(_parts(_EXAMPLE))
    found = np.ones((len(expected), _WIDTH), dtype=np.int64)
    for place, ((name, part), (_, like)) in enumerate(zip(_parts(state), expected, strict=True)):
        if (part.dtype, part.ndim) != (like.dtype, like.ndim) or not part.flags.c_contiguous:
            allowed = f"{like.dtype} of {like.ndim} dimensions, contiguous"
            raise TypeError(f"{name}: {part.dtype} {part.shape}, must be {allowed}")
        found[place, 0] = part.ctypes.data
        found[place, 1 : 1 + part.ndim] = part.shape
    return found


def _type_of(part: Any) -> Any:
    """What numba calls an array, or a NamedTuple of such parts."""
    if isinstance(part, tuple):
        tuples: Any = nb.types.BaseTuple
        return tuples.from_types([_type_of(each) for each in part], type(part))
    return nb.types.Array(nb.from_dtype(part.dtype), part.ndim, "C")


def _read_array(context, builder, kind, table, place):  # type: ignore[no-untyped-def]
    """The array at row `place` of `addresses`, without a copy."""

    def read(column):  # type: ignore[no-untyped-def]
        at = context.get_constant(nb.types.intp, place * _WIDTH + column)
        return builder.load(builder.gep(table.data, [at]))

    shape = [read(1 + each) for each in range(kind.ndim)]  # type: ignore[no-untyped-call]
    size = context.get_constant(nb.types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    strides = [size]
    for length in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], length))
    array = context.make_array(kind)(context, builder)
    data = builder.inttoptr(read(0), array.data.type)  # type: ignore[no-untyped-call]
    pack: Any = nb.core.cgutils.pack_array
    fill: Any = populate_array
    fill(array, data, pack(builder, shape), pack(builder, strides), size, meminfo=None)
    return array._getvalue()


def _read_state(typing_context, found):  # type: ignore[no-untyped-def]
    """The state whose `addresses` are given, as compiled code has it: a `State`."""
    whole = _type_of(_EXAMPLE)

    def lower(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        table = context.make_array(found)(context, builder, arguments[0])
        places = itertools.count()

        def made(kind: Any) -> Any:
            if isinstance(kind, nb.types.Array):
                return _read_array(context, builder, kind, table, next(places))  # type: ignore[no-untyped-call]
            return context.make_tuple(builder, kind, [made(each) for each in kind])

        return made(whole)

    return whole(found), lower


read_state: Any = nb.extending.intrinsic(_read_state)


@counted
def step_state(found, schema, choices, actions, observations, info, rewards):  # type: ignore[no-untyped-def]
    """`step_rows` for every service of the state whose `addresses` are given."""
    s = read_state(found)
    step_rows(
        s.rows, choices, actions, s.table, schema, s.settings, s.physics, s.engine, s.episode, s.work,
        observations, info, rewards,
    )  # fmt: skip


@counted
def step_rows(  # type: ignore[no-untyped-def]
    rows,
    choices,
    actions,
    table,
    schema,
    settings,
    physics,
    engine,
    episode,
    work,
    observations,
    info,
    rewards,
):
    """One control step of these services.

    choices int64 `[N]` into `table` `[K, A]`, or, where that is empty, actions `[N, A]`; settings: the
    reward's. Fills observations float32 `[N, F]`, info `[N, INFO]` and rewards `[N]`.
    """
    for first in range(0, len(rows), BLOCK):
        last = min(first + BLOCK, len(rows))
        part = rows[first:last]
        _decide(part, first, choices, actions, table, schema, physics, engine, episode, work)
        scale_rows(part, work.counts, physics)
        advance_rows(part, work.spans, work.constant, physics)
        _account_rows(part, first, settings, physics, engine, episode, work, info, rewards)
        metrics_rows(part, physics, work.signals)
        observe_rows(part, work.now_s, work.signals, work.outcomes, engine)
        feature_rows(part, engine, observations[first:last], work.no_mask)


@inner
def _decide(  # type: ignore[no-untyped-def]
    part, first, choices, actions, table, schema, physics, engine, episode, work
):
    """Actions to replicas, behind the guard; and what the counters stand at before they are carried out."""
    for k in range(len(part)):
        now = engine.table[part[k]]
        action = table[choices[first + k]] if len(table) > 0 else actions[first + k]
        work.recommended[k] = decode(schema, action, float(math.trunc(now[C_CURRENT])), now[C_LOAD])
    conclude_rows(part, work.recommended, work.unfamiliar, True, engine, work.decided)
    for k in range(len(part)):
        work.counts[k] = int(work.decided[D_DESIRED, k])
        work.spans[k] = int(episode[part[k], N_SYNC])
        for column in range(_STATES):
            work.before[k, column] = physics.state[part[k], _FIRST_STATE + column]


@inner
def _account_rows(  # type: ignore[no-untyped-def]
    part, first, settings, physics, engine, episode, work, info, rewards
):
    for k in range(len(part)):
        _account(part[k], first + k, k, settings, physics, engine, episode, work, info, rewards)
        work.now_s[k] = episode[part[k], N_NOW]


@inlined
def _account(row, place, k, settings, physics, engine, episode, work, info, rewards):  # type: ignore[no-untyped-def]
    """The step's terms, its reward, and the episode's sums."""
    now, told, term = episode[row], info[place], work.term
    sync_s, before = now[N_SYNC], work.before[k]
    arrived = physics.state[row, S_ARRIVED] - before[S_ARRIVED - _FIRST_STATE]
    served = physics.state[row, S_SERVED] - before[S_SERVED - _FIRST_STATE]
    dropped = physics.state[row, S_DROPPED] - before[S_DROPPED - _FIRST_STATE]
    violating = physics.state[row, S_VIOLATING] - before[S_VIOLATING - _FIRST_STATE]
    replica_s = physics.state[row, S_REPLICA_S] - before[S_REPLICA_S - _FIRST_STATE]
    late_ms = physics.state[row, S_P95] - before[S_P95 - _FIRST_STATE]
    desired, current = work.decided[D_DESIRED, k], work.decided[D_CURRENT, k]
    change = desired - current
    term[T_COST] = replica_s / (sync_s * now[N_IDEAL])
    term[T_VIOLATION] = violating / (sync_s * now[N_REQUESTS])
    term[T_SHARE] = min(violating / max(arrived, 1e-9), 1.0)
    term[T_CHURN] = abs(change) / now[N_IDEAL]
    reward = step_reward(settings, term, now[N_CONSTANTS:])
    rewards[place] = reward
    direction = (1.0 if change > 0.0 else -1.0) if change != 0.0 else 0.0
    now[N_SUM_FLAPS] += 1.0 if direction * now[N_DIRECTION] < 0.0 else 0.0
    if direction != 0.0:
        now[N_DIRECTION] = direction
    now[N_NOW] += sync_s
    now[N_LEFT] -= 1.0
    now[N_STEPS] += 1.0
    now[N_SUM_RETURN] += reward
    now[N_SUM_COST] += term[T_COST]
    now[N_SUM_VIOLATION] += term[T_VIOLATION]
    now[N_SUM_CHURN] += term[T_CHURN]
    now[N_SUM_VIOLATING] += violating
    now[N_SUM_DROPPED] += dropped
    now[N_SUM_ARRIVED] += arrived
    told[I_COST], told[I_VIOLATION] = term[T_COST], term[T_VIOLATION]
    told[I_SHARE], told[I_CHURN] = term[T_SHARE], term[T_CHURN]
    told[I_DESIRED], told[I_RECOMMENDED] = desired, work.decided[D_RECOMMENDED, k]
    told[I_CURRENT], told[I_HPA] = current, work.decided[D_HPA, k]
    told[I_FALLBACK], told[I_LOAD] = work.decided[D_FALLBACK, k], engine.table[row, C_LOAD]
    told[I_READY], told[I_REQUESTS] = physics.state[row, S_READY], arrived / sync_s
    told[I_P95] = late_ms / served


@counted
def begin_rows(  # type: ignore[no-untyped-def]
    rows, plans, lengths, params, service_settings, rules, peaks, shapes, physics, engine, episode, work,
    observations,
):  # fmt: skip
    """Begin the planned episodes: plans `[N, PLAN]`, lengths in steps `[N]`, the banks' arrays.

    Leaves the services observed for the first time; their observations float32 `[N, F]` are filled in. The
    reward's constants are the caller's to set.
    """
    for k in range(len(rows)):
        one, row, plan = rows[k : k + 1], rows[k], plans[k]
        service = int(plan[E_SERVICE])
        reset_physics_rows(one, physics)
        reset_engine_rows(one, engine)
        _take_on(row, plan, service, params, service_settings, rules, physics, engine)
        now = engine.table[row]
        rate_rps = stretch_rps(plan, peaks[service], shapes)
        _lay_rates(row, plan, rate_rps, shapes, physics)
        period_s, warm_up = physics.rate_period_s[0], int(plan[E_WARM_UP])
        count = lay_history(plan, rate_rps, period_s, shapes, work.times, work.seen)
        if count > 0:
            covers_s = 2.0 * median_gap_s(work.times, count)
            backfill_row(row, work.times, work.seen, count, covers_s, engine)
            now[C_HAS_RATE] = 1.0
        _refer(row, plan, physics, episode, now, work)
        wanted = np.ceil(physics.rates[row, warm_up] / physics.params[row, P_CAPACITY] / plan[E_HEADROOM])
        work.counts[0] = int(min(max(wanted, now[C_MIN]), now[C_MAX]))
        place_rows(one, work.counts, physics)
        work.spans[0] = int(np.rint(warm_up * period_s))
        advance_rows(one, work.spans, work.constant, physics)
        current = episode[row]
        current[N_NOW], current[N_SYNC], current[N_LEFT] = plan[E_START], now[C_SYNC], lengths[k]
        current[N_STEPS], current[N_DIRECTION], current[N_PREFERENCE] = 0.0, 0.0, plan[E_PREFERENCE]
        current[N_SUM_RETURN:] = 0.0
        work.now_s[0] = current[N_NOW]
        metrics_rows(one, physics, work.signals)
        observe_rows(one, work.now_s, work.signals, work.outcomes, engine)
        feature_rows(one, engine, observations[k : k + 1], work.no_mask)


@inner
def _take_on(row, plan, service, params, service_settings, rules, physics, engine):  # type: ignore[no-untyped-def]
    """A service of the bank, its specification, and the plan's own preference and noise."""
    for column in range(params.shape[1]):
        physics.params[row, column] = params[service, column]
    physics.seeds[row] = np.uint64(plan[E_NOISE_SEED])
    for column in range(service_settings.shape[1]):
        engine.table[row, column] = service_settings[service, column]
    engine.table[row, C_PREFERENCE] = plan[E_PREFERENCE]
    for direction in range(2):
        for each in range(rules.shape[2]):
            for column in range(4):
                engine.rules[row, direction, each, column] = rules[service, direction, each, column]


@inlined
def _shape_at(plan, shapes, place):  # type: ignore[no-untyped-def]
    """The stretch's traffic at one of its bins, of a peak of about 1."""
    first = shapes[int(plan[E_SHAPE]), int(plan[E_OFFSET]) + place]
    share = plan[E_SECOND_SHARE]
    if share == 0.0:
        return float(first)
    second = shapes[int(plan[E_SECOND]), int(plan[E_SECOND_OFFSET]) + place]
    return (1.0 - share) * first + share * second


@inner
def stretch_rps(plan, peak_rps, shapes):  # type: ignore[no-untyped-def]
    """Requests/s of a shape's 1, so that the stretch with its past peaks at `peak_rps`.

    Negative: that many everywhere, in a stretch without traffic.
    """
    peak = 0.0
    for place in range(int(plan[E_FIRST]) + int(plan[E_NODES])):
        peak = max(peak, _shape_at(plan, shapes, place))
    return peak_rps / peak if peak > 1e-9 else -0.5 * peak_rps


@inner
def _lay_rates(row, plan, rate_rps, shapes, physics):  # type: ignore[no-untyped-def]
    """The rates from the warm-up on."""
    first, nodes, rates = int(plan[E_FIRST]), int(plan[E_NODES]), physics.rates[row]
    for place in range(nodes):
        rates[place] = _shape_at(plan, shapes, first + place) * rate_rps if rate_rps > 0.0 else -rate_rps
    rates[nodes:] = rates[nodes - 1]


@inner
def lay_history(plan, rate_rps, period_s, shapes, times, seen):  # type: ignore[no-untyped-def]
    """Past rates with a minute's shot noise: each bin of the last hour, one a minute before. How many."""
    bins, count = int(plan[E_HISTORY]), 0
    seed, stride = np.uint64(plan[E_NOISE_SEED]), max(1, int(np.rint(COARSE_HISTORY_STEP_S / period_s)))
    end_s = plan[E_START] - plan[E_WARM_UP] * period_s
    # the warm-up continues from the last one
    for place in range(bins):
        time_s = end_s - (bins - place) * period_s
        if time_s > end_s - RECENT_S or place % stride == 0:
            rate = _shape_at(plan, shapes, place) * rate_rps if rate_rps > 0.0 else -rate_rps
            times[count] = time_s
            drawn = uniform(seed, place, _STREAM_HISTORY)  # type: ignore[arg-type]
            seen[count] = poisson(min(rate * 60.0, _MOST), drawn) / 60.0
            count += 1
    return count


@inlined
def median_gap_s(times, count):  # type: ignore[no-untyped-def]
    """Median of the gaps between times that come in a row of wide gaps, then in a row of narrow ones."""
    gaps = count - 1
    if gaps < 1:
        return 15.0
    upper = gaps // 2
    lower = upper if gaps % 2 == 1 else upper - 1
    return 0.5 * (times[upper + 1] - times[upper] + times[lower + 1] - times[lower])


@inner
def _refer(row, plan, physics, episode, now, work):  # type: ignore[no-untyped-def]
    """`sim.scenario.reactive_reference` of the episode: what a plain rule would cost and miss."""
    nodes, period_s = int(plan[E_NODES]), physics.rate_period_s[0]
    capacity, least = physics.params[row, P_CAPACITY], now[C_MIN]
    width = max(1, int(np.rint(300.0 / period_s)))
    lead_s = physics.params[row, P_START_UP] + now[C_SYNC] + 0.5 * physics.params[row, P_WINDOW]
    late = max(1, math.ceil(lead_s / period_s))
    kept, ideal, requests, paid, missed, loads = work.times, 0.0, 0.0, 0.0, 0.0, 0.0
    best, where = -1.0, -1
    for place in range(nodes):
        rate = float(physics.rates[row, place])
        if rate >= best:
            best, where = rate, place
        elif where <= place - width:
            best, where = rate, place
            for back in range(1, width):
                if physics.rates[row, place - back] > best:
                    best, where = float(physics.rates[row, place - back]), place - back
        kept[place] = max(1.25 * best / capacity, least)
        given, load = kept[max(place - late, 0)], rate / capacity
        ideal += max(load, least)
        requests += rate
        paid += given
        loads += load
        missed += load if load > given else 0.0
    current = episode[row]
    current[N_IDEAL], current[N_REQUESTS] = ideal / nodes, max(requests / nodes, 1e-6)
    current[N_COST], current[N_VIOLATION] = paid / max(ideal, 1e-9), missed / max(loads, 1e-9)
