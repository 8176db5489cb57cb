"""Grid policies, rules and a planner on the same weeks: what they spend over perfect foresight's bill.

Called by `training/grid.py evaluate` and, on generated weeks, for a run's card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.grid.baselines import BASELINES, GridPolicy, RecedingHorizon
from sim.grid.batch import GridBatch, SmartGridConfig
from sim.grid.playing import bound, play
from sim.grid.scenarios import GridScenario
from training.smartgrid.policies import GridArtifact
from training.smartgrid.setups import Setup, generated_weeks

FloatArray = npt.NDArray[np.floating]
RESAMPLES = 2000
CARD_WEEKS = 64
PLANNER = "receding horizon"
FIRST = "no storage"


@dataclass(frozen=True)
class Outcome:
    """What contestants spent on each week of a setup: `[weeks]`, or `[seeds, weeks]` for trained ones."""

    setup: str
    bound: FloatArray
    spent: Mapping[str, FloatArray]
    unserved: Mapping[str, float]


@dataclass(frozen=True)
class Figure:
    """A ratio or a share with its 95 % interval (bootstrap over weeks, and over seeds where there are
    some)."""

    value: float
    low: float
    high: float
    between_seeds: float | None = None
    """Standard deviation of the seeds' own values."""


def evaluate(
    setups: Sequence[Setup],
    trained: Mapping[str, Sequence[GridArtifact]],
    planner: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Outcome]:
    """Every contestant on every week of every setup."""
    outcomes = []
    for setup in setups:
        base = SmartGridConfig(guard=True)
        scale = _usual_bills(setup.weeks, base) if setup.in_bills else np.ones(len(setup.weeks))
        limits = np.array([bound(week, base) for week in setup.weeks]) / scale
        spent: dict[str, FloatArray] = {}
        unserved: dict[str, float] = {}
        rules: dict[str, GridPolicy] = {
            **BASELINES,
            **({PLANNER: RecedingHorizon(days=7)} if planner else {}),
        }
        for name, policy in rules.items():
            money, unserved[name] = _spent(setup.weeks, policy, base)
            spent[name] = money / scale
        for name, policies in trained.items():
            each = [_spent(setup.weeks, policy, _slots(base, policy)) for policy in policies]
            spent[name] = np.stack([one[0] / scale for one in each])
            unserved[name] = float(np.mean([one[1] for one in each]))
        outcomes.append(Outcome(setup.name, limits, spent, unserved))
        tell(setup.name)
    return outcomes


def over_bound(outcome: Outcome, name: str, seed: int = 0) -> Figure:
    """Everything spent over perfect foresight's, all weeks together."""
    return _figure(outcome, name, lambda spent, first, limit: spent.sum(axis=-1) / limit.sum(axis=-1), seed)


def gap_closed(outcome: Outcome, name: str, seed: int = 0) -> Figure:
    """Share of the way from `no storage` to perfect foresight."""

    def share(spent: FloatArray, first: FloatArray, limit: FloatArray) -> FloatArray:
        whole = first.sum(axis=-1) - limit.sum(axis=-1)
        return np.asarray((first.sum(axis=-1) - spent.sum(axis=-1)) / whole)

    return _figure(outcome, name, share, seed)


def pooled(outcomes: Sequence[Outcome], name: str = "all homes") -> Outcome:
    """Setups of the same weeks as one, their money added: weeks stay together, as their weather does."""
    return Outcome(
        name,
        np.sum([one.bound for one in outcomes], axis=0),
        {key: np.sum([one.spent[key] for one in outcomes], axis=0) for key in outcomes[0].spent},
        {key: float(np.mean([one.unserved[key] for one in outcomes])) for key in outcomes[0].unserved},
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: spent over the bound with its interval, and the share of the gap closed."""
    names = list(outcomes[0].spent)
    lines = ["| grid | weeks | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for outcome in outcomes:
        cells = []
        for name in names:
            cost, share = over_bound(outcome, name), gap_closed(outcome, name)
            seeds = "" if cost.between_seeds is None else f" ± {cost.between_seeds:.3f}"
            cells.append(f"{cost.value:.3f}{seeds} ({cost.low:.3f}-{cost.high:.3f}); {share.value:.0%}")
        lines.append(f"| {outcome.setup} | {len(outcome.bound)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything that the table says, and each week's money."""
    return {
        outcome.setup: {
            "bound": outcome.bound.tolist(),
            "contestants": {
                name: {
                    "spent": spent.tolist(),
                    "over_bound": vars(over_bound(outcome, name)),
                    "gap_closed": vars(gap_closed(outcome, name)),
                    "unserved": outcome.unserved[name],
                }
                for name, spent in outcome.spent.items()
            },
        }
        for outcome in outcomes
    }


def generated_card(artifact: Path) -> dict[str, Any]:
    """Mean money over perfect foresight's on held-out generated weeks, in the week's usual bills."""
    policy, weeks = GridArtifact(artifact), generated_weeks(CARD_WEEKS)
    if (policy.dispatchables, policy.storages) != (1, 1):
        return {}
    config = SmartGridConfig()
    usual = _usual_bills(weeks, config)
    limits = np.array([bound(week, config) for week in weeks])
    contestants: dict[str, GridPolicy] = {"policy": policy, **BASELINES}
    regrets = {
        name: float(np.mean((_spent(weeks, one, config)[0] - limits) / usual))
        for name, one in contestants.items()
    }
    return {"weeks": len(weeks), "spent_over_perfect_foresight_in_bills": regrets}


def _usual_bills(weeks: Sequence[GridScenario], config: SmartGridConfig) -> FloatArray:
    """What each week would cost at the mean load and price of the week before."""
    batch = GridBatch(config, len(weeks), autoreset=False, scenarios=weeks)
    batch.reset()
    return np.asarray(batch.unit * config.horizon_h)


def _spent(
    weeks: Sequence[GridScenario], policy: GridPolicy, config: SmartGridConfig
) -> tuple[FloatArray, float]:
    summaries = play(weeks, policy, config)
    unserved = float(np.mean([one["unserved"] for one in summaries]))
    return np.array([one["spent"] for one in summaries]), unserved


def _slots(config: SmartGridConfig, policy: GridArtifact) -> SmartGridConfig:
    return replace(config, dispatchables=policy.dispatchables, storages=policy.storages)


def _figure(
    outcome: Outcome,
    name: str,
    measure: Callable[[FloatArray, FloatArray, FloatArray], FloatArray],
    seed: int,
) -> Figure:
    rng, weeks = np.random.default_rng(seed), len(outcome.bound)
    spent = np.atleast_2d(outcome.spent[name])
    picks = rng.integers(weeks, size=(RESAMPLES, weeks))
    seeds = rng.integers(len(spent), size=(RESAMPLES, len(spent)))
    first = outcome.spent[FIRST]
    drawn = spent[seeds[:, :, None], picks[:, None, :]].mean(axis=1)
    values = measure(drawn, first[picks], outcome.bound[picks])
    low, high = np.quantile(values, [0.025, 0.975])
    own = measure(spent, np.broadcast_to(first, spent.shape), np.broadcast_to(outcome.bound, spent.shape))
    between = float(own.std(ddof=1)) if len(spent) > 1 else None
    return Figure(float(np.mean(own)), float(low), float(high), between)
