"""All strategies side by side on the same generated jobs, in a time that can be paused and sped up.

`demo_routes` serves it to the page `/demo`. Jobs are drawn as in training (`sim.scheduling.workloads`), and
sized so that a rate of jobs is a load. Nothing is kept: it begins anew with the process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from service.cluster import Asked, Cluster
from service.errors import FieldError
from service.servers import Fleet, Server
from service.strategies import Strategy, named
from sim.scheduling import SchedulingParams
from sim.scheduling.workloads import SchedulingScenario, draw_episode

SPEEDS = (0.1, 1000.0)
JOB_RATES = (0.001, 100.0)
DRAWN = 400
"""Jobs that are drawn at a time; each such part has a character of its own."""
MEAN_WORK = 20.0
"""Cpu-seconds of a job on average, in largest servers."""
START_LOAD = 0.9
POINTS = 240
POINT_EVERY_S = 0.5
"""Of real time: how often a point is added to the history."""
LONGEST_STEP_S = 1.0
"""Of real time: nobody watched for longer, and nothing is to be caught up."""
BUDGET_S = 0.05
"""Of computing for one step: beyond it the demonstration's clock falls behind its speed."""
QUEUE_SHOWN, DECISIONS_SHOWN = 20, 20
FLEET = Fleet(
    tuple(
        Server(f"{kind}-{k + 1}", cpu, memory, speed)
        for k in range(4)
        for kind, cpu, memory, speed in (("large", 16, 64, 1.0), ("small", 8, 32, 0.5))
    )
)
PARAMS = SchedulingParams(order="size", queue_limit=2000)
SCENARIO = SchedulingScenario(
    servers=(len(FLEET), len(FLEET)),
    load=(START_LOAD, START_LOAD),
    spread=(1.0, 2.0),
    estimate_error=(0.2, 0.6),
    durations=("log-normal", "pareto", "two kinds"),
    demands=("small", "mixed", "flavours"),
)


