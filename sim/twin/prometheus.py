"""A real Prometheus over the twin's exporter, scraping as often as a cluster's would in control time."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import yaml

from sim.errors import SimulationError
from sim.twin.processes import Child, free_port

SCRAPE_INTERVAL_S = 15.0  # control seconds
_START_S = 20.0


class PrometheusError(SimulationError):
    """Prometheus isn't installed, or didn't start."""


class Prometheus:
    """`async with Prometheus(directory, exporter_port, time_scale) as prometheus: prometheus.url`.

    scrape_s: control seconds between scrapes. more_jobs: entries of scrape_configs beside the twin's own.

    Raises:
        PrometheusError: with what to install, or with the end of its log.
    """

    def __init__(
        self,
        directory: Path,
        exporter_port: int,
        time_scale: float,
        scrape_s: float = SCRAPE_INTERVAL_S,
        more_jobs: Sequence[dict[str, object]] = (),
    ) -> None:
        self._directory, self._exporter_port, self._time_scale = directory, exporter_port, time_scale
        self._scrape_s, self._more_jobs = scrape_s, more_jobs
        self.port = 0
        self.child: Child | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Prometheus:
        self.port = free_port()
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Starts it, on the same port and data if it ran before, and waits until it scrapes."""
        binary = shutil.which("prometheus")
        if binary is None:
            raise PrometheusError(
                "the program `prometheus` was not found: install it (Debian, Ubuntu: "
                "`apt-get install prometheus`; elsewhere: https://prometheus.io/download/)"
            )
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "prometheus.yml"
        config.write_text(yaml.safe_dump(self.config(), sort_keys=False))
        self.child = Child(self._command(binary, config), self._directory / "prometheus.log")
        await self.child.start()
        await self._wait_until_ready()

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop()

    def config(self) -> dict[str, object]:
        """What goes into prometheus.yml."""
        interval = f"{max(1, round(1000 * self._scrape_s / self._time_scale))}ms"
        job = {
            "job_name": "twin",
            "honor_labels": True,
            "honor_timestamps": True,
            "static_configs": [{"targets": [f"127.0.0.1:{self._exporter_port}"]}],
        }
        times = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": "1h"}
        return {"global": times, "scrape_configs": [job, *self._more_jobs]}

    def _command(self, binary: str, config: Path) -> list[str]:
        lookback_ms = max(1000, round(300_000 / self._time_scale))
        return [
            binary,
            f"--config.file={config}",
            f"--storage.tsdb.path={self._directory / 'prometheus-data'}",
            "--storage.tsdb.retention.time=6h",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--query.lookback-delta={lookback_ms}ms",
            "--log.level=warn",
        ]

    async def _wait_until_ready(self) -> None:
        assert self.child is not None
        deadline = asyncio.get_running_loop().time() + _START_S
        async with aiohttp.ClientSession() as session:
            while asyncio.get_running_loop().time() < deadline and self.child.running:
                if await _has_scraped(session, self.url):
                    return
                await asyncio.sleep(0.05)
        await self.stop()
        raise PrometheusError(f"prometheus did not start; the end of its log:\n{self.child.last_words()}")


async def _has_scraped(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether the target is up: Prometheus takes some five seconds after its start to begin scraping."""
    try:
        async with session.get(f"{url}/api/v1/query", params={"query": "up == 1"}) as response:
            return response.status == 200 and bool((await response.json())["data"]["result"])
    except aiohttp.ClientError:
        return False
