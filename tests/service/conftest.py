"""The service as tests use it: an application in this process, and the real command in its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.engine import Engine
from service.servers import Fleet, Server
from service.settings import Settings
from service.strategies import Strategy, strategies

START_S = 240.0
"""For a start that compiles everything on a busy machine."""
TOKEN = "a-token-of-twenty-four-ch"


class Clock:
    """Unix time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def known() -> dict[str, Strategy]:
    return dict(strategies(3))


def fleet(count: int = 3, cpu: float = 8.0, memory: float = 32.0) -> Fleet:
    return Fleet(tuple(Server(f"s{k + 1}", cpu, memory) for k in range(count)))


@pytest.fixture
def client(clock: Clock) -> Callable[..., Any]:
    """A client of an application with these settings, in a `with`."""

    @contextmanager
    def opened(host: str = "localhost", **settings: Any) -> Iterator[TestClient]:
        values: dict[str, Any] = {"fleet": fleet(), "strategy": "least-loaded"} | settings
        engine = Engine(Settings(**values), clock)
        with TestClient(create_app(engine), base_url=f"http://{host}") as made:
            yield made

    return opened


class Process:
    """`rl-scaler serve` as a process of its own."""

    def __init__(self, state: Path, *flags: str, environment: dict[str, str] | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "controller", "serve", "--state", str(state)]
        self.log = state.with_name(f"{self.port}.log")
        self._file = self.log.open("ab")
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), *flags],
            stderr=self._file,
            stdout=self._file,
            env=os.environ | (environment or {}),
        )

    def wait(self) -> Process:
        """Until it answers."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"it has ended: {self.log.read_text()}")
            try:
                if httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(f"it does not answer: {self.log.read_text()}")

    def kill(self, sig: int = signal.SIGKILL) -> int:
        """Send it a signal; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        code = self.process.wait(60)
        self._file.close()
        return code


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts processes, which end with the test."""
    started: list[Process] = []

    def start(*flags: str, state: str = "state.db", **options: Any) -> Process:
        started.append(Process(tmp_path / state, *flags, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
