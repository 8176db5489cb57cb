"""Learned schedulers: the network, its artifact, training by the real script, the comparison's command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sim.envs.scheduling import action_space, observation_space
from sim.envs.scheduling_batch import SchedulingBatch, SchedulingConfig
from sim.scheduling import Workload
from sim.scheduling.features import CLUSTER_FEATURES, SERVER_FEATURES
from sim.scheduling.workloads import SchedulingScenario
from sim.traces import Jobs
from tests.training.conftest import run_script
from training.config import load_preset
from training.errors import ConfigError, ExportError
from training.schedulers.comparison import generated_windows
from training.schedulers.contestants import BUILT_IN, contestant, contestants_of
from training.schedulers.evaluation import Played, Protocol, beaten, play, summarise
from training.schedulers.network import ServerScoringPolicy
from training.tasks import load_task
from training.tasks.scheduling import SERVED

TINY = """
name: tiny
env: scheduling
algo: maskable-ppo
timesteps: 512
num_envs: 8
checkpoint_every: 256
network: {actor: [8]}
maskable_ppo: {n_steps: 16, batch_size: 64, n_epochs: 2}
environment: {servers: 4, jobs: 24, scenario: {servers: [2, 4]}}
"""
SMALL = Protocol(servers=4, windows=3, jobs=40, seeds=2)


def network(servers: int) -> ServerScoringPolicy:
    torch.manual_seed(0)
    config = SchedulingConfig(servers=servers, scenario=SchedulingScenario(servers=(2, servers)))
    return ServerScoringPolicy(observation_space(config), action_space(config), lambda _: 1e-3, width=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that the real script made."""
    folder = tmp_path_factory.mktemp("scheduling")
    (folder / "tiny.yaml").write_text(TINY)
    done = run_script("train.py", "--preset", folder / "tiny.yaml", "--out", folder / "runs", "--no-progress")
    assert done.returncode == 0, done.stderr
    return next((folder / "runs").iterdir())


def test_the_networks_scores_follow_the_servers_when_they_change_places():
    policy, rng = network(5), np.random.default_rng(0)
    observation = rng.random((7, 5 * SERVER_FEATURES + CLUSTER_FEATURES), dtype=np.float32)
    order = rng.permutation(5)
    servers = observation[:, : 5 * SERVER_FEATURES].reshape(7, 5, SERVER_FEATURES)
    servers[:, :, :2] = 1.0
    swapped = np.concatenate(
        [servers[:, order].reshape(7, -1), observation[:, 5 * SERVER_FEATURES :]], axis=1
    )
    with torch.no_grad():
        before = policy.mlp_extractor(torch.from_numpy(observation))
        after = policy.mlp_extractor(torch.from_numpy(swapped))
    assert torch.allclose(before[0][:, order], after[0][:, :5], atol=1e-5)
    assert torch.allclose(before[0][:, 5:], after[0][:, 5:], atol=1e-5)
    assert torch.allclose(before[1], after[1], atol=1e-3)


def test_the_same_weights_serve_any_number_of_servers_and_absent_ones_change_nothing():
    few, many = network(3), network(9)
    many.load_state_dict(few.state_dict())
    observation = np.random.default_rng(1).random(
        (4, 3 * SERVER_FEATURES + CLUSTER_FEATURES), dtype=np.float32
    )
    cut = 3 * SERVER_FEATURES
    observation[:, 0:cut:SERVER_FEATURES] = 1.0
    wide = np.concatenate(
        [observation[:, :cut], np.zeros((4, 6 * SERVER_FEATURES), dtype=np.float32), observation[:, cut:]],
        axis=1,
    )
    with torch.no_grad():
        narrow_scores = few.mlp_extractor.policy_net(torch.from_numpy(observation))
        wide_scores = many.mlp_extractor.policy_net(torch.from_numpy(wide))
    assert torch.allclose(narrow_scores[:, :3], wide_scores[:, :3], atol=1e-6)
    assert torch.allclose(narrow_scores[:, 3:], wide_scores[:, 9:], atol=1e-6)
    assert (wide_scores[:, 3:9] < -1000).all()


