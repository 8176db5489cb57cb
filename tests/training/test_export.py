"""The artifact equals the model, is what the operator loads, and says where it comes from."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from controller.core import ACTION_SCHEMAS, OBSERVATION_SCHEMA
from controller.policies import ArtifactSchemaMismatch
from controller.policies.loader import load_policy
from training.actions import AnchoredHead, Head, make_head
from training.algorithms import make_model
from training.artifact import (
    Provenance,
    add_evaluation,
    build_graph,
    metadata,
    parity,
    random_observations,
    read_metadata,
)
from training.config import Action, Network, Preset, load_preset
from training.errors import ConfigError, ExportError
from training.export import main
from training.networks import StandardisedFeatures, statistics
from training.recurrent import export_recurrent, load_recurrent, torch_policy
from training.stamps import ATTRIBUTE
from training.tasks import load_task

KINDS_OF = {
    "ppo": ("discrete", "band", "anchored", "continuous"),
    "a2c": ("anchored", "continuous"),
    "dqn": ("discrete", "band"),
    "sac": ("continuous",),
}


class Blind:
    """An environment with the spaces of a head, for models that are never trained."""

    def __new__(cls, head: Head) -> object:
        import gymnasium

        class Env(gymnasium.Env):  # type: ignore[type-arg]
            observation_space = gymnasium.spaces.Box(
                OBSERVATION_SCHEMA.low, OBSERVATION_SCHEMA.high, dtype=np.float32
            )
            action_space = head.space

        return Env()


def random_model(head: Head, network: Network | None = None, algo: str = "ppo") -> Any:
    """An untrained model whose statistics have been moved, as training moves them."""
    made = network or Network(actor=(32, 32), critic=(8,))
    preset = Preset(algo=algo, network=made)
    model = make_model(preset, DummyVecEnv([lambda: Blind(head)]), seed=1)
    for features in statistics(model.policy):
        features.update(random_observations(500, seed=5))
        features.widen(random_observations(500, seed=5))
    # untrained heads are all but indifferent: make the choices differ
    if algo in ("ppo", "a2c", "recurrent-ppo"):
        model.policy.action_net.weight.data.mul_(10.0 if head.sizes == [] else 100.0)
    return model


class OnnxPolicyOf:
    """A bare graph, run."""

    def __init__(self, data: bytes) -> None:
        self._session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Its actions."""
        return np.asarray(self._session.run(["action"], {"observation": observations})[0])


@pytest.mark.parametrize(("algo", "kind"), [(algo, kind) for algo in KINDS_OF for kind in KINDS_OF[algo]])
def test_the_graph_equals_the_model_over_random_observations(algo: str, kind: str) -> None:
    head = make_head(Action(kind=kind))
    model = random_model(head, algo=algo)
    data = build_graph(model.policy, head).SerializeToString()
    for count in (1, 7, 3000):
        assert parity(model, head, data, random_observations(count, seed=count)) <= 1e-5
    actions = OnnxPolicyOf(data).act(random_observations(500, seed=1))
    assert len(np.unique(actions.round(4), axis=0)) > 1


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
def test_every_activation_exports(activation: str) -> None:
    head = make_head(Action())
    model = random_model(head, Network(actor=(16,), critic=(8,), activation=activation, normalise=False))
    data = build_graph(model.policy, head).SerializeToString()
    assert parity(model, head, data, random_observations(500, seed=2)) <= 1e-5


def test_parity_notices_another_policy() -> None:
    head = make_head(Action())
    first, second = random_model(head), random_model(head)
    second.policy.action_net.weight.data.mul_(-1.0)
    data = build_graph(first.policy, head).SerializeToString()
    assert parity(second, head, data, random_observations(200, seed=0)) > 0.01


