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
from training.tuning.storage import OWNER
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
    plots = [_plot_history(trials, settings), _plot_slices(done, settings)]
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
    best = study.best_trial
    return [
        f"# {study.study_name}",
        "",
        f"{counts[TrialState.COMPLETE]} trials completed, {counts[TrialState.PRUNED]} pruned, "
        f"{counts[TrialState.FAIL]} failed. Each trained `{settings.preset.name}` for "
        f"{settings.preset.timesteps:,} steps with seed {settings.seed}. {_score_in_words(settings)}",
        "",
        f"The best is trial {best.number} at {best.value:.3f}; its preset is [best.yaml](best.yaml), "
        f"its run `{best.user_attrs.get('run', '')}` on {_host(best)}. One seed a trial: train the best few "
        "with several before believing an order among them.",
        "",
        *_best_table(done, settings),
        "",
        *_importances(study, done),
        "",
        *(f"![{plot.stem}]({plot.name})" for plot in plots),
    ]


def _score_in_words(settings: TrialSettings) -> str:
    if not settings.by_frontier:
        return (
            "The score, lower is better, is minus the mean reward at a trial's end: of training, exploration "
            "included."
        )
    levels = " and ".join(f"{level:.1%}" for level in LEVELS)
    return (
        f"The score, lower is better, is the geometric mean of the cost over the ideal at {levels} mean "
        f"violations, one setting of the dial for all {settings.windows} generated windows (seed "
        f"{settings.window_seed})."
    )


def _best_table(done: Sequence[FrozenTrial], settings: TrialSettings) -> list[str]:
    space, levels = settings.space, LEVELS if settings.by_frontier else ()
    names = [dimension.name for dimension in space]
    head = ["trial", "score", *(f"cost at {level:.1%}" for level in levels), *names]
    rows = []
    for trial in sorted(done, key=_value)[:BEST]:
        values = _parsed(trial.params, space)
        costs = [trial.user_attrs.get(f"cost_at_{level:.1%}") for level in levels]
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
        writer.writerow(["trial", "state", "score", "seconds", "host", "run", *names])
        for trial in trials:
            values = _parsed(trial.params, settings.space)
            writer.writerow(
                [
                    trial.number,
                    trial.state.name,
                    "" if trial.value is None else trial.value,
                    "" if trial.duration is None else round(trial.duration.total_seconds(), 1),
                    _host(trial),
                    trial.user_attrs.get("run", ""),
                    *(values.get(name, "") for name in names),
                ]
            )


def _plot_history(trials: Sequence[FrozenTrial], settings: TrialSettings) -> Path:
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
    numbers = [trial.number for trial in done]
    scores = [float(trial.value or 0.0) for trial in done]
    axis.scatter(numbers, scores, color="tab:blue", s=18, label="completed")
    axis.step(numbers, np.minimum.accumulate(scores), where="post", color="tab:orange", label="best so far")
    pruned = [trial.number for trial in trials if trial.state is TrialState.PRUNED]
    axis.plot(pruned, [max(scores)] * len(pruned), "x", color="0.6", label="pruned")
    axis.set(xlabel="trial", **_score_axis(settings))
    axis.legend()
    axis.grid(alpha=0.3)
    path = settings.folder / "history.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _plot_slices(done: Sequence[FrozenTrial], settings: TrialSettings) -> Path:
    space, score = settings.space, _score_axis(settings)
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
        scale = "log" if dimension.log else axis.get_xscale()
        axis.set(title=dimension.name, yscale=score["yscale"], xscale=scale)
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(space) :]:
        axis.set_visible(False)
    figure.supylabel(score["ylabel"])
    path = settings.folder / "slices.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _score_axis(settings: TrialSettings) -> dict[str, str]:
    if settings.by_frontier:
        return {"ylabel": "cost / ideal (score)", "yscale": "log"}
    return {"ylabel": "minus reward (score)", "yscale": "linear"}


def _value(trial: FrozenTrial) -> float:
    return np.inf if trial.value is None else float(trial.value)


def _host(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get(OWNER, "")).rsplit("/", 1)[0] or "an unknown host"


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
