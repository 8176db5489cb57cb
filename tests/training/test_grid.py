"""`--env grid`: training, the artifact, evaluation, pictures and the data-centre example."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sim.grid.batch import GridBatch, SmartGridConfig
from sim.grid.files import load_grid
from sim.grid.scenarios import with_series
from sim.grid.series import save_series
from training import grid as command
from training import train
from training.config import load_preset
from training.errors import ConfigError, ExportError
from training.smartgrid.datacentre import COLUMN, Frontier, Power, PriceFollowing, savings
from training.smartgrid.datacentre import Example as CentreExample
from training.smartgrid.evaluation import Outcome, gap_closed, over_bound, pooled
from training.smartgrid.pictures import results_gif, state_gif
from training.smartgrid.policies import GridArtifact
from training.smartgrid.setups import recorded_setups
from training.tasks import load_task

TINY = {
    "name": "tiny",
    "env": "grid",
    "algo": "ppo",
    "timesteps": 1024,
    "num_envs": 16,
    "checkpoint_every": 1024,
    "network": {"actor": [16], "critic": [16]},
    "ppo": {"n_steps": 32, "batch_size": 256, "n_epochs": 1},
    "environment": {"horizon_h": 24},
}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A run of a thousand steps through train.py itself."""
    folder = tmp_path_factory.mktemp("grid")
    preset = folder / "tiny.yaml"
    preset.write_text(yaml.safe_dump(TINY))
    arguments = [
        "--preset",
        str(preset),
        "--seed",
        "3",
        "--out",
        str(folder),
        "--no-progress",
        "--no-evaluate",
    ]
    assert train.main(arguments) == 0
    (found,) = (path for path in folder.iterdir() if path.is_dir())
    return found


def test_the_artifact_says_what_the_model_says(run_folder):
    from training.algorithms import load_model

    policy = GridArtifact(run_folder / "policy.onnx")
    model = load_model(next((run_folder / "checkpoints").glob("*.zip")))
    batch = GridBatch(SmartGridConfig(), 32, 0)
    observations = batch.reset()
    expected, _ = model.predict(observations, deterministic=True)
    assert np.abs(policy(batch) - expected).max() < 1e-5
    assert (policy.dispatchables, policy.storages) == (1, 1)
    rows = (run_folder / "metrics.csv").read_text().splitlines()
    assert {"saving", "bill", "unserved"} <= set(rows[0].split(","))


def test_an_untrained_actor_does_what_the_rule_does():
    from training.algorithms import make_model

    preset = load_preset("grid", num_envs=16)
    task = load_task("grid")
    venv = task.make(preset, 0)
    model = make_model(preset, venv, 0, "cpu", task.policy(preset))
    observations = venv.reset()
    actions, _ = model.predict(observations, deterministic=True)
    from training.smartgrid.network import shortcut_columns

    _, relieving, balancing = (observations[:, place] for place in shortcut_columns(1, 1))
    assert actions[:, 0] == pytest.approx(np.clip(relieving, -1, 1), abs=0.1)
    assert actions[:, 1] == pytest.approx(np.clip(balancing, -1, 1), abs=0.1)


def test_one_may_train_on_a_grid_and_a_recording_of_ones_own(tmp_path):
    grid = load_grid("village")
    week = with_series(np.random.default_rng(0), grid, "spot", 0.1, 168)
    save_series(week.series, grid, tmp_path / "mine.csv")
    files = {"grid_file": "village", "series_file": str(tmp_path / "mine.csv")}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**TINY, "environment": {"horizon_h": 24, **files}}))
    venv = load_task("grid").make(load_preset(str(tmp_path / "mine.yaml")), 0)
    assert venv.action_space.shape == (3,)
    assert np.isfinite(venv.reset()).all()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"grid_file": "nowhere"}, "grids that ship"),
        ({"series_file": "some.csv"}, "without environment.grid_file"),
        ({"horizon": 3}, "horizon_h"),
    ],
)
def test_a_bad_environment_is_refused(tmp_path, environment, said):
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**TINY, "environment": environment}))
    with pytest.raises(ConfigError, match=said):
        load_task("grid").make(load_preset(str(tmp_path / "bad.yaml")), 0)


def test_sac_has_a_preset_of_its_own():
    task = load_task("grid")
    assert load_preset(task.preset_for("sac")).algo == "sac"
    assert load_preset(task.preset_for(None)).algo == task.algorithms[0]


def test_another_artifact_is_refused(tmp_path):
    import controller.policies

    builtin = next((Path(controller.policies.__file__).parent / "builtin").glob("*.onnx"))
    with pytest.raises(ExportError, match="is not a grid's"):
        GridArtifact(builtin)
    with pytest.raises(ExportError, match="No such file"):
        GridArtifact(tmp_path / "none.onnx")


def an_outcome(name: str = "home1") -> Outcome:
    limit, first = np.array([10.0, 20.0, 30.0]), np.array([20.0, 30.0, 40.0])
    trained = np.array([[11.0, 21.0, 31.0], [13.0, 23.0, 33.0]])
    return Outcome(name, limit, {"no storage": first, "ppo": trained}, {"no storage": 0.0, "ppo": 0.1})


