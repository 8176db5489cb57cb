"""The RLScalerBudget resource, rlscaler.dev/v1alpha1: one limit for the RLScalers that a selector picks.

Its CustomResourceDefinition is generated from here (`rl-scaler crd rlscalerbudgets`); `controller.budgets`
shares the limit out. What a replica costs, and who goes first, is each RLScaler's own to say
(`spec.costPerReplica`, `spec.priority`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from controller.api.fields import Count, PositiveDecimal, ShortText, text, whole
from controller.api.model import ApiModel, Rule
from controller.api.types import ATOMIC, MAP_BY_TYPE, Condition

KIND: Final = "RLScalerBudget"
LIST_KIND: Final = "RLScalerBudgetList"
PLURAL: Final = "rlscalerbudgets"
SINGULAR: Final = "rlscalerbudget"
SHORT_NAME: Final = "rlsb"

LABEL_KEY: Final = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LABEL_VALUE: Final = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"

LabelKey = Annotated[str, text(317, LABEL_KEY)]
LabelValue = Annotated[str, text(63, LABEL_VALUE, least=0)]


class BudgetCondition(StrEnum):
    """`status.conditions[].type` of a budget."""

    READY = "Ready"
    """The limit is kept, or will be as soon as members have given way."""
    EXHAUSTED = "Exhausted"
    """Something was refused to somebody."""


class BudgetReason(StrEnum):
    """`status.conditions[].reason` of a budget."""

    # Ready
    SHARED = "Shared"
    NO_MEMBERS = "NoMembers"
    STARTING = "Starting"
    GIVING_WAY = "GivingWay"
    MINIMUMS_TOO_LARGE = "MinimumsTooLarge"
    INVALID_SPEC = "InvalidSpec"

    # Exhausted
    SHORTAGE = "Shortage"
    WITHIN_BUDGET = "WithinBudget"


class Requirement(ApiModel):
    """One expression over labels, as in any Kubernetes label selector."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",
            message="operators In and NotIn need values",
            holds=lambda one: one.operator not in ("In", "NotIn") or bool(one.values),
        ),
        Rule(
            cel="self.operator in ['In', 'NotIn'] || !has(self.values) || size(self.values) == 0",
            message="operators Exists and DoesNotExist take no values",
            holds=lambda one: one.operator in ("In", "NotIn") or not one.values,
        ),
    )

    key: LabelKey = Field(description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="In, NotIn, Exists or DoesNotExist."
    )
    values: Annotated[list[LabelValue], Field(max_length=64, json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="Values for In and NotIn."
    )


class LabelSelector(ApiModel):
    """A label selector; an empty one picks every RLScaler of the namespace."""

    match_labels: Annotated[dict[str, LabelValue], Field(max_length=64)] | None = Field(
        default=None, description="Labels that must be there with these values."
    )
    match_expressions: Annotated[list[Requirement], Field(max_length=64, json_schema_extra=ATOMIC)] | None = (
        Field(default=None, description="Expressions that must all hold.")
    )


class RLScalerBudgetSpec(ApiModel):
    """What the user asks for."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.maxReplicas) || has(self.maxCost)",
            message="at least one of spec.maxReplicas and spec.maxCost must be set",
            holds=lambda spec: spec.max_replicas is not None or spec.max_cost is not None,
        ),
    )

    selector: LabelSelector = Field(
        description="Which RLScalers of the namespace share the budget, by their labels; {} is all of them."
    )
    max_replicas: Annotated[int, whole(1, 1_000_000_000)] | None = Field(
        default=None, description="Most replicas that all members have together."
    )
    max_cost: PositiveDecimal | None = Field(
        default=None,
        description=(
            "Most that the replicas of all members cost together, a decimal in a string: the sum of "
            "replicas times costPerReplica, of each RLScaler or of each of its backends."
        ),
    )


class BudgetConditionStatus(Condition):
    """One aspect of the budget's state."""

    type: Annotated[str, text(316)] = Field(description="Ready or Exhausted.")
    observed_generation: Count | None = Field(
        default=None, description="metadata.generation of the budget that this speaks of."
    )


class RLScalerBudgetStatus(ApiModel):
    """What the operator observes and shares out."""

    observed_generation: Count | None = Field(
        default=None, description="metadata.generation of the budget that the operator last acted upon."
    )
    members: Count | None = Field(default=None, description="RLScalers that the selector picks.")
    current_replicas: Count | None = Field(default=None, description="Replicas that they have.")
    demanded_replicas: Count | None = Field(
        default=None, description="Replicas that they would have without the budget."
    )
    granted_replicas: Count | None = Field(
        default=None, description="Replicas that they get, once everybody has given way."
    )
    current_cost: ShortText | None = Field(
        default=None, description="What the current replicas cost, a decimal in a string."
    )
    conditions: (
        Annotated[list[BudgetConditionStatus], Field(max_length=8, json_schema_extra=MAP_BY_TYPE)] | None
    ) = Field(default=None, description="Ready, and Exhausted, which is True while something is refused.")
