"""How well batches were balanced: expected costs by what is true, accuracy, Gini, latencies of an episode.

Both faces of the environment use these; `true_costs` knows the fault of the episode, which no balancer does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.compiled import counted
from sim.webbalancing.book import WORST, expected_cost
from sim.webbalancing.episodes import DOWN, ERROR_WORK, FAILING, SLOW
from sim.webbalancing.layout import FAILED, OK, PENDING, REFUSED, TIMED_OUT, Book, FloatArray
from sim.webbalancing.twin import is_on

TIE = 1.001
"""Expected costs this close to the least are as good."""


@counted
def true_costs(book, truth, out):  # type: ignore[no-untyped-def]
    """Expected cost of the batch at hand on every server, by the state that it is really in; out `[N, S]`."""
    for row in range(out.shape[0]):
        now = book.now[row]
        for k in range(out.shape[1]):
            if is_on(truth, row, k, now, DOWN):
                out[row, k] = WORST
                continue
            service, errors = book.service_s[row, k], 0.0
            if is_on(truth, row, k, now, SLOW):
                service /= truth.fault_speed[row]
            if is_on(truth, row, k, now, FAILING):
                errors = truth.fault_share[row]
                service *= 1.0 - errors * (1.0 - ERROR_WORK)
            out[row, k] = expected_cost(
                book.in_flight[row, k],
                book.workers[row, k],
                service,
                errors,
                book.batch[row],
                book.reference_s[row],
            )


def gini(values: FloatArray) -> float:
    """Gini's coefficient of numbers of 0 or more: 0 all equal, (n - 1) / n one has all; 0 if all are 0."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    total, count = ordered.sum(), len(ordered)
    if total <= 0:
        return 0.0
    return float((2 * np.arange(1, count + 1) - count - 1) @ ordered / (count * total))


def episode_figures(book: Book, row: int, requests: int) -> dict[str, float]:
    """An episode's requests in numbers. Latencies are of requests that were answered or given up."""
    status, latency = book.status[row, :requests], book.latencies[row, :requests]
    sent = status != PENDING
    waited = latency[(status == OK) | (status == TIMED_OUT)]
    reference = float(book.reference_s[row])
    cost = np.where(status == OK, np.minimum(latency / reference, WORST), WORST)[sent]
    capacity = book.workers[row] / book.service_s[row]
    known = {"p50_ms": 50.0, "p99_ms": 99.0}
    return {
        "cost": float(cost.mean()) if sent.any() else 0.0,
        "errors": share_of(status, sent),
        "latency_ms": 1000 * float(waited.mean()) if len(waited) else float("nan"),
        **{
            name: 1000 * float(np.percentile(waited, q)) if len(waited) else float("nan")
            for name, q in known.items()
        },
        "gini": gini(book.tally[row] / capacity),
    }


def share_of(status: Any, sent: Any) -> float:
    """Share of the requests that failed in any way."""
    failed = (status == FAILED) | (status == REFUSED) | (status == TIMED_OUT)
    return float(failed[sent].mean()) if sent.any() else 0.0
