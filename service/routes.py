"""`/schedule`, `/jobs`, `/status`, `/stats`, and what machines ask: health and telemetry."""

from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Path, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from service import models, present
from service.cluster import Asked
from service.engine import Engine
from service.telemetry import Telemetry

UNSAVED: dict[int | str, dict[str, Any]] = {
    503: {"model": models.ErrorOut, "description": "The state cannot be written."}
}
UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": models.ErrorOut, "description": "No such job."}}
GONE: dict[int | str, dict[str, Any]] = {
    409: {"model": models.ErrorOut, "description": "The job is gone already."}
}
JobId = Annotated[int, Path(ge=1, le=models.MOST_ID, description="The number that /schedule gave.")]


def json_answer(content: Any) -> Response:
    """Fast, and without a check of our own answer."""
    return Response(orjson.dumps(content), media_type="application/json")


def add_scheduling(app: FastAPI, engine: Engine, telemetry: Telemetry) -> None:
    """Jobs in, decisions out."""
    one, batch, _ = models.requests(engine.known)
    usual = engine.settings.default_estimate_s

    def asked(job: Any) -> Asked:
        estimate = usual if job.estimateSeconds is None else job.estimateSeconds
        return Asked(job.cpu, job.memory, estimate, name=job.name or "")

    @app.post("/schedule", response_model=models.ScheduleOut, responses=UNSAVED, tags=["jobs"])
    async def schedule(job: one) -> Response:  # type: ignore[valid-type]
        """Place one job on a server now, or hold it in the queue, or reject it; with the reason."""
        (answer,) = await engine.schedule([asked(job)], job.strategy)  # type: ignore[attr-defined]
        telemetry.answered(answer)
        return json_answer(present.answer_json(engine, answer))

    @app.post("/schedule/batch", response_model=models.BatchOut, responses=UNSAVED, tags=["jobs"])
    async def schedule_batch(jobs: batch) -> Response:  # type: ignore[valid-type]
        """The same for several jobs, in their order; all or none of them are taken."""
        wanted = [asked(job) for job in jobs.jobs]  # type: ignore[attr-defined]
        answers = await engine.schedule(wanted, jobs.strategy)  # type: ignore[attr-defined]
        for answer in answers:
            telemetry.answered(answer)
        return json_answer({"jobs": [present.placed_json(engine, answer) for answer in answers]})

    @app.get("/jobs/{id}", response_model=models.JobOut, responses=UNKNOWN, tags=["jobs"])
    async def job(id: JobId) -> Response:
        """A job: where it is, since when, and why."""
        return json_answer(present.job_json(engine, await engine.job(id)))

    @app.post(
        "/jobs/{id}/finish",
        response_model=models.JobOut,
        responses=UNKNOWN | GONE | UNSAVED,
        tags=["jobs"],
    )
    async def finish(id: JobId) -> Response:
        """A running job has ended: its server has room again. A waiting job is withdrawn."""
        return json_answer(present.job_json(engine, await engine.finish(id)))


def add_telling(app: FastAPI, engine: Engine, telemetry: Telemetry) -> None:
    """Servers, figures, health."""

    @app.get("/status", response_model=models.StatusOut, tags=["cluster"])
    async def status() -> Response:
        """Servers, queue and strategies now."""
        engine.advance()
        return json_answer(present.status_json(engine))

    @app.get("/stats", response_model=models.StatsOut, tags=["cluster"])
    async def stats() -> Response:
        """Counts, mean slowdown, waits and utilisation since the state began, by strategy."""
        engine.advance()
        return json_answer(present.stats_json(engine))

    @app.get("/healthz", response_class=PlainTextResponse, tags=["health"])
    async def healthz() -> Response:
        """200 while the process answers."""
        return PlainTextResponse("ok")

    @app.get("/readyz", response_class=PlainTextResponse, responses=UNSAVED, tags=["health"])
    async def readyz() -> Response:
        """200 while jobs can be taken: the state can be written."""
        problem = engine.store.problem
        return json_error(503, problem) if problem else PlainTextResponse("ok")

    @app.get("/metrics", response_class=PlainTextResponse, tags=["health"])
    async def metrics() -> Response:
        """Figures for Prometheus."""
        engine.advance()
        return Response(telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)


def json_error(status: int, reason: str) -> Response:
    """As `models.ErrorOut`."""
    return Response(orjson.dumps({"detail": reason}), status_code=status, media_type="application/json")
