"""Other hands on the replicas: noticing a `kubectl scale`, and leaving what it has set alone for a while.

The observer asks `suspects` of every RLScaler in mode Active: whether a target has other replicas than those
we left it with. Only then requests are made, to learn who set them; `judge` (pure) tells somebody else's
decision from what merely looks like one: a write of ours whose answer was lost or that an earlier process
made, a target that was deleted and made anew, a watch that is behind. A change that counts becomes a `Hold`:
the engine stays at the current replicas until it ends, or until the spec changes. It is kept in
status.outsideChange, so that a restarted operator respects it as well.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from controller.actuation.scale import Scaler
from controller.actuation.target import Target
from controller.clock import Clock, rfc3339, unix_seconds
from controller.core import Engine
from controller.kube import Json, Kube
from controller.logs import about

if TYPE_CHECKING:
    from controller.case import Case
    from controller.registry import Entry

logger = logging.getLogger(__name__)

OWN_MANAGER: Final = "rl-scaler"
"""What the API server notes as the manager of our writes: the user agent up to its first slash."""
CREATION_S: Final = 1.0
"""managedFields and creationTimestamp are in whole seconds."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Replicas (of all targets together) that somebody else has set, and until when they are left alone."""

    replicas: int
    until_unix_s: float
    by: str
    generation: int

    @property
    def words(self) -> str:
        until = rfc3339(self.until_unix_s)
        return f"{self.by or 'somebody else'} has set {self.replicas} replicas; left alone until {until}"

    def as_status(self) -> dict[str, Any]:
        """status.outsideChange."""
        held = {"replicas": self.replicas, "until": rfc3339(self.until_unix_s)}
        return {**held, "by": self.by} if self.by else held


@dataclass(slots=True)
class Outside:
    """What is remembered of one RLScaler. `left`: replicas that each target may have by our own doing, none
    while that is unknown; `guessed`: they are from a status, after which more may have been written.
    """

    left: tuple[tuple[int, ...], ...] = ()
    uids: tuple[str, ...] = ()
    guessed: bool = False
    hold: Hold | None = None

    def forget(self) -> None:
        """Nobody's change is remembered, and whatever is there next is taken as given."""
        self.left, self.uids, self.guessed, self.hold = (), (), False, None


@dataclass(frozen=True, slots=True)
class Writer:
    """Who set the replicas, as managedFields has it."""

    manager: str
    time_unix_s: float
    at_creation: bool


@dataclass(frozen=True, slots=True)
class Sight:
    """A target whose replicas we did not leave so; `uid` is the one that it had then, "" if unknown."""

    target: Target
    uid: str
    guessed: bool
    writers: tuple[Writer, ...]


def remembered(entry: Entry) -> Outside:
    """What an earlier operator's status says; nothing of it counts for a spec that has changed since."""
    status = entry.status
    if status.get("observedGeneration") != entry.generation or entry.mode != "Active":
        return Outside()
    held = status.get("outsideChange") or {}
    until = unix_seconds(str(held.get("until")))
    hold = None
    if until is not None and held.get("replicas") is not None:
        hold = Hold(int(held["replicas"]), until, str(held.get("by", "")), entry.generation)
    of_pools = [pool.get("desiredReplicas") for pool in status.get("backends") or []]
    wished = of_pools or [status.get("desiredReplicas")]
    if None in wished or len(wished) != len(entry.targets):
        return Outside(hold=hold)
    return Outside(tuple((count,) for count in wished), guessed=True, hold=hold)


