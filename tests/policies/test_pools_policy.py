"""An artifact for pools is checked when loaded and decides for all sets in one call, whatever they number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from controller.core.poolfeatures import POOL_COLUMN, POOL_SCHEMA, SET_SCHEMA
from controller.policies import (
    ArtifactInvalid,
    ArtifactSchemaMismatch,
    OnnxPolicy,
    PoolsPolicy,
    artifact_bytes,
    load_policy,
    policy_from_bytes,
)
from tests.policies import models, pool_models
from tests.policies.pool_models import HEADROOM, described, formula, metadata, model


def observed(sets: int, pools: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of `sets` sets of up to `pools` pools, the last of some of which are absent."""
    rng = np.random.default_rng(seed)
    of_pools = rng.uniform(POOL_SCHEMA.low, POOL_SCHEMA.high, (sets, pools, POOL_SCHEMA.size))
    of_pools[:, :, 0] = rng.random((sets, pools)) < 0.8
    of_pools[:, 0, 0] = 1.0
    of_pools *= of_pools[:, :, :1]
    whole = rng.uniform(SET_SCHEMA.low, SET_SCHEMA.high, (sets, SET_SCHEMA.size))
    return of_pools.astype(np.float32), whole.astype(np.float32)


def test_an_artifact_for_pools_says_who_it_is_and_is_told_from_others() -> None:
    policy = policy_from_bytes(model())
    assert isinstance(policy, PoolsPolicy)
    assert (policy.name, policy.type, policy.schema) == ("tiny-pools", "RL", POOL_SCHEMA.version)
    assert policy is policy_from_bytes(model()), "equal bytes are one policy"
    assert isinstance(policy_from_bytes(models.model()), OnnxPolicy)


def test_an_artifact_for_pools_is_no_policy_for_services_nor_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "pools.onnx").write_bytes(model())
    with pytest.raises(ArtifactSchemaMismatch, match="for pools, not for single services"):
        load_policy({"file": str(tmp_path / "pools.onnx")})
    with pytest.raises(ArtifactSchemaMismatch, match="for pools, not for single services"):
        OnnxPolicy.from_bytes(model())
    with pytest.raises(ArtifactSchemaMismatch, match="for single services, not for pools"):
        PoolsPolicy.from_bytes(models.model())


@pytest.mark.parametrize("pools", range(1, 9))
def test_any_number_of_sets_and_pools_is_one_call_that_gives_what_the_network_says(pools: int) -> None:
    of_pools, whole = observed(50, pools)
    capacity, share = PoolsPolicy.from_bytes(model()).decide(of_pools, whole)
    present = of_pools[:, :, 0]
    cheap = np.exp(-of_pools[:, :, POOL_COLUMN["price"]]) * present
    np.testing.assert_allclose(capacity, HEADROOM * cheap / cheap.sum(axis=1, keepdims=True), rtol=1e-4)
    assert share.shape == (50, pools)
    assert np.all(share[present == 0] == 0)
    assert np.isfinite(share).all()


def test_no_sets_are_no_call() -> None:
    capacity, share = PoolsPolicy.from_bytes(model()).decide(*observed(0, 3))
    assert capacity.shape == share.shape == (0, 3)


def test_a_set_for_which_the_network_gives_no_number_is_unsaid_and_the_others_are_not() -> None:
    of_pools, whole = observed(4, 3)
    of_pools[:, :, POOL_COLUMN["reclaim_risk"]] = 0.0
    of_pools[2, 0, POOL_COLUMN["reclaim_risk"]] = 0.5
    capacity, share = PoolsPolicy.from_bytes(pool_models.dividing()).decide(of_pools, whole)
    assert np.isnan(capacity[2]).all()
    assert np.isnan(share[2]).all()
    assert np.isfinite(capacity[[0, 1, 3]]).all()


def test_negative_capacities_are_no_decision() -> None:
    nodes = [*formula(), helper.make_node("Sub", ["capacity", "headroom"], ["below"])]
    nodes[-1].output[0] = "lower"
    renamed = model(nodes, outputs=("lower", "share"))
    with pytest.raises(ArtifactInvalid, match="no output 'capacity'"):
        PoolsPolicy.from_bytes(renamed)
    swapped = [*formula()]
    for node in swapped:
        if node.output[0] == "capacity":
            node.op_type = "Sub"
    capacity, _ = PoolsPolicy.from_bytes(model(swapped)).decide(*observed(3, 2))
    assert np.isnan(capacity).all(), "share - 2 is below 0"


