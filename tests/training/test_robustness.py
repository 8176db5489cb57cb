"""The robustness test: what a condition changes, how verdicts are found, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sim.physics import scalar
from sim.replay import Protocol
from training.conditions import conditions, silenced, windows_of
from training.contestants import generated_windows
from training.equal_cost import DEAR, FAILS, HOLDS, OPEN, levels, worst
from training.frontier import Outcomes, draw
from training.robustness import main

HOURS = 3600.0
USUAL = Protocol(window_s=HOURS)


def family(name: str, settings: tuple[str, ...], costs: list[float], violations: np.ndarray) -> Outcomes:
    """Outcomes whose costs are the same on every window; violations `[S, W]`."""
    cost = np.repeat(np.array(costs)[:, None, None], violations.shape[1], axis=1)
    zero = np.zeros_like(cost)
    return Outcomes(name, settings, cost, violations[:, :, None], zero, zero, zero)


def verdict(factor: np.ndarray | float, costs: tuple[float, ...] = (1.5, 2.0, 3.0)) -> str:
    """Of a policy that violates `factor` times as much as the HPA on each of 12 windows, at equal costs."""
    spread = np.random.default_rng(0).uniform(0.5, 1.5, 12)
    theirs = np.array([[0.08], [0.04], [0.01]]) * spread
    base = family("HPA", ("hpa-70%-300s", "hpa-50%-300s", "hpa-30%-300s"), [1.5, 2.0, 3.0], theirs)
    policy = family("mine", ("a", "b", "c"), list(costs), theirs * factor)
    return worst(levels(policy, base, draw(np.arange(12), 1))).verdict


def test_verdicts_tell_less_from_more_and_from_noise() -> None:
    noise = np.where(np.arange(12) % 2 == 0, 3.0, 0.05)
    noise[0] = 1.0 + 12 - float(noise[1:].sum()) + 6.0
    assert verdict(0.2) == HOLDS
    assert verdict(1.0) == HOLDS
    assert verdict(2.0) == FAILS
    assert verdict(noise) == OPEN
    assert verdict(0.2, costs=(10.0, 11.0, 12.0)) == DEAR


def test_a_policy_that_is_dearer_at_one_level_is_judged_at_the_others() -> None:
    assert verdict(0.2, costs=(1.8, 2.5, 4.0)) == HOLDS


def test_conditions_change_one_thing_each() -> None:
    known = {one.name: one.protocol for one in conditions(USUAL)}
    assert known["usual"] == USUAL
    assert known["capacity +30 %"].spec().capacity_rps == pytest.approx(32.5)
    assert known["capacity -30 %"].spec().capacity_rps == pytest.approx(17.5)
    assert math.isnan(known["capacity unknown"].spec().capacity_rps)
    assert all(
        scalar(known[name].params.capacity_rps) == 25.0 for name in ("capacity +30 %", "capacity unknown")
    )
    assert scalar(known["one scrape late"].params.metric_lag_s) == 15.0
    assert known["start-up 180 s"].spec().start_up_s == 180.0
    assert known["start-up twice as long"].spec().start_up_s == 30.0
    assert known["peak 500 replicas"].max_replicas == 1000
    assert known["decisions every 60 s"].spec().sync_period_s == 60.0
    assert known["objective 50 ms"].spec().slo_latency_ms == 50.0


def test_every_condition_sees_the_same_traffic_at_its_own_scale() -> None:
    shapes = []
    for condition in conditions(USUAL):
        if condition.silences:
            continue
        (window,), _ = windows_of(condition, [], 1, 5)
        peak = condition.protocol.peak_replicas * scalar(condition.protocol.params.capacity_rps)
        assert window.trace.rate_rps.max() == pytest.approx(peak)
        shapes.append(window.trace.rate_rps / peak)
    assert all(np.allclose(shape, shapes[0]) for shape in shapes)


def test_silences_leave_half_of_the_intervals_empty_and_the_peak_as_it_was() -> None:
    (window,) = generated_windows(1, 3, Protocol(window_s=12 * HOURS))
    cut = silenced(window, np.random.default_rng(1), Protocol(window_s=12 * HOURS))
    empty = cut.trace.rate_rps == 0
    assert 0.4 < empty.mean() < 0.6
    assert cut.trace.rate_rps.max() == pytest.approx(60 * 25.0)
    assert cut.history is not None
    assert 0.4 < (cut.history.rate_rps == 0).mean() < 0.6
    again = silenced(window, np.random.default_rng(1), Protocol(window_s=12 * HOURS))
    assert np.array_equal(cut.trace.rate_rps, again.trace.rate_rps)


def test_the_command_writes_verdicts_figures_and_a_picture(tmp_path: Path) -> None:
    done = main(
        [
            "--policy", "Forecast", "--condition", "usual", "peak 5 replicas", "--windows", "2",
            "--hours", "0.5", "--jobs", "1", "--no-cache", "--json", str(tmp_path / "r.json"),
            "--markdown", str(tmp_path / "r.md"), "--plots", str(tmp_path),
        ]
    )  # fmt: skip
    assert done == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert list(report["conditions"]) == ["usual", "peak 5 replicas"]
    found = report["conditions"]["usual"]["policies"]["Forecast"]
    assert found["verdict"] in (HOLDS, OPEN, FAILS, DEAR)
    assert {"hpa-70%-300s", "hpa-30%-300s"} <= {level["setting"] for level in found["levels"]}
    assert "| peak 5 replicas |" in (tmp_path / "r.md").read_text()
    assert (tmp_path / "robustness.png").stat().st_size > 10_000


def test_an_unknown_condition_is_refused_with_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--condition", "rain", "--no-cache"]) == 2
    assert "--condition: 'rain' is not one of 'usual', 'capacity +30 %'" in capsys.readouterr().err
