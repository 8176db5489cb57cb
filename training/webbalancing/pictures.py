"""Pictures of web balancing: costs with intervals, learning curves, an episode, real servers beside the twin.

Files of docs/images/web-balancing; `training.webbalancing.commands` is the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from sim.webbalancing.batch import TwinBatch, WebConfig
from sim.webbalancing.episodes import FAILING, FAULTS, Episode
from training.runs import RunFolder, read_metrics
from training.webbalancing.contestants import Contestant
from training.webbalancing.evaluation import held_out

COSTS, LEARNING, EPISODE = "costs.png", "learning.png", "episode.png"
TRANSFER, VALIDATION = "transfer.png", "validation.png"
DPI = 100
CURVES = (
    ("cost", "mean cost of a request"), ("accuracy", "accuracy"), ("gini", "Gini of requests / capacity"),
    ("errors", "share of failed requests"),
)  # fmt: skip
BESIDE = ("least-connections", "measured-delay")


def plot_evaluation(
    report: Mapping[str, Any],
    compared: Sequence[Contestant],
    trained: Sequence[Path],
    config: WebConfig,
    folder: Path,
) -> list[Path]:
    """Costs, learning curves of run folders, and an episode with a failing server."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [plot_costs(report, folder)]
    runs = [path for path in trained if path.is_dir()]
    if runs:
        made.append(plot_learning(runs, folder))
    shown = [compared[0], *(one for one in compared[1:] if one.name in BESIDE)]
    return [*made, plot_episode(shown, failing_episode(config), config, folder)]


def plot_costs(report: Mapping[str, Any], folder: Path) -> Path:
    """A panel a phase: mean cost of each policy with its interval."""
    phases = report["phases"]
    figure, axes = plt.subplots(1, len(phases), figsize=(3.9 * len(phases), 3.6), sharey=True, squeeze=False)
    for axis, (phase, found) in zip(axes[0], phases.items(), strict=True):
        _bars(axis, found)
        axis.set_title(phase)
        axis.set_xlabel("mean cost of a request")
    return _save(figure, folder / COSTS)


def plot_learning(runs: Sequence[Path], folder: Path) -> Path:
    """Four measures over episodes, a line a training seed; phases are shaded."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 5.6), sharex=True)
    for run in runs:
        rows = read_metrics(RunFolder.open(run).metrics)
        preset = RunFolder.open(run).preset()
        episodes = np.array([row["timesteps"] for row in rows]) / preset.environment.get("batches", 200)
        for axis, (name, title) in zip(np.ravel(axes), CURVES, strict=True):
            values = np.array([row[name] for row in rows])
            smooth = np.convolve(values, np.ones(5) / 5, "valid") if len(values) >= 5 else values
            axis.plot(episodes[len(values) - len(smooth) :], smooth, linewidth=1.1)
            axis.set_title(title, fontsize=10)
    _shade(np.ravel(axes).tolist(), RunFolder.open(runs[0]).preset().environment)
    for axis in axes[1]:
        axis.set_xlabel("episodes (exploration included)")
    return _save(figure, folder / LEARNING)


def failing_episode(config: WebConfig) -> Episode:
    """A held-out episode in which the server with most capacity fails for a while."""
    for one in held_out("troubled", 400, config, seed=1):
        if one.fault.kind == FAILING and one.fault.server == int((one.workers / one.service_s).argmax()):
            return one
    raise LookupError("no such episode among 400")


def plot_episode(shown: Sequence[Contestant], episode: Episode, config: WebConfig, folder: Path) -> Path:
    """Where each policy's batches went over time, and how its requests fared."""
    figure, axes = plt.subplots(
        2, len(shown), figsize=(3.9 * len(shown), 5), sharex=True, sharey="row", squeeze=False
    )
    for column, one in enumerate(shown):
        batch = TwinBatch(config, 1, autoreset=False, given=[episode])
        policy = one.policies[0]
        policy.begin(1)
        batch.reset()
        flight = []
        while not batch.final.all():
            batch.step(policy.choose(batch))
            flight.append(batch.book.in_flight[0].copy())
        _draw_episode(axes[:, column], batch, np.array(flight), episode)
        axes[0, column].set_title(one.name)
    axes[0, 0].set_ylabel("requests in flight")
    axes[1, 0].set_ylabel("latency, s (x: failed)")
    axes[0, 0].legend(fontsize=7, loc="upper left")
    return _save(figure, folder / EPISODE)


