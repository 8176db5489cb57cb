"""The engine under the HPA policy is, tick by tick, a plain scalar HPA: 10,000 random histories.

Every field of autoscaling/v2's `behavior` is drawn: windows, selectPolicy, policies (type, value, period) and
tolerance, in each direction of their own; bounds; missed ticks; replicas changed by somebody else; and in the
middle some specifications are edited, as users do.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from controller.core import Behavior, Engine, HpaPolicy, Samples, ScalingPolicy, ScalingRules, ServiceSpec
from tests.core.reference_hpa import ScalarHpa

HISTORIES = 10_000
TICKS = 14
PERIOD_S = 15.0
GAPS_S = (15.0, 15.0, 15.5, 17.0, 30.0, 95.0)
EDITED_AT, EDITED = 7, 500


def random_rules(rng: np.random.Generator, default_window_s: int) -> ScalingRules:
    policies = tuple(
        ScalingPolicy(
            "Pods" if rng.random() < 0.5 else "Percent",
            int(rng.integers(1, 150)),
            int(rng.choice([15, 30, 60, 120, 600])),
        )
        for _ in range(rng.integers(1, 4))
    )
    return ScalingRules(
        stabilization_window_s=int(rng.choice([0, 30, 60, 150, default_window_s])),
        select_policy=str(rng.choice(["Max", "Max", "Min", "Disabled"])),  # type: ignore[arg-type]
        policies=policies,
        tolerance=float(rng.choice([0.0, 0.05, 0.1, 0.3])),
    )


def random_spec(rng: np.random.Generator) -> ServiceSpec:
    low = int(rng.integers(0, 5))
    plain = rng.random() < 0.3
    behavior = Behavior() if plain else Behavior(random_rules(rng, 0), random_rules(rng, 300))
    return ServiceSpec(
        min_replicas=low,
        max_replicas=low + int(rng.integers(1, 60)),
        target_utilisation=float(rng.uniform(0.2, 1.0)),
        capacity_rps=1.0,
        sync_period_s=PERIOD_S,
        behavior=behavior,
        policy_type="HPA",
    )


def test_ten_thousand_random_histories_equal_the_scalar_reference() -> None:
    rng = np.random.default_rng(2026)
    specs = [random_spec(rng) for _ in range(HISTORIES)]
    engine = Engine(specs, HpaPolicy())
    references = [ScalarHpa(spec.min_replicas, spec.max_replicas, spec.behavior) for spec in specs]
    targets = np.array([spec.target_utilisation for spec in specs])
    current = rng.integers(1, 60, HISTORIES)
    now, moved = 1_000.0, np.zeros(3, dtype=int)
    for tick in range(TICKS):
        now += float(rng.choice(GAPS_S))
        if tick == EDITED_AT:
            for row in range(EDITED):
                specs[row] = replace(random_spec(rng), target_utilisation=float(targets[row]))
                engine.update(row, specs[row])
                references[row].edit(specs[row].min_replicas, specs[row].max_replicas, specs[row].behavior)
        ready = np.minimum(current, rng.integers(0, 70, HISTORIES))
        utilisation = np.where(rng.random(HISTORIES) < 0.05, 1.0 * targets, rng.uniform(0.01, 2.0, HISTORIES))
        samples = Samples(
            request_rate=np.full(HISTORIES, 1.0), utilisation=utilisation, ready=ready, current=current
        )
        decided = engine.step(now, samples).desired_replicas
        expected = np.array(
            [
                reference.step(now, int(current[i]), int(ready[i]), float(utilisation[i] / targets[i]))
                for i, reference in enumerate(references)
            ]
        )
        asleep = (current == 0) & (np.array([spec.min_replicas for spec in specs]) == 0)
        different = np.flatnonzero((decided != expected) & ~asleep)
        assert len(different) == 0, [
            (i, specs[i], current[i], decided[i], expected[i]) for i in different[:3]
        ]
        moved += [(decided > current).sum(), (decided == current).sum(), (decided < current).sum()]
        current = np.where(
            rng.random(HISTORIES) < 0.02, rng.integers(1, 70, HISTORIES), np.maximum(decided, 1)
        )
    assert moved.min() > 0.05 * TICKS * HISTORIES, f"up, same, down: {moved}"
