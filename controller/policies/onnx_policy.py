"""OnnxPolicy: a trained network behind core's Policy, run by ONNX Runtime in one call for all services due.

All that can be wrong with an artifact is found when it is loaded; from then on `act` gives numbers or NaN.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from controller.core.action import ACTION_SCHEMAS
from controller.core.observation import OBSERVATION_SCHEMA, ObservationSchema
from controller.core.policy import ActionPolicy
from controller.core.samples import BoolArray, FloatArray
from controller.core.view import View
from controller.policies.artifact import (
    ArtifactMetadata,
    ObservationRange,
    PoolsMetadata,
    check_schemas,
    parse_metadata,
)
from controller.policies.errors import (
    ArtifactDigestMismatch,
    ArtifactInvalid,
    ArtifactNotFound,
    ArtifactSchemaMismatch,
    ArtifactTooLarge,
)
from controller.policies.session import (
    LIMITED_ACT_SECONDS,
    LIMITED_MEMORY_BYTES,
    Graph,
    limit_memory,
    open_session,
    tried,
)

__all__ = ["LIMITED_MEMORY_BYTES", "MAX_ARTIFACT_BYTES", "OnnxPolicy", "limit_memory"]

INPUT, OUTPUT = "observation", "action"
MAX_ARTIFACT_BYTES = 32 * 1024 * 1024
RANGE_MARGIN = 0.1
"""How far outside what training saw a feature may be, as a share of its schema's range."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """An artifact whose bytes are those that were asked for, opened, with what it says of itself."""

    session: onnxruntime.InferenceSession
    metadata: ArtifactMetadata | PoolsMetadata
    digest: str


def opened(data: bytes, sha256: str | None = None) -> Opened:
    """The artifact in an ONNX file's bytes; sha256: hex digest that it must have. Raises ArtifactError."""
    check_size(len(data))
    digest = check_digest(data, sha256)
    session = open_session(data)
    return Opened(session, parse_metadata(dict(session.get_modelmeta().custom_metadata_map)), digest)


class OnnxPolicy(ActionPolicy):
    """An artifact as a policy. name, digest and schema go into `status.policy`."""

    def __init__(
        self, session: onnxruntime.InferenceSession, metadata: ArtifactMetadata, digest: str
    ) -> None:
        """Use `from_bytes` or `from_file`, which check what is given here."""
        self.name = metadata.name
        self.digest = digest
        self.schema = metadata.observation_schema.version
        self.action_schema = metadata.action_schema
        self.metadata = metadata
        self._actions = ACTION_SCHEMAS[metadata.action_schema].size
        self._graph = Graph(session, f"{metadata.name} ({digest})")
        self._familiar = familiar_range(metadata.observation_range, OBSERVATION_SCHEMA)

    @classmethod
    def from_bytes(cls, data: bytes, sha256: str | None = None) -> OnnxPolicy:
        """The policy in an ONNX file's bytes; sha256: hex digest that it must have. Raises ArtifactError."""
        return cls.checked(opened(data, sha256))

    @classmethod
    def checked(cls, artifact: Opened) -> OnnxPolicy:
        """The policy of an artifact that is one for single services. Raises ArtifactError."""
        metadata = artifact.metadata
        if not isinstance(metadata, ArtifactMetadata):
            raise ArtifactSchemaMismatch(f"{metadata.name} is an artifact for pools, not for single services")
        check_schemas(metadata)
        _check_graph(artifact.session, ACTION_SCHEMAS[metadata.action_schema].size)
        return cls(artifact.session, metadata, artifact.digest)

    @classmethod
    def from_file(cls, path: str | Path, sha256: str | None = None) -> OnnxPolicy:
        """The policy in an ONNX file. Raises ArtifactError."""
        return cls.from_bytes(read_artifact(Path(path)), sha256)

    def limit_time(self, seconds: float = LIMITED_ACT_SECONDS) -> None:
        """From now on a call that takes longer is ended, and the policy says nothing for a while."""
        self._graph.limit_time(seconds)

    def act(self, features: FloatArray) -> FloatArray:
        """Actions float32 `[N, A]` for features `[N, F]`; NaN rows where the network gave no number."""
        rows = np.ascontiguousarray(features, dtype=np.float32)
        if len(rows) == 0:
            return np.zeros((0, self._actions), dtype=np.float32)
        nothing = np.full((len(rows), self._actions), np.nan, dtype=np.float32)
        found = self._graph.run([OUTPUT], {INPUT: rows}, len(rows))
        if found is None:
            return nothing
        action = found[0]
        if action.shape != (len(rows), self._actions):
            logger.error("policy %s gave shape %s for %d observations", self.name, action.shape, len(rows))
            return nothing
        return np.where(np.isfinite(action).all(axis=1, keepdims=True), action, np.float32(np.nan))

    def unfamiliar(self, view: View) -> BoolArray:
        """Services `[N]` with a known feature outside of what training saw, or that is no number at all; the
        guard then takes the HPA's formula as the lower bound.

        An artifact that states no range knows everything.
        """
        if self._familiar is None:
            return np.zeros(len(view), dtype=bool)
        low, high = self._familiar
        # written so that NaN is outside
        inside = (view.features >= low) & (view.features <= high)
        return np.asarray((~inside & view.valid).any(axis=1))


