"""`helm install` by the real Helm, against the twin's API server or that of RLSCALER_TEST_KUBECONFIG."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helm_python.config import Config

from sim.twin.hosted import HostedCluster
from tests.charts.conftest import CHART
from tests.integration.harness import Api, ApiError, Cluster, Namespace

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rlscalers.rlscaler.dev"
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"


@dataclass
class Release:
    """The chart installed under a name of its own."""

    name: str
    helm: Config


@pytest.fixture
def release(cluster: Cluster, namespace: Namespace) -> Iterator[Release]:
    name = f"rl-scaler-{uuid.uuid4().hex[:6]}"
    with Config(
        kubeconfig_path=cluster.kubeconfig, namespace=namespace.name, storage_driver="memory"
    ) as helm:
        helm.install(CHART, name, namespace=namespace.name, timeout=60)
        yield Release(name, helm)
        if exists(cluster.api, f"{ROLES}/{name}"):
            helm.uninstall(name)


def exists(api: Api, path: str) -> bool:
    try:
        api.get(path)
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


def test_helm_install_creates_the_operator_and_its_rights(
    cluster: Cluster, namespace: Namespace, release: Release
) -> None:
    for root, plural in (
        ("/apis/apps/v1", "deployments"),
        ("/api/v1", "services"),
        ("/api/v1", "serviceaccounts"),
    ):
        assert exists(cluster.api, namespace.path(root, plural, release.name)), plural
    assert exists(cluster.api, f"{ROLES}/{release.name}")
    assert exists(cluster.api, f"{ROLES.replace('roles', 'rolebindings')}/{release.name}")


def test_helm_upgrade_keeps_one_deployment(cluster: Cluster, namespace: Namespace, release: Release) -> None:
    values = {"prometheus": {"address": "http://prometheus.monitoring:9090"}}
    release.helm.upgrade(CHART, release.name, values, namespace=namespace.name, timeout=60)
    deployment = cluster.api.get(namespace.path("/apis/apps/v1", "deployments", release.name))
    env = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "RLSCALER_PROMETHEUS_ADDRESS", "value": "http://prometheus.monitoring:9090"} in env


def test_helm_uninstall_leaves_the_crd_and_everybodys_rlscalers(
    cluster: Cluster, namespace: Namespace, release: Release
) -> None:
    namespace.rlscaler("kept")
    release.helm.uninstall(release.name)
    assert not exists(cluster.api, namespace.path("/apis/apps/v1", "deployments", release.name))
    assert exists(cluster.api, CRD)
    assert exists(cluster.api, namespace.path("/apis/rlscaler.dev/v1alpha1", "rlscalers", "kept"))


@pytest.mark.twin_only
def test_on_a_new_cluster_helm_installs_the_crd_too(tmp_path: Path) -> None:
    with HostedCluster() as twin:
        kubeconfig = twin.write_kubeconfig(tmp_path / "kubeconfig")
        api = Api(kubeconfig)
        assert not exists(api, CRD)
        with Config(kubeconfig_path=kubeconfig, namespace="autoscaling") as helm:
            helm.install(CHART, "rl-scaler", namespace="autoscaling", create_namespace=True, timeout=60)
        names = api.get(CRD)["status"]["acceptedNames"]
        assert names["shortNames"] == ["rls"]
        assert exists(api, "/apis/apps/v1/namespaces/autoscaling/deployments/rl-scaler")
