"""The RLScalers that the operator serves, by uid, and who else scales the same targets. No I/O in here.

kopf's event handlers and the periodic lists call `apply`, `forget` and those of `rivals`; the control loop
reads the entries and keeps its own working state in them. Both run in one event loop, so nothing is locked.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import orjson

from controller import logs
from controller.actuation.target import TargetKey, TargetRef
from controller.api.constants import (
    API_VERSION,
    CANARY_ANNOTATION,
    KIND,
    PAUSED_ANNOTATION,
    PAUSED_VALUE,
    PROMOTE_ANNOTATION,
    Reason,
)
from controller.api.convert import scale_targets, target_label
from controller.api.types import RLScalerSpec
from controller.core import ServiceSpec
from controller.errors import SpecError
from controller.events import Involved
from controller.interning import interned, read_spec
from controller.kube import Json
from controller.outside import Outside, remembered
from controller.rivals import Rivals
from controller.schedules import Timetable, timetable
from controller.status import Status
from controller.trouble import Trouble

if TYPE_CHECKING:
    from controller.work import Work

logger = logging.getLogger(__name__)

DEFAULT_PERIOD_S = 15.0
NO_LABELS: Mapping[str, str] = MappingProxyType({})


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
    spec: RLScalerSpec | None = None
    service: ServiceSpec | None = None
    timetable: Timetable | None = None
    targets: tuple[TargetRef, ...] = ()
    trouble: Trouble | None = None
    promote: str = ""
    """The value of the annotation that promotes a canary."""
    rollout: str = ""
    """The value of the annotation that pauses, restarts or ends the roll-out of spec.canary."""
    alive: bool = True
    work: Work | None = None
    published: Hashable | None = None
    """The fingerprint of what `status` says, once it says it; the loop's own, as is the one below."""
    held: Status | None = None
    """What the API server holds instead of `status`, where somebody else has written to it."""
    written_s: float = -math.inf
    """Control seconds when the status was last written."""
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    """Its metadata.labels, by which budgets pick it."""
    outside: Outside = field(default_factory=Outside)
    """What is remembered of changes that others make to its targets."""
    _status: bytes = b"{}"
    """JSON: as dicts, the statuses of thousands take five times the memory."""

    @property
    def status(self) -> Status:
        """Its status as it was last read or written; every reading is a copy."""
        status: Status = orjson.loads(self._status)
        return status

    @status.setter
    def status(self, status: Status) -> None:
        self._status = orjson.dumps(status)

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
    """Entries by uid, and who has which scale target: RLScalers, and other autoscalers."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._owners: defaultdict[TargetKey, dict[str, Entry]] = defaultdict(dict)
        self.rivals = Rivals()

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
            entry.outside = remembered(entry)
            return Change(entry, added=True, changed=False)
        if _is_older(metadata, entry):
            return Change(entry, added=False, changed=False)
        changed = _is_edited(metadata, entry)
        entry.resource_version = str(metadata.get("resourceVersion", ""))
        compare_status(entry, body.get("status") or {})
        entry.labels = _labels(metadata)
        entry.paused_by_annotation = _paused(metadata)
        entry.promote, entry.rollout = _promote(metadata), _rollout(metadata)
        if _generation(metadata) != entry.generation:
            entry.generation = _generation(metadata)
            self._read_spec(entry, body)
        return Change(entry, added=False, changed=changed)

    def named(self, namespace: str, name: str) -> Entry | None:
        """The entry of this name; the newest where a deletion has not been heard of yet."""
        found = (e for e in self if e.name == name and e.namespace == namespace)
        return max(found, key=_age, default=None)

    def knows(self, metadata: Json) -> bool:
        """Whether the spec of this generation has been read, and `apply` needs it no more."""
        entry = self.entries.get(metadata["uid"])
        return entry is not None and entry.generation == _generation(metadata)

    def shows(self, metadata: Json) -> bool:
        """Whether this very version is known: mostly our own status, written just now.

        The version alone does not tell: a write of ours may have come on top of somebody else's edit.
        """
        entry = self.entries.get(metadata["uid"])
        return (
            entry is not None
            and entry.resource_version == metadata.get("resourceVersion", "")
            and not _is_edited(metadata, entry)
            and entry.labels == dict(metadata.get("labels") or {})
        )

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

    def conflict(self, entry: Entry) -> str | None:
        """Who else writes to one of the entry's targets, as a sentence.

        Only writers conflict: a Shadow may run beside an HPA or another RLScaler, which is how one tries it
        out. Of two Active RLScalers the older one acts.
        """
        if entry.mode != "Active":
            return None
        for ref in entry.targets:
            other = self.rivals.on(ref.key)
            if other is not None:
                return f"{other} scales {ref} too; delete one of the two"
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


def _generation(metadata: Json) -> int:
    return int(metadata.get("generation", 0))


def _is_edited(metadata: Json, entry: Entry) -> bool:
    """Whether the spec, or an annotation that is an order, differs from what is known."""
    return (_generation(metadata), _paused(metadata), _promote(metadata), _rollout(metadata)) != (
        entry.generation,
        entry.paused_by_annotation,
        entry.promote,
        entry.rollout,
    )


def _is_older(metadata: Json, entry: Entry) -> bool:
    """Whether a body is behind what is known: a list and a watch may overtake each other."""
    return is_older(str(metadata.get("resourceVersion", "")), entry.resource_version)


def is_older(version: str, known: str) -> bool:
    """Whether a resourceVersion is from before another; False where they cannot be compared."""
    return version.isdigit() and known.isdigit() and int(version) < int(known)


def compare_status(entry: Entry, held: Status) -> None:
    """Have the status written anew where it is not what we wrote; what it should be stays remembered."""
    entry.held = None if held == entry.status else held
    if entry.held is not None:
        entry.published = None


def _new_entry(body: Json) -> Entry:
    metadata = body["metadata"]
    entry = Entry(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=_generation(metadata),
        resource_version=str(metadata.get("resourceVersion", "")),
        paused_by_annotation=_paused(metadata),
        promote=_promote(metadata),
        rollout=_rollout(metadata),
        created=str(metadata.get("creationTimestamp", "")),
        labels=_labels(metadata),
    )
    entry.status = body.get("status") or {}
    return entry


def _labels(metadata: Json) -> Mapping[str, str]:
    labels = metadata.get("labels")
    return interned(labels) if labels else NO_LABELS


def _paused(metadata: Json) -> bool:
    return (metadata.get("annotations") or {}).get(PAUSED_ANNOTATION) == PAUSED_VALUE


def _promote(metadata: Json) -> str:
    """Nothing longer than this is the beginning of a digest, and a status would not take it."""
    return str((metadata.get("annotations") or {}).get(PROMOTE_ANNOTATION) or "").strip()[:100]


def _rollout(metadata: Json) -> str:
    return str((metadata.get("annotations") or {}).get(CANARY_ANNOTATION) or "").strip()[:100]


def _read_spec(entry: Entry, body: Json) -> None:
    """The spec as types; one that the API server let through but we cannot serve is the entry's trouble."""
    try:
        spec, service = read_spec(body.get("spec") or {})
        floors = timetable(spec.schedules)
    except SpecError as error:
        entry.spec, entry.service, entry.timetable, entry.targets = None, None, None, ()
        entry.trouble = Trouble(Reason.INVALID_SPEC, str(error))
        logger.warning("RLScaler %s/%s: %s", entry.namespace, entry.name, error, extra=logs.about(entry))
        return
    entry.spec, entry.service, entry.timetable, entry.trouble = spec, service, floors, None
    entry.targets = tuple(
        TargetRef(t.api_version, t.kind, t.name, entry.namespace) for t in scale_targets(spec)
    )
    if len({ref.key for ref in entry.targets}) < len(entry.targets):
        entry.trouble = Trouble(
            Reason.AMBIGUOUS_TARGET, "spec.backends: two pools have the same scaleTargetRef"
        )
