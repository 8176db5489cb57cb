"""Queueing theory: the least replicas whose wait stays within the objective, by inverting Erlang C.

Sources: Erlang (1917) for M/M/c; the recursion of Erlang B and C from it: Cooper, Introduction to
Queueing Theory, 2nd ed., 3.4; square-root staffing: Halfin and Whitt, Operations Research 29(3), 1981.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from controller.core.formulas.base import FormulaPolicy, require
from controller.core.hpa import MAX_REPLICAS
from controller.core.observation import FINE_STEP_S, HOUR_S
from controller.core.samples import BoolArray, FloatArray

if TYPE_CHECKING:
    from controller.core.view import View

DEVIATIONS_BELOW = 9.0
"""The recursion forgets where it began: begun this many sqrt(a) below a, its error is below 1e-16."""
HIGHEST_BETA = 40.0
BISECTIONS = 14
MOST_LIKELY_WAIT = 0.5
PREFERENCE_DECADE = 25.0


@dataclass(frozen=True)
class ErlangCPolicy(FormulaPolicy):
    """Least c with P(wait > slack) = C(c, a) exp(-(c - a) slack / service time) <= p, in M/M/c.

    A replica is `requests_at_once` servers; a server's mean service time is requests_at_once / (capacity x
    target utilisation), and a the offered load in servers: the largest load of the last `load_window_s`, over
    the target utilisation. slack is the latency objective less a service time, at least 0 (0 too without
    an objective, or without request rates: then p bounds the probability of any wait).

    p is the dial: (1 - percentile) x 10^((50 - preference) / 25), at most 0.5. `preference` 50 asks for the
    objective's own share of slow requests, 0 for a hundred times it, 100 for a hundredth.
    `wait_probability` sets p itself and leaves preference out.

    The textbook formula is `objective.targetUtilization: 100`. It assumes a steady load, one queue before
    all servers and a capacity that is exactly known; a lower target is the headroom for what it leaves out.

    - `requests_at_once` (default 1): requests that one replica serves side by side.
    - `load_window_s` (default 300): replicas started now must carry what may come back while they start.
    """

    wait_probability: float | None = None
    requests_at_once: int = 1
    load_window_s: float = 300.0

    name = "ErlangC"

    def __post_init__(self) -> None:
        given = self.wait_probability
        require(given is None or 0 < given < 1, "waitProbability", given, "between 0 and 1, both excluded")
        require(1 <= self.requests_at_once <= 1000, "requestsAtOnce", self.requests_at_once, "in 1..1000")
        require(
            FINE_STEP_S <= self.load_window_s <= HOUR_S,
            "loadWindowSeconds",
            self.load_window_s,
            f"in {FINE_STEP_S:.0f}..{HOUR_S:.0f}",
        )

    def recommend(self, view: View) -> FloatArray:
        """Replicas by Erlang C, at most maxReplicas; NaN without a load."""
        bins = max(1, round(self.load_window_s / FINE_STEP_S))
        highest = np.fmax(view.load, np.fmax.reduce(view.fine(bins), axis=1))
        offered = np.nan_to_num(highest) * self.requests_at_once / view.target_utilisation
        servers = least_servers(
            offered, self._slack(view), self._probability(view), view.max_replicas * self.requests_at_once
        )
        return np.where(np.isnan(view.load), np.nan, np.ceil(servers / self.requests_at_once))

    def _slack(self, view: View) -> FloatArray:
        """What the objective leaves for waiting, in mean service times of a server."""
        service_s = self.requests_at_once / (view.capacity_rps * view.target_utilisation)
        slack = view.slo_latency_ms / 1000.0 / service_s - 1.0
        return np.where(np.isfinite(slack), np.maximum(slack, 0.0), 0.0)

    def _probability(self, view: View) -> FloatArray:
        if self.wait_probability is not None:
            return np.full(len(view), self.wait_probability)
        share = 1.0 - view.slo_percentile / 100.0
        return np.minimum(share * 10.0 ** ((50.0 - view.preference) / PREFERENCE_DECADE), MOST_LIKELY_WAIT)


def least_servers(
    offered: FloatArray, slack: FloatArray, probability: FloatArray, most: FloatArray
) -> FloatArray:
    """Least whole number of servers with P(wait > slack) <= probability, at most `most`; all arrays `[N]`.

    offered: arrival rate x mean service time. slack: in mean service times, 0 or more. 0 servers for no load.
    The search starts at the square-root rule, and again at the least stable number where the rule was
    too high; so the result is exact Erlang C.
    """
    offered = np.minimum(np.asarray(offered, dtype=np.float64), float(MAX_REPLICAS))
    lowest = np.floor(offered) + 1.0
    result = np.where(offered > 0, np.asarray(most, dtype=np.float64), 0.0)
    open_rows = np.flatnonzero((offered > 0) & (lowest <= result))
    if len(open_rows) == 0:
        return result
    load, wait, aim = offered[open_rows], slack[open_rows], probability[open_rows]
    limit, least = result[open_rows], lowest[open_rows]
    start = np.clip(np.floor(square_root_staffing(load, wait, aim)) - 1.0, least, limit)
    found = _scan(load, wait, aim, start, limit)
    again = np.flatnonzero((found == start) & (start > least))
    if len(again):
        found[again] = _scan(load[again], wait[again], aim[again], least[again], limit[again])
    result[open_rows] = found
    return result


def square_root_staffing(offered: FloatArray, slack: FloatArray, probability: FloatArray) -> FloatArray:
    """a + beta sqrt(a), with beta such that Halfin and Whitt's P(wait > slack) is `probability`; `[N]`."""
    root = np.sqrt(offered)
    low, high = np.zeros_like(offered), np.full_like(offered, HIGHEST_BETA)
    for _ in range(BISECTIONS):
        beta = 0.5 * (low + high)
        density = np.exp(-0.5 * beta**2) / math.sqrt(2.0 * math.pi)
        delayed = density / (density + beta * _normal_below(beta, density))
        enough = delayed * np.exp(-beta * root * slack) <= probability
        high = np.where(enough, beta, high)
        low = np.where(enough, low, beta)
    return np.asarray(offered + high * root)


