"""Policy artifacts: ONNX files with their schema inside, checked when loaded, run in one batched call."""

from controller.policies.artifact import METADATA_KEY, ArtifactMetadata
from controller.policies.cache import DiskCache
from controller.policies.download import Rules, displayed, download
from controller.policies.errors import (
    ArtifactDigestMismatch,
    ArtifactDownloading,
    ArtifactError,
    ArtifactInvalid,
    ArtifactNotAllowed,
    ArtifactNotFound,
    ArtifactSchemaMismatch,
    ArtifactTooLarge,
    ArtifactUnreachable,
)
from controller.policies.loader import (
    ArtifactPolicy,
    artifact_bytes,
    builtin_names,
    load_or_unavailable,
    load_policy,
    loaded_policy,
    policy_from_bytes,
)
from controller.policies.onnx_policy import MAX_ARTIFACT_BYTES, OnnxPolicy, limit_memory
from controller.policies.pools_policy import PoolsPolicy

__all__ = [
    "MAX_ARTIFACT_BYTES",
    "METADATA_KEY",
    "ArtifactDigestMismatch",
    "ArtifactDownloading",
    "ArtifactError",
    "ArtifactInvalid",
    "ArtifactMetadata",
    "ArtifactNotAllowed",
    "ArtifactNotFound",
    "ArtifactPolicy",
    "ArtifactSchemaMismatch",
    "ArtifactTooLarge",
    "ArtifactUnreachable",
    "DiskCache",
    "OnnxPolicy",
    "PoolsPolicy",
    "Rules",
    "artifact_bytes",
    "builtin_names",
    "displayed",
    "download",
    "limit_memory",
    "load_or_unavailable",
    "load_policy",
    "loaded_policy",
    "policy_from_bytes",
]
