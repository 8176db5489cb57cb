"""The operator process: kopf watches, the control loop decides, one HTTP server tells.

kopf's handlers only keep the registry. Nothing is decided in them, no object gets a timer, a finalizer or
an annotation. Before the watches start, everything is listed once, and kopf's watch begins at the version of
that list (`controller.kopfsession`); full lists are repeated now and then, as a watch that was interrupted
misses deletions.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Coroutine, Iterable, Mapping
from itertools import islice
from typing import Any, cast

import kopf

from controller import __version__, logs
from controller.actuation.apply import Actuator
from controller.actuation.targets import TargetWatches
from controller.api.budget import PLURAL as BUDGETS
from controller.api.constants import GROUP, PLURAL, VERSION
from controller.backfill import Backfiller
from controller.budgets.service import Budgets
from controller.clock import Clock
from controller.core import Engine
from controller.decisions import DecisionRecord, Filter, News
from controller.errors import Forbidden, KubernetesError, NotFound
from controller.events import EventRecorder
from controller.explain.source import from_operator
from controller.feeds import Feeds
from controller.garbage import map_large_pieces, set_aside
from controller.kopfsession import open_session
from controller.kube import LIST_CHUNK, RLSCALERS, Json, Kube, Resource
from controller.leader import Leadership
from controller.loop import ControlLoop
from controller.policybook import PolicyBook
from controller.registry import Entry, Registry
from controller.rivals import RIVALS
from controller.selector import parse_selector
from controller.server import HttpServer, create_app
from controller.settings import Settings
from controller.stateless import NoDiffBase, NoProgress
from controller.telemetry import Telemetry, process_began_s
from controller.turn import Reconciler
from controller.work import Preparer

logger = logging.getLogger(__name__)

LIST_RETRY_S = 1.0


class Operator:
    """Everything that lives as long as the process."""

    def __init__(self, settings: Settings, kube: Kube, began_s: float | None = None) -> None:
        """began_s: when the process began, in Unix seconds; what was due since is due at once. None: now."""
        self.settings = settings
        self.kube = kube
        self.clock = Clock(settings.time_scale)
        self._since_s = self.clock.now() if began_s is None else self.clock.to_control(began_s)
        self.telemetry = Telemetry(self.clock.now)
        self.registry = Registry()
        self._feeds = Feeds(kube, settings)
        self._watches = TargetWatches(kube, settings.namespaces, settings.watch_targets_from)
        engine = Engine()
        self._backfiller = Backfiller(engine, self.clock)
        self._book = PolicyBook(kube, settings)
        self._preparer = Preparer(
            engine,
            self._book,
            self._feeds,
            self.clock,
            settings.resync_seconds,
            self._backfiller,
        )
        actuator, recorder = Actuator(kube, self._watches, self.clock.now), EventRecorder(kube)
        self.budgets = Budgets(
            kube, self.registry, engine, actuator.scaler, recorder, self.telemetry, self.clock
        )
        self._reconciler = Reconciler(
            kube,
            self._preparer,
            actuator,
            self.registry.conflict,
            recorder,
            self.telemetry,
            self.clock,
            self.budgets.sharing,
        )
        self.loop = ControlLoop(self.registry, self._reconciler, self.telemetry, self.clock)
        self._serves = parse_selector(settings.shard)
        self.leadership = Leadership(kube, settings) if settings.leader_election else None
        self.lost = False
        self._server = HttpServer(create_app(self), settings.http_address)
        self._tasks: list[asyncio.Task[None]] = []
        self._errands: set[asyncio.Task[None]] = set()
        self._listed = False
        self._versions: dict[str | None, str] = {}
        """Of first lists, by namespace, from which nobody watches yet."""
        self._leads = False
        self.seen_rivals: dict[Resource, bool] = {}

    async def start(self) -> None:
        """Serve HTTP, list what there is, and let the loop turn."""
        await self._server.start()
        if self.leadership is not None:
            self.kube.fence_s = self.leadership.remaining_s
            await self.leadership.acquire(self._lose)
            self._since_s = self.clock.now()  # until then another decided
        self._leads = True
        self.telemetry.leader.set(1)
        await self._first_list()
        self._tasks = [
            asyncio.create_task(self.loop.run(), name="control loop"),
            asyncio.create_task(self._relist_forever(), name="lists"),
            asyncio.create_task(self._book.sources.watch(), name="policy sources"),
            asyncio.create_task(self.budgets.run(), name="budgets"),
            asyncio.create_task(set_aside(), name="garbage"),
        ]
        self._spawn(self._reconciler.restorer.sweep(self.settings.route_kinds, self.settings.namespaces))
        logger.info("started", extra={"version": __version__, "rlscalers": len(self.registry)})

    async def stop(self) -> None:
        """End the loop and free connections; replicas stay as they are."""
        for task in [*self._tasks, *self._errands]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.loop.stop()
        await self._server.stop()
        self._watches.close()
        self._backfiller.close()
        self._book.close()
        self._feeds.close()
        if self.leadership is not None:
            await self.leadership.release()
        await self.kube.close()

    def _lose(self) -> None:
        """Another leads: end as on SIGTERM. (kopf's own stop flag would delay every end by five seconds.)"""
        self.lost = True
        self.telemetry.leader.set(0)
        signal.raise_signal(signal.SIGTERM)

    # What the watches and lists say

    def seen(self, body: Json) -> None:
        """An RLScaler was created or changed."""
        if not self._serves(body["metadata"].get("labels") or {}):
            self.gone(body["metadata"]["uid"])
            return
        change = self.registry.apply(body)
        self.budgets.note(change.entry)
        if change.added or change.changed:
            self.loop.hasten(change.entry)
        self.telemetry.managed.set(len(self.registry))

    def gone(self, uid: str) -> None:
        """An RLScaler was deleted."""
        entry = self.registry.forget(uid)
        if entry is not None:
            self._dropped(entry)

    def _dropped(self, entry: Entry) -> None:
        self.loop.drop(entry)
        self.budgets.drop(entry)
        self._spawn(self._reconciler.restorer.gone(entry))
        self._preparer.drop(entry)
        self.telemetry.forget(entry.namespace, entry.name)
        self._reconciler.log.forget(entry.namespace, entry.name)
        self._reconciler.pool_weigher.forget(entry.uid)
        self._reconciler.pool_decider.forget(entry.uid)
        self._reconciler.rollouts.forget(entry.uid)
        self.telemetry.managed.set(len(self.registry))

    def _spawn(self, errand: Coroutine[Any, Any, None]) -> None:
        """Something that nobody waits for."""
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    # Lists

    async def _first_list(self) -> None:
        """List until it works: the CRD may not be served yet, or the API server not be up."""
        while not self._listed:
            try:
                await self.list_all(first=True)
                await self._watches.begin(ref for entry in self.registry for ref in entry.targets)
                self._listed = True
                for entry in islice(self.registry, 1):
                    self.loop.hasten(entry)  # shows at once whether turns can be taken
            except NotFound:
                logger.warning(
                    "the API server serves no RLScalers yet; is the CustomResourceDefinition installed?"
                )
                await asyncio.sleep(LIST_RETRY_S)
            except KubernetesError as error:
                logger.warning("RLScalers cannot be listed: %s", error)
                await asyncio.sleep(LIST_RETRY_S)

    async def _relist_forever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.resync_seconds)
            try:
                await self.list_all(first=False)
                self._preparer.tidy(list(self.registry))
                self._watches.keep(ref for entry in self.registry for ref in entry.targets)
            except KubernetesError as error:
                logger.warning("RLScalers cannot be listed: %s", error)
            except Exception:
                logger.exception("unexpected error while listing")
                self.telemetry.tick_errors.inc()

    async def list_all(self, first: bool) -> None:
        for kind in RIVALS:
            self.registry.rivals.retain(kind, await self._rivals(kind))
        await self.budgets.list(self.settings.namespaces or (None,))
        for namespace in self.settings.namespaces or (None,):
            version = await self._list_rlscalers(namespace, first)
            if first:
                self._versions[namespace] = version

    async def _list_rlscalers(self, namespace: str | None, first: bool = False) -> str:
        """Take in what there is; returns the list's resourceVersion."""
        known = {entry.uid for entry in self.registry}
        listed: set[str] = set()
        version = ""
        async for page in self.kube.pages(RLSCALERS, namespace, self.settings.shard):
            version = version or str((page.get("metadata") or {}).get("resourceVersion") or "")
            for body in page.get("items") or []:
                listed.add(body["metadata"]["uid"])
                change = self.registry.apply(body)
                self.budgets.note(change.entry)
                if first:
                    self.loop.expect(change.entry, self._since_s)
                elif change.added or change.changed:
                    self.loop.hasten(change.entry)
        # What a watch has added while the list was under way is not gone.
        kept = listed | ({entry.uid for entry in self.registry} - known)
        for entry in self.registry.retain(kept, namespace):
            self._dropped(entry)
        self.telemetry.managed.set(len(self.registry))
        return version

    async def listed(self, namespace: str | None) -> str:
        """The version from which a watch goes on where a list has ended: the first one's, or a new one's."""
        return self._versions.pop(namespace, "") or await self._list_rlscalers(namespace)

    async def _rivals(self, kind: Resource) -> Iterable[Json]:
        """Other autoscalers of a kind; none where they cannot be listed, which is said once."""
        try:
            lists = [await self.kube.list_all(kind, ns) for ns in self.settings.namespaces or (None,)]
        except (Forbidden, NotFound) as error:
            if self.seen_rivals.get(kind, True):
                level = logging.WARNING if isinstance(error, Forbidden) else logging.INFO
                logger.log(level, "%ss cannot be listed, so conflicts stay unseen: %s", kind.kind, error)
            self.seen_rivals[kind] = False
            return []
        self.seen_rivals[kind] = True
        return [body for bodies in lists for body in bodies]

    # What the HTTP server asks

    def alive(self) -> str | None:
        return self.loop.stuck() if self._listed else None

    def ready(self) -> str | None:
        if not self._leads and self.leadership is not None:
            return None  # ready to take over, which is all that can be asked of it
        if not self._listed:
            return "RLScalers have not been listed yet"
        if len(self.registry) and not self.loop.turns_done:
            return "no turn has been taken yet"
        return None

    def decisions(self, wanted: Filter) -> list[DecisionRecord]:
        return self._reconciler.log.find(wanted, wanted.limit)

    def leads(self) -> bool:
        return self._leads

    def entries(self) -> Iterable[Entry]:
        return self.registry

    def last(self, namespace: str, name: str) -> DecisionRecord | None:
        return self._reconciler.log.last(namespace, name)

    def news(self, number: int | None, wanted: Filter) -> News:
        log = self._reconciler.log
        return log.after(log.made if number is None else number, wanted, wanted.limit)

    def explain(self, namespace: str, name: str) -> Json | None:
        entry = self.registry.named(namespace, name)
        if entry is None:
            return None
        return from_operator(entry, self._reconciler.log, self._preparer.engine, self.clock)

    def exposition(self) -> Iterable[bytes]:
        return self.telemetry.pieces()


