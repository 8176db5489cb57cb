"""A real Prometheus for the whole area: one exporter with known traffic, and one that can be switched off."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import pytest
import pytest_asyncio

from controller.metrics import PrometheusConfig, PrometheusSource
from tests.metrics import exporter
from tests.metrics.servers import (
    envoy,
    envoy_cluster,
    free_port,
    get,
    http_server,
    job,
    prometheus,
    send,
    wait_for,
)

WINDOW_S = 3.0


@dataclass
class World:
    """address: of Prometheus. up: cleared, the exporter of `flaky_requests_total` answers 503.
    sent: when and to which path the requests through the real Envoy went."""

    address: str
    up: threading.Event = field(default_factory=threading.Event)
    sent: list[tuple[float, str]] = field(default_factory=list)

    def sent_rate(self, prefix: str) -> float:
        """Requests/s that really went through Envoy to paths under `prefix` in the last window."""
        since = time.time() - WINDOW_S
        return sum(at >= since and path.startswith(prefix) for at, path in list(self.sent)) / WINDOW_S


def _page(path: str) -> list[str]:
    if path == "/envoy":
        quiet = exporter.Traffic(rate=0.0, errors=False)
        return [
            *exporter.envoy("web"),
            *exporter.envoy("flawless", exporter.Traffic(errors=False)),
            *exporter.envoy("idle", quiet),
            *exporter.crowd(),
        ]
    if path == "/istio":
        return [*exporter.istio("shop", "web"), *exporter.istio("elsewhere", "web")]
    if path == "/nginx":
        return [*exporter.ingress_nginx("shop", "web"), *exporter.ingress_nginx("shop", "other")]
    if path == "/nginx-honoured":
        return exporter.ingress_nginx("shop", "kept")
    if path == "/kubelet":
        pods = ["web-7c9d8f6b5d-x2k4q", "web-7c9d8f6b5d-zz7bn"]
        other = ["web-api-7c9d8f6b5d-aaaaa", "web-api-0", "webshop-7c9d8f6b5d-bbbbb"]
        return [*exporter.kubelet("shop", pods), *exporter.kubelet("shop", other), *exporter.pools()]
    return exporter.odd()


PATHS = ("/real", "/dead", "/real", "/empty", "/real/fail", "/limited", "/real")
"""One request in four to the cluster `real` fails; the other clusters can't take any."""


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, list[tuple[float, str]]]]:
    """A real Envoy under steady traffic: its admin port and the requests sent so far."""

    def respond(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 503 if handler.path.endswith("/fail") else 200, "")

    sent: list[tuple[float, str]] = []
    stop = threading.Event()

    def drive(listen: int) -> None:
        for path in itertools.cycle(PATHS):
            if stop.wait(0.01):
                return
            get(listen, path)
            sent.append((time.time(), path))

    with http_server(respond) as upstream:
        limits = {"thresholds": [{"max_requests": 0, "max_pending_requests": 0}]}
        clusters = [
            envoy_cluster("real", upstream),
            envoy_cluster("dead", free_port()),
            envoy_cluster("empty", None),
            envoy_cluster("limited", upstream, circuit_breakers=limits),
        ]
        with envoy(tmp_path_factory.mktemp("envoy"), clusters) as (listen, admin):
            driver = threading.Thread(target=drive, args=(listen,), daemon=True)
            driver.start()
            yield admin, sent
            stop.set()
            driver.join()


@pytest.fixture(scope="session")
def world(
    proxy: tuple[int, list[tuple[float, str]]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    up = threading.Event()
    up.set()

    def respond(handler: BaseHTTPRequestHandler) -> None:
        if handler.path != "/flaky":
            send(handler, 200, "\n".join(_page(handler.path)) + "\n", "text/plain; version=0.0.4")
        elif up.is_set():
            total = 10.0 * (time.time() - exporter.START_S)
            send(handler, 200, f"flaky_requests_total {total}\n", "text/plain; version=0.0.4")
        else:
            send(handler, 503, "down")

    admin, sent = proxy
    with http_server(respond) as port:
        jobs = [
            job("envoy", port, "/envoy", namespace="shop"),
            job("istio", port, "/istio"),
            job("nginx-renamed", port, "/nginx", namespace="ingress-nginx", service="controller-metrics"),
            job("nginx-honoured", port, "/nginx-honoured", honor_labels=True, namespace="ingress-nginx"),
            job("kubelet", port, "/kubelet", honor_labels=True),
            job("odd", port, "/odd"),
            job("flaky", port, "/flaky"),
            job("real-envoy", admin, "/stats/prometheus", namespace="shop"),
        ]
        with prometheus(tmp_path_factory.mktemp("prometheus"), jobs) as address:
            wait_for(lambda: _healthy_targets(address) == len(jobs), "every target")
            time.sleep(WINDOW_S + 1.5)
            yield World(address, up, sent)


def _healthy_targets(address: str) -> int:
    """Prometheus needs some 5 s to find even static targets."""
    targets = json.loads(get(int(address.rpartition(":")[2]), "/api/v1/targets")[1])["data"]["activeTargets"]
    return sum(target["health"] == "up" for target in targets)


@pytest_asyncio.fixture
async def source(world: World) -> AsyncIterator[PrometheusSource]:
    made = PrometheusSource(PrometheusConfig(world.address, timeout_s=5.0))
    yield made
    made.close()
