"""Preset queries give known values on a real Prometheus, parse with promtool and can't be injected into."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.core.samples import Outcome
from controller.metrics import PRESETS, PrometheusSource, QueryContext, QueryTemplateError, render_queries
from controller.metrics.presets import CPU_QUERY, duration, escape, pods_pattern, range_selectors
from tests.metrics import exporter
from tests.metrics.conftest import WINDOW_S, World

WEB = QueryContext("shop", "web", window_s=WINDOW_S)
CUSTOM = {"requestRate": "sum(rate(flaky_requests_total[{{window}}]))"}


def context(service: str, percentile: float = 95.0, time_scale: float = 1.0) -> QueryContext:
    return QueryContext("shop", "web", service, percentile, WINDOW_S * time_scale, time_scale)


async def read_as(source: PrometheusSource, queries: Any, expected: dict[str, Any]) -> None:
    """Until the signals read as expected: a scrape that a busy machine delays bends one window's rates."""
    deadline = time.monotonic() + 10 * WINDOW_S
    while True:
        readings = await source.read(queries)
        failures = {name: reading for name, reading in readings.items() if reading.outcome is not Outcome.OK}
        found = {name: readings[name].value for name in expected}
        if time.monotonic() > deadline or (not failures and found == expected):
            break
        await asyncio.sleep(0.25)
    assert not failures
    assert found == expected


@pytest.mark.parametrize(
    ("preset", "service"),
    [
        pytest.param("envoy", "web", id="envoy"),
        pytest.param("istio", "web", id="istio"),
        pytest.param("ingress-nginx", "web", id="ingress-nginx with the exporter's labels renamed"),
        pytest.param("ingress-nginx", "kept", id="ingress-nginx with honor_labels"),
    ],
)
async def test_a_preset_reads_rate_latency_errors_and_cpu(
    source: PrometheusSource, preset: str, service: str
) -> None:
    expected = {
        "requestRate": pytest.approx(exporter.RATE, rel=0.05),
        "latency": pytest.approx(exporter.P95_MS, rel=0.02),
        "errorRatio": pytest.approx(exporter.ERROR_SHARE, rel=0.05),
        "cpuUtilization": pytest.approx(exporter.CPU_CORES_USED / exporter.CPU_CORES_ASKED, rel=0.05),
    }
    await read_as(source, render_queries(preset, {}, context(service)), expected)


async def test_envoy_reads_requests_in_flight(source: PrometheusSource) -> None:
    readings = await source.read(render_queries("envoy", {}, WEB))
    assert readings["inFlight"].value == exporter.IN_FLIGHT


async def test_the_envoy_preset_reads_a_real_envoy(source: PrometheusSource, world: World) -> None:
    readings = await source.read(render_queries("envoy", {"cpuUtilization": ""}, context("real")))
    assert {reading.outcome for reading in readings.values()} == {Outcome.OK}, readings
    assert readings["requestRate"].value == pytest.approx(world.sent_rate("/real"), rel=0.2)
    assert readings["errorRatio"].value == pytest.approx(0.25, abs=0.05)
    assert 0.25 < readings["latency"].value < 100
    assert readings["inFlight"].value <= 1


@pytest.mark.parametrize(
    "cluster",
    [
        pytest.param("dead", id="nothing listens at the endpoint"),
        pytest.param("empty", id="no endpoint"),
        pytest.param("limited", id="circuit breaker open"),
    ],
)
async def test_requests_that_envoy_can_not_pass_on_are_load_and_errors(
    source: PrometheusSource, world: World, cluster: str
) -> None:
    readings = await source.read(render_queries("envoy", {"cpuUtilization": ""}, context(cluster)))
    assert readings["requestRate"].value == pytest.approx(world.sent_rate(f"/{cluster}"), rel=0.3)
    assert readings["errorRatio"].value == pytest.approx(1.0, abs=0.02)


async def test_another_percentile_reads_another_latency(source: PrometheusSource) -> None:
    queries = render_queries("envoy", {}, context("web", percentile=50))
    await read_as(source, queries, {"latency": pytest.approx(75.0, rel=0.02)})


