"""A job's life as the service tells and keeps it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

RUNNING, QUEUED, REJECTED, FINISHED, WITHDRAWN = "running", "queued", "rejected", "finished", "withdrawn"
STATUSES = (RUNNING, QUEUED, REJECTED, FINISHED, WITHDRAWN)
BOUND_S = 10.0
"""Jobs shorter than this count as this long in the slowdown (Feitelson's bounded slowdown)."""


@dataclass(slots=True)
class Job:
    """Times are seconds on the cluster's clock; cpu and memory in the user's units."""

    id: int
    name: str
    cpu: float
    memory: float
    estimate_s: float
    strategy: str
    submitted_s: float
    status: str = QUEUED
    server: str | None = None
    started_s: float | None = None
    ended_s: float | None = None
    ended_by: str | None = None
    """estimate, report, or (a job that was never placed) withdrawal."""
    reason: str = ""

    @property
    def wait_s(self) -> float:
        """From coming to being placed; of a finished or running job."""
        return (self.started_s or self.submitted_s) - self.submitted_s

    def slowdown(self, speed: float) -> float:
        """Bounded slowdown of a finished job that ran at `speed`: (wait + run) over its work, which counts as
        10 s at least; 1 or more."""
        assert self.ended_s is not None
        assert self.started_s is not None
        work = (self.ended_s - self.started_s) * speed
        return max((self.ended_s - self.submitted_s) / max(work, BOUND_S), 1.0)


COLUMNS = tuple(field.name for field in fields(Job))


def row_of(job: Job) -> tuple[Any, ...]:
    """Its values in the order of COLUMNS."""
    return tuple(getattr(job, name) for name in COLUMNS)