def wait_probability(servers: int, offered: float, slack: float = 0.0) -> float:
    """P(wait > slack) of M/M/c, slack in mean service times; 1 when the servers cannot keep up."""
    if offered <= 0:
        return 0.0
    if servers <= offered:
        return 1.0
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = offered * blocked / (k + offered * blocked)
    return float(_delayed(np.array(servers), np.array(offered), np.array(blocked), np.array(slack)))


def _scan(
    offered: FloatArray, slack: FloatArray, probability: FloatArray, start: FloatArray, limit: FloatArray
) -> FloatArray:
    """Least c in start..limit with P(wait > slack) <= probability, else limit.

    B(k) = a B(k-1) / (k + a B(k-1)) is Erlang B: positive terms only, so it neither overflows nor cancels.
    Every row begins so that it reaches its start in the same step; at k <= 0 the recursion stays at B = 1.
    """
    first = np.maximum(np.floor(offered - DEVIATIONS_BELOW * np.sqrt(offered)), 0.0)
    steps = int(np.max(start - first))
    k = start - steps
    blocked = np.where(k > 0, 1.0 - k / offered, 1.0)  # its limit far below the load
    for _ in range(steps):
        k += 1.0
        blocked *= offered
        blocked /= np.maximum(k, 0.0) + blocked
    found = limit.copy()
    waiting: BoolArray = start <= limit
    while True:
        good = waiting & (_delayed(k, offered, blocked, slack) <= probability)
        found[good] = k[good]
        waiting &= ~good & (k < limit)
        if not np.any(waiting):
            return found
        k += 1.0
        blocked *= offered
        blocked /= k + blocked


def _delayed(servers: FloatArray, offered: FloatArray, blocked: FloatArray, slack: FloatArray) -> FloatArray:
    """P(wait > slack) from Erlang B: C = c B / (c - a (1 - B)), then exponential."""
    spare = servers - offered
    with np.errstate(invalid="ignore", divide="ignore"):
        delayed = servers * blocked / (spare + offered * blocked)
        return np.where(spare > 0, delayed * np.exp(-np.maximum(spare, 0.0) * slack), 1.0)


def _normal_below(x: FloatArray, density: FloatArray) -> FloatArray:
    """Standard normal distribution function for x >= 0, to 7e-8 (Abramowitz and Stegun 26.2.17)."""
    t = 1.0 / (1.0 + 0.2316419 * x)
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    return np.asarray(1.0 - density * series)
