"""The balancer's book: what it notes when it sends a batch, gets an answer, or reads a server's metrics.

Compiled, and called one by one: by the twin's kernel (`sim.webbalancing.twin`) for each event, and by the
real face (`sim.webbalancing.real`) for each HTTP answer. So both faces know the same things in the same way.
"""

from __future__ import annotations

import math

from sim.compiled import counted, inner
from sim.webbalancing.layout import FAILED, OK, PENDING, REFUSED

LATENCY_WEIGHT = 0.15
"""Of the newest answer in the EWMA of latencies."""
ERROR_WEIGHT = 0.2
"""Of the newest end in the EWMA of errors."""
SHARE_WEIGHT = 0.1
"""Of the newest batch in the EWMAs of shares, gaps and batches."""
SCRAPE_S = 0.5
"""Time between two readings of a server's metrics."""
KEEP = 0.8
"""Weight of what earlier scrapes saw, at each scrape."""
PRIOR = 10.0
"""Requests that a configured service time counts for, against those that were measured."""
MISSED = 2.0
FORGET = 20.0
"""Reference times after which an error seen counts for 1/e of itself: a server is tried again."""
WORST = 20.0
"""Cost of a request that failed, and the most that a slow one costs; reference times."""
TIMEOUT = 20.0
"""Reference times after which a client gives up."""


@counted
def begin(book, row):  # type: ignore[no-untyped-def]
    """A new episode: nothing is known. workers, service_s and reference_s are set by the caller."""
    book.now[row], book.step[row], book.cost[row] = 0.0, 0, 0.0
    total = 0.0
    for k in range(book.workers.shape[1]):
        total += book.workers[row, k] / book.service_s[row, k]
    for k in range(book.workers.shape[1]):
        book.in_flight[row, k], book.tally[row, k] = 0, 0.0
        book.errors[row, k], book.ended_s[row, k] = 0.0, 0.0
        book.scraped_s[row, k], book.busy[row, k], book.queue[row, k] = 0.0, 0.0, 0.0
        book.seen_s[row, k], book.seen[row, k] = 0.0, 0.0
        book.latency_s[row, k] = math.nan
        book.recent[row, k] = book.workers[row, k] / book.service_s[row, k] / total
    book.gap_s[row] = book.mean_batch[row] = math.nan
    book.status[row, :] = PENDING
    book.latencies[row, :] = math.nan
    book.server[row, :] = -1


@counted
def note_arrival(book, row, now, batch):  # type: ignore[no-untyped-def]
    """A batch has come; it is to be decided on."""
    gap = now - book.now[row]
    if book.step[row] == 0:
        book.mean_batch[row] = batch
    else:
        if math.isnan(book.gap_s[row]):
            book.gap_s[row] = gap
        book.gap_s[row] += SHARE_WEIGHT * (gap - book.gap_s[row])
        book.mean_batch[row] += SHARE_WEIGHT * (batch - book.mean_batch[row])
    book.now[row], book.batch[row] = now, batch


@counted
def note_sent(book, row, server, first):  # type: ignore[no-untyped-def]
    """The batch at hand goes to a server; `first` is the index of its first request."""
    count = book.batch[row]
    book.in_flight[row, server] += count
    book.tally[row, server] += count
    book.server[row, first : first + count] = server
    for k in range(book.recent.shape[1]):
        book.recent[row, k] += SHARE_WEIGHT * ((1.0 if k == server else 0.0) - book.recent[row, k])
    book.step[row] += 1


@counted
def note_end(book, row, request, now, latency_s, status):  # type: ignore[no-untyped-def]
    """A request has ended for its client."""
    server = book.server[row, request]
    book.in_flight[row, server] -= 1
    book.status[row, request], book.latencies[row, request] = status, latency_s
    book.cost[row] += cost_of(latency_s, status, book.reference_s[row])
    book.ended_s[row, server] = now
    failed = 0.0 if status == OK else 1.0
    book.errors[row, server] += ERROR_WEIGHT * (failed - book.errors[row, server])
    if status in (FAILED, REFUSED):
        # an error's latency says nothing of how long an answer takes
        return
    if math.isnan(book.latency_s[row, server]):
        book.latency_s[row, server] = latency_s
    book.latency_s[row, server] += LATENCY_WEIGHT * (latency_s - book.latency_s[row, server])


@counted
def note_scrape(book, row, server, now, busy, queue, service_s, count):  # type: ignore[no-untyped-def]
    """A server's metrics: busy workers over workers, requests waiting, and since the last scrape the service
    seconds of requests that ended, and how many did."""
    book.scraped_s[row, server], book.busy[row, server], book.queue[row, server] = now, busy, queue
    book.seen_s[row, server] = KEEP * book.seen_s[row, server] + service_s
    book.seen[row, server] = KEEP * book.seen[row, server] + count


@inner
def measured_service_s(book, row, server):  # type: ignore[no-untyped-def]
    """What a request takes by the server's metrics; its configuration counts as PRIOR requests seen."""
    total = PRIOR * book.service_s[row, server] + book.seen_s[row, server]
    return total / (PRIOR + book.seen[row, server])


@inner
def believed_down(book, row, server):  # type: ignore[no-untyped-def]
    """Whether its metrics could not be read for MISSED scrapes in a row."""
    return book.now[row] - book.scraped_s[row, server] > MISSED * SCRAPE_S


@inner
def cost_of(latency_s, status, reference_s):  # type: ignore[no-untyped-def]
    """What a request costs: its latency in reference times, at most WORST; WORST if it failed."""
    return WORST if status != OK else min(latency_s / reference_s, WORST)


@inner
def errors_now(book, row, server):  # type: ignore[no-untyped-def]
    """The share of errors that is still believed: what was seen long ago fades."""
    age = max(book.now[row] - book.ended_s[row, server], 0.0) / book.reference_s[row]
    return book.errors[row, server] * math.exp(-age / FORGET)


@inner
def expected_cost(in_flight, workers, service_s, errors, batch, reference_s):  # type: ignore[no-untyped-def]
    """Mean cost of a batch's requests on a server with so many in flight, first come, first served.

    Request j of the batch waits until (in_flight + j - workers) others have ended, one each service_s /
    workers, and is then worked on for service_s.
    """
    total = 0.0
    for j in range(1, batch + 1):
        wait_s = max(in_flight + j - workers, 0) * service_s / workers
        total += min((wait_s + service_s) / reference_s, WORST)
    return (1.0 - errors) * total / batch + errors * WORST


@inner
def expected_costs(book, row, service_s, errors, out):  # type: ignore[no-untyped-def]
    """`expected_cost` of the batch at hand on every server, into out `[S]`. service_s, errors: `[S]`."""
    for k in range(len(out)):
        out[k] = expected_cost(
            book.in_flight[row, k],
            book.workers[row, k],
            service_s[k],
            errors[k],
            book.batch[row],
            book.reference_s[row],
        )
