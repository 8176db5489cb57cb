"""Why an artifact can't be used. The class's name is the reason of the condition PolicyReady.

PolicyError (controller.errors)
  +  ArtifactError
     x  ArtifactNotFound         no such builtin, file or ConfigMap key
     x  ArtifactDigestMismatch   its SHA-256 is not the one that spec.policy.artifact.sha256 asks for
     x  ArtifactInvalid          not ONNX, or not a graph or metadata of the form that the operator runs
     x  ArtifactSchemaMismatch   a good artifact for another observation or action than this operator's
"""

from __future__ import annotations

from controller.errors import PolicyError


class ArtifactError(PolicyError):
    """Base of all; `reason` is fit for a condition."""

    @property
    def reason(self) -> str:
        return type(self).__name__


class ArtifactNotFound(ArtifactError):
    """There is nothing where the reference points."""


class ArtifactDigestMismatch(ArtifactError):
    """The bytes are not those that were asked for."""


class ArtifactInvalid(ArtifactError):
    """Not an artifact that this operator could run."""


class ArtifactSchemaMismatch(ArtifactError):
    """Made for other observations or actions than this operator's."""
