"""The real script over a tiny preset: what a study leaves behind, how it goes on, and bad input."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import TrialState

from tests.training.conftest import run_script
from training.config import load_preset, read_preset
from training.errors import ConfigError, RunError
from training.tune import build_parser
from training.tuning.report import write_report
from training.tuning.space import Dimension, check_space, load_space, space_names, with_values
from training.tuning.storage import STORAGE_VARIABLE, claim, give_up, open_storage, sole_tuner
from training.tuning.study import open_study, storage_url, trial_settings, work
from training.tuning.trial import (
    UNREACHED_COST,
    Objective,
    frontier_score,
    last_reward,
    standing,
)

POSTGRES = os.environ.get("RLSCALER_TEST_POSTGRES", "")
"""URL of a PostgreSQL database whose tables a test may make and drop."""

SPACE = """
ppo.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
ppo.n_epochs: {low: 1, high: 3}
network.actor: {choices: [[8], [16, 16]]}
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def study(tiny_preset: Path, space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of two trials."""
    out = tmp_path_factory.mktemp("studies")
    done = run_script("tune.py", *arguments(tiny_preset, space, out, 2))
    assert done.returncode == 0, done.stderr
    return out / "tune-tiny"


def arguments(preset: Path, space: Path, out: Path, trials: int) -> list[object]:
    return [
        *("--preset", preset, "--space", space, "--out", out, "--trials", trials),
        *("--windows", 1, "--window-hours", 1),
    ]


def test_every_trial_is_a_run_folder_with_its_preset_and_artifact(study: Path) -> None:
    for number in ("0000", "0001"):
        home = study / "trials" / number
        (run,) = (path for path in home.iterdir() if path.is_dir())
        assert (run / "policy.onnx").is_file()
        preset = read_preset(home / "preset.yaml")
        assert 1e-4 <= preset.ppo.learning_rate <= 1e-2
        assert preset.network.actor in ((8,), (16, 16))


def test_the_report_has_all_trials_and_the_best_preset_can_be_trained(study: Path) -> None:
    rows = list(csv.DictReader((study / "trials.csv").open()))
    assert [row["state"] for row in rows] == ["COMPLETE", "COMPLETE"]
    best = min(rows, key=lambda row: float(row["score"]))
    assert load_preset(str(study / "best.yaml")).ppo.n_epochs == int(best["ppo.n_epochs"])
    report = (study / "report.md").read_text()
    assert f"The best is trial {best['trial']}" in report
    for plot in ("history.png", "slices.png"):
        assert (study / plot).stat().st_size > 5_000


def test_the_same_command_goes_on_and_a_finished_study_stays(
    study: Path, tiny_preset: Path, space: Path
) -> None:
    again = run_script("tune.py", *arguments(tiny_preset, space, study.parent, 2))
    assert again.returncode == 0, again.stderr
    assert len(list((study / "trials").iterdir())) == 2
    more = run_script("tune.py", *arguments(tiny_preset, space, study.parent, 3), "--workers", 2)
    assert more.returncode == 0, more.stderr
    assert len(list(csv.DictReader((study / "trials.csv").open()))) >= 3
    (study / "report.md").unlink()
    shown = run_script("tune.py", *arguments(tiny_preset, space, study.parent, 3), "--report")
    assert shown.returncode == 0, shown.stderr
    assert "3 trials completed" in (study / "report.md").read_text()


def test_a_second_tuner_on_the_same_study_is_refused(tmp_path: Path) -> None:
    with sole_tuner(tmp_path), pytest.raises(RunError, match=r"another tune\.py"), sole_tuner(tmp_path):
        pass


def test_sqlite_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"SQLite loses trials of several writers.*postgresql"):
        open_storage("sqlite:///study.db", tmp_path)


def test_a_storage_that_is_no_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a URL such as postgresql://user:password@host/database"):
        open_storage("study.db", tmp_path)


def test_errors_do_not_show_the_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        open_storage("postgresql+nonsense://me:secret@db/x", tmp_path)
    assert "secret" not in str(refused.value)


def test_the_storage_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    args = build_parser().parse_args([])
    assert storage_url(args) is None
    monkeypatch.setenv(STORAGE_VARIABLE, "postgresql://here")
    assert storage_url(args) == "postgresql://here"
    assert storage_url(build_parser().parse_args(["--storage", "postgresql://there"])) == "postgresql://there"


class Toy:
    """Stands in for a trial's training: a number, and what `when` does at that trial."""

    def __init__(self, when: Callable[[optuna.Trial], None] = lambda trial: None) -> None:
        self.trial: optuna.Trial | None = None
        self.orphaned = False
        self.when = when

    def __call__(self, trial: optuna.Trial) -> float:
        self.trial = trial
        claim(trial)
        value = trial.suggest_float("x", 0.0, 1.0)
        self.when(trial)
        self.trial = None
        return value


@pytest.fixture
def toy_study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(study_name="toy", storage=open_storage(None, tmp_path))


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials()]