def test_train_py_trains_a_scheduler_and_exports_one_that_schedules(run):
    card = json.loads((run / "card.json").read_text())
    assert card["evaluation"]["mean_slowdown"]["best-fit"] >= 1.0
    rows = (run / "metrics.csv").read_text().splitlines()
    assert {"over_reference", "slowdown", "utilisation", "rejected"} <= set(rows[0].split(","))
    policy = contestant(str(next(run.glob("*.onnx"))))
    outcome = play(policy, SMALL, generated_windows(SMALL))
    assert (outcome.figures["slowdown"] >= 1.0).all()
    assert not outcome.figures["rejected"].any()


def test_the_artifact_decides_as_the_model_does(run):
    from sb3_contrib import MaskablePPO

    model = MaskablePPO.load(sorted((run / "checkpoints").glob("*.zip"))[-1])
    policy = contestant(str(next(run.glob("*.onnx"))))
    config = SchedulingConfig(servers=4, jobs=60, scenario=SchedulingScenario(servers=(2, 4)))
    batch = SchedulingBatch(config, 16, 3)
    observations = batch.reset()
    for _ in range(40):
        chosen = policy.choose(batch, observations)
        own, _ = model.predict(observations, action_masks=batch.action_masks(), deterministic=True)
        assert (chosen == own).mean() > 0.99
        observations = batch.step(chosen).observations


def test_the_built_in_policy_beats_best_fit_where_sizes_vary_widely():
    rng = np.random.default_rng(0)
    windows = []
    for k in range(4):
        duration, submit = rng.lognormal(4.0, 2.0, 500), np.cumsum(rng.exponential(1.0, 500))
        windows.append(Workload(submit, duration, np.ones(500), np.zeros(500), name=f"heavy@{k}"))
    protocol = Protocol(servers=8, windows=4, jobs=500, seeds=1)
    ours, theirs = (play(contestant(name), protocol, windows) for name in ("learned", "best-fit"))
    assert ours.figures["slowdown"].mean() < 0.9 * theirs.figures["slowdown"].mean()
    assert protocol.servers <= SERVED
    assert BUILT_IN.stat().st_size < 200_000


