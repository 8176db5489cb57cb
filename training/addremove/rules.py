"""The threshold rule's numbers, searched with Optuna: cost against violations, both as small as can be.

What comes out is not one rule but those that no other one beats in both: the rule's dial, which is what any
contestant is allowed in a comparison. Searched on windows of their own, never on those of a comparison.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sim.baselines import Setting, with_scale_down_window
from sim.errors import ParameterError
from sim.replay import Protocol, Window, replay
from sim.threshold import Threshold, threshold
from training.contestants import generated_windows
from training.errors import ConfigError
from training.frontier import pareto
from training.runs import this_command

AT_ONCE = 16
"""Rules that are replayed side by side; the sampler learns of them together."""


def tune(args: argparse.Namespace) -> None:
    """Search, and write the rules of the frontier to `args.out`. Raises ConfigError."""
    check_traffic(args)
    if args.trials < 1:
        raise ConfigError(f"--trials: {args.trials} is not allowed; 1 or more is")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    protocol = Protocol(window_s=args.hours * 3600.0)
    windows = generated_windows(args.windows, args.seed, protocol)
    sampler = optuna.samplers.TPESampler(seed=args.seed, multivariate=True, constant_liar=True)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    tried: list[tuple[Threshold, float, float]] = []
    with bar("rules", args.trials, args.progress) as (progress, task):
        while len(tried) < args.trials:
            trials = [study.ask() for _ in range(min(AT_ONCE, args.trials - len(tried)))]
            rules = [suggest(trial) for trial in trials]
            costs, violations = score(rules, windows, protocol, args.seed)
            for trial, rule, cost, violation in zip(trials, rules, costs, violations, strict=True):
                # the sampler works on logarithms: a tenth of a percent matters where there is little
                study.tell(trial, (float(np.log(cost)), float(np.log(max(violation, 1e-6)))))
                tried.append((rule, float(cost), float(violation)))
            progress.advance(task, len(trials))
    kept = pareto(np.array([cost for _, cost, _ in tried]), np.array([missed for _, _, missed in tried]))
    _write([tried[index] for index in kept], args)
    print(f"{len(kept)} of {len(tried)} rules are on the frontier: {args.out}")


def suggest(trial: optuna.Trial) -> Threshold:
    """A rule of the search space."""
    add_above = trial.suggest_float("add_above", 0.2, 0.95)
    return Threshold(
        add_above=add_above,
        remove_below=add_above * trial.suggest_float("remove_below_share", 0.2, 0.95),
        add_share=trial.suggest_float("add_share", 0.05, 1.5, log=True),
        remove_share=trial.suggest_float("remove_share", 0.02, 0.5, log=True),
        cooldown_up_s=15.0 * trial.suggest_int("cooldown_up", 0, 20),
        cooldown_down_s=15.0 * trial.suggest_int("cooldown_down", 0, 80),
    )


def score(
    rules: list[Threshold], windows: list[Window], protocol: Protocol, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Geometric mean cost over the ideal and mean violations of each rule, `[R]` each."""
    result = replay(windows, settings_of(rules, protocol), protocol, seed)
    return np.exp(np.log(result.cost).mean(axis=1)), result.violation.mean(axis=1)


def settings_of(rules: list[Threshold], protocol: Protocol) -> list[Setting]:
    """The rules as contestants. Their own cooldowns stand for the guard's stabilisation window."""
    spec = with_scale_down_window(protocol.spec(), 0)
    return [threshold(spec, rule) for rule in rules]


def read_rules(path: Path) -> list[Threshold]:
    """The rules in a file of `tune`. Raises ConfigError."""
    try:
        content = json.loads(path.read_text())
        return [Threshold(**one["rule"]) for one in content["rules"]]
    except (OSError, ValueError, KeyError, TypeError, ParameterError) as error:
        raise ConfigError(f"--rules: {path}: not the rules of `discrete.py tune`: {error}") from error


def check_traffic(args: argparse.Namespace) -> None:
    """Refuse what no traffic can be made of. Raises ConfigError."""
    for name in ("windows", "hours"):
        if getattr(args, name) <= 0:
            raise ConfigError(f"--{name}: {getattr(args, name)} is not allowed; more than 0 is")
    if args.seed < 0:
        raise ConfigError(f"--seed: {args.seed} is not allowed; 0 or more is")


class bar:
    """A progress bar on standard error, where it is wanted."""

    def __init__(self, name: str, total: int, wanted: bool | None) -> None:
        shown = sys.stderr.isatty() if wanted is None else wanted
        columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not shown)
        self._total = total

    def __enter__(self) -> tuple[Progress, Any]:
        self._progress.start()
        return self._progress, self._progress.add_task("", total=self._total)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _write(found: list[tuple[Threshold, float, float]], args: argparse.Namespace) -> None:
    content = {
        "command": " ".join(this_command("discrete.py", args.argv)),
        "rules": [
            {"rule": dataclasses.asdict(rule), "cost": cost, "violation": violation}
            for rule, cost, violation in found
        ],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(content, indent=1) + "\n")
