"""The HPA's own documented examples, from their YAML to replicas: one test for each, with its source.

Sources (read November 2026):
DOCS  https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/
WALK  https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale-walkthrough/
BLOG  https://kubernetes.io/blog/2025/04/28/kubernetes-v1-33-hpa-configurable-tolerance/
API   https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/
KEP-853   https://github.com/kubernetes/enhancements/tree/master/keps/sig-autoscaling/853-configurable-hpa-scale-velocity
KEP-4951  https://github.com/kubernetes/enhancements/tree/master/keps/sig-autoscaling/4951-configurable-hpa-tolerance
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import yaml

from controller.api.convert import to_service_spec
from controller.api.types import RLScalerSpec
from controller.core import Engine, HpaPolicy, Samples, ServiceSpec, View

WIDE = 1000


def service(
    behavior: str = "{}", least: int = 1, most: int = WIDE, target: int = 50, period_s: int = 15
) -> ServiceSpec:
    """What a user's YAML becomes: `behavior` is written as in the HPA."""
    described: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": least,
        "maxReplicas": most,
        "syncPeriodSeconds": period_s,
        "policy": {"type": "HPA"},
        "metrics": {"preset": "envoy"},
        "objective": {"targetUtilization": target},
        "behavior": yaml.safe_load(behavior),
    }
    return to_service_spec(RLScalerSpec.model_validate(described))


class Recommends:
    """Gives the recommendations of an example in order, then its last one for good."""

    name, type, digest, schema = "example", "Formula", "", ""
    needs_capacity = False

    def __init__(self, recommendations: Sequence[int]) -> None:
        self.left = list(recommendations)

    def recommend(self, view: View) -> np.ndarray:
        return np.full(len(view), float(self.left.pop(0) if len(self.left) > 1 else self.left[0]))


def formula(current: int, ratio: float, spec: ServiceSpec, ready: int | None = None) -> int:
    """Replicas after one look at pods that use `ratio` times their target."""
    samples = Samples(
        utilisation=[ratio * spec.target_utilisation],
        current=[current],
        ready=[current if ready is None else ready],
    )
    return Engine(spec, HpaPolicy()).step(0.0, samples)[0].desired_replicas


def replay(
    spec: ServiceSpec, current: int, recommendations: Sequence[int], every_s: float, looks: int
) -> list[int]:
    """Replicas after each look, `every_s` seconds apart, at these recommendations."""
    engine, seen = Engine(spec, Recommends(recommendations)), []
    for look in range(looks):
        samples = Samples(utilisation=[0.5], current=[current], ready=[current])
        current = engine.step(look * every_s, samples)[0].desired_replicas
        seen.append(current)
    return seen


def without_window(policies: str, select: str = "Max") -> str:
    """Scale-down rules of an example about rates, with the window at 0 so that only they are seen."""
    return f"{{scaleDown: {{stabilizationWindowSeconds: 0, selectPolicy: {select}, policies: {policies}}}}}"


PODS_4_PERCENT_10 = (
    "[{type: Pods, value: 4, periodSeconds: 60}, {type: Percent, value: 10, periodSeconds: 60}]"
)


# The formula


@pytest.mark.parametrize(
    ("value", "desired"),
    [
        pytest.param(200, 10, id="200m against 100m doubles"),
        pytest.param(50, 5, id="50m against 100m halves once the window is over"),
    ],
)
def test_the_ratio_doubles_and_halves(value: float, desired: int) -> None:
    """DOCS, Algorithm details: 200.0 / 100.0 == 2.0 doubles, 50.0 / 100.0 == 0.5 halves."""
    before = 5 if value > 100 else 10
    spec = service("{scaleDown: {stabilizationWindowSeconds: 0}}")
    assert formula(before, value / 100.0, spec) == desired


