"""One run of the demo from the first process to the last line of the table."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from sim.demo import report
from sim.demo.objects import HPA, RL, rlscaler_yaml
from sim.demo.operator import OperatorProcess
from sim.demo.page import Page
from sim.demo.plan import Plan
from sim.demo.state import DemoState
from sim.demo.terminal import TerminalView
from sim.twin.service import SimulatedService
from sim.twin.twin import Twin

OPERATOR_RESTART_S = 1.0
PROMETHEUS_RESTART_S = 8.0  # long enough to watch the fallback


class Demo:
    """`await Demo(plan, directory).run()`; afterwards results.json and demo.png are in the directory."""

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        *,
        preference: int = 50,
        page_port: int = 0,
        keep: bool = False,
        console: Console | None = None,
    ) -> None:
        self.plan, self.directory = plan, directory
        self.preference, self.page_port, self.keep = preference, page_port, keep
        self.console = console or Console()
        self._stop = asyncio.Event()
        self._notes: dict[str, str] = {}

    async def run(self) -> None:
        """Runs until the window is over or Ctrl-C; nothing is left running after it."""
        twin_directory = self.directory / "twin"
        shutil.rmtree(twin_directory, ignore_errors=True)
        twin_directory.mkdir(parents=True)
        async with AsyncExitStack() as stack:
            stack.callback(self._handle_signals())
            self.console.print(f"starting the twin and the operator, in {self.directory}", highlight=False)
            twin = await stack.enter_async_context(self._twin(twin_directory))
            state = DemoState(self.plan, twin)
            operator = await self._start_operator(stack, twin)
            page = await stack.enter_async_context(Page(state, self.page_port))
            self._describe(state, twin, operator, page)
            await self._follow(stack, state, operator, page)
            self._conclude(state)
            if self.keep and not self._stop.is_set():
                self.console.print(f"{page.url} stays up until Ctrl-C", highlight=False)
                await self._stop.wait()

    def _handle_signals(self) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)

        def restore() -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

        return restore

    def _twin(self, directory: Path) -> Twin:
        plan = self.plan
        services = [SimulatedService(name, plan.trace, plan.params) for name in (RL, HPA)]
        start_up_s = float(plan.params.start_up_s)  # type: ignore[arg-type]
        return Twin(
            directory, services, plan.first_replicas, time_scale=plan.time_scale, start_up_s=start_up_s
        )

    async def _start_operator(self, stack: AsyncExitStack, twin: Twin) -> OperatorProcess:
        for name in (RL, HPA):
            twin.apply(rlscaler_yaml(name, self.preference, self.plan.max_replicas))
        operator = OperatorProcess(twin, self.directory / "operator.log")
        operator.child.log.unlink(missing_ok=True)
        stack.push_async_callback(operator.child.stop)
        await operator.start()
        return operator

    def _describe(self, state: DemoState, twin: Twin, operator: OperatorProcess, page: Page) -> None:
        state.facts |= {
            "page": page.url,
            "kubectl": f"kubectl --kubeconfig {twin.kubeconfig} get rls,deployments",
            "prometheus": twin.prometheus.url,
            "operator": operator.url,
            "restarts": {"operator": 0, "prometheus": 0},
        }
        self._update_facts(state, operator)
        for key in ("page", "kubectl"):
            self.console.print(f"{key:8} {state.facts[key]}", highlight=False, soft_wrap=True)

    def _update_facts(self, state: DemoState, operator: OperatorProcess) -> None:
        prometheus = state.twin.prometheus.child
        assert prometheus is not None
        state.facts["pids"] = {"operator": operator.child.pid, "prometheus": prometheus.pid}
        state.facts["notes"] = list(self._notes.values())

    async def _follow(
        self, stack: AsyncExitStack, state: DemoState, operator: OperatorProcess, page: Page
    ) -> None:
        watchers = [
            asyncio.create_task(self._keep_operator(state, operator)),
            asyncio.create_task(self._keep_prometheus(state)),
        ]
        for watcher in watchers:
            stack.callback(watcher.cancel)
        fresh = asyncio.Event()
        state.fleet.listeners.append(fresh.set)
        with TerminalView(state, self.console) as view:
            while not state.finished and not self._stop.is_set():
                await self._next_period(fresh)
                state.update()
                self._update_facts(state, operator)
                view.refresh()
                await page.publish()
            await state.fleet.stop()

    async def _next_period(self, fresh: asyncio.Event) -> None:
        waits = [asyncio.create_task(fresh.wait()), asyncio.create_task(self._stop.wait())]
        await asyncio.wait(waits, timeout=2.0, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        fresh.clear()

    # What a cluster's own controllers do: start again what has died

    async def _keep_operator(self, state: DemoState, operator: OperatorProcess) -> None:
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

    async def _keep_prometheus(self, state: DemoState) -> None:
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

    def _conclude(self, state: DemoState) -> None:
        done_s = min(max(0.0, state.elapsed_s), self.plan.duration_s)
        if done_s < self.plan.duration_s:
            self.console.print(f"stopped after {done_s / 60:.0f} of {self.plan.duration_s / 60:.0f} minutes")
        if done_s < 60:
            return
        self.console.print(f"\n[bold]{report.title(self.plan, done_s)}[/]", highlight=False, soft_wrap=True)
        self.console.print(report.table(state.figures()))
        self.console.print(report.NOTES, style="dim", highlight=False, soft_wrap=True)
        for path in report.write(state, self.directory):
            self.console.print(f"wrote {path}", highlight=False)


def _cause(code: int | None) -> str:
    return f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