def test_figures_of_known_numbers():
    outcome = an_outcome()
    cost, share = over_bound(outcome, "ppo"), gap_closed(outcome, "ppo")
    assert cost.value == pytest.approx((63 / 60 + 69 / 60) / 2)
    assert cost.between_seeds == pytest.approx(np.std([63 / 60, 69 / 60], ddof=1))
    assert cost.low < cost.value < cost.high
    assert share.value == pytest.approx(1 - (3 / 30 + 9 / 30) / 2)
    assert gap_closed(outcome, "no storage").value == 0.0
    both = pooled([outcome, outcome])
    assert both.bound.sum() == 120
    assert over_bound(both, "ppo").value == pytest.approx(cost.value)


def test_a_preference_falls_in_dear_hours_and_rises_in_cheap_ones():
    seen = {}

    class Asked:
        type, digest, schema, name = "RL", "", "", "asked"

        def recommend(self, view):
            seen["preference"], seen["features"] = view.preference, view.make_features(np.arange(3))[0]
            return view.preference

    from dataclasses import dataclass

    @dataclass
    class Looked:
        rows: np.ndarray
        now_s: np.ndarray
        preference: np.ndarray
        make_features: object

    def features(index):
        return np.zeros((len(index), COLUMN + 1)), np.ones((len(index), COLUMN + 1), dtype=bool)

    prices = np.array([[1.0, np.e, 1.0 / np.e], [1.0, 1.0, 1.0]])
    at = 2 * 86400.0 + 3600.0 * np.array([1, 2, 1])
    view = Looked(np.array([0, 2, 1]), at, np.array([50.0, 50.0, 50.0]), features)
    answer = PriceFollowing(Asked(), prices, 10.0).recommend(view)
    assert answer == pytest.approx([40.0, 60.0, 50.0])
    assert seen["features"][:, COLUMN] == pytest.approx([0.4, 0.6, 0.5])


def test_power_is_of_replicas_and_of_their_work():
    power = Power(idle_w=50.0, peak_w=150.0, overhead=1.0)
    assert power.kilowatts(np.array([10.0, 10.0]), np.array([4.0, 99.0])) == pytest.approx([0.9, 1.5])


def test_savings_are_judged_at_equal_violations():
    dial = (0.0, 50.0, 100.0)
    violation = np.repeat(np.array([[0.1], [0.01], [0.001]]), 4, axis=1)
    bill = np.repeat(np.array([[1.0], [2.0], [3.0]]), 4, axis=1)
    plain, other = Frontier(0.0, dial, violation, bill), Frontier(5.0, dial, violation, 0.9 * bill)
    example = CentreExample((plain, other), np.zeros(0))
    assert savings(example, 0.01)[5.0] == pytest.approx((0.1, 0.1, 0.1))
    assert np.isnan(savings(example, 0.5)[5.0][0])


def test_pictures_are_animations(tmp_path):
    grid = load_grid("home")
    config = SmartGridConfig.of(grid, horizon_h=24)
    scenario = with_series(np.random.default_rng(0), grid, "spot", 0.15, 24)
    still = lambda batch: np.zeros((1, 1))  # noqa: E731
    paths = [
        results_gif(tmp_path / "a.gif", scenario, {"still": still}, config, frames=3),
        state_gif(tmp_path / "b.gif", scenario, still, SmartGridConfig.of(grid, horizon_h=28), hours=3),
    ]
    for path in paths:
        with Image.open(path) as image:
            assert image.n_frames == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "--policy", "file.onnx"], "NAME=FILE"),
        (["evaluate", "--traces", "/nowhere"], "no such folder"),
        (["pictures", "--out", "x", "--grid", "nowhere"], "grids that ship"),
    ],
)
def test_bad_arguments_are_refused_with_the_reason(arguments, said, capsys, monkeypatch):
    monkeypatch.delenv("RLSCALER_TRACES", raising=False)
    assert command.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_evaluate_compares_on_generated_weeks(run_folder, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("RLSCALER_TRACES", raising=False)
    policy, out = f"tiny={run_folder / 'policy.onnx'}", tmp_path / "out.json"
    arguments = ["evaluate", "--generated", "3", "--no-planner", "--policy", policy, "--json", str(out)]
    assert command.main(arguments) == 0
    table = capsys.readouterr().out
    assert "| generated | 3 |" in table
    assert "tiny" in table
    assert out.is_file()


@pytest.mark.skipif(not os.environ.get("RLSCALER_TRACES"), reason="RLSCALER_TRACES names no folder")
def test_recorded_weeks_are_whole_and_one_after_the_other():
    setups = recorded_setups(Path(os.environ["RLSCALER_TRACES"]))
    assert [setup.name for setup in setups] == ["home01", "home02", "home09", "home10", "street", "microgrid"]
    for setup in setups:
        first, second = setup.weeks[:2]
        assert (first.series.price[168:336] == second.series.price[:168]).all()
        assert setup.grid.peak_kw >= first.series.loads_kw.sum(axis=0).max()
