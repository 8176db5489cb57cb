"""The two animations of docs/grid.md: a week under several policies, and a grid's network with its flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from sim.grid.baselines import GridPolicy
from sim.grid.batch import GridBatch, SmartGridConfig
from sim.grid.drawing import COLOURS, GridFrame, draw_state
from sim.grid.planning import perfect_foresight
from sim.grid.scenarios import GridScenario

FloatArray = npt.NDArray[np.floating]
COLOURS_A_FRAME = 64
RESULTS, STATE = "sim_results.gif", "grid_state.gif"


@dataclass(frozen=True)
class Played:
    """One policy's week: a frame a step, and the money spent so far `[T]` (stock counted)."""

    frames: list[GridFrame]
    spent: FloatArray


def play_frames(scenario: GridScenario, policy: GridPolicy, config: SmartGridConfig) -> Played:
    """A scenario's episode under one policy."""
    batch = GridBatch(config, 1, autoreset=False, scenarios=[scenario])
    batch.reset()
    values, frames, spent = batch.stock_value[0], [], []
    before = float(batch.physics.energy_kwh[0] @ values)
    total = 0.0
    for _ in range(config.horizon_h * scenario.grid.steps_per_hour):
        batch.step(policy(batch))
        told = {name: value[0] for name, value in batch.situation().items()}
        frames.append(GridFrame.of(told, scenario, int(batch.physics.arrays.clock[0]) - 1))
        total += float(told["cost"])
        spent.append(total + before - float(batch.physics.energy_kwh[0] @ values))
    return Played(frames, np.array(spent))


class Foresight:
    """The linear program's plan as a policy of one scenario."""

    def __init__(self, scenario: GridScenario, config: SmartGridConfig) -> None:
        batch = GridBatch(config, 1, autoreset=False, scenarios=[scenario])
        batch.reset()
        grid, length = scenario.grid, config.horizon_h * scenario.grid.steps_per_hour
        values = batch.stock_value[0, : len(grid.storages)]
        plan = perfect_foresight(grid, scenario.series.cut(scenario.start, length), values)
        self._start, sources = scenario.start, len(grid.dispatchables)
        self._actions = np.zeros((length, config.actions))
        self._actions[:, :sources] = plan.actions[:, :sources]
        first = config.dispatchables
        self._actions[:, first : first + len(grid.storages)] = plan.actions[:, sources:]

    def __call__(self, batch: GridBatch) -> FloatArray:
        """The plan's next actions `[1, D + S]`."""
        return np.asarray(self._actions[int(batch.physics.arrays.clock[0]) - self._start][None])


def draw_week(scenario: GridScenario, played: Mapping[str, Played], steps: int) -> npt.NDArray[np.uint8]:
    """The first `steps` steps of a week: power, price, what is stored and what was spent, uint8 `[H, W,
    3]`."""
    figure = Figure(figsize=(7.2, 5.4), dpi=90, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    power, price, stored, money = figure.subplots(4, 1, sharex=True, height_ratios=(2, 1, 1.4, 1.8))
    grid, whole = scenario.grid, len(next(iter(played.values())).frames)
    hours = np.arange(steps) * grid.step_h
    some = next(iter(played.values())).frames[:steps]
    below = np.zeros(steps)
    for place, source in enumerate(grid.renewables):
        values = np.array([frame.renewables_kw[place] for frame in some])
        power.fill_between(hours, below, below + values, step="post", color=COLOURS[source.kind], alpha=0.6,
                           linewidth=0, label=source.name)  # fmt: skip
        below = below + values
    load = [sum(frame.consumers_kw) for frame in some]
    power.step(hours, load, where="post", color=COLOURS["load"], linewidth=1, label="load")
    price.step(hours, [frame.price for frame in some], where="post", color=COLOURS["line"], linewidth=1)
    for index, (name, one) in enumerate(played.items()):
        shares = _stored([frame.stored for frame in one.frames[:steps]], grid.storages)
        stored.plot(hours, shares, linewidth=1.1, color=f"C{index}")
        money.plot(
            hours,
            one.spent[:steps],
            linewidth=1.4,
            color=f"C{index}",
            label=f"{name}: {one.spent[steps - 1]:.2f}",
        )
    spent = np.concatenate([one.spent for one in played.values()])
    for axis, label in ((power, "kW"), (price, "price"), (stored, "stored"), (money, "spent")):
        axis.set_ylabel(label, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.2)
    power.set_ylim(0, 1.1 * max(max(below_of(scenario, whole)), 1e-9))
    stored.set_ylim(0, 1)
    money.set_ylim(min(0.0, float(spent.min())), float(spent.max()) * 1.05)
    money.set_xlim(0, whole * grid.step_h)
    money.set_xlabel("hours", fontsize=8)
    power.legend(fontsize=6, loc="upper left", ncols=4)
    money.legend(fontsize=7, loc="upper left")
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def below_of(scenario: GridScenario, steps: int) -> FloatArray:
    """The larger of load and renewables in each step of the episode: how high the chart must be."""
    part = slice(scenario.start, scenario.start + steps)
    series = scenario.series
    return np.asarray(
        np.maximum(series.loads_kw[:, part].sum(axis=0), series.renewables_kw[:, part].sum(axis=0))
    )


def results_gif(
    path: Path,
    scenario: GridScenario,
    policies: Mapping[str, GridPolicy],
    config: SmartGridConfig,
    frames: int = 42,
) -> Path:
    """A week that unfolds, one line a policy."""
    played = {name: play_frames(scenario, policy, config) for name, policy in policies.items()}
    whole = len(next(iter(played.values())).frames)
    ends = np.unique(np.linspace(whole / frames, whole, frames).round().astype(int))
    return save_gif([draw_week(scenario, played, int(end)) for end in ends], path, 120, 3000)


def state_gif(
    path: Path, scenario: GridScenario, policy: GridPolicy, config: SmartGridConfig, hours: int = 48
) -> Path:
    """The network's flows, a frame a step, from the second day on."""
    played = play_frames(scenario, policy, config).frames
    first = 24 * scenario.grid.steps_per_hour
    last = min(len(played), first + hours * scenario.grid.steps_per_hour)
    images = [draw_state(scenario.grid, played[: end + 1]) for end in range(first, last)]
    return save_gif(images, path, 350, 350)


def save_gif(images: Sequence[npt.NDArray[np.uint8]], path: Path, milliseconds: int, rest: int) -> Path:
    """Frames of one palette as an endless animation; the last one stays for `rest` ms."""
    palette = Image.fromarray(np.concatenate([images[0], images[-1]])).quantize(COLOURS_A_FRAME)
    frames = [Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [milliseconds] * (len(frames) - 1) + [rest]
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)
    return path


def _stored(shares: Sequence[Sequence[float]], storages: Sequence[Any]) -> FloatArray:
    """Stored over capacity, all storages together."""
    sizes = np.array([storage.energy_kwh for storage in storages])
    return np.asarray(np.asarray(shares) @ sizes / sizes.sum()) if len(sizes) else np.zeros(len(shares))
