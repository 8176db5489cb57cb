"""The policy for pools: any number of pools in any order, one graph, training that can be repeated."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch

from benchmarks.pools_frontier import Estimate, Frontier, along, levels, samples
from benchmarks.pools_spot import OnDemandBatch, play_hpa, spot_sets
from controller.core.poolfeatures import POOL_SCHEMA, SET_SCHEMA
from sim.envs.pool_batch import PoolsBatch, PoolsConfig
from sim.errors import ParameterError
from sim.pool_baselines import equal
from training.artifact import read_metadata
from training.config import ConfigError, load_preset
from training.export import main as export_main
from training.poolsets.export import ServiceBand, export_pools, random_sets
from training.poolsets.learner import Learner, flat
from training.poolsets.network import DIAL, PoolsNetwork
from training.poolsets.playing import ArtifactDecider, Ejecting, Played, at_preference, play
from training.poolsets.run import config_of
from training.runs import RunFolder, read_metrics
from training.train import main as train_main

Floats = npt.NDArray[np.floating]
POOL = {name: column for column, name in enumerate(POOL_SCHEMA.names)}
TINY = """
name: tiny-pools
env: pools
algo: evolution
timesteps: 96
num_envs: 4
checkpoint_every: 32
environment: {horizon_steps: 8}
evolution: {width: 4}
"""


@pytest.fixture(scope="module")
def band() -> ServiceBand:
    """The built-in service policy's."""
    return ServiceBand.from_file()


@pytest.fixture(scope="module")
def network() -> PoolsNetwork:
    """One whose corrections are not 0."""
    torch.manual_seed(3)
    made = PoolsNetwork(8, seed=3)
    with torch.no_grad():
        made.out.normal_(0.0, 0.4)
        made.whole_out.normal_(0.0, 0.4)
    return made


