"""The update: unroll B services for some steps, differentiate costs and violations, move the weights.

The network is asked without a graph while services live through the unroll; its actions are leaves of the
physics' graph. Their gradients then go through the network in one batch, which is several times faster than
differentiating the network step by step, and allows each action's gradient to be bounded.

The loss is that of the comparison at equal violations (`training.frontier`), the logarithm of cost plus a
price times the share of requests that violate: a step costs billed replicas over what the service usually
needs at this price, and violations count as shares of its usual traffic. The price is 10^w, w rising with the
preference, which is drawn evenly for each service.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from controller.core import OBSERVATION_SCHEMA
from sim.scenario import ScenarioConfig
from training.analytic.policy import BEYOND, BandNetwork
from training.analytic.traffic import Episode, Pool, draw_episode
from training.analytic.twin import Outcome, State, Twin
from training.config import Preset
from training.recordings import Recordings

CHUNK = 2048
NORM_RATE = 0.02
"""Of the running mean of gradient norms, a step of Adam."""
DIFFICULTIES, PRICES = 6, 8
Tensor = torch.Tensor


@dataclass(frozen=True)
class Prices:
    """What a step is paid in, `[B]`. violation: of a share of the usual traffic. usual: what such services
    cost over the ideal. mean_load: replicas. step: how many steps are 15 s, the unit of prices of changes."""

    violation: Tensor
    usual: Tensor
    mean_load: Tensor
    step: Tensor


class Tally:
    """Outcomes of an unroll's steps."""

    def __init__(self, twin: Twin) -> None:
        self._mean_load, self._step_s = twin.constant("mean_load"), twin.constant("step_s")
        self._billed: list[Tensor] = []
        self._late: list[Tensor] = []
        self._flaps: list[Tensor] = []

    def add(self, outcome: Outcome) -> None:
        """Another step."""
        self._billed.append(outcome.billed.detach())
        self._late.append(outcome.late.detach())
        self._flaps.append(outcome.flap)

    @property
    def costs(self) -> Tensor:
        """Replicas billed over the usual ideal, `[B]`."""
        return torch.stack(self._billed).mean(0) / self._mean_load

    def figures(self, preference: Tensor) -> dict[str, float]:
        """Means over all services, and over those at the cheap and the safe third of the dial."""
        costs, violations = self.costs, torch.stack(self._late).mean(0) / self._mean_load
        hours = len(self._flaps) * self._step_s / 3600.0
        cheap, safe = preference < 1 / 3, preference > 2 / 3
        return {
            "log_cost": float(costs.clamp(min=1e-3).log().mean()),
            "cost": float(costs.mean()),
            "violation": float(violations.mean()),
            "violation_cheap": float(violations[cheap].mean()),
            "violation_safe": float(violations[safe].mean()),
            "cost_cheap": float(costs[cheap].mean()),
            "cost_safe": float(costs[safe].mean()),
            "flaps_per_hour": float((torch.stack(self._flaps).sum(0) / hours).mean()),
        }


