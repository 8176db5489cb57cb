"""All that one request-level service is made of, as arrays that compiled code works on.

`World` is made and grown here; `events`, `balancing`, `replicas` and `kernel` are its compiled code,
`sim.requests.simulator` its class.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sim import latency
from sim.errors import require
from sim.physics.replicas import MIN_CAPACITY_SHARE
from sim.requests.draws import BINS, service_quantiles
from sim.requests.prequal import LASTS, RIFS, Probes, make_probes

BALANCERS = latency.BALANCERS[1:]
PREQUAL_LIKE = "prequal-like"
ALL_BALANCERS = (*BALANCERS, PREQUAL_LIKE)
"""central: one queue before all workers. The others send each request to a replica's own queue at once:
the replica with the fewest requests (least-request), the better of two drawn ones (power-of-two), the next
(round-robin), any (random); or by probes (prequal-like), for which the fluid has no formula."""
CENTRAL, LEAST, TWO, ROBIN, RANDOM, PREQUAL = range(len(ALL_BALANCERS))

# columns of World.q: constants, floats
(Q_CAPACITY, Q_BASE_S, Q_SERVICE_S, Q_REST_S, Q_SLO_S, Q_TIMEOUT_S, Q_DRAIN_S, Q_IDLE, Q_START_UP,
 Q_START_UP_SPREAD, Q_CAPACITY_SPREAD, Q_RETRY_SHARE, Q_RETRY_S, Q_READINESS_S, Q_COLD, Q_WARMING_S,
 Q_CRASHES, Q_NODE_LOSSES, Q_NODE_SHARE, Q_SLOW, Q_SLOW_SHARE, Q_SLOW_S, Q_FAILING, Q_FAILING_S,
 Q_NEIGHBOUR, Q_NEIGHBOUR_SHARE, Q_NEIGHBOUR_S, Q_RECLAIMS, Q_SWEEPS, Q_SWEEP_SHARE, Q_NOTICE_S,
 CONSTANTS) = range(32)  # fmt: skip

# columns of World.x: what changes, floats
(X_ARRIVED, X_OFFERED, X_SERVED, X_DROPPED, X_VIOLATING, X_REPLICA_S, X_USED_S, X_NEIGHBOUR,
 LEVELS_OF_STATE) = range(9)  # fmt: skip

# columns of World.n: whole numbers
(N_CLOCK, N_READY, N_STARTING, N_CREATED, N_ATTEMPTS, N_RETRIED, N_FREE, N_HELD, N_HEAP, N_FIRST, N_LAST,
 N_WAITING, N_CURSOR, N_SLOTS, N_HEAP_WORKERS, N_BALANCER, N_PROXIES, N_TRACKED, N_VARIED, N_FAULTY,
 N_EVEN, N_IN_FLIGHT, N_CHANGED, N_DRAWN, N_RECLAIMABLE, N_TOLD, N_REFUSES, NUMBERS) = range(28)  # fmt: skip

EMPTY, STARTING, READY = 0, 1, 2
LEVELS = 512
"""Requests in flight that least-request tells apart; above it replicas count as equally full."""
CALENDAR = 1 << 15
FEWEST_SLOTS = 8
LONGEST_SERVICES, LONGEST_SERVICE_S = 60.0, 600.0
"""How far the accounting looks ahead for the end of a service time that varies: in mean ones, and at most.
What ends later is booked then."""


class World(NamedTuple):
    """One service; M places for replicas, K workers each, X proxies, E events, R seconds ahead."""

    seed: npt.NDArray[np.uint64]
    """`[1]`."""
    q: npt.NDArray[np.float64]
    """Constants, columns Q_*."""
    quantiles: npt.NDArray[np.float64]
    """Of the service time over its mean (`sim.requests.draws.service_quantiles`)."""
    x: npt.NDArray[np.float64]
    """Counters and levels, columns X_*."""
    n: npt.NDArray[np.int64]
    """Whole numbers, columns N_*."""
    state: npt.NDArray[np.int8]
    """`[M]`: EMPTY, STARTING or READY."""
    number: npt.NDArray[np.int64]
    """`[M]`: which replica in order of creation, -1 where there is none."""
    ready_at: npt.NDArray[np.int64]
    """`[M]`: second in which it begins to serve."""
    rps: npt.NDArray[np.float64]
    """`[M]`: its capacity."""
    goes_at: npt.NDArray[np.int64]
    """`[M]`: second in which it is taken back, 0 where it has no notice."""
    slow: npt.NDArray[np.bool_]
    """`[M]`."""
    failing: npt.NDArray[np.bool_]
    """`[M]`."""
    pace: npt.NDArray[np.float64]
    """`[M]`: share of its capacity that it was left by `disturb`."""
    errors: npt.NDArray[np.float64]
    """`[M]`: share of its requests that it answers with an error."""
    fast: npt.NDArray[np.bool_]
    """`[M]`: it answers errors at once, without their work."""
    told: npt.NDArray[np.float64]
    """`[M, RIFS, LASTS]`: latencies (s) of its last requests by the requests in flight when they came."""
    told_at: npt.NDArray[np.float64]
    """`[M, RIFS, LASTS]`: when they were answered."""
    told_count: npt.NDArray[np.int64]
    """`[M, RIFS]`: how many there were."""
    probes: Probes
    """What prequal-like proxies know."""
    free: npt.NDArray[np.float64]
    """`[M, K]`: when each worker is free, a heap for each replica (not for central)."""
    order: npt.NDArray[np.int32]
    """`[M]`: the ready replicas, oldest first."""
    in_flight: npt.NDArray[np.int32]
    """`[X, M]`: requests that each proxy has at each replica."""
    rank: npt.NDArray[np.int32]
    """`[X, M]`: the ready replicas by `in_flight`, ascending."""
    place: npt.NDArray[np.int32]
    """`[X, M]`: where in `rank` each is."""
    low: npt.NDArray[np.int32]
    """`[X, LEVELS + 1]`: where in `rank` each number of requests begins."""
    turn: npt.NDArray[np.int64]
    """`[X]`: round robin's next."""
    worker_free: npt.NDArray[np.float64]
    """`[M * K]`: central's heap of workers by when they are free."""
    worker_of: npt.NDArray[np.int32]
    """`[M * K]`: the place of its replica."""
    worker_number: npt.NDArray[np.int64]
    """`[M * K]`: the number of its replica."""
    fill: npt.NDArray[np.int32]
    """`[M]`: zeros, to count in."""
    e_time: npt.NDArray[np.float64]
    """`[E]`: when an event falls due (an end), or when a waiting request came."""
    e_begin: npt.NDArray[np.float64]
    """`[E]`: when the request came."""
    e_slot: npt.NDArray[np.int32]
    """`[E]`: its replica's place."""
    e_number: npt.NDArray[np.int64]
    """`[E]`: its replica's number."""
    e_index: npt.NDArray[np.int64]
    """`[E]`: which attempt in the service's life."""
    e_rif: npt.NDArray[np.int32]
    """`[E]`: requests in flight at its replica when it came."""
    e_proxy: npt.NDArray[np.int16]
    """`[E]`: through which proxy."""
    e_kind: npt.NDArray[np.int8]
    """`[E]`: SERVED, GAVE_UP or ANSWERED_ERROR."""
    e_next: npt.NDArray[np.int32]
    """`[E]`: next in its list, -1 at the end."""
    heads: npt.NDArray[np.int32]
    """`[CALENDAR]`: lists of events by when they fall due."""
    retries: npt.NDArray[np.float64]
    """`[E]`: heap of moments at which clients come again."""
    ahead: npt.NDArray[np.int32]
    """`[R, BINS]`: requests served in each coming second (a ring), by latency bucket."""
    ahead_dropped: npt.NDArray[np.int64]
    """`[R]`: given up, failed."""
    ahead_busy_s: npt.NDArray[np.float64]
    """`[R]`: workers' busy seconds."""
    histogram: npt.NDArray[np.float64]
    """`[BINS]`: requests served since the start."""
    moments: npt.NDArray[np.float64]
    """`[A]`: arrivals of the second at hand."""


