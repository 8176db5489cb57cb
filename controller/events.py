"""Kubernetes Events about RLScalers, as client-go's recorder sends them: aggregated and limited in rate.

The same reason and message within ten minutes raises the count of the Event that is there; an object that
talks too much is cut off after a burst. An Event that cannot be written is logged and forgotten: it never
holds up or fails a decision.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from controller import logs
from controller.clock import rfc3339
from controller.errors import KubernetesError, NotFound
from controller.kube import EVENTS, Json, Kube

logger = logging.getLogger(__name__)

COMPONENT = "rl-scaler"
BURST = 25.0
REFILL_PER_S = 1 / 30.0
AGGREGATE_S = 600.0
REMEMBERED = 4096
MESSAGE_LIMIT = 1024


@dataclass(frozen=True)
class Involved:
    """The object that an Event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    def reference(self) -> Json:
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
        }


@dataclass
class _Sent:
    name: str
    count: int
    at_s: float


@dataclass
class _Bucket:
    tokens: float
    at_s: float

    def take(self, now_s: float) -> bool:
        self.tokens = min(BURST, self.tokens + (now_s - self.at_s) * REFILL_PER_S)
        self.at_s = now_s
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class EventRecorder:
    """Writes Events through the loop's Kubernetes client."""

    def __init__(self, kube: Kube, instance: str = COMPONENT) -> None:
        self._kube = kube
        self._instance = instance
        self._sent: OrderedDict[tuple[str, str, str], _Sent] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    async def emit(
        self, about: Involved, kind: Literal["Normal", "Warning"], reason: str, message: str
    ) -> None:
        """Create the Event, or raise the count of the one that says the same."""
        now_s = time.time()
        if not self._bucket(about.uid, now_s).take(now_s):
            return
        message = message[:MESSAGE_LIMIT]
        try:
            await self._write(about, kind, reason, message, now_s)
        except KubernetesError as error:
            words = (reason, about.namespace, about.name, error)
            logger.warning("event %s for %s/%s not written: %s", *words, extra=logs.about(about))

    async def _write(self, about: Involved, kind: str, reason: str, message: str, now_s: float) -> None:
        key = (about.uid, reason, message)
        sent = self._sent.get(key)
        if sent is not None and now_s - sent.at_s < AGGREGATE_S:
            try:
                again = {"count": sent.count + 1, "lastTimestamp": rfc3339(now_s)}
                await self._kube.merge_patch(EVENTS, about.namespace, sent.name, again)
                self._remember(key, _Sent(sent.name, sent.count + 1, now_s))
                return
            except NotFound:
                pass  # expired on the server: say it anew
        body = self._body(about, kind, reason, message, now_s)
        await self._kube.create(EVENTS, about.namespace, body)
        self._remember(key, _Sent(body["metadata"]["name"], 1, now_s))

    def _body(self, about: Involved, kind: str, reason: str, message: str, now_s: float) -> Json:
        name = f"{about.name[:200]}.{uuid.uuid4().hex[:16]}"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": about.namespace},
            "involvedObject": about.reference(),
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": rfc3339(now_s),
            "lastTimestamp": rfc3339(now_s),
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
        }

    def _bucket(self, uid: str, now_s: float) -> _Bucket:
        bucket = self._buckets.setdefault(uid, _Bucket(BURST, now_s))
        self._buckets.move_to_end(uid)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return bucket

    def _remember(self, key: tuple[str, str, str], sent: _Sent) -> None:
        self._sent[key] = sent
        self._sent.move_to_end(key)
        if len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
