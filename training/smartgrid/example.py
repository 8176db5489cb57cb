"""The measured example of docs/grid.md: a data centre under a real price. `training/grid.py datacentre` runs
it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.grid.baselines import BASELINES, GridPolicy, RecedingHorizon
from sim.grid.batch import SmartGridConfig, cut_scenario
from sim.grid.files import load_grid
from sim.grid.playing import bound, play
from sim.grid.scenarios import HISTORY_H
from sim.grid.series import GridSeries, load_series
from sim.replay import Protocol, Window, protocol_windows
from training.contestants import generated_windows
from training.errors import ConfigError
from training.smartgrid.datacentre import Example, measure, savings

FloatArray = npt.NDArray[np.floating]
VIOLATIONS = (0.005, 0.01)
GAINS = (0.0, 10.0, 25.0)
SPOT = "energy_finland2018_wind_price_3600s.csv"
HOME = "energy_citylearn2022_home01_3600s.csv"
DAY_H = 24


def run(folder: Path, windows: int, recorded: bool, policy: str, seed: int) -> dict[str, Any]:
    """Both tariffs: what following the price saves at equal violations; and what a battery saves beside
    it."""
    traffic = _traffic(folder, windows, recorded, seed)
    tariffs = _tariffs(folder, len(traffic))
    found: dict[str, Any] = {"windows": [window.name for window in traffic], "policy": policy, "seed": seed}
    for name, example in measure(traffic, tariffs, policy, GAINS, seed=seed).items():
        found[name] = {
            "frontiers": [_frontier(example, place) for place in range(len(GAINS))],
            "savings": {
                f"{violation:g}": {
                    f"{gain:g}": list(share) for gain, share in savings(example, violation).items()
                }
                for violation in VIOLATIONS
            },
        }
        if name == "spot":
            found["battery"] = _battery(folder, example.cluster_kw, tariffs[name])
    return found


def report(found: Mapping[str, Any]) -> str:
    """Markdown tables."""
    lines = [
        f"{len(found['windows'])} days of traffic, policy {found['policy']}: energy bill saved by a "
        "preference that follows the price, at equal violations (95 % interval over days)",
        "",
        "| tariff | violations | " + " | ".join(f"gain {gain:g}" for gain in GAINS[1:]) + " |",
        "|---|---|" + "---|" * (len(GAINS) - 1),
    ]
    for tariff in ("spot", "time-of-use"):
        for violation, shares in found[tariff]["savings"].items():
            cells = [_cell(*share) for share in shares.values()]
            lines.append(f"| {tariff} | {float(violation):.1%} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "The same cluster beside panels and a battery, spot price, a week:",
        "",
        "| policy | bill |",
        "|---|---|",
    ]
    lines += [f"| {name} | {bill:.3f} of no storage's |" for name, bill in found["battery"].items()]
    return "\n".join(lines)


def _cell(share: float, low: float, high: float) -> str:
    return "not reached" if np.isnan(share) else f"{share:+.2%} ({low:+.2%} to {high:+.2%})"


def _traffic(folder: Path, count: int, recorded: bool, seed: int) -> list[Window]:
    rules = Protocol()
    if not recorded:
        return generated_windows(count, seed, rules)
    files = sorted(folder.glob("rps_*.csv*"))
    if not files:
        raise ConfigError(f"--traces {folder}: has no rps_*.csv")
    windows = protocol_windows(files, Protocol(windows_per_trace=1))
    return [window for window in windows if window.trace.duration_s >= 0.99 * rules.window_s][:count]


def _tariffs(folder: Path, days: int) -> dict[str, FloatArray]:
    """Prices `[W, 24]`: consecutive days of the spot market (its first ones again after its end), and of the
    homes' time-of-use tariff."""
    return {"spot": _days(folder, SPOT, days), "time-of-use": _days(folder, HOME, days)}


def _days(folder: Path, file: str, days: int) -> FloatArray:
    path = folder / file
    if not path.is_file():
        raise ConfigError(f"--traces {folder}: has no {file}")
    price = load_series(path)["price"]
    whole = price[: len(price) // DAY_H * DAY_H].reshape(-1, DAY_H)
    return np.asarray(whole[np.arange(days) % len(whole)])


def _frontier(example: Example, place: int) -> dict[str, Any]:
    one = example.frontiers[place]
    return {
        "gain": one.gain,
        "preferences": list(one.preferences),
        "violation": one.violation.mean(axis=1).tolist(),
        "bill": one.bill.sum(axis=1).tolist(),
    }


def _battery(folder: Path, cluster_kw: FloatArray, prices: FloatArray) -> dict[str, float]:
    """The cluster's days one after the other as the consumer of the published data-centre grid."""
    grid = load_grid("datacentre")
    load = cluster_kw.reshape(-1)
    load = load / load.max() * grid.peak_kw
    sun = load_series(folder / HOME)["solar"][: len(load)]
    power = sun / sun.max() * grid.renewables[0].peak_kw
    series = GridSeries(load[None], power[None], prices.reshape(-1)[: len(load)], np.zeros(len(load)))
    hours = min(7 * DAY_H, len(load) - HISTORY_H - 13)
    if hours < DAY_H:
        return {}
    config = SmartGridConfig.of(grid, horizon_h=hours)
    week = cut_scenario(grid, series, hours, start=HISTORY_H)
    policies: dict[str, GridPolicy] = {**BASELINES, "receding horizon": RecedingHorizon(days=7)}
    spent = {name: play([week], policy, config)[0]["spent"] for name, policy in policies.items()}
    spent["perfect foresight"] = bound(week, config)
    return {name: money / spent["no storage"] for name, money in spent.items()}
