"""What the operator asks of any source of metrics, and the values that come back.

The control loop reads one `QuerySet` a service and tick; start-up reads the same queries over a range.
A source never raises for an unreadable signal: it says why in the reading's outcome.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from controller.core.samples import FloatArray, Outcome
from controller.metrics.groups import Plan

SIGNALS = ("requestRate", "latency", "cpuUtilization", "inFlight", "errorRatio")
"""requests/s, milliseconds, share of the CPU request, requests, share of responses."""

RATE_SIGNALS = ("requestRate", "cpuUtilization")
"""Signals made by `rate()` over a counter, which therefore run `time_scale` times too fast in a rehearsal."""


class QuerySet(dict[str, str]):
    """PromQL by signal, with what is needed to judge the answers.

    freshness: by signal, a query for the age (s) of the newest sample that the signal was made from.
    max_age_s: real seconds; an older sample makes the signal STALE. time_scale: see controller/clock.py.
    plans: by query text, how a query about many services at once answers it; none where only itself can.
    """

    def __init__(
        self,
        queries: Mapping[str, str],
        freshness: Mapping[str, str] | None = None,
        max_age_s: float = 45.0,
        time_scale: float = 1.0,
        plans: Mapping[str, Plan] | None = None,
    ) -> None:
        super().__init__(queries)
        self.max_age_s = max_age_s
        self.time_scale = time_scale
        self.plans = dict(plans or {})
        once = {text: text for text in self.plans}  # thousands of these sets are kept
        self.freshness = {signal: once.get(text, text) for signal, text in (freshness or {}).items()}
        self.shared = len(self) > 0 and all(text in self.plans for text in self.texts)
        """Whether every query of it can be answered by one about many services."""

    def only(self, signals: Container[str]) -> QuerySet:
        """The part of it that is about some signals."""
        queries = {name: query for name, query in self.items() if name in signals}
        fresh = {name: query for name, query in self.freshness.items() if name in queries}
        texts = {*queries.values(), *fresh.values()}
        plans = {text: plan for text, plan in self.plans.items() if text in texts}
        return QuerySet(queries, fresh, self.max_age_s, self.time_scale, plans)

    @property
    def load(self) -> str | None:
        """The query that the load is known from."""
        return self.get("requestRate") or self.get("cpuUtilization")

    @property
    def texts(self) -> list[str]:
        """Every query of it once, those for freshness included."""
        return list(dict.fromkeys([*self.values(), *self.freshness.values()]))


@dataclass(frozen=True, slots=True)
class SignalReading:
    """One signal now: `value` in control seconds' terms, NaN unless `outcome` is OK.

    timestamp_s: Unix time of the newest underlying sample if known, else of the evaluation.
    """

    value: float
    outcome: Outcome
    message: str = ""
    timestamp_s: float = float("nan")


@dataclass(frozen=True, slots=True)
class RangeReading:
    """Signals over a range: `times_s` Unix seconds `[T]`, and by signal an array `[T]` with NaN for gaps.

    Unpacks as `times_s, values`. An outcome other than OK names the worst that happened to that signal;
    whatever could be read is in `values` all the same.
    """

    times_s: FloatArray
    values: dict[str, FloatArray]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.times_s, self.values))


class ReadingRound(Protocol):
    """A batch of services being read together; each gets its signals as `MetricsSource.read` gives them."""

    async def settle(self) -> None:
        """Returns once what they have in common was answered, or could not be."""
        ...

    def known(self, queries: QuerySet) -> dict[str, SignalReading] | None:
        """One service's signals once settled, or None where queries of its own must be asked."""
        ...

    async def read(self, queries: QuerySet) -> dict[str, SignalReading]:
        """One service's signals; it waits for nobody else's own queries."""
        ...


class MetricsSource(Protocol):
    """Something that answers queries by signal: Prometheus in the product."""

    async def read(self, queries: Mapping[str, str], now: float | None = None) -> dict[str, SignalReading]:
        """All signals at once, at Unix time `now` (None: the server's own now)."""
        ...

    def round(self, batch: Sequence[QuerySet], now: float | None = None) -> ReadingRound:
        """Begins to read a batch of services together."""
        ...

    async def read_range_many(
        self, batch: Sequence[QuerySet], start_s: float, end_s: float, step_s: float
    ) -> list[RangeReading]:
        """`read_range` for several services."""
        ...

    async def read_range(
        self, queries: Mapping[str, str], start_s: float, end_s: float, step_s: float
    ) -> RangeReading:
        """All signals from `start_s` to `end_s` (Unix, inclusive) every `step_s` seconds."""
        ...

    def close(self) -> None:
        """Give up what is under way and free threads and connections."""
        ...