def test_a_worker_ends_exactly_the_trials_that_are_wanted(toy_study: optuna.Study) -> None:
    assert work(toy_study, Toy(), 3) == 0
    assert states(toy_study) == ["COMPLETE"] * 3
    work(toy_study, Toy(), 3)
    assert len(toy_study.get_trials()) == 3


def test_a_stopped_workers_settings_are_queued_again(toy_study: optuna.Study) -> None:
    def stop(trial: optuna.Trial) -> None:
        if trial.number == 1:
            raise KeyboardInterrupt

    assert work(toy_study, Toy(stop), 3) == 130
    assert states(toy_study) == ["COMPLETE", "FAIL", "WAITING"]
    assert work(toy_study, Toy(), 3) == 0
    cut, again = toy_study.get_trials()[1:3]
    assert again.params == cut.params
    assert again.user_attrs["again"] == 1


def test_a_dead_workers_trial_goes_to_the_others_and_no_other_does(toy_study: optuna.Study) -> None:
    dead, alive = toy_study.ask(), toy_study.ask()
    for trial, process in ((dead, 11), (alive, 12)):
        trial.suggest_float("x", 0.0, 1.0)
        trial.set_user_attr("owner", f"{os.uname().nodename}/{process}")
    assert give_up(toy_study, 11) == 1
    assert states(toy_study) == ["FAIL", "RUNNING", "WAITING"]
    assert give_up(toy_study, 11) == 0


def test_a_worker_without_its_tuner_stops(toy_study: optuna.Study) -> None:
    orphan = Toy()
    orphan.orphaned = True
    assert work(toy_study, orphan, 3) == 130
    assert states(toy_study) == []


def test_a_worker_knows_its_tuner_by_its_parent(tiny_preset: Path, tmp_path: Path) -> None:
    arguments = ["--preset", str(tiny_preset), "--out", str(tmp_path)]
    objective = Objective(trial_settings(build_parser().parse_args(arguments)))
    assert not objective.orphaned
    objective._parent = -1
    assert objective.orphaned


def test_what_training_refuses_three_times_ends_the_study(toy_study: optuna.Study) -> None:
    def refused(trial: optuna.Trial) -> None:
        trial.set_user_attr("refused", True)
        raise RunError("train.py ended with 2")

    assert work(toy_study, Toy(refused), 10) == 0
    assert states(toy_study) == ["FAIL"] * 3


def test_workers_of_several_machines_draw_differently(tiny_preset: Path, tmp_path: Path) -> None:
    first = []
    for machine, worker in ((0, 1), (0, 2), (1, 1), (2, 1)):
        args = build_parser().parse_args(
            [
                *("--preset", str(tiny_preset), "--out", str(tmp_path / f"{machine}-{worker}")),
                *("--machine", str(machine), "--worker", str(worker)),
            ]
        )
        settings = trial_settings(args)
        settings.folder.mkdir(parents=True)
        first.append(open_study(args, settings).ask().suggest_float("x", 0.0, 1.0))
    assert len(set(first)) == 4


def test_the_machines_number_is_the_jobs_index(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_parser().parse_args([]).machine == 0
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "5")
    assert build_parser().parse_args([]).machine == 5


ROWS = [
    {"timesteps": 1.0, "reward": -5.0, "cost_at_05": np.nan, "cost_at_1": np.nan},
    {"timesteps": 2.0, "reward": -4.0, "cost_at_05": np.nan, "cost_at_1": 2.0},
    {"timesteps": 3.0, "reward": -3.0, "cost_at_05": np.nan, "cost_at_1": np.nan},
    {"timesteps": 4.0, "reward": -2.0, "cost_at_05": 4.0, "cost_at_1": 1.0},
]


def test_a_trial_stands_where_its_newest_frontier_does() -> None:
    assert standing(ROWS[:1], by_frontier=True) is None
    assert standing(ROWS[:3], by_frontier=True) == pytest.approx((UNREACHED_COST * 2.0) ** 0.5)
    assert standing(ROWS, by_frontier=True) == pytest.approx(2.0)


def test_other_tasks_stand_where_their_reward_does() -> None:
    assert standing(ROWS, by_frontier=False) == 2.0
    assert standing([], by_frontier=False) is None


def test_a_level_out_of_reach_counts_as_dear() -> None:
    assert frontier_score([2.0, 8.0]) == pytest.approx(4.0)
    assert frontier_score([np.nan, np.nan]) == pytest.approx(UNREACHED_COST)


def test_the_score_by_reward_is_that_of_the_end(tmp_path: Path) -> None:
    rewards = [*range(-40, 0)]
    lines = ["timesteps,reward", *(f"{i},{reward}" for i, reward in enumerate(rewards))]
    (tmp_path / "metrics.csv").write_text("\n".join([*lines, "40,"]) + "\n")
    assert last_reward(tmp_path) == pytest.approx(np.mean(rewards[-4:]))
    (tmp_path / "metrics.csv").write_text("timesteps,reward\n1,\n")
    with pytest.raises(RunError, match="no reward to score it by"):
        last_reward(tmp_path)