def plot_transfer(report: Mapping[str, Any], folder: Path) -> Path:
    """Costs on real servers and in the twin, a panel each."""
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.6), sharey=True)
    for axis, face, title in zip(axes, ("real", "twin"), ("real HTTP servers", "twin"), strict=True):
        _bars(axis, report[face])
        axis.set_title(title)
        axis.set_xlabel("mean cost of a request")
    axes[0].set_xlim(axes[1].get_xlim()[0], max(axes[0].get_xlim()[1], axes[1].get_xlim()[1]))
    axes[1].set_xlim(axes[0].get_xlim())
    return _save(figure, folder / TRANSFER)


def plot_validation(report: Mapping[str, Any], folder: Path) -> Path:
    """Mean latency by load: real points beside the twin's line."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = sorted(report["loads"], key=lambda one: float(one["load"]))
    loads = [one["load"] for one in rows]
    figure, axis = plt.subplots(figsize=(5.2, 3.4))
    axis.plot(loads, [one["twin_ms"] for one in rows], color="tab:blue", label="twin")
    axis.plot(loads, [one["real_ms"] for one in rows], "o", color="tab:orange", label="real servers")
    axis.set_xlabel("load")
    axis.set_ylabel("mean latency, ms")
    axis.set_ylim(0)
    axis.grid(alpha=0.3)
    axis.legend()
    return _save(figure, folder / VALIDATION)


def _bars(axis: Any, found: Mapping[str, Any]) -> None:
    names = list(found)
    for place, name in enumerate(names):
        one = found[name]
        low, high = one["interval"]
        color = "tab:orange" if place == 0 else "tab:grey" if name == "true-delay" else "tab:blue"
        axis.barh(place, one["cost"], color=color, alpha=0.8)
        axis.plot([low, high], [place, place], color="black", linewidth=1.2)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    if not axis.yaxis_inverted():
        axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)


def _draw_episode(axes: Any, batch: TwinBatch, flight: Any, episode: Episode) -> None:
    times = batch.truth.arrive_s[0, : len(flight)]
    sent = np.flatnonzero(batch.book.server[0] >= 0)
    arrived = np.repeat(episode.arrive_s, episode.counts)[sent]
    server, failed = batch.book.server[0, sent], batch.book.status[0, sent] != 0
    latency = batch.book.latencies[0, sent]
    for place in range(flight.shape[1]):
        workers, service_ms = episode.workers[place], 1000 * episode.service_s[place]
        label = f"server {place}: {workers} x {service_ms:.0f} ms"
        color, own = f"C{place}", server == place
        axes[0].plot(times, flight[:, place], color=color, linewidth=1, label=label)
        good, bad = own & ~failed, own & failed
        axes[1].plot(arrived[good], latency[good], ".", color=color, markersize=2)
        axes[1].plot(arrived[bad], latency[bad], "x", color=color, markersize=4)
    fault = episode.fault
    for axis in axes:
        axis.axvspan(fault.begin_s, fault.end_s, color="0.9", zorder=0)
        axis.grid(alpha=0.3)
    share = 100 * float(failed.mean())
    axes[1].set_xlabel(
        f"s; grey: server {fault.server} {FAULTS[fault.kind]}; {share:.1f} % failed", fontsize=8
    )


def _shade(axes: list[Any], environment: Mapping[str, Any]) -> None:
    begin = 0.0
    phases = list(zip(environment["phases"], environment["episodes"], strict=True))
    for place, (phase, count) in enumerate(phases):
        for axis in axes:
            end = begin + count
            if place % 2:
                axis.axvspan(begin, end, color="0.93", zorder=0)
            axis.grid(alpha=0.3)
        axes[0].annotate(phase, (begin + 5, 0.97), xycoords=("data", "axes fraction"), va="top", fontsize=8)
        begin += count


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return path
