"""All of the twin in one object, as the demo and `python -m sim.twin` run it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import yaml

from controller.api.crd import crd_yaml
from sim.twin.emulator import TwinCluster
from sim.twin.errors import ApiError, Json
from sim.twin.prometheus import Prometheus
from sim.twin.service import Exporter, ServiceFleet, SimulatedService
from sim.twin.workloads import DEPLOYMENTS


class TwinFolder:
    """A cluster of the twin with a folder for its files: what both data planes stand on."""

    prometheus: Prometheus

    def __init__(self, directory: Path, cluster: TwinCluster) -> None:
        self.directory, self.cluster = directory, cluster
        self._stack = AsyncExitStack()

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    async def __aenter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.cluster)
            self.cluster.write_kubeconfig(self.kubeconfig)
            self.apply(crd_yaml())
            await self._enter(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def _enter(self, stack: AsyncExitStack) -> None:
        """Starts what is in the cluster."""
        raise NotImplementedError

    async def _until_ready(self, workloads: Iterable[tuple[str, str]]) -> None:
        """Until the first pods of Deployments (namespace, name) are up, so that services start healthy."""
        api = self.cluster.api
        while True:
            found = [api.store.get(DEPLOYMENTS, *workload) for workload in workloads]
            if all(d is None or (d.get("status") or {}).get("readyReplicas", 0) >= 1 for d in found):
                return
            await asyncio.sleep(0.02)

    def apply(self, text: str) -> None:
        """Creates the objects of a YAML text in the cluster; those that exist are left as they are."""
        for document in yaml.safe_load_all(text):
            if document:
                self._create(document)

    def _create(self, document: Json) -> None:
        api = self.cluster.api
        group, _, version = document["apiVersion"].rpartition("/")
        served = (r for k, r in api.served.items() if k[:2] == (group, version))
        resource = next(r for r in served if r.kind == document["kind"])
        namespace = document["metadata"].get("namespace", "default") if resource.namespaced else None
        try:
            api.create(resource, namespace, document)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise


class Twin(TwinFolder):
    """`async with Twin(directory, services, replicas) as twin:` — everything is up and traffic flows inside.

    services: each gets a Deployment with `replicas` pods and a Service. Times are control seconds, of which
    `time_scale` pass in a real one. The kubeconfig and Prometheus' files go into `directory`.
    """

    fleet: ServiceFleet

    def __init__(
        self,
        directory: Path,
        services: list[SimulatedService],
        replicas: int = 2,
        *,
        time_scale: float = 60.0,
        start_up_s: float = 60.0,
        port: int = 0,
        period_s: float = 15.0,
        seed: int = 0,
    ) -> None:
        super().__init__(directory, TwinCluster(port=port, time_scale=time_scale, start_up_s=start_up_s))
        self.services, self.replicas = services, replicas
        self.period_s, self.seed = period_s, seed

    async def _enter(self, stack: AsyncExitStack) -> None:
        for service in self.services:
            self.apply(workload_yaml(service.workload, self.replicas, service.namespace, service.cpu_request))
        await self._until_ready([(service.namespace, service.workload) for service in self.services])
        self.fleet = ServiceFleet(self.cluster, self.services, period_s=self.period_s, seed=self.seed)
        stack.push_async_callback(self.fleet.stop)
        exporter = await stack.enter_async_context(Exporter(self.fleet))
        self.prometheus = Prometheus(self.directory, exporter.port, self.cluster.time_scale)
        await stack.enter_async_context(self.prometheus)
        self.fleet.start()


def workload_yaml(name: str, replicas: int, namespace: str = "default", cpu_request: float = 1.0) -> str:
    """A Deployment and a Service of one name."""
    labels = {"app": name}
    meta = {"name": name, "namespace": namespace, "labels": labels}
    container = {
        "name": "main",
        "image": "example.com/simulated:1",
        "resources": {"requests": {"cpu": f"{cpu_request:g}"}},
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
    ports = {"selector": labels, "ports": [{"port": 80}]}
    return yaml.safe_dump_all(
        [deployment, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": ports}]
    )