def writers_of(body: Json) -> tuple[Writer, ...]:
    """Everybody who has set the present replicas, which is one but for those who agree; none where the API
    server notes nothing.

    Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    created = unix_seconds(str(body["metadata"].get("creationTimestamp")))
    return tuple(_writers(body["metadata"].get("managedFields") or [], created))


def _writers(entries: Sequence[Json], created: float | None) -> Iterator[Writer]:
    for entry in entries:
        owned = (entry.get("fieldsV1") or {}).get("f:spec") or {}
        if entry.get("subresource") != "scale" and "f:replicas" not in owned:
            continue
        time = unix_seconds(str(entry.get("time")))
        born = entry.get("subresource") != "scale" and None not in (time, created)
        at_creation = born and (time or 0.0) <= (created or 0.0) + CREATION_S
        yield Writer(str(entry.get("manager", "")), -math.inf if time is None else time, at_creation)


def judge(sight: Sight, now_unix_s: float) -> tuple[str, float] | None:
    """(who, Unix seconds since when) of a change by somebody else; None where it is none.

    After a restart, what is not known to be somebody else's may be our own; while we run, what is not known
    to be ours is not.
    """
    if sight.uid and sight.target.uid and sight.uid != sight.target.uid:
        return None
    if any(writer.manager == OWN_MANAGER for writer in sight.writers):
        return None
    last = max(sight.writers, key=lambda writer: writer.time_unix_s, default=None)
    if not sight.guessed:
        return (last.manager if last is not None else ""), now_unix_s
    if last is None or last.at_creation:
        return None
    return last.manager, min(last.time_unix_s, now_unix_s)


class Outsiders:
    """Notices changes by others, and keeps what is remembered in `entry.outside`."""

    def __init__(
        self, kube: Kube, scaler: Scaler, conflict_of: Callable[[Entry], str | None], clock: Clock
    ) -> None:
        self._kube, self._scaler, self._conflict_of, self._clock = kube, scaler, conflict_of, clock

    def suspects(self, entry: Entry, targets: Sequence[Target]) -> bool:
        """Whether a target has replicas that we did not leave it with. Costs no request.

        With another autoscaler on the target there is nothing to notice: that is a conflict.
        """
        left = entry.outside.left
        if not left or len(left) != len(targets) or entry.paused or entry.mode != "Active":
            return False
        if all(target.replicas in mine for target, mine in zip(targets, left, strict=True)):
            return False
        return _hold_s(entry) > 0 and self._conflict_of(entry) is None

    async def look(self, entry: Entry, targets: Sequence[Target]) -> tuple[Target, ...]:
        """Take a second look at targets that are suspicious; returns them as they are now.

        Raises the KubernetesError tree.
        """
        outside = entry.outside
        newest = list(targets)
        changes: list[tuple[str, float]] = []
        uids = outside.uids or ("",) * len(targets)
        for i, (target, mine, uid) in enumerate(zip(targets, outside.left, uids, strict=True)):
            if target.replicas in mine:
                continue
            newest[i] = await self._scaler.fetch(target.ref)
            if newest[i].replicas not in mine:
                body = await self._kube.get(newest[i].resource, target.ref.namespace, target.ref.name)
                sight = Sight(newest[i], uid, outside.guessed, writers_of(body))
                found = judge(sight, self._clock.to_unix(self._clock.now()))
                changes += [found] if found is not None else []
        self._adopt(entry, newest)
        if changes:
            self._respect(entry, sum(target.replicas for target in newest), changes)
        return tuple(newest)

    def _respect(self, entry: Entry, replicas: int, changes: Sequence[tuple[str, float]]) -> None:
        """Begin to hold, unless it would have been over by now."""
        by, since = max(changes, key=lambda change: change[1])
        until = since + self._clock.to_real(_hold_s(entry))
        if until > self._clock.to_unix(self._clock.now()):
            entry.outside.hold = Hold(replicas, until, by, entry.generation)
            words = entry.outside.hold.words
            logger.info("%s/%s: %s", entry.namespace, entry.name, words, extra=about(entry))

    def tell(self, engine: Engine, entry: Entry, row: int) -> None:
        """Before a decision: what the engine is to hold, or hold no longer."""
        hold = entry.outside.hold
        if hold is None:
            return
        over = hold.generation != entry.generation or entry.mode != "Active" or _hold_s(entry) <= 0
        if over or self._clock.now() >= self._clock.to_control(hold.until_unix_s):
            entry.outside.hold = None
            engine.hold(row, -math.inf)
        else:
            engine.hold(row, self._clock.to_control(hold.until_unix_s))

    def settle(self, case: Case, wishes: Sequence[int]) -> None:
        """After a turn: what each target may have by our own doing, be it by a write that seemed to fail.

        wishes: replicas that were asked for, for each target.
        """
        entry = case.entry
        if entry.paused or entry.mode != "Active" or case.error == "conflict":
            entry.outside.forget()
        elif case.scaled is not None and case.scaled.trouble is None:
            self._adopt(entry, case.scaled.targets)
        elif case.scaled is not None:
            self._adopt(entry, case.targets)
            both = zip(entry.outside.left, wishes, strict=True)
            entry.outside.left = tuple((*mine, wish) for mine, wish in both)

    @staticmethod
    def _adopt(entry: Entry, targets: Sequence[Target]) -> None:
        outside = entry.outside
        outside.left = tuple((target.replicas,) for target in targets)
        outside.uids = tuple(target.uid for target in targets)
        outside.guessed = False


def _hold_s(entry: Entry) -> float:
    """Control seconds for which others' changes are respected."""
    return float(entry.spec.outside_change.hold_seconds) if entry.spec is not None else 0.0
