"""The arrays of N balancers before S servers each: what the balancer knows, and in the twin what is true.

One NamedTuple, so that compiled code (`book`, `features`, `twin`) reads it; `sim.webbalancing.batch` and
`sim.webbalancing.real` make it with `make_world`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

OK, FAILED, REFUSED, TIMED_OUT, PENDING = range(5)
"""How a request ended: answered, an error answered, turned away or no connection, given up; not yet."""
STATUSES = ("ok", "error", "refused", "timeout", "pending")


class Book(NamedTuple):
    """What a balancer knows. Times are seconds of the episode; NaN: not known yet."""

    now: FloatArray
    """`[N]`."""
    batch: IntArray
    """`[N]`: requests of the batch that is to be sent."""
    step: IntArray
    """`[N]`: batches sent."""
    gap_s: FloatArray
    """`[N]`: EWMA of the time between batches."""
    mean_batch: FloatArray
    """`[N]`: EWMA of batches' sizes."""
    reference_s: FloatArray
    """`[N]`: mean service time of the fleet, as configured: the unit of times."""
    workers: IntArray
    """`[N, S]`: requests that a server works on at once, as configured."""
    service_s: FloatArray
    """`[N, S]`: mean service time, as configured."""
    in_flight: IntArray
    """`[N, S]`: requests sent and not yet back."""
    latency_s: FloatArray
    """`[N, S]`: EWMA over answers."""
    errors: FloatArray
    """`[N, S]`: EWMA over ends of 1 for an error, 0 for an answer."""
    ended_s: FloatArray
    """`[N, S]`: when a request to it ended last."""
    recent: FloatArray
    """`[N, S]`: EWMA of the share of requests sent to it."""
    scraped_s: FloatArray
    """`[N, S]`: when its metrics were read last."""
    busy: FloatArray
    """`[N, S]`: busy workers over workers, as scraped."""
    queue: FloatArray
    """`[N, S]`: requests waiting in it, as scraped."""
    seen_s: FloatArray
    """`[N, S]`: service seconds of its requests by its metrics, older scrapes counting less and less."""
    seen: FloatArray
    """`[N, S]`: of how many requests."""
    cost: FloatArray
    """`[N]`: cost of the requests that ended since the last decision."""
    tally: FloatArray
    """`[N, S]`: requests sent in the episode."""
    status: IntArray
    """`[N, R]`: how each request ended."""
    latencies: FloatArray
    """`[N, R]`: seconds until it ended."""
    server: IntArray
    """`[N, R]`: where it was sent."""


class Truth(NamedTuple):
    """The twin's servers, requests and events. A fault is of one server a row: kind, times, speed, share."""

    arrive_s: FloatArray
    counts: IntArray
    first: IntArray
    """`[N, B + 1]`: index of a batch's first request."""
    sizes: FloatArray
    luck: FloatArray
    fault_kind: IntArray
    fault_server: IntArray
    fault_begin: FloatArray
    fault_end: FloatArray
    fault_speed: FloatArray
    fault_share: FloatArray
    free: FloatArray
    """`[N, S, W]`: when each worker is free."""
    inside: IntArray
    """`[N, S]`: requests in a server, those included whose client has given up."""
    done_s: FloatArray
    """`[N, S]`: service seconds of requests that ended, since the last scrape."""
    done: IntArray
    """`[N, S]`: how many."""
    work_over_s: FloatArray
    """`[N]`: what a request takes of its worker beyond its work."""
    http_over_s: FloatArray
    """`[N]`: what it takes besides."""
    next_scrape: FloatArray
    heap_s: FloatArray
    """`[N, H]`: binary heaps of what is to happen."""
    heap_kind: IntArray
    heap_request: IntArray
    heap_size: IntArray
    service: FloatArray
    """`[N, R]`: seconds that a request is worked on."""


def make_book(rows: int, servers: int, requests: int) -> Book:
    """Empty books. requests: the most that an episode has."""
    whole = dict.fromkeys(("batch", "step"), (rows,))
    numbers = dict.fromkeys(("now", "gap_s", "mean_batch", "reference_s", "cost"), (rows,))
    of_request = {"status", "server", "latencies"}
    of_server = set(Book._fields) - set(whole) - set(numbers) - of_request
    shapes: dict[str, tuple[int, ...]] = {**whole, **numbers}
    shapes |= dict.fromkeys(of_server, (rows, servers)) | dict.fromkeys(of_request, (rows, requests))
    return Book(**_zeros(shapes, {*whole, "workers", "in_flight", "status", "server"}))


def make_truth(rows: int, servers: int, batches: int, requests: int, workers: int) -> Truth:
    """The twin's arrays. workers: the most that a server has."""
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(Truth._fields, (rows,))
    shapes |= dict.fromkeys(("arrive_s", "counts", "first"), (rows, batches + 1))
    shapes |= dict.fromkeys(("sizes", "luck", "service"), (rows, requests))
    shapes |= dict.fromkeys(("inside", "done", "done_s"), (rows, servers))
    shapes |= dict.fromkeys(("heap_s", "heap_kind", "heap_request"), (rows, 2 * requests + 8))
    shapes["free"] = (rows, servers, workers)
    whole = {"counts", "first", "fault_kind", "fault_server", "heap_size", "inside", "done"}
    return Truth(**_zeros(shapes, whole | {"heap_kind", "heap_request"}))


def _zeros(shapes: dict[str, tuple[int, ...]], whole: set[str]) -> dict[str, Any]:
    """Arrays by name, int64 for those in `whole`."""
    return {
        name: np.zeros(shape, dtype=np.int64 if name in whole else np.float64)
        for name, shape in shapes.items()
    }
