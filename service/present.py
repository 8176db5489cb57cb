"""Jobs, servers and figures as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from service.cluster import ACTIONS, Answer
from service.demo import servers_json
from service.engine import Engine
from service.jobs import QUEUED, RUNNING, Job
from service.strategies import MEANINGS
from service.totals import Totals

WAITING_SHOWN = 100


def moment(engine: Engine, clock_s: float | None) -> str | None:
    """A time on the cluster's clock as RFC 3339."""
    if clock_s is None:
        return None
    told = datetime.fromtimestamp(engine.epoch_s + clock_s, UTC)
    return told.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def job_json(engine: Engine, job: Job) -> dict[str, Any]:
    """As `models.JobOut`; a waiting job has waited until now."""
    ended = job.ended_s if job.started_s is None else job.started_s
    waited = (engine.clock_s if ended is None else ended) - job.submitted_s
    return {
        "id": job.id,
        "name": job.name,
        "cpu": job.cpu,
        "memory": job.memory,
        "estimateSeconds": job.estimate_s,
        "strategy": job.strategy,
        "status": job.status,
        "server": job.server,
        "reason": job.reason,
        "submittedAt": moment(engine, job.submitted_s),
        "startedAt": moment(engine, job.started_s),
        "endedAt": moment(engine, job.ended_s),
        "endedBy": job.ended_by,
        "waitSeconds": round(max(waited, 0.0), 6),
    }


def placed_json(engine: Engine, answer: Answer) -> dict[str, Any]:
    """As `models.PlacedOut`."""
    return job_json(engine, answer.job) | {"action": ACTIONS[answer.job.status]}


def answer_json(engine: Engine, answer: Answer) -> dict[str, Any]:
    """As `models.ScheduleOut`."""
    scores = []
    if answer.choice is not None:
        found = zip(engine.cluster.fleet.names, answer.choice.able, answer.choice.scores, strict=True)
        scores = [
            {"server": name, "fits": bool(able), "score": None if math.isnan(score) else float(score)}
            for name, able, score in found
        ]
    return placed_json(engine, answer) | {
        "scoreMeaning": MEANINGS[answer.job.strategy],
        "scores": scores,
    }


def status_json(engine: Engine) -> dict[str, Any]:
    """As `models.StatusOut`."""
    cluster = engine.cluster
    return {
        "time": moment(engine, engine.clock_s),
        "strategy": engine.settings.strategy,
        "strategies": [
            {"name": one.name, "description": one.description, "scoreMeaning": MEANINGS[one.name]}
            for one in engine.known.values()
        ],
        "ends": engine.settings.ends,
        "jobs": engine.counts(),
        "servers": servers_json(cluster),
        "queue": {
            "length": cluster.live.queue_length,
            "jobs": [job_json(engine, job) for job in cluster.waiting(WAITING_SHOWN)],
        },
    }


def stats_json(engine: Engine) -> dict[str, Any]:
    """As `models.StatsOut`."""
    active: dict[str, dict[str, float]] = {
        name: {QUEUED: 0, RUNNING: 0, "cpu_s": 0.0} for name in engine.cluster.totals
    }
    for job in engine.cluster.active():
        mine = active[job.strategy]
        mine[job.status] += 1
        if job.started_s is not None:
            mine["cpu_s"] += job.cpu * (engine.clock_s - job.started_s)
    totals = engine.cluster.totals
    rows = [
        {"strategy": name} | _figures(engine, one, active[name])
        for name, one in totals.items()
        if one.came or name in engine.known
    ]
    whole = Totals()
    for one in totals.values():
        whole.add(one)
    together = {key: sum(one[key] for one in active.values()) for key in (QUEUED, RUNNING, "cpu_s")}
    return {
        "since": moment(engine, 0.0),
        "seconds": round(engine.clock_s, 3),
        **_figures(engine, whole, together),
        "strategies": rows,
    }


def _figures(engine: Engine, totals: Totals, active: Mapping[str, float]) -> dict[str, Any]:
    able = max(engine.cluster.capacity * engine.clock_s, 1e-9)
    return {
        "came": totals.came,
        "queued": int(active[QUEUED]),
        "running": int(active[RUNNING]),
        "finished": totals.finished,
        "rejected": totals.rejected,
        "withdrawn": totals.withdrawn,
        "meanSlowdown": _rounded(totals.mean_slowdown),
        "meanWaitSeconds": _rounded(totals.mean_wait_s),
        "longestWaitSeconds": round(totals.longest_wait_s, 6),
        "utilisation": round((totals.cpu_s + active["cpu_s"]) / able, 6),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
