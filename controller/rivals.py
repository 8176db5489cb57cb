"""Other autoscalers by what they scale: HorizontalPodAutoscalers and KEDA's ScaledObjects. No I/O in here.

The operator's watches and lists call `apply`, `forget` and `retain`; `Registry.conflict` asks `on`, so that
no RLScaler writes where one of these does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from controller.actuation.target import TargetKey, TargetRef
from controller.kube import HPAS, Json, Resource

SCALED_OBJECTS: Final = Resource("keda.sh/v1alpha1", "ScaledObject", "scaledobjects", True, False)
RIVALS: Final = (SCALED_OBJECTS, HPAS)
"""In the order in which they are named: KEDA makes an HPA of its own for each ScaledObject."""


class Rivals:
    """Who scales which target, by kind and uid."""

    def __init__(self) -> None:
        self._known: dict[Resource, dict[str, tuple[str, TargetKey]]] = {kind: {} for kind in RIVALS}
        self._on: defaultdict[TargetKey, set[tuple[int, str]]] = defaultdict(set)

    def apply(self, kind: Resource, body: Json) -> None:
        """Take in one as the API server shows it."""
        metadata = body["metadata"]
        self.forget(kind, metadata["uid"])
        key = _target(body).key
        self._known[kind][metadata["uid"]] = (metadata["name"], key)
        self._on[key].add((RIVALS.index(kind), metadata["name"]))

    def forget(self, kind: Resource, uid: str) -> None:
        """Drop a deleted one."""
        name, key = self._known[kind].pop(uid, ("", None))
        if key is None or (name, key) in self._known[kind].values():
            return
        self._on[key].discard((RIVALS.index(kind), name))
        if not self._on[key]:
            del self._on[key]

    def retain(self, kind: Resource, bodies: Iterable[Json]) -> None:
        """Replace all known of a kind by a full list."""
        for uid in list(self._known[kind]):
            self.forget(kind, uid)
        for body in bodies:
            self.apply(kind, body)

    def on(self, key: TargetKey) -> str | None:
        """Kind and name of whoever scales a target."""
        found = self._on.get(key)
        if not found:
            return None
        kind, name = min(found)
        return f"{RIVALS[kind].kind} {name}"


def _target(body: Json) -> TargetRef:
    """What it scales; KEDA's apiVersion and kind may be left out, and mean a Deployment."""
    ref = (body.get("spec") or {}).get("scaleTargetRef") or {}
    version, kind = ref.get("apiVersion") or "apps/v1", ref.get("kind") or "Deployment"
    return TargetRef(version, kind, ref.get("name", ""), body["metadata"]["namespace"])
