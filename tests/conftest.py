"""Fixtures for all tests: an API server, real Prometheus, the operator as a process.

RLSCALER_TEST_KUBECONFIG names a real cluster's kubeconfig; without it the twin's API server is used.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.harness import (
    ROOT,
    TIME_SCALE,
    Api,
    ApiError,
    Cluster,
    Exporter,
    Json,
    Namespace,
    OperatorProcess,
    Prometheus,
    Readiness,
    Traffic,
    eventually,
)

KUBECONFIG_VARIABLE = "RLSCALER_TEST_KUBECONFIG"
CRD_FILES = sorted((ROOT / "charts" / "crds").glob("*.yaml"))
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MADE_BEFORE = pytest.StashKey[int]()
"""Objects that had been made when a test was tried first."""


def pytest_configure() -> None:
    # a shell starts what runs in its background deaf to Ctrl-C, and so would be the children that get one
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server that serves RLScalers."""
    given = os.environ.get(KUBECONFIG_VARIABLE)
    if given:
        real = Cluster(Path(given), Api(Path(given)))
        install_crds(real.api)
        yield real
        return
    from sim.twin.hosted import HostedCluster

    with HostedCluster(time_scale=TIME_SCALE, start_up_s=10.0) as twin:
        kubeconfig = twin.write_kubeconfig(tmp_path_factory.mktemp("twin") / "kubeconfig")
        embedded = Cluster(kubeconfig, Api(kubeconfig), twin)
        install_crds(embedded.api)
        yield embedded


def install_crds(api: Api) -> None:
    """Apply the chart's CRDs and wait until their objects are served."""
    for path in CRD_FILES:
        install_crd(api, yaml.safe_load(path.read_text()))


def install_crd(api: Api, crd: Json) -> None:
    name = crd["metadata"]["name"]
    try:
        api.create(CRDS, crd)
    except ApiError as error:
        if error.status != 409:
            raise
        version = api.get(f"{CRDS}/{name}")["metadata"]["resourceVersion"]
        crd["metadata"]["resourceVersion"] = version
        api.request("PUT", f"{CRDS}/{name}", crd)

    def served() -> bool:
        conditions = api.get(f"{CRDS}/{name}")["status"]["conditions"]
        assert any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
        try:
            return "items" in api.get(f"/apis/rlscaler.dev/v1alpha1/{crd['spec']['names']['plural']}")
        except ApiError:
            return False

    eventually(served, timeout_s=30.0)


@pytest.fixture(autouse=True)
def _twin_only(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("twin_only") and os.environ.get(KUBECONFIG_VARIABLE):
        pytest.skip("needs powers that only the twin's API server has")


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace of the test's own."""
    yield from _namespace(cluster)


@pytest.fixture(scope="module")
def shared_namespace(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace for the tests of a module, which use names of their own in it."""
    yield from _namespace(cluster)


def _namespace(cluster: Cluster) -> Iterator[Namespace]:
    name = f"rlscaler-test-{uuid.uuid4().hex[:8]}"
    cluster.api.create(
        "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    )
    readiness = Readiness(cluster, name)
    if cluster.twin is None:
        readiness.start()
    yield Namespace(cluster, name)
    if cluster.twin is None:
        readiness.stop()
    cluster.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(autouse=True)
def _cleared_for_another_try(request: pytest.FixtureRequest) -> None:
    """A test that is tried again finds nothing of what it made before."""
    if "shared_namespace" not in request.fixturenames:
        return
    api: Api = request.getfixturevalue("cluster").api
    if getattr(request.node, "execution_count", 1) == 1:
        request.node.stash[MADE_BEFORE] = len(api.made)
    else:
        api.delete_made_since(request.node.stash[MADE_BEFORE])


@pytest.fixture(scope="session")
def traffic() -> Traffic:
    """The traffic that Prometheus sees."""
    return Traffic()


@pytest.fixture(scope="session")
def exporter(traffic: Traffic) -> Iterator[Exporter]:
    server = Exporter(traffic)
    yield server
    server.close()


@pytest.fixture(scope="session")
def prometheus(exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A real Prometheus for tests that leave it running."""
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), exporter.port)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_prometheus(exporter: Exporter, tmp_path: Path) -> Iterator[Prometheus]:
    """A real Prometheus for a test that stops it."""
    server = Prometheus(tmp_path / "prometheus", exporter.port)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def operator(
    cluster: Cluster,
    shared_namespace: Namespace,
    prometheus: Prometheus,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OperatorProcess]:
    """An operator that serves `shared_namespace`; it must end a module without an error in its log."""
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    process = OperatorProcess(cluster.kubeconfig, shared_namespace.name, prometheus.address, log).start()
    yield process
    code = process.stop()
    assert process.errors() == []
    assert code == 0


@pytest.fixture
def make_operator(cluster: Cluster, namespace: Namespace, tmp_path: Path) -> Iterator[OperatorFactory]:
    """Operators for `namespace` that the test starts, kills and starts again."""
    factory = OperatorFactory(cluster, namespace, tmp_path / "operator.log")
    yield factory
    factory.close()


class OperatorFactory:
    """Starts operators and ends those that are still running."""

    def __init__(self, cluster: Cluster, namespace: Namespace, log: Path) -> None:
        self._cluster, self._namespace, self._log = cluster, namespace, log
        self._made: list[OperatorProcess] = []

    def __call__(self, prometheus: Prometheus, **env: str) -> OperatorProcess:
        kubeconfig = self._cluster.kubeconfig
        process = OperatorProcess(kubeconfig, self._namespace.name, prometheus.address, self._log, **env)
        self._made.append(process)
        return process.start()

    def close(self) -> None:
        for process in self._made:
            process.kill()
