"""One run of the demo from the first process to the last line of the table."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from sim.demo import report
from sim.demo.objects import HPA, RL, rlscaler_yaml
from sim.demo.operator import OperatorProcess
from sim.demo.page import Page
from sim.demo.plan import Plan
from sim.demo.running import Running
from sim.demo.state import DemoState
from sim.demo.terminal import TerminalView
from sim.twin.service import SimulatedService
from sim.twin.twin import Twin


class Demo(Running):
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
        super().__init__(console)
        self.plan, self.directory = plan, directory
        self.preference, self.page_port, self.keep = preference, page_port, keep

    async def run(self) -> None:
        """Runs until the window is over or Ctrl-C; nothing is left running after it."""
        twin_directory = self.fresh(self.directory)
        async with AsyncExitStack() as stack:
            stack.callback(self.handle_signals())
            self.console.print(f"starting the twin and the operator, in {self.directory}", highlight=False)
            twin = await stack.enter_async_context(self._twin(twin_directory))
            state = DemoState(self.plan, twin)
            for name in (RL, HPA):
                twin.apply(rlscaler_yaml(name, self.preference, self.plan.max_replicas))
            operator = await self.start_operator(stack, twin, self.directory / "operator.log")
            page = await stack.enter_async_context(Page(state, self.page_port))
            self.describe(state, operator, page)
            await self._follow(stack, state, operator, page)
            state.update()
            self._conclude(state)
            if self.keep and not self._stop.is_set():
                self.console.print(f"{page.url} stays up until Ctrl-C", highlight=False)
                await self._stop.wait()

    def _twin(self, directory: Path) -> Twin:
        plan = self.plan
        services = [SimulatedService(name, plan.trace, plan.params) for name in (RL, HPA)]
        start_up_s = float(plan.params.start_up_s)  # type: ignore[arg-type]
        return Twin(
            directory, services, plan.first_replicas, time_scale=plan.time_scale, start_up_s=start_up_s
        )

    async def _follow(
        self, stack: AsyncExitStack, state: DemoState, operator: OperatorProcess, page: Page
    ) -> None:
        self.watch(stack, state, operator)
        fresh = asyncio.Event()
        state.fleet.listeners.append(fresh.set)
        with TerminalView(state, self.console) as view:
            while not state.finished and not self._stop.is_set():
                await self._next_period(fresh)
                state.update()
                self.update_facts(state, operator)
                view.refresh()
                await page.publish()
            await state.fleet.stop()

    async def _next_period(self, fresh: asyncio.Event) -> None:
        waits = [asyncio.create_task(fresh.wait()), asyncio.create_task(self._stop.wait())]
        await asyncio.wait(waits, timeout=2.0, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        fresh.clear()

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
