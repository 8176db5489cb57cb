"""What every demo does beside its own: Ctrl-C, addresses on the screen, and starting again what has died."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

from rich.console import Console

from sim.demo.operator import OperatorProcess
from sim.demo.page import Page
from sim.twin.errors import Json
from sim.twin.twin import TwinFolder

OPERATOR_RESTART_S = 1.0
PROMETHEUS_RESTART_S = 8.0  # long enough to watch the fallback


class Followed(Protocol):
    """A demo's state: what runs, and the facts that its views show."""

    facts: Json

    @property
    def twin(self) -> TwinFolder: ...


class Running:
    """Base of the demos."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._stop = asyncio.Event()
        self._notes: dict[str, str] = {}

    def handle_signals(self) -> Callable[[], None]:
        """Ctrl-C ends the demo in order; the function returned undoes that."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)

        def restore() -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

        return restore

    @staticmethod
    def fresh(directory: Path) -> Path:
        """The folder for the twin's files, empty."""
        (directory / "operator.log").unlink(missing_ok=True)
        shutil.rmtree(directory / "twin", ignore_errors=True)
        (directory / "twin").mkdir(parents=True)
        return directory / "twin"

    async def start_operator(self, stack: AsyncExitStack, twin: TwinFolder, log: Path) -> OperatorProcess:
        """The operator, until the stack is left."""
        operator = OperatorProcess(twin, log)
        stack.push_async_callback(operator.child.stop)
        await operator.start()
        return operator

    def describe(self, state: Followed, operator: OperatorProcess, page: Page) -> None:
        """Addresses, on the screen and among the facts."""
        state.facts |= {
            "page": page.url,
            "kubectl": f"kubectl --kubeconfig {state.twin.kubeconfig} get rls,deployments",
            "prometheus": state.twin.prometheus.url,
            "operator": operator.url,
            "restarts": {"operator": 0, "prometheus": 0},
        }
        self.update_facts(state, operator)
        for key in ("page", "kubectl"):
            self.console.print(f"{key:8} {state.facts[key]}", highlight=False, soft_wrap=True)

    def update_facts(self, state: Followed, operator: OperatorProcess) -> None:
        """Process numbers and what is going on."""
        prometheus = state.twin.prometheus.child
        assert prometheus is not None
        state.facts["pids"] = {"operator": operator.child.pid, "prometheus": prometheus.pid}
        state.facts["notes"] = list(self._notes.values())

    def watch(self, stack: AsyncExitStack, state: Followed, operator: OperatorProcess) -> None:
        """Start again what dies, until the stack is left."""
        for keeping in (self._keep_operator(state, operator), self._keep_prometheus(state)):
            stack.callback(asyncio.create_task(keeping).cancel)

    # What a cluster's own controllers do: start again what has died

    async def _keep_operator(self, state: Followed, operator: OperatorProcess) -> None:
        while True:
            await asyncio.sleep(0.05)
            if operator.child.running:
                continue
            self._notes["operator"] = (
                f"the operator ended ({_cause(operator.child.exit_code)}); restarting it"
            )
            await asyncio.sleep(OPERATOR_RESTART_S)
            await operator.start()
            state.facts["restarts"]["operator"] += 1
            self._notes["operator"] = f"operator restarted, now PID {operator.child.pid}"
            asyncio.get_running_loop().call_later(6.0, self._notes.pop, "operator", None)

    async def _keep_prometheus(self, state: Followed) -> None:
        prometheus = state.twin.prometheus
        while True:
            await asyncio.sleep(0.05)
            if prometheus.child is None or prometheus.child.running:
                continue
            wait = PROMETHEUS_RESTART_S
            self._notes["prometheus"] = f"Prometheus ended; restarting it in {wait:g} s: watch the conditions"
            await asyncio.sleep(wait)
            self._notes["prometheus"] = "Prometheus is starting again"
            await prometheus.start()
            state.facts["restarts"]["prometheus"] += 1
            self._notes.pop("prometheus", None)


def _cause(code: int | None) -> str:
    return f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
