"""spec.canary and status.canary: progressive delivery of the version that one pool runs.

Not to be taken for spec.policy.canary, which tries out a policy. `controller.rollouts` reads the one and
makes the other, and reads its own status back after a restart.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.api.fields import Count, LabelName, Message, Share, ShortText, Time, whole
from controller.api.model import ApiModel


class RolloutAnalysis(ApiModel):
    """What the canary's pool has to keep to, by its own metrics. Every sync period is a check."""

    max_error_ratio: Share = Field(
        default="0.01",
        description="Largest share of its requests that may fail, a decimal in a string.",
    )
    max_latency_milliseconds: Annotated[int, whole(1, 3_600_000)] | None = Field(
        default=None,
        description=(
            "Most that its latency may be at the objective's percentile, in milliseconds. Default: that of "
            "objective.slo; without one latency is not looked at."
        ),
    )
    min_requests: Annotated[int, whole(1, 1_000_000)] = Field(
        default=100,
        description=(
            "Requests of the pool within metrics.windowSeconds that a check needs. With fewer the weight "
            "stays; the pool fails with fewer too if its errors alone are too many for so many requests."
        ),
    )
    failure_threshold: Annotated[int, whole(1, 1000)] = Field(
        default=1,
        description="Checks in a row over a limit after which the canary goes back to weight 0, at once.",
    )
    missing_threshold: Annotated[int, whole(1, 1000)] = Field(
        default=5,
        description=(
            "Checks in a row that could not be made, for want of metrics or of ready replicas, after which "
            "the canary goes back to weight 0. Until then its weight stays."
        ),
    )


class Rollout(ApiModel):
    """Steps the weights of one pool up while it holds, and back to 0 at once when it does not."""

    pool: LabelName = Field(description="Name of the pool with the new version, of spec.backends.")
    max_weight: Annotated[int, whole(1, 100)] = Field(
        default=50, description="Weight in percent at which the canary has succeeded, and which it keeps."
    )
    step_weight: Annotated[int, whole(1, 100)] = Field(
        default=10, description="Percentage points of one step."
    )
    interval_seconds: Annotated[int, whole(1, 86_400)] = Field(
        default=60,
        description="Seconds for which checks must hold at a weight before the next step.",
    )
    progress_deadline_seconds: Annotated[int, whole(1, 86_400)] = Field(
        default=600,
        description="Seconds within which replicas that a step needs must be ready; then it is rolled back.",
    )
    analysis: RolloutAnalysis = Field(
        default_factory=lambda: RolloutAnalysis(), description="What the canary's pool has to keep to."
    )


class RolloutStatus(ApiModel):
    """How far the canary of spec.canary is. A restarted operator goes on from here."""

    pool: ShortText | None = Field(default=None, description="The pool that it is about.")
    phase: Literal["Progressing", "Paused", "Succeeded", "Failed"] | None = Field(
        default=None,
        description=(
            "Progressing: its weight goes up. Paused: by the annotation rlscaler.dev/canary. Succeeded: at "
            "maxWeight, which it keeps. Failed: at weight 0 until its pods are of another revision, or "
            "spec.canary changes, or the annotation begins it anew."
        ),
    )
    weight: Count | None = Field(
        default=None, description="Most of the traffic that the pool gets now, in percent."
    )
    since: Time | None = Field(default=None, description="When the phase began.")
    last_step_time: Time | None = Field(default=None, description="When the weight last changed.")
    failed_checks: Count | None = Field(default=None, description="Checks in a row over a limit.")
    missing_checks: Count | None = Field(
        default=None, description="Checks in a row that could not be made though they should."
    )
    revision: ShortText | None = Field(
        default=None, description="Revision of the pool's pods: digest of the target's pod template."
    )
    waiting_since: Time | None = Field(
        default=None, description="Since when replicas for the next weight are awaited."
    )
    restart: ShortText | None = Field(
        default=None, description="Value of the annotation that last began it anew, while it is set."
    )
    spec_hash: ShortText | None = Field(
        default=None, description="Which spec.canary this is about: a change of it ends Failed."
    )
    message: Message | None = Field(default=None, description="The state in a sentence.")
