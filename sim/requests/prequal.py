"""A balancer like Prequal: probes for requests in flight and latency, hot and cold, lexicographic. Compiled.

After Wydrowski, Kleinberg, Rumble and Archer, "Load is not what you should balance: Introducing Prequal"
(NSDI 2024), asynchronous mode, with its default parameters. Each proxy keeps a pool of probes; a request goes
to the probe that is cold (no more requests in flight than the quantile Q_RIF of what probes lately showed)
and has the least latency, or, where all are hot, to the one with the fewest requests in flight. Every request
sends further probes, which cost nothing here and are answered before the next request. Differences: a
replica's latency at a number of requests in flight is the median of the last few there that are not older
than LATENCY_S (the paper says "recent"), and one that has none counts as fast, so that it is tried. Its
heuristics against replicas that fail fast are not here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.compiled import inner
from sim.noise import uniform
from sim.requests.draws import STREAM_PROBE

POOL = 16
PROBES = 3
"""Sent for each request."""
REMOVED = 1
"""Taken out of the pool for each request, the oldest and the worst by turns."""
Q_RIF = 2.0**-0.25
PROBE_S = 1.0
"""After which a probe is too old."""
DELTA = 1.0
"""A probe may be used (1 + DELTA) / ((1 - POOL / replicas) PROBES - REMOVED) times; as often as one likes
where that is not positive."""
SHOWN = 128
"""Probes by which requests in flight are hot or not."""
RIFS, LASTS = 32, 5
"""Latencies are remembered for so many numbers of requests in flight, so many each."""
LATENCY_S = 5.0


class Probes(NamedTuple):
    """What the proxies know; X proxies."""

    slot: npt.NDArray[np.int32]
    """`[X, POOL]`: the replica's place."""
    number: npt.NDArray[np.int64]
    """`[X, POOL]`: its number."""
    rif: npt.NDArray[np.int32]
    """`[X, POOL]`: its requests in flight, and one for each use since."""
    latency: npt.NDArray[np.float64]
    """`[X, POOL]`: seconds."""
    at: npt.NDArray[np.float64]
    """`[X, POOL]`: when it was sent."""
    uses: npt.NDArray[np.int32]
    """`[X, POOL]`."""
    counts: npt.NDArray[np.int64]
    """`[X, 3]`: probes in the pool; requests so far; probes so far."""
    shown: npt.NDArray[np.int32]
    """`[X, SHOWN]`: requests in flight that the last probes showed, a ring."""
    often: npt.NDArray[np.int32]
    """`[X, RIFS]`: how often each number is among them."""


def make_probes(proxies: int) -> Probes:
    """Pools without a probe."""
    each = (proxies, POOL)
    return Probes(
        np.zeros(each, np.int32),
        np.zeros(each, np.int64),
        np.zeros(each, np.int32),
        np.zeros(each),
        np.zeros(each),
        np.zeros(each, np.int32),
        np.zeros((proxies, 3), np.int64),
        np.zeros((proxies, SHOWN), np.int32),
        np.zeros((proxies, RIFS), np.int32),
    )


@inner
def choose_by_probes(w, proxy, ready, drawn, now):  # type: ignore[no-untyped-def]
    """Place of the replica for a request at `now`; then probes are taken out and sent. `drawn`: in (0, 1),
    for the choice without probes."""
    p = w.probes
    _forget_old(w, p, proxy, now)
    slot = w.order[int(drawn * ready)]
    if p.counts[proxy, 0] >= 2:
        best = _best(p, proxy, _hot_above(p, proxy), False)
        slot = p.slot[proxy, best]
        p.uses[proxy, best] += 1
        p.rif[proxy, best] += 1
        if p.uses[proxy, best] >= _most_uses(ready):
            _drop(p, proxy, best)
    p.counts[proxy, 1] += 1
    for _ in range(REMOVED):
        if p.counts[proxy, 0] > 2:
            if p.counts[proxy, 1] % 2 == 0:
                _drop(p, proxy, _oldest(p, proxy))
            else:
                _drop(p, proxy, _best(p, proxy, _hot_above(p, proxy), True))
    for _ in range(min(PROBES, ready)):
        _probe(w, p, proxy, ready, now)
    return slot


@inner
def _most_uses(ready):  # type: ignore[no-untyped-def]
    rate = (1.0 - POOL / ready) * PROBES - REMOVED
    return max(1.0, (1.0 + DELTA) / rate) if rate > 0.0 else np.inf


@inner
def _forget_old(w, p, proxy, now):  # type: ignore[no-untyped-def]
    k = 0
    while k < p.counts[proxy, 0]:
        gone = w.number[p.slot[proxy, k]] != p.number[proxy, k]
        if gone or now - p.at[proxy, k] > PROBE_S:
            _drop(p, proxy, k)
        else:
            k += 1


