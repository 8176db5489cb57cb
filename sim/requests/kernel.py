"""One second of a request-level service, compiled: the hot path. Called by `sim.requests.simulator`.

There is no general event heap. A request's wait follows by recursion from when the workers are free
(Lindley 1952 for one, Kiefer and Wolfowitz 1955 for several): a worker takes the next request at
max(arrival, free), and is free again a service time later. With a queue for each replica that is known
when the request comes. With one central queue the order is first come, first served over all workers,
and a request waits in a list while no worker will be free within this second, since replicas may come
or go before the next one.
"""

from __future__ import annotations

from sim.compiled import counted, inlined, inner
from sim.noise import uniform
from sim.requests.balancing import choose, one_more
from sim.requests.draws import BINS, STREAM_ERROR, STREAM_PROXY, moments_in_second, service_share
from sim.requests.events import (
    book_dropped,
    book_served,
    complete_until,
    fit_calendar,
    give_event,
    pop_retry,
    replace_first,
    schedule,
    take_event,
)
from sim.requests.prequal import in_flight_at
from sim.requests.replicas import begin_second, speed
from sim.requests.world import (
    ANSWERED_ERROR,
    CENTRAL,
    GAVE_UP,
    LEAST,
    N_ATTEMPTS,
    N_BALANCER,
    N_CLOCK,
    N_EVEN,
    N_FIRST,
    N_HEAP,
    N_HEAP_WORKERS,
    N_HELD,
    N_IN_FLIGHT,
    N_LAST,
    N_PROXIES,
    N_READY,
    N_RECLAIMABLE,
    N_REFUSES,
    N_STARTING,
    N_TRACKED,
    N_WAITING,
    PREQUAL,
    Q_IDLE,
    Q_REST_S,
    Q_TIMEOUT_S,
    SERVED,
    X_ARRIVED,
    X_DROPPED,
    X_OFFERED,
    X_REPLICA_S,
    X_SERVED,
    X_USED_S,
)

AT_ONCE_S = 1e-3
"""What an error takes that a replica answers without any work."""
LITTLE_S = 1e-9
"""What falls this short before a second's end is booked into the next one."""


@counted
def advance(w, counts, first):  # type: ignore[no-untyped-def]
    """Let the seconds `first`.. of `counts` (new requests in each, int64) pass.

    Returns how many are done: fewer where there is no room for the events of the next one.
    """
    for second in range(first, len(counts)):
        count = counts[second]
        room = len(w.e_time)
        if w.n[N_HELD] + w.n[N_HEAP] + count >= room or count > len(w.moments):
            return second
        if w.n[N_RECLAIMABLE] and len(w.state) - w.n[N_READY] - w.n[N_STARTING] < w.n[N_READY]:
            return second
        _second(w, count)
    return len(counts)


@inner
def _second(w, count):  # type: ignore[no-untyped-def]
    clock = w.n[N_CLOCK]
    end = clock + 1.0
    if w.n[N_TRACKED]:
        fit_calendar(w, count)
        complete_until(w, float(clock))
    begin_second(w)
    refuses = w.n[N_REFUSES] and w.n[N_READY] == 0
    if refuses:
        _refuse_waiting(w, float(clock))
    if w.n[N_WAITING] > 0:
        _serve_waiting(w, float(clock), end)
    moments_in_second(w.moments, count, clock, w.seed[0], w.n[N_ATTEMPTS], not w.n[N_EVEN])
    done = 0
    while True:
        fresh = done < count
        now = w.moments[done] if fresh else end
        if w.n[N_HEAP] > 0 and w.retries[0] < now:
            now, fresh = max(pop_retry(w), float(clock)), False
        elif not fresh:
            # who fails in what is left of the second may come again in it
            _end_until(w, end - LITTLE_S)
            if w.n[N_HEAP] > 0 and w.retries[0] < end:
                continue
            break
        done += fresh
        w.x[X_OFFERED] += fresh
        w.x[X_ARRIVED] += 1.0
        w.n[N_ATTEMPTS] += 1
        _end_until(w, now)
        if refuses:
            book_dropped(w, now)
        elif w.n[N_WAITING] > 0 or w.n[N_READY] == 0 or not _dispatch(w, now, now, w.n[N_ATTEMPTS], end):
            _wait(w, now)
    _close_second(w, clock)


