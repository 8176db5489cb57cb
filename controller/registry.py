"""The RLScalers that the operator serves, by uid, and who else scales the same targets. No I/O in here.

kopf's event handlers and the periodic lists call `apply`, `forget` and `apply_hpa`; the control loop reads
the entries and keeps its own working state in them. Both run in one event loop, so nothing is locked.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controller.actuation.target import TargetRef
from controller.api.constants import API_VERSION, KIND, PAUSED_ANNOTATION, PAUSED_VALUE, Reason
from controller.api.convert import scale_targets, target_label, to_service_spec
from controller.api.model import ApiModel
from controller.api.types import RLScalerSpec
from controller.api.validation import parse_spec
from controller.core import ServiceSpec
from controller.errors import SpecError
from controller.events import Involved
from controller.kube import Json
from controller.status import Status
from controller.trouble import Trouble

if TYPE_CHECKING:
    from controller.work import Work

logger = logging.getLogger(__name__)

DEFAULT_PERIOD_S = 15.0
MOST_PARTS = 4096

TargetKey = tuple[str, str, str, str]


@dataclass
class Entry:
    """One RLScaler: what the API server says of it; `work` is the control loop's own and nobody else's."""

    uid: str
    namespace: str
    name: str
    generation: int
    resource_version: str
    paused_by_annotation: bool
    created: str
    status: Status
    spec: RLScalerSpec | None = None
    service: ServiceSpec | None = None
    targets: tuple[TargetRef, ...] = ()
    trouble: Trouble | None = None
    alive: bool = True
    work: Work | None = None
    published: Hashable | None = None
    """The fingerprint of what `status` says, once it says it; the loop's own, as are the two below."""
    written_s: float = -math.inf
    """Control seconds when the status was last written."""
    shown: Hashable | None = None
    """What the gauges of its telemetry show."""

    @property
    def mode(self) -> str:
        return self.spec.mode if self.spec is not None else "Active"

    @property
    def paused(self) -> bool:
        return self.mode == "Paused" or self.paused_by_annotation

    @property
    def period_s(self) -> float:
        """Seconds between turns; an object that cannot be read is looked at now and then."""
        return self.service.sync_period_s if self.service is not None else DEFAULT_PERIOD_S

    @property
    def involved(self) -> Involved:
        return Involved(API_VERSION, KIND, self.namespace, self.name, self.uid)

    @property
    def label(self) -> str:
        return target_label(self.spec) if self.spec is not None else ""


@dataclass(frozen=True)
class Change:
    """What `apply` did: a new entry, or one whose spec or pause has changed; neither for a mere status."""

    entry: Entry
    added: bool
    changed: bool


