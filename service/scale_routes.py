"""`/scale`: a service's reading in, how many servers it should have out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Path, Response

from controller.core import Decision, ServiceSpec
from service import models, scalemodels
from service.errors import FieldError
from service.routes import json_answer
from service.scalemodels import RuleIn, ScaleIn, SettingsIn
from service.scaling import HPA, Reading, Scaled, Scaling
from service.telemetry import Telemetry
from sim.threshold import Threshold

UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": models.ErrorOut, "description": "No reading of this service has come."}
}
REFUSED: dict[int | str, dict[str, Any]] = {
    409: {
        "model": models.ErrorOut,
        "description": "The reading is older than the last one, or there are too many services.",
    }
}
Named = Annotated[
    str, Path(pattern=scalemodels.NAME_PATTERN, description="The name that its readings came with.")
]


def add_scaling(app: FastAPI, scaling: Scaling, now: Callable[[], float], telemetry: Telemetry) -> None:
    """The three routes. now: unix time of readings that say none."""

    @app.post("/scale", response_model=scalemodels.ScaleOut, responses=REFUSED, tags=["servers"])
    async def scale(reading: ScaleIn) -> Response:
        """Add servers to a service, remove some, or keep them, by its reading; with the reason."""
        taken = _reading(reading, now())
        spec = _spec(reading.settings, reading.policy, scaling.spec_of(reading.service))
        decision = scaling.decide(taken, spec, reading.policy, _rule(reading.rule))
        answer = _answer(taken, decision)
        telemetry.scaled.labels(reading.policy, answer["action"]).inc()
        return json_answer(answer)

    @app.get("/scale", response_model=scalemodels.ScaledListOut, tags=["servers"])
    async def scaled() -> Response:
        """Services whose readings have come, as they were last."""
        services = [_told(name, one) for name, one in scaling]
        return json_answer({"policy": scaling.learned.name, "most": scaling.most, "services": services})

    @app.delete("/scale/{service}", response_model=scalemodels.ScaledOut, responses=UNKNOWN, tags=["servers"])
    async def forget(service: Named) -> Response:
        """Let a service go, with its history and its settings."""
        return json_answer(_told(service, scaling.forget(service)))


def _known(value: float | None) -> float:
    # the very object: specifications are compared, and NaN is equal to nothing but itself
    return math.nan if value is None else value


def _reading(asked: ScaleIn, now_s: float) -> Reading:
    return Reading(
        asked.service,
        asked.servers,
        now_s if asked.timeSeconds is None else asked.timeSeconds,
        _known(asked.requestsPerSecond),
        _known(asked.readyServers),
        _known(asked.latencyMilliseconds),
        _known(asked.utilisation),
        _known(asked.errorRatio),
        _known(asked.inFlight),
    )


def _spec(settings: SettingsIn | None, who: str, before: ServiceSpec | None) -> ServiceSpec:
    """What is asked for now, else what was before, else the defaults."""
    if settings is None:
        settings = SettingsIn() if before is None else _settings(before)
    if settings.minServers > settings.maxServers:
        allowed = f"a whole number, minServers = {settings.minServers} or more"
        raise FieldError("settings.maxServers", settings.maxServers, allowed)
    return ServiceSpec(
        min_replicas=settings.minServers,
        max_replicas=settings.maxServers,
        sync_period_s=settings.syncPeriodSeconds,
        slo_latency_ms=_known(settings.sloMilliseconds),
        preference=settings.preference,
        capacity_rps=_known(settings.capacityPerServer),
        start_up_s=_known(settings.startUpSeconds),
        target_utilisation=settings.targetUtilisation,
        policy_type="HPA" if who == HPA else "RL",
    )


def _settings(spec: ServiceSpec) -> SettingsIn:
    return SettingsIn(
        capacityPerServer=_or_none(spec.capacity_rps),
        minServers=spec.min_replicas,
        maxServers=spec.max_replicas,
        sloMilliseconds=_or_none(spec.slo_latency_ms),
        preference=spec.preference,
        startUpSeconds=_or_none(spec.start_up_s),
        syncPeriodSeconds=spec.sync_period_s,
        targetUtilisation=spec.target_utilisation,
    )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _rule(rule: RuleIn | None) -> Threshold | None:
    if rule is None:
        return None
    if rule.removeBelow >= rule.addAbove:
        allowed = f"a number, 0 or more and less than addAbove = {rule.addAbove:g}"
        raise FieldError("rule.removeBelow", rule.removeBelow, allowed)
    return Threshold(
        rule.addAbove,
        rule.removeBelow,
        rule.addShare,
        rule.removeShare,
        rule.cooldownUpSeconds,
        rule.cooldownDownSeconds,
    )


def _action(before: int, after: int) -> Literal["add", "remove", "keep"]:
    return "keep" if after == before else "add" if after > before else "remove"


def _answer(reading: Reading, decision: Decision) -> dict[str, Any]:
    """As `scalemodels.ScaleOut`."""
    wanted, formula = decision.desired_replicas, decision.hpa_replicas
    names = ("name", "reason", "before", "after", "message")
    return {
        "service": reading.service,
        "action": _action(reading.servers, wanted),
        "servers": wanted,
        "change": wanted - reading.servers,
        "recommended": decision.recommended_replicas,
        "hpa": {
            "action": None if formula is None else _action(reading.servers, formula),
            "servers": formula,
        },
        "clamps": [{name: getattr(clamp, name) for name in names} for clamp in decision.clamps],
        "reason": _reason(decision),
        "policy": decision.policy,
        "decidedBy": decision.decided_by,
        "timeSeconds": reading.time_s,
    }


def _reason(decision: Decision) -> str:
    if not math.isfinite(decision.load):
        return decision.message
    return f"{decision.message}; the load would fill {decision.load:.1f} servers"


def _told(name: str, one: Scaled) -> dict[str, Any]:
    """As `scalemodels.ScaledOut`."""
    return {
        "service": name,
        "timeSeconds": one.time_s,
        "servers": one.servers,
        "wanted": one.wanted,
        "policy": one.policy.name,
        "settings": _settings(one.spec).model_dump(),
    }
