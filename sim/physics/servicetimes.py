"""Latency where service times vary: gamma service, and waiting after it, as one distribution.

Called by `advance_rows` in seconds in which `service_cv2` is above 0 or replicas are slow. A served request's
latency is the time `q` that the backlog takes, plus service S, plus the wait W of `sim.latency`, with S and W
independent:

    P(S + W > t) = P(S > t) + P(W > 0) * A(t),   A(t) = E[exp(-kappa (t - S)); S <= t]

S is gamma with mean `base` and squared coefficient of variation `service_cv2`. Its distribution function is
exact at NODES points, which Wilson and Hilferty's cube-root normal approximation (Proceedings of the National
Academy of Sciences 17, 1931) places; between two of them S is taken as uniform, so that with the mass m and
the width d of a cell

    A(t + d) = A(t) exp(-kappa d) + m (1 - exp(-kappa d)) / (kappa d)

Percentiles and shares are read off log-linearly between the nodes, and exponentially beyond the last. Where
replicas are slow, the distribution is a mixture: a request that a slow one serves has the service times of
all others over `slow_share`. Percentiles of a mixture lie between those of its parts, and are searched
there. Against latencies drawn one by one, percentiles are within 3 %.
"""

from __future__ import annotations

import math

from sim.compiled import inner
from sim.elementary import fast_exp, fast_log
from sim.physics.layout import NODES
from sim.physics.params import P_CV2

LOWEST_NODE_SIGMAS, HIGHEST_NODE_SIGMAS = -3.0, 4.5
"""Where the nodes begin and end, in standard deviations of the normal approximation: P(S > last) < 1e-5."""
_ILLINOIS_STEPS, _STEPS, _TOLERANCE = 10, 34, 1e-5
_SERIES_TERMS = 500
_TINY = 1e-290


@inner
def prepare_service_times(service_times, params, i):  # type: ignore[no-untyped-def]
    """Fill the service's nodes for its `service_cv2` > 0, unless they are that already."""
    table, cv2 = service_times[i], params[i, P_CV2]
    if table[0, NODES] == cv2:
        return
    table[0, NODES] = cv2
    width, middle = math.sqrt(cv2) / 3.0, 1.0 - cv2 / 9.0
    lowest = max(LOWEST_NODE_SIGMAS, -middle / width)
    for j in range(NODES):
        sigmas = lowest + (HIGHEST_NODE_SIGMAS - lowest) * (j - 1) / (NODES - 2)
        table[0, j] = 0.0 if j == 0 else max(middle + width * sigmas, 0.0) ** 3
        table[1, j] = gamma_survival(1.0 / cv2, table[0, j] / cv2)


@inner
def gamma_survival(shape, x):  # type: ignore[no-untyped-def]
    """P(G > x) of a gamma variable with scale 1: Abramowitz and Stegun 6.5.29 (series) below shape + 1,
    6.5.31 (continued fraction, by Lentz's method) above."""
    if x <= 0.0:
        return 1.0
    front = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1.0:
        term = total = 1.0 / shape
        for n in range(1, _SERIES_TERMS):
            term *= x / (shape + n)
            total += term
            if term < total * 1e-16:
                break
        return max(1.0 - front * total, 0.0)
    b = x + 1.0 - shape
    c, d = 1.0 / _TINY, 1.0 / b
    fraction = d
    for n in range(1, _SERIES_TERMS):
        numerator = -n * (n - shape)
        b += 2.0
        d = numerator * d + b
        d = 1.0 / (d if abs(d) > _TINY else _TINY)
        c = b + numerator / c
        c = c if abs(c) > _TINY else _TINY
        fraction *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return front * fraction


@inner
def fill_tail(table, waits, decay, tail):  # type: ignore[no-untyped-def]
    """P(S + W > node) into `tail` `[NODES]`; waits: P(W > 0); decay: of its tail, over the mean service."""
    waiting = 0.0
    tail[0] = 1.0
    for j in range(NODES - 1):
        product = decay * (table[0, j + 1] - table[0, j])
        kept = fast_exp(-product)
        mean = (1.0 - kept) / product if product > 1e-6 else 1.0 - 0.5 * product
        waiting = waiting * kept + (table[1, j] - table[1, j + 1]) * mean
        tail[j + 1] = table[1, j + 1] + waits * waiting