def test_noise_in_an_answer_is_refused() -> None:
    nodes = [*formula(), helper.make_node("RandomNormalLike", ["capacity"], ["noise"])]
    nodes[-2].output[0] = "fair"
    noisy = model([*nodes, helper.make_node("Add", ["fair", "noise"], ["share"])])
    with pytest.raises(ArtifactInvalid, match="not deterministic"):
        PoolsPolicy.from_bytes(noisy)


@pytest.mark.parametrize(
    ("broken", "error", "words"),
    [
        (model(axes=(2, "P")), ArtifactInvalid, "number of rows must be open|trial run failed"),
        (model(axes=("N", 3)), ArtifactInvalid, "takes 3 pools only"),
        (model(features=7), ArtifactInvalid, r"\[N, P, 25\] is needed|cannot load"),
        (model(outputs=("capacity",)), ArtifactInvalid, "no output 'share'"),
        (model(properties=metadata(action_schema="hold-band/v1")), ArtifactSchemaMismatch, "hold-band/v1"),
        (
            model(properties=metadata(pool_schema=described(SET_SCHEMA))),
            ArtifactSchemaMismatch,
            "pool schema 'pools/v1/set'",
        ),
        (
            model(properties=metadata(set_schema={**described(SET_SCHEMA), "digest": "sha256:0"})),
            ArtifactSchemaMismatch,
            "set schema digest",
        ),
        (model(properties=metadata(name="")), ArtifactInvalid, "rlscaler.name"),
        (
            model(properties=metadata(observation_range={"pools": {"low": [0], "high": [1]}})),
            ArtifactInvalid,
            "rlscaler.observation_range",
        ),
    ],
    ids=["rows", "pools", "features", "outputs", "action", "pool schema", "set digest", "name", "range"],
)
def test_what_does_not_fit_is_refused_with_the_reason(broken: bytes, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        policy_from_bytes(broken)


def ranged(**changes: Any) -> PoolsPolicy:
    def whole(schema: Any) -> dict[str, list[float]]:
        return {"low": schema.low.tolist(), "high": schema.high.tolist()}

    seen = {"pools": whole(POOL_SCHEMA), "set": whole(SET_SCHEMA)}
    for name, value in changes.items():
        seen["pools"]["high"][POOL_COLUMN[name]] = value
    return PoolsPolicy.from_bytes(model(properties=metadata(observation_range=seen)))


def test_what_lies_outside_of_training_is_told_for_pools_that_are_there() -> None:
    of_pools, whole = observed(3, 2)
    of_pools[:, :, 0] = [[1, 1], [1, 1], [1, 0]]
    of_pools[:, :, POOL_COLUMN["price"]] = [[0.0, 0.5], [0.0, 3.0], [0.5, 3.0]]
    policy = ranged(price=1.0)
    assert policy.strange(of_pools, whole).tolist() == [False, True, False]
    assert not PoolsPolicy.from_bytes(model()).strange(of_pools, whole).any(), "no range, no verdict"
    whole[0, 0] = np.nan
    assert policy.strange(of_pools, whole).tolist() == [True, True, False]


def test_the_built_in_artifact_decides_for_any_number_of_pools_in_any_order() -> None:
    policy = policy_from_bytes(artifact_bytes({"builtin": "pools"}))
    assert isinstance(policy, PoolsPolicy)
    for pools in (1, 2, 5, 8):
        of_pools, whole = observed(20, pools)
        capacity, share = policy.decide(of_pools, whole)
        assert np.isfinite(capacity).all()
        assert np.all(share[of_pools[:, :, 0] == 0] == 0)
        order = np.random.default_rng(pools).permutation(pools)
        other, split = policy.decide(of_pools[:, order], whole)
        np.testing.assert_allclose(other, capacity[:, order], atol=1e-4)
        np.testing.assert_allclose(split, share[:, order], atol=1e-4)
