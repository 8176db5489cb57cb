"""Events are stored in their core/v1 form; events.k8s.io/v1 shows the same objects under other field names.

Source: k8s.io/kubernetes/pkg/apis/events/v1/conversion.go.
"""

from __future__ import annotations

from sim.twin.errors import Json

_NAMES = {  # core/v1: events.k8s.io/v1
    "message": "note",
    "involvedObject": "regarding",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_BACK = {new: old for old, new in _NAMES.items()}


def from_core(obj: Json) -> Json:
    return {_NAMES.get(k, k): v for k, v in obj.items()}


def to_core(obj: Json) -> Json:
    renamed = {_BACK.get(k, k): v for k, v in obj.items()}
    return renamed | {"apiVersion": "v1", "kind": "Event"}