SERVED, GAVE_UP, ANSWERED_ERROR = 0, 1, 2


def make_world(
    q: npt.NDArray[np.float64], cv2: float, balancer: str, proxies: int, seed: int, replicas: int, even: bool
) -> World:
    """A service with room for `replicas`, none made yet, at clock 0."""
    require(balancer in ALL_BALANCERS, "balancer", balancer, f"one of {', '.join(ALL_BALANCERS)}")
    require(1 <= proxies <= 1000, "proxies", proxies, "in 1..1000")
    code = ALL_BALANCERS.index(balancer)
    workers = int(latency.workers_of(q[Q_CAPACITY], q[Q_BASE_S]))
    ahead = 1 << math.ceil(math.log2(_longest_s(q, cv2) + 4))
    crashing = q[Q_CRASHES] > 0 or q[Q_NODE_LOSSES] > 0
    n = np.zeros(NUMBERS, dtype=np.int64)
    n[N_FREE], n[N_FIRST], n[N_LAST] = -1, -1, -1
    n[N_BALANCER], n[N_PROXIES] = code, 1 if code == CENTRAL else proxies
    n[N_TRACKED] = code in (LEAST, TWO, PREQUAL) or crashing
    n[N_VARIED] = q[Q_COLD] < 1 or q[Q_SLOW] > 0 or q[Q_NEIGHBOUR] > 0
    n[N_FAULTY] = crashing or q[Q_SLOW] > 0 or q[Q_FAILING] > 0 or q[Q_NEIGHBOUR] > 0
    n[N_RECLAIMABLE] = q[Q_RECLAIMS] > 0 or q[Q_SWEEPS] > 0
    n[N_EVEN], n[N_SLOTS] = even, FEWEST_SLOTS
    world = World(
        seed=np.array([seed], dtype=np.uint64),
        q=q,
        quantiles=service_quantiles(cv2),
        x=np.zeros(LEVELS_OF_STATE),
        n=n,
        turn=np.zeros(int(n[N_PROXIES]), dtype=np.int64),
        low=np.zeros((int(n[N_PROXIES]), LEVELS + 1), dtype=np.int32),
        probes=make_probes(int(n[N_PROXIES])),
        heads=np.full(CALENDAR, -1, dtype=np.int32),
        ahead=np.zeros((ahead, BINS), dtype=np.int32),
        ahead_dropped=np.zeros(ahead, dtype=np.int64),
        ahead_busy_s=np.zeros(ahead),
        histogram=np.zeros(BINS),
        moments=np.zeros(0),
        **_replica_arrays(0, workers, int(n[N_PROXIES])),
        **_event_arrays(0),
    )
    return with_events(with_replicas(world, max(replicas, 8)), 1024)


