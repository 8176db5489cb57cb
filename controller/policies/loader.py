"""From spec.policy.artifact to a policy: where the bytes are, and one policy for equal bytes.

The operator's policy book, `training/evaluate.py` and the demo call this. Equal artifacts give the same
object, so that the engine asks a network once for all services that use it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from controller.core.policy import Policy, UnavailablePolicy
from controller.policies.artifact import PoolsMetadata
from controller.policies.download import Rules, download
from controller.policies.errors import (
    ArtifactError,
    ArtifactInvalid,
    ArtifactNotFound,
    ArtifactSchemaMismatch,
)
from controller.policies.onnx_policy import (
    MAX_ARTIFACT_BYTES,
    OnnxPolicy,
    check_digest,
    check_size,
    opened,
    read_artifact,
)
from controller.policies.pools_policy import PoolsPolicy

SOURCES = ("builtin", "configMap", "file", "url")

ArtifactPolicy = OnnxPolicy | PoolsPolicy
"""What an artifact may be: a policy for single services, or one for pools behind a route."""

_loaded: WeakValueDictionary[str, ArtifactPolicy] = WeakValueDictionary()
_lock = threading.Lock()


def load_policy(
    reference: Mapping[str, Any], policy_dir: str | Path | None = None, data: bytes | None = None
) -> OnnxPolicy:
    """The policy for services of a reference such as {"builtin": "default"}, {"file": "a.onnx", ...}.

    policy_dir: what `file` is relative to and may not leave; None: any path. data: the bytes of a
    `configMap`, which only the caller can read, or of a `url`, which is downloaded here without them.
    Raises ArtifactError.
    """
    policy = _shared(artifact_bytes(reference, policy_dir, data), reference.get("sha256"))
    if not isinstance(policy, OnnxPolicy):
        raise ArtifactSchemaMismatch(f"{policy.name} is an artifact for pools, not for single services")
    return policy


def artifact_bytes(
    reference: Mapping[str, Any], policy_dir: str | Path | None = None, data: bytes | None = None
) -> bytes:
    """What `load_policy` loads, neither checked nor parsed. Raises ArtifactError."""
    source = _source(reference)
    if source == "url" and not reference.get("sha256"):
        raise ArtifactInvalid("artifact.url needs sha256, the hex digest of the file")
    return _read(source, reference[source], policy_dir, data)


def loaded_policy(sha256: str) -> ArtifactPolicy | None:
    """The policy with this digest (hex, prefix optional), if somebody holds it already."""
    with _lock:
        return _loaded.get(f"sha256:{sha256.lower().removeprefix('sha256:')}")


def policy_from_bytes(data: bytes, sha256: str | None = None) -> ArtifactPolicy:
    """The policy in these bytes, the same object for equal bytes. Raises ArtifactError."""
    return _shared(data, sha256)


def load_or_unavailable(
    reference: Mapping[str, Any], policy_dir: str | Path | None = None, data: bytes | None = None
) -> Policy:
    """The policy, or a stand-in that never says anything and carries the reason and the message."""
    try:
        return load_policy(reference, policy_dir, data)
    except ArtifactError as error:
        return UnavailablePolicy(error.reason, str(error))


def builtin_names() -> list[str]:
    """The policies that come with this build."""
    folder = resources.files("controller.policies") / "builtin"
    found = [item.name for item in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".onnx") for name in found if name.endswith(".onnx"))


def _source(reference: Mapping[str, Any]) -> str:
    given = [name for name in SOURCES if reference.get(name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ArtifactInvalid(f"artifact: exactly one of {', '.join(SOURCES)} is needed, not {found}")
    return given[0]


def _read(source: str, value: Any, policy_dir: str | Path | None, data: bytes | None) -> bytes:
    if source == "builtin":
        return _builtin(str(value))
    if source == "file":
        return read_artifact(_path(str(value), policy_dir))
    if source == "url":
        return data if data is not None else download(str(value), MAX_ARTIFACT_BYTES, Rules())
    if data is None:
        raise ArtifactInvalid("artifact.configMap: its bytes were not given")
    return data


def _builtin(name: str) -> bytes:
    names = builtin_names()
    if name not in names:
        known = f"it has {', '.join(names)}" if names else "it has none; train one with training/train.py"
        raise ArtifactNotFound(f"this build has no builtin policy {name!r}; {known}")
    return (resources.files("controller.policies") / "builtin" / f"{name}.onnx").read_bytes()


def _path(file: str, policy_dir: str | Path | None) -> Path:
    if policy_dir is None:
        return Path(file)
    folder = Path(policy_dir).resolve()
    path = (folder / file.replace("\0", "")).resolve()
    if "\0" in file or not path.is_relative_to(folder):
        raise ArtifactNotFound(f"artifact.file {file!r} is not under the policy directory {policy_dir}")
    return path


def _shared(data: bytes, sha256: str | None) -> ArtifactPolicy:
    check_size(len(data))
    digest = check_digest(data, sha256)
    with _lock:
        policy = _loaded.get(digest)
        if policy is None:
            artifact = opened(data)
            kind = PoolsPolicy if isinstance(artifact.metadata, PoolsMetadata) else OnnxPolicy
            policy = _loaded[digest] = kind.checked(artifact)
        return policy