async def test_no_series_of_errors_while_requests_are_counted_is_an_error_ratio_of_zero(
    source: PrometheusSource,
) -> None:
    expected = {"errorRatio": 0.0, "requestRate": pytest.approx(exporter.RATE, rel=0.05)}
    await read_as(source, render_queries("envoy", {"cpuUtilization": ""}, context("flawless")), expected)


async def test_an_idle_service_has_a_rate_of_zero_and_no_latency(source: PrometheusSource) -> None:
    readings = await source.read(render_queries("envoy", {}, context("idle")))
    assert (readings["requestRate"].value, readings["requestRate"].outcome) == (0.0, Outcome.OK)
    for signal in ("latency", "errorRatio"):
        assert readings[signal].outcome is Outcome.MISSING
        assert readings[signal].message == "no requests in the window"


@pytest.mark.parametrize("preset", ["envoy", "istio", "ingress-nginx"])
async def test_a_service_that_nobody_counts_is_empty_and_never_zero(
    source: PrometheusSource, preset: str
) -> None:
    readings = await source.read(render_queries(preset, {"cpuUtilization": ""}, context("nowhere")))
    assert {reading.outcome for reading in readings.values()} == {Outcome.EMPTY}
    assert all(reading.value != reading.value for reading in readings.values())


async def test_rates_are_divided_by_the_time_scale_and_the_rest_is_not(source: PrometheusSource) -> None:
    expected = {
        "requestRate": pytest.approx(exporter.RATE / 60, rel=0.05),
        "latency": pytest.approx(exporter.P95_MS, rel=0.02),
        "inFlight": exporter.IN_FLIGHT,
    }
    await read_as(source, render_queries("envoy", {}, context("web", time_scale=60.0)), expected)