@pytest.mark.parametrize("ratio", [0.9, 0.95, 1.0, 1.05, 1.1])
def test_nothing_happens_close_to_one(ratio: float) -> None:
    """DOCS, Algorithm details: no action if the ratio is sufficiently close to 1.0, 0.1 by default."""
    assert formula(50, ratio, service("{scaleDown: {stabilizationWindowSeconds: 0}}")) == 50


def test_the_walkthrough_grows_from_one_to_seven_and_comes_back() -> None:
    """WALK: 305 % / 50 % on one replica of 1..10 ends at 7 replicas; at 0 % it goes back to 1."""
    engine, current, seen = Engine(service(most=10), HpaPolicy()), 1, []
    for look in range(60):
        busy = look < 8
        used = 3.05 / current if busy else 0.0
        samples = Samples(utilisation=[used], current=[current], ready=[current])
        current = engine.step(15.0 * look, samples)[0].desired_replicas
        seen.append(current)
    assert seen[0] == 5
    assert seen[1:8] == [7] * 7
    assert seen[-1] == 1


def test_fifty_replicas_at_ninety_percent_of_seventy_five_become_sixty() -> None:
    """BLOG: 50 x (90/75) = 60."""
    assert formula(50, 90 / 75, service(target=75)) == 60


def test_a_ratio_of_seven_percent_is_ignored_by_default() -> None:
    """KEP-4951, Summary: 100 replicas at a ratio of 1.07 would be 107; the default tolerance skips it."""
    assert formula(100, 1.07, service()) == 100


def test_a_tolerance_of_five_percent_lets_it_through() -> None:
    """KEP-4951, Summary: with a tolerance of 5 % the scale-up to 107 proceeds."""
    assert formula(100, 1.07, service("{scaleUp: {tolerance: '0.05'}}")) == 107


@pytest.mark.parametrize(("ratio", "desired"), [(1.01, 101), (0.96, 100), (0.94, 94)])
def test_tolerance_is_set_for_each_direction(ratio: float, desired: int) -> None:
    """BLOG: scaleDown.tolerance 0.05 with scaleUp.tolerance 0."""
    rules = "{scaleDown: {tolerance: '0.05', stabilizationWindowSeconds: 0}, scaleUp: {tolerance: '0'}}"
    assert formula(100, ratio, service(rules)) == desired


@pytest.mark.parametrize(
    ("mebibytes", "moves"), [(94, True), (95, False), (100, False), (101, False), (102, True)]
)
def test_a_memory_target_of_100_moves_below_95_and_above_101(mebibytes: int, moves: bool) -> None:
    """API, HPAScalingRules.tolerance: 100Mi with 5 % down and 1 % up triggers below 95Mi or above 101Mi."""
    rules = "{scaleDown: {tolerance: '0.05', stabilizationWindowSeconds: 0}, scaleUp: {tolerance: '0.01'}}"
    assert (formula(100, mebibytes / 100.0, service(rules)) != 100) == moves


def test_pods_that_are_not_ready_count_as_idle_on_the_way_up() -> None:
    """DOCS, Algorithm details: not-yet-ready pods are taken to consume 0 %, which dampens a scale-up."""
    assert formula(10, 2.0, service(), ready=8) == 16
    assert formula(10, 2.0, service(), ready=10) == 20


def test_a_ratio_that_turns_round_with_unready_pods_changes_nothing() -> None:
    """DOCS, Algorithm details: if the new ratio reverses the direction or is tolerated, no action."""
    assert formula(10, 1.5, service(), ready=6) == 10
    assert formula(10, 1.5, service(), ready=7) == 10


def test_zero_replicas_switch_it_off() -> None:
    """DOCS, Implicit maintenance-mode deactivation: at 0 replicas with minReplicas above 0 it stops."""
    spec = service()
    decision = Engine(spec, HpaPolicy()).step(0.0, Samples(utilisation=[2.0], current=[0], ready=[0]))[0]
    assert (decision.desired_replicas, decision.outcome) == (0, "Held")


# Rates


