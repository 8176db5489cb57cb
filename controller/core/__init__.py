"""The decision core: pure, batched over N services, shared by the operator and the simulators.

No cluster, clock, randomness or I/O in here: `Engine.step(now_s, samples)` is a function of what it
was given before and now.
"""

from controller.core.action import ACTION_SCHEMAS, ActionSchema
from controller.core.decision import Clamp, Decision, Decisions
from controller.core.engine import Budget, Engine
from controller.core.formulas import FORMULAS, FormulaPolicy
from controller.core.inquiry import Inquiry
from controller.core.observation import OBSERVATION_SCHEMA, Feature, ObservationSchema
from controller.core.policy import ActionPolicy, ForecastPolicy, HpaPolicy, Policy, UnavailablePolicy
from controller.core.pools import route_weights, split_replicas
from controller.core.samples import Outcome, Samples
from controller.core.spec import (
    POLICY_TYPES,
    Behavior,
    Fallback,
    Limits,
    Pool,
    ScalingPolicy,
    ScalingRules,
    ServiceSpec,
    SpecError,
)
from controller.core.view import View

__all__ = [
    "ACTION_SCHEMAS",
    "FORMULAS",
    "OBSERVATION_SCHEMA",
    "POLICY_TYPES",
    "ActionPolicy",
    "ActionSchema",
    "Behavior",
    "Budget",
    "Clamp",
    "Decision",
    "Decisions",
    "Engine",
    "Fallback",
    "Feature",
    "ForecastPolicy",
    "FormulaPolicy",
    "HpaPolicy",
    "Inquiry",
    "Limits",
    "ObservationSchema",
    "Outcome",
    "Policy",
    "Pool",
    "Samples",
    "ScalingPolicy",
    "ScalingRules",
    "ServiceSpec",
    "SpecError",
    "UnavailablePolicy",
    "View",
    "route_weights",
    "split_replicas",
]
