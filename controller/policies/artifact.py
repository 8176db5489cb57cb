"""What an artifact says of itself, under the key `rlscaler` of the ONNX file's metadata, and whether it fits.

`training` writes it, `OnnxPolicy` checks it before the first decision: a policy that was trained on other
features would not fail, it would decide nonsense.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from controller.core.action import ACTION_SCHEMAS
from controller.core.observation import OBSERVATION_SCHEMA, ObservationSchema
from controller.core.poolfeatures import POOL_SCHEMA, SET_SCHEMA
from controller.policies.errors import ArtifactInvalid, ArtifactSchemaMismatch

METADATA_KEY = "rlscaler"
POOLS_KIND, POOLS_ACTION = "pools", "pools-capacity-share/v1"
"""What an artifact for pools says under `kind` and `action_schema`: capacity of each pool over the load of
the set, and its share of the traffic."""


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

    def check_size(self, size: int) -> None:
        """Raises ValueError unless there is one for each feature."""
        if not len(self.low) == len(self.high) == size:
            raise ValueError(f"low and high must have {size} numbers each")


class _Described(BaseModel):
    """What every artifact says of itself; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(min_length=1, max_length=253)
    version: str
    action_schema: str
    preference_range: tuple[float, float] = (0.0, 100.0)
    provenance: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}

    @field_validator("preference_range")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1] <= 100:
            raise ValueError("must be two ascending numbers from 0 to 100")
        return value


class ArtifactMetadata(_Described):
    """Name, schemas, provenance and evaluation card of an artifact for single services."""

    observation_schema: ObservationReference
    observation_range: ObservationRange | None = None

    @field_validator("observation_range")
    @classmethod
    def _one_for_each_feature(cls, value: ObservationRange | None) -> ObservationRange | None:
        if value is not None:
            value.check_size(OBSERVATION_SCHEMA.size)
        return value


class PoolsRange(BaseModel):
    """The same of an artifact for pools: of its pools, and of whole sets."""

    model_config = ConfigDict(frozen=True)

    pools: ObservationRange
    set: ObservationRange

    @model_validator(mode="after")
    def _one_for_each_feature(self) -> PoolsRange:
        self.pools.check_size(POOL_SCHEMA.size)
        self.set.check_size(SET_SCHEMA.size)
        return self


class PoolsMetadata(_Described):
    """The same of an artifact that decides for pools."""

    kind: Literal["pools"]
    pool_schema: ObservationReference
    set_schema: ObservationReference
    observation_range: PoolsRange | None = None


def parse_metadata(properties: dict[str, str]) -> ArtifactMetadata | PoolsMetadata:
    """The metadata among an ONNX file's properties. Raises ArtifactInvalid that names the field."""
    text = properties.get(METADATA_KEY)
    if text is None:
        raise ArtifactInvalid(f"the ONNX file has no {METADATA_KEY!r} metadata: it is not one of rl-scaler's")
    kind = PoolsMetadata if _is_of_pools(text) else ArtifactMetadata
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join([METADATA_KEY, *map(str, first["loc"])])
        raise ArtifactInvalid(f"metadata {where}: {first['msg']}") from error


def _is_of_pools(text: str) -> bool:
    """Whether metadata (JSON) are those of an artifact for pools."""
    try:
        content = json.loads(text)
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("kind") == POOLS_KIND


def check_pools_schemas(metadata: PoolsMetadata) -> None:
    """Raises ArtifactSchemaMismatch unless the artifact sees pools and acts as this operator does."""
    _check_reference("pool", metadata.pool_schema, POOL_SCHEMA)
    _check_reference("set", metadata.set_schema, SET_SCHEMA)
    if metadata.action_schema != POOLS_ACTION:
        raise ArtifactSchemaMismatch(
            f"action schema {metadata.action_schema!r} is not what a policy for pools has, {POOLS_ACTION}"
        )


def check_schemas(metadata: ArtifactMetadata) -> None:
    """Raises ArtifactSchemaMismatch unless the artifact sees and acts as this operator does."""
    _check_reference("observation", metadata.observation_schema, OBSERVATION_SCHEMA)
    if metadata.action_schema not in ACTION_SCHEMAS:
        raise ArtifactSchemaMismatch(
            f"action schema {metadata.action_schema!r} is unknown; one of {', '.join(ACTION_SCHEMAS)}"
        )


def _check_reference(what: str, theirs: ObservationReference, ours: ObservationSchema) -> None:
    if theirs.version != ours.version:
        raise ArtifactSchemaMismatch(
            f"{what} schema {theirs.version!r} is not this operator's {ours.version!r}"
        )
    if len(theirs.features) != ours.size:
        raise ArtifactSchemaMismatch(f"{len(theirs.features)} features are not this operator's {ours.size}")
    for index, (name, expected) in enumerate(zip(theirs.features, ours.names, strict=True)):
        if name != expected:
            raise ArtifactSchemaMismatch(f"feature {index} is {name!r}, this operator's is {expected!r}")
    if theirs.digest != ours.digest:
        raise ArtifactSchemaMismatch(
            f"{what} schema digest {theirs.digest} is not this operator's {ours.digest}: "
            "the features' names agree, their ranges don't"
        )
