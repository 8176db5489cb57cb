"""The RLScaler resource, rlscaler.dev/v1alpha1: the one source of fields, defaults, help texts and rules.

The CustomResourceDefinition is generated from here (`rl-scaler crd`), and descriptions are what
`kubectl explain` prints. The operator reads specs through these types; `controller.api.convert` hands
them to the decision core. Numbers follow Kubernetes' conventions: integers, and decimals in strings.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from controller.api import rules
from controller.api.artifact import BUILTIN_POLICY, Artifact
from controller.api.canary import Canary, CanaryStatus
from controller.api.fields import (
    CRON_PATTERN,
    ZONE_PATTERN,
    Count,
    Decimal,
    LabelName,
    Message,
    ObjectName,
    Percentile,
    PositiveDecimal,
    Query,
    Replicas,
    Seconds,
    SecretKey,
    ShortText,
    Time,
    Weight,
    text,
    whole,
)
from controller.api.formula import Formula
from controller.api.model import ApiModel, Rule
from controller.api.rollout import Rollout, RolloutStatus
from controller.api.routing import Routing
from controller.api.rules import BACKENDS_LIMIT

MAP_BY_NAME: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
MAP_BY_TYPE: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}


# --- what is scaled -------------------------------------------------------------------------------


class ScaleTargetRef(ApiModel):
    """An object in the RLScaler's namespace whose kind has the /scale subresource."""

    api_version: Annotated[str, text(253)] = Field(
        default="apps/v1", description="API version of the target, such as apps/v1."
    )
    kind: Annotated[str, text(63)] = Field(
        description="Kind of the target: Deployment, StatefulSet, or any other with a /scale subresource."
    )
    name: ObjectName = Field(description="Name of the target.")


class Backend(ApiModel):
    """One pool of replicas; all pools of an RLScaler share one traffic."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.BACKEND

    name: LabelName = Field(description="Name of the pool, unique in this RLScaler.")
    scale_target_ref: ScaleTargetRef = Field(description="What is scaled for this pool.")
    service: LabelName | None = Field(
        default=None,
        description="Service of the pool, the backendRef that routes weigh. Default: the target's name.",
    )
    min_replicas: Replicas = Field(default=0, description="Fewest replicas of the pool.")
    max_replicas: Replicas = Field(description="Most replicas of the pool. 0 keeps the pool empty.")
    cost_per_replica: Decimal = Field(
        default="1.0",
        description=(
            "What one replica costs compared with the other pools', a decimal in a string. Cheaper "
            "pools are filled first."
        ),
    )
    capacity_per_replica: PositiveDecimal | None = Field(
        default=None,
        description=(
            "Requests per second that one replica of this pool serves, a decimal in a string. Default: "
            "spec.objective.capacityPerReplica, or what is estimated for all pools."
        ),
    )
    reclaims_per_hour: Decimal = Field(
        default="0",
        description=(
            "How often in an hour the provider takes a replica of this pool away, a decimal in a string, "
            "such as 0.05 for one of twenty. Read by policies that decide for pools."
        ),
    )
    start_up_seconds: Seconds | None = Field(
        default=None,
        description=(
            "Seconds from asking for a replica of this pool until it is ready. Default: "
            "spec.objective.startUpSeconds, or what is learned. Read by policies that decide for pools."
        ),
    )
    metrics_service: Annotated[str, text(253)] | None = Field(
        default=None,
        description=(
            "The pool's name in the metrics, for routing policies that look at each pool. Default: its "
            "service."
        ),
    )
    min_weight: Weight = Field(default=0, description="Smallest share of the traffic, in percent.")
    max_weight: Weight = Field(default=100, description="Largest share of the traffic, in percent.")


def _unique_names(backends: list[Backend]) -> list[Backend]:
    names = [backend.name for backend in backends]
    if len(set(names)) < len(names):
        raise PydanticCustomError("rule", "names must be unique")
    return backends


Backends = Annotated[
    list[Backend],
    Field(min_length=1, max_length=BACKENDS_LIMIT, json_schema_extra=MAP_BY_NAME),
    AfterValidator(_unique_names),  # the API server's own check of lists of type map
]


class Route(ApiModel):
    """A route whose weights are kept in step with the pools."""

    kind: Literal["HTTPRoute", "GRPCRoute", "VirtualService", "TraefikService", "Ingress"] = Field(
        description=(
            "Kind of the route: HTTPRoute or GRPCRoute (Gateway API), VirtualService (Istio), TraefikService "
            "(weighted), or Ingress (the canary Ingress of ingress-nginx)."
        )
    )
    name: ObjectName = Field(description="Name of the route, in the RLScaler's namespace.")
    rule: Annotated[str, text(253)] | None = Field(
        default=None,
        description=(
            "Name of the route rule that holds the pools' backendRefs. Default: every rule that "
            "refers to one of them."
        ),
    )
    max_step: Annotated[int, whole(1, 100)] | None = Field(
        default=None,
        description=(
            "Most percentage points that a pool's weight moves in one sync period; a pool without ready "
            "replicas loses its traffic at once. Default: no limit."
        ),
    )
    restore_on_delete: Annotated[bool, Field(strict=True)] = Field(
        default=True,
        description="Whether the weights of before are put back when this RLScaler is deleted.",
    )
    restore_on_pause: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Whether the weights of before are put back when this RLScaler is paused.",
    )


# --- what for -------------------------------------------------------------------------------------


class LatencyObjective(ApiModel):
    """A latency percentile that is to stay below a limit."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.LATENCY

    percentile: Percentile = Field(
        default=95,
        description=(
            'Percentile of latency, above 0 and below 100: an integer, or a decimal in a string ("99.9").'
        ),
    )
    milliseconds: Annotated[int, whole(1, 3_600_000)] = Field(
        description="Most that the percentile may be, in milliseconds."
    )