@inlined
def _end_until(w, now):  # type: ignore[no-untyped-def]
    """Let those leave whose time has come by `now`."""
    if w.n[N_TRACKED]:
        complete_until(w, now)
    if w.n[N_WAITING] > 0:
        _expire(w, now)


@inlined
def _dispatch(w, begin, now, index, end):  # type: ignore[no-untyped-def]
    """Send the request that came at `begin` to a replica at `now`; False if it must wait beyond `end`."""
    if w.n[N_BALANCER] == CENTRAL:
        return _dispatch_central(w, begin, index, end)
    proxy = 0
    if w.n[N_PROXIES] > 1:
        proxy = int(uniform(w.seed[0], index, STREAM_PROXY) * w.n[N_PROXIES])
    slot = choose(w, index, proxy, now)
    free = w.free[slot]
    start = max(now, free[0])
    if start - begin > w.q[Q_TIMEOUT_S]:
        _end(w, begin, begin + w.q[Q_TIMEOUT_S], slot, proxy, GAVE_UP)
        return True
    _serve(w, begin, start, slot, proxy, index, free)
    return True


@inlined
def _serve(w, begin, start, slot, proxy, index, free):  # type: ignore[no-untyped-def]
    if _is_error(w, slot, index) and w.fast[slot]:
        _end(w, begin, begin + AT_ONCE_S, slot, proxy, ANSWERED_ERROR)
        return
    service = _service_s(w, slot, start, index)
    if len(free) == 1:
        free[0] = start + service
    else:
        replace_first(free, len(free), start + service)
    _busy(w, start, service)
    kind = SERVED
    if w.failing[slot] or _is_error(w, slot, index):
        kind = ANSWERED_ERROR
    _end(w, begin, start + service + w.q[Q_REST_S], slot, proxy, kind)


@inlined
def _is_error(w, slot, index):  # type: ignore[no-untyped-def]
    return w.errors[slot] > 0.0 and uniform(w.seed[0], index, STREAM_ERROR) < w.errors[slot]


@inlined
def _service_s(w, slot, start, index):  # type: ignore[no-untyped-def]
    workers = w.free.shape[1]
    return workers / (w.rps[slot] * speed(w, slot, start)) * service_share(w.quantiles, w.seed[0], index)


@inlined
def _dispatch_central(w, begin, index, end):  # type: ignore[no-untyped-def]
    slot = w.worker_of[0]
    start = max(begin, w.worker_free[0])
    if start - begin > w.q[Q_TIMEOUT_S]:
        if begin + w.q[Q_TIMEOUT_S] >= end:
            return False
        book_dropped(w, begin + w.q[Q_TIMEOUT_S])
        return True
    if start >= end:
        return False
    service = _service_s(w, slot, start, index)
    _replace_worker(w, start + service)
    _busy(w, start, service)
    kind = SERVED
    if w.failing[slot] or _is_error(w, slot, index):
        kind = ANSWERED_ERROR
    _end(w, begin, start + service + w.q[Q_REST_S], slot, 0, kind)
    return True


@inlined
def _replace_worker(w, free):  # type: ignore[no-untyped-def]
    """The first worker of central's heap is busy until `free`."""
    times, owners, numbers, size = w.worker_free, w.worker_of, w.worker_number, w.n[N_HEAP_WORKERS]
    owner, number, parent = owners[0], numbers[0], 0
    while True:
        child = 2 * parent + 1
        if child >= size:
            break
        if child + 1 < size and times[child + 1] < times[child]:
            child += 1
        if times[child] >= free:
            break
        times[parent], owners[parent], numbers[parent] = times[child], owners[child], numbers[child]
        parent = child
    times[parent], owners[parent], numbers[parent] = free, owner, number


