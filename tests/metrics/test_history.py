"""Ranges come back on the asked grid, with gaps where nothing is known, in as many requests as it takes."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from controller.core.samples import Outcome
from controller.metrics import (
    PrometheusConfig,
    PrometheusSource,
    QueryContext,
    QuerySet,
    read_history,
    render_queries,
)
from tests.metrics import exporter
from tests.metrics.conftest import WINDOW_S
from tests.metrics.servers import http_server, send


async def test_a_range_is_read_on_a_grid_finer_than_a_second(source: PrometheusSource) -> None:
    end_s = time.time()
    queries = render_queries("envoy", {}, QueryContext("shop", "web", window_s=WINDOW_S))
    times_s, values = await source.read_range(queries, end_s - 1.0, end_s, 0.25)
    np.testing.assert_allclose(times_s, end_s - 1.0 + 0.25 * np.arange(5))
    np.testing.assert_allclose(values["requestRate"], exporter.RATE, rtol=0.05)
    np.testing.assert_allclose(values["latency"], exporter.P95_MS, rtol=0.02)
    assert set(values) == set(queries)


async def test_the_time_before_the_first_sample_is_a_gap(source: PrometheusSource) -> None:
    end_s = time.time()
    queries = render_queries("envoy", {}, QueryContext("shop", "web", window_s=WINDOW_S))
    reading = await source.read_range(queries, end_s - 1800.0, end_s, 1.0)
    rate = reading.values["requestRate"]
    assert len(rate) == 1801
    assert np.isnan(rate[:600]).all()
    assert rate[-1] == pytest.approx(exporter.RATE, rel=0.05)
    assert reading.outcomes["requestRate"] is Outcome.OK


@pytest.mark.parametrize(
    ("query", "outcome"),
    [
        pytest.param("odd_absent", Outcome.EMPTY, id="no series"),
        pytest.param("odd_several", Outcome.SEVERAL, id="two series"),
        pytest.param("odd_nan", Outcome.NAN, id="NaN"),
        pytest.param("odd_negative", Outcome.NAN, id="negative"),
        pytest.param("((", Outcome.BAD_QUERY, id="does not parse"),
    ],
)
async def test_a_range_without_values_says_why(
    source: PrometheusSource, query: str, outcome: Outcome
) -> None:
    end_s = time.time()
    reading = await source.read_range({"requestRate": query}, end_s - 2, end_s, 0.5)
    assert np.isnan(reading.values["requestRate"]).all()
    assert reading.outcomes["requestRate"] is outcome
    assert reading.messages["requestRate"]


async def test_stale_points_are_gaps_in_history_too(source: PrometheusSource) -> None:
    end_s = time.time()
    query, age = "rate(odd_late_total[60s])", "time() - max(timestamp(odd_late_total))"
    for limit_s, expected in ((45.0, True), (20.0, False)):
        queries = QuerySet({"requestRate": query}, {"requestRate": age}, max_age_s=limit_s)
        reading = await source.read_range(queries, end_s - 1, end_s, 0.5)
        assert bool(np.isfinite(reading.values["requestRate"]).any()) is expected


async def test_no_request_asks_for_more_points_than_prometheus_gives(source: PrometheusSource) -> None:
    reading = await source.read_range({"inFlight": "time()"}, 1_700_000_000.0, 1_700_025_000.0, 1.0)
    np.testing.assert_allclose(reading.values["inFlight"], reading.times_s)
    assert len(reading.times_s) == 25_001


async def test_a_part_that_fails_leaves_the_other_parts(tmp_path: object) -> None:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        start, end = (float(parse_qs(urlsplit(handler.path).query)[name][0]) for name in ("start", "end"))
        if start == 1000.0:
            send(handler, 500, "out of memory")
            return
        values = [[t, "3"] for t in np.arange(start, end + 0.5)]
        result = {"resultType": "matrix", "result": [{"metric": {}, "values": values}]}
        send(handler, 200, json.dumps({"status": "success", "data": result}))

    with http_server(respond) as port:
        source = PrometheusSource(PrometheusConfig(f"http://127.0.0.1:{port}"))
        reading = await source.read_range({"requestRate": "x"}, 1000.0, 13_000.0, 1.0)
        source.close()
    assert np.isnan(reading.values["requestRate"][:10_000]).all()
    assert (reading.values["requestRate"][10_000:] == 3).all()
    assert reading.outcomes["requestRate"] is Outcome.HTTP_ERROR
    assert "500" in reading.messages["requestRate"]


@pytest.mark.parametrize(("start_s", "end_s", "step_s"), [(0, 1, 0), (2, 1, 1), (0, 1, -1)])
async def test_an_impossible_grid_is_refused(
    source: PrometheusSource, start_s: float, end_s: float, step_s: float
) -> None:
    with pytest.raises(ValueError, match="no such grid"):
        await source.read_range({}, start_s, end_s, step_s)


@pytest.mark.parametrize("scale", [1.0, 60.0])
async def test_history_is_fine_at_the_end_and_coarse_before_in_control_seconds(
    source: PrometheusSource, scale: float
) -> None:
    end_s = time.time() * scale
    queries = render_queries(
        "envoy", {}, QueryContext("shop", "web", window_s=WINDOW_S * scale, time_scale=scale)
    )
    fine, coarse = (0.25 * scale, 9), (0.5 * scale, 121)
    history = await read_history(source, queries, end_s, scale, fine=fine, coarse=coarse)
    steps = np.diff(history.times_s) / scale
    np.testing.assert_allclose(steps[-8:], 0.25, atol=1e-5)
    np.testing.assert_allclose(steps[:-9], 0.5, atol=1e-5)
    assert (steps > 0).all()
    assert history.times_s[-1] == pytest.approx(end_s)
    assert history.times_s[0] == pytest.approx(end_s - 60 * scale)
    rates = history.arrays["request_rate"][-9:]
    read = np.isfinite(rates)  # a scrape that failed is a gap: a busy machine has some
    assert read.any()
    np.testing.assert_allclose(rates[read], exporter.RATE / scale, rtol=0.05)
    assert set(history.arrays) == {"request_rate", "latency_ms", "utilisation", "in_flight", "error_ratio"}
    assert history.outcomes["requestRate"] is Outcome.OK
