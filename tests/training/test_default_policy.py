"""What the built-in policy promises: a monotone dial, familiar observations; and how it is judged."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from controller.policies.loader import load_policy
from sim.baselines import Setting, with_scale_down_window
from sim.replay import Protocol, ReplayResult, Window, protocol_windows, replay
from training.analytic import ablations, bars
from training.analytic.policy import BandNetwork
from training.config import load_preset, read_preset
from training.contestants import generated_windows
from training.errors import ConfigError
from training.frontier import Outcomes
from training.summary import Comparison

DIAL = (0.0, 25.0, 50.0, 75.0, 100.0)
SLACK = 0.003
"""Chance in arrivals and rounding to whole replicas: shares of the cost."""
TRACES = os.environ.get("RLSCALER_TRACES")


def dial(windows: list[Window], protocol: Protocol) -> ReplayResult:
    """The built-in policy at several preferences."""
    policy = load_policy({"builtin": "default"})
    specs = [with_scale_down_window(protocol.spec(preference), 300) for preference in DIAL]
    settings = [Setting(f"{at:g}", policy, spec) for at, spec in zip(DIAL, specs, strict=True)]
    return replay(windows, settings, protocol, 0)


def assert_monotone(found: ReplayResult) -> None:
    """More preference: never fewer replicas in the mean, never more violations."""
    replicas = found.replica_hours.mean(axis=1)
    assert (np.diff(replicas) >= -SLACK * replicas[:-1]).all(), replicas
    violations = found.violation.mean(axis=1)
    assert (np.diff(violations) <= 1e-4).all(), violations
    assert replicas[-1] > 1.2 * replicas[0]
    assert violations[-1] < 0.5 * violations[0]


def test_the_dial_is_monotone_on_generated_windows() -> None:
    protocol = Protocol(window_s=6 * 3600.0)
    assert_monotone(dial(generated_windows(12, 31, protocol), protocol))


@pytest.mark.parametrize("period_s", [5, 60])
def test_the_dial_is_monotone_at_other_sync_periods(period_s: int) -> None:
    protocol = Protocol(window_s=3 * 3600.0, sync_period_s=period_s)
    assert_monotone(dial(generated_windows(8, 32, protocol), protocol))


@pytest.mark.skipif(not TRACES, reason="RLSCALER_TRACES names no folder of recordings")
def test_the_dial_is_monotone_on_recordings() -> None:
    protocol = Protocol(window_s=12 * 3600.0)
    files = sorted(Path(str(TRACES)).glob("rps_*"))
    windows = [window for file in files for window in protocol_windows([file], protocol)[:1]]
    assert len(windows) >= 5
    assert_monotone(dial(windows, protocol))


@pytest.mark.parametrize("period_s", [5, 15, 60])
def test_hardly_any_traffic_is_unlike_training(period_s: int, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = Protocol(window_s=2 * 3600.0, sync_period_s=period_s)
    policy = load_policy({"builtin": "default"})
    assert policy.metadata.observation_range is not None
    judged: list[np.ndarray] = []
    judge = policy.unfamiliar

    def counted(view: object) -> np.ndarray:
        judged.append(judge(view))
        return judged[-1]

    monkeypatch.setattr(policy, "unfamiliar", counted)
    spec = with_scale_down_window(protocol.spec(50.0), 300)
    replay(generated_windows(8, 33, protocol), [Setting("default", policy, spec)], protocol, 0)
    share = np.concatenate(judged).mean()
    assert len(judged) == round(protocol.window_s / period_s)
    assert share < 0.001


def outcomes(cost: list[list[float]], violation: list[list[float]], names: list[str]) -> Outcomes:
    """Outcomes `[S, W, 1]`."""
    shape = (len(cost), len(cost[0]), 1)
    zero = np.zeros(shape)
    figures = (np.array(each, dtype=float).reshape(shape) for each in (cost, violation))
    return Outcomes("x", tuple(names), *figures, np.full(shape, 2.0), zero, zero)


def test_bars_are_read_off_the_frontiers() -> None:
    hpa = outcomes(
        [[2.0, 2.0], [4.0, 4.0]], [[0.02, 0.02], [0.001, 0.001]], [bars.EQUAL_COST, "hpa-30%-300s"]
    )
    bound = outcomes([[1.0, 1.0]], [[0.0005, 0.0005]], ["clairvoyant-1"])
    own = outcomes([[2.0, 2.0], [3.0, 8.0]], [[0.004, 0.008], [0.001, 0.002]], ["own-0", "own-100"])
    families = {"HPA": hpa, "Forecast": hpa, "clairvoyant": bound, "own": own}
    found = bars.bars_of(Comparison(families, ("a", "b"), ("a", "b"), "HPA", "clairvoyant"), "own")
    assert found.windows == 2
    assert np.isnan(found.cost[0])
    assert found.cost[2] == pytest.approx(2.0)
    # at 0.5 %, tuned: the first window at its cheap setting, the second between two and dearer than the HPA
    assert found.no_worse == 0.5
    assert found.mean == pytest.approx(0.006)
    assert found.hpa_mean == pytest.approx(0.02)
    assert found.flaps == 2.0


@pytest.mark.parametrize("file", ["ablations.yaml", "ablations-60s.yaml"])
def test_every_variant_is_a_preset(tmp_path: Path, file: str) -> None:
    variants = ablations.Variants.read(ablations.FILE.with_name(file))
    assert len(variants.variants) >= 7
    for name in variants.variants:
        variants.write_preset(name, tmp_path / "preset.yaml")
        preset = read_preset(tmp_path / "preset.yaml")
        assert preset.timesteps == variants.timesteps
        assert preset.algo == "analytic"
        BandNetwork(preset, serving=True)  # refuses what does not go together
    changed = [name for name, values in variants.variants.items() if values]
    default = load_preset("default")
    for name in changed:
        variants.write_preset(name, tmp_path / "preset.yaml")
        preset = read_preset(tmp_path / "preset.yaml")
        same = (preset.analytic, preset.network, preset.environment) == (
            default.analytic,
            default.network,
            default.environment,
        )
        assert not same, name


def test_a_window_out_of_range_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablations.main(["--scale-down-window", "9999", "--out", str(tmp_path / "runs")]) == 2
    assert bars.main([str(tmp_path / "policy.onnx"), "--scale-down-window", "-1"]) == 2
    told = capsys.readouterr().err
    assert "--scale-down-window: 9999 is not allowed; 0..3600 is" in told
    assert "--scale-down-window: -1 is not allowed; 0..3600 is" in told
    assert not (tmp_path / "runs").exists()


def test_what_is_no_variant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--only"):
        ablations.Variants.read(ablations.FILE).only(["nonsense"])
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"preset": "default"}))
    with pytest.raises(ConfigError, match="variants"):
        ablations.Variants.read(path)
    path.write_text(
        yaml.safe_dump(
            {"preset": "default", "timesteps": 1, "seed": 0, "variants": {"a": {"analytic.flapp": 1.0}}}
        )
    )
    with pytest.raises(ConfigError, match="flapp"):
        ablations.Variants.read(path).write_preset("a", tmp_path / "preset.yaml")


def test_a_finished_variant_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> object:
        calls.append(command)
        folder = tmp_path / "as-shipped" / "1-analytic-0"
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        if len(calls) == 1:  # stopped by Ctrl-C after a checkpoint
            (folder / "checkpoints" / "1.json").write_text("{}")
            return type("Done", (), {"returncode": 130})()
        (folder / "policy.onnx").write_bytes(b"x")
        return type("Done", (), {"returncode": 0})()

    monkeypatch.setattr(ablations.subprocess, "run", run)
    variants = ablations.Variants.read(ablations.FILE)
    home = tmp_path / "as-shipped"
    with pytest.raises(KeyboardInterrupt):
        ablations.train_variant(variants, "as shipped", home)
    for _ in range(2):
        assert ablations.train_variant(variants, "as shipped", home).name == "policy.onnx"
    assert len(calls) == 2
    assert "--preset" in calls[0]
    assert calls[1][-2:] == ["--resume", str((home / "1-analytic-0").resolve())]