def test_a_space_that_varies_the_reward_is_refused_where_the_reward_is_the_score(
    tiny_preset: Path, tmp_path: Path
) -> None:
    settings = trial_settings(build_parser().parse_args(["--preset", str(tiny_preset)]))
    varied = (Dimension("environment.horizon_steps", 16, 64),)
    replace(settings, space=varied).check()
    other = replace(settings, space=varied, preset=replace(settings.preset, env="pools"))
    with pytest.raises(ConfigError, match=r"environment\.horizon_steps is not allowed with env pools"):
        other.check()


def test_a_study_by_reward_has_a_report_that_says_so(tiny_preset: Path, tmp_path: Path) -> None:
    args = build_parser().parse_args(["--preset", str(tiny_preset), "--out", str(tmp_path)])
    settings = trial_settings(args)
    settings = replace(
        settings,
        space=(Dimension("ppo.gamma", 0.9, 0.99), Dimension("network.activation", choices=("tanh", "silu"))),
        preset=replace(settings.preset, env="pools"),
    )
    settings.folder.mkdir(parents=True)
    study = open_study(args, settings)
    for value in (-3.0, 2.0):
        trial = study.ask()
        claim(trial)
        for dimension in settings.space:
            dimension.suggest(trial)
        study.tell(trial, value)
    text = write_report(study, settings).read_text()
    assert "The score, lower is better, is minus the mean reward" in text
    assert "The best is trial 0 at -3.000; its preset is [best.yaml](best.yaml)" in text
    assert f" on {os.uname().nodename}." in text
    assert "cost at" not in text


def _die_in_a_trial(url: str, folder: Path) -> None:
    """A worker on another machine: the power fails in the middle of its second trial."""

    def fail(trial: optuna.Trial) -> None:
        if trial.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    study = optuna.load_study(study_name="toy", storage=open_storage(url, folder, heartbeat_s=1))
    work(study, Toy(fail), 4)


@pytest.mark.skipif(not POSTGRES, reason="RLSCALER_TEST_POSTGRES is not set")
def test_a_killed_workers_trial_is_run_by_another_machine(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    storage = open_storage(POSTGRES, tmp_path, heartbeat_s=1)
    study = optuna.create_study(study_name="toy", storage=storage)
    try:
        dying = multiprocessing.get_context("spawn").Process(
            target=_die_in_a_trial, args=(POSTGRES, tmp_path)
        )
        dying.start()
        dying.join(60)
        assert dying.exitcode == -signal.SIGKILL
        assert states(study) == ["COMPLETE", "RUNNING"]
        assert work(study, Toy(), 4, wait_s=0.2) == 0
        found = study.get_trials()
        assert found[1].state is TrialState.FAIL
        assert states(study).count("COMPLETE") == 4
        assert found[1].params["x"] in [one.params["x"] for one in found[2:]]
    finally:
        optuna.delete_study(study_name="toy", storage=storage)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ppo.gamma: {low: 0.9}", r"ppo\.gamma: low: 0\.9 and high: None must be numbers"),
        ("ppo.gamma: {low: 2, high: 1}", r"low: 2 and high: 1 must be numbers, low below high"),
        ("ppo.gamma: {low: 0, high: 1, log: true}", r"low: 0 must be above 0 on a log scale"),
        ("ppo.gamma: {lo: 0.5, high: 1}", r"unknown key 'lo'; did you mean low"),
        ("ppo.gamma: {low: 0.5, choices: [1]}", r"either choices, or low and high"),
        ("ppo.gamma: 3", r"a mapping with .* is expected, not 3"),
        ("[]", r"settings with their ranges are expected"),
    ],
)
def test_a_bad_space_is_refused_with_field_and_value(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_space(str(path))


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        (Dimension("ppo.gama", 0.1, 0.9), r"unknown key 'ppo\.gama'; did you mean gamma"),
        (Dimension("network.activation", choices=("tanh", "step")), r"'step' is not one of tanh"),
        (Dimension("timesteps.more", 1, 2), r"'timesteps' is not a group of settings"),
    ],
)
def test_a_space_over_settings_that_do_not_exist_is_refused(dimension: Dimension, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_space([dimension], load_preset("default"))


@pytest.mark.parametrize("name", space_names())
def test_the_spaces_that_ship_fit_the_default_preset(name: str) -> None:
    check_space(load_space(name), load_preset("default"))


def test_values_replace_settings_and_leave_the_rest() -> None:
    before = {"ppo": {"gamma": 0.9, "n_epochs": 2}, "name": "x"}
    after = with_values(before, {"ppo.gamma": 0.5})
    assert after == {"ppo": {"gamma": 0.5, "n_epochs": 2}, "name": "x"}
    assert before["ppo"]["gamma"] == 0.9


def test_bad_numbers_on_the_command_line_are_refused() -> None:
    refused = run_script("tune.py", "--trials", 0)
    assert refused.returncode == 2
    assert "--trials: 0 is not allowed; 1 or more is" in refused.stderr


def test_the_best_preset_holds_parsed_choices(study: Path) -> None:
    assert isinstance(yaml.safe_load((study / "best.yaml").read_text())["network"]["actor"], list)
