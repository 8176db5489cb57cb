"""What many services have in common is asked once, gives each what its own queries would have given, and
spoils nothing for the others: on a real Prometheus, and behind a proxy that refuses or delays queries.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
    SignalReading,
    grouped,
    read_histories,
    read_history,
    render_queries,
)
from controller.metrics.groups import Family
from controller.metrics.presets import CPU_FAMILIES, PRESETS, pods_pattern
from tests.metrics import exporter
from tests.metrics.conftest import WINDOW_S, World
from tests.metrics.servers import http_server, send

CLUSTERS = (
    *("web", "flawless", "idle", "nowhere", "nan", "infinite", "negative", "twice", "late"),
    *("real", "dead", "empty", "limited"),
    *exporter.ODD_NAMES,
)


SETTLED_S = 4.0
"""After which no sample of a moment is still to come: the exporter's late ones are 2.4 s late."""


def queries_of(preset: str, service: str, workload: str = "web", **more: object) -> QuerySet:
    return render_queries(preset, {}, QueryContext("shop", workload, service, window_s=WINDOW_S, **more))  # type: ignore[arg-type]


def envoys() -> list[QuerySet]:
    """Every cluster, some with another percentile, and pools that share one traffic."""
    single = [queries_of("envoy", name) for name in CLUSTERS]
    slow = [queries_of("envoy", name, percentile=50.0) for name in CLUSTERS[:3]]
    pools = [
        queries_of("envoy", "web", "od", other_workloads=("spot",)),
        queries_of("envoy", "web", "od", other_workloads=("od-spot",)),
        queries_of("envoy", "web", "spot", other_workloads=("absent",)),
        queries_of("envoy", "web", "absent", other_workloads=("gone",)),
    ]
    return [
        *single,
        *slow,
        *pools,
        queries_of("envoy", "web", "web-api"),
        queries_of("envoy", "web", "od-spot"),
    ]


BATCHES = {
    "envoy": envoys,
    "istio": lambda: [queries_of("istio", name) for name in ("web", "other", "nowhere")],
    "ingress-nginx": lambda: [queries_of("ingress-nginx", n) for n in ("web", "other", "kept", "nowhere")],
}


async def read_all(
    source: PrometheusSource, batch: list[QuerySet], now: float | None = None
) -> list[dict[str, SignalReading]]:
    together = source.round(batch, now)
    return list(await asyncio.gather(*(together.read(queries) for queries in batch)))


def assert_same(grouped_one: dict[str, SignalReading], own: dict[str, SignalReading]) -> None:
    assert grouped_one.keys() == own.keys()
    for signal, reading in own.items():
        other = grouped_one[signal]
        assert other.outcome is reading.outcome, signal
        # a sample that came late may have come between the two queries
        assert re.sub(r"\d+\.\d+ s old", "", other.message) == re.sub(r"\d+\.\d+ s old", "", reading.message)
        assert other.value == pytest.approx(reading.value, rel=1e-9, nan_ok=True), signal
        assert other.timestamp_s == pytest.approx(reading.timestamp_s, abs=0.5, nan_ok=True), signal