@inner
def _drop(p, proxy, k):  # type: ignore[no-untyped-def]
    """The last takes its place."""
    p.counts[proxy, 0] -= 1
    last = p.counts[proxy, 0]
    p.slot[proxy, k], p.number[proxy, k] = p.slot[proxy, last], p.number[proxy, last]
    p.rif[proxy, k], p.latency[proxy, k] = p.rif[proxy, last], p.latency[proxy, last]
    p.at[proxy, k], p.uses[proxy, k] = p.at[proxy, last], p.uses[proxy, last]


@inner
def _oldest(p, proxy):  # type: ignore[no-untyped-def]
    oldest = 0
    for k in range(p.counts[proxy, 0]):
        if p.at[proxy, k] < p.at[proxy, oldest]:
            oldest = k
    return oldest


@inner
def _hot_above(p, proxy):  # type: ignore[no-untyped-def]
    """The quantile Q_RIF of the requests in flight that the last probes showed."""
    wanted = Q_RIF * min(p.counts[proxy, 2], SHOWN)
    seen = 0
    for rif in range(RIFS):
        seen += p.often[proxy, rif]
        if seen >= wanted:
            return rif
    return RIFS


@inner
def _best(p, proxy, hot_above, worst):  # type: ignore[no-untyped-def]
    """Place of the best probe, or of the worst one: any cold before any hot, cold ones by latency, hot ones
    by requests in flight."""
    found = 0
    for k in range(1, p.counts[proxy, 0]):
        hot, hot_found = p.rif[proxy, k] > hot_above, p.rif[proxy, found] > hot_above
        if hot != hot_found:
            better = hot_found
            same = False
        elif hot:
            better = p.rif[proxy, k] < p.rif[proxy, found]
            same = p.rif[proxy, k] == p.rif[proxy, found]
        else:
            better = p.latency[proxy, k] < p.latency[proxy, found]
            same = p.latency[proxy, k] == p.latency[proxy, found]
        if not same and better != worst:
            found = k
    return found


@inner
def _probe(w, p, proxy, ready, now):  # type: ignore[no-untyped-def]
    p.counts[proxy, 2] += 1
    sent = p.counts[proxy, 2]
    slot = w.order[int(uniform(w.seed[0], sent, STREAM_PROBE + proxy) * ready)]
    rif = in_flight_at(w, slot)
    place = sent % SHOWN
    if sent > SHOWN:
        p.often[proxy, min(p.shown[proxy, place], RIFS - 1)] -= 1
    p.shown[proxy, place] = rif
    p.often[proxy, min(rif, RIFS - 1)] += 1
    k = 0
    while k < p.counts[proxy, 0] and p.slot[proxy, k] != slot:
        k += 1
    if k == POOL:
        k = _oldest(p, proxy)
    elif k == p.counts[proxy, 0]:
        p.counts[proxy, 0] += 1
    p.slot[proxy, k], p.number[proxy, k] = slot, w.number[slot]
    p.rif[proxy, k], p.latency[proxy, k] = rif, _latency_at(w, slot, rif, now)
    p.at[proxy, k], p.uses[proxy, k] = now, 0


@inner
def in_flight_at(w, slot):  # type: ignore[no-untyped-def]
    """Requests in flight at a replica, of all proxies."""
    count = 0
    for proxy in range(w.in_flight.shape[0]):
        count += w.in_flight[proxy, slot]
    return count


@inner
def remember_latency(w, slot, rif, latency, now):  # type: ignore[no-untyped-def]
    """A request that came to a replica with `rif` others in flight has taken so long (s)."""
    level = min(rif, RIFS - 1)
    place = w.told_count[slot, level] % LASTS
    w.told[slot, level, place], w.told_at[slot, level, place] = latency, now
    w.told_count[slot, level] += 1


@inner
def _latency_at(w, slot, rif, now):  # type: ignore[no-untyped-def]
    """The median latency (s) at the nearest number of requests in flight that is recently known; or 0."""
    level = min(rif, RIFS - 1)
    for off in range(RIFS):
        for k in range(2):
            near = level - off if k == 0 else level + off
            if (off == 0 and k == 1) or near < 0 or near >= RIFS:
                continue
            median = _median(w, slot, near, now)
            if median >= 0.0:
                return median
    return 0.0


@inner
def _median(w, slot, level, now):  # type: ignore[no-untyped-def]
    """The lower median of what is recent, -1 where nothing is."""
    have = min(w.told_count[slot, level], LASTS)
    recent = 0
    for k in range(have):
        recent += now - w.told_at[slot, level, k] <= LATENCY_S
    if recent == 0:
        return -1.0
    found = -1.0
    for k in range(have):
        if now - w.told_at[slot, level, k] > LATENCY_S:
            continue
        below = 0
        for other in range(have):
            if now - w.told_at[slot, level, other] <= LATENCY_S:
                less = w.told[slot, level, other] < w.told[slot, level, k]
                below += less or (w.told[slot, level, other] == w.told[slot, level, k] and other < k)
        if below == (recent - 1) // 2:
            found = w.told[slot, level, k]
    return found
