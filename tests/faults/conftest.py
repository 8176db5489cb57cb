"""Fixtures of the fault tests: proxies' loop, runner, Prometheus and a rig for each module."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import _namespace
from tests.faults.launcher import Runner
from tests.faults.relay import LoopThread
from tests.faults.rig import SCRAPE_S, Rig
from tests.faults.traffic import UnsteadyTraffic
from tests.integration.harness import Cluster, Exporter, Namespace, Prometheus

RigFactory = Callable[..., Rig]


@pytest.fixture(scope="session")
def thread() -> Iterator[LoopThread]:
    """The event loop of all proxies."""
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Where operators are forked."""
    server = Runner(tmp_path_factory.mktemp("runner"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def unsteady() -> UnsteadyTraffic:
    """The traffic that the faulty Prometheus sees."""
    return UnsteadyTraffic()


@pytest.fixture(scope="session")
def sound_prometheus(
    unsteady: UnsteadyTraffic, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A real Prometheus that scrapes the unsteady traffic."""
    exporter = Exporter(unsteady)
    directory = tmp_path_factory.mktemp("prometheus")
    server = Prometheus(directory, exporter.port)
    patient = (directory / "prometheus.yml").read_text().replace("200ms", f"{SCRAPE_S * 1000:g}ms")
    (directory / "prometheus.yml").write_text(patient)
    server.start()
    yield server
    server.stop()
    exporter.close()


@pytest.fixture(scope="module")
def another_namespace(cluster: Cluster) -> Iterator[Namespace]:
    """A second namespace, for an operator that suffers on its own."""
    yield from _namespace(cluster)


@pytest.fixture(scope="module")
def make_rig(
    shared_namespace: Namespace,
    thread: LoopThread,
    runner: Runner,
    unsteady: UnsteadyTraffic,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RigFactory]:
    """Makes rigs, in the module's namespace if no other is given; they are closed at its end."""
    made: list[Rig] = []

    def make(
        prometheus: Prometheus | None = None, namespace: Namespace = shared_namespace, **env: str
    ) -> Rig:
        place = tmp_path_factory.mktemp("rig")
        rig = Rig(namespace, thread, runner, unsteady, prometheus, place, **env)
        made.append(rig)
        return rig

    yield make
    for rig in made:
        rig.close()