@pytest.mark.parametrize("preset", list(BATCHES))
@pytest.mark.parametrize("named", [True, False], ids=["named", "everybody"])
async def test_the_groups_answer_is_each_services_own_answer(
    world: World, preset: str, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absent series, NaN, infinite, negative, late and doubled ones, odd names, pools and unready pods."""
    if not named:
        monkeypatch.setattr("controller.metrics.groups.MOST_NAMES", 0)
        monkeypatch.setattr("controller.metrics.groups.MOST_POD_NAMES", 0)
    batch, now = BATCHES[preset](), time.time()
    await asyncio.sleep(SETTLED_S)
    source = PrometheusSource(PrometheusConfig(world.address, timeout_s=10.0))
    try:
        together = await read_all(source, batch, now)
        for queries, readings in zip(batch, together, strict=True):
            assert_same(readings, await source.read(queries, now))
    finally:
        source.close()
    outcomes = {reading.outcome for readings in together for reading in readings.values()}
    assert {Outcome.OK, Outcome.EMPTY} <= outcomes
    if preset == "envoy":
        assert {Outcome.NAN, Outcome.NEGATIVE, Outcome.MISSING} <= outcomes


async def test_a_service_whose_samples_come_late_is_stale_in_a_group_too(source: PrometheusSource) -> None:
    batch = [queries_of("envoy", name) for name in CLUSTERS]
    readings = (await read_all(source, batch))[CLUSTERS.index("late")]
    assert readings["requestRate"].outcome is Outcome.STALE
    assert "s old" in readings["requestRate"].message


async def test_histories_read_together_are_the_ones_read_alone(source: PrometheusSource) -> None:
    end_s = time.time()
    await asyncio.sleep(SETTLED_S)
    fine, coarse = (0.5, 12), (2.0, 6)
    for preset, make in BATCHES.items():
        batch = [queries.only(["requestRate"]) for queries in make()]
        together = await read_histories(source, batch, end_s, 1.0, fine, coarse)
        for queries, history in zip(batch, together, strict=True):
            own = await read_history(source, queries, end_s, 1.0, fine, coarse)
            np.testing.assert_allclose(history.times_s, own.times_s)
            np.testing.assert_allclose(history.arrays["request_rate"], own.arrays["request_rate"], rtol=1e-9)
            assert history.outcomes == own.outcomes, preset


# Behind a proxy


@dataclass
class Proxy:
    """Passes queries on to a real Prometheus; `refuse` and `delay_s` look at each query's text first."""

    target: str
    refuse: Callable[[str], str] = lambda query: ""
    delay_s: Callable[[str], float] = lambda query: 0.0
    asked: list[tuple[str, str]] = field(default_factory=list)

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length)
        fields = parse_qs(body.decode() if body else urlsplit(handler.path).query)
        query = fields["query"][0]
        self.asked.append((handler.command, query))
        time.sleep(self.delay_s(query))
        if self.refuse(query):
            text = f'{{"status":"error","errorType":"execution","error":"{self.refuse(query)}"}}'
            send(handler, 422, text)
            return
        request = urllib.request.Request(self.target + handler.path, body or None)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                send(handler, answer.status, answer.read())
        except urllib.error.HTTPError as error:
            send(handler, error.code, error.read())


@contextlib.contextmanager
def through(proxy: Proxy, timeout_s: float = 10.0) -> Iterator[PrometheusSource]:
    with http_server(proxy.respond) as port:
        source = PrometheusSource(PrometheusConfig(f"http://127.0.0.1:{port}", timeout_s=timeout_s))
        try:
            yield source
        finally:
            source.close()


def is_group(query: str) -> bool:
    return "by (namespace" in query or "by (le, namespace" in query


def named(query: str) -> int:
    return len(set(re.findall(r"web-\d+", query)))


def services(count: int, preset: str = "envoy") -> list[QuerySet]:
    return [queries_of(preset, f"web-{number}", f"web-{number}") for number in range(count)] + [
        queries_of(preset, "web")
    ]


@pytest.mark.parametrize("preset", list(BATCHES))
async def test_ten_times_the_services_are_as_many_queries_and_all_are_posted(
    world: World, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped, "MOST_CONFIRMED", 0)
    counts = []
    for count in (30, 300):
        proxy = Proxy(world.address)
        with through(proxy) as source:
            found = await read_all(source, services(count, preset))
        assert found[-1]["requestRate"].value == pytest.approx(exporter.RATE, rel=0.25)
        assert {method for method, _ in proxy.asked} == {"POST"}
        counts.append(len(proxy.asked))
    assert counts[0] == counts[1] <= 12


async def test_a_batch_of_one_is_asked_by_its_own_queries(world: World) -> None:
    proxy = Proxy(world.address)
    with through(proxy) as source:
        found = await read_all(source, [queries_of("envoy", "web")])
    assert found[0]["requestRate"].outcome is Outcome.OK
    assert not any(is_group(query) for _, query in proxy.asked)


