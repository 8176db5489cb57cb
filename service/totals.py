"""Sums over the jobs of a strategy, for `/stats`; kept on disk, so that old jobs can be forgotten."""

from __future__ import annotations

from dataclasses import dataclass, fields

from service.jobs import Job


@dataclass(slots=True)
class Totals:
    """Counts of jobs, and sums over those that finished."""

    came: int = 0
    rejected: int = 0
    withdrawn: int = 0
    finished: int = 0
    slowdown_sum: float = 0.0
    wait_sum_s: float = 0.0
    longest_wait_s: float = 0.0
    cpu_s: float = 0.0
    """Cpu taken times time."""

    def finished_one(self, job: Job, speed: float) -> None:
        """Count a finished job, which ran on a server of this speed."""
        assert job.ended_s is not None
        assert job.started_s is not None
        self.finished += 1
        self.slowdown_sum += job.slowdown(speed)
        self.wait_sum_s += job.wait_s
        self.longest_wait_s = max(self.longest_wait_s, job.wait_s)
        self.cpu_s += job.cpu * (job.ended_s - job.started_s)

    def add(self, other: Totals) -> None:
        """Count another strategy's jobs as well."""
        for name in COLUMNS:
            both = max if name == "longest_wait_s" else sum
            setattr(self, name, both((getattr(self, name), getattr(other, name))))

    @property
    def mean_slowdown(self) -> float | None:
        """None before a job has finished."""
        return self.slowdown_sum / self.finished if self.finished else None

    @property
    def mean_wait_s(self) -> float | None:
        """From coming to being placed; None before a job has finished."""
        return self.wait_sum_s / self.finished if self.finished else None


COLUMNS = tuple(field.name for field in fields(Totals))
