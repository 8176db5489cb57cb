"""Policy artifacts in ConfigMaps: sound ones, and ones that are broken each in its own way."""

from __future__ import annotations

import base64

from tests.integration.harness import ApiError, Json, Namespace
from tests.policies import models

SOUND = models.model()
OTHER = models.model(properties=models.metadata(name="other"))
_OLD_SCHEMA = models.metadata()["observation_schema"] | {"version": "observation/v0", "digest": "sha256:0"}

BROKEN: dict[str, tuple[bytes, str]] = {
    "garbage": (b"\x08\x07 this is no ONNX", "ArtifactInvalid"),
    "truncated": (SOUND[:200], "ArtifactInvalid"),
    "no metadata": (models.bare(), "ArtifactInvalid"),
    "wrong schema": (
        models.model(properties=models.metadata(observation_schema=_OLD_SCHEMA)),
        "ArtifactSchemaMismatch",
    ),
}
"""What is in it, and PolicyReady's reason."""

KEY = "policy.onnx"
CORE = "/api/v1"


def policy_of(name: str) -> Json:
    """spec.policy of a service whose artifact `put` has made."""
    return {"type": "RL", "artifact": {"configMap": {"name": f"{name}-policy", "key": KEY}}}


def put(ns: Namespace, name: str, data: bytes) -> None:
    """The artifact of a service, made or replaced."""
    content = {"binaryData": {KEY: base64.b64encode(data).decode()}}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-policy"}, **content}
    try:
        ns.api.patch(ns.path(CORE, "configmaps", f"{name}-policy"), content)
    except ApiError as error:
        if error.status != 404:
            raise
        ns.api.create(ns.path(CORE, "configmaps"), body)
