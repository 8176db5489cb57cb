"""Names that users, dashboards and other controllers rely upon: change one only with a changelog entry.

Used by the operator (conditions, events), the CRD generator and the chart's tests.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

GROUP: Final = "rlscaler.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "RLScaler"
LIST_KIND: Final = "RLScalerList"
PLURAL: Final = "rlscalers"
SINGULAR: Final = "rlscaler"
SHORT_NAME: Final = "rls"
CATEGORY: Final = "autoscaling"

PAUSED_ANNOTATION: Final = f"{GROUP}/paused"
"""`"true"` on an RLScaler freezes it, as mode Paused does, without a change of its spec."""

PAUSED_VALUE: Final = "true"

PROMOTE_ANNOTATION: Final = f"{GROUP}/promote"
"""The first characters of a canary's digest, or `"true"`, put the canary of an RLScaler in charge."""

PROMOTE_ANY: Final = "true"

CANARY_ANNOTATION: Final = f"{GROUP}/canary"
"""`pause`, `restart` (with anything after it) or `rollback`, for the canary of spec.canary."""


class ConditionType(StrEnum):
    """`status.conditions[].type`."""

    READY = "Ready"
    """Decisions are made and carried out (or, in Shadow, recorded) as the spec says."""
    ABLE_TO_SCALE = "AbleToScale"
    """The target and its /scale subresource can be read and written, and no other autoscaler owns it."""
    SCALING_ACTIVE = "ScalingActive"
    """A decision could be made from metrics."""
    SCALING_LIMITED = "ScalingLimited"
    """The guard changed the last recommendation."""
    METRICS_AVAILABLE = "MetricsAvailable"
    """Prometheus answered with usable values."""
    POLICY_READY = "PolicyReady"
    """The policy is loaded, and its digest and schemas match."""
    ROUTES_SYNCED = "RoutesSynced"
    """The routes carry the weights that were decided."""
    CANARY_SUCCEEDED = "CanarySucceeded"
    """The canary of spec.canary holds at its maxWeight; Unknown while it is on its way."""
    FALLBACK = "Fallback"
    """Decisions come from spec.fallback instead of the policy."""
    PAUSED = "Paused"
    """Nothing is decided, because of spec.mode or the pause annotation."""