class Learner:
    """Everything that moves while training: pool, services, weights, optimiser, running means."""

    def __init__(
        self,
        preset: Preset,
        scenario: ScenarioConfig,
        seed: int,
        updates: int,
        recordings: Recordings | None = None,
    ) -> None:
        """updates: in the whole run, for the learning rate's schedule. recordings: traffic, too."""
        self.preset, self.settings = preset, preset.analytic
        self.updates, self.done = updates, 0
        self._rng = np.random.default_rng([seed, 11])
        self._scenario, self._recordings = scenario, recordings
        torch.manual_seed(seed)
        self.network = BandNetwork(preset)
        self.average = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.settings.learning_rate)
        self.usual = torch.full((DIFFICULTIES, PRICES), math.nan)
        self.losses = torch.full((DIFFICULTIES, PRICES), math.nan)
        self.low = torch.full((OBSERVATION_SCHEMA.size,), math.inf)
        self.high = -self.low
        self.norm = math.nan
        self._oldest = 0
        self._services: tuple[Twin, State, Tensor, Tensor, Tensor] | None = None

    def prepare(self) -> None:
        """Make the pool and the first services: some seconds."""
        self.pool = Pool([self._episode() for _ in range(self.settings.episodes)])
        rows = self._draw(self.preset.num_envs)
        twin = Twin(self.pool, rows)
        # staggered: not all services begin at once
        unrolls = self.settings.episode_unrolls
        at = torch.arange(len(rows)) % unrolls * self.settings.unroll_steps
        at = at[torch.randperm(len(rows), generator=self._torch())]
        self._services = (twin, twin.fresh(), at, self._preferences(len(rows)), self._difficulty(twin))
        if self.done == 0:
            self._standardise()

    def update(self) -> dict[str, float]:
        """One unroll and `minibatches` steps of the optimiser; what it came to."""
        assert self._services is not None
        twin, state, at, preference, difficulty = self._services
        settings = self.settings
        steps = settings.unroll_steps
        where = (difficulty, (preference * PRICES).long().clamp(max=PRICES - 1))
        prices = self._prices(twin, preference, where)
        observed: list[Tensor] = []
        actions: list[Tensor] = []
        losses: list[Tensor] = []
        tally = Tally(twin)
        for step in range(steps):
            features, shown = twin.observe(state, at, preference)
            with torch.no_grad():
                action = self.network(features)
            if step < steps - settings.tail_steps:
                action.requires_grad_(True)
                observed.append(features)
                actions.append(action)
            state, outcome = twin.step(state, at, action, shown)
            at = at + 1
            losses.append(self._loss(outcome, prices))
            tally.add(outcome)
        loss = torch.stack(losses).sum(0)
        weights = self._weights(where, loss.detach() / steps)
        torch.autograd.backward((loss * weights).mean())
        seen = torch.stack(observed)
        gradient = self._apply(seen, actions)
        self._note(seen, where, tally.costs / twin.constant("usual_cost").clamp(min=1.0))
        self._services = self._renew(twin, state.detached(), at, preference, difficulty)
        for _ in range(settings.fresh_episodes):
            self._freshen()
        self.done += 1
        return {
            "loss": float(loss.detach().mean() / steps),
            **tally.figures(preference),
            "gradient": gradient,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; traffic and services are drawn anew on resume."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "usual": self.usual,
            "losses": self.losses,
            "low": self.low,
            "high": self.high,
            "norm": self.norm,
            "done": self.done,
        }

    def load(self, state: dict[str, Any], seed: int) -> None:
        """Continue from `state()`."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.usual, self.losses, self.done = state["usual"], state["losses"], state["done"]
        self.low, self.high = state["low"], state["high"]
        self.norm = state.get("norm", math.nan)  # runs of before had no limit
        self._rng = np.random.default_rng([seed, 11, self.done])

    def _prices(self, twin: Twin, preference: Tensor, where: tuple[Tensor, Tensor]) -> Prices:
        settings = self.settings
        mild, hard = settings.hardness
        power = mild + (hard - mild) * (preference / settings.hard_from).clamp(max=1.0)
        hardness = (twin.constant("usual_cost") / 1.5).clamp(0.5, 10.0) ** power
        return Prices(
            violation=self._price(preference) * hardness,
            usual=self._usual(where, twin),
            mean_load=twin.constant("mean_load"),
            step=15.0 / twin.constant("step_s"),
        )

    def _loss(self, outcome: Outcome, prices: Prices) -> Tensor:
        """Of one step, `[B]`."""
        settings = self.settings
        mixed = (1.0 - settings.softness) * outcome.late + settings.softness * outcome.soft
        restless = outcome.changed / (1.0 + outcome.changed) * prices.mean_load
        cost = outcome.billed + settings.churn * prices.step * restless
        wavering = settings.flap * prices.step * outcome.reversed
        return (cost / prices.usual + prices.violation * mixed) / prices.mean_load + wavering

    @torch.no_grad()
    def _note(self, seen: Tensor, where: tuple[Tensor, Tensor], costs: Tensor) -> None:
        """What training has seen, and what services cost."""
        self.low = torch.minimum(self.low, seen.amin((0, 1)))
        self.high = torch.maximum(self.high, seen.amax((0, 1)))
        self.usual = self._moved(self.usual, where, costs)

    def _apply(self, seen: Tensor, actions: list[Tensor]) -> float:
        """Actions' gradients through the network; a step of Adam for each part of the services.

        seen: observations `[T, B, F]`. Gradients stay those of the actions taken: the few steps of one update
        move the network too little to matter.
        """
        settings = self.settings
        gradient = torch.stack([_grad(action) for action in actions])
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        size = gradient.abs().amax(2, keepdim=True)
        limit = settings.clip_action * size.mean().clamp(min=1e-12)
        gradient = gradient * (limit / size.clamp(min=1e-12)).clamp(max=1.0)
        self._schedule()
        norms = []
        for part in torch.from_numpy(self._rng.permutation(seen.shape[1])).chunk(settings.minibatches):
            rows, slopes = seen[:, part].flatten(0, 1), gradient[:, part].flatten(0, 1)
            self.optimizer.zero_grad()
            for first in range(0, len(rows), CHUNK):
                picked = slice(first, first + CHUNK)
                torch.autograd.backward(self.network(rows[picked]), slopes[picked])
            norms.append(self.clip())
            self.optimizer.step()
            keep = min(settings.average, (1.0 + self.done) / (10.0 + self.done))
            with torch.no_grad():
                for mine, theirs in zip(self.average.parameters(), self.network.parameters(), strict=True):
                    mine.lerp_(theirs, 1.0 - keep)
        return float(np.mean(norms))

    def clip(self) -> float:
        """Bound the gradient by a multiple of the running mean norm; its norm before."""
        times = self.settings.clip_norm
        limit = times * self.norm if times and math.isfinite(self.norm) else math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        bounded = min(norm, limit)
        self.norm = bounded if math.isnan(self.norm) else self.norm + NORM_RATE * (bounded - self.norm)
        return norm

    def _schedule(self) -> None:
        """The learning rate of this update: a short rise, then half a cosine."""
        part = min(self.done / max(self.updates, 1), 1.0)
        low, high = self.settings.final_learning_rate, self.settings.learning_rate
        rate = low + 0.5 * (high - low) * (1.0 + math.cos(math.pi * part))
        self.optimizer.param_groups[0]["lr"] = rate * min(1.0, (self.done + 1) / 20.0)

    def _price(self, preference: Tensor) -> Tensor:
        low, high = self.settings.price_exponent
        return 10.0 ** (low + (high - low) * preference)

    def _usual(self, where: tuple[Tensor, Tensor], twin: Twin) -> Tensor:
        """What such services cost over the ideal at such a price so far."""
        plain = twin.constant("usual_cost").clamp(min=1.0)
        known = self.usual[where]
        return (plain * torch.where(known.isnan(), 1.0, known)) ** self.settings.relative_cost

    @staticmethod
    def _moved(table: Tensor, where: tuple[Tensor, Tensor], values: Tensor) -> Tensor:
        """The running means by bin after these values `[B]`."""
        index = where[0] * PRICES + where[1]
        total = torch.zeros(DIFFICULTIES * PRICES).index_add_(0, index, values)
        count = torch.zeros(DIFFICULTIES * PRICES).index_add_(0, index, torch.ones_like(values))
        mean = (total / count).reshape(DIFFICULTIES, PRICES)
        old = torch.where(table.isnan(), mean, table)
        return torch.where(mean.isnan(), table, old + 0.1 * (mean - old))

    def _weights(self, where: tuple[Tensor, Tensor], loss: Tensor) -> Tensor:
        """Services that lose more, by their bin, count for less: else hard traffic drowns the rest."""
        known = self.losses[where]
        weights = torch.where(known.isnan(), 1.0, known).clamp(min=0.5) ** -self.settings.balance
        self.losses = self._moved(self.losses, where, loss)
        return weights

    def _renew(
        self, twin: Twin, state: State, at: Tensor, preference: Tensor, difficulty: Tensor
    ) -> tuple[Twin, State, Tensor, Tensor, Tensor]:
        over = at + self.settings.unroll_steps > self.pool.steps
        if bool(over.any()):
            count = int(over.sum())
            rows = twin.rows.clone()
            rows[over] = self._draw(count)
            preference = preference.clone()
            preference[over] = self._preferences(count)
            twin.take(rows)
            state = state.where(over, twin.fresh())
            at = torch.where(over, 0, at)
            difficulty = self._difficulty(twin)
        return twin, state, at, preference, difficulty

    def _difficulty(self, twin: Twin) -> Tensor:
        """Bin of what a plain rule costs there: 0 for the smoothest traffic."""
        edges = torch.tensor([1.4, 1.7, 2.2, 3.2, 6.0])
        return torch.bucketize(twin.constant("usual_cost"), edges)

    def _draw(self, count: int) -> Tensor:
        return torch.from_numpy(self._rng.integers(0, len(self.pool), count))

    def _preferences(self, count: int) -> Tensor:
        return torch.from_numpy(self._rng.uniform(0.0, 1.0, count).astype(np.float32))

    def _torch(self) -> torch.Generator:
        return torch.Generator().manual_seed(int(self._rng.integers(2**31)))

    def _freshen(self) -> None:
        # a service in the middle of the old episode goes on in the new one: a jump such as any other
        self.pool.replace(self._oldest, self._episode())
        self._oldest = (self._oldest + 1) % len(self.pool)

    def _episode(self) -> Episode:
        settings = self.settings
        steps = settings.unroll_steps * settings.episode_unrolls
        shares = settings.coarse_share, settings.extra_lag
        rare = settings.missing, settings.function_share
        return draw_episode(self._rng, self._scenario, steps, *shares, self._recordings, *rare)

    @torch.no_grad()
    def _standardise(self) -> None:
        """Moments of what the untrained network sees in an unroll."""
        assert self._services is not None
        twin, state, at, preference, _ = self._services
        seen = []
        for step in range(self.settings.unroll_steps):
            features, shown = twin.observe(state, at + step, preference)
            state, _ = twin.step(state, at + step, self.network(features), shown)
            seen.append(features)
        for network in (self.network, self.average):
            network.standardise(torch.cat(seen))


def seen_range(state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """(lowest, highest) value `[F]` of every feature that training saw, from a checkpoint; None: none.

    Anything goes for the features that the network cuts to its range (`policy.BEYOND`).
    """
    low, high = state["low"].numpy(), state["high"].numpy()
    if not np.isfinite(low).all():
        return None
    free = np.array([name in BEYOND for name in OBSERVATION_SCHEMA.names])
    return np.where(free, OBSERVATION_SCHEMA.low, low), np.where(free, OBSERVATION_SCHEMA.high, high)


def _grad(action: Tensor) -> Tensor:
    return torch.zeros_like(action) if action.grad is None else action.grad
