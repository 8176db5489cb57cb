"""RLScalers as an API server shows them, for tests of the pure parts."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def rlscaler(name: str, uid: str = "", generation: int = 1, version: str = "1", **spec: Any) -> Json:
    """An RLScaler on Deployment `name` unless `spec` says otherwise; None takes a field away."""
    full = {"scaleTargetRef": {"kind": "Deployment", "name": name}, "maxReplicas": 10, **spec}
    metadata = {
        "name": name,
        "namespace": "shop",
        "uid": uid or f"uid-{name}",
        "generation": generation,
        "resourceVersion": version,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {"metadata": metadata, "spec": {key: value for key, value in full.items() if value is not None}}


def hpa(target: str, uid: str = "hpa", kind: str = "Deployment", version: str = "apps/v1") -> Json:
    ref = {"apiVersion": version, "kind": kind, "name": target}
    return {
        "metadata": {"name": f"hpa-{target}", "namespace": "shop", "uid": uid},
        "spec": {"scaleTargetRef": ref},
    }
