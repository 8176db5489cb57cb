"""Leader election by a Lease: of several operators for the same RLScalers one decides and writes.

The election is the Kubernetes client's; here it gets a deadline on this process's own monotonic clock. A
leader that could not renew within RENEW_S stops writing (`remaining_s` is asked before each write and bounds
its time) before anybody else may take over, LEASE_S after the last renewal. A process that has lost the Lease
ends, so that nothing it has begun as leader goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

from controller.clock import rfc3339_micro
from controller.errors import Conflict, KubernetesError, NotFound
from controller.kube import SERVICE_ACCOUNT_TOKEN, Json, Kube, Resource
from controller.settings import Settings

logger = logging.getLogger(__name__)

LEASE_S, RENEW_S, RETRY_S = 9, 6, 1.5
LEASES = Resource("coordination.k8s.io/v1", "Lease", "leases", True, False)


class Leadership:
    """Whether this process leads, and until when at least."""

    def __init__(self, kube: Kube, settings: Settings) -> None:
        self.identity = f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        self.namespace = settings.lease_namespace or own_namespace()
        self.name = lease_name(settings)
        self._kube = kube
        self._until_s = 0.0
        self._leads = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def remaining_s(self) -> float:
        """Real seconds for which this process leads for certain; 0 or less when it may not."""
        return self._until_s - time.monotonic()

    async def acquire(self, lost: Callable[[], None]) -> None:
        """Returns once this process leads; `lost` is called when it no longer does."""
        self._task = asyncio.create_task(self._run(lost), name="leader election")
        await self._leads.wait()
        logger.info("leading", extra={"identity": self.identity, "lease": f"{self.namespace}/{self.name}"})

    async def release(self) -> None:
        """Give the Lease up, so that the next leader need not wait for its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self.remaining_s() <= 0:
            return
        self._until_s = 0.0
        mine = {"op": "test", "path": "/spec/holderIdentity", "value": self.identity}
        free = {"op": "remove", "path": "/spec/holderIdentity"}
        try:
            await self._kube.json_patch(LEASES, self.namespace, self.name, [mine, free], fenced=False)
        except KubernetesError as error:
            logger.warning("the Lease %s/%s was not released: %s", self.namespace, self.name, error)

    async def _run(self, lost: Callable[[], None]) -> None:
        try:
            await self._election().run()
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("leader election ended")
        self._until_s = 0.0
        logger.warning("no longer leading", extra={"identity": self.identity})
        lost()

    def _election(self) -> Any:
        from kubernetes.aio.leaderelection.electionconfig import Config
        from kubernetes.aio.leaderelection.leaderelection import LeaderElection

        leadership = self

        class Election(LeaderElection):
            async def try_acquire_or_renew(self) -> bool:
                begun_s = time.monotonic()
                try:
                    held = bool(await asyncio.wait_for(super().try_acquire_or_renew(), RENEW_S))
                except (KubernetesError, TimeoutError) as error:
                    logger.warning("the Lease could not be read or renewed: %s", error)
                    held = False
                if held:
                    leadership._until_s = begun_s + RENEW_S
                return held

        async def started() -> None:
            self._leads.set()

        async def stopped() -> None:
            return None

        lock = _lease_lock(self._kube, self.name, self.namespace, self.identity)
        return Election(Config(lock, LEASE_S, RENEW_S, RETRY_S, started, stopped))


def _lease_lock(kube: Kube, name: str, namespace: str, identity: str) -> Any:
    """The election's lock over our own requests: version 37 of the client's cannot create a Lease."""
    from kubernetes.aio.client.exceptions import ApiException
    from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
    from kubernetes.aio.leaderelection.resourcelock.baselock import BaseLock

    path = LEASES.path(namespace)

    class Lock(BaseLock):
        seen: Json

        async def get(self, name: str, namespace: str) -> Any:
            try:
                self.seen = await kube.request("GET", f"{path}/{name}")
            except NotFound as error:
                absent = ApiException(status=404, reason=str(error))
                absent.body = '{"code": 404}'
                return False, absent
            spec = self.seen.get("spec") or {}
            holder, duration = spec.get("holderIdentity"), spec.get("leaseDurationSeconds")
            return True, LeaderElectionRecord(
                holder, duration, spec.get("acquireTime"), spec.get("renewTime")
            )

        async def create(self, name: str, namespace: str, election_record: Any) -> bool:
            return await self._write("POST", path, {"metadata": {"name": name}}, election_record)

        async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
            return await self._write("PUT", f"{path}/{name}", self.seen, updated_record)

        async def _write(self, method: str, path: str, lease: Json, record: Any) -> bool:
            now = rfc3339_micro(time.time())
            held = record.holder_identity == (lease.get("spec") or {}).get("holderIdentity")
            spec = {
                "holderIdentity": record.holder_identity,
                "leaseDurationSeconds": LEASE_S,
                "acquireTime": lease["spec"]["acquireTime"] if held else now,
                "renewTime": now,
            }
            kind = {"apiVersion": LEASES.group_version, "kind": LEASES.kind}
            try:
                await kube.request(method, path, {**lease, **kind, "spec": spec}, fenced=False)
            except Conflict:
                return False  # somebody else was first
            return True

    return Lock(name, namespace, identity)


def own_namespace() -> str:
    """The pod's namespace, or `default` outside of a cluster."""
    file = Path(SERVICE_ACCOUNT_TOKEN).with_name("namespace")
    return file.read_text().strip() if file.exists() else "default"


def lease_name(settings: Settings) -> str:
    """One Lease for each shard: operators with other namespaces or another selector lead on their own."""
    share = ",".join(settings.namespaces) + ";" + settings.shard
    return "rl-scaler" if share == ";" else f"rl-scaler-{crc32(share.encode()):08x}"
