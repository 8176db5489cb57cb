"""The engine: N services, their histories and their guard, driven by anybody with readings.

The operator's loop, the simulators' environments and replays drive this same object; it knows
nothing of clusters, clocks or randomness. Rows are services; every call may name the rows that are due.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from controller.core import reading, restart
from controller.core.action import ACTION_SCHEMAS
from controller.core.decision import Decisions
from controller.core.fallback import Choice, choose
from controller.core.guard import Guarded, GuardInputs, guard, within_budget
from controller.core.guarding import guard_inputs
from controller.core.inquiry import Inquiry
from controller.core.memory import Memory
from controller.core.policy import Policy, ask
from controller.core.samples import BoolArray, FloatArray, IntArray, Samples
from controller.core.shadow import Shadow
from controller.core.spec import ServiceSpec
from controller.core.table import FALLBACK_HPA
from controller.core.view import View, take_samples
from controller.core.viewing import make_view, setting_maker

MOST_SPARE_ROWS = 1024
"""Rows that are made ahead of need: histories take some 9 kB a row."""

Budget = Callable[[IntArray, IntArray, IntArray], IntArray]
"""(rows, replicas that the guard would have, current replicas), int `[N]` each -> most replicas int `[N]`."""


class Engine:
    """Decides for N services at once: `step(now_s, samples)` -> `Decisions`.

    specs: one ServiceSpec or a list of N. policy: one policy for all, or a list of N.
    `budget`, where set, is asked last what the services of a batch may have; it must not raise.
    """

    def __init__(
        self, specs: ServiceSpec | Sequence[ServiceSpec] = (), policy: Policy | Sequence[Policy] = ()
    ) -> None:
        listed = [specs] if isinstance(specs, ServiceSpec) else list(specs)
        policies = list(policy) if isinstance(policy, Sequence) else [policy] * len(listed)
        if len(policies) != len(listed):
            raise ValueError(
                f"policy: {len(policies)} given, must be one, or one for each of {len(listed)} specs"
            )
        self.specs: list[ServiceSpec | None] = []
        self.budget: Budget | None = None
        self._policies: list[Policy] = []
        self._memory = Memory()
        self._table = self._memory.table
        self._shadow = Shadow(self._memory)
        self._grow(len(listed))
        for spec, one in zip(listed, policies, strict=True):
            self.add(spec, one)

    def __len__(self) -> int:
        return int(self._table.alive.sum())

    # Services

    def add(self, spec: ServiceSpec, policy: Policy) -> int:
        """Take on a service; returns its row."""
        free = np.flatnonzero(~self._table.alive)
        if len(free) == 0:
            self._grow(len(self._memory) + min(max(8, len(self._memory)), MOST_SPARE_ROWS))
            free = np.flatnonzero(~self._table.alive)
        row = int(free[0])
        self._table.alive[row] = True
        self._table.floor[row] = 0
        self.reset(np.array([row]))
        self.update(row, spec, policy)
        return row

    def update(self, row: int, spec: ServiceSpec, policy: Policy | None = None) -> None:
        """New settings, or a new policy, for a service; its history stays."""
        self.specs[row] = spec
        self._memory.configure(row, spec)
        if policy is not None:
            self._table.policy[row] = self._policy_index(policy)

    def remove(self, row: int) -> None:
        """Let a service go; its row may be given to another."""
        self._table.alive[row] = False
        self.specs[row] = None
        self.reset(np.array([row]))

    def reset(self, rows: IntArray | None = None) -> None:
        """Forget histories, events, holds and estimates of these rows (all by default); settings stay."""
        picked = self._rows(rows)
        self._memory.reset(picked)
        self._shadow.reset(picked)

    def set_floor(self, row: int, replicas: int) -> None:
        """The floor of the schedule that is in force for a service from now on; 0: none is."""
        self._table.floor[row] = replicas

    def hold(self, row: int, until_s: float) -> None:
        """Leave a service's replicas as they are until then (bounds excepted): somebody else has set them."""
        self._table.hold_until_s[row] = until_s

    # What is known of a service

    def policy_of(self, row: int) -> Policy:
        """The policy that decides for this row."""
        return self._policies[int(self._table.policy[row])]

    def capacity_rps(self, rows: IntArray | None = None) -> FloatArray:
        """Requests/s that one replica is believed to serve, `[N]`; NaN while unknown."""
        return self._memory.capacity.capacity_rps(self._rows(rows))

    def start_up_s(self, row: int) -> float:
        """Seconds from asking for a replica until it is ready: given, else learned, else 60."""
        return float(self._memory.start_up.seconds(np.array([row]))[0])

    def learned_start_up_s(self, rows: IntArray | None = None) -> FloatArray:
        """What was learned of the start-up time, `[N]` s; NaN while nothing was, whatever is given."""
        return self._memory.start_up.learned_s(self._rows(rows))

    def start_up_uncertainty(self, row: int) -> float:
        """Relative deviation of the learned start-up time in 0..1; 0 where given, 1 while unknown."""
        return float(self._memory.start_up.uncertainty(np.array([row]))[0])

    def last_desired(self, row: int) -> int:
        """What was last decided for a service, or restored; -1 before that."""
        return int(self._table.last_desired[row])

    def explain(self, row: int) -> Inquiry:
        """The last decision's policy, with what it saw, to be asked again with other features."""
        memory, table = self._memory, self._table
        rows = np.array([row])
        return Inquiry(
            policy=self.policy_of(row),
            features=memory.last_features(row),
            current=int(table.last_current[row]),
            load=float(table.last_load[row]),
            now_s=float(table.last_seen_s[row]),
            setting=setting_maker(memory, rows, memory.capacity.capacity_rps(rows)),
        )

    # Deciding

    def backfill(
        self, times_s: FloatArray, samples: Samples | FloatArray, rows: IntArray | None = None
    ) -> None:
        """Histories at start: request rates (requests/s) `[T, N]` at ascending times `[T]`; NaN missing."""
        picked = self._rows(rows)
        rates = np.asarray(
            samples.request_rate if isinstance(samples, Samples) else samples, dtype=np.float64
        )
        rates = rates.reshape(len(times_s), len(picked))
        times = np.asarray(times_s, dtype=np.float64)
        reading.backfill(self._memory, picked, times, np.where(rates >= 0, rates, np.nan))

    def step(
        self,
        now_s: float | FloatArray,
        samples: Samples,
        rows: IntArray | None = None,
        record: bool = True,
    ) -> Decisions:
        """Observe, ask the policies, guard. `record=False`: the caller reports scale events itself."""
        view = self.observe(now_s, samples, rows)
        recommended, unfamiliar = self.ask(view)
        return self.conclude(view, recommended, unfamiliar, record)

    def observe(self, now_s: float | FloatArray, samples: Samples, rows: IntArray | None = None) -> View:
        """Take in one reading of each row; the view is valid until the next reading."""
        picked = self._rows(rows)
        if len(samples) != len(picked):
            raise ValueError(f"samples: {len(samples)} services, must be {len(picked)}, one for each row")
        now = np.broadcast_to(np.asarray(now_s, dtype=np.float64), picked.shape)
        clean, rate = reading.take_in(self._memory, picked, now, samples)
        return make_view(self._memory, picked, now, clean, rate)

    def counted_otherwise(self, view: View, ready: FloatArray, current: FloatArray) -> View:
        """The view's reading with other counts of replicas, float `[N]`, such as pools in units of a machine.

        Nothing is taken in. Valid as long as the view itself.
        """
        samples, table = take_samples(view.samples, np.arange(len(view))), self._table
        samples.ready, samples.current = ready, current
        scale = np.where(table.has_rate[view.rows], self.capacity_rps(view.rows), 1.0)
        return make_view(self._memory, view.rows, view.now_s, samples, view.load * scale)

    def ask(self, view: View) -> tuple[FloatArray, BoolArray]:
        """What the services' policies recommend, float `[N]` (NaN: nothing), and where they call the
        observation unlike any in training, bool `[N]`."""
        return ask(self._policies, self._table.policy[view.rows], view)

    def decide(
        self,
        view: View,
        action: FloatArray,
        action_schema: str = "relative-change/v1",
        record: bool = True,
    ) -> Decisions:
        """The same with an action `[N, A]` from outside, such as a network in training."""
        columns = np.asarray(action, dtype=np.float64).reshape(len(view), -1)
        recommended = ACTION_SCHEMAS[action_schema].decode(columns, view.current, view.load)
        return self.conclude(view, recommended, None, record)

    def conclude(
        self,
        view: View,
        recommended: FloatArray,
        unfamiliar: BoolArray | None = None,
        record: bool = True,
        steadied: BoolArray | None = None,
    ) -> Decisions:
        """The guard over recommended replicas float `[N]` (NaN: nothing said) for the last reading's view.

        unfamiliar: observations unlike any in training, bool `[N]`; none by default. steadied:
        recommendations that have gone through stabilisation windows, a pool each; none by default.
        """
        strange = np.zeros(len(view), dtype=bool) if unfamiliar is None else np.asarray(unfamiliar, bool)
        memory, table, rows = self._memory, self._table, view.rows
        chosen = choose(table, self._policies, view, np.asarray(recommended, dtype=np.float64))
        inputs = guard_inputs(memory, view, strange, view.current, memory.flaps)
        if steadied is not None:
            inputs.steadied = steadied & (chosen.fallback == 0)
        guarded = guard(inputs, chosen.replicas, memory.behavior)
        if self.budget is not None:
            within_budget(inputs, guarded, np.asarray(self.budget(rows, guarded.desired, view.current)))
        table.last_desired[rows] = guarded.desired
        memory.keep(view)
        if record:
            memory.record(rows, view.now_s, view.current, guarded.desired)
        return self._decisions(view, chosen, inputs, guarded)

    def shadow(self, rows: IntArray, policy: Policy, view: View) -> IntArray:
        """Replicas int `[rows]` that `policy` would have these rows of the view at by now; not acted on.

        They have gone through the same guard, with a past of their own (`controller.core.shadow`), but not
        through the budget. Raises ValueError for a row that the view does not hold.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        place = {row: index for index, row in enumerate(view.rows.tolist())}
        missing = [row for row in wanted.tolist() if row not in place]
        if missing:
            raise ValueError(f"rows: {missing} are not in the view")
        whole = np.array_equal(wanted, view.rows)
        part = view if whole else view.take(np.array([place[row] for row in wanted.tolist()], dtype=np.int64))
        return self._shadow.desired(policy, part)

    # Scale events and restarts

    def record_scale(self, row: int, now_s: float, before: int, after: int) -> None:
        """Report a scale that took place, for the rate rules of `behavior`."""
        self._memory.record(np.array([row]), np.array([now_s]), np.array([before]), np.array([after]))

    def stabilization_state(self, row: int) -> dict[str, Any]:
        """What a restart must not forget, see `controller.core.restart`: times are seconds."""
        return restart.state_of(self._memory, row)

    def restore(self, row: int, now_s: float, state: Mapping[str, Any] | None, current_replicas: int) -> None:
        """Continue from `stabilization_state` after a restart."""
        restart.restore(self._memory, row, now_s, state, current_replicas)

    def _grow(self, services: int) -> None:
        if services <= len(self._memory):
            return
        self.specs += [None] * (services - len(self._memory))
        self._memory.grow(services)

    def _rows(self, rows: IntArray | None) -> IntArray:
        return np.flatnonzero(self._table.alive) if rows is None else np.asarray(rows, dtype=np.int64)

    def _policy_index(self, policy: Policy) -> int:
        for index, known in enumerate(self._policies):
            if known is policy:
                return index
        in_use = set(self._table.policy[self._table.alive].tolist())
        for index in range(len(self._policies)):
            if index not in in_use:
                self._policies[index] = policy
                return index
        self._policies.append(policy)
        return len(self._policies) - 1

    def _decisions(self, view: View, chosen: Choice, inputs: GuardInputs, guarded: Guarded) -> Decisions:
        names = [policy.name for policy in self._policies]
        owner = self._table.policy[view.rows]
        return Decisions(
            current_replicas=view.current,
            recommended_replicas=chosen.replicas,
            hpa_replicas=np.clip(view.hpa_replicas, inputs.min_replicas, inputs.max_replicas),
            desired_replicas=guarded.desired,
            fallback=chosen.fallback,
            metrics_outcome=view.samples.outcome.astype(np.int64),
            load=view.load,
            stages=guarded.stages,
            policy_names=lambda index: names[owner[index]],
            features=view.features if view.looked_at else None,
            paused_at_zero=inputs.at_zero_by_hand,
            unfamiliar=inputs.unfamiliar,
            usable=view.usable,
            decided_by=chosen.decided_by,
            awaited=chosen.awaited,
            formula_asked=self._table.fallback_code[view.rows] == FALLBACK_HPA,
        )
