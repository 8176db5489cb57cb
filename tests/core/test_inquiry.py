"""Asking a policy again: the last decision's features, and what another number in them would have changed."""

from __future__ import annotations

import numpy as np
import pytest

from controller.core import (
    OBSERVATION_SCHEMA,
    ActionPolicy,
    Engine,
    ForecastPolicy,
    HpaPolicy,
    Samples,
    ServiceSpec,
)
from controller.core.observation import COLUMN
from tests.core.worlds import FAST, decide

SPEC = ServiceSpec(1, 100, capacity_rps=10.0, behavior=FAST)


class Doubles(ActionPolicy):
    """Grows by the share that the load has grown in 15 s."""

    name = "doubles"

    def act(self, features: np.ndarray) -> np.ndarray:
        return features[:, [COLUMN["load_change_15s"]]]


@pytest.mark.parametrize("policy", [Doubles(), ForecastPolicy()])
def test_the_same_features_give_the_same_answer(policy: object) -> None:
    engine = Engine(SPEC, policy)  # type: ignore[arg-type]
    for tick, rate in enumerate((50.0, 50.0, 80.0)):
        decision = decide(engine, 15.0 * tick, 10, rate=rate)
    asked = engine.explain(0)
    assert asked.features.shape == (OBSERVATION_SCHEMA.size,)
    np.testing.assert_array_equal(asked.features, decision.feature_row)
    assert asked.recommend(asked.features[None, :]).tolist() == [decision.recommended_replicas]


def test_other_features_give_another_answer_and_change_nothing() -> None:
    engine = Engine(SPEC, Doubles())
    for tick, rate in enumerate((50.0, 50.0, 80.0)):
        decide(engine, 15.0 * tick, 10, rate=rate)
    asked = engine.explain(0)
    other = np.repeat(asked.features[None, :], 3, axis=0)
    other[:, COLUMN["load_change_15s"]] = (0.0, 0.5, -0.5)
    assert asked.recommend(other).tolist() == [10.0, 15.0, 5.0]
    np.testing.assert_array_equal(engine.explain(0).features, asked.features)
    assert engine.last_desired(0) == 15


def test_a_policy_that_reads_no_features_has_none() -> None:
    engine = Engine(SPEC, HpaPolicy())
    decision = decide(engine, 0.0, 10)
    assert engine.explain(0).features.shape == (0,)
    assert decision.features == {}


def test_each_service_is_asked_about_its_own_decision() -> None:
    engine = Engine([SPEC, SPEC], Doubles())
    for tick, rates in enumerate(([50.0, 50.0], [80.0, 50.0])):
        engine.step(15.0 * tick, Samples(request_rate=rates, current=[10.0, 20.0], ready=[10.0, 20.0]))
    first, second = engine.explain(0), engine.explain(1)
    assert (first.current, second.current) == (10, 20)
    assert (first.load, second.load) == (8.0, 5.0)
    assert first.recommend(first.features[None, :]).tolist() == [15.0]
    assert second.recommend(second.features[None, :]).tolist() == [20.0]


def test_a_network_can_be_asked_with_features_alone() -> None:
    features = np.zeros((2, OBSERVATION_SCHEMA.size), dtype=np.float32)
    features[1, COLUMN["load_change_15s"]] = 0.3
    replicas = Doubles().recommend_features(features, np.array([10, 10]), np.array([4.0, 4.0]))
    assert replicas.tolist() == [10.0, 13.0]