class ServiceLevelObjective(ApiModel):
    """The service level objective."""

    latency: LatencyObjective = Field(description="The latency objective.")


class Objective(ApiModel):
    """What scaling is to achieve."""

    slo: ServiceLevelObjective | None = Field(
        default=None, description="Service level objective. Without one, only utilisation guides the floor."
    )
    preference: Annotated[int, whole(0, 100)] = Field(
        default=50,
        description=(
            "0 is cheapest, 100 is safest: moves along the policy's own frontier of cost against SLO "
            "violations."
        ),
    )
    capacity_per_replica: PositiveDecimal | None = Field(
        default=None,
        description=(
            "Requests per second that one replica serves within the SLO, a decimal in a string "
            '("25"). Default: estimated from the metrics.'
        ),
    )
    target_utilization: Annotated[int, whole(1, 100)] = Field(
        default=70,
        description=(
            "Utilisation in percent that the HPA formula aims at: in policy type HPA, in fallback, "
            "and in the floor under the learned policy."
        ),
    )
    start_up_seconds: Seconds | None = Field(
        default=None,
        description=(
            "Seconds from the creation of a replica until it is ready for traffic. Default: learned from "
            "the service's own scale-ups (60 until one has been seen), see status.startUpSeconds."
        ),
    )


# --- from what ------------------------------------------------------------------------------------


class Queries(ApiModel):
    """PromQL for each signal. Each query must return one series; an empty one turns its signal off."""

    request_rate: Query | None = Field(
        default=None, description="PromQL of the request rate, in requests per second."
    )
    latency: Query | None = Field(
        default=None, description="PromQL of the latency at the objective's percentile, in milliseconds."
    )
    cpu_utilization: Query | None = Field(
        default=None,
        description="PromQL of used CPU as a share of the requested CPU (1 is 100 %), over ready pods.",
    )
    in_flight: Query | None = Field(default=None, description="PromQL of the requests under way.")
    error_ratio: Query | None = Field(
        default=None, description="PromQL of the share of requests that fail, 0 to 1."
    )


