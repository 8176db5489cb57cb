"""spec.routing: by what the weights of routes are decided."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.api.fields import Decimal, PositiveDecimal, whole
from controller.api.model import ApiModel


class Ejection(ApiModel):
    """Outlier detection: a pool that is sick keeps only a probe of its share, and comes back slowly."""

    latency_ratio: PositiveDecimal = Field(
        default="2.5",
        description=(
            "How many times the other pools' median latency a pool's may be, a decimal in a string. A pool "
            "that keeps the objective, or gets more than it can serve, is never sick by latency."
        ),
    )
    error_ratio: Decimal = Field(
        default="0.05",
        description=(
            "Share of errors, a decimal in a string, above which a pool is sick, if it is also "
            "latencyRatio times that of the others."
        ),
    )
    base_seconds: Annotated[int, whole(1, 3600)] = Field(
        default=30,
        description="Shortest time out in seconds; doubled with each ejection, up to ten minutes.",
    )
    recovery_seconds: Annotated[int, whole(1, 3600)] = Field(
        default=120, description="Seconds in which a pool gets its whole share back."
    )


class Routing(ApiModel):
    """By what the weights of spec.routes are decided, inside each pool's minWeight and maxWeight."""

    policy: (
        Literal["Ready", "Equal", "Capacity", "CheapestFirst", "LatencyGradient", "ExpectedDelay", "Policy"]
        | None
    ) = Field(
        default=None,
        description=(
            "Ready: by ready capacity. Equal: every pool the same. Capacity: by maxReplicas. "
            "CheapestFirst: the cheapest up to 70 %, then the next. LatencyGradient: to equal latencies. "
            "ExpectedDelay: so that work takes as long in every pool, by what its replicas really serve. "
            "Policy: by the artifact of spec.policy, which must be one that decides for pools. Default: "
            "Policy with such an artifact, else Ready."
        ),
    )
    ejection: Ejection | None = Field(
        default=None, description="Outlier detection. Default: none; {} switches it on with its defaults."
    )
