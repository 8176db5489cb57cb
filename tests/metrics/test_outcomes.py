"""Everything that can be wrong with an answer is told apart, on a real Prometheus."""

from __future__ import annotations

import asyncio
import math
import time

import numpy as np
import pytest

from controller.core.samples import Outcome
from controller.metrics import (
    PrometheusSource,
    QueryContext,
    QuerySet,
    load_reading,
    render_queries,
    to_samples,
)
from tests.metrics.conftest import WINDOW_S, World


@pytest.mark.parametrize(
    ("query", "outcome", "message"),
    [
        pytest.param("odd_gauge", Outcome.OK, "", id="one series"),
        pytest.param("scalar(odd_gauge)", Outcome.OK, "", id="a scalar"),
        pytest.param("odd_absent", Outcome.EMPTY, "no series", id="no series"),
        pytest.param("odd_several", Outcome.SEVERAL, "differ in zone", id="two series"),
        pytest.param("odd_nan", Outcome.NAN, "NaN", id="NaN"),
        pytest.param("odd_infinite", Outcome.NAN, "+Inf", id="infinite"),
        pytest.param("odd_zero_total / odd_zero_total", Outcome.NAN, "NaN", id="0 / 0"),
        pytest.param("odd_negative", Outcome.NEGATIVE, "-3", id="negative"),
        pytest.param("sum(odd_gauge", Outcome.BAD_QUERY, "parse error", id="does not parse"),
        pytest.param("odd_gauge[1m]", Outcome.BAD_QUERY, "range vector", id="a range vector"),
        pytest.param('"text"', Outcome.BAD_QUERY, "not a number", id="a string"),
        pytest.param(
            "odd_gauge * on() group_left() odd_several",
            Outcome.BAD_QUERY,
            "refused the query",
            id="many-to-many",
        ),
    ],
)
async def test_each_answer_has_its_own_outcome(
    source: PrometheusSource, query: str, outcome: Outcome, message: str
) -> None:
    reading = (await source.read({"requestRate": query}))["requestRate"]
    assert (reading.outcome, math.isnan(reading.value)) == (outcome, outcome is not Outcome.OK)
    assert message in reading.message
    assert reading.value == 42 or math.isnan(reading.value)


async def test_one_bad_query_leaves_the_others_alone(source: PrometheusSource) -> None:
    readings = await source.read({"requestRate": "odd_gauge", "latency": "((", "inFlight": "odd_negative"})
    assert [reading.outcome for reading in readings.values()] == [
        Outcome.OK,
        Outcome.BAD_QUERY,
        Outcome.NEGATIVE,
    ]


async def test_samples_that_grew_old_are_stale(source: PrometheusSource) -> None:
    own = {"requestRate": "sum(rate(odd_late_total[{{window}}]))"}
    late = render_queries("custom", own, QueryContext("shop", "web", window_s=35.0))
    reading = (await source.read(late))["requestRate"]
    assert reading.outcome is Outcome.STALE
    assert "the newest sample is 30" in reading.message


async def test_a_late_sample_within_the_limit_is_used_and_carries_its_own_time(
    source: PrometheusSource,
) -> None:
    queries = QuerySet(
        {"requestRate": "rate(odd_late_total[60s])"},
        {"requestRate": "time() - max(timestamp(odd_late_total))"},
        max_age_s=45.0,
    )
    reading = (await source.read(queries))["requestRate"]
    assert reading.outcome is Outcome.OK
    assert time.time() - reading.timestamp_s == pytest.approx(30, abs=1.5)


async def test_a_target_that_goes_down_is_stale_before_its_rate_has_sunk(
    source: PrometheusSource, world: World
) -> None:
    queries = render_queries(
        "custom",
        {"requestRate": "sum(rate(flaky_requests_total[{{window}}]))"},
        QueryContext("shop", "web", window_s=WINDOW_S),
    )
    before = (await source.read(queries))["requestRate"]
    assert before.value == pytest.approx(10.0, rel=0.05)
    world.up.clear()
    try:
        lowest, reading = before.value, before
        deadline = time.monotonic() + 5
        while reading.outcome is Outcome.OK and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            reading = (await source.read(queries))["requestRate"]
            lowest = min(lowest, reading.value) if reading.outcome is Outcome.OK else lowest
    finally:
        world.up.set()
    assert reading.outcome is Outcome.STALE
    assert "the last scrape failed" in reading.message
    assert lowest > 8.5


async def test_a_service_without_a_freshness_query_is_judged_by_its_value_alone(
    source: PrometheusSource,
) -> None:
    reading = (await source.read({"requestRate": "rate(odd_late_total[60s])"}))["requestRate"]
    assert reading.outcome is Outcome.OK


async def test_a_time_in_the_past_is_read_as_it_was(source: PrometheusSource) -> None:
    reading = (await source.read({"inFlight": "time()"}, now=1_700_000_000.25))["inFlight"]
    assert reading.value == 1_700_000_000.25
    assert reading.timestamp_s == 1_700_000_000.25


async def test_readings_become_the_engines_samples(source: PrometheusSource) -> None:
    readings = [
        await source.read(
            {"requestRate": "odd_gauge", "latency": "odd_gauge * 2", "errorRatio": "vector(0.5)"}
        ),
        await source.read({"requestRate": "odd_several", "inFlight": "odd_gauge"}),
        await source.read({"requestRate": "odd_absent", "cpuUtilization": "odd_gauge / 100"}),
        {},
    ]
    samples = to_samples(readings, ready=[1, 2, 3, 4], current=5)
    nan = math.nan
    np.testing.assert_array_equal(samples.request_rate, [42, nan, nan, nan])
    np.testing.assert_array_equal(samples.latency_ms, [84, nan, nan, nan])
    np.testing.assert_array_equal(samples.error_ratio, [0.5, nan, nan, nan])
    np.testing.assert_array_equal(samples.utilisation, [nan, nan, 0.42, nan])
    np.testing.assert_array_equal(samples.in_flight, [nan, 42, nan, nan])
    np.testing.assert_array_equal(samples.ready, [1, 2, 3, 4])
    assert list(samples.outcome) == [Outcome.OK, Outcome.SEVERAL, Outcome.OK, Outcome.MISSING]
    assert "zone" in load_reading(readings[1]).message
