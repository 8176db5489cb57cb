"""What a study found: a Markdown page with plots, all trials as CSV, and the best settings as a preset."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optuna
import yaml
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from training.config import dump_preset
from training.tuning.space import Dimension, with_values
from training.tuning.trial import LEVELS, TrialSettings

BEST = 10
AT_LEAST_FOR_IMPORTANCE = 8


def write_report(study: optuna.Study, settings: TrialSettings) -> Path:
    """Write trials.csv, best.yaml, plots and report.md into the study's folder; report.md's path."""
    folder = settings.folder
    trials = study.get_trials(deepcopy=False)
    _write_csv(trials, settings, folder / "trials.csv")
    best = _parsed(study.best_trial.params, settings.space)
    content = with_values(yaml.safe_load(dump_preset(settings.preset)), best)
    (folder / "best.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    plots = [_plot_history(trials, folder), _plot_slices(done, settings.space, folder)]
    report = folder / "report.md"
    report.write_text("\n".join(_page(study, settings, trials, done, plots)) + "\n")
    return report


def _page(
    study: optuna.Study,
    settings: TrialSettings,
    trials: Sequence[FrozenTrial],
    done: Sequence[FrozenTrial],
    plots: Sequence[Path],
) -> list[str]:
    counts = {state: sum(trial.state is state for trial in trials) for state in TrialState}
    levels = " and ".join(f"{level:.1%}" for level in LEVELS)
    best = study.best_trial
    return [
        f"# {study.study_name}",
        "",
        f"{counts[TrialState.COMPLETE]} trials completed, {counts[TrialState.PRUNED]} pruned, "
        f"{counts[TrialState.FAIL]} failed. Each trained `{settings.preset.name}` for "
        f"{settings.preset.timesteps:,} steps with seed {settings.seed}. The score, lower is better, is the "
        f"geometric mean of the cost over the ideal at {levels} mean violations, one setting of the dial for "
        f"all {settings.windows} generated windows (seed {settings.window_seed}).",
        "",
        f"The best is trial {best.number} at {best.value:.3f}; its preset is [best.yaml](best.yaml), "
        f"its run `{best.user_attrs.get('run', '')}`. One seed a trial: train the best few with several "
        "before believing an order among them.",
        "",
        *_best_table(done, settings.space),
        "",
        *_importances(study, done),
        "",
        *(f"![{plot.stem}]({plot.name})" for plot in plots),
    ]


def _best_table(done: Sequence[FrozenTrial], space: Sequence[Dimension]) -> list[str]:
    names = [dimension.name for dimension in space]
    head = ["trial", "score", *(f"cost at {level:.1%}" for level in LEVELS), *names]
    rows = []
    for trial in sorted(done, key=lambda one: one.value or np.inf)[:BEST]:
        values = _parsed(trial.params, space)
        costs = [trial.user_attrs.get(f"cost_at_{level:.1%}") for level in LEVELS]
        cells = [f"{trial.number}", f"{trial.value:.3f}", *(_cost(cost) for cost in costs)]
        rows.append([*cells, *(_short(values[name]) for name in names)])
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _importances(study: optuna.Study, done: Sequence[FrozenTrial]) -> list[str]:
    if len(done) < AT_LEAST_FOR_IMPORTANCE:
        return [f"Importances need {AT_LEAST_FOR_IMPORTANCE} completed trials."]
    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return [
        "Which settings tell good trials from the rest (PED-ANOVA):",
        "",
        *(f"- `{name}`: {value:.2f}" for name, value in found.items()),
    ]


def _write_csv(trials: Sequence[FrozenTrial], settings: TrialSettings, path: Path) -> None:
    names = [dimension.name for dimension in settings.space]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", "score", *names])
        for trial in trials:
            values = _parsed(trial.params, settings.space)
            writer.writerow(
                [
                    trial.number,
                    trial.state.name,
                    "" if trial.value is None else trial.value,
                    *(values.get(name, "") for name in names),
                ]
            )


def _plot_history(trials: Sequence[FrozenTrial], folder: Path) -> Path:
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
    numbers = [trial.number for trial in done]
    scores = [float(trial.value or 0.0) for trial in done]
    axis.scatter(numbers, scores, color="tab:blue", s=18, label="completed")
    axis.step(numbers, np.minimum.accumulate(scores), where="post", color="tab:orange", label="best so far")
    pruned = [trial.number for trial in trials if trial.state is TrialState.PRUNED]
    axis.plot(pruned, [max(scores)] * len(pruned), "x", color="0.6", label="pruned")
    axis.set(xlabel="trial", ylabel="cost / ideal (score)", yscale="log")
    axis.legend()
    axis.grid(alpha=0.3)
    path = folder / "history.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _plot_slices(done: Sequence[FrozenTrial], space: Sequence[Dimension], folder: Path) -> Path:
    columns = min(3, len(space))
    rows = -(-len(space) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 2.8 * rows), squeeze=False, layout="constrained"
    )
    scores = [float(trial.value or 0.0) for trial in done]
    for axis, dimension in zip(axes.flat, space, strict=False):
        values = [_parsed(trial.params, space)[dimension.name] for trial in done]
        shown = [_short(value) for value in values] if dimension.choices else values
        axis.scatter(shown, scores, c=[trial.number for trial in done], cmap="viridis", s=16)
        axis.set(title=dimension.name, yscale="log", xscale="log" if dimension.log else axis.get_xscale())
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(space) :]:
        axis.set_visible(False)
    figure.supylabel("cost / ideal (score)")
    path = folder / "slices.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _parsed(params: dict[str, Any], space: Sequence[Dimension]) -> dict[str, Any]:
    chosen = {dimension.name for dimension in space if dimension.choices}
    return {name: json.loads(value) if name in chosen else value for name, value in params.items()}


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def _cost(value: float | None) -> str:
    return "not reached" if value is None or not np.isfinite(value) else f"{value:.2f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
