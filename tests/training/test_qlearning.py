"""Tabular Q-learning: the cut, the updates, a run of the real command, its pictures, and the artifact."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numba as nb
import numpy as np
import onnx
import pytest

from controller.core import OBSERVATION_SCHEMA
from controller.policies.loader import load_policy
from sim.baselines import Setting
from sim.replay import Protocol, replay
from training.actions import TableHead
from training.artifact import PARITY_OBSERVATIONS
from training.config import Preset, load_preset, read_preset
from training.contestants import generated_windows
from training.errors import ConfigError, ExportError
from training.qlearning import run as run_module
from training.qlearning import window as window_module
from training.qlearning.artifact import export_table, parity, probing_observations, table_graph
from training.qlearning.dashboard import save_dashboard
from training.qlearning.heatmap import heat_map, save_heat_map
from training.qlearning.kernel import Cut, Memory, Steps, learn
from training.qlearning.learner import Learner
from training.qlearning.run import read_checkpoint
from training.qlearning.settings import Axis, QLearning
from training.qlearning.showcase import Showcase, Story
from training.qlearning.states import States, state_of
from training.qlearning.table import Table
from training.runs import RunFolder, read_metrics
from training.train import main

TINY = """
name: tiny
algo: qlearning
timesteps: 1024
num_envs: 4
checkpoint_every: 256
action: {kind: discrete, changes: [-0.25, 0.0, 0.25]}
qlearning:
  rollout: 12
  state:
  - {feature: provisioned_over_load, over: [load_max_60s], edges: [0.0, 0.3, 0.8], label: headroom}
  - {feature: load_change_60s, edges: [-0.1, 0.1], names: [falling, steady, rising]}
  - {feature: preference, edges: [0.25, 0.75]}
environment:
  horizon_steps: 32
  reward: {kind: weighted, violation_exponent: [0.2, 3.0], violation_cap: 50.0}
  scenario: {histories_s: [0.0], peak_replicas: [4.0, 60.0]}
"""
HEAD = TableHead("relative-change/v1", np.array([[-0.25], [0.0], [0.25]], dtype=np.float32))
HUGE = tuple(Axis(f"load_max_{span}s", tuple(range(50))) for span in (60, 300, 600, 900))
AXES = (
    Axis("provisioned_over_load", (0.0, 0.3, 0.8), over=("load_max_60s", "move_q995_1h")),
    Axis("load_change_60s", (-0.1, 0.1)),
    Axis("preference", (0.25, 0.75)),
)


@pytest.fixture(scope="module")
def preset_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset that trains in a moment."""
    path = tmp_path_factory.mktemp("preset") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def preset(preset_file: Path) -> Preset:
    return read_preset(preset_file)