@pytest.fixture(scope="module")
def artifact(network: PoolsNetwork, band: ServiceBand, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """It as a file."""
    path = tmp_path_factory.mktemp("pools") / "pools.onnx"
    assert export_pools(network, path, {"kind": "pools"}, band) <= 1e-5
    return path.read_bytes()


def shipped() -> bytes:
    return (resources.files("controller.policies") / "builtin" / "pools.onnx").read_bytes()


@pytest.mark.parametrize("count", range(1, 9))
def test_the_order_of_pools_means_nothing(artifact: bytes, count: int) -> None:
    decide = ArtifactDecider(artifact)
    pools, whole = random_sets(64, count, seed=11)
    order = np.random.default_rng(count).permutation(count)
    capacity, share = decide(pools, whole)
    moved_capacity, moved_share = decide(pools[:, order], whole)
    assert capacity.shape == share.shape == (64, count)
    assert moved_capacity == pytest.approx(capacity[:, order], abs=1e-6)
    assert moved_share == pytest.approx(share[:, order], abs=1e-6)
    assert ((capacity >= 0.0) & (capacity <= 4.0)).all()
    total = share.sum(axis=1)
    assert (np.isclose(total, 1.0, atol=1e-5) | (total == 0.0)).all()


def test_the_graph_leaves_the_number_of_sets_and_of_pools_open(artifact: bytes) -> None:
    graph = onnx.load_from_string(artifact).graph
    shapes = {
        one.name: [axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim]
        for one in (*graph.input, *graph.output)
    }
    assert shapes["pools"] == ["N", "P", POOL_SCHEMA.size]
    assert shapes["set"] == ["N", SET_SCHEMA.size]
    assert shapes["capacity"] == shapes["share"] == ["N", "P"]


def test_a_pool_that_is_not_there_changes_nothing_whatever_its_numbers_say(artifact: bytes) -> None:
    decide = ArtifactDecider(artifact)
    pools, whole = random_sets(64, 3, seed=5)
    pools[:, :, POOL["present"]] = 1.0
    nobody = np.random.default_rng(1).uniform(-3, 3, (64, 1, POOL_SCHEMA.size)).astype(np.float32)
    nobody[:, :, POOL["present"]] = 0.0
    capacity, share = decide(pools, whole)
    more_capacity, more_share = decide(np.concatenate([nobody, pools], axis=1), whole)
    assert more_capacity[:, 1:] == pytest.approx(capacity, abs=1e-6)
    assert more_share[:, 1:] == pytest.approx(share, abs=1e-6)
    assert (more_capacity[:, 0] == 0.0).all()
    assert (more_share[:, 0] == 0.0).all()


def test_the_artifact_equals_the_network_on_what_the_environment_shows(
    network: PoolsNetwork, artifact: bytes, band: ServiceBand
) -> None:
    batch = PoolsBatch(PoolsConfig(pools=5, horizon_steps=6), 16, seed=4)
    batch.reset()
    act = Ejecting(ArtifactDecider(artifact))
    for _ in range(6):
        cut = 5 * POOL_SCHEMA.size
        pools, whole = batch.observations[:, :cut].reshape(16, 5, -1), batch.observations[:, cut:].copy()
        served = ArtifactDecider(artifact)(pools, whole)
        with torch.no_grad():
            own = network(*(torch.from_numpy(one) for one in (pools.copy(), whole, band(whole))))
        for ours, theirs in zip(own, served, strict=True):
            assert theirs == pytest.approx(ours.numpy(), abs=1e-4)
        batch.step(act(batch))


def test_a_graph_that_differs_from_its_network_is_not_written(network: PoolsNetwork, tmp_path: Path) -> None:
    """Ties that single precision breaks otherwise show up as a difference: here, another service policy."""
    from training.errors import ExportError
    from training.poolsets.export import parity, pools_graph

    other = ServiceBand.from_file(Path(str(resources.files("controller.policies") / "builtin" / "ppo.onnx")))
    data = pools_graph(network, ServiceBand.from_file()).SerializeToString()
    assert parity(network, other, data) > 1e-3
    with pytest.raises(ExportError, match="cannot be read"):
        ServiceBand.from_file(tmp_path / "nothing.onnx")


def sick(pools: Floats, place: int) -> Floats:
    """The same, but one pool fails half its requests."""
    changed = pools.copy()
    changed[:, place, POOL["error_ratio"]] = np.sqrt(0.5)
    return changed


def like_pools(count: int) -> tuple[Floats, Floats]:
    """A healthy set of equal pools at a steady load, as the environment might show it."""
    pools = np.zeros((1, count, POOL_SCHEMA.size), dtype=np.float32)
    shares = {"load_share", "weight_in_force", "weight_asked", "ready_share"}
    for name in shares:
        pools[:, :, POOL[name]] = 1.0 / count
    now = np.log(1.6 / count)
    values = {
        "present": 1.0, "weight_room_up": 1.0 - 1.0 / count, "weight_room_down": 1.0 / count,
        "ready_over_load": np.log(1.6), "ready_over_set_load": now, "provisioned_over_set_load": now,
        "headroom_to_max": np.log(3.0), "headroom_to_min": np.log(10.0), "granularity": 1.0 / 11.0,
        "utilisation": 0.6, "latency_over_slo": -1.0, "latency_known": 1.0,
    }  # fmt: skip
    for name, value in values.items():
        pools[:, :, POOL[name]] = value
    whole = np.zeros((1, SET_SCHEMA.size), dtype=np.float32)
    columns = {name: column for column, name in enumerate(SET_SCHEMA.names)}
    known = {
        "provisioned_over_load": np.log(1.6), "ready_over_load": np.log(1.6), "granularity": 0.06,
        "utilisation": 0.6, "preference": 0.5, "pools": 1.0 / count, "headroom_to_max": 1.0,
    }  # fmt: skip
    for name, value in known.items():
        whole[:, columns[name]] = value
    return pools, whole


def test_a_fresh_network_is_a_sensible_formula(band: ServiceBand, tmp_path: Path) -> None:
    export_pools(PoolsNetwork(8), tmp_path / "fresh.onnx", {"kind": "pools"}, band)
    decide = ArtifactDecider((tmp_path / "fresh.onnx").read_bytes())
    pools, whole = like_pools(3)
    capacity, share = decide(pools, whole)
    assert share == pytest.approx(np.full((1, 3), 1 / 3), abs=1e-5)
    assert np.ptp(capacity) < 1e-5
    of_sick, less = decide(sick(pools, 1), whole)
    assert less[0, 1] < 0.5 * share[0, 1]
    assert of_sick[0, 0] > capacity[0, 0], "others take over what a sick pool cannot do"
    cheap = pools.copy()
    cheap[:, 2, POOL["price"]] = -1.0
    bought, _ = decide(cheap, whole)
    assert bought[0, 2] > 1.5 * bought[0, 0]
    capped = pools.copy()
    capped[:, 2, POOL["weight_room_up"]] = -0.3
    assert decide(capped, whole)[0][0, 2] < 0.5 * capacity[0, 2]


def test_training_is_a_function_of_its_seed(band: ServiceBand) -> None:
    preset = load_preset("pools", num_envs=4, environment={"horizon_steps": 6})
    config = PoolsConfig(horizon_steps=6, clones=2)
    found = []
    for seed in (0, 0, 1):
        learner = Learner(preset, config, band, seed, updates=2)
        for _ in range(2):
            learner.update()
        found.append(flat(learner.network))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[0], flat(PoolsNetwork(preset.evolution.width, 0)))


