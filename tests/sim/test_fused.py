"""The fused engine is held to `controller.core.Engine`: features within 1e-5, replicas exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.core import (
    ACTION_SCHEMAS,
    OBSERVATION_SCHEMA,
    ActionPolicy,
    Behavior,
    Engine,
    Fallback,
    ForecastPolicy,
    HpaPolicy,
    Limits,
    Samples,
    ScalingPolicy,
    ScalingRules,
    ServiceSpec,
)
from controller.core.policy import UnavailablePolicy, ask
from sim.errors import ParameterError
from sim.fused import FusedEngine

SERVICES = 48


class Reckless(ActionPolicy):
    """Asks for anything; now and then says nothing, and calls some moments unfamiliar."""

    name = "reckless"

    def __init__(self, schema: str, strange: bool = False) -> None:
        self.action_schema = schema
        self._strange = strange

    def recommend(self, view) -> np.ndarray:
        return ACTION_SCHEMAS[self.action_schema].decode(
            actions(self.action_schema, view), view.current, view.load
        )

    def unfamiliar(self, view) -> np.ndarray:
        return np.full(len(view), self._strange and np.floor(view.now_s[0] / 15.0) % 7 == 3)


def actions(schema: str, view) -> np.ndarray:
    mixed = np.sin(12.9898 * view.rows + 78.233 * view.now_s)
    if schema == "hold-band/v1":
        return np.stack([np.where(np.abs(mixed) > 0.97, np.nan, mixed), mixed + 0.3], axis=1)
    return np.where(np.abs(mixed) > 0.97, np.nan, np.where(np.abs(mixed) < 0.1, 0.0, mixed))[:, None]


def random_rules(rng: np.random.Generator) -> ScalingRules:
    rules = tuple(
        ScalingPolicy(
            str(rng.choice(["Pods", "Percent"])), int(rng.integers(1, 120)), int(rng.choice([15, 60, 300]))
        )
        for _ in range(rng.integers(1, 4))
    )
    select = str(rng.choice(["Max", "Max", "Min", "Disabled"], p=[0.45, 0.2, 0.25, 0.1]))
    return ScalingRules(
        int(rng.choice([0, 0, 45, 300, 900])), select, rules, float(rng.choice([0.0, 0.1, 0.2]))
    )


def random_spec(rng: np.random.Generator, sync_s: float) -> ServiceSpec:
    behavior = Behavior() if rng.random() < 0.5 else Behavior(random_rules(rng), random_rules(rng))
    kind = str(rng.choice(["HPA", "Hold", "Static"]))
    return ServiceSpec(
        min_replicas=int(rng.choice([0, 0, 1, 3])),
        max_replicas=int(rng.integers(4, 200)),
        sync_period_s=sync_s,
        slo_latency_ms=float(rng.choice([np.nan, 100.0, 250.0])),
        preference=float(rng.uniform(0, 100)),
        capacity_rps=float(rng.choice([np.nan, 10.0, 25.0])),
        start_up_s=float(rng.choice([0.0, 20.0, 60.0, 100.0, 700.0, 4000.0])),
        target_utilisation=float(rng.uniform(0.4, 0.9)),
        idle_after_s=float(rng.choice([0.0, 60.0, 300.0])),
        activation_rps=float(rng.choice([0.0, 5.0])),
        behavior=behavior,
        fallback=Fallback(int(rng.integers(1, 4)), kind, 5 if kind == "Static" else None),
    )


class World:
    """Rates of several characters with holes and impossible values, and clusters that follow what they are
    told."""

    def __init__(self, services: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.level = self.rng.uniform(1.0, 6.0, services)
        self.current = self.rng.integers(0, 20, services).astype(np.float64)
        self.character = self.rng.integers(0, 5, services)
        self.measured = self.rng.random(services) > 0.1

    def rates(self) -> np.ndarray:
        rng, size = self.rng, len(self.level)
        self.level += 0.15 * rng.standard_normal(size)
        rate = np.exp(self.level)
        rate = np.where(self.character == 1, np.where(rng.random(size) < 0.5, 0.0, rate), rate)
        rate = np.where(self.character == 2, np.round(0.02 * rate, 1), rate)
        rate = np.where(self.character == 3, 120.0, rate)
        rate = np.where(rng.random(size) < 0.04, np.nan, rate)
        rate = np.where(rng.random(size) < 0.01, -1.0, rate)
        return np.where(self.measured, rate, np.nan)

    def samples(self) -> Samples:
        rng, size = self.rng, len(self.level)
        ready = np.maximum(self.current - rng.integers(0, 3, size), 0.0)

        def broken(values: np.ndarray, share: float = 0.05) -> np.ndarray:
            return np.where(rng.random(size) < share, rng.choice([np.nan, -3.0, 1e16, np.inf]), values)

        return Samples(
            request_rate=self.rates(),
            latency_ms=broken(np.exp(rng.normal(5.0, 0.6, size))),
            error_ratio=broken(rng.uniform(0, 1, size) ** 8),
            utilisation=broken(rng.uniform(0.0, 1.1, size), 0.1),
            ready=broken(ready),
            current=broken(self.current.copy()),
            in_flight=broken(rng.uniform(0, 400, size)),
        )


def compare(reference, fused, where: str) -> None:
    unlike = np.argwhere(reference.valid != fused.valid)
    assert len(unlike) == 0, f"{where}: {[(int(i), OBSERVATION_SCHEMA.names[c]) for i, c in unlike[:5]]}"
    difference = np.abs(reference.features.astype(np.float64) - fused.features)
    worst = np.unravel_index(int(difference.argmax()), difference.shape)
    name = OBSERVATION_SCHEMA.names[worst[1]]
    assert difference.max() < 1e-5, f"{where}: {name} of service {worst[0]}: {difference.max():g}"
    for each in ("current", "ready", "usable", "failures", "capacity_known", "slo_in_danger", "hpa_replicas"):
        assert np.array_equal(getattr(reference, each), getattr(fused, each), equal_nan=True), (
            f"{where}: {each}"
        )
    assert np.allclose(reference.load, fused.load, rtol=1e-12, atol=0, equal_nan=True), where


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sync_s", [5.0, 15.0, 60.0])
def test_it_sees_and_decides_as_the_engine_does(seed, sync_s):
    rng = np.random.default_rng(100 + seed)
    specs = [random_spec(rng, sync_s) for _ in range(SERVICES)]
    pool = [
        Reckless("relative-change/v1"),
        Reckless("relative-change/v1", strange=True),
        Reckless("hold-band/v1"),
        HpaPolicy(),
        ForecastPolicy(),
        UnavailablePolicy("PolicyNotFound", "gone"),
    ]
    policies = [pool[index] for index in rng.choice(len(pool), SERVICES, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.1])]
    reference, fused = Engine(specs, policies), FusedEngine(specs, policies)
    world, now = World(SERVICES, seed), 5 * 86400.0 + 7.0 * seed
    known = np.flatnonzero(rng.random(SERVICES) < 0.6)
    for rows, hours in ((known[::2], 25.0), (known[1::2], 1.3)):
        times = now - 15.0 - np.arange(int(hours * 240), 0, -1) * 15.0
        history = np.stack([world.rates()[rows] for _ in times])
        reference.backfill(times, history, rows)
        fused.backfill(times, history, rows)
    moved = 0
    for step in range(120):
        now += sync_s if rng.random() > 0.03 else sync_s * float(rng.integers(2, 30))
        samples, where = world.samples(), f"step {step}"
        due = np.flatnonzero(rng.random(SERVICES) < 0.9) if step % 5 == 0 else np.arange(SERVICES)
        part = _part(samples, due)
        seen, ours = reference.observe(now, part, due), fused.observe(now, part, due)
        if step % 3 == 0 or step > 100:
            compare(seen, ours, where)
        if step % 40 == 20:
            _compare_loads(seen, ours)
        if step % 4 == 1:
            schema = "hold-band/v1" if step % 8 == 1 else "relative-change/v1"
            expected = reference.decide(seen, actions(schema, seen), schema)
            decided = fused.decide(ours, actions(schema, ours), schema)
        else:
            said = ask(reference._policies, reference._table.policy[seen.rows], seen)
            expected = reference.conclude(seen, *said)
            decided = fused.conclude(ours, *ask(fused._policies, fused._owner[ours.rows], ours))
        assert np.array_equal(expected.desired_replicas, decided.desired_replicas), where
        for each in ("hpa_replicas", "fallback", "current_replicas"):
            assert np.array_equal(getattr(expected, each), getattr(decided, each), equal_nan=True), each
        # a forecast of 80,000 replicas is exp(a feature): the feature's 1e-6 shows
        said = np.stack([expected.recommended_replicas, decided.recommended_replicas], axis=1)
        unlike = ~np.isclose(said[:, 0], said[:, 1], rtol=1e-4, atol=0, equal_nan=True)
        assert not unlike.any(), f"{where}: {said[unlike]}, {[policies[row].name for row in due[unlike]]}"
        moved += int(np.sum(expected.desired_replicas != expected.current_replicas))
        world.current[due] = np.maximum(expected.desired_replicas + rng.integers(-1, 2, len(due)), 0)
        if step % 30 == 17:
            _change_something(rng, world, reference, fused, sync_s)
    assert moved > 100


def _part(samples: Samples, rows: np.ndarray) -> Samples:
    names = (
        "request_rate",
        "latency_ms",
        "error_ratio",
        "utilisation",
        "ready",
        "current",
        "in_flight",
        "outcome",
    )
    return Samples(**{name: getattr(samples, name)[rows] for name in names})


def _compare_loads(seen, ours) -> None:
    for make, bins in (("fine", 244), ("fine", 7), ("coarse", 1500), ("coarse", 30)):
        for ago_s in (0.0, 40.0, 900.0):
            expected, given = getattr(seen, make)(bins, ago_s), getattr(ours, make)(bins, ago_s)
            assert np.allclose(expected, given, rtol=1e-6, equal_nan=True), (make, bins, ago_s)
    for name in (
        "min_replicas", "max_replicas", "sync_period_s", "start_up_s", "slo_latency_ms", "slo_percentile",
        "capacity_rps", "tolerance_up", "tolerance_down",
    ):  # fmt: skip
        assert np.allclose(getattr(seen, name), getattr(ours, name), rtol=1e-12, equal_nan=True), name
    few = np.array([3, 1])
    assert np.array_equal(seen.take(few).valid, ours.take(few).valid)


def _change_something(rng, world, reference, fused, sync_s: float) -> None:
    for row in rng.choice(SERVICES, 6, replace=False):
        spec = random_spec(rng, sync_s)
        reference.update(int(row), spec)
        fused.update(int(row), spec)
    again = rng.choice(SERVICES, 3, replace=False)
    reference.reset(again)
    fused.reset(again)
    world.measured[again] = ~world.measured[again]


def test_features_asked_for_rarely_are_those_asked_for_always():
    rng = np.random.default_rng(5)
    specs = [replace(random_spec(rng, 15.0), min_replicas=1) for _ in range(16)]
    often, seldom, world = FusedEngine(specs), FusedEngine(specs), World(16, 5)
    for step in range(400):
        samples = world.samples()
        views = [engine.observe(86400.0 + 15.0 * step, samples) for engine in (often, seldom)]
        _ = views[0].features
        if step in (100, 103, 118, 119, 200, 399):
            # a day's quantiles are made at the first question in ten minutes, here as in the operator
            same = [index for index, name in enumerate(OBSERVATION_SCHEMA.names) if not name.endswith("_1d")]
            assert np.array_equal(views[0].features[:, same], views[1].features[:, same])


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"start_up_s": float("nan")}, "start_up_s"),
        ({"limits": Limits(changes_per_hour=4)}, "limits"),
        ({"fallback": Fallback(recovery_threshold=3)}, "recovery_threshold"),
    ],
)
def test_what_only_the_engine_does_is_refused(changes, name):
    spec = replace(ServiceSpec(), **changes)
    Engine(spec, HpaPolicy())
    with pytest.raises(ParameterError, match=f"{name}: .*controller.core.Engine"):
        FusedEngine(spec, HpaPolicy())


def test_its_clock_does_not_run_backwards():
    engine = FusedEngine(ServiceSpec())
    engine.observe(100.0, Samples(request_rate=5.0))
    with pytest.raises(ParameterError, match=r"now_s: 99\.0 is not allowed, must be at least 100"):
        engine.observe(99.0, Samples(request_rate=5.0))


def test_a_policy_for_every_specification_is_asked_for():
    with pytest.raises(ParameterError, match="policy: 2 is not allowed"):
        FusedEngine([ServiceSpec()] * 3, [HpaPolicy()] * 2)
    with pytest.raises(ParameterError, match="samples: 2 is not allowed"):
        FusedEngine([ServiceSpec()] * 3).observe(0.0, Samples(request_rate=[1.0, 2.0]))
    view = FusedEngine(ServiceSpec()).observe(0.0, Samples(request_rate=1.0))
    with pytest.raises(ParameterError, match="action_schema: 'jump/v9'"):
        FusedEngine(ServiceSpec()).decide(view, np.zeros((1, 1)), "jump/v9")
