"""The simulated servers, compiled: the same requests, the same book, no sockets. `batch` is the caller.

A server works on `workers` requests at once, first come, first served; it turns away what comes when BACKLOG
requests wait. When a request's work begins is known when it comes (Kiefer and Wolfowitz 1955): when the
first worker is free; it then takes size * service_s / speed, a tenth of that if the server fails it. A
client gives up after a timeout, the server does not know and goes on. A server that is down refuses at once
and its metrics cannot be read. What HTTP and a busy
machine add, in the worker's time and outside of it, is `Truth.work_over_s` and `Truth.http_over_s`.
"""

from __future__ import annotations

import math

from sim.compiled import counted, inner
from sim.webbalancing.book import (
    SCRAPE_S,
    TIMEOUT,
    cost_of,
    note_arrival,
    note_end,
    note_scrape,
    note_sent,
)
from sim.webbalancing.episodes import DOWN, ERROR_WORK, FAILING, SLOW
from sim.webbalancing.features import observe
from sim.webbalancing.layout import FAILED, OK, REFUSED, TIMED_OUT

BACKLOG = 64
ENDS, GIVES_UP, ABANDONED = 0, 1, 2
"""Events: a request ends in its server and for its client; for the client alone; in the server alone."""


@counted
def step_rows(book, truth, actions, at_once, rewards, low, high, out, final):  # type: ignore[no-untyped-def]
    """Send each row's batch to the server `actions[row]`, and let time pass until the next one comes.

    at_once: whether `rewards` get the cost of the batch itself, which the twin knows beforehand, instead of
    that of the requests that ended meanwhile. out: observations. final: bool `[N]`, set where it was the
    last decision; the row's requests have then all ended.
    """
    for row in range(len(actions)):
        book.cost[row] = 0.0
        own = _send(book, truth, row, actions[row])
        place = book.step[row]
        _pass_until(book, truth, row, truth.arrive_s[row, place])
        note_arrival(book, row, truth.arrive_s[row, place], truth.counts[row, place])
        observe(book, row, low, high, out[row])
        final[row] = place == truth.arrive_s.shape[1] - 1
        if final[row]:
            _pass_until(book, truth, row, math.inf)
        rewards[row] = own if at_once else book.cost[row]


@inner
def is_on(truth, row, server, at_s, kind):  # type: ignore[no-untyped-def]
    """Whether the row's fault, if it is of this kind, is on the server at a moment."""
    return (
        truth.fault_kind[row] == kind
        and truth.fault_server[row] == server
        and truth.fault_begin[row] <= at_s < truth.fault_end[row]
    )


@inner
def _send(book, truth, row, server):  # type: ignore[no-untyped-def]
    now, first = book.now[row], truth.first[row, book.step[row]]
    cost = 0.0
    note_sent(book, row, server, first)
    for request in range(first, first + book.batch[row]):
        cost += _place(book, truth, row, server, request, now)
    return cost


@inner
def _place(book, truth, row, server, request, now):  # type: ignore[no-untyped-def]
    """Find out how a request will end, put that into the calendar, and return its cost."""
    reference = book.reference_s[row]
    workers = book.workers[row, server]
    if truth.inside[row, server] >= workers + BACKLOG or is_on(truth, row, server, now, DOWN):
        _put(truth, row, now + truth.http_over_s[row], ENDS, request, REFUSED)
        truth.service[row, request] = 0.0
        return cost_of(0.0, REFUSED, reference)
    free = truth.free[row, server]
    worker = 0
    for w in range(1, workers):
        if free[w] < free[worker]:
            worker = w
    start = max(now, free[worker])
    service, status = truth.sizes[row, request] * book.service_s[row, server], OK
    if is_on(truth, row, server, start, SLOW):
        service /= truth.fault_speed[row]
    if is_on(truth, row, server, start, FAILING) and truth.luck[row, request] < truth.fault_share[row]:
        service, status = service * ERROR_WORK, FAILED
    service += truth.work_over_s[row]
    free[worker] = start + service
    truth.inside[row, server] += 1
    truth.service[row, request] = service
    end, timeout = start + service + truth.http_over_s[row], TIMEOUT * reference
    if end - now > timeout:
        _put(truth, row, now + timeout, GIVES_UP, request, TIMED_OUT)
        _put(truth, row, end, ABANDONED, request, TIMED_OUT)
        return cost_of(timeout, TIMED_OUT, reference)
    _put(truth, row, end, ENDS, request, status)
    return cost_of(end - now, status, reference)


