"""The operator's pool features are the simulator's compiled ones, whatever metrics show, NaNs included."""

import numpy as np
import pytest

from controller.core import OBSERVATION_SCHEMA
from controller.core.poolfeatures import (
    POOL_COLUMN,
    POOL_SCHEMA,
    SET_SCHEMA,
    PoolSettings,
    PoolSights,
    pool_features,
    relative_price,
    set_features,
)
from sim.envs import PoolsBatch, PoolsConfig
from sim.envs.pool_features import SHOWN, STATIC, pool_rows, split_observation


def drawn(seed: int, sets: int = 40, pools: int = 5):
    """Sights and settings of random sets: idle and flooded, absent pools, signals missing here and there."""
    rng = np.random.default_rng(seed)
    shape = (sets, pools)

    def spread(low, high):
        return np.exp(rng.uniform(np.log(low), np.log(high), shape))

    def missing(values):
        return np.where(rng.random(shape) < 0.25, np.nan, values)

    current = np.floor(spread(0.3, 300))
    ready = np.floor(current * rng.choice([0.0, 0.5, 1.0, 1.0], shape))
    shown = PoolSights(
        request_rate=missing(rng.choice([0.0, 1.0], shape, p=[0.2, 0.8]) * spread(0.01, 1e5)),
        latency_ms=missing(spread(0.5, 1e5)),
        error_ratio=missing(rng.choice([0.0, 1e-4, 0.3, 1.0], shape)),
        utilisation=missing(spread(0.01, 5.0)),
        in_flight=missing(rng.choice([0.0, 1.0], shape) * spread(0.1, 1e4)),
        ready=ready,
        current=current,
        weights=rng.integers(0, 101, shape),
        weights_asked=rng.integers(0, 101, shape),
        told=np.floor(ready * rng.random(shape)),
    )
    low, least = rng.integers(0, 50, shape), rng.integers(0, 5, shape)
    static = PoolSettings(
        present=rng.random(shape) < 0.8,
        capacity_rps=spread(0.1, 1e3),
        price=spread(1e-8, 1e4),
        start_up_s=spread(0.1, 3600),
        risk=rng.random(shape),
        min_replicas=least,
        max_replicas=least + rng.integers(0, 500, shape),
        min_weight=low,
        max_weight=low + rng.integers(0, 50, shape),
    )
    load = np.where(rng.random(sets) < 0.1, np.nan, np.exp(rng.uniform(-2, 12, sets)))
    return shown, static, load, np.exp(rng.uniform(-1, 6, sets)), np.exp(rng.uniform(0, 8, sets))


def compiled(shown, static, load_rps, unit_rps, slo_ms):
    """What the environment shows: `pool_rows`, then its clip."""
    sets, pools = static.present.shape
    rows = np.zeros((sets, pools * POOL_SCHEMA.size), dtype=np.float32)
    pool_rows(
        np.stack([np.asarray(getattr(shown, name), dtype=np.float64) for name in SHOWN]),
        np.stack([np.asarray(getattr(static, name), dtype=np.float64) for name in STATIC]),
        load_rps, unit_rps, slo_ms, rows,
    )  # fmt: skip
    clipped = np.clip(rows, np.tile(POOL_SCHEMA.low, pools), np.tile(POOL_SCHEMA.high, pools))
    return clipped.reshape(sets, pools, POOL_SCHEMA.size)


@pytest.mark.parametrize("seed", range(8))
def test_pool_features_equal_the_compiled_ones(seed):
    inputs = drawn(seed)
    ours, theirs = pool_features(*inputs), compiled(*inputs)
    present = inputs[1].present
    assert ours.dtype == np.float32
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours[present], theirs[present], rtol=1e-5, atol=1e-6)


def test_pool_features_of_pools_that_are_not_there_are_zero():
    shown, static, *rest = drawn(1)
    found = pool_features(shown, static, *rest)
    assert not found[~static.present].any()
    assert (found[static.present][:, POOL_COLUMN["present"]] == 1.0).all()


def test_pool_features_without_an_objective_know_no_latency():
    shown, static, load, unit, slo = drawn(2)
    found = pool_features(shown, static, load, unit, np.full_like(slo, np.nan))
    assert not found[:, :, POOL_COLUMN["latency_known"]].any()
    assert np.isfinite(found).all()


def test_pool_and_set_features_are_what_the_environment_shows():
    batch = PoolsBatch(PoolsConfig(pools=3), num_envs=12, seed=5)
    shown_first = batch.reset()
    rng = np.random.default_rng(0)
    observations = shown_first
    for _ in range(6):
        observations = batch.step(rng.uniform(-1, 1, (12, 6))).observations
    view, settings = batch.view(), batch.settings
    of_pools, of_set = split_observation(observations, 3)
    sights = PoolSights(**{name: getattr(view.metrics, name) for name in SHOWN})
    static = PoolSettings(**{name: getattr(settings, name) for name in STATIC})
    ours = pool_features(sights, static, view.load_rps, settings.unit_rps, settings.slo_ms)
    np.testing.assert_allclose(ours, of_pools, rtol=1e-5, atol=1e-6)
    service = of_set[:, : SET_SCHEMA.size - 3]
    whole = set_features(service, settings.present, settings.propagation_s, settings.max_step)
    np.testing.assert_allclose(whole, of_set, rtol=1e-6)


def test_relative_price_is_the_environments():
    batch = PoolsBatch(PoolsConfig(pools=4), num_envs=10, seed=3)
    batch.reset()
    settings = batch.settings
    cost = np.array([[pool.cost_per_replica for pool in scenario.pools] for scenario in batch.scenarios])
    ours = relative_price(cost, settings.capacity_rps, settings.present)
    np.testing.assert_allclose(ours[settings.present], settings.price[settings.present], rtol=1e-9)


def test_schemas_name_each_feature_once():
    for schema in (POOL_SCHEMA, SET_SCHEMA):
        assert len(set(schema.names)) == schema.size
    assert (POOL_SCHEMA.size, SET_SCHEMA.size) == (25, OBSERVATION_SCHEMA.size + 3)