def test_eighty_replicas_lose_eight_and_eight_again() -> None:
    """DOCS, Scaling policies: 80 -> 72, then 10 % is 7.2 and is rounded up to 8; the percentage is the
    larger while there are more than 40."""
    spec = service(without_window(PODS_4_PERCENT_10), period_s=60)
    seen = replay(spec, 80, [10], every_s=60.0, looks=8)
    assert seen[:2] == [72, 64]
    steps = -np.diff([80, *seen])
    assert all(step == np.ceil(before / 10) for step, before in zip(steps, [80, *seen], strict=False))


def test_below_forty_replicas_four_go_at_a_time() -> None:
    """DOCS, Scaling policies: with 40 or less replicas, Pods is applied and 4 are removed at a time."""
    spec = service(without_window(PODS_4_PERCENT_10), period_s=60)
    assert replay(spec, 40, [10], every_s=60.0, looks=9) == [36, 32, 28, 24, 20, 16, 12, 10, 10]


def test_a_minute_is_a_minute_whatever_the_sync_period() -> None:
    """DOCS, Scaling policies: `periodSeconds` is how long in the past the policy must hold true."""
    seen = replay(service(without_window(PODS_4_PERCENT_10)), 80, [10], every_s=15.0, looks=9)
    assert seen == [72, 72, 72, 72, 64, 64, 64, 64, 57]


def test_min_takes_the_smallest_change() -> None:
    """DOCS, Scaling policies: `selectPolicy: Min` selects the policy with the smallest change."""
    spec = service(without_window(PODS_4_PERCENT_10, "Min"), period_s=60)
    assert replay(spec, 80, [10], every_s=60.0, looks=2) == [76, 72]


def test_ten_percent_a_minute() -> None:
    """DOCS, Example: limit scale down rate."""
    spec = service(without_window("[{type: Percent, value: 10, periodSeconds: 60}]"), period_s=60)
    assert replay(spec, 100, [1], every_s=60.0, looks=4) == [90, 81, 72, 64]


def test_ten_percent_and_no_more_than_five_pods() -> None:
    """DOCS, Example: limit scale down rate: Percent 10 and Pods 5 with Min."""
    policies = "[{type: Percent, value: 10, periodSeconds: 60}, {type: Pods, value: 5, periodSeconds: 60}]"
    spec = service(without_window(policies, "Min"), period_s=60)
    assert replay(spec, 100, [1], every_s=60.0, looks=3) == [95, 90, 85]
    assert replay(spec, 30, [1], every_s=60.0, looks=2) == [27, 24]


def test_disabled_never_scales_down() -> None:
    """DOCS, Example: disable scale down; KEP-853, story 4."""
    spec = service("{scaleDown: {selectPolicy: Disabled}}", period_s=60)
    assert replay(spec, 20, [1], every_s=60.0, looks=40) == [20] * 40
    assert replay(spec, 20, [30], every_s=60.0, looks=1) == [30]


def test_the_default_scale_up_is_the_larger_of_double_and_four_every_fifteen_seconds() -> None:
    """DOCS, Default behavior: 4 pods or 100 % of the running replicas are added every 15 s."""
    assert replay(service(), 1, [100], every_s=15.0, looks=6) == [5, 10, 20, 40, 80, 100]


def test_the_default_scale_down_goes_to_the_minimum_at_once_after_300_seconds() -> None:
    """DOCS, Default behavior: 100 % of the replicas may go, after a window of 300 s."""
    seen = replay(service(least=2), 50, [50, 1], every_s=15.0, looks=24)
    assert seen[:20] == [50] * 20
    assert seen[20:] == [2] * 4


def test_the_defaults_written_out_are_the_defaults() -> None:
    """DOCS, Default behavior: the YAML there equals an empty `behavior`."""
    written = """
    scaleDown:
      stabilizationWindowSeconds: 300
      policies: [{type: Percent, value: 100, periodSeconds: 15}]
    scaleUp:
      stabilizationWindowSeconds: 0
      policies: [{type: Percent, value: 100, periodSeconds: 15}, {type: Pods, value: 4, periodSeconds: 15}]
      selectPolicy: Max
    """
    rng = np.random.default_rng(1)
    says = rng.integers(1, 60, 60).tolist()
    assert replay(service(written), 10, says, 15.0, 60) == replay(service(), 10, says, 15.0, 60)