class Reason(StrEnum):
    """`status.conditions[].reason`. Metrics reasons come from `controller.core.Outcome.reason`."""

    # Ready
    SCALING = "Scaling"
    SHADOWING = "Shadowing"
    STARTING = "Starting"
    INVALID_SPEC = "InvalidSpec"
    NOT_ABLE_TO_SCALE = "NotAbleToScale"
    IN_FALLBACK = "InFallback"
    INTERNAL_ERROR = "InternalError"

    # AbleToScale
    READY_FOR_NEW_SCALE = "ReadyForNewScale"
    SUCCEEDED_RESCALE = "SucceededRescale"
    OUTSIDE_CHANGE = "OutsideChange"
    SHADOW_MODE = "ShadowMode"
    TARGET_NOT_FOUND = "TargetNotFound"
    KIND_NOT_FOUND = "KindNotFound"
    NOT_SCALABLE = "NotScalable"
    FAILED_GET_SCALE = "FailedGetScale"
    FAILED_UPDATE_SCALE = "FailedUpdateScale"
    SCALE_CONFLICT = "ScaleConflict"
    FORBIDDEN = "Forbidden"
    CONFLICTING_AUTOSCALER = "ConflictingAutoscaler"
    AMBIGUOUS_TARGET = "AmbiguousTarget"

    # ScalingActive
    DECIDED = "Decided"
    SCALING_DISABLED = "ScalingDisabled"
    NO_DECISION = "NoDecision"

    # ScalingLimited (or the name of the clamp)
    DESIRED_WITHIN_RANGE = "DesiredWithinRange"
    TOO_FEW_REPLICAS = "TooFewReplicas"
    TOO_MANY_REPLICAS = "TooManyReplicas"

    # MetricsAvailable
    METRICS_READ = "MetricsRead"
    SIGNALS_MISSING = "SignalsMissing"
    POOL_METRICS_MISSING = "PoolMetricsMissing"
    NO_PROMETHEUS_ADDRESS = "NoPrometheusAddress"
    PROMETHEUS_SECRET_NOT_FOUND = "PrometheusSecretNotFound"
    PROMETHEUS_SECRET_INVALID = "PrometheusSecretInvalid"

    # PolicyReady
    POLICY_LOADED = "PolicyLoaded"
    FORMULA = "Formula"
    OUT_OF_DISTRIBUTION = "OutOfDistribution"
    ARTIFACT_NOT_FOUND = "ArtifactNotFound"
    ARTIFACT_INVALID = "ArtifactInvalid"
    ARTIFACT_DIGEST_MISMATCH = "ArtifactDigestMismatch"
    ARTIFACT_SCHEMA_MISMATCH = "ArtifactSchemaMismatch"
    ARTIFACT_NOT_ALLOWED = "ArtifactNotAllowed"
    ARTIFACT_UNREACHABLE = "ArtifactUnreachable"
    ARTIFACT_TOO_LARGE = "ArtifactTooLarge"
    ARTIFACT_DOWNLOADING = "ArtifactDownloading"
    RELOAD_FAILED = "ReloadFailed"
    POLICY_NEEDS_POOLS = "PolicyNeedsPools"

    # RoutesSynced
    NO_ROUTES = "NoRoutes"
    WEIGHTS_APPLIED = "WeightsApplied"
    ROUTE_NOT_FOUND = "RouteNotFound"
    RULE_NOT_FOUND = "RuleNotFound"
    BACKEND_NOT_IN_ROUTE = "BackendNotInRoute"
    BACKEND_TWICE_IN_ROUTE = "BackendTwiceInRoute"
    ROUTE_NOT_REPORTED = "RouteNotReported"
    ROUTE_NOT_ACCEPTED = "RouteNotAccepted"
    ROUTE_REFS_NOT_RESOLVED = "RouteRefsNotResolved"
    ROUTE_UPDATE_FAILED = "RouteUpdateFailed"
    ROUTE_NOT_WEIGHTED = "RouteNotWeighted"
    ROUTE_REJECTED = "RouteRejected"
    CONTESTED = "Contested"
    POLICY_WEIGHS_NOTHING = "PolicyWeighsNothing"

    # CanarySucceeded: the phase
    # Fallback (the first five are Decision.fallback)
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    POLICY_UNAVAILABLE = "PolicyUnavailable"
    INVALID_ACTION = "InvalidAction"
    CAPACITY_UNKNOWN = "CapacityUnknown"
    RECOVERING = "Recovering"
    POLICY_IN_CHARGE = "PolicyInCharge"

    # Paused
    PAUSED_BY_MODE = "PausedByMode"
    PAUSED_BY_ANNOTATION = "PausedByAnnotation"
    NOT_PAUSED = "NotPaused"


class EventReason(StrEnum):
    """`reason` of the Events that the operator emits about an RLScaler."""

    SUCCESSFUL_RESCALE = "SuccessfulRescale"
    FAILED_RESCALE = "FailedRescale"
    WEIGHTS_CHANGED = "WeightsChanged"
    FAILED_ROUTE_UPDATE = "FailedRouteUpdate"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    METRICS_RECOVERED = "MetricsRecovered"
    FALLBACK_STARTED = "FallbackStarted"
    FALLBACK_ENDED = "FallbackEnded"
    POLICY_LOADED = "PolicyLoaded"
    POLICY_UNAVAILABLE = "PolicyUnavailable"
    POLICY_RELOAD_FAILED = "PolicyReloadFailed"
    CANARY_STARTED = "CanaryStarted"
    CANARY_PROMOTED = "CanaryPromoted"
    CANARY_ROLLED_BACK = "CanaryRolledBack"
    CANARY_UNAVAILABLE = "CanaryUnavailable"
    CANARY_ENDED = "CanaryEnded"
    CANARY_PROGRESSING = "CanaryProgressing"
    CANARY_STEPPED = "CanaryStepped"
    CANARY_PAUSED = "CanaryPaused"
    CANARY_SUCCEEDED = "CanarySucceeded"
    CANARY_FAILED = "CanaryFailed"
    CONFLICTING_AUTOSCALER = "ConflictingAutoscaler"
    OUTSIDE_CHANGE = "OutsideChange"
    TARGET_NOT_FOUND = "TargetNotFound"
    INVALID_SPEC = "InvalidSpec"
    PAUSED = "Paused"
    RESUMED = "Resumed"
    BUDGET_EXHAUSTED = "BudgetExhausted"
    BUDGET_RELIEVED = "BudgetRelieved"
