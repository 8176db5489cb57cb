"""Settings of a cluster's physics, the servers that it has, and the jobs that it gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from sim.errors import require, require_all
from sim.scheduling.layout import FloatArray

ORDERS = ("arrival", "size", "strict")


@dataclass(frozen=True)
class SchedulingParams:
    """How jobs share servers, and how they wait."""

    overcommit: float = 1.0
    """Cpu that may be placed on a server, over what it has. 1: reservations, as kube-scheduler, Borg and
    Slurm keep them; nothing is ever overloaded. Above 1, jobs share an overloaded server's cpu evenly and are
    slower. Memory is never overcommitted."""
    thrash: float = 0.5
    """What overload costs beyond sharing: at a load of 2 each job's rate is divided by 2 x (1 + thrash)."""
    bound_s: float = 10.0
    """Jobs shorter than this count as this long in the slowdown (Feitelson's bounded slowdown)."""
    order: Literal["arrival", "size", "strict"] = "arrival"
    """In which order waiting jobs are offered. arrival: first come; those that fit nowhere are passed over,
    as kube-scheduler does. size: the shortest estimate first. strict: first come, and nobody passes the
    first."""
    depth: int = 4
    """After an event, at most so many jobs are held by choice; then time goes on."""
    queue_limit: int = 1_000_000
    """Jobs that can wait; who comes to a full queue and fits nowhere is rejected."""
    reject_freely: bool = False
    """Whether any job may be rejected, or only one that comes to a full queue."""
    max_jobs: int = 110
    """Jobs on a server at once (110 is the kubelet's limit of pods)."""

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        require(1.0 <= self.overcommit <= 10.0, "overcommit", self.overcommit, "in 1..10")
        require(0.0 <= self.thrash <= 10.0, "thrash", self.thrash, "in 0..10")
        require(0.0 < self.bound_s < np.inf, "bound_s", self.bound_s, "above 0")
        require(self.order in ORDERS, "order", self.order, f"one of {', '.join(ORDERS)}")
        for name in ("depth", "queue_limit", "max_jobs"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")

    def columns(self) -> list[float]:
        """Values in the order of `layout.SETTINGS`."""
        by_size, strict = float(self.order == "size"), float(self.order == "strict")
        limit, freely = float(self.queue_limit), float(self.reject_freely)
        depth = float(self.depth)
        return [self.overcommit, self.thrash, self.bound_s, depth, limit, by_size, strict, freely]


@dataclass(frozen=True, eq=False)
class Servers:
    """Servers, arrays `[S]`. cpu, memory: 1.0 = a whole machine; speed: 1.0 = the one that durations are
    of."""

    cpu: FloatArray
    memory: FloatArray
    speed: FloatArray

    def __post_init__(self) -> None:
        """Arrays of floats, checked."""
        for name in ("cpu", "memory", "speed"):
            values = np.atleast_1d(np.asarray(getattr(self, name), dtype=np.float64))
            object.__setattr__(self, name, values)
            require(values.shape == self.cpu.shape, name, values.shape, f"as long as cpu ({len(self.cpu)})")
            require_all(np.isfinite(values) & (values > 0), name, values, "above 0")

    def __len__(self) -> int:
        return len(self.cpu)

    @staticmethod
    def alike(count: int, cpu: float = 1.0, memory: float = 1.0, speed: float = 1.0) -> Servers:
        """`count` equal ones."""
        require(count >= 1, "servers", count, "1 or more")
        return Servers(np.full(count, cpu), np.full(count, memory), np.full(count, speed))


@dataclass(frozen=True, eq=False)
class Workload:
    """Jobs for one episode, arrays `[J]`, in the order of their submission; nothing is unknown here."""

    submit_s: FloatArray
    duration_s: FloatArray
    cpu: FloatArray
    memory: FloatArray
    estimate_s: FloatArray = field(default_factory=lambda: np.empty(0))
    """What the scheduler is told of the duration; empty: the truth."""
    name: str = "jobs"

    def __post_init__(self) -> None:
        """Arrays of floats, checked."""
        if len(self.estimate_s) == 0:
            object.__setattr__(self, "estimate_s", self.duration_s)
        for name in ("submit_s", "duration_s", "cpu", "memory", "estimate_s"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, values)
            shape = (len(self.submit_s),)
            require(values.shape == shape, name, values.shape, f"as long as submit_s ({shape[0]})")
            least = 0.0 if name in ("submit_s", "memory") else np.nextafter(0.0, 1.0)
            require_all(np.isfinite(values) & (values >= least), name, values, "finite, above 0")
        require(len(self.submit_s) >= 1, "jobs", len(self.submit_s), "1 or more")
        require_all(np.diff(self.submit_s, prepend=0.0) >= 0, "submit_s", self.submit_s, "rising")

    def __len__(self) -> int:
        return len(self.submit_s)

    def load_on(self, servers: Servers) -> float:
        """Work submitted a second over what the servers can do, of cpu or memory, whichever is larger."""
        span = float(self.submit_s[-1] - self.submit_s[0]) or 1.0
        loads = [
            float((self.duration_s * asked).sum()) / float((has * servers.speed).sum()) / span
            for asked, has in ((self.cpu, servers.cpu), (self.memory, servers.memory))
        ]
        return max(loads)

    def at_load(self, load: float, servers: Servers) -> Workload:
        """The same jobs, submitted faster or slower, so that they load the servers to `load`."""
        require(load > 0, "load", load, "above 0")
        factor = self.load_on(servers) / load
        times = (self.submit_s - self.submit_s[0]) * factor
        return Workload(times, self.duration_s, self.cpu, self.memory, self.estimate_s, self.name)

    def estimated(self, error: float, rng: np.random.Generator) -> Workload:
        """With estimates that are wrong by a log-normal factor of sigma `error`."""
        require(0.0 <= error <= 5.0, "error", error, "in 0..5")
        factor = np.exp(error * rng.standard_normal(len(self)))
        estimate: FloatArray = self.duration_s * factor
        return Workload(self.submit_s, self.duration_s, self.cpu, self.memory, estimate, self.name)