class Registry:
    """Entries by uid, and who has which scale target: RLScalers, and HorizontalPodAutoscalers."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._owners: defaultdict[TargetKey, dict[str, Entry]] = defaultdict(dict)
        self._hpas: dict[str, tuple[str, TargetKey]] = {}
        self._hpa_of: dict[TargetKey, str] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self.entries.values()))

    def __len__(self) -> int:
        return len(self.entries)

    def apply(self, body: Json) -> Change:
        """Take in an RLScaler as the API server shows it; what is older than what is known is left out."""
        metadata = body["metadata"]
        entry = self.entries.get(metadata["uid"])
        if entry is None:
            entry = self.entries[metadata["uid"]] = _new_entry(body)
            self._read_spec(entry, body)
            return Change(entry, added=True, changed=False)
        if _is_older(metadata, entry):
            return Change(entry, added=False, changed=False)
        paused, generation = _paused(metadata), int(metadata.get("generation", 0))
        changed = generation != entry.generation or paused != entry.paused_by_annotation
        entry.resource_version = str(metadata.get("resourceVersion", ""))
        entry.paused_by_annotation = paused
        if generation != entry.generation:
            entry.generation = generation
            self._read_spec(entry, body)
        return Change(entry, added=False, changed=changed)

    def forget(self, uid: str) -> Entry | None:
        """Drop a deleted RLScaler; whoever still holds the entry sees that it is no longer alive."""
        entry = self.entries.pop(uid, None)
        if entry is not None:
            entry.alive = False
            self._disown(entry)
        return entry

    def retain(self, uids: Iterable[str], namespace: str | None = None) -> list[Entry]:
        """Drop what a full list (of a namespace, or of all) no longer holds; returns what was dropped."""
        kept = set(uids)
        gone = [e for e in self if e.uid not in kept and namespace in (None, e.namespace)]
        for entry in gone:
            self.forget(entry.uid)
        return gone

    def apply_hpa(self, body: Json) -> None:
        """Take in a HorizontalPodAutoscaler."""
        metadata, ref = body["metadata"], body.get("spec", {}).get("scaleTargetRef", {})
        target = TargetRef(
            ref.get("apiVersion", ""), ref.get("kind", ""), ref.get("name", ""), metadata["namespace"]
        )
        self.forget_hpa(metadata["uid"])
        self._hpas[metadata["uid"]] = (metadata["name"], target.key)
        self._hpa_of[target.key] = metadata["name"]

    def forget_hpa(self, uid: str) -> None:
        _, key = self._hpas.pop(uid, ("", None))
        if key is not None:
            self._hpa_of.pop(key, None)
            self._hpa_of |= {other: name for name, other in self._hpas.values() if other == key}

    def retain_hpas(self, bodies: Iterable[Json]) -> None:
        """Replace all known HorizontalPodAutoscalers by a full list."""
        self._hpas, self._hpa_of = {}, {}
        for body in bodies:
            self.apply_hpa(body)

    def conflict(self, entry: Entry) -> str | None:
        """Who else writes to one of the entry's targets, as a sentence.

        Only writers conflict: a Shadow may run beside an HPA or another RLScaler, which is how one tries it
        out. Of two Active RLScalers the older one acts.
        """
        if entry.mode != "Active":
            return None
        for ref in entry.targets:
            if ref.key in self._hpa_of:
                return (
                    f"HorizontalPodAutoscaler {self._hpa_of[ref.key]} scales {ref} too; delete one of the two"
                )
            rival = min((e for e in self._owners[ref.key].values() if _writes(e)), key=_age, default=entry)
            if _age(rival) < _age(entry):
                return f"RLScaler {rival.name} scales {ref} too and is older; delete one of the two"
        return None

    def _read_spec(self, entry: Entry, body: Json) -> None:
        self._disown(entry)
        _read_spec(entry, body)
        for ref in entry.targets:
            self._owners[ref.key][entry.uid] = entry

    def _disown(self, entry: Entry) -> None:
        for ref in entry.targets:
            self._owners[ref.key].pop(entry.uid, None)
            if not self._owners[ref.key]:
                del self._owners[ref.key]


def _writes(entry: Entry) -> bool:
    return entry.mode == "Active" and not entry.paused and entry.trouble is None


def _age(entry: Entry) -> tuple[str, str]:
    return (entry.created, entry.uid)


def _is_older(metadata: Json, entry: Entry) -> bool:
    """Whether a body is behind what is known: a list and a watch may overtake each other."""
    version, known = str(metadata.get("resourceVersion", "")), entry.resource_version
    return version.isdigit() and known.isdigit() and int(version) < int(known)


def _new_entry(body: Json) -> Entry:
    metadata = body["metadata"]
    return Entry(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=int(metadata.get("generation", 0)),
        resource_version=str(metadata.get("resourceVersion", "")),
        paused_by_annotation=_paused(metadata),
        created=str(metadata.get("creationTimestamp", "")),
        status=_interned(body.get("status") or {}),
    )


_parts: dict[ApiModel, ApiModel] = {}


def _shared(spec: RLScalerSpec) -> RLScalerSpec:
    """The spec with its parts (which are frozen) shared with those of others that say the same."""
    if len(_parts) > MOST_PARTS:
        _parts.clear()
    for name, part in vars(spec).items():
        if isinstance(part, ApiModel):
            with contextlib.suppress(TypeError):  # not hashable: kept as it is
                vars(spec)[name] = _parts.setdefault(part, part)
    return spec


def _interned(value: Any) -> Any:
    """A copy in which equal strings are one: most of what thousands of statuses say is the same."""
    if isinstance(value, dict):
        return {sys.intern(key): _interned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_interned(item) for item in value]
    return sys.intern(value) if type(value) is str else value


def _paused(metadata: Json) -> bool:
    return (metadata.get("annotations") or {}).get(PAUSED_ANNOTATION) == PAUSED_VALUE


def _read_spec(entry: Entry, body: Json) -> None:
    """The spec as types; one that the API server let through but we cannot serve is the entry's trouble."""
    try:
        spec = _shared(parse_spec(dict(body.get("spec") or {})))
        service = to_service_spec(spec)
    except SpecError as error:
        entry.spec, entry.service, entry.targets = None, None, ()
        entry.trouble = Trouble(Reason.INVALID_SPEC, str(error))
        logger.warning("RLScaler %s/%s: %s", entry.namespace, entry.name, error)
        return
    entry.spec, entry.service, entry.trouble = spec, service, None
    entry.targets = tuple(
        TargetRef(t.api_version, t.kind, t.name, entry.namespace) for t in scale_targets(spec)
    )
    if len({ref.key for ref in entry.targets}) < len(entry.targets):
        entry.trouble = Trouble(
            Reason.AMBIGUOUS_TARGET, "spec.backends: two pools have the same scaleTargetRef"
        )
