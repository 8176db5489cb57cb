"""Jobs and servers in memory: what comes in, where it goes, why, and what came of it.

`engine.Engine` keeps one for the jobs it is sent and writes its changes to disk; `demo.Demo` keeps one for
each strategy. Nothing here reads a clock or waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from service import reasons
from service.errors import Conflict, NotFound
from service.jobs import FINISHED, QUEUED, REJECTED, RUNNING, WITHDRAWN, Job
from service.servers import Fleet
from service.strategies import Choice, Strategy
from service.totals import Totals
from sim.scheduling import SchedulingParams
from sim.scheduling.live import Demand, LiveCluster

FOREVER_S = 1e9
"""How long a job runs that nobody ends by itself: some 30 years."""
ACTIONS = {RUNNING: "place", QUEUED: "hold", REJECTED: "reject"}


@dataclass(frozen=True)
class Asked:
    """A job as it is sent. duration_s: how long it runs on a server of speed 1, unless it is ended before."""

    cpu: float
    memory: float
    estimate_s: float
    duration_s: float = FOREVER_S
    name: str = ""


@dataclass(frozen=True)
class Decision:
    """action: place, hold or reject. server: where, or None."""

    at_s: float
    job: int
    action: str
    server: str | None
    reason: str


@dataclass(frozen=True)
class Answer:
    """What became of a job as it came; choice: with the scores, None where nothing was to be chosen."""

    job: Job
    """As it was then; it may have ended since."""
    choice: Choice | None


class Cluster:
    """A fleet, its jobs and its queue. explain: with reasons and scores, which take their time."""

    def __init__(
        self,
        fleet: Fleet,
        known: Mapping[str, Strategy],
        params: SchedulingParams,
        seed: int = 0,
        explain: bool = True,
        kept_decisions: int = 20,
    ) -> None:
        self.fleet, self.explain, self.params = fleet, explain, params
        self.live = LiveCluster(fleet.scaled(), params, seed)
        self.totals: dict[str, Totals] = {name: Totals() for name in known}
        self.decisions: deque[Decision] = deque(maxlen=kept_decisions)
        self.next_id = 1
        self._known = known
        self._by_slot: dict[int, Job] = {}
        self._slots: dict[int, int] = {}
        self._changed: dict[int, Job] = {}
        self._held: set[int] = set()

    @property
    def clock_s(self) -> float:
        """Now."""
        return self.live.clock_s

    @property
    def capacity(self) -> float:
        """Cpu of all servers."""
        return sum(server.cpu for server in self.fleet.servers)

    def job(self, number: int) -> Job | None:
        """A job that waits or runs; None for others."""
        slot = self._slots.get(number)
        return None if slot is None else self._by_slot[slot]

    def active(self) -> Iterable[Job]:
        """Jobs that wait or run."""
        return self._by_slot.values()

    def waiting(self, most: int) -> list[Job]:
        """The first of the queue."""
        return [self._by_slot[slot] for slot in self.live.waiting[:most]]

    def changes(self) -> list[Job]:
        """Jobs that have changed since the last call."""
        found = list(self._changed.values())
        self._changed.clear()
        return found

    def submit(self, asked: Asked, strategy: str, clock_s: float) -> Answer:
        """A job comes at `clock_s`, which is no less than before."""
        self.advance(clock_s)
        slot = self.live.submit(self._demand(asked))
        job = Job(self.next_id, asked.name, asked.cpu, asked.memory, asked.estimate_s, strategy, self.clock_s)
        self.next_id += 1
        self._by_slot[slot], self._slots[job.id] = job, slot
        self._changed[job.id] = job
        self.totals[strategy].came += 1
        if self.live.offered == slot:
            choice = self._decide()
            return Answer(replace(job), choice)
        if self.live.state(slot) == "rejected":
            self._turned_away(slot, job)
        else:
            job.reason = self._why_waiting(job, slot) if self.explain else ""
            self._note(job)
        return Answer(replace(job), None)

    def advance(self, clock_s: float) -> None:
        """Let time pass; jobs that end give room to waiting ones."""
        while (slot := self.live.pass_until(max(clock_s, self.clock_s))) >= 0:
            self._ended(slot, self.clock_s, "estimate")
            self._decide_all()

    def finish(self, number: int, clock_s: float) -> Job:
        """A running job has ended, or a waiting one is withdrawn. Raises NotFound for a job that is gone."""
        self.advance(clock_s)
        slot = self._slots.get(number)
        if slot is None:
            raise NotFound(f"job {number} does not wait or run")
        job = self._by_slot[slot]
        if job.status == QUEUED:
            self.live.withdraw(slot)
            job.status, job.ended_s, job.ended_by = WITHDRAWN, self.clock_s, "withdrawal"
            self.totals[job.strategy].withdrawn += 1
            self._gone(slot, job)
            return job
        self.live.end_now(slot)
        self._ended(slot, self.clock_s, "report")
        self._decide_all()
        return job

    def restore(self, jobs: Iterable[Job], memory: Mapping[str, Any], clock_s: float) -> None:
        """Jobs that waited or ran, as they were kept, into an empty cluster.

        Raises Conflict where a server is gone or too small for what runs on it.
        """
        places = {name: place for place, name in enumerate(self.fleet.names)}
        kept = list(jobs)
        running = [job for job in kept if job.status == RUNNING]
        waiting = [job for job in kept if job.status == QUEUED]
        self._check_room(running)
        by_size = self.params.order == "size"
        waiting.sort(key=lambda job: (job.estimate_s, job.id) if by_size else (0.0, job.id))
        slots = self.live.restore(
            clock_s,
            memory,
            [
                (self._again(job), job.submitted_s, job.started_s or 0.0, places[str(job.server)])
                for job in running
            ],
            [(self._again(job), job.submitted_s) for job in waiting],
        )
        for slot, job in zip(slots, running + waiting, strict=True):
            self._by_slot[slot], self._slots[job.id] = job, slot

    def _check_room(self, running: Iterable[Job]) -> None:
        """Raises Conflict where the servers do not hold what runs on them."""
        has = {
            server.name: [server.cpu, server.memory, self.params.max_jobs] for server in self.fleet.servers
        }
        for job in running:
            left = has.get(str(job.server))
            if left is None:
                raise Conflict(f"servers: job {job.id} runs on {job.server!r}, which is not among them")
            for place, amount in enumerate((job.cpu, job.memory, 1)):
                left[place] -= amount
            if min(left) < -1e-6:
                raise Conflict(f"servers: {job.server} is too small for the jobs that run on it")

    def _again(self, job: Job) -> Demand:
        return self._demand(Asked(job.cpu, job.memory, job.estimate_s, self.run_s(job.estimate_s)))

    def run_s(self, estimate_s: float) -> float:
        """How long a restored job runs by itself; `engine` sets it."""
        return estimate_s

    def _demand(self, asked: Asked) -> Demand:
        cpu, memory = asked.cpu / self.fleet.unit_cpu, asked.memory / self.fleet.unit_memory
        return Demand(cpu, memory, asked.estimate_s, asked.duration_s)

    def _decide_all(self) -> None:
        while self.live.offered >= 0:
            self._decide()

    def _decide(self) -> Choice:
        """Decide on the offered job."""
        slot = self.live.offered
        job, arrays = self._by_slot[slot], self.live.arrays
        choice = self._known[job.strategy].choose(self.live, self.explain)
        if self.explain:
            job.reason = (
                reasons.placed(job.strategy, choice, choice.choice, self.fleet, arrays)
                if choice.choice < len(self.fleet)
                else reasons.held(job.strategy, choice, arrays)
            )
        self.live.decide(choice.choice)
        if self.live.state(slot) == "running":
            job.status, job.server = RUNNING, self.fleet.names[int(arrays.server[0, slot])]
            job.started_s = self.clock_s
            self._changed[job.id] = job
            self._note(job)
        elif self.live.state(slot) == "rejected":
            self._turned_away(slot, job)
        else:
            self._note(job)
        return choice

    def _why_waiting(self, job: Job, slot: int) -> str:
        behind = self.live.waiting.index(slot)
        if self.params.order == "strict" and behind:
            return reasons.in_line(behind)
        return reasons.no_room(job, self.fleet, self.live.arrays, behind)

    def _turned_away(self, slot: int, job: Job) -> None:
        job.status, job.ended_s = REJECTED, self.clock_s
        job.reason = reasons.rejected(job, self.fleet, self.params.queue_limit)
        self.totals[job.strategy].rejected += 1
        self._note(job)
        self._gone(slot, job)

    def _ended(self, slot: int, clock_s: float, by: str) -> None:
        job, speed = self._by_slot[slot], float(self.live.arrays.speed[0, self._place(slot)])
        assert job.started_s is not None
        due = job.started_s + float(self.live.arrays.duration_s[0, slot]) / speed
        # who was away when it ended knows when that was all the same
        job.ended_s = max(min(clock_s, due), job.started_s)
        job.status, job.ended_by = FINISHED, by
        self.totals[job.strategy].finished_one(job, speed)
        self._gone(slot, job)

    def _place(self, slot: int) -> int:
        return int(self.live.arrays.server[0, slot])

    def _gone(self, slot: int, job: Job) -> None:
        self._changed[job.id] = job
        del self._by_slot[slot], self._slots[job.id]
        self._held.discard(job.id)
        self.live.release(slot)

    def _note(self, job: Job) -> None:
        """Remember a decision; that a job is held is told once."""
        if job.status == QUEUED and job.id in self._held:
            return
        (self._held.add if job.status == QUEUED else self._held.discard)(job.id)
        self.decisions.appendleft(Decision(self.clock_s, job.id, ACTIONS[job.status], job.server, job.reason))