async def test_an_absent_load_is_confirmed_by_its_own_query_and_not_again_at_once(world: World) -> None:
    proxy = Proxy(world.address)
    batch = [queries_of("envoy", "web"), queries_of("envoy", "nowhere")]
    with through(proxy) as source:
        for _ in range(3):
            found = await read_all(source, batch)
            assert found[1]["requestRate"].outcome is Outcome.EMPTY
    own = [query for _, query in proxy.asked if not is_group(query)]
    assert own == [batch[1]["requestRate"]]


async def test_a_custom_query_is_asked_alone_beside_the_group(world: World) -> None:
    proxy = Proxy(world.address)
    own = render_queries("envoy", {"requestRate": "odd_gauge", "latency": "(("}, QueryContext("shop", "web"))
    batch = [*services(3), own]
    with through(proxy) as source:
        found = await read_all(source, batch)
    assert found[-1]["requestRate"].value == 42
    assert found[-1]["latency"].outcome is Outcome.BAD_QUERY
    assert found[-2]["requestRate"].outcome is Outcome.OK
    assert {query for _, query in proxy.asked if not is_group(query)} >= {"odd_gauge", "(("}


async def test_a_refused_group_is_asked_in_parts_and_only_the_culprit_for_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is about web-7 together with others is refused."""
    monkeypatch.setattr(grouped, "PARTS", (None, 10, 3))
    monkeypatch.setattr(grouped, "MOST_CONFIRMED", 0)
    proxy = Proxy(world.address, refuse=lambda q: "too much" if "web-7" in q and is_group(q) else "")
    batch, now = services(40), time.time()
    with through(proxy) as source:
        first = await read_all(source, batch, now)
        proxy.asked.clear()
        second = await read_all(source, batch, now)
        asked = list(proxy.asked)
        for queries, one, two in zip(batch, first, second, strict=True):
            alone = await source.read(queries, now)
            assert_same(one, alone)
            assert_same(two, alone)
    alone_now = {query for _, query in asked if not is_group(query)}
    assert 0 < len(alone_now) <= 3 * len(batch[7].texts)
    whole = [query for _, query in asked if named(query) >= 40]
    assert whole == []


async def test_an_answer_that_is_too_large_is_asked_for_in_parts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.metrics.client.MAX_ANSWER_BYTES", 700)
    monkeypatch.setattr(grouped, "PARTS", (None, 4, 2))
    batch = [queries_of("envoy", name) for name in ("web", "flawless", "idle", *exporter.ODD_NAMES)]
    now = time.time()
    with through(Proxy(world.address)) as source:
        found = await read_all(source, batch, now)
        for queries, readings in zip(batch, found, strict=True):
            assert_same(readings, await source.read(queries, now))
    assert found[0]["requestRate"].value == pytest.approx(exporter.RATE, rel=0.05)


async def test_a_group_that_is_slow_is_asked_in_parts_from_the_next_reading_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped, "PARTS", (None, 10, 3))
    monkeypatch.setattr(grouped, "MOST_CONFIRMED", 0)
    proxy = Proxy(world.address, delay_s=lambda q: 2.0 if named(q) > 30 else 0.0)
    batch = services(40)
    with through(proxy, timeout_s=1.0) as source:
        first = await read_all(source, batch)
        assert {readings["requestRate"].outcome for readings in first} == {Outcome.SLOW}
        await asyncio.sleep(0.5)
        second = await read_all(source, batch)
    assert second[-1]["requestRate"].outcome is Outcome.OK


async def test_a_prometheus_that_is_slow_altogether_is_not_asked_more_than_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped, "PARTS", (None, 10, 3))
    proxy = Proxy(world.address, delay_s=lambda q: 1.0)
    batch = services(40)
    counts = []
    with through(proxy, timeout_s=0.3) as source:
        for _ in range(3):
            before = len(proxy.asked)
            found = await read_all(source, batch)
            await asyncio.sleep(0.5)
            counts.append(len(proxy.asked) - before)
    assert {readings["requestRate"].outcome for readings in found} == {Outcome.SLOW}
    assert max(counts) <= 12


async def test_a_costly_answer_about_everybody_is_shared_and_its_ages_grow_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped, "MOST_CONFIRMED", 0)
    proxy = Proxy(world.address, delay_s=lambda q: 0.3)
    batch = services(300)
    with through(proxy) as source:
        await read_all(source, batch)
        asked = len(proxy.asked)
        await asyncio.sleep(1.0)
        again = await read_all(source, batch)
        assert len(proxy.asked) == asked
        rate = again[-1]["requestRate"]
        assert rate.outcome is Outcome.OK
        await asyncio.sleep(WINDOW_S)
        assert (await read_all(source, batch))[-1]["requestRate"].timestamp_s > rate.timestamp_s


async def test_an_answer_that_takes_us_long_to_take_apart_is_shared_as_well(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped, "MOST_CONFIRMED", 0)
    monkeypatch.setattr(grouped, "SHARED_TIMES", 0.0)
    proxy = Proxy(world.address)
    batch = services(40)

    async def asked_again(times: float) -> int:
        monkeypatch.setattr(grouped, "OWN_TIMES", times)
        with through(proxy) as source:
            await read_all(source, batch)
            before = len(proxy.asked)
            await read_all(source, batch)
            return len(proxy.asked) - before

    assert await asked_again(0.0) > 0
    assert await asked_again(1e6) == 0


async def test_nobody_waits_for_anothers_slow_query(world: World) -> None:
    proxy = Proxy(world.address, delay_s=lambda q: 1.5 if q == "odd_gauge" else 0.0)
    slow = QuerySet({"requestRate": "odd_gauge"})
    batch = [*services(3), slow]
    done: list[QuerySet] = []
    with through(proxy) as source:
        together = source.round(batch)

        async def one(queries: QuerySet) -> None:
            await together.read(queries)
            done.append(queries)

        await asyncio.gather(*(one(queries) for queries in batch))
    assert done[-1] is slow
    assert len(done) == 5


# Pure


@pytest.mark.parametrize("workload", ["web", "web-api", "web-0", "a.b"])
@pytest.mark.parametrize(
    "pod",
    [
        "web-7c9d8f6b5d-x2k4q",
        "web-0",
        "web-x2k4q",
        "web-api-x2k4q",
        "web-api-7c9d8f6b5d-x2k4q",
        "web",
        "a.b-0",
    ],
)
def test_pods_belong_to_the_workloads_that_their_names_match(workload: str, pod: str) -> None:
    """The labels as Prometheus makes them with the two label_replace of the query."""
    text = CPU_FAMILIES[0].text
    plain, deep = (
        re.search(pattern, text) for pattern in (r'"pod", "(\(\.\+\)[^"]*)"', r'"pod", "(\.\+[^"]*)"')
    )
    assert plain is not None
    assert deep is not None
    labels = {"namespace": "shop"}
    if match := re.fullmatch(plain[1], pod):
        labels["workload"] = match[1]
    if re.fullmatch(deep[1], pod):
        labels["deep"] = "1"
    values = CPU_FAMILIES[0].values([{"metric": labels, "value": [0, "1"]}])
    assert (("shop", workload) in values) == bool(re.fullmatch(pods_pattern(workload), pod))


def test_every_signal_of_every_preset_can_be_asked_for_many() -> None:
    for name, preset in PRESETS.items():
        if name == "custom":
            continue
        queries = queries_of(name, "web")
        assert set(queries.texts) == set(queries.plans), name
        assert set(preset.groups) == set(preset.queries)


def test_several_series_of_one_service_are_no_answer() -> None:
    series = {"metric": {"a": "x", "b": "y"}, "value": [0, "1"]}
    with pytest.raises(ValueError, match="several series"):
        Family("q", ("a", "b")).values([series, series])


def test_an_answers_keys_are_those_that_are_known_already() -> None:
    family, known = Family("q", ("a", "b")), ("shop", "web")
    values = family.values(
        [
            {"metric": {"a": "shop", "b": "web"}, "value": [0, "1"]},
            {"metric": {"a": "shop", "b": "api"}, "value": [0, "2"]},
        ],
        {known: known},
    )
    assert values == {("shop", "web"): 1.0, ("shop", "api"): 2.0}
    assert next(iter(values)) is known