def test_all_policies_get_the_same_jobs_and_estimates():
    window = generated_windows(SMALL)[0]
    (_, first), (_, again), (_, other) = (SMALL.episode(window, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.estimate_s, again.estimate_s)
    assert not np.array_equal(first.estimate_s, other.estimate_s)
    assert np.array_equal(first.submit_s, other.submit_s)
    assert first.load_on(SMALL.make_servers()) == pytest.approx(0.9)


def test_a_ratio_below_one_by_its_whole_interval_counts_as_beaten():
    rng = np.random.default_rng(0)
    base = rng.lognormal(1.0, 0.5, (10, 3))
    names = ("slowdown", "median_slowdown", "p99_slowdown", "wait_s", "imbalance", "utilisation", "rejected")

    def figures(values: np.ndarray) -> Played:
        return Played(dict.fromkeys(names, values))

    report = summarise(
        {"trial": figures(0.8 * base), "same": figures(base), "better": figures(0.5 * base)}, "trial"
    )
    assert beaten(report, "same") is True
    assert beaten(report, "better") is False
    assert beaten(report, "trial") is None
    assert report["policies"]["same"]["trial_over"]["ratio"] == pytest.approx(0.8)
    assert report["policies"]["same"]["trial_over"]["interval"] == pytest.approx([0.8, 0.8])
    low, high = report["policies"]["same"]["interval"]
    assert low < base.mean() < high


def test_the_command_writes_tables_numbers_and_pictures(tmp_path):
    rng = np.random.default_rng(0)
    count = 300
    jobs = Jobs(
        np.cumsum(rng.exponential(5.0, count)),
        rng.lognormal(3.0, 1.5, count),
        rng.uniform(0.05, 1.0, count),
        np.full(count, np.nan),
        name="jobs",
    )
    jobs.save(tmp_path / "jobs_small.csv.gz")
    done = run_script(
        "scheduling.py", "--trace", tmp_path / "jobs_small.csv.gz", "--windows", 3, "--jobs", 60,
        "--seeds", 2, "--servers", 4, "--policy", "keep-room", "best-fit", "least-loaded/arrival",
        "--json", tmp_path / "a.json", "--markdown", tmp_path / "a.md", "--plots", tmp_path / "plots",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "a.json").read_text())
    found = report["recordings"]["jobs_small"]
    assert set(found["policies"]) == {"keep-room", "best-fit", "least-loaded/arrival"}
    assert found["notes"] == ["memory unknown, taken as none"]
    assert report["command"].startswith("python training/scheduling.py --trace")
    text = (tmp_path / "a.md").read_text()
    assert f"{found['policies']['best-fit']['slowdown']:.2f}" in text
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"slowdowns.png", "timeline.png"}
    assert "keep-room is better" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "fifo"], "--policy: 'fifo' is not learned, an .onnx file, or one of round-robin"),
        (["--load", "0"], "load: 0.0 is not allowed, must be above 0"),
        (["--servers", "0"], "servers: 0 is not allowed, must be 1 or more"),
        (["--policy", "nowhere.onnx"], "nowhere.onnx: no such policy"),
        (["--policy", "learned", "--servers", "1000", "--jobs", "10"], "this policy's graph holds 64"),
    ],
)
def test_bad_input_to_the_command_is_refused_with_a_sentence(arguments, message, monkeypatch, capsys):
    from training.scheduling import main

    monkeypatch.delenv("RLSCALER_TRACES", raising=False)
    assert main(["--windows", "1", "--seeds", "1", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_files_of_one_name_are_told_apart_by_their_runs_or_refused(tmp_path):
    paths = [tmp_path / f"run-{seed}" / "policy.onnx" for seed in (0, 1)] + [tmp_path / "other" / "a.onnx"]
    paths += [tmp_path / "another" / "a.onnx"]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(BUILT_IN.read_bytes())
    names = [str(path) for path in paths]
    assert [one.name for one in contestants_of([*names[:2], names[0]])] == ["run-0", "run-1"]
    with pytest.raises(ConfigError, match=r"two files are called 'a'; .*another/a.onnx' needs another name"):
        contestants_of(names)


def test_policies_of_another_kind_are_refused():
    autoscaler = Path(__file__).resolve().parents[2] / "controller" / "policies" / "builtin" / "default.onnx"
    assert autoscaler.is_file()
    with pytest.raises(ExportError, match="or other features than this version's schedulers"):
        contestant(str(autoscaler))


def test_the_preset_is_what_the_task_trains_and_other_algorithms_keep_the_library_network():
    task = load_task("scheduling")
    preset = load_preset("scheduling")
    task.check(preset)
    assert task.policy(preset)[0] is ServerScoringPolicy
    assert task.policy(load_preset("scheduling", algo="a2c")) is None
    with pytest.raises(ConfigError, match="algo: 'sac' is not allowed with env: scheduling"):
        task.check(load_preset("scheduling", algo="sac"))


@pytest.mark.skipif("RLSCALER_TRACES" not in os.environ, reason="needs the real recordings")
def test_real_recordings_of_jobs_can_be_scheduled():
    from sim.scheduling.recordings import recording
    from sim.traces import load_jobs

    path = Path(os.environ["RLSCALER_TRACES"]) / "jobs_nasa_ipsc1993_swf.csv"
    found = recording(load_jobs(path))
    protocol = Protocol(windows=2, jobs=300, seeds=1)
    outcome = play(contestant("keep-room"), protocol, found.windows(2, 300))
    assert (outcome.figures["slowdown"] >= 1.0).all()
    assert not outcome.figures["rejected"].any()
