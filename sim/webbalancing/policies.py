"""Formulas that balance: what is in use (random to shortest expected delay), one that uses all that is
measured, and one that knows the truth.

Each chooses for N rows at once from what the balancer's book holds. `training.webbalancing` compares agents
with them; `POLICIES` has them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sim.compiled import counted
from sim.webbalancing.batch import WebBatch
from sim.webbalancing.book import believed_down, errors_now, expected_costs, measured_service_s
from sim.webbalancing.layout import FloatArray, IntArray

Choose = Callable[[WebBatch], IntArray]


class Policy:
    """Chooses the server of each row's batch, int `[N]`. seed: of what it draws. Begin anew for each set of
    episodes: `begin`."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self.begin(1)

    def begin(self, rows: int) -> None:
        """New episodes in all rows."""
        self.rng = np.random.default_rng(self._seed)
        self.turn = np.zeros(rows, dtype=np.int64)

    def choose(self, batch: WebBatch) -> IntArray:
        """The servers."""
        raise NotImplementedError

    def least(self, costs: FloatArray) -> IntArray:
        """The server with the least, ties at random; `[N, S]` to `[N]`."""
        tied = costs <= costs.min(axis=1, keepdims=True) * (1 + 1e-12)
        return np.asarray((self.rng.random(costs.shape) * tied).argmax(axis=1))


class Random(Policy):
    """Any server."""

    def choose(self, batch: WebBatch) -> IntArray:
        """Evenly drawn."""
        return self.rng.integers(batch.config.servers, size=batch.num_envs)


class RoundRobin(Policy):
    """One after the other."""

    def choose(self, batch: WebBatch) -> IntArray:
        """The next."""
        self.turn += 1
        return (self.turn - 1) % batch.config.servers


class WeightedRoundRobin(Policy):
    """Smooth weighted round robin (nginx): each by its configured capacity, spread as evenly as can be."""

    def begin(self, rows: int) -> None:
        """No credit."""
        super().begin(rows)
        self._credit: Any = 0.0

    def choose(self, batch: WebBatch) -> IntArray:
        """Who has most credit."""
        capacity = batch.book.workers / batch.book.service_s
        weights = capacity / capacity.sum(axis=1, keepdims=True)
        credit = self._credit + weights
        chosen = credit.argmax(axis=1)
        credit[np.arange(batch.num_envs), chosen] -= 1.0
        self._credit = credit
        return np.asarray(chosen)


class LeastConnections(Policy):
    """Who has the fewest requests in flight."""

    def choose(self, batch: WebBatch) -> IntArray:
        """The fewest; ties at random."""
        return self.least(batch.book.in_flight.astype(np.float64))


class PowerOfTwo(Policy):
    """The one of two drawn servers with fewer requests in flight (Mitzenmacher 2001)."""

    def choose(self, batch: WebBatch) -> IntArray:
        """Two draws, without the same twice."""
        servers, rows = batch.config.servers, np.arange(batch.num_envs)
        one = self.rng.integers(servers, size=batch.num_envs)
        other = (one + 1 + self.rng.integers(servers - 1, size=batch.num_envs)) % servers
        fewer = batch.book.in_flight[rows, one] <= batch.book.in_flight[rows, other]
        return np.where(fewer, one, other)


class ShortestExpectedDelay(Policy):
    """The least expected delay by requests in flight and configured service times; faults are not seen."""

    def choose(self, batch: WebBatch) -> IntArray:
        """By `book.expected_cost`, with what is configured."""
        costs = np.empty((batch.num_envs, batch.config.servers))
        expected_as_configured(batch.book, costs)
        return self.least(costs)


class MeasuredDelay(Policy):
    """The least expected cost by requests in flight, *measured* service times, fading error shares and a
    health check (metrics that cannot be read): what the agent sees, in one formula of ours."""

    def choose(self, batch: WebBatch) -> IntArray:
        """By `book.expected_cost`, with what was measured."""
        costs = np.empty((batch.num_envs, batch.config.servers))
        expected_as_measured(batch.book, costs)
        return self.least(costs)


class TrueDelay(Policy):
    """The least expected cost by the servers' true state: what accuracy is counted by. Not to be had."""

    def choose(self, batch: WebBatch) -> IntArray:
        """By `scoring.true_costs`."""
        return self.least(batch.true_costs())


POLICIES: dict[str, type[Policy]] = {
    "random": Random,
    "round-robin": RoundRobin,
    "weighted-round-robin": WeightedRoundRobin,
    "least-connections": LeastConnections,
    "power-of-two": PowerOfTwo,
    "shortest-expected-delay": ShortestExpectedDelay,
    "measured-delay": MeasuredDelay,
    "true-delay": TrueDelay,
}


@counted
def expected_as_configured(book, out):  # type: ignore[no-untyped-def]
    """Expected costs by configured service times, no errors; out `[N, S]`."""
    none = np.zeros(out.shape[1])
    for row in range(out.shape[0]):
        expected_costs(book, row, book.service_s[row], none, out[row])


@counted
def expected_as_measured(book, out):  # type: ignore[no-untyped-def]
    """Expected costs by measured service times and the errors that are still believed; out `[N, S]`."""
    service, errors = np.empty(out.shape[1]), np.empty(out.shape[1])
    for row in range(out.shape[0]):
        for k in range(out.shape[1]):
            service[k] = measured_service_s(book, row, k)
            errors[k] = 1.0 if believed_down(book, row, k) else errors_now(book, row, k)
        expected_costs(book, row, service, errors, out[row])
