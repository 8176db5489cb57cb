"""What must hold for any service, any policy and any history."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core import (
    Behavior,
    Engine,
    Fallback,
    Limits,
    Samples,
    ScalingPolicy,
    ScalingRules,
    ServiceSpec,
    View,
)

number = st.floats(allow_nan=True, allow_infinity=True, width=32)
replicas = st.integers(1, 80)
rules = st.builds(
    ScalingRules,
    stabilization_window_s=st.sampled_from([0, 15, 60, 300]),
    select_policy=st.sampled_from(["Max", "Min", "Disabled"]),
    policies=st.lists(
        st.builds(
            ScalingPolicy,
            type=st.sampled_from(["Pods", "Percent"]),
            value=st.integers(1, 300),
            period_s=st.sampled_from([15, 60, 1800]),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
)
fallbacks = st.builds(
    Fallback,
    failure_threshold=st.integers(1, 4),
    behavior=st.sampled_from(["HPA", "Hold", "Static"]),
    replicas=st.integers(0, 90),
    recovery_threshold=st.integers(1, 4),
)
maybe = st.none() | st.integers(1, 12)


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    small, large = draw(maybe), draw(maybe)
    if small is not None and large is not None:
        small, large = min(small, large), max(small, large)
    return Limits(changes_per_hour=draw(maybe), max_step=large, min_step=small)


@st.composite
def specs(draw: st.DrawFn) -> ServiceSpec:
    low = draw(st.integers(0, 40))
    return ServiceSpec(
        min_replicas=low,
        max_replicas=draw(st.integers(max(low, 1), 80)),
        sync_period_s=draw(st.sampled_from([5.0, 15.0, 60.0])),
        slo_latency_ms=draw(st.sampled_from([math.nan, 50.0, 500.0])),
        capacity_rps=draw(st.sampled_from([math.nan, 0.5, 20.0, 5000.0])),
        behavior=Behavior(draw(rules), draw(rules)),
        fallback=draw(fallbacks),
        limits=draw(limits()),
        start_up_s=draw(st.sampled_from([math.nan, 5.0, 60.0])),
    )


tick = st.fixed_dictionaries(
    {
        "says": number,
        "rate": number,
        "latency": number,
        "utilisation": number,
        "ready": st.integers(0, 90),
        "current": replicas,
        "floor": st.sampled_from([0, 0, 0, 5, 200]),
        "held": st.sampled_from([False, False, True]),
        "budget": st.sampled_from([None, None, 0, 7, 500]),
    }
)


class Script:
    """A policy that reads its lines."""

    name, type, digest, schema = "script", "RL", "", ""
    says: float = 0.0

    def recommend(self, view: View) -> np.ndarray:
        return np.full(len(view), self.says)


def play(spec: ServiceSpec, history: list[dict]):
    policy = Script()
    engine = Engine(spec, policy)
    for index, moment in enumerate(history):
        policy.says = moment["says"]
        now = spec.sync_period_s * index
        engine.set_floor(0, moment["floor"])
        engine.hold(0, now + 1.0 if moment["held"] else 0.0)
        most = moment["budget"]
        engine.budget = None if most is None else lambda *_, most=most: np.array([most])
        samples = Samples(
            request_rate=[moment["rate"]],
            latency_ms=[moment["latency"]],
            utilisation=[moment["utilisation"]],
            ready=[moment["ready"]],
            current=[moment["current"]],
        )
        yield moment, engine.step(now, samples)[0]


common = settings(max_examples=80)


@common
@given(specs(), st.lists(tick, min_size=1, max_size=12))
def test_desired_replicas_never_leave_the_bounds(spec: ServiceSpec, history: list[dict]) -> None:
    for _, decision in play(spec, history):
        assert spec.min_replicas <= decision.desired_replicas <= spec.max_replicas


@common
@given(specs(), st.lists(tick, min_size=1, max_size=12))
def test_nothing_scales_down_on_missing_data(spec: ServiceSpec, history: list[dict]) -> None:
    for moment, decision in play(spec, history):
        unreadable = not (math.isfinite(moment["rate"]) and moment["rate"] >= 0)
        no_use = not (math.isfinite(moment["utilisation"]) and moment["utilisation"] >= 0)
        if unreadable and no_use:
            granted = math.inf if moment["budget"] is None else max(moment["budget"], spec.min_replicas)
            assert decision.desired_replicas >= min(moment["current"], spec.max_replicas, granted)


@common
@given(specs(), st.lists(tick, min_size=1, max_size=12))
def test_every_difference_between_recommendation_and_outcome_has_a_named_clamp(
    spec: ServiceSpec, history: list[dict]
) -> None:
    for _, decision in play(spec, history):
        said = decision.recommended_replicas
        if said is not None and said != decision.desired_replicas:
            assert decision.clamps
            assert decision.clamps[-1].after == decision.desired_replicas
        for clamp in decision.clamps:
            assert clamp.name
            assert clamp.reason
            assert clamp.before != clamp.after


@settings(max_examples=25)
@given(st.lists(specs(), min_size=2, max_size=5), st.integers(0, 2**32 - 1))
def test_a_batch_decides_what_each_service_alone_would(many: list[ServiceSpec], seed: int) -> None:
    rng = np.random.default_rng(seed)
    ticks, size = 8, len(many)
    rates = rng.lognormal(3, 2, (ticks, size)) * np.where(rng.random((ticks, size)) < 0.2, np.nan, 1.0)
    latency = rng.lognormal(4, 1, (ticks, size))
    current = rng.integers(1, 60, (ticks, size))
    actions = rng.normal(0, 0.4, (ticks, size, 1))
    together = Engine(many, Script())
    alone = [Engine(spec, Script()) for spec in many]
    for t in range(ticks):
        now = 15.0 * t
        view = together.observe(now, Samples(rates[t], latency[t], current=current[t]))
        whole = together.decide(view, actions[t])
        for i, engine in enumerate(alone):
            single = engine.observe(
                now, Samples(rates[t, i : i + 1], latency[t, i : i + 1], current=current[t, i : i + 1])
            )
            np.testing.assert_array_equal(view.features[i], single.features[0])
            assert (
                engine.decide(single, actions[t, i : i + 1])[0].desired_replicas == whole.desired_replicas[i]
            )
