"""The agent's observation of the balancer's book: of each server and of the whole, scale-free.

Times are in reference times (the fleet's mean service time) or over the server's own, counts over workers,
so that the unit of time and the size of servers do not matter. Compiled; both faces call `observe`.
"""

from __future__ import annotations

import math

from controller.core import Feature, ObservationSchema
from sim.compiled import counted, inner
from sim.webbalancing.book import errors_now, expected_cost, measured_service_s

SERVER_SCHEMA = ObservationSchema(
    "web-server/v1",
    (
        Feature("capacity", -4, 4, "ln ratio", "requests/s that it can serve, as configured, over the mean"),
        Feature("service", -3, 3, "ln ratio", "service time as configured, over the reference"),
        Feature("in_flight", 0, 5, "ln (1 + ratio)", "requests sent and not back, over workers"),
        Feature("latency", -3, 5, "ln ratio", "EWMA of latencies over its service time; 0: unknown"),
        Feature("errors", 0, 1, "share", "EWMA of errors, fading while nothing ends"),
        Feature("silence", 0, 7, "ln (1 + ratio)", "time since a request to it ended, reference times"),
        Feature("utilisation", 0, 1, "share", "busy workers over workers, as last scraped"),
        Feature("queue", 0, 5, "ln (1 + ratio)", "requests waiting in it as last scraped, over workers"),
        Feature("slowness", -3, 4, "ln ratio", "measured service time over the configured"),
        Feature("scrape_age", 0, 7, "ln (1 + ratio)", "time since its metrics were read, reference times"),
        Feature("share", -1, 1, "share", "recent share of the requests minus its share of the capacity"),
        Feature("expected", -2, 3.2, "ln ratio", "cost expected of this batch on it, by what was measured"),
        Feature("behind", 0, 4, "ln ratio", "that over the least of all servers"),
    ),
)
FLEET_SCHEMA = ObservationSchema(
    "web-fleet/v1",
    (
        Feature("batch", -3, 4, "ln ratio", "requests of this batch over all workers"),
        Feature("load", -4, 3, "ln ratio", "recent requests/s over what all servers can serve"),
        Feature("crowd", 0, 5, "ln (1 + ratio)", "requests in flight over all workers"),
    ),
)
SERVER_FEATURES, FLEET_FEATURES = SERVER_SCHEMA.size, FLEET_SCHEMA.size


@counted
def observe(book, row, low, high, out):  # type: ignore[no-untyped-def]
    """Write the observation into out `[S * 13 + 3]`; low, high: its limits."""
    servers, reference = book.workers.shape[1], book.reference_s[row]
    capacity, workers, in_flight, least = 0.0, 0, 0, math.inf
    for k in range(servers):
        capacity += book.workers[row, k] / book.service_s[row, k]
        workers += book.workers[row, k]
        in_flight += book.in_flight[row, k]
        least = min(least, _expected(book, row, k))
    for k in range(servers):
        _observe_server(book, row, k, capacity, least, out[k * SERVER_FEATURES : (k + 1) * SERVER_FEATURES])
    at = servers * SERVER_FEATURES
    out[at] = math.log(book.batch[row] / workers)
    out[at + 1] = 0.0
    if not math.isnan(book.gap_s[row]):
        rate = book.mean_batch[row] / max(book.gap_s[row], 1e-3 * reference)
        out[at + 1] = math.log(rate / capacity)
    out[at + 2] = math.log1p(max(in_flight, 0) / workers)
    for i in range(len(out)):
        out[i] = min(max(out[i], low[i]), high[i])


@inner
def _expected(book, row, k):  # type: ignore[no-untyped-def]
    return expected_cost(
        book.in_flight[row, k],
        book.workers[row, k],
        measured_service_s(book, row, k),
        errors_now(book, row, k),
        book.batch[row],
        book.reference_s[row],
    )


@inner
def _observe_server(book, row, k, capacity, least, out):  # type: ignore[no-untyped-def]
    servers, reference, workers = book.workers.shape[1], book.reference_s[row], book.workers[row, k]
    service, now, own = book.service_s[row, k], book.now[row], book.workers[row, k] / book.service_s[row, k]
    expected = _expected(book, row, k)
    out[0] = math.log(own * servers / capacity)
    out[1] = math.log(service / reference)
    out[2] = math.log1p(max(book.in_flight[row, k], 0) / workers)
    known = not math.isnan(book.latency_s[row, k])
    out[3] = math.log(max(book.latency_s[row, k], 1e-6) / service) if known else 0.0
    out[4] = errors_now(book, row, k)
    out[5] = math.log1p(max(now - book.ended_s[row, k], 0.0) / reference)
    out[6] = book.busy[row, k]
    out[7] = math.log1p(max(book.queue[row, k], 0.0) / workers)
    out[8] = math.log(max(measured_service_s(book, row, k), 1e-6) / service)
    out[9] = math.log1p(max(now - book.scraped_s[row, k], 0.0) / reference)
    out[10] = book.recent[row, k] - own / capacity
    out[11] = math.log(max(expected, 1e-3))
    out[12] = math.log(max(expected, 1e-3) / max(least, 1e-3))
