"""Which replica a request goes to, with what its proxy knows. Compiled; called by `sim.requests.kernel`.

Least-request keeps the ready replicas sorted by their requests in flight; one more or one less is a
swap with the end of a run of equals, so that a choice costs the same at any number of replicas.
"""

from __future__ import annotations

from sim.compiled import inlined, inner
from sim.noise import uniform
from sim.requests.draws import STREAM_BALANCER
from sim.requests.prequal import choose_by_probes
from sim.requests.world import LEAST, LEVELS, N_BALANCER, N_PROXIES, N_READY, PREQUAL, RANDOM, ROBIN


@inlined
def choose(w, index, proxy, now):  # type: ignore[no-untyped-def]
    """Place of the replica for attempt `index` at `now`; there must be a ready one."""
    ready, balancer = w.n[N_READY], w.n[N_BALANCER]
    if balancer == ROBIN:
        w.turn[proxy] += 1
        return w.order[w.turn[proxy] % ready]
    drawn = uniform(w.seed[0], index, STREAM_BALANCER)
    if balancer == LEAST:
        fewest = min(w.in_flight[proxy, w.rank[proxy, 0]], LEVELS - 1)
        return w.rank[proxy, int(drawn * w.low[proxy, fewest + 1])]
    if balancer == PREQUAL:
        return choose_by_probes(w, proxy, ready, drawn, now)
    first = int(drawn * ready)
    if balancer == RANDOM or ready == 1:
        return w.order[first]
    second = int((drawn * ready - first) * (ready - 1))
    second += second >= first
    one, other = w.order[first], w.order[second]
    return one if w.in_flight[proxy, one] <= w.in_flight[proxy, other] else other


@inlined
def one_more(w, proxy, slot):  # type: ignore[no-untyped-def]
    """A request goes to this replica."""
    count = w.in_flight[proxy, slot]
    w.in_flight[proxy, slot] = count + 1
    if count < LEVELS - 1:
        w.low[proxy, count + 1] -= 1
        _swap(w, proxy, slot, w.low[proxy, count + 1])


@inlined
def one_less(w, proxy, slot):  # type: ignore[no-untyped-def]
    """A request has left this (ready) replica."""
    count = w.in_flight[proxy, slot]
    w.in_flight[proxy, slot] = count - 1
    if count < LEVELS:
        _swap(w, proxy, slot, w.low[proxy, count])
        w.low[proxy, count] += 1


@inlined
def _swap(w, proxy, slot, to):  # type: ignore[no-untyped-def]
    place, other = w.place[proxy, slot], w.rank[proxy, to]
    w.rank[proxy, place], w.place[proxy, other] = other, place
    w.rank[proxy, to], w.place[proxy, slot] = slot, to


@inner
def sort_by_requests(w):  # type: ignore[no-untyped-def]
    """Make the order of least-request anew, after replicas came or went."""
    if w.n[N_BALANCER] != LEAST:
        return
    ready = w.n[N_READY]
    for proxy in range(w.n[N_PROXIES]):
        low = w.low[proxy]
        low[:] = 0
        for k in range(ready):
            low[min(w.in_flight[proxy, w.order[k]], LEVELS - 1) + 1] += 1
        for level in range(LEVELS):
            low[level + 1] += low[level]
        for k in range(ready):
            slot = w.order[k]
            level = min(w.in_flight[proxy, slot], LEVELS - 1)
            w.rank[proxy, low[level]] = slot
            w.place[proxy, slot] = low[level]
            low[level] += 1
        # each start has moved to its end: one back
        for level in range(LEVELS, 0, -1):
            low[level] = low[level - 1]
        low[0] = 0