@inner
def tail_at(table, waits, decay, tail, t):  # type: ignore[no-untyped-def]
    """P(S + W > t), t over the mean service time; constant service (S = 1) if the table is empty."""
    if t <= 0.0:
        return 1.0
    if table[0, NODES] <= 0.0:
        return 1.0 if t < 1.0 else waits * math.exp(-decay * (t - 1.0))
    if t >= table[0, NODES - 1]:
        slowest = min(decay, 1.0 / table[0, NODES])
        return tail[NODES - 1] * math.exp(-slowest * (t - table[0, NODES - 1]))
    j, above = 0, NODES - 1
    while above - j > 1:
        middle = (j + above) >> 1
        if table[0, middle] <= t:
            j = middle
        else:
            above = middle
    part = (t - table[0, j]) / (table[0, above] - table[0, j])
    return tail[j] * fast_exp(part * fast_log(max(tail[above], _TINY) / tail[j]))


@inner
def time_at(table, waits, decay, tail, share):  # type: ignore[no-untyped-def]
    """The time, over the mean service time, that `share` of the requests exceed."""
    if table[0, NODES] <= 0.0:
        return 1.0 if waits <= share else 1.0 + math.log(waits / share) / decay
    if tail[NODES - 1] > share:
        slowest = min(decay, 1.0 / table[0, NODES])
        return table[0, NODES - 1] + math.log(tail[NODES - 1] / share) / slowest
    j = 0
    while tail[j + 1] > share:
        j += 1
    part = math.log(tail[j] / share) / math.log(tail[j] / max(tail[j + 1], _TINY))
    return table[0, j] + part * (table[0, j + 1] - table[0, j])


@inner
def mixture_at(table, waits, decay, tails, slow_weight, slowness, t):  # type: ignore[no-untyped-def]
    """P(latency > t) where `slow_weight` of the requests have service times `slowness` times as long."""
    usual = tail_at(table, waits, decay, tails[0], t)
    if slow_weight <= 0.0:
        return usual
    slow = tail_at(table, waits, decay * slowness, tails[1], t / slowness)
    return (1.0 - slow_weight) * usual + slow_weight * slow


@inner
def mixture_time(table, waits, decay, tails, slow_weight, slowness, share):  # type: ignore[no-untyped-def]
    """The time, over the usual mean service time, that `share` of the requests of the mixture exceed."""
    low = time_at(table, waits, decay, tails[0], share)
    if slow_weight <= 0.0:
        return low
    high = slowness * time_at(table, waits, decay * slowness, tails[1], share)
    return _between(table, waits, decay, tails, slow_weight, slowness, share, low, high)


@inner
def _between(table, waits, decay, tails, slow_weight, slowness, share, low, high):  # type: ignore[no-untyped-def]
    """Root of ln(P(latency > t) / share): a few steps of the Illinois method, then bisection, for jumps."""
    over = _excess(table, waits, decay, tails, slow_weight, slowness, share, low)
    under = _excess(table, waits, decay, tails, slow_weight, slowness, share, high)
    side = 0
    for step in range(_STEPS):
        if high - low <= _TOLERANCE * high or under >= 0.0:
            break
        weight = over / (over - under) if step < _ILLINOIS_STEPS else 0.5
        middle = low + (high - low) * weight
        excess = _excess(table, waits, decay, tails, slow_weight, slowness, share, middle)
        if abs(excess) < _TOLERANCE:
            return middle
        if excess > 0.0:
            low, over = middle, excess
            under *= 0.5 if side > 0 else 1.0
            side = 1
        else:
            high, under = middle, excess
            over *= 0.5 if side < 0 else 1.0
            side = -1
    return high


@inner
def _excess(table, waits, decay, tails, slow_weight, slowness, share, t):  # type: ignore[no-untyped-def]
    tail = mixture_at(table, waits, decay, tails, slow_weight, slowness, t)
    return fast_log(max(tail, _TINY) / share)