def test_the_operator_loads_what_training_exports(tiny_run: Path) -> None:
    policy = load_policy({"file": str(tiny_run / "policy.onnx")})
    observations = random_observations(64, seed=9)
    actions = policy.act(observations)
    assert policy.name == "tiny"
    assert policy.schema == OBSERVATION_SCHEMA.version
    assert actions.shape == (64, ACTION_SCHEMAS[policy.action_schema].size)
    assert np.isfinite(actions).all()


def test_metadata_say_how_to_make_the_policy_again(tiny_run: Path) -> None:
    content = read_metadata((tiny_run / "policy.onnx").read_bytes())
    assert content["observation_schema"]["digest"] == OBSERVATION_SCHEMA.digest
    assert content["observation_schema"]["features"] == list(OBSERVATION_SCHEMA.names)
    assert content["preference_range"] == [0, 100]
    provenance = content["provenance"]
    assert provenance["command"].startswith("python training/train.py ")
    assert "--preset" in provenance["command"]
    assert {"command", "seed", "git_commit", "workloads", "timesteps", "versions"} <= set(provenance)


def test_the_file_holds_no_paths_of_the_machine_that_made_it(tiny_run: Path) -> None:
    proto = onnx.load(str(tiny_run / "policy.onnx"))
    proto.ClearField("metadata_props")
    assert (
        b"/" not in proto.SerializeToString().replace(b"/v1", b"")
        or b"site-packages" not in proto.SerializeToString()
    )
    assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)


def test_an_evaluation_card_can_be_added_without_changing_the_graph(tiny_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "policy.onnx"
    copy.write_bytes((tiny_run / "policy.onnx").read_bytes())
    add_evaluation(copy, {"cost": 1.5})
    content = read_metadata(copy.read_bytes())
    assert content["evaluation"] == {"cost": 1.5}
    assert content["name"] == "tiny"
    assert onnx.load(str(copy)).graph == onnx.load(str(tiny_run / "policy.onnx")).graph


def test_export_py_makes_the_same_artifact_from_run_or_checkpoint(tiny_run: Path, tmp_path: Path) -> None:
    sources = (tiny_run, tiny_run / "checkpoints" / "000000000512.zip")
    graphs = []
    for number, source in enumerate(sources):
        out = tmp_path / f"{number}.onnx"
        assert main([str(source), "--out", str(out), "--name", "mine"]) == 0
        assert read_metadata(out.read_bytes())["name"] == "mine"
        graphs.append(onnx.load(str(out)).graph.SerializeToString())
    assert graphs[0] == graphs[1]


@pytest.mark.parametrize("name", ["absent", "absent.zip"])
def test_export_py_refuses_what_is_not_there(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / name)]) == 2
    assert "absent" in capsys.readouterr().err


def test_a_head_that_does_not_fit_the_model_is_refused() -> None:
    model = random_model(make_head(Action(kind="discrete")))
    with pytest.raises(ExportError, match="chooses in"):
        build_graph(model.policy, make_head(Action()))


def test_an_anchored_choice_is_a_band_over_the_largest_of_its_features() -> None:
    head = AnchoredHead(
        Action(anchors=(("load_max_60s", "season_1d"), ("season_1h",)), margins=(0.1, 0.5), gaps=(0.0, 0.2))
    )
    observations = np.zeros((3, OBSERVATION_SCHEMA.size), dtype=np.float32)
    names = list(OBSERVATION_SCHEMA.names)
    observations[:, names.index("load_max_60s")] = [0.3, 0.3, 0.3]
    observations[:, names.index("season_1d")] = [0.7, -1.0, 0.7]
    observations[:, names.index("season_1h")] = [-2.0, -2.0, -2.0]
    choices = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1]])
    assert head.decode(choices, observations) == pytest.approx(np.array([[0.8, 0.8], [0.8, 1.0], [0.1, 0.3]]))


def test_an_anchor_must_name_features() -> None:
    with pytest.raises(ConfigError, match="no_such_feature"):
        AnchoredHead(Action(anchors=(("no_such_feature",),)))