def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    preset = tmp_path / "tiny.yaml"
    preset.write_text(TINY)
    common = ["--no-evaluate", "--no-progress", "--out"]
    assert train_main(["--preset", str(preset), *common, str(tmp_path / "whole")]) == 0
    (whole,) = (tmp_path / "whole").iterdir()
    # what is lost are the checkpoints after the first
    cut = Path(shutil.copytree(whole, tmp_path / "cut"))
    for path in (cut / "checkpoints").glob("*"):
        if int(path.stem) > 32:
            path.unlink()
    assert train_main(["--resume", str(cut), *common[:2]]) == 0
    rows, again = read_metrics(whole / "metrics.csv"), read_metrics(cut / "metrics.csv")
    assert [row["timesteps"] for row in again] == [32.0, 64.0, 96.0]
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in rows], rel=1e-6)
    ends = [
        torch.load(RunFolder.open(run).latest_checkpoint().model, weights_only=True)["average"]
        for run in (whole, cut)
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert export_main([str(cut), "--out", str(tmp_path / "again.onnx")]) == 0
    content = read_metadata((tmp_path / "again.onnx").read_bytes())
    assert content["kind"] == "pools"
    assert content["action_schema"] == "pools-capacity-share/v1"
    assert content["pool_schema"]["digest"] == POOL_SCHEMA.digest
    assert content["set_schema"]["features"] == list(SET_SCHEMA.names)
    assert {name: len(one["low"]) for name, one in content["observation_range"].items()} == {
        "pools": POOL_SCHEMA.size, "set": SET_SCHEMA.size
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"evolution.width": 0}, "evolution.width: 0"),
        ({"evolution.average": 1.0}, "evolution.average: 1.0"),
        ({"evolution.price_exponent": [2.0, 1.0]}, "evolution.price_exponent"),
    ],
)
def test_settings_of_evolution_that_cannot_be_are_refused_by_name(
    overrides: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset("pools", **overrides)
    assert words in str(caught.value)


def test_what_pairs_need_is_not_left_to_the_environments_settings(band: ServiceBand) -> None:
    with pytest.raises(ConfigError, match=r"environment\.clones: not allowed"):
        config_of(load_preset("pools", environment={"clones": 3}))
    with pytest.raises(ConfigError, match="num_envs: 5 is not allowed"):
        Learner(load_preset("pools", num_envs=5), PoolsConfig(clones=2), band, 0, 1)
    with pytest.raises(ParameterError, match="clones"):
        PoolsConfig(clones=2, stagger=True)


def test_clones_live_through_the_same_episodes_as_long_as_they_do_the_same() -> None:
    batch = PoolsBatch(PoolsConfig(horizon_steps=4, clones=2), 6, seed=2)
    observations = batch.reset()
    rng = np.random.default_rng(0)
    for _ in range(6):
        assert np.array_equal(observations[0::2], observations[1::2])
        actions = np.repeat(rng.uniform(-1, 1, (3, 6)), 2, axis=0)
        observations = batch.step(actions).observations
    assert not np.array_equal(observations[0], observations[2])
    actions[1] = -actions[1]
    for _ in range(3):
        observations = batch.step(actions).observations
    assert not np.array_equal(observations[0], observations[1])


def test_frontiers_are_compared_where_they_cost_the_same() -> None:
    log_cost = np.log(np.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]))
    dear = Frontier((0.0, 1.0, 2.0), log_cost, np.array([[0.2, 0.4], [0.1, 0.2], [0.0, 0.0]]), log_cost)
    rows = samples(2)
    assert along(dear, "log_cost", np.log(2.0), "violation", rows)[0] == pytest.approx(0.15)
    assert along(dear, "log_cost", np.log(8.0) / 2, "violation", rows)[0] == pytest.approx(0.075)
    assert np.isnan(along(dear, "log_cost", np.log(5.0), "violation", rows)[0])
    cheap = Frontier((0.0, 1.0), log_cost[:2] - np.log(2.0), dear.violation[:2], log_cost[:2])
    (middle,) = levels((dear, cheap), "log_cost", (0.5,), rows)
    assert middle[0] == pytest.approx(np.log(1.0)), "both reach a cost of 1 only"
    apart = Estimate.of(np.concatenate([[0.1], np.linspace(-0.1, 0.3, 2001)]))
    assert (apart.low, apart.high) == pytest.approx((-0.09, 0.29), abs=1e-3)