class SecretReference(ApiModel):
    """A Secret in the RLScaler's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")


class AuthKeys(ApiModel):
    """Which keys of the Secret hold the credentials."""

    token: SecretKey = Field(default="token", description="Key of the bearer token.")
    username: SecretKey = Field(default="username", description="Key of the user name.")
    password: SecretKey = Field(default="password", description="Key of the password.")


class PrometheusAuth(ApiModel):
    """How to authenticate to Prometheus."""

    type: Literal["Bearer", "Basic"] = Field(
        default="Bearer", description="Bearer token, or Basic user name and password."
    )
    secret_ref: SecretReference = Field(
        description="Secret with the credentials, in the RLScaler's namespace."
    )
    keys: AuthKeys = Field(
        default_factory=lambda: AuthKeys(), description="Which keys of the Secret hold the credentials."
    )


class TlsKeys(ApiModel):
    """Which keys of the Secret hold the certificates."""

    ca: SecretKey = Field(
        default="ca.crt", description="Key of the certificate authority, if the Secret has it."
    )
    cert: SecretKey = Field(
        default="tls.crt", description="Key of the client certificate, if the Secret has it."
    )
    key: SecretKey = Field(
        default="tls.key", description="Key of the client's private key, if the Secret has it."
    )


class PrometheusTls(ApiModel):
    """TLS to Prometheus."""

    secret_ref: SecretReference | None = Field(
        default=None,
        description=(
            "Secret with certificates, in the RLScaler's namespace. Default: the system's certificate"
            " authorities."
        ),
    )
    keys: TlsKeys = Field(
        default_factory=lambda: TlsKeys(), description="Which keys of the Secret hold the certificates."
    )
    insecure_skip_verify: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Accept any certificate. Only for trying things out."
    )


class Prometheus(ApiModel):
    """Where the metrics are read."""

    address: Annotated[str, text(2048, "^https?://")] | None = Field(
        default=None, description="http:// or https:// address. Default: the operator's own Prometheus."
    )
    timeout_seconds: Annotated[int, whole(1, 60)] | None = Field(
        default=None,
        description="Seconds that a query may take before it counts as slow. Default: the operator's own.",
    )
    auth: PrometheusAuth | None = Field(default=None, description="Authentication. Default: none.")
    tls: PrometheusTls | None = Field(default=None, description="TLS options for an https address.")


class Metrics(ApiModel):
    """What is read, and where."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.METRICS

    preset: Annotated[
        Literal["envoy", "istio", "ingress-nginx", "traefik", "linkerd", "opentelemetry-http", "custom"],
        rules.PRESET,
    ] = Field(
        default="envoy",
        description=(
            "Which PromQL reads the signals. Available in this release: envoy, istio, ingress-nginx, custom."
        ),
    )
    queries: Queries = Field(
        default_factory=lambda: Queries(),
        description=(
            "PromQL by signal: for preset custom, or to override single queries of a preset; an empty "
            "query turns its signal off. {{namespace}}, {{workload}}, {{service}}, {{window}}, "
            "{{percentile}} and {{quantile}} are filled in."
        ),
    )
    service: Annotated[str, text(253)] | None = Field(
        default=None,
        description=(
            "The service's name in the metrics (Envoy cluster, Istio destination, Ingress backend). "
            "Default: the target's name."
        ),
    )
    window_seconds: Annotated[int, whole(10, 3600)] = Field(
        default=60, description="Window in seconds over which rates and percentiles are taken."
    )
    prometheus: Prometheus = Field(
        default_factory=lambda: Prometheus(), description="Which Prometheus. Default: the operator's own."
    )


# --- by what --------------------------------------------------------------------------------------