def _longest_s(q: npt.NDArray[np.float64], cv2: float) -> float:
    """From a request's arrival to its end, as far as the accounting looks ahead."""
    share = MIN_CAPACITY_SHARE * q[Q_COLD]
    if q[Q_SLOW] > 0:
        share *= q[Q_SLOW_SHARE]
    if q[Q_NEIGHBOUR] > 0:
        share *= 1.0 - q[Q_NEIGHBOUR_SHARE]
    service_s = q[Q_SERVICE_S] / share * (LONGEST_SERVICES if cv2 > 0 else 1.0)
    return float(q[Q_TIMEOUT_S] + q[Q_BASE_S] + min(service_s, LONGEST_SERVICE_S))


def _replica_arrays(places: int, workers: int, proxies: int) -> dict[str, Any]:
    return {
        "state": np.zeros(places, dtype=np.int8),
        "number": np.full(places, -1, dtype=np.int64),
        "ready_at": np.zeros(places, dtype=np.int64),
        "rps": np.zeros(places),
        "goes_at": np.zeros(places, dtype=np.int64),
        "slow": np.zeros(places, dtype=np.bool_),
        "failing": np.zeros(places, dtype=np.bool_),
        "pace": np.ones(places),
        "errors": np.zeros(places),
        "fast": np.zeros(places, dtype=np.bool_),
        "told": np.zeros((places, RIFS, LASTS)),
        "told_at": np.zeros((places, RIFS, LASTS)),
        "told_count": np.zeros((places, RIFS), dtype=np.int64),
        "free": np.zeros((places, workers)),
        "order": np.zeros(places, dtype=np.int32),
        "in_flight": np.zeros((proxies, places), dtype=np.int32),
        "rank": np.zeros((proxies, places), dtype=np.int32),
        "place": np.zeros((proxies, places), dtype=np.int32),
        "worker_free": np.zeros(places * workers),
        "worker_of": np.zeros(places * workers, dtype=np.int32),
        "worker_number": np.full(places * workers, -1, dtype=np.int64),
        "fill": np.zeros(places, dtype=np.int32),
    }


def _event_arrays(events: int) -> dict[str, Any]:
    return {
        "e_time": np.zeros(events),
        "e_begin": np.zeros(events),
        "e_slot": np.zeros(events, dtype=np.int32),
        "e_number": np.zeros(events, dtype=np.int64),
        "e_index": np.zeros(events, dtype=np.int64),
        "e_rif": np.zeros(events, dtype=np.int32),
        "e_proxy": np.zeros(events, dtype=np.int16),
        "e_kind": np.zeros(events, dtype=np.int8),
        "e_next": np.full(events, -1, dtype=np.int32),
        "retries": np.zeros(events),
    }


def with_replicas(world: World, places: int) -> World:
    """The same service with room for at least so many replicas (starting and ready)."""
    have = len(world.state)
    if have >= places:
        return world
    more = _replica_arrays(max(places, 2 * have), world.free.shape[1], world.in_flight.shape[0])
    for name, array in more.items():
        old = getattr(world, name)
        array[tuple(slice(size) for size in old.shape)] = old
    return world._replace(**more)


def with_events(world: World, events: int) -> World:
    """The same service with room for at least so many requests that wait, are served or come again."""
    have = len(world.e_time)
    if have >= events:
        return world
    more = _event_arrays(max(events, 2 * have))
    for name, array in more.items():
        array[:have] = getattr(world, name)
    grown = world._replace(**more)
    for event in range(have, len(grown.e_time)):
        grown.e_next[event] = event + 1
    grown.e_next[-1] = grown.n[N_FREE]
    grown.n[N_FREE] = have
    return grown


def with_moments(world: World, arrivals: int) -> World:
    """The same service with room for so many arrivals in one second."""
    if len(world.moments) >= arrivals:
        return world
    return world._replace(moments=np.zeros(max(arrivals, 2 * len(world.moments), 256)))