def test_nine_hundred_percent_is_ten_times() -> None:
    """KEP-853, story 1: 1 -> 10 -> 100 -> 1000."""
    rules = "{scaleUp: {policies: [{type: Percent, value: 900, periodSeconds: 60}]}}"
    assert replay(service(rules, period_s=60), 1, [1000], every_s=60.0, looks=3) == [10, 100, 1000]


def test_one_pod_every_ten_minutes() -> None:
    """KEP-853, story 2: 1000 -> 1000 -> ... -> 999, one pod in 10 minutes."""
    rules = without_window("[{type: Pods, value: 1, periodSeconds: 600}]")
    seen = replay(service(rules, period_s=60), 1000, [1], every_s=60.0, looks=21)
    assert seen == [999] * 10 + [998] * 10 + [997]


def test_one_pod_every_five_minutes_on_the_way_up() -> None:
    """KEP-853, story 3: 1 -> 2 -> 3 -> 4."""
    rules = "{scaleUp: {policies: [{type: Pods, value: 1, periodSeconds: 300}]}}"
    assert replay(service(rules, period_s=300), 1, [50], every_s=300.0, looks=3) == [2, 3, 4]


# Windows


def test_a_window_of_one_minute() -> None:
    """DOCS, Example: change downscale stabilization window."""
    seen = replay(service("{scaleDown: {stabilizationWindowSeconds: 60}}"), 50, [50, 10], 15.0, 6)
    assert seen == [50, 50, 50, 50, 10, 10]


def test_the_highest_state_of_five_minutes_is_kept() -> None:
    """DOCS, Stabilization window: all desired states from the past 5 minutes, the highest of them; so a
    flapping metric removes nothing."""
    spec = service("{scaleDown: {stabilizationWindowSeconds: 300}}", period_s=60)
    assert replay(spec, 12, [12, 6, 12, 5, 12, 7, 12, 6, 12, 5], every_s=60.0, looks=10) == [12] * 10


def test_ten_minutes_of_recommendations() -> None:
    """KEP-853, story 5: the tenth minute keeps 10; in the eleventh the first recommendation is out: 9."""
    rules = """
    scaleDown: {stabilizationWindowSeconds: 600, policies: [{type: Pods, value: 5, periodSeconds: 60}]}
    """
    says = [10, 9, 8, 9, 9, 8, 9, 8, 9, 8, 7]
    assert replay(service(rules, period_s=60), 10, says, every_s=60.0, looks=11) == [10] * 10 + [9]


def test_five_minutes_against_false_alarms() -> None:
    """KEP-853, story 6: [2, 3, 19, 10, 3, 4] keeps 2; with 7 in place of the first the smallest is 3.

    The proposal counts the recommendation of exactly 300 s ago, the controller does not: hence 59.9 s.
    """
    rules = (
        "{scaleUp: {stabilizationWindowSeconds: 300, policies: [{type: Pods, value: 20, periodSeconds: 60}]}}"
    )
    says = [2, 3, 19, 10, 3, 4, 7]
    assert replay(service(rules, period_s=60), 2, says, every_s=59.9, looks=7) == [2] * 6 + [3]


def test_a_change_thirty_seconds_ago_counts_for_a_minute() -> None:
    """KEP-853, HPA controller state changes: one pod was added 30 s ago and 1 a minute is allowed: none for
    the next 30 s."""
    rules = "{scaleUp: {policies: [{type: Pods, value: 1, periodSeconds: 60}]}}"
    seen = replay(service(rules, period_s=30), 4, [9], every_s=30.0, looks=5)
    assert seen == [5, 5, 6, 6, 7]
