"""Where a learned policy's weights come from: the part of the API that spec.policy and its canary share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from controller.api import rules
from controller.api.fields import LabelName, ObjectName, SecretKey, text
from controller.api.model import ApiModel, Rule


class ConfigMapArtifact(ApiModel):
    """A policy artifact in a ConfigMap's binaryData."""

    name: ObjectName = Field(description="Name of the ConfigMap, in the RLScaler's namespace.")
    key: SecretKey = Field(default="policy.onnx", description="Key in binaryData.")


class Artifact(ApiModel):
    """Where the policy's weights come from: exactly one of builtin, configMap, file and url."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.ARTIFACT

    builtin: LabelName | None = Field(
        default=None, description="Name of a policy that comes with the operator: default or ppo."
    )
    config_map: ConfigMapArtifact | None = Field(
        default=None, description="An ONNX file in a ConfigMap; a change of it is taken up."
    )
    file: Annotated[str, text(1024)] | None = Field(
        default=None,
        description=(
            "Path of an ONNX file in the operator's container, relative to its policy directory; a change "
            "of it is taken up."
        ),
    )
    url: Annotated[str, text(2048, "^https?://")] | None = Field(
        default=None,
        description=(
            "https:// address of an ONNX file, downloaded once and kept by its digest. http:// only where "
            "the operator allows it."
        ),
    )
    sha256: Annotated[str, text(64, "^[0-9a-f]{64}$")] | None = Field(
        default=None,
        description=(
            "SHA-256 of the ONNX file in hex, which is checked before it is loaded. Required with url."
        ),
    )


BUILTIN_POLICY = Artifact(builtin="default")