class Stream:
    """Endless jobs: gaps with a mean of 1, to be divided by the rate."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._jobs: list[tuple[float, Asked]] = []

    def next(self) -> tuple[float, Asked]:
        """(gap before it, job)."""
        if not self._jobs:
            self._draw()
        return self._jobs.pop()

    def _draw(self) -> None:
        _, jobs = draw_episode(self._rng, SCENARIO, DRAWN)
        gaps = np.diff(jobs.submit_s, prepend=0.0)
        gaps /= max(float(gaps.mean()), 1e-9)
        factor = MEAN_WORK / float((jobs.duration_s * np.maximum(jobs.cpu, jobs.memory)).mean())
        rows = zip(
            gaps.tolist(),
            (jobs.cpu * FLEET.unit_cpu).tolist(),
            (jobs.memory * FLEET.unit_memory).tolist(),
            (jobs.estimate_s * factor).tolist(),
            (jobs.duration_s * factor).tolist(),
            strict=True,
        )
        self._jobs = [(gap, Asked(cpu, memory, est, dur)) for gap, cpu, memory, est, dur in rows][::-1]


def usual_rate() -> float:
    """Jobs a second that load the servers to START_LOAD."""
    able = sum(server.cpu / FLEET.unit_cpu * server.speed for server in FLEET.servers)
    return round(START_LOAD * able / MEAN_WORK, 3)


class Demo:
    """One cluster for each strategy, all with the same jobs. `strategy`: whose servers are shown."""

    def __init__(self, known: Mapping[str, Strategy], strategy: str, seed: int = 0) -> None:
        self.known, self._seed = known, seed
        self.strategy = strategy
        self.paused, self.speed, self.job_rate = False, 20.0, usual_rate()
        self.reset()

    def reset(self) -> None:
        """Empty clusters, the same jobs from the first on."""
        self._stream = Stream(self._seed)
        self.clusters = {
            name: Cluster(FLEET, self.known, PARAMS, self._seed, explain=name == self.strategy)
            for name in self.known
        }
        self.clock_s, self._points_left = 0.0, 0.0
        self._next = self._stream.next()
        self._next_s = self._next[0] / self.job_rate
        self._times: deque[float] = deque(maxlen=POINTS)
        names = ("meanSlowdown", "utilisation", "queue")
        self._history = {
            name: {measure: deque[float](maxlen=POINTS) for measure in names} for name in self.known
        }
        self._note_point()

    def control(self, changes: Mapping[str, Any]) -> None:
        """Apply `paused`, `speed`, `strategy`, `jobRate`, `reset`; all or, raising FieldError, none."""
        for field, (low, high) in (("speed", SPEEDS), ("jobRate", JOB_RATES)):
            if field in changes and not low <= changes[field] <= high:
                raise FieldError(field, changes[field], f"{low:g} to {high:g}")
        if "strategy" in changes:
            self.strategy = named(self.known, changes["strategy"]).name
        self.paused = changes.get("paused", self.paused)
        self.speed = float(changes.get("speed", self.speed))
        if "jobRate" in changes:
            # the gap that is running is stretched with the others
            left, rate = self._next_s - self.clock_s, float(changes["jobRate"])
            self._next_s = self.clock_s + max(left, 0.0) * self.job_rate / rate
            self.job_rate = rate
        if changes.get("reset"):
            self.reset()
        for name, cluster in self.clusters.items():
            cluster.explain = name == self.strategy

    def step(self, real_s: float, budget_s: float = BUDGET_S) -> None:
        """Let `real_s` seconds of real time pass, as far as the budget of computing goes."""
        if self.paused or real_s <= 0:
            return
        real_s = min(real_s, LONGEST_STEP_S)
        until, started = self.clock_s + real_s * self.speed, time.perf_counter()
        while self._next_s <= until:
            self.clock_s = self._next_s
            self._come()
            if time.perf_counter() - started > budget_s:
                break
        if self._next_s > until:
            self.clock_s = until
        for cluster in self.clusters.values():
            cluster.advance(self.clock_s)
            cluster.changes()
        self._points_left -= real_s
        if self._points_left <= 0:
            self._points_left = POINT_EVERY_S
            self._note_point()

    def _come(self) -> None:
        for name, cluster in self.clusters.items():
            cluster.submit(self._next[1], name, self.clock_s)
        self._next = self._stream.next()
        self._next_s = self.clock_s + self._next[0] / self.job_rate

    def _note_point(self) -> None:
        self._times.append(round(self.clock_s, 3))
        for name, cluster in self.clusters.items():
            series = self._history[name]
            series["meanSlowdown"].append(_short(cluster.live.mean_slowdown))
            series["utilisation"].append(_short(taken_share(cluster)))
            series["queue"].append(cluster.live.queue_length)

    def snapshot(self) -> dict[str, Any]:
        """What the page shows."""
        cluster = self.clusters[self.strategy]
        return {
            "clockS": round(self.clock_s, 3),
            "paused": self.paused,
            "speed": self.speed,
            "jobRate": self.job_rate,
            "strategy": self.strategy,
            "strategies": [{"name": one.name, "description": one.description} for one in self.known.values()],
            "servers": servers_json(cluster),
            "queue": {
                "length": cluster.live.queue_length,
                "jobs": [
                    {
                        "id": job.id,
                        "cpu": _short(job.cpu),
                        "memory": _short(job.memory),
                        "estimateS": _short(job.estimate_s),
                        "waitedS": _short(self.clock_s - job.submitted_s),
                    }
                    for job in cluster.waiting(QUEUE_SHOWN)
                ],
            },
            "decisions": [
                {
                    "atS": _short(one.at_s),
                    "job": one.job,
                    "action": one.action,
                    "server": one.server,
                    "reason": one.reason,
                }
                for one in cluster.decisions
            ],
            "comparison": [self._compared(name, one) for name, one in self.clusters.items()],
            "history": {
                "timesS": list(self._times),
                "series": {
                    name: {measure: list(values) for measure, values in series.items()}
                    for name, series in self._history.items()
                },
            },
        }

    def _compared(self, name: str, cluster: Cluster) -> dict[str, Any]:
        totals = cluster.totals[name]
        return {
            "strategy": name,
            "finished": totals.finished,
            "meanSlowdown": _short(cluster.live.mean_slowdown),
            "meanWaitS": _short(totals.mean_wait_s or 0.0),
            "utilisation": _short(cluster.live.mean_utilisation),
            "queue": cluster.live.queue_length,
        }


def servers_json(cluster: Cluster) -> list[dict[str, Any]]:
    """Servers with what is taken of them, in the user's units."""
    arrays, fleet = cluster.live.arrays, cluster.fleet
    return [
        {
            "name": server.name,
            "speed": server.speed,
            "cpu": {"used": _short(arrays.used_cpu[0, s] * fleet.unit_cpu), "total": server.cpu},
            "memory": {"used": _short(arrays.used_memory[0, s] * fleet.unit_memory), "total": server.memory},
            "jobs": int(arrays.running[0, s]),
        }
        for s, server in enumerate(fleet.servers)
    ]


def taken_share(cluster: Cluster) -> float:
    """Cpu taken now over cpu there."""
    arrays = cluster.live.arrays
    return float(arrays.used_cpu[0].sum() / arrays.has_cpu[0].sum())


def _short(value: float) -> float:
    return float(f"{float(value):.5g}")