def test_running_moments_equal_those_of_all_the_data_at_once() -> None:
    batches = [random_observations(count, seed=count) for count in (50, 200, 3)]
    import gymnasium

    features = StandardisedFeatures(gymnasium.spaces.Box(-9, 9, (OBSERVATION_SCHEMA.size,), np.float32))
    for batch in batches:
        features.update(batch)
    everything = np.concatenate(batches)
    assert features.mean.numpy() == pytest.approx(everything.mean(axis=0), abs=1e-4)
    assert features.variance.numpy() == pytest.approx(everything.var(axis=0), rel=1e-3)


def test_a_continuous_choice_is_a_band_over_the_largest_load_of_a_minute() -> None:
    head = make_head(Action(kind="continuous", low_range=(0.0, 2.0), gap_range=(0.1, 0.5)))
    observations = np.zeros((3, OBSERVATION_SCHEMA.size), dtype=np.float32)
    observations[:, OBSERVATION_SCHEMA.names.index("load_max_60s")] = [0.3, -1.0, 0.0]
    numbers = np.array([[-1.0, -1.0], [0.0, 1.0], [5.0, 0.0]])
    assert head.decode(numbers, observations) == pytest.approx(np.array([[0.3, 0.4], [1.0, 1.5], [2.0, 2.3]]))


def test_the_metadata_hold_the_range_of_what_training_saw(tiny_run: Path) -> None:
    data = (tiny_run / "policy.onnx").read_bytes()
    seen = read_metadata(data)["observation_range"]
    assert len(seen["low"]) == len(seen["high"]) == OBSERVATION_SCHEMA.size
    place = OBSERVATION_SCHEMA.names.index("preference")
    assert 0.0 <= seen["low"][place] < 0.5 < seen["high"][place] <= 1.0
    assert load_policy({"file": str(tiny_run / "policy.onnx")}).metadata.observation_range is not None


def test_a_range_that_is_none_is_refused() -> None:
    size = OBSERVATION_SCHEMA.size
    provenance = Provenance("p", "1", "c", 0, "g", 1, "w", {})
    for low, high in ((np.ones(size), np.zeros(size)), (np.zeros(3), np.ones(3)), (np.zeros(size), np.inf)):
        with pytest.raises(ExportError, match="observation_range"):
            metadata("hold-band/v1", provenance, {}, (low, np.broadcast_to(high, np.shape(low))))