class Policy(ApiModel):
    """What decides."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.POLICY

    type: Literal["RL", "HPA", "Forecast", "Formula"] = Field(
        default="RL",
        description=(
            "RL: a learned policy. HPA: the Horizontal Pod Autoscaler's formula. "
            "Forecast: a quantile of the load's own rises, which preference picks. "
            "Formula: another system's formula, see formula."
        ),
    )
    formula: Formula | None = Field(
        default=None, description="The formula and its parameters; required with type Formula."
    )
    given_artifact: Artifact | None = Field(
        default=None,
        alias="artifact",
        description="The learned policy's weights; only used by type RL. Default: builtin default.",
    )
    canary: Canary | None = Field(
        default=None,
        description=(
            "A second, learned policy: scored in shadow beside the one above, and promoted by hand or by its "
            "scores."
        ),
    )

    @property
    def artifact(self) -> Artifact:
        """The artifact to load.

        Not a default in the schema: `kubectl apply` would merge another source into the stored one, and the
        API server would then refuse the object for having two.
        """
        return self.given_artifact or BUILTIN_POLICY


# --- how fast -------------------------------------------------------------------------------------


class ScalingPolicy(ApiModel):
    """One rate rule, as in autoscaling/v2."""

    type: Literal["Pods", "Percent"] = Field(
        description="Pods: value is a number of replicas. Percent: of the current replicas."
    )
    value: Annotated[int, whole(1, 1_000_000)] = Field(description="Most change in one period.")
    period_seconds: Annotated[int, whole(1, 1800)] = Field(description="Length of the period in seconds.")


SelectPolicy = Literal["Max", "Min", "Disabled"]
ScalingPolicies = Annotated[list[ScalingPolicy], Field(min_length=1, max_length=16, json_schema_extra=ATOMIC)]
SELECT_HELP = (
    "Which rule counts when there are several: Max, Min, or Disabled for no scaling in this direction."
)
TOLERANCE_HELP = (
    "Share by which the metric may differ from its aim before anything changes, a decimal in a string"
    ' ("0.1").'
)
WINDOW_HELP = "Seconds of past recommendations that are considered, to smooth over fluctuations."
POLICIES_HELP = "Rate rules."


def _scale_up_policies() -> list[ScalingPolicy]:
    return [
        ScalingPolicy(type="Pods", value=4, period_seconds=15),
        ScalingPolicy(type="Percent", value=100, period_seconds=15),
    ]


def _scale_down_policies() -> list[ScalingPolicy]:
    return [ScalingPolicy(type="Percent", value=100, period_seconds=15)]


class ScaleUpRules(ApiModel):
    """Scaling up, as in autoscaling/v2: at once, by the larger of 4 replicas and 100 % every 15 s."""

    stabilization_window_seconds: Seconds = Field(default=0, description=WINDOW_HELP)
    select_policy: SelectPolicy = Field(default="Max", description=SELECT_HELP)
    policies: ScalingPolicies = Field(default_factory=_scale_up_policies, description=POLICIES_HELP)
    tolerance: Decimal = Field(default="0.1", description=TOLERANCE_HELP)


class ScaleDownRules(ApiModel):
    """Scaling down, as in autoscaling/v2: to the highest recommendation of the last 300 s."""

    stabilization_window_seconds: Seconds = Field(default=300, description=WINDOW_HELP)
    select_policy: SelectPolicy = Field(default="Max", description=SELECT_HELP)
    policies: ScalingPolicies = Field(default_factory=_scale_down_policies, description=POLICIES_HELP)
    tolerance: Decimal = Field(default="0.1", description=TOLERANCE_HELP)


class Behavior(ApiModel):
    """How fast replicas may change; fields, meaning and defaults of autoscaling/v2."""

    scale_up: ScaleUpRules = Field(
        default_factory=lambda: ScaleUpRules(),
        description="Scaling up. Default: at once, by the larger of 4 replicas and 100 % every 15 s.",
    )
    scale_down: ScaleDownRules = Field(
        default_factory=lambda: ScaleDownRules(),
        description="Scaling down. Default: to the highest recommendation of the last 300 s.",
    )


class Fallback(ApiModel):
    """What happens when metrics or the policy fail. None of them scales down on missing metrics."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.FALLBACK

    failure_threshold: Annotated[int, whole(1, 1000)] = Field(
        default=3,
        description=(
            "Sync periods in a row without usable metrics before the fallback takes over; until then "
            "replicas are held."
        ),
    )
    recovery_threshold: Annotated[int, whole(1, 1000)] = Field(
        default=3,
        description="Sync periods in a row with usable metrics before the policy decides again.",
    )
    behavior: Literal["HPA", "Hold", "Static"] = Field(
        default="HPA",
        description=(
            "HPA: the HPA formula on the metrics that are left. Hold: stay. Static: at least "
            "spec.fallback.replicas."
        ),
    )
    replicas: Replicas | None = Field(default=None, description="Replicas for behavior Static.")


CronExpression = Annotated[str, text(64, CRON_PATTERN)]


