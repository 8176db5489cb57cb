"""A Kubernetes client on the test's API server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from controller.kube import Kube
from tests.integration.harness import Cluster


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[Kube]:
    client = await Kube.connect(str(cluster.kubeconfig), timeout_s=5.0)
    yield client
    await client.close()
