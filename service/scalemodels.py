"""What requests to `/scale` may hold and answers do hold. What is left out is missing, never zero."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from service.models import Strict

MOST_SERVERS = 1_000_000
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$"
WHO = Literal["learned", "rule", "hpa"]

_RANGES: dict[str, tuple[float, float, str]] = {
    "requestsPerSecond": (0, 1e12, "Requests/s that come, served or not."),
    "latencyMilliseconds": (0, 1e9, "Latency at the percentile of the objective, the 95th say."),
    "utilisation": (0, 100, "Share of what the ready servers can do that is in use; 1 is 100 %."),
    "errorRatio": (0, 1, "Share of the requests that fail."),
    "inFlight": (0, 1e12, "Requests that are being served or wait."),
    "timeSeconds": (0, 1e10, "When this was read, s; by default now, in unix time."),
    "capacityPerServer": (1e-6, 1e9, "Requests/s that one server serves; estimated where left out."),
    "sloMilliseconds": (1e-3, 1e9, "Latency that is to be kept; none where left out."),
    "preference": (0, 100, "From cheap, 0, to safe, 100."),
    "startUpSeconds": (0, 86_400, "From adding a server until it is ready; learned where left out."),
    "syncPeriodSeconds": (1, 3600, "Seconds between readings."),
    "targetUtilisation": (0.01, 1, "What the HPA's formula aims at."),
    "addAbove": (0.01, 10, "Utilisation above which servers are added."),
    "removeBelow": (0, 10, "Utilisation below which servers are removed; less than addAbove."),
    "addShare": (0.001, 10, "Share of the servers that is added at once; one at least."),
    "removeShare": (0.001, 10, "Share of the servers that is removed at once; one at least."),
    "cooldownUpSeconds": (0, 1800, "Seconds after a change before servers are added again."),
    "cooldownDownSeconds": (0, 1800, "Seconds after a change before servers are removed again."),
}
_COUNTS = {
    "servers": (0, "Servers that there are, ready or not."),
    "readyServers": (0, "Servers that serve; by default all."),
    "minServers": (0, "Never fewer."),
    "maxServers": (1, "Never more; no less than minServers."),
}
ALLOWED = {name: f"a number, {low:.12g} to {high:.12g}" for name, (low, high, _) in _RANGES.items()} | {
    name: f"a whole number, {low} to {MOST_SERVERS}" for name, (low, _) in _COUNTS.items()
}
ALLOWED["service"] = "a name of 1 to 200 letters, digits, '.', '_', ':' and '-', a letter or digit first"
ALLOWED["settings"] = "an object with minServers, maxServers and others, or left out"
ALLOWED["rule"] = "an object with addAbove, removeBelow and others, or left out"
"""For the 422s (`service.invalid`)."""


def _number(name: str) -> object:
    low, high, told = _RANGES[name]
    return Annotated[float, Field(ge=low, le=high, description=told)]


def _count(name: str) -> object:
    low, told = _COUNTS[name]
    return Annotated[int, Field(ge=low, le=MOST_SERVERS, description=told)]


ServiceName = Annotated[str, Field(pattern=NAME_PATTERN, description="A name of your own for the service.")]


class SettingsIn(Strict):
    """What is known of a service, and what is wanted of it. They stay until others are sent."""

    capacityPerServer: _number("capacityPerServer") | None = None  # type: ignore[valid-type]
    minServers: _count("minServers") = 1  # type: ignore[valid-type]
    maxServers: _count("maxServers") = 10_000  # type: ignore[valid-type]
    sloMilliseconds: _number("sloMilliseconds") | None = None  # type: ignore[valid-type]
    preference: _number("preference") = 50.0  # type: ignore[valid-type]
    startUpSeconds: _number("startUpSeconds") | None = None  # type: ignore[valid-type]
    syncPeriodSeconds: _number("syncPeriodSeconds") = 15.0  # type: ignore[valid-type]
    targetUtilisation: _number("targetUtilisation") = 0.7  # type: ignore[valid-type]


class RuleIn(Strict):
    """The numbers of the rule that people write by hand."""

    addAbove: _number("addAbove") = 0.7  # type: ignore[valid-type]
    removeBelow: _number("removeBelow") = 0.4  # type: ignore[valid-type]
    addShare: _number("addShare") = 0.25  # type: ignore[valid-type]
    removeShare: _number("removeShare") = 0.1  # type: ignore[valid-type]
    cooldownUpSeconds: _number("cooldownUpSeconds") = 60.0  # type: ignore[valid-type]
    cooldownDownSeconds: _number("cooldownDownSeconds") = 300.0  # type: ignore[valid-type]


class ScaleIn(Strict):
    """One reading of one service."""

    service: ServiceName
    requestsPerSecond: _number("requestsPerSecond") | None = None  # type: ignore[valid-type]
    servers: _count("servers")  # type: ignore[valid-type]
    readyServers: _count("readyServers") | None = None  # type: ignore[valid-type]
    latencyMilliseconds: _number("latencyMilliseconds") | None = None  # type: ignore[valid-type]
    utilisation: _number("utilisation") | None = None  # type: ignore[valid-type]
    errorRatio: _number("errorRatio") | None = None  # type: ignore[valid-type]
    inFlight: _number("inFlight") | None = None  # type: ignore[valid-type]
    timeSeconds: _number("timeSeconds") | None = None  # type: ignore[valid-type]
    policy: WHO = Field(
        default="learned",
        description="Who decides: the artifact of --scale-policy, the rule with its numbers, or the HPA.",
    )
    rule: RuleIn | None = None
    settings: SettingsIn | None = None


class HpaOut(BaseModel):
    """What the HPA's formula says of the same reading; null where it has nothing to say."""

    action: Literal["add", "remove", "keep"] | None
    servers: int | None


class ClampOut(BaseModel):
    """A rule of the guard that changed the number."""

    name: str
    reason: str
    before: int
    after: int
    message: str


class ScaleOut(BaseModel):
    """What was decided. recommended: by the policy, before the guard; null where it said nothing."""

    service: str
    action: Literal["add", "remove", "keep"]
    servers: int = Field(description="How many there should be.")
    change: int
    recommended: int | None
    hpa: HpaOut
    clamps: list[ClampOut]
    reason: str
    policy: str
    decidedBy: Literal["Policy", "HPA", "Static", "Hold"]
    timeSeconds: float


class ScaledOut(BaseModel):
    """A service that readings have come of, as it was last."""

    service: str
    timeSeconds: float
    servers: int = Field(description="How many there were.")
    wanted: int
    policy: str
    settings: SettingsIn


class ScaledListOut(BaseModel):
    """All of them, by name."""

    policy: str = Field(description="Who `learned` is.")
    most: int
    services: list[ScaledOut]
