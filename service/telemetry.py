"""What `/metrics` tells."""

from __future__ import annotations

import logging
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.cluster import ACTIONS, Answer
from service.engine import Engine

logger = logging.getLogger(__name__)

_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Telemetry:
    """One process's figures."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.registry = CollectorRegistry()
        prefix = "rlscaler_serve"
        self.requests = Counter(
            f"{prefix}_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            f"{prefix}_request_seconds",
            "From a request's head to its answer's.",
            ["route"],
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self.decisions = Counter(
            f"{prefix}_decisions",
            "Jobs decided on as they came.",
            ["strategy", "action"],
            registry=self.registry,
        )
        self.scaled = Counter(
            f"{prefix}_scale_decisions",
            "Readings of /scale decided on.",
            ["policy", "action"],
            registry=self.registry,
        )
        self._jobs = Gauge(f"{prefix}_jobs", "Jobs now.", ["status"], registry=self.registry)
        self._taken = Gauge(
            f"{prefix}_server_taken_share", "Of a server.", ["server", "resource"], registry=self.registry
        )
        self._writable = Gauge(
            f"{prefix}_state_writable", "1 while the state can be written.", registry=self.registry
        )

    def refused(self, status: int) -> None:
        """Count a request that no route has seen."""
        self.requests.labels("refused", str(status)).inc()

    def answered(self, answer: Answer) -> None:
        """Count a decision."""
        self.decisions.labels(answer.job.strategy, ACTIONS[answer.job.status]).inc()

    def exposition(self) -> bytes:
        """Text format."""
        cluster = self._engine.cluster
        for status in ("queued", "running"):
            self._jobs.labels(status).set(self._engine.counts()[status])
        arrays = cluster.live.arrays
        for s, name in enumerate(cluster.fleet.names):
            self._taken.labels(name, "cpu").set(arrays.used_cpu[0, s] / arrays.has_cpu[0, s])
            self._taken.labels(name, "memory").set(arrays.used_memory[0, s] / arrays.has_memory[0, s])
        self._writable.set(0 if self._engine.store.problem else 1)
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware: counts and times of every route; a line for each answer at debug."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app, self._telemetry = app, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._answered(scope, int(message["status"]), time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, watched)

    def _answered(self, scope: Scope, status: int, took: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._telemetry.requests.labels(route, str(status)).inc()
        self._telemetry.seconds.labels(route).observe(took)
        if logger.isEnabledFor(logging.DEBUG):
            fields = {"route": route, "status": status, "seconds": round(took, 6)}
            logger.debug("%s %s: %d", scope["method"], route, status, extra=fields)
