"""PoolsPolicy: a network that decides for pools behind one route, run in one call for all sets that are due.

An artifact of `kind: pools` has two inputs, the features of each pool and those of the set, and two outputs,
the capacity that each pool should have and its share of the traffic (`controller.core.poolfeatures`,
`controller.core.poolset`). The number of pools is open. All that can be wrong with an artifact is found when
it is loaded; from then on `decide` gives numbers or NaN.
"""

from __future__ import annotations

import logging

import numpy as np
import onnxruntime

from controller.core.poolfeatures import POOL_SCHEMA, SET_SCHEMA
from controller.core.samples import BoolArray, FloatArray
from controller.core.view import View
from controller.policies.artifact import PoolsMetadata, check_pools_schemas
from controller.policies.errors import ArtifactInvalid, ArtifactSchemaMismatch
from controller.policies.onnx_policy import Opened, check_input, familiar_range, opened
from controller.policies.session import LIMITED_ACT_SECONDS, Graph, Outputs, tried

POOLS, SET = "pools", "set"
OUTPUTS = ("capacity", "share")
TRIED_POOLS = (1, 3)
"""Numbers of pools that a trial run has."""

logger = logging.getLogger(__name__)


class PoolsPolicy:
    """An artifact for pools. name, digest and schema go into `status.policy`.

    To the engine it is a policy that has nothing to say of a set as one service; `controller.pooldeciding`
    asks `decide`.
    """

    type = "RL"

    def __init__(self, session: onnxruntime.InferenceSession, metadata: PoolsMetadata, digest: str) -> None:
        """Use `from_bytes`, which checks what is given here."""
        self.name = metadata.name
        self.digest = digest
        self.schema = metadata.pool_schema.version
        self.metadata = metadata
        self._graph = Graph(session, f"{metadata.name} ({digest})")
        seen = metadata.observation_range
        self._pools_range = familiar_range(seen.pools if seen else None, POOL_SCHEMA)
        self._set_range = familiar_range(seen.set if seen else None, SET_SCHEMA)

    @classmethod
    def from_bytes(cls, data: bytes, sha256: str | None = None) -> PoolsPolicy:
        """The policy in an ONNX file's bytes; sha256: hex digest that it must have. Raises ArtifactError."""
        return cls.checked(opened(data, sha256))

    @classmethod
    def checked(cls, artifact: Opened) -> PoolsPolicy:
        """The policy of an artifact that is one for pools. Raises ArtifactError."""
        metadata = artifact.metadata
        if not isinstance(metadata, PoolsMetadata):
            raise ArtifactSchemaMismatch(f"{metadata.name} is an artifact for single services, not for pools")
        check_pools_schemas(metadata)
        _check_graph(artifact.session)
        return cls(artifact.session, metadata, artifact.digest)

    def limit_time(self, seconds: float = LIMITED_ACT_SECONDS) -> None:
        """From now on a call that takes longer is ended, and the policy says nothing for a while."""
        self._graph.limit_time(seconds)

    def recommend(self, view: View) -> FloatArray:
        """NaN: replicas of a whole set are not what it decides."""
        return np.full(len(view), np.nan)

    def decide(self, pools: FloatArray, sets: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(capacity over the set's load, share of the traffic), float64 `[N, P]` each.

        pools: features `[N, P, F]`; sets: `[N, S]`. Of a set for which the network gave no number, a negative
        one, or a share where there is no pool, all values are NaN.
        """
        shape = pools.shape[:2]
        nothing = np.full(shape, np.nan), np.full(shape, np.nan)
        if len(pools) == 0:
            return nothing
        found = self._graph.run(OUTPUTS, _inputs(pools, sets), len(pools))
        if found is None:
            return nothing
        if any(each.shape != shape for each in found):
            shapes = [each.shape for each in found]
            logger.error("policy %s gave shapes %s for pools %s", self.name, shapes, shape)
            return nothing
        capacity, share = (np.asarray(each, dtype=np.float64) for each in found)
        present = pools[:, :, 0] > 0
        good = np.where(present, (capacity >= 0) & (share >= 0), True)
        good &= np.where(present, np.isfinite(capacity) & np.isfinite(share), True)
        said = good.all(axis=1, keepdims=True)
        return np.where(said, capacity, np.nan), np.where(said, share, np.nan)

    def strange(self, pools: FloatArray, sets: FloatArray) -> BoolArray:
        """Sets `[N]` with a feature, of a pool that is there or of the set, outside of what training saw.

        An artifact that states no range knows everything. The engine's mask of unknown features is not
        needed: what is unknown is 0, and 0 was seen in training too.
        """
        strange = np.zeros(len(pools), dtype=bool)
        if self._pools_range is not None:
            low, high = self._pools_range
            outside = ~((pools >= low) & (pools <= high)).all(axis=2)
            strange |= (outside & (pools[:, :, 0] > 0)).any(axis=1)
        if self._set_range is not None:
            low, high = self._set_range
            strange |= ~((sets >= low) & (sets <= high)).all(axis=1)
        return strange


def _inputs(pools: FloatArray, sets: FloatArray) -> dict[str, np.ndarray]:
    return {
        POOLS: np.ascontiguousarray(pools, dtype=np.float32),
        SET: np.ascontiguousarray(sets, dtype=np.float32),
    }


def _check_graph(session: onnxruntime.InferenceSession) -> None:
    inputs = {node.name: node for node in session.get_inputs()}
    if sorted(inputs) != sorted((POOLS, SET)):
        raise ArtifactInvalid(f"inputs {sorted(inputs)} are not allowed; exactly {POOLS!r} and {SET!r}")
    missing = sorted(set(OUTPUTS) - {node.name for node in session.get_outputs()})
    if missing:
        raise ArtifactInvalid(f"there is no output {missing[0]!r}")
    check_input(inputs[POOLS], POOL_SCHEMA.size, ("N", "P"))
    check_input(inputs[SET], SET_SCHEMA.size, ("N",))
    for pools in TRIED_POOLS:
        _check_trial(session, pools)


def _check_trial(session: onnxruntime.InferenceSession, pools: int) -> None:
    """Run it: shapes may be undeclared, operators may fail, and only a trial shows randomness."""
    middle, whole = (POOL_SCHEMA.low + POOL_SCHEMA.high) / 2, (SET_SCHEMA.low + SET_SCHEMA.high) / 2
    of_pools = np.tile(middle, (2, pools, 1))
    of_pools[:, :, 0] = 1.0
    of_pools[1, :, 1:] = 0.0
    inputs = _inputs(of_pools, np.stack([whole, np.zeros_like(whole)]))
    first, second = (tried(session, OUTPUTS, inputs) for _ in range(2))
    for name, found in zip(OUTPUTS, first, strict=True):
        if found.shape != (2, pools) or found.dtype != np.float32:
            words = f"output {name!r} for 2 sets of {pools} pools is {found.dtype} {list(found.shape)}"
            raise ArtifactInvalid(f"{words}; float32 [2, {pools}] is needed")
    if not _equal(first, second):
        raise ArtifactInvalid("it is not deterministic: equal observations gave different actions")


def _equal(first: Outputs, second: Outputs) -> bool:
    return all(np.array_equal(one, other, equal_nan=True) for one, other in zip(first, second, strict=True))
