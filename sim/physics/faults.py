"""What goes wrong with replicas, second by second; compiled, for services that have it switched on.

The number of replicas that it befalls in a second is binomial, by a number drawn from the service's seed and
clock alone: more replicas lose at least as many and keep at least as many, so that runs with different counts
stay comparable.
"""

from __future__ import annotations

import math

from sim.compiled import inlined, inner
from sim.noise import binomial, uniform
from sim.physics.layout import (
    S_CAPACITY,
    S_COLD,
    S_FAILING,
    S_NEIGHBOUR,
    S_READY,
    S_RETRYING,
    S_SLOW,
    STREAM_CRASH,
    STREAM_FAILING,
    STREAM_FAILING_ENDS,
    STREAM_NEIGHBOUR,
    STREAM_NODE,
    STREAM_NODE_ROUNDING,
    STREAM_SLOW,
    STREAM_SLOW_ENDS,
)
from sim.physics.params import (
    P_COLD_SHARE,
    P_CRASHES,
    P_FAILING,
    P_FAILING_S,
    P_NEIGHBOUR,
    P_NEIGHBOUR_S,
    P_NODE_LOSSES,
    P_NODE_SHARE,
    P_RETRY_SHARE,
    P_SLOW,
    P_SLOW_S,
    P_WARMING,
)
from sim.physics.replicas import MOST_REPLICAS, restart

HOUR_S = 3600.0
NOTHING = 1e-9
"""Shares below this are taken for none."""


@inlined
def is_troubled(params, state, i):  # type: ignore[no-untyped-def]
    """Whether the service needs `flow_troubled`: a fault, retries or cold starts are on, or not yet over."""
    return (
        params[i, P_RETRY_SHARE] + params[i, P_CRASHES] + params[i, P_NODE_LOSSES] + params[i, P_SLOW]
        + params[i, P_FAILING] + params[i, P_NEIGHBOUR] > 0.0
        or params[i, P_COLD_SHARE] < 1.0
        or state[i, S_COLD] + state[i, S_SLOW] + state[i, S_FAILING] + state[i, S_NEIGHBOUR] > 0.0
        or state[i, S_RETRYING] > 0.0
    )  # fmt: skip


@inner
def strike(params, state, pending, seed, i, clock):  # type: ignore[no-untyped-def]
    """The faults of second `clock`."""
    if params[i, P_CRASHES] > 0.0 and state[i, S_READY] > 0.0:
        share = _within_a_second(params[i, P_CRASHES] / HOUR_S)
        fallen = binomial(state[i, S_READY], share, uniform(seed, clock, STREAM_CRASH))
        if fallen > 0.0:
            restart(params, state, pending, seed, i, clock, fallen, 0)
    if params[i, P_NODE_LOSSES] > 0.0:
        _lose_node(params, state, pending, seed, i, clock)
    if params[i, P_SLOW] + state[i, S_SLOW] > 0.0:
        _spread(params, state, seed, i, clock, S_SLOW, P_SLOW, P_SLOW_S, STREAM_SLOW, STREAM_SLOW_ENDS)
    if params[i, P_FAILING] + state[i, S_FAILING] > 0.0:
        _spread(
            params,
            state,
            seed,
            i,
            clock,
            S_FAILING,
            P_FAILING,
            P_FAILING_S,
            STREAM_FAILING,
            STREAM_FAILING_ENDS,
        )
    if params[i, P_NEIGHBOUR] + state[i, S_NEIGHBOUR] > 0.0:
        _neighbour(params, state, seed, i, clock)


@inner
def warm_up(params, state, i):  # type: ignore[no-untyped-def]
    """A second's warming of the cold replicas."""
    if state[i, S_COLD] > 0.0:
        still = state[i, S_COLD] * math.exp(-1.0 / params[i, P_WARMING])
        state[i, S_COLD] = still if still > NOTHING * state[i, S_CAPACITY] else 0.0


@inner
def _within_a_second(per_second):  # type: ignore[no-untyped-def]
    """Probability that something happens which happens `per_second` times a second."""
    return -math.expm1(-per_second)


@inner
def _lose_node(params, state, pending, seed, i, clock):  # type: ignore[no-untyped-def]
    if uniform(seed, clock, STREAM_NODE) >= _within_a_second(params[i, P_NODE_LOSSES] / HOUR_S):
        return
    there = params[i, P_NODE_SHARE] * state[i, S_READY]
    fallen = min(math.floor(there + uniform(seed, clock, STREAM_NODE_ROUNDING)), state[i, S_READY])
    if fallen > 0.0:
        restart(params, state, pending, seed, i, clock, fallen, MOST_REPLICAS)


@inner
def _spread(params, state, seed, i, clock, level, often, mean_s, begins, ends):  # type: ignore[no-untyped-def]
    """Replicas enter and leave a state (slow or failing); those that are in the other one don't."""
    inside = state[i, level]
    outside = state[i, S_READY] - state[i, S_SLOW] - state[i, S_FAILING]
    left = 0.0
    if inside > 0.0:
        left = binomial(inside, _within_a_second(1.0 / params[i, mean_s]), uniform(seed, clock, ends))
    entered = 0.0
    if outside > 0.0 and params[i, often] > 0.0:
        share = _within_a_second(params[i, often] / HOUR_S)
        entered = binomial(outside, share, uniform(seed, clock, begins))
    state[i, level] = inside - left + entered


@inner
def _neighbour(params, state, seed, i, clock):  # type: ignore[no-untyped-def]
    u = uniform(seed, clock, STREAM_NEIGHBOUR)
    if state[i, S_NEIGHBOUR] > 0.0:
        state[i, S_NEIGHBOUR] = 0.0 if u < _within_a_second(1.0 / params[i, P_NEIGHBOUR_S]) else 1.0
    else:
        state[i, S_NEIGHBOUR] = 1.0 if u < _within_a_second(params[i, P_NEIGHBOUR] / HOUR_S) else 0.0