def read_artifact(path: Path) -> bytes:
    """The bytes of an artifact's file, not more than are allowed. Raises ArtifactError."""
    try:
        if not path.is_file():
            raise ArtifactNotFound(f"{path}: no such file")
        check_size(path.stat().st_size)
        with path.open("rb") as file:
            return file.read(MAX_ARTIFACT_BYTES + 1)
    except OSError as error:
        raise ArtifactNotFound(f"{path} cannot be read: {error.strerror}") from error


def familiar_range(
    seen: ObservationRange | None, schema: ObservationSchema
) -> tuple[FloatArray, FloatArray] | None:
    """(lowest, highest) features float32 `[F]` that count as known; None where no range is stated."""
    if seen is None:
        return None
    margin = RANGE_MARGIN * (schema.high - schema.low)
    low = np.asarray(seen.low, dtype=np.float32) - margin
    return low, np.asarray(seen.high, dtype=np.float32) + margin


def check_size(size: int) -> None:
    """Raises ArtifactInvalid for nothing, ArtifactTooLarge for too much."""
    if size == 0:
        raise ArtifactInvalid("the artifact has 0 bytes")
    if size > MAX_ARTIFACT_BYTES:
        limit = MAX_ARTIFACT_BYTES // 1024**2
        raise ArtifactTooLarge(f"the artifact has {size} bytes; {limit} MiB are allowed")


def check_digest(data: bytes, sha256: str | None) -> str:
    """`sha256:<hex>` of `data`. Raises ArtifactDigestMismatch if another (hex, prefix optional) is wanted."""
    actual = hashlib.sha256(data).hexdigest()
    if sha256 and sha256.lower().removeprefix("sha256:") != actual:
        raise ArtifactDigestMismatch(f"the artifact's SHA-256 is {actual}, not {sha256} as asked for")
    return f"sha256:{actual}"


def _check_graph(session: onnxruntime.InferenceSession, actions: int) -> None:
    inputs = {node.name: node for node in session.get_inputs()}
    if list(inputs) != [INPUT]:
        raise ArtifactInvalid(f"inputs {sorted(inputs)} are not allowed; exactly {INPUT!r}")
    if OUTPUT not in [node.name for node in session.get_outputs()]:
        raise ArtifactInvalid(f"there is no output {OUTPUT!r}")
    check_input(inputs[INPUT], OBSERVATION_SCHEMA.size, ("N",))
    _check_trial(session, actions)


def check_input(node: Any, size: int, open_axes: tuple[str, ...]) -> None:
    """Raises ArtifactInvalid unless an input is float32, `size` numbers along its last axis, others open."""
    if node.type != "tensor(float)":
        raise ArtifactInvalid(f"input {node.name!r} is {node.type}; tensor(float) is needed")
    shape, wanted = node.shape, ", ".join([*open_axes, str(size)])
    if len(shape) != len(open_axes) + 1 or shape[-1] not in (size, None):
        raise ArtifactInvalid(f"input {node.name!r} has shape {shape}; [{wanted}] is needed")
    for name, length in zip(open_axes, shape, strict=False):
        if isinstance(length, int):
            what = {"N": "rows", "P": "pools"}[name]
            raise ArtifactInvalid(
                f"input {node.name!r} takes {length} {what} only; the number of {what} must be open"
            )


def _check_trial(session: onnxruntime.InferenceSession, actions: int) -> None:
    """Run it: shapes may be undeclared, operators may fail, and only a trial shows randomness."""
    middle = (OBSERVATION_SCHEMA.low + OBSERVATION_SCHEMA.high) / 2
    rows = np.stack([middle, np.zeros_like(middle)]).astype(np.float32)
    first, second = (tried(session, [OUTPUT], {INPUT: rows})[0] for _ in range(2))
    if first.shape != (2, actions) or first.dtype != np.float32:
        found = f"{first.dtype} {list(first.shape)}"
        raise ArtifactInvalid(f"output {OUTPUT!r} for 2 rows is {found}; float32 [2, {actions}] is needed")
    if not np.array_equal(first, second, equal_nan=True):
        raise ArtifactInvalid("it is not deterministic: equal observations gave different actions")
