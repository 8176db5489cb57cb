"""Anything may come from metrics and clocks: what the guard promises holds on the built-in policy.

The artifact is the one that ships; here it states the range of observations that ordinary traffic shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.core import (
    OBSERVATION_SCHEMA,
    Behavior,
    Engine,
    Fallback,
    Samples,
    ScalingPolicy,
    ScalingRules,
    ServiceSpec,
)
from controller.core.decision import Decision
from controller.policies import OnnxPolicy
from controller.policies.artifact import ObservationRange
from controller.policies.loader import artifact_bytes, load_policy
from controller.policies.onnx_policy import opened

STEP_S, START_S = 15.0, 2 * 86400.0
UP, DOWN, PERIOD_S = 5, 3, 60
BEHAVIOR = Behavior(
    ScalingRules(0, "Max", (ScalingPolicy("Pods", UP, PERIOD_S),)),
    ScalingRules(60, "Max", (ScalingPolicy("Pods", DOWN, PERIOD_S),)),
)
SPEC = ServiceSpec(
    min_replicas=2,
    max_replicas=40,
    sync_period_s=STEP_S,
    slo_latency_ms=250.0,
    capacity_rps=25.0,
    start_up_s=60.0,
    behavior=BEHAVIOR,
    fallback=Fallback(failure_threshold=3, behavior="HPA"),
)
WORDS = {None, "MetricsUnavailable", "PolicyUnavailable", "InvalidAction", "CapacityUnknown"}


@dataclass(frozen=True)
class Reading:
    """What is done to an ordinary reading, and by how much the clock goes on."""

    kind: str = "ordinary"
    factor: float = 1.0
    tick_s: float = STEP_S

    def samples(self, rate: float, current: float) -> Samples:
        rate *= self.factor if self.kind == "load" else 1.0
        used = min(rate / (25.0 * max(current, 1.0)), 1.0)
        seen = {"request_rate": rate, "latency_ms": 60.0, "utilisation": used, "error_ratio": 0.0,
                "ready": current, "in_flight": rate * 0.05}  # fmt: skip
        strange = math.nan if self.kind == "nan" else self.factor
        if self.kind in ("nan", "replaced"):
            seen = dict.fromkeys(seen, strange)
        elif self.kind == "rate nan":
            seen["request_rate"] = math.nan
        elif self.kind == "negative":
            seen = {name: -value for name, value in seen.items()}
        elif self.kind == "scales":
            # seconds for milliseconds, percent for shares, a minute's requests for a second's
            seen |= {
                "latency_ms": 0.06,
                "utilisation": 100 * used,
                "error_ratio": 50.0,
                "request_rate": 60 * rate,
            }
        elif self.kind == "late":
            seen["latency_ms"] = 1e5
        elif self.kind == "silence":
            seen = dict.fromkeys(seen, 0.0) | {"ready": current}
        return Samples(current=[current], **{name: [value] for name, value in seen.items()})


@cache
def policy() -> OnnxPolicy:
    """The built-in policy, with the range of what ordinary traffic shows."""
    loaded = load_policy({"builtin": "default"})
    assert isinstance(loaded, OnnxPolicy)
    engine, rng, seen = Engine([SPEC] * 16, loaded), np.random.default_rng(0), []
    engine.backfill(START_S + np.arange(-7200.0, 0.0, 60.0), np.full((120, 16), 300.0))
    current = np.full(16, 18.0)
    for step in range(200):
        rate = 300.0 * np.exp(rng.normal(0, 0.3, 16) + np.sin(step / 40.0))
        used = np.minimum(rate / (25.0 * current), 1.0)
        samples = Samples(request_rate=rate, latency_ms=60.0 + 20.0 * used, utilisation=used, error_ratio=0.0,
                          ready=current, current=current, in_flight=rate * 0.05)  # fmt: skip
        view = engine.observe(START_S + step * STEP_S, samples)
        seen.append(view.features.copy())
        current = engine.decide(
            view, loaded.act(view.features), loaded.action_schema
        ).desired_replicas.astype(float)
    everything = np.concatenate(seen)
    # the clock goes round, whatever the traffic does
    low, high = everything.min(axis=0), everything.max(axis=0)
    clock = [OBSERVATION_SCHEMA.names.index(name) for name in ("day_sin", "day_cos")]
    low[clock], high[clock] = -1.0, 1.0
    session = opened(artifact_bytes({"builtin": "default"})).session
    known = ObservationRange(low=tuple(low.tolist()), high=tuple(high.tolist()))
    return OnnxPolicy(session, loaded.metadata.model_copy(update={"observation_range": known}), loaded.digest)


def fresh() -> Engine:
    engine = Engine(SPEC, policy())
    engine.backfill(START_S + np.arange(-7200.0, 0.0, 60.0), np.full((120, 1), 300.0))
    return engine


numbers = st.sampled_from([0.0, 1e-12, 1.0, 1e6, 1e15, 1e300, math.inf, -math.inf, -1.0, -1e300])
readings = st.one_of(
    st.just(Reading()),
    st.sampled_from([Reading(kind) for kind in ("nan", "rate nan", "negative", "scales", "silence", "late")]),
    st.builds(Reading, st.just("replaced"), numbers),
    st.builds(Reading, st.just("load"), st.sampled_from([1e-3, 0.1, 10.0, 1000.0, 1e12])),
)
jumps = st.sampled_from([STEP_S, 0.0, 1.0, 3600.0, 86400.0, 1e7, -1.0, -3600.0, -1e6])


def checked(decision: Decision, usable: bool) -> None:
    """What holds for every decision, whatever was read."""
    before, after = decision.current_replicas, decision.desired_replicas
    assert SPEC.min_replicas <= after <= SPEC.max_replicas
    assert decision.fallback in WORDS
    assert all(math.isfinite(value) for value in decision.features.values())
    if not usable:
        assert after >= before, "missing is never zero"
        assert decision.metrics_outcome.reason in decision.message
    if decision.unfamiliar:
        assert "unlike any in training" in decision.message
        assert after >= min(before, SPEC.max_replicas), "an odd observation never scales down"


def live(engine: Engine, course: list[Reading], rate: float = 300.0) -> list[Decision]:
    now_s, current, found = START_S, 18.0, []
    for reading in course:
        now_s += reading.tick_s
        (decision,) = engine.step(now_s, reading.samples(rate, current))
        checked(decision, decision.metrics_outcome.name == "OK")
        found.append(decision)
        current = float(decision.desired_replicas)
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(readings, min_size=1, max_size=8))
def test_bounds_rates_and_floors_hold_whatever_is_read(course: list[Reading]) -> None:
    found = live(fresh(), course)
    ticks = round(PERIOD_S / STEP_S)
    for last, decision in enumerate(found):
        begun = found[max(0, last - ticks + 1)].current_replicas
        if decision.desired_replicas > decision.current_replicas:
            assert decision.desired_replicas <= begun + UP
        if decision.desired_replicas < decision.current_replicas:
            assert decision.desired_replicas >= begun - DOWN


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(readings, jumps), min_size=1, max_size=8))
def test_bounds_and_floors_hold_whatever_the_clock_does(course: list[tuple[Reading, float]]) -> None:
    live(fresh(), [Reading(one.kind, one.factor, tick_s) for one, tick_s in course])


def test_a_thousandfold_load_is_called_strange_and_met_upwards() -> None:
    found = live(fresh(), [Reading(), Reading(), *[Reading("load", 1000.0)] * 4])
    assert not found[1].unfamiliar
    assert [decision.unfamiliar for decision in found[2:]] == [True] * 4
    assert found[-1].desired_replicas > found[1].desired_replicas


def test_a_load_that_vanishes_beyond_what_training_saw_is_called_strange_and_scales_nothing_down() -> None:
    found = live(fresh(), [*[Reading()] * 3, *[Reading("load", 1e-3)] * 60])
    strange = [decision for decision in found if decision.unfamiliar]
    assert strange
    assert all(one.desired_replicas >= one.current_replicas for one in strange)


@pytest.mark.parametrize("kind", ["nan", "negative"])
def test_missing_metrics_name_their_fallback_and_end_without_a_hand(kind: str) -> None:
    found = live(fresh(), [*[Reading()] * 2, *[Reading(kind)] * 5, *[Reading()] * 2])
    said = [decision.fallback for decision in found]
    assert said == [None] * 4 + ["MetricsUnavailable"] * 3 + [None] * 2
    assert found[-1].metrics_outcome.name == "OK"


def test_what_was_strange_becomes_familiar_again_without_a_hand() -> None:
    found = live(fresh(), [*[Reading()] * 4, *[Reading("late")] * 2, *[Reading()] * 80])
    assert not any(decision.unfamiliar for decision in found[:4])
    assert found[5].unfamiliar
    assert not found[-1].unfamiliar
    assert found[-1].fallback is None
    assert found[-1].desired_replicas < max(decision.desired_replicas for decision in found)


def test_a_feature_that_is_no_number_is_outside_of_every_range() -> None:
    engine = fresh()
    view = engine.observe(START_S, Reading().samples(300.0, 18.0))
    assert policy().unfamiliar(view).tolist() == [False]
    view.features[0, 3] = np.nan
    assert view.valid[0, 3]
    assert policy().unfamiliar(view).tolist() == [True]