def test_a_zip_alone_is_enough_for_export_py(tiny_run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "some-model.zip"
    alone.write_bytes((tiny_run / "checkpoints" / "000000000512.zip").read_bytes())
    assert main([str(alone)]) == 0
    content = read_metadata((tmp_path / "some-model.onnx").read_bytes())
    assert content["provenance"]["timesteps"] == 512
    assert content["provenance"]["seed"] == 3
    assert "--preset" in content["provenance"]["command"]


def tampered(path: Path, out: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a model's zip whose stamp says something else."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data":
                fields = json.loads(content)
                change(fields[ATTRIBUTE])
                content = json.dumps(fields).encode()
            new.writestr(name, content)
    return out


def _older_observation(stamp: dict[str, Any]) -> None:
    features = stamp["schemas"]["observation"]["features"]
    features[0], features[1] = features[1], features[0]
    features[5] = "requests_yesterday"
    features.append("moon_phase")
    stamp["schemas"]["observation"]["version"] = "autoscale/v0"


def _other_action(stamp: dict[str, Any]) -> None:
    stamp["schemas"]["action"]["name"] = "relative-change/v0"


def _other_ranges(stamp: dict[str, Any]) -> None:
    stamp["schemas"]["observation"]["digest"] = "sha256:0"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(
            _older_observation,
            ["'autoscale/v0'", "missing: granularity", "unexpected: requests_yesterday, moon_phase",
             "moved: ready_over_load (place 0, now 1)", "features, now there are"],
            id="features",
        ),
        pytest.param(_other_action, ["action 'relative-change/v0' is now 'hold-band/v1'"], id="action"),
        pytest.param(_other_ranges, ["ranges"], id="ranges"),
    ],
)  # fmt: skip
def test_export_py_says_what_differs_in_a_model_of_another_version(
    change: Callable[[dict[str, Any]], None],
    words: list[str],
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tampered(tiny_run / "checkpoints" / "000000000512.zip", tmp_path / "old.zip", change)
    assert main([str(path)]) == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said
    assert not (tmp_path / "old.onnx").exists()


def test_a_run_folder_of_another_version_is_refused_too(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    schemas = json.loads((copy / "schemas.json").read_text())
    schemas["observation"]["features"].remove("preference")
    (copy / "schemas.json").write_text(json.dumps(schemas))
    assert main([str(copy)]) == 2
    assert "missing: preference" in capsys.readouterr().err


def test_a_zip_that_is_not_ours_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = tmp_path / "foreign.zip"
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("data", "{}")
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"no zip at all")
    for path, word in ((foreign, "not made by this version"), (broken, "not a Stable-Baselines3 model")):
        assert main([str(path)]) == 2
        assert word in capsys.readouterr().err


def test_a_recurrent_policy_is_exported_with_its_state_and_refused_by_the_operator(tmp_path: Path) -> None:
    head = make_head(Action())
    model = random_model(head, algo="recurrent-ppo")
    path = tmp_path / "recurrent.onnx"
    provenance = Provenance("remembers", "1", "c", 0, "g", 1, "w", {})
    assert export_recurrent(model, head, provenance, path) <= 1e-5
    with pytest.raises(ArtifactSchemaMismatch, match="recurrent/hold-band/v1"):
        load_policy({"file": str(path)})
    with pytest.raises(ExportError, match="hidden state"):
        build_graph(model.policy, head)

    served, own = load_recurrent(path), torch_policy(model.policy, head)
    assert served.name == "remembers"
    first, second = view_of([0, 1, 2], 1), view_of([2, 0], 2)
    assert served.recommend(first) == pytest.approx(own.recommend(first), abs=1.0)
    assert served.recommend(second) == pytest.approx(own.recommend(second), abs=1.0)
    assert served._state == pytest.approx(own._state, abs=1e-5)
    # each service has a memory of its own: row 1 was not asked again
    assert np.abs(served._state[:, :, 1]).max() > 0
    before = served._state[:, :, 1].copy()
    served.recommend(view_of([0], 3))
    assert np.array_equal(served._state[:, :, 1], before)


def view_of(rows: list[int], seed: int) -> Any:
    """What a policy looks at, for these services."""
    count = len(rows)
    return SimpleNamespace(
        rows=np.array(rows),
        features=random_observations(count, seed),
        current=np.full(count, 10),
        load=np.full(count, 5.0),
    )


def test_an_actor_of_any_environment_is_exported_in_a_schema_that_the_operator_refuses(
    tmp_path: Path,
) -> None:
    preset = load_preset("pools-ppo", num_envs=2)
    task = load_task("pools")
    env = task.make(preset, seed=0)
    model = make_model(preset, env, seed=0)
    path = tmp_path / "pools.onnx"
    published = task.export(model, preset, Provenance("pools", "1", "c", 0, "g", 1, "w", {}), path)
    assert published.difference is not None
    assert published.difference <= 1e-5
    assert "operator refuses" in published.note
    with pytest.raises(ArtifactSchemaMismatch, match="pools-flat/v1"):
        load_policy({"file": str(path)})
    observations = env.reset()
    served = OnnxPolicyOf(path.read_bytes()).act(observations)
    assert served == pytest.approx(model.predict(observations, deterministic=True)[0], abs=1e-5)
    assert len(published.card["observation_schema"]["features"]) == observations.shape[1]
