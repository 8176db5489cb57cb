"""The fluid physics, its metrics, core's features and the guard in torch, differentiable in the actions.

Numbers are those of `sim.physics` in units of one replica's capacity, with thirds of a control step (5 s) in
place of seconds, expected shares of start-up times in place of drawn ones, and the mean capacity of replicas.
A decision is rounded up straight-through: forward it is whole, backward the rounding is not there. Gradients
run from costs and violations through pending and ready replicas, the backlog, and the guard's stabilisation
window; not through the observations (the network is asked without a graph, see `learner`).

`tests/training/test_analytic.py` holds it to `sim.replay`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from controller.core import OBSERVATION_SCHEMA
from controller.core import observation as obs
from controller.core.action import MAX_LOG_HEADROOM
from controller.core.capacity import (
    CORRECTION_DOWN_PER_MINUTE,
    CORRECTION_RANGE,
    CORRECTION_UP_PER_MINUTE,
    DOUBTFUL_LOAD,
)
from controller.core.reading import VIOLATION_MEMORY_S
from sim.latency import RHO_MAX
from training.analytic.traffic import (
    ACTION_FEATURES,
    CONSTANTS,
    GIVEN_FEATURES,
    RATE_SPAN_S,
    SCRAPE_S,
    START_UP_SLOTS,
    SUB_STEPS,
    Pool,
)

Tensor = torch.Tensor
TOLERANCE = 0.1
RING = 14
"""Steps that metrics are made of: 70 s at the shortest step."""
SMALL_CHANGE = 0.03
"""Share of the replicas below which a change hardly counts as a reversal."""
PAST = 59
"""Earlier recommendations that a window of 300 s at 5 s still counts."""
_GIVEN = torch.tensor([obs.COLUMN[name] for name in GIVEN_FEATURES])
_MADE = {name: obs.COLUMN[name] for name in ACTION_FEATURES}
_LOW, _HIGH = torch.from_numpy(OBSERVATION_SCHEMA.low), torch.from_numpy(OBSERVATION_SCHEMA.high)


@dataclass
class State:
    """B services between two decisions; tensors `[B]` unless said. pending: replicas by the third of a step
    in which they begin to serve `[B, START_UP_SLOTS]`. past: earlier recommendations, newest first
    `[PAST, B]`. grown: replicas added in the last two steps, newest first. shown: what the last steps came
    to, newest first, for the metrics, `[5, B]` each. since_up, since_down: seconds."""

    ready: Tensor
    pending: Tensor
    backlog: Tensor
    past: Tensor
    grown: list[Tensor]
    shown: list[Tensor]
    violation: Tensor
    correction: Tensor
    since_up: Tensor
    since_down: Tensor
    direction: Tensor

    def detached(self) -> State:
        """The same without a graph."""
        return self._each(lambda _, value, __: value.detach(), self)

    def where(self, renewed: Tensor, fresh: State) -> State:
        """`fresh` in the rows where `renewed` `[B]` is True."""

        def pick(name: str, old: Tensor, new: Tensor) -> Tensor:
            return torch.where(renewed[:, None] if name == "pending" else renewed, new, old)

        return self._each(pick, fresh)

    def _each(self, change: Callable[[str, Tensor, Tensor], Tensor], other: State) -> State:
        values: dict[str, Any] = {}
        for name, value in vars(self).items():
            theirs = getattr(other, name)
            if isinstance(value, list):
                values[name] = [change(name, one, their) for one, their in zip(value, theirs, strict=True)]
            else:
                values[name] = change(name, value, theirs)
        return State(**values)


@dataclass(frozen=True)
class Outcome:
    """What one step came to, `[B]`: replica-steps billed; late: replica-steps of requests that violate (load
    times share); soft: the same by the smooth measure; arrived likewise; changed replicas; flap: 0
    or 1, whether the change reverses the last; reversed: the same by the size of the change."""

    billed: Tensor
    late: Tensor
    soft: Tensor
    arrived: Tensor
    changed: Tensor
    flap: Tensor
    reversed: Tensor


class Twin:
    """B services that follow episodes of a pool: `observe` and `step` in turn, at each row's own position."""

    def __init__(self, pool: Pool, rows: Tensor) -> None:
        """rows: int64 `[B]`, which episode each service lives through."""
        self._pool = pool
        self.rows = rows
        self.take(rows)

    def take(self, rows: Tensor) -> None:
        """Follow these episodes from now on."""
        self.rows = rows
        self._constant = {name: self._pool.constants[rows, column] for column, name in enumerate(CONSTANTS)}
        self._start_up = self._pool.start_up[rows]
        base = self._constant["burstiness"] * self._constant["base_s"]
        self._wait_s = base[:, None]
        self._slack_s = (self._constant["slo_s"] - self._constant["base_s"])[:, None]
        self._step_s = step_s = self._constant["step_s"]
        self._sub_s = (step_s / SUB_STEPS)[:, None]
        self._drain_steps = self._constant["drain_s"] / step_s
        self._memory = 1.0 - torch.exp(-step_s / VIOLATION_MEMORY_S)
        ages_s = torch.arange(PAST + 1)[:, None] * step_s
        self._counts = torch.where((ages_s == 0) | (self._constant["window_s"] > ages_s), 0.0, -torch.inf)
        # rate rules look back 15 s
        self._recent = [(age * step_s < SCRAPE_S).float() for age in (1, 2)]
        begins = torch.arange(RING)[:, None] * step_s
        late = self._constant["lag_s"]
        overlap = torch.minimum(begins + step_s, late + RATE_SPAN_S) - torch.maximum(begins, late)
        # a window of three scrapes that ends between two steps: the outer steps count in part
        self._in_window = (overlap.clamp(min=0.0) / RATE_SPAN_S)[:, None]

    def constant(self, name: str) -> Tensor:
        """One of CONSTANTS, `[B]`."""
        return self._constant[name]

    def fresh(self) -> State:
        """The beginning of every row's episode: some ready replicas, nothing pending."""
        ready = self._constant["first_replicas"].clone()
        zero = torch.zeros_like(ready)
        load = self._pool.rates[self.rows, 0, 0]
        used = torch.minimum(load, ready)
        latency = self._constant["base_s"].clone()
        quiet = torch.stack([latency * used, used, used, zero, zero])
        return State(
            ready=ready,
            pending=torch.zeros(len(ready), START_UP_SLOTS),
            backlog=zero,
            past=torch.cat([ready[None], torch.full((PAST - 1, len(ready)), -torch.inf)]),
            grown=[zero, zero],
            shown=[quiet for _ in range(RING)],
            violation=zero,
            correction=torch.ones_like(ready),
            since_up=torch.full_like(ready, 1e6),
            since_down=torch.full_like(ready, 1e6),
            direction=zero,
        )

    @torch.no_grad()
    def observe(self, state: State, at: Tensor, preference: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features `[B, F]` as core makes them, and the metrics behind them; moves the running judgements.

        at: int64 `[B]`, each row's step in its episode. preference: 0..1.
        """
        constant = self._constant
        shown = self._metrics(state)
        self._judge(state, shown, self._pool.load[self.rows, at])
        load = self._pool.load[self.rows, at] / state.correction
        provisioned = state.ready + state.pending.sum(1)
        ready = torch.where(constant["knows_ready"] > 0, state.ready, provisioned)
        log_load = torch.log(load.clamp(min=obs.MIN_LOAD))
        made = {
            "provisioned_over_load": torch.log(provisioned.clamp(min=0.5)) - log_load,
            "ready_over_load": torch.log(ready.clamp(min=0.5)) - log_load,
            "pending_share": (provisioned - ready) / provisioned.clamp(min=1.0),
            "headroom_to_max": torch.log(constant["max_replicas"] / provisioned.clamp(min=1.0)),
            "headroom_to_min": torch.log(
                provisioned.clamp(min=1.0) / constant["min_replicas"].clamp(min=1.0)
            ),
            "granularity": 1.0 / (1.0 + load),
            # what is not known is 0, as in core
            "latency_over_slo": constant["knows_latency"]
            * torch.log((shown["latency"] / constant["slo_s"]).clamp(min=1e-3)),
            "latency_known": constant["knows_latency"],
            "violation_recent": state.violation,
            "error_ratio": constant["knows_errors"] * shown["errors"].clamp(min=0.0).sqrt(),
            "utilisation": constant["knows_utilisation"] * shown["utilisation"],
            "capacity_check": torch.where(
                (constant["knows_utilisation"] * shown["utilisation"] > 0.05) & (load > obs.MIN_LOAD),
                torch.log((shown["utilisation"] * ready).clamp(min=1e-6) / load.clamp(min=1e-6)),
                0.0,
            ),
            "backlog": constant["knows_in_flight"]
            * torch.log1p(
                shown["in_flight"] / (ready.clamp(min=1.0) * constant["believed"] * state.correction)
            ),
            "since_scale_up": torch.exp(-state.since_up / 300.0),
            "since_scale_down": torch.exp(-state.since_down / 300.0),
            "preference": preference,
        }
        features = torch.empty(len(load), OBSERVATION_SCHEMA.size)
        features[:, _GIVEN] = self._pool.given[self.rows, at]
        for name, column in _MADE.items():
            features[:, column] = made[name]
        shown["load"] = load
        return torch.minimum(torch.maximum(features, _LOW), _HIGH), shown

    def step(
        self, state: State, at: Tensor, action: Tensor, shown: dict[str, Tensor]
    ) -> tuple[State, Outcome]:
        """Carry out a hold band `[B, 2]` behind the guard, and let a control step pass."""
        with torch.no_grad():
            floor = self._formula(state, shown)
            base = shown["load"].clamp(min=obs.MIN_LOAD)
        provisioned = state.ready + state.pending.sum(1)
        wanted = self._recommend(provisioned, base, action)
        wanted = torch.maximum(wanted, floor)
        desired = self._guarded(state, provisioned, wanted)
        ready, pending, removed, changed = self._scale(state, provisioned, desired)
        return self._advance(state, at, wanted, desired, ready, pending, removed, changed)

    def _recommend(self, provisioned: Tensor, base: Tensor, action: Tensor) -> Tensor:
        low = action[:, 0].clamp(-MAX_LOG_HEADROOM, MAX_LOG_HEADROOM)
        high = torch.maximum(low, action[:, 1].clamp(-MAX_LOG_HEADROOM, MAX_LOG_HEADROOM))
        floor, ceiling = round_up(base * torch.exp(low)), round_up(base * torch.exp(high))
        return torch.minimum(torch.maximum(provisioned, floor), ceiling)

    def _formula(self, state: State, shown: dict[str, Tensor]) -> Tensor:
        """The HPA's replicas where the objective is in danger (the guard's floor), else 0."""
        current = state.ready + state.pending.sum(1)
        ready = torch.where(self._constant["knows_ready"] > 0, state.ready, current)
        by_load = shown["load"] / ready.clamp(min=1.0)
        used = torch.where(self._constant["knows_utilisation"] > 0, shown["utilisation"], by_load)
        usage = used / self._constant["target"]
        whole = torch.floor(ready + 0.5).clamp(min=1.0)
        unready = (torch.floor(current + 0.5) - whole).clamp(min=0.0)
        counted = torch.where(usage > 1.0, whole + unready, whole)
        ratio = usage * whole / counted
        proposed = torch.ceil(ratio * counted - 1e-4)
        held = ((ratio - 1.0).abs() <= TOLERANCE) | ((usage > 1.0) & (unready > 0) & (proposed < current))
        formula = torch.where(held, current, proposed)
        return torch.where(self._too_slow(shown), formula, 0.0)

    def _too_slow(self, shown: dict[str, Tensor]) -> Tensor:
        """Whether the objective is seen to fail, `[B]`."""
        return (shown["latency"] > self._constant["slo_s"]) & (self._constant["knows_latency"] > 0)

    def _guarded(self, state: State, current: Tensor, wanted: Tensor) -> Tensor:
        highest = (torch.cat([wanted[None], state.past]) + self._counts).amax(0)
        desired = torch.minimum(torch.maximum(current, wanted), highest)
        before = current - state.grown[0] * self._recent[0] - state.grown[1] * self._recent[1]
        before = torch.minimum(before, current).clamp(min=0.0)
        desired = torch.minimum(desired, torch.maximum(before + 4.0, 2.0 * before).clamp(min=current))
        return torch.minimum(
            torch.maximum(desired, self._constant["min_replicas"]), self._constant["max_replicas"]
        )

    def _scale(self, state: State, current: Tensor, desired: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        change = desired - current
        gone = (-change).clamp(min=0.0)
        behind = state.pending.flip(1).cumsum(1).flip(1)
        waiting = behind[:, 0]
        from_pending = torch.minimum(gone, waiting)
        left = (behind - from_pending[:, None]).clamp(min=0.0)
        kept = left - torch.nn.functional.pad(left[:, 1:], (0, 1))
        pending = kept + change.clamp(min=0.0)[:, None] * self._start_up
        removed = gone - from_pending
        return state.ready - removed, pending, removed, change

    def _advance(
        self,
        state: State,
        at: Tensor,
        wanted: Tensor,
        desired: Tensor,
        ready: Tensor,
        pending: Tensor,
        removed: Tensor,
        change: Tensor,
    ) -> tuple[State, Outcome]:
        constant = self._constant
        rates, arrivals = self._pool.rates[self.rows, at], self._pool.arrivals[self.rows, at]
        serving = ready[:, None] + pending[:, :SUB_STEPS].cumsum(1)
        capacity = serving.clamp(min=0.3)
        timeout = constant["timeout_s"][:, None]
        work = self._sub_s * (arrivals - capacity)
        longest = timeout * capacity
        before, highs, lows, drops = state.backlog, [], [], []
        for part in range(SUB_STEPS):
            bare = before + work[:, part]
            full = bare.clamp(min=0.0)
            after = torch.minimum(full, longest[:, part])
            highs.append(torch.maximum(before, after))
            lows.append(torch.minimum(before, bare))
            drops.append(full - after)
            before = after
        high, low = torch.stack(highs, 1), torch.stack(lows, 1)
        # the backlog moves in a straight line: while it alone is too long, every request is late
        above = ((high - self._slack_s * capacity) / (high - low + 1e-3)).clamp(0.0, 1.0)
        low = low.clamp(min=0.0)
        middle = 0.5 * (high + low)
        queued = torch.minimum(middle / capacity, timeout)
        rho = ((rates + low) / capacity).clamp(1e-6, RHO_MAX)
        log_waits = ((2.0 * (capacity + 1.0)).sqrt() - 1.0) * torch.log(rho)
        decay = capacity.sqrt() * (1.0 - rho) / self._wait_s
        waited = torch.exp((log_waits - decay * (self._slack_s - low / capacity)).clamp(max=0.0))
        late = above + (1.0 - above) * waited
        late_load = (arrivals * late).mean(1)
        soft = (arrivals * soft_share(rates, middle, capacity)).mean(1)
        with torch.no_grad():
            step = self._shown(arrivals, serving, capacity, queued, log_waits, decay, before, drops)
            direction = torch.sign(change)
            flap = (direction * state.direction < 0).float()
            scale = 1.0 / (SMALL_CHANGE * desired).clamp(min=1.0)
            up, down = change > 0.5, change < -0.5
        following = State(
            ready=serving[:, -1],
            pending=torch.nn.functional.pad(pending[:, SUB_STEPS:], (0, SUB_STEPS)),
            backlog=before,
            past=torch.cat([wanted[None], state.past[:-1]]),
            grown=[change.detach().clamp(min=0.0), state.grown[0]],
            shown=[step, *state.shown[:-1]],
            violation=state.violation,
            correction=state.correction,
            since_up=torch.where(up, 0.0, state.since_up) + self._step_s,
            since_down=torch.where(down, 0.0, state.since_down) + self._step_s,
            direction=torch.where(direction != 0, direction, state.direction),
        )
        billed = desired + removed * self._drain_steps
        return following, Outcome(
            billed,
            late_load,
            soft,
            arrivals.mean(1),
            change.abs(),
            flap,
            flap * (1.0 - torch.exp(-change.abs() * scale)),
        )

    def _shown(
        self,
        arrivals: Tensor,
        serving: Tensor,
        capacity: Tensor,
        queued: Tensor,
        log_waits: Tensor,
        decay: Tensor,
        backlog: Tensor,
        drops: list[Tensor],
    ) -> Tensor:
        """What metrics will be made of, `[5, B]`: latency x served, served, used, dropped, in flight."""
        constant = self._constant
        base = constant["base_s"][:, None]
        dropped = torch.stack(drops, 1) / self._sub_s
        served = torch.minimum(capacity, arrivals + queued * capacity / self._sub_s)
        waits = (log_waits + constant["percentile_log"][:, None]).clamp(min=0.0) / decay
        latency = torch.minimum(base + queued + waits, base + constant["timeout_s"][:, None])
        idle = constant["idle"][:, None]
        used = serving * (idle + (1.0 - idle) * (served / capacity).clamp(max=1.0))
        in_flight = backlog + served[:, -1] * (base[:, 0] + torch.exp(log_waits[:, -1]) / decay[:, -1])
        means = torch.stack([latency * served, served, used, dropped]).mean(2)
        return torch.cat([means, in_flight[None]])

    def _metrics(self, state: State) -> dict[str, Tensor]:
        """Latency (s), utilisation, errors and requests in flight as the metrics show them."""
        latency, served, used, dropped, _ = (torch.stack(state.shown) * self._in_window).sum(0)
        return {
            "latency": latency / served.clamp(min=1e-6),
            "errors": dropped / (served + dropped).clamp(min=1e-6),
            "utilisation": used / state.ready.clamp(min=1.0),
            "in_flight": state.shown[0][4],
        }

    def _judge(self, state: State, shown: dict[str, Tensor], load: Tensor) -> None:
        """Violation memory and the correction of a doubtful capacity, as the engine keeps them."""
        slo = self._constant["slo_s"]
        known = self._constant["knows_latency"] > 0
        slow = self._too_slow(shown)
        state.violation = state.violation + self._memory * (slow.float() - state.violation)
        sees_ready = self._constant["knows_ready"] > 0
        waiting = state.pending.sum(1)
        ready = torch.where(sees_ready, state.ready, state.ready + waiting)
        share = load / (ready.clamp(min=1.0) * state.correction)
        settled = (waiting < 0.5) | ~sees_ready
        doubtful = slow & settled & (share > DOUBTFUL_LOAD[0]) & (share < DOUBTFUL_LOAD[1])
        healthy = known & (shown["latency"] < 0.8 * slo)
        minutes = self._step_s / 60.0
        exponent = torch.where(doubtful, -CORRECTION_DOWN_PER_MINUTE * minutes, torch.zeros_like(minutes))
        exponent = torch.where(healthy, CORRECTION_UP_PER_MINUTE * minutes, exponent)
        state.correction = (state.correction * torch.exp(exponent)).clamp(*CORRECTION_RANGE)


def soft_share(rates: Tensor, backlog: Tensor, capacity: Tensor) -> Tensor:
    """Share of the load that is over 90 % of the capacity: unlike the share that is late, it tells deep
    overload from deeper."""
    load = rates + backlog / 15.0
    return (1.0 - 0.9 * capacity / load.clamp(min=1e-3)).clamp(min=0.0)


def round_up(values: Tensor) -> Tensor:
    """Rounded up; to the gradient, as if it were not."""
    return values + (torch.ceil(values) - values).detach()
