"""Where everything is in the arrays of the kernels: state, samples, and the table of a chunk of seconds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.physics.params import FIELDS, SCRAPES, START_UP_SLOTS

STATE = (
    "clock_s", "ready", "pending", "capacity_rps", "backlog", "created", "first_entry", "entries",
    "retrying", "cold_rps", "slow", "failing", "neighbour", "draining_s",
    "arrived", "served", "dropped", "violating", "replica_s", "used_s",
    "p50_ms_served", "p95_ms_served", "p99_ms_served", "slo_ms_served", "offered", "restarted",
    "in_flight", "scrapes",
)  # fmt: skip
"""Columns of the state. Levels: clock_s; ready, pending replicas; capacity_rps of the ready ones when warm
and well; backlog (requests); created (replicas ever); first_entry, entries (of `pending`);
retrying (requests that will come again); cold_rps (capacity that warming still lacks); slow, failing (ready
replicas); neighbour (1: there is one); draining_s (replica-seconds that removed replicas still cost, billed
with the next second); in_flight (requests); scrapes. Counters: as in Interval; used_s are
CPU-seconds over the request; *_ms_served percentiles weighted by requests served."""
(S_CLOCK, S_READY, S_PENDING, S_CAPACITY, S_BACKLOG, S_CREATED, S_FIRST, S_ENTRIES,
 S_RETRYING, S_COLD, S_SLOW, S_FAILING, S_NEIGHBOUR, S_DRAINING,
 S_ARRIVED, S_SERVED, S_DROPPED, S_VIOLATING, S_REPLICA_S, S_USED,
 S_P50, S_P95, S_P99, S_PSLO, S_OFFERED, S_RESTARTED,
 S_IN_FLIGHT, S_SCRAPES) = range(len(STATE))  # fmt: skip
COUNTERS = slice(S_ARRIVED, S_IN_FLIGHT)

M_TIME, M_ARRIVED, M_DROPPED, M_USED, M_PSLO, M_SERVED, M_IN_FLIGHT = range(7)

NODES = 32
"""Points at which the distribution of service times is kept."""

CHUNK = 32
"""Seconds that are worked on at once."""
BLOCK = 8
"""Seconds that vectorised loops go by."""
# Columns of the chunk's table, one after the other in one vector: with distances that the compiler knows, it
# needs no check for overlaps and can vectorise.
# fmt: off
(T_RATE, T_UNIFORM, T_NORMAL, T_OFFERED, T_ARRIVED, T_BEFORE, T_LEFT, T_SERVED, T_DROPPED, T_SURE, T_MAYBE,
 T_INVERSE, T_EXPONENT, T_DECAY_IDLE, T_IMBALANCE, T_BASE, T_READY, T_INVERSE_BUSY, T_SLOW_WEIGHT, T_ERRORS,
 T_LOG_WAITS, T_DECAY, T_FLOOR, T_LATE, T_P50, T_P95, T_P99, T_PSLO, T_WAIT) = range(0, 29 * CHUNK, CHUNK)
# fmt: on
TABLE_SIZE = 29 * CHUNK

STREAM_ARRIVALS, STREAM_START_UP, STREAM_CAPACITY, STREAM_SCRAPE = 0, 1, 2, 3
STREAM_READINESS, STREAM_DISPERSION, STREAM_CRASH, STREAM_RESTART, STREAM_RESTART_READINESS = 4, 5, 6, 7, 8
STREAM_NODE, STREAM_NODE_ROUNDING, STREAM_SLOW, STREAM_SLOW_ENDS, STREAM_FAILING = 9, 10, 11, 12, 13
STREAM_FAILING_ENDS, STREAM_NEIGHBOUR = 14, 15


class PhysicsArrays(NamedTuple):
    """All that `ServicePhysics` is made of, as the compiled row kernels take it; N services, R rate series.

    Take it anew from `ServicePhysics.arrays` after `set_rates`, which exchanges the rate table.
    """

    params: npt.NDArray[np.float64]
    """`[N, fields of ServiceParams]`, columns P_*."""
    state: npt.NDArray[np.float64]
    """`[N, STATE]`, columns S_*."""
    seeds: npt.NDArray[np.uint64]
    """`[N]`."""
    pending: npt.NDArray[np.float64]
    """`[N, START_UP_SLOTS, 3]`: a ring from `first_entry`, by time: the second, and the number and joint
    requests/s of the replicas that begin to serve in it."""
    scrapes: npt.NDArray[np.float64]
    """`[N, SCRAPES, 7]`: a ring of samples, columns M_*."""
    service_times: npt.NDArray[np.float64]
    """`[N, 2, NODES + 1]`: service times over their mean, and the probability of a longer one; the last
    column has the service_cv2 that they are of."""
    rates: npt.NDArray[np.float32]
    """`[R, T]`, requests/s."""
    rate_rows: npt.NDArray[np.int64]
    """`[N]`: the series that each service follows."""
    rate_period_s: npt.NDArray[np.float64]
    """`[1]`: seconds between two rates."""
    le_ms: npt.NDArray[np.float64]
    """`[B]`: upper bounds of the latency buckets."""
    histogram: npt.NDArray[np.float64]
    """`[N, B]`: requests at or below them."""


def new_arrays(services: int, le_ms: npt.NDArray[np.float64]) -> PhysicsArrays:
    """Zeroed arrays."""
    return PhysicsArrays(
        params=np.zeros((services, len(FIELDS))),
        state=np.zeros((services, len(STATE))),
        seeds=np.zeros(services, dtype=np.uint64),
        pending=np.zeros((services, START_UP_SLOTS, 3)),
        scrapes=np.zeros((services, SCRAPES, 7)),
        service_times=np.zeros((services, 2, NODES + 1)),
        rates=np.zeros((services, 1), dtype=np.float32),
        rate_rows=np.arange(services, dtype=np.int64),
        rate_period_s=np.ones(1),
        le_ms=le_ms,
        histogram=np.zeros((services, len(le_ms))),
    )


__all__ = [
    "CHUNK",
    "COUNTERS",
    "NODES",
    "STATE",
    "PhysicsArrays",
    "new_arrays",
    *(name for name in globals() if name[:2] in ("S_", "M_")),
]
