"""What becomes of requests: ends in a calendar of coming events, clients that come again, and the books.

Compiled; called by `sim.requests.kernel` and `sim.requests.replicas`. With random and round robin nobody
looks at what is in flight, so a request is booked at once into the second in which it will end. The
other balancers (and crashes) need the ends one by one: a calendar queue (R. Brown, CACM 31, 1988), whose
days hold about one event each, costs the same at every load.
"""

from __future__ import annotations

import math

from sim.compiled import inlined, inner
from sim.noise import uniform
from sim.requests.balancing import one_less
from sim.requests.draws import STREAM_RETRY, bucket
from sim.requests.prequal import remember_latency
from sim.requests.world import (
    CALENDAR,
    FEWEST_SLOTS,
    LEAST,
    N_BALANCER,
    N_CLOCK,
    N_CURSOR,
    N_FREE,
    N_HEAP,
    N_HELD,
    N_IN_FLIGHT,
    N_RETRIED,
    N_SLOTS,
    PREQUAL,
    Q_RETRY_S,
    Q_RETRY_SHARE,
    Q_SLO_S,
    SERVED,
    X_VIOLATING,
)

SHORTEST_RETRY_S = 1e-3


@inlined
def take_event(w):  # type: ignore[no-untyped-def]
    """An event that nobody uses; the caller has seen to it that there is one."""
    event = w.n[N_FREE]
    w.n[N_FREE] = w.e_next[event]
    w.n[N_HELD] += 1
    return event


@inlined
def give_event(w, event):  # type: ignore[no-untyped-def]
    """Back to those that nobody uses."""
    w.e_next[event] = w.n[N_FREE]
    w.n[N_FREE] = event
    w.n[N_HELD] -= 1


@inlined
def _row(w, moment):  # type: ignore[no-untyped-def]
    """Row of the ring for that second; what ends after the ring's last one is booked there."""
    ring = w.ahead.shape[0]
    return max(min(int(moment), w.n[N_CLOCK] + ring - 1), w.n[N_CLOCK]) & (ring - 1)


@inlined
def book_served(w, begin, end):  # type: ignore[no-untyped-def]
    """A request that came at `begin` is answered at `end`."""
    latency = end - begin
    second = _row(w, end)
    w.ahead[second, bucket(latency)] += 1
    if latency > w.q[Q_SLO_S]:
        w.x[X_VIOLATING] += 1.0


@inner
def book_dropped(w, at):  # type: ignore[no-untyped-def]
    """A request fails at `at` (given up, an error, lost with its replica); its client may come again."""
    second = _row(w, at)
    w.ahead_dropped[second] += 1
    w.x[X_VIOLATING] += 1.0
    if w.q[Q_RETRY_SHARE] > 0.0:
        w.n[N_RETRIED] += 1
        chance = uniform(w.seed[0], 2 * w.n[N_RETRIED], STREAM_RETRY)
        if chance < w.q[Q_RETRY_SHARE]:
            wait = -w.q[Q_RETRY_S] * math.log(uniform(w.seed[0], 2 * w.n[N_RETRIED] + 1, STREAM_RETRY))
            push_retry(w, at + max(wait, SHORTEST_RETRY_S))


@inner
def push_retry(w, at):  # type: ignore[no-untyped-def]
    """Onto the binary heap of moments."""
    heap, child = w.retries, w.n[N_HEAP]
    w.n[N_HEAP] += 1
    while child > 0:
        parent = (child - 1) >> 1
        if heap[parent] <= at:
            break
        heap[child] = heap[parent]
        child = parent
    heap[child] = at


@inner
def pop_retry(w):  # type: ignore[no-untyped-def]
    """Take the earliest moment off the heap."""
    heap = w.retries
    first = heap[0]
    w.n[N_HEAP] -= 1
    replace_first(heap, w.n[N_HEAP], heap[w.n[N_HEAP]])
    return first


