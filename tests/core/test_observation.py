"""Features: scale-free, in their ranges, honest about what is unknown."""

from __future__ import annotations

import numpy as np
import pytest

from controller.core import OBSERVATION_SCHEMA, Engine, HpaPolicy, Samples, ServiceSpec
from controller.core.observation import COLUMN

PERIOD_S = 15.0
NEUTRAL = ("shot_noise", "headroom_to_max")


def observed(rates: np.ndarray, capacity_rps: float, **others: float) -> tuple[np.ndarray, np.ndarray]:
    engine = Engine(ServiceSpec(1, 1000, capacity_rps=capacity_rps, slo_latency_ms=100.0), HpaPolicy())
    times = PERIOD_S * np.arange(len(rates))
    engine.backfill(times[:-1], rates[:-1, None])
    samples = Samples(request_rate=[rates[-1]], current=[others.get("current", 10.0)], latency_ms=[50.0])
    view = engine.observe(times[-1], samples)
    return view.features[0], view.valid[0]


def wave(ticks: int = 6000) -> np.ndarray:
    time = PERIOD_S * np.arange(ticks)
    return 100.0 + 60.0 * np.sin(2 * np.pi * time / 86400) + 10.0 * np.sin(2 * np.pi * time / 900)


def test_a_service_a_thousand_times_as_busy_with_as_large_replicas_looks_the_same() -> None:
    small, _ = observed(wave(), 20.0)
    large, _ = observed(1000.0 * wave(), 20_000.0)
    same = [i for i, name in enumerate(OBSERVATION_SCHEMA.names) if name not in NEUTRAL]
    np.testing.assert_allclose(small[same], large[same], atol=2e-4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("load_change_60s", np.log(4.0), id="change over a minute"),
        pytest.param("load_change_900s", np.log(4.0), id="change over a quarter of an hour"),
        pytest.param("provisioned_over_load", np.log(10.0 / 8.0), id="replicas over load"),
        pytest.param("latency_over_slo", np.log(0.5), id="latency over objective"),
        pytest.param("load_max_300s", 0.0, id="now is the maximum"),
        pytest.param("granularity", 1 / 9, id="granularity"),
        pytest.param("preference", 0.5, id="preference"),
    ],
)
def test_values_after_a_step_from_two_to_eight_replicas_of_load(name: str, expected: float) -> None:
    rates = np.concatenate([np.full(300, 20.0), np.full(2, 80.0)])
    values, valid = observed(rates, 10.0)
    assert valid[COLUMN[name]]
    assert values[COLUMN[name]] == pytest.approx(expected, abs=1e-5)


def test_a_short_history_is_masked_not_invented() -> None:
    values, valid = observed(np.full(9, 50.0), 10.0)
    assert valid[COLUMN["load_change_120s"]]
    assert not valid[COLUMN["load_change_300s"]]
    assert not valid[COLUMN["season_1d"]]
    assert values[COLUMN["season_1d_known"]] == 0.0
    assert not valid[COLUMN["move_q995_1h"]]


def test_a_season_is_seen_a_day_later() -> None:
    rates = np.full(5761, 50.0)
    rates[2:5] = 200.0
    values, valid = observed(rates, 10.0)
    assert valid[COLUMN["season_1d"]]
    assert values[COLUMN["season_1d_known"]] == 1.0
    assert values[COLUMN["season_1d"]] > 0.5


def test_features_stay_in_the_ranges_that_the_schema_states() -> None:
    rng = np.random.default_rng(1)
    engine = Engine(
        [ServiceSpec(1, 500, capacity_rps=c, slo_latency_ms=50.0) for c in (0.01, 1.0, 1e4)], HpaPolicy()
    )
    for tick in range(60):
        rates = rng.lognormal(0, 6, 3)
        view = engine.observe(
            tick * PERIOD_S,
            Samples(
                rates,
                rng.lognormal(0, 5, 3),
                rng.random(3),
                rng.lognormal(0, 2, 3),
                in_flight=rng.lognormal(0, 5, 3),
            ),
        )
        assert np.isfinite(view.features).all()
        assert (view.features >= OBSERVATION_SCHEMA.low).all()
        assert (view.features <= OBSERVATION_SCHEMA.high).all()


def test_feature_names_are_unique_and_the_digest_follows_them() -> None:
    assert len(set(OBSERVATION_SCHEMA.names)) == OBSERVATION_SCHEMA.size
    shorter = type(OBSERVATION_SCHEMA)(OBSERVATION_SCHEMA.version, OBSERVATION_SCHEMA.features[:-1])
    assert shorter.digest != OBSERVATION_SCHEMA.digest
