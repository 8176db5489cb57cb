"""A comparison of schedulers in pictures: slowdowns with intervals, and two schedulers on the same jobs
over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from sim.envs.scheduling_batch import SchedulingBatch
from sim.scheduling import Workload
from training.schedulers.contestants import Contestant
from training.schedulers.evaluation import Protocol, played_batch

Report = Mapping[str, Any]
TICKS = (1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 10000)
MAIN = "tab:red"
GRID = 400
"""Points in time of a timeline."""


@dataclass
class Track:
    """What is drawn of a run: lists, an entry a decision. cpu: float `[S]` each; left: jobs not yet
    finished."""

    times_s: list[float] = field(default_factory=list)
    cpu: list[np.ndarray] = field(default_factory=list)
    queue: list[float] = field(default_factory=list)

    def note(self, batch: SchedulingBatch) -> None:
        """Remember the first cluster as it is now."""
        now = batch.situation()
        self.times_s.append(float(now["time_s"][0]))
        self.cpu.append(now["cpu_share"][0].copy())
        self.queue.append(float(now["queue"][0]))

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(cpu `[S, T]`, queue `[T]`) at these seconds; nothing after the end."""
        place = np.clip(np.searchsorted(self.times_s, times, side="right") - 1, 0, None)
        over = times > self.times_s[-1]
        cpu, queue = np.array(self.cpu)[place].T.copy(), np.array(self.queue)[place]
        cpu[:, over], queue[over] = 0.0, 0.0
        return cpu, queue


def plot_all(
    report: Report,
    contestants: Sequence[Contestant],
    sources: Mapping[str, tuple[list[Workload], tuple[str, ...]]],
    protocol: Protocol,
    folder: Path,
) -> list[Path]:
    """Every picture, written into `folder`; their paths. The timeline is of the first two policies, where the
    first one's advantage over the second is the median among all windows."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [plot_slowdowns(report, folder / "slowdowns.png")]
    if len(contestants) > 1:
        other = next((one for one in contestants if one.name == "best-fit"), contestants[1])
        name, window = _telling(report, contestants[0].name, other.name, sources)
        pair = (other, contestants[0]) if other is not contestants[0] else contestants[:2]
        paths.append(plot_timeline(name, window, pair, protocol, folder / "timeline.png"))
    return paths


def plot_slowdowns(report: Report, path: Path) -> Path:
    """Mean slowdown of every policy on every recording, a bar each with its interval."""
    recordings = report["recordings"]
    policies = list(next(iter(recordings.values()))["policies"])
    figure, axes = plt.subplots(
        1,
        len(recordings),
        figsize=(2.2 + 2.5 * len(recordings), 0.9 + 0.3 * len(policies)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    places = np.arange(len(policies))[::-1]
    for axis, (name, found) in zip(axes[0], recordings.items(), strict=True):
        contents = [found["policies"][policy] for policy in policies]
        values = np.array([content["slowdown"] for content in contents])
        ends = np.array([content["interval"] for content in contents]).T
        colours = [MAIN if policy == report["trial"] else "tab:grey" for policy in policies]
        axis.barh(places, values - 1.0, left=1.0, color=colours, height=0.7)
        axis.errorbar(
            values, places, xerr=np.abs(ends - values), fmt="none", ecolor="black", elinewidth=1, capsize=2
        )
        _slowdown_axis(axis, float(ends.max()))
        axis.set_title(name.removeprefix("jobs_"), fontsize="small")
    axes[0][0].set_yticks(places, policies)
    figure.supxlabel("mean bounded slowdown (logarithmic; 95 % intervals over windows)", fontsize="small")
    return _save(figure, path)


def plot_timeline(
    name: str, window: Workload, pair: Sequence[Contestant], protocol: Protocol, path: Path
) -> Path:
    """Servers' cpu and the queue under two policies that schedule the same jobs."""
    tracks = [Track() for _ in pair]
    batches = [
        played_batch(one, protocol, [protocol.episode(window, 0)], each=track.note)
        for one, track in zip(pair, tracks, strict=True)
    ]
    end = max(track.times_s[-1] for track in tracks)
    times = np.linspace(0.0, end, GRID)
    figure, axes = plt.subplots(
        3, 1, figsize=(9, 6.6), sharex=True, height_ratios=(3, 3, 2), layout="constrained"
    )
    image: Any = None
    for axis, one, track, batch, colour in zip(
        axes[:2], pair, tracks, batches, ("tab:grey", MAIN), strict=True
    ):
        cpu, queue = track.at(times)
        image = axis.pcolormesh(times / 3600.0, np.arange(len(cpu)), cpu, vmin=0.0, vmax=1.0, cmap="viridis")
        slowdown = batch.physics.outcome(0).slowdown
        axis.set_title(f"{one.name}: mean slowdown {np.nanmean(slowdown):.2f}", loc="left", fontsize="small")
        axis.set_ylabel("server")
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes[2].plot(times / 3600.0, queue, color=colour, label=one.name)
    figure.colorbar(image, ax=list(axes[:2]), label="cpu taken")
    axes[2].set_ylabel("jobs waiting")
    axes[2].set_xlabel(f"hours (jobs of {name}, arrivals stretched to load {protocol.load:g})")
    axes[2].legend(fontsize="small")
    return _save(figure, path)


def _telling(
    report: Report, trial: str, other: str, sources: Mapping[str, tuple[list[Workload], tuple[str, ...]]]
) -> tuple[str, Workload]:
    """The recording and window where the trial's advantage is the median one."""
    found = []
    for name, (windows, _) in sources.items():
        policies = report["recordings"][name]["policies"]
        ratios = np.array(policies[trial]["windows"]) / np.array(policies[other]["windows"])
        found += [(float(ratio), name, place) for place, ratio in enumerate(ratios[: len(windows)])]
    _, name, place = sorted(found)[len(found) // 2]
    return name, sources[name][0][place]


def _slowdown_axis(axis: Axes, largest: float) -> None:
    axis.set_xscale("log")
    axis.set_xlim(1.0, largest * 1.1)
    ticks = [tick for tick in TICKS if tick <= largest * 1.1]
    step = -(-len(ticks) // 5)
    axis.set_xticks(ticks[::step])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(labelsize="small")
    axis.grid(axis="x", alpha=0.3)


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