class Schedule(ApiModel):
    """A floor of replicas between two cron times, by the clock of a time zone."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.SCHEDULE

    name: LabelName | None = Field(
        default=None, description="What messages call it. Default: its start, end and time zone."
    )
    start: CronExpression = Field(
        description=(
            "When the floor begins: minute, hour, day of month, month and day of week, as in cron: "
            '"0 8 * * MON-FRI".'
        )
    )
    end: CronExpression = Field(description="When the floor ends, in the same notation; other than start.")
    timezone: Annotated[str, text(64, ZONE_PATTERN)] = Field(
        default="UTC", description="IANA time zone of start and end, such as Europe/Paris."
    )
    min_replicas: Replicas = Field(
        description=(
            "Fewest replicas between start and end, with backends of all pools together. Of schedules that "
            "overlap the largest counts."
        )
    )


# --- what holds it back ---------------------------------------------------------------------------


class Limits(ApiModel):
    """Limits of how often, and by how much, replicas change; each is off unless it is set."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.LIMITS

    changes_per_hour: Annotated[int, whole(1, 3600)] | None = Field(
        default=None,
        description=(
            "After so many changes of replicas within an hour nothing is scaled down; scaling up is never "
            "refused."
        ),
    )
    max_step: Annotated[int, whole(1, 1_000_000)] | None = Field(
        default=None, description="Most replicas that one decision adds or removes."
    )
    min_step: Annotated[int, whole(1, 1_000_000)] | None = Field(
        default=None,
        description=(
            "Changes of fewer replicas are not made, except for bounds, floors, an SLO in danger, and waking "
            "from zero."
        ),
    )


class ScaleToZero(ApiModel):
    """When a service goes to zero replicas, and when it comes back."""

    activation_requests_per_second: Decimal = Field(
        default="0",
        description=(
            "A request rate above this wakes the service and keeps it awake; at or below it the service is "
            "idle. A decimal in a string."
        ),
    )
    cooldown_seconds: Annotated[int, whole(0, 86400)] = Field(
        default=300, description="Seconds of idleness before the last replicas go."
    )


class OutsideChange(ApiModel):
    """What happens when somebody else changes the replicas, such as `kubectl scale`."""

    hold_seconds: Annotated[int, whole(0, 86400)] = Field(
        default=300,
        description=(
            "Seconds for which replicas that somebody else has set are left as they are (bounds excepted). "
            "0: they are not."
        ),
    )


# --- the resource ---------------------------------------------------------------------------------


