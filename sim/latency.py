"""Waiting time in a service of parallel replicas: the one formula that every part of the simulator uses.

The wait of M/M/c in Sakasegawa's approximation ("An approximation formula L_q = alpha rho^beta / (1 - rho)",
Annals of the Institute of Statistical Mathematics 29, 1977), with an exponential tail:

    P(W > 0) = rho^e(c),  e(c) = sqrt(2(c+1)) - 1
    P(W > t) = P(W > 0) * exp(-c^pooling * (1 - rho) * t / (burstiness * base))

pooling 1 is one queue before all replicas; below that, a balancer that only sees its own requests pools them
imperfectly. burstiness is (Ca^2 + Cs^2) / 2 of arrivals and service times, as in Kingman's and in Allen and
Cunneen's formula.

That is balancer "pooled", the default, which knows neither how many workers a replica has nor what balances
them. For the others (`balanced_wait`), with k workers a replica, service time s = k / capacity and n = k * c:

    decay = D * (1 - rho) / (1 + imbalance * (1 - rho)),  so that the wait's scale is
    1 / decay = 1 / (D * (1 - rho)) + imbalance / D

| balancer | P(W > 0) | D | imbalance |
|---|---|---|---|
| central | rho^e(n) | n / (b s) | 0 |
| random | rho^e(k) | k / (b s) | 0 |
| round-robin | rho^(e(k) (1 + 1.5 (1-1/c) / sqrt(x))) | k / (b' s) | 0.15 (x-1)^0.6 / b' |
| power-of-two | rho^(2 e(k)) | n / (b s) | 1.0 x^0.4 (c-2) |
| least-request | rho^(e(n) / x), at most rho^(2 e(k)) | n / (b s) | 0.4 x^0.7 (c-2) |

for x proxies, each of which sees only its own requests, and b' = b - (1 - 1/c) / 2.

One queue is M/G/n; a random split of Poisson arrivals gives each replica M/G/k; round robin deals every c-th
request, whose gaps are Erlang-c with Ca^2 = 1/c (all in Allen and Cunneen's form), and which find a replica
idle more often than Poisson arrivals do (Kraemer and Langenbach-Belz, 1976). With two choices a request
waits if both drawn replicas are busy, rho^2 at one worker (Mitzenmacher, "The Power of Two Choices in
Randomized Load Balancing", IEEE TPDS 12, 2001); in heavy traffic both choices work as one pooled queue
(state-space collapse: Foschini and Salz, "A basic dynamic routing problem and diffusion", IEEE Trans. Comm.
26, 1978), which is the first part of 1 / decay, and the second is how far the queues are apart. The numbers
in the last column are fitted to the request level, on the grid of `training/fidelity.py --calibrate`.
"""

from __future__ import annotations

import math

import numba as nb

from sim.compiled import counted

RHO_MAX = 0.98
"""Beyond it no stationary wait exists for long: the backlog carries the overload."""

BALANCERS = ("pooled", "central", "least-request", "power-of-two", "round-robin", "random")
"""By the number that stands for each in `ServiceParams.balancer`."""
POOLED, CENTRAL, LEAST_REQUEST, POWER_OF_TWO, ROUND_ROBIN, RANDOM = range(len(BALANCERS))

# imbalance, and the power of the number of proxies that it grows with; fitted, see above
LEAST_REQUEST_IMBALANCE, LEAST_REQUEST_POWER = 0.4, 0.7
POWER_OF_TWO_IMBALANCE, POWER_OF_TWO_POWER = 1.0, 0.4
ROUND_ROBIN_IMBALANCE, ROUND_ROBIN_POWER = 0.15, 0.6
ROUND_ROBIN_REGULARITY = 1.5
LEAST_BURSTINESS = 0.005
"""Below it a wait is taken for none; keeps decays finite where neither arrivals nor services vary."""
WIDEST_APART = 5.0
"""Limit of imbalance over (c - 1): there the wait is that of a random split at rho 0.8."""


@nb.njit(cache=True, error_model="numpy", inline="always")
def wait_exponent(replicas: float) -> float:
    """The power of rho that P(W > 0) is."""
    return math.sqrt(2.0 * (replicas + 1.0)) - 1.0


@nb.njit(cache=True, error_model="numpy", inline="always")
def wait_decay_per_s(replicas: float, rho: float, pooling: float, burstiness: float, base_s: float) -> float:
    """Rate (1/s) at which the tail of the wait falls."""
    return float(replicas**pooling * (1.0 - rho) / (burstiness * base_s))


@nb.njit(cache=True, error_model="numpy", inline="always")
def workers_of(capacity_rps: float, base_s: float) -> float:
    """Requests that a replica works on at once: what keeps it busy at its base latency, at least one."""
    return max(1.0, math.floor(capacity_rps * base_s + 1e-9))


@counted
def balanced_wait(
    replicas: float, balancer: float, proxies: float, workers: float, burstiness: float, service_s: float
) -> tuple[float, float, float]:
    """The power of rho that P(W > 0) is, the decay at rho 0 (1/s), and the imbalance, of a balancer.

    balancer: CENTRAL..RANDOM. proxies: how many of them see only their own requests. workers: of a replica.
    service_s: for how long a request keeps one of them busy.
    """
    alone, together = wait_exponent(workers), wait_exponent(workers * replicas)
    pooled = workers * replicas / (burstiness * service_s)
    apart = max(replicas - 2.0, 0.0)
    widest = WIDEST_APART * max(replicas - 1.0, 0.0)
    if balancer == CENTRAL:
        return together, pooled, 0.0
    if balancer == LEAST_REQUEST:
        exponent = max(together / proxies, min(2.0 * alone, together))
        return exponent, pooled, min(LEAST_REQUEST_IMBALANCE * proxies**LEAST_REQUEST_POWER * apart, widest)
    if balancer == POWER_OF_TWO:
        exponent = min(2.0 * alone, together)
        return exponent, pooled, min(POWER_OF_TWO_IMBALANCE * proxies**POWER_OF_TWO_POWER * apart, widest)
    if balancer == ROUND_ROBIN:
        dealt = max(burstiness - 0.5 * (1.0 - 1.0 / replicas), LEAST_BURSTINESS)
        imbalance = ROUND_ROBIN_IMBALANCE * (proxies - 1.0) ** ROUND_ROBIN_POWER / dealt
        regular = 1.0 + ROUND_ROBIN_REGULARITY * (1.0 - 1.0 / replicas) / math.sqrt(proxies)
        return alone * regular, workers / (dealt * service_s), imbalance
    return alone, workers / (burstiness * service_s), 0.0


@nb.njit(cache=True, error_model="numpy", inline="always")
def balanced_decay_per_s(decay_idle: float, imbalance: float, rho: float) -> float:
    """Rate (1/s) at which the tail of the wait falls, from what `balanced_wait` gave."""
    return decay_idle * (1.0 - rho) / (1.0 + imbalance * (1.0 - rho))