def handlers(operator: Operator) -> kopf.OperatorRegistry:
    """kopf's side of the operator."""
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings, operator.settings.shard)
        try:
            await operator.start()
        except asyncio.CancelledError:  # SIGTERM while the API server is still awaited
            await operator.stop()
            raise
        for kind in (kind for kind in RIVALS if operator.seen_rivals[kind]):
            watch_rivals(kind)
        if operator.budgets.served:
            kopf.on.event(GROUP, VERSION, BUDGETS, registry=registry)(budget)

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        await operator.stop()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        info = await connection(operator.kube.configuration)
        return open_session(info, RLSCALERS, operator.listed)

    def is_news(body: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> bool:
        return event["type"] == "DELETED" or not operator.registry.shows(body["metadata"])

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, when=is_news)
    async def rlscaler(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
        if type == "DELETED":
            operator.gone(body["metadata"]["uid"])
        else:
            metadata = _plain(body["metadata"])
            if operator.registry.knows(metadata):
                operator.seen({"metadata": metadata, "status": _plain(body.get("status") or {})})
            else:
                operator.seen(_plain(body))

    async def budget(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
        if type == "DELETED":
            operator.budgets.gone(body["metadata"]["uid"])
        else:
            operator.budgets.seen(_plain(body))

    def watch_rivals(kind: Resource) -> None:
        group, version = kind.group_version.split("/")

        @kopf.on.event(group, version, kind.plural, registry=registry)
        async def rival(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
            if type == "DELETED":
                operator.registry.rivals.forget(kind, body["metadata"]["uid"])
            else:
                operator.registry.rivals.apply(kind, _plain(body))

    return registry


def _configure(settings: kopf.OperatorSettings, shard: str) -> None:
    """No Events from kopf, no watching of CRDs and namespaces (so no RBAC for them), quick ends.

    Lists come in chunks, and the API server shows a shard nothing of the others.
    """
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 10.0
    settings.networking.enforce_retry_after = True
    settings.watching.chunk_size = LIST_CHUNK
    if shard:
        settings.watching.label_selectors[GROUP, VERSION, PLURAL] = shard
    settings.queueing.exit_timeout = 1.0
    settings.queueing.idle_timeout = 1.0
    settings.process.ultimate_exiting_timeout = 20.0
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()


async def connection(configuration: Any) -> kopf.ConnectionInfo:
    """kopf's credentials, from the client's own: one way to log in for both."""
    key = await configuration.get_api_key_with_prefix("BearerToken") or ""
    scheme, _, token = key.rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        username=configuration.username or None,
        password=configuration.password or None,
        scheme=scheme.title() or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
    )


def _plain(value: Any) -> Any:
    """kopf's read-only views as plain dicts and lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


async def serve(settings: Settings) -> int:
    """Run until SIGTERM, or until another operator leads; returns the exit code."""
    kube = await Kube.connect(settings.kubeconfig, settings.api_timeout, settings.api_concurrency)
    operator = Operator(settings, kube, process_began_s())
    await kopf.operator(
        registry=handlers(operator),
        # kopf would ask for the user's name, which an arbitrary UID does not have
        identity=cast(Any, socket.gethostname()),
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=list(settings.namespaces),
    )
    return 1 if operator.lost else 0


def run(settings: Settings) -> int:
    """The `operator` subcommand."""
    logs.configure(settings.log_level, settings.log_format)
    map_large_pieces()
    return asyncio.run(serve(settings))
