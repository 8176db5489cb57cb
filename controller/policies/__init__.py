"""Policy artifacts: ONNX files with their schema inside, checked when loaded, run in one batched call."""

from controller.policies.artifact import METADATA_KEY, ArtifactMetadata
from controller.policies.errors import (
    ArtifactDigestMismatch,
    ArtifactError,
    ArtifactInvalid,
    ArtifactNotFound,
    ArtifactSchemaMismatch,
)
from controller.policies.loader import builtin_names, load_or_unavailable, load_policy
from controller.policies.onnx_policy import MAX_ARTIFACT_BYTES, OnnxPolicy

__all__ = [
    "MAX_ARTIFACT_BYTES",
    "METADATA_KEY",
    "ArtifactDigestMismatch",
    "ArtifactError",
    "ArtifactInvalid",
    "ArtifactMetadata",
    "ArtifactNotFound",
    "ArtifactSchemaMismatch",
    "OnnxPolicy",
    "builtin_names",
    "load_or_unavailable",
    "load_policy",
]
