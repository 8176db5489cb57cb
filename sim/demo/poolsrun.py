"""One run of `--data-plane envoy`: real requests through a real Envoy, a pool that fails, and a table."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from sim.demo.page import Page
from sim.demo.poolsplan import ACTS, SICK, PoolsPlan
from sim.demo.poolsstate import PoolsState
from sim.demo.poolsview import PoolsView, acts_table
from sim.demo.running import Running
from sim.twin.dataplane.twin import EnvoyTwin

START_UP_S = 4.0
WARM_UP_SYNCS = 5
_LOOK_S = 0.25
NOTES = (
    "Every set gets the same requests. Latencies are what clients saw; late: above the objective, or failed."
)


class PoolsDemo(Running):
    """`await PoolsDemo(plan, directory).run()`; afterwards pools.json is in the directory."""

    def __init__(
        self,
        plan: PoolsPlan,
        directory: Path,
        *,
        page_port: int = 0,
        keep: bool = False,
        console: Console | None = None,
    ) -> None:
        super().__init__(console)
        self.plan, self.directory, self.page_port, self.keep = plan, directory, page_port, keep

    async def run(self) -> None:
        """Runs until the acts are over or Ctrl-C; nothing is left running after it."""
        folder = self.fresh(self.directory)
        async with AsyncExitStack() as stack:
            stack.callback(self.handle_signals())
            self.console.print(f"starting Envoy, Prometheus and the operator, in {folder}", highlight=False)
            twin = await stack.enter_async_context(EnvoyTwin(folder, self.plan.sets, start_up_s=START_UP_S))
            state = PoolsState(self.plan, twin)
            operator = await self.start_operator(stack, twin, self.directory / "operator.log")
            page = await stack.enter_async_context(Page(state, self.page_port, "pools.html"))
            self.describe(state, operator, page)
            self.watch(stack, state, operator)
            with PoolsView(state, self.console) as view:
                await self._follow(state, view, page, lambda: self.update_facts(state, operator))
            self._conclude(state)
            await page.publish()
            if self.keep and not self._stop.is_set():
                self.console.print(f"{page.url} stays up until Ctrl-C", highlight=False)
                await self._stop.wait()

    async def _follow(self, state: PoolsState, view: PoolsView, page: Page, update: object) -> None:
        begin_s = time.monotonic() + WARM_UP_SYNCS * self.plan.sets[0].times.sync_s
        while not state.finished and not self._stop.is_set():
            if not state.act_began_s and time.monotonic() >= begin_s:
                state.begin()
            if state.elapsed_s >= 0 and self.plan.act(state.elapsed_s) >= len(state.act_began_s):
                self._enter(state, self.plan.act(state.elapsed_s))
            state.update()
            update()  # type: ignore[operator]
            view.refresh()
            await page.publish()
            await asyncio.sleep(_LOOK_S)

    def _enter(self, state: PoolsState, index: int) -> None:
        state.act_began_s.append(time.monotonic())
        act = ACTS[index]
        for plan in self.plan.sets:
            server = state.twin.server(plan, SICK)
            usual_s = next(pool.service_s for pool in plan.pools if pool.name == SICK)
            server.service_s, server.error_share = usual_s * act.slower, act.fails

    def _conclude(self, state: PoolsState) -> None:
        if not state.act_began_s:
            self.console.print("stopped before the first act")
            return
        self.console.print(acts_table(state.snapshot()))
        self.console.print(NOTES, style="dim", highlight=False, soft_wrap=True)
        path = self.directory / "pools.json"
        path.write_text(json.dumps(state.snapshot(), indent=1, allow_nan=False) + "\n")
        self.console.print(f"wrote {path}", highlight=False)
