"""Local processes of `sim.webbalancing.server`: started, found dead, started again, stopped.

`sim.webbalancing.real` and `python training/web_balancing.py serve-servers` are the callers.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from sim.errors import SimulationError

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
"""How long a process may take until it listens, on a busy machine."""


@dataclass(frozen=True)
class Wanted:
    """A server to start. port 0: a free one."""

    name: str
    workers: int = 4
    service_s: float = 0.1
    variation: float = 0.5
    seed: int = 0
    port: int = 0


class Fleet:
    """Servers as processes of this machine, which end with this one. control: whether faults may be set."""

    def __init__(self, wanted: list[Wanted], control: bool = True) -> None:
        self._wanted, self._control = wanted, control
        self.processes: list[subprocess.Popen[str] | None] = [None] * len(wanted)
        self.addresses = [""] * len(wanted)
        try:
            for place in range(len(wanted)):
                self._launch(place)
            for place in range(len(wanted)):
                self._wait_for(place)
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> list[str]:
        """As metrics and logs call them."""
        return [one.name for one in self._wanted]

    def dead(self) -> list[int]:
        """Places of processes that have ended."""
        return [place for place, one in enumerate(self.processes) if one is None or one.poll() is not None]

    def restart(self, place: int) -> None:
        """Start a server again that has died; raises SimulationError if it does not come up."""
        self._end(place)
        self._launch(place)
        self._wait_for(place)

    def close(self) -> None:
        """Stop all."""
        for one in self.processes:
            if one is not None and one.poll() is None:
                one.terminate()
        for place in range(len(self.processes)):
            self._end(place)

    def _launch(self, place: int) -> None:
        one = self._wanted[place]
        command = [
            sys.executable, "-m", "sim.webbalancing.server", "--name", one.name,
            "--workers", str(one.workers), "--service-ms", f"{1000 * one.service_s:g}",
            "--variation", f"{one.variation:g}", "--seed", str(one.seed), "--port", str(one.port),
            "--parent", str(os.getpid()), *(["--control"] if self._control else []),
        ]  # fmt: skip
        # its own group: Ctrl-C is for who asked, and who asked stops the servers when all is saved
        self.processes[place] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            start_new_session=True,
        )  # fmt: skip

    def _wait_for(self, place: int) -> None:
        process = self.processes[place]
        assert process is not None
        assert process.stdout is not None
        assert process.stderr is not None
        name, until_s = self._wanted[place].name, time.monotonic() + START_S
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not selector.select(0.2):
                if process.poll() is not None or time.monotonic() > until_s:
                    break
        line = process.stdout.readline() if process.poll() is None and time.monotonic() < until_s else ""
        if not line:
            self._end(place)
            lines = process.stderr.read().strip().splitlines() if not process.stderr.closed else []
            raise SimulationError(f"server {name}: did not start: {(lines or ['no answer'])[-1]}")
        self.addresses[place] = str(json.loads(line)["address"])

    def _end(self, place: int) -> None:
        process = self.processes[place]
        if process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3.0 if process.poll() is None else 0.1)
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