class RLScalerSpec(ApiModel):
    """What the user asks for."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.SPEC

    scale_target_ref: ScaleTargetRef | None = Field(
        default=None, description="What is scaled. Exactly one of scaleTargetRef and backends must be set."
    )
    min_replicas: Replicas = Field(
        default=1,
        description=(
            "Fewest replicas. With backends: of all pools together, on top of each pool's own minReplicas."
        ),
    )
    max_replicas: Annotated[int, whole(1, 1_000_000)] | None = Field(
        default=None,
        description=(
            "Most replicas; required with scaleTargetRef. With backends: of all pools together, by "
            "default the sum of the pools' maxReplicas."
        ),
    )
    sync_period_seconds: Annotated[int, whole(1, 3600)] = Field(
        default=15, description="Seconds between decisions. Learned policies are trained for 5 to 60."
    )
    mode: Literal["Active", "Shadow", "Paused"] = Field(
        default="Active",
        description="Active: decide and act. Shadow: decide and record, never act. Paused: do nothing.",
    )
    objective: Objective = Field(default_factory=Objective, description="What scaling is to achieve.")
    metrics: Metrics = Field(default_factory=Metrics, description="What is read, and where.")
    policy: Policy = Field(default_factory=Policy, description="What decides.")
    behavior: Behavior = Field(
        default_factory=Behavior,
        description="How fast replicas may change; fields, meaning and defaults of autoscaling/v2.",
    )
    fallback: Fallback = Field(
        default_factory=Fallback,
        description="What happens when metrics or the policy fail. Nothing scales down on missing metrics.",
    )
    limits: Limits = Field(
        default_factory=Limits,
        description="Limits of how often, and by how much, replicas change; each is off unless it is set.",
    )
    scale_to_zero: ScaleToZero | None = Field(
        default=None,
        description=(
            "When the service goes to zero replicas and when it comes back; needs minReplicas 0. Default: "
            "with minReplicas 0, after 300 s without requests, and with the first of them."
        ),
    )
    schedules: Annotated[list[Schedule], Field(max_length=64, json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="Floors of replicas by the clock."
    )
    outside_change: OutsideChange = Field(
        default_factory=OutsideChange,
        description="What happens when somebody else changes the replicas, such as kubectl scale.",
    )
    priority: Annotated[int, whole(-1_000_000, 1_000_000)] = Field(
        default=0,
        description=(
            "Who gets replicas first where an RLScalerBudget is too small for all: the higher, the sooner."
        ),
    )
    cost_per_replica: PositiveDecimal | None = Field(
        default=None,
        description=(
            "What one replica costs, for the maxCost of RLScalerBudgets: a decimal in a string, by default "
            '"1.0". With backends: see theirs.'
        ),
    )
    backends: Backends | None = Field(
        default=None, description="Pools of replicas that share one traffic, instead of scaleTargetRef."
    )
    routes: Annotated[list[Route], Field(max_length=16, json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="Routes whose weights follow the pools. Needs backends."
    )
    routing: Routing | None = Field(
        default=None, description="By what the weights of routes are decided. Default: ready replicas."
    )
    canary: Rollout | None = Field(
        default=None,
        description="Progressive delivery of the version that one pool runs. Needs backends and routes.",
    )


class PolicyStatus(ApiModel):
    """The policy in charge."""

    type: ShortText | None = Field(default=None, description="RL, HPA, Forecast or Formula.")
    name: ShortText | None = Field(
        default=None, description="Name and version from the artifact, or name of the formula."
    )
    digest: ShortText | None = Field(default=None, description="sha256:<hex> of the artifact.")
    schema_: ShortText | None = Field(
        default=None, alias="schema", description="Observation schema of the policy."
    )
    canary: CanaryStatus | None = Field(default=None, description="The canary of spec.policy.canary.")


class BackendStatus(ApiModel):
    """One pool."""

    name: LabelName = Field(description="Name of the pool.")
    current_replicas: Count | None = Field(default=None, description="Replicas that the pool has.")
    desired_replicas: Count | None = Field(default=None, description="Replicas that the pool is to have.")
    weight: Count | None = Field(default=None, description="Share of the traffic in percent.")


class ClampStatus(ApiModel):
    """One change that the guard made to a recommendation."""

    name: ShortText = Field(description="The guard's rule.")
    reason: ShortText | None = Field(default=None, description="Why, in one CamelCase word.")
    before: Count | None = Field(default=None, description="Replicas before the rule.")
    after: Count | None = Field(default=None, description="Replicas after the rule.")
    message: Message | None = Field(default=None, description="Why, in a sentence.")


class DecisionStatus(ApiModel):
    """The last decision, with all that led to it."""

    time: Time | None = Field(default=None, description="When it was made.")
    outcome: ShortText | None = Field(default=None, description="ScaledUp, ScaledDown, NoChange or Held.")
    message: Message | None = Field(default=None, description="The decision in a sentence.")
    mode: ShortText | None = Field(default=None, description="The mode it was made in: Active or Shadow.")
    metrics: ShortText | None = Field(
        default=None, description="What came of reading the load: OK, or why it could not be read."
    )
    observation: Annotated[dict[str, ShortText], Field(max_length=128)] | None = Field(
        default=None, description="What was observed, decimals in strings by name."
    )
    current_replicas: Count | None = Field(default=None, description="Replicas at the time.")
    recommended_replicas: Count | None = Field(default=None, description="What the policy recommended.")
    hpa_replicas: Count | None = Field(
        default=None, description="What the Horizontal Pod Autoscaler's formula would have recommended."
    )
    desired_replicas: Count | None = Field(default=None, description="What was decided, after the guard.")
    clamps: Annotated[list[ClampStatus], Field(max_length=32, json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="What the guard changed, in order."
    )
    fallback: ShortText | None = Field(default=None, description="Why the fallback decided, if it did.")


class TimedReplicas(ApiModel):
    """A past recommendation."""

    time: Time = Field(description="When it was made.")
    replicas: Count = Field(description="Recommended replicas.")


class TimedChange(ApiModel):
    """A past change of replicas."""

    time: Time = Field(description="When it was made.")
    change: Count = Field(description="Replicas added, or removed when negative.")


class StabilizationStatus(ApiModel):
    """What `behavior` needs to know of the past; kept here so that a restarted operator forgets nothing."""

    recommendations: (
        Annotated[list[TimedReplicas], Field(max_length=4096, json_schema_extra=ATOMIC)] | None
    ) = Field(default=None, description="Recommendations within the stabilisation windows, oldest first.")
    scale_events: Annotated[list[TimedChange], Field(max_length=4096, json_schema_extra=ATOMIC)] | None = (
        Field(default=None, description="Changes within the periods of the rate rules, oldest first.")
    )


class BudgetStatus(ApiModel):
    """The budget that this RLScaler shares, and what it gets of it."""

    name: ShortText | None = Field(default=None, description="Name of the RLScalerBudget.")
    cap: Count | None = Field(default=None, description="Most replicas that the budget leaves it now.")
    message: Message | None = Field(default=None, description="How that came about, in a sentence.")


class OutsideChangeStatus(ApiModel):
    """A change of replicas by somebody else, which is being respected."""

    replicas: Count = Field(description="The replicas that were set.")
    until: Time = Field(description="Until when they are left as they are.")
    by: ShortText | None = Field(
        default=None, description="Who set them, by the field manager that the API server has noted."
    )


class Condition(ApiModel):
    """One aspect of the RLScaler's state."""

    type: Annotated[str, text(316)] = Field(
        description=(
            "Ready, AbleToScale, ScalingActive, ScalingLimited, MetricsAvailable, PolicyReady, "
            "RoutesSynced, CanarySucceeded, Fallback or Paused."
        )
    )
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: Annotated[str, text(1024)] = Field(description="Why, in one CamelCase word.")
    message: Message = Field(description="Why, in a sentence.")
    last_transition_time: Time = Field(description="When status last changed.")
    observed_generation: Count | None = Field(
        default=None, description="metadata.generation of the RLScaler that this speaks of."
    )


