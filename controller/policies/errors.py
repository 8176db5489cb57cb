"""Why an artifact can't be used. The class's name is the reason of the condition PolicyReady.

PolicyError (controller.errors)
  +  ArtifactError
     x  ArtifactNotFound         no such builtin, file or ConfigMap key; 404 or 410 from a url
     x  ArtifactNotAllowed       a url that this operator may not ask: http, a host not on its list
     x  ArtifactUnreachable      no answer from a url, or one that is no file
     x  ArtifactTooLarge         more bytes than an artifact may have
     x  ArtifactDigestMismatch   its SHA-256 is not the one that spec.policy.artifact.sha256 asks for
     x  ArtifactInvalid          not ONNX, or not a graph or metadata of the form that the operator runs
     x  ArtifactSchemaMismatch   a good artifact for another observation or action than this operator's
     x  ArtifactDownloading      nothing is wrong yet: it is on its way
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


class ArtifactNotAllowed(ArtifactError):
    """A url that the operator's settings do not let it ask."""


class ArtifactUnreachable(ArtifactError):
    """No answer, or not the file; asking again may help."""


class ArtifactTooLarge(ArtifactError):
    """More bytes than an artifact may have; the rest is not read."""


class ArtifactDownloading(ArtifactError):
    """It is being downloaded; whoever needs it asks again soon."""


class ArtifactDigestMismatch(ArtifactError):
    """The bytes are not those that were asked for."""


class ArtifactInvalid(ArtifactError):
    """Not an artifact that this operator could run."""


class ArtifactSchemaMismatch(ArtifactError):
    """Made for other observations or actions than this operator's."""
