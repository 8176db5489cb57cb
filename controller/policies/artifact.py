"""What an artifact says of itself, under the key `rlscaler` of the ONNX file's metadata, and whether it fits.

`training` writes it, `OnnxPolicy` checks it before the first decision: a policy that was trained on other
features would not fail, it would decide nonsense.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from controller.core.action import ACTION_SCHEMAS
from controller.core.observation import OBSERVATION_SCHEMA
from controller.policies.errors import ArtifactInvalid, ArtifactSchemaMismatch

METADATA_KEY = "rlscaler"


class ObservationReference(BaseModel):
    """The observation schema that the policy was trained on."""

    model_config = ConfigDict(frozen=True)

    version: str
    digest: str
    features: tuple[str, ...]


class ObservationRange(BaseModel):
    """Lowest and highest value of every feature in training, in the schema's order."""

    model_config = ConfigDict(frozen=True)

    low: tuple[float, ...]
    high: tuple[float, ...]

    @model_validator(mode="after")
    def _one_for_each_feature(self) -> ObservationRange:
        if not len(self.low) == len(self.high) == OBSERVATION_SCHEMA.size:
            raise ValueError(f"low and high must have {OBSERVATION_SCHEMA.size} numbers each")
        return self


class ArtifactMetadata(BaseModel):
    """Name, schemas, provenance and evaluation card of an artifact; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(min_length=1, max_length=253)
    version: str
    observation_schema: ObservationReference
    action_schema: str
    preference_range: tuple[float, float] = (0.0, 100.0)
    observation_range: ObservationRange | None = None
    provenance: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}

    @field_validator("preference_range")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1] <= 100:
            raise ValueError("must be two ascending numbers from 0 to 100")
        return value


def parse_metadata(properties: dict[str, str]) -> ArtifactMetadata:
    """The metadata among an ONNX file's properties. Raises ArtifactInvalid that names the field."""
    text = properties.get(METADATA_KEY)
    if text is None:
        raise ArtifactInvalid(f"the ONNX file has no {METADATA_KEY!r} metadata: it is not one of rl-scaler's")
    try:
        return ArtifactMetadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join([METADATA_KEY, *map(str, first["loc"])])
        raise ArtifactInvalid(f"metadata {where}: {first['msg']}") from error


def check_schemas(metadata: ArtifactMetadata) -> None:
    """Raises ArtifactSchemaMismatch unless the artifact sees and acts as this operator does."""
    _check_observation(metadata.observation_schema)
    if metadata.action_schema not in ACTION_SCHEMAS:
        raise ArtifactSchemaMismatch(
            f"action schema {metadata.action_schema!r} is unknown; one of {', '.join(ACTION_SCHEMAS)}"
        )


def _check_observation(theirs: ObservationReference) -> None:
    ours = OBSERVATION_SCHEMA
    if theirs.version != ours.version:
        raise ArtifactSchemaMismatch(
            f"observation schema {theirs.version!r} is not this operator's {ours.version!r}"
        )
    if len(theirs.features) != ours.size:
        raise ArtifactSchemaMismatch(f"{len(theirs.features)} features are not this operator's {ours.size}")
    for index, (name, expected) in enumerate(zip(theirs.features, ours.names, strict=True)):
        if name != expected:
            raise ArtifactSchemaMismatch(f"feature {index} is {name!r}, this operator's is {expected!r}")
    if theirs.digest != ours.digest:
        raise ArtifactSchemaMismatch(
            f"observation schema digest {theirs.digest} is not this operator's {ours.digest}: "
            "the features' names agree, their ranges don't"
        )
