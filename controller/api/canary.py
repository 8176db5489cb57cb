"""spec.policy.canary and status.policy.canary: a second policy that is scored beside the one in charge.

`controller.canary` reads the one and makes the other, and reads its own status back after a restart.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.api.artifact import Artifact
from controller.api.fields import Count, Message, PositiveDecimal, Share, ShortText, Time, whole
from controller.api.model import ApiModel


class CanaryGate(ApiModel):
    """What the canary must achieve before it is promoted automatically; all of it at the same time."""

    min_duration_seconds: Annotated[int, whole(0, 2_592_000)] = Field(
        default=3600, description="Seconds for which it must have been scored."
    )
    max_cost_ratio: PositiveDecimal = Field(
        default="1.0",
        description="Most that its mean replicas may be over the active policy's, a decimal in a string.",
    )
    max_shortfall: Share = Field(
        default="0.01",
        description=(
            "Largest share of its decisions that may have left too few replicas for the load one start-up "
            "time later, a decimal in a string."
        ),
    )
    max_flap_ratio: PositiveDecimal = Field(
        default="1.5",
        description=(
            "Most that its changes of direction plus one may be over the active policy's plus one, a decimal "
            "in a string."
        ),
    )


class CanaryRollback(ApiModel):
    """When a promoted canary is taken back; needs a latency objective."""

    violation_ratio: Share = Field(
        default="0.05",
        description=(
            "Share of the window over the latency objective above which the canary is taken back, if it is "
            "also more than before the promotion. A decimal in a string."
        ),
    )
    window_seconds: Annotated[int, whole(15, 86_400)] = Field(
        default=600, description="Length of the window in seconds."
    )


class Canary(ApiModel):
    """A second policy, scored in shadow beside the active one, and promoted by hand or by its scores."""

    artifact: Artifact = Field(description="The canary's weights.")
    promotion: Literal["Manual", "Automatic"] = Field(
        default="Manual",
        description=(
            "Manual: by the annotation rlscaler.dev/promote with the digest's first characters, or true. "
            "Automatic: also once the gate is met."
        ),
    )
    gate: CanaryGate = Field(
        default_factory=lambda: CanaryGate(), description="What is asked of the canary's scores."
    )
    rollback: CanaryRollback = Field(
        default_factory=lambda: CanaryRollback(), description="When a promoted canary is taken back."
    )


class CanaryStatus(ApiModel):
    """The canary: how it does, and what became of it. A restarted operator reads this back."""

    name: ShortText | None = Field(default=None, description="Name from its artifact.")
    digest: ShortText | None = Field(default=None, description="sha256:<hex> of its artifact.")
    phase: Literal["Shadow", "Promoted", "RolledBack", "Unavailable"] | None = Field(
        default=None,
        description=(
            "Shadow: scored, never acting. Promoted: in charge. RolledBack: taken back, and not promoted "
            "again until it changes. Unavailable: its artifact cannot be used."
        ),
    )
    since: Time | None = Field(default=None, description="When the phase began.")
    against: ShortText | None = Field(
        default=None, description="Digest, or formula's name, of the policy that it is scored against."
    )
    decisions: Count | None = Field(default=None, description="Decisions that were scored.")
    scored_seconds: Count | None = Field(default=None, description="Seconds that these decisions stand for.")
    replicas: ShortText | None = Field(
        default=None, description="Mean replicas that it would have run, a decimal in a string."
    )
    active_replicas: ShortText | None = Field(
        default=None, description="Mean replicas that the active policy ran, a decimal in a string."
    )
    cost_ratio: ShortText | None = Field(
        default=None, description="The former over the latter, a decimal in a string."
    )
    judged: Count | None = Field(
        default=None, description="Decisions of which the load one start-up time later is known."
    )
    shortfall: ShortText | None = Field(
        default=None,
        description="Share of these with less than that load needs, a decimal in a string.",
    )
    active_shortfall: ShortText | None = Field(
        default=None, description="The same share for the active policy, a decimal in a string."
    )
    flaps: Count | None = Field(default=None, description="Its changes of direction.")
    active_flaps: Count | None = Field(default=None, description="The active policy's changes of direction.")
    flap_ratio: ShortText | None = Field(
        default=None, description="The former plus one over the latter plus one, a decimal in a string."
    )
    violation_ratio: ShortText | None = Field(
        default=None,
        description="Share of the last rollback window over the latency objective, a decimal in a string.",
    )
    violation_ratio_before: ShortText | None = Field(
        default=None, description="The same share at the time of the promotion, a decimal in a string."
    )
    spec_hash: ShortText | None = Field(
        default=None, description="Which spec.policy.canary this is about: a change of it ends RolledBack."
    )
    stale_annotation: ShortText | None = Field(
        default=None,
        description=(
            "Value of the annotation rlscaler.dev/promote from before this canary; true then does not "
            "promote it."
        ),
    )
    message: Message | None = Field(default=None, description="The state in a sentence.")
