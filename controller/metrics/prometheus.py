"""PrometheusSource: all of a service's signals at once, by a bounded number of threads, never for too long.

prometheus-api-client is synchronous, so queries run in a thread pool. The caller is released when the
timeout has passed, whatever the thread is doing, and the thread's socket is then shut so that it is freed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from controller.core.samples import FloatArray, Outcome
from controller.metrics.client import Client
from controller.metrics.config import PrometheusConfig, make_tls_context
from controller.metrics.grouped import GroupReader, Round
from controller.metrics.judge import Answer, failed, judge_instant, judge_range, make_readings
from controller.metrics.ranges import Series, read_plans
from controller.metrics.source import RATE_SIGNALS, QuerySet, RangeReading, SignalReading

MAX_POINTS = 10_000
"""Points of one range query; Prometheus refuses more than 11,000."""

MIN_SHARE_OF_TIME = 0.1
"""A query that has waited for a thread until less than this of its time is left is not sent any more."""

Ask = Callable[[Client, float], Any]


class _Job:
    """One query in a worker thread, which the event loop may end from outside."""

    def __init__(self, ask: Ask, timeout_s: float) -> None:
        self._ask, self._timeout_s = ask, timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._over = False

    def run(self, client: Client) -> Any:
        with self._lock:
            if self._over or self._deadline - time.monotonic() < MIN_SHARE_OF_TIME * self._timeout_s:
                return self.slow()
            self._client = client
        try:
            return self._ask(client, self._deadline)
        finally:
            with self._lock:
                self._over = True

    def slow(self) -> Answer:
        """What to say once the time is up."""
        what = "all workers were busy" if self._client is None else f"no answer within {self._timeout_s:g} s"
        return failed(Outcome.SLOW, what)

    def abort(self) -> None:
        """Free the thread if it is still at it; under the lock, so as never to hit its next job."""
        with self._lock:
            if not self._over and self._client is not None:
                self._client.abort()
            self._over = True


class _Workers:
    """A bounded pool of threads with one Client each."""

    def __init__(self, make_client: Callable[[], Client], size: int, name: str) -> None:
        self._make_client = make_client
        self._local = threading.local()
        self._clients: list[Client] = []
        self._jobs: set[_Job] = set()
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)

    async def do(self, ask: Ask, timeout_s: float) -> Any:
        """What `ask` returns, or an Answer SLOW once `timeout_s` has passed since this call."""
        job = _Job(ask, timeout_s)
        self._jobs.add(job)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, job)
        except TimeoutError:
            return job.slow()
        finally:
            self._jobs.discard(job)
            job.abort()

    def _run(self, job: _Job) -> Any:
        if not hasattr(self._local, "client"):
            self._local.client = self._make_client()
            self._clients.append(self._local.client)
        return job.run(self._local.client)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for job in list(self._jobs):
            job.abort()
        for client in self._clients:
            client.close()


class PrometheusSource:
    """A MetricsSource over one Prometheus. Raises PrometheusConfigError if its TLS material is unusable."""

    def __init__(self, config: PrometheusConfig, workers: int = 16, shared_s: float = 5.0) -> None:
        """shared_s: real seconds for which a costly answer about many services may be used again."""
        context = make_tls_context(config)
        self._config = config
        self._now = _Workers(lambda: Client(config, context), workers, "prometheus")
        self._history = _Workers(lambda: Client(config, context), max(1, workers // 4), "prometheus-history")
        self._groups = GroupReader(self._now.do, self._ask, config.timeout_s, shared_s)

    async def read(self, queries: Mapping[str, str], now: float | None = None) -> dict[str, SignalReading]:
        """All signals at once, within the configured timeout; equal queries are asked once.

        `now`: Unix time to evaluate at; None means Prometheus's own now, which no clock skew can harm.
        """
        texts = _rules(queries).texts
        return make_readings(queries, await self._groups.ask(texts, now, self._config.timeout_s))

    def round(self, batch: Sequence[QuerySet], now: float | None = None) -> Round:
        """Begins to read the batch: queries with plans once for all, see `controller.metrics.grouped`."""
        return self._groups.round(batch, now)

    async def _ask(self, query: str, now: float | None, timeout_s: float) -> Answer:
        got = await self._now.do(lambda client, deadline: client.instant(query, now, deadline), timeout_s)
        return got if isinstance(got, Answer) else judge_instant(got)

    async def read_range(
        self, queries: Mapping[str, str], start_s: float, end_s: float, step_s: float
    ) -> RangeReading:
        """All signals on the grid start_s, start_s + step_s, ... <= end_s (Unix seconds, `[T]`).

        Points whose samples had grown stale are NaN, as are gaps, NaN, infinite and negative values.
        """
        return (await self.read_range_many([_rules(queries)], start_s, end_s, step_s))[0]

    async def read_range_many(
        self, batch: Sequence[QuerySet], start_s: float, end_s: float, step_s: float
    ) -> list[RangeReading]:
        """`read_range` for several services; what they have in common is asked once for all."""
        if not (step_s > 0 and end_s >= start_s):
            raise ValueError(f"step_s={step_s!r}, start_s={start_s!r}, end_s={end_s!r}: no such grid")
        times_s = start_s + step_s * np.arange(int((end_s - start_s) / step_s + 1e-6) + 1)
        series: dict[str, Series] = {}
        if len(batch) > 1 and len(times_s) <= MAX_POINTS:
            timeout_s = self._config.range_timeout_s
            series = await read_plans(self._history.do, batch, times_s, step_s, timeout_s)
        texts = list(dict.fromkeys(t for queries in batch for t in queries.texts if t not in series))
        own = await asyncio.gather(*(self._ask_range(text, times_s, step_s) for text in texts))
        series |= dict(zip(texts, own, strict=True))
        return [_range_reading(queries, times_s, series) for queries in batch]

    async def _ask_range(self, query: str, times_s: FloatArray, step_s: float) -> tuple[FloatArray, Answer]:
        chunks = [times_s[i : i + MAX_POINTS] for i in range(0, len(times_s), MAX_POINTS)]
        parts = await asyncio.gather(*(self._ask_chunk(query, chunk, step_s) for chunk in chunks))
        values = np.concatenate([values for values, _ in parts])
        return values, _worst([answer for _, answer in parts])

    async def _ask_chunk(self, query: str, times_s: FloatArray, step_s: float) -> tuple[FloatArray, Answer]:
        start_s, end_s = float(times_s[0]), float(times_s[-1])
        got = await self._history.do(
            lambda client, deadline: client.over_range(query, start_s, end_s, step_s, deadline),
            self._config.range_timeout_s,
        )
        if isinstance(got, Answer):
            return np.full(times_s.shape, np.nan), got
        return judge_range(got, times_s, step_s)

    def close(self) -> None:
        """End what is under way and free threads and connections."""
        self._groups.close()
        self._now.close()
        self._history.close()


def _rules(queries: Mapping[str, str]) -> QuerySet:
    return queries if isinstance(queries, QuerySet) else QuerySet(queries)


def _worst(answers: list[Answer]) -> Answer:
    """A failure if there was one, else a value if there was one, else the reason of the first."""
    gaps = (Outcome.EMPTY, Outcome.NAN)
    failures = [answer for answer in answers if answer.outcome not in (Outcome.OK, *gaps)]
    fine = [answer for answer in answers if answer.outcome is Outcome.OK]
    return (failures + fine + answers)[0]


def _range_reading(rules: QuerySet, times_s: FloatArray, series: Mapping[str, Series]) -> RangeReading:
    reading = RangeReading(times_s, {})
    for signal, text in rules.items():
        values, answer = series[text]
        scale = rules.time_scale if signal in RATE_SIGNALS else 1.0
        kept = _without_stale(values, series.get(rules.freshness.get(signal, "")), rules.max_age_s)
        reading.values[signal] = kept / scale
        reading.outcomes[signal] = answer.outcome
        reading.messages[signal] = answer.message
    return reading


def _without_stale(values: FloatArray, ages: Series | None, max_age_s: float) -> FloatArray:
    if ages is None or ages[1].outcome not in (Outcome.OK, Outcome.EMPTY):
        return values
    return np.where(ages[0] <= max_age_s, values, np.nan)
