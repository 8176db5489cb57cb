"""What `--env` names: which algorithms it allows, what it measures, and how recordings become episodes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim.traces import Trace
from tests.training.conftest import ROOT, environment
from training.actions import make_head
from training.config import Action, load_preset, read_preset
from training.environment import ResultsVecEnv, make_environment
from training.errors import ConfigError
from training.measuring import MOST_SHARE, Measuring
from training.recordings import Recordings
from training.tasks import load_task

DAY_S = 86_400.0


def test_tasks_are_known_without_torch_or_numba() -> None:
    code = (
        "import sys; from training.tasks import TASKS, load_task; load_task('autoscale'); load_task('pools');"
        "import training.sitting; print(*TASKS, *({'torch', 'numba', 'gymnasium'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["autoscale", "pools", "scheduling", "grid", "web"]


def test_an_unknown_task_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"'pong' is not one of autoscale, pools, scheduling, grid, web"):
        load_task("pong")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"env": "pools", "algo": "dqn"}, "'dqn' is not allowed with env: pools; evolution, ppo, a2c, sac"),
        ({"algo": "maskable-ppo"}, "algo: 'maskable-ppo' is not allowed with env: autoscale; analytic, ppo"),
        ({"algo": "dqn"}, "action.kind: 'anchored' is not allowed with algo: dqn; discrete, band is"),
        ({"algo": "sac"}, "action.kind: 'anchored' is not allowed with algo: sac; continuous is"),
        ({"env": "pools", "traces": ("a.csv",)}, "traces: not allowed with env: pools"),
    ],
)
def test_a_combination_that_is_not_allowed_is_refused_with_those_that_are(
    overrides: dict[str, object], words: str
) -> None:
    preset = load_preset("ppo", **overrides)
    with pytest.raises(ConfigError) as caught:
        load_task(preset.env).check(preset)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("env", "algorithm"),
    [("autoscale", one) for one in (None, "analytic", "ppo", "recurrent-ppo", "a2c", "dqn", "sac")]
    + [("pools", one) for one in (None, "evolution", "ppo", "a2c", "sac")],
)
def test_every_algorithm_has_a_preset_that_its_task_accepts(env: str, algorithm: str | None) -> None:
    task = load_task(env)
    preset = load_preset(task.preset_for(algorithm), algo=algorithm, env=env)
    task.check(preset)
    assert preset.env == env
    assert preset.algo == (algorithm or task.algorithms[0])
    if env == "autoscale" and preset.algo != "analytic":
        make_head(preset.action)


def test_columns_are_means_of_the_episodes_and_always_the_same_ones() -> None:
    task = load_task("autoscale")
    summaries = [
        {"cost": 2.0, "violation": 0.01, "flaps_per_hour": 1.0, "preference": 10.0},
        {"cost": 4.0, "violation": 0.03, "flaps_per_hour": 3.0, "preference": 90.0},
    ]
    row = task.columns(summaries)
    assert (row["cost"], row["cost_cheap"], row["cost_safe"]) == (3.0, 2.0, 4.0)
    nothing = task.columns([])
    assert list(nothing) == list(row)
    assert all(math.isnan(value) for value in nothing.values())
    of_pools = load_task("pools").columns([{"cost": 1.0, "violation": 0.5}])
    assert of_pools["cost"] == 1.0
    assert math.isnan(of_pools["dropped"])


def test_pools_are_trained_in_their_own_environment() -> None:
    preset = load_preset("pools", num_envs=2, environment={"horizon_steps": 8, "stagger": False})
    env = ResultsVecEnv(load_task("pools").make(preset, seed=0))
    env.reset()
    for _ in range(8):
        env.step(np.zeros((2, *env.action_space.shape), dtype=np.float32))
    reward, summaries = env.pop_results()
    assert -3.0 <= reward < 0.0
    assert len(summaries) == 2
    assert {"cost", "violation", "dropped", "route_churn", "flaps_per_hour"} <= set(summaries[0])
    with pytest.raises(ConfigError, match=r"environment\.pool"):
        load_task("pools").make(load_preset("pools", environment={"pool": 3}), seed=0)


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_measuring_takes_little_of_the_time() -> None:
    clock = Clock()
    measuring = Measuring(("cost",), timesteps=1000, clock=clock)
    spent, known = 0.0, 0

    def measure() -> dict[str, float]:
        nonlocal spent
        clock.now += 2.0
        spent += 2.0
        return {"cost": 1.5}

    for step in range(10, 1001, 10):
        clock.now += 10.0
        row = measuring.columns(step - 10, step, measure)
        assert list(row) == ["cost"]
        known += not math.isnan(row["cost"])
    assert 5 <= known <= 15
    # the very first one compiles, and is not counted
    assert spent - 2.0 <= MOST_SHARE * clock.now


def test_a_run_of_seconds_is_not_measured() -> None:
    clock = Clock()
    measuring = Measuring(("cost",), timesteps=100, clock=clock)
    for step in range(1, 101):
        clock.now += 0.1
        assert math.isnan(measuring.columns(step - 1, step, lambda: pytest.fail("too dear"))["cost"])


def saw(length_s: float, step_s: float = 60.0, name: str = "saw") -> Trace:
    """A recording whose rate says what time it is: 1 to 2 requests/s over its length."""
    times = np.arange(0.0, length_s, step_s)
    return Trace(times, 1.0 + times / length_s, name)


def test_a_piece_of_a_recording_is_a_stretch_of_it_with_a_peak_of_one() -> None:
    piece = Recordings([saw(4 * DAY_S)]).sample(np.random.default_rng(0), DAY_S, 15.0)
    assert piece.shape == (5761,)
    assert piece.max() == pytest.approx(1.0)
    # a day of four: a quarter of the way from 1 to 2, whatever the scale
    slope = np.diff(piece) / piece[-1]
    assert slope == pytest.approx(np.full(5760, slope[0]), rel=1e-3)


def test_a_short_recording_is_repeated() -> None:
    piece = Recordings([saw(3600.0)]).sample(np.random.default_rng(0), 3 * 3600.0, 60.0)
    assert int((np.diff(piece) < -0.2).sum()) == 3
    assert piece[:60] == pytest.approx(piece[60:120], abs=1e-6)


def test_pieces_that_are_mostly_missing_or_empty_are_not_used() -> None:
    times = np.concatenate([np.arange(0, 3600, 60.0), np.arange(20 * 3600, 24 * 3600, 60.0)])
    rates = np.where(times < 3600, 5.0, 1.0 + 0.1 * np.sin(times))
    recordings = Recordings([Trace(times, rates, "hole")])
    for seed in range(20):
        piece = recordings.sample(np.random.default_rng(seed), 2 * 3600.0, 60.0)
        assert piece.min() > 0.5  # a ramp from 5 to 1 over the hole would go down to 0.2
    with pytest.raises(ConfigError, match="quiet has no requests"):
        Recordings([Trace(np.arange(10.0), np.zeros(10), "quiet")])


def recorded_preset(tmp_path: Path, share: float) -> Path:
    trace = tmp_path / "saw.csv"
    saw(10 * DAY_S).save(trace)
    path = tmp_path / "preset.yaml"
    path.write_text(
        f"num_envs: 4\ntraces: [{trace}]\ntrace_share: {share}\n"
        "environment: {horizon_steps: 16, scenario: {histories_s: [0.0]}}\n"
    )
    return path


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_episodes_are_cut_from_recordings(share: float, tmp_path: Path) -> None:
    env = make_environment(read_preset(recorded_preset(tmp_path, share)), seed=5)
    traffic = env.venv.batch.episodes.traffic
    traffic.prepare(np.arange(len(traffic.shapes)))
    straight = np.abs(np.diff(traffic.shapes, n=2, axis=1)).max(axis=1) < 1e-3
    assert straight.mean() == pytest.approx(share, abs=0.05)
    again = make_environment(read_preset(recorded_preset(tmp_path, share)), seed=5)
    first, second = env.reset(), again.reset()
    assert np.array_equal(first, second)
    assert np.isfinite(env.step(np.zeros((4, 3), dtype=np.int64))[1]).all()


def test_a_recording_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("timestamp_s,requests_per_s\n0,1\n60,-5\n")
    with pytest.raises(ConfigError, match=r"traces: .*bad.*-5"):
        Recordings.load((str(path),), 1.0)


def test_a_continuous_action_needs_ranges_that_ascend() -> None:
    with pytest.raises(ConfigError, match=r"action\.low_range: \[1\.0, 0\.5\]"):
        make_head(Action(kind="continuous", low_range=(1.0, 0.5)))
    with pytest.raises(ConfigError, match=r"action\.gap_range"):
        make_head(Action(kind="continuous", gap_range=(-1.0, 0.5)))