@inner
def _pass_until(book, truth, row, until_s):  # type: ignore[no-untyped-def]
    """Let everything happen that happens before a moment; to infinity: until nothing is left."""
    while True:
        event = truth.heap_s[row, 0] if truth.heap_size[row] > 0 else math.inf
        if truth.next_scrape[row] < min(event, until_s):
            _scrape(book, truth, row, truth.next_scrape[row])
            truth.next_scrape[row] += SCRAPE_S
            if truth.heap_size[row] == 0 and until_s == math.inf:
                return
            continue
        if event == math.inf or event > until_s:
            return
        _happen(book, truth, row, event)


@inner
def _happen(book, truth, row, now):  # type: ignore[no-untyped-def]
    code, request = truth.heap_kind[row, 0], truth.heap_request[row, 0]
    _take(truth, row)
    kind, status = code // 8, code % 8
    server = book.server[row, request]
    if kind != ABANDONED:
        arrived = truth.arrive_s[row, _batch_of(truth, row, request)]
        note_end(book, row, request, now, now - arrived, status)
    if kind != GIVES_UP and status != REFUSED:
        truth.inside[row, server] -= 1
        if status != FAILED:
            truth.done[row, server] += 1
            truth.done_s[row, server] += truth.service[row, request]


@inner
def _batch_of(truth, row, request):  # type: ignore[no-untyped-def]
    """The batch that a request belongs to, by bisection."""
    left, right = 0, truth.first.shape[1] - 1
    while left < right:
        middle = (left + right + 1) // 2
        if truth.first[row, middle] <= request:
            left = middle
        else:
            right = middle - 1
    return left


@inner
def _scrape(book, truth, row, now):  # type: ignore[no-untyped-def]
    for server in range(book.workers.shape[1]):
        if is_on(truth, row, server, now, DOWN):
            continue
        workers, busy = book.workers[row, server], 0
        for w in range(workers):
            busy += truth.free[row, server, w] > now
        waiting = max(truth.inside[row, server] - busy, 0)
        seen_s, seen = truth.done_s[row, server], truth.done[row, server]
        note_scrape(book, row, server, now, busy / workers, waiting, seen_s, seen)
        truth.done[row, server], truth.done_s[row, server] = 0, 0.0


@inner
def _put(truth, row, at_s, kind, request, status):  # type: ignore[no-untyped-def]
    times, kinds, requests = truth.heap_s[row], truth.heap_kind[row], truth.heap_request[row]
    place = truth.heap_size[row]
    truth.heap_size[row] += 1
    while place > 0:
        parent = (place - 1) // 2
        if times[parent] <= at_s:
            break
        times[place], kinds[place], requests[place] = times[parent], kinds[parent], requests[parent]
        place = parent
    times[place], kinds[place], requests[place] = at_s, kind * 8 + status, request


@inner
def _take(truth, row):  # type: ignore[no-untyped-def]
    times, kinds, requests = truth.heap_s[row], truth.heap_kind[row], truth.heap_request[row]
    truth.heap_size[row] -= 1
    size = truth.heap_size[row]
    at_s, kind, request = times[size], kinds[size], requests[size]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and times[child + 1] < times[child]:
            child += 1
        if times[child] >= at_s:
            break
        times[place], kinds[place], requests[place] = times[child], kinds[child], requests[child]
        place = child
    times[place], kinds[place], requests[place] = at_s, kind, request
