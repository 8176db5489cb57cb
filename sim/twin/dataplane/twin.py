"""The twin with real requests: sets of pools behind a real Envoy, a real Prometheus that scrapes it, and
open-loop load. Called by the demo with `--data-plane envoy` and by `benchmarks.dataplane`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from sim.errors import ParameterError
from sim.twin.dataplane.clients import Clients
from sim.twin.dataplane.gateway import Gateway
from sim.twin.dataplane.plan import SetPlan, objects_yaml
from sim.twin.dataplane.proxy import Envoy
from sim.twin.dataplane.servers import PoolServer
from sim.twin.emulator import TwinCluster
from sim.twin.errors import Json
from sim.twin.prometheus import Prometheus
from sim.twin.service import CpuMeters, Exporter, Lines, add_pods
from sim.twin.store import Change
from sim.twin.twin import TwinFolder
from sim.twin.workloads import DEPLOYMENTS, is_ready, pods_of


class EnvoyTwin(TwinFolder):
    """`async with EnvoyTwin(directory, [SetPlan("Ready", 30)]) as twin:` — requests flow, in real time.

    A pool's server works on as many requests at once as its Deployment has ready replicas, times their slots;
    pods need `start_up_s` to get ready. All sets must have the same times. Sets draw the same arrivals.

    Raises:
        EnvoyError, PrometheusError: with what to install.
        ParameterError: no set, two of one name, or different times.
    """

    def __init__(
        self,
        directory: Path,
        sets: Sequence[SetPlan],
        *,
        start_up_s: float = 6.0,
        port: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(directory, TwinCluster(port=port, time_scale=1.0, start_up_s=start_up_s))
        names = [plan.name for plan in sets]
        if not names or len(set(names)) < len(names):
            raise ParameterError("sets", names, "one or more, each once")
        if len({plan.times for plan in sets}) > 1:
            raise ParameterError("sets", [plan.times for plan in sets], "sets of the same times")
        self.sets, self.seed = list(sets), seed
        self.servers: dict[str, PoolServer] = {}
        self.clients: dict[str, Clients] = {}
        self.envoy: Envoy
        self.gateway: Gateway
        self._slots = {plan.service(pool): pool.slots for plan in sets for pool in plan.pools}
        self._meters = {name: CpuMeters() for name in self._slots}
        self._used_s = dict.fromkeys(self._slots, 0.0)

    def server(self, plan: SetPlan, pool: str) -> PoolServer:
        """A pool's server, to make it slow, failing or well."""
        return self.servers[f"{plan.name}-{pool}"]

    async def _enter(self, stack: AsyncExitStack) -> None:
        for plan in self.sets:
            self.apply(objects_yaml(plan))
            for pool in plan.pools:
                name = plan.service(pool)
                server = PoolServer(name, pool.service_s, pool.replicas * pool.slots, seed=self.seed)
                self.servers[name] = await stack.enter_async_context(server)
        ports = {name: server.port for name, server in self.servers.items()}
        times = self.sets[0].times
        equal = {plan.name: dict.fromkeys(plan.services, 1) for plan in self.sets}
        self.envoy = await stack.enter_async_context(Envoy(self.directory, ports, equal, times.flush_s))
        self.gateway = Gateway(self.envoy)
        self.gateway.follow(self.cluster.api)
        await self._until_ready([("default", name) for name in self.servers])
        self.cluster.api.store.listeners.append(self._follow)
        self.catch_up()
        await self._scrape(stack, times.scrape_s)
        for plan in self.sets:
            clients = Clients(self.envoy.listen, plan.name, plan.rate_rps, self.seed)
            self.clients[plan.name] = await stack.enter_async_context(clients)

    async def _scrape(self, stack: AsyncExitStack, scrape_s: float) -> None:
        exporter = await stack.enter_async_context(Exporter(self))
        target = {"targets": [f"127.0.0.1:{self.envoy.admin}"], "labels": {"namespace": "default"}}
        job: dict[str, object] = {
            "job_name": "envoy",
            "metrics_path": "/stats/prometheus",
            "static_configs": [target],
        }
        self.prometheus = Prometheus(self.directory, exporter.port, 1.0, scrape_s, [job])
        await stack.enter_async_context(self.prometheus)

    def _follow(self, change: Change) -> None:
        name = change.obj["metadata"]["name"]
        if change.resource == DEPLOYMENTS and name in self.servers:
            ready = (change.obj.get("status") or {}).get("readyReplicas", 0)
            self.servers[name].slots = ready * self._slots[name]

    def catch_up(self) -> None:
        """Bring the pods' meters up to date: the busy time of a pool's slots, spread over its ready pods."""
        for name, server in self.servers.items():
            busy_s, before = server.busy_s, self._used_s[name]
            pods = [p["metadata"]["name"] for p in self._pods(name) if is_ready(p)]
            self._meters[name].add(pods, (busy_s - before) / self._slots[name])
            self._used_s[name] = busy_s

    def exposition(self) -> str:
        """CPU and readiness of all pods; a pod asks for one core, and uses what its slots are busy."""
        lines = Lines()
        for name in self.servers:
            add_pods(lines, "default", self._pods(name), 1.0, self._meters[name])
        return lines.text()

    def _pods(self, name: str) -> list[Json]:
        return pods_of(self.cluster.api, "default", name)
