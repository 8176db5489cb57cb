"""An operator over traffic that fails where a test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.integration.harness import Exporter, Namespace, Prometheus
from tests.rollout.world import FailingTraffic, Gateways, Shop

Make = Callable[[Namespace, str], Shop]


@pytest.fixture(scope="module")
def traffic() -> FailingTraffic:
    return FailingTraffic()


@pytest.fixture(scope="module")
def exporter(traffic: FailingTraffic) -> Iterator[Exporter]:
    server = Exporter(traffic)
    yield server
    server.close()


@pytest.fixture(scope="module")
def prometheus(exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), exporter.port)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def gateways() -> Iterator[Gateways]:
    with Gateways() as found:
        yield found


@pytest.fixture
def shop(
    gateways: Gateways, traffic: FailingTraffic, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Shop]]:
    """Makes a shop whose traffic follows its route."""

    def make(ns: Namespace, name: str, **spec: object) -> Shop:
        made = Shop(ns, traffic, name)
        made.make(**spec)  # type: ignore[arg-type]
        gateways.shops.append(made)
        return made

    yield make
    gateways.shops.clear()
