"""The unmodified operator as a process of its own, as the demo and the tests of kill -9 start it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import aiohttp

from sim.errors import SimulationError
from sim.twin.processes import Child, free_port
from sim.twin.twin import TwinFolder

_READY_S = 30.0


class OperatorProcess:
    """`rl-scaler operator` against a twin; `start` again after it ended gives a new process."""

    def __init__(self, twin: TwinFolder, log: Path) -> None:
        self.port = free_port()
        command = [
            *(sys.executable, "-m", "controller", "operator"),
            *("--kubeconfig", str(twin.kubeconfig)),
            *("--prometheus-address", twin.prometheus.url),
            *("--time-scale", f"{twin.cluster.time_scale:g}"),
            *("--http-address", f"127.0.0.1:{self.port}"),
            *("--log-format", "text"),
        ]
        self.child = Child(command, log, os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        await self.child.start()

    async def until_ready(self) -> None:
        """Waits for /readyz.

        Raises:
            SimulationError: it ended, or took longer than half a minute; with the end of its log.
        """
        deadline = asyncio.get_running_loop().time() + _READY_S
        async with aiohttp.ClientSession() as session:
            while asyncio.get_running_loop().time() < deadline and self.child.running:
                if await _is_ready(session, f"{self.url}/readyz"):
                    return
                await asyncio.sleep(0.1)
        raise SimulationError(
            f"the operator did not get ready; the end of its log:\n{self.child.last_words(12)}"
        )


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