@pytest.mark.parametrize(
    "service",
    ["web", 'we"b', "we'b", "we\\b", "we`b", "we\nb", '"} or vector(1) #', "outbound|80||web.shop", "\\x22"],
)
@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "custom"])
def test_every_query_of_every_preset_parses_whatever_the_names(
    tmp_path: Path, preset: str, service: str
) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is not installed: apt-get install prometheus"
    queries = render_queries(preset, {}, QueryContext("shop", service, service, 99.9, 60.0, 7.0))
    texts = [*queries.values(), *queries.freshness.values()]
    rules = [{"record": f"r:{index}", "expr": text} for index, text in enumerate(texts)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    checked = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


async def test_a_name_can_not_break_out_of_its_string(source: PrometheusSource) -> None:
    overrides = {
        "requestRate": 'sum(odd_gauge{job="{{service}}"})',
        "inFlight": "sum(odd_gauge{job='{{service}}'})",
        "latency": "sum(odd_gauge{job=`{{service}}`})",
    }
    for quote in "\"'`":
        service = f"{quote}}}) or vector(1) #"
        readings = await source.read(render_queries("custom", overrides, context(service)))
        asked = {signal: readings[signal].outcome for signal in overrides}
        assert set(asked.values()) == {Outcome.EMPTY}, (quote, asked)


@pytest.mark.parametrize(
    ("preset", "queries", "message"),
    [
        pytest.param("envoi", {}, "preset: unknown preset 'envoi'; one of envoy", id="unknown preset"),
        pytest.param(
            "custom", {}, "needs a query for requestRate or cpuUtilization", id="custom without load"
        ),
        pytest.param(
            "custom", {"latency": "x"}, "needs a query for requestRate", id="custom with latency alone"
        ),
        pytest.param("envoy", {"rps": "x"}, "unknown signal 'rps'; one of requestRate", id="unknown signal"),
        pytest.param(
            "envoy", {"latency": "x{a='{{pod}}'}"}, "unknown placeholder '{{pod}}'", id="unknown placeholder"
        ),
    ],
)
def test_a_wrong_metrics_section_is_refused_with_what_is_allowed(
    preset: str, queries: dict[str, str], message: str
) -> None:
    with pytest.raises(QueryTemplateError, match=re.escape(message)):
        render_queries(preset, queries, WEB)


@pytest.mark.parametrize("percentile", [0, 100, -1, float("nan")])
def test_a_percentile_out_of_range_is_refused(percentile: float) -> None:
    with pytest.raises(QueryTemplateError, match="percentile"):
        render_queries("envoy", {}, QueryContext("shop", "web", percentile=percentile))


def test_own_queries_replace_the_presets_and_get_the_placeholders() -> None:
    own = {
        "latency": "q({{ quantile }}, '{{namespace}}/{{workload}}/{{service}}' [{{window}}]) p{{percentile}}"
    }
    queries = render_queries("envoy", own, QueryContext("shop", "web", "cart", 99.9, 60, 60))
    assert queries["latency"] == "q(0.999, 'shop/web/cart' [1s]) p99.9"
    assert queries["requestRate"] == render_queries("envoy", {}, QueryContext("shop", "web", "cart"))[
        "requestRate"
    ].replace("60s", "1s")


def test_an_empty_override_turns_a_signal_off() -> None:
    assert "cpuUtilization" not in render_queries("envoy", {"cpuUtilization": ""}, WEB)


def test_custom_asks_for_what_the_user_gave_and_for_cpu() -> None:
    assert set(render_queries("custom", CUSTOM, WEB)) == {"requestRate", "cpuUtilization"}


def test_the_service_is_the_workload_unless_it_is_given() -> None:
    assert 'envoy_cluster_name="web"' in render_queries("envoy", {}, WEB)["requestRate"]


@pytest.mark.parametrize(
    ("pod", "matches"),
    [
        ("web-7c9d8f6b5d-x2k4q", True),
        ("web-0", True),
        ("web-12", True),
        ("web-x2k4q", True),
        ("web-api-7c9d8f6b5d-x2k4q", False),
        ("web-api-0", False),
        ("webshop-0", False),
        ("web", False),
    ],
)
def test_pods_are_told_from_those_of_workloads_with_a_longer_name(pod: str, matches: bool) -> None:
    assert bool(re.fullmatch(pods_pattern("web"), pod)) is matches


def test_utilisation_covers_the_pods_of_every_pool() -> None:
    pools = QueryContext("shop", "web-od", other_workloads=("web-spot",))
    query = render_queries("envoy", {}, pools)["cpuUtilization"]
    pattern = re.search(r'pod=~"([^"]*)"', query)
    assert pattern is not None
    pods = ("web-od-7c9d8f6b5d-x2k4q", "web-spot-7c9d8f6b5d-x2k4q", "web-gpu-7c9d8f6b5d-x2k4q")
    assert [bool(re.fullmatch(pattern[1], pod)) for pod in pods] == [True, True, False]


def test_a_dot_in_a_workloads_name_is_no_wildcard() -> None:
    assert not re.fullmatch(pods_pattern("web.v2"), "webxv2-0")


@pytest.mark.parametrize(
    ("seconds", "text"), [(60.0, "60s"), (1.0, "1s"), (0.25, "250ms"), (90.5, "90500ms"), (60 / 7, "8571ms")]
)
def test_windows_are_whole_seconds_or_milliseconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("query", "selectors"),
    [
        pytest.param("sum(rate(a_total[1m]))", ("a_total",), id="bare"),
        pytest.param('rate(a{x="}[",y!~`z`}[5m])', ('a{x="}[",y!~`z`}',), id="braces in strings"),
        pytest.param('rate({__name__="a"}[5m])', ('{__name__="a"}',), id="without a name"),
        pytest.param("rate(a[1m]) / rate(b[1m]) + rate(a[1m])", ("a", "b"), id="two, one twice"),
        pytest.param("max_over_time(rate(a[1m])[1h:1m])", ("a",), id="inside a subquery"),
        pytest.param("rate(a[1m] offset 1h)", (), id="offset"),
        pytest.param("rate(a[1m] @ 12)", (), id="at"),
        pytest.param("rate(a{x='@ offset'}[1m])", ("a{x='@ offset'}",), id="offset in a string"),
        pytest.param("sum(gauge)", (), id="no window"),
    ],
)
def test_the_selectors_that_tell_a_custom_querys_age(query: str, selectors: tuple[str, ...]) -> None:
    assert range_selectors(query) == selectors


def test_escaping_leaves_ordinary_names_alone() -> None:
    assert escape("outbound|80||web.shop.svc") == "outbound|80||web.shop.svc"


def test_the_documentation_shows_every_presets_queries() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for preset in PRESETS.values():
        for signal, query in preset.queries.items():
            assert f"```promql\n{query}\n```" in text, (preset.name, signal)
    assert f"```promql\n{CPU_QUERY}\n```" in text