@inlined
def replace_first(heap, size, value):  # type: ignore[no-untyped-def]
    """Put `value` in the place of a binary heap's smallest."""
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[parent] = heap[child]
        parent = child
    heap[parent] = value


@inlined
def schedule(w, event):  # type: ignore[no-untyped-def]
    """Into the calendar by its `e_time`."""
    slot = max(int(w.e_time[event] * w.n[N_SLOTS]), w.n[N_CURSOR]) & (CALENDAR - 1)
    w.e_next[event] = w.heads[slot]
    w.heads[slot] = event


@inner
def complete_until(w, now):  # type: ignore[no-untyped-def]
    """End every request whose end is at `now` or before."""
    last = int(now * w.n[N_SLOTS])
    if last - w.n[N_CURSOR] >= CALENDAR:
        w.n[N_CURSOR] = last - CALENDAR + 1
    for slot in range(w.n[N_CURSOR], last + 1):
        _complete_slot(w, slot & (CALENDAR - 1), now)
    w.n[N_CURSOR] = last


@inlined
def _complete_slot(w, slot, now):  # type: ignore[no-untyped-def]
    event, before = w.heads[slot], -1
    while event >= 0:
        following = w.e_next[event]
        if w.e_time[event] <= now:
            if before < 0:
                w.heads[slot] = following
            else:
                w.e_next[before] = following
            _complete(w, event)
        else:
            before = event
        event = following


@inlined
def _complete(w, event):  # type: ignore[no-untyped-def]
    leave(w, event)
    if w.n[N_BALANCER] == PREQUAL and w.number[w.e_slot[event]] == w.e_number[event]:
        end = w.e_time[event]
        remember_latency(w, w.e_slot[event], w.e_rif[event], end - w.e_begin[event], end)
    if w.e_kind[event] == SERVED:
        book_served(w, w.e_begin[event], w.e_time[event])
    else:
        book_dropped(w, w.e_time[event])
    give_event(w, event)


@inlined
def leave(w, event):  # type: ignore[no-untyped-def]
    """The request is no longer at its replica, if that still lives."""
    w.n[N_IN_FLIGHT] -= 1
    slot, proxy = w.e_slot[event], w.e_proxy[event]
    if w.number[slot] == w.e_number[event]:
        if w.n[N_BALANCER] == LEAST:
            one_less(w, proxy, slot)
        else:
            w.in_flight[proxy, slot] -= 1


@inner
def lose_requests(w, slot, at):  # type: ignore[no-untyped-def]
    """Every request at this replica fails at `at`. Looks through the whole calendar: crashes are rare."""
    number = w.number[slot]
    for head in range(CALENDAR):
        event, before = w.heads[head], -1
        while event >= 0:
            following = w.e_next[event]
            if w.e_slot[event] == slot and w.e_number[event] == number:
                if before < 0:
                    w.heads[head] = following
                else:
                    w.e_next[before] = following
                w.n[N_IN_FLIGHT] -= 1
                book_dropped(w, at)
                give_event(w, event)
            else:
                before = event
            event = following


@inner
def fit_calendar(w, events_per_s):  # type: ignore[no-untyped-def]
    """Make the calendar's slots so short that about one event falls into each."""
    slots = FEWEST_SLOTS
    while slots < events_per_s and slots < CALENDAR // 2:
        slots *= 2
    if w.n[N_SLOTS] // 4 < slots < w.n[N_SLOTS] * 4:
        return
    chain = -1
    for head in range(CALENDAR):
        event = w.heads[head]
        w.heads[head] = -1
        while event >= 0:
            following = w.e_next[event]
            w.e_next[event] = chain
            chain = event
            event = following
    w.n[N_SLOTS] = slots
    w.n[N_CURSOR] = w.n[N_CLOCK] * slots
    while chain >= 0:
        following = w.e_next[chain]
        schedule(w, chain)
        chain = following