class RLScalerStatus(ApiModel):
    """What the operator observes and decides."""

    observed_generation: Count | None = Field(
        default=None, description="metadata.generation of the RLScaler that the operator last acted upon."
    )
    target: ShortText | None = Field(
        default=None, description='What is scaled, for kubectl get: "Deployment/web", or the pools\' names.'
    )
    current_replicas: Count | None = Field(default=None, description="Replicas that the target has.")
    desired_replicas: Count | None = Field(
        default=None, description="Replicas that the target is to have, after the guard."
    )
    recommended_replicas: Count | None = Field(
        default=None, description="Replicas that the policy recommends, before the guard."
    )
    last_scale_time: Time | None = Field(default=None, description="When replicas were last changed.")
    start_up_seconds: Count | None = Field(
        default=None,
        description=(
            "Seconds from the creation of a replica until it is ready, as learned from the service's "
            "scale-ups; absent while nothing is known."
        ),
    )
    outside_change: OutsideChangeStatus | None = Field(
        default=None, description="A change of replicas by somebody else, while it is respected."
    )
    budget: BudgetStatus | None = Field(
        default=None, description="The budget that it shares with others, and what it gets of it."
    )
    policy: PolicyStatus | None = Field(default=None, description="The policy in charge.")
    backends: (
        Annotated[list[BackendStatus], Field(max_length=BACKENDS_LIMIT, json_schema_extra=MAP_BY_NAME)] | None
    ) = Field(default=None, description="The pools.")
    canary: RolloutStatus | None = Field(default=None, description="The canary of spec.canary.")
    last_decision: DecisionStatus | None = Field(
        default=None, description="The last decision, with all that led to it."
    )
    stabilization: StabilizationStatus | None = Field(
        default=None,
        description="What behavior needs to know of the past; a restarted operator reads it back.",
    )
    conditions: Annotated[list[Condition], Field(max_length=32, json_schema_extra=MAP_BY_TYPE)] | None = (
        Field(default=None, description="Conditions, one of each type.")
    )