def test_on_demand_alone_lives_through_the_same_traffic_on_one_pool() -> None:
    config = spot_sets(PoolsConfig(horizon_steps=6))
    together, alone = PoolsBatch(config, 4, seed=9), OnDemandBatch(config, 4, seed=9)
    for batch in (together, alone):
        batch.reset()
    assert np.array_equal(together.physics.rates, alone.physics.rates)
    assert np.array_equal(together.settings.ideal_cost, alone.settings.ideal_cost)
    assert (alone.settings.present.sum(axis=1) == 1).all()
    room = (together.settings.max_replicas * together.settings.capacity_rps).sum(axis=1)
    assert ((alone.settings.max_replicas * alone.settings.capacity_rps).sum(axis=1) >= 0.9 * room).all()
    costs = [play_hpa(config, target, 8, seed=9)["cost"].mean() for target in (0.8, 0.2)]
    assert costs[1] > 1.3 * costs[0], "a lower target buys more"


@pytest.fixture(scope="module")
def held_out() -> PoolsConfig:
    """Short episodes."""
    return PoolsConfig(horizon_steps=64)


def figures(played: Played) -> tuple[float, float]:
    """Geometric-mean cost and mean violations."""
    return float(np.exp(np.log(played["cost"]).mean())), float(played["violation"].mean())


def test_the_built_in_policy_is_cheaper_and_better_than_equal_weights(held_out: PoolsConfig) -> None:
    seed = 2**41
    policy = play(at_preference(held_out, 30.0), Ejecting(ArtifactDecider(shipped())), 64, seed)
    blind = play(held_out, lambda batch: equal(batch.view(), 3.0), 64, seed)
    (cost, violation), (dear, worse) = figures(policy), figures(blind)
    assert cost < 0.97 * dear
    assert violation < 0.9 * worse


def test_the_built_in_policy_says_what_it_is_and_where_it_comes_from() -> None:
    data = shipped()
    assert len(data) < 500_000
    content = read_metadata(data)
    preset = load_preset("pools")
    assert content["kind"] == "pools"
    assert content["pool_schema"]["digest"] == POOL_SCHEMA.digest
    assert content["set_schema"]["digest"] == SET_SCHEMA.digest
    provenance = content["provenance"]
    assert provenance["command"] == f"python training/train.py --env pools --seed {provenance['seed']}"
    assert provenance["timesteps"] >= preset.timesteps
    assert provenance["service_policy"].startswith("sha256:")
    card = content["evaluation"]
    assert card["command"].startswith("python -m benchmarks.pools")
    assert 0.0 < card["results"]["policy-at-40"]["violation"] < card["results"]["equal-2"]["violation"]
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert {one.name for one in session.get_inputs()} == {"pools", "set"}
    assert len(DIAL) == 17