@pytest.fixture(scope="module")
def run(preset_file: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The folder of an uninterrupted run of the real command."""
    out = tmp_path_factory.mktemp("runs")
    assert train("--preset", preset_file, "--out", out, "--seed", 3, "--no-evaluate") == 0
    (folder,) = out.iterdir()
    return RunFolder.open(folder)


@pytest.fixture
def table() -> Table:
    """A table of arbitrary values, all of them seen."""
    states = States(AXES)
    made = Table.empty(states, HEAD, 0.0, False)
    made.values[:] = np.random.default_rng(0).normal(size=made.values.shape)
    made.visits[:] = 1
    return made


def train(*args: object) -> int:
    """The exit status of `train.py args`, in this process, without a bar."""
    return main([*map(str, args), "--no-progress"])


def test_states_count_every_combination_of_bins_once() -> None:
    states = States(AXES)
    assert states.size == 4 * 3 * 3
    observation = np.zeros((1, OBSERVATION_SCHEMA.size), dtype=np.float32)
    column = OBSERVATION_SCHEMA.names.index
    found = set()
    for headroom in (-1.0, 0.1, 0.5, 2.0):
        for change in (-1.0, 0.0, 1.0):
            for preference in (0.0, 0.5, 1.0):
                observation[0, column("provisioned_over_load")] = headroom
                observation[0, column("load_change_60s")] = change
                observation[0, column("preference")] = preference
                found.add(int(states.index(observation)[0]))
    assert found == set(range(36))
    named = {"provisioned_over_load": "up to 1.00 x", "load_change_60s": "up to 0.90 x"}
    assert states.describe(0) == named | {"preference": "up to 0.25"}


def test_a_value_on_an_edge_belongs_below_it_and_the_largest_of_over_is_subtracted() -> None:
    states = States(AXES)
    observation = np.zeros((3, OBSERVATION_SCHEMA.size), dtype=np.float32)
    column = OBSERVATION_SCHEMA.names.index
    observation[:, column("provisioned_over_load")] = 0.8
    observation[1, column("move_q995_1h")] = 0.6
    # what is below 0 is not subtracted
    observation[2, column("move_q995_1h")] = -0.5
    bins = [np.unravel_index(index, states.shape)[0] for index in states.index(observation)]
    assert bins == [2, 1, 2]


def test_numpy_and_compiled_code_find_the_same_states() -> None:
    states = States(AXES)
    observations = probing_observations(states, 2000, seed=1)
    columns, over, edges, strides = states.columns, states.over, states.edges, states.strides

    @nb.njit
    def compiled(rows):  # type: ignore[no-untyped-def]
        found = np.zeros(len(rows), dtype=np.int64)
        for k in range(len(rows)):
            found[k] = state_of(rows[k], columns, over, edges, strides)
        return found

    np.testing.assert_array_equal(compiled(observations), states.index(observations))


def test_the_bins_of_the_dial_stand_for_its_ends_and_middles() -> None:
    assert States(AXES).levels().tolist() == [0.0, 50.0, 100.0]
    assert States(AXES[:2]).levels().tolist() == [50.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"feature": "cpu", "edges": (0.5,)}, "'cpu' is not one of"),
        ({"feature": "utilisation", "edges": ()}, "ascending numbers are"),
        ({"feature": "utilisation", "edges": (0.5, 0.5)}, "ascending numbers are"),
        ({"feature": "utilisation", "edges": (0.5,), "names": ("low",)}, "1 names for 2 bins"),
        ({"feature": "utilisation", "edges": (0.5,), "over": ("load",)}, "'load' is not one of"),
    ],
)
def test_an_axis_that_cuts_nothing_is_refused_by_name(content: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Axis(**content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"gamma": 1.0}, "gamma: 1.0 is not allowed; below 1"),
        ({"epsilon": 1.5}, "epsilon: 1.5 is not allowed; in 0..1"),
        ({"rollout": 0}, "rollout: 0 is not allowed; 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate: 0.0 is not allowed"),
        ({"state": ()}, "one axis or more"),
        ({"state": (AXES[1], AXES[1])}, "each once"),
        ({"state": HUGE}, "up to 2000000"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_by_name(content: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QLearning(**content)


def chain(double: bool, trace: float) -> tuple[np.ndarray, Memory]:
    """Values learned of a corridor of three rooms: going right from room i leads to i + 1, from the last one
    back to the first with a reward of 1; staying (choice 0) leads nowhere."""
    gamma, turns = 0.9, 300
    values = np.zeros((1 + int(double), 3, 2))
    memory = Memory(
        values, np.zeros(values.shape, dtype=np.int64), np.zeros((turns + 1, 1), dtype=np.int64),
        np.zeros(1, dtype=np.int64), np.zeros((turns, 1), dtype=np.int64), np.zeros((turns, 1, 1)),
    )  # fmt: skip
    cut = Cut(
        np.zeros(0, dtype=np.int64), np.zeros((0, 1), dtype=np.int64), np.zeros((0, 1), dtype=np.float32),
        np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), 0,
    )  # fmt: skip
    generator, room = np.random.default_rng(0), 0
    for rollout in range(40):
        memory.states[0, 0] = room
        for turn in range(turns):
            choice = int(generator.random() < 0.7)
            memory.chosen[turn, 0] = choice
            memory.rewards[turn, 0, 0] = float(choice == 1 and room == 2)
            room = (room + choice) % 3
            memory.states[turn + 1, 0] = room
        learn(cut, memory, Steps(0.5, 0.5, 0.05, gamma, trace, True, 0.0, 1, rollout * turns))
    return values.mean(axis=0), memory


@pytest.mark.parametrize(("double", "trace"), [(False, 0.0), (True, 0.0), (False, 0.7)])
def test_updates_find_the_known_values_of_a_corridor(double: bool, trace: float) -> None:
    values, memory = chain(double, trace)
    # the last room is worth 1 + gamma^3 + gamma^6 + ..., staying somewhere gamma times that room
    best = np.array([0.9**2, 0.9, 1.0]) / (1.0 - 0.9**3)
    np.testing.assert_allclose(values[:, 1], best, rtol=0.02)
    np.testing.assert_allclose(values[:, 0], 0.9 * best, rtol=0.02)
    assert memory.visits.sum() == 40 * 300


def test_exploration_falls_from_its_start_to_its_end(preset: Preset) -> None:
    learner = Learner(preset, 0)
    rates = []
    while not learner.finished:
        rates.append(learner.round().exploration_rate)
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(0.05)
    assert rates == sorted(rates, reverse=True)


def test_every_step_teaches_each_bin_of_the_dial(preset: Preset) -> None:
    learner = Learner(preset, 0)
    learner.round()
    visits = learner.table.visits.reshape(*learner.states.shape, 3)
    services, choices = preset.num_envs, learner.choices
    np.testing.assert_array_equal(visits.sum(axis=(0, 1, 3)), [services * choices] * 3)
    # what a step costs where violations are dear is never less than where they are cheap
    values = learner.table.mean.reshape(*learner.states.shape, 3)
    assert values[..., 2, :].sum() != values[..., 0, :].sum()


def test_a_trained_table_earns_more_than_one_that_never_changes_anything(preset: Preset) -> None:
    longer = replace(preset, timesteps=60 * 4 * 32)
    learner = Learner(longer, 1)
    while not learner.finished:
        learner.round()
    frozen = {"learning_rate": 1e-9, "learning_rate_decay": 0.0, "final_learning_rate": 1e-9}
    settings = replace(preset.qlearning, epsilon=0.0, final_epsilon=0.0, **frozen)
    greedy = replace(preset, qlearning=settings, num_envs=32)

    def reward(values: np.ndarray) -> float:
        judged = Learner(greedy, 77)
        judged.table.values[:] = values
        return float(np.mean([judged.round().reward for _ in range(2)]))

    still = np.zeros_like(learner.table.values)
    still[..., 1] = 1.0
    assert reward(learner.table.values) > reward(still)


def test_a_run_folder_holds_the_usual_files_and_those_of_the_table(run: RunFolder) -> None:
    rows = read_metrics(run.metrics)
    assert [row["timesteps"] for row in rows] == [128.0 * (k + 1) for k in range(8)]
    assert [row["episodes"] for row in rows] == [4.0 * (k + 1) for k in range(8)]
    assert [path.name for path in sorted(run.checkpoints.glob("*.zip"))] == [
        f"{steps:012d}.zip" for steps in (256, 512, 768, 1024)
    ]
    config = json.loads((run.path / "run_config.json").read_text())
    assert config["seed"] == 3
    assert "--seed 3" in config["command"]
    assert config["preset"]["qlearning"]["state"][0]["label"] == "headroom"
    with np.load(run.path / "metrics.npz") as episodes:
        assert {episodes[name].shape for name in episodes.files} == {(32,)}
        assert episodes["exploration_rate"][0] == 1.0
        np.testing.assert_allclose(
            episodes["return"].reshape(8, 4).mean(axis=1) / 32, [row["reward"] for row in rows], rtol=1e-6
        )
    for name in ("dashboard", "table", "learning_curves"):
        assert (run.plots / f"{name}.png").stat().st_size > 10_000
    card = json.loads(run.card.read_text())
    assert card["parity"] == 0.0
    assert card["provenance"]["seed"] == 3


def test_equal_seeds_give_equal_tables_and_others_do_not(
    run: RunFolder, preset_file: Path, tmp_path: Path
) -> None:
    for seed in (3, 4):
        assert train("--preset", preset_file, "--out", tmp_path, "--seed", seed, "--no-evaluate") == 0
    again, other = (
        read_checkpoint(RunFolder.open(path).latest_checkpoint().model)
        for path in sorted(tmp_path.iterdir(), key=lambda path: path.name[-1])
    )
    ours = read_checkpoint(run.latest_checkpoint().model)
    for name in ours:
        np.testing.assert_array_equal(ours[name], again[name])
    assert not np.array_equal(ours["values"], other["values"])


class StopsSoon:
    """Ctrl-C after three rounds."""

    def __init__(self, announce: object) -> None:
        self._asked = 0

    def __enter__(self) -> StopsSoon:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def requested(self) -> bool:
        self._asked += 1
        return self._asked > 3


def test_ctrl_c_saves_and_a_resumed_run_ends_as_an_uninterrupted_one(
    run: RunFolder,
    preset_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run_module, "StopOnInterrupt", StopsSoon)
    assert train("--preset", preset_file, "--out", tmp_path, "--seed", 3, "--no-evaluate") == 130
    (folder,) = tmp_path.iterdir()
    assert f"--resume {folder}" in capsys.readouterr().out
    monkeypatch.undo()
    assert train("--resume", folder, "--no-evaluate") == 0

    resumed = RunFolder.open(folder)
    ours, theirs = read_metrics(resumed.metrics), read_metrics(run.metrics)
    same = ("timesteps", "episodes", "reward", "cost", "violation", "exploration_rate", "td_error")
    for name in same:
        np.testing.assert_array_equal([row[name] for row in ours], [row[name] for row in theirs])
    mine, whole = (read_checkpoint(each.latest_checkpoint().model) for each in (resumed, run))
    for name in whole:
        np.testing.assert_array_equal(mine[name], whole[name])
    with np.load(folder / "metrics.npz") as episodes:
        assert len(episodes["return"]) == 32
    assert len(resumed.commands()) == 2


def test_the_demo_shows_a_dashboard_and_leaves_no_file(
    preset_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert train("--preset", preset_file, "--demo", "--timesteps", 512) == 0
    shown = capsys.readouterr().out
    for word in (
        "CPU utilisation",
        "servers ready",
        "penalty",
        "actions",
        "16 episodes",
        "nothing was saved",
    ):
        assert word in shown
    assert list(tmp_path.iterdir()) == []


def test_show_without_a_display_says_so_and_trains(
    preset_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(window_module, "has_display", lambda: False)
    status = train("--preset", preset_file, "--out", tmp_path, "--timesteps", 128, "--show", "--no-evaluate")
    assert status == 0
    assert "there is no display" in capsys.readouterr().err


def test_show_draws_the_dashboard_while_it_trains(
    preset_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(window_module, "has_display", lambda: True)
    monkeypatch.setattr(window_module, "BACKENDS", ("no-such-backend", "agg"))
    monkeypatch.setattr(window_module, "EVERY_S", 0.0)
    whole = window_module.draw

    def draw(figure: object, story: Story) -> None:
        drawn.append(len(story.episodes["return"]))
        whole(figure, story)  # type: ignore[arg-type]

    monkeypatch.setattr(window_module, "draw", draw)
    arguments = ("--preset", preset_file, "--out", tmp_path, "--timesteps", 256, "--show", "--no-evaluate")
    assert train(*arguments) == 0
    assert drawn == [4, 8]


def test_the_artifact_is_the_table_right_at_the_edges_too(table: Table) -> None:
    data = table_graph(table).SerializeToString()
    observations = probing_observations(table.states, PARITY_OBSERVATIONS, seed=5)
    assert parity(table, data, observations) == 0.0
    assert len(np.unique(table.policy().act(observations))) == 3
    table.values[:, :, 0] += 100.0
    assert parity(table, data, observations) > 0.0


def test_the_operator_takes_the_artifact_and_decides_as_the_table(run: RunFolder, preset: Preset) -> None:
    policy = load_policy({"file": str(run.artifact)})
    assert policy.name == "tiny"
    learner = Learner(preset, 3)
    learner.load(read_checkpoint(run.latest_checkpoint().model))
    low, high = learner.seen
    assert policy.metadata.observation_range is not None
    np.testing.assert_allclose(policy.metadata.observation_range.low, low, rtol=1e-5, atol=1e-6)
    assert (low <= high).all()
    unread, column = (OBSERVATION_SCHEMA.names.index(name) for name in ("season_1d", "provisioned_over_load"))
    # no day of history in training, and none of the table's business: not unknown ground for the guard
    assert (low[unread], high[unread]) == (OBSERVATION_SCHEMA.low[unread], OBSERVATION_SCHEMA.high[unread])
    assert high[column] < OBSERVATION_SCHEMA.high[column]
    protocol = Protocol(window_s=1800.0)
    windows = generated_windows(2, 11, protocol)
    settings = [
        Setting(str(k), one, protocol.spec(60.0)) for k, one in enumerate((policy, learner.table.policy()))
    ]
    result = replay(windows, settings, protocol, 1, timeline=True)
    np.testing.assert_array_equal(result.timeline["desired"][0], result.timeline["desired"][1])


def test_export_again_gives_the_same_graph(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "again.onnx"
    assert run_module.export(run, run.latest_checkpoint(), out, "renamed") == 0.0
    first, second = (onnx.load(path).graph.SerializeToString() for path in (run.artifact, out))
    assert first == second
    assert load_policy({"file": str(out)}).name == "renamed"


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no such table"):
        read_checkpoint(tmp_path / "none.zip")
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 not a table")
    with pytest.raises(ExportError, match="not a checkpoint of --algo qlearning"):
        read_checkpoint(tmp_path / "bad.zip")


def test_a_checkpoint_of_another_table_is_refused(table: Table, run: RunFolder) -> None:
    kept = read_checkpoint(run.latest_checkpoint().model)
    smaller = Table.empty(States(AXES[:2]), HEAD, 0.0, False)
    with pytest.raises(ConfigError, match=r"qlearning.state: \(1, 12, 3\) in the preset"):
        smaller.load(kept)


def test_an_anchored_head_has_no_table(preset_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--preset", preset_file, "--action", "anchored") == 2
    assert "discrete, band" in capsys.readouterr().err


def test_episodes_can_be_cut_from_a_recording(preset: Preset, tmp_path: Path) -> None:
    trace = tmp_path / "flat.csv"
    rows = "".join(f"{60 * minute},{100.0 + (minute % 7)}\n" for minute in range(6 * 1440))
    trace.write_text("timestamp_s,requests_per_s\n" + rows)
    recorded = Learner(replace(preset, traces=(str(trace),)), 0)
    generated = Learner(preset, 0)
    costs = [[one["cost"] for one in learner.round().summaries] for learner in (recorded, generated)]
    assert costs[0] != costs[1]
    assert recorded.batch.episodes.traffic is not generated.batch.episodes.traffic


def test_hold_ticks_that_do_not_divide_an_episode_are_refused(preset: Preset) -> None:
    with pytest.raises(ConfigError, match=r"5 does not divide environment\.horizon_steps = 32"):
        Learner(replace(preset, action=replace(preset.action, hold_ticks=5)), 0)


def test_the_heat_map_names_the_best_choice_of_every_state_and_its_gain(table: Table, tmp_path: Path) -> None:
    figure = heat_map(table, 0, 1)
    maps = figure.axes[:6]
    assert [axis.get_title() for axis in maps[:3]] == [f"best choice, preference {p}" for p in (0, 50, 100)]
    best = table.best.reshape(table.states.shape)
    for dial, axis in enumerate(maps[:3]):
        texts = {text.get_position(): text.get_text() for text in axis.texts}
        for row in range(4):
            for column in range(3):
                assert texts[column, row] == table.choices[best[row, column, dial]]
    values = table.mean.reshape(*table.states.shape, 3)
    gain = values[2, 1, 1].max() - values[2, 1, 1, 1]
    assert {text.get_position(): text.get_text() for text in maps[4].texts}[1, 2] == f"{gain:.2f}"
    assert maps[0].get_ylabel() == "provisioned_over_load less max(load_max_60s, move_q995_1h)"
    assert [label.get_text() for label in maps[0].get_xticklabels()] == list(AXES[1].labels)
    assert save_heat_map(table, tmp_path / "table.png").stat().st_size > 10_000


def test_states_that_were_never_seen_are_left_grey(table: Table) -> None:
    table.visits[:] = 0
    figure = heat_map(table, 0, 1)
    assert {text.get_text() for text in figure.axes[0].texts} == {"never seen"}
    assert len(figure.axes[3].texts) == 0


def test_a_dashboard_of_no_episodes_yet_can_be_drawn(tmp_path: Path) -> None:
    nothing = np.zeros(0)
    steps = np.ones(5)
    shown = Showcase(steps.cumsum(), *[steps] * 4, -steps, steps, steps, ("hold", "+1"))
    episodes = dict.fromkeys(("return", "cost", "violation", "exploration_rate"), nothing)
    assert save_dashboard(Story(episodes, shown), tmp_path / "new.png").stat().st_size > 10_000


def test_choices_are_called_by_what_they_do() -> None:
    changes = np.array([[-0.5], [-0.005], [0.0], [0.005], [1.0]], dtype=np.float32)
    table = Table.empty(States(AXES), TableHead("relative-change/v1", changes), 0.0, False)
    assert table.choices == ("-50 %", "-1", "hold", "+1", "+100 %")
    assert table.no_change == 2
    band = np.array([[0.0, 0.5], [np.log(2.0), np.log(4.0)]], dtype=np.float32)
    table = Table.empty(States(AXES), TableHead("hold-band/v1", band), 0.0, False)
    assert table.choices[1] == "2.00 to 4.00 x load"
    assert table.no_change is None
    assert heat_map(table, 0, 1).axes


def test_the_preset_that_ships_fits_its_table() -> None:
    preset = load_preset("qlearning")
    assert preset.algo == "qlearning"
    assert States(preset.qlearning.state).axis("preference") is not None
    assert preset.timesteps / preset.environment["horizon_steps"] >= 500
    assert Learner(preset, 0).table.values.shape[1] == preset.qlearning.states


def test_exporting_a_table_writes_nothing_where_the_graph_is_wrong(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: RunFolder
) -> None:
    from training.publish import provenance
    from training.qlearning import artifact

    origin = provenance(run, run.latest_checkpoint())
    monkeypatch.setattr(artifact, "parity", lambda *_: 0.25)
    with pytest.raises(ExportError, match=r"differs from the table by 0\.25"):
        export_table(table, origin, tmp_path / "wrong.onnx")
    assert list(tmp_path.iterdir()) == []
