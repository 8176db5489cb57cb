"""The first half of a turn: what an RLScaler's targets and signals are now.

RLScalers that read the same Prometheus are observed together (`Party`): what their queries have in common is
asked once. Whoever needs requests of their own, for a target that is not watched or a query that somebody
wrote, is observed in a task of their own, and nobody waits for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from controller.actuation.apply import scale_trouble
from controller.actuation.scale import Scaler
from controller.actuation.target import Target
from controller.api.constants import Reason
from controller.case import Case
from controller.core import Outcome
from controller.errors import KubernetesError
from controller.logs import about
from controller.metrics import MetricsSource, SignalReading, load_reading
from controller.metrics.source import ReadingRound
from controller.outside import Outsiders
from controller.pooldeciding import PoolDecider
from controller.registry import Entry
from controller.telemetry import Telemetry
from controller.trouble import Trouble
from controller.work import Preparer, Work

logger = logging.getLogger(__name__)

BREATH = 200
"""Cases after which whatever else the event loop has to do gets a chance."""


@dataclass
class Party:
    """Cases that read one Prometheus. `shared` take no request of their own, as far as is known before."""

    shared: list[Case]
    alone: list[Case]
    round: ReadingRound | None = None


class Observer:
    """Fills in what cases observe; an RLScaler's failure stays its own."""

    def __init__(
        self,
        preparer: Preparer,
        scaler: Scaler,
        outsiders: Outsiders,
        telemetry: Telemetry,
        pools: PoolDecider,
    ) -> None:
        self._preparer, self._scaler, self._telemetry = preparer, scaler, telemetry
        self._outsiders, self._pools = outsiders, pools

    def prepared(self, case: Case) -> bool:
        """Whether the case can be observed without being prepared first."""
        entry = case.entry
        if entry.trouble is not None or entry.spec is None or entry.paused:
            return True
        case.work = self._preparer.current(entry)
        return case.work is not None

    async def prepare(self, case: Case) -> None:
        """Policy, metrics and a row in the engine; never raises."""
        try:
            case.work = await self._preparer.prepare(case.entry)
        except Exception as error:
            self.unexpected(case, error)

    def parties(self, cases: Iterable[Case]) -> list[Party]:
        """By the Prometheus that they read; begins to read what each party has in common."""
        by_source: dict[MetricsSource | None, list[Case]] = {}
        for case in cases:
            feed = case.work.feed if case.work is not None else None
            by_source.setdefault(feed.source if feed is not None else None, []).append(case)
        return [self._party(source, members) for source, members in by_source.items()]

    def _party(self, source: MetricsSource | None, cases: list[Case]) -> Party:
        if source is None:
            return Party([], cases)
        feeds = [case.work.feed for case in cases if case.work is not None and case.work.feed is not None]
        of_pools = [queries for case in cases for queries in self._pools.queries(case)]
        party = Party([], [], source.round([*(feed.queries for feed in feeds), *of_pools]))
        for case in cases:
            case.round = party.round
            (party.shared if self._quick(case) else party.alone).append(case)
        return party

    def _quick(self, case: Case) -> bool:
        work = case.work
        return (
            work is not None
            and work.restored
            and work.feed is not None
            and work.feed.queries.shared
            and all(self._scaler.known(ref) is not None for ref in case.entry.targets)
        )

    async def share(self, party: Party) -> tuple[list[Case], list[Case]]:
        """(those that were observed, those that need requests of their own after all) of `party.shared`."""
        assert party.round is not None
        await party.round.settle()
        outcomes: Counter[tuple[str, Outcome]] = Counter()
        done: list[Case] = []
        rest: list[Case] = []
        for number, case in enumerate(party.shared, start=1):
            (done if self._shared(case, party.round, outcomes) else rest).append(case)
            if number % BREATH == 0:
                await asyncio.sleep(0)
        self._count(outcomes)
        return done, rest

    def _shared(self, case: Case, together: ReadingRound, outcomes: Counter[tuple[str, Outcome]]) -> bool:
        """Fill in a case from what is known; False where something is missing."""
        work = case.work
        assert work is not None
        assert work.feed is not None
        try:
            readings = together.known(work.feed.queries)
        except Exception as error:
            self.unexpected(case, error)
            return True
        targets = [self._scaler.known(ref) for ref in case.entry.targets]
        if readings is None or None in targets:
            return False
        known = tuple(target for target in targets if target is not None)
        if self._outsiders.suspects(case.entry, known) or not self._pools.take(case, together):
            return False
        if not work.backfilled and load_reading(readings).outcome is Outcome.OK:
            self._preparer.ask_history(case.entry, work)
        case.readings = readings
        case.targets = known
        outcomes.update((signal, reading.outcome) for signal, reading in readings.items())
        return True

    async def observe(self, case: Case) -> None:
        """Read the case's targets and signals by whatever requests it takes; never raises."""
        try:
            await self._observe(case)
        except KubernetesError as error:
            self._telemetry.api_errors.labels(type(error).__name__).inc()
            case.trouble = scale_trouble(error, Reason.FAILED_GET_SCALE)
            case.error, case.retry_after_s = "kubernetes", error.retry_after_s
        except Exception as error:
            self.unexpected(case, error)

    async def _observe(self, case: Case) -> None:
        entry, work = case.entry, case.work
        if entry.trouble is not None or entry.spec is None:
            return
        if entry.paused:
            if entry.work is not None:
                entry.work.restored = False
            case.targets = await self._read_targets(entry)
            return
        if work is None:
            return
        signals = asyncio.ensure_future(self._read_signals(case, work))
        try:
            case.targets = await self._read_targets(entry)
        finally:
            case.readings = await signals
        if not work.restored:
            await self._preparer.restore(entry, work, case.current)
        elif not work.backfilled and load_reading(case.readings).outcome is Outcome.OK:
            self._preparer.ask_history(entry, work)

    async def _read_targets(self, entry: Entry) -> tuple[Target, ...]:
        if len(entry.targets) == 1:
            found: tuple[Target, ...] = (await self._scaler.read(entry.targets[0]),)
        else:
            found = tuple(await asyncio.gather(*(self._scaler.read(ref) for ref in entry.targets)))
        return await self._outsiders.look(entry, found) if self._outsiders.suspects(entry, found) else found

    async def _read_signals(self, case: Case, work: Work) -> dict[str, SignalReading]:
        if work.feed is None:
            return {}
        reader = case.round if case.round is not None else work.feed.source
        queries = self._pools.queries(case)
        readings, *of_pools = await asyncio.gather(
            *(reader.read(each) for each in (work.feed.queries, *queries))
        )
        self._pools.seen(case, of_pools)
        self._count(Counter((signal, reading.outcome) for signal, reading in readings.items()))
        return readings

    def _count(self, outcomes: Counter[tuple[str, Outcome]]) -> None:
        for (signal, outcome), count in outcomes.items():
            self._telemetry.queries.labels(signal, outcome.reason).inc(count)

    def unexpected(self, case: Case, error: Exception) -> None:
        """A bug of ours: said in the object's status and in the log, and survived."""
        entry = case.entry
        logger.error(
            "%s/%s: unexpected error", entry.namespace, entry.name, exc_info=error, extra=about(entry)
        )
        self._telemetry.tick_errors.inc()
        case.trouble = Trouble(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
        case.error = "internal"