@inlined
def _end(w, begin, end, slot, proxy, kind):  # type: ignore[no-untyped-def]
    """Book the request's end, or put it into the calendar where somebody looks at what is in flight."""
    if not w.n[N_TRACKED]:
        if kind == SERVED:
            book_served(w, begin, end)
        else:
            book_dropped(w, end)
        return
    event = take_event(w)
    w.e_begin[event], w.e_time[event] = begin, end
    w.e_slot[event], w.e_number[event], w.e_proxy[event] = slot, w.number[slot], proxy
    w.e_kind[event] = kind
    if w.n[N_BALANCER] == PREQUAL:
        w.e_rif[event] = in_flight_at(w, slot)
    schedule(w, event)
    w.n[N_IN_FLIGHT] += 1
    if w.n[N_BALANCER] == LEAST:
        one_more(w, proxy, slot)
    else:
        w.in_flight[proxy, slot] += 1


@inlined
def _busy(w, start, service):  # type: ignore[no-untyped-def]
    """Spread a worker's busy time over the seconds that it falls into."""
    ring = w.ahead_busy_s.shape[0]
    last = min(int(start + service), w.n[N_CLOCK] + ring - 1)
    for second in range(int(start), last + 1):
        within = min(start + service, second + 1.0) - max(start, float(second))
        w.ahead_busy_s[second & (ring - 1)] += within


@inner
def _wait(w, now):  # type: ignore[no-untyped-def]
    """Join the list of those whom no replica has yet."""
    event = take_event(w)
    w.e_begin[event], w.e_index[event], w.e_next[event] = now, w.n[N_ATTEMPTS], -1
    if w.n[N_WAITING] == 0:
        w.n[N_FIRST] = event
    else:
        w.e_next[w.n[N_LAST]] = event
    w.n[N_LAST] = event
    w.n[N_WAITING] += 1


@inner
def _serve_waiting(w, now, end):  # type: ignore[no-untyped-def]
    """First come, first served, as far as this second reaches."""
    while w.n[N_WAITING] > 0 and w.n[N_READY] > 0:
        event = w.n[N_FIRST]
        begin = w.e_begin[event]
        # central's workers may have been free before now, but these were not there
        if not _dispatch(w, begin, max(begin, now), w.e_index[event], end):
            return
        _drop_first(w)


@inner
def _refuse_waiting(w, now):  # type: ignore[no-untyped-def]
    """A proxy answers an error where there is no endpoint."""
    while w.n[N_WAITING] > 0:
        _drop_first(w)
        book_dropped(w, now)


@inner
def _drop_first(w):  # type: ignore[no-untyped-def]
    event = w.n[N_FIRST]
    w.n[N_FIRST] = w.e_next[event]
    w.n[N_WAITING] -= 1
    give_event(w, event)


@inner
def _expire(w, now):  # type: ignore[no-untyped-def]
    """Who has waited for his whole patience by `now` gives up."""
    while w.n[N_WAITING] > 0 and w.e_begin[w.n[N_FIRST]] + w.q[Q_TIMEOUT_S] <= now:
        gone = w.e_begin[w.n[N_FIRST]] + w.q[Q_TIMEOUT_S]
        _drop_first(w)
        book_dropped(w, gone)


@inner
def _close_second(w, clock):  # type: ignore[no-untyped-def]
    """Take the second's ends from the ring into the counters, and bill."""
    row = clock & (w.ahead.shape[0] - 1)
    served = 0
    counts = w.ahead[row]
    for k in range(BINS):
        if counts[k] > 0:
            served += counts[k]
            w.histogram[k] += counts[k]
            counts[k] = 0
    w.x[X_SERVED] += served
    w.x[X_DROPPED] += w.ahead_dropped[row]
    ready, workers = w.n[N_READY], w.free.shape[1]
    w.x[X_USED_S] += ready * w.q[Q_IDLE] + (1.0 - w.q[Q_IDLE]) * w.ahead_busy_s[row] / workers
    w.x[X_REPLICA_S] += ready + w.n[N_STARTING]
    w.ahead_dropped[row] = 0
    w.ahead_busy_s[row] = 0.0
    w.n[N_CLOCK] = clock + 1
